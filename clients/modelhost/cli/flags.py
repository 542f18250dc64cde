"""Options that several verbs share, and how options look.

Shared options are the fields of a dataclass. A verb that takes such a dataclass gets an option for each field; `@verb`
sees to it, and makes the verb's docstring fit for `--help`.
"""

import functools
import inspect
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import is_dataclass
from typing import Any, cast

from typer.core import TyperCommand, TyperGroup


def verb(body: Callable[..., None]) -> Callable[..., None]:
    """Make a function of dataclasses into one that typer can make a command of.

    Dataclasses that are context managers are entered before the body runs, and left when it ends.
    """
    parameters = inspect.signature(body, eval_str=True).parameters
    annotations: dict[str, Any] = {name: parameter.annotation for name, parameter in parameters.items()}
    kinds = [name for name, annotation in annotations.items() if is_dataclass(annotation)]
    options = {name: inspect.signature(annotations[name], eval_str=True).parameters for name in kinds}

    def command(**given: Any) -> None:
        with ExitStack() as stack:
            for name, names in options.items():
                value = annotations[name](**{option: given.pop(option) for option in names})
                given[name] = stack.enter_context(value) if isinstance(value, AbstractContextManager) else value
            body(**given)

    own = [parameter for name, parameter in parameters.items() if name not in options]
    # The first dataclass is the session, and the options for the connection are what people look for last.
    first, *others = options.values()
    shared = [option for group in (*others, first) for option in group.values()]
    flat = [parameter.replace(kind=parameter.KEYWORD_ONLY) for parameter in (*own, *shared)]
    functools.update_wrapper(command, body)
    del cast(Any, command).__wrapped__  # else typer would look at the body's parameters
    cast(Any, command).__signature__ = inspect.Signature(flat)
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in flat}
    command.__doc__ = help_text(body.__doc__ or "")
    return command


def help_text(docstring: str) -> str:
    """Return a docstring for `--help`: sentences in one line for the terminal to wrap, indented lines as they are."""
    text = inspect.cleandoc(re.sub(r"[ \t]*\x08\n", "", docstring))  # \b marks such lines for other help formatters
    text = text.replace("[", r"\[")  # typer reads it as rich's markup
    return re.sub(r"(?<=\S)\n(?=[^\s])", " ", text)


class BareFlags:
    """Commands whose flags are shown as `--json`, not as `--json <bool>`."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, `--help` included."""
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]  # of the command that this is mixed into
        for param in params:
            if getattr(param, "is_flag", False) and param.metavar is None:
                param.metavar = ""
        return params


class Command(BareFlags, TyperCommand):
    """A verb."""


class Group(BareFlags, TyperGroup):
    """A family of verbs."""
