"""`modelhost backup` and `modelhost restore`."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar

import typer

from modelhost.server.backup.archive import BackupProblem
from modelhost.server.backup.restore import restore as restore_state
from modelhost.server.backup.save import save
from modelhost.server.config import default_state_dir
from modelhost.server.errors import DiskFull
from modelhost.server.statedir import StateDirBusy
from modelhost.server.store.copies import Contents
from modelhost.server.store.database import DatabaseUnusable
from modelhost.server.store.migrations import SchemaTooNew
from modelhost.server.text import bytes_shown

T = TypeVar("T")
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def backup(
    file: Annotated[Path, typer.Argument(help="Where to write it; compressed if the name ends in .gz or .tgz.")],
    state_dir: Annotated[
        Path | None,
        typer.Option(
            envvar="MODELHOST_STATE_DIR", help="The server's state directory.", show_default=str(default_state_dir())
        ),
    ] = None,
    without_key: Annotated[
        bool, typer.Option("--without-key", help="Leave out the key that opens tokens and secret variables.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file if it is there.")] = False,
) -> None:
    """Write what a server knows to one file, while it runs or not.

    In it are data sources, deployments, all kept revisions with what was locked for them, and the key of the secrets.
    Files of models, environments and logs are not: a restored server gets the first two again.

    \b
    Examples:
      modelhost backup /backups/modelhost-monday.tar
      modelhost backup --state-dir /var/lib/modelhost --without-key modelhost.tar.gz
    """
    root = (state_dir or default_state_dir()).absolute()
    saved = _tried(lambda: save(root, file.absolute(), with_key=not without_key, overwrite=force))
    typer.echo(f"{file}: {bytes_shown(saved.size)}, of {root}")
    typer.echo(f"it holds {_holdings(saved.contents)}")
    if saved.description.has_key:
        typer.echo(
            "warning: the key of the secrets is in it: whoever can read the file can read them; --without-key leaves"
            " it out",
            err=True,
        )
    else:
        typer.echo(f"the key is not in it: keep a copy of {root / 'secret.key'} elsewhere")


def restore(
    file: Annotated[Path, typer.Argument(help="What `modelhost backup` has written.")],
    state_dir: Annotated[
        Path,
        typer.Option(envvar="MODELHOST_STATE_DIR", help="The directory to restore to; it must have no database yet."),
    ],
    key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The secret.key, for a backup that was made without it.")
    ] = None,
) -> None:
    """Make a state directory from a backup, on this host or another.

    What ran when the backup was made runs again once the server is started: files are fetched again at the same
    commits, and environments are built again from the same packages.

    \b
    Examples:
      modelhost restore /backups/modelhost-monday.tar --state-dir /var/lib/modelhost
      modelhost restore modelhost.tar.gz --state-dir /var/lib/modelhost --key secret.key
    """
    root = state_dir.absolute()
    restored = _tried(lambda: restore_state(file.absolute(), root, key.absolute() if key else None))
    made = datetime.fromisoformat(restored.description.created).astimezone()
    typer.echo(f"{root}: restored as it was on {made:%Y-%m-%d %H:%M:%S}, by modelhost {restored.description.modelhost}")
    typer.echo(f"it holds {_holdings(restored.contents)}")
    if not restored.has_key:
        typer.echo(
            "warning: without its key, the stored tokens and secret variables do not open: put it to"
            f" {root / 'secret.key'} before the server is started, or set them again",
            err=True,
        )
    running = _count(restored.contents.running, "deployment")
    typer.echo(f"of these, {running} ran: `modelhost serve --state-dir {root}` brings them back")


def _tried(act: Callable[[], T]) -> T:
    """What `act` returns; what goes wrong is said in a line, and ends the command."""
    try:
        with _ended_by_signals():
            return act()
    except _Signalled as ended:
        _end(f"ended by {ended.number.name}", 128 + ended.number)
    except OSError as error:
        full = DiskFull.told_by(error)
        said = f"there is no room: {full.values['cause']}; nothing was left behind" if full else str(error)
        _end(said)
    except (BackupProblem, StateDirBusy, DatabaseUnusable, SchemaTooNew, ValueError) as error:
        _end(str(error))


class _Signalled(BaseException):
    """The command was told to end; no `except Exception` on the way out is to take it for a fault."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Within the block the first signal to end raises `_Signalled`; what is cleared away then is not interrupted."""
    # One that is ignored stays so: nohup, and Ctrl-C in a shell's background.
    heard = [each for each in _ENDING if signal.getsignal(each) is not signal.SIG_IGN]

    def end(number: int, _: object) -> None:
        for each in heard:
            signal.signal(each, signal.SIG_IGN)
        raise _Signalled(signal.Signals(number))

    before = {each: signal.signal(each, end) for each in heard}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler or signal.SIG_DFL)


def _end(said: str, code: int = 1) -> NoReturn:
    typer.echo(f"error: {said}", err=True)
    raise typer.Exit(code)


def _holdings(contents: Contents) -> str:
    return (
        f"{_count(contents.deployments, 'deployment')} with {_count(contents.revisions, 'revision')},"
        f" {_count(contents.data_sources, 'data source')},"
        f" and the packages of {_count(contents.locks, 'environment')}"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
