"""Recognises why a model does not load, from what its worker tells: the error's text and its traceback."""

import re

from modelhost.envs.system_packages import debian_package
from modelhost.server.catalogue import loading, stored
from modelhost.server.catalogue.entry import Entry, Found
from modelhost.server.catalogue.modules import distribution_of, in_full, is_known, is_of_python_2, requirement_of_moved

_NO_MODULE = re.compile(r"^(?P<kind>ModuleNotFound|Import)Error: No module named '?(?P<module>[\w.]+)")
_NO_NAME = re.compile(r"^ImportError: cannot import name '?(?P<name>\w+)'?(?: from '(?P<module>[\w.]+)')?")
_NO_ATTRIBUTE = re.compile(
    r"^AttributeError: (?:Can't get attribute '(?P<name>\w+)' on <module '(?P<module>[\w.]+)'"
    r"|'module' object has no attribute '(?P<old>\w+)')"
)
_SHARED = re.compile(r"(?P<missing>lib[\w.+-]+\.so[\d.]*): cannot open shared object file")
_NO_FILE = re.compile(
    r"^(?:FileNotFound|IO|OS)Error: (?:\[Errno 2\] No such file or directory: [ub]?['\"](?P<path>.+?)['\"](?:: .*)?$"
    r"|(?:\[Errno 2\] )?File b?'?(?P<pandas>.+?)'? does not exist"
    r"|Unable to open file \(.*name = '(?P<hdf5>[^']+)', errno = 2)"
    r"|cannot open (?:compressed )?file '(?P<r>[^']+)'.* '?No such file or directory"
)
_NO_CONNECTION = "cannot open the connection"
_R_PATH = re.compile(r"\b(?:readRDS|load|source|file|gzfile|read[\w.]*|fread|scan)\((?:file = )?\"([^\"]+)\"")
_PICKLE = re.compile(r"\b(?:load|loads|read_pickle|load_model|_unpickle)\(|pickle\.py\"")
_SOURCE_LINE = re.compile(r"^    (?=\S)(?![\s^~]+$)(.*)$", re.MULTILINE)
_PICKLE_PROTOCOLS = {"3": "3.0", "4": "3.4", "5": "3.8"}

# Texts that tell it all; their groups are the values.
_TEXTS = tuple(
    (entry, re.compile(pattern))
    for entry, pattern in (
        (loading.R_PACKAGE, r"there is no package called [‘'“\"](?P<package>[\w.]+)"),
        (stored.R_NEWER, r"cannot read (?:unreleased )?workspace version \d+ written by .*; need R (?P<needs>[\d.]+)"),
        (stored.R_UNKNOWN, r"ReadItem: unknown type \d+|cannot read (?:unreleased )?workspace version"),
        (loading.R_CONFLICT, r"namespace .* is (?:already loaded|being loaded), but .* is required"),
        (
            stored.NOT_THE_FILE,
            r"invalid load key, 'v'|^KeyError: (?:118|u?'v')$|unknown input format$|bad restore file",
        ),
        (stored.NODE_ARRAY, r"node array from the pickle has an incompatible dtype"),
        (stored.OTHER_PLATFORM, r"Buffer dtype mismatch, expected '\w+' but got"),
        (
            loading.COMPILED_AGAINST,
            r"numpy\.\w+ size changed|numpy\.core\.(?:multiarray|umath) failed to import|is incompatible with numpy"
            r"|compiled against API version",
        ),
    )
)


def of_load_failure(message: str, traceback: str) -> Found | None:
    """Return the cause that the text of a `load_failed` tells of; None if it is none of the known ones."""
    for entry, pattern in _TEXTS:
        if match := pattern.search(message):
            return Found(entry, match.groupdict())
    if match := re.search(r"unsupported pickle protocol: (\d)", message):
        return Found(stored.PROTOCOL, {"python": _PICKLE_PROTOCOLS.get(match[1], "")})
    if match := _SHARED.search(message):
        return _shared_object(match["missing"])
    if match := _NO_MODULE.search(message):
        return _no_module(match["module"], traceback, old=match["kind"] == "Import")
    if match := _NO_NAME.search(message):
        return _no_name(match["name"], match["module"] or "", traceback)
    if match := _NO_ATTRIBUTE.search(message):
        return _no_attribute(match["name"] or match["old"], match["module"] or "", traceback)
    if _is_unpickling(traceback) and message.startswith("UnicodeDecodeError: 'ascii' codec"):
        return Found(stored.PYTHON_2_PICKLE, {})
    if "numpy_pickle.py" in traceback and re.search(r"^KeyError: \d+$", message):
        return Found(stored.OTHER_JOBLIB, {})
    return _no_file(message, traceback)


def _shared_object(missing: str) -> Found:
    package = debian_package(missing)
    return Found(loading.SHARED_OBJECT if package else loading.SHARED_OBJECT_UNNAMED, _values(missing, package))


def _values(missing: str, package: str) -> dict[str, str]:
    return {"missing": missing, "package": package}


def _no_module(module: str, traceback: str, *, old: bool) -> Found:
    # Python 3 names what is missing in a package that is there in full; 2.7 names the end of it then, and all of it
    # where the package itself is missing.
    full = in_full(module) if old else module
    there = "." not in module if old else "." in module
    if there and (requirement := requirement_of_moved(full)):
        entry = stored.MOVED_IN_FILE if _is_unpickling(traceback) else loading.MOVED
        return Found(entry, {"module": full, "requirement": requirement})
    if is_of_python_2(module) and not old:
        return Found(loading.MODULE_OF_PYTHON_2, {"module": module})
    if not is_known(module):
        return Found(loading.UNKNOWN_MODULE, {"module": module})
    return Found(loading.MODULE, {"module": module, "package": distribution_of(module)})


def _no_name(name: str, module: str, traceback: str) -> Found:
    """`from module import name`; before Python 3.7 only the line of code has the module."""
    statement = re.search(rf"^\s*from ([\w.]+) import .*\b{name}\b", traceback, re.MULTILINE)
    module = module or (statement[1] if statement else "")
    requirement = requirement_of_moved(f"{module}:{name}") or distribution_of(module)
    return Found(loading.NAME, {"name": name, "requirement": requirement or "the package"})


def _no_attribute(name: str, module: str, traceback: str) -> Found | None:
    if not _is_unpickling(traceback):
        return None
    if requirement := requirement_of_moved(f"{module}:{name}"):
        return Found(stored.MOVED_IN_FILE, {"module": f"{module}.{name}", "requirement": requirement})
    return Found(stored.CLASS, {"name": name})


def _no_file(message: str, traceback: str) -> Found | None:
    if match := _NO_FILE.search(message):
        path = next(found for found in match.groups() if found)
        if 'subprocess.py"' in traceback:
            package = debian_package(path)
            return Found(loading.PROGRAM, _values(path, package)) if package else None
        return Found(_entry_of_path(path), {"path": path})
    if message == _NO_CONNECTION:
        paths = _R_PATH.findall(traceback)
        return Found(_entry_of_path(paths[-1]), {"path": paths[-1]}) if paths else Found(stored.FILE_OF_R, {})
    return None


def _entry_of_path(path: str) -> Entry:
    if re.match(r"/|~|[A-Za-z]:[\\/]", path):
        return stored.FILE_OF_AUTHOR
    return stored.FILE_WITH_BACKSLASHES if "\\" in path else stored.FILE


def _is_unpickling(traceback: str) -> bool:
    """Whether the error came while a stored model was read, and not from an import statement."""
    lines = _SOURCE_LINE.findall(traceback)
    return not (lines and lines[-1].startswith(("import ", "from "))) and bool(_PICKLE.search(traceback))
