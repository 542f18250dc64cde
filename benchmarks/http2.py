"""Just enough of HTTP/2 (RFC 9113) and HPACK (RFC 7541) to send prepared gRPC calls and to see them answered.

A connection costs a few microseconds of Python per call: headers are encoded once, frames are put together from bytes
that are there already, and answers are only counted.
"""

import socket
from collections import deque
from collections.abc import Iterator

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
FRAME_HEADER = 9
FIRST_WINDOW = 65_535
WIDEST_WINDOW = 2**31 - 1
LARGEST_BODY = 16_384  # one frame, and within every window
READ_BYTES = 256 * 1024
_STATIC_ENTRIES = 61
_POST, _HTTP = b"\x83", b"\x86"  # :method POST and :scheme http of the static table
_INITIAL_WINDOW_SIZE = b"\0\x04"


def http2_frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """A frame."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def integer(value: int, bits: int, first: int) -> bytes:
    """An integer of HPACK whose first byte shares `bits` bits with what `first` says."""
    most = (1 << bits) - 1
    if value < most:
        return bytes((first | value,))
    encoded, value = [first | most], value - most
    while value >= 128:
        encoded.append(value % 128 + 128)
        value //= 128
    return bytes((*encoded, value))


def header_blocks(headers: list[tuple[str, str]]) -> tuple[bytes, bytes]:
    """The headers of a POST: as a connection's first call has them, then as all others have, by reference to those."""
    first = _POST + _HTTP
    for name, value in headers:
        first += b"\x40" + b"".join(integer(len(text), 7, 0) + text.encode() for text in (name, value))
    newest = _STATIC_ENTRIES + 1
    again = b"".join(integer(newest + age, 7, 0x80) for age in reversed(range(len(headers))))
    return first, _POST + _HTTP + again


class Connection:
    """A connection with calls of one method under way. Bodies hold framed messages. Raises `ConnectionError`."""

    def __init__(self, address: str, method: str, headers: list[tuple[str, str]]) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        pseudo = [(":path", f"/{method}"), (":authority", address)]
        grpc = [("content-type", "application/grpc"), ("te", "trailers")]
        self._block, self._next_block = header_blocks(pseudo + grpc + headers)
        self._stream = 1
        self._window = FIRST_WINDOW
        self._waiting: deque[tuple[int, bytes]] = deque()  # bodies for which the other side has no room yet
        settings = http2_frame(SETTINGS, 0, 0, _INITIAL_WINDOW_SIZE + WIDEST_WINDOW.to_bytes(4, "big"))
        widen = http2_frame(WINDOW_UPDATE, 0, 0, (WIDEST_WINDOW - FIRST_WINDOW).to_bytes(4, "big"))
        self._out = bytearray(PREFACE + settings + widen)
        self._in = b""
        self._sizes: dict[int, int] = {}  # bytes received of the answers under way

    def fileno(self) -> int:
        """For `select`."""
        return self._socket.fileno()

    @property
    def has_more_to_send(self) -> bool:
        """Whether the socket would not take everything."""
        return bool(self._out)

    def call(self, body: bytes) -> int:
        """Put a call into the next `flush`; returns its number."""
        if len(body) > LARGEST_BODY:
            raise ValueError(f"a body of {len(body)} bytes; at most {LARGEST_BODY} can be sent")
        stream = self._stream
        self._stream += 2
        self._sizes[stream] = 0
        self._out += http2_frame(HEADERS, END_HEADERS, stream, self._block)
        self._block = self._next_block
        self._waiting.append((stream, body))
        self._send_bodies()
        return stream

    def _send_bodies(self) -> None:
        while self._waiting and len(self._waiting[0][1]) <= self._window:
            stream, body = self._waiting.popleft()
            self._window -= len(body)
            self._out += http2_frame(DATA, END_STREAM, stream, body)

    def flush(self) -> None:
        """Send what there is to send, as far as the socket takes it."""
        if self._out:
            try:
                sent = self._socket.send(self._out)
            except BlockingIOError:
                return
            del self._out[:sent]

    def receive(self) -> Iterator[tuple[int, int]]:
        """Read what has come; yields each call that has ended, and the bytes of its answer."""
        chunk = self._socket.recv(READ_BYTES)
        if not chunk:
            raise ConnectionError("the server has closed the connection")
        data = self._in + chunk
        at = 0
        while len(data) - at >= FRAME_HEADER:
            end = at + FRAME_HEADER + int.from_bytes(data[at : at + 3], "big")
            if end > len(data):
                break
            kind, flags, stream = data[at + 3], data[at + 4], int.from_bytes(data[at + 5 : at + 9], "big")
            if stream:
                if kind == DATA:
                    self._sizes[stream] += end - at - FRAME_HEADER
                elif kind == RST_STREAM:
                    raise ConnectionError("the server has reset a call")
                if kind <= HEADERS and flags & END_STREAM:
                    yield stream, self._sizes.pop(stream)
            else:
                self._of_connection(kind, flags, data[at + FRAME_HEADER : end])
            at = end
        self._in = data[at:]

    def _of_connection(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == SETTINGS and not flags & ACK:
            self._out += http2_frame(SETTINGS, ACK, 0, b"")
        elif kind == PING and not flags & ACK:
            self._out += http2_frame(PING, ACK, 0, payload)
        elif kind == WINDOW_UPDATE:
            self._window += int.from_bytes(payload, "big")
            self._send_bodies()
        elif kind == GOAWAY:
            raise ConnectionError(f"the server wants to end the connection: {payload[8:].decode(errors='replace')}")

    def close(self) -> None:
        """Close it."""
        self._socket.close()
