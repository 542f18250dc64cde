"""`python -m tests.chaos`: see CONTRIBUTING.md. CHAOS_SECONDS and CHAOS_SEED are read from the environment."""

import os
import secrets
import signal
import sys
import tempfile
from pathlib import Path

from tests.chaos.run import Missing, Run, clear

DEFAULT_SECONDS = 120.0


def main() -> int:
    """Run once; returns the exit code: 1 if something was wrong, 2 if this host lacks something."""
    seconds = float(os.environ.get("CHAOS_SECONDS") or DEFAULT_SECONDS)
    seed = int(os.environ.get("CHAOS_SEED") or secrets.randbelow(10**6))
    say(f"chaos: seed={seed} seconds={seconds:g}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    folder = Path(tempfile.mkdtemp(prefix="modelhost-chaos-"))
    folder.chmod(0o711)
    run = Run(seed, seconds, folder, say)
    keep = False
    try:
        tally = run.execute()
        keep = not tally.is_good
    except Missing as missing:
        print(f"chaos: {missing}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except Exception:
        keep = True
        raise
    finally:
        if keep:
            say(f"chaos: server's log: {run.host.log}\nchaos: build logs and run logs: {run.host.run_logs}")
        else:
            clear(folder)
    for problem in tally.problems:
        say(f"chaos: {problem}")
    say(f"chaos: {tally.counts()}")
    say(f"chaos: {tally.servers_line()}")
    say(tally.last_line())
    return 0 if tally.is_good else 1


def say(text: str) -> None:
    """Print at once, also into a pipe."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
