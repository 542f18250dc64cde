"""How a Python worker finds a model's code, and what it says where it does not."""

import pytest

PYTHON2 = pytest.mark.parametrize("interpreter", ["2.7"], indirect=True)
PYTHON3 = pytest.mark.parametrize("interpreter", ["3.6", "3.13"], indirect=True)

ECHO = "def predict(parameters):\n    return parameters\n"


# ---- the main file runs as a script does


def test_the_main_module_is_the_models(serve):
    worker = serve(
        """
import sys
at_import = sys.modules["__main__"].__dict__ is globals()
def predict(parameters):
    import main
    return [at_import, main.__dict__ is globals(), __name__, sys.modules["__main__"] is main]
"""
    )
    assert worker.call(None).value == [True, True, "main", True]


def test_what_is_for_running_as_a_program_does_not_run(serve):
    worker = serve(ECHO + "if __name__ == '__main__':\n    raise SystemExit('ran')\n")
    assert worker.call(1).value == 1


def test_a_file_called_main_in_underscores_does_not_run_as_a_program_either(serve):
    source = ECHO + "if __name__ == '__main__':\n    raise SystemExit('ran')\n"
    assert serve({"__main__.py": source}, main_file="__main__.py").call(1).value == 1


def test_a_pickle_of_a_class_of_the_training_script_loads(serve, interpreter, root):
    pickled = b"(c__main__\nModel\np0\noq\x01}q\x02(U\x05slopeq\x03K\x03ub."
    worker = serve(
        {
            "main.py": """
import io, pickle
class Model:
    def predict(self, x):
        return self.slope * x
with io.open("model.pkl", "rb") as opened:
    model = pickle.load(opened)
def predict(parameters):
    return model.predict(parameters["x"])
""",
            "model.pkl": pickled,
        }
    )
    assert worker.call({"x": 4}).value == 12


def test_arguments_and_folders_are_those_of_a_script(serve, root):
    worker = serve(
        {
            "code/main.py": "import os, sys\ndef predict(_):\n    return [sys.argv, sys.path, os.getcwd(), __file__]\n",
            "lib/a/x.txt": "",
            "data/x.txt": "",
        },
        main_file="code/main.py",
        working_dir="data",
        import_paths=["lib", "lib/a"],
    )
    argv, path, cwd, file = worker.call(None).value
    assert argv == [f"{root}/code/main.py"]
    assert path[:4] == [f"{root}/code", f"{root}", f"{root}/lib", f"{root}/lib/a"]
    assert not [folder for folder in path if "runtimes" in folder]
    assert cwd == f"{root}/data"
    assert file == argv[0]


def test_a_model_imports_from_its_own_folders(serve):
    worker = serve(
        {
            "code/main.py": "import beside, below.module, there\nfrom beside import predict\n",
            "code/beside.py": "def predict(parameters):\n    return 'imported'\n",
            "below/__init__.py": "",
            "below/module.py": "",
            "lib/there.py": "",
        },
        main_file="code/main.py",
        import_paths=["lib"],
    )
    assert worker.call(None).value == "imported"


@pytest.mark.parametrize(
    "name", ["my model.py", "modèle.py", "v1.2-final.py", ".hidden.py", "json.py", "model", "os.py"]
)
def test_the_main_file_may_have_any_name(serve, name):
    worker = serve({f"a föld er/{name}": "import json, os\n" + ECHO}, main_file=f"a föld er/{name}")
    assert worker.call({"x": [1]}).value == {"x": [1]}


@PYTHON2
def test_a_declared_encoding_counts(serve):
    source = "# -*- coding: latin-1 -*-\ndef predict(_):\n    return u'caf\xe9'\n".encode("latin-1")
    assert serve({"main.py": source}).call(None).value == "café"


def test_line_ends_of_windows_and_a_byte_order_mark_are_no_trouble(serve):
    assert serve({"main.py": b"\xef\xbb\xbf" + ECHO.replace("\n", "\r\n").encode()}).call(1).value == 1


@PYTHON2
def test_division_and_print_are_those_of_python_2(serve):
    assert serve("def predict(p):\n    print 'hello'\n    return 7 / 2\n").call(None).value == 3


# ---- the function


def test_the_function_may_have_another_name(serve):
    assert serve("def score(p):\n    return 'scored'\n", function="score").call(None).value == "scored"


def test_a_missing_function_is_answered_with_those_there_are(refusal):
    answer = refusal("from os.path import join\nimport json\nx = 1\ndef score(p): pass\ndef train(): pass\n")
    assert answer["reason"] == "function_not_found"
    assert answer["message"] == "main.py has no function 'predict'; it defines: score, train"
    assert answer["defines"] == ["score", "train"]


def test_a_missing_function_in_an_empty_file(refusal):
    assert refusal("")["message"] == "main.py has no function 'predict'; it defines no functions"


def test_a_function_has_to_be_callable(refusal):
    answer = refusal("predict = [1]\n")
    assert (answer["reason"], answer["message"]) == (
        "function_not_found",
        "main.py: 'predict' is a list, not a function",
    )


# ---- setup and batch


def test_setup_runs_once_before_the_model_is_ready(serve):
    worker = serve("calls = []\ndef setup():\n    calls.append(1)\ndef predict(parameters):\n    return len(calls)\n")
    assert worker.loaded["setup"] is True
    assert [worker.call(None).value for _ in range(3)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("source", "answer"),
    [
        ("def predict(parameters, state): return state", "state"),
        ("def predict(parameters, state=None): return state", None),
        ("def predict(parameters): return None", None),
        ("def predict(*parameters): return len(parameters)", 1),
        ("class C(object):\n    def f(self, p, state): return state\npredict = C().f", "state"),
        ("class C(object):\n    def __call__(self, p, state): return state\npredict = C()", "state"),
        ("class C(object):\n    def __call__(self, p): return 1\npredict = C()", 1),
        ("class C(object):\n    @staticmethod\n    def f(p, state): return state\npredict = C.f", "state"),
        ("class C(object):\n    @classmethod\n    def f(cls, p, state): return state\npredict = C.f", "state"),
        ("import functools\ndef f(a, p, state): return [a, state]\npredict = functools.partial(f, 1)", [1, "state"]),
        ("import functools\ndef f(p, state, b): return [state, b]\npredict = functools.partial(f, b=1)", ["state", 1]),
        ("class predict(dict):\n    def __init__(self, p, state): self['state'] = state", {"state": "state"}),
        ("predict = repr", "None"),
        ("from operator import itemgetter\nclass C(dict):\n    __call__ = dict.get\npredict = C()", None),
    ],
)
def test_a_second_argument_that_is_required_is_what_setup_returned(serve, source, answer):
    assert serve(f"def setup():\n    return 'state'\n{source}\n").call(None).value == answer


@PYTHON3
def test_a_decorated_function_is_asked_for_its_own_arguments(serve):
    worker = serve(
        """
import functools
def logged(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)
    return wrapper
def setup():
    return 'state'
@logged
def predict(parameters, state):
    return state
"""
    )
    assert worker.call(None).value == "state"


def test_hooks_that_are_only_imported_do_not_count(serve):
    worker = serve("from os import getpid as setup\nfrom os import getcwd as predict_batch\n" + ECHO)
    assert (worker.loaded["setup"], worker.loaded["batch"]) == (False, False)
    assert worker.loaded["warnings"] == [
        "main.py does not define 'setup' itself: it is not called",
        "main.py does not define 'predict_batch' itself: it is not called",
    ]


# ---- what may be wrong


def test_a_missing_main_file(refusal):
    answer = refusal({"model.py": ECHO})
    assert (answer["reason"], answer["message"]) == ("main_file_not_found", "main.py: No such file or directory")


def test_a_main_file_that_is_a_folder(refusal):
    answer = refusal({"main.py/x": ""})
    assert (answer["reason"], answer["message"]) == ("main_file_not_found", "main.py: Is a directory")


def test_a_missing_working_directory(refusal):
    answer = refusal(ECHO, working_dir="data")
    assert (answer["reason"], answer["message"]) == (
        "import_failed",
        "data: No such file or directory",
    )


def test_a_syntax_error_is_placed(refusal):
    answer = refusal({"code/main.py": "x = 1\n\ndef predict(:\n    pass\n"}, main_file="code/main.py")
    assert answer["reason"] == "syntax_error"
    assert answer["message"] == "code/main.py line 3: invalid syntax"
    assert "    def predict(:\n" in answer["traceback"]


@PYTHON3
def test_a_model_for_python_2_meets_a_syntax_error_on_3(refusal):
    answer = refusal("print 'hello'\n")
    assert answer["message"].startswith("main.py line 1: Missing parentheses in call to 'print'")


@pytest.mark.parametrize("source", [b"x = '\x00'\n", b"# -*- coding: klingon -*-\n", b"(" * 5000])
def test_a_main_file_that_no_compiler_takes(refusal, source):
    answer = refusal({"main.py": source})
    assert answer["reason"] == "syntax_error"
    assert answer["message"].startswith("main.py")


def test_a_failing_import_is_shown_from_the_models_first_line(refusal, root):
    answer = refusal({"main.py": "import helper\n", "helper.py": "def f():\n    return {}['x']\nf()\n"})
    assert (answer["reason"], answer["message"]) == ("import_failed", "KeyError: 'x'")
    lines = answer["traceback"].splitlines()
    assert lines[:3] == [
        "Traceback (most recent call last):",
        f'  File "{root}/main.py", line 1, in <module>',
        "    import helper",
    ]
    assert "return {}['x']" in answer["traceback"]
    assert "python_worker" not in answer["traceback"]


def test_a_syntax_error_in_an_imported_file_is_a_failing_import(refusal):
    assert refusal({"main.py": "import helper\n", "helper.py": "def"})["reason"] == "import_failed"


def test_a_missing_package(refusal):
    answer = refusal("import sklearn\n")
    assert answer["reason"] == "import_failed"
    assert "No module named" in answer["message"]


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("sys.exit()", "SystemExit"),
        ("sys.exit('no licence')", "SystemExit: no licence"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise ValueError('one\\ntwo')", "ValueError: one two"),
    ],
)
def test_whatever_is_raised_at_import_is_a_failing_import(refusal, statement, message):
    answer = refusal(f"import sys\n{statement}\n")
    assert (answer["reason"], answer["message"]) == ("import_failed", message)


def test_a_failing_setup(refusal, root):
    answer = refusal("def setup():\n    raise IOError('no weights')\n" + ECHO)
    assert answer["reason"] == "setup_failed"
    assert answer["message"].endswith("Error: no weights")
    assert answer["traceback"].splitlines()[1] == f'  File "{root}/main.py", line 2, in setup'


def test_a_worker_that_could_not_load_still_stops_in_order(start, root):
    worker = start()
    assert worker.load(root=root).type == "load_failed"
    assert worker.ping().type == "pong"
    assert worker.stop() == 0
