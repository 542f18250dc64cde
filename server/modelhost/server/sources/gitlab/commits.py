"""Refs, commits, trees and single files of a GitLab project.

https://docs.gitlab.com/api/branches/, …/tags/, …/commits/, …/repositories/ and …/repository_files/
"""

import contextlib
import hashlib
import itertools
import re
from collections.abc import Iterator

import requests

from modelhost.server.errors import Conflict, DomainError, NotFound
from modelhost.server.sources import EntryKind, FileContent, SourceRef, TreeEntry
from modelhost.server.sources.git.command import SHA256_DIGITS
from modelhost.server.sources.gitlab.client import PAGE, Client, Item, encoded
from modelhost.server.sources.gitlab.errors import FAILURES, NotGitLab
from modelhost.server.sources.gitlab.projects import Project
from modelhost.server.sources.paths import near, shown
from modelhost.v1.error_reason_pb2 import ErrorReason

NEAR_REFS_FROM = 500
FULL_HASH = (40, SHA256_DIGITS)

_HASH = re.compile(r"[0-9a-f]{4,64}")
_KINDS = {"100755": EntryKind.EXECUTABLE, "120000": EntryKind.LINK, "160000": EntryKind.SUBMODULE}


def list_refs(client: Client, project: Project) -> Iterator[SourceRef]:
    """All branches and then all tags, each by name."""
    for kind, is_tag in (("branches", False), ("tags", True)):
        query: dict[str, str | int] = {"pagination": "keyset"}
        if is_tag:
            query |= {"order_by": "name", "sort": "asc"}
        for item in client.list(f"{project.api}/repository/{kind}", **query) or ():
            name = client.text(item, "name")
            is_default = not is_tag and name == project.default_branch
            yield SourceRef(name, is_tag, _commit_of(client, item), is_default)


def resolve_ref(client: Client, project: Project, ref: str) -> str:
    """See `Source.resolve`: full hashes before branches, branches before tags, tags before short hashes.

    `refs/heads/…` and `refs/tags/…` say which is meant. Raises `NotFound` REF_NOT_FOUND.
    """
    lower = ref.lower()
    is_hash = bool(_HASH.fullmatch(lower))
    if is_hash and len(lower) in FULL_HASH:
        return _by_hash(client, project, lower)
    if not ref and not project.default_branch:
        raise _no_ref(project, "{place} has no default branch, or no commits yet")
    wanted = ref or project.default_branch
    for front, kind in (("refs/heads/", "branches"), ("refs/tags/", "tags")):
        for name in dict.fromkeys((wanted, wanted.removeprefix(front))):
            # 400 for what no ref may be called: `main~1`
            item = client.get(f"{project.api}/repository/{kind}/{encoded(name)}", none=(400, 404))
            if item is not None and client.text(item, "name") == name:
                return _commit_of(client, item)
    if is_hash:
        return _by_hash(client, project, lower)
    meant = near(wanted, (each.name for each in itertools.islice(list_refs(client, project), NEAR_REFS_FROM)))
    raise _no_ref(project, '{place} has no branch, tag or commit "{ref}"{near}', ref=shown(wanted), near=meant)


def read_tree(client: Client, project: Project, commit: str) -> list[TreeEntry]:
    """See `Source.tree`. Sizes are not known. Raises `Conflict` SNAPSHOT_TOO_LARGE, `NotFound` REF_NOT_FOUND."""
    items = client.list(
        f"{project.api}/repository/tree", ref=commit, recursive="true", pagination="keyset", per_page=PAGE
    )
    if items is None:  # also where the tree is empty
        _by_hash(client, project, commit)
        return []
    entries: list[TreeEntry] = []
    page_starts: set[str] = set()
    for number, item in enumerate(items):
        if number >= client.limits.max_tree_entries:
            raise Conflict(
                ErrorReason.ERROR_REASON_SNAPSHOT_TOO_LARGE, "commit {commit} has more than {most} files and folders",
                commit=commit, most=client.limits.max_tree_entries,
            )  # fmt: skip
        if number % PAGE == 0:
            client.job.check()
            if (start := f"{item.get('mode')} {item.get('path')}") in page_starts:
                raise client.explain(NotGitLab("the pages of a tree lead in a circle"))
            page_starts.add(start)
        if item.get("type") != "tree":
            entries.append(_entry(client, item))
    return sorted(entries, key=lambda entry: entry.path)


def read_file(client: Client, project: Project, commit: str, path: str, limit: int) -> FileContent:
    """See `Source.read_file`."""
    response = client.download(f"{project.api}/repository/files/{encoded(path)}/raw", ref=commit)
    if response is None:
        _by_hash(client, project, commit)
        raise NotFound(ErrorReason.ERROR_REASON_PATH_NOT_FOUND, 'the commit has no file "{path}"', path=shown(path))
    try:
        return _head(client, response, limit)
    except FAILURES as error:
        failure = error
    raise client.explain(failure)


def hash_of(blob: str, size: int) -> "hashlib._Hash":
    """Start the hash that Git has for a blob of `size` bytes, of the kind that `blob` is."""
    return (hashlib.sha256 if len(blob) == SHA256_DIGITS else hashlib.sha1)(b"blob %d\0" % size)


def _head(client: Client, response: requests.Response, limit: int) -> FileContent:
    """The first bytes of a raw file; checked against GitLab's own word on it where that is all of them."""
    blob = response.headers.get("X-Gitlab-Blob-Id", "")
    data = bytearray()
    with contextlib.closing(client.body(response)) as body:
        for piece in body:
            data += piece
            if len(data) > limit:
                break
    told = response.headers.get("X-Gitlab-Size") or response.headers.get("Content-Length") or ""
    size = int(told) if told.isascii() and told.isdigit() else len(data)
    if len(data) <= limit and blob:
        digest = hash_of(blob, len(data))
        digest.update(data)
        if digest.hexdigest() != blob:
            raise NotGitLab("a file has other bytes than its hash says")
        size = len(data)
    return FileContent(bytes(data[:limit]), max(size, len(data)))


def _by_hash(client: Client, project: Project, hash_: str) -> str:
    item = client.get(f"{project.api}/repository/commits/{hash_}")
    commit = None if item is None else client.text(item, "id")
    if commit is None or (len(hash_) not in FULL_HASH and not commit.startswith(hash_)):
        raise _no_ref(
            project, '{place} has no branch, tag or commit "{ref}"{how}',
            ref=hash_, how=", or several that begin so" if len(hash_) not in FULL_HASH else "",
        )  # fmt: skip
    return commit


def _commit_of(client: Client, item: Item) -> str:
    commit = item.get("commit")
    if not isinstance(commit, dict):
        raise client.explain(NotGitLab("its refs have no commit"))
    return client.text(commit, "id")


def _entry(client: Client, item: Item) -> TreeEntry:
    path, blob = client.text(item, "path"), client.text(item, "id")
    try:
        path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise client.explain(NotGitLab("its trees have names that are no text")) from None
    if len(blob) not in FULL_HASH or not _HASH.fullmatch(blob):
        raise client.explain(NotGitLab("its trees have hashes that are none"))
    return TreeEntry(path, _KINDS.get(client.text(item, "mode"), EntryKind.FILE), 0, blob)


def _no_ref(project: Project, template: str, **values: str) -> DomainError:
    return NotFound(ErrorReason.ERROR_REASON_REF_NOT_FOUND, template, place=project.name, **values)
