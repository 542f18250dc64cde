import random
import zlib
from collections.abc import Iterator

import pytest

from modelhost.server.sources import EntryKind, TreeEntry
from modelhost.server.sources.gitlab.archive import _TooLong, _Unzipped, archive_directory
from modelhost.server.sources.gitlab.content import Damaged


def entries(*paths: str) -> list[TreeEntry]:
    return [TreeEntry(path, EntryKind.FILE, 0, "1" * 40) for path in paths]


def numbered(front: str, count: int) -> list[TreeEntry]:
    return entries(*(f"{front}{number}" for number in range(count)))


@pytest.mark.parametrize(
    ("wanted", "rest", "directory"),
    [
        (numbered("a/b/", 4), 0, None),
        (numbered("a/b/", 5), 0, "a/b"),
        (numbered("a/b/", 5), 15, "a/b"),
        (numbered("a/b/", 5), 16, None),
        (numbered("a/b/", 500), 5000, "a/b"),
        (entries("a/b", "a/c/d", "a/c/e", "a/f/g/h", "a/i"), 0, "a"),
        (entries("a/b", "ab/c", "a/c", "a/d", "a/e"), 0, ""),
        (entries("a", "b", "c", "d", "e"), 0, ""),
        (numbered("a\ud800/", 9), 0, None),
    ],
)
def test_an_archive_is_got_where_much_of_it_is_wanted(
    wanted: list[TreeEntry], rest: int, directory: str | None
) -> None:
    elsewhere = numbered("z/", 100) if directory else []
    tree = [*wanted, *numbered("a/b/more/", rest), *elsewhere]
    assert archive_directory(wanted, tree) == directory
    if not rest:
        assert archive_directory(wanted, None) == directory


def in_pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(0, len(data), size))


def gzipped(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize("size", [1, 7, 1000, 10**6])
def test_gzip_is_read_in_pieces_of_any_size(size: int) -> None:
    data = random.Random(1).randbytes(5000) + bytes(5000)
    unzipped = _Unzipped(in_pieces(gzipped(data), size), 10_000)
    assert b"".join(iter(lambda: unzipped.read(333), b"")) == data


def test_gzip_that_is_cut_off_anywhere_is_damaged() -> None:
    packed = gzipped(bytes(range(256)) * 20)
    for end in range(len(packed)):
        unzipped = _Unzipped(iter([packed[:end]]), 10_000)
        with pytest.raises(Damaged):
            unzipped.read(10_000)


def test_gzip_holds_no_more_in_memory_than_is_asked_for_and_ends_at_its_limit() -> None:
    unzipped = _Unzipped(iter([gzipped(bytes(50_000_000))]), 1_000_000)
    assert len(unzipped.read(1_000_000)) == 1_000_000
    with pytest.raises(_TooLong):
        unzipped.read(1)
