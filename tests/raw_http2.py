"""Calls as no gRPC library sends them: HTTP/2 frames (RFC 9113) with whatever bytes for headers (RFC 7541)."""

import re
import socket
import struct
from collections.abc import Sequence

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY = 0, 1, 3, 4, 7
END_STREAM, ACK, END_HEADERS = 1, 1, 4
STATUS = re.compile(rb"grpc-status.(\d{1,2})", re.DOTALL)
SECONDS = 20.0

Headers = Sequence[tuple[bytes, bytes]]


def status_of_call(
    address: str, path: str, headers: Headers, message: bytes = b"", *, source: str = "127.0.0.1"
) -> int | None:
    """Make one unary call; returns its gRPC status, or None where the server ended the stream or the connection.

    `source` is the host that it comes from: any of 127.0.0.0/8.
    """
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), SECONDS, (source, 0)) as connection:
        block = b"".join(
            _literal(name, value)
            for name, value in (
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":path", path.encode()),
                (b":authority", address.encode()),
                (b"content-type", b"application/grpc"),
                (b"te", b"trailers"),
                *headers,
            )
        )
        body = struct.pack(">BI", 0, len(message)) + message
        connection.sendall(
            PREFACE
            + _frame(SETTINGS, 0, 0)
            + _frame(HEADERS, END_HEADERS, 1, block)
            + _frame(DATA, END_STREAM, 1, body)
        )
        return _answer(connection)


def _answer(connection: socket.socket) -> int | None:
    with connection.makefile("rb") as stream:
        while head := stream.read(9):
            length = int.from_bytes(head[:3], "big")
            kind, flags = head[3], head[4]
            content = stream.read(length)
            if kind == SETTINGS and not flags & ACK:
                connection.sendall(_frame(SETTINGS, ACK, 0))
            elif kind in (RST_STREAM, GOAWAY):
                return None
            elif kind == HEADERS and (found := STATUS.search(content)):  # gRPC's own server does not compress these
                return int(found[1])
    return None


def _frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    return len(content).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + content


def _literal(name: bytes, value: bytes) -> bytes:
    """A header field that nobody indexes, and that is not compressed."""
    return b"\0" + _length(len(name)) + name + _length(len(value)) + value


def _length(length: int) -> bytes:
    if length < 127:
        return bytes((length,))
    rest, encoded = length - 127, [127]
    while rest >= 128:
        encoded.append(rest % 128 + 128)
        rest //= 128
    return bytes((*encoded, rest))
