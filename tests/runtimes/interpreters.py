"""The Pythons that models are written for, as this machine has them, and environments with NumPy and pandas."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

VERSIONS = ("2.7", "3.6", "3.13")

# The last that each interpreter has; for 3.13 ones that have it.
_PACKAGES = {
    "2.7": ["numpy==1.16.6", "pandas==0.24.2"],
    "3.6": ["numpy==1.19.5", "pandas==1.1.5"],
    "3.13": ["numpy==2.1.3", "pandas==2.2.3"],
}
_ENVIRONMENTS = Path(__file__).resolve().parents[2] / "build" / "test-environments"


@dataclass(frozen=True)
class Interpreter:
    """A Python to start workers with."""

    version: str
    path: Path

    @property
    def is_python2(self) -> bool:
        return self.version.startswith("2.")


def find_interpreter(version: str) -> Interpreter:
    """From pyenv or PATH. These are what the project is for: a test without them has failed."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for path in sorted(pyenv.glob(f"versions/{version}.*/bin/python"), reverse=True):
        return Interpreter(version, path)
    # pyenv's shims are there for versions that are not.
    folders = [folder for folder in os.environ["PATH"].split(os.pathsep) if not folder.endswith("/shims")]
    found = shutil.which(f"python{version}", path=os.pathsep.join(folders))
    if found is None:
        pytest.fail(f"no Python {version}: neither in {pyenv}/versions nor on PATH")
    return Interpreter(version, Path(found))


def scientific_interpreter(version: str) -> Interpreter:
    """One with NumPy and pandas: an environment under build/, made when first wanted and kept."""
    base, folder = find_interpreter(version).path, _ENVIRONMENTS / f"python{version}"
    _ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
    whole = folder / "packages.json"
    with open(_ENVIRONMENTS / f"python{version}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another test process may want it too
        if not whole.exists() or json.loads(whole.read_text()) != _PACKAGES[version]:
            shutil.rmtree(folder, ignore_errors=True)
            # virtualenv 20.21 is the last for 2.7 and 3.6; the pip that it brings does not run on 3.13.
            old = [sys.executable, "-m", "virtualenv", "-q", "-p", base]
            subprocess.run([*([base, "-m", "venv"] if version == "3.13" else old), folder], check=True)
            pip = [folder / "bin" / "python", "-m", "pip", "install", "-q", "--only-binary", ":all:"]
            subprocess.run([*pip, *_PACKAGES[version]], check=True)
            whole.write_text(json.dumps(_PACKAGES[version]))
    return Interpreter(version, folder / "bin" / "python")
