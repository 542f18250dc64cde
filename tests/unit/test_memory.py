"""Which declared memory fits, and sizes as text."""

import os

import pytest

from modelhost.server.control.memory import MemoryBudget, host_memory
from modelhost.server.errors import StepFailed
from modelhost.server.text import bytes_read, bytes_shown
from modelhost.v1.error_reason_pb2 import ErrorReason

GIB = 2**30


def test_what_fits_is_taken_and_what_does_not_is_refused_with_the_numbers() -> None:
    budget = MemoryBudget(8 * GIB)
    budget.share(GIB).hold(5)
    share = budget.share(2 * GIB)

    with pytest.raises(StepFailed) as caught:
        share.hold(2)

    assert caught.value.reason == ErrorReason.ERROR_REASON_MEMORY_NOT_AVAILABLE
    for number in ("may use 4 GiB", "host's 8 GiB", "may use 5 GiB", "3 GiB are left"):
        assert number in caught.value.message
    share.hold(1)


def test_what_is_given_back_is_there_for_others_once() -> None:
    budget = MemoryBudget(GIB)
    share = budget.share(GIB)
    share.hold(1)

    share.hold(0)
    share.hold(0)

    budget.share(GIB).hold(1)
    with pytest.raises(StepFailed):
        budget.share(1).hold(1)


def test_who_is_refused_more_keeps_what_there_is() -> None:
    budget = MemoryBudget(3 * GIB)
    share = budget.share(GIB)
    share.hold(2)

    with pytest.raises(StepFailed, match="may use 4 GiB"):
        share.hold(4)

    budget.share(GIB).hold(1)
    with pytest.raises(StepFailed):
        share.hold(3)


def test_some_can_be_given_back_where_less_is_there_than_is_declared() -> None:
    budget = MemoryBudget(3 * GIB)
    share = budget.share(GIB)
    share.hold(3)
    budget.total = GIB

    share.hold(2)


def test_who_declares_nothing_is_never_refused() -> None:
    budget = MemoryBudget(GIB)
    budget.share(GIB).hold(1)

    budget.share(0).hold(64)


def test_a_host_has_no_more_memory_than_its_hardware() -> None:
    assert GIB // 4 < host_memory() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("4096", 4096), ("512MiB", 512 * 2**20), ("1.5 GiB", 3 * 2**29), ("2gib", 2 * GIB), ("7 B", 7)],
)
def test_sizes_are_read(text: str, number: int) -> None:
    assert bytes_read(text) == number


@pytest.mark.parametrize("text", ["", "GiB", "2 GB", "-1", "1e9", "two"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no size"):
        bytes_read(text)


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 bytes"), (1023, "1023 bytes"), (2048, "2 KiB"), (3 * 2**29, "1.5 GiB")]
)
def test_sizes_are_shown(number: int, text: str) -> None:
    assert bytes_shown(number) == text
