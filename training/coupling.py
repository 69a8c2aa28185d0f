"""Which noise goes with which data: independent, or near in a batch, which straightens the paths of the samples.

Pairing by optimal transport in a batch leaves the law of the data, and of the noise up to the size of the batch, as it
is. It may only exchange noise among samples with the same condition: else the noise tells of the class, which it does
not when sampling.

Sources: Tong et al. (2023), arXiv:2302.00482; Pooladian et al. (2023), arXiv:2304.14772; on conditions, Cheng & Schwing
(2025), arXiv:2503.10636.
"""

from __future__ import annotations

from typing import Final

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

CHOICES: Final = ("independent", "ot")


def optimal_transport(data: Tensor, noise: Tensor, labels: Tensor | None = None) -> Tensor:
    r"""The permutation of the noise that makes :math:`\sum_i \| x_i - z_{\pi(i)} \|^2` least, within each class.

    Args:
        data, noise: Shape (batch, ...).
        labels: Shape (batch,); None is one class for all.

    Returns:
        pi, int64 on the CPU, shape (batch,): ``noise[pi]`` goes with ``data``.
    """
    x, z = data.flatten(1).double().cpu(), noise.flatten(1).double().cpu()
    classes = torch.zeros(len(x), dtype=torch.long) if labels is None else labels.cpu()
    permutation = torch.arange(len(x))
    for label in set(classes.tolist()):
        rows = (classes == label).nonzero().flatten()
        cost = -(x[rows] @ z[rows].T)  # |x - z|^2 / 2 but for terms that the sum over a permutation does not depend on
        permutation[rows] = rows[linear_sum_assignment(cost.numpy())[1]]
    return permutation
