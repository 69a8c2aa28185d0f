"""A path as plain data, for files: alpha and sigma as text, the name, and where the data is if that is not t = 1.

.. code-block:: python

    {"alpha": "sin(pi*t/2)", "sigma": "cos(pi*t/2)", "name": "gvp"}
    {"alpha": "1 - t", "sigma": "t", "name": "linear, paper time", "data_end": 0}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import sympy as sp

from interpolants.expression import parse, written

FIELDS: Final = ("alpha", "sigma", "name", "data_end")


def write(alpha: sp.Expr, sigma: sp.Expr, name: str, data_end: int) -> dict[str, Any]:
    """The fields of a path.

    Raises:
        ValueError: If an expression has no text; see ``expression.written``.
    """
    fields = {"alpha": written(alpha, where="alpha"), "sigma": written(sigma, where="sigma"), "name": name}
    return fields if data_end == 1 else {**fields, "data_end": data_end}


def read(fields: Mapping[str, Any]) -> tuple[sp.Expr, sp.Expr, str | None, int]:
    """(alpha, sigma, name, data_end) of the fields of a path; without a name it is None, without data_end 1.

    Raises:
        ValueError: If a field is unknown, or is text that cannot be read, or data_end is neither 0 nor 1.
        TypeError: If ``fields`` is no mapping, or alpha, sigma or the name is missing or no text.
    """
    where = "Path.from_text"
    if not isinstance(fields, Mapping):
        raise TypeError(f"{where}: text must be a mapping with alpha and sigma, got {type(fields).__name__}.")
    if unknown := [name for name in fields if name not in FIELDS]:
        raise ValueError(f"{where}: text must have no fields but {', '.join(FIELDS)}, got {unknown}.")
    alpha, sigma, name, data_end = (fields.get(field, 1 if field == "data_end" else None) for field in FIELDS)
    for field, value in (("alpha", alpha), ("sigma", sigma)):
        if not isinstance(value, str):
            raise TypeError(f"{where}: {field} must be text, got {value!r}.")
    if not (name is None or isinstance(name, str)):
        raise TypeError(f"{where}: name must be text, got {name!r}.")
    if isinstance(data_end, bool) or data_end not in (0, 1):
        raise ValueError(f"{where}: data_end must be 0 or 1, got {data_end!r}.")
    return parse(alpha, where="alpha"), parse(sigma, where="sigma"), name, data_end
