"""Update masks (https://google.aip.dev/134): some fields of a message over another."""

from collections.abc import Collection
from typing import Any, TypeVar

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from modelhost.server.errors import InvalidRequest

M = TypeVar("M", bound=Message)


def merged(
    current: M, wanted: M, mask: FieldMask, *, mutable: Collection[str], parts: Collection[str]
) -> tuple[M, list[str]]:
    """Put the masked fields of `wanted` over `current`; also returns which: those that are set if the mask is empty.

    `mutable` are the paths that may be changed, with all below them. Of the fields named in `parts`, messages, an empty
    mask takes the fields that are set in them, not the whole. Raises `InvalidRequest` for a bad mask.
    """
    paths = [path for each in mask.paths for path in _checked(each, wanted, mutable)]
    if not mask.paths:
        paths = [path for path in _set_paths(wanted, parts) if _is_below(path, mutable)]
    result = type(current)()
    result.CopyFrom(current)
    for path in paths:
        _put(path.split("."), wanted, result)
    return result, paths


def _checked(path: str, message: Message, mutable: Collection[str]) -> list[str]:
    """A path of a mask; for a message that can be changed in parts only, the paths of these."""
    descriptor: Any = message.DESCRIPTOR  # the stubs know two kinds
    if FieldMask(paths=[path]).IsValidForDescriptor(descriptor):
        if _is_below(path, mutable):
            return [path]
        if within := [each for each in mutable if each.startswith(f"{path}.")]:
            return within
    raise InvalidRequest("update_mask", "{path} cannot be updated", path=repr(path[:80]))


def _is_below(path: str, mutable: Collection[str]) -> bool:
    return any(path == each or path.startswith(f"{each}.") for each in mutable)


def _put(path: list[str], wanted: Message, result: Message) -> None:
    """Make a field of `result` what it is in `wanted`, set or not. `FieldMask.MergeMessage` passes over what is not."""
    name, *rest = path
    if rest:
        _put(rest, getattr(wanted, name), getattr(result, name))
        return
    result.ClearField(name)
    for field, value in wanted.ListFields():
        if field.name == name and hasattr(value, "MergeFrom"):  # a message, a list or a map
            getattr(result, name).MergeFrom(value)
        elif field.name == name:
            setattr(result, name, value)


def _set_paths(message: Message, parts: Collection[str], prefix: str = "") -> list[str]:
    """Paths of what is set; of the messages in `parts`, the fields that are set in them."""
    paths: list[str] = []
    for field, value in message.ListFields():
        path = prefix + field.name
        paths += _set_paths(value, parts, f"{path}.") if field.name in parts else [path]
    return paths
