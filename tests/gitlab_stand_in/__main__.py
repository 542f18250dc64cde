"""`python -m tests.gitlab_stand_in --port 0 --root DIR`: a stand-in to try things with by hand."""

import argparse
import signal
import tempfile
import threading
from pathlib import Path

from tests.gitlab_stand_in.stand_in import GitLab


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.gitlab_stand_in", description="A stand-in for GitLab.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="port; 0 takes a free one")
    parser.add_argument("--root", type=Path, help="an empty or new folder for repositories; a temporary one without it")
    parser.add_argument("--tls", action="store_true", help="https, with an authority of its own")
    parser.add_argument("--project", action="append", default=[], help="PATH=FOLDER: a project with a folder's files")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = options.root or Path(temporary)
        with GitLab(root, tls=options.tls, host=options.host, port=options.port) as gitlab:
            for pair in options.project:
                path, _, folder = pair.partition("=")
                add_folder(gitlab, path, Path(folder))
            print(f"url {gitlab.url}")
            print(f"token {gitlab.token()}")
            if options.tls:
                print(f"ca {gitlab.ca_file}")
            print("ready", flush=True)
            stop = threading.Event()
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: stop.set())
            stop.wait()


def add_folder(gitlab: GitLab, path: str, folder: Path) -> None:
    """Make a project whose one commit holds a folder's files."""
    files = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    gitlab.project(path).repo.commit(files, message=f"Files of {folder.name}")


if __name__ == "__main__":
    main()
