"""What a page asks for, as functions of texts. A process remembers the paths that it has derived from."""

from __future__ import annotations

import functools
from typing import TypeAlias

from interpolants import library
from interpolants.explorer import report, simulation
from interpolants.identities import Ledger, prove
from interpolants.path import Path

Parameters: TypeAlias = tuple[tuple[str, float], ...]
"""Names and numbers."""


@functools.lru_cache(maxsize=32)
def _path(alpha: str, sigma: str | None, parameters: Parameters) -> Path:
    """See ``library.from_texts``; a field that is left empty is no text."""
    stated = sigma if sigma is not None and sigma.strip() else None
    return library.from_texts(alpha.strip(), stated, dict(parameters))


def named(alpha: str, sigma: str | None, parameters: Parameters) -> str:
    """The name of the path that the texts state, if they state one."""
    return _path(alpha, sigma, parameters).name


def described(alpha: str, sigma: str | None, parameters: Parameters, w: str) -> report.Report:
    """What follows from a path; see ``report.report``."""
    return report.report(_path(alpha, sigma, parameters), w)


def carried(alpha: str, sigma: str | None, parameters: Parameters, w: str) -> simulation.Flow:
    """Particles on a path; see ``simulation.flow``."""
    return simulation.flow(_path(alpha, sigma, parameters), w)


def measured(alpha: str, sigma: str | None, parameters: Parameters) -> simulation.Errors:
    """The errors of solvers on a path; see ``simulation.errors``."""
    return simulation.errors(_path(alpha, sigma, parameters))


def proved(alpha: str, sigma: str | None, parameters: Parameters) -> Ledger:
    """The ledger of a path; see ``identities.prove``."""
    return prove(_path(alpha, sigma, parameters))
