"""Text within limits that are counted in bytes, and numbers of bytes as text."""

import re

_UNITS = {"": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def bytes_shown(number: int) -> str:
    """For people: `1.5 GiB`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if number >= _UNITS[unit.lower()]:
            return f"{number / _UNITS[unit.lower()]:.4g} {unit}"
    return f"{number} bytes"


def bytes_read(text: str) -> int:
    """The number of bytes that `2GiB`, `1.5 MiB` or `4096` says. Raises `ValueError`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if not match or match[2] not in _UNITS:
        raise ValueError(f"{text!r} is no size; write 512MiB, 2GiB or a number of bytes")
    return round(float(match[1]) * _UNITS[match[2]])


def cut(text: str, limit: int) -> str:
    """At most `limit` bytes of UTF-8, an ellipsis among them where something is missing; `?` for what UTF-8 lacks."""
    data = text.encode("utf-8", "replace")
    return data.decode() if len(data) <= limit else data[: limit - 3].decode("utf-8", "ignore") + "…"
