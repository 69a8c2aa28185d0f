"""TF32: NVIDIA GPUs multiply float32 faster with factors rounded to 10 bits instead of 23; sums stay in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch

TF32: Final = "tf32"


def require_tf32(precision: str, device: torch.device, setting: str) -> None:
    """Check that the device has the precision.

    Raises:
        ValueError: If the ``setting`` asks for tf32, and the device is not an NVIDIA GPU.
    """
    if precision == TF32 and (device.type != "cuda" or torch.version.cuda is None):
        raise ValueError(
            f"config: {setting} must be float32 or bfloat16 on this device, {device.type}, got 'tf32'. TF32 needs an "
            "NVIDIA GPU."
        )


@contextmanager
def products(precision: str) -> Iterator[None]:
    """Within this context tf32 lets float32 matrix products and convolutions round their factors to TF32.

    Other precisions leave torch's settings: by default float32 for products, and TF32 for convolutions.
    """
    flags: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [flag.allow_tf32 for flag in flags]
    try:
        for flag in flags if precision == TF32 else ():
            flag.allow_tf32 = True
        yield
    finally:
        for flag, was in zip(flags, before, strict=True):
            flag.allow_tf32 = was
