"""`make demo-gitlab` from the inside: the life of a model in a GitLab, through the real command."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 280.0


def test_the_story_goes_from_registering_to_going_back(tmp_path: Path) -> None:
    """The examples in a folder of their own: the demo leaves its state beside them."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))

    done = subprocess.run(
        [sys.executable, tmp_path / "examples" / "demo_gitlab.py"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip

    assert done.returncode == 0, (done.stdout, done.stderr)
    assert done.stderr == ""
    commands = [line.split()[2] for line in done.stdout.splitlines() if line.startswith("$ modelhost ")]
    told = ["source", "deploy", "logs", "update", "predict", "update", "diff", "update", "rollback", "show"]
    positions = iter(commands)
    assert all(verb in positions for verb in told), commands
    assert done.stdout.count("calls meanwhile: ") == len(re.findall(r"[1-9]\d* answered, 0 failed", done.stdout)) == 2
    assert "ModuleNotFoundError: No module named 'sklearn'" in done.stdout
    assert "-import numpy as np\n+import nunpy as np\n" in done.stdout
    assert re.search(r"^all went as it should, in \d+ s$", done.stdout, re.M)
    assert not list((tmp_path / ".demo-gitlab" / "state" / "workers").iterdir())
