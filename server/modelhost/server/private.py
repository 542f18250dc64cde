"""Files for the server's user alone that are made once: keys and tokens."""

import os
from collections.abc import Callable
from pathlib import Path


def read_or_make(path: Path, make: Callable[[], str]) -> str:
    """Return the file's text without blanks around it; if there is no file, what `make` returns, which it then holds.

    A server that is killed leaves no half a file. Raises `OSError`.
    """
    if path.exists():
        return path.read_text("ascii", "replace").strip()
    text = make()
    write(path, text)
    return text


def write(path: Path, text: str) -> None:
    """Have a file hold a text, whole or not at all, and only for this user. Raises `OSError`."""
    draft = path.with_name(f".{path.name}")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.rename(draft, path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
