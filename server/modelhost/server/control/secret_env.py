"""Secret environment variables of a model: sealed in its settings, opened for its workers, cut out of what they say."""

import json
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote, quote_plus

from modelhost.server.vault import Vault

MASK = "***"
SHORTEST_PART = 4  # characters; cutting out shorter ones would only garble what is said
SHORTEST_LEAF = 8  # characters of a text within a secret that is JSON; shorter ones are mostly plain words
HALF_A_CHARACTER = "\ufffd"  # what decoding makes of bytes that were cut within a character


def sealed(vault: Vault, current: Mapping[str, str] | None, given: Mapping[str, str] | None) -> dict[str, str] | None:
    """The sealed secrets after a change: those given are set, those given as "" are removed, the others stay."""
    kept = {name: text for name, text in (current or {}).items() if name not in (given or {})}
    new = {name: vault.close(value, purpose(name)) for name, value in (given or {}).items() if value}
    return {**kept, **new} or None


def opened(vault: Vault, secrets: Mapping[str, str] | None) -> dict[str, str]:
    """Names and values. Raises `Conflict` SECRET_UNREADABLE."""
    return {name: vault.open(text, purpose(name)) for name, text in (secrets or {}).items()}


class Masker:
    """Takes the values out of a text: whole, line by line, and as JSON, Python and URLs write them."""

    def __init__(self, values: Iterable[str]) -> None:
        parts = {part for value in values for part in _forms(value) if len(part) >= SHORTEST_PART}
        self._longest_first = sorted(parts, key=len, reverse=True)

    def __call__(self, text: str, *, cut_before: bool = False, cut_after: bool = False) -> str:
        """The text without the values; where it was cut, also without the part of one that may be left there."""
        for part in self._longest_first:
            text = text.replace(part, MASK)
        if cut_before:
            text = text.lstrip(HALF_A_CHARACTER)
            head = max((_begins_with(text, part) for part in self._longest_first), default=0)
            text = MASK + text[head:] if head else text
        if cut_after:
            text = text.rstrip(HALF_A_CHARACTER)
            tail = max((_ends_with(text, part) for part in self._longest_first), default=0)
            text = text[:-tail] + MASK if tail else text
        return text


def _begins_with(text: str, part: str) -> int:
    """How many characters at the text's beginning are the end of a part; 0 for too few to tell anything."""
    last = part[-SHORTEST_PART:]
    at = text.rfind(last, 0, len(part) - 1)
    while at >= 0:
        if part.endswith(text[: at + SHORTEST_PART]):
            return at + SHORTEST_PART
        at = text.rfind(last, 0, at + SHORTEST_PART - 1)
    return 0


def _ends_with(text: str, part: str) -> int:
    """How many characters at the text's end are the beginning of a part; 0 for too few to tell anything."""
    first = part[:SHORTEST_PART]
    at = text.find(first, max(len(text) - len(part) + 1, 0))
    while at >= 0:
        if part.startswith(text[at:]):
            return len(text) - at
        at = text.find(first, at + 1)
    return 0


def _forms(value: str) -> set[str]:
    return {
        value,
        *(line.strip() for line in value.splitlines() if any(map(str.isalnum, line))),
        *(leaf for leaf in _leaves(value) if len(leaf) >= SHORTEST_LEAF),
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        repr(value)[1:-1],
        repr(value.encode())[2:-1],
        value.encode("unicode_escape").decode(),
        quote(value, safe=""),
        quote_plus(value),
        b64encode(value.encode()).decode().rstrip("="),
    }


def _leaves(value: str) -> Iterator[str]:
    """The texts in a secret that is a JSON document, as keys of service accounts are."""
    try:
        rest = [json.loads(value)]
    except (ValueError, RecursionError):
        return
    while rest:
        match rest.pop():
            case dict() as members:
                rest += members.values()
            case list() as items:
                rest += items
            case str() as text:
                yield text


def purpose(name: str) -> str:
    """What a secret variable is sealed for."""
    return f"environment variable {name}"
