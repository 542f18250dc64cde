"""The listener for metrics: one page, whatever is sent to it, and a port that it gives back."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from modelhost.server.observing.listener import CONNECTIONS, MetricsListener
from tests.running import eventually
from tests.scraping import get

PAGE = b"modelhost_up 1\n"


@pytest.fixture
def listener() -> Iterator[MetricsListener]:
    listener = MetricsListener("127.0.0.1:0", lambda: PAGE)
    listener.start()
    yield listener
    listener.close()


def connect(listener: MetricsListener) -> socket.socket:
    host, _, port = listener.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=30)


def said(connection: socket.socket) -> bytes:
    """What it says until it hangs up."""
    answer = b""
    with suppress(ConnectionResetError):
        while data := connection.recv(65536):
            answer += data
    return answer


def test_it_has_one_page(listener: MetricsListener) -> None:
    status, headers, body = get(listener.address)

    assert (status, body) == (200, PAGE)
    assert headers["Content-Length"] == str(len(PAGE))
    assert "Python" not in headers["Server"]
    assert get(listener.address, "/metrics?name[]=up")[2] == PAGE


@pytest.mark.parametrize("path", ["/", "/metrics/", "/metrics.txt", "/../metrics", "/favicon.ico"])
def test_every_other_path_is_not_found(listener: MetricsListener, path: str) -> None:
    assert get(listener.address, path)[0] == 404


def test_a_head_request_has_the_headers_alone(listener: MetricsListener) -> None:
    status, headers, body = get(listener.address, method="HEAD")

    assert (status, headers["Content-Length"], body) == (200, str(len(PAGE)), b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "BREW"])
def test_nothing_can_be_done_to_it(listener: MetricsListener, method: str) -> None:
    assert get(listener.address, method=method)[0] == 501


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        b"\r\n",
        b"\0\xff\xfe\x16\x03\x01 TLS?\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /metrics\r\n\r\n",
        b"GET /metrics HTTP/9.9\r\n\r\n",
        b"GET /metrics HTTP/x\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"GET /metrics HTTP/1.1\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nContent-Length: 999999999\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_an_odd_request_does_not_disturb_it(
    listener: MetricsListener, request_: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    with connect(listener) as connection:
        with suppress(ConnectionError):
            connection.sendall(request_)
            connection.shutdown(socket.SHUT_WR)
        said(connection)

    assert get(listener.address)[2] == PAGE
    assert "Traceback" not in capfd.readouterr().err


def test_those_who_hang_up_do_not_disturb_it(listener: MetricsListener) -> None:
    for _ in range(100):
        with connect(listener) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # hangs up with a reset
            connection.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")

    eventually(lambda: answers(listener))


def test_those_who_say_nothing_have_only_so_many_connections_and_give_them_back(listener: MetricsListener) -> None:
    silent = [connect(listener) for _ in range(CONNECTIONS)]
    try:
        with connect(listener) as one_more:
            assert said(one_more) == b""
    finally:
        for connection in silent:
            connection.close()

    eventually(lambda: answers(listener))


def answers(listener: MetricsListener) -> bool:
    with suppress(OSError):
        return get(listener.address)[2] == PAGE
    return False


def test_where_the_page_cannot_be_made_it_says_so_and_goes_on() -> None:
    pages: list[Callable[[], bytes]] = [lambda: PAGE, lambda: b"%d" % (1 // 0)]
    listener = MetricsListener("127.0.0.1:0", lambda: pages.pop()())
    listener.start()
    try:
        assert get(listener.address)[0] == 500
        assert get(listener.address)[2] == PAGE
    finally:
        listener.close()


def test_a_port_in_use_is_refused_and_can_be_had_once_it_is_closed(listener: MetricsListener) -> None:
    with pytest.raises(OSError, match=f"cannot listen on {listener.address} for metrics: Address already in use"):
        MetricsListener(listener.address, lambda: PAGE)
    get(listener.address)

    listener.close()

    other = MetricsListener(listener.address, lambda: b"other")
    other.start()
    assert get(other.address)[2] == b"other"
    other.close()


def test_a_name_that_is_no_hosts_is_refused() -> None:
    with pytest.raises(OSError, match=r"cannot listen on no-such-host\.invalid:0 for metrics: "):
        MetricsListener("no-such-host.invalid:0", lambda: PAGE)


def test_it_listens_on_version_6_too() -> None:
    listener = MetricsListener("[::1]:0", lambda: PAGE)
    listener.start()
    try:
        assert listener.address.startswith("[::1]:")
        assert get(listener.address)[2] == PAGE
    finally:
        listener.close()


def test_closing_it_ends_its_thread_whether_or_not_it_was_started() -> None:
    started, never = (MetricsListener("127.0.0.1:0", lambda: PAGE) for _ in range(2))
    started.start()

    started.close()
    never.close()

    assert "metrics" not in {thread.name for thread in threading.enumerate()}
