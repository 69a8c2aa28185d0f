"""The tree of an expression as text and back, node by node. Nothing is evaluated, so what is read is what was written.

``exactly(Mul(2, Add(1, t)))`` is the product 2 (1 + t); sympy multiplies it out where it reads ``2*(t + 1)``. Each word
is looked up in a table of nodes or of leaves, or is an integer or a fraction: no word has any other meaning.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import sympy as sp

OPENING: Final = "exactly("
MAX_LENGTH: Final = 100_000
MAX_DEPTH: Final = 200
DECIMAL_BITS: Final = 4096
"""Longer integers are hexadecimal: Python refuses decimals of more than 4300 digits."""

_WORD: Final = re.compile(r" *([A-Za-z]\w*\(?|-?[0-9][0-9a-fx/]*|[,)]) *", re.ASCII)
_INTEGER: Final = r"(?:0x[0-9a-f]+|0|[1-9][0-9]{0,2000})"
_NUMBER: Final = re.compile(rf"(-?{_INTEGER})(?:/({_INTEGER}))?")
_SEVERAL: Final = ("Add", "Mul", "Max", "Min")


def write(expr: sp.Expr, nodes: Mapping[str, type[sp.Expr]], leaves: Mapping[str, sp.Expr]) -> str:
    """The text of an expression, which ``read`` reads with the same tables.

    Raises:
        ValueError: If the expression has a node that is in neither table, or its text would be longer than is read.
    """
    heads = {node: name for name, node in nodes.items()}
    names = {leaf: name for name, leaf in leaves.items()}
    words: list[str] = []
    rest: list[sp.Expr | str] = [")", expr, OPENING]
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


def read(text: str, nodes: Mapping[str, type[sp.Expr]], leaves: Mapping[str, sp.Expr]) -> sp.Expr:
    """The expression of a text that begins with ``OPENING``.

    Raises:
        ValueError: If the text is not of the form that ``write`` writes; says where.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"text must be at most {MAX_LENGTH} characters, got {len(text)}")
    words = _Words(text)
    (expr,) = _arguments("exactly", words, nodes, leaves, depth=1)
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
    name: str, words: _Words, nodes: Mapping[str, type[sp.Expr]], leaves: Mapping[str, sp.Expr], depth: int
) -> list[sp.Expr]:
    """The arguments of a node up to its closing parenthesis."""
    arguments = []
    mark = ","
    while mark == ",":
        word = words.next()
        if word.endswith("(") and word[:-1] in nodes:
            if depth == MAX_DEPTH:
                raise words.refuse(f"nodes may nest to depth {MAX_DEPTH} at most")
            inner = _arguments(word[:-1], words, nodes, leaves, depth + 1)
            arguments.append(nodes[word[:-1]](*inner, evaluate=False))
        elif word in leaves:
            arguments.append(leaves[word])
        elif (number := _NUMBER.fullmatch(word)) and number[2] not in ("0", "0x0"):
            arguments.append(sp.Rational(int(number[1], 0), int(number[2] or "1", 0)))
        else:
            raise words.refuse(f"{word[:20]!r} is not allowed")
        mark = words.next()
    if mark != ")":
        raise words.refuse(f"a comma or a parenthesis must stand here, not {mark[:20]!r}")
    if not (len(arguments) > 1 if name in _SEVERAL else len(arguments) == 1 + (name == "Pow")):
        raise words.refuse(f"{name} may not have {len(arguments)} arguments")
    return arguments
