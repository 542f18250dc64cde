"""Digests, copies, sizes and removal of files."""

import os
import threading
from pathlib import Path

import pytest

from modelhost.envs.files import OutsideRoot, copy_files, digest_files, inside, open_and_measure, remove_tree


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_digest_is_of_names_modes_and_contents(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for root in (one, two):
        write(root / "a" / "x", "1")
        write(root / "a" / "b" / "y", "2")
        write(root / "other", root.name)
    assert digest_files(one, ["a"]) == digest_files(two, ["a", "a"])
    assert digest_files(one, ["other"]) != digest_files(two, ["other"])
    assert digest_files(one, ["a"]) != digest_files(one, ["a/x", "a/b"])
    (two / "a" / "x").rename(two / "a" / "z")
    assert digest_files(one, ["a"]) != digest_files(two, ["a"])
    assert digest_files(one, []) == ""


def test_links_inside_are_followed_once_and_links_outside_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(root / "data" / "x", "content")
    (root / "a").mkdir()
    (root / "a" / "data").symlink_to("../data")
    (root / "data" / "up").symlink_to("../a")
    (root / "a" / "fifo").parent.mkdir(exist_ok=True)
    os.mkfifo(root / "a" / "fifo")
    before = digest_files(root, ["a"])
    copy_files(root, ["a"], tmp_path / "copy")
    assert (tmp_path / "copy" / "a" / "data" / "x").read_text() == "content"
    assert not (tmp_path / "copy" / "a" / "data").is_symlink()
    write(root / "data" / "x", "changed")
    assert digest_files(root, ["a"]) != before
    (root / "a" / "out").symlink_to(tmp_path)
    with pytest.raises(OutsideRoot):
        digest_files(root, ["a"])
    with pytest.raises(OutsideRoot):
        copy_files(root, ["a"], tmp_path / "again")


@pytest.mark.parametrize("path", ["..", "/", "a/../../b", "../root2"])
def test_nothing_outside_is_inside(tmp_path: Path, path: str) -> None:
    (tmp_path / "root").mkdir()
    with pytest.raises(OutsideRoot):
        inside(tmp_path / "root", path)


def test_a_tree_is_opened_to_all_and_measured(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    write(tree / "a" / "file", "x" * 100_000).chmod(0o600)
    write(tree / "a" / "program").chmod(0o700)
    (tree / "link").symlink_to("/nonexistent")
    (tree / "a").chmod(0o700)
    assert 100_000 <= open_and_measure(tree) <= 200_000
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tree, *tree.glob("a"), *tree.glob("a/*"))}
    assert modes == {"tree": 0o755, "a": 0o755, "file": 0o644, "program": 0o755}


def test_a_tree_is_removed_while_somebody_still_writes_into_it(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    removed = threading.Event()

    def write_on() -> None:
        for number in range(100_000):
            try:
                (tree / "a" / str(number)).touch()
            except OSError:
                break
        removed.set()

    write(tree / "a" / "first")
    writer = threading.Thread(target=write_on)
    writer.start()
    remove_tree(tree)
    assert removed.wait(30)
    writer.join()
    assert not tree.exists()


def test_removing_what_is_not_there_is_fine(tmp_path: Path) -> None:
    remove_tree(tmp_path / "nothing")
