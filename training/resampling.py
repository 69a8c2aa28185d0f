"""How far a figure may be off: confidence intervals by resampling, and its value at infinitely many samples.

A statistic is a function of how often each row counts. All ones is the figure itself; counts as drawn with replacement
are one of the samples that might have been had (Efron 1979); zeros leave a part out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor

LEVEL: Final = 0.95
PARTS: Final = (1, 2, 4)
JACKKNIFE_GROUPS: Final = 20


@dataclass(frozen=True)
class Statistic:
    """A figure of a set of rows.

    Attributes:
        rows: Their number.
        values: From counts, float64, shape (B, rows), to the figure of each, shape (B, parts): its parts are, for
            instance, those of the ten splits of an inception score, and their mean is the figure.
        device: Of the counts and the values.
    """

    rows: int
    values: Callable[[Tensor], Tensor]
    device: torch.device


@dataclass(frozen=True)
class Estimate:
    """A figure, and where it would be with other samples of the same number.

    Attributes:
        value: The mean over its parts.
        low, high: Ends of the confidence interval of its mean over all sets of so many samples; None where there is no
            interval.
        std: Standard deviation of its parts; None where there is but one.
    """

    value: float
    low: float | None = None
    high: float | None = None
    std: float | None = None


def mean(values: Tensor) -> Statistic:
    """The mean of a number of each row, shape (rows,)."""
    values = values.double()
    return Statistic(len(values), lambda counts: (counts @ values / counts.sum(1))[:, None], values.device)


def estimate(statistic: Statistic, *, replicates: int = 200, seed: int = 0) -> Estimate:
    r"""A statistic with its confidence interval, by the bootstrap.

    With theta* the statistic of rows drawn with replacement, as many as there are, and q the quantiles of theta*:

    .. math:: [\theta + q_{0.025} - \mathrm{mean} \, \theta^*, \; \theta + q_{0.975} - \mathrm{mean} \, \theta^*]

    A distance of finitely many samples is too large on average, and theta* is so once more: what the two share is taken
    out. So the interval is of the mean of the statistic over all sets of so many samples, and what else the statistic
    depends on, such as the reference, is as given.

    Args:
        statistic: Of the samples.
        replicates: Sets that are drawn; 0 gives no interval.
        seed: Of the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = statistic.rows
    counts = torch.ones(1 + replicates, rows, dtype=torch.float64)
    for of_one in counts[1:]:
        drawn = torch.randint(rows, (rows,), generator=generator)
        of_one.copy_(torch.bincount(drawn, minlength=rows))
    values = statistic.values(counts.to(statistic.device)).cpu().double()  # (1 + replicates, parts)
    value, std = values[0].mean().item(), values[0].std(correction=0).item() if values.shape[1] > 1 else None
    if not replicates:
        return Estimate(value, std=std)
    drawn = values[1:].mean(1)
    tail = (1 - LEVEL) / 2
    low, high = torch.quantile(drawn, torch.tensor([tail, 1 - tail], dtype=torch.float64)) - drawn.mean()
    return Estimate(value, value + low.item(), value + high.item(), std)


def jackknife(statistic: Statistic, *, groups: int = JACKKNIFE_GROUPS, seed: int = 0) -> Estimate:
    r"""A statistic with its confidence interval, by leaving out a group at a time.

    .. math:: \theta \pm t \, \Big[ \frac{G - 1}{G} \sum_g (\theta_g - \bar\theta)^2 \Big]^{1/2}

    with theta_g that of all groups but g, and t the quantile of Student's distribution with G - 1 degrees of freedom.
    For what cannot bear a row that counts twice, such as distances of neighbours. Source: Tukey (1958). Where pairs of
    rows matter it is too wide, never too narrow on average: Efron & Stein (1981).

    Args:
        statistic: Of the samples.
        groups: Of nearly equal size, at least 2.
        seed: Of who is in which group.
    """
    groups = min(groups, statistic.rows)
    place = torch.randperm(statistic.rows, generator=torch.Generator().manual_seed(seed))
    counts = torch.ones(1 + groups, statistic.rows, dtype=torch.float64)
    counts[1 + place * groups // statistic.rows, torch.arange(statistic.rows)] = 0
    values = statistic.values(counts.to(statistic.device)).mean(1).cpu()
    value, without = values[0].item(), values[1:]
    error = ((groups - 1) * without.var(correction=0).item()) ** 0.5
    half = float(stdtrit(groups - 1, (1 + LEVEL) / 2)) * error
    return Estimate(value, value - half, value + half)


def at_infinity(statistic: Statistic, found: Estimate, *, parts: Sequence[int] = PARTS, seed: int = 0) -> Estimate:
    """The statistic at infinitely many samples, where its bias falls as 1 / N: the end of a line through those of N,
    N / 2 and N / 4 samples over 1 / N.

    Chong & Forsyth (2020), arXiv:1911.07023, draw 15 random subsets. Here the statistic is the mean over all halves,
    and over all quarters: the chance of who is drawn cancels out, and the end of the line varies less.

    Args:
        statistic: Of the samples, at least as many as the largest of ``parts``.
        found: Its estimate. The interval is as wide, as the chance of the samples is the same.
        parts: Numbers of equal parts.
        seed: Of who is in which part.
    """
    generator = torch.Generator().manual_seed(seed)
    place = torch.randperm(statistic.rows, generator=generator)
    values = []
    for number in parts:
        counts = torch.nn.functional.one_hot(place * number // statistic.rows, number).T.double()
        values.append(statistic.values(counts.to(statistic.device)).mean().item())
    value = float(np.polynomial.Polynomial.fit(parts, values, 1)(0))  # 1 / size is parts / N
    if found.low is None or found.high is None:
        return Estimate(value)
    return Estimate(value, value + found.low - found.value, value + found.high - found.value)
