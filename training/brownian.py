"""Brownian motion with a stream of random numbers for each sample, so that a sample never depends on its batch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


class SampleNoise:
    """Standard normal numbers, and from them Brownian increments over unit steps, for torchsde.

    Sample i of a seed draws from a stream of its own, seeded by (seed, i): its numbers are the same in any batch, in
    any order of the samples and on any number of ranks.

    Args:
        like: A tensor with the shape (batch, ...), dtype and device of the numbers.
        indices: The i of each sample.
        seed: Of all of them, an integer of at least 0.

    Attributes:
        step: The unit step that was asked for last.

    Raises:
        ValueError: If there is not one index a sample, or an index or the seed is negative.
    """

    levy_area_approximation = "space-time"

    def __init__(self, like: Tensor, indices: Sequence[int], seed: int) -> None:
        if len(indices) != len(like):
            raise ValueError(f"indices: must have one index a sample, {len(like)}, got {len(indices)}.")
        given = [seed, *indices]
        if any(not isinstance(n, (int, np.integer)) or isinstance(n, bool) or n < 0 for n in given):
            raise ValueError(f"seed, indices: must be integers of at least 0, got {seed!r}, {list(indices)!r}.")
        self.shape, self.step = like.shape, 0
        self._like = like
        self._streams = [stream(seed, int(index), like.device) for index in indices]

    def normal(self) -> Tensor:
        """The next standard normal numbers of every sample, shape (batch, ...)."""
        numbers = self._like.new_empty(self.shape)
        for row, generator in zip(numbers, self._streams, strict=True):
            row.normal_(generator=generator)
        return numbers

    def __call__(self, start: Tensor, stop: Tensor, return_U: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        r"""The increment W of the unit step from ``start``, and with ``return_U`` :math:`U = \int (W_u - W_0) \, du`.

        U = W / 2 + H, with H normal of variance 1/12 and independent of W.
        """
        assert float(stop - start) == 1.0, "an increment is asked for once, in order, over a unit step"
        self.step = int(start)
        increment = self.normal()
        return (increment, torch.add(increment / 2, self.normal(), alpha=1 / math.sqrt(12))) if return_U else increment


def stream(seed: int, index: int, device: torch.device, *purpose: int) -> torch.Generator:
    """The generator of one sample; that of another ``purpose`` is independent of it."""
    state = np.random.SeedSequence((seed, index), spawn_key=purpose).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state >> np.uint64(1)))
