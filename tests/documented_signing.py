"""The programs of docs/guides/access.md that sign requests for tokens, as readers copy them from there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

GUIDE = (Path(__file__).parents[1] / "docs" / "guides" / "access.md").read_text()
SCHEME = "modelhost-v1"

# The file that each goes to, and the commands that run it there.
FILES = {"python": "sign.py", "js": "sign.cjs", "go": "sign.go", "java": "Sign.java"}
COMMANDS = {
    "python": [[sys.executable, "sign.py"]],
    "js": [["node", "sign.cjs"]],
    "go": [["go", "run", "sign.go"]],
    "java": [["javac", "Sign.java"], ["java", "-cp", ".", "Sign"]],
}

PROGRAMS: dict[str, str] = {
    language: text
    for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    if SCHEME in text
}


def is_here(language: str) -> bool:
    """Whether this host can run programs of that language."""
    return all(shutil.which(command[0]) for command in COMMANDS[language])


def run(language: str, folder: Path, access_key: str, secret_key: str) -> str:
    """Run the guide's program with these keys; what it prints."""
    (folder / FILES[language]).write_text(PROGRAMS[language])
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),  # where Go keeps what it has built
        "MODELHOST_ACCESS_KEY": access_key,
        "MODELHOST_SECRET_KEY": secret_key,
    }
    printed = ""
    for command in COMMANDS[language]:
        ended = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        printed = ended.stdout
    return printed
