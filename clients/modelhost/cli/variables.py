"""Environment variables of a model, as the command line gives them.

The value of a secret never stands on a command line, where lists of processes and the shell's history show it: it
comes from a variable of the same name, or from a file.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from modelhost.cli.errors import usage


def plain(texts: Iterable[str]) -> dict[str, str]:
    """Read `NAME=VALUE`; raises usage errors."""
    return dict(_plain(text) for text in texts)


def _plain(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise usage(f"--env: {text!r} is no variable", "write NAME=VALUE")
    return name, value


def secret(texts: Iterable[str]) -> dict[str, str]:
    """Read `NAME`, whose value is the command's own variable of that name, or `NAME=@FILE`.

    Of a file, the line break at its end is left out. Raises usage errors, which never tell the value.
    """
    return dict(_secret(text) for text in texts)


def _secret(text: str) -> tuple[str, str]:
    name, equals, place = text.partition("=")
    if not name:
        raise usage("--secret-env: a name is missing", "write NAME or NAME=@FILE")
    if equals and not place.startswith("@"):
        raise usage(
            f"--secret-env {name}=…: a value on the command line is no secret: lists of processes and the shell's"
            " history show it",
            f"export {name} and write --secret-env {name}, or write --secret-env {name}=@FILE",
        )
    value = _content(name, Path(place[1:]).expanduser()) if equals else os.environ.get(name)
    if value is None:
        raise usage(
            f"--secret-env {name}: there is no variable {name} to take the value from",
            f"export {name} before, or write --secret-env {name}=@FILE",
        )
    if not value:
        raise usage(f"--secret-env {name}: the value is empty", f"--unset-secret-env {name} removes it")
    return name, value


def _content(name: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise usage(f"--secret-env {name}: cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise usage(f"--secret-env {name}: {path} is not UTF-8 at byte {error.start}") from None  # it holds the value


def removed(names: Iterable[str], present: Iterable[str], given: Iterable[str], flag: str) -> list[str]:
    """Return names to remove; raises a usage error for one that is not set, or `given` a value at once."""
    known, chosen = sorted(present), list(names)
    for name in chosen:
        if name in given:
            raise usage(f"{flag} {name}: it is given a value at once")
        if name not in known:
            raise usage(f"{flag} {name}: it is not set", f"set are: {', '.join(known)}" if known else "none is set")
    return chosen
