"""Flags that say which model to host and how to run it, and the messages that they become."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from modelhost.cli import api, variables
from modelhost.cli.quantities import byte_count, duration

if TYPE_CHECKING:
    from google.protobuf.field_mask_pb2 import FieldMask

_SOURCE = "Where its files come from"
_SETTINGS = "How it is run (else as modelhost.toml among its files says)"
_LIMITS = ("call_timeout", "load_timeout", "queue_size", "memory", "recycle_after_calls", "recycle_memory")
_BATCHING = ("max_batch_size", "max_batch_delay")


class Text(Enum):
    """How Python 2.7 models get text."""

    UNICODE = "unicode"
    BYTES = "bytes"


@dataclass(frozen=True)
class SourceFlags:
    """Which files."""

    source: Annotated[
        str | None,
        typer.Option("--source", metavar="NAME", help="The data source.", rich_help_panel=_SOURCE),
    ] = None
    project: Annotated[
        str | None,
        typer.Option("--project", metavar="PATH", help="Project within the data source.", rich_help_panel=_SOURCE),
    ] = None
    ref: Annotated[
        str | None,
        typer.Option("--ref", help="Branch, tag or commit; else the default branch.", rich_help_panel=_SOURCE),
    ] = None
    directory: Annotated[
        str | None,
        typer.Option(
            "--directory", metavar="PATH", help="Directory that becomes the model's root.", rich_help_panel=_SOURCE
        ),
    ] = None
    path: Annotated[
        list[str] | None,
        typer.Option(
            "--path", metavar="PATH", help="Take only this file or directory; may be repeated.", rich_help_panel=_SOURCE
        ),
    ] = None

    def given(self) -> "tuple[api.ModelSource, list[str]]":
        """Return the message, and the paths of the fields that were given."""
        values = {
            "data_source": self.source,
            "project": self.project,
            "ref": self.ref,
            "directory": self.directory,
            "paths": self.path,
        }
        chosen = {name: value for name, value in values.items() if value is not None}
        return api.ModelSource(**chosen), list(chosen)  # type: ignore[arg-type]  # each has its field's type


def _setting(flag: str, metavar: str | None, text: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(flag, metavar=metavar, help=text, rich_help_panel=_SETTINGS)
    return option


@dataclass(frozen=True)
class SettingsFlags:
    """How to run them."""

    runtime: Annotated[str | None, _setting("--runtime", "ID", "`python2.7`, `python3.6`, `r3.6` …")] = None
    main_file: Annotated[str | None, _setting("--main-file", "PATH", "The file to run; main.py, in R main.R.")] = None
    function: Annotated[str | None, _setting("--function", "NAME", "The function to call; predict, in R score.")] = None
    requirement: Annotated[
        list[str] | None, _setting("--requirement", "LINE", "A package to install, `numpy==1.16.6`; may be repeated.")
    ] = None
    requirements_file: Annotated[
        str | None, _setting("--requirements-file", "PATH", "The requirements file among the files.")
    ] = None
    working_dir: Annotated[
        str | None, _setting("--working-dir", "PATH", "Its working directory; else the model's root.")
    ] = None
    import_path: Annotated[
        list[str] | None, _setting("--import-path", "PATH", "Directory to import from; may be repeated.")
    ] = None
    env: Annotated[
        list[str] | None, _setting("--env", "NAME=VALUE", "Environment variable, not for secrets; may be repeated.")
    ] = None
    secret_env: Annotated[
        list[str] | None,
        _setting(
            "--secret-env",
            "NAME[=@FILE]",
            "Secret environment variable, its value that of yours of the same name, or what is in FILE; may be"
            " repeated. It is stored encrypted and never shown.",
        ),
    ] = None
    text: Annotated[Text | None, _setting("--text", None, "What text is to a Python 2.7 model.")] = None
    unbox: Annotated[bool | None, _setting("--unbox", None, "In R: vectors of length one become scalars.")] = None
    call_timeout: Annotated[
        str | None,
        _setting(
            "--call-timeout", "TIME", "How long a call, or a stream's item, may take: 30s, 5m, 1h; 60s by default."
        ),
    ] = None
    load_timeout: Annotated[
        str | None, _setting("--load-timeout", "TIME", "How long loading the model may take; 5m by default.")
    ] = None
    queue_size: Annotated[
        int | None, _setting("--queue-size", "N", "How many calls may wait for a worker; 100 by default.")
    ] = None
    recycle_after_calls: Annotated[
        int | None,
        _setting(
            "--recycle-after-calls", "N", "Exchange a worker for a fresh one after so many calls; never by default."
        ),
    ] = None
    recycle_memory: Annotated[
        str | None,
        _setting("--recycle-memory", "SIZE", "Exchange a worker for a fresh one when it uses so much memory: 1GiB."),
    ] = None
    memory: Annotated[
        str | None, _setting("--memory", "SIZE", "How much memory a worker may use: 512MiB, 2GiB; no limit by default.")
    ] = None

    max_batch_size: Annotated[
        int | None,
        _setting("--max-batch-size", "N", "How many calls go to its batch function together; 1, none, by default."),
    ] = None
    max_batch_delay: Annotated[
        str | None,
        _setting("--max-batch-delay", "TIME", "How long a call may be kept back for others; 5ms by default."),
    ] = None

    def given(self) -> "tuple[api.ModelSettings, list[str]]":
        """Return the message, and the paths of the fields that were given."""
        settings = api.ModelSettings()
        paths = list(self._set_plain(settings))
        if self.env is not None:
            settings.env.update(variables.plain(self.env))
            paths.append("env")
        if self.secret_env is not None:
            settings.secret_env.update(variables.secret(self.secret_env))
            paths.append("secret_env")
        if self.text is not None:
            settings.text = api.ModelSettings.TEXT_BYTES if self.text is Text.BYTES else api.ModelSettings.TEXT_UNICODE
            paths.append("text")
        if self.call_timeout is not None:
            settings.limits.call_timeout.FromTimedelta(duration(self.call_timeout, "--call-timeout"))
            paths.append("limits.call_timeout")
        if self.load_timeout is not None:
            settings.limits.load_timeout.FromTimedelta(duration(self.load_timeout, "--load-timeout"))
            paths.append("limits.load_timeout")
        if self.queue_size is not None:
            settings.limits.queue_size = self.queue_size
            paths.append("limits.queue_size")
        if self.memory is not None:
            settings.limits.memory_bytes = byte_count(self.memory, "--memory")
            paths.append("limits.memory_bytes")
        if self.recycle_after_calls is not None:
            settings.limits.recycle_after_calls = self.recycle_after_calls
            paths.append("limits.recycle_after_calls")
        if self.recycle_memory is not None:
            settings.limits.recycle_memory_bytes = byte_count(self.recycle_memory, "--recycle-memory")
            paths.append("limits.recycle_memory_bytes")
        if self.max_batch_size is not None:
            settings.batching.max_size = self.max_batch_size
            paths.append("batching.max_size")
        if self.max_batch_delay is not None:
            settings.batching.max_delay.FromTimedelta(duration(self.max_batch_delay, "--max-batch-delay"))
            paths.append("batching.max_delay")
        return settings, paths

    def _set_plain(self, settings: "api.ModelSettings") -> Iterator[str]:
        names = {"requirement": "requirements", "import_path": "import_paths"}
        others = {"env", "secret_env", "text", *_LIMITS, *_BATCHING}
        for field in fields(self):
            value = getattr(self, field.name)
            name = names.get(field.name, field.name)
            if value is None or field.name in others:
                continue
            if isinstance(value, list):
                getattr(settings, name).extend(value)
            else:
                setattr(settings, name, value)
            yield name


def mask_of(paths: list[str]) -> "FieldMask":
    """Return the mask of an update that changes these fields."""
    from google.protobuf.field_mask_pb2 import FieldMask

    return FieldMask(paths=paths)
