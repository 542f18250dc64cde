"""The life of a model in a GitLab: registered, deployed broken, mended, debugged, updated under calls, rolled back.

    python examples/demo_gitlab.py   # exit 0 if all of it went as it says

`make demo-gitlab` makes the virtual environment for it first. The GitLab is the stand-in of the tests, which answers as
GitLab's API documentation says; the server, the command, Git and the model's Python are real.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import demo
from direct.run import run as run_directly

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from modelhost.client import Client, ModelHostError
from modelhost.v1 import deployment_pb2
from tests.gitlab_stand_in import GitLab

MODEL = demo.HERE / "diabetes-python36"
PROJECT = "health/diabetes"
PATIENT = '[{"bmi": 1.3, "age": 0.8}]'
TOKEN_DAYS = 20


class Wrong(Exception):
    """The demo did not go as it should."""


class Command:
    """Runs `modelhost`, and shows what a person would see."""

    def __init__(self, address: str, state: Path) -> None:
        self._program = str(Path(sys.executable).with_name("modelhost"))
        self._variables = {
            **os.environ,
            "MODELHOST_ADDRESS": address,
            "MODELHOST_TOKEN_FILE": str(state / "admin.token"),
            "COLUMNS": "110",
        }

    def __call__(self, line: str, *, expected: int = 0, variables: Mapping[str, str] | None = None) -> str:
        """Print the line and its output, and return the output. Raises `Wrong` for another exit code than expected."""
        print(f"$ {line}", flush=True)
        with subprocess.Popen(
            [self._program, *shlex.split(line)[1:]],
            env={**self._variables, **(variables or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            assert process.stdout is not None
            output = ""
            for text in process.stdout:
                print(text, end="", flush=True)
                output += text
        if process.returncode != expected:
            raise Wrong(f"`{line}` ended with {process.returncode} instead of {expected}")
        return output


class Calls:
    """Calls a model again and again while the block runs."""

    def __init__(self, address: str, token: str, name: str) -> None:
        self._client = Client(address, token)
        self._name = name
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answered = 0
        self.failures: list[str] = []

    def __enter__(self) -> "Calls":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._client.close()
        print(f"calls meanwhile: {self.answered} answered, {len(self.failures)} failed", flush=True)
        if self.failures or not self.answered:
            raise Wrong(f"calls failed: {self.failures[:3]}")

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._client.predict(self._name, json.loads(PATIENT))
                self.answered += 1
            except ModelHostError as error:
                self.failures.append(str(error))


def title(text: str) -> None:
    print(f"\n== {text}", flush=True)


def files_of(folder: Path) -> dict[str, bytes]:
    """The model as it lies in the examples."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def story(gitlab: GitLab, address: str, state: Path) -> None:
    """All of it, step by step. Raises `Wrong`."""
    modelhost = Command(address, state)
    admin_token = (state / "admin.token").read_text().strip()
    token = gitlab.token(expires=(datetime.now(UTC) + timedelta(days=TOKEN_DAYS)).date())
    repo = gitlab.project(f"energy/{PROJECT}").repo
    good = files_of(MODEL)
    rows = b"    rows = features.matrix(patients)\n"
    good["main.py"] = good["main.py"].replace(rows, rows + b'    print("patients: %d" % len(patients))\n')

    title("register the GitLab, and see what is in it")
    modelhost(
        f"modelhost source add energy --gitlab {gitlab.url} --namespace energy",
        variables={"MODELHOST_GITLAB_TOKEN": token},
    )
    repo.commit({**good, "requirements.txt": b"numpy==1.19.5\n"}, message="First try")
    modelhost(f"modelhost source test energy --project {PROJECT}")
    modelhost("modelhost source projects energy")
    modelhost(f"modelhost source files energy --project {PROJECT}")

    title("deploy it; it fails, for somebody forgot a requirement")
    deploy = f"modelhost deploy --name diabetes --source energy --project {PROJECT} --runtime python3.6"
    modelhost(deploy, expected=1)
    log = modelhost("modelhost logs diabetes --build --last 12")
    if "No module named" not in log:
        raise Wrong("the log does not show the cause")

    title("mend it in GitLab, update, start again")
    repo.commit(good, message="Say what it needs")
    modelhost("modelhost update diabetes")
    modelhost("modelhost start diabetes")

    title("debug a call, then predict")
    modelhost(f"modelhost predict diabetes '{PATIENT}' --debug")
    predicted = json.loads(modelhost(f"modelhost predict diabetes '{PATIENT}'"))
    with Client(address, admin_token) as client:
        expected = directly(client, state)
    print(f"without ModelHost: {demo.compact(expected)}")
    if predicted != expected:
        raise Wrong("the model predicts something else than without ModelHost")

    title("update to a revision that does not load, under calls")
    bad = good["features.py"].replace(b"import numpy as np", b"import nunpy as np")
    repo.commit({**good, "features.py": bad}, message="A typing error")
    with Calls(address, admin_token, "diabetes"):
        modelhost("modelhost update diabetes", expected=1)
    modelhost("modelhost show diabetes")
    modelhost("modelhost diff diabetes")

    title("update to a revision that loads and is worse; go back, under calls")
    worse = good["main.py"].replace(b"np.round(pipeline.predict(rows), 1)", b"np.round(pipeline.predict(rows), -2)")
    repo.commit({**good, "main.py": worse, "modelhost.toml": b""}, message="Round a little")
    modelhost("modelhost update diabetes")
    modelhost(f"modelhost predict diabetes '{PATIENT}'")
    modelhost("modelhost diff diabetes --base 2")
    with Calls(address, admin_token, "diabetes"):
        begun = time.monotonic()
        modelhost("modelhost rollback diabetes 2")
        took = time.monotonic() - begun
    print(f"back in {took:.2f} s")
    if json.loads(modelhost(f"modelhost predict diabetes '{PATIENT}'")) != expected:
        raise Wrong("the rollback did not bring the old answers back")
    modelhost("modelhost show diabetes --revisions")


def directly(client: Client, state: Path) -> object:
    """What the model predicts when its author runs it, in the environment of revision 2."""
    revision = client.admin.GetRevision(deployment_pb2.GetRevisionRequest(name="deployments/diabetes/revisions/2"))
    environment = state / "environments" / revision.environment.removeprefix("environments/")[:32]
    return run_directly(MODEL, str(environment / "bin" / "python"), json.loads(PATIENT))


def main() -> int:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    work = demo.HERE.parent / ".demo-gitlab"
    shutil.rmtree(work, ignore_errors=True)
    (work / "gitlab").mkdir(parents=True)
    begun = time.monotonic()
    try:
        with (
            GitLab(work / "gitlab") as gitlab,
            demo.server(work / "state", "127.0.0.1:0", "--git-host", "127.0.0.1") as (address, _),
        ):
            story(gitlab, address, work / "state")
    except Wrong as wrong:
        print(f"\n{wrong}\nthe server's log is {work / 'server.log'}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped")
        return 130
    print(f"\nall went as it should, in {time.monotonic() - begun:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
