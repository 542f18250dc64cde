"""What users of the client may rely on."""

import subprocess
import sys

import modelhost.client


def test_everything_public_is_exported_and_nothing_else():
    public = {name for name, value in vars(modelhost.client).items() if not name.startswith("_") and is_ours(value)}
    assert public | {"__version__"} == set(modelhost.client.__all__)


def is_ours(value: object) -> bool:
    return getattr(value, "__module__", "").startswith("modelhost.client")


def test_every_error_is_in_the_tree_that_the_docstring_draws():
    drawn = modelhost.client.errors.__doc__
    errors = [name for name in modelhost.client.__all__ if is_error(getattr(modelhost.client, name))]
    assert errors
    assert [name for name in errors if name not in drawn] == []


def is_error(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Exception)


def test_the_client_needs_neither_the_command_nor_the_server():
    code = "import sys, modelhost.client; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert loaded.isdisjoint({"typer", "rich", "modelhost.cli", "modelhost.server", "modelhost.envs"})
