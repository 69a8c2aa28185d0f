"""What training takes beside the network: ``python benchmarks/training.py step``, loader, checkpoint or ranks.

step: a step of the Trainer with all that its loop does (data, loss, average, progress bar, log; no checkpoint), beside
the loop of the official recipe with the same network and batch: as it is, and with the Trainer's fused AdamW and
foreach average. Process time of one thread, float32, on the CPU.

loader: images a second that are read by the training process (by its process time), and by one and two workers (as time
passes, so what else runs counts), from a folder of JPEG files, Parquet and latents, beside what a network takes on an
H100 at half of its peak.

checkpoint: seconds that a save holds up the training, and seconds and bytes of the writing beside it.

ranks: a step of one process and of two, DDP and FSDP over gloo, at an equal batch of all; and of two that train apart,
half of the batch each, which is what two processes can do at best on the machine.

What is compared runs in turns. Each part prints a table, and writes its numbers with device, versions and date to
benchmarks/results; loader, checkpoint and ranks, whose times are as they pass, with the load of the machine too.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeVar

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # else this file would hide the package of its name

import numpy as np
import torch
import yaml
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.models import DECAY, keep
from docs.cluster import PEAK, network
from docs.cluster import checkpoint as computed_bytes
from models import PUBLISHED, create_model
from training.config import Config, DataConfig, ModelConfig, TrainingConfig
from training.data import HubImages, ImageFolder, Source, Steps
from training.ema import make_ema
from training.images import decode
from training.latents import Latents, Writer
from training.order import ShuffledBatches
from training.record import METRICS_FILE, LogConfig, read_log
from training.trainer import Trainer

ROOT: Final = Path(__file__).resolve().parent.parent
SHAPE: Final = (4, 32, 32)
SIZE: Final = 256
CLASSES: Final = 1000
LEARNING_RATE: Final = 1e-4
LOG_EVERY: Final = 10
NEVER: Final = 10**9
QUARTILES: Final = ("first quartile", "median", "third quartile")

Key = TypeVar("Key")


# Data, and a run


def random_latents(folder: Path, count: int) -> Path:
    """A folder as encode_latents.py writes it, of numbers with the spread of the official VAE's."""
    scale = 0.18215
    vae = {"name": "none", "sha256": "", "scaling_factor": scale, "shift_factor": 0.0, "factor": SIZE // SHAPE[1]}
    settings = {"shape": SHAPE, "dtype": "float16", "images": count, "shard_size": count, "num_classes": CLASSES}
    writer = Writer(folder, {**settings, "image_size": SIZE, "vae": vae})
    writer.begin()
    random = np.random.default_rng(0)
    mean = (random.standard_normal((count, 2, *SHAPE), np.float32) / scale).astype(np.float16)
    writer.write(0, mean, np.full_like(mean, 0.1), random.integers(CLASSES, size=count).tolist(), [])
    writer.finish()
    return folder


def jpegs(folder: Path, count: int) -> Path:
    """In two classes: noise whose octaves are equally strong, as those of photographs are."""
    random = np.random.default_rng(0)
    for index in range(count):
        octaves = [
            Image.fromarray(random.integers(256, size=(2**k, 2**k, 3), dtype=np.uint8)).resize((SIZE, SIZE))
            for k in range(1, 8)
        ]
        pixels = 128 + np.sum([np.asarray(octave, np.float32) - 128 for octave in octaves], 0) / 3
        file = folder / str(index % 2) / f"{index:05d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, quality=90)
    return folder


def parquet(images: ImageFolder, file: Path) -> Path:
    """The same files in one."""
    import datasets  # the extra

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=images.classes)})
    rows = {
        "image": [{"bytes": path.read_bytes(), "path": None} for path, _ in images.files],
        "label": [label for _, label in images.files],
    }
    datasets.Dataset.from_dict(rows, features=features).to_parquet(file)
    return file


def config(run: Path, latents: Path, name: str, batch: int, steps: int) -> Config:
    """The official recipe's, in float32 on the CPU, with no checkpoint before the end."""
    return Config(
        run=str(run),
        device="cpu",
        model=ModelConfig(name, SHAPE[1], SHAPE[0], CLASSES),
        data=DataConfig("latents", str(latents), batch_size=batch),
        training=TrainingConfig(
            steps=steps,
            learning_rate=LEARNING_RATE,
            warmup_steps=0,
            clip_norm=None,
            ema_decays=(DECAY,),
            checkpoint_every=NEVER,
            keep=1,
        ),
        log=LogConfig(every=LOG_EVERY),
    )


# Step


def step(names: Sequence[str], batches: Sequence[int], turns: int) -> None:
    """Print and keep the process time of a step, and what the Trainer takes beyond each of the two loops."""
    rows = []
    for name in names:
        for batch in batches:
            with TemporaryDirectory() as folder:
                latents = random_latents(Path(folder) / "latents", 16 * batch)
                loops = {
                    "official": official_loop(name, latents, batch, fused=False),
                    "official, fused": official_loop(name, latents, batch, fused=True),
                }
                trainer = Trainer(config(Path(folder) / "run", latents, name, batch, turns + 2))
                seconds = between_steps(trainer, loops)
            row: dict[str, Any] = {"model": name, "batch": batch, "turns": turns}
            for how, values in seconds.items():
                ratios = [ours / theirs - 1 for ours, theirs in zip(seconds["trainer"], values, strict=True)]
                overhead = None if how == "trainer" else dict(zip(QUARTILES, statistics.quantiles(ratios), strict=True))
                rows.append({**row, "how": how, "seconds": statistics.median(values), "overhead": overhead})
                percent = "" if overhead is None else " | ".join(f"{100 * overhead[key]:+.2f} %" for key in QUARTILES)
                print(f"| {name} | {batch} | {how} | {rows[-1]['seconds']:.4f} | {percent} |", flush=True)
    keep("training-step", {"rows": rows, "threads": 1})


def between_steps(trainer: Trainer, loops: Mapping[str, Iterator[None]]) -> dict[str, list[float]]:
    """Process seconds of the steps of all, in turns; the first turn is not counted.

    A step of the Trainer lasts until it begins the next one.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ("trainer", *loops)}
    own_step, begun = trainer.train_step, 0.0

    def train_step() -> dict[str, float]:
        nonlocal begun
        seconds["trainer"].append(time.process_time() - begun)
        for name, loop in loops.items():
            start = time.process_time()
            next(loop)
            seconds[name].append(time.process_time() - start)
        begun = time.process_time()
        return own_step()

    trainer.train_step = train_step  # type: ignore[method-assign]
    trainer.fit()
    # Where the first step begins there is none before it; where the second does, that was the first.
    return {name: values[2:] for name, values in seconds.items()}


def official_loop(name: str, latents: Path, batch: int, *, fused: bool) -> Iterator[None]:
    """A step of the recipe at each ``next``; the latents lie in memory, drawn and scaled."""
    source = Latents(latents)
    drawn = source.batch(range(len(source)), [(0, index) for index in range(len(source))])
    loader = DataLoader(TensorDataset(drawn.data, drawn.labels), batch, shuffle=True, drop_last=True)
    torch.manual_seed(0)
    model = create_model(name, input_size=SHAPE[1]).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=fused)
    update = make_ema(model, DECAY).update_parameters if fused else by_name(copy.deepcopy(model).requires_grad_(False))
    made, total = 0, 0.0
    while True:
        for data, y in loader:
            t, noise = torch.rand(batch), torch.randn_like(data)
            s = t.view(-1, 1, 1, 1)
            loss = (model(s * data + (1 - s) * noise, t, y) - (data - noise)).square().flatten(1).mean(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            update(model)
            made, total = made + 1, total + loss.item()
            if made % LOG_EVERY == 0:
                print(f"step {made}: loss {total / LOG_EVERY:.4f}", file=sys.stderr)
                total = 0.0
            yield


def by_name(average: nn.Module) -> Callable[[nn.Module], None]:
    """The official script's average: parameter by parameter."""

    @torch.no_grad()
    def update(model: nn.Module) -> None:
        averaged = dict(average.named_parameters())
        for name, value in model.named_parameters():
            averaged[name].mul_(DECAY).add_(value.data, alpha=1 - DECAY)

    return update


# Loader


def loader(file: Path | None, turns: int) -> None:
    """Print and keep images a second, and the cores whose whole time it takes to read what an H100 trains on."""
    wanted = {name: 0.5 * PEAK / (3 * 2 * PUBLISHED[name].gmacs * 1e9) for name in ("SiT-S/2", "SiT-XL/2")}
    rows = []
    with TemporaryDirectory() as folder:
        os.environ["HF_DATASETS_CACHE"] = folder  # read by `datasets` when it is imported
        images = ImageFolder(jpegs(Path(folder) / "images", 1024), SIZE)
        sources: dict[str, Source] = {
            f"JPEG files, {SIZE} x {SIZE}": images,
            f"Parquet, JPEG, {SIZE} x {SIZE}": HubImages(parquet(images, Path(folder) / "images.parquet"), SIZE),
            "latents, float16": Latents(random_latents(Path(folder) / "latents", 2048)),
        }
        if file is not None:
            size = min(decode(HubImages(file, 1).encoded(0)[0], 3).size)
            sources[f"{file.name}, {size} x {size}"] = HubImages(file, size)
        runs = {
            (name, workers): lambda source=source, workers=workers: rate(source, workers)
            for name, source in sources.items()
            for workers in (0, 1, 2)
        }
        rates = medians(runs, turns)
        sizes = [path.stat().st_size for path, _ in images.files]
    for name in sources:
        own, one, two = (rates[name, workers] for workers in (0, 1, 2))
        cores = {model: need / own for model, need in wanted.items()}
        rows.append({"source": name, "none": own, "one": one, "two": two, "cores": cores})
        shown = " | ".join(f"{count:.1f}" for count in cores.values())
        print(f"| {name} | {own:,.0f} | {one:,.0f} | {two:,.0f} | {shown} |", flush=True)
    keep("training-loader", {"rows": rows, "wanted": wanted, "jpeg_bytes": statistics.mean(sizes), **load()})


def rate(source: Source, workers: int) -> float:
    """Images a second, as a training process reads them, once the workers have started."""
    batch, seconds = 32, 2.0
    clock = time.perf_counter if workers else time.process_time
    batches = Steps(source, ShuffledBatches(len(source), batch, seed=0)).read(0, NEVER, workers)
    for _ in range(1 + 4 * workers):  # what they read ahead
        next(batches)
    start, count = clock(), 0
    while (elapsed := clock() - start) < seconds:
        count += len(next(batches).data)
    return count / elapsed


# Checkpoint


def checkpoint(name: str, turns: int) -> None:
    """Print and keep what a save takes, and the bytes of SiT-XL/2 from its shapes."""
    with TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        trainer = Trainer(config(run, random_latents(Path(folder) / "latents", 8), name, 1, NEVER))
        trainer.train_step()  # or the optimizer has nothing to save
        seconds = [saved(trainer) for _ in range(turns + 1)][1:]
        size = sum(file.stat().st_size for file in (run / "checkpoints").rglob("*") if file.is_file())
    row: dict[str, Any] = {"model": name, "bytes": size, "computed_bytes": sum(computed_bytes(network(name)).values())}
    row |= {key: statistics.median(each[key] for each in seconds) for key in seconds[0]}
    largest = sum(computed_bytes(network("SiT-XL/2")).values())
    print(f"| {name} | {row['held']:.3f} | {row['written']:.3f} | {row['stalled']:.3f} | {size / 1e9:.3f} |")
    print(f"| SiT-XL/2 | | | | {largest / 1e9:.3f} |")
    rows = [row, {"model": "SiT-XL/2", "computed_bytes": largest}]
    keep("training-checkpoint", {"rows": rows, "threads": 1, **load()})


def saved(trainer: Trainer) -> dict[str, float]:
    """Seconds that a save holds up the training, that the writing takes beside it, and the longest of them in which the
    writing kept the training process from running.
    """
    trainer.step += 1
    folder = trainer.run / "checkpoints"
    start = time.perf_counter()
    trainer.save()
    begun = now = time.perf_counter()
    stalled = 0.0
    while [entry.name for entry in folder.glob("*")] != [f"step-{trainer.step:08d}"]:  # the one before is deleted last
        trainer._writer.check()
        time.sleep(1e-3)
        before, now = now, time.perf_counter()
        stalled = max(stalled, now - before)
    return {"held": begun - start, "written": now - begun, "stalled": stalled}


# Ranks


def ranks(name: str, batch: int, turns: int) -> None:
    """Print and keep the seconds of a step."""
    half = batch // 2
    cases = {
        "one": [(1, batch, "ddp")],
        "two, apart": [(1, half, "ddp")] * 2,
        "two, DDP": [(2, batch, "ddp")],
        "two, FSDP": [(2, batch, "fsdp")],
    }
    with TemporaryDirectory() as folder:
        latents = random_latents(Path(folder), 16 * batch)
        runs = {how: lambda runs=runs: seconds_per_step(latents, name, runs) for how, runs in cases.items()}
        seconds = medians(runs, turns)
    rows = []
    for how, value in seconds.items():
        rows.append({"model": name, "batch": batch, "how": how, "seconds": value, "speedup": seconds["one"] / value})
        print(f"| {name} | {batch} | {how} | {value:.3f} | {rows[-1]['speedup']:.2f} |", flush=True)
    keep("training-ranks", {"rows": rows, "threads of each": 1, **load()})


def seconds_per_step(latents: Path, name: str, runs: Sequence[tuple[int, int, str]]) -> float:
    """The median of runs at the same time, each of so many processes with a batch of all of them; by their own logs."""
    with TemporaryDirectory() as folder:
        places = [Path(folder) / str(number) for number in range(len(runs))]
        started = [train(place, latents, name, *run) for place, run in zip(places, runs, strict=True)]
        for process in started:
            if process.wait():
                raise subprocess.CalledProcessError(process.returncode, process.args)
        lines = [line for place in places for line in read_log(place / METRICS_FILE)[1:]]
    return statistics.median(line["seconds_per_step"] for line in lines)


def train(run: Path, latents: Path, name: str, processes: int, batch: int, parallel: str) -> subprocess.Popen[bytes]:
    settings = config(run, latents, name, batch, steps=8)
    training = dataclasses.replace(settings.training, parallel=parallel)
    settings = dataclasses.replace(settings, training=training, log=LogConfig(every=2))
    run.mkdir()
    file = run / "settings.yaml"
    file.write_text(yaml.safe_dump(dataclasses.asdict(settings)))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    script = ["--", "examples/train.py", "--config", str(file)]
    return subprocess.Popen([*torchrun, *script], cwd=ROOT, stdout=subprocess.DEVNULL)


# All


def load() -> dict[str, float]:
    """Of the last 5 minutes, by this benchmark too; where it is above the cores, times as they pass are too long."""
    return {"cores": len(os.sched_getaffinity(0)), "load": os.getloadavg()[1]}


def medians(runs: Mapping[Key, Callable[[], float]], turns: int) -> dict[Key, float]:
    """Of what each returns, called in turns."""
    values: dict[Key, list[float]] = {key: [] for key in runs}
    for _ in range(turns):
        for key, run in runs.items():
            values[key].append(run())
    return {key: statistics.median(numbers) for key, numbers in values.items()}


def main() -> None:
    """Run the part named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["step", "loader", "checkpoint", "ranks"])
    parser.add_argument("--models", nargs="+", default=["SiT-S/2"], help="the part step takes several")
    parser.add_argument(
        "--batches", nargs="+", type=int, default=[4, 8], help="of all ranks together; ranks takes the first"
    )
    parser.add_argument("--turns", type=int, help="30 steps, 5 of loader and checkpoint, 3 of ranks")
    parser.add_argument("--parquet", type=Path, help="images that loader reads too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.part == "step":
        step(options.models, options.batches, options.turns or 30)
    elif options.part == "loader":
        loader(options.parquet, options.turns or 5)
    elif options.part == "checkpoint":
        checkpoint(options.models[0], options.turns or 5)
    else:
        ranks(options.models[0], options.batches[0], options.turns or 3)


if __name__ == "__main__":
    main()
