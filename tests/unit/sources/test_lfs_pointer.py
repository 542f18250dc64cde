import pytest

from modelhost.server.sources.lfs_pointer import LfsPointer, parse_lfs_pointer

OID = b"4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393"
VERSION = b"version https://git-lfs.github.com/spec/v1\n"
POINTER = VERSION + b"oid sha256:" + OID + b"\nsize 12345\n"


@pytest.mark.parametrize(
    ("content", "extended"),
    [
        (POINTER, False),
        (POINTER.rstrip(b"\n"), False),
        (POINTER.replace(b"git-lfs.github", b"hawser.github"), False),
        (VERSION + b"ext-0-foo sha256:" + OID + b"\n" + POINTER.removeprefix(VERSION), True),
    ],
)
def test_pointers(content: bytes, extended: bool) -> None:
    assert parse_lfs_pointer(content) == LfsPointer(OID.decode(), 12345, extended)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        VERSION,
        POINTER + b"x",
        b" " + POINTER,
        POINTER.replace(b"\n", b"\r\n"),
        POINTER.replace(b"sha256", b"md5"),
        POINTER.replace(OID, OID[:-1]),
        POINTER.replace(b"12345", b"many"),
        POINTER.replace(b"12345", b"9" * 19),
        VERSION + b"x y\n" * 300 + POINTER.removeprefix(VERSION),
    ],
)
def test_ordinary_files(content: bytes) -> None:
    assert parse_lfs_pointer(content) is None
