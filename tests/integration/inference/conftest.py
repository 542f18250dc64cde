"""Models that give back the tensors they get, on every runtime, and a client of the protocol."""

from collections.abc import Callable, Iterator

import pytest

from tests.git_repos import Repo
from tests.inference import InferenceClient
from tests.running import RunningServer
from tests.runtimes.elements import SIX

# In 2.7 a module and in R a function of the same effect.
ECHO = {
    "main.py": b"def predict(t):\n    return t\n",
    "main.R": b"score <- function(t) t\n",
}
RUNTIMES = ["python2.7", "python3.6", "numpy", "r"]
NUMPY = "numpy==1.19.5"


@pytest.fixture(scope="session")
def echo_source(server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    repo = Repo(tmp_path_factory.mktemp("inference") / "repo")
    repo.commit(ECHO)
    server.add_source("inference-echo", repo)
    return "inference-echo"


@pytest.fixture(scope="session")
def echo_of(server: RunningServer, echo_source: str) -> Callable[[str], str]:
    """The name of a deployment, per runtime, whose outputs are its inputs: one called as each datatype, and as that."""
    made: dict[str, str] = {}

    def echo_of(runtime: str) -> str:
        if runtime not in made:
            name = "echo-" + runtime.replace(".", "")
            settings = {"tensors": 2, "requirements": [NUMPY]} if runtime == "numpy" else {}
            where = {"numpy": "python3.6", "r": server.runtime_of_r()}.get(runtime, runtime)
            outputs = [{"name": datatype, "datatype": datatype, "shape": [-1, -1]} for datatype in SIX]
            server.deploy(name, echo_source, runtime=where, outputs=outputs, **settings)
            made[runtime] = name
        return made[runtime]

    return echo_of


@pytest.fixture(params=RUNTIMES)
def echo(request: pytest.FixtureRequest, echo_of: Callable[[str], str]) -> str:
    """Each in turn."""
    return echo_of(request.param)


@pytest.fixture(scope="session")
def inference(server: RunningServer) -> Iterator[InferenceClient]:
    """A client with the admin's token."""
    with InferenceClient(server.address, server.token) as client:
        yield client
