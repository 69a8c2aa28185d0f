"""Measure the samples of a run: python examples/evaluate_digits.py --config examples/configs/digits.yaml."""

import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.checkpoint import Checkpoint, CheckpointError, find
from training.config import Config, ODEConfig, SDEConfig, run_script
from training.data import digits
from training.environment import commit
from training.evaluation import DigitsClassifier, class_gaussians, nearest_distances
from training.files import write_text
from training.generate import as_sampled, draw
from training.moments import Gaussian, frechet_distance

Row = dict[str, Any]
SAMPLERS = (
    ODEConfig("euler", 50),
    ODEConfig("heun2", 25),
    ODEConfig("dopri5"),
    SDEConfig("sigma", 100),
    SDEConfig("sin_squared", 100),
)


def main(config: Config) -> None:
    """Write metrics.json into the folder of the run, and print a summary."""
    run, seed = Path(config.run), config.sampling.seed
    checkpoint = find(run)
    checkpoint.require_settings(dataclasses.asdict(config), only=("path", "prediction", "model."))
    files = {kind: read_samples(run / f"samples_{kind}.npz", checkpoint) for kind in ("ode", "sde")}
    (train, train_labels), (heldout, heldout_labels) = digits("train"), digits("heldout")
    classifier = DigitsClassifier(train, train_labels)

    def agreement(images: Tensor, labels: Tensor) -> Row:
        return {"agreement": classifier.agreement(images, labels)}

    real = Gaussian.of(heldout), Gaussian.of(classifier.features(heldout))

    def frechet(images: Tensor) -> Row:
        return {
            "frechet_pixels": frechet_distance(Gaussian.of(images), real[0]),
            "frechet_features": frechet_distance(Gaussian.of(classifier.features(images)), real[1]),
        }

    def nearest(images: Tensor) -> Row:
        distances = nearest_distances(images, train)
        return {"nearest_median": float(distances.median()), "nearest_5_percent": float(distances.quantile(0.05))}

    def generated(images: Tensor, labels: Tensor) -> Row:
        return {"count": len(images), **agreement(images, labels), **frechet(images), **nearest(images)}

    rows = {kind: {**generated(images, labels), "drawn": about} for kind, (images, labels, about) in files.items()}
    labels = files["ode"][1]
    baseline = class_gaussians(train, train_labels, labels, seed=seed)
    rows["one Gaussian a class"] = generated(baseline.clamp(-1, 1), labels)
    # Not images, but the two moments that a Frechet distance sees are right by construction.
    rows["the same, not clipped"] = {"count": len(baseline), **agreement(baseline, labels), **frechet(baseline)}
    subset = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[: len(labels)]]
    rows["real, training"] = {"count": len(subset), **frechet(subset)}
    rows["real, held out"] = {"count": len(heldout), **agreement(heldout, heldout_labels), **nearest(heldout)}

    settings = dataclasses.replace(config.sampling, num_samples=min(500, len(labels)))
    field = as_sampled(checkpoint.field(device=config.torch_device()), settings)
    many = {str(sampler): agreement(*draw(field, sampler, settings)) for sampler in SAMPLERS}
    flags = shlex.join(sys.argv[1:])
    metrics = {
        "sets": rows,
        "one_checkpoint_many_samplers": {"count": settings.num_samples, **many},
        "training": {
            "steps": checkpoint.step,
            "seconds": round(checkpoint.meta["state"]["seconds"], 3),
            "parameters": sum(tensor.numel() for tensor in checkpoint.tensors("model").values()),
            "config": checkpoint.meta["config"],
        },
        "commands": [f"python examples/{each}.py {flags}" for each in ("train", "sample", "evaluate_digits")],
        "versions": {"torch": torch.__version__, "commit": commit()},
    }
    write_text(run / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    print(summary(metrics))
    print(f"all of it: {run}/metrics.json; look at {run}/samples_ode.png, samples_sde.png and trajectory.png")


def read_samples(file: Path, checkpoint: Checkpoint) -> tuple[Tensor, Tensor, Row]:
    """Samples as images, limited to the range [-1, 1] of pixels; their labels; how they were drawn.

    Raises:
        CheckpointError: If there are none, or they are from another checkpoint.
    """
    again = "Run examples/sample.py first."
    try:
        with np.load(file, allow_pickle=False) as content:
            images, labels = torch.from_numpy(content["samples"]), torch.from_numpy(content["labels"])
            about = json.loads(str(content["about"]))
    except FileNotFoundError:
        raise CheckpointError(f"{file}: there are no samples. {again}") from None
    if about.pop("checkpoint") != checkpoint.digest:
        raise CheckpointError(f"{file}: the samples are not from the newest checkpoint, {checkpoint.folder}. {again}")
    return images.clamp(-1, 1), labels, about


def summary(metrics: Row) -> str:
    """The metrics as a table, a line each set of images, and a line each sampler."""
    columns = ("count", "agreement", "frechet_pixels", "frechet_features", "nearest_median", "nearest_5_percent")
    names = ("images", "agreement", "Frechet, pixels", "Frechet, features", "nearest, median", "nearest, 5%")
    lines = ["", f"{'':24}" + "".join(f"{name:>19}" for name in names)]
    for name, row in metrics["sets"].items():
        cells = (row.get(column, "-") for column in columns)
        cells = (f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in cells)
        lines.append(f"{name:24}" + "".join(f"{cell:>19}" for cell in cells))
    training, many = metrics["training"], dict(metrics["one_checkpoint_many_samplers"])
    lines += ["", f"The same network, {many.pop('count')} samples by each sampler: agreement"]
    lines += [f"{name:32}{row['agreement']:.3f}" for name, row in many.items()]
    lines += ["", f"{training['parameters']:,} parameters, {training['steps']} steps in {training['seconds']:.0f} s"]
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(main)
