"""Copies of single files."""

import os
from pathlib import Path

import pytest

from modelhost.server.sources.copying import copy_file


@pytest.mark.parametrize("content", [b"", b"x", os.urandom(3_000_000)], ids=len)
def test_a_copy_has_the_bytes_and_is_independent(tmp_path: Path, content: bytes) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(content)
    copy_file(str(source), str(copy), size=len(content), mode=0o755)
    assert copy.read_bytes() == content
    assert copy.stat().st_mode & 0o700 == 0o700
    with copy.open("r+b") as file:
        file.write(b"changed")
    assert source.read_bytes() == content
    assert copy.stat().st_nlink == 1


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"new")
    (tmp_path / "copy").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        copy_file(str(tmp_path / "source"), str(tmp_path / "copy"), size=3, mode=0o644)
    assert (tmp_path / "copy").read_bytes() == b"old"


def test_a_source_of_another_size_is_not_copied(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"longer")
    with pytest.raises(ValueError, match="3 bytes"):
        copy_file(str(tmp_path / "source"), str(tmp_path / "copy"), size=3, mode=0o644)
