"""Requirements files as authors write them, and what is made of them."""

from pathlib import Path

import pytest

from modelhost.envs import (
    Interpreter,
    Language,
    Requirements,
    RequirementsInvalid,
    default_requirements_file,
    read_requirements,
)

PYTHON = Interpreter("python3.6", Language.PYTHON, "3.6.15", Path("/usr/bin/python3.6"), "PATH")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    return folder


def read(root: Path, *inline: str, **files: str) -> Requirements:
    """Read `requirements.txt` of a model; a file's name is written with `__` for a slash and `_` for a dot."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return read_requirements(PYTHON, root, "requirements.txt" if "requirements_txt" in files else "", inline)


def problem(root: Path, *inline: str, **files: str) -> RequirementsInvalid:
    with pytest.raises(RequirementsInvalid) as raised:
        read(root, *inline, **files)
    return raised.value


# ---- lines ----


def test_comments_continuations_and_blank_lines(root: Path) -> None:
    text = """\
# what we need
numpy==1.16.6   # the last one for 2.7

scikit-learn>=0.20,\\
    <0.21 ; python_version < "3"
six==1.17.0 \\
    --hash=sha256:aaaa \\
    --hash=sha256:bbbb
git+https://example.com/x.git@v1#egg=x
"""
    assert read(root, requirements_txt=text).requirements == (
        "numpy==1.16.6",
        'scikit-learn>=0.20,    <0.21 ; python_version < "3"',
        "six==1.17.0     --hash=sha256:aaaa     --hash=sha256:bbbb",
        "git+https://example.com/x.git@v1#egg=x",
    )


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_a_name(root: Path) -> None:
    (root / "requirements.txt").write_bytes(b"\xef\xbb\xbfsix\r\nattrs \\\r\n==22.2\r\n")
    assert read_requirements(PYTHON, root, "requirements.txt").requirements == ("six", "attrs ==22.2")


def test_inline_lines_follow_those_of_the_file(root: Path) -> None:
    found = read(root, "attrs==22.2.0", "# nothing", requirements_txt="six")
    assert found.requirements == ("six", "attrs==22.2.0")
    assert found.sources == ("requirements.txt",)


def test_no_file_and_no_lines_are_no_requirements(root: Path) -> None:
    assert read(root) == Requirements(Language.PYTHON)


def test_options_stay_in_their_place(root: Path) -> None:
    text = "-i https://a.example/simple --extra-index-url=https://b.example/simple\n--no-binary :all:\n--pre\nsix"
    assert read(root, requirements_txt=text).requirements == (
        "--index-url https://a.example/simple",
        "--extra-index-url https://b.example/simple",
        "--no-binary :all:",
        "--pre",
        "six",
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--requ other.txt", "--requ: not an option"),  # pip would take it for --requirement
        ("--install-everything", "not an option"),
        ("-r", "--requirement needs a value"),
        ("--index-url file:///srv/simple", "an index is an http(s) URL"),
        ("--index-url ./simple", "an index is an http(s) URL"),
        ("six @ file:///tmp/six.whl", "file: URLs cannot be used"),
        ("file:./six.whl", "file: URLs cannot be used"),
        ("git+file:///srv/x.git", "file: URLs cannot be used"),
        ("--find-links file:///srv/wheels", "relative to the model's root"),
        ("-r https://example.com/requirements.txt", "put a copy there"),
        ("'unbalanced", ""),
    ],
)
def test_a_line_that_cannot_be_used_is_named_with_its_place(root: Path, line: str, words: str) -> None:
    if line.startswith("'"):
        line = "-i " + line
    error = problem(root, requirements_txt=f"# first\n\n{line}\n")
    assert (error.file, error.line) == ("requirements.txt", 3)
    assert words in error.message
    assert str(error).startswith("requirements.txt:3: ")


def test_an_inline_line_that_cannot_be_used_is_numbered(root: Path) -> None:
    error = problem(root, "six", "--what")
    assert (error.file, error.line) == ("", 2)


# ---- files that include others ----


def test_includes_are_followed_from_where_they_stand(root: Path) -> None:
    found = read(
        root,
        requirements_txt="-r deploy/base.txt\n-c limits.txt\nsix",
        deploy__base_txt="attrs\n-rmore.txt",
        deploy__more_txt="idna",
        limits_txt="attrs<23\n-c deploy/more.txt",
    )
    assert found.requirements == ("attrs", "idna", "six")
    assert found.constraints == ("attrs<23", "idna")
    assert found.sources == ("requirements.txt", "deploy/base.txt", "deploy/more.txt", "limits.txt")


def test_includes_may_go_round_in_circles(root: Path) -> None:
    found = read(root, requirements_txt="-r a.txt\nsix", a_txt="-r requirements.txt\n-r a.txt\nattrs")
    assert found.requirements == ("attrs", "six")


@pytest.mark.parametrize("path", ["../secret.txt", "/etc/passwd", "a/../../secret.txt"])
def test_includes_from_outside_are_refused(root: Path, path: str) -> None:
    (root.parent / "secret.txt").write_text("six")
    error = problem(root, requirements_txt=f"six\n-r {path}")
    assert (error.file, error.line) == ("requirements.txt", 2)
    assert "outside the model's files" in error.message


def test_a_link_that_leads_outside_is_refused(root: Path) -> None:
    (root.parent / "secret.txt").write_text("six")
    (root / "link.txt").symlink_to("../secret.txt")
    assert "outside" in problem(root, requirements_txt="-r link.txt").message


def test_a_file_that_is_missing_is_reported_where_it_is_named(root: Path) -> None:
    error = problem(root, requirements_txt="six\n-c nothing.txt")
    assert (error.file, error.line, error.message) == ("requirements.txt", 2, "there is no file nothing.txt")
    with pytest.raises(RequirementsInvalid, match=r"^other\.txt: there is no file other\.txt"):
        read_requirements(PYTHON, root, "other.txt")


def test_binary_and_huge_files_are_no_requirements(root: Path) -> None:
    (root / "requirements.txt").write_bytes(b"\xff\xfes\0i\0x\0")
    with pytest.raises(RequirementsInvalid, match="not UTF-8"):
        read_requirements(PYTHON, root, "requirements.txt")
    (root / "requirements.txt").write_bytes(b"#" * (1024 * 1024 + 1))
    with pytest.raises(RequirementsInvalid, match="larger than 1 MiB"):
        read_requirements(PYTHON, root, "requirements.txt")


def test_constraints_from_the_web_are_left_to_pip(root: Path) -> None:
    assert read(root, requirements_txt="-c https://example.com/c.txt\nsix").requirements == (
        "-c https://example.com/c.txt",
        "six",
    )


# ---- the model's own files ----


def test_local_packages_are_part_of_what_is_asked_for(root: Path) -> None:
    files = {"package__setup_py": "import setuptools", "wheels__x_whl": "wheel"}
    text = "-e .\n./package[extra] ; python_version < '4'\n--find-links ./wheels\nwheels/x.whl\n"
    found = read(root, requirements_txt=text, **files)
    assert found.requirements == (
        "./.",
        "./package[extra] ; python_version < '4'",
        "--find-links ./wheels",
        "./wheels/x.whl",
    )
    assert found.files == (".", "package", "wheels", "wheels/x.whl")
    assert len(found.files_digest) == 64


def test_the_digest_changes_with_what_lies_in_the_files_and_with_nothing_else(root: Path) -> None:
    before = read(root, requirements_txt="./package", package__setup_py="one", main_py="1")
    (root / "main.py").write_text("2")
    assert read(root, requirements_txt="./package").files_digest == before.files_digest
    (root / "package" / "setup.py").write_text("two")
    changed = read(root, requirements_txt="./package").files_digest
    assert changed != before.files_digest
    (root / "package" / "setup.py").chmod(0o755)
    assert read(root, requirements_txt="./package").files_digest != changed


def test_find_links_are_looked_for_beside_the_file_first(root: Path) -> None:
    (root / "deploy" / "wheels").mkdir(parents=True)
    (root / "shared").mkdir()
    found = read(root, requirements_txt="-r deploy/base.txt", deploy__base_txt="-f wheels\n-f shared")
    assert found.requirements == ("--find-links ./deploy/wheels", "--find-links ./shared")


@pytest.mark.parametrize("line", ["../package", "/etc", "-e ..", "-f /opt/wheels", "./link"])
def test_local_packages_outside_are_refused(root: Path, line: str) -> None:
    (root / "link").symlink_to("..")
    assert "outside the model's files" in problem(root, requirements_txt=line).message


def test_a_link_to_the_outside_within_a_local_package_is_refused(root: Path) -> None:
    (root / "package").mkdir()
    (root / "package" / "data").symlink_to("/etc/passwd")
    assert "cannot be read" in problem(root, requirements_txt="./package").message


def test_links_that_go_round_in_circles_lead_nowhere(root: Path) -> None:
    (root / "a.txt").symlink_to("b.txt")
    (root / "b.txt").symlink_to("a.txt")
    assert "no file a.txt" in problem(root, requirements_txt="-r a.txt").message
    assert "no ./a.txt" in problem(root, requirements_txt="./a.txt").message


def test_a_local_package_that_is_missing_is_named(root: Path) -> None:
    assert problem(root, requirements_txt="./nothing").message == "there is no ./nothing in the model's files"


def test_the_default_file_is_the_usual_one(root: Path) -> None:
    assert default_requirements_file(Language.PYTHON, root) == ""
    (root / "requirements.txt").touch()
    (root / "DESCRIPTION").touch()
    assert default_requirements_file(Language.PYTHON, root) == "requirements.txt"
    assert default_requirements_file(Language.R, root) == "DESCRIPTION"
    (root / "packages.txt").touch()
    assert default_requirements_file(Language.R, root) == "packages.txt"
