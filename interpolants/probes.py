"""Times at which a function of time is looked at: next to both ends of [0, 1], and between them."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

NEAR: Final = tuple(10.0**-k for k in range(1, 10, 2))
"""Distances from an end."""

BETWEEN: Final = tuple(np.linspace(0.2, 0.8, 7).tolist())

EVERYWHERE: Final = (*NEAR, *BETWEEN, *(1 - distance for distance in NEAR))


def dense(near: int, between: int) -> np.ndarray[Any, Any]:
    """Sorted times in (0, 1): ``near`` from 1e-6 of each end to the middle in equal ratios, ``between`` evenly."""
    steps = np.geomspace(1e-6, 0.5, near)
    return np.unique(np.concatenate([steps, np.linspace(0.0, 1.0, between + 2)[1:-1], 1.0 - steps]))
