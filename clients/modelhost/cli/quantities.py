"""Times, sizes and rates as people type them. Each raises a usage error that names the flag."""

import re
from datetime import datetime, timedelta

from modelhost.cli.errors import usage

_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400, "": 1}
_SIZES = {"": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_PERIODS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_MOST_SECONDS = 1e11  # more than any limit of the server's, and what timedelta can hold


def duration(text: str, flag: str) -> timedelta:
    """Read `30`, `30s`, `1.5m`, `2h`, `90d`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip())
    if not match or match[2] not in _SECONDS:
        raise usage(f"{flag}: {text!r} is no time", "write 30s, 5m, 1h or 90d")
    return timedelta(seconds=min(float(match[1]) * _SECONDS[match[2]], _MOST_SECONDS))


def byte_count(text: str, flag: str) -> int:
    """Read `4096`, `512MiB`, `1.5GiB`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if not match or match[2] not in _SIZES:
        raise usage(f"{flag}: {text!r} is no size", "write 512MiB, 2GiB or a number of bytes")
    return round(float(match[1]) * _SIZES[match[2]])


def per_second(text: str, flag: str) -> float:
    """Read `10/s`, `600/m`, `1000/h`; return how many that is in a second."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*/\s*([a-z]+)", text.strip())
    if not match or match[2] not in _PERIODS or not float(match[1]):
        raise usage(f"{flag}: {text!r} is no rate", "write 10/s, 600/m or 1000/h; leave it out for no limit")
    return float(match[1]) / _PERIODS[match[2]]


def instant(text: str, flag: str) -> datetime:
    """Read `2h`, that long ago, or `2026-11-28`, `2026-11-28T10:30`, by the reader's clock unless it says otherwise."""
    now = datetime.now().astimezone()
    try:
        if re.fullmatch(r"\d+(\.\d+)?\s*[a-z]+", text.strip()):
            return now - duration(text, flag)
        return datetime.fromisoformat(text.strip()).astimezone()
    except (ValueError, OverflowError):
        raise usage(f"{flag}: {text!r} is no time", "write 2h, 7d, 2026-11-28 or 2026-11-28T10:30") from None
