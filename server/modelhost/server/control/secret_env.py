"""Secret environment variables of a model: sealed in its settings, opened for its workers, cut out of what they say."""

import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import quote, quote_plus

from modelhost.server.vault import Vault

MASK = "***"
SHORTEST_PART = 4  # characters; cutting out shorter ones would only garble what is said


def sealed(vault: Vault, current: Mapping[str, str] | None, given: Mapping[str, str] | None) -> dict[str, str] | None:
    """The sealed secrets after a change: those given are set, those given as "" are removed, the others stay."""
    kept = {name: text for name, text in (current or {}).items() if name not in (given or {})}
    new = {name: vault.close(value, _purpose(name)) for name, value in (given or {}).items() if value}
    return {**kept, **new} or None


def opened(vault: Vault, secrets: Mapping[str, str] | None) -> dict[str, str]:
    """Names and values. Raises `VaultLocked`."""
    return {name: vault.open(text, _purpose(name)) for name, text in (secrets or {}).items()}


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
            text = MASK + text[head:] if (head := self._longest(text.startswith, lambda part, n: part[-n:])) else text
        if cut_after:
            text = text[:-tail] + MASK if (tail := self._longest(text.endswith, lambda part, n: part[:n])) else text
        return text

    def _longest(self, has: Callable[[str], bool], piece: Callable[[str, int], str]) -> int:
        """How many characters of a part stand at the text's end, if they are enough to tell something."""
        lengths = (
            length
            for part in self._longest_first
            for length in range(len(part) - 1, SHORTEST_PART - 1, -1)
            if has(piece(part, length))
        )
        return max(lengths, default=0)


def _forms(value: str) -> set[str]:
    return {
        value,
        *value.splitlines(),
        json.dumps(value)[1:-1],
        json.dumps(value, ensure_ascii=False)[1:-1],
        repr(value)[1:-1],
        repr(value.encode())[2:-1],
        value.encode("unicode_escape").decode(),
        quote(value, safe=""),
        quote_plus(value),
        b64encode(value.encode()).decode().rstrip("="),
    }


def _purpose(name: str) -> str:
    return f"environment variable {name}"
