"""Rows to values and back: columns by name, nested values as JSON."""

from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec

from modelhost.server.store.database import Row

T = TypeVar("T")


def encode(value: object) -> str:
    """A nested value as canonical JSON."""
    return msgspec.json.encode(value, order="sorted").decode()


def decode_row(kind: type[T], columns: str, row: Row) -> T:
    """Build a value of a resource's class from a row of the named columns; columns of dataclasses hold JSON."""
    nested = _nested(kind)  # type: ignore[arg-type]  # mypy does not take a class for hashable
    flags = _flags(kind)  # type: ignore[arg-type]
    values = {
        name: msgspec.json.decode(value, type=nested[name])
        if name in nested and isinstance(value, str)
        else bool(value)
        if name in flags
        else value
        for name, value in zip(_names(columns), row, strict=True)
    }
    return msgspec.convert(values, kind)


@cache
def _names(columns: str) -> tuple[str, ...]:
    return tuple(name.strip().strip('"') for name in columns.split(","))


@cache
def _flags(kind: Any) -> frozenset[str]:
    """Fields that SQLite holds as 0 or 1."""
    hints = get_type_hints(kind)
    return frozenset(field.name for field in fields(kind) if hints[field.name] is bool)


@cache
def _nested(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {
        field.name: hints[field.name]
        for field in fields(kind)
        if any(is_dataclass(option) for option in (hints[field.name], *get_args(hints[field.name])))
    }
