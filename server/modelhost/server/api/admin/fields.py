"""Reading a deployment's wish out of a request: checks of fields, and update masks (https://google.aip.dev/134)."""

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from modelhost.server.api import convert, names
from modelhost.server.control import settings as settings_rules
from modelhost.server.errors import InvalidRequest
from modelhost.server.resources import ModelSettings, ModelSource
from modelhost.v1 import deployment_pb2 as pb

DESCRIPTION_LIMIT = 500
REF_LIMIT = 250
LIST_LIMIT = 1_000
MUTABLE = ("description", "source", "settings")


def wish(message: pb.Deployment) -> tuple[str, ModelSource, ModelSettings]:
    """Description, source and settings of a deployment. Raises `InvalidRequest`."""
    if len(message.description) > DESCRIPTION_LIMIT:
        raise InvalidRequest(
            "deployment.description", "the description has over {limit} characters", limit=DESCRIPTION_LIMIT
        )
    return message.description, _source(message.source), _settings(message.settings)


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
    for name in ("requirements", "import_paths"):
        _check_count(getattr(message, name), f"deployment.settings.{name}")
    try:
        settings = convert.settings_from(message)
    except (ValueError, OverflowError):
        raise InvalidRequest("deployment.settings.limits", "a duration of {field} is malformed") from None
    settings_rules.check(settings, "deployment.settings.")
    settings_rules.check_secrets(settings.secret_env, "deployment.settings.")
    return settings


def _check_count(items: object, field: str) -> None:
    count = len(items) if hasattr(items, "__len__") else 0
    if count > LIST_LIMIT:
        raise InvalidRequest(
            field, "{field} has {count} items; at most {limit} are allowed", count=count, limit=LIST_LIMIT
        )


def merged(current: pb.Deployment, wanted: pb.Deployment, mask: FieldMask) -> tuple[pb.Deployment, list[str]]:
    """Put the masked fields of `wanted` over `current`; also returns which. Raises `InvalidRequest` for a bad mask."""
    paths = list(mask.paths) or _set_paths(wanted)
    for path in paths:
        known = path.split(".")[0] in MUTABLE and FieldMask(paths=[path]).IsValidForDescriptor(pb.Deployment.DESCRIPTOR)
        if not known:
            raise InvalidRequest("update_mask", "{path} cannot be updated", path=repr(path[:80]))
    result = pb.Deployment()
    result.CopyFrom(current)
    for path in paths:
        _put(path.split("."), wanted, result)
    return result, paths


def _put(path: list[str], wanted: Message, result: Message) -> None:
    """Make a field of `result` what it is in `wanted`, set or not. `FieldMask.MergeMessage` passes over what is not."""
    name, *rest = path
    if rest:
        _put(rest, getattr(wanted, name), getattr(result, name))
        return
    result.ClearField(name)
    for field, value in wanted.ListFields():
        if field.name == name and hasattr(value, "MergeFrom"):  # a message, a list or a map
            getattr(result, name).MergeFrom(value)
        elif field.name == name:
            setattr(result, name, value)


def _set_paths(message: Message, prefix: str = "") -> list[str]:
    """Paths of what is set, below the mutable fields; of submessages the fields that are set in them."""
    paths: list[str] = []
    for field, value in message.ListFields():
        path = prefix + field.name
        if not prefix and field.name not in MUTABLE:
            continue
        if isinstance(value, Message) and field.name in ("source", "settings", "limits"):
            paths += _set_paths(value, f"{path}.")
        else:
            paths.append(path)
    return paths
