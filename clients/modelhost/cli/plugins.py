"""Verbs that live elsewhere, as `serve` does with the server.

They are found through the entry-point group `modelhost.commands`: a name, and a function or typer app. Importing the
server takes longer than all the rest of `modelhost --help`, so a verb is imported when it is used; what `--help` says
of it before, its first sentence and whether its extra is installed, comes from its source and the package's metadata.
"""

import ast
import functools
import re
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution, entry_points, requires
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from modelhost.cli.errors import CommandError, ExitCode
from modelhost.cli.flags import BareFlags, Command, help_text

GROUP = "modelhost.commands"

_PACKAGE = "modelhost"
_PANEL = "Server"


class Verbs(BareFlags, TyperGroup):
    """The root's verbs: its own, then those of the entry points."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names, for `--help` and completion."""
        own = super().list_commands(ctx)
        return [*own, *sorted(entry_points(group=GROUP).names - set(own))]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of that name, or None."""
        if own := super().get_command(ctx, cmd_name):
            return own
        for entry_point in entry_points(group=GROUP, name=cmd_name):
            return _announced(entry_point)
        return None


class _Announced(Command):
    """A verb that is imported once it is used."""

    entry_point: EntryPoint

    def make_context(self, info_name: Any, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Return the context of the verb itself."""
        return _loaded(self.entry_point).make_context(info_name, args, parent, **extra)


def _announced(entry_point: EntryPoint) -> _Announced:
    app = typer.Typer(add_completion=False, rich_markup_mode="rich")
    text = f"(not available: {_remedy(entry_point)})" if _missing(entry_point) else _docstring(entry_point)
    app.command(entry_point.name, cls=_Announced, help=help_text(text), rich_help_panel=_PANEL)(lambda: None)
    command: Any = typer.main.get_command(app)
    command.entry_point = entry_point
    return command  # type: ignore[no-any-return]  # an _Announced, since that is its cls


def _loaded(entry_point: EntryPoint) -> Any:
    try:
        found = entry_point.load()
    except (ImportError, AttributeError) as error:
        raise _not_available(entry_point, error) from error
    if isinstance(found, typer.Typer):
        return typer.main.get_command(found)
    app = typer.Typer(add_completion=False, rich_markup_mode="rich")
    app.command(entry_point.name, cls=Command, help=help_text(found.__doc__ or ""))(_guarded(entry_point, found))
    return typer.main.get_command(app)


def _guarded(entry_point: EntryPoint, body: Callable[..., Any]) -> Callable[..., Any]:
    """Have what the body imports late fail as what it imports at once does."""

    @functools.wraps(body)
    def command(*args: Any, **kwargs: Any) -> Any:
        try:
            return body(*args, **kwargs)
        except ModuleNotFoundError as error:
            raise _not_available(entry_point, error) from error

    return command


def _not_available(entry_point: EntryPoint, error: Exception) -> CommandError:
    return CommandError(f"{entry_point.name} is not available: {error}", ExitCode.FAILED, _remedy(entry_point))


def _docstring(entry_point: EntryPoint) -> str:
    with suppress(ImportError, OSError, SyntaxError, ValueError):
        spec = find_spec(entry_point.module)
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8")) if spec and spec.origin else ast.Module([], [])
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name == entry_point.attr:
                return ast.get_docstring(node) or ""
    return ""


def _extra(entry_point: EntryPoint) -> str:
    """Return the extra that a verb of ours needs: that of `modelhost.server.commands` is `server`."""
    package, _, rest = entry_point.module.partition(".")
    return rest.partition(".")[0] if package == _PACKAGE else ""


def _missing(entry_point: EntryPoint) -> bool:
    extra = _extra(entry_point)
    for requirement in requires(_PACKAGE) or () if extra else ():
        name, _, marker = requirement.partition(";")
        if re.search(rf"extra\s*==\s*['\"]{extra}['\"]", marker):
            try:
                distribution(re.split(r"[^\w.-]", name.strip())[0])
            except PackageNotFoundError:
                return True
    return False


def _remedy(entry_point: EntryPoint) -> str:
    extra = _extra(entry_point)
    return f"pip install '{_PACKAGE}[{extra}]'" if extra else f"reinstall {entry_point.module.partition('.')[0]}"
