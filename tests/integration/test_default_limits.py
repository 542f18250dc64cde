"""The message limit as it is when nobody sets one."""

from pathlib import Path

import pytest

from modelhost.client import ModelHostError
from modelhost.server.config import DEFAULT_MESSAGE_LIMIT
from tests.git_repos import Repo
from tests.running import RunningServer

MIB = 1024 * 1024


def test_calls_of_up_to_64_mib_pass_and_larger_ones_are_refused(tmp_path: Path, repo: Repo) -> None:
    repo.commit({"main.py": b"def predict(text):\n    return len(text)\n"})
    with RunningServer(tmp_path / "state", message_limit=DEFAULT_MESSAGE_LIMIT) as server:
        server.add_source("models", repo)
        server.deploy("length", "models")

        assert server.predict("length", "x" * (63 * MIB)) == 63 * MIB
        with (
            server.connect(server.token, max_message_bytes=200 * MIB) as client,
            pytest.raises(ModelHostError) as caught,
        ):
            client.predict("length", "x" * (100 * MIB))
        assert caught.value.code.name == "RESOURCE_EXHAUSTED"
        assert server.predict("length", "abc") == 3
