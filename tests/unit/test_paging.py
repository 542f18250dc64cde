"""Pages by key: sizes, tokens, and tokens that were not made here."""

import base64

import pytest

from modelhost.server.api import paging
from modelhost.server.errors import InvalidRequest
from modelhost.v1.error_reason_pb2 import ErrorReason

LISTING = "deployments"


def pages(keys: list[str], size: int) -> list[list[str]]:
    """All pages of a list, fetched as a client fetches them."""
    found, token = [], ""
    while True:
        after = paging.key_in(token, LISTING)
        page = [key for key in sorted(keys) if key > after][: size + 1]
        found.append(page[:size])
        token = paging.cut(LISTING, page, size)
        if not token:
            return found


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_pages_hold_everything_once_and_in_order(size: int) -> None:
    keys = ["a", "b b", "c\0c", "é", "😀", "zz", "zzz"]

    found = pages(keys, size)

    assert [key for page in found for key in page] == sorted(keys)
    assert all(len(page) == size for page in found[:-1])
    assert found[-1]


def test_an_empty_list_is_one_empty_page() -> None:
    assert pages([], 5) == [[]]


@pytest.mark.parametrize(("asked", "size"), [(0, 50), (1, 1), (1000, 1000), (1001, 1000), (2**31 - 1, 1000)])
def test_a_page_has_the_size_that_was_asked_for_up_to_a_limit(asked: int, size: int) -> None:
    assert paging.page_size(asked) == size


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(InvalidRequest) as caught:
        paging.page_size(-1)

    assert caught.value.field == "page_size"


def test_keys_that_are_no_utf8_come_back_as_they_were() -> None:
    token = paging.token("files", "caf\udce9.py")

    assert paging.key_in(token, "files", of_files=True) == "caf\udce9.py"


def test_a_key_that_is_no_utf8_is_none_of_a_list_whose_keys_are() -> None:
    with pytest.raises(InvalidRequest):
        paging.key_in(paging.token(LISTING, "caf\udce9"), LISTING)


def made_up(text: bytes) -> str:
    return base64.urlsafe_b64encode(text).decode()


@pytest.mark.parametrize(
    "token",
    [
        paging.token("revisions iris", "a"),
        paging.token("deployments ", "a"),
        made_up(b"deployments"),
        made_up(b"\xff\xfe\0a"),
        "not base64!",
        "abc",
        "é",
        "=",
    ],
)
def test_a_token_that_was_not_made_for_this_list_is_refused(token: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        paging.key_in(token, LISTING)

    assert caught.value.reason == ErrorReason.ERROR_REASON_PAGE_TOKEN_INVALID
    assert caught.value.field == "page_token"


def test_keys_that_are_numbers_come_back_as_numbers() -> None:
    assert paging.numbers_in("", LISTING, 2) == ()
    assert paging.numbers_in(paging.token(LISTING, "3 4096"), LISTING, 2) == (3, 4096)


@pytest.mark.parametrize("key", ["", "3", "3 4 5", "-3 4", "3 x", "3  4", "1.5 2", f"3 {2**63}", "3 " + "9" * 5000])
def test_keys_that_should_be_numbers_and_are_not_are_refused(key: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        paging.numbers_in(paging.token(LISTING, key), LISTING, 2)

    assert caught.value.reason == ErrorReason.ERROR_REASON_PAGE_TOKEN_INVALID
