"""Waiting for the network so that a job can be cancelled meanwhile: blocking calls run on threads of their own."""

import concurrent.futures
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import requests

from modelhost.envs.process import POLL_SECONDS, Job

T = TypeVar("T")


class TookTooLong(requests.exceptions.Timeout):
    """The time for all of something is up, although bytes may still trickle in."""


def interruptible(job: Job, seconds: float, work: Callable[[], T], discard: Callable[[T], None]) -> T:
    """Return what `work` does, or raise as it does, on another thread; given up after `seconds` or when cancelled.

    What was given up goes on until its own time limits end it, and `discard` then gets what it made. Raises
    `TookTooLong` and `Cancelled`.
    """
    job.check()
    future: concurrent.futures.Future[T] = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # it is raised where it is waited for
            future.set_exception(error)

    def dispose(done: concurrent.futures.Future[T]) -> None:
        if done.exception() is None:
            discard(done.result())

    threading.Thread(target=run, name="waiting", daemon=True).start()
    deadline = time.monotonic() + seconds
    while not concurrent.futures.wait([future], POLL_SECONDS).done:
        if job.cancelled or time.monotonic() > deadline:
            future.add_done_callback(dispose)
            job.check()
            raise TookTooLong(f"not done within {seconds:g} s")
    return future.result()


def pause(job: Job, seconds: float) -> None:
    """Sleep. Raises `Cancelled` within moments of it."""
    end = time.monotonic() + seconds
    job.check()
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(POLL_SECONDS, left))
        job.check()
