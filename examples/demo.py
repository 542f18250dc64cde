"""Deploys the three examples on a server of its own and calls them, as a user would: through the public API.

    python examples/demo.py           # exit 0 if all three predict what they predict without ModelHost
    python examples/demo.py --serve   # the same server in the foreground, until Ctrl-C

`make demo` and `make run` make the virtual environment for it first.
"""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from direct.run import run as run_directly

from modelhost.client import Client, ModelHostError
from modelhost.v1 import data_source_pb2, deployment_pb2, log_pb2, runtime_pb2

HERE = Path(__file__).resolve().parent
MODELS = ("iris-python27", "diabetes-python36", "mtcars-r")
WHERE_TO_GET = {
    "python2.7": "`pyenv install 2.7.18`, or the python2.7 of an older distribution",
    "python3.6": "`pyenv install 3.6.15`, or the python3.6 of an older distribution",
    "r3.6": "`apt-get install r-base-core` (the R of your distribution), or R 3.6 below /opt/R/3.6.3",
}
START_SECONDS = 900
Deployment = deployment_pb2.Deployment


@dataclass
class Example:
    """One of the models, and the runtime it gets on this host."""

    folder: Path
    config: dict[str, Any]
    runtime: runtime_pb2.Runtime

    @property
    def name(self) -> str:
        return str(self.config["name"])


class MissingInterpreter(Exception):
    """The host has no interpreter for a model."""


def make_repository(path: Path) -> None:
    """Commit the examples, as they lie here, into a Git repository."""
    path.mkdir(parents=True)
    for name in MODELS:
        shutil.copytree(HERE / name, path / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    git = ["git", "-C", str(path), "-c", "user.name=demo", "-c", "user.email=demo@example.com"]
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "Three models"]):
        subprocess.run([*git, *command], check=True)


@contextlib.contextmanager
def server(state: Path, listen: str, *options: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """Run `modelhost serve`; yields its address. Its log goes to `server.log` beside the state."""
    log = state.parent / "server.log"
    program = str(Path(sys.executable).with_name("modelhost"))
    command = [program, "serve", "--state-dir", str(state), "--listen", listen, *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stderr is not None
    try:
        with log.open("w") as file:
            address = ""
            while not address:
                line = process.stderr.readline()
                file.write(line)
                if not line:
                    file.flush()
                    raise SystemExit(f"the server did not start:\n{log.read_text()}")
                with contextlib.suppress(ValueError):
                    entry = json.loads(line)
                    address = entry["address"] if entry.get("event") == "serving" else ""
        threading.Thread(target=_copy, args=(process.stderr, log), daemon=True).start()
        yield address, process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _copy(stream: Any, log: Path) -> None:
    with log.open("a") as file:
        for line in stream:
            file.write(line)


def choose_runtimes(client: Client) -> list[Example]:
    """Each example with its runtime; R's on the R that is there. Raises `MissingInterpreter`."""
    answer = client.admin.ListRuntimes(runtime_pb2.ListRuntimesRequest())
    there = {runtime.name.removeprefix("runtimes/"): runtime for runtime in answer.runtimes if runtime.usable}
    examples = []
    for name in MODELS:
        config = tomllib.loads((HERE / name / "modelhost.toml").read_text("utf-8"))
        wanted = config["runtime"]
        if wanted not in there and wanted == "r3.6":
            found = [name for name, runtime in there.items() if runtime.language == runtime_pb2.Runtime.LANGUAGE_R]
            wanted = max(found, key=lambda name: [int(part) for part in name[1:].split(".")], default=wanted)
        if wanted not in there:
            raise MissingInterpreter(f"{name} needs {wanted}, which this host lacks: get it by {WHERE_TO_GET[wanted]}")
        examples.append(Example(HERE / name, config, there[wanted]))
    return examples


def deploy(client: Client, examples: list[Example], repository: Path) -> None:
    """Register the repository, create the deployments and start them; what is there already stays as it is."""
    with unless("DATA_SOURCE_EXISTS"):
        client.admin.CreateDataSource(
            data_source_pb2.CreateDataSourceRequest(
                data_source_id="examples",
                data_source=data_source_pb2.DataSource(git=data_source_pb2.GitLocation(url=str(repository))),
            )
        )
    report = client.admin.TestDataSource(data_source_pb2.TestDataSourceRequest(name="dataSources/examples"))
    say("source", report.message)
    for example in examples:
        with unless("DEPLOYMENT_EXISTS"):
            client.admin.CreateDeployment(
                deployment_pb2.CreateDeploymentRequest(
                    deployment_id=example.name,
                    deployment=Deployment(
                        description=example.config["description"],
                        source=deployment_pb2.ModelSource(
                            data_source="dataSources/examples", ref="main", directory=example.folder.name
                        ),
                        settings=deployment_pb2.ModelSettings(runtime=example.runtime.name),
                    ),
                )
            )
        client.admin.StartDeployment(deployment_pb2.StartDeploymentRequest(name=example.name))


@contextlib.contextmanager
def unless(reason: str) -> Iterator[None]:
    """Take it for done where it fails for that reason."""
    try:
        yield
    except ModelHostError as error:
        if error.reason != reason:
            raise


def follow(client: Client, name: str) -> Deployment:
    """Show what the server says of a deployment's start, and return the deployment once that is over."""
    for part in client.admin.TailLog(log_pb2.TailLogRequest(deployment=name), timeout=START_SECONDS):
        for entry in part.entries:
            if entry.stream == log_pb2.LogEntry.STREAM_SERVER:
                say(name, entry.text)
    return client.admin.GetDeployment(deployment_pb2.GetDeploymentRequest(name=name))


def check(client: Client, example: Example, state: Path) -> bool:
    """Call the model through its service, and directly; print both. True if they agree."""
    deployment = follow(client, example.name)
    if deployment.state != Deployment.STATE_RUNNING:
        say(example.name, f"FAILED: {deployment.failure.message} {deployment.failure.hint}")
        return False
    parameters = example.config["test"]["parameters"]
    service = deployment.service.removeprefix("services/")
    predicted = client.predict(service, parameters).result
    revision = client.admin.GetRevision(
        deployment_pb2.GetRevisionRequest(name=f"{deployment.name}/revisions/{deployment.active_revision}")
    )
    environment = state / "environments" / revision.environment.removeprefix("environments/")[:32]
    is_r = example.runtime.language == runtime_pb2.Runtime.LANGUAGE_R
    interpreter = example.runtime.path if is_r else str(environment / "bin" / "python")
    expected = run_directly(example.folder, interpreter, parameters)
    right = bool(predicted == expected)
    runtime = example.runtime
    print(
        f"{example.name} {runtime.name.removeprefix('runtimes/')} {runtime.version} {service}"
        f" predicted={compact(predicted)} expected={compact(expected)} {'ok' if right else 'WRONG'}",
        flush=True,
    )
    return right


def compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def say(what: str, text: str) -> None:
    print(f"  [{what}] {text}", flush=True)


def show_calls(client: Client, address: str, state: Path, examples: list[Example]) -> None:
    """Print lines to paste."""
    print(f"\nModelHost serves on {address}. In another terminal:\n")
    print(f"  export PATH={Path(sys.executable).parent}:$PATH")
    if not address.endswith(":8470"):
        print(f"  export MODELHOST_ADDRESS={address}")
    print("  modelhost list")
    for example in examples:
        print(f"  modelhost predict {example.name} '{compact(example.config['test']['parameters'])}'")
    print("\nwith grpcurl:\n")
    print(f"  TOKEN=$(cat {state / 'admin.token'})")
    print(f"  grpcurl -plaintext {address} list")
    for example in examples:
        body = {"service": example.name, "parameters": example.config["test"]["parameters"]}
        print(
            f"  grpcurl -plaintext -H \"authorization: Bearer $TOKEN\" -d '{compact(body)}'"
            f" {address} modelhost.v1.Predict/Predict"
        )
    print("\nCtrl-C stops the server.", flush=True)


def main() -> int:
    serve = "--serve" in sys.argv[1:]
    # Whoever ends the demo ends its server, too; a shell's background job would ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    work = HERE.parent / (".run" if serve else ".demo")
    if not serve:  # the demo begins anew each time; `make run` goes on where it was stopped
        shutil.rmtree(work, ignore_errors=True)
    repository, state = work / "models", work / "state"
    if not repository.exists():
        draft = work / "models.new"  # whole when it has its name, wherever the first run was interrupted
        shutil.rmtree(draft, ignore_errors=True)
        make_repository(draft)
        draft.rename(repository)
    try:
        with server(state, "127.0.0.1:8470" if serve else "127.0.0.1:0") as (address, process):
            return run(address, process, repository, state, serve=serve)
    except KeyboardInterrupt:
        print("\nstopped")
        return 0 if serve else 130


def run(address: str, process: "subprocess.Popen[str]", repository: Path, state: Path, *, serve: bool) -> int:
    """Deploy, check, and then wait for the end where that is wanted; returns the exit code."""
    begun = time.monotonic()
    with Client(address, (state / "admin.token").read_text().strip()) as client:
        try:
            examples = choose_runtimes(client)
            deploy(client, examples, repository)
            right = [check(client, example, state) for example in examples]
        except MissingInterpreter as missing:
            print(missing, file=sys.stderr)
            return 2
        except ModelHostError as error:
            print(f"{error}\nthe server's log is {state.parent / 'server.log'}", file=sys.stderr)
            return 1
        if serve:
            show_calls(client, address, state, examples)
    if serve:
        return process.wait()
    print(f"{sum(right)} of {len(right)} right in {time.monotonic() - begun:.0f} s")
    return 0 if all(right) else 1


if __name__ == "__main__":
    sys.exit(main())
