"""Measure samples beside real images: Frechet distances, inception score, KID, CMMD, precision, recall, ...

Samples and reference are an .npz with images as arr_0, uint8, (N, H, W, 3); a folder of images, or of the shards that
generate.py writes; or the settings of a run, for the images of its data. A reference may also be an .npz
of statistics, mu and sigma, as those of ADM are. The extractor is NVIDIA's file or another in TorchScript, or
module:function, or digits.

Commands::

    python examples/evaluate.py --samples samples --reference runs/digits/config.yaml --extractor digits
    python examples/evaluate.py --samples samples/samples.npz --reference images/ --extractor inception-2015-12-05.pt
"""

import dataclasses
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training.config import Config, run_script
from training.data import PARTS
from training.environment import commit, now
from training.features import Extractor, FeatureSet, extract, load_extractor, widths
from training.image_sets import ARRAY, ImageSet, keys, open_images
from training.measures import GROUPS, Comparison, Figure, measure
from training.reference import cached, load
from training.resampling import LEVEL
from training.settings import one_of, require_choices, such_as
from training.shards import write_json


@dataclass(frozen=True)
class Measurement:
    """What to measure, and by what.

    Args:
        samples: File or folder of samples; or the settings of a run, to measure the real images of its data instead.
        reference: File or folder of real images; file of their statistics; or the settings of a run.
        samples_part: Part of the data if samples are the settings of a run: train or heldout.
        reference_part: Part of the data if the reference is the settings of a run: train or heldout.
        extractor: A TorchScript file or module:function, whose code runs, so that it is typed and never taken from a
            file; or digits.
        output: JSON file to write; null is named after the samples, e.g. samples-metrics.json.
        figures: Groups of figures: frechet, spatial, inception, kid, cmmd, neighbours.
        replicates: Number of resampled sets for the confidence intervals; 0 gives none. A Frechet distance of 2,048
            features takes seconds per set on a CPU.
        seed: Seed of the resampling.
        keep: Number of reference images, spread over all, whose features are kept; Frechet distances use all images.
        cache: Folder in which features of references are kept.
        batch_size: Images at a time.
        workers: Processes that read ahead.
        device: auto (an accelerator where there is one), or cpu, cuda, ...
    """

    samples: str
    reference: str
    extractor: str = such_as(("digits",), runs_code=True)
    samples_part: str = one_of(PARTS, "train")
    reference_part: str = one_of(PARTS, "train")
    output: str | None = None
    figures: tuple[str, ...] = such_as(GROUPS, tuple(GROUPS))
    replicates: int = 200
    seed: int = 0
    keep: int = 50_000
    cache: str = "runs/references"
    batch_size: int = 64
    workers: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        require_choices(self)
        for name in self.figures:
            if name not in GROUPS:
                raise ValueError(f"config: figures must be of {', '.join(GROUPS)}, got {name!r}.")
        if self.replicates and self.replicates < 20:
            raise ValueError(f"config: replicates must be 0, or at least 20, got {self.replicates}.")
        for name, minimum in (("replicates", 0), ("seed", 0), ("keep", 2), ("batch_size", 1), ("workers", 0)):
            if (value := getattr(self, name)) < minimum:
                raise ValueError(f"config: {name} must be at least {minimum}, got {value}.")

    def file(self) -> Path:
        """That is written."""
        return Path(self.output or f"{self.samples.rstrip('/').removesuffix('.npz')}-metrics.json")


def main(config: Measurement) -> None:
    """Print a table and write all of it to a file; what can be wrong is looked at before the long work."""
    sys.path.append(str(Path.cwd()))  # where the module of an extractor may be
    device = Config(device=config.device).torch_device()
    images = open_images(config.samples, config.samples_part)
    real, given = open_reference(Path(config.reference), config.reference_part)
    extractor = load_extractor(config.extractor, device)
    require_match(images, real, given, extractor, device)
    options: dict[str, Any] = {"device": device, "batch_size": config.batch_size, "workers": config.workers}
    reference = given
    if real is not None:
        made = cached(extractor, real, Path(config.cache), keep=config.keep, **options)
        reference = made if given is None else with_moments(made, given)
    assert reference is not None
    samples = extract(extractor, images, **options)
    comparison = Comparison(samples, reference, device, config.replicates, config.seed)
    figures, left_out = measure(comparison, config.figures)
    facts = about(samples, reference)
    write_json(
        config.file(),
        {
            **facts,
            "figures": {figure.name: as_row(figure, samples.count) for figure in figures},
            "left_out": left_out,
            "level": LEVEL,
            "settings": dataclasses.asdict(config),
            "command": f"{sys.argv[0]} {shlex.join(sys.argv[1:])}",
            "date": now(),
            "versions": {"torch": torch.__version__, "commit": commit()},
        },
    )
    print(table(figures, left_out, facts))
    print(f"all of it: {config.file()}")


def open_reference(path: Path, part: str) -> tuple[ImageSet | None, FeatureSet | None]:
    """Images and statistics, of which there is one or both."""
    held = keys(path) if path.suffix == ".npz" else []
    given = load(path) if "mu" in held else None
    return (None if given and ARRAY not in held else open_images(path, part)), given


def require_match(
    images: ImageSet, real: ImageSet | None, given: FeatureSet | None, extractor: Extractor, device: torch.device
) -> None:
    """Look at the first images and their features.

    Raises:
        ValueError: If samples and reference cannot be compared.
    """
    found = widths(extractor, images, device)
    if real is not None:
        widths(extractor, real, device)
        size, other = (tuple(each[range(1)].shape[2:]) for each in (images, real))
        if size != other:
            raise ValueError(
                f"{images.name}: images must be as large as those of {real.name}, {other}, got {size}. "
                "Give the run as the reference: its data are cropped and scaled as for the training."
            )
    if given is None:
        return
    if given.extractor_sha256 not in (None, extractor.sha256):
        raise ValueError(
            f"{given.source}: the reference must be by the extractor {extractor.name}, SHA-256 {extractor.sha256}, got "
            f"{given.extractor}, {given.extractor_sha256}."
        )
    for name, gaussian in given.gaussians.items():
        if name in found and len(gaussian.mu) != found[name]:
            raise ValueError(
                f"{given.source}: the reference must have {found[name]} {name} features, as the extractor "
                f"{extractor.name} gives, got {len(gaussian.mu)}. It is by another extractor."
            )


def with_moments(made: FeatureSet, given: FeatureSet) -> FeatureSet:
    """Features of the images in a file, and the moments that it has of more."""
    gaussians = {**made.gaussians, **given.gaussians}
    return dataclasses.replace(made, gaussians=gaussians, extractor=given.extractor)


def about(samples: FeatureSet, reference: FeatureSet) -> dict[str, Any]:
    """Where features are from."""
    facts: dict[str, Any] = {
        name: {
            "source": features.source,
            "sha256": features.source_sha256,
            "count": features.gaussians["pool"].count,
            "unreadable": features.unreadable,
        }
        for name, features in (("samples", samples), ("reference", reference))
    }
    facts["extractor"] = {"name": samples.extractor, "sha256": samples.extractor_sha256, "space": samples.space}
    return facts


def as_row(figure: Figure, samples: int) -> dict[str, Any]:
    """Plain data."""
    row = dataclasses.asdict(figure)
    return {**row.pop("estimate"), "samples": samples, **{name: row[name] for name in row if name != "name"}}


def table(figures: list[Figure], left_out: dict[str, str], facts: dict[str, Any]) -> str:
    """A line each figure, and what was measured."""
    sizes = {"value": 11, f"{LEVEL:.0%} interval": 23, "std of parts": 14, "samples": 10, "reference": 11}
    lines = [f"{'':32}" + "".join(f"{head:>{size}}" for head, size in sizes.items())]
    for figure in figures:
        found = figure.estimate
        interval = "-" if found.low is None else f"{found.low:.4g} to {found.high:.4g}"
        std = "-" if found.std is None else f"{found.std:.3g}"
        of_reference = "-" if figure.reference is None else f"{figure.reference:,}"
        cells = (f"{found.value:.5g}", interval, std, f"{facts['samples']['count']:,}", of_reference)
        line = f"{figure.label:32}" + "".join(
            f"{cell:>{size}}" for cell, size in zip(cells, sizes.values(), strict=True)
        )
        lines.append(f"{line}  {'; '.join(figure.notes)}".rstrip())
    lines += [f"left out: {name}, as {reason}" for name, reason in left_out.items()]
    for name in ("samples", "reference"):
        of = facts[name]
        damaged = f", {len(of['unreadable']):,} more cannot be read" if of["unreadable"] else ""
        count = "" if of["count"] is None else f", {of['count']:,} images"
        lines.append(f"{name}: {of['source']}{count}{damaged}, SHA-256 {of['sha256'][:16]}")
    of, space = facts["extractor"], facts["extractor"]["space"]
    lines.append(f"extractor: {of['name']}{f', {space}' if space else ''}, SHA-256 {of['sha256'][:16]}")
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(main, Measurement)
