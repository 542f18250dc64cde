"""Deployments that cannot come up: a clear error, nothing lost, nothing half-made, and mending it works."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from modelhost.v1 import deployment_pb2
from modelhost.v1.error_reason_pb2 import ErrorReason
from tests.checks import leftovers
from tests.git_repos import Content, Link, Repo, Submodule
from tests.running import Deployment, RunningServer, eventually

PYTHON = b"def predict(parameters):\n    return 'mended'\n"
R = b"score <- function(parameters) 'mended'\n"
PYTHONS = ("python2.7", "python3.6")
ON_R = "r"  # whichever R the host has
HALF_A_SECOND = {"nanos": 500_000_000}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with nothing on it but what the test at hand has deployed; its R packages come from an empty place."""
    root = tmp_path_factory.mktemp("bad")
    packages = root / "packages" / "src" / "contrib" / "PACKAGES"
    packages.parent.mkdir(parents=True)
    packages.touch()
    with RunningServer(root / "state", r_repositories=((root / "packages").as_uri(),)) as running:
        yield running


@dataclass(frozen=True)
class Bad:
    """A deployment that fails: for which reason, at which step, and what its message and build log must hold."""

    files: Mapping[str, Content]
    reason: str
    says: str
    step: str = "load"
    logged: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


def python(text: str) -> dict[str, Content]:
    return {"main.py": text.encode()}


def r(text: str) -> dict[str, Content]:
    return {"main.R": text.encode()}


def config(text: str) -> dict[str, Content]:
    return {"main.py": PYTHON, "modelhost.toml": text.encode()}


GOOD = "def predict(parameters):\n    return 'mended'\n"
BROKEN = "def predict(parameters):\n    return (\n"
UNPICKLES = b"import pickle\nmodel = pickle.load(open('model.pkl', 'rb'))\n"
PICKLE = b"c__main__\nNonesuch\n."
NEWER_RDS = b"X\n" + bytes([0, 0, 0, 4, 0, 9, 2, 0, 0, 9, 1, 0]) + bytes(20)  # workspace version 4, R 9.2.0, 9.1.0
RAISES = "def load():\n    raise ValueError('no such table')\n\nload()\n"

SOURCES = {
    "no such branch": Bad({}, "REF_NOT_FOUND", '"mian"; is "main" meant?', "fetch", settings={"ref": "mian"}),
    "no such commit": Bad({}, "REF_NOT_FOUND", "f" * 40, "fetch", settings={"ref": "f" * 40}),
    "a directory that is not there": Bad(
        {}, "PATH_NOT_FOUND", 'no directory "modle"', "fetch", settings={"directory": "modle"}
    ),
    "a directory that is a file": Bad(
        {}, "PATH_NOT_FOUND", 'directory "main.py" is a file', "fetch", settings={"directory": "main.py"}
    ),
    "paths that match nothing": Bad(
        {}, "PATH_NOT_FOUND", '"main.pi"; is "main.py" meant?', "fetch", settings={"paths": ["main.pi"]}
    ),
    "no such project": Bad({}, "PROJECT_NOT_FOUND", "churn", "fetch", settings={"project": "churn"}),
    "a link out of the tree": Bad({"x": Link("../../etc/passwd")}, "PATH_REFUSED", 'the link "x"', "fetch"),
    "a link to an absolute path": Bad({"x": Link("/etc/passwd")}, "PATH_REFUSED", "an absolute path", "fetch"),
    "a submodule": Bad({"vendor": Submodule()}, "PATH_REFUSED", '"vendor" is a submodule', "fetch"),
}

CONFIGS = {
    "malformed": Bad(config("runtime = \n"), "MODEL_CONFIG_INVALID", "line 1", "fetch"),
    "not UTF-8": Bad({"main.py": PYTHON, "modelhost.toml": b"# \xff"}, "MODEL_CONFIG_INVALID", "utf-8", "fetch"),
    "an unknown key": Bad(config("functon = 'x'"), "MODEL_CONFIG_INVALID", "functon", "fetch"),
    "an unknown limit": Bad(config("[limits]\nqueue = 1"), "MODEL_CONFIG_INVALID", "queue", "fetch"),
    "a wrong type": Bad(config("main_file = 3"), "MODEL_CONFIG_INVALID", "main_file", "fetch"),
    "a wrong type below": Bad(config("[limits]\nqueue_size = 'x'"), "MODEL_CONFIG_INVALID", "queue_size", "fetch"),
    "a limit out of bounds": Bad(config("[limits]\nqueue_size = 0"), "MODEL_CONFIG_INVALID", "queue_size", "fetch"),
    "a path out of the tree": Bad(config("main_file = '../x.py'"), "MODEL_CONFIG_INVALID", "main_file", "fetch"),
    "an absolute path": Bad(config("working_dir = '/etc'"), "MODEL_CONFIG_INVALID", "working_dir", "fetch"),
    "a path like an option": Bad(
        config("requirements_file = '-x'"), "MODEL_CONFIG_INVALID", "requirements_file", "fetch"
    ),
    "nested without end": Bad(config("env = " + "[" * 5000), "MODEL_CONFIG_INVALID", "modelhost.toml", "fetch"),
    "a variable of ours": Bad(config("[env]\nMODELHOST_LINK = 'x'"), "MODEL_CONFIG_INVALID", "MODELHOST_LINK", "fetch"),
    "a test call that is not JSON": Bad(
        config("[test]\nparameters_json = '{'"), "MODEL_CONFIG_INVALID", "test_call.parameters_json", "fetch"
    ),
    "no runtime": Bad(
        {"main.py": PYTHON}, "MODEL_CONFIG_INVALID", "no runtime", "fetch",
        settings={"runtime": ""},
    ),
}  # fmt: skip

ENVIRONMENTS = {
    "a runtime that the host lacks": Bad(
        {}, "RUNTIME_NOT_FOUND", "python1.5; it has: python2.7, ", "fetch",
        settings={"runtime": "python1.5"},
    ),
    "requirements that do not resolve": Bad(
        {"main.py": PYTHON, "requirements.txt": b"--no-index\nnonesuch==1.0\n"},
        "REQUIREMENT_NOT_FOUND", "nonesuch==1.0", "provision", logged="No matching distribution found",
    ),
    "requirements of nonsense": Bad(
        {"main.py": PYTHON, "requirements.txt": b"--no-index\nnot a package at all\n"},
        "REQUIREMENTS_FAILED", "not a package at all", "provision",
    ),
    "an option that is none": Bad(
        {"main.py": PYTHON, "requirements.txt": b"# one\n--frobnicate\n"},
        "REQUIREMENTS_FAILED", "requirements.txt:2: --frobnicate", "provision",
    ),
    "requirements out of the tree": Bad(
        {"main.py": PYTHON, "requirements.txt": b"-r ../../etc/passwd\n"},
        "REQUIREMENTS_FAILED", "outside the model's files", "provision",
    ),
    "no such requirements file": Bad(
        {}, "REQUIREMENTS_FAILED", "there is no file needs.txt", "provision",
        settings={"requirements_file": "needs.txt"},
    ),
    "R packages that are nowhere": Bad(
        {"main.R": R, "packages.txt": b"nonesuch\n"}, "REQUIREMENT_NOT_FOUND", "nonesuch", "provision",
        settings={"runtime": ON_R},
    ),
    "R packages of nonsense": Bad(
        {"main.R": R, "packages.txt": b"\n???\n"}, "REQUIREMENTS_FAILED", "packages.txt:2: '???'", "provision",
        settings={"runtime": ON_R},
    ),
}  # fmt: skip

MAIN_FILES = {
    "no main file": Bad(
        {"model.py": PYTHON, "main.pyc": b""}, "MAIN_FILE_NOT_FOUND",
        "no file main.py among the deployed files; there is: main.pyc", "fetch",
    ),
    "no main file in R": Bad(
        {"man.R": R}, "MAIN_FILE_NOT_FOUND", "there is: man.R", "fetch", settings={"runtime": ON_R}
    ),
    "no such function": Bad(
        python("def score(p):\n    pass\n\ndef train():\n    pass\n"),
        "FUNCTION_NOT_FOUND", "main.py has no function 'predict'; it defines: score, train",
    ),
    "no such function in 2.7": Bad(
        python("def score(p):\n    pass\n\ndef train():\n    pass\n"),
        "FUNCTION_NOT_FOUND", "main.py has no function 'predict'; it defines: score, train",
        settings={"runtime": "python2.7"},
    ),
    "no such function in R": Bad(
        r("fit <- function(p) 1\ntrain <- function() 2\n"),
        "FUNCTION_NOT_FOUND", "main.R has no function 'score'; it defines: fit, train", settings={"runtime": ON_R},
    ),
    "not callable": Bad(python("predict = 3\n"), "FUNCTION_NOT_FOUND", "'predict' is an int, not a function"),
    "not callable in R": Bad(
        r("score <- 3\n"), "FUNCTION_NOT_FOUND", "'score' is not a function", settings={"runtime": ON_R}
    ),
    "a function that calls itself for R's own": Bad(
        r("predict <- function(p) predict(p)\n"), "FUNCTION_MASKS_BASE", "stats::predict",
        settings={"runtime": ON_R, "function": "predict"},
    ),
}  # fmt: skip

LOADING = {
    **{
        f"a syntax error on {runtime}": Bad(
            python(BROKEN), "SYNTAX_ERROR", "main.py line ", logged="    return (", settings={"runtime": runtime}
        )
        for runtime in PYTHONS
    },
    "Python 2 on 3.6": Bad(python("print 'x'\n"), "SYNTAX_ERROR", "Missing parentheses", logged="print 'x'"),
    "a syntax error in R": Bad(
        r("score <- function(p) {\n  p +* 1\n}\n"), "SYNTAX_ERROR", "unexpected '*'", settings={"runtime": ON_R}
    ),
    "no such module on python2.7": Bad(
        python("import nonesuch\n"), "MODULE_NOT_FOUND", "ImportError: No module named nonesuch",
        logged="    import nonesuch", settings={"runtime": "python2.7"},
    ),
    "no such module on python3.6": Bad(
        python("import nonesuch\n"), "MODULE_NOT_FOUND", "ModuleNotFoundError: No module named 'nonesuch'",
        logged="    import nonesuch",
    ),
    "no such package in R": Bad(
        r("library(nonesuch)\n"), "MODULE_NOT_FOUND", "there is no package called",
        logged="library(nonesuch)", settings={"runtime": ON_R},
    ),
    "a stored model of another version": Bad(
        {"main.py": UNPICKLES, "model.pkl": PICKLE},
        "MODEL_FILE_INCOMPATIBLE", "no attribute 'Nonesuch'", logged="pickle.load(", settings={"runtime": "python2.7"},
    ),
    "a pickle of a newer Python": Bad(
        {"main.py": UNPICKLES, "model.pkl": b"\x80\x05N."}, "MODEL_FILE_INCOMPATIBLE", "unsupported pickle protocol: 5",
        logged="pickle.load(",
    ),
    "a stored model that is not there": Bad(
        {"main.py": UNPICKLES}, "MODEL_FILE_NOT_FOUND", "No such file or directory: 'model.pkl'",
        logged="open('model.pkl'",
    ),
    "a stored model that is not there for setup": Bad(
        python(f"def setup():\n    return open('/home/ann/model.pkl')\n\n{GOOD}"),
        "MODEL_FILE_NOT_FOUND", "No such file or directory: '/home/ann/model.pkl'", logged="in setup",
    ),
    "a stored model that is not there for R": Bad(
        r("model <- readRDS('model.rds')\nscore <- function(p) 1\n"),
        "MODEL_FILE_NOT_FOUND", "cannot open the connection", logged="model.rds", settings={"runtime": ON_R},
    ),
    "an RDS file of a newer R": Bad(
        {"main.R": b"model <- readRDS('model.rds')\n", "model.rds": NEWER_RDS},
        "MODEL_FILE_INCOMPATIBLE", "need R 9.1.0 or newer", settings={"runtime": ON_R},
    ),
    "raises while imported": Bad(
        python(RAISES), "IMPORT_FAILED", "ValueError: no such table", logged="line 2, in load"
    ),
    "exits while imported": Bad(python("import sys\nsys.exit(3)\n"), "IMPORT_FAILED", "SystemExit: 3"),
    "setup raises": Bad(
        python(f"def setup():\n    raise KeyError('weights')\n\n{GOOD}"),
        "SETUP_FAILED", "KeyError: 'weights'", logged="in setup",
    ),
    "setup raises in R": Bad(
        r("setup <- function() stop('no weights')\nscore <- function(p) 1\n"),
        "SETUP_FAILED", "no weights", logged="no weights", settings={"runtime": ON_R},
    ),
    "the process ends": Bad(
        python("import os, sys\nsys.stderr.write('out of luck\\n')\nsys.stderr.flush()\nos._exit(7)\n"),
        "WORKER_DIED_LOADING", "(exit code 7) while loading the model: out of luck",
    ),
    "the process is killed": Bad(
        python("import os\nos.kill(os.getpid(), 9)\n"), "WORKER_DIED_LOADING", "signal SIGKILL"
    ),
    "loading takes too long": Bad(
        python("import time\ntime.sleep(600)\n"), "LOAD_TIMED_OUT", "within 0.5 s",
        settings={"limits": {"load_timeout": HALF_A_SECOND}},
    ),
    "no working directory": Bad(
        {"main.py": PYTHON}, "IMPORT_FAILED", "No such file or directory",
        settings={"working_dir": "data"},
    ),
}  # fmt: skip

TEST_CALLS = {
    "raises": Bad(
        python("def predict(p):\n    return 1 / p\n"), "TEST_CALL_FAILED", "the model raised ZeroDivisionError",
        logged="    return 1 / p", settings={"test_call": {"parameters_json": "0"}},
    ),
    "another result": Bad(
        python("def predict(p):\n    return {'y': p}\n"), "TEST_CALL_FAILED", '{"y": 3} instead of {"y":4}',
        settings={"test_call": {"parameters_json": "3", "expected_json": '{"y":4}'}},
    ),
    "another type": Bad(
        python("def predict(p):\n    return True\n"), "TEST_CALL_FAILED", "true instead of 1",
        settings={"test_call": {"parameters_json": "3", "expected_json": "1"}},
    ),
    "ends the process": Bad(
        python("import os\n\ndef predict(p):\n    os._exit(4)\n"), "TEST_CALL_FAILED", "exit code 4",
        settings={"test_call": {"parameters_json": "0"}},
    ),
    "takes too long": Bad(
        python("import time\n\ndef predict(p):\n    time.sleep(600)\n"), "TEST_CALL_FAILED", "call_timeout of 0.5 s",
        settings={"test_call": {"parameters_json": "0"}, "limits": {"call_timeout": HALF_A_SECOND}},
    ),
    "JSON cannot hold its result": Bad(
        python("def predict(p):\n    return {1, 2}\n"), "TEST_CALL_FAILED", "is a set, which JSON cannot hold",
        settings={"test_call": {"parameters_json": "0"}},
    ),
}  # fmt: skip

CASES = {
    f"{table}: {name}": bad
    for table, bads in {
        "source": SOURCES,
        "modelhost.toml": CONFIGS,
        "environment": ENVIRONMENTS,
        "main file": MAIN_FILES,
        "loading": LOADING,
        "test call": TEST_CALLS,
    }.items()
    for name, bad in bads.items()
}


@pytest.mark.parametrize("bad", CASES.values(), ids=CASES.keys())
def test_a_bad_deployment_fails_with_its_reason_leaves_nothing_and_can_be_mended(
    server: RunningServer, repo: Repo, source: str, name: str, bad: Bad
) -> None:
    runtimes = {**{runtime: runtime for runtime in PYTHONS}, ON_R: server.runtime_of_r()}
    settings = {"runtime": "python3.6", "ref": "main", **bad.settings}
    settings["runtime"] = runtimes.get(settings["runtime"], settings["runtime"])
    repo.commit(bad.files or {"main.py": PYTHON})
    before = leftovers(server.state_dir)
    server.create(name, source, **settings)

    failed = server.start(name)

    log = server.build_log(name)
    assert failed.state == Deployment.STATE_FAILED, log
    assert ErrorReason.Name(failed.failure.reason) == f"ERROR_REASON_{bad.reason}", failed.failure
    assert bad.says in failed.failure.message
    assert failed.failure.step == bad.step
    assert len(failed.failure.hint) > 20
    for line in (bad.logged, failed.failure.message, failed.failure.hint):
        assert line in log
    assert (failed.active_revision, failed.failure.revision) == (0, 1)
    assert not leftovers(server.state_dir) - before

    repo.commit({"main.py": PYTHON, "main.R": R})
    server.client.admin.UpdateDeployment(
        deployment_pb2.UpdateDeploymentRequest(
            deployment=Deployment(
                name=name,
                source=deployment_pb2.ModelSource(data_source=source, ref="main"),
                settings=deployment_pb2.ModelSettings(runtime=runtimes.get(bad.settings.get("runtime"), "python3.6")),
            ),
            update_mask={"paths": ["source", "settings"]},
        )
    )
    assert server.start(name).state == Deployment.STATE_RUNNING, server.build_log(name)
    assert server.predict(name, 0) in ("mended", ["mended"])
    server.client.admin.DeleteDeployment(deployment_pb2.DeleteDeploymentRequest(name=name, force=True))
    eventually(lambda: not leftovers(server.state_dir) - before)


def test_a_start_without_mending_fails_as_the_one_before_did(
    server: RunningServer, repo: Repo, source: str, name: str
) -> None:
    repo.commit({"model.py": PYTHON})
    server.create(name, source)

    first, second = server.start(name).failure, server.start(name).failure

    assert second.time.ToNanoseconds() > first.time.ToNanoseconds()
    assert (first.reason, first.message, first.step) == (second.reason, second.message, second.step)
