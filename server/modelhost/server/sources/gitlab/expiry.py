"""When a GitLab token expires, in words. Apart from the rest of GitLab, which takes half a second to import."""

import math
from datetime import UTC, datetime

WARNING_DAYS = 30
DAY_SECONDS = 86_400


def expiry_warning(expires: float | None, now: float) -> str:
    """A sentence if a token has expired or will within `WARNING_DAYS`, else "". Both in seconds since 1970."""
    if expires is None or expires - now > WARNING_DAYS * DAY_SECONDS:
        return ""
    if expires <= now:
        return f"the token has expired on {date_of(expires)}: make a new one in GitLab and give it to the data source"
    days = math.ceil((expires - now) / DAY_SECONDS)
    return (
        f"the token expires on {date_of(expires)}, in {days} {'day' if days == 1 else 'days'}:"
        " make a new one in GitLab and give it to the data source"
    )


def date_of(seconds: float) -> str:
    """The day of a time: `2026-03-01`."""
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
