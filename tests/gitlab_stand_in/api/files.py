"""The tree, files and blobs of a repository. As in GitLab's lib/api/repositories.rb and lib/api/files.rb."""

import base64
import hashlib
import json
from itertools import dropwhile, islice
from typing import Any

from tests.gitlab_stand_in import git_data
from tests.gitlab_stand_in.answers import Answer, bad_request, json_answer, not_found
from tests.gitlab_stand_in.call import Call
from tests.gitlab_stand_in.git_data import TreeEntry
from tests.gitlab_stand_in.lfs import parse_pointer, served
from tests.gitlab_stand_in.pages import by_keyset, by_offset
from tests.gitlab_stand_in.world import Project


def tree(call: Call) -> Answer:
    """The page token is the path of the last entry, wrapped as Gitaly wraps it."""
    project = call.code()
    commit = call.commit(project, call.query.get("ref"))
    if commit is None:
        raise not_found("Tree")
    path = call.query.get("path", "")
    folder = git_data.entry(project.repo, commit, path) if path.strip("/") else None
    if path.strip("/") and (folder is None or folder.type != "tree"):
        raise not_found("invalid revision or path")
    found = git_data.entries(project.repo, commit, path, recursive=call.flag("recursive"))
    if call.query.get("pagination") == "none" and call.flag("recursive"):
        return json_answer([_entry(entry) for entry in found])
    if call.query.get("pagination") != "keyset":
        return by_offset(call, list(found), _entry)
    if token := call.query.get("page_token"):
        edge = _token_path(token)
        found = islice(dropwhile(lambda entry: entry.path != edge, found), 1, None)
    return by_keyset(call, found, _entry, _cursor)


def file(call: Call) -> Answer:
    if not call.query.get("ref"):
        raise bad_request("ref is empty" if "ref" in call.query else "ref is missing, ref is empty")
    project, commit, entry, content = _file(call)
    facts = _facts(call, project, commit, entry, content)
    if call.request.method == "HEAD":
        return Answer(200, headers=_headers(facts), content_type="text/plain")
    whole = facts | {"content": base64.b64encode(content).decode()}
    return json_answer(whole, headers=_headers(facts))


def raw_file(call: Call) -> Answer:
    """A file's bytes; with `lfs=true` those that its LFS pointer stands for."""
    project, commit, entry, content = _file(call)
    pointer = parse_pointer(content) if call.flag("lfs") else None
    if pointer is not None:
        if pointer.oid not in project.lfs_sizes:
            raise not_found()
        return served(call, project, pointer.oid)
    facts = _facts(call, project, commit, entry, content)
    disposition = ("Content-Disposition", f'inline; filename="{entry.name}"')
    return Answer(200, content, (*_headers(facts), disposition), content_type="text/plain; charset=utf-8")


def blob(call: Call) -> Answer:
    content = _blob(call)
    packed = base64.b64encode(content).decode()
    return json_answer({"size": len(content), "encoding": "base64", "content": packed, "sha": call.parts["sha"]})


def raw_blob(call: Call) -> Answer:
    return Answer(200, _blob(call), content_type="text/plain; charset=utf-8")


def _file(call: Call) -> tuple[Project, str, TreeEntry, bytes]:
    project = call.code()
    commit = call.commit(project, call.query.get("ref"))
    if commit is None:
        raise not_found("Commit")
    entry = git_data.entry(project.repo, commit, call.parts["file_path"])
    content = git_data.blob(project.repo, entry.id) if entry else None
    if entry is None or content is None:
        raise not_found("File")
    return project, commit, entry, content


def _blob(call: Call) -> bytes:
    content = git_data.blob(call.code().repo, call.parts["sha"])
    if content is None:
        raise not_found("Blob")
    return content


def _facts(call: Call, project: Project, commit: str, entry: TreeEntry, content: bytes) -> dict[str, Any]:
    return {
        "file_name": entry.name,
        "file_path": entry.path,
        "size": len(content),
        "encoding": "base64",
        "content_sha256": hashlib.sha256(content).hexdigest(),
        "ref": call.query.get("ref", ""),
        "blob_id": entry.id,
        "commit_id": commit,
        "last_commit_id": git_data.last_commit(project.repo, commit, entry.path),
        "execute_filemode": entry.mode == "100755",
    }


def _headers(facts: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """`X-Gitlab-Blob-Id` and so on."""
    named = ((name.replace("_", "-").title(), value) for name, value in facts.items())
    return tuple(
        (f"X-Gitlab-{name}", json.dumps(value) if isinstance(value, bool) else str(value)) for name, value in named
    )


def _entry(entry: TreeEntry) -> dict[str, str]:
    return {"id": entry.id, "name": entry.name, "type": entry.type, "path": entry.path, "mode": entry.mode}


def _cursor(entry: TreeEntry) -> dict[str, str]:
    token = json.dumps({"file_name": entry.path}, ensure_ascii=False, separators=(",", ":"))
    return {"page_token": base64.b64encode(token.encode()).decode()}


def _token_path(token: str) -> str:
    try:
        return str(json.loads(base64.b64decode(token, validate=True))["file_name"])
    except (ValueError, KeyError, TypeError) as error:
        raise bad_request("page_token is invalid") from error
