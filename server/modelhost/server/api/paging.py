"""Pages by key: a token holds the last key of the page before, and the list it belongs to."""

import base64
import binascii

from modelhost.server.errors import InvalidRequest
from modelhost.v1.error_reason_pb2 import ErrorReason

DEFAULT_SIZE = 50
MAX_SIZE = 1_000
DIGITS = 18  # of the numbers that SQLite and files can count with


def page_size(asked: int, *, default: int = DEFAULT_SIZE, most: int = MAX_SIZE) -> int:
    """How many to return. Raises `InvalidRequest` if negative."""
    if asked < 0:
        raise InvalidRequest("page_size", "page_size must not be negative, but is {page_size}", page_size=asked)
    return min(asked or default, most)


def token(listing: str, key: str) -> str:
    """An opaque token for the page after `key`; `listing` names the list and its filters."""
    # Keys are names of files, too, and these need not be UTF-8.
    return base64.urlsafe_b64encode(f"{listing}\0{key}".encode(errors="surrogateescape")).decode()


def key_in(page_token: str, listing: str, *, of_files: bool = False) -> str:
    """The key in a token; "" for the first page. Raises `InvalidRequest` if it is not one for this list.

    What is `of_files` need not be UTF-8: it has surrogates then, which SQLite takes from nobody.
    """
    if not page_token:
        return ""
    try:
        errors = "surrogateescape" if of_files else "strict"
        plain = base64.b64decode(page_token, b"-_", validate=True).decode(errors=errors)
        found, separator, key = plain.partition("\0")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        found = separator = key = ""
    if not separator or found != listing:
        raise invalid()
    return key


def numbers_in(page_token: str, listing: str, count: int) -> tuple[int, ...]:
    """The key in a token as so many numbers; none for the first page. Raises as `key_in` does."""
    key = key_in(page_token, listing)
    if not key and not page_token:
        return ()
    parts = key.split(" ")
    if len(parts) != count or not all(part.isdecimal() and len(part) <= DIGITS for part in parts):
        raise invalid()
    return tuple(map(int, parts))


def cut(listing: str, keys: list[str], size: int) -> str:
    """The next page's token, where `keys` are those of one more than a page, if there are so many."""
    return token(listing, keys[size - 1]) if len(keys) > size else ""


def invalid() -> InvalidRequest:
    """The refusal of a token that is not for the list."""
    return InvalidRequest(
        "page_token",
        "page_token was not made for this list; leave it empty to begin anew",
        reason=ErrorReason.ERROR_REASON_PAGE_TOKEN_INVALID,
    )
