"""An exponential moving average of the weights: what is sampled from."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Tensors: TypeAlias = "tuple[Tensor, ...] | list[Tensor]"


def make_ema(model: nn.Module, decay: float) -> AveragedModel:
    r"""A copy of the network whose weights follow it, after each call of ``update_parameters(model)``, as

    .. math:: \theta_{ema} \leftarrow d_n \theta_{ema} + (1 - d_n) \theta, \qquad
        d_n = \min\left(\mathrm{decay}, \frac{1 + n}{10 + n}\right)

    where n is the number of updates before, ``n_averaged``; the first one copies. The warm-up keeps a short run from
    averaging in its random start. Buffers are copied, not averaged.

    Args:
        model: The network; it is not changed.
        decay: In [0, 1); about 1 / (1 - decay) steps are averaged.

    Raises:
        ValueError: If decay is outside [0, 1).
    """
    if not 0.0 <= decay < 1.0:
        raise ValueError(f"make_ema: decay must be in [0, 1), got {decay!r}. 0.9999 is usual for long runs.")

    @torch.no_grad()
    def update(averaged: Tensors, current: Tensors, n_averaged: Tensor | int) -> None:
        n = int(n_averaged)
        torch._foreach_lerp_(averaged, current, 1.0 - min(decay, (1 + n) / (10 + n)))

    return AveragedModel(model, multi_avg_fn=update).requires_grad_(False)
