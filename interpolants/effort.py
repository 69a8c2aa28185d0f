"""A bound on the work of a block of code: after that many calls of functions it ends.

sympy asks of what it builds whether it is real, or zero, and may multiply out, factor or evaluate for hours to answer.
No rule about the form of an expression foresees that, so the work itself is counted. It is counted in calls, not in
seconds: a busy machine then accepts what an idle one accepts.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import sympy as sp
from sympy.core.cache import clear_cache


class EffortError(RuntimeError):
    """A block took more calls than it may."""


class _Exhausted(BaseException):
    """Not an Exception: sympy takes some of those for an answer."""


@contextmanager
def bounded(calls: int) -> Iterator[None]:
    """End the block after that many calls and returns of functions in this thread, of Python and of C.

    In such a block, and under a profiler, which counts in the same place, another such block has no bound of its own.

    Raises:
        EffortError: If the block does not end before.
    """
    if sys.getprofile() is not None:
        yield
        return
    left = calls

    def count(frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal left
        left -= 1
        # A generator may be on its way out, when Python reports an exception to no one.
        if left < 0 and event in ("call", "c_call") and not frame.f_code.co_flags & inspect.CO_GENERATOR:
            raise _Exhausted

    sys.setprofile(count)
    try:
        yield
    except _Exhausted:
        sys.setprofile(None)
        clear_cache()  # what was being asked stands there as unknown
        raise EffortError(f"it takes more than {calls} calls of functions") from None
    finally:
        sys.setprofile(None)


@functools.lru_cache(maxsize=65536)
def operations(expr: sp.Expr) -> int:
    """How many there are in an expression, counted faster than sympy does, part by part."""
    return max(len(expr.args) - 1, 1) + sum(map(operations, expr.args)) if expr.args else 0
