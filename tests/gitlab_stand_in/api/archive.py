"""`/repository/archive`: made by the real `git archive`, so that export-ignore and export-subst apply as on GitLab.

As in lib/api/repositories.rb, `archive_prefix` of lib/gitlab/git/repository.rb, workhorse's internal/git/archive.go.
"""

import bz2
import subprocess
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from tests.gitlab_stand_in import git_data
from tests.gitlab_stand_in.answers import Answer, not_found
from tests.gitlab_stand_in.call import Call
from tests.gitlab_stand_in.world import Project

FORMATS = {"zip": "zip", "tar": "tar"}
FORMATS |= dict.fromkeys(("tar.gz", "tgz", "gz"), "tar.gz")
FORMATS |= dict.fromkeys(("tar.bz2", "tbz", "tbz2", "tb2", "bz2"), "tar.bz2")
PIECE = 64 * 1024
GZIP = 16 + zlib.MAX_WBITS

# What git runs on files that have the attribute `filter=lfs`: an LFS pointer in, the object out, if it is there.
SMUDGE = """#!/bin/sh
t=$(mktemp); cat > "$t"
oid=$(head -c 1024 "$t" | LC_ALL=C sed -n 's/^oid sha256:\\([0-9a-f]*\\)$/\\1/p')
if [ -n "$oid" ] && [ -f "$1/$oid" ]; then cat "$1/$oid"; else cat "$t"; fi
rm -f "$t"
"""


class Packer(Protocol):
    """A compressor of the standard library."""

    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


def archive(call: Call) -> Answer:
    """All files below `<project>-<ref>-<commit>/`, LFS objects in place of their pointers unless told otherwise."""
    project = call.code()
    form = FORMATS.get(call.parts.get("format") or "tar.gz")
    ref = call.query.get("sha") or git_data.default_branch(project.repo)
    commit = git_data.resolve(project.repo, ref) if ref else None
    if form is None or ref is None or commit is None:
        raise not_found("File")
    path = call.query.get("path", "").strip("/")
    prefix = "-".join(filter(None, [project.slug, ref.replace("/", "-"), commit, path.replace("/", "-")]))
    smudge = call.flag("include_lfs_blobs", default=True)
    pieces = _git_archive(project, commit, path, prefix, "zip" if form == "zip" else "tar", smudge=smudge)
    if path and git_data.entry(project.repo, commit, path) is None:
        pieces = iter(())  # GitLab finds out when it has already said 200, and sends nothing
    elif form.startswith("tar."):
        pieces = _packed(pieces, zlib.compressobj(6, zlib.DEFLATED, GZIP) if form == "tar.gz" else bz2.BZ2Compressor())
    return Answer(
        200,
        pieces,
        (("Content-Disposition", f'attachment; filename="{prefix}.{form}"'), ("Content-Transfer-Encoding", "binary")),
        content_type="application/zip" if form == "zip" else "application/octet-stream",
    )


def _git_archive(project: Project, commit: str, path: str, prefix: str, form: str, *, smudge: bool) -> Iterator[bytes]:
    lfs = []
    if smudge:
        script = _smudge_script(project.lfs_store)
        lfs = ["-c", f"filter.lfs.smudge={script} {project.lfs_store}", "-c", "filter.lfs.required=true"]
    command = ["git", f"--git-dir={project.repo.path}", "--literal-pathspecs", *lfs, "archive"]
    command += [f"--format={form}", f"--prefix={prefix}/", commit, "--", *([path] if path else [])]
    with subprocess.Popen(command, env=git_data.environment(), stdout=subprocess.PIPE) as making:
        assert making.stdout is not None
        try:
            while piece := making.stdout.read(PIECE):
                yield piece
        finally:
            making.kill()


def _packed(pieces: Iterable[bytes], packer: Packer) -> Iterator[bytes]:
    for piece in pieces:
        if packed := packer.compress(piece):
            yield packed
    yield packer.flush()


def _smudge_script(store: Path) -> Path:
    script = store.parent / "smudge"
    if not script.exists():
        script.write_text(SMUDGE)
        script.chmod(0o755)
    return script
