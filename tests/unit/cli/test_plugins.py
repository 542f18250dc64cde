"""Verbs that live elsewhere."""

import sys
import textwrap
from importlib.metadata import EntryPoint, EntryPoints, PackageNotFoundError

import pytest

from modelhost.cli import plugins


@pytest.fixture
def verb(tmp_path, monkeypatch):
    """Have a verb `greet` whose module is the given text."""

    def verb(text, value="verb_of_the_test:greet"):
        (tmp_path / "verb_of_the_test.py").write_text(textwrap.dedent(text))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "verb_of_the_test", raising=False)
        found = EntryPoints([EntryPoint("greet", value, plugins.GROUP)])
        monkeypatch.setattr(plugins, "entry_points", lambda **given: found.select(**given))

    return verb


GREET = '''
    """A module."""
    print("imported")

    def greet(name: str = "you"):
        """Say hello.

        Examples:
          modelhost greet --name me
        """
        print(f"hello {name}")
'''


def test_a_function_becomes_a_verb(verb, run):
    verb(GREET)
    result = run("greet", "--name", "me")
    assert (result.code, result.out) == (0, "imported\nhello me\n")


def test_the_root_lists_it_without_importing_it(verb, run):
    verb(GREET)
    shown = run("--help").out
    assert "imported" not in shown
    assert "Say hello." in shown


def test_it_has_help_of_its_own(verb, run):
    verb(GREET)
    shown = run("greet", "--help").out
    assert "modelhost greet --name me" in shown
    assert "--name" in shown


def test_an_app_becomes_a_family_of_verbs(verb, run):
    verb("""
        import typer
        greet = typer.Typer()
        @greet.command()
        def loudly(): print("HELLO")
        @greet.command()
        def softly(): print("hello")
    """)
    assert run("greet", "loudly").out == "HELLO\n"


def test_its_exit_code_is_the_commands(verb, run):
    verb("def greet() -> int:\n    return 9\n")
    assert run("greet").code == 9


@pytest.mark.parametrize(
    "text",
    ["import not_installed_at_all", "def greet():\n    import not_installed_at_all", "other = 1"],
    ids=["imported at once", "imported late", "not there"],
)
def test_one_that_cannot_be_imported_says_so_when_used(verb, run, text):
    verb(text)
    result = run("greet")
    assert result.code == 1
    assert "error: greet is not available: " in result.err
    assert "hint: reinstall verb_of_the_test" in result.err
    assert run("--help").code == 0


def test_an_extra_that_is_not_installed_is_listed_as_such(monkeypatch, run):
    found = EntryPoints([EntryPoint("serve", "modelhost.server.commands:serve", plugins.GROUP)])
    monkeypatch.setattr(plugins, "entry_points", lambda **given: found.select(**given))

    def nothing_is_installed(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(plugins, "distribution", nothing_is_installed)
    assert "(not available: pip install 'modelhost[server]')" in run("--help").out


def test_the_servers_verb_is_there(run):
    assert "serve" in run("--help").out
