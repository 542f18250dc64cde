"""What the tests of the GitLab source share: sources of a stand-in that lose no time, and what they read."""

from dataclasses import replace
from pathlib import Path

import pytest

from modelhost.envs.process import Job
from modelhost.server.errors import DomainError, reason_name
from modelhost.server.sources import Source
from modelhost.server.sources.gitlab.place import GitLabLimits, parse_place
from modelhost.server.sources.gitlab.source import GitLabSource
from modelhost.server.sources.outgoing import Outgoing
from tests.git_repos import Content, Executable, Link
from tests.gitlab_stand_in import GitLab
from tests.local_hosts import LOCAL

QUICK = GitLabLimits(connect_timeout=5, read_timeout=5, answer_timeout=20, download_timeout=60, backoff=0.01)

FILES: dict[str, Content] = {
    "main.py": b"def predict(parameters):\r\n    return 1\n",
    "empty": b"",
    "run.sh": Executable(b"#!/bin/sh\n"),
    "lib/data set/\u00fc \U0001f600.bin": bytes(range(256)),
    "lib/Main.py": b"upper\n",
    "lib/main.py": b"lower\n",
    "latest": Link("lib/data set"),
    ".hidden": b"x",
    "a-b": b"1",
    "a/b": b"2",
    "-rf": b"3",
    "100%/#?&.txt": b"4",
}
CONTENTS = {path: content for path, content in FILES.items() if isinstance(content, bytes)} | {
    "run.sh": b"#!/bin/sh\n",
    "latest": b"lib/data set",
}


def a_source(
    gitlab: GitLab,
    folder: Path,
    *,
    token: str = "",
    namespace: str = "",
    url: str = "",
    ca_certificates: str = "",
    insecure_skip_verify: bool = False,
    token_expires: float | None = None,
    outgoing: Outgoing = LOCAL,
    **limits: float,
) -> GitLabSource:
    """A source of the stand-in, with a good token unless another is given; `limits` are those of `GitLabLimits`."""
    place = parse_place(
        url or gitlab.url, namespace, ca_certificates=ca_certificates, insecure_skip_verify=insecure_skip_verify
    )
    quick = replace(QUICK, **limits)  # type: ignore[arg-type]  # whole numbers where these are wanted
    return GitLabSource(
        place, token or gitlab.token(), folder / "cache", outgoing, limits=quick, token_expires=token_expires
    )


def contents(source: Source, project: str, commit: str, job: Job | None = None) -> dict[str, bytes]:
    """Every file of a commit."""
    entries = source.tree(project, commit, job or Job())
    files = dict.fromkeys((entry.path for entry in entries), b"")
    for entry, piece in source.blobs(project, commit, entries, job or Job()):
        files[entry.path] += piece
    return files


class Refusal:
    """A block that must fail with a domain error, and its `reason` and `message`."""

    def __init__(self) -> None:
        self._raises = pytest.raises(DomainError)

    def __enter__(self) -> "Refusal":
        self._caught = self._raises.__enter__()
        return self

    def __exit__(self, *args: object) -> bool:
        return bool(self._raises.__exit__(*args))  # type: ignore[arg-type]

    @property
    def error(self) -> DomainError:
        return self._caught.value

    @property
    def reason(self) -> str:
        return reason_name(self.error.reason)

    @property
    def message(self) -> str:
        return self.error.message


def refusal() -> Refusal:
    return Refusal()
