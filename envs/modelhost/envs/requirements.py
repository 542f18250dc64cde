"""What a model asks for, read from its files.

The rules for R are in `r_requirements`. Python's follow pip's requirements file format
(https://pip.pypa.io/en/stable/reference/requirements-file-format/), with these differences, all of them because an
environment is built once from a spec and then shared: nothing outside the model's files is read, includes from URLs
are refused, and `-e` is taken for a plain install, for the place it points to is gone when the model runs.
"""

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from modelhost.envs.errors import RequirementsInvalid
from modelhost.envs.files import OutsideRoot, digest_files, inside
from modelhost.envs.r_requirements import read_r_requirements
from modelhost.envs.values import Interpreter, Language, Requirements

FILE_LIMIT = 1024 * 1024  # bytes
DEFAULT_FILES = {Language.PYTHON: ("requirements.txt",), Language.R: ("packages.txt", "DESCRIPTION")}

_COMMENT = re.compile(r"(^|\s+)#.*$")
_REMOTE = re.compile(r"(https?|ftp|(git|hg|svn|bzr)(\+[a-z]+)?)://|(git|hg|svn|bzr)\+", re.IGNORECASE)
_WEB = re.compile(r"https?://", re.IGNORECASE)
_FILE_URL = re.compile(r"(^|@\s*|\+)file:", re.IGNORECASE)
_ARCHIVE = re.compile(r"\.(whl|zip|tar|tgz|tbz|txz|tar\.(gz|bz2|xz|lzma))$", re.IGNORECASE)
_LOCAL = re.compile(r"(?P<path>[^\[;\s]+)(?P<rest>\s*(\[[^\]]*\])?\s*(;.*)?)")

_SHORT = {"-r": "--requirement", "-c": "--constraint", "-e": "--editable", "-i": "--index-url", "-f": "--find-links"}
_INDEXES = {"--index-url", "--pypi-url", "--extra-index-url"}
_VALUES = {"--no-binary", "--only-binary", "--trusted-host", "--use-feature"}
_FLAGS = {"--no-index", "--pre", "--prefer-binary", "--require-hashes"}


def default_requirements_file(language: Language, root: Path) -> str:
    """Return the requirements file that is used where none is named, relative to `root`; "" if there is none.

    Python: `requirements.txt`. R: `packages.txt`, else `DESCRIPTION`.
    """
    return next((name for name in DEFAULT_FILES[language] if (root / name).is_file()), "")


def read_requirements(interpreter: Interpreter, root: Path, file: str = "", inline: Sequence[str] = ()) -> Requirements:
    """Read what a model whose files lie in `root` asks for: first a file (relative to `root`), then lines given inline.

    Python: a requirements file; `-r` and `-c` are followed, and local packages and `--find-links` folders become part
    of what is asked for, by their content. R: a `DESCRIPTION` or a list of packages. Inline lines are written like the
    lines of a requirements file or of a list of packages; their file name in errors is "".

    Raises `RequirementsInvalid`.
    """
    if interpreter.language is Language.R:
        return read_r_requirements(interpreter, root, read_text(root, file) if file else "", file, inline)
    reader = _Reader(root)
    if file:
        reader.include(file, "", 0, constraint=False)
    reader.read("\n".join(inline), "", constraint=False)
    return reader.result()


def read_text(root: Path, file: str, named_in: str = "", line: int = 0) -> str:
    """Return a requirements file's text. Raises `RequirementsInvalid`, at the place that names it if there is one."""

    def invalid(message: str) -> RequirementsInvalid:
        return RequirementsInvalid(message, named_in if line else file, line)

    try:
        path = inside(root, file)
        if not path.is_file():
            raise invalid(f"there is no file {file}")
        if path.stat().st_size > FILE_LIMIT:
            raise invalid(f"{file} is larger than 1 MiB")
        return path.read_bytes().decode("utf-8-sig")
    except OutsideRoot:
        raise invalid(f"{file} lies outside the model's files") from None
    except UnicodeDecodeError:
        raise invalid(f"{file} is not UTF-8 text") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise invalid(f"{file} cannot be read: {error}") from None


@dataclass
class _Reader:
    """Flattens requirements files. The order of lines is kept: it decides where pip has a choice."""

    root: Path
    requirements: list[str] = field(default_factory=list)
    constraints: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    seen: set[tuple[str, bool]] = field(default_factory=set)

    def result(self) -> Requirements:
        try:
            digest = digest_files(self.root, self.files)
        except (OutsideRoot, OSError) as error:
            raise RequirementsInvalid(f"a local package cannot be read: {error}") from None
        return Requirements(
            language=Language.PYTHON,
            requirements=tuple(self.requirements),
            constraints=tuple(self.constraints),
            files=tuple(dict.fromkeys(self.files)),
            files_digest=digest,
            sources=tuple(dict.fromkeys(self.sources)),
        )

    def include(self, file: str, named_in: str, line: int, *, constraint: bool) -> None:
        """Read a file, once per role: includes may go round in circles."""
        name = os.path.normpath(os.path.join(os.path.dirname(named_in), file))
        if (name, constraint) in self.seen:
            return
        self.seen.add((name, constraint))
        text = read_text(self.root, name, named_in, line)
        self.sources.append(name)
        self.read(text, name, constraint=constraint)

    def read(self, text: str, file: str, *, constraint: bool) -> None:
        for number, line in _logical_lines(text):
            try:
                if line.startswith("-"):
                    self._options(line, file, number, constraint)
                else:
                    self._add(self._requirement(line), constraint)
            except OutsideRoot as error:
                raise RequirementsInvalid(f"{error} lies outside the model's files", file, number) from None
            except ValueError as error:
                raise RequirementsInvalid(str(error), file, number) from None

    def _add(self, line: str, constraint: bool) -> None:
        (self.constraints if constraint else self.requirements).append(line)

    def _options(self, line: str, file: str, number: int, constraint: bool) -> None:
        for name, value in _parse_options(line):
            if name == "--constraint" and _WEB.match(value):
                self.requirements.append(f"-c {value}")  # it can only narrow the choice, as the index itself may
            elif name in {"--requirement", "--constraint"}:
                if _REMOTE.match(value) or _FILE_URL.match(value):
                    raise ValueError(f"{value}: requirements are read from the model's files only; put a copy there")
                self.include(value, file, number, constraint=name == "--constraint")
            elif name == "--editable":
                self._add(self._requirement(value), constraint)
            elif name == "--find-links" and not _WEB.match(value):
                self.requirements.append(f"--find-links {shlex.quote(self._folder_of_links(value, file))}")
            elif name in _INDEXES | {"--find-links"}:
                if not _WEB.match(value):
                    raise ValueError(f"{value}: an index is an http(s) URL; for files use --find-links")
                self.requirements.append(f"{name} {value}")
            else:  # pip wants the options of a run in the requirements, wherever they stood
                self.requirements.append(f"{name} {shlex.quote(value)}" if value else name)

    def _requirement(self, line: str) -> str:
        """Check one requirement; what lies in the model's files is written relative to the root."""
        if _FILE_URL.search(line):
            raise ValueError(f"{line}: file: URLs cannot be used; write the path relative to the model's root")
        if _REMOTE.match(line) or " @ " in line or "@http" in line.replace(" ", ""):
            return line
        match = _LOCAL.fullmatch(line)
        path = match["path"] if match else line.split(maxsplit=1)[0]
        if not (path.startswith((".", "/", "~")) or "/" in path or _ARCHIVE.search(path)):
            return line
        if match is None:
            raise ValueError(f"{line}: options cannot follow a local path")
        return "./" + self._local(path, ".") + match["rest"]

    def _folder_of_links(self, value: str, file: str) -> str:
        """As pip does it: relative to the file that says so, if there is such a folder, else to where pip runs."""
        if _FILE_URL.match(value):
            raise ValueError(f"{value}: write the path relative to the model's root")
        beside = os.path.join(os.path.dirname(file), value)
        return "./" + self._local(beside if os.path.exists(self.root / beside) else value, ".")

    def _local(self, path: str, base: str) -> str:
        found = inside(self.root, os.path.join(base, path))
        if not found.exists():
            raise ValueError(f"there is no {path} in the model's files")
        relative = os.path.relpath(found, self.root)
        self.files.append(relative)
        return relative


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with their numbers: continued ones joined, comments and empty ones left out."""
    start, joined = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        if not joined:
            start = number
        comment = _COMMENT.match(line)
        if line.endswith("\\") and not comment:
            joined += line[:-1]
            continue
        whole = _COMMENT.sub("", joined + (" " + line if comment else line)).strip()
        joined = ""
        if whole:
            yield start, whole
    if whole := _COMMENT.sub("", joined).strip():
        yield start, whole


def _parse_options(line: str) -> Iterator[tuple[str, str]]:
    """Take a line of options apart; only those that pip allows in a file. Raises `ValueError`."""
    words = shlex.split(line)
    while words:
        word = words.pop(0)
        name, equals, value = word.partition("=")
        if word[:2] in _SHORT and not word.startswith("--"):
            name, equals, value = _SHORT[word[:2]], word[2:], word[2:]
        elif name in _FLAGS and not equals:
            yield name, ""
            continue
        elif name not in {*_SHORT.values(), *_INDEXES, *_VALUES}:
            raise ValueError(f"{word}: not an option of a requirements file")
        if not equals:
            if not words:
                raise ValueError(f"{name} needs a value")
            value = words.pop(0)
        yield name, value
