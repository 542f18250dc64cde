"""How many files a server may open."""

import subprocess
import sys

import pytest

RAISED = """
import resource, sys
soft, hard, most = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
from modelhost.server.serving import process
process.MOST_OPEN_FILES = most
process.raise_open_files()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "most", "after"),
    [
        pytest.param(256, 1000, 65_536, 1000, id="to the hard limit"),
        pytest.param(256, 1000, 500, 500, id="within reason"),
        pytest.param(900, 1000, 500, 900, id="never lower"),
    ],
)
def test_a_server_may_open_as_many_files_as_its_hard_limit_says(soft: int, hard: int, most: int, after: int) -> None:
    argv = [sys.executable, "-c", RAISED, *map(str, (soft, hard, most))]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)

    assert done.stdout == f"{after} {hard}\n"
