"""Whatever is sent to a method of Admin or Predict is answered properly: no fault of the server, no crash, no hang.

MODELHOST_FUZZ=1000 sends so many messages to each method.
"""

import base64
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from modelhost.v1 import admin_pb2, predict_pb2, runtime_pb2, service_account_pb2
from tests.access import AccessAdmin, bearer, methods_of, predict
from tests.checks import check_status, raw_channel
from tests.git_repos import Repo
from tests.messages import TEXTS, Messages, mostly, numbers
from tests.refusals import as_refusal
from tests.running import RunningServer, reason_of

METHODS = methods_of(admin_pb2.DESCRIPTOR.services_by_name["Admin"], predict_pb2.DESCRIPTOR.services_by_name["Predict"])
LISTS = [path for path, rpc in METHODS.items() if "page_token" in rpc.input_type.fields_by_name]
OF_ONE_PAGE = {
    "ListRuntimes": "runtimes",
    "ListEnvironments": "environments",
    "ListProjects": "projects steady ",
    "ListServices": "services",
}
MOST = int(os.environ.get("MODELHOST_FUZZ", "15"))
SECONDS = 30.0  # for one call: far more than any needs
STREAM_SECONDS = 0.2  # after which a stream that has nothing to tell is left
READING = ("Get", "List", "Watch", "Read", "Tail", "Diff", "Debug", "Predict", "Describe", "Test", "Open", "Grant")
MODEL_FAULTS = ("MODEL_RAISED", "RESULT_NOT_SERIALISABLE")


def short(path: str) -> str:
    return path.rpartition("/")[2]


often = settings(
    max_examples=MOST,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def said() -> Iterator[list[Any]]:
    """What the server logs."""
    with capture_logs() as said:
        yield said


@pytest.fixture(scope="module")
def server(said: list[Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of its own, which builds nothing but what lies on this disk."""
    folder = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_NO_INDEX", "1")
        with RunningServer(folder / "state", r_repositories=(folder.as_uri(),)) as running:
            repo = Repo(folder / "repo")
            code = b"def predict(parameters):\n    print(1)\n    return parameters\n"
            repo.commit({"main.py": code, "notes.txt": b"two files make two pages\n"})
            repo.tag("v1")
            for source in ("steady", "beside"):
                running.add_source(source, repo)
            running.deploy("steady", "steady")
            running.update("steady", env={"A": "1"})  # makes a second revision
            running.predict("steady", 0)
            running.predict("steady", 0)  # two lines in its log
            admin = AccessAdmin(running)
            for each in ("steady", "beside"):
                admin.account(each, "steady")
                admin.operator(each, "viewer")
            running.create("beside", "beside")
            yield running


@pytest.fixture
def world(server: RunningServer, repo: Repo) -> "World":
    """Things that tests may change and delete, there when a test begins, and how all that is there is called."""
    admin = AccessAdmin(server)
    for make in (
        lambda: server.add_source("victim", repo),
        lambda: server.create("victim", "steady"),
        lambda: admin.account("victim", "steady", requests_per_day=2),
        lambda: admin.operator("victim", "deployer"),
    ):
        reason = reason_of(make)
        assert not reason or reason.endswith("_EXISTS")
    account = service_account_pb2.GetServiceAccountRequest(name="victim")
    if not (keys := server.client.admin.GetServiceAccount(account).api_keys):
        request = service_account_pb2.CreateApiKeyRequest(service_account="victim")
        keys = [server.client.admin.CreateApiKey(request)]
    environments = server.client.admin.ListEnvironments(runtime_pb2.ListEnvironmentsRequest()).environments
    return World(str(repo.path), keys[0].name, environments[0].name)


@pytest.fixture(scope="module")
def channel(server: RunningServer) -> Iterator[grpc.Channel]:
    with raw_channel(server.address) as channel:
        yield channel


# -- what is sent ------------------------------------------------------------------------------------------------------

COLLECTIONS = ("dataSources", "deployments", "services", "serviceAccounts", "operators", "runtimes", "environments")
MASKS = {
    "UpdateDeployment": (
        "description",
        "workers",
        "source.ref",
        "settings",
        "settings.env",
        "settings.limits.call_timeout",
    ),
    "UpdateDataSource": ("description", "git.url", "gitlab", "gitlab.token"),
    "UpdateServiceAccount": ("description", "disabled"),
    "UpdateOperator": ("description", "disabled", "role"),
}
ODD_MASKS = ("name", "etag", "no.such", "settings.", "source", "git", ".", "*", "", "create_time", "settings.env.a")
# Nothing that asks the network: repositories of this disk, and addresses of this host where nobody listens.
ODD_URLS = (
    "", "/", "/nonexistent", "file:///nonexistent", "file://", "https://user:secret@127.0.0.1:1/a", "http://[::1",
    "ssh://127.0.0.1:1/a", "git://127.0.0.1:1/a", "https://127.0.0.1:99999/", "http://[::1]:1/", "ext::sh -c id",
    "https://127.0.0.1:1/?q#f", "--upload-pack=id", "127.0.0.1:", "a\0b", "https://127.0.0.1:1/" + "a" * 3000,
    "HTTPS://127.0.0.1:1", "ftp://127.0.0.1:1/",
)  # fmt: skip
ODD_NAMES = (
    *(f"{each}/{thing}" for each in COLLECTIONS for thing in ("", "victim")), "ghost", "admin", "operators/admin",
    *(f"deployments/victim/revisions/{number}" for number in ("0", "-1", "²", "999999999")), "anonymous",
    "serviceAccounts/victim/apiKeys/a", "serviceAccounts/victim/grants/a",
)  # fmt: skip


@dataclass(frozen=True)
class World:
    """How things are called that are there: the path of a repository, an API key, an environment."""

    repository: str
    api_key: str
    environment: str

    def messages(self, method: str) -> Messages:
        """Requests of a method, mostly of things that are there: what changes them, of those that may be changed."""
        things = st.sampled_from(("steady", "victim") if method.startswith(READING) else ("victim",))
        name = {
            "GetRevision": st.sampled_from([f"deployments/steady/revisions/{number}" for number in (1, 2)]),
            "DiffRevisions": st.sampled_from([f"deployments/steady/revisions/{number}" for number in (1, 2)]),
            "DeleteApiKey": st.just(self.api_key),
            "GetRuntime": st.just("python3.6"),
            "GetEnvironment": st.just(self.environment),
        }.get(method, things)
        ids = [str(uuid.UUID(int=number)) for number in range(3)]
        resource = things.flatmap(lambda thing: st.sampled_from([f"{each}/{thing}" for each in COLLECTIONS]))
        new = numbers(0, 2**64).map(lambda number: f"new-{number}")
        strategies = {
            **dict.fromkeys(("parent", "deployment", "service", "service_account"), mostly(things, NAMES)),
            **dict.fromkeys(
                ("service_account_id", "operator_id", "deployment_id", "data_source_id"), mostly(new, NAMES)
            ),
            "name": mostly(name, NAMES),
            "data_source": mostly(things, NAMES),
            "operator": mostly(st.just("admin"), NAMES),
            "resource": mostly(resource, NAMES),
            "caller": mostly(st.sampled_from(["", "anonymous", "operators/admin", "serviceAccounts/steady"]), NAMES),
            "method": mostly(st.sampled_from([short(path) for path in METHODS]), TEXTS),
            "role": mostly(st.sampled_from([1, 2, 3]), st.sampled_from([0, 4, -1])),
            "request_id": mostly(st.just("") | st.uuids().map(str), st.sampled_from(ids) | TEXTS),
            "etag": mostly(st.just(""), st.sampled_from(["1", "2"]) | TEXTS),
            "page_token": mostly(st.just(""), page_tokens(st.sampled_from(COLLECTIONS))),
            "page_size": mostly(numbers(0, 2**31 - 1), numbers(-(2**31), -1)),
            "days": mostly(st.integers(0, 40), numbers(-(2**31), 2**31 - 1)),
            "revision": mostly(st.sampled_from([0, 1, 2]), numbers(-(2**31), 2**31 - 1)),
            "url": mostly(
                st.sampled_from([self.repository, "https://127.0.0.1:1/a.git", "http://127.0.0.1:1"]),
                st.sampled_from(ODD_URLS),
            ),
            "paths": mostly(st.sampled_from(MASKS.get(method, ("main.py",))), st.sampled_from(ODD_MASKS) | TEXTS),
            "path": mostly(st.just("main.py"), TEXTS),
            "project": mostly(st.just(""), TEXTS),
            "ref": mostly(
                st.sampled_from(["", "main", "v1"]), st.sampled_from(["main~1", "main:notes.txt", "^main"]) | TEXTS
            ),
            "directory": mostly(st.just(""), TEXTS),
            "runtime": mostly(st.sampled_from(["", "python3.6", "runtimes/python3.6"]), TEXTS),
            "workers": mostly(st.sampled_from([0, 1, 2]), st.sampled_from([65, -1, 2**31 - 1, -(2**31)])),
            "parameters_json": mostly(
                st.sampled_from(["1", "{}", "[]"]), st.sampled_from(["[1e999]", '"\\ud800"']) | TEXTS
            ),
            "nonce": mostly(st.uuids().map(str), TEXTS),
            "refresh": mostly(st.just(False), st.just(True), seldom=50),  # asks every interpreter of this host
            "requirements": mostly(st.sampled_from(["a==1", "no-such-package"]), st.just("a @ file:///a") | TEXTS),
        }
        return Messages(strategies)


NAMES = st.sampled_from(ODD_NAMES) | TEXTS


def page_tokens(listings: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Tokens as the server would make them, had a key been these bytes."""
    keys = st.one_of(
        st.binary(max_size=20),
        numbers(-(2**70), 2**70).map(lambda number: str(number).encode()),
        st.sampled_from(
            [b"--help x", b"HEAD main.py", b"HEAD: a", b"0" * 40 + b" a", b"a b", b"1 1", b"9" * 18 + b" -1"]
        ),
        TEXTS.map(str.encode),
    )
    made = st.builds(lambda name, key: base64.urlsafe_b64encode(name.encode() + b"\0" + key).decode(), listings, keys)
    return mostly(made, TEXTS)


# -- how it is answered ------------------------------------------------------------------------------------------------


def send(channel: grpc.Channel, path: str, data: bytes, token: str) -> None:
    """Send it as an admin; any answer is right but one that tells of a fault of the server."""
    rpc = METHODS[path]
    try:
        if rpc.server_streaming:
            stream = channel.unary_stream(path)(data, metadata=bearer(token), timeout=STREAM_SECONDS)
            next(stream, None)
            stream.cancel()
        else:
            channel.unary_unary(path)(data, metadata=bearer(token), timeout=SECONDS)
    except grpc.RpcError as error:
        if rpc.server_streaming and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return
        check_status(error)
        refusal = as_refusal(error)
        bad = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED)
        assert refusal.code not in bad or refusal.reason in MODEL_FAULTS, refusal


def check_that_all_is_well(server: RunningServer, channel: grpc.Channel, said: list[Any]) -> None:
    """The server answers, and has logged no fault of its own."""
    assert predict(channel, "steady", server.token, [1]) == [1]
    faults = [line for line in said if line["log_level"] in ("error", "critical") or "exc_info" in line]
    said.clear()
    assert not faults


@pytest.mark.parametrize("path", METHODS, ids=short)
def test_a_method_answers_whatever_message_it_is_sent(
    server: RunningServer, channel: grpc.Channel, world: World, said: list[Any], path: str
) -> None:
    @often
    @given(world.messages(short(path)).of(METHODS[path].input_type))
    def fuzz(message: Any) -> None:
        send(channel, path, message.SerializeToString(), server.token)

    fuzz()
    check_that_all_is_well(server, channel, said)


@pytest.mark.parametrize("path", METHODS, ids=short)
def test_a_method_answers_whatever_bytes_it_is_sent(
    server: RunningServer, channel: grpc.Channel, world: World, said: list[Any], path: str
) -> None:
    @often
    @given(st.binary(max_size=200))
    def fuzz(data: bytes) -> None:
        send(channel, path, data, server.token)

    fuzz()
    check_that_all_is_well(server, channel, said)


@pytest.mark.parametrize("path", LISTS, ids=short)
def test_a_list_answers_whatever_page_it_is_asked_for(
    server: RunningServer, channel: grpc.Channel, said: list[Any], path: str
) -> None:
    kind = GetMessageClass(METHODS[path].input_type)
    fields = kind.DESCRIPTOR.fields_by_name
    asked = {name: "steady" for name in ("data_source", "deployment", "parent") if name in fields}
    first = channel.unary_unary(path)(kind(page_size=1, **asked).SerializeToString(), metadata=bearer(server.token))
    token = GetMessageClass(METHODS[path].output_type).FromString(first).next_page_token
    listing = base64.urlsafe_b64decode(token).decode().partition("\0")[0] if token else OF_ONE_PAGE[short(path)]

    @often
    @given(page_tokens(st.just(listing)), numbers(-(2**31), 2**31 - 1))
    def fuzz(page_token: str, page_size: int) -> None:
        data = kind(page_token=page_token, page_size=page_size, **asked).SerializeToString()
        send(channel, path, data, server.token)

    fuzz()
    check_that_all_is_well(server, channel, said)
