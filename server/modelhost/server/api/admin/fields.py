"""Reading a deployment's wish out of a request: checks of fields."""

from dataclasses import dataclass

from modelhost.server.api import convert, names
from modelhost.server.control import settings as settings_rules
from modelhost.server.errors import InvalidRequest
from modelhost.server.resources import ModelSettings, ModelSource
from modelhost.v1 import deployment_pb2 as pb

DESCRIPTION_LIMIT = 500
REF_LIMIT = 250
LIST_LIMIT = 1_000
MUTABLE = ("description", "workers", "source", "settings")
LIVE = ("description", "workers")  # what makes no revision
MOST_WORKERS = 64
PARTS = ("source", "settings", "limits", "batching")


@dataclass(frozen=True)
class Wish:
    """What can be wished of a deployment."""

    description: str
    workers: int
    source: ModelSource
    settings: ModelSettings


def wish(message: pb.Deployment) -> Wish:
    """What a request wishes a deployment to be. Raises `InvalidRequest`."""
    if len(message.description) > DESCRIPTION_LIMIT:
        raise InvalidRequest(
            "deployment.description", "the description has over {limit} characters", limit=DESCRIPTION_LIMIT
        )
    if not 0 <= message.workers <= MOST_WORKERS:
        raise InvalidRequest(
            "deployment.workers",
            "workers must be 1 to {most}, not {workers}",
            most=MOST_WORKERS,
            workers=message.workers,
        )
    return Wish(message.description, message.workers or 1, _source(message.source), _settings(message.settings))


def _source(message: pb.ModelSource) -> ModelSource:
    if not message.data_source:
        raise InvalidRequest(
            "deployment.source.data_source", "{field} is needed: which registered data source has the files"
        )
    names.parse(message.data_source, names.DATA_SOURCES, "deployment.source.data_source")
    source = convert.source_from(message)
    if len(source.ref) > REF_LIMIT or source.ref.startswith("-") or not source.ref.isprintable():
        raise InvalidRequest("deployment.source.ref", "{ref} is no branch, tag or commit", ref=repr(source.ref[:80]))
    for name, path in (("project", source.project), ("directory", source.directory)):
        if path:
            settings_rules.check_path(path, f"deployment.source.{name}")
    _check_count(source.paths, "deployment.source.paths")
    for path in source.paths:
        settings_rules.check_path(path, "deployment.source.paths")
    return source


def _settings(message: pb.ModelSettings) -> ModelSettings:
    if message.runtime:
        names.parse(message.runtime, names.RUNTIMES, "deployment.settings.runtime")
    if message.text not in pb.ModelSettings.Text.values():
        raise InvalidRequest("deployment.settings.text", "{field} has no value {text}", text=message.text)
    if message.tensors not in pb.ModelSettings.Tensors.values():
        raise InvalidRequest("deployment.settings.tensors", "{field} has no value {tensors}", tensors=message.tensors)
    for name in ("requirements", "import_paths"):
        _check_count(getattr(message, name), f"deployment.settings.{name}")
    try:
        settings = convert.settings_from(message)
    except (ValueError, OverflowError):
        raise InvalidRequest("deployment.settings", "a duration in {field} is malformed") from None
    settings_rules.check(settings, "deployment.settings.")
    settings_rules.check_secrets(settings.secret_env, "deployment.settings.")
    return settings


def _check_count(items: object, field: str) -> None:
    count = len(items) if hasattr(items, "__len__") else 0
    if count > LIST_LIMIT:
        raise InvalidRequest(
            field, "{field} has {count} items; at most {limit} are allowed", count=count, limit=LIST_LIMIT
        )
