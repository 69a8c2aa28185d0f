"""Where functions of time are looked at."""

import math

from interpolants import probes


def test_everywhere_is_next_to_both_ends_and_between():
    assert all(0 < time < 1 for time in probes.EVERYWHERE)
    assert set(probes.NEAR) | set(probes.BETWEEN) < set(probes.EVERYWHERE)
    assert math.isclose(min(probes.EVERYWHERE), 1e-9)
    assert math.isclose(1 - max(probes.EVERYWHERE), 1e-9, rel_tol=1e-6)
    assert all(0.2 <= time <= 0.8 for time in probes.BETWEEN)
    assert max(probes.NEAR) == 0.1
