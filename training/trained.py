"""The network that a script measures or draws from: that of a run, or a pretrained one."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, cast

import torch

from models import SiT
from training.checkpoint import find
from training.config import Config
from training.fields import Field


@dataclass(frozen=True, kw_only=True)
class Trained(Config):
    """The settings of a run, and which of its networks to take.

    Args:
        output: Folder that is written to.
        weights: Of the run: ema, another average such as ema-0.999 or ema-width-0.05, or model.
        pretrained: A folder or name on the hub that Field.from_pretrained reads, in place of the run.
    """

    output: str
    weights: str = "ema"
    pretrained: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pretrained is not None and self.weights != "ema":
            raise ValueError(f"config: weights must be left out with pretrained, got {self.weights!r}. It has one set.")

    def field(self, device: torch.device) -> Field:
        """The network on its path, unguided; of a run it is that of the newest checkpoint."""
        if self.pretrained is not None:
            return Field.from_pretrained(self.pretrained, device=device)
        checkpoint = find(self.run)
        checkpoint.require_settings(dataclasses.asdict(self), only=("path", "prediction", "model."))
        return checkpoint.field(weights=self.weights, device=device)


def identity(field: Field) -> dict[str, Any]:
    """What tells a network on its path from any other, plain data."""
    digest = sha256()
    for name, tensor in cast(SiT, field.model).state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return {"path": field.path.to_text(), "prediction": field.prediction, "sha256": digest.hexdigest()}
