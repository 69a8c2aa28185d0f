"""Choices as text: a name, such as ``sigma``, or a name with arguments, such as ``sigma(0.5)``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from interpolants.expression import FUNCTIONS, to_expr

T = TypeVar("T")


def chosen(text: str, choices: Mapping[str, Callable[..., T]], where: str) -> T | None:
    """The choice that a text names, or None if it names none.

    Args:
        text: A name, or a name and arguments in parentheses: constants such as 0.5 or 1/3 and, where the choice takes
            them, functions of t. A name that is also in ``FUNCTIONS`` takes no arguments: ``sigmoid(t)`` is the
            function.
        choices: Functions that make each choice, by name.
        where: Name of the argument, for error messages.

    Raises:
        ValueError: If the choice does not take these arguments.
    """
    name, bracket, rest = text.strip().partition("(")
    name = name.rstrip()
    if name not in choices or (bracket and (name in FUNCTIONS or not rest.endswith(")"))):
        return None
    arguments = [_argument(part, where) for part in _split(rest[:-1])] if bracket else []
    signature = inspect.signature(choices[name])
    try:
        for argument, value in signature.bind(*arguments).arguments.items():
            if isinstance(value, str) and signature.parameters[argument].annotation == "float":
                raise TypeError(f"{argument} is a number")
        return choices[name](*arguments)
    except TypeError as error:
        form = f"{name}({', '.join(signature.parameters)})"
        raise ValueError(f"{where}: must be of the form {form}, got {text!r}: {error}.") from None


def _split(text: str) -> Iterator[str]:
    """The parts between commas outside of parentheses."""
    depth, part = 0, ""
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            yield part
            part = ""
        else:
            part += character
    if text.strip():
        yield part


def _argument(text: str, where: str) -> float | str:
    expr = to_expr(text, where=where)
    return text.strip() if expr.free_symbols else float(expr)
