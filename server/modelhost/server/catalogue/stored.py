"""Failures of the step `load` that come of a file: one that does not fit, and one that is not there."""
# ruff: noqa: E501 - what other programs wrote

from modelhost.server.catalogue.entry import Entry, Step
from modelhost.v1.error_reason_pb2 import ErrorReason

_LOAD = Step.LOAD
_INCOMPATIBLE = ErrorReason.ERROR_REASON_MODEL_FILE_INCOMPATIBLE
_FILE = ErrorReason.ERROR_REASON_MODEL_FILE_NOT_FOUND

_PIN = ", commit, and `modelhost update NAME`."
_UNPICKLE = (
    "Traceback (most recent call last):\n"
    '  File "main.py", line 2, in <module>\n'
    "    model = pickle.load(open('model.pkl', 'rb'))\n"
)
_JOBLIB = (
    "Traceback (most recent call last):\n"
    '  File "main.py", line 2, in <module>\n'
    "    model = joblib.load('model.joblib')\n"
    '  File ".../site-packages/joblib/numpy_pickle.py", line 587, in load\n'
    "    obj = _unpickle(fobj, filename, mmap_mode)\n"
)

# ---- what is unpickled

_ANY_INCOMPATIBLE = Entry(
    _INCOMPATIBLE,
    _LOAD,
    "A stored model that does not fit",
    "A pickle or RDS file names the inside of the packages that wrote it, so only about the same versions read it.",
    "Pin the packages to the versions that the model was saved with, commit, and `modelhost update NAME`.",
)
MOVED_IN_FILE = Entry(
    _INCOMPATIBLE,
    _LOAD,
    "A stored model of another version of a package",
    "The file names a module or class by where it was when the model was saved; this version of the package has it"
    " elsewhere, or not at all.",
    "The model was saved with another version, in which there is {module}: pin that version in the requirements, as"
    " `{requirement}`" + _PIN,
    _UNPICKLE + "ModuleNotFoundError: No module named 'sklearn.ensemble.forest'",
    {"module": "sklearn.ensemble.forest", "requirement": "scikit-learn<0.24"},
)
CLASS = Entry(
    _INCOMPATIBLE,
    _LOAD,
    "A stored object of the author's own class",
    "A pickle has no code, only the class's name: `__main__.Scaler` was defined in the script that saved it.",
    "Define or import `{name}` in the main file before it loads the model" + _PIN,
    _UNPICKLE + "AttributeError: Can't get attribute 'Scaler' on <module '__main__' from 'main.py'>",
    {"name": "Scaler"},
)
PROTOCOL = Entry(
    _INCOMPATIBLE,
    _LOAD,
    "A pickle of a newer Python",
    "The file was saved by a newer Python than the runtime, in a form that this one cannot read.",
    "It was saved by Python {python} or newer: `modelhost update NAME --runtime ID` with such a runtime, or save it anew"
    " with `protocol=2`.",
    _UNPICKLE + "ValueError: unsupported pickle protocol: 5",
    {"python": "3.8"},
)
PYTHON_2_PICKLE = Entry(
    _INCOMPATIBLE,
    _LOAD,
    "A pickle of Python 2",
    "Its byte strings are no text, and Python 3 takes them for ASCII.",
    "Run it where it was saved, `modelhost update NAME --runtime python2.7`; or load it with"
    " `pickle.load(file, encoding='latin1')`.",
    _UNPICKLE + "UnicodeDecodeError: 'ascii' codec can't decode byte 0xf0 in position 6: ordinal not in range(128)",
)
NODE_ARRAY = Entry(
    _INCOMPATIBLE,
    _LOAD,
    "Trees of an older scikit-learn",
    "scikit-learn 1.3 added a field to the nodes of its trees and reads no older ones.",
    "The model was saved with an older scikit-learn: pin that version, `scikit-learn<1.3`" + _PIN,
    _UNPICKLE
    + '  File "_tree.pyx", line 1573, in sklearn.tree._tree._check_node_ndarray\n'
    + "ValueError: node array from the pickle has an incompatible dtype:",
)
OTHER_PLATFORM = Entry(
    _INCOMPATIBLE,
    _LOAD,
    "A model that was saved on Windows or on 32 bits",
    "Numbers of trees have the width that the author's machine gave them, and this one's is another.",
    "Save the model anew on 64-bit Linux with the same versions" + _PIN,
    _UNPICKLE
    + '  File "sklearn/tree/_tree.pyx", line 595, in sklearn.tree._tree.Tree.__cinit__\n'
    + "ValueError: Buffer dtype mismatch, expected 'SIZE_t' but got 'int'",
)
OTHER_JOBLIB = Entry(
    _INCOMPATIBLE,
    _LOAD,
    "A file of a newer joblib",
    "Newer versions of joblib lay arrays out in a way that older ones cannot read.",
    "The model was saved with a newer joblib: pin the version it was saved with" + _PIN,
    _JOBLIB + "KeyError: 0",
)
NOT_THE_FILE = Entry(
    _INCOMPATIBLE,
    _LOAD,
    "A file that is no stored model",
    "Mostly it is a pointer of Git LFS, three lines of text that begin with `version`: the repository was copied without"
    " its large files.",
    "Look at it with `modelhost source cat SOURCE PATH`; if it is a pointer of Git LFS, push the file itself to the"
    " repository, and `modelhost update NAME`.",
    _UNPICKLE + "_pickle.UnpicklingError: invalid load key, 'v'.",
)
R_NEWER = Entry(
    _INCOMPATIBLE,
    _LOAD,
    "An RDS file of a newer R",
    "R 3.5 and later save in a form that earlier ones cannot read.",
    "It takes R {needs} or newer: `modelhost update NAME --runtime ID` with such a runtime, or save it anew with"
    " `saveRDS(model, file, version = 2)`.",
    "Calls, outermost first:\n"
    '  main.R:1: readRDS("model.rds")\n'
    'Error in readRDS("model.rds"): cannot read workspace version 3 written by R 3.6.3; need R 3.5.0 or newer',
    {"needs": "3.5.0"},
)
R_UNKNOWN = Entry(
    _INCOMPATIBLE,
    _LOAD,
    "An RDS file that this R does not know",
    "The file was saved by a newer R, or is damaged.",
    "Deploy with a newer R, `modelhost update NAME --runtime ID`, or save it anew with"
    " `saveRDS(model, file, version = 2)`.",
    "Calls, outermost first:\n"
    '  main.R:1: readRDS("model.rds")\n'
    'Error in readRDS("model.rds"): ReadItem: unknown type 139, perhaps written by later version of R',
)

# ---- what is opened

_ANY_FILE = Entry(
    _FILE,
    _LOAD,
    "A file is not there",
    "It was never committed, is not among the deployed paths, or its path is one of the author's machine.",
    "Commit the file and deploy it, `modelhost update NAME --path PATH`; `modelhost source files SOURCE` lists what the"
    " commit holds.",
)
FILE = Entry(
    _FILE,
    _LOAD,
    "A file that is not among those deployed",
    "It was never committed (.gitignore), is not among the deployed paths, or the model expects another working directory.",
    "Commit {path} and deploy it, `modelhost update NAME --path PATH`; if it lies in another folder, `--working-dir PATH`."
    " `modelhost source files SOURCE` lists what the commit holds.",
    "Traceback (most recent call last):\n"
    '  File "main.py", line 1, in <module>\n'
    "    m = open('x.pkl')\n"
    "IOError: [Errno 2] No such file or directory: 'x.pkl'",
    {"path": "x.pkl"},
)
FILE_OF_AUTHOR = Entry(
    _FILE,
    _LOAD,
    "A path of the author's machine",
    "The model opens an absolute path, which was there on the author's machine only.",
    "Have the model open {path} relative to the main file (`os.path.dirname(__file__)`), commit the file too, and"
    " `modelhost update NAME`.",
    _JOBLIB + "FileNotFoundError: [Errno 2] No such file or directory: '/home/ann/model.joblib'",
    {"path": "/home/ann/model.joblib"},
)
FILE_WITH_BACKSLASHES = Entry(
    _FILE,
    _LOAD,
    "A path of Windows",
    "The model was written on Windows; elsewhere a backslash is a letter of a name.",
    "Write {path} with slashes, which Windows understands too" + _PIN,
    _JOBLIB + r"FileNotFoundError: [Errno 2] No such file or directory: 'models\\rf.joblib'",
    {"path": r"models\\rf.joblib"},
)
FILE_OF_R = Entry(
    _FILE,
    _LOAD,
    "A file that R cannot open",
    "R's error does not say which; the warning before it does.",
    "`modelhost logs NAME --run` has the warning with the path: commit that file and deploy it, `modelhost update NAME"
    " --path PATH`.",
    "Calls, outermost first:\n"
    "  main.R:1: readRDS(path)\n"
    '  gzfile(file, "rb")\n'
    'Error in gzfile(file, "rb"): cannot open the connection',
)

STORED = (
    _ANY_INCOMPATIBLE, MOVED_IN_FILE, CLASS, PROTOCOL, PYTHON_2_PICKLE, NODE_ARRAY, OTHER_PLATFORM, OTHER_JOBLIB,
    NOT_THE_FILE, R_NEWER, R_UNKNOWN,
    _ANY_FILE, FILE, FILE_OF_AUTHOR, FILE_WITH_BACKSLASHES, FILE_OF_R,
)  # fmt: skip
