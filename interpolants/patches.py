r"""Polynomials where no formula is accurate: where digits cancel next to an end, about a zero, where exp overflows.

A patch covers the cell [low, high] of the distance s to an end, s = t or s = 1 - t, which is exact in floating point.
There

.. math:: f = s^p \, (c_0 + c_1 z + c_2 z^2 + \dots), \qquad z = (s^{1/q} - m) / h

with p = 0 and q = 1 in all cells but those that reach the end. The coefficients interpolate values that are rigorous to
100 bits, in Chebyshev's points. Where f has a zero, m is the zero as a sum of two floats and c_0 = 0, so that the
digits next to it are kept. Where f is as steep as exp(-1/s) next to s = 0, the polynomial is that of log(f / scale).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import sympy as sp
import torch
from flint import arb

from interpolants.enclosure import point, precision
from interpolants.printer import BACKENDS, ArrayFunction, namespace, quiet

LENGTH: Final = 16
"""Coefficients of a patch."""
BITS: Final = 192
"""Precision of the interpolation."""
SMALLEST: Final = 2.0**-1022
"""The smallest float64 that has all its digits."""
_FIRST: Final = 5  # column of the coefficients in a table


@dataclass(frozen=True)
class Patch:
    """One cell, and the polynomial on it.

    Attributes:
        end: 0 where s = t, 1 where s = 1 - t.
        low, high: The cell, in s; floats.
        power, root: p, as the sum of two floats, and q.
        middle: m as the sum of two floats.
        half_width: h.
        coefficients: c_0, c_1, ...
        scale: 0 where f is the polynomial; else f is scale times the exponential of the polynomial.
    """

    end: int
    low: float
    high: float
    power: tuple[float, float]
    root: int
    middle: tuple[float, float]
    half_width: float
    coefficients: tuple[float, ...]
    scale: float = 0.0


def fitted(
    exact: Callable[[arb], arb], end: int, low: float, high: float, power: sp.Rational, root: int,
    zero: sp.Rational | None,
) -> Iterator[Patch]:  # fmt: skip
    """Patches to try on a cell: a polynomial, and the exponential of one. There are none where the function is not
    finite on all of the cell.

    Args:
        exact: Balls about the values.
        end: The end, 0 or 1, from which the cell is measured.
        low, high: The cell; dyadic, so that nothing is rounded.
        power, root: p and q; 0 and 1 unless ``low`` is 0.
        zero: The distance at which the function is zero in the cell, if it is.
    """
    with precision(BITS):
        if low == 0:
            middle, half = arb(0), arb(high) if root == 1 else arb(high).root(root)
            nodes = [(1 + node) / 2 for node in _nodes()]
        elif zero is not None:
            middle = point(zero)
            half = arb(max(high - float(zero), float(zero) - low))
            nodes = list(_nodes())
        else:
            middle, half, nodes = (arb(low) + high) / 2, (arb(high) - low) / 2, list(_nodes())
        values = []
        for node in nodes:
            s = (middle + half * node).mid() ** root
            distance = s.mid()
            got = exact(distance if end == 0 else (1 - distance))
            if not got.is_finite():
                return
            scaled = got / distance ** _ball(power) if power else got
            values.append(scaled / node if zero is not None else scaled)
        coefficients = tuple(map(float, _interpolated(nodes, values)))
        first = float(middle)
        patch = Patch(
            end, low, high, _in_two(power), root,
            (first, float(middle - first)) if zero is None else _in_two(zero), float(half),
            (0.0, *coefficients) if zero is not None else coefficients,
        )  # fmt: skip
    yield patch
    scale = float(values[LENGTH // 2])
    if low > 0 and zero is None and abs(scale) >= SMALLEST:
        with precision(BITS):
            exponents = [(value / scale).log() for value in values]
            if all(exponent.is_finite() for exponent in exponents):
                exponent = tuple(map(float, _interpolated(nodes, exponents)))
                yield replace(patch, coefficients=exponent, scale=scale)


def _in_two(number: sp.Rational) -> tuple[float, float]:
    first = float(number)
    return first, float(number - sp.Rational(*first.as_integer_ratio()))


def _ball(number: sp.Rational) -> arb:
    return arb(int(number.p)) / int(number.q)


def _nodes() -> Sequence[arb]:
    return [(arb(2 * k + 1) / (2 * LENGTH)).cos_pi() for k in range(LENGTH)]


def _interpolated(nodes: list[arb], values: list[arb]) -> list[arb]:
    """The coefficients of the polynomial through the values, by Newton's divided differences."""
    table = list(values)
    for level in range(1, len(nodes)):
        for i in range(len(nodes) - 1, level - 1, -1):
            table[i] = (table[i] - table[i - 1]) / (nodes[i] - nodes[i - level])
    polynomial = [arb(0)]
    for node, difference in zip(reversed(nodes), reversed(table), strict=True):
        shifted = [arb(0), *polynomial]
        for i, c in enumerate(polynomial):
            shifted[i] -= node * c
        shifted[0] += difference
        polynomial = shifted
    return polynomial[: len(nodes)]


def patched(function: ArrayFunction, patches: Sequence[Patch], backend: str) -> ArrayFunction:
    """The function, with the patches in their cells."""
    for patch in (p for p in patches if p.low == 0):
        function = _at_the_end(function, patch, backend)
    inner = [p for p in patches if p.low > 0]
    return _between(function, inner, backend) if inner else function


def _at_the_end(elsewhere: ArrayFunction, patch: Patch, backend: str) -> ArrayFunction:
    where, sqrt, log = (namespace(backend)[name] for name in ("where", "sqrt", "log"))
    power, rest = patch.power
    power = int(power) if power == int(power) else power

    def function(time: Any) -> Any:
        distance = time if patch.end == 0 else 1 - time
        near = distance <= patch.high
        s = where(near, distance, patch.high)
        r = s if patch.root == 1 else sqrt(s) if patch.root == 2 else s ** (1 / patch.root)
        result = _horner(patch.coefficients, r / patch.half_width)
        if rest:  # s^rest, so that s^p keeps its digits where s is small
            result = result * (1 + rest * log(where(s > 0, s, 1.0)))
        return where(near, s**power * result if power else result, elsewhere(where(near, 0.5, time)))

    return quiet(function, backend)


def _horner(coefficients: Sequence[Any], z: Any) -> Any:
    result = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        result = result * z + coefficient
    return result


def _between(elsewhere: ArrayFunction, patches: Sequence[Patch], backend: str) -> ArrayFunction:
    where, exp = (namespace(backend)[name] for name in ("where", "exp"))
    edges, rows, taken = _table(tuple(patches), backend)
    any_exponential = any(p.scale for p in patches)
    cells = [(p.low, p.high) if p.end == 0 else (1 - p.high, 1 - p.low) for p in patches]
    free = next(x for x in (0.5, 0.25, 0.75, 0.1, 0.9, *(high for _, high in cells)) if not _covers(cells, x))

    def function(time: Any) -> Any:
        row = taken(rows(time), (time[..., None] >= edges(time)).sum(-1))
        flip, middle, rest, half_width, scale = (row[..., k] for k in range(_FIRST))
        inside = half_width > 0
        s = where(flip > 0, 1 - time, time)
        z = where(inside, ((s - middle) - rest) / where(inside, half_width, 1.0), 0.0)
        result = _horner([row[..., k] for k in range(_FIRST, row.shape[-1])], z)
        if any_exponential:
            result = where(scale != 0, scale * exp(where(scale != 0, result, 0.0)), result)
        return where(inside, result, elsewhere(where(inside, free, time)))

    return quiet(function, backend)


def _covers(cells: Sequence[tuple[float, float]], time: float) -> bool:
    return any(low <= time < high for low, high in cells)


def _table(
    patches: tuple[Patch, ...], backend: str
) -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """Functions of times: to the edges of the patches, to a row for each of the intervals between these, the numbers of
    the patch or zeros, and to the rows of a number each.
    """
    length = max(len(p.coefficients) for p in patches)
    by_start = {p.low if p.end == 0 else 1 - p.high: p for p in patches}
    edges = np.array(sorted({*by_start, *(p.high if p.end == 0 else 1 - p.low for p in patches)}))
    rows = np.zeros((len(edges) + 1, _FIRST + length))
    for row, edge in zip(rows[1:], edges.tolist(), strict=True):
        if (p := by_start.get(edge)) is not None:
            row[:_FIRST] = p.end, *p.middle, p.half_width, p.scale
            row[_FIRST : _FIRST + len(p.coefficients)] = p.coefficients
    if backend == "torch":
        return (
            lambda time: torch.as_tensor(edges, dtype=time.dtype, device=time.device),
            lambda time: torch.as_tensor(rows, dtype=time.dtype, device=time.device),
            lambda table, index: table.index_select(0, index.reshape(-1)).reshape(*index.shape, table.shape[1]),
        )
    library = importlib.import_module(BACKENDS[backend])
    return (
        lambda time: library.asarray(edges, dtype=time.dtype),
        lambda time: library.asarray(rows, dtype=time.dtype),
        lambda table, index: table[index],
    )
