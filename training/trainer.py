"""The training loop: a step is a function of what was before it, the settings and its number, and of nothing else."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from tqdm import tqdm

from models import create_model
from training import checkpoint
from training.checkpoint import Checkpoint
from training.config import Config
from training.data import ShuffledBatches, derived_seed, digits
from training.ema import make_ema

MAY_DIFFER: Final = (
    "run", "device", "sampling.", "training.steps", "training.checkpoint_every", "training.keep", "training.log_every",
)  # fmt: skip
"""Settings that may change from one part of a run to the next: they do not change the weights after a given step."""


class Trainer:
    """Trains the network of a Config, or goes on where an earlier process of the same run stopped.

    All randomness of step k is seeded by (seed, k), and the data order is a function of them too. So a run that was
    stopped and resumed is bit-identical, on the CPU, to one that was not, and no random state has to be saved.

    Args:
        config: The settings; the folder ``config.run`` decides whether this is a new run.

    Attributes:
        model, ema, optimizer: What is trained.
        step: Number of optimizer steps made.
        seconds: Time spent training, over all parts of the run.

    Raises:
        ValueError: If model and data do not fit together.
        CheckpointError: If the run has other settings, or its checkpoints are all damaged.
    """

    def __init__(self, config: Config) -> None:
        self.config, self.run, self.device = config, Path(config.run), config.torch_device()
        self.images, self.labels = (tensor.to(self.device) for tensor in digits("train"))
        self.batches = ShuffledBatches(len(self.images), config.data.batch_size, config.seed)
        self.loss = config.loss()
        torch.manual_seed(derived_seed(config.seed, "weights"))
        self.model = create_model(**dataclasses.asdict(config.model)).to(self.device)
        _check_fit(config, self.images, self.labels)
        self.ema = make_ema(self.model, config.training.ema_decay)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=config.training.learning_rate,
            weight_decay=config.training.weight_decay,
            fused=True,
        )
        chosen = config.training.compile
        if chosen or (chosen is None and self.device.type != "cpu"):
            self.model.compile_blocks()
        self.step, self.seconds = 0, 0.0
        checkpoint.remove_unfinished(self.run)
        if (found := checkpoint.latest(self.run)) is not None:
            self._resume(found)

    @property
    def log_file(self) -> Path:
        """One line of JSON each ``log_every`` steps: step, loss, grad_norm, learning_rate, seconds."""
        return self.run / "log.jsonl"

    def fit(self) -> bool:
        """Train until the last step, or until SIGINT or SIGTERM: then the step is finished and saved.

        Returns:
            Whether the run is complete.

        Raises:
            FloatingPointError: If the loss or the gradient is not finite; the weights are as before the step, and the
                last checkpoint is intact.
            OSError: If a checkpoint cannot be written.
        """
        steps = self.config.training.steps
        if self.step >= steps:
            print(f"done: {self.run} has made {self.step} of {steps} steps")
            return True
        self.run.mkdir(parents=True, exist_ok=True)
        _keep_lines(self.log_file, self.step)
        with _stop_signals() as caught, self.log_file.open("a", buffering=1) as log:
            self._steps(steps, log.write, lambda: bool(caught))
        if self.step < steps:
            print(f"stopped by {caught[0]} after step {self.step} of {steps}, saved. The same command resumes.")
        return self.step >= steps

    def _steps(self, steps: int, log: Callable[[str], Any], stopped: Callable[[], bool]) -> None:
        settings = self.config.training
        started = time.perf_counter() - self.seconds
        with tqdm(total=steps, initial=self.step, unit="step", desc=str(self.run), mininterval=0.5) as bar:
            last = False
            while not last:
                line = self.train_step()
                self.seconds = time.perf_counter() - started
                bar.set_postfix(loss=f"{line['loss']:.3f}", refresh=False)
                bar.update()
                last = self.step == steps or stopped()
                if self.step == steps or self.step % settings.log_every == 0:
                    log(json.dumps({**line, "seconds": round(self.seconds, 3)}) + "\n")
                if last or self.step % settings.checkpoint_every == 0:
                    self.save()

    def train_step(self) -> dict[str, float]:
        """One step; returns its number (the first is 1), loss, gradient norm before clipping, and learning rate."""
        config = self.config.training
        torch.manual_seed(derived_seed(self.config.seed, "step", self.step))
        chosen = self.batches.indices(self.step).to(self.device)
        learning_rate = config.learning_rate * min(1.0, (self.step + 1) / max(1, config.warmup_steps))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.model.train()
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=config.precision == "bfloat16"):
            loss = self.loss(self.model, self.images[chosen], y=self.labels[chosen]).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = clip_grad_norm_(self.model.parameters(), config.clip_norm)
        line = {"step": self.step + 1, "loss": loss.item(), "grad_norm": norm.item(), "learning_rate": learning_rate}
        if not (math.isfinite(line["loss"]) and math.isfinite(line["grad_norm"])):
            raise FloatingPointError(
                f"training: loss and gradient must be finite, got {line['loss']} and norm {line['grad_norm']} at step "
                f"{self.step + 1}. Lower training.learning_rate, or lengthen training.warmup_steps."
            )
        self.optimizer.step()
        self.ema.update_parameters(self.model)
        self.step += 1
        return line

    def save(self) -> Path:
        """Write a checkpoint of the current step; returns its folder."""
        return checkpoint.save(
            self.run,
            step=self.step,
            model=self.model,
            ema=self.ema,
            optimizer=self.optimizer,
            path=self.loss.path,
            prediction=self.loss.prediction,
            config=dataclasses.asdict(self.config),
            seconds=self.seconds,
            keep=self.config.training.keep,
        )

    def _resume(self, found: Checkpoint) -> None:
        found.require_settings(dataclasses.asdict(self.config), but=MAY_DIFFER)
        found.restore(self.model, self.ema, self.optimizer)
        self.step, self.seconds = found.step, float(found.meta["seconds"])


def read_log(file: str | Path) -> list[dict[str, float]]:
    """The lines of a log; a last one that a kill cut short is left out."""
    lines = Path(file).read_text().split("\n")[:-1]
    return [json.loads(line) for line in lines]


def _keep_lines(file: Path, last_step: int) -> None:
    """Drop what was logged after the checkpoint that is resumed from: those steps are made again."""
    if not file.exists():
        return
    kept = [json.dumps(line) + "\n" for line in read_log(file) if line["step"] <= last_step]
    temporary = file.with_suffix(".unfinished")
    temporary.write_text("".join(kept))
    os.replace(temporary, file)


@contextmanager
def _stop_signals() -> Iterator[list[str]]:
    """Collect the names of SIGINT and SIGTERM instead of dying of them; only the main thread can."""
    caught: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(n, lambda got, _: caught.append(signal.Signals(got).name)) for n in numbers]
    try:
        yield caught
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _check_fit(config: Config, images: Tensor, labels: Tensor) -> None:
    model = config.model
    shape = (model.in_channels, model.input_size, model.input_size)
    if shape != images.shape[1:]:
        raise ValueError(
            f"config: model.in_channels and model.input_size must be those of the data, {tuple(images.shape[1:])}, "
            f"got {shape}."
        )
    if model.num_classes <= int(labels.max()):
        raise ValueError(
            f"config: model.num_classes must be above the largest label, {int(labels.max())}, got {model.num_classes}."
        )
