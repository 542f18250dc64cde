"""Verbs of the `modelhost` command that live with the server."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import structlog
import typer
import uvloop

from modelhost.cli.flags import verb
from modelhost.client import local
from modelhost.envs import DEFAULT_R_REPOSITORIES
from modelhost.server.app import App, NotIsolated
from modelhost.server.config import (
    DEFAULT_BUILDS,
    DEFAULT_KEPT_REVISIONS,
    DEFAULT_LISTEN,
    DEFAULT_LOADS,
    DEFAULT_MESSAGE_LIMIT,
    DEFAULT_SNAPSHOT_LIMIT,
    DEFAULT_STOP_GRACE,
    DEFAULT_TOKEN_LIFETIME,
    DEFAULT_WORKER_UIDS,
    ServerSettings,
    default_state_dir,
    parse_uids,
)
from modelhost.server.errors import DomainError
from modelhost.server.observing.logs import LogFormat, LogLevel, configure_logs
from modelhost.server.statedir import StateDirBusy
from modelhost.server.store.database import DatabaseUnusable
from modelhost.server.store.migrations import SchemaTooNew
from modelhost.server.text import bytes_read
from modelhost.server.transport import PANEL, Transport

SIGNALS = (signal.SIGINT, signal.SIGTERM)

log: structlog.stdlib.BoundLogger = structlog.get_logger()


@verb
def serve(
    transport: Transport,
    state_dir: Annotated[
        Path | None,
        typer.Option(
            envvar="MODELHOST_STATE_DIR", help="Where everything is kept.", show_default=str(default_state_dir())
        ),
    ] = None,
    listen: Annotated[
        str,
        typer.Option(
            envvar="MODELHOST_LISTEN", help="host:port to listen on; port 0 takes a free one.", rich_help_panel=PANEL
        ),
    ] = DEFAULT_LISTEN,
    admin_listen: Annotated[
        str,
        typer.Option(
            envvar="MODELHOST_ADMIN_LISTEN",
            metavar="HOST:PORT",
            help="Where to listen for operators besides; the Admin service is there then, and not at --listen.",
            show_default="one listener for all",
            rich_help_panel=PANEL,
        ),
    ] = "",
    insecure: Annotated[
        bool,
        typer.Option(
            "--insecure", help="Allow an address that is not loopback, without encryption.", rich_help_panel=PANEL
        ),
    ] = False,
    metrics: Annotated[
        str,
        typer.Option(
            envvar="MODELHOST_METRICS",
            metavar="HOST:PORT",
            help="Where Prometheus may read metrics, over HTTP; port 0 takes a free one.",
            show_default="nowhere",
        ),
    ] = "",
    interpreter: Annotated[
        list[Path] | None,
        typer.Option(
            envvar="MODELHOST_INTERPRETERS",
            help="A Python or R program to offer as a runtime, besides those that are found. Repeatable.",
        ),
    ] = None,
    r_repository: Annotated[
        list[str] | None,
        typer.Option(
            envvar="MODELHOST_R_REPOSITORY",
            help="Where R packages are installed from. Repeatable.",
            show_default=" ".join(DEFAULT_R_REPOSITORIES),
        ),
    ] = None,
    max_message_bytes: Annotated[
        int, typer.Option(help="Largest request and response, in bytes.", min=1024)
    ] = DEFAULT_MESSAGE_LIMIT,
    max_snapshot_bytes: Annotated[
        int, typer.Option(help="Largest size of a deployment's files, in bytes.", min=1024)
    ] = DEFAULT_SNAPSHOT_LIMIT,
    concurrent_builds: Annotated[
        int, typer.Option(help="How many deployments are fetched and built at once.", min=1)
    ] = DEFAULT_BUILDS,
    concurrent_loads: Annotated[
        int,
        typer.Option(
            help="How many workers load a model at once when deployments are started; more are patient.",
            min=1,
            show_default="as many as the host has cores",
        ),
    ] = DEFAULT_LOADS,
    keep_revisions: Annotated[
        int,
        typer.Option(
            help="How many revisions of a deployment are kept to go back to, besides those that run or are to.", min=1
        ),
    ] = DEFAULT_KEPT_REVISIONS,
    worker_uids: Annotated[
        str,
        typer.Option(
            envvar="MODELHOST_WORKER_UIDS",
            metavar="FIRST-LAST",
            help="Users to run workers as, one each, where the server is root; only other servers may have them, too.",
        ),
    ] = f"{DEFAULT_WORKER_UIDS[0]}-{DEFAULT_WORKER_UIDS[-1]}",
    require_isolation: Annotated[
        bool,
        typer.Option(
            "--require-isolation", help="Refuse to start where models could read the server's secrets or signal it."
        ),
    ] = False,
    worker_memory: Annotated[
        str,
        typer.Option(
            metavar="SIZE",
            help="How much memory all models together may declare: 12GiB.",
            show_default="what the host or its control group has",
        ),
    ] = "0",
    stop_grace: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="How long calls may go on when the server is told to end.", min=0),
    ] = DEFAULT_STOP_GRACE,
    token_lifetime: Annotated[
        float,
        typer.Option(metavar="SECONDS", help="How long the tokens of service accounts work, a minute to a day."),
    ] = DEFAULT_TOKEN_LIFETIME,
    usage: Annotated[
        bool, typer.Option("--usage/--no-usage", help="Count the calls of each service by caller, for 90 days.")
    ] = True,
    audit_log: Annotated[
        str,
        typer.Option(
            envvar="MODELHOST_AUDIT_LOG",
            metavar="FILE|syslog[://HOST:PORT]",
            help="Where to write what operators change, too, as lines of JSON.",
            show_default="nowhere",
        ),
    ] = "",
    shared_folder: Annotated[
        list[Path] | None,
        typer.Option(help="A folder of the host that models may use, as its permissions allow them. Repeatable."),
    ] = None,
    git_host: Annotated[
        list[str] | None,
        typer.Option(
            envvar="MODELHOST_GIT_HOSTS",
            metavar="HOST",
            help="Where data sources may be: gitlab.example.com, *.example.com, 10.0.0.0/8, each with :PORT if wanted;"
            " file for folders of this host. Repeatable.",
            show_default="all but loopback and link-local addresses",
        ),
    ] = None,
    log_format: Annotated[
        LogFormat,
        typer.Option(
            envvar="MODELHOST_LOG_FORMAT",
            case_sensitive=False,
            help="What lines of the log look like; auto is human on a terminal and json elsewhere.",
        ),
    ] = LogFormat.AUTO,
    log_level: Annotated[
        LogLevel,
        typer.Option(envvar="MODELHOST_LOG_LEVEL", case_sensitive=False, help="What is worth a line of the log."),
    ] = LogLevel.INFO,
) -> None:
    """Run the server in the foreground until it gets SIGINT or SIGTERM.

    \b
    Examples:
      modelhost serve
      modelhost serve --state-dir /var/lib/modelhost --interpreter /opt/python2.7/bin/python2.7
    """
    configure_logs(log_format, log_level)
    try:
        settings = ServerSettings(
            state_dir=state_dir or default_state_dir(),
            listen=listen,
            admin_listen=admin_listen,
            transport=transport,
            insecure=insecure,
            metrics=metrics,
            message_limit=max_message_bytes,
            snapshot_limit=max_snapshot_bytes,
            interpreters=tuple(interpreter or ()),
            r_repositories=tuple(r_repository or DEFAULT_R_REPOSITORIES),
            concurrent_builds=concurrent_builds,
            concurrent_loads=concurrent_loads,
            kept_revisions=keep_revisions,
            worker_uids=parse_uids(worker_uids),
            require_isolation=require_isolation,
            worker_memory=bytes_read(worker_memory),
            shared_folders=tuple(shared_folder or ()),
            stop_grace=stop_grace,
            token_lifetime=token_lifetime,
            usage=usage,
            audit_log=audit_log,
            git_hosts=tuple(git_host or ()),
        )
        uvloop.run(_serve(settings))
    except (StateDirBusy, DatabaseUnusable, SchemaTooNew, NotIsolated, DomainError, OSError, ValueError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


async def _serve(settings: ServerSettings) -> None:
    stop = asyncio.Event()
    app: App | None = None

    def asked_to_stop() -> None:
        """The first time: once calls are finished. The second time: now."""
        if not stop.is_set():
            log.info(
                "ending; calls under way may finish, a second signal ends them at once", seconds=settings.stop_grace
            )
            stop.set()
        elif app is not None:
            app.hurry()

    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, asked_to_stop)
    app = App(settings)
    try:
        await app.start()
        with _published(app):
            await stop.wait()
    finally:
        await app.stop()
        for number in SIGNALS:  # what comes now is late, and is not to spoil the exit code
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def _published(app: App) -> Iterator[None]:
    """Have this user's commands find the server and its token, at each of its addresses."""
    tls = None
    if app.certificates is not None:
        tls = local.Tls(app.certificates.files.certificate, app.certificates.current().name)
    addresses = dict.fromkeys((app.address, app.admin_address))
    try:
        for address in addresses:
            local.publish(address, app.state.admin_token, tls)
        yield
    finally:
        for address in addresses:
            local.withdraw(int(address.rpartition(":")[2]))
