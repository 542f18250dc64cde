"""`tritonclient`, as its users have it, against a real server: calls, metadata, readiness, the repository."""

from collections.abc import Callable

from tests.git_repos import Repo
from tests.running import RunningServer
from tests.runtimes.elements import SIX
from tests.triton.environment import run


def test_a_call_brings_arrays_and_gets_arrays(server: RunningServer, echo_of: Callable[[str], str]) -> None:
    name = echo_of("python3.6")

    answer = run("infer", server.address, server.token, name)

    assert answer == {"equal": True, "id": "call 7", "model": name, "version": "1"}


def test_every_datatype_comes_back(server: RunningServer, echo: str) -> None:
    assert run("every_datatype", server.address, server.token, echo) == sorted(SIX)


def test_asynchronous_calls_are_answered(server: RunningServer, echo_of: Callable[[str], str]) -> None:
    name = echo_of("python3.6")

    assert run("async_infer", server.address, server.token, name, "20") == list(range(20))
    assert run("asyncio_infer", server.address, server.token, name, "20") == list(range(20))


def test_parameters_reach_the_model(server: RunningServer, repo: Repo, source: str, name: str) -> None:
    repo.commit({"main.py": b"import json\ndef predict(t):\n    return json.dumps(t.parameters)\n"})
    server.deploy(name, source)

    assert run("with_parameters", server.address, server.token, name) == {"word": "yes", "n": 3, "flag": True}


def test_metadata_say_what_the_server_and_a_model_are(server: RunningServer, echo_of: Callable[[str], str]) -> None:
    name = echo_of("python2.7")

    answer = run("metadata", server.address, server.token, name)

    assert answer["server"]["name"] == "modelhost"
    assert answer["server"]["extensions"] == ["model_repository"]
    assert answer["model"]["platform"] == "modelhost_python2.7"
    assert {"name": "FP16", "datatype": "FP16", "shape": ["-1", "-1"]} in answer["model"]["outputs"]


def test_readiness_is_told(server: RunningServer, echo_source: str, echo_of: Callable[[str], str], name: str) -> None:
    ready = echo_of("python3.6")
    service = server.get(ready).service.removeprefix("services/")
    server.create(name, echo_source)
    asked = [ready, service, f"{ready}/1", f"{ready}/2", name, "nowhere"]

    answer = run("readiness", server.address, server.token, *asked)

    assert answer == [True, True, True, True, True, False, False, "StatusCode.NOT_FOUND"]


def test_models_are_unloaded_and_loaded(server: RunningServer, echo_source: str, name: str) -> None:
    server.deploy(name, echo_source)

    before, unloaded, loaded = run("repository", server.address, server.token, name)

    assert before == [{"name": name, "version": "1", "state": "READY"}, True]
    assert unloaded == [{"name": name, "state": "UNAVAILABLE", "reason": "stopped"}, False]
    assert loaded == before


def test_failures_are_told_as_the_client_tells_them(server: RunningServer, echo_of: Callable[[str], str]) -> None:
    name = echo_of("python3.6")

    assert run("failure", server.address, "mha_wrong", name)[0] == "StatusCode.UNAUTHENTICATED"
    status, message = run("failure", server.address, server.token, "nowhere")
    assert (status, message) == ("StatusCode.NOT_FOUND", "there is no prediction service nowhere")


def test_our_messages_are_those_of_the_client_and_get_on_with_them_in_one_process() -> None:
    answer = run("differing_messages")

    assert answer["differing"] == []
    assert answer["messages"] > 20
