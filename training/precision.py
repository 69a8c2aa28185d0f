"""TF32, in which GPUs of NVIDIA multiply float32 faster: factors of 10 bits instead of 23, sums of float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch

TF32: Final = "tf32"


def require_tf32(precision: str, device: torch.device, setting: str) -> None:
    """Check that there is such a precision on the device.

    Raises:
        ValueError: If tf32 is asked for by the ``setting``, and the device is no GPU of NVIDIA.
    """
    if precision == TF32 and (device.type != "cuda" or torch.version.cuda is None):
        raise ValueError(
            f"config: {setting} must be float32 or bfloat16 on this device, {device.type}, got 'tf32'. It is for GPUs "
            "of NVIDIA."
        )


@contextmanager
def products(precision: str) -> Iterator[None]:
    """With tf32, matrix products and convolutions of float32 round their factors to it while this lasts.

    With another precision all is as torch has it: by default float32 for products, and TF32 for convolutions.
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
