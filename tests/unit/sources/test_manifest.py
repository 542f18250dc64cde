"""What names a snapshot."""

import dataclasses
import hashlib

import pytest

from modelhost.server.sources import EntryKind
from modelhost.server.sources.manifest import SnapshotFile, digest_of, dump_manifest, load_manifest

SHA = hashlib.sha256(b"x").hexdigest()
FILES = (
    SnapshotFile("a b/ü\udcff", EntryKind.EXECUTABLE, 1, SHA),
    SnapshotFile("link", EntryKind.LINK, 1, SHA, link_target="x"),
    SnapshotFile("main.py", EntryKind.FILE, 1, SHA),
)


def test_the_digest_follows_its_written_rule() -> None:
    text = f'modelhost snapshot 1\n["main.py","file",1,"{SHA}"]\n'
    assert digest_of(FILES[2:]) == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    "change", [{"path": "main2.py"}, {"kind": EntryKind.EXECUTABLE}, {"size": 2}, {"sha256": "0" * 64}]
)
def test_whatever_differs_between_two_snapshots_gives_another_digest(change: dict[str, object]) -> None:
    changed = dataclasses.replace(FILES[2], **change)  # type: ignore[arg-type]
    assert digest_of([changed]) != digest_of(FILES[2:])


def test_a_manifest_is_read_as_it_was_written_names_that_are_not_utf8_included() -> None:
    assert load_manifest(dump_manifest(FILES)) == FILES


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"{}", b'{"version": 2, "files": []}', b'{"version": 1, "files": [{"path": "x"}]}', b"\xff",
     dump_manifest(FILES).replace(b'"link_target": "x"', b'"link_target": "/etc"'),
     dump_manifest(FILES).replace(b'"executable"', b'"socket"')],
)  # fmt: skip
def test_a_damaged_manifest_is_not_read(raw: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any of them: the caller only asks whether
        load_manifest(raw)
