"""In which order data are seen: a pure function of the seed and the step, on any number of ranks and workers."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor

_PURPOSES: Final = ("weights", "order", "step", "example")


def derived_seed(seed: int, purpose: str, index: int = 0) -> int:
    """A 64-bit seed for one use of randomness: independent streams for different purposes and indices.

    Args:
        seed: Of the run, >= 0.
        purpose: "weights" of the initial network, "order" of an epoch's data, "step" for all that a step draws, or
            "example" for what is random about one of the data.
        index: Of the epoch or step, or the place of the example in the order of all.
    """
    return int(_sequence(purpose, seed, index).generate_state(1, np.uint64)[0])


def generator(purpose: str, seed: int, index: int) -> np.random.Generator:
    """NumPy's generator for one use of randomness; see derived_seed."""
    return np.random.default_rng(_sequence(purpose, seed, index))


def _sequence(purpose: str, seed: int, index: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed, spawn_key=(_PURPOSES.index(purpose), index))


class ShuffledBatches:
    """The order of the data as a pure function of the step, so that a resumed run needs no state and loses nothing.

    Each epoch is a permutation of its own, and a batch runs on across the end of an epoch: every batch is full, and
    every sample comes exactly once an epoch.

    Args:
        length: Number of samples.
        batch_size: Samples a step.
        seed: Of the permutations.

    Raises:
        ValueError: If one of them is out of range.
    """

    def __init__(self, length: int, batch_size: int, seed: int) -> None:
        for name, value, minimum in (("length", length, 1), ("batch_size", batch_size, 1), ("seed", seed, 0)):
            if value < minimum:
                raise ValueError(f"ShuffledBatches: {name} must be at least {minimum}, got {value!r}.")
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self._epoch, self._permutation = -1, torch.empty(0, dtype=torch.long)

    def indices(self, step: int) -> Tensor:
        """The samples of step 0, 1, ...; int64, shape (batch_size,)."""
        if step < 0:
            raise ValueError(f"ShuffledBatches: step must be at least 0, got {step!r}.")
        position, stop = step * self.batch_size, (step + 1) * self.batch_size
        parts = []
        while position < stop:
            epoch, offset = divmod(position, self.length)
            part = self._order(epoch)[offset : offset + stop - position]
            parts.append(part)
            position += len(part)
        return torch.cat(parts)

    def _order(self, epoch: int) -> Tensor:
        if epoch != self._epoch:  # Only a cache: what it holds follows from (seed, epoch).
            generator = torch.Generator().manual_seed(derived_seed(self.seed, "order", epoch))
            self._epoch, self._permutation = epoch, torch.randperm(self.length, generator=generator)
        return self._permutation
