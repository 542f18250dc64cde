"""What the command prints: for people on a terminal, plain and stable into a pipe, or one JSON document.

Results go to stdout; notes, warnings and errors to stderr. With `--json` stdout has JSON and nothing else, and stderr
has one JSON object a line.
"""

import json
import re
import sys
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from modelhost.cli.errors import CommandError, ExitCode

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from rich.console import Console

Cell = str | tuple[str, str]
"""Text, or text and its style on a terminal."""

# Terminal commands (ESC …) and other control characters, but for the tab: models must not steer a terminal.
_CONTROLS = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|.)?|[\x00-\x08\x0a-\x1f\x7f-\x9f]")


def clean(text: str) -> str:
    """Return the text without what a terminal would obey."""
    return _CONTROLS.sub("", text)


def to_dict(message: "Message") -> dict[str, Any]:
    """Return a message in proto3's JSON mapping, with the field names of the .proto files."""
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)


class Output:
    """Where a verb's words go."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    @property
    def is_terminal(self) -> bool:
        """Whether a person is likely to read stdout as it is."""
        return not self.as_json and sys.stdout.isatty()

    def symbol(self, text: str, plain: str) -> str:
        """Return the text, or the plain one where stdout's encoding has no such characters."""
        try:
            text.encode(sys.stdout.encoding or "ascii")
        except (UnicodeEncodeError, LookupError):
            return plain
        return text

    @cached_property
    def console(self) -> "Console":
        """The terminal behind stdout."""
        from rich.console import Console

        return Console(highlight=False, markup=False, emoji=False)

    def document(self, document: "Message | dict[str, Any]") -> None:
        """Print the JSON document of a verb."""
        self._json(document, indent=2 if sys.stdout.isatty() else None)

    def json_line(self, document: "Message | dict[str, Any]") -> None:
        """Print one JSON document of a stream of them."""
        self._json(document, indent=None)

    def _json(self, document: "Message | dict[str, Any]", indent: int | None) -> None:
        content = document if isinstance(document, dict) else to_dict(document)
        print(json.dumps(content, indent=indent, ensure_ascii=False), flush=True)

    def line(self, text: str = "", style: str = "") -> None:
        """Print a line to stdout; a terminal wraps it where it must, nothing else does."""
        if self.is_terminal:
            self.console.print(clean(text), style=style or None, soft_wrap=True)
        else:
            print(clean(text), flush=True)

    def text(self, text: str) -> None:
        """Print a file's text: as it is into a pipe, without what a terminal would obey on one."""
        if self.is_terminal:
            text = "\n".join(map(clean, text.removesuffix("\n").split("\n"))) + "\n"
        sys.stdout.write(text)
        sys.stdout.flush()

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[Cell]], *, empty: str = "") -> None:
        """Print a table; where it has no rows, a terminal gets the sentence `empty` instead."""
        if self.is_terminal and not rows and empty:
            self.line(empty, style="dim")
        elif self.is_terminal:
            self._rich_table(headings, rows)
        else:
            self._plain_table([headings, *rows])

    def details(self, rows: Sequence[tuple[str, Cell]]) -> None:
        """Print names and values, one a line; rows without a value are left out."""
        rows = [(name, value) for name, value in rows if _text(value)]
        if self.is_terminal:
            self._rich_table(None, [((name, "dim"), value) for name, value in rows])
        else:
            self._plain_table(rows)

    def _rich_table(self, headings: Sequence[str] | None, rows: Sequence[Sequence[Cell]]) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table(
            box=None, pad_edge=False, show_header=headings is not None, header_style="bold", padding=(0, 2, 0, 0)
        )
        columns = list(zip(*rows, strict=True))
        widths = [max((len(_text(cell)) for cell in column), default=0) for column in columns]
        for index, heading in enumerate(headings or [""] * len(columns)):
            # Only the widest column gives way where the terminal is narrow.
            gives_way = bool(widths) and index == widths.index(max(widths))
            table.add_column(heading, overflow="fold", no_wrap=not gives_way)
        for row in rows:
            table.add_row(*(Text(_text(cell) or "-", style="" if isinstance(cell, str) else cell[1]) for cell in row))
        self.console.print(table)

    def _plain_table(self, rows: Sequence[Sequence[Cell]]) -> None:
        texts = [[_text(cell).replace("\n", " ") or "-" for cell in row] for row in rows]
        widths = [max(len(row[i]) for row in texts) for i in range(len(texts[0]))] if texts else []
        for row in texts:
            print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
        sys.stdout.flush()

    def beside(self, text: str, style: str = "") -> None:
        """Say on stderr what belongs to a result and is none; scripts are spared it."""
        if not self.as_json:
            self._to_stderr((text, style))

    def note(self, text: str) -> None:
        """Say on stderr what people may like to know; scripts are spared it."""
        if not self.as_json:
            self._aside("note", text, "dim")

    def warn(self, text: str) -> None:
        """Say on stderr what may not be as wanted."""
        if self.as_json:
            print(json.dumps({"warning": text}, ensure_ascii=False), file=sys.stderr)
        else:
            self._aside("warning", text, "yellow")

    def error(self, error: CommandError) -> None:
        """Say on stderr why the command failed."""
        if self.as_json:
            print(json.dumps(error.as_document(), ensure_ascii=False), file=sys.stderr)
            return
        if error.code is ExitCode.INTERRUPTED:
            self._aside("interrupted", error.message, "yellow")
        else:
            self._aside("error", error.message, "bold red")
        for detail in error.details:
            print(f"  {clean(detail)}", file=sys.stderr)
        if error.hint:
            self._aside("hint", error.hint, "bold")

    def _aside(self, label: str, text: str, style: str) -> None:
        self._to_stderr((f"{label}: ", style), (text, ""))

    def _to_stderr(self, *parts: tuple[str, str]) -> None:
        cleaned = [("\n".join(map(clean, text.splitlines())), style) for text, style in parts]
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.text import Text

            Console(stderr=True, highlight=False).print(Text.assemble(*cleaned), soft_wrap=True)
        else:
            print("".join(text for text, _ in cleaned), file=sys.stderr, flush=True)


def _text(cell: Cell) -> str:
    text = cell if isinstance(cell, str) else cell[0]
    return "\n".join(map(clean, text.splitlines()))
