"""What is measured between two lines of a log: the loss by the time of the path, and what the hardware makes of it."""

from __future__ import annotations

import dataclasses
import itertools
import re
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from models import SiT
from training.processes import Processes

PEAK_FLOPS: Final = (
    # name       dense bfloat16, 1/s: NVIDIA's data sheet of each; where it has that with sparsity alone, half of it
    ("A100",        312e12),
    ("H100 PCIe",   756e12),
    ("H100 NVL",    835e12),
    ("H100",        989e12),
    ("H200 NVL",    835e12),
    ("H200",        989e12),
    ("B200",       2250e12),
    ("L40S",        362e12),
    ("RTX 4090$",   165e12),
)  # fmt: skip
"""Of a device whose name has such a word; the first that fits."""


class LossByTime:
    """The mean loss of the samples whose time lies in each part of [0, 1], since it was read last.

    Sums are kept on the device, which is not waited for until they are read.

    Args:
        device: Of the losses.
        buckets: Parts of equal length.
    """

    def __init__(self, device: torch.device, buckets: int = 8) -> None:
        edges = torch.linspace(0, 1, buckets + 1).tolist()
        self.names = [f"loss_by_time/{low:.3f}-{high:.3f}" for low, high in itertools.pairwise(edges)]
        self._sums = torch.zeros(buckets, 2, dtype=torch.float32, device=device)  # of the losses, and their number

    def add(self, t: Tensor, losses: Tensor) -> None:
        """Samples of a step, or of a part of one: their times in [0, 1] and their losses, each of shape (batch,)."""
        bucket = (t * len(self.names)).long().clamp(0, len(self.names) - 1)  # (batch,); t = 1 is in the last
        losses = losses.detach().float()
        self._sums.index_add_(0, bucket, torch.stack([losses, torch.ones_like(losses)], dim=1))  # (batch, 2)

    def read(self, processes: Processes) -> dict[str, float]:
        """The means over the samples of all processes, which call it together; a part without samples is left out."""
        means = processes.mean(self._sums).tolist()
        self._sums.zero_()
        return {name: loss / count for name, (loss, count) in zip(self.names, means, strict=True) if count > 0}


class Meter:
    """Speed, use of the hardware and memory, since it was read last.

    Args:
        model: The network that is trained.
        batch_size: Samples a step, of all processes together.
        processes: That train it, each with a device of its own.
        step: Steps made before.
    """

    def __init__(self, model: SiT, batch_size: int, processes: Processes, step: int = 0) -> None:
        self.batch_size, self.device = batch_size, processes.device
        peak = peak_flops(device_name(self.device))
        self._busy = None if peak is None else training_flops(model) / (peak * processes.count)
        self._step, self._start = step, time.perf_counter()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is no part of a step, such as a checkpoint: it does not count."""
        start = time.perf_counter()
        yield
        self._start += time.perf_counter() - start

    def read(self, step: int) -> dict[str, float]:
        """After so many steps in all:

        - images_per_second and seconds_per_step;
        - mfu, model FLOPs utilisation: the FLOPs that the mathematics of the steps has, by those that the devices could
          have made in the time in bfloat16, whatever the precision; left out where that is not known. Source:
          Chowdhery et al. (2022), arXiv:2204.02311, appendix B;
        - peak_memory_gib, of this process: what tensors took at most of an accelerator since it was read last; on the
          CPU all that the process took at most since its start.
        """
        now = time.perf_counter()
        seconds = (now - self._start) / (step - self._step)
        self._step, self._start = step, now
        rate = self.batch_size / seconds
        use = {} if self._busy is None else {"mfu": rate * self._busy}
        return {"images_per_second": rate, "seconds_per_step": seconds, **use, "peak_memory_gib": self._peak_memory()}

    def _peak_memory(self) -> float:
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return peak / 2**30


def training_flops(model: SiT) -> int:
    """Of the forward and the backward pass of one sample, which multiplies twice for each product of the forward.

    A multiplication with its addition is two FLOPs. What activation checkpointing computes again is not counted.
    """
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        network = SiT(**dataclasses.asdict(model.config)).eval()
        y = torch.zeros(1, model.config.condition_dim) if model.config.condition_dim else torch.zeros(1).long()
        network(torch.zeros(1, *model.input_shape), torch.zeros(1), None if model.null_class is None else y)
    forward: int = counter.get_total_flops()
    return 3 * forward


def peak_flops(name: str) -> float | None:
    """Of the device of a name, in bfloat16; None where it is not known, or a part of one (MIG)."""
    if " MIG " in name:
        return None
    return next((peak for word, peak in PEAK_FLOPS if re.search(rf"\b{word}\b", name)), None)


def device_name(device: torch.device) -> str:
    """As its driver names it; of one that is no CUDA device, its type."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
