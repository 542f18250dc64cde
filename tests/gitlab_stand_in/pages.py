"""Pagination: by offset with `X-*` headers, by keyset with nothing but a `Link`.

As in https://docs.gitlab.com/api/rest/#pagination, lib/gitlab/pagination/{offset_header_builder,gitaly_keyset_pager}.rb
and lib/gitlab/pagination/keyset/{pager,header_builder}.rb.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any
from urllib.parse import urlencode

from tests.gitlab_stand_in.answers import Answer, Refused, bad_request, json_answer
from tests.gitlab_stand_in.call import Call

Entity = Callable[[Any], Any]
Cursor = Callable[[Any], Mapping[str, str]]

DEFAULT_PER_PAGE = 20
MAX_PER_PAGE = 100
MAX_COUNTED = 10_000


def per_page(query: Mapping[str, str]) -> int:
    """How many a page holds: at most 100, whatever was asked for."""
    number = _positive(query, "per_page", DEFAULT_PER_PAGE)
    return min(number, MAX_PER_PAGE)


def by_offset(call: Call, items: Sequence[Any], entity: Entity, *, counted: bool = True) -> Answer:
    """The page that `page` and `per_page` name.

    Where GitLab does not count, and beyond 10,000, there are no totals and no link to the last page.
    """
    size, page = per_page(call.query), _positive(call.query, "page", 1)
    pages = max(1, -(-len(items) // size))
    following = page + 1 if page < pages else None
    previous = page - 1 if page > 1 else None

    def link(number: int, relation: str) -> str:
        return f'<{_url(call, page=number, per_page=size)}>; rel="{relation}"'

    links = [link(previous, "prev")] if previous else []
    links += [link(following, "next")] if following else []
    links.append(link(1, "first"))
    headers = {"X-Per-Page": size, "X-Page": page, "X-Next-Page": following or "", "X-Prev-Page": previous or ""}
    if counted and len(items) <= MAX_COUNTED:
        links.append(link(pages, "last"))
        headers |= {"X-Total": len(items), "X-Total-Pages": pages}
    headers["Link"] = ", ".join(links)
    chosen = items[(page - 1) * size : page * size]
    named = tuple((name, str(value)) for name, value in headers.items())
    return json_answer([entity(item) for item in chosen], headers=named)


def by_keyset(call: Call, items: Iterable[Any], entity: Entity, cursor: Cursor, *, looks_ahead: bool = True) -> Answer:
    """The first page of what comes after the cursor, and a link to the next one.

    Lists out of Git know whether there is more; those out of the database do not and link to an empty last page.
    """
    size = per_page(call.query)
    rest = iter(items)
    chosen = list(islice(rest, size))
    answer = json_answer([entity(item) for item in chosen])
    if chosen and (not looks_ahead or next(rest, None) is not None):
        url = _url(call, per_page=size, **cursor(chosen[-1]))
        answer = answer.plus(("Link", f'<{url}>; rel="next"'))
    return answer


def no_keyset() -> Refused:
    """Lists that only know offsets."""
    return Refused(json_answer({"error": "Keyset pagination is not yet available for this type of request"}, 405))


def _url(call: Call, **changed: object) -> str:
    """The request's URL with other parameters; the variable parts of its path are among them, as with GitLab."""
    return f"{call.url}?{urlencode(sorted({**call.query, **call.parts, **changed}.items()))}"


def _positive(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name) or str(default)
    if not text.removeprefix("-").isdecimal():
        raise bad_request(f"{name} is invalid")
    return max(1, int(text))
