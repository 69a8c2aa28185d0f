"""What the transformer reads: image patches, their positions, the time and the class label, each as vectors.

Source: Peebles & Xie (2023), arXiv:2212.09748; Ma et al. (2024), arXiv:2401.08740.
"""

from __future__ import annotations

import functools
import math
from typing import cast

import torch
from torch import Tensor, nn

NUM_FREQUENCIES = 128


class PatchEmbedding(nn.Module):
    """Cut an image into square patches and project each to a token; tokens run row by row."""

    def __init__(self, patch_size: int, in_channels: int, hidden_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, hidden_size, kernel_size=patch_size, stride=patch_size)

    def reset_parameters(self) -> None:
        """Xavier-uniform on the weight flattened to (D, C p p): the convolution is a linear map of each patch."""
        nn.init.xavier_uniform_(self.proj.weight.view(self.proj.out_channels, -1))
        nn.init.zeros_(cast(Tensor, self.proj.bias))

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.proj(x)  # (B, C, H, W) -> (B, D, H/p, W/p)
        return tokens.flatten(2).transpose(1, 2)  # (B, T, D), T = H/p * W/p


class TimestepEmbedding(nn.Module):
    r"""Embed the time: sinusoids, then a two-layer MLP with SiLU.

    .. math:: e(t) = [\cos(\omega_i t), \sin(\omega_i t)], \quad \omega_i = 10000^{-i/128}, \quad i = 0, \dots, 127

    The time is not scaled: t = 0 is noise and t = 1 is data.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(2 * NUM_FREQUENCIES, hidden_size),
            nn.SiLU(),
            nn.Linear(hidden_size, hidden_size),
        )

    def reset_parameters(self) -> None:
        """Weights N(0, 0.02^2), biases zero."""
        for layer in (self.mlp[0], self.mlp[2]):
            nn.init.normal_(cast(Tensor, layer.weight), std=0.02)
            nn.init.zeros_(cast(Tensor, layer.bias))

    def forward(self, t: Tensor) -> Tensor:
        """Map times of shape (B,) to vectors of shape (B, D)."""
        weight = cast(Tensor, self.mlp[0].weight)
        # Eight bits of mantissa cannot tell neighbouring times apart, so half precision begins only at the MLP. The
        # frequencies are made here and not kept in a buffer, which Module.bfloat16() would round.
        dtype = torch.promote_types(torch.promote_types(t.dtype, weight.dtype), torch.float32)
        index = torch.arange(NUM_FREQUENCIES, dtype=dtype, device=t.device)
        frequencies = torch.exp(-math.log(10_000) * index / NUM_FREQUENCIES)
        angles = t.to(dtype)[:, None] * frequencies  # (B,) -> (B, 128)
        sinusoids = torch.cat([angles.cos(), angles.sin()], dim=-1)  # (B, 256)
        return cast(Tensor, self.mlp(sinusoids.to(weight.dtype)))  # (B, D)


class LabelEmbedding(nn.Module):
    """Embed the class label; in training mode, replace it by the null class at random (for guidance).

    Args:
        num_classes: Real classes 0, ..., num_classes - 1. The table has one row more, the last: the null class.
        hidden_size: Length D of the embedding.
        class_dropout: Probability that a label is replaced, independently for each sample; none are in eval mode.
    """

    def __init__(self, num_classes: int, hidden_size: int, class_dropout: float) -> None:
        super().__init__()
        self.null_class = num_classes
        self.class_dropout = class_dropout
        self.embedding_table = nn.Embedding(num_classes + 1, hidden_size)

    def reset_parameters(self) -> None:
        """Table N(0, 0.02^2)."""
        nn.init.normal_(self.embedding_table.weight, std=0.02)

    def forward(self, y: Tensor) -> Tensor:
        """Map labels of shape (B,) to vectors of shape (B, D)."""
        y = y.long()  # A narrow integer type could not hold the null class.
        if self.training and self.class_dropout > 0:
            dropped = torch.rand(y.shape, device=y.device) < self.class_dropout
            y = torch.where(dropped, self.null_class, y)
        return cast(Tensor, self.embedding_table(y))  # (B,) -> (B, D)


class VectorEmbedding(nn.Module):
    """Project a vector, without bias, so that the zero vector is no condition; in training mode, drop some to it.

    Args:
        condition_dim: Length of the vectors.
        hidden_size: Length D of the embedding.
        dropout: Probability that a vector is replaced by zero, independently for each sample; none are in eval mode.
    """

    def __init__(self, condition_dim: int, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.proj = nn.Linear(condition_dim, hidden_size, bias=False)

    def reset_parameters(self) -> None:
        """Xavier-uniform."""
        nn.init.xavier_uniform_(self.proj.weight)

    def forward(self, y: Tensor) -> Tensor:
        """Map vectors of shape (B, condition_dim) to vectors of shape (B, D)."""
        y = y.to(self.proj.weight.dtype)
        if self.training and self.dropout > 0:
            y = y * (torch.rand(len(y), 1, device=y.device) >= self.dropout)
        return cast(Tensor, self.proj(y))  # (B, condition_dim) -> (B, D)


def sincos_position_embedding(dim: int, height: int, width: int) -> Tensor:
    r"""Return the fixed two-dimensional position embedding of a grid of patches.

    .. math:: e(r, c) = [\sin(\omega c), \cos(\omega c), \sin(\omega r), \cos(\omega r)],
        \quad \omega_i = 10000^{-i/(D/4)}, \quad i = 0, \dots, D/4 - 1

    The first half of the channels encodes the column c, the second half the row r, both counted in patches from 0.

    Args:
        dim: Channels D, a multiple of 4.
        height: Rows of patches.
        width: Columns of patches.

    Returns:
        Table of shape (height * width, dim), row by row, in float64 on the CPU: cast it once, where it is stored.

    Raises:
        ValueError: If dim is not a positive multiple of 4, or the grid is empty.

    Source: Vaswani et al. (2017), arXiv:1706.03762; He et al. (2021), arXiv:2111.06377, for two dimensions.
    """
    where = "sincos_position_embedding"
    if dim < 4 or dim % 4:
        raise ValueError(
            f"{where}: dim must be a positive multiple of 4, got {dim!r}. Sine and cosine share each axis."
        )
    if height < 1 or width < 1:
        raise ValueError(f"{where}: height and width must be positive, got {(height, width)!r}. Count them in patches.")
    # On the CPU whatever the default device: a meta device has no values, and some accelerators have no float64.
    arange = functools.partial(torch.arange, dtype=torch.float64, device="cpu")
    omega = 10_000 ** (-arange(dim // 4) / (dim // 4))  # (D/4,)
    column = arange(width)[:, None] * omega  # (W, D/4)
    row = arange(height)[:, None] * omega  # (H, D/4)
    column = torch.cat([column.sin(), column.cos()], dim=1).expand(height, width, -1)  # (H, W, D/2)
    row = torch.cat([row.sin(), row.cos()], dim=1)[:, None].expand(height, width, -1)  # (H, W, D/2)
    return torch.cat([column, row], dim=2).flatten(0, 1)  # (H W, D)
