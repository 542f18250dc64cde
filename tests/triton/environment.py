"""Programs with `tritonclient`, in an environment and processes of their own.

It asks for an older protobuf than the server is tested with, and registers messages of the same names as the server's.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(__file__).with_name("programs.py")
_ENVIRONMENTS = ROOT / "build" / "test-environments"


def triton_python() -> Path:
    """The Python of the environment, which is made under build/ when first wanted, and kept."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]["conformance"]
    folder = _ENVIRONMENTS / "tritonclient"
    whole = folder / "packages.json"
    _ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
    with open(_ENVIRONMENTS / "tritonclient.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another test process may want it too
        if not whole.exists() or json.loads(whole.read_text()) != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "-q", *wanted], check=True)
            whole.write_text(json.dumps(wanted))
    return folder / "bin" / "python"


def run(program: str, *arguments: str) -> Any:
    """What a function of `programs.py` returns."""
    done = subprocess.run(
        [triton_python(), PROGRAMS, program, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT / "proto")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
