"""The training loop: a step is a function of what was before it, the settings and its number, and of nothing else."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_
from tqdm import tqdm

from models import create_model
from training import checkpoint
from training.checkpoint import Checkpoint
from training.config import Config
from training.data import Batch, Source, Steps
from training.ema import make_ema
from training.images import to_unit_range
from training.order import ShuffledBatches, derived_seed
from training.processes import join

MAY_DIFFER: Final = (
    "run", "device", "data.workers", "sampling.", "training.steps", "training.micro_batch", "training.checkpoint_every",
    "training.keep", "training.log_every",
)  # fmt: skip
"""Settings that may change from one part of a run to the next: they do not change the weights after a given step, but
for the order of a sum over the batch."""


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
        self.config, self.run = config, Path(config.run)
        self.processes = join(config.torch_device())
        self.device = self.processes.device
        self.source = config.data_source()
        self.order = ShuffledBatches(len(self.source), config.data.batch_size, config.seed)
        self.steps = Steps(self.source, self.order, self.processes.rank, self.processes.count)
        self._batches: Iterator[Batch] | None = None
        self.loss = config.loss()
        torch.manual_seed(derived_seed(config.seed, "weights"))
        self.model = create_model(**dataclasses.asdict(config.model)).to(self.device)
        _check_fit(config, self.source)
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
        self.network: nn.Module = self.model
        if self.processes.count > 1:
            self.network = DistributedDataParallel(self.model, gradient_as_bucket_view=True)
        self.step, self.seconds = 0, 0.0
        if self.processes.is_first:
            checkpoint.remove_unfinished(self.run)
        self.processes.wait()
        if (found := checkpoint.latest(self.run)) is not None:
            self._resume(found)

    @property
    def log_file(self) -> Path:
        """One line of JSON each ``log_every`` steps: step, loss, grad_norm, learning_rate, seconds."""
        return self.run / "log.jsonl"

    @property
    def unreadable_file(self) -> Path:
        """A line for each example that could not be read, each time it was to be seen."""
        return self.run / "unreadable.txt"

    def fit(self) -> bool:
        """Train until the last step, or until SIGINT or SIGTERM: then the step is finished and saved.

        Returns:
            Whether the run is complete.

        Raises:
            ConnectionError: If another of the processes has died.
            FloatingPointError: If the loss or the gradient is not finite; the weights are as before the step, and the
                last checkpoint is intact.
            OSError: If a checkpoint cannot be written.
        """
        steps, first = self.config.training.steps, self.processes.is_first
        if self.step >= steps:
            self._say(f"done: {self.run} has made {self.step} of {steps} steps")
            return True
        self.run.mkdir(parents=True, exist_ok=True)
        if first:
            _keep_lines(self.log_file, self.step)
        log_file = self.log_file if first else Path(os.devnull)
        try:
            with self.processes.together(), _stop_signals() as caught, log_file.open("a", buffering=1) as log:
                self._steps(steps, log.write, lambda: self.processes.any(bool(caught)))
        finally:
            self._batches = None  # which ends the workers
        if self.step < steps:
            reason = caught[0] if caught else "a signal to another process"
            self._say(f"stopped by {reason} after step {self.step} of {steps}, saved. The same command resumes.")
        return self.step >= steps

    def _say(self, message: str) -> None:
        if self.processes.is_first:
            print(message)

    def _steps(self, steps: int, log: Callable[[str], Any], stopped: Callable[[], bool]) -> None:
        settings = self.config.training
        started = time.perf_counter() - self.seconds
        begun, desc, quiet = self.step, str(self.run), not self.processes.is_first
        with tqdm(total=steps, initial=begun, unit="step", desc=desc, mininterval=0.5, disable=quiet) as bar:
            last = False
            while not last:
                line = self.train_step()
                self.seconds = time.perf_counter() - started
                bar.set_postfix(loss=f"{line['loss']:.3f}", refresh=False)
                bar.update()
                last = stopped() or self.step == steps
                if self.step == steps or self.step % settings.log_every == 0:
                    log(json.dumps({**line, "seconds": round(self.seconds, 3)}) + "\n")
                if last or self.step % settings.checkpoint_every == 0:
                    self.save()

    def train_step(self) -> dict[str, float]:
        """One step; returns its number (the first is 1), loss, gradient norm before clipping, and learning rate."""
        config = self.config.training
        learning_rate = config.learning_rate_at(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.model.train()
        if self.model.y_embedder is not None:
            self.model.y_embedder.eval()  # labels are dropped in _drawn
        self.optimizer.zero_grad()
        parts = list(zip(*(_split(tensor, config.micro_batch) for tensor in self._drawn(self._read())), strict=True))
        losses = []
        for number, (data, noise, t, y) in enumerate(parts, start=1):
            with self._gradients_summed(last=number == len(parts)), self._precision():
                loss = self.loss(self.network, data, y, noise=noise, t=t).sum() / self.steps.share
                loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        total = self.processes.mean(torch.stack(losses).sum()).item()
        norm = clip_grad_norm_(self.model.parameters(), config.clip_norm)
        line = {"step": self.step + 1, "loss": total, "grad_norm": norm.item(), "learning_rate": learning_rate}
        if not (math.isfinite(line["loss"]) and math.isfinite(line["grad_norm"])):
            raise FloatingPointError(
                f"training: loss and gradient must be finite, got {line['loss']} and norm {line['grad_norm']} at step "
                f"{self.step + 1}. Lower training.learning_rate, or lengthen training.warmup_steps."
            )
        self.optimizer.step()
        self.ema.update_parameters(self.model)
        self.step += 1
        return line

    def _read(self) -> Batch:
        """This process's part of the batch of the step."""
        if self._batches is None:
            workers, pin_memory = self.config.data.workers, self.device.type == "cuda"
            self._batches = self.steps.read(self.step, self.config.training.steps, workers, pin_memory)
        batch = next(self._batches)
        if batch.unreadable:
            with self.unreadable_file.open("a") as file:
                file.writelines(f"{name}\n" for name in batch.unreadable)
        return batch

    def _drawn(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Data, noise, times and labels, some replaced by the null class: this process's part of what is drawn for the
        batch of all, so that the step is the same for any number of processes.
        """
        data = to_unit_range(batch.data.to(self.device, non_blocking=True))
        whole = data.new_empty(()).expand(self.order.batch_size, *data.shape[1:])
        mine = slice(self.steps.rank * self.steps.share, (self.steps.rank + 1) * self.steps.share)
        torch.manual_seed(derived_seed(self.config.seed, "step", self.step))
        noise, t = torch.randn(whole.shape, device=self.device)[mine], self.loss.sample_times(whole)[mine]
        if self.config.model.num_classes == 0:
            return data, noise, t, None
        dropped = torch.rand(len(whole), device=self.device)[mine] < self.config.model.class_dropout
        y = batch.labels.to(self.device, non_blocking=True)
        return data, noise, t, y.masked_fill(dropped, self.config.model.num_classes)

    def _precision(self) -> torch.autocast:
        enabled = self.config.training.precision == "bfloat16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=enabled)

    def _gradients_summed(self, *, last: bool) -> AbstractContextManager[None]:
        """Processes exchange gradients in the last backward pass of a step alone."""
        if last or not isinstance(self.network, DistributedDataParallel):
            return nullcontext()
        return self.network.no_sync()

    def save(self) -> None:
        """Write a checkpoint of the current step, by the first process."""
        if self.processes.is_first:
            self._save()
        self.processes.wait()

    def _save(self) -> None:
        checkpoint.save(
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


def _split(tensor: Tensor | None, size: int | None) -> Iterator[Tensor | None]:
    """In parts of at most so many; nothing in nothing for each."""
    return itertools.repeat(None) if tensor is None else iter(tensor.split(size or len(tensor)))  # type: ignore[no-untyped-call]


def _check_fit(config: Config, source: Source) -> None:
    model = config.model
    shape = (model.in_channels, model.input_size, model.input_size)
    if shape != source.shape:
        raise ValueError(
            f"config: model.in_channels and model.input_size must be those of the data, {source.shape}, got {shape}."
        )
    if 0 < model.num_classes < source.num_classes:
        raise ValueError(
            f"config: model.num_classes must be at least {source.num_classes}, as the data have so many, or 0 to leave "
            f"them out, got {model.num_classes}."
        )
    if model.num_classes and not source.num_classes:
        raise ValueError(f"config: model.num_classes must be 0, as the data have no classes, got {model.num_classes}.")
