"""The settings of a run: frozen dataclasses, read from YAML and flags, checked before anything starts."""

from __future__ import annotations

import dataclasses
import math
import os
import sys
import typing
import warnings
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import jsonargparse
import torch

import interpolants
from interpolants import QUANTITIES, time_grid
from interpolants.coefficient import check_interval
from interpolants.library import LIBRARY
from interpolants.terminal import RED, YELLOW, open_outputs, paint
from interpolants.time_density import TimeDensity
from interpolants.time_grid import CHOICES as GRIDS
from interpolants.weights import CHOICES as WEIGHTS
from models import PRESETS
from training import multistep
from training.checkpoint import run_of
from training.coupling import CHOICES as COUPLINGS
from training.data import NAMES, Digits, HubImages, ImageFolder, Images, Source
from training.ema import WIDEST
from training.environment import CONFIG_FILE
from training.fields import require_data_at_one
from training.guidance import Guidance
from training.latents import NORMALIZATIONS, Latents
from training.mistakes import explained
from training.objectives import InterpolantLoss
from training.odeint import MAX_CALLS
from training.official import METHODS as OFFICIAL
from training.record import LogConfig
from training.samplers import (
    LAST_STEPS,
    ODE_METHODS,
    OWN_STEPS_METHODS,
    SDE_METHODS,
    check_eta,
    check_last_step,
    check_max_calls,
    check_tolerances,
)
from training.settings import make_parser, one_of, require_choices, require_typed, such_as
from training.sharding import CHOICES as PARALLEL

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

C = TypeVar("C", bound="DataclassInstance")

PRECISIONS: Final = ("float32", "tf32", "bfloat16", "float16")
SCHEDULES: Final = ("constant", "cosine", "linear")
CLASSES: Final = ("balanced", "random")
DEVICES: Final = ("auto", "cpu", "cuda")
TIMES: Final[dict[str, tuple[str, ...]]] = {
    "uniform": (), "logit_normal": ("mean", "std"), "mode": ("scale",), "cos_map": (), "cosh": (),
    "log_normal_sigma": ("mean", "std"),
}  # fmt: skip
"""Densities of time with their parameters."""


@dataclass(frozen=True)
class PathText:
    """A path of your own, as text in t: 0 is noise, 1 is data.

    Args:
        alpha: Weight of the data, such as "sin(pi*t/2)".
        sigma: Weight of the noise, such as "cos(pi*t/2)".
    """

    alpha: str
    sigma: str


def path_of(path: str | PathText) -> interpolants.Path:
    """The path of a setting: by its name, or from text."""
    return interpolants.by_name(path) if isinstance(path, str) else interpolants.Path(path.alpha, path.sigma)


@dataclass(frozen=True)
class ModelConfig:
    """The network, which checks these settings itself when it is built.

    Args:
        name: Size and patch, such as SiT-T/2.
        input_size: Height and width of the data, or one integer for both.
        in_channels: Channels of the data.
        num_classes: Number of classes; there is one more, the null class. 0 is none.
        class_dropout: Probability that training replaces a label by the null class.
        learn_sigma: Double the channels of the last layer, as in the released checkpoints. Null is false.
        rope: Rotary position embeddings. Null takes the preset's choice.
        swiglu: A gated MLP (SwiGLU). Null takes the preset's choice.
        rms_norm: RMS norms instead of layer norms. Null takes the preset's choice.
        qk_norm: Normalised queries and keys. Null takes the preset's choice.
    """

    name: str = such_as(PRESETS, "SiT-T/2")
    input_size: int | tuple[int, int] = 8
    in_channels: int = 1
    num_classes: int = 10
    class_dropout: float = 0.1
    learn_sigma: bool | None = None
    rope: bool | None = None
    swiglu: bool | None = None
    rms_norm: bool | None = None
    qk_norm: bool | None = None

    def given(self) -> dict[str, Any]:
        """Those that are set, as ``create_model`` takes them."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return (self.input_size, self.input_size) if isinstance(self.input_size, int) else self.input_size


@dataclass(frozen=True)
class DataConfig:
    """What to train on.

    Args:
        name: digits; folder, of images; datasets, for what `datasets` loads; or latents, cached.
        source: The folder; or the file, folder or name on the hub that `datasets` loads.
        split: Split to load (datasets only).
        held_out: Share of the examples that is kept from training, e.g. 0.05, always the same ones; ``--part heldout``
            measures them. Null holds out none, except for digits, which always hold out a fifth.
        image_column: Column of the images (datasets only); null is the only one of images.
        label_column: Column of the labels (datasets only); null is the only one of class labels.
        flip: Whether half of the images are flipped left to right.
        normalization: How latents are normalized: scale, by the factor of their VAE (also null), or per_channel.
        vae: VAE that decodes samples of latents; null is the one that encoded them.
        batch_size: Samples per step, over all processes together.
        workers: Processes that read ahead, per trainer.
    """

    name: str = one_of(NAMES, "digits")
    source: str | None = None
    split: str = "train"
    held_out: float | None = None
    image_column: str | None = None
    label_column: str | None = None
    flip: bool = True
    normalization: str | None = one_of(NORMALIZATIONS, None)
    vae: str | None = None
    batch_size: int = 128
    workers: int = 0

    def __post_init__(self) -> None:
        require_choices(self, "data")
        digits = "unset for digits (a folder of images is --data.name folder)"
        wanted = digits if self.name == "digits" else f"set, for data.name {self.name}"
        _require((self.source is None) == (self.name == "digits"), "data.source", wanted, self.source)
        if self.name != "latents":
            for name in ("normalization", "vae"):
                value = getattr(self, name)
                _require(value is None, f"data.{name}", f"null, for data.name {self.name}", value)
        if self.name != "datasets":
            wanted = f"train, for data.name {self.name}; --part heldout measures held-out data"
            _require(self.split == "train", "data.split", wanted, self.split)
        if self.name == "digits":
            contract = "null for digits, which always hold out a fifth"
            _require(self.held_out is None, "data.held_out", contract, self.held_out)
        share = self.held_out
        _require(share is None or 0 < share < 1, "data.held_out", "between 0 and 1, or null", share)
        _require(self.batch_size >= 1, "data.batch_size", "at least 1", self.batch_size)
        _require(self.workers >= 0, "data.workers", "at least 0", self.workers)

    @property
    def measured(self) -> str:
        """The part that samples are compared with: heldout where anything is held out, else train."""
        return "heldout" if self.name == "digits" or self.held_out is not None else "train"


@dataclass(frozen=True)
class TimeConfig:
    """The density that training draws times from, of those in ``interpolants.time_density``.

    Args:
        name: uniform, logit_normal, mode, cos_map, cosh or log_normal_sigma.
        mean: Mean of logit_normal (null is 0) or log_normal_sigma (null is -1.2).
        std: Standard deviation of logit_normal (null is 1) or log_normal_sigma (null is 1.2).
        scale: Scale of mode (null is 1.29).
        steps: Times are rounded down to multiples of 1 / steps: 1000 are those of DDPM. Null leaves them continuous.
        interval: Times are drawn from it, such as [0, 0.99999]; null stops short of poles of the loss.
    """

    name: str = one_of(TIMES, "uniform")
    mean: float | None = None
    std: float | None = None
    scale: float | None = None
    steps: int | None = None
    interval: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        require_choices(self, "time")
        _require(self.steps is None or self.steps >= 1, "time.steps", "at least 1, or null", self.steps)
        for name, value in self._given().items():
            _require(name in TIMES[self.name], f"time.{name}", f"null, as {self.name} has none", value)

    def density(self, path: interpolants.Path) -> TimeDensity | None:
        """The density on a path; None is uniform where the loss is bounded."""
        if self.name == "uniform":
            return None
        on_path = (path,) if self.name in ("cosh", "log_normal_sigma") else ()
        density: TimeDensity = getattr(interpolants.time_density, self.name)(*on_path, **self._given())
        return density

    def _given(self) -> dict[str, float]:
        given = {"mean": self.mean, "std": self.std, "scale": self.scale}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class TrainingConfig:
    """How to train: AdamW, with a learning rate that rises linearly, and then stays or falls.

    Args:
        steps: Number of optimizer steps. If you raise it later, the run goes on as if it had been so from the start.
        learning_rate: Learning rate after the warm-up.
        warmup_steps: Steps over which the learning rate rises.
        schedule: constant; or cosine or linear, which let the learning rate fall to 0 at decay_steps.
        decay_steps: Step at which the learning rate is 0; null for constant. It does not follow ``steps``.
        weight_decay: Weight decay of AdamW.
        micro_batch: Samples per forward and backward pass on each process, to save memory: a step is made of several
            passes. Null takes all samples in one.
        clip_norm: Largest norm of the gradient, which is scaled down to it; null leaves it.
        max_skipped: Number of steps with a loss or gradient that is not finite that the whole run may leave out. One
            more ends the run, and its batch is saved.
        ema_decays: Decays of the averages of the weights; samples are drawn from the first.
        ema_widths: Relative widths of power-function averages, e.g. 0.05 and 0.1. ``combine_ema.py`` turns them into an
            average of any width after training.
        ema_snapshot_every: Steps between two snapshots of these averages.
        precision: float32; tf32 (NVIDIA GPUs), which makes float32 products and convolutions faster and less precise,
            as in the official scripts; or bfloat16 or float16 for the products in the blocks. Weights, norms and sums
            stay in float32. With float16 the loss is scaled up, so that small gradients do not vanish.
        compile: Whether to compile the blocks; null compiles them on an accelerator only.
        activation_checkpointing: Whether to keep only the inputs of the blocks for the backward pass: a quarter more
            time for a fraction of the memory.
        parallel: ddp, where each process has a copy of the network; or fsdp, where it has a part of each parameter.
        checkpoint_every: Steps between two checkpoints.
        keep: Number of checkpoints kept, the newest ones.
        keep_every: Checkpoints at multiples of this step are kept for good; null keeps none.
    """

    steps: int = 1000
    learning_rate: float = 1e-3
    warmup_steps: int = 50
    schedule: str = one_of(SCHEDULES, "constant")
    decay_steps: int | None = None
    weight_decay: float = 0.0
    micro_batch: int | None = None
    clip_norm: float | None = 1.0
    max_skipped: int = 0
    ema_decays: tuple[float, ...] = (0.99,)
    ema_widths: tuple[float, ...] = ()
    ema_snapshot_every: int | None = None
    precision: str = one_of(PRECISIONS, "float32")
    compile: bool | None = None
    activation_checkpointing: bool = False
    parallel: str = one_of(PARALLEL, "ddp")
    checkpoint_every: int = 250
    keep: int = 2
    keep_every: int | None = None

    def __post_init__(self) -> None:
        require_choices(self, "training")
        for name in ("steps", "checkpoint_every", "keep"):
            _require(getattr(self, name) >= 1, f"training.{name}", "at least 1", getattr(self, name))
        for name in ("micro_batch", "keep_every", "ema_snapshot_every"):
            value = getattr(self, name)
            _require(value is None or value >= 1, f"training.{name}", "at least 1, or null", value)
        for name in ("warmup_steps", "weight_decay", "max_skipped"):
            _require(getattr(self, name) >= 0, f"training.{name}", "at least 0", getattr(self, name))
        _require(self.learning_rate > 0, "training.learning_rate", "positive", self.learning_rate)
        _require(
            self.clip_norm is None or self.clip_norm > 0, "training.clip_norm", "positive, or null", self.clip_norm
        )
        if self.schedule == "constant":
            _require(self.decay_steps is None, "training.decay_steps", "null with a constant rate", self.decay_steps)
        else:
            after = self.decay_steps is not None and self.decay_steps > self.warmup_steps
            _require(after, "training.decay_steps", "above training.warmup_steps", self.decay_steps)
        decays, widths, every = self.ema_decays, self.ema_widths, self.ema_snapshot_every
        right = len({*decays}) == len(decays) > 0 and all(0 <= decay < 1 for decay in decays)
        _require(right, "training.ema_decays", "one or more different numbers in [0, 1)", decays)
        right = len({*widths}) == len(widths) and all(0 < width <= WIDEST for width in widths)
        _require(right, "training.ema_widths", f"different numbers in (0, {WIDEST:.4f}]", widths)
        contract = "set where there are training.ema_widths, else null"
        _require((every is None) == (not widths), "training.ema_snapshot_every", contract, every)

    def learning_rate_at(self, step: int) -> float:
        """Of step 0, 1, ...: learning_rate (step + 1) / warmup_steps, and from there on by the schedule."""
        rising = min(1.0, (step + 1) / max(1, self.warmup_steps))
        if self.decay_steps is None:
            return self.learning_rate * rising
        done = min(1.0, max(0, step + 1 - self.warmup_steps) / (self.decay_steps - self.warmup_steps))
        falling = 1 - done if self.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
        return self.learning_rate * rising * falling


@dataclass(frozen=True)
class ODEConfig:
    """The ODE sampler.

    Args:
        method: A method such as heun2, dopri5, adams_pc2 or unipc2; the table is in training/samplers.py. Null is
            heun2, or unipc2 where the velocity has a pole in the prediction.
        num_steps: Number of steps (fixed-step methods only).
        grid: Times of the steps: uniform, shifted, log_snr, edm, cosine, optimized or scales, with arguments if you
            like: "shifted(2)".
        rtol: Relative tolerance of an adaptive method.
        atol: Absolute tolerance of an adaptive method.
        max_calls: Most calls of the network (methods that choose their own steps only).
        interval: Times to integrate over; null is all at which the coefficients are bounded.
        official: Whether to use the official release's sampler: num_steps counts the points of the grid, the default
            method is dopri5, and adaptive steps are chosen for the whole batch.
    """

    method: str | None = one_of(ODE_METHODS, None)
    num_steps: int = 50
    grid: str = such_as(GRIDS, "uniform")
    rtol: float = 1e-3
    atol: float = 1e-6
    max_calls: int = MAX_CALLS
    interval: tuple[float, float] | None = None
    official: bool = False

    def __post_init__(self) -> None:
        require_choices(self, "sampling.ode")
        _require(self.num_steps >= 1, "sampling.ode.num_steps", "at least 1", self.num_steps)
        _require_interval("sampling.ode.interval", self.interval)
        _require_grid(self, "sampling.ode")
        if self.official:
            _require(
                self.method not in multistep.ODE_METHODS,
                "sampling.ode.method",
                "torchdiffeq's, where official",
                self.method,
            )
        check_tolerances(self.rtol, self.atol)
        check_max_calls(self.max_calls)

    def __str__(self) -> str:
        method = "" if self.method is None else f", {self.method}"
        return f"{_official(self)}ODE{method}" + (
            "" if self.method in OWN_STEPS_METHODS else _steps(self.num_steps, self.grid)
        )


@dataclass(frozen=True)
class SDEConfig:
    """The SDE sampler.

    Args:
        w: Squared noise amplitude: a choice, such as sigma or "sigma(0.5)", where the number is a factor; or an
            expression in t. Null for the method ancestral, which has its own noise.
        num_steps: Number of steps.
        method: A method such as euler, heun, exponential2, or ancestral, which is DDPM's.
        grid: Times of the steps: uniform, shifted, log_snr, edm, cosine, optimized or scales, with arguments if you
            like: "shifted(2)".
        eta: Amount of noise (method ancestral only): 0 is DDIM, 1 is DDPM.
        interval: Times to integrate over; null is all at which the coefficients are bounded.
        last_step: Noise-free step from the end of the interval to t = 1: mean, by the drift of the SDE; euler, by the
            drift of the ODE; tweedie, to the expected data given the state. Null takes no such step.
        official: Whether to use the official release's sampler: methods euler and heun, and a last step of 0.04, which
            num_steps counts.
    """

    w: str | None = such_as(interpolants.diffusion.CHOICES, "sigma")
    num_steps: int = 250
    method: str = one_of(SDE_METHODS, "euler")
    grid: str = such_as(GRIDS, "uniform")
    eta: float = 1.0
    interval: tuple[float, float] | None = None
    last_step: str | None = such_as([step for step in LAST_STEPS if step], "mean")
    official: bool = False

    def __post_init__(self) -> None:
        require_choices(self, "sampling.sde")
        contract = "null for the method ancestral, else set"
        _require((self.w is None) == (self.method == "ancestral"), "sampling.sde.w", contract, self.w)
        if self.w is not None:
            interpolants.diffusion.choose(self.w)
        _require(self.num_steps >= 1, "sampling.sde.num_steps", "at least 1", self.num_steps)
        _require_interval("sampling.sde.interval", self.interval)
        _require_grid(self, "sampling.sde")
        check_eta(self.eta, self.method)
        known = ", ".join(step or "null" for step in LAST_STEPS)
        _require(self.last_step in LAST_STEPS, "sampling.sde.last_step", f"one of {known}", self.last_step)
        check_last_step(self.last_step, 0.0 if self.interval is None else self.interval[1])
        if self.official:
            _require(
                self.method in OFFICIAL,
                "sampling.sde.method",
                f"one of {', '.join(OFFICIAL)}, where official",
                self.method,
            )

    def __str__(self) -> str:
        method = "" if self.method == "euler" else f", {self.method}"
        w = "" if self.w is None else f", w = {self.w}"
        last = "" if self.last_step == "mean" else f", last step {self.last_step or 'none'}"
        return f"{_official(self)}SDE{w}{method}{_steps(self.num_steps, self.grid)}{last}"


def _official(sampler: ODEConfig | SDEConfig) -> str:
    return "official " if sampler.official else ""


def _require_grid(sampler: ODEConfig | SDEConfig, group: str) -> None:
    """Check that the grid exists, and that an official sampler has a uniform one of at least two points."""
    try:
        time_grid.choose(sampler.grid)
    except ValueError as error:
        raise ValueError(f"config: {group}.{error}") from None
    if sampler.official:
        _require(sampler.grid == "uniform", f"{group}.grid", "uniform, where official", sampler.grid)
        _require(sampler.num_steps >= 2, f"{group}.num_steps", "at least 2, where official", sampler.num_steps)


def _steps(num_steps: int, grid: str) -> str:
    return f", {num_steps} steps" + ("" if grid == "uniform" else f", {grid}")


@dataclass(frozen=True)
class SamplingConfig:
    """What to sample from the trained network.

    Args:
        num_samples: Number of samples, of all classes together. Null is 1000; for ``sit sample``, those that it shows.
        batch_size: Samples at a time. It changes the samples by rounding only, except for dopri8, fehlberg2,
            adaptive_heun, scipy_solver and official adaptive methods, which choose their steps for the whole batch.
        seed: Seed of the noise at t = 0, of the noise of the SDE, and of random classes.
        path: Path to sample along, if not that of the training; given in the same way. Null is that of the training.
        classes: balanced, where sample i is of class i mod their number; random; or a list, taken in turn.
        guidance_scale: Scale of classifier-free guidance; 1 is none.
        guidance_interval: Times at which to guide, e.g. [0.2, 0.8]; null is all.
        guidance_channels: Number of channels to guide, from the first; null is all. The released SiT guides 3 of 4.
        ode: The ODE sampler.
        sde: The SDE sampler.
    """

    num_samples: int | None = None
    batch_size: int = 500
    seed: int = 0
    path: str | PathText | None = such_as(LIBRARY, None)  # noqa: RUF009 - a dataclasses.field
    classes: tuple[int, ...] | str = such_as(CLASSES, "balanced")
    guidance_scale: float = 1.0
    guidance_interval: tuple[float, float] | None = None
    guidance_channels: int | None = None
    ode: ODEConfig = field(default_factory=ODEConfig)
    sde: SDEConfig = field(default_factory=SDEConfig)

    def __post_init__(self) -> None:
        count = self.num_samples
        _require(count is None or count >= 2, "sampling.num_samples", "at least 2, or null", count)
        _require(self.batch_size >= 1, "sampling.batch_size", "at least 1", self.batch_size)
        _require(self.seed >= 0, "sampling.seed", "at least 0", self.seed)
        none = " (for none, set sampling.guidance_scale to 0)"
        known = self.classes in CLASSES if isinstance(self.classes, str) else len(self.classes) > 0
        _require(known, "sampling.classes", f"{', '.join(CLASSES)}, or a list of classes by number{none}", self.classes)
        self.guidance()
        if self.path is not None:
            require_data_at_one(path_of(self.path), "config: sampling.path")

    @property
    def count(self) -> int:
        """Number of samples."""
        return 1000 if self.num_samples is None else self.num_samples

    def guidance(self) -> Guidance:
        """How the network is guided."""
        return Guidance(scale=self.guidance_scale, interval=self.guidance_interval, channels=self.guidance_channels)


@dataclass(frozen=True)
class Config:
    """A run.

    Args:
        run: Folder of the run. If it exists and no --config is given, its own settings are read first.
        init: Weights to begin from: another run, a folder or name on the hub that Field.from_pretrained reads, or an
            official file; null draws them.
        seed: Seed of the weights, the data order, the times and the noise of training.
        device: auto (an accelerator where there is one), or cpu, cuda, ...
        path: Name of the path; or your own, as --path.alpha and --path.sigma, text in t.
        prediction: What the network predicts: velocity, score, noise or data.
        space: Quantity in which the loss measures the error; null is the usual one of the prediction.
        weight: Weight of the loss: min_snr, snr_truncated, edm, sigmoid or elbo, or text in t; null is 1.
        time: Density that training draws times from.
        coupling: How data and noise are paired: independent; or ot, by optimal transport within a class in a batch.
        model: The network.
        data: What to train on.
        training: How to train.
        log: What the run records about itself.
        sampling: What to sample.
    """

    run: str = "runs/digits"
    init: str | None = None
    seed: int = 0
    device: str = such_as(DEVICES, "auto")
    path: str | PathText = such_as(LIBRARY, "linear")  # noqa: RUF009 - a dataclasses.field
    prediction: str = such_as(QUANTITIES, "velocity")
    space: str | None = such_as(QUANTITIES, None)
    weight: str | None = such_as(WEIGHTS, None)
    time: TimeConfig = field(default_factory=TimeConfig)
    coupling: str = one_of(COUPLINGS, "independent")
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    log: LogConfig = field(default_factory=LogConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        _require(self.seed >= 0, "seed", "at least 0", self.seed)
        require_choices(self)
        self.loss()  # Checks path, prediction and space where they are used.
        self.torch_device()

    def loss(self) -> InterpolantLoss:
        """The objective on the path."""
        path = self.interpolant()
        return InterpolantLoss(
            path,
            self.prediction,
            self.space,
            self.time.interval,
            time=self.time.density(path),
            weight=self.weight,
            time_steps=self.time.steps,
        )

    def data_source(self, part: str = "train", *, flip: bool | None = None) -> Source:
        """The examples, of the size and the channels of the network.

        Args:
            part: train or heldout.
            flip: Whether to flip half of the images; None is ``data.flip``.

        Raises:
            ValueError: If they cannot be loaded.
        """
        data = self.data
        if data.name == "digits":
            return Digits(part)
        return self._examples(data.flip if flip is None else flip).part(part, data.held_out)

    def _examples(self, flip: bool) -> Images | Latents:
        """All examples, held out or not."""
        data, size, channels = self.data, self.model.size, self.model.in_channels
        assert data.source is not None
        if data.name == "folder":
            return ImageFolder(data.source, size, channels, flip)
        if data.name == "latents":
            return Latents(data.source, data.normalization or NORMALIZATIONS[0], flip)
        columns = {"image_column": data.image_column, "label_column": data.label_column}
        return HubImages(data.source, size, channels, flip, split=data.split, **columns)

    def interpolant(self) -> interpolants.Path:
        """The path."""
        return path_of(self.path)

    def torch_device(self) -> torch.device:
        """Where to compute.

        Raises:
            ValueError: If there is no such device here.
        """
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            return torch.empty(0, device=self.device).device
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"config: device must be available, got {self.device!r}: {reason}") from None


def read_config(
    arguments: Sequence[str] | None = None,
    kind: type[C] = Config,  # type: ignore[assignment]
    about: str = "Settings, from a YAML file and flags.",
) -> C:
    """Settings from flags (``--config file.yaml --training.steps 5``); by default those of the command line.

    Where there is no ``--config``, but a ``--run`` that was begun, the settings that it wrote are read first.

    Args:
        arguments: The flags.
        kind: The dataclass of the settings.
        about: What --help says that the script does; see make_parser.

    Raises:
        ValueError: One line that says what is wrong; an unknown key with the nearest that there is.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if issubclass(kind, Config):
        arguments = [*_of_run(arguments), *arguments]
    parser = make_parser(kind, about)
    try:
        parsed = parser.parse_args(arguments)
    except (ArgumentError, ValueError, TypeError) as error:
        raise ValueError(explained(str(error), parser, kind, arguments)) from None
    for name, group in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(group) and not isinstance(parsed[name], jsonargparse.Namespace):
            raise ValueError(f"config: {name} must be a group of settings, got {parsed[name]!r}.")
    for key, value in vars(parsed.as_flat()).items():  # a shell does so only where "~" begins a word
        if isinstance(value, str) and value.startswith("~"):
            value = parsed[key] = os.path.expanduser(value)
        # YAML has no other text: what is written of it into the folder of a run could not be read again.
        if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError(f"config: {key} must be text in UTF-8, got {value!r}. Rename the file or folder.")
    settings = parser.instantiate(parsed)
    config = kind(**{each.name: settings[each.name] for each in dataclasses.fields(kind)})
    require_typed(config, arguments)
    return config


def run_script(main: Callable[[C], None], kind: type[C] = Config) -> None:  # type: ignore[assignment]
    """Call ``main`` with the settings of the command line; its module says what ``--help`` shows.

    A user's mistake ends in one line and exit code 2, Ctrl-C in 130. It runs the same where an output is closed.
    """
    open_outputs()
    warnings.formatwarning = lambda message, *_, **__: f"{paint('warning:', YELLOW, sys.stderr)} {message}\n"
    try:
        main(read_config(kind=kind, about=sys.modules[main.__module__].__doc__ or ""))
    except (ValueError, TypeError, OSError, ImportError, FloatingPointError) as error:
        print(f"{paint('error:', RED, sys.stderr)} {error}", file=sys.stderr, flush=True)
        if torch.distributed.is_initialized():  # whose destructors may wait for the dead
            os._exit(2)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted: the same command begins again", file=sys.stderr)
        sys.exit(130)


def _require_interval(name: str, interval: tuple[float, float] | None) -> None:
    if interval is not None:
        check_interval(interval, f"config: {name}")


def _of_run(arguments: Sequence[str]) -> list[str]:
    """The flag that reads the settings of the run, if no file is given and it has some."""
    words = [word for argument in arguments for word in argument.split("=", 1)]
    if "--config" in words or "--run" not in words[:-1]:
        return []
    given = Path(words[words.index("--run") + 1]).expanduser()
    file = (run_of(given) or given) / CONFIG_FILE
    return ["--config", str(file)] if file.exists() else []


def _require(holds: bool, name: str, contract: str, value: object) -> None:
    if not holds:
        raise ValueError(f"config: {name} must be {contract}, got {value!r}.")
