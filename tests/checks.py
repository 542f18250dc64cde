"""What tests of things that go wrong share: that a refusal is a proper one, that nothing is left, and a gate."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.rpc import error_details_pb2, status_pb2

from modelhost.client import ModelHostError
from modelhost.server.statedir import StateDir

DETAILS_LIMIT = 4096
MESSAGE_LIMIT = 1024


@contextmanager
def refused(reason: str) -> Iterator[pytest.ExceptionInfo[ModelHostError]]:
    """The block's call is refused for that reason, in the way in which every refusal is promised to be."""
    with pytest.raises(ModelHostError) as caught:
        yield caught
    assert caught.value.reason == reason, caught.value
    check_status(caught.value.__cause__)


def check_status(call: BaseException | None) -> status_pb2.Status:
    """A failed call has one ErrorInfo of ours, and is no larger than promised; returns its status."""
    assert isinstance(call, grpc.RpcError)
    assert isinstance(call, grpc.Call)
    data = dict(call.trailing_metadata() or ()).get("grpc-status-details-bin")
    assert isinstance(data, bytes), f"no details: {call.code()} {call.details()}"
    assert len(data) <= DETAILS_LIMIT
    assert len((call.details() or "").encode()) <= MESSAGE_LIMIT
    status = status_pb2.Status.FromString(data)
    assert (status.code, status.message) == (call.code().value[0], call.details())
    infos = [detail for detail in status.details if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR)]
    assert len(infos) == 1
    info = error_details_pb2.ErrorInfo.FromString(infos[0].value)
    assert info.domain == "modelhost"
    assert info.reason.isupper()
    return status


class Gate:
    """A file that a model waits for until a test opens it: `do("wait", path=gate.path)`."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def open(self) -> None:
        Path(self.path).touch()

    def close(self) -> None:
        Path(self.path).unlink()


def leftovers(state_dir: Path) -> set[str]:
    """What there is of half-made things and of workers in a state directory."""
    state = StateDir(state_dir)
    found = {f"worker directory {path.name}" for path in state.workers.iterdir()}
    found |= {f"half-made snapshot {path.name}" for path in state.snapshots.glob(".tmp-*")}
    if state.environments.exists():
        folders = [path for path in state.environments.iterdir() if path.name != ".locks"]
        found |= {f"half-made environment {path.name}" for path in folders if not (path / "manifest.json").is_file()}
    mark = "=".join(next(iter(state.marker.items()))).encode()
    for process in Path("/proc").iterdir():
        with suppress(OSError):  # not a process, or gone by now
            if process.name.isdigit() and mark in (process / "environ").read_bytes().split(b"\0"):
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.add(f"process {process.name}: {command}")
    return found


def raw_channel(address: str) -> grpc.Channel:
    """A channel that sends the bytes it is given, however many. Close it."""
    return grpc.insecure_channel(address, [("grpc.max_send_message_length", -1), ("grpc.enable_http_proxy", 0)])


def raw_call(channel: grpc.Channel, path: str, rpc: MethodDescriptor, data: bytes, token: str | None) -> list[bytes]:
    """Call any method with one request; returns all responses. `token` is what follows `authorization:`."""
    kind = f"{'stream' if rpc.client_streaming else 'unary'}_{'stream' if rpc.server_streaming else 'unary'}"
    request = iter([data]) if rpc.client_streaming else data
    answer = getattr(channel, kind)(path)(request, metadata=[("authorization", token)] if token is not None else [])
    return list(answer) if rpc.server_streaming else [answer]
