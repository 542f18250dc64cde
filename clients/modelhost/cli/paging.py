"""Lists, page by page."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

PAGE_SIZE = 1000


class Page(Protocol):
    """A list's answer."""

    next_page_token: str


P = TypeVar("P", bound=Page)


def pages(method: Callable[[Any], P], request: Any) -> Iterator[P]:
    """Yield every page of a list."""
    request.page_size = PAGE_SIZE
    while True:
        page = method(request)
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def whole(method: Callable[[Any], P], request: Any) -> P:
    """Return the whole list as if it were one page."""
    first, *others = pages(method, request)
    for page in others:
        first.MergeFrom(page)  # type: ignore[attr-defined]  # pages are messages; repeated fields are put end to end
    first.next_page_token = ""
    return first
