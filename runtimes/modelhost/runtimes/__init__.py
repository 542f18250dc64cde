"""What runs inside a model's own interpreter, and what starts it: files, not a library. See PROTOCOL.md."""

from pathlib import Path

_HERE = Path(__file__).resolve().parent

PYTHON_WORKER = _HERE / "python_worker.py"
R_WORKER = _HERE / "r_worker.py"
LAUNCHER = _HERE / "launcher.py"
