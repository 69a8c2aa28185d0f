"""Transformer blocks conditioned by adaptive layer norm: the time and the class set shift, scale and gate.

With the condition c of shape (B, D) and tokens x of shape (B, T, D), one block is

    shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = Linear(SiLU(c))
    x = x + gate_a * Attention(LayerNorm(x) (1 + scale_a) + shift_a)
    x = x + gate_m * MLP(LayerNorm(x) (1 + scale_m) + shift_m)

The linear map starts at zero, so each block starts as the identity ("adaLN-zero").
Source: Peebles & Xie (2023), arXiv:2212.09748, section 3.2; used unchanged by Ma et al. (2024), arXiv:2401.08740.
"""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Return x (1 + scale) + shift, the same for all tokens of a sample: (B, T, D), (B, D), (B, D) -> (B, T, D)."""
    return x * (1 + scale[:, None]) + shift[:, None]


def layer_norm(hidden_size: int) -> nn.LayerNorm:
    """Layer norm without weights of its own: the modulation after it supplies them."""
    return nn.LayerNorm(hidden_size, elementwise_affine=False, eps=1e-6)


def adaptive_modulation(hidden_size: int, chunks: int) -> nn.Sequential:
    """Map the condition (B, D) to `chunks` vectors side by side (B, chunks D)."""
    return nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, chunks * hidden_size))


class Attention(nn.Module):
    """Multi-head self-attention, softmax(q k^T / sqrt(D / heads)) v on each head."""

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.proj = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        qkv: Tensor = self.qkv(x)  # (B, T, D) -> (B, T, 3 D)
        qkv = qkv.view(*x.shape[:2], 3, self.num_heads, x.shape[2] // self.num_heads)  # (B, T, 3, heads, D/heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()  # each (B, heads, T, D/heads)
        x = F.scaled_dot_product_attention(q, k, v)
        return cast(Tensor, self.proj(x.transpose(1, 2).flatten(2)))  # (B, heads, T, D/heads) -> (B, T, D)


class MLP(nn.Module):
    """Two linear layers with GELU in its tanh form between them."""

    def __init__(self, hidden_size: int, mlp_ratio: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(hidden_size, int(hidden_size * mlp_ratio))
        self.fc2 = nn.Linear(self.fc1.out_features, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.fc2(F.gelu(self.fc1(x), approximate="tanh")))  # (B, T, D) -> (B, T, D)


class SiTBlock(nn.Module):
    """One transformer block; see the equations at the head of this file."""

    def __init__(self, hidden_size: int, num_heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1 = layer_norm(hidden_size)
        self.attn = Attention(hidden_size, num_heads)
        self.norm2 = layer_norm(hidden_size)
        self.mlp = MLP(hidden_size, mlp_ratio)
        self.adaLN_modulation = adaptive_modulation(hidden_size, chunks=6)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map tokens (B, T, D) under a condition (B, D) to tokens (B, T, D)."""
        modulation: Tensor = self.adaLN_modulation(condition)  # (B, D) -> (B, 6 D)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulation.chunk(6, dim=-1)  # each (B, D)
        x = x + gate_a[:, None] * self.attn(modulate(self.norm1(x), shift_a, scale_a))
        x = x + gate_m[:, None] * self.mlp(modulate(self.norm2(x), shift_m, scale_m))
        return x


class FinalLayer(nn.Module):
    """Modulated layer norm and a linear map from each token to the pixels of its patch, ordered (p, q, c)."""

    def __init__(self, hidden_size: int, patch_size: int, out_channels: int) -> None:
        super().__init__()
        self.norm_final = layer_norm(hidden_size)
        self.linear = nn.Linear(hidden_size, patch_size * patch_size * out_channels)
        self.adaLN_modulation = adaptive_modulation(hidden_size, chunks=2)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map tokens (B, T, D) under a condition (B, D) to patches (B, T, p p C)."""
        modulation: Tensor = self.adaLN_modulation(condition)  # (B, D) -> (B, 2 D)
        shift, scale = modulation.chunk(2, dim=-1)  # each (B, D)
        return cast(Tensor, self.linear(modulate(self.norm_final(x), shift, scale)))  # (B, T, D) -> (B, T, p p C)
