"""`manifest.json`: what makes a folder an environment. It is renamed in last, when everything else is on the disk."""

import json
import os
import re
from pathlib import Path
from typing import Any

from modelhost.envs.files import sync_file
from modelhost.envs.values import Environment, Interpreter, Language

NAME = "manifest.json"
FORMAT = 1  # raised when an older server could not use what a newer one built, or the other way round
_PASSWORD = re.compile(r"(://)[^/@\s]+@")


def write_manifest(environment: Environment) -> None:
    """Make the folder whole. All that lies in it is on the disk before the manifest is: power can fail at any time."""
    interpreter = environment.interpreter
    content = {
        "format": FORMAT,
        "path": str(environment.path),
        "spec_digest": environment.spec_digest,
        "digest": environment.digest,
        "interpreter": {
            "name": interpreter.name,
            "language": interpreter.language.value,
            "version": interpreter.version,
            "path": str(interpreter.path),
            "found_by": interpreter.found_by,
            "platform": interpreter.platform,
        },
        "requirements": environment.requirements,
        "lock": environment.lock,
        "repositories": environment.repositories,
        "size_bytes": environment.size_bytes,
        "created": environment.created,
        "build_seconds": environment.build_seconds,
    }
    os.sync()  # one call for thousands of small files, where fsync for each takes longer than the build
    part = environment.path / (NAME + ".part")
    part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    part.chmod(0o644)
    sync_file(part)
    part.rename(environment.path / NAME)
    sync_file(environment.path)


def read_manifest(folder: Path) -> Environment | None:
    """Return the environment in a folder; None if it is not whole.

    Nor is one of another format, or one that was moved: its scripts still lead to where it was.
    """
    try:
        content: dict[str, Any] = json.loads((folder / NAME).read_text(encoding="utf-8"))
        if content["format"] != FORMAT or not os.path.samefile(content["path"], folder):
            return None
        interpreter = content["interpreter"]
        return Environment(
            path=folder,
            spec_digest=content["spec_digest"],
            digest=content["digest"],
            interpreter=Interpreter(
                name=interpreter["name"],
                language=Language(interpreter["language"]),
                version=interpreter["version"],
                path=Path(interpreter["path"]),
                found_by=interpreter["found_by"],
                platform=interpreter["platform"],
            ),
            requirements=tuple(content["requirements"]),
            lock=tuple(content["lock"]),
            repositories=tuple(content.get("repositories", ())),  # not there in the first ones
            size_bytes=content["size_bytes"],
            created=content["created"],
            build_seconds=content["build_seconds"],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def masked(line: str) -> str:
    """Return a requirement without the password of its URL."""
    return _PASSWORD.sub(r"\1****@", line)
