"""Times at which a function of time is looked at: next to both ends of [0, 1], and between them."""

from __future__ import annotations

from typing import Final

import numpy as np

NEAR: Final = tuple(10.0**-k for k in range(1, 10, 2))
"""Distances from an end."""

BETWEEN: Final = tuple(np.linspace(0.2, 0.8, 7).tolist())

EVERYWHERE: Final = (*NEAR, *BETWEEN, *(1 - distance for distance in NEAR))
