"""What runs inside a model's own interpreter, and what starts it: files, not a library. See PROTOCOL.md."""

import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent

PYTHON_WORKER = _HERE / "python_worker.py"
R_WORKER = _HERE / "r_worker.py"
LAUNCHER = _HERE / "launcher.py"
# Imported, for a module has bytecode and a program is compiled each time. From a folder that is asked last of all.
_LAUNCH = f"import sys; sys.path.append({str(_HERE)!r}); import launcher; launcher.main(sys.argv[1:])"
LAUNCH = (sys.executable, "-I", "-S", "-c", _LAUNCH)
