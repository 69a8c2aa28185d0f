"""The named sizes of SiT.

S, B, L and XL are those of Ma et al. (2024), arXiv:2401.08740, table 1. T is ours, for tests and small data.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from models.sit import SiT


class Preset(NamedTuple):
    """What a name such as "SiT-XL/2" stands for; the number after the slash is the patch size."""

    depth: int
    hidden_size: int
    num_heads: int
    patch_size: int


_SIZES = (
    # name     depth hidden heads  patches
    ("SiT-T",      4,   128,    4, (1, 2, 4, 8)),
    ("SiT-S",     12,   384,    6, (2, 4, 8)),
    ("SiT-B",     12,   768,   12, (2, 4, 8)),
    ("SiT-L",     24,  1024,   16, (2, 4, 8)),
    ("SiT-XL",    28,  1152,   16, (2, 4, 8)),
)  # fmt: skip

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        f"{size}/{patch}": Preset(depth, hidden, heads, patch)
        for size, depth, hidden, heads, patches in _SIZES
        for patch in patches
    }
)


def create_model(
    name: str,
    *,
    input_size: int | Sequence[int],
    in_channels: int = 4,
    num_classes: int = 1000,
    class_dropout: float = 0.1,
    learn_sigma: bool = False,
) -> SiT:
    """Build a SiT of a named size with fresh weights.

    Args:
        name: A key of PRESETS, such as "SiT-XL/2": the size, and the side of a patch.
        input_size: Height and width of the input, or one integer for both; 32 for 256-pixel images in latents.
        in_channels: Channels of the input.
        num_classes: Number of classes without the null class; 0 for an unconditional model.
        class_dropout: Probability that training mode replaces a label by the null class.
        learn_sigma: Double the channels of the last layer, as in the released checkpoints.

    Raises:
        ValueError: If the name is unknown, or a value does not fit (see SiT).
    """
    if name not in PRESETS:
        by_lower_case = {valid.lower(): valid for valid in PRESETS}
        nearest = difflib.get_close_matches(str(name).lower(), by_lower_case, n=1, cutoff=0.0)[0]
        contract = f"one of {', '.join(PRESETS)}"
        raise ValueError(f"create_model: name must be {contract}, got {name!r}. Nearest: {by_lower_case[nearest]!r}.")
    preset = PRESETS[name]
    return SiT(
        input_size=input_size,
        patch_size=preset.patch_size,
        in_channels=in_channels,
        hidden_size=preset.hidden_size,
        depth=preset.depth,
        num_heads=preset.num_heads,
        num_classes=num_classes,
        class_dropout=class_dropout,
        learn_sigma=learn_sigma,
    )
