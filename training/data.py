"""What is trained on, and in which order."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor

HELD_OUT_EVERY: Final = 5
"""Of the digits of each class, in scikit-learn's order, every fifth is held out, beginning with the first."""

_PURPOSES: Final = ("weights", "order", "step")


def derived_seed(seed: int, purpose: str, index: int = 0) -> int:
    """A 64-bit seed for one use of randomness: independent streams for different purposes and indices.

    Args:
        seed: Of the run, >= 0.
        purpose: "weights" of the initial network, "order" of an epoch's data, or "step" for all that a step draws.
        index: Of the epoch or step.
    """
    stream = np.random.SeedSequence(seed, spawn_key=(_PURPOSES.index(purpose), index))
    return int(stream.generate_state(1, np.uint64)[0])


def digits(split: str) -> tuple[Tensor, Tensor]:
    """Scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, as installed with it: nothing is downloaded.

    The held-out fifth is fixed by a rule, HELD_OUT_EVERY, not by a draw: it is always the same, for everybody, and is
    never trained on.

    Args:
        split: "train" (1,433 images) or "heldout" (364).

    Returns:
        Images in [-1, 1], float32, shape (N, 1, 8, 8), and labels 0-9, int64, shape (N,).

    Raises:
        ValueError: If the split is neither.

    Source: Alpaydin & Kaynak (1998), Optical Recognition of Handwritten Digits, UCI Machine Learning Repository.
    """
    if split not in ("train", "heldout"):
        raise ValueError(f"digits: split must be 'train' or 'heldout', got {split!r}.")
    from sklearn.datasets import load_digits  # here, as it takes a second that other data need not pay

    pixels, labels = load_digits(return_X_y=True)
    held_out = np.zeros(len(labels), dtype=bool)
    for digit in range(10):
        held_out[np.flatnonzero(labels == digit)[::HELD_OUT_EVERY]] = True
    chosen = held_out if split == "heldout" else ~held_out
    images = torch.from_numpy(pixels[chosen]).float() / 8 - 1  # 0, ..., 16 -> [-1, 1]
    return images.view(-1, 1, 8, 8), torch.from_numpy(labels[chosen]).long()


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
