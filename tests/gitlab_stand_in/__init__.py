"""A stand-in for GitLab: an HTTP server over real bare Git repositories that answers as GitLab's API says.

    with GitLab(tmp_path) as gitlab:
        token = gitlab.token()
        project = gitlab.project("energy/forecasting/turbine")
        project.repo.commit({"main.py": b"..."})
        gitlab.faults.once("*/repository/tree", Status(429, retry_after=1))
        ... gitlab.url ...
        assert gitlab.requests_to("*/repository/tree")

`stand_in.py` is what tests use, `kinds.py` what can go wrong, `routes.py` which paths there are. Where GitLab's
documents are silent its source was read; each module says which. What the stand-in does not do: write anything, count
rate limits by itself, keep archives in a cache.
"""

from tests.gitlab_stand_in.answers import Answer
from tests.gitlab_stand_in.archives import bomb
from tests.gitlab_stand_in.certificates import Certificate
from tests.gitlab_stand_in.kinds import (
    CutOff,
    HangUp,
    Huge,
    HugeArchive,
    Instead,
    LoginPage,
    Malformed,
    Meanwhile,
    Redirect,
    Slow,
    Status,
    Trickle,
    Truncated,
)
from tests.gitlab_stand_in.requests import Request
from tests.gitlab_stand_in.stand_in import GitLab
from tests.gitlab_stand_in.world import Project, Token

__all__ = [
    "Answer",
    "Certificate",
    "CutOff",
    "GitLab",
    "HangUp",
    "Huge",
    "HugeArchive",
    "Instead",
    "LoginPage",
    "Malformed",
    "Meanwhile",
    "Project",
    "Redirect",
    "Request",
    "Slow",
    "Status",
    "Token",
    "Trickle",
    "Truncated",
    "bomb",
]
