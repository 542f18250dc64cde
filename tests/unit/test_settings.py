"""How a model is run: what the API says, over what modelhost.toml says, over the defaults."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from modelhost.server.control.settings import FILE, check, language_of, resolve
from modelhost.server.errors import InvalidRequest, StepFailed
from modelhost.server.resources import ModelSettings, TensorSpec, TestCall
from modelhost.v1.error_reason_pb2 import ErrorReason

NOTHING = ModelSettings()
PYTHON = ModelSettings(runtime="python3.6")

EVERYTHING = """
name = "iris"
description = "for `modelhost deploy`"
runtime = "python2.7"
main_file = "src/score.py"
function = "score"
requirements = ["numpy==1.16.6"]
requirements_file = "reqs.txt"
working_dir = "src"
import_paths = ["lib", "vendor"]
text = "bytes"
unbox = true
tensors = "numpy"

[source]
data_source = "models"

[env]
LEVEL = "high"

[limits]
call_timeout = 5
load_timeout = 7.5
queue_size = 9
memory = "1.5GiB"
recycle_after_calls = 5000
recycle_memory = "512MiB"

[batching]
max_size = 16
max_delay = 0.02
batch_dimension = true

[test]
parameters = {x = [1, 2.5, "three", true]}
expected = 6

[[inputs]]
name = "x"
datatype = "FP64"
shape = [-1, 4]

[[outputs]]
name = "y"
datatype = "INT64"
shape = [-1]
"""


STACKS = "batching = {batch_dimension = true, max_size = 2}\n"
ROWS_IN = "inputs = [{name = 'x', datatype = 'FP32', shape = [-1]}]\n"


def model(folder: Path, toml: str = "", **files: str) -> Path:
    """A model's folder."""
    if toml:
        (folder / FILE).write_text(toml)
    for name, text in files.items():
        (folder / name.replace("_txt", ".txt")).write_text(text)
    return folder


def refusal(folder: Path, toml: str, requested: ModelSettings = PYTHON) -> str:
    """What a person is told of a bad modelhost.toml."""
    with pytest.raises(StepFailed) as caught:
        resolve(requested, model(folder, toml))
    assert caught.value.reason == ErrorReason.ERROR_REASON_MODEL_CONFIG_INVALID
    return caught.value.message


# ---- what is in force


def test_without_anything_said_a_python_model_is_main_py_with_predict(tmp_path: Path) -> None:
    assert resolve(PYTHON, model(tmp_path)) == ModelSettings(
        runtime="python3.6",
        main_file="main.py",
        function="predict",
        requirements=(),
        requirements_file="",
        working_dir="",
        import_paths=(),
        env={},
        text="unicode",
        unbox=False,
        tensors="lists",
        inputs=(),
        outputs=(),
        call_timeout=60.0,
        load_timeout=300.0,
        queue_size=100,
        memory=0,
        recycle_calls=0,
        recycle_memory=0,
        max_batch_size=1,
        max_batch_delay=0.005,
        batch_dimension=False,
        test_call=None,
    )


def test_without_anything_said_an_r_model_is_main_r_with_score(tmp_path: Path) -> None:
    settings = resolve(ModelSettings(runtime="r3.6"), model(tmp_path))

    assert (settings.main_file, settings.function) == ("main.R", "score")


def test_modelhost_toml_may_say_everything(tmp_path: Path) -> None:
    assert resolve(NOTHING, model(tmp_path, EVERYTHING)) == ModelSettings(
        runtime="python2.7",
        main_file="src/score.py",
        function="score",
        requirements=("numpy==1.16.6",),
        requirements_file="",  # packages that are named come instead of a file
        working_dir="src",
        import_paths=("lib", "vendor"),
        env={"LEVEL": "high"},
        text="bytes",
        unbox=True,
        tensors="numpy",
        inputs=(TensorSpec("x", "FP64", (-1, 4)),),
        outputs=(TensorSpec("y", "INT64", (-1,)),),
        call_timeout=5.0,
        load_timeout=7.5,
        queue_size=9,
        memory=3 * 2**29,
        recycle_calls=5000,
        recycle_memory=2**29,
        max_batch_size=16,
        max_batch_delay=0.02,
        batch_dimension=True,
        test_call=TestCall('{"x":[1,2.5,"three",true]}', "6"),
    )


REQUESTED = ModelSettings(
    runtime="python3.6",
    main_file="other.py",
    function="other",
    requirements=("scipy",),
    requirements_file="other.txt",
    working_dir="elsewhere",
    import_paths=("there",),
    env={"SIZE": "large"},
    text="unicode",
    unbox=False,
    call_timeout=1.0,
    load_timeout=2.0,
    queue_size=3,
    memory=2**31,
    recycle_calls=7,
    recycle_memory=2**28,
    max_batch_size=2,
    max_batch_delay=0.0,
    batch_dimension=False,
    test_call=TestCall("[]", "[]"),
    secret_env={"PASSWORD": "v1:sealed"},
    tensors="lists",
    inputs=(TensorSpec("z", "BYTES", (-1, 1)),),
    outputs=(TensorSpec("z", "BYTES", (-1, 1)),),
)


@pytest.mark.parametrize(
    "name", [field.name for field in fields(ModelSettings) if field.name not in ("env", "requirements_file")]
)
def test_what_the_api_says_goes_before_the_file_field_by_field(tmp_path: Path, name: str) -> None:
    root = model(tmp_path, EVERYTHING)
    of_file = resolve(NOTHING, root)
    value = getattr(REQUESTED, name)
    assert value != getattr(of_file, name)

    assert resolve(replace(NOTHING, **{name: value}), root) == replace(of_file, **{name: value})


def test_a_requirements_file_that_the_api_names_comes_instead_of_packages_in_modelhost_toml(tmp_path: Path) -> None:
    settings = resolve(replace(NOTHING, requirements_file="other.txt"), model(tmp_path, EVERYTHING))

    assert (settings.requirements, settings.requirements_file) == ((), "other.txt")


def test_environment_variables_are_merged_by_name(tmp_path: Path) -> None:
    root = model(tmp_path, '[env]\nLEVEL = "high"\nSIZE = "small"')

    settings = resolve(replace(PYTHON, env={"SIZE": "large", "COLOUR": "red"}), root)

    assert settings.env == {"LEVEL": "high", "SIZE": "large", "COLOUR": "red"}


def test_a_requirements_file_is_taken_where_there_is_one_and_nothing_else_is_said(tmp_path: Path) -> None:
    root = model(tmp_path, requirements_txt="numpy")

    assert resolve(PYTHON, root).requirements_file == "requirements.txt"
    assert resolve(replace(PYTHON, requirements=("scipy",)), root).requirements_file == ""


def test_a_model_that_says_it_needs_nothing_gets_nothing(tmp_path: Path) -> None:
    root = model(tmp_path, "requirements = []", requirements_txt="numpy")

    settings = resolve(PYTHON, root)

    assert (settings.requirements, settings.requirements_file) == ((), "")


def test_a_test_call_may_be_written_as_json_text(tmp_path: Path) -> None:
    root = model(tmp_path, "[test]\nparameters_json = '{\"x\": null}'\nexpected_json = '[1]'")

    assert resolve(PYTHON, root).test_call == TestCall('{"x": null}', "[1]")


def test_a_test_call_that_expects_nothing_in_particular(tmp_path: Path) -> None:
    assert resolve(PYTHON, model(tmp_path, "[test]\nparameters = false")).test_call == TestCall("false", "")


@pytest.mark.parametrize(("runtime", "language"), [("python2.7", "python"), ("python3.13", "python"), ("r3.6", "r")])
def test_a_runtime_tells_its_language(runtime: str, language: str) -> None:
    assert language_of(runtime) == language


# ---- what a person is told


def test_a_model_without_a_runtime_is_told_how_to_set_one(tmp_path: Path) -> None:
    with pytest.raises(StepFailed) as caught:
        resolve(NOTHING, model(tmp_path))

    assert "no runtime is set" in caught.value.message
    assert 'runtime = "python2.7"' in caught.value.hint


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("runtime = python3.6", ["line 1"]),
        ("\n\nruntime = !", ["line 3"]),
        ('runtimes = "python3.6"', ["unknown field", "runtimes"]),
        ('requirements = "numpy"', ["array", "str", "requirements"]),
        ("requirements = [1]", ["str", "int", "requirements"]),
        ("[env]\nPORT = 80", ["str", "int", "env"]),
        ("[limits]\ncall_timeout = '60s'", ["float", "str", "limits.call_timeout"]),
        ("[limits]\nswap = 1", ["unknown field", "swap", "limits"]),
        ("[limits]\nqueue_size = 1.5", ["int", "float", "limits.queue_size"]),
        ('text = "latin1"', ["latin1", "text"]),
        ('unbox = "yes"', ["bool", "str", "unbox"]),
        ('tensors = "pandas"', ["pandas", "tensors"]),
        ('[[inputs]]\nname = "x"', ["datatype", "inputs[0]"]),
        ('[[inputs]]\nname = "x"\ndatatype = "FP65"', ["inputs", "'x'", "FP65", "FP64"]),
        ('[[inputs]]\nname = ""\ndatatype = "FP64"', ["inputs", "1 to 200 bytes"]),
        ('[[outputs]]\nname = "x"\ndatatype = "FP64"\nshape = [-2]', ["outputs", "'x'", "-1 for any"]),
        ('[[outputs]]\nname = "x"\ndatatype = "FP64"\nsize = 1', ["unknown field", "size"]),
        ('[[outputs]]\nname = "x"\ndatatype = "FP64"\n' * 2, ["outputs", "'x'", "twice"]),
        ("[test]\nparameter = 1", ["unknown field", "parameter"]),
        ("[test]", ["test_call.parameters_json", "is not JSON"]),
        ("[test]\nparameters_json = '{x: 1}'", ["test_call.parameters_json", "is not JSON"]),
        ("[test]\nparameters = 1\nexpected_json = 'one'", ["test_call.expected_json", "is not JSON"]),
        ("[limits]\ncall_timeout = 0", ["limits.call_timeout", "86400 s, not 0"]),
        ("[limits]\nload_timeout = nan", ["limits.load_timeout", "not nan"]),
        ("[limits]\nload_timeout = 86401", ["limits.load_timeout", "not 86401"]),
        ("[limits]\nqueue_size = 0", ["limits.queue_size", "1 to 10000, not 0"]),
        ("[limits]\nmemory = 1000", ["limits.memory", "at least 16777216 bytes, not 1000"]),
        ("[limits]\nmemory = '2 gigs'", ["'2 gigs' is no size", "2GiB"]),
        ("[limits]\nmemory = 1.5", ["limits.memory"]),
        ("[limits]\nrecycle_memory = 1000", ["limits.recycle_memory", "at least 16777216 bytes, not 1000"]),
        ("[limits]\nmemory = '1GiB'\nrecycle_memory = '1GiB'", ["limits.recycle_memory", "never gets to"]),
        ("[limits]\nrecycle_after_calls = -1", ["limits.recycle_after_calls", "0 or more, not -1"]),
        ("[limits]\nqueue_size = 10001", ["limits.queue_size", "not 10001"]),
        ("[batching]\nmax_size = 0", ["batching.max_size", "1 to 1024, not 0"]),
        ("[batching]\nmax_size = 1025", ["batching.max_size", "1 to 1024, not 1025"]),
        ("[batching]\nmax_delay = -0.1", ["batching.max_delay", "0 to 1 s, not -0.1"]),
        ("[batching]\nmax_delay = 1.5", ["batching.max_delay", "not 1.5"]),
        ("[batching]\nmax_delay = nan", ["batching.max_delay", "not nan"]),
        ("[batching]\nmax_delay = '5ms'", ["float", "str", "batching.max_delay"]),
        ("[batching]\nbatch_dimension = true", ["batching.batch_dimension", "unless max_size is 2 or more"]),
        ("[batching]\nbatch_dimension = true\nmax_size = 2", ["batching.batch_dimension", "declares no inputs"]),
        (
            f"{STACKS}{ROWS_IN}",
            ["batching.batch_dimension", "declares no outputs"],
        ),
        (
            f"{STACKS}{ROWS_IN}outputs = [{{name = 'y', datatype = 'FP32', shape = [1, -1]}}]",
            ["batching.batch_dimension", "outputs: tensor 'y'", "-1 for its first dimension"],
        ),
        (
            f"{STACKS}inputs = [{{name = 'x', datatype = 'FP32'}}]\n"
            "outputs = [{name = 'y', datatype = 'FP32', shape = [-1]}]",
            ["batching.batch_dimension", "inputs: tensor 'x'"],
        ),
        ("[batching]\nsize = 4", ["unknown field", "size", "batching"]),
        ('main_file = "../main.py"', ["main_file"]),
        ('main_file = "/etc/passwd"', ["main_file"]),
        ('working_dir = "a/../../b"', ["working_dir"]),
        ('requirements_file = "-r"', ["requirements_file", "dash"]),
        ('import_paths = ["lib", ".."]', ["import_paths"]),
        ('function = "a b"', ["function", "a b is no name"]),
        ('function = "predict()"', ["function", "predict() is no name"]),
        ('[env]\nMODELHOST_LINK = "fd:3"', ["env", "MODELHOST_LINK"]),
        ('[env]\n"A=B" = "c"', ["env", "A=B"]),
        ('[env]\n"" = "c"', ["env", "''"]),
        ('[env]\nA = "\\u0000"', ["env", "'A'"]),
    ],
)
def test_what_is_wrong_in_modelhost_toml_is_named(tmp_path: Path, toml: str, words: list[str]) -> None:
    message = refusal(tmp_path, toml)

    assert message.startswith("modelhost.toml: ")
    assert [word for word in words if word not in message] == []


def test_arrays_of_numpy_are_not_for_r(tmp_path: Path) -> None:
    assert "R has vectors" in refusal(tmp_path, 'tensors = "numpy"', ModelSettings(runtime="r3.6"))


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b'name = "caf\xe9"')

    with pytest.raises(StepFailed, match="utf-8"):
        resolve(PYTHON, tmp_path)


def test_a_file_nested_without_end_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, f"[test]\nparameters = {'[' * 10_000}").startswith("modelhost.toml: ")


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        (ModelSettings(main_file="../x"), "s.main_file"),
        (ModelSettings(call_timeout=-1), "s.limits.call_timeout"),
        (ModelSettings(queue_size=0), "s.limits.queue_size"),
        (ModelSettings(memory=-1), "s.limits.memory_bytes"),
        (ModelSettings(recycle_memory=-1), "s.limits.recycle_memory_bytes"),
        (ModelSettings(recycle_calls=-1), "s.limits.recycle_after_calls"),
        (ModelSettings(max_batch_size=-1), "s.batching.max_size"),
        (ModelSettings(max_batch_delay=2), "s.batching.max_delay"),
        (ModelSettings(test_call=TestCall("{")), "s.test_call.parameters_json"),
        (ModelSettings(test_call=TestCall("1", "{")), "s.test_call.expected_json"),
        (ModelSettings(env={"MODELHOST_X": ""}), "s.env"),
    ],
)
def test_a_request_is_told_which_of_its_fields_is_wrong(settings: ModelSettings, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check(settings, "s.")

    assert caught.value.field == field


@pytest.mark.parametrize("settings", [NOTHING, REQUESTED, ModelSettings(function="score.model", call_timeout=86400)])
def test_what_is_in_order_passes(settings: ModelSettings) -> None:
    check(settings, "s.")
