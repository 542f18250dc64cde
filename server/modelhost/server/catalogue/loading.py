"""Failures of the step `load`: importing the main file, `setup()`, the test call. `loads` says which it is."""
# ruff: noqa: E501 - what other programs wrote

from modelhost.server.catalogue.entry import Entry, Step
from modelhost.server.catalogue.stored import STORED
from modelhost.v1.error_reason_pb2 import ErrorReason

_LOAD = Step.LOAD
_MODULE = ErrorReason.ERROR_REASON_MODULE_NOT_FOUND
_CONFLICT = ErrorReason.ERROR_REASON_REQUIREMENTS_CONFLICT
_LIBRARY = ErrorReason.ERROR_REASON_SYSTEM_LIBRARY_MISSING

_PIN = ", commit, and `modelhost update NAME`."


def _importing(statement: str, error: str) -> str:
    return f'Traceback (most recent call last):\n  File "main.py", line 1, in <module>\n    {statement}\n{error}'


# ---- what is imported

_ANY_MODULE = Entry(
    _MODULE,
    _LOAD,
    "A module is missing",
    "The requirements do not name its package: on the author's machine it was simply there.",
    "Add the package to the requirements, commit, and `modelhost update NAME`; or try with `--requirement LINE`.",
)
MODULE = Entry(
    _MODULE,
    _LOAD,
    "A module that no package of the requirements has",
    "The requirements do not name its package, which on the author's machine was simply there. Or the module is a file of"
    " the author's own that is not deployed, or lies in a folder that is not on the import path.",
    "Add `{package}`, in a version of the model's time, to the requirements, commit, and `modelhost update NAME`. If"
    " {module} is a file of the model's own, deploy it (`--path PATH`) or name its folder (`--import-path PATH`).",
    _importing("import sklearn.svm", "ModuleNotFoundError: No module named 'sklearn'"),
    {"module": "sklearn", "package": "scikit-learn"},
)
UNKNOWN_MODULE = Entry(
    _MODULE,
    _LOAD,
    "A module of an unknown package",
    "A file of the author's own that is not deployed, or that lies in a folder that is not on the import path; a typing"
    " error; or a package that the requirements do not name.",
    "If it is a typing error, mend it. If {module} is a file of the model's own, deploy it (`--path PATH`) or name its"
    " folder (`--import-path PATH`). If it is a package that you know, add it to the requirements. Then commit, and"
    " `modelhost update NAME`.",
    _importing("import nunpy as np", "ModuleNotFoundError: No module named 'nunpy'"),
    {"module": "nunpy"},
)
MODULE_OF_PYTHON_2 = Entry(
    _MODULE,
    _LOAD,
    "A module of Python 2",
    "Python 3 has renamed or dropped it: the model was written for Python 2.",
    "{module} is a module of Python 2: `modelhost update NAME --runtime python2.7`.",
    _importing("import ConfigParser", "ModuleNotFoundError: No module named 'ConfigParser'"),
    {"module": "ConfigParser"},
)
MOVED = Entry(
    _MODULE,
    _LOAD,
    "A module that the package no longer has",
    "The package is there, but in another version than the model was written for, which has moved or dropped the module.",
    "Pin the version of the model's time in the requirements, `{requirement}`" + _PIN,
    _importing(
        "from sklearn.cross_validation import KFold",
        "ModuleNotFoundError: No module named 'sklearn.cross_validation'",
    ),
    {"module": "sklearn.cross_validation", "requirement": "scikit-learn<0.20"},
)
NAME = Entry(
    _MODULE,
    _LOAD,
    "A name that the package no longer has",
    "The package is there, but in another version than the model was written for.",
    "`{name}` is in another version: pin that of the model's time in the requirements, as `{requirement}`" + _PIN,
    _importing("from sklearn.externals import joblib", "ImportError: cannot import name 'joblib'"),
    {"name": "joblib", "requirement": "scikit-learn<0.23"},
)
R_PACKAGE = Entry(
    _MODULE,
    _LOAD,
    "An R package is missing",
    "The model's packages.txt or DESCRIPTION does not name it: on the author's machine it was simply there.",
    "Add `{package}` to packages.txt, with the version of the model's time (`{package}==1.2.3`)" + _PIN,
    "Calls, outermost first:\n"
    "  main.R:1: library(forecast)\n"
    "  stop(packageNotFoundError(package, lib.loc, sys.call()))\n"
    "Error in library(forecast): there is no package called ‘forecast’",
    {"package": "forecast"},
)
SHARED_OBJECT = Entry(
    _LIBRARY,
    _LOAD,
    "A system library that a package needs when it is loaded",
    "The package was installed, but uses a library of the system that wheels do not bring along.",
    "On the server's host, `apt-get install {package}`, then `modelhost start NAME`.",
    "Traceback (most recent call last):\n"
    '  File "main.py", line 1, in <module>\n'
    "    import lightgbm\n"
    '  File ".../python3.6/ctypes/__init__.py", line 348, in __init__\n'
    "    self._handle = _dlopen(self._name, mode)\n"
    "OSError: libgomp.so.1: cannot open shared object file: No such file or directory",
    {"missing": "libgomp.so.1", "package": "libgomp1"},
)
SHARED_OBJECT_UNNAMED = Entry(
    _LIBRARY,
    _LOAD,
    "A system library that Debian has in another version, or not at all",
    "The package was compiled against a library that this host does not have.",
    "`apt-file search {missing}` says which Debian package has it; where none has, ask for another version of the"
    " package that is loaded" + _PIN,
    _importing(
        "import oldstats", "ImportError: libgfortran.so.3: cannot open shared object file: No such file or directory"
    ),
    {"missing": "libgfortran.so.3"},
)
PROGRAM = Entry(
    _LIBRARY,
    _LOAD,
    "A program is missing",
    "The model starts another program, which this host does not have.",
    "On the server's host, `apt-get install {package}`, then `modelhost start NAME`.",
    "Traceback (most recent call last):\n"
    '  File "main.py", line 2, in <module>\n'
    "    subprocess.check_output(['tesseract', '-v'])\n"
    '  File ".../python3.6/subprocess.py", line 1364, in _execute_child\n'
    "    raise child_exception_type(errno_num, err_msg, err_filename)\n"
    "FileNotFoundError: [Errno 2] No such file or directory: 'tesseract': 'tesseract'",
    {"missing": "tesseract", "package": "tesseract-ocr"},
)
COMPILED_AGAINST = Entry(
    _CONFLICT,
    _LOAD,
    "Packages that were compiled against another numpy",
    "Only some packages are pinned, and the others came in versions that want an older or newer numpy.",
    "Pin numpy and the package that is loaded to versions of one time" + _PIN,
    "Traceback (most recent call last):\n"
    '  File "main.py", line 1, in <module>\n'
    "    import pandas\n"
    '  File "pandas/_libs/interval.pyx", line 1, in init pandas._libs.interval\n'
    "ValueError: numpy.dtype size changed, may indicate binary incompatibility. Expected 96 from C header, got 88 from PyObject",
)
R_CONFLICT = Entry(
    _CONFLICT,
    _LOAD,
    "R packages that want different versions of a third",
    "One package was pinned, another came in its newest version.",
    "Pin the packages to versions of one time in packages.txt" + _PIN,
    "Calls, outermost first:\n"
    "  main.R:1: library(dplyr)\n"
    "Error in loadNamespace(j): namespace ‘rlang’ 0.4.5 is already loaded, but >= 1.1.0 is required",
)

# ---- everything else

LOADING = (
    Entry(
        ErrorReason.ERROR_REASON_MAIN_FILE_NOT_FOUND,
        _LOAD,
        "The main file is not there",
        "Its name is another, or it is not among the deployed paths.",
        "Set the right one with `modelhost update NAME --main-file PATH`; `modelhost source files SOURCE` lists what there"
        " is.",
    ),
    Entry(
        ErrorReason.ERROR_REASON_FUNCTION_NOT_FOUND,
        _LOAD,
        "The function is not there",
        "It has another name, or is a method of a class.",
        "Set the right one with `modelhost update NAME --function FUNCTION`.",
        "main.py has no function 'predict'; it defines: score, train",
    ),
    Entry(
        ErrorReason.ERROR_REASON_SYNTAX_ERROR,
        _LOAD,
        "The main file does not parse",
        "Mostly it was written for another Python: print without parentheses is Python 2, f-strings are 3.6.",
        "Deploy it with the runtime that it was written for, `modelhost update NAME --runtime python2.7`, or mend it.",
        "main.py line 1: Missing parentheses in call to 'print'. Did you mean print('x')?",
    ),
    _ANY_MODULE, MODULE, UNKNOWN_MODULE, MODULE_OF_PYTHON_2, MOVED, NAME, R_PACKAGE,
    SHARED_OBJECT, SHARED_OBJECT_UNNAMED, PROGRAM, COMPILED_AGAINST, R_CONFLICT,
    *STORED,
    Entry(
        ErrorReason.ERROR_REASON_IMPORT_FAILED,
        _LOAD,
        "The main file raises while it is imported",
        "Code at the top of the file, or of what it imports, failed in a way that this page does not know.",
        "The build log has the traceback: `modelhost logs NAME --build`.",
    ),
    Entry(
        ErrorReason.ERROR_REASON_SETUP_FAILED,
        _LOAD,
        "setup() raises",
        "The model's own preparation failed in a way that this page does not know.",
        "The build log has the traceback: `modelhost logs NAME --build`.",
    ),
    Entry(
        ErrorReason.ERROR_REASON_LOAD_TIMED_OUT,
        _LOAD,
        "Loading takes too long",
        "A large model, a download while importing, or training at import instead of loading.",
        "Give it longer, `modelhost update NAME --load-timeout 15m`, or make import and setup() do less.",
    ),
    Entry(
        ErrorReason.ERROR_REASON_MEMORY_NOT_AVAILABLE,
        _LOAD,
        "The declared memory does not fit the host",
        "What the deployments that are loaded declare, `[limits] memory`, may not be more than the host has. While an"
        " update is loaded, the revision that still serves counts as well.",
        "Declare less, `modelhost update NAME --memory 2GiB`, or stop a deployment: `modelhost stop OTHER`.",
    ),
    Entry(
        ErrorReason.ERROR_REASON_WORKER_DIED_LOADING,
        _LOAD,
        "The worker dies while loading",
        "Compiled code crashed, the script ends the process, or the host's memory ran out (signal KILL).",
        "`modelhost logs NAME --run` has the worker's last output. A signal KILL often means that memory ran out.",
    ),
    Entry(
        ErrorReason.ERROR_REASON_TEST_CALL_FAILED,
        _LOAD,
        "The test call fails",
        "The model raised, or gave another result than [test] expects: other versions of packages round differently.",
        "Mend the model, or the [test] table of modelhost.toml, commit, and `modelhost update NAME`.",
        'the test call gave {"y": 3} instead of {"y":4}',
    ),
    Entry(
        ErrorReason.ERROR_REASON_FUNCTION_MASKS_BASE,
        _LOAD,
        "A function named as one of R's own",
        "The model's `predict` hides R's, and calls itself where it means R's.",
        "Rename the function, as in `score <- function(parameters)`, and `modelhost update NAME --function score`.",
    ),
)  # fmt: skip
