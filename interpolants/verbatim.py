"""The tree of an expression as text and back, node by node. Nothing is evaluated, so what is read is what was written.

``exactly(Mul(2, Add(1, t)))`` is the product 2 (1 + t); sympy multiplies it out where it reads ``2*(t + 1)``. Each word
is looked up in a table of nodes or of leaves, or is an integer or a fraction: no word has any other meaning.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import sympy as sp
from sympy.core.relational import Relational
from sympy.functions.elementary.piecewise import ExprCondPair
from sympy.logic.boolalg import BooleanTrue

OPENING: Final = "exactly("
MAX_LENGTH: Final = 100_000
MAX_DEPTH: Final = 200
DECIMAL_BITS: Final = 4096
"""Longer integers are hexadecimal: Python refuses decimals of more than 4300 digits."""

_WORD: Final = re.compile(r" *([A-Za-z]\w*\(?|-?[0-9][0-9a-fx/]*|[,)]) *", re.ASCII)
_INTEGER: Final = r"(?:0x[0-9a-f]+|0|[1-9][0-9]{0,2000})"
_NUMBER: Final = re.compile(rf"(-?{_INTEGER})(?:/({_INTEGER}))?")
_SEVERAL: Final = (sp.Add, sp.Mul, sp.Max, sp.Min)
_PAIRED: Final = (sp.Pow, Relational)
_CONDITIONS: Final = (Relational, BooleanTrue)


def write(expr: sp.Expr, nodes: Mapping[str, type[sp.Basic]], leaves: Mapping[str, sp.Basic]) -> str:
    """The text of an expression, which ``read`` reads with the same tables.

    Raises:
        ValueError: If the expression has a node that is in neither table, or its text would be longer than is read.
    """
    heads = {node: name for name, node in nodes.items()}
    names = {leaf: name for name, leaf in leaves.items()}
    words: list[str] = []
    rest: list[sp.Basic | str] = [")", expr, OPENING]
    length = 0
    while rest:
        node = rest.pop()
        if isinstance(node, str):
            word = node
        elif isinstance(node, sp.Rational):
            word = _digits(node.p) + (f"/{_digits(node.q)}" if node.q != 1 else "")
        elif node in names:
            word = names[node]
        elif type(node) in heads:
            word = f"{heads[type(node)]}("
            separated = [part for argument in node.args for part in (", ", argument)]
            rest += [")", *reversed(separated[1:])]
        else:
            raise ValueError(f"{type(node).__name__} has no text")
        words.append(word)
        length += len(word)
        if length > MAX_LENGTH:
            raise ValueError(f"its text is longer than {MAX_LENGTH} characters")
    return "".join(words)


def _digits(integer: int) -> str:
    return str(integer) if integer.bit_length() <= DECIMAL_BITS else hex(integer)


def read(text: str, nodes: Mapping[str, type[sp.Basic]], leaves: Mapping[str, sp.Basic]) -> sp.Expr:
    """The expression of a text that begins with ``OPENING``.

    Raises:
        ValueError: If the text is not of the form that ``write`` writes; says where.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"text must be at most {MAX_LENGTH} characters, got {len(text)}")
    words = _Words(text)
    (expr, *others) = _arguments(words, nodes, leaves, depth=1)
    if others or not isinstance(expr, sp.Expr):
        raise words.refuse("there must be one expression")
    if words.place != len(text):
        raise words.refuse("the text goes on after its end")
    return expr


class _Words:
    """The words of a text in their order."""

    def __init__(self, text: str) -> None:
        self.text, self.start, self.place = text, 0, len(OPENING)

    def next(self) -> str:
        found = _WORD.match(self.text, self.place)
        self.start = self.place
        if found is None:
            raise self.refuse("a name, a number, a comma or a parenthesis must stand here")
        self.place = found.end()
        return found[1]

    def refuse(self, what: str) -> ValueError:
        return ValueError(f"{what}, at column {self.start + 1} of {self.text[:60]!r}")


def _arguments(
    words: _Words, nodes: Mapping[str, type[sp.Basic]], leaves: Mapping[str, sp.Basic], depth: int
) -> list[sp.Basic]:
    """The arguments of a node up to its closing parenthesis."""
    arguments: list[sp.Basic] = []
    mark = ","
    while mark == ",":
        word = words.next()
        if word.endswith("(") and word[:-1] in nodes:
            if depth == MAX_DEPTH:
                raise words.refuse(f"nodes may nest to depth {MAX_DEPTH} at most")
            inner = _arguments(words, nodes, leaves, depth + 1)
            if not _fit(nodes[word[:-1]], inner):
                raise words.refuse(f"{word[:-1]} may not have these arguments")
            arguments.append(_built(nodes[word[:-1]], inner))
        elif word in leaves:
            arguments.append(leaves[word])
        elif (number := _NUMBER.fullmatch(word)) and (divisor := int(number[2] or "1", 0)):
            arguments.append(sp.Rational(int(number[1], 0), divisor))
        else:
            raise words.refuse(f"{word[:20]!r} is not allowed")
        mark = words.next()
    if mark != ")":
        raise words.refuse(f"a comma or a parenthesis must stand here, not {mark[:20]!r}")
    return arguments


def _fit(node: type[sp.Basic], arguments: list[sp.Basic]) -> bool:
    """Whether a node of this type may have these arguments."""
    if node is sp.Piecewise:
        return all(isinstance(argument, ExprCondPair) for argument in arguments)
    if node is ExprCondPair:
        return len(arguments) == 2 and isinstance(arguments[0], sp.Expr) and isinstance(arguments[1], _CONDITIONS)
    if issubclass(node, Relational) and any(argument.has(sp.Piecewise) for argument in arguments):
        return False  # sympy would unfold it
    number = range(2, MAX_LENGTH) if node in _SEVERAL else (2,) if issubclass(node, _PAIRED) else (1,)
    return len(arguments) in number and all(isinstance(argument, sp.Expr) for argument in arguments)


def _built(node: type[sp.Basic], arguments: list[sp.Basic]) -> sp.Basic:
    if node is ExprCondPair:
        return sp.Tuple.__new__(ExprCondPair, *arguments)
    return node(*arguments, evaluate=False)
