"""One end of the link to a worker: frames over a stream socket, as runtimes/PROTOCOL.md says."""

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any, cast

import msgspec

Header = dict[str, Any]

_PREFIX = struct.Struct("<IQ")
HEADER_LIMIT = 1024 * 1024

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Header).decode


class FrameInvalid(Exception):
    """The peer sent what is no frame."""


class Link(asyncio.Protocol):
    """Sends frames, and hands each received one to `on_frame` and the end of the stream to `on_end`.

    A body over `body_limit` bytes is dropped as it comes; its frame has `oversize`, the body's size, in the header.
    After a broken frame the connection is closed and `on_end` gets a `FrameInvalid`.
    """

    def __init__(
        self,
        on_frame: Callable[[Header, bytes], None],
        on_end: Callable[[Exception | None], None],
        *,
        body_limit: int,
    ) -> None:
        self._on_frame = on_frame
        self._on_end = on_end
        self._body_limit = body_limit
        self._buffer = bytearray()
        self._drop = 0  # bytes of an oversized body still to come
        self._transport: asyncio.Transport | None = None
        self._error: Exception | None = None

    @classmethod
    async def over(
        cls,
        sock: socket.socket,
        on_frame: Callable[[Header, bytes], None],
        on_end: Callable[[Exception | None], None],
        *,
        body_limit: int,
    ) -> "Link":
        """Take over a connected socket."""
        loop = asyncio.get_running_loop()
        _, link = await loop.create_unix_connection(lambda: cls(on_frame, on_end, body_limit=body_limit), sock=sock)
        return link

    def send(self, header: Header, *body: bytes) -> None:
        """Send a frame, its body in parts; buffered without bound, for a worker has one call at a time."""
        if self._transport is None or self._transport.is_closing():
            return
        head = _encode(header)
        size = sum(map(len, body))
        prefix = _PREFIX.pack(len(head), size) + head
        if size < 65536:
            self._transport.write(b"".join((prefix, *body)))
        else:
            self._transport.writelines((prefix, *body))

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

    def data_received(self, data: bytes) -> None:
        """Asyncio: some bytes came."""
        self._buffer += data
        try:
            self._take_frames()
        except (FrameInvalid, msgspec.DecodeError) as error:
            self._error = error
            self.close()

    def _take_frames(self) -> None:
        buffer = self._buffer
        start = 0
        while True:
            dropped = min(self._drop, len(buffer) - start)
            self._drop -= dropped
            start += dropped
            if len(buffer) - start < _PREFIX.size:
                break
            head_size, body_size = _PREFIX.unpack_from(buffer, start)
            if head_size > HEADER_LIMIT:
                raise FrameInvalid(f"a header of {head_size} bytes; {HEADER_LIMIT} are allowed")
            body_at = start + _PREFIX.size + head_size
            oversize = body_size > self._body_limit
            end = body_at if oversize else body_at + body_size
            if len(buffer) < end:
                break
            with memoryview(buffer) as view:
                header = _decode(view[start + _PREFIX.size : body_at])
                body = bytes(view[body_at:end])
            if oversize:
                header["oversize"] = self._drop = body_size
            start = end
            self._on_frame(header, body)
        if start:
            del buffer[:start]
