"""A commit with files of every kind, and how a source gives them."""

from modelhost.envs.process import Job
from modelhost.server.sources import Source
from tests.git_repos import Content, Executable, Link

FILES: dict[str, Content] = {
    "main.py": b"def predict(parameters):\r\n    return 1\n",
    "empty": b"",
    "run.sh": Executable(b"#!/bin/sh\n"),
    "lib/data set/\u00fc \U0001f600.bin": bytes(range(256)),
    "latest": Link("lib/data set"),
    ".hidden": b"x",
}
CONTENTS = {path: content for path, content in FILES.items() if isinstance(content, bytes)} | {
    "run.sh": b"#!/bin/sh\n",
    "latest": b"lib/data set",
}


class Log(list[str]):
    """A job's lines."""

    def job(self) -> Job:
        return Job(lambda stream, line: self.append(line))


def contents(source: Source, commit: str, project: str = "") -> dict[str, bytes]:
    """Every file of a commit."""
    entries = source.tree(project, commit, Job())
    files = dict.fromkeys((entry.path for entry in entries), b"")
    for entry, piece in source.blobs(project, commit, entries, Job()):
        files[entry.path] += piece
    return files
