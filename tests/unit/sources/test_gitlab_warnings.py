import pytest

from modelhost.server.sources.gitlab.expiry import expiry_warning

DAY = 86_400.0
EXPIRES = 1_775_001_600.0  # 2026-04-01 00:00 UTC


@pytest.mark.parametrize(
    ("days", "says"),
    [
        (31, ""),
        (30.5, ""),
        (30, "expires on 2026-04-01, in 30 days:"),
        (29.2, "expires on 2026-04-01, in 30 days:"),
        (0.1, "expires on 2026-04-01, in 1 day:"),
        (0, "has expired on 2026-04-01:"),
        (-5, "has expired on 2026-04-01:"),
    ],
)
def test_a_token_is_warned_of_for_thirty_days(days: float, says: str) -> None:
    warning = expiry_warning(EXPIRES, EXPIRES - days * DAY)
    assert bool(warning) is bool(says)
    assert says in warning


def test_a_token_that_does_not_expire_is_not_warned_of() -> None:
    assert expiry_warning(None, EXPIRES) == ""
