"""Small networks on disk."""

from __future__ import annotations

from pathlib import Path

import torch

import interpolants as ip
from models import create_model
from training import Field


def save_network(
    folder: Path, shape: tuple[int, int, int] = (1, 8, 8), num_classes: int = 10, damaged: int | None = None
) -> Path:
    """The folder, with a field of a SiT-T/8 that answers; of one class with NaN if it is ``damaged``."""
    torch.manual_seed(0)
    model = create_model("SiT-T/8", input_size=shape[1], in_channels=shape[0], num_classes=num_classes)
    for parameter in model.parameters():  # a fresh network returns zero, whatever it is asked
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    if damaged is not None:
        model.y_embedder.embedding_table.weight.data[damaged] = torch.nan
    Field(model, ip.linear()).save_pretrained(folder)
    return folder
