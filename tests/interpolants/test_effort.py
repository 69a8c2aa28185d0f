"""Work ends after so many calls, and what counted them leaves no trace."""

import sys

import pytest
import sympy as sp

from interpolants.effort import EffortError, bounded


def called():
    """Does nothing, once."""


def without_end():
    while True:
        try:
            called()
        except Exception:  # as parts of sympy do
            called()


def numbers():
    while True:
        called()
        yield 1


@pytest.mark.parametrize(
    "endless", [without_end, lambda: sum(numbers()), lambda: max(called() or 0 for _ in iter(int, 1))]
)
def test_work_without_end_ends(endless):
    with pytest.raises(EffortError, match=r"^it takes more than 1000 calls of functions$"), bounded(1000):
        endless()
    assert sys.getprofile() is None


def test_work_within_the_bound_is_done():
    with bounded(1000):
        for _ in range(400):
            called()
    assert sys.getprofile() is None
    with pytest.raises(KeyError), bounded(1000):
        {}["missing"]
    assert sys.getprofile() is None


def test_an_inner_block_counts_for_the_outer():
    with pytest.raises(EffortError, match="1000 calls"), bounded(1000), bounded(10**9):
        without_end()


def test_a_profiler_goes_on_counting():
    seen = []
    sys.setprofile(lambda *event: seen.append(event))
    try:
        with bounded(1):
            called()
            called()
    finally:
        sys.setprofile(None)
    assert len(seen) > 4


def test_what_was_being_asked_is_asked_again():
    """sympy notes a question as unknown while it looks for the answer; the next to ask must not find that."""
    x = sp.Symbol("x", real=True)
    for calls in range(50, 2000, 50):
        try:
            with bounded(calls):
                found = ((x**2 + 1) * sp.exp(x)).is_positive
        except EffortError:
            found = None
        assert found in (True, None)
        assert ((sp.Symbol("x", real=True) ** 2 + 1) * sp.exp(x)).is_positive
