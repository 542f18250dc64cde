"""Every relative link of the documentation leads to a file that is there, and to a heading of it."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "examples/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
CODE = re.compile(r"^(```+|~~~+).*?^\1`*$", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)|^ {0,3}\[[^\]]+\]:\s*<?([^\s>]+)", re.MULTILINE)


def links(text: str) -> list[str]:
    """Where a page's links lead that do not leave the repository."""
    found = [one or other for one, other in LINK.findall(SPAN.sub("code", CODE.sub("", text)))]
    return [link for link in found if not re.match(r"[a-z][a-z0-9+.-]*:", link)]


def anchors(text: str) -> set[str]:
    """The names of a page's headings, as GitHub makes them: https://github.com/gjtorikian/html-pipeline."""
    names: list[str] = []
    for heading in re.findall(r"^#{1,6} +(.+?)[ #]*$", CODE.sub("", text), re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        again = sum(re.fullmatch(re.escape(name) + r"(-\d+)?", other) is not None for other in names)
        names.append(f"{name}-{again}" if again else name)
    return set(names)


def problem_with(page: Path, link: str) -> str:
    """What is wrong with a link of a page; "" if it leads somewhere."""
    name, _, anchor = unquote(link).partition("#")
    target = (page.parent / name).resolve() if name else page
    if not target.is_relative_to(ROOT) or not target.exists():
        return f"no file {name}"
    if anchor and (target.suffix != ".md" or anchor not in anchors(target.read_text())):
        return f"no heading {anchor}"
    return ""


FOUND = [(page.relative_to(ROOT).as_posix(), link) for page in PAGES for link in links(page.read_text())]


def test_there_are_pages_with_links_to_look_at() -> None:
    assert {"README.md", "examples/README.md", "docs/architecture.md", "docs/guides/gitlab.md"} <= {
        page for page, _ in FOUND
    }


def test_links_are_found_where_they_are_no_code() -> None:
    text = (
        "[a](b.md) [two\nlines](c.md#d 'title'), [`code`](e) ![image](f.png)\n[g]: h.md\n"
        "[far](https://example.com/i) `[j](k)`\n```\n[l](m)\n```\n[n](#o)\n"
    )

    assert links(text) == ["b.md", "c.md#d", "e", "f.png", "h.md", "#o"]


def test_headings_have_the_names_that_github_gives_them() -> None:
    text = (
        "# A `modelhost.toml`, and Ümlauts!\n## [Linked](x.md) - twice\n## Again\n### Again\n```\n# no heading\n```\n"
    )

    assert anchors(text) == {"a-modelhosttoml-and-ümlauts", "linked---twice", "again", "again-1"}


@pytest.mark.parametrize(
    ("link", "problem"),
    [
        ("errors.md", ""),
        ("guides/updates.md", ""),
        ("adr", ""),
        ("errors.md#errors", ""),
        ("#nowhere", "no heading nowhere"),
        ("errors.md#nowhere", "no heading nowhere"),
        ("nowhere.md", "no file nowhere.md"),
        ("guides/errors.md", "no file guides/errors.md"),
        ("../../outside", "no file ../../outside"),
    ],
)
def test_a_wrong_link_is_found(link: str, problem: str) -> None:
    assert problem_with(ROOT / "docs" / "architecture.md", link) == problem


@pytest.mark.parametrize(("page", "link"), FOUND)
def test_a_link_leads_somewhere(page: str, link: str) -> None:
    assert problem_with(ROOT / page, link) == ""
