"""Repeat the comparisons of SiT's paper on data that fits here: python examples/study.py
[--config examples/configs/study.yaml] [--seeds 4] [--jobs 2].

Each network is trained for each seed, and its samples are measured beside the images of the training. The same command
resumes, and skips what is done; more seeds are added to those that are there. ``study.json`` in the folder has all
figures; ``study.md`` sets them beside the paper's. examples/questions.py, run before, adds two sections to it.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import json
import multiprocessing
import os
import shlex
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from examples.study_page import write_page
from models import SiT
from training import Field, InterpolantLoss
from training.checkpoint import latest
from training.config import (
    Config,
    DataConfig,
    ModelConfig,
    ODEConfig,
    SamplingConfig,
    SDEConfig,
    TimeConfig,
    TrainingConfig,
    run_script,
)
from training.data import Digits, Source, digits
from training.environment import commit, now
from training.evaluation import DigitsClassifier
from training.features import FeatureSet, load_extractor
from training.generate import as_sampled, draw
from training.image_sets import SourceImages, planes
from training.images import to_pixels, to_unit_range
from training.metrics import Neighbourhoods
from training.moments import Gaussian, frechet_distance
from training.progress import progress
from training.reference import cached
from training.resampling import estimate
from training.shards import require_equal_settings, write_array, write_json
from training.trainer import Trainer

PATHS: Final = ("vp", "linear", "gvp")
OBJECTIVES: Final[dict[str, dict[str, Any]]] = {
    "noise": {"prediction": "noise"},
    "score": {"prediction": "score"},
    "weighted score": {"prediction": "score", "space": "velocity"},
    "velocity": {"prediction": "velocity"},
    "data": {"prediction": "data"},
}
WS: Final = ("constant", "linear", "decreasing", "sin_squared", "kl_regularized", "kl_optimal")
CALLS: Final = (10, 20, 100)
GUIDANCE: Final = ((1.25, None), (1.5, None), (2.0, None), (3.0, None), (2.0, (0.2, 0.8)), (3.0, (0.2, 0.8)))
TIMES: Final = tuple(round(0.05 * k, 2) for k in range(1, 20))
"""At which the error of a network is measured."""
SHOWN: Final = 10
"""Samples of each network and sampler that are kept."""


@dataclass(frozen=True)
class Study:
    """What to compare, and how precisely.

    Args:
        run: Folder to which all is written.
        page: File in Markdown; null is study.md in the folder. Figures are in images/ beside it.
        seeds: Each network is trained so many times.
        calls: Of the network for each sample, whatever the sampler.
        num_samples: Of each network and sampler, shared by the classes.
        batch_size: Samples at a time.
        extractor: Of the features that are compared; see examples/evaluate.py.
        jobs: Networks that are trained at a time, each by a process of its own.
        device: auto (an accelerator where there is one), or cpu, cuda, ...
        data: What to train on.
        model: The network, as SiT-B in the paper.
        small: The name of one of half its width, as SiT-S.
        training: How to train.
    """

    run: str = "runs/study"
    page: str | None = None
    seeds: int = 4
    calls: int = 100
    num_samples: int = 1000
    batch_size: int = 500
    extractor: str = "digits"
    jobs: int = 2
    device: str = "auto"
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=lambda: ModelConfig("SiT-T/4"))
    small: str = "SiT-N/4"
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        for name, minimum in (("seeds", 2), ("calls", 4), ("num_samples", 10), ("batch_size", 1), ("jobs", 1)):
            if (value := getattr(self, name)) < minimum:
                raise ValueError(f"config: {name} must be at least {minimum}, got {value}.")

    def facts(self) -> dict[str, Any]:
        """All that the figures depend on, plain data."""
        free = ("run", "page", "seeds", "jobs", "device", "batch_size")
        return {name: value for name, value in dataclasses.asdict(self).items() if name not in free}

    def reference(self) -> Source:
        """The images of the training."""
        return Config(model=self.model, data=self.data).data_source(flip=False)


# What is compared


def networks(study: Study) -> dict[str, Config]:
    """Settings of all networks, by name."""
    plain = Config(device=study.device, data=study.data, model=study.model, training=study.training)

    def changed(path: str, **changes: Any) -> Config:
        return dataclasses.replace(plain, path=path, **changes)

    ddpm = {"prediction": "noise", "time": TimeConfig(steps=1000)}
    small = dataclasses.replace(study.model, name=study.small)
    early = dataclasses.replace(study.training, steps=max(1, study.training.steps // 4))
    return {
        "ddpm": changed("vp", **ddpm),
        **{f"{path} {name}": changed(path, **objective) for path in PATHS for name, objective in OBJECTIVES.items()},
        "ddpm, small": changed("vp", **ddpm, model=small),
        "linear velocity, small": changed("linear", model=small),
        "linear velocity, early": changed("linear", training=early),
    }


def samplings(name: str, study: Study) -> dict[str, SamplingConfig]:
    """How a network is sampled from, by name; the sampler is ``ode`` of those named ODE, else ``sde``.

    All are derived methods of one call a step, which meet no pole of the path, the prediction or w.
    """
    plain = SamplingConfig(num_samples=study.num_samples, batch_size=study.batch_size)

    def ode(calls: int = study.calls, **guidance: Any) -> SamplingConfig:
        return dataclasses.replace(plain, ode=ODEConfig("adams_pc2", calls), **guidance)

    def sde(w: str | None = "sigma", method: str = "exponential1", calls: int = study.calls) -> SamplingConfig:
        return dataclasses.replace(plain, sde=SDEConfig(w, calls, method))

    chosen = {"ODE": ode(), "SDE": sde()}
    if name.startswith("ddpm"):
        chosen["ancestral"] = sde(None, "ancestral")
    if name in {f"{path} velocity" for path in PATHS}:
        chosen |= {f"SDE, w = {w}": sde(w) for w in WS}
    if name in ("linear velocity", "linear velocity, early"):
        chosen |= {f"ODE, {calls} calls": ode(calls) for calls in CALLS}
        chosen |= {f"SDE, {calls} calls": sde(calls=calls) for calls in CALLS}
    if name == "linear velocity":
        for scale, interval in GUIDANCE:
            where = "" if interval is None else f" in {interval[0]:g} to {interval[1]:g}"
            chosen[f"ODE, guided {scale:g}{where}"] = ode(guidance_scale=scale, guidance_interval=interval)
    return chosen


# One network of one seed


def measure_one(study: Study, name: str, seed: int) -> None:
    """Train a network and measure what is not measured yet."""
    folder = Path(study.run) / "networks" / f"{name.replace(', ', '-').replace(' ', '-')}-{seed}"
    config = dataclasses.replace(networks(study)[name], run=str(folder), seed=seed)
    trainer = Trainer(config)
    if not trainer.fit():
        raise KeyboardInterrupt
    checkpoint = latest(folder)
    assert checkpoint is not None
    network = checkpoint.field(device=config.torch_device())
    error = result_file(study, name, seed, "error")
    error.parent.mkdir(parents=True, exist_ok=True)
    if not error.exists():
        write_json(error, {"velocity_error": velocity_error(network, config, seed), "seconds": trainer.seconds})
    for sampling, settings in samplings(name, study).items():
        file = result_file(study, name, seed, sampling)
        if not file.exists():
            figures, pixels = measure(study, network, sampling, dataclasses.replace(settings, seed=seed))
            write_array(file.with_suffix(".npy"), pixels[:SHOWN])
            write_json(file, figures)


def measure(
    study: Study, network: Field, sampling: str, settings: SamplingConfig
) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    """Draw samples of a network, and compare them with the images of the training; and the samples, (N, H, W, C)."""
    calls: list[int] = []
    model = cast(SiT, network.model)
    counter = model.register_forward_pre_hook(lambda module, inputs: calls.append(len(inputs[0])))
    started = time.perf_counter()
    sampler = settings.ode if sampling.startswith("ODE") else settings.sde
    samples, labels = draw(as_sampled(network, settings), sampler, settings)
    seconds = time.perf_counter() - started
    counter.remove()
    extractor = load_extractor(study.extractor, model.pos_embed.device)
    pixels = to_pixels(samples)
    images = planes(pixels)
    parts = (images[start : start + 500] for start in range(0, len(images), 500))
    features = torch.cat([extractor(part.to(model.pos_embed.device))["pool"].cpu() for part in parts])
    real = reference(study)
    near = Neighbourhoods(features, real.rows["pool"][: len(features)])
    figures = {
        "frechet": frechet_distance(Gaussian.of(features), real.gaussians["pool"]),
        "precision": estimate(near.precision_and_density()[0], replicates=0).value,
        "recall": estimate(near.recall(), replicates=0).value,
    }
    if study.data.name == "digits":
        figures["agreement"] = DigitsClassifier(*digits("train")).agreement(samples.clamp(-1, 1), labels)
    return {**figures, "calls": sum(calls) / len(samples), "seconds": seconds}, pixels


@functools.cache
def reference(study: Study) -> FeatureSet:
    """The features of the images of the training, made once."""
    images = SourceImages(study.data.source or study.data.name, study.reference())
    return cached(load_extractor(study.extractor), images, Path(study.run) / "reference", keep=50_000)


def velocity_error(network: Field, config: Config, seed: int, count: int = 512) -> list[float]:
    """The squared error of the network's velocity, a dimension, at each of TIMES; of digits that it never saw.

    What no network can know is in it, and is equal for all networks on a path: their difference is what one is worse.
    """
    source = config.data_source(config.data.measured)
    loss = InterpolantLoss(network.path, network.prediction, "velocity", interval=(TIMES[0], TIMES[-1]))
    indices = [index % len(source) for index in range(count)]
    batch = source.batch(indices, [(seed, index) for index in indices])
    device = cast(SiT, network.model).pos_embed.device
    data, y = to_unit_range(batch.data.to(device)), batch.labels.to(device)
    noise = torch.randn(data.shape, generator=torch.Generator().manual_seed(seed)).to(device)

    def at(t: float) -> Tensor:
        return loss.at(network.model, data, noise, torch.full((len(data),), t, device=device), y)

    with torch.inference_mode(), network.evaluation_mode():
        return [at(t).mean().item() for t in TIMES]


# All of them


def result_file(study: Study, name: str, seed: int, what: str) -> Path:
    """Of a network, a seed and a sampling."""
    return Path(study.run) / "results" / name / str(seed) / f"{what}.json"


def measure_all(study: Study) -> None:
    """Train and measure all, several at a time."""
    todo = [
        (name, seed)
        for seed in range(study.seeds)
        for name in networks(study)
        for what in [["error", *samplings(name, study)]]
        if not all(result_file(study, name, seed, each).exists() for each in what)
    ]
    if not todo:
        return
    threads = max(1, (os.cpu_count() or 1) // study.jobs)
    context = multiprocessing.get_context("spawn")
    with (
        concurrent.futures.ProcessPoolExecutor(study.jobs, context, _start_process, (study.run, threads)) as pool,
        progress(total=len(todo), desc=study.run, unit="network") as bar,
    ):
        futures = {pool.submit(measure_one, study, *each): each for each in todo}
        try:
            for future in concurrent.futures.as_completed(futures):
                future.result()
                bar.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _start_process(run: str, threads: int) -> None:
    torch.set_num_threads(threads)
    sys.stderr = (Path(run) / "progress.txt").open("a")  # the bars of several would be written over each other


def collect(study: Study) -> dict[str, Any]:
    """All figures, lists over the seeds, plain data."""
    found: dict[str, Any] = {}
    for name in networks(study):
        rows = {}
        for what in ("error", *samplings(name, study)):
            each = [json.loads(result_file(study, name, seed, what).read_text()) for seed in range(study.seeds)]
            rows[what] = {key: [one[key] for one in each] for key in each[0]}
        found[name] = rows
    real = reference(study)
    return {
        "settings": {**study.facts(), "seeds": study.seeds, "jobs": study.jobs},
        "reference": real.gaussians["pool"].count,
        "times": TIMES,
        "networks": found,
        "floor": floor(study, real),
        "command": shlex.join(["python", *sys.argv]),
        "commit": commit(),
        "date": now(),
        "torch": torch.__version__,
    }


def floor(study: Study, real: FeatureSet) -> float | None:
    """The Frechet distance of digits that were never trained on."""
    if study.data.name != "digits":
        return None
    pixels = planes(to_pixels(Digits("heldout").images))
    return frechet_distance(Gaussian.of(load_extractor(study.extractor)(pixels)["pool"]), real.gaussians["pool"])


def main(study: Study) -> None:
    """Measure what is not measured yet, and write the page."""
    folder, started = Path(study.run), time.perf_counter()
    begin(folder, study)
    reference(study)  # before the processes, which read it
    measure_all(study)
    with (folder / "seconds.txt").open("a") as file:
        file.write(f"{time.perf_counter() - started:.1f}\n")
    spent = sum(map(float, (folder / "seconds.txt").read_text().split()))
    write_json(folder / "study.json", {**collect(study), "seconds": spent})
    page = Path(study.page) if study.page else folder / "study.md"
    write_page(folder, page)
    print(f"all figures: {folder}/study.json; beside the paper's: {page}")


def begin(folder: Path, study: Study) -> None:
    """Write the settings, or compare them with those of what is there.

    Raises:
        ValueError: If what is there was measured with others.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file, settings = folder / "settings.json", json.loads(json.dumps(study.facts()))
    if file.exists():
        require_equal_settings(folder, json.loads(file.read_text()), settings)
    write_json(file, settings)


if __name__ == "__main__":
    run_script(main, Study)
