"""The training loop: a step is a function of what was before it, the settings and its number, and of nothing else."""

from __future__ import annotations

import dataclasses
import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from models import SiT, create_model
from training import checkpoint
from training.checkpoint import Checkpoint, different_settings
from training.config import Config
from training.coupling import optimal_transport
from training.data import Batch, Source, Steps
from training.ema import WIDTH, make_averages, save_snapshot
from training.fields import Field
from training.files import append_text, as_utf8
from training.fingerprint import class_names
from training.generate import as_sampled
from training.images import to_unit_range
from training.initial import load_initial
from training.latents import Latents
from training.loss_scale import LossScale
from training.meters import LossByTime, Meter
from training.order import ShuffledBatches, derived_seed
from training.precision import products, require_tf32
from training.preview import sample_picture
from training.processes import join, stop_signals
from training.progress import progress
from training.record import METRICS_FILE, Recorder
from training.sharding import replicate, shard, sum_gradients, whole

MAY_DIFFER: Final = (
    "run", "init", "device", "log.", "data.workers", "data.vae", "sampling.", "training.steps", "training.micro_batch",
    "training.max_skipped", "training.activation_checkpointing", "training.parallel", "training.checkpoint_every",
    "training.keep",
)  # fmt: skip
"""Settings that may change from one part of a run to the next: they do not change the weights after a given step, but
for the order of a sum over the batch."""


class Drawn(NamedTuple):
    """What a step sees: data and noise, shape (batch, C, H, W), times and labels, shape (batch,), or no labels."""

    data: Tensor
    noise: Tensor
    t: Tensor
    y: Tensor | None

    def split(self, size: int | None) -> list[Drawn]:
        """In parts of at most so many; None is one."""
        size = size or len(self.data)
        parts = [slice(start, start + size) for start in range(0, len(self.data), size)]
        return [Drawn(self.data[p], self.noise[p], self.t[p], None if self.y is None else self.y[p]) for p in parts]


class Trainer:
    """Trains the network of a Config, or goes on where an earlier process of the same run stopped.

    All randomness of step k is seeded by (seed, k), and the data order is a function of them too. So a run that was
    stopped and resumed is bit-identical, on the CPU, to one that was not, and no random state has to be saved.

    Args:
        config: The settings; the folder ``config.run`` decides whether this is a new run.

    Attributes:
        model, averages, optimizer: What is trained; the averages of its weights by name, "ema" the first.
        step: Number of steps made.
        skipped: Number of those that were left out, as their loss or gradient was not finite.
        seconds: Time spent training, over all parts of the run.

    Raises:
        ValueError: If model and data do not fit together.
        CheckpointError: If the run has other settings, or its checkpoints are all damaged.
    """

    def __init__(self, config: Config) -> None:
        self.config, self.run = config, Path(config.run)
        if (run := checkpoint.run_of(self.run)) not in (None, self.run):
            raise ValueError(f"config: run must be no folder in another run, got {config.run!r}. Set it to {run}.")
        self.processes = join(config.torch_device())
        self.device = self.processes.device
        require_tf32(config.training.precision, self.device, "training.precision")
        self.source = config.data_source()
        self.order = ShuffledBatches(len(self.source), config.data.batch_size, config.seed)
        self.steps = Steps(self.source, self.order, self.processes.rank, self.processes.count)
        self._batches: Iterator[Batch] | None = None
        self.loss = config.loss()
        self.model, settings = self._fresh_model(), config.training
        self.averages = make_averages(self.model, settings.ema_decays, settings.ema_widths)
        if settings.compile or (settings.compile is None and self.device.type != "cpu"):
            self.model.compile_blocks()
        self.sharded = settings.parallel == "fsdp" and self.processes.count > 1
        if self.sharded:
            shard(self.model, self.processes)
            for average in self.averages.values():
                shard(cast(SiT, average.module), self.processes)
        self.network: nn.Module = self.model if self.sharded else replicate(self.model, self.processes)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        self.loss_scale = LossScale(2.0**16 if settings.precision == "float16" else 1.0)
        self.skipped, self._writer, self.loss_by_time = 0, checkpoint.Writer(), LossByTime(self.device)
        self._decode = None
        if isinstance(self.source, Latents) and config.log.samples_every:
            self._decode = self.source.decoder(config.data.vae, self.device)
        self.step, self.seconds, self._changed = 0, 0.0, list[str]()
        if self.processes.is_first:
            checkpoint.remove_unfinished(self.run)
        self.processes.wait()
        if (found := checkpoint.latest(self.run)) is not None:
            self._resume(found)

    def _fresh_model(self) -> SiT:
        torch.manual_seed(derived_seed(self.config.seed, "weights"))
        model = create_model(**self.config.model.given()).to(self.device, torch.float32)
        _check_fit(self.config, self.source)
        if self.config.init is not None and not any((self.run / "checkpoints").glob("step-*")):
            load_initial(model, self.config.init, self.loss.path, self.loss.prediction)
        model.activation_checkpointing = self.config.training.activation_checkpointing
        return model

    @property
    def metrics_file(self) -> Path:
        """A line of JSON each ``log.every`` steps."""
        return self.run / METRICS_FILE

    @property
    def unreadable_file(self) -> Path:
        """A line for each example that could not be read, when it is first met."""
        return self.run / "unreadable.txt"

    def fit(self) -> bool:
        """Train until the last step, or until SIGINT or SIGTERM: then the step is finished and saved.

        Returns:
            Whether the run is complete.

        Raises:
            ConnectionError: If another of the processes has died.
            FloatingPointError: If the loss or the gradient is not finite, and no more steps may be left out; weights
                are as before the step, the last checkpoint is intact, the batch is saved.
            OSError: If a checkpoint cannot be written.
        """
        steps, config = self.config.training.steps, dataclasses.asdict(self.config)
        if self.step >= steps:
            if self.processes.is_first:
                print(f"done: {self.run} has made {self.step} of {steps} steps")
            return True
        recorder = Recorder(self.run, self.config.log, config, self.processes, self.step)
        with recorder, self.processes.together(), stop_signals() as caught:
            recorder.note(f"goes on after step {self.step} of {steps}" if self.step else f"begins {steps} steps")
            if not self.step:
                recorder.say(self._subject())
            if self._changed:
                recorder.note(f"with other settings: {'; '.join(self._changed)}")
            try:
                with products(self.config.training.precision):
                    self._steps(steps, recorder, lambda: self.processes.any(bool(caught)))
            finally:
                self._batches = None  # which ends the workers
                self._writer.wait()
            if self.step < steps:
                reason = caught[0] if caught else "a signal to another process"
                recorder.say(f"stopped by {reason} after step {self.step} of {steps}, saved. The same command resumes.")
            else:
                recorder.note(f"made {steps} steps")
        return self.step >= steps

    def _subject(self) -> str:
        """What is trained on what, so that data of an unexpected size or number are seen at once."""
        model, source = self.config.model, self.source
        size = " x ".join(map(str, source.shape))
        classes = f"{model.num_classes} classes" if model.num_classes else "no classes"
        count = sum(parameter.numel() for parameter in self.model.parameters())
        examples = f"{len(source):,} examples of {size} (channels, height, width)"
        return f"{model.name}, {count:,} parameters, {classes}; {examples}"

    def _steps(self, steps: int, recorder: Recorder, stopped: Callable[[], bool]) -> None:
        settings, log = self.config.training, self.config.log
        started, skipped = time.perf_counter() - self.seconds, self.skipped
        meter = Meter(self.model, self.order.batch_size, self.processes, self.step)
        begun, desc, quiet = self.step, str(self.run), not self.processes.is_first
        with progress(total=steps, initial=begun, unit="step", desc=desc, disable=quiet) as bar:
            last = told = False
            while not last:
                line = self.train_step()
                self.seconds = time.perf_counter() - started
                bar.set_postfix(loss=f"{line['loss']:.3f}", refresh=False)
                bar.update()
                if self.skipped > skipped:
                    skipped = self.skipped
                    recorder.say(f"step {self.step} left out: loss {line['loss']}, gradient norm {line['grad_norm']}")
                last = stopped() or self.step == steps
                if self.step == steps or self.step % log.every == 0:
                    by_time, speed = self.loss_by_time.read(self.processes), meter.read(self.step)
                    recorder.scalars(self.step, {**line, **by_time, **speed, "seconds": round(self.seconds, 3)})
                    if not told and self.unreadable_file.exists():
                        told = True
                        recorder.say(f"unreadable examples are left out, and listed in {self.unreadable_file}")
                with meter.paused():
                    self._keep(recorder, checkpoint=last or self.step % settings.checkpoint_every == 0)
                self._writer.check()

    def _keep(self, recorder: Recorder, *, checkpoint: bool) -> None:
        """Write what is due after a step: a picture of samples, a snapshot of averages, a checkpoint."""
        if _is_due(self.step, self.config.log.samples_every):
            self._draw(recorder)
        if _is_due(self.step, self.config.training.ema_snapshot_every):
            self._save_snapshot()
        if checkpoint:
            self.save()
            recorder.note(f"saves step {self.step}")

    def train_step(self) -> dict[str, float]:
        """One step; returns its loss, gradient norm before clipping, and learning rate.

        If not all of them are finite, the weights are as they were.
        """
        learning_rate = self.config.training.learning_rate_at(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        drawn = self._drawn(self._read())
        loss, norm = self.processes.mean(torch.stack([self._backward(drawn), self._clipped_norm()])).tolist()
        if math.isfinite(loss) and math.isfinite(norm):
            self.optimizer.step()
            for average in self.averages.values():
                average.update_parameters(self.model)
        else:
            self._leave_out(drawn, loss, norm)
        self.loss_scale.update(math.isfinite(norm))
        self.step += 1
        line = {"loss": loss, "grad_norm": norm, "learning_rate": learning_rate}
        return line | ({"loss_scale": self.loss_scale.value} if self.config.training.precision == "float16" else {})

    def _backward(self, drawn: Drawn) -> Tensor:
        """Leave the gradient of the mean loss over the batch of all processes, scaled; returns that of this one."""
        self.model.train()
        if self.model.y_embedder is not None:
            self.model.y_embedder.eval()  # labels are dropped in _drawn
        self.optimizer.zero_grad()
        parts, losses = drawn.split(self.config.training.micro_batch), []
        for number, (data, noise, t, y) in enumerate(parts, start=1):
            sum_gradients(self.network, last=number == len(parts))
            with self._precision():
                each = self.loss(self.network, data, y, noise=noise, t=t)
            self.loss_by_time.add(t, each)
            loss = each.sum() / self.steps.share
            (loss * self.loss_scale.value).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    def _clipped_norm(self) -> Tensor:
        """Of the gradient of all, which is then no longer scaled, nor longer than clip_norm."""
        if self.loss_scale.value != 1.0:
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            torch._foreach_mul_(gradients, 1 / self.loss_scale.value)
        return whole(clip_grad_norm_(self.model.parameters(), self.config.training.clip_norm or math.inf))

    def _leave_out(self, drawn: Drawn, loss: float, norm: float) -> None:
        """Count a step that is not made, or end the run.

        Raises:
            FloatingPointError: If there were too many.
        """
        number = self.step + 1
        if math.isfinite(loss) and self.loss_scale.value > 1.0:
            return  # the scale was too large
        self.skipped += 1
        if self.skipped <= self.config.training.max_skipped:
            return
        folder = self.run / f"nonfinite-step-{number:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: value.contiguous() for name, value in drawn._asdict().items() if value is not None}
        checkpoint.write_tensors(folder / f"process-{self.processes.rank}.safetensors", tensors)
        raise FloatingPointError(
            f"training: loss and gradient must be finite, got {loss} and norm {norm} at step {number}; its batch is in "
            f"{folder}. Lower training.learning_rate, lengthen training.warmup_steps, or raise training.max_skipped."
        )

    def _read(self) -> Batch:
        """This process's part of the batch of the step."""
        if self._batches is None:
            workers, pin_memory = self.config.data.workers, self.device.type == "cuda"
            self._batches = self.steps.read(self.step, self.config.training.steps, workers, pin_memory)
        batch = next(self._batches)
        if batch.unreadable:
            self._list_unreadable(batch.unreadable)
        return batch

    def _list_unreadable(self, found: Sequence[str]) -> None:
        there = self.unreadable_file.read_bytes().split(b"\n") if self.unreadable_file.exists() else []
        lines = dict.fromkeys(" ".join(each.splitlines()) for each in found)  # each once
        append_text(self.unreadable_file, "".join(f"{line}\n" for line in lines if as_utf8(line) not in there))

    def _drawn(self, batch: Batch) -> Drawn:
        """What the step sees, some labels replaced by the null class.

        It is this process's part of what is drawn for the batch of all, so that the step is the same for any number of
        processes.
        """
        data = to_unit_range(batch.data.to(self.device, non_blocking=True))
        whole = data.new_empty(()).expand(self.order.batch_size, *data.shape[1:])
        mine = slice(self.steps.rank * self.steps.share, (self.steps.rank + 1) * self.steps.share)
        torch.manual_seed(derived_seed(self.config.seed, "step", self.step))
        noise, t = torch.randn(whole.shape, dtype=data.dtype, device=self.device), self.loss.sample_times(whole)[mine]
        y = batch.labels.to(self.device, non_blocking=True) if self.config.model.num_classes else None
        if self.config.coupling == "ot":
            labels = None if y is None else self.processes.gather(y)
            noise = noise[optimal_transport(self.processes.gather(data), noise, labels).to(self.device)]
        if y is not None:
            dropped = torch.rand(len(whole), device=self.device)[mine] < self.config.model.class_dropout
            y = y.masked_fill(dropped, self.config.model.num_classes)
        return Drawn(data, noise[mine], t, y)

    def _precision(self) -> torch.autocast:
        precision = self.config.training.precision
        narrow = precision in ("bfloat16", "float16")
        return torch.autocast(self.device.type, dtype=getattr(torch, precision) if narrow else None, enabled=narrow)

    def save(self) -> None:
        """Write a checkpoint of the current step, by the first process, while the training goes on."""
        if not (self.processes.is_first or self.sharded):
            return
        contents = checkpoint.snapshot(
            step=self.step,
            model=self.model,
            averages=self.averages,
            optimizer=self.optimizer,
            path=self.loss.path,
            prediction=self.loss.prediction,
            config=dataclasses.asdict(self.config),
            data=self.source.fingerprint,
            state={"seconds": self.seconds, "skipped": self.skipped, "loss_scale": dataclasses.asdict(self.loss_scale)},
            keep=self.processes.is_first,
        )
        if contents is not None:
            settings = self.config.training
            self._writer.start(self.run, contents, keep=settings.keep, keep_every=settings.keep_every)

    def _save_snapshot(self) -> None:
        """Keep the averages from which others are made after training."""
        weights = {
            name: {key: whole(value) for key, value in average.module.state_dict().items()}
            for name, average in self.averages.items()
            if name.startswith(WIDTH)
        }
        if self.processes.is_first:
            save_snapshot(self.run, self.step, weights)

    def _draw(self, recorder: Recorder) -> None:
        """Samples of the average of the weights, from the same noise each time; where it lies in parts, by all."""
        if not (self.processes.is_first or self.sharded):
            return
        model, settings, number = self.averages["ema"].module, self.config.sampling, self.config.log.samples
        field = as_sampled(Field(model, self.loss.path, self.loss.prediction), settings)
        classes = self.config.model.num_classes
        picture = sample_picture(
            field,
            (number, *self.model.input_shape),
            settings.ode,
            y=torch.arange(number, device=self.device) % classes if classes else None,
            names=class_names(self.source.fingerprint),
            seed=settings.seed,
            device=self.device,
            decode=self._decode,
        )
        recorder.image("samples", self.step, picture)

    def _resume(self, found: Checkpoint) -> None:
        now = dataclasses.asdict(self.config)
        self._changed = different_settings(found.meta["config"], now, only=MAY_DIFFER)
        moved = ("data.source",) if "data" in found.meta else ()  # older runs know their data by that alone
        found.require_settings(now, but=MAY_DIFFER + moved)
        found.require_data(self.source.fingerprint)
        found.restore(self.model, self.averages, self.optimizer)
        state = found.meta["state"]
        self.step, self.seconds, self.skipped = found.step, float(state["seconds"]), int(state["skipped"])
        self.loss_scale = LossScale(**state["loss_scale"])


def _is_due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0


def _check_fit(config: Config, source: Source) -> None:
    model = config.model
    shape = (model.in_channels, *model.size)
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
    if source.num_classes < model.num_classes:
        warnings.warn(
            f"config: model.num_classes is {model.num_classes}, and the data have {source.num_classes} classes: the "
            f"others are never trained, and their samples mean nothing. Set it to {source.num_classes}.",
            stacklevel=2,
        )
