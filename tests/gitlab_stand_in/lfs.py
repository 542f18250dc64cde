"""Git LFS: the batch API, downloads through GitLab, and from object storage on another host.

As in GitLab's `lfs_api_controller.rb`, `lfs_storage_controller.rb`, and the Git LFS specification (docs/api/batch.md).
"""

import base64
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.gitlab_stand_in.access import DOWNLOAD_SCOPES
from tests.gitlab_stand_in.answers import Answer, Refused, json_answer, text_answer
from tests.gitlab_stand_in.call import Call
from tests.gitlab_stand_in.world import Project

CONTENT_TYPE = "application/vnd.git-lfs+json"
POINTER = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:ext-.*\n)*oid sha256:([0-9a-f]{64})\nsize (\d+)\n?"
)
POINTER_MAX_BYTES = 1024
ZEROS = bytes(64 * 1024)
STORAGE_SECONDS = 600


@dataclass(frozen=True)
class Pointer:
    oid: str
    size: int


def parse_pointer(content: bytes) -> Pointer | None:
    """The pointer that a file is; None if it is an ordinary file."""
    match = POINTER.fullmatch(content) if len(content) <= POINTER_MAX_BYTES else None
    return Pointer(match[1].decode(), int(match[2])) if match else None


def stored_bytes(project: Project, oid: str) -> Answer:
    """An object's bytes; zeros of the right number for one that is only pretended."""
    path = project.lfs_store / oid
    size = project.lfs_sizes[oid]
    body: bytes | Iterator[bytes] = path.read_bytes() if path.exists() else zeros(size)
    return Answer(200, body, content_type="application/octet-stream", length=None if path.exists() else size)


def zeros(size: int) -> Iterator[bytes]:
    """That many zero bytes."""
    while size > 0:
        yield ZEROS[:size]
        size -= len(ZEROS)


def batch(call: Call) -> Answer:
    """`POST /<project>.git/info/lfs/objects/batch`."""
    project = _project(call)
    try:
        asked = json.loads(call.request.body)
        objects, operation = asked["objects"], asked["operation"]
    except (ValueError, KeyError, TypeError):
        objects, operation = [], "download"
    if operation != "download":
        raise _refused(call, 403, "Access forbidden. Check your access level.")
    if not objects:
        raise _refused(call, 404, "Not found.")
    answer = {"objects": [_object(call, project, found["oid"], found["size"]) for found in objects]}
    return _lfs_json(answer)


def download(call: Call) -> Answer:
    """`GET /<project>.git/gitlab-lfs/objects/<oid>`: the bytes, or where in object storage they are."""
    project = _project(call)
    oid = call.parts["oid"]
    if oid not in project.lfs_sizes:
        raise _refused(call, 404, "Not found.")
    return served(call, project, oid)


def served(call: Call, project: Project, oid: str) -> Answer:
    """An object from where it is: out of GitLab's own hands, or by way of a signed URL of object storage."""
    if call.place.lfs_storage == "proxied":
        return stored_bytes(project, oid)
    url = _storage_url(call, project, oid)[0]
    text = f"This resource has been moved temporarily to {url}."
    return text_answer(text, 302).plus(("Location", url))


def storage(call: Call) -> Answer:
    """Object storage: a signed URL, and no other credentials, or it refuses; like S3 in XML."""
    if call.request.headers.get("Authorization"):
        text = "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string "
        return _xml(400, "InvalidArgument", f"{text}parameter or the Authorization header should be specified")
    expires = int(call.query.get("X-Amz-Expires-At", "0"))
    good = call.world.passes.signature(f"{call.parts['id']}/{call.parts['oid']}", expires)
    if call.query.get("X-Amz-Signature") != good:
        return _xml(403, "SignatureDoesNotMatch", "The request signature we calculated does not match.")
    if expires <= time.time():
        return _xml(403, "AccessDenied", "Request has expired")
    project = call.world.find_project(call.parts["id"])
    assert project is not None, "only what exists was signed"
    return stored_bytes(project, call.parts["oid"])


def no_such_key() -> Answer:
    """What object storage says of any other path."""
    return _xml(404, "NoSuchKey", "The specified key does not exist.")


def _project(call: Call) -> Project:
    """The project of the path, old paths included, if the credentials open it."""
    world, path = call.world, call.parts["path"]
    project = world.find_project(path) or world.find_moved(path)
    if project is not None and project.public and "Authorization" not in call.request.headers:
        return project
    user, password = call.request.basic
    token = world.tokens.get(password)
    passed = world.passes.good(password)
    if not passed and (not user or token is None or not token.active):
        raise _denied(call)
    if project is None or not (passed or project.visible(token)):
        raise _refused(call, 404, "Not found.")
    if token is not None and (token.guest or not set(DOWNLOAD_SCOPES) & set(token.scopes)):
        raise _refused(call, 403, "Access forbidden. Check your access level.")
    return project


def _object(call: Call, project: Project, oid: str, size: int) -> dict[str, Any]:
    if oid not in project.lfs_sizes:
        text = "Object does not exist on the server or you don't have permissions to access it"
        return {"oid": oid, "size": size, "error": {"code": 404, "message": text}}
    if call.place.lfs_storage == "direct":
        url, expires = _storage_url(call, project, oid)
        moment = datetime.fromtimestamp(expires, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        actions: dict[str, Any] = {"href": url, "expires_at": moment}
    else:
        login = f"{call.world.owner.username}:{call.world.passes.give()}"
        header = {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}
        actions = {"href": f"{call.place.external_url}/{project.path}.git/gitlab-lfs/objects/{oid}", "header": header}
    return {"oid": oid, "size": size, "actions": {"download": actions}}


def _storage_url(call: Call, project: Project, oid: str) -> tuple[str, int]:
    expires = int(time.time()) + STORAGE_SECONDS
    signature = call.world.passes.signature(f"{project.id}/{oid}", expires)
    query = f"X-Amz-Expires-At={expires}&X-Amz-Signature={signature}"
    return f"{call.place.storage_url}/lfs/{project.id}/{oid}?{query}", expires


def _denied(call: Call) -> Refused:
    text = (
        "HTTP Basic: Access denied. If a password was provided for Git authentication, the password was incorrect or "
        "you're required to use a token instead of a password. If a token was provided, it was either incorrect, "
        f"expired, or improperly scoped. See {call.place.external_url}/help/topics/git/troubleshooting_git.md"
        "#error-on-git-fetch-http-basic-access-denied"
    )
    return Refused(text_answer(text, 401).plus(("WWW-Authenticate", 'Basic realm="GitLab"')))


def _refused(call: Call, status: int, text: str) -> Refused:
    return Refused(_lfs_json({"message": text, "documentation_url": f"{call.place.external_url}/help"}, status))


def _lfs_json(value: Any, status: int = 200) -> Answer:
    return Answer(status, json_answer(value).whole(), content_type=f"{CONTENT_TYPE}; charset=utf-8")


def _xml(status: int, code: str, text: str) -> Answer:
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{text}</Message></Error>'
    return Answer(status, body.encode(), content_type="application/xml")
