"""Which names may be deployed, and what a selection means."""

import pytest

from modelhost.server.errors import Conflict, InvalidRequest, NotFound
from modelhost.server.sources import EntryKind, Selection, TreeEntry
from modelhost.server.sources.paths import (
    MAX_DEPTH,
    MAX_NAME_BYTES,
    MAX_PATH_BYTES,
    check_link,
    check_relative,
    choose,
    folders,
    shown,
)
from modelhost.v1.error_reason_pb2 import ErrorReason


def entries(*paths: str, kind: EntryKind = EntryKind.FILE) -> list[TreeEntry]:
    return [TreeEntry(path, kind, 1, "0" * 40) for path in paths]


def chosen_paths(tree: list[TreeEntry], *paths: str, directory: str = "") -> list[str]:
    return [each.path for each in choose(tree, Selection(directory, paths))]


MODEL = entries(
    "README", "credit/main.py", "credit/lib/a.py", "credit/lib/b.py", "credit/modelhost.toml", "fraud/main.py"
)


@pytest.mark.parametrize(
    ("path", "plain"),
    [
        ("main.py", "main.py"),
        ("a/b/", "a/b"),
        (".hidden", ".hidden"),
        ("a b/ü.py", "a b/ü.py"),
        ("-x", "-x"),
        ("...", "..."),
    ],
)
def test_a_relative_path_is_taken_without_its_last_slash(path: str, plain: str) -> None:
    assert check_relative(path, "entry_point") == plain


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("", "empty"),
        ("/", "empty"),
        ("/etc/passwd", "absolute"),
        ("..", "`..`"),
        ("a/../b", "`..`"),
        ("./a", "`.`"),
        ("a//b", "empty"),
        ("a\nb", "control"),
        ("a\0b", "control"),
        ("x" * (MAX_NAME_BYTES + 1), "longer"),
        ("ü" * (MAX_NAME_BYTES // 2 + 1), "longer"),
        ("x/" * (MAX_PATH_BYTES // 2) + "x", "longer"),
        ("x/" * MAX_DEPTH + "x", "deep"),
    ],
)
def test_a_path_that_is_not_plain_is_refused_with_its_field(path: str, problem: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        check_relative(path, "source.directory")
    assert refusal.value.field == "source.directory"
    assert problem in refusal.value.message


def test_what_cannot_be_printed_is_shown_escaped() -> None:
    assert shown("a\nb\udcff ü") == r"a\nb\udcff ü"


def test_everything_is_chosen_if_nothing_is_named() -> None:
    assert chosen_paths(MODEL) == sorted(entry.path for entry in MODEL)


def test_a_directory_becomes_the_root() -> None:
    expected = ["lib/a.py", "lib/b.py", "main.py", "modelhost.toml"]
    assert chosen_paths(MODEL, directory="credit") == expected
    assert chosen_paths(MODEL, directory="credit/") == expected


def test_paths_name_files_and_directories_below_the_directory() -> None:
    assert chosen_paths(MODEL, "lib", directory="credit") == ["lib/a.py", "lib/b.py", "modelhost.toml"]
    assert chosen_paths(MODEL, "main.py", "lib/b.py", directory="credit") == ["lib/b.py", "main.py", "modelhost.toml"]


def test_the_model_config_is_chosen_only_from_the_root_of_the_selection() -> None:
    assert chosen_paths(MODEL, "README") == ["README"]


def test_a_name_that_another_one_starts_with_is_not_taken_for_its_directory() -> None:
    assert chosen_paths(entries("lib/a", "library/b", "lib.py"), "lib") == ["lib/a"]
    assert chosen_paths(entries("lib/a", "library/b", "lib.py"), directory="lib") == ["a"]


@pytest.mark.parametrize(
    ("directory", "paths", "message"),
    [
        ("credits", (), 'no directory "credits"; is "credit" or'),
        ("README", (), 'the directory "README" is a file'),
        ("credit", ("main.p",), 'no file or directory "main.p"; is "main.py" meant?'),
        ("", ("main.py",), 'no file or directory "main.py"; is "credit/main.py" or "fraud/main.py" meant?'),
        ("credit", ("lib/c.py",), 'no file or directory "lib/c.py"; is "lib/'),
        ("", ("zzzz",), 'no file or directory "zzzz"'),
        ("fraud", ("modelhost.toml",), 'no file or directory "modelhost.toml"'),
    ],
)
def test_what_matches_nothing_is_named_with_names_like_it(directory: str, paths: tuple[str, ...], message: str) -> None:
    with pytest.raises(NotFound, match=r".") as missing:
        choose(sorted(MODEL, key=lambda entry: entry.path), Selection(directory, paths))
    assert missing.value.reason == ErrorReason.ERROR_REASON_PATH_NOT_FOUND
    assert message in missing.value.message


def test_a_commit_without_files_has_nothing_to_choose() -> None:
    with pytest.raises(NotFound, match="no files"):
        choose([], Selection())


@pytest.mark.parametrize(
    "name",
    [
        *(".gitignore", ".gitattributes", ".github/x", "git", "git~2", ".gitx", "x.git", ".git2/x", "agit~1"),
        *(
            ".hidden",
            "ünï/ç.py",
            "with space",
            "quote'\"",
            "back\\slash",
            "~",
            "*",
            "-rf",
            "\udcff",
            "CON",
            "a:b",
            "😀",
        ),
    ],
)
def test_odd_names_are_kept(name: str) -> None:
    assert chosen_paths(entries(name)) == [name]


@pytest.mark.parametrize(
    "name",
    [
        *(".git", ".GIT", ".git/config", "a/.Git/config", ".g\u200cit/hooks/x", "\ufeff.git", ".git\u206f"),
        *(
            "git~1",
            "GIT~1/x",
            ".git.",
            ".git ",
            ".git . .",
            ".git::$INDEX_ALLOCATION",
            ".git:x",
            ".git\\config",
            "git~1.:y",
        ),
        *("..", "../x", "a/../../x", ".", "a/./b", "", "/etc/passwd", "a//b", "a/", "new\nline", "tab\t", "\x7f"),
        *("x" * 256, "d/" * 200 + "x", "d/" * 2000 + "x"),
    ],
)
def test_hostile_names_are_refused(name: str) -> None:
    with pytest.raises(Conflict) as refusal:
        choose(entries(name), Selection())
    assert refusal.value.reason == ErrorReason.ERROR_REASON_PATH_REFUSED
    assert shown(name) in refusal.value.message


def test_only_what_is_chosen_has_to_be_fit() -> None:
    tree = [*entries("main.py", "x/.git/config"), *entries("vendor/lib", kind=EntryKind.SUBMODULE)]
    assert chosen_paths(tree, "main.py") == ["main.py"]


def test_a_submodule_is_refused_by_name() -> None:
    with pytest.raises(Conflict, match='"vendor/lib" is a submodule'):
        choose(entries("vendor/lib", kind=EntryKind.SUBMODULE), Selection())


@pytest.mark.parametrize("names", [("a", "a"), ("a", "a/b"), ("a/b/c", "a/b"), ("a", "a.b", "a/b/c/d")])
def test_names_in_each_others_way_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(Conflict, match=r"twice|both a file and a directory"):
        choose(entries(*names), Selection())


def test_names_that_differ_in_case_only_are_different() -> None:
    assert chosen_paths(entries("a/Main.py", "a/main.py", "A/main.py")) == ["A/main.py", "a/Main.py", "a/main.py"]


def test_folders_are_listed_from_the_outside() -> None:
    assert folders(["a/b/c/x", "a/y", "z"]) == ["a", "a/b", "a/b/c"]


@pytest.mark.parametrize(
    "links",
    [
        {"l": "main.py"},
        {"l": "not/there"},
        {"l": "."},
        {"a/b/l": "../../main.py"},
        {"a/l": "./../b/./c"},
        {"a": "b", "b": "c", "c": "d"},
        {"deep": "x/y", "l": "deep/../z"},
        {"l": "..ü/...", "..ü": "x"},
    ],
)
def test_links_that_stay_inside_are_kept(links: dict[str, str]) -> None:
    for path in links:
        check_link(path, links)


@pytest.mark.parametrize(
    ("links", "problem"),
    [
        ({"l": ".."}, "leads out"),
        ({"a/l": "../../x"}, "leads out"),
        ({"l": "a/../../x"}, "leads out"),
        ({"l": "/etc/passwd"}, "absolute"),
        ({"l": ""}, "empty"),
        ({"l": "a\0b"}, "control"),
        ({"l": "x" * (MAX_PATH_BYTES + 1)}, "too long"),
        ({"l": "l"}, "circle"),
        ({"l": "m", "m": "n/../l"}, "circle"),
        ({"l": "l/x"}, "circle"),
        ({"l": "d/b/../x", "d/b": ".."}, "leads out"),  # d/b is the root: lexically `d/x`, in truth above the root
        ({"l": "a/b", "a/b": "/etc"}, "absolute"),
        ({f"l{n}": f"l{n + 1}" for n in range(50)} | {"l": "l0"}, "too many"),
    ],
)
def test_links_that_leave_or_never_end_are_refused(links: dict[str, str], problem: str) -> None:
    with pytest.raises(Conflict) as refusal:
        check_link("l", links) if "l" in links else check_link("a/l", links)
    assert refusal.value.reason == ErrorReason.ERROR_REASON_PATH_REFUSED
    assert problem in refusal.value.message
    assert refusal.value.values["path"] in links
