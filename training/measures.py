"""The figures that samples are judged by, each with its confidence interval and what to bear in mind beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from training.features import FeatureSet
from training.metrics import Neighbourhoods, cmmd, inception_score, kid
from training.moments import frechet
from training.resampling import PARTS, Estimate, Statistic, at_infinity, estimate, jackknife

SPLITS: Final = 10
NEIGHBOURS: Final = 5


@dataclass(frozen=True)
class Figure:
    """A line of the table.

    Attributes:
        name: As a key.
        label: As people call it.
        estimate: The value and its interval.
        usual: How many samples are usual.
        reference: Of how many images the reference is; None where nobody says, or where there is none.
        notes: What to bear in mind.
    """

    name: str
    label: str
    estimate: Estimate
    usual: int
    reference: int | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Samples beside a reference.

    Attributes:
        samples: Their features, all rows.
        reference: Those of the reference.
        device: Where to compute.
        replicates: Sets that are drawn for an interval; 0 gives none.
        seed: Of what is drawn.
    """

    samples: FeatureSet
    reference: FeatureSet
    device: torch.device
    replicates: int = 200
    seed: int = 0

    def rows(self, output: str) -> Tensor:
        """Of the samples."""
        return self.samples.rows[output].to(self.device)

    def named(self, label: str, of_inception: str) -> str:
        """The name of a figure: the published one for the features of Inception only."""
        return of_inception if self.samples.space == "inception" else label

    def pair(self) -> tuple[Tensor, Tensor]:
        """Features of the samples, and of the reference."""
        return self.rows("pool"), self.reference.rows["pool"].to(self.device)

    def bootstrap(self, statistic: Statistic) -> Estimate:
        """Its estimate."""
        return estimate(statistic, replicates=self.replicates, seed=self.seed)

    def jackknife(self, statistic: Statistic) -> Estimate:
        """Its estimate, where no row may count twice."""
        return jackknife(statistic, seed=self.seed) if self.replicates else estimate(statistic, replicates=0)


def measure(comparison: Comparison, groups: Sequence[str]) -> tuple[list[Figure], dict[str, str]]:
    """Figures, and the groups of them that cannot be had, with the reason.

    Args:
        comparison: Samples beside a reference.
        groups: Of GROUPS.
    """
    figures: list[Figure] = []
    left_out = {}
    for group in groups:
        reason = missing(group, comparison.samples, comparison.reference)
        if reason is None:
            figures += (_noted(figure, comparison.samples.count) for figure in GROUPS[group](comparison))
        else:
            left_out[group] = reason
    return figures, left_out


def _noted(figure: Figure, samples: int) -> Figure:
    if samples >= figure.usual:
        return figure
    return replace(figure, notes=(f"{figure.usual:,} samples are usual", *figure.notes))


def missing(group: str, samples: FeatureSet, reference: FeatureSet) -> str | None:
    """Why a group of figures cannot be had; None where it can."""
    if group == "frechet":
        return None
    if group == "inception":
        return None if "probabilities" in samples.rows else "the extractor gives no probabilities of classes"
    if group == "spatial":
        if "spatial" not in samples.rows:
            return "the extractor gives no spatial features"
        return None if "spatial" in reference.gaussians else "the reference has no spatial features"
    if group == "cmmd" and samples.space != "clip":
        return "it needs CLIP's features, and the extractor does not declare space = 'clip'"
    if "pool" not in reference.rows:
        return "the reference has no images, but moments alone"
    if group == "neighbours" and min(samples.count, len(reference.rows["pool"])) <= NEIGHBOURS:
        return f"it takes more than {NEIGHBOURS} samples, and images of the reference"
    return None


def _frechet(c: Comparison) -> Iterator[Figure]:
    figure, statistic = _distance(c, "pool", "frechet", c.named("Frechet distance", "Frechet distance (FID)"))
    yield figure
    width, part = len(c.reference.gaussians["pool"].mu), c.samples.count // max(PARTS)
    if part < 2:
        return
    rough = (f"rough: its parts, of {part:,}, are no larger than the {width:,} features",) if part <= width else ()
    infinite = at_infinity(statistic, figure.estimate, seed=c.seed)
    label = "... of infinitely many samples"
    yield replace(figure, name="frechet_infinity", label=label, estimate=infinite, notes=(*figure.notes, *rough))


def _spatial(c: Comparison) -> Iterator[Figure]:
    label = c.named("spatial Frechet distance", "spatial Frechet distance (sFID)")
    yield _distance(c, "spatial", "spatial", label)[0]


def _distance(c: Comparison, output: str, name: str, label: str) -> tuple[Figure, Statistic]:
    reference = c.reference.gaussians[output]
    statistic, width = frechet(c.rows(output), reference.to(c.device)), len(reference.mu)
    notes = [
        f"{what} no more than the {width:,} features: their covariance is singular"
        for what, count in (("samples are", c.samples.count), ("images of the reference are", reference.count))
        if count is not None and count <= width
    ]
    if c.reference.extractor is None:
        notes.append("the reference does not say its extractor")
    return Figure(name, label, c.bootstrap(statistic), 50_000, reference.count, tuple(notes)), statistic


def _inception(c: Comparison) -> Iterator[Figure]:
    probabilities = c.rows("probabilities")
    for name, splits, more in (("inception_score", SPLITS, f"{SPLITS} parts"), ("inception_score_whole", 1, "in one")):
        if splits <= len(probabilities):
            found = c.bootstrap(inception_score(probabilities, splits=splits))
            yield Figure(name, f"{c.named('classifier', 'inception')} score, {more}", found, 50_000, None)


def _kid(c: Comparison) -> Iterator[Figure]:
    samples, reference = c.pair()
    label = c.named("kernel distance", "kernel distance (KID)")
    yield Figure("kid", label, c.bootstrap(kid(samples, reference)), 50_000, len(reference))


def _cmmd(c: Comparison) -> Iterator[Figure]:
    samples, reference = c.pair()
    yield Figure("cmmd", "CMMD", c.bootstrap(cmmd(samples, reference)), 30_000, len(reference))


def _neighbours(c: Comparison) -> Iterator[Figure]:
    samples, reference = c.pair()
    found = Neighbourhoods(samples, reference, wide=NEIGHBOURS)
    precision, density = found.precision_and_density()
    yield Figure("precision", "precision", c.bootstrap(precision), 50_000, len(reference))
    yield Figure("recall", "recall", c.jackknife(found.recall()), 50_000, len(reference))
    yield Figure("density", "density", c.bootstrap(density), 10_000, len(reference))
    yield Figure("coverage", "coverage", c.jackknife(found.coverage()), 10_000, len(reference))


GROUPS: Final[dict[str, Callable[[Comparison], Iterator[Figure]]]] = {
    "frechet": _frechet,
    "spatial": _spatial,
    "inception": _inception,
    "kid": _kid,
    "cmmd": _cmmd,
    "neighbours": _neighbours,
}
"""Figures that are computed together, by the name of the group."""
