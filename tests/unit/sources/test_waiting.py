import threading
from email.utils import formatdate

import pytest

from modelhost.envs.process import Cancelled, Job
from modelhost.server.sources.gitlab.transport import retry_after
from modelhost.server.sources.waiting import TookTooLong, interruptible, pause


def test_what_is_done_in_time_is_returned_or_raised() -> None:
    assert interruptible(Job(), 5, lambda: 1, lambda _: None) == 1
    with pytest.raises(ZeroDivisionError):
        interruptible(Job(), 5, lambda: 1 // 0, lambda _: None)


@pytest.mark.parametrize("cancelled", [True, False])
def test_what_is_given_up_is_discarded_when_it_is_done(cancelled: bool) -> None:
    job, release, discarded = Job(), threading.Event(), threading.Event()

    def work() -> str:
        if cancelled:
            job.cancel()
        release.wait(30)
        return "late"

    with pytest.raises(Cancelled if cancelled else TookTooLong):
        interruptible(job, 30 if cancelled else 0.05, work, lambda result: discarded.set())
    assert not discarded.is_set()
    release.set()
    assert discarded.wait(30)


def test_nothing_is_begun_for_a_job_that_was_cancelled() -> None:
    job = Job()
    job.cancel()
    begun: list[int] = []
    with pytest.raises(Cancelled):
        interruptible(job, 5, lambda: begun.append(1), lambda _: None)
    with pytest.raises(Cancelled):
        pause(job, 30)
    assert not begun


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("12", 12.0),
        (" 7 ", 7.0),
        (formatdate(1_000_090, usegmt=True), 90.0),
        (formatdate(900_000, usegmt=True), 0.0),
        ("9" * 50, 999_999_999.0),
        ("-1", None),
        ("soon", None),
        ("", None),
        ("²", None),
    ],
)
def test_retry_after_is_a_number_or_a_date(text: str, seconds: float | None) -> None:
    assert retry_after({"Retry-After": text}, 1_000_000) == seconds
