"""The named sizes of SiT.

S, B, L and XL are those of Ma et al. (2024), arXiv:2401.08740, table 1; LightningDiT is the block of Yao et al. (2025),
arXiv:2501.01423, at those sizes and two of its own. N and T, half as wide, are ours, for tests and small data.
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
    modern: bool = False


class Published(NamedTuple):
    """Figures of the paper for 32 x 32 x 4 latents of ImageNet at 256 pixels, and 1000 classes.

    Attributes:
        parameters: With the position embedding and the doubled last layer (learn_sigma).
        gmacs: Multiply-accumulates of one forward pass of one sample, in 10^9.
        fid_ode, fid_sde: FID-50K after 400,000 steps, without guidance: Ma et al. (2024), arXiv:2401.08740, table 1.
    """

    parameters: int
    gmacs: float
    fid_ode: float
    fid_sde: float


_SIZES = (
    # name              depth hidden heads modern patches
    ("SiT-N",              4,    64,    2, False, (1, 2, 4, 8)),
    ("SiT-T",              4,   128,    4, False, (1, 2, 4, 8)),
    ("SiT-S",             12,   384,    6, False, (2, 4, 8)),
    ("SiT-B",             12,   768,   12, False, (2, 4, 8)),
    ("SiT-L",             24,  1024,   16, False, (2, 4, 8)),
    ("SiT-XL",            28,  1152,   16, False, (2, 4, 8)),
    ("LightningDiT-B",    12,   768,   12, True,  (1, 2)),
    ("LightningDiT-L",    24,  1024,   16, True,  (1, 2)),
    ("LightningDiT-XL",   28,  1152,   16, True,  (1, 2)),
    ("LightningDiT-1p0B", 24,  1536,   24, True,  (1, 2)),
    ("LightningDiT-1p6B", 28,  1792,   28, True,  (1, 2)),
)  # fmt: skip

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        f"{size}/{patch}": Preset(depth, hidden, heads, patch, modern)
        for size, depth, hidden, heads, modern, patches in _SIZES
        for patch in patches
    }
)

PUBLISHED: Mapping[str, Published] = MappingProxyType(
    {
        # name                  parameters  GMACs  FID: ODE    SDE
        "SiT-S/2":  Published( 32_963_360,   6.06,  58.97, 57.64),
        "SiT-B/2":  Published(130_512_416,  23.0,   34.84, 33.02),
        "SiT-L/2":  Published(458_102_816,  80.7,   20.01, 18.79),
        "SiT-XL/2": Published(675_129_632, 118.6,   18.04, 17.19),
    }
)  # fmt: skip


def create_model(
    name: str,
    *,
    input_size: int | Sequence[int],
    in_channels: int = 4,
    num_classes: int = 1000,
    class_dropout: float = 0.1,
    learn_sigma: bool = False,
    condition_dim: int = 0,
    **style: bool,
) -> SiT:
    """Build a SiT of a named size with fresh weights.

    Args:
        name: A key of PRESETS, such as "SiT-XL/2": the size, and the side of a patch.
        input_size: Height and width of the input, or one integer for both; 32 for 256-pixel images in latents.
        in_channels: Channels of the input.
        num_classes: Number of classes without the null class; 0 for an unconditional model.
        class_dropout: Probability that training mode replaces a label by the null class.
        learn_sigma: Double the channels of the last layer, as in the released checkpoints.
        condition_dim: Length of vectors that condition it in place of classes; see SiT. For training in Python: no data
            of the command line have vectors.
        style: rope, swiglu, rms_norm or qk_norm, each True or False, in place of the preset's; see blocks.Style.

    Raises:
        ValueError: If the name is unknown, or a value does not fit (see SiT).
        TypeError: If there is no such argument.
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
        condition_dim=condition_dim,
        **{**dict.fromkeys(("rope", "swiglu", "rms_norm", "qk_norm"), preset.modern), **style},
    )
