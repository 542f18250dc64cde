"""The programs of the guide to access sign as the server does.

Those whose language this host has are run. Of each there is the digest with which it was last run everywhere: a program
that is changed fails here on every host, until it has been run where its language is.
"""

import hmac
import json
import re
import time
from hashlib import sha256
from pathlib import Path

import pytest

from modelhost.server.access import issuing
from tests.documented_signing import COMMANDS, GUIDE, PROGRAMS, SCHEME, is_here, run

ACCESS_KEY = "ak_0123456789abcdef0123"
SECRET_KEY = "mhs_an-example_and_no_secret"
HERE = [language for language in COMMANDS if is_here(language)]

# To be changed once the new text has passed these tests on a host that has the language.
RUN_AS = {
    "python": "27366ac3b22c1b903b7113cb840ab944ac8483ccd01d5b52c75b753d8a2cac3b",
    "js": "40079f98bda016c55ab1bb68d2aa27538e9cd7d31bb67b35cd1b7e3b19ebb72b",
    "go": "0bf4329fe3b224b032e829766be60465fe0e53271560a9c4b7f0561b2a621249",
    "java": "fee4273dffd9c50aa6492cc751c679e76efc7914ee0d477199c02c77542857ca",
}


def signed(secret_key: str, lines: str) -> str:
    """What is right, by RFC 2104."""
    return hmac.new(secret_key.encode(), lines.encode(), sha256).hexdigest()


def test_the_guide_has_a_program_in_each_language() -> None:
    assert list(PROGRAMS) == list(COMMANDS)
    assert "python" in HERE


@pytest.mark.parametrize("language", COMMANDS)
def test_a_program_is_the_one_that_was_run(language: str) -> None:
    assert sha256(PROGRAMS[language].encode()).hexdigest() == RUN_AS[language]


@pytest.mark.parametrize("language", HERE)
def test_a_program_signs_the_four_lines_with_the_secret_key(language: str, tmp_path: Path) -> None:
    before = int(time.time())

    requests = [json.loads(run(language, tmp_path, ACCESS_KEY, SECRET_KEY)) for _ in range(2)]

    for request in requests:
        lines = "\n".join([SCHEME, ACCESS_KEY, str(request["timestamp"]), request["nonce"]])
        assert request == {
            "access_key": ACCESS_KEY,
            "timestamp": request["timestamp"],
            "nonce": request["nonce"],
            "signature": signed(SECRET_KEY, lines),
        }
        assert before <= request["timestamp"] <= time.time()
        assert issuing.NONCE.fullmatch(request["nonce"])
    assert requests[0]["nonce"] != requests[1]["nonce"]


def test_the_lines_and_the_signature_that_the_guide_shows_belong_together() -> None:
    (lines,) = re.findall(rf"^```\n({SCHEME}\n.*?)\n```$", GUIDE, re.MULTILINE | re.DOTALL)
    ((secret_key, signature),) = re.findall(
        r"secret key `(mhs_\w+)` the signature of these four lines is\s+`([0-9a-f]{64})`", GUIDE
    )

    assert len(lines.splitlines()) == 4
    assert lines.startswith(f"{issuing.VERSION}\n")
    assert signed(secret_key, lines) == signature
