"""Git LFS: the files behind pointers, through the batch API of the project.

https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md and …/basic-transfers.md
"""

from typing import Any
from urllib.parse import quote, urlsplit

from modelhost.server.errors import DomainError
from modelhost.server.sources.gitlab.client import Client
from modelhost.server.sources.gitlab.content import Damaged, Stream
from modelhost.server.sources.gitlab.errors import NotGitLab
from modelhost.server.sources.gitlab.projects import Project
from modelhost.server.sources.lfs_pointer import LfsPointer
from modelhost.server.sources.paths import refused

MEDIA_TYPE = "application/vnd.git-lfs+json"
_NO_LFS = (404, 501)


def open_lfs(client: Client, project: Project, path: str, pointer: LfsPointer) -> tuple[int, Stream]:
    """Start to get what a pointer stands for: its size and its bytes.

    Each call asks for leave anew, for that does not last long. The download goes wherever the answer says, with the
    headers that it says, and never with our token. Raises `Conflict` PATH_REFUSED where the file is not there,
    `Damaged` where another call may do.
    """
    href, headers = _leave(client, project, path, pointer)
    response = client.fetch(href, headers)
    if response.status_code in (404, 410):
        raise _missing(path)
    if response.status_code != 200:
        raise Damaged(f"the store of Git LFS answers with status {response.status_code}")
    return pointer.size, client.body(response)


def _leave(client: Client, project: Project, path: str, pointer: LfsPointer) -> tuple[str, dict[str, str]]:
    """Where the file is, and the headers that open it."""
    wanted = {"oid": pointer.oid, "size": pointer.size}
    body = {"operation": "download", "transfers": ["basic"], "objects": [wanted], "hash_algo": "sha256"}
    response = client.post_to_git(f"{quote(project.path)}.git/info/lfs/objects/batch", body, MEDIA_TYPE)
    if response.status_code in _NO_LFS:
        raise refused(path, "is a Git LFS pointer, but the project has no Git LFS")
    if response.status_code != 200:
        if response.status_code == 401:
            client.get("/user")  # says what is wrong with the token, if it is that
        raise client.explain_answer(response)
    try:
        answer: dict[str, Any] = response.json()["objects"][0]
        if answer["oid"] != pointer.oid:
            raise ValueError
        if "error" in answer or "actions" not in answer:
            raise _refusal(path, answer.get("error"), client)
        download = answer["actions"]["download"]
        href = str(download["href"])
        headers = {str(name): str(value) for name, value in (download.get("header") or {}).items()}
        scheme = urlsplit(href).scheme
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise client.explain(NotGitLab("Git LFS answers with what is no batch")) from None
    if scheme not in ("http", "https") or (scheme == "http" and client.place.url.startswith("https:")):
        raise client.explain(NotGitLab("Git LFS leads to where nothing is encrypted"))
    return href, headers


def _refusal(path: str, error: Any, client: Client) -> DomainError:
    """What the batch says of one object, in the codes of HTTP."""
    if not isinstance(error, dict) or error.get("code") in (404, 410):
        return _missing(path)
    return refused(path, f"cannot be had from Git LFS: {client.circumstances.cause(error.get('message', ''))}")


def _missing(path: str) -> DomainError:
    return refused(path, "is a Git LFS pointer, and GitLab lacks its file: `git lfs push --all` brings it there")
