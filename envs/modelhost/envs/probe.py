"""Ask a program what it is. Only what an interpreter says when it runs counts: names and shims promise anything."""

import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from modelhost.envs.process import CommandFailed, Job
from modelhost.envs.values import NO_INIT_FILES, Interpreter, Language

PROBE_SECONDS = 10.0
OLDEST_PYTHON_3 = (3, 5)  # what virtualenv 20.21 carries a pip for
OLDEST_R = (3, 5)  # ALTREP, which rpy2 3.5 needs
_BEGIN, _END = "<modelhost-probe>", "</modelhost-probe>"  # site files and wrappers may print around the answer

# Python 2.7 to 3.x. The empty entry of the path is the working folder, whose json.py is nobody's business.
_PYTHON_PROBE = """
import sys
sys.path = [entry for entry in sys.path if entry]
import json, os, platform, sysconfig
base = getattr(sys, "real_prefix", None) or getattr(sys, "base_prefix", sys.prefix)
needed = ["ssl", "zlib"] + (["ensurepip", "venv"] if sys.version_info >= (3, 12) else [])
missing = []
for name in needed:
    try:
        __import__(name)
    except Exception:
        missing.append(name)
if sys.version_info >= (3,):
    abi = sysconfig.get_config_var("SOABI") or ""
else:
    abi = "cp27mu" if sys.maxunicode > 0xFFFF else "cp27m"
print(sys.argv[1] + json.dumps({
    "implementation": platform.python_implementation(),
    "version": "%d.%d.%d" % sys.version_info[:3],
    "path": os.path.realpath(sys.executable) if sys.executable else "",
    "base": "" if base == sys.prefix else base,
    "platform": (sysconfig.get_platform() + " " + abi).strip(),
    "missing": missing,
}) + sys.argv[2])
"""

_R_PROBE = f"""
cat("{_BEGIN}", paste(R.version$major, R.version$minor, sep = "."), "\\n", R.home(), "\\n", R.version$platform, "\\n",
    file.exists(file.path(R.home("lib"), "libR.so")), "{_END}", sep = "")
""".replace("\n", " ")

_RPY2_PROBE = """
import sys
import rpy2.rinterface as r
r.initr()
print(sys.argv[1] + r.evalr("paste(R.version$major, R.version$minor, sep = '.')")[0] + sys.argv[2])
"""


@dataclass(frozen=True)
class Answer:
    """What a program said. `elsewhere` is the file to ask instead: behind a wrapper script, a virtual environment."""

    interpreter: Interpreter
    elsewhere: Path | None = None


def ask_python(program: Path, found_by: str, environ: Mapping[str, str]) -> Answer | None:
    """Run a program that may be a CPython; None if it is none or does not answer in time."""
    text = _run([str(program), "-E", "-s", "-c", _PYTHON_PROBE, _BEGIN, _END], environ)
    if text is None:
        return None
    try:
        said = json.loads(text)
        version, path, base = said["version"], Path(said["path"]), said["base"]
        name = "python" + version.rpartition(".")[0]
        if said["implementation"] != "CPython" or not path.is_absolute():
            return None
        interpreter = Interpreter(
            name=name,
            language=Language.PYTHON,
            version=version,
            path=path,
            found_by=found_by,
            platform=said["platform"],
            problem=_python_problem(version, said["missing"]),
        )
    except (ValueError, KeyError, TypeError):
        return None
    real = Path(base, "bin", name) if base else path
    return Answer(interpreter, real if real != program else None)


def ask_r(program: Path, found_by: str, environ: Mapping[str, str]) -> Answer | None:
    """Run a program that may be R's front end; None if it is not or does not answer in time."""
    # --slave is what 3.6 calls --no-echo, and later versions still take it.
    text = _run([str(program), "--vanilla", "--slave", "-e", _R_PROBE], environ)
    if text is None or len(lines := text.split("\n")) != 4:
        return None
    version, home, platform, has_library = lines
    # R's own front end, not a link to it, which may point to another R tomorrow.
    front_end = Path(home, "bin", "R")
    return Answer(
        Interpreter(
            name="r" + version.rpartition(".")[0],
            language=Language.R,
            version=version,
            path=front_end if os.path.isfile(front_end) else program.absolute(),
            found_by=found_by,
            platform=platform,
            problem=_r_problem(front_end, version, has_library == "TRUE", environ),
        )
    )


def _python_problem(version: str, missing: list[str]) -> str:
    numbers = tuple(int(part) for part in version.split("."))
    if numbers < (2, 7) or (3,) <= numbers < OLDEST_PYTHON_3:
        return f"Python {version} is too old: 2.7 and 3.5 or newer can be used"
    if missing:
        return f"this Python was built without {' and '.join(missing)}, which pip needs"
    return ""


def _r_problem(front_end: Path, version: str, has_library: bool, environ: Mapping[str, str]) -> str:
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_R:
        return f"R {version} is too old: 3.5 or newer can be used"
    if not has_library:
        return "this R has no libR.so: it must be built with --enable-R-shlib"
    if importlib.util.find_spec("rpy2") is None:
        return f"the server's Python ({sys.executable}) lacks rpy2, which drives R"
    # As the worker starts it: through R CMD, which sets the library path of this R and no other.
    argv = [str(front_end), "CMD", sys.executable, "-I", "-W", "ignore", "-c", _RPY2_PROBE, _BEGIN, _END]
    try:
        driven = _answer(argv, {**_variables(environ), **NO_INIT_FILES, "RPY2_CFFI_MODE": "ABI"})
    except (CommandFailed, OSError) as error:
        return f"rpy2 cannot drive this R: {error}"
    return "" if driven == version else f"rpy2 drives R {driven or '?'} where it should drive this one"


def _run(argv: list[str], environ: Mapping[str, str]) -> str | None:
    """Run a probe; return what it printed between the marks, None if there is no such thing."""
    try:
        return _answer(argv, _variables(environ))
    except (CommandFailed, OSError, ValueError):
        return None


def _answer(argv: list[str], variables: Mapping[str, str]) -> str | None:
    # Not quiet, though nobody listens: a program that floods us is then not kept in memory.
    done = Job().run(argv, env=variables, cwd=Path("/"), timeout=PROBE_SECONDS)
    _, begin, rest = done.stdout.decode("utf-8", "replace").partition(_BEGIN)
    text, end, _ = rest.partition(_END)
    return text if begin and end else None


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    """What a probe may see: enough for wrapper scripts and shims, nothing that leads an interpreter astray."""
    kept = ("PATH", "HOME", "PYENV_ROOT", "PYENV_VERSION")
    return {"PATH": os.defpath, "LANG": "C.UTF-8"} | {name: environ[name] for name in kept if name in environ}
