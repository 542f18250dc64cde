"""One end of the link to a worker: frames over a stream socket, as runtimes/PROTOCOL.md says."""

import asyncio
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, cast

import msgspec

Header = dict[str, Any]

Received = bytes | bytearray  # a body; nobody else has it
Part = bytes | bytearray | memoryview  # to be sent

_PREFIX = struct.Struct("<IQ")
HEADER_LIMIT = 1024 * 1024
ROOM_BYTES = 64 * 1024
SEND_BYTES = 4 * 1024 * 1024  # that may be on their way in the system
SO_SNDBUFFORCE = 32  # of Linux; the socket module does not have it

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Header).decode


class Head:
    """The header of what is sent again and again, each time with an `id` of its own: its text is made once."""

    __slots__ = ("_text", "fields")

    def __init__(self, fields: Header) -> None:
        self.fields = fields
        self._text = b""

    @property
    def text(self) -> bytes:
        """All of it but for the `id` and the brace that ends it."""
        if not self._text:
            self._text = _encode(self.fields)[:-1]
        return self._text


def widen(sock: socket.socket) -> None:
    """Have a socket take large bodies in few pieces, each of which wakes the other side up, as far as it is let.

    The system's usual most is 208 KiB (net.core.wmem_max), which whoever administers networks may exceed: socket(7).
    """
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
        sock.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, SEND_BYTES)


class FrameInvalid(Exception):
    """The peer sent what is no frame."""


class Link(asyncio.BufferedProtocol):
    """Sends frames, and hands each received one to `on_frame` and the end of the stream to `on_end`.

    A body over `body_limit` bytes is dropped as it comes; its frame has `oversize`, the body's size, in the header.
    After a broken frame the connection is closed and `on_end` gets a `FrameInvalid`.

    Small frames are cut out of a buffer that they are read into. A body that does not fit into it is read into memory
    of its own, which is handed on as it is.
    """

    def __init__(
        self,
        on_frame: Callable[[Header, Received], None],
        on_end: Callable[[Exception | None], None],
        *,
        body_limit: int,
    ) -> None:
        self._on_frame = on_frame
        self._on_end = on_end
        self._body_limit = body_limit
        self._room = memoryview(bytearray(ROOM_BYTES))
        self._start = self._end = 0  # of what was read into it and not yet handed on
        self._drop = 0  # bytes of an oversized body still to come
        self._large: _LargeBody | None = None  # that is being read
        self._transport: asyncio.Transport | None = None
        self._error: Exception | None = None

    @classmethod
    async def over(
        cls,
        sock: socket.socket,
        on_frame: Callable[[Header, Received], None],
        on_end: Callable[[Exception | None], None],
        *,
        body_limit: int,
    ) -> "Link":
        """Take over a connected socket."""
        loop = asyncio.get_running_loop()
        _, link = await loop.create_unix_connection(lambda: cls(on_frame, on_end, body_limit=body_limit), sock=sock)
        return link

    def send(self, header: Header, *body: Part) -> None:
        """Send a frame, its body in parts; buffered without bound, for a worker has one call at a time."""
        self._send(_encode(header), body)

    def ask(self, head: Head, number: int, body: Sequence[Part]) -> None:
        """Send a frame as `send` does, whose header is that one with its `id`."""
        self._send(b'%b,"id":%d}' % (head.text, number), body)

    def _send(self, head: bytes, body: Sequence[Part]) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        size = sum(map(len, body))
        prefix = _PREFIX.pack(len(head), size)
        if size < ROOM_BYTES:
            self._transport.write(b"".join((prefix, head, *body)))
        else:
            self._transport.writelines((prefix + head, *body))

    def close(self) -> None:
        """Close the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio: the socket is ours."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclasses

    def connection_lost(self, exc: Exception | None) -> None:
        """Asyncio: the stream has ended."""
        self._on_end(self._error or exc)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Asyncio: where to read to."""
        return self._room[self._end :] if self._large is None else self._large.rest

    def buffer_updated(self, nbytes: int) -> None:
        """Asyncio: so many bytes were read."""
        if self._large is None:
            self._end += nbytes
        else:
            self._large.rest = self._large.rest[nbytes:]
            if self._large.rest:
                return
        try:
            self._take_frames()
        except (FrameInvalid, msgspec.DecodeError) as error:
            self._error = error
            self.close()

    def _take_frames(self) -> None:
        """Hand on all frames that are whole, and see to it that there is room for more."""
        if (large := self._large) is not None:
            self._large = None
            self._on_frame(large.header, large.body)
        wanted = 0
        while self._start < self._end and not wanted:
            if self._drop:
                dropped = min(self._drop, self._end - self._start)
                self._drop -= dropped
                self._start += dropped
            wanted = self._take_frame()
        if self._start == self._end:
            self._start = self._end = 0
        if self._start + wanted > len(self._room) or len(self._room) > ROOM_BYTES:
            self._move(wanted)

    def _take_frame(self) -> int:
        """Hand the next frame on, if it is whole, and return 0; else the bytes that it is known to have, so far."""
        room, start, there = self._room, self._start, self._end - self._start
        if there < _PREFIX.size:
            return _PREFIX.size
        head_size, body_size = _PREFIX.unpack_from(room, start)
        if head_size > HEADER_LIMIT:
            raise FrameInvalid(f"a header of {head_size} bytes; {HEADER_LIMIT} are allowed")
        whole_head = _PREFIX.size + int(head_size)
        if there < whole_head:
            return whole_head
        body_at, end = start + whole_head, start + whole_head + body_size
        if body_size > self._body_limit:
            header = _decode(room[start + _PREFIX.size : body_at])
            header["oversize"] = self._drop = body_size
            self._start = body_at
            self._on_frame(header, b"")
        elif end <= self._end:
            self._start = end
            self._on_frame(_decode(room[start + _PREFIX.size : body_at]), bytes(room[body_at:end]))
        elif whole_head + body_size <= ROOM_BYTES:
            return whole_head + int(body_size)
        else:
            header = _decode(room[start + _PREFIX.size : body_at])
            self._large = _LargeBody(header, int(body_size), room[body_at : self._end])
            self._start = self._end
            return _PREFIX.size
        return 0

    def _move(self, wanted: int) -> None:
        """Have room for so many bytes from `_start` on, and for no more than needed."""
        kept = self._room[self._start : self._end]
        room = memoryview(bytearray(max(wanted, ROOM_BYTES)))
        room[: len(kept)] = kept
        self._room, self._start, self._end = room, 0, len(kept)


class _LargeBody:
    """A body on its way, of which the beginning has come."""

    def __init__(self, header: Header, size: int, begun: memoryview) -> None:
        self.header = header
        self.body = bytearray(size)
        self.body[: len(begun)] = begun
        self.rest = memoryview(self.body)[len(begun) :]
