"""`make demo` from the inside: three old models, each in its own environment, predict what they predict without us."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.e2e.daemon import surroundings

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 280.0

# <deployment> <runtime> <exact interpreter version> <service id> predicted=<…> expected=<…> ok
LINE = re.compile(r"(\S+) (\S+) (\S+) (svc-[0-9a-f]{16}) predicted=(.+) expected=(.+) ok")


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    """The examples in a folder of their own: the demo leaves its state beside them."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "examples" / "demo.py"


def run(demo: Path, environment: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, demo], cwd=demo.parent, env=environment, capture_output=True, text=True, timeout=PATIENCE,
        check=False,
    )  # fmt: skip


def test_the_demo_deploys_three_models_and_each_is_right(demo: Path) -> None:
    done = run(demo, os.environ)

    assert done.returncode == 0, (done.stdout, done.stderr)
    lines = [match for line in done.stdout.splitlines() if (match := LINE.fullmatch(line))]
    assert [match[1] for match in lines] == ["iris", "diabetes", "mtcars"]
    for (runtime, version), expected in zip(
        [match.group(2, 3) for match in lines], [r"python2\.7", r"python3\.6", r"r\d+\.\d+"], strict=True
    ):
        assert re.fullmatch(expected, runtime)
        assert version.startswith(runtime.lstrip("pythonr") + ".")
    assert len({match[4] for match in lines}) == 3
    assert [json.loads(match[5]) for match in lines] == [json.loads(match[6]) for match in lines]
    assert re.search(r"^3 of 3 right in \d+ s$", done.stdout, re.M)
    assert done.stderr == ""


def test_without_python_2_7_the_demo_names_it_and_says_where_to_get_it(demo: Path, tmp_path: Path) -> None:
    """HOME and PATH have neither pyenv nor another Python 2.7."""
    done = run(demo, surroundings(tmp_path / "bare"))

    assert done.returncode == 2, (done.stdout, done.stderr)
    assert re.search(r"python2\.7, which this host lacks: .*`pyenv install 2\.7\.18`", done.stderr)
    assert "Traceback" not in done.stderr
    assert not LINE.search(done.stdout)
