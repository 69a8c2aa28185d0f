"""Where functions of time are looked at."""

import math

import numpy as np

from interpolants import probes


def test_dense_times_are_sorted_symmetric_and_inside():
    times = probes.dense(40, 100)
    assert np.all(np.diff(times) > 0)
    assert (times[0], times[-1]) == (1e-6, 1 - 1e-6)
    np.testing.assert_allclose(times, 1 - times[::-1], rtol=0, atol=1e-15)
    ratio = (0.5 / 1e-6) ** (1 / 39)
    near = times[times < 1 / 101]  # before the first of the even ones
    np.testing.assert_allclose(near, 1e-6 * ratio ** np.arange(len(near)), rtol=1e-12)
    assert all(np.isclose(times, k / 101, rtol=0, atol=1e-15).any() for k in range(1, 101))
    assert len(times) in (2 * 39 + 1 + 100, 2 * 39 + 2 + 100)  # 1/2 comes from both ends


def test_everywhere_is_next_to_both_ends_and_between():
    assert all(0 < time < 1 for time in probes.EVERYWHERE)
    assert set(probes.NEAR) | set(probes.BETWEEN) < set(probes.EVERYWHERE)
    assert math.isclose(min(probes.EVERYWHERE), 1e-9)
    assert math.isclose(1 - max(probes.EVERYWHERE), 1e-9, rel_tol=1e-6)
    assert all(0.2 <= time <= 0.8 for time in probes.BETWEEN)
    assert max(probes.NEAR) == 0.1
