"""How much a service account may call a service. Counted in memory; what outlives the process is the day's count."""

from collections.abc import Callable, Iterable
from typing import Final

from modelhost.server.errors import Busy
from modelhost.server.identities import Grant, GrantLimits
from modelhost.server.store import accounts
from modelhost.server.store.database import Transaction
from modelhost.v1.error_reason_pb2 import ErrorReason

DAY_SECONDS: Final = 86_400
CONCURRENCY_RETRY_SECONDS = 0.1  # nobody knows when a call under way will end


class LiveGrant:
    """A grant with what was used of it. Used on the event loop only; times are seconds since the epoch.

    The rate is a token bucket: it holds at most `burst` calls and gains `rate` a second.
    """

    __slots__ = (
        "_noted", "_stamp", "_tokens", "account_id", "account_uid", "day", "deployment_uid", "limits", "running", "used"
    )  # fmt: skip

    def __init__(self, grant: Grant, account_id: str) -> None:
        self.account_uid = grant.account_uid
        self.account_id = account_id
        self.deployment_uid = grant.deployment_uid
        self.limits = grant.limits
        self.running = 0
        self.day = grant.day
        self.used = grant.used
        self._noted = (grant.day, grant.used)
        self._tokens = float(self._most)
        self._stamp = 0.0

    @property
    def _most(self) -> int:
        return self.limits.burst or max(1, round(self.limits.rate))

    def change(self, limits: GrantLimits) -> None:
        """Have other limits from now on; what was used stays used."""
        self.limits = limits
        self._tokens = min(self._tokens, float(self._most))

    def enter(self, size: int, now: float) -> None:
        """Let a call of `size` bytes begin, or raise `Busy`; `leave` once it is over.

        A call that one limit refuses counts for none.
        """
        limits = self.limits
        if limits.request_bytes and size > limits.request_bytes:
            raise _refused(
                ErrorReason.ERROR_REASON_REQUEST_TOO_LARGE,
                "the request has {size} bytes, and {account} may send {limit} to this service",
                self, limit=limits.request_bytes, size=size, retry_after=None,
            )  # fmt: skip
        if limits.concurrent and self.running >= limits.concurrent:
            raise _refused(
                ErrorReason.ERROR_REASON_CONCURRENCY_LIMIT_EXCEEDED,
                "{account} has {limit} calls of this service under way, and may have no more at a time",
                self, limit=limits.concurrent, retry_after=CONCURRENCY_RETRY_SECONDS,
            )  # fmt: skip
        if limits.rate:
            most = float(limits.burst or max(1, round(limits.rate)))
            gained = (now - self._stamp) * limits.rate if now > self._stamp else 0.0  # a clock may be set back
            held = (self._tokens if self._tokens > 0 else 0.0) + gained
            self._tokens = held if held < most else most
            self._stamp = now
            if self._tokens < 1:
                raise _refused(
                    ErrorReason.ERROR_REASON_RATE_LIMIT_EXCEEDED,
                    "{account} may call this service {limit}",
                    self, limit=_words(limits.rate), retry_after=(1 - self._tokens) / limits.rate,
                )  # fmt: skip
        day = int(now // DAY_SECONDS)
        used = self.used if day == self.day else 0
        if limits.daily and used >= limits.daily:
            raise _refused(
                ErrorReason.ERROR_REASON_DAILY_QUOTA_EXCEEDED,
                "{account} may call this service {limit} times a day, and has until midnight UTC",
                self, limit=limits.daily, retry_after=(day + 1) * DAY_SECONDS - now,
            )  # fmt: skip
        self.day, self.used = day, used + 1
        self._tokens -= 1
        self.running += 1

    def leave(self) -> None:
        """A call that `enter` let begin is over."""
        self.running -= 1

    def used_on(self, now: float) -> int:
        """How many calls counted since midnight."""
        return self.used if self.day == int(now // DAY_SECONDS) else 0

    def unnoted(self) -> tuple[int, int] | None:
        """Day and count, if they are others than those that are stored."""
        now = (self.day, self.used)
        return None if now == self._noted else now

    def note(self, noted: tuple[int, int]) -> None:
        """These are stored, or about to be."""
        self._noted = noted


class Quotas:
    """What is used of grants, on its way to the database. A `Ledger`."""

    def __init__(self, grants: Callable[[], Iterable[LiveGrant]]) -> None:
        self._grants = grants

    def take(self) -> "QuotaBatch | None":
        """What has changed since the last time."""
        changed = [(grant, now) for grant in self._grants() if (now := grant.unnoted())]
        for grant, now in changed:
            grant.note(now)
        return QuotaBatch(changed) if changed else None

    def put_back(self, batch: "QuotaBatch") -> None:
        """It could not be stored: have it taken again."""
        for grant, _ in batch.changed:
            grant.note((-1, -1))


class QuotaBatch:
    """Counts to be stored."""

    def __init__(self, changed: list[tuple[LiveGrant, tuple[int, int]]]) -> None:
        self.changed = changed

    def write(self, tx: Transaction) -> None:
        """Store them; those of grants that are no more are of no effect."""
        for grant, (day, used) in self.changed:
            accounts.note_used(tx, grant.account_uid, grant.deployment_uid, day, used)


def _words(rate: float) -> str:
    """A rate as people say it: `10 times a second`, `once in 30 s`."""
    return f"{rate:g} times a second" if rate >= 1 else f"once in {1 / rate:g} s"


def _refused(
    reason: "ErrorReason.ValueType",
    template: str,
    grant: LiveGrant,
    *,
    limit: object,
    retry_after: float | None,
    size: int | None = None,
) -> Busy:
    account = f"service account {grant.account_id}"
    more = {} if size is None else {"size": str(size)}
    return Busy(reason, template, retry_after=retry_after, hint="", account=account, limit=limit, **more)
