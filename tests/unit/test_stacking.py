"""Rows of several calls in one, and back: nothing is lost, nothing is mixed up."""

import random
import struct
from math import prod

import pytest

from modelhost.server.errors import PredictionFailed
from modelhost.server.serving.link import Header
from modelhost.server.serving.stacking import MOST_ELEMENTS, rows_of, stack_of, stacked, unstacked
from modelhost.server.serving.tensors import ELEMENT_BYTES, Parameter, Tensor, TensorCall, result_tensors

DATATYPES = [*ELEMENT_BYTES, "BYTES"]


def tensor(name: str, datatype: str, shape: tuple[int, ...], chance: random.Random) -> Tensor:
    count = prod(shape)
    if datatype == "BYTES":
        texts = [chance.randbytes(chance.randrange(20)) for _ in range(count)]
        data = b"".join(struct.pack("<I", len(text)) + text for text in texts)
    else:
        data = chance.randbytes(count * ELEMENT_BYTES[datatype])
    return Tensor(name, datatype, shape, data)


@pytest.mark.parametrize("datatype", DATATYPES)
@pytest.mark.parametrize("further", [(), (3,), (2, 2), (0,)])
def test_what_a_model_gives_back_as_it_came_each_caller_has_as_it_was_sent(
    datatype: str, further: tuple[int, ...]
) -> None:
    chance = random.Random(f"{datatype}{further}")
    calls = [
        TensorCall(
            [tensor("x", datatype, (rows, *further), chance), tensor("n", "INT16", (rows,), chance)], {"p": 1}, ("n",)
        )
        for rows in (1, 3, 2)
    ]
    assert len({stack_of(call) for call in calls}) == 1

    headers = [call.head.fields for call in calls]
    header, body = stacked(headers, [call.body for call in calls])

    assert header["type"] == "call"
    assert (header["parameters"], header["outputs"]) == ({"p": 1}, ("n",))
    assert [one["shape"] for one in header["tensors"]] == [(6, *further), (6,)]
    answers = list(unstacked(header, b"".join(body), [rows_of(each) for each in headers]))
    assert [result_tensors(*answer) for answer in answers] == [list(call.tensors) for call in calls]


def test_calls_that_differ_in_anything_but_their_rows_are_not_of_one_stack() -> None:
    chance = random.Random(1)
    x, y = tensor("x", "FP32", (2, 3), chance), tensor("y", "FP32", (2,), chance)
    others = [
        TensorCall([x, y], {}, ()),
        TensorCall([y, x], {}, ()),
        TensorCall([x], {}, ()),
        TensorCall([tensor("x", "FP64", (2, 3), chance), y], {}, ()),
        TensorCall([tensor("x", "FP32", (2, 4), chance), y], {}, ()),
        TensorCall([tensor("z", "FP32", (2, 3), chance), y], {}, ()),
        TensorCall([x, y], {"a": 1}, ()),
        TensorCall([x, y], {"a": True}, ()),
        TensorCall([x, y], {"a": 1.0}, ()),
        TensorCall([x, y], {"a": None}, ()),
        TensorCall([x, y], {}, ("s",)),
    ]
    assert len({stack_of(call) for call in others}) == len(others)


@pytest.mark.parametrize("shapes", [[], [()], [(0, 2)], [(2,), (3,)], [(2,), ()]])
def test_a_call_without_a_number_of_rows_is_of_no_stack(shapes: list[tuple[int, ...]]) -> None:
    chance = random.Random(1)
    tensors = [tensor(f"x{number}", "INT8", shape, chance) for number, shape in enumerate(shapes)]
    assert stack_of(TensorCall(tensors, {}, ())) is None


@pytest.mark.parametrize(
    ("shape", "datatype", "data"),
    [
        ((2,), "INT8", b"ab"),
        ((4,), "INT8", b"abcd"),
        ((), "INT8", b"a"),
        ((3,), "BYTES", b"\1\0\0\0a"),
        ((3,), "BYTES", b"\1\0\0\0a" * 4),
        ((3,), "BYTES", b"\1\0\0\0a\1\0\0\0b\\9\0\0\0c"),
    ],
)
def test_outputs_of_another_number_of_rows_cannot_be_cut(shape: tuple[int, ...], datatype: str, data: bytes) -> None:
    header: Header = {"tensors": [{"name": "y", "datatype": datatype, "shape": shape, "size": len(data)}]}

    with pytest.raises(PredictionFailed, match="the output y has not a row for each of the inputs'"):
        unstacked(header, data, [1, 2])


def test_an_answer_without_tensors_cannot_be_cut() -> None:
    with pytest.raises(PredictionFailed):
        unstacked({"type": "result"}, b"1", [1, 2])


@pytest.mark.parametrize(
    "head",
    [
        {"name": "y", "datatype": "FOO", "shape": [1], "size": 1},
        {"name": "y", "datatype": "INT8", "shape": [-1], "size": 1},
        {"name": "y", "datatype": "INT8", "shape": [0, 2**70], "size": 0},
        {"name": "y", "datatype": "BYTES", "shape": [2**62] * 33, "size": 1},
        {"name": "y", "datatype": "INT8", "shape": [2], "size": 1},
        {"name": "y", "datatype": "INT8", "shape": [2], "size": 2},
        {"name": 1, "datatype": "INT8", "shape": [1], "size": 1},
        {"datatype": "INT8", "shape": [1], "size": 1},
        None,
    ],
)
def test_what_a_worker_cannot_mean_is_no_answer(head: object) -> None:
    with pytest.raises(PredictionFailed, match="does not hold tensors"):
        result_tensors({"tensors": [head]}, b"x")


def test_a_worker_cannot_nest_what_it_says_so_deep_that_nobody_is_told() -> None:
    deep: list[object] = []
    for _ in range(5_000):
        deep = [deep]
    with pytest.raises(PredictionFailed, match="does not hold tensors"):
        result_tensors({"tensors": deep}, b"")


def bytes_output(count: int, text: bytes) -> tuple[Header, bytes]:
    data = (struct.pack("<I", len(text)) + text) * count
    return {"tensors": [{"name": "y", "datatype": "BYTES", "shape": [count], "size": len(data)}]}, data


def test_no_more_elements_are_cut_apart_than_the_event_loop_has_time_for() -> None:
    header, data = bytes_output(MOST_ELEMENTS + 2, b"")
    with pytest.raises(PredictionFailed, match=f"has {MOST_ELEMENTS + 2} elements; of BYTES no more than"):
        unstacked(header, data, [1, MOST_ELEMENTS + 1])


def test_few_elements_may_be_as_large_as_they_like() -> None:
    header, data = bytes_output(3, b"x" * 1_000_000)
    assert [len(body) for _, body in unstacked(header, data, [1, 2])] == [1_000_004, 2_000_008]


def test_parameters_that_are_equal_but_not_the_same_make_different_stacks() -> None:
    x = tensor("x", "FP32", (2,), random.Random(1))
    values: list[Parameter] = [0, 0.0, -0.0, False, "0", None]
    assert len({stack_of(TensorCall([x], {"p": value}, ())) for value in values}) == len(values)
