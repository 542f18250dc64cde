"""Frames over a real socket: however they are cut on the way, whole ones arrive, and broken ones end the link."""

import asyncio
import json
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from modelhost.server.serving.link import (
    HEADER_LIMIT,
    ROOM_BYTES,
    SEND_BYTES,
    FrameInvalid,
    Head,
    Header,
    Link,
    widen,
)

LIMIT = 1000
BIG = 5_000_000
LARGE = 300_000


def frame(header: Any, body: bytes = b"") -> bytes:
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<IQ", len(head), len(body)) + head + body


class Ends:
    """Both ends of a link: ours, with what it received, and the worker's, a plain socket."""

    def __init__(self) -> None:
        self.frames: list[tuple[Header, bytes]] = []
        self.ended: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.on_frame: Callable[[], None] = lambda: None

    async def connect(self, body_limit: int) -> None:
        ours, self.theirs = socket.socketpair()
        for end in (ours, self.theirs):
            end.setblocking(False)
        self.link = await Link.over(ours, self._receive, self.ended.set_result, body_limit=body_limit)

    def _receive(self, header: Header, body: bytes) -> None:
        self.frames.append((header, body))
        self.on_frame()

    async def write(self, *pieces: bytes) -> None:
        """Send pieces, each of which is received before the next."""
        for piece in pieces:
            await asyncio.get_running_loop().sock_sendall(self.theirs, piece)
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    async def received(self, count: int) -> list[tuple[Header, bytes]]:
        """The frames, as soon as there are so many."""
        async with asyncio.timeout(20):
            while len(self.frames) < count and not self.ended.done():  # noqa: ASYNC110 - a real socket, no event
                await asyncio.sleep(0)
        return self.frames

    async def end(self) -> Exception | None:
        async with asyncio.timeout(20):
            return await self.ended

    async def read(self, count: int) -> bytes:
        """What the worker's end gets."""
        data = bytearray()
        async with asyncio.timeout(20):
            while len(data) < count:
                data += await asyncio.get_running_loop().sock_recv(self.theirs, count - len(data))
        return bytes(data)


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    ends = Ends()
    await ends.connect(LIMIT)
    yield ends
    ends.link.close()
    ends.theirs.close()
    await ends.end()


@pytest.fixture
async def large() -> AsyncIterator[Ends]:
    ends = Ends()
    await ends.connect(LARGE)
    yield ends
    ends.link.close()
    ends.theirs.close()
    await ends.end()


# ---- receiving


async def test_a_frame_arrives_with_header_and_body(ends: Ends) -> None:
    await ends.write(frame({"type": "result", "id": 7, "text": "é😀"}, b"\0\xff body"))

    assert await ends.received(1) == [({"type": "result", "id": 7, "text": "é😀"}, b"\0\xff body")]


async def test_frames_that_are_cut_at_any_byte_arrive_whole(ends: Ends) -> None:
    first, second = frame({"id": 1}, b"one"), frame({"id": 2})
    stream = first + second

    for cut in range(len(stream) + 1):
        await ends.write(stream[:cut], stream[cut:])

    assert await ends.received(2 * (len(stream) + 1)) == [({"id": 1}, b"one"), ({"id": 2}, b"")] * (len(stream) + 1)


async def test_a_frame_that_comes_byte_by_byte_arrives_once_at_its_last_byte(ends: Ends) -> None:
    data = frame({"id": 1}, b"body")

    await ends.write(*(bytes([byte]) for byte in data[:-1]))
    assert ends.frames == []
    await ends.write(data[-1:])

    assert await ends.received(1) == [({"id": 1}, b"body")]


async def test_many_frames_in_one_piece_arrive_in_their_order(ends: Ends) -> None:
    await ends.write(b"".join(frame({"id": number}, b"x" * number) for number in range(200)))

    assert await ends.received(200) == [({"id": number}, b"x" * number) for number in range(200)]


@pytest.mark.parametrize("seed", range(5))
async def test_any_frames_in_any_pieces_arrive_as_they_were_sent(ends: Ends, seed: int) -> None:
    chance = random.Random(seed)
    sent = [
        ({"id": number, "x": "y" * chance.randrange(50)}, chance.randbytes(chance.randrange(300)))
        for number in range(60)
    ]
    stream = b"".join(frame(*each) for each in sent)
    cuts = sorted(chance.randrange(len(stream)) for _ in range(80))

    await ends.write(*(stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True) if a < b))

    assert await ends.received(60) == sent


@pytest.mark.parametrize("seed", range(5))
async def test_large_bodies_and_headers_arrive_however_they_are_cut(large: Ends, seed: int) -> None:
    """Those that do not fit into the link's buffer, those that just do, and those that are over the limit."""
    chance = random.Random(seed)
    sizes = [0, 1, ROOM_BYTES - 40, ROOM_BYTES - 1, ROOM_BYTES, ROOM_BYTES + 1, LARGE - 1, LARGE, LARGE + 1, LARGE * 2]
    sent, stream = [], b""
    for number in range(30):
        header = {"id": number, "x": "y" * chance.choice([0, 10, 5000, 100_000])}
        body = chance.randbytes(chance.choice(sizes))
        stream += frame(header, body)
        over = len(body) > LARGE
        sent.append(({**header, "oversize": len(body)}, b"") if over else (header, body))
    cuts = sorted(chance.randrange(len(stream)) for _ in range(60))

    await large.write(*(stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True) if a < b))

    assert await large.received(30) == sent


# ---- bodies that are too large


@pytest.mark.parametrize(("size", "oversize"), [(LIMIT, False), (LIMIT + 1, True)])
async def test_a_body_may_be_as_large_as_the_limit_and_no_larger(ends: Ends, size: int, oversize: bool) -> None:
    await ends.write(frame({"id": 1}, b"x" * size))

    expected = ({"id": 1, "oversize": size}, b"") if oversize else ({"id": 1}, b"x" * size)
    assert await ends.received(1) == [expected]


async def test_an_oversized_body_is_dropped_as_it_comes_and_the_link_goes_on(ends: Ends) -> None:
    await ends.write(frame({"id": 1}, b"x" * BIG) + frame({"id": 2}, b"next"))

    assert await ends.received(2) == [({"id": 1, "oversize": BIG}, b""), ({"id": 2}, b"next")]


async def test_an_oversized_body_is_told_before_it_has_come(ends: Ends) -> None:
    whole = frame({"id": 1}, b"x" * BIG)

    await ends.write(whole[:40])
    assert await ends.received(1) == [({"id": 1, "oversize": BIG}, b"")]
    await ends.write(whole[40:])
    await ends.write(frame({"id": 2}))

    assert (await ends.received(2))[1] == ({"id": 2}, b"")


@pytest.mark.parametrize("cut", range(1, 30))
async def test_an_oversized_body_may_be_cut_anywhere(ends: Ends, cut: int) -> None:
    stream = frame({"id": 1}, b"x" * (LIMIT + 1)) + frame({"id": 2}, b"y")

    await ends.write(stream[:cut], stream[cut:-cut], stream[-cut:])

    assert await ends.received(2) == [({"id": 1, "oversize": LIMIT + 1}, b""), ({"id": 2}, b"y")]


# ---- what is no frame


@pytest.mark.parametrize(
    "head",
    [b"", b"{", b"[1]", b'"text"', b"null", b"\xff", b'{"id": NaN}', b"{} {}", b'{"id":"\xed\xa0\x80"}'],
)
async def test_a_header_that_is_no_json_object_ends_the_link(ends: Ends, head: bytes) -> None:
    await ends.write(frame({"id": 1}) + frame(head, b"body") + frame({"id": 3}))

    assert isinstance(await ends.end(), Exception)
    assert ends.frames == [({"id": 1}, b"")]


async def test_a_header_over_the_limit_ends_the_link_before_it_has_come(ends: Ends) -> None:
    await ends.write(struct.pack("<IQ", HEADER_LIMIT + 1, 0))

    ended = await ends.end()

    assert isinstance(ended, FrameInvalid)
    assert str(HEADER_LIMIT + 1) in str(ended)


async def test_a_header_at_the_limit_arrives(ends: Ends) -> None:
    text = "x" * (HEADER_LIMIT - len('{"a": ""}'))

    await ends.write(frame({"a": text}))

    assert await ends.received(1) == [({"a": text}, b"")]


async def test_the_end_of_the_stream_is_told_once_and_half_a_frame_is_dropped(ends: Ends) -> None:
    await ends.write(frame({"id": 1}) + frame({"id": 2}, b"body")[:-1])
    ends.theirs.shutdown(socket.SHUT_WR)

    assert await ends.end() is None
    assert ends.frames == [({"id": 1}, b"")]


# ---- sending


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, BIG])
async def test_what_is_sent_is_a_frame_of_any_size(ends: Ends, size: int) -> None:
    body = b"b" * size

    ends.link.send({"type": "call", "id": 1}, body)

    head, length = struct.unpack("<IQ", await ends.read(12))
    assert json.loads(await ends.read(head)) == {"type": "call", "id": 1}
    assert length == size
    assert await ends.read(size) == body


async def test_a_header_may_be_sent_again_with_another_id(ends: Ends) -> None:
    head = Head({"type": "call", "text": "é"})
    for number in (1, 2**40):
        ends.link.ask(head, number, (b"b", bytearray(b"od"), memoryview(b"y")))
        size, body = struct.unpack("<IQ", await ends.read(12))
        assert json.loads(await ends.read(size)) == {"type": "call", "text": "é", "id": number}
        assert await ends.read(body) == b"body"


def test_a_socket_takes_more_at_once_if_it_may() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        widen(ours)
        granted = ours.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    limit = int(Path("/proc/sys/net/core/wmem_max").read_text())
    assert granted >= 2 * min(SEND_BYTES, limit)  # twice, for the system's own need: socket(7)


async def test_frames_are_sent_in_their_order(ends: Ends) -> None:
    bodies = [bytes([number]) * (70_000 if number % 2 else 3) for number in range(10)]
    for number, body in enumerate(bodies):
        ends.link.send({"id": number}, body[:2], memoryview(body)[2:])

    for number, body in enumerate(bodies):
        head, length = struct.unpack("<IQ", await ends.read(12))
        assert json.loads(await ends.read(head)) == {"id": number}
        assert await ends.read(length) == body


async def test_sending_after_the_end_does_nothing(ends: Ends) -> None:
    ends.theirs.shutdown(socket.SHUT_RDWR)
    await ends.end()

    ends.link.send({"id": 1}, b"body")
    ends.link.close()


async def test_closing_within_a_frame_ends_the_link(ends: Ends) -> None:
    ends.on_frame = ends.link.close

    await ends.write(frame({"id": 1}))

    assert await ends.end() is None
