"""How a model is run: what was asked for, then what its `modelhost.toml` says, then the defaults."""

import tomllib
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from modelhost.envs import Language, default_requirements_file
from modelhost.server.control.signatures import check_tensors, without_batch_dimension
from modelhost.server.errors import InvalidRequest, StepFailed
from modelhost.server.resources import ModelSettings, TensorSpec, TestCall
from modelhost.server.sources.paths import check_relative, shown
from modelhost.server.text import bytes_read
from modelhost.v1.error_reason_pb2 import ErrorReason

FILE = "modelhost.toml"
CALL_TIMEOUT_SECONDS = 60.0
LOAD_TIMEOUT_SECONDS = 300.0
QUEUE_SIZE = 100
BATCH_DELAY_SECONDS = 0.005
LARGEST_BATCH = 1024  # calls
LEAST_MEMORY = 16 * 1024 * 1024  # bytes; less than any interpreter needs
SHORTEST_SECRET = 4  # characters; shorter ones cannot be told from what else is said
LONGEST_SECRET = 8 * 1024  # characters; a line of the log is no longer

_DEFAULTS = ModelSettings(
    requirements=(),
    requirements_file="",
    working_dir="",
    import_paths=(),
    env={},
    text="unicode",
    unbox=False,
    call_timeout=CALL_TIMEOUT_SECONDS,
    load_timeout=LOAD_TIMEOUT_SECONDS,
    queue_size=QUEUE_SIZE,
    memory=0,
    recycle_calls=0,
    recycle_memory=0,
    max_batch_size=1,
    max_batch_delay=BATCH_DELAY_SECONDS,
    batch_dimension=False,
    tensors="lists",
    inputs=(),
    outputs=(),
)
_LANGUAGE_DEFAULTS = {
    Language.PYTHON: ModelSettings(main_file="main.py", function="predict"),
    Language.R: ModelSettings(main_file="main.R", function="score"),
}


class _Limits(msgspec.Struct, forbid_unknown_fields=True):
    call_timeout: float | None = None
    load_timeout: float | None = None
    queue_size: int | None = None
    memory: int | str | None = None
    recycle_after_calls: int | None = None
    recycle_memory: int | str | None = None


class _Batching(msgspec.Struct, forbid_unknown_fields=True):
    max_size: int | None = None
    max_delay: float | None = None
    batch_dimension: bool | None = None


class _Test(msgspec.Struct, forbid_unknown_fields=True):
    parameters: Any = msgspec.UNSET
    parameters_json: str | None = None
    expected: Any = msgspec.UNSET
    expected_json: str | None = None


class _Tensor(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    datatype: str
    shape: tuple[int, ...] = ()


class _ModelFile(msgspec.Struct, forbid_unknown_fields=True):
    """`modelhost.toml`. `name`, `description` and `source` are for `modelhost deploy`; the server passes them over."""

    name: str = ""
    description: str = ""
    source: dict[str, Any] = {}
    runtime: str | None = None
    main_file: str | None = None
    function: str | None = None
    requirements: tuple[str, ...] | None = None
    requirements_file: str | None = None
    working_dir: str | None = None
    import_paths: tuple[str, ...] | None = None
    text: Literal["unicode", "bytes"] | None = None
    unbox: bool | None = None
    tensors: Literal["lists", "numpy"] | None = None
    inputs: tuple[_Tensor, ...] | None = None
    outputs: tuple[_Tensor, ...] | None = None
    env: dict[str, str] | None = None
    limits: _Limits = msgspec.field(default_factory=_Limits)
    batching: _Batching = msgspec.field(default_factory=_Batching)
    test: _Test | None = None


def language_of(runtime: str) -> Language:
    """The language of a runtime's id: `python2.7`, `r3.6`."""
    return Language.R if runtime.startswith("r") else Language.PYTHON


def resolve(requested: ModelSettings, root: Path) -> ModelSettings:
    """Return the settings in force for the files under `root`: none is `None` but, at most, `test_call`.

    Raises `StepFailed` MODEL_CONFIG_INVALID.
    """
    settings = _over(requested, _read(root / FILE))
    if not settings.runtime:
        raise StepFailed(
            ErrorReason.ERROR_REASON_MODEL_CONFIG_INVALID,
            "no runtime is set for the model",
            hint='Set it with `--runtime python2.7`, or in modelhost.toml: runtime = "python2.7".',
        )
    language = language_of(settings.runtime)
    settings = _over(settings, _LANGUAGE_DEFAULTS[language])
    if settings.requirements is None and settings.requirements_file is None:
        settings = replace(settings, requirements_file=default_requirements_file(language, root))
    settings = _over(settings, _DEFAULTS)
    if language is Language.R and settings.tensors == "numpy":
        raise _invalid('tensors = "numpy" is for Python; R has vectors, matrices and arrays by itself')
    if settings.batch_dimension and (problem := without_batch_dimension(settings)):
        raise _invalid(f"batching.batch_dimension: {problem}")
    try:
        check(settings, "")
    except InvalidRequest as error:
        raise _invalid(f"{error.field}: {error.message}") from None
    return settings


def check(settings: ModelSettings, prefix: str) -> None:
    """Check formats and limits of what is set. Raises `InvalidRequest` for the field, named with `prefix` before it."""
    for name in ("main_file", "requirements_file", "working_dir"):
        if value := getattr(settings, name):
            check_path(value, prefix + name)
    for path in settings.import_paths or ():
        check_path(path, f"{prefix}import_paths")
    if settings.function and not settings.function.replace(".", "_").isidentifier():
        raise InvalidRequest(f"{prefix}function", "{function} is no name of a function", function=settings.function)
    for name in ("call_timeout", "load_timeout"):
        seconds = getattr(settings, name)
        if seconds is not None and not 0 < seconds <= 24 * 3600:
            raise InvalidRequest(
                f"{prefix}limits.{name}", "{name} must be over 0 and at most 86400 s, not {seconds}",
                name=name, seconds=seconds,
            )  # fmt: skip
    if settings.queue_size is not None and not 0 < settings.queue_size <= 10_000:
        raise InvalidRequest(
            f"{prefix}limits.queue_size", "queue_size must be 1 to 10000, not {size}", size=settings.queue_size
        )
    _check_memory(settings, prefix)
    _check_batching(settings, prefix)
    for name in ("inputs", "outputs"):
        check_tensors(getattr(settings, name) or (), prefix + name)
    _check_variables(settings.env, f"{prefix}env")
    _check_variables(settings.secret_env, f"{prefix}secret_env")
    if settings.test_call:
        for name in ("parameters_json", "expected_json"):
            text = getattr(settings.test_call, name)
            if text or name == "parameters_json":
                check_json(text, f"{prefix}test_call.{name}")


def check_secrets(values: Mapping[str, str] | None, prefix: str) -> None:
    """Check secret values as they come. Raises `InvalidRequest`, without the value."""
    for name, value in (values or {}).items():
        if 0 < len(value) < SHORTEST_SECRET:
            raise InvalidRequest(
                f"{prefix}secret_env",
                "the value of {name} has under {shortest} characters: too short to be kept out of logs",
                name=name,
                shortest=SHORTEST_SECRET,
            )
        if len(value) > LONGEST_SECRET:
            raise InvalidRequest(
                f"{prefix}secret_env",
                "the value of {name} has over {longest} characters",
                name=name,
                longest=LONGEST_SECRET,
            )


def _check_memory(settings: ModelSettings, prefix: str) -> None:
    suffix = "_bytes" if prefix else ""
    for name, size in (("memory", settings.memory), ("recycle_memory", settings.recycle_memory)):
        if size and not size >= LEAST_MEMORY:
            raise InvalidRequest(
                f"{prefix}limits.{name}{suffix}",
                "a worker's memory must be at least {least} bytes, not {memory}",
                least=LEAST_MEMORY,
                memory=size,
            )
    if settings.memory and settings.recycle_memory and settings.recycle_memory >= settings.memory:
        raise InvalidRequest(
            f"{prefix}limits.recycle_memory{suffix}",
            "a worker is ended at {memory} bytes, its limit, and never gets to the {recycle} at which it is exchanged",
            memory=settings.memory,
            recycle=settings.recycle_memory,
        )
    if settings.recycle_calls is not None and settings.recycle_calls < 0:
        raise InvalidRequest(
            f"{prefix}limits.recycle_after_calls",
            "recycle_after_calls must be 0 or more, not {calls}",
            calls=settings.recycle_calls,
        )


def _check_batching(settings: ModelSettings, prefix: str) -> None:
    size, delay = settings.max_batch_size, settings.max_batch_delay
    if size is not None and not 1 <= size <= LARGEST_BATCH:
        raise InvalidRequest(
            f"{prefix}batching.max_size", "max_size must be 1 to {most}, not {size}", most=LARGEST_BATCH, size=size
        )
    if delay is not None and not 0 <= delay <= 1:
        raise InvalidRequest(f"{prefix}batching.max_delay", "max_delay must be 0 to 1 s, not {seconds}", seconds=delay)


def _check_variables(variables: Mapping[str, str] | None, field: str) -> None:
    for name, value in (variables or {}).items():
        if not name or "=" in name or "\0" in name + value or name.startswith("MODELHOST_"):
            raise InvalidRequest(field, "{name} cannot be set as an environment variable", name=repr(name))


def check_path(path: str, field: str) -> None:
    """Check a path that somebody asks for. Raises `InvalidRequest` unless it is relative, plain and like no option."""
    if path.startswith("-"):
        raise InvalidRequest(field, "{field} is the path {path}, which starts with a dash", path=shown(path))
    check_relative(path, field)


def check_json(text: str, field: str) -> None:
    """Raise `InvalidRequest` unless the text is JSON."""
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidRequest(field, "{field} is not JSON: {error}", error=error) from None


def _over(first: ModelSettings, second: ModelSettings) -> ModelSettings:
    """What `first` sets, else what `second` sets. `env` is merged by name."""
    missing = {field.name: getattr(second, field.name) for field in fields(first) if getattr(first, field.name) is None}
    merged = replace(first, **missing)
    if first.requirements:  # packages that are named come instead of a file, and the other way round
        merged = replace(merged, requirements_file="")
    elif first.requirements_file:
        merged = replace(merged, requirements=())
    if first.env is not None and second.env:
        merged = replace(merged, env={**second.env, **first.env})
    return merged


def _read(path: Path) -> ModelSettings:
    if not path.is_file():
        return ModelSettings()
    try:
        model = msgspec.convert(tomllib.loads(path.read_text("utf-8")), _ModelFile)
        test = _test_call(model.test) if model.test else None
        memory, recycle_memory = _size(model.limits.memory), _size(model.limits.recycle_memory)
    except (ValueError, TypeError, RecursionError) as error:  # of tomllib, UTF-8 and msgspec, too
        raise _invalid(str(error)) from None
    return ModelSettings(
        runtime=model.runtime,
        main_file=model.main_file,
        function=model.function,
        requirements=model.requirements,
        requirements_file=model.requirements_file,
        working_dir=model.working_dir,
        import_paths=model.import_paths,
        env=model.env,
        text=model.text,
        unbox=model.unbox,
        tensors=model.tensors,
        inputs=_specs(model.inputs),
        outputs=_specs(model.outputs),
        call_timeout=model.limits.call_timeout,
        load_timeout=model.limits.load_timeout,
        queue_size=model.limits.queue_size,
        memory=memory,
        recycle_calls=model.limits.recycle_after_calls,
        recycle_memory=recycle_memory,
        test_call=test,
        max_batch_size=model.batching.max_size,
        max_batch_delay=model.batching.max_delay,
        batch_dimension=model.batching.batch_dimension,
    )


def _size(value: int | str | None) -> int | None:
    return bytes_read(value) if isinstance(value, str) else value


def _specs(tensors: tuple[_Tensor, ...] | None) -> tuple[TensorSpec, ...] | None:
    return None if tensors is None else tuple(TensorSpec(one.name, one.datatype, one.shape) for one in tensors)


def _test_call(test: _Test) -> TestCall:
    def text(value: Any, json: str | None) -> str:
        return msgspec.json.encode(value).decode() if value is not msgspec.UNSET else json or ""

    return TestCall(text(test.parameters, test.parameters_json), text(test.expected, test.expected_json))


def _invalid(cause: str) -> StepFailed:
    return StepFailed(ErrorReason.ERROR_REASON_MODEL_CONFIG_INVALID, "modelhost.toml: {cause}", cause=cause)
