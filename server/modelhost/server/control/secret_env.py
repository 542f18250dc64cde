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


def masker(values: Iterable[str]) -> Callable[[str], str]:
    """A function that cuts the values out of a text: whole, line by line, and as JSON, Python and URLs write them."""
    parts = {part for value in values for part in _forms(value) if len(part) >= SHORTEST_PART}
    longest_first = sorted(parts, key=len, reverse=True)

    def mask(text: str) -> str:
        for part in longest_first:
            text = text.replace(part, MASK)
        return text

    return mask if longest_first else _as_it_is


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


def _as_it_is(text: str) -> str:
    return text


def _purpose(name: str) -> str:
    return f"environment variable {name}"
