"""Requirements of models written in R: a DESCRIPTION or a list of packages."""

from pathlib import Path

import pytest

from modelhost.envs import Interpreter, Language, Requirements, RequirementsInvalid, read_requirements

R = Interpreter("r3.6", Language.R, "3.6.3", Path("/opt/R/3.6.3/lib/R/bin/R"), "/opt/R")


def read(root: Path, file: str, text: str, *inline: str) -> Requirements:
    (root / file).write_text(text)
    return read_requirements(R, root, file, inline)


def test_a_list_of_packages(tmp_path: Path) -> None:
    text = "# models\nrandomForest\ndata.table==1.12.8  # pinned\n\nglmnet (>= 3.0)\nxgboost >=1.0\nglmnet (>= 3.0)\n"
    found = read(tmp_path, "packages.txt", text, "jsonlite (== 1.6-1)")
    assert found.requirements == (
        "randomForest",
        "data.table==1.12.8",
        "glmnet>=3.0",
        "xgboost>=1.0",
        "jsonlite==1.6-1",
    )
    assert found.sources == ("packages.txt",)
    assert found.language is Language.R


def test_a_description(tmp_path: Path) -> None:
    text = """\
Package: scoring
Version: 1.0
Depends: R (>= 3.5.0),
    stats
Imports:
    glmnet (>= 3.0), data.table,
\tjsonlite (< 1.7)
LinkingTo: Rcpp
Suggests: testthat
Description: Words with a colon: and
    an indented Imports: nothing
"""
    found = read(tmp_path, "DESCRIPTION", text)
    assert found.requirements == ("stats", "glmnet>=3.0", "data.table", "jsonlite<1.7", "Rcpp")


@pytest.mark.parametrize("entry", ["R (>= 4.0.0)", "R>=4.0", "R (< 3.6.3)", "R (== 3.5.0)", "R (!= 3.6.3)"])
def test_an_r_that_does_not_fit_is_said_so(tmp_path: Path, entry: str) -> None:
    with pytest.raises(RequirementsInvalid, match=r"packages\.txt:2: needs R .*; this is R 3\.6\.3"):
        read(tmp_path, "packages.txt", f"glmnet\n{entry}\n")


@pytest.mark.parametrize("entry", ["R", "R (>= 3.6.3)", "R (> 3.6)", "R (<= 3.6.3)", "R (!= 3.6.2)"])
def test_an_r_that_fits_is_left_out(tmp_path: Path, entry: str) -> None:
    assert read(tmp_path, "packages.txt", entry).requirements == ()


@pytest.mark.parametrize(
    "entry", ["two words", "pkg (>= )", "pkg (>= 1.0", "pkg >= 1.0)", "pkg=1.0", "../pkg", "pkg==1.0;rm", "github/pkg"]
)
def test_what_is_no_package_is_refused_with_its_place(tmp_path: Path, entry: str) -> None:
    with pytest.raises(RequirementsInvalid, match=r"is no package") as raised:
        read(tmp_path, "packages.txt", f"glmnet\n\n{entry}\n")
    assert (raised.value.file, raised.value.line) == ("packages.txt", 3)


def test_a_description_that_is_none_is_refused_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(RequirementsInvalid, match=r"DESCRIPTION:2: .*no field"):
        read(tmp_path, "DESCRIPTION", "Package: x\nglmnet\n")
    with pytest.raises(RequirementsInvalid, match=r"DESCRIPTION:1: .*starts with a field"):
        read(tmp_path, "DESCRIPTION", "   glmnet\n")


def test_remotes_are_refused_not_overlooked(tmp_path: Path) -> None:
    with pytest.raises(RequirementsInvalid, match="Remotes cannot be followed"):
        read(tmp_path, "DESCRIPTION", "Package: x\nRemotes: someone/package\n")
