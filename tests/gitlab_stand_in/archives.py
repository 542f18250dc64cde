"""Archives that are much larger than what is stored and sent, made as they are sent."""

import tarfile
import zlib
from collections.abc import Iterator

from tests.git_repos import Repo

BLOCK = bytes(1024 * 1024)
GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\x03"


def huge_tar_gz(name: str, size: int) -> Iterator[bytes]:
    """A .tar.gz of one file of zeros. Packed once per MiB: whoever stops reading early costs nothing."""
    entry = tarfile.TarInfo(name)
    entry.size = size
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    header = entry.tobuf(tarfile.PAX_FORMAT)
    yield GZIP_HEADER + packer.compress(header) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(BLOCK) + packer.flush(zlib.Z_FULL_FLUSH)
    sum_, length = zlib.crc32(header), len(header)
    for _ in range(size // len(BLOCK)):
        yield block
        sum_, length = zlib.crc32(BLOCK, sum_), length + len(BLOCK)
    padding = -size % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE
    rest = bytes(size % len(BLOCK) + padding)
    sum_, length = zlib.crc32(rest, sum_), length + len(rest)
    trailer = sum_.to_bytes(4, "little") + (length % 2**32).to_bytes(4, "little")
    yield packer.compress(rest) + packer.flush() + trailer


def bomb(repo: Repo, *, depth: int = 4, width: int = 10, size: int = 1024 * 1024) -> str:
    """Commit `width ** depth` files of `size` zero bytes to `main`, all of them one blob, and return the commit."""
    mode, hash_ = "100644", repo.blob(bytes(size))
    for _ in range(depth):
        hash_ = repo.tree([(mode, f"{number:03d}".encode(), hash_) for number in range(width)])
        mode = "40000"
    return repo.commit_tree(hash_)
