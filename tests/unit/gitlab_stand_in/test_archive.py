"""Archives, as the real `git archive` makes them."""

import gzip
import io
import tarfile
import zipfile
import zlib
from contextlib import closing
from typing import Any

import pytest
from gitlab.exceptions import GitlabListError

from tests.git_repos import Executable, Link, Submodule
from tests.gitlab_stand_in import GitLab, HugeArchive, Project, bomb


def unpack(packed: bytes) -> dict[str, bytes]:
    """The files of a .tar.gz, by their paths below the one folder that all of them lie in."""
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as archive:
        found = {}
        for entry in archive:
            if file := archive.extractfile(entry) if entry.isfile() else None:
                found[entry.name.partition("/")[2]] = file.read()
        return found


def test_an_archive_holds_all_files_below_a_folder_named_after_ref_and_commit(remote: Any, project: Project) -> None:
    commit = project.repo.git("rev-parse", "main")
    for ref in ("main", commit):
        with tarfile.open(fileobj=io.BytesIO(remote.repository_archive(sha=ref, format="tar.gz"))) as archive:
            assert {name.partition("/")[0] for name in archive.getnames()} == {f"turbine-{ref}-{commit}"}
    assert unpack(remote.repository_archive())["lib/data set/\u00fc \U0001f600.bin"] == bytes(range(256))


def test_an_archive_is_sent_in_chunks_with_a_name(remote: Any, project: Project) -> None:
    commit = project.repo.commit({"x": b""}, branch="feature/x")
    path = f"/projects/{project.id}/repository/archive.tar.gz"
    answer = remote.manager.gitlab.http_request("get", path, query_data={"sha": "feature/x"})
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert answer.headers["Content-Disposition"] == f'attachment; filename="turbine-feature-x-{commit}.tar.gz"'


def test_an_archive_of_a_folder_keeps_whole_paths(remote: Any, project: Project) -> None:
    packed = remote.repository_archive(sha="main", path="lib", format="tar.gz")
    assert set(unpack(packed)) == {"lib/data set/\u00fc \U0001f600.bin", "lib/notes.txt"}
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        assert archive.getnames()[0].endswith("-lib")


def test_an_archive_of_a_missing_folder_is_empty_and_still_200(remote: Any) -> None:
    assert remote.repository_archive(sha="main", path="nothing") == b""


def test_an_archive_of_a_missing_ref_is_not_found(remote: Any) -> None:
    with pytest.raises(GitlabListError, match="404 File Not Found"):
        remote.repository_archive(sha="nothing")


def test_export_attributes_make_archives_differ_from_commits(remote: Any, project: Project) -> None:
    commit = project.repo.commit(
        {".gitattributes": b"secret export-ignore\nversion export-subst\n", "secret": b"x", "version": b"$Format:%H$"}
    )
    files = unpack(remote.repository_archive(sha=commit))
    assert set(files) == {".gitattributes", "version"}
    assert files["version"].decode() == commit


def test_modes_links_and_submodules_are_what_git_archive_makes_of_them(remote: Any, project: Project) -> None:
    project.repo.commit({"run": Executable(b"x"), "link": Link("run"), "sub": Submodule()})
    with tarfile.open(fileobj=io.BytesIO(remote.repository_archive())) as archive:
        entries = {entry.name.partition("/")[2]: entry for entry in archive}
    assert entries["run"].mode & 0o111
    assert entries["link"].issym()
    assert entries["sub"].isdir()


def test_lfs_objects_replace_pointers_unless_they_are_not_wanted(remote: Any, project: Project) -> None:
    pointer = project.lfs_object(b"weights")
    project.repo.commit({".gitattributes": b"*.bin filter=lfs diff=lfs merge=lfs -text\n", "a.bin": pointer})
    assert unpack(remote.repository_archive())["a.bin"] == b"weights"
    path = f"/projects/{project.id}/repository/archive.tar.gz"
    plain = remote.manager.gitlab.http_get(path, include_lfs_blobs=False, raw=True)
    assert unpack(plain.content)["a.bin"] == pointer


@pytest.mark.parametrize("form", ["zip", "tar", "tar.bz2", "tgz"])
def test_other_formats_hold_the_same(remote: Any, form: str) -> None:
    packed = io.BytesIO(remote.repository_archive(format=form))
    if form == "zip":
        with zipfile.ZipFile(packed) as archive:
            assert any(name.endswith("/main.py") for name in archive.namelist())
    else:
        with tarfile.open(fileobj=packed) as archive:
            assert any(name.endswith("/main.py") for name in archive.getnames())


def test_a_bomb_is_packed_only_as_far_as_it_is_read(remote: Any, project: Project) -> None:
    bomb(project.repo)
    unpacker, read = zlib.decompressobj(16 + zlib.MAX_WBITS), 0
    with closing(remote.repository_archive(iterator=True, streamed=True, chunk_size=65536)) as pieces:
        while read < 10_000_000:
            read += len(unpacker.decompress(next(pieces)))


def test_a_huge_file_in_an_archive_is_sound_but_not_stored(remote: Any, gitlab: GitLab) -> None:
    size = 50 * 1024 * 1024 + 7
    gitlab.faults.once("*/archive*", HugeArchive(size, "turbine-main/weights.bin"))
    packed = remote.repository_archive()
    assert len(packed) < size / 500
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        (entry,) = archive.getmembers()
        assert (entry.name, entry.size) == ("turbine-main/weights.bin", size)
    assert gzip.decompress(packed).count(0) >= size


def test_a_huger_file_says_its_size_at_once(remote: Any, gitlab: GitLab) -> None:
    gitlab.faults.once("*/archive*", HugeArchive(2 * 1024**3))
    with closing(remote.repository_archive(iterator=True, streamed=True, chunk_size=8192)) as pieces:
        start = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(next(pieces), 512)
    assert tarfile.TarInfo.frombuf(start, "utf-8", "strict").size == 2 * 1024**3
