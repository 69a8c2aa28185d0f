"""The network that a script measures or draws from: that of a run, or a pretrained one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, cast

import numpy as np
import torch
from torch import Tensor

from models import SiT
from training.checkpoint import Checkpoint, CheckpointError, find, run_of
from training.config import Config
from training.data import PARTS, Source
from training.fields import Field, unwrapped
from training.initial import is_official, load_pretrained
from training.settings import one_of, require_choices
from training.shards import FINGERPRINT

SAMPLERS: Final = ("ode", "sde")
PRECISIONS: Final = ("float32", "tf32", "bfloat16")
DATA: Final = ("name", "source", "split", "held_out", "image_column", "label_column", "normalization")
"""The settings that decide which images the data hold."""


@dataclass(frozen=True, kw_only=True)
class Trained(Config):
    """The settings of a run, and which of its networks to take.

    Args:
        weights: Which weights of a run: ema, another average such as ema-0.999 or ema-width-0.05, or model. For an
            official checkpoint: ema or model.
        pretrained: Network to take instead of that of a run: a folder or name on the hub that Field.from_pretrained
            reads; or an official file, e.g. SiT-XL-2-256x256.pt. As such a file does not say its path and prediction,
            set ``path`` and ``prediction`` to match.
    """

    weights: str = "ema"
    pretrained: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if is_official(self.weights) or run_of(self.weights) is not None:
            contract = "the name of an average, or model; a file of weights is --pretrained, a run is --run"
            raise ValueError(f"config: weights must be {contract}, got {self.weights!r}.")
        if self.pretrained is None or self.weights == "ema":
            return
        if not is_official(self.pretrained):
            raise ValueError(f"config: weights must be left out with pretrained, got {self.weights!r}. It has one set.")
        if self.weights != "model":
            raise ValueError(f"config: weights must be ema or model for an official file, got {self.weights!r}.")

    def checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint of the run; None if the network is a pretrained one."""
        if self.pretrained is not None:
            return None
        checkpoint = find(self.run)
        checkpoint.require_settings(dataclasses.asdict(self), only=("path", "prediction", "model."))
        return checkpoint

    def field(self, device: torch.device) -> Field:
        """The network on its path, unguided; for a run, that of the newest checkpoint.

        Raises:
            ValueError: If it is conditioned by vectors, which no source of data has.
        """
        if (checkpoint := self.checkpoint()) is not None:
            return checkpoint.field(weights=self.weights, device=device)
        assert self.pretrained is not None
        model, path, prediction = load_pretrained(
            self.pretrained, self.interpolant(), self.prediction, use_ema=self.weights == "ema"
        )
        if model.config.condition_dim:
            raise ValueError(
                "config: pretrained must be a network with classes or without conditions, got one of vectors of length "
                f"{model.config.condition_dim}. Sample from it in Python: docs/howto/own-network.md, vectors."
            )
        return Field(model.to(device), path, prediction)


@dataclass(frozen=True, kw_only=True)
class Drawing(Trained):
    """A network, and how to turn its samples into images.

    Args:
        precision: float32; tf32 (NVIDIA GPUs), which makes float32 products and convolutions faster and less precise;
            or bfloat16 for the products in the blocks.
        vae: Folder or name on the hub of the VAE that decodes latents; null is that of the run's data.
    """

    precision: str = one_of(PRECISIONS, "float32")
    vae: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choices(self)
        if self.vae is not None and self.data.normalization == "per_channel":
            raise ValueError("config: vae must be null for latents that are normalized per channel. Set data.vae.")


@dataclass(frozen=True, kw_only=True)
class Measuring(Trained):
    """A network, and the images to measure it on.

    Args:
        part: Part of the data: train; or heldout, after a check that the run was trained on the rest.
    """

    part: str = one_of(PARTS, "train")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_choices(self)

    def checkpoint(self) -> Checkpoint | None:
        """See Trained.

        Raises:
            CheckpointError: If some of the data are held out, or are to be, and the run was not trained on the rest.
        """
        checkpoint = super().checkpoint()
        if checkpoint is not None and (self.part == "heldout" or self.data.held_out is not None):
            try:
                checkpoint.require_data(self.data_source().fingerprint)
            except CheckpointError as error:
                raise CheckpointError(f"{error} To measure all of other data, set data.held_out to null.") from None
        return checkpoint

    def images(self) -> Source:
        """The images, none of them flipped."""
        return self.data_source(self.part, flip=False)

    def identity_of_images(self, source: Source) -> dict[str, Any]:
        """What identifies the images, plain data."""
        settings = {name: getattr(self.data, name) for name in DATA}
        return {"data": settings, "part": self.part, "images": len(source), FINGERPRINT: source.fingerprint}


def require_fit(model: SiT, source: Source) -> None:
    """Raise ValueError unless the network has the shape and the classes of the images."""
    if model.input_shape != source.shape:
        raise ValueError(f"config: data must have the shape of the network, {model.input_shape}, got {source.shape}.")
    if model.num_classes and not 0 < source.num_classes <= model.num_classes:
        raise ValueError(
            f"config: data must have classes, at most the {model.num_classes} of the network, got {source.num_classes}."
        )


def read_images(source: Source, indices: Sequence[int], seed: int, model: SiT) -> tuple[Tensor, Tensor | None]:
    """Images as the source gives them, and their labels (None if the network has no classes), on its device.

    Raises:
        ValueError: If one cannot be read.
    """
    device = model.pos_embed.device
    batch = source.batch(indices, [(seed, index) for index in indices])
    if batch.unreadable:
        raise ValueError(f"data: every image must be readable, and is not: {batch.unreadable[0]}. Remove it.")
    return batch.data.to(device), batch.labels.to(device) if model.num_classes else None


def spread(count: int | None, source: Source) -> list[int]:
    """The indices of ``count`` images, spread evenly over all; None is all."""
    wanted = min(count or len(source), len(source))
    return [int(index) for index in np.linspace(0, len(source) - 1, wanted).round()]


def identity(field: Field) -> dict[str, Any]:
    """What tells a network on its path from any other, plain data."""
    digest = sha256()
    for name, tensor in cast(SiT, unwrapped(field.model)).state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return {"path": field.path.to_text(), "prediction": field.prediction, "sha256": digest.hexdigest()}
