"""Figures of samples beside real images, by their features: inception score, kernel distances, precision and recall.

Each is a Statistic of the samples, of which ``training.resampling`` gives the value and the confidence interval. All is
in float64, a part of the rows at a time: memory is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import torch
from torch import Tensor

from training.progress import side_progress
from training.resampling import Statistic, mean

Kernel = Callable[[Tensor, Tensor], Tensor]

BUDGET: Final = 1 << 24
"""Numbers of a matrix of rows by rows that is held at a time: 128 MB."""

SPARE: Final = 16
"""Neighbours that are known beyond the k-th, as some may be left out."""


def inception_score(probabilities: Tensor, *, splits: int = 1) -> Statistic:
    r"""How sure a classifier is of each sample, and how many classes it sees, e to the power of the mean of

    .. math:: \mathrm{KL}(p(y | x) \,\|\, p(y)) = H(p(y)) - H(p(y | x))

    Args:
        probabilities: Of the classes, shape (N, classes); of logits it is ``logits.softmax(1)``.
        splits: Parts, in order, of which it is the mean; the usual 10 are of 5,000 samples each. A set in the order of
            its classes has other parts than one that is mixed.

    Raises:
        ValueError: If they are no probabilities, or there are fewer samples than splits.

    Source: Salimans et al. (2016), arXiv:1606.03498.
    """
    require_probabilities("inception_score", probabilities)
    p = probabilities.detach().double()
    if not 1 <= splits <= len(p):
        raise ValueError(f"inception_score: splits must be 1 to {len(p)}, the number of samples, got {splits}.")
    entropies = torch.special.entr(p).sum(1)

    def values(counts: Tensor) -> Tensor:
        scores = []
        for rows in _blocks(len(p), splits):
            shares = counts[:, rows] / counts[:, rows].sum(1, keepdim=True)
            of_all = torch.special.entr(shares @ p[rows]).sum(1)
            scores.append((of_all - shares @ entropies[rows]).exp())
        return torch.stack(scores, 1)

    return Statistic(len(p), values, p.device)


def require_probabilities(where: str, p: Tensor) -> None:
    """Raise ValueError unless p, shape (N, classes), holds probabilities (rows sum to 1 within 0.001)."""
    if p.ndim != 2 or not bool((p >= 0).all()) or not bool(((p.double().sum(1) - 1).abs() < 1e-3).all()):
        raise ValueError(
            f"{where}: probabilities must be >= 0 with rows that sum to 1, shape (N, classes), got others of shape "
            f"{tuple(p.shape)}. If they are logits, pass logits.softmax(1)."
        )


# Kernel distances


def kid(samples: Tensor, reference: Tensor, *, block_size: int = 1000) -> Statistic:
    r"""Kernel inception distance: the squared maximum mean discrepancy, unbiased, with k(x, y) = (x.y / d + 1)^3.

    It is the mean over blocks of samples, each with a block of the reference, whose blocks come again where they are
    fewer. Each row is in one block.

    Args:
        samples, reference: Features, shapes (N, d) and (M, d).
        block_size: Rows of a block, at least, where there are so many; 1,000 are usual.

    Raises:
        ValueError: If the widths differ, or one has fewer than 2 rows.

    Source: Binkowski et al. (2018), arXiv:1801.01401.
    """
    x, y = _pair("kid", samples, reference, least=2)

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / a.shape[1] + 1) ** 3

    # Mixed, as a folder may be in the order of its classes.
    orders = [torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)) for rows in (x, y)]
    blocks, others = (
        [order[rows] for rows in _blocks(len(order), max(1, len(order) // block_size))] for order in orders
    )

    def values(counts: Tensor) -> Tensor:
        distances = []
        for number, rows in enumerate(blocks):
            other = others[number % len(others)]
            distances.append(_mmd(x[rows], y[other], kernel, counts[:, rows], unbiased=True))
        return torch.stack(distances, 1)

    return Statistic(len(x), values, x.device)


def cmmd(samples: Tensor, reference: Tensor, *, sigma: float = 10.0, scale: float = 1000.0) -> Statistic:
    r"""Squared maximum mean discrepancy with a Gaussian kernel of features of length 1, times ``scale``:

    .. math:: k(x, y) = \exp(-\|x - y\|^2 / 2 \sigma^2)

    It is CMMD where the features are those of CLIP (ViT-L/14, 336 pixels). As there, pairs of a row with itself are
    counted in, which adds at most 2 scale (1/N + 1/M) / sigma^2.

    Args:
        samples, reference: Features, shapes (N, d) and (M, d).
        sigma: Of the kernel.
        scale: Of the distance.

    Raises:
        ValueError: If the widths differ, or one is empty.

    Source: Jayasumana et al. (2024), arXiv:2401.09603.
    """
    x, y = (torch.nn.functional.normalize(rows) for rows in _pair("cmmd", samples, reference, least=1))

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (_squared_distances(a, b) / (-2 * sigma**2)).exp()

    def values(counts: Tensor) -> Tensor:
        return scale * _mmd(x, y, kernel, counts, unbiased=False)[:, None]

    return Statistic(len(x), values, x.device)


def _mmd(x: Tensor, y: Tensor, kernel: Kernel, counts: Tensor, *, unbiased: bool) -> Tensor:
    """Squared maximum mean discrepancy for each of the counts of x, shape (B,)."""
    within_x, across, diagonal = torch.zeros_like(counts[:, 0]), torch.zeros_like(counts[:, 0]), x.new_zeros(len(x))
    for rows in _chunks(len(x), len(x) + len(y), "kernel of the samples"):
        k = kernel(x[rows], x)
        diagonal[rows] = k.diagonal(rows.start)
        within_x += ((counts[:, rows] @ k) * counts).sum(1)
        across += counts[:, rows] @ kernel(x[rows], y).mean(1)
    total, pairs_x = counts.sum(1), counts.sum(1) ** 2
    within_y, pairs_y = x.new_zeros(()), len(y) ** 2
    for rows in _chunks(len(y), len(y), "kernel of the reference"):
        k = kernel(y[rows], y)
        within_y += k.sum() - (k.diagonal(rows.start).sum() if unbiased else 0)
    if unbiased:  # without the pairs of a row with itself, however often it was drawn
        within_x = within_x - counts.square() @ diagonal
        pairs_x, pairs_y = pairs_x - counts.square().sum(1), pairs_y - len(y)
    return within_x / pairs_x + within_y / pairs_y - 2 * across / total


# Nearest neighbours


class Neighbourhoods:
    """Where samples and real images lie in each other's neighbourhoods: balls about each, as far as its k-th neighbour.

    Precision and density are means over the samples: the bootstrap applies. Recall and coverage are of the samples
    together, among which one that is drawn twice would be its own neighbour: the jackknife applies, which leaves out.

    Args:
        samples, reference: Features, shapes (N, d) and (M, d).
        k: Of precision and recall; 3 is usual.
        wide: The k of density and coverage; 5 is usual.

    Raises:
        ValueError: If the widths differ, or one has no more rows than neighbours.

    Source: Kynkaanniemi et al. (2019), arXiv:1904.06991; Naeem et al. (2020), arXiv:2002.09797.
    """

    def __init__(self, samples: Tensor, reference: Tensor, *, k: int = 3, wide: int = 5) -> None:
        x, y = _pair("Neighbourhoods", samples, reference, least=1 + max(k, wide))
        self.k, self.wide = k, wide
        self.x, self.y = x - y.mean(0), y - y.mean(0)  # so that squared distances lose less to rounding
        near, _ = _nearest(self.y, 1 + max(k, wide))
        self._radii, self._wide_radii = near[:, k], near[:, wide]  # each is its own nearest

    def precision_and_density(self) -> tuple[Statistic, Statistic]:
        """The share of samples in a neighbourhood of a real image; and in how many of them a sample is, over k."""
        precision, density = self.x.new_empty(2, len(self.x))
        for rows, distances in self._distances():
            precision[rows] = (distances <= self._radii).any(1).double()
            density[rows] = (distances <= self._wide_radii).double().sum(1) / self.wide
        return mean(precision), mean(density)

    def recall(self) -> Statistic:
        """The share of real images in a neighbourhood of a sample, for counts of 0 and 1."""
        near, who = _nearest(self.x, min(len(self.x), 1 + self.k + SPARE))

        def radius(there: Tensor) -> Tensor:
            """Squared, to the k-th neighbour of those that are there; less than any distance for one that is not."""
            place = (there[who].cumsum(1) <= self.k).sum(1, keepdim=True).clamp(max=near.shape[1] - 1)
            return torch.where(there, near.gather(1, place)[:, 0], -1.0)

        def values(counts: Tensor) -> Tensor:
            radii = torch.stack([radius(each > 0) for each in counts])
            recalled = torch.zeros(len(counts), len(self.y), dtype=torch.bool, device=counts.device)
            for rows, distances in self._distances():
                for found, of_rows in zip(recalled, radii[:, rows], strict=True):
                    found |= (distances <= of_rows[:, None]).any(0)
            return recalled.double().mean(1, keepdim=True)

        return Statistic(len(self.x), values, self.x.device)

    def coverage(self) -> Statistic:
        """The share of real images with a sample in their neighbourhood."""

        def values(counts: Tensor) -> Tensor:
            inside = counts.new_zeros(len(counts), len(self.y))
            for rows, distances in self._distances():
                inside += counts[:, rows] @ (distances <= self._wide_radii).double()
            return (inside > 0).double().mean(1, keepdim=True)

        return Statistic(len(self.x), values, self.x.device)

    def _distances(self) -> Iterator[tuple[slice, Tensor]]:
        """Squared, of some samples at a time from all real images."""
        for rows in _chunks(len(self.x), len(self.y), "neighbourhoods"):
            yield rows, _squared_distances(self.x[rows], self.y)


def _nearest(rows: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Of each row the squared distances to its nearest ones, itself among them, ascending, and which they are."""
    chunks = _chunks(len(rows), len(rows), "nearest neighbours")
    parts = [_squared_distances(rows[part], rows).topk(number, largest=False) for part in chunks]
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    return (a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T).clamp_(min=0)


def _pair(where: str, samples: Tensor, reference: Tensor, least: int) -> tuple[Tensor, Tensor]:
    for name, rows in (("samples", samples), ("reference", reference)):
        if rows.ndim != 2 or len(rows) < least:
            raise ValueError(f"{where}: {name} must have shape (N, d), N at least {least}, got {tuple(rows.shape)}.")
    if samples.shape[1] != reference.shape[1]:
        raise ValueError(f"{where}: widths must be equal, got {samples.shape[1]} and {reference.shape[1]}.")
    return samples.detach().double(), reference.detach().to(samples.device).double()


def _blocks(rows: int, number: int) -> list[slice]:
    """So many, of nearly equal size."""
    return [slice(i * rows // number, (i + 1) * rows // number) for i in range(number)]


def _chunks(rows: int, columns: int, what: str) -> Iterator[slice]:
    """Slices of as many rows as the memory budget has room for; a progress bar shows ``what`` they compute."""
    size = max(1, BUDGET // columns)
    chunks = [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
    yield from side_progress(chunks, desc=what, unit="block")
