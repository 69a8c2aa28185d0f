"""Transformer blocks conditioned by adaptive layer norm: the time and the class set shift, scale and gate.

With the condition c of shape (B, D) and tokens x of shape (B, T, D), one block is

    shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = Linear(SiLU(c))
    x = x + gate_a * Attention(Norm(x) (1 + scale_a) + shift_a)
    x = x + gate_m * MLP(Norm(x) (1 + scale_m) + shift_m)

The linear map starts at zero, so each block starts as the identity ("adaLN-zero").
Source: Peebles & Xie (2023), arXiv:2212.09748, section 3.2; used unchanged by Ma et al. (2024), arXiv:2401.08740. The
parts of ``Style`` are off there; all on is the block of LightningDiT, Yao et al. (2025), arXiv:2501.01423.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel


@dataclass(frozen=True, kw_only=True)
class Style:
    """What later transformers do otherwise.

    Args:
        rope: Rotate queries and keys by the position of their patch, besides the position embedding; see rotary_angles.
        swiglu: SwiGLU of 2/3 of the hidden width in place of the MLP with GELU: Shazeer (2020), arXiv:2002.05202.
        rms_norm: Root-mean-square norm with a weight in place of layer norm: Zhang & Sennrich (2019), arXiv:1910.07467.
        qk_norm: Norm of each head's queries and keys: Henry et al. (2020), arXiv:2010.04245.
    """

    rope: bool = False
    swiglu: bool = False
    rms_norm: bool = False
    qk_norm: bool = False


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Return x (1 + scale) + shift, the same for all tokens of a sample: (B, T, D), (B, D), (B, D) -> (B, T, D)."""
    return x * (1 + scale[:, None]) + shift[:, None]


def norm(size: int, style: Style) -> nn.Module:
    """Layer norm without weights of its own, as the modulation after it supplies them; or RMS norm, with them."""
    return nn.RMSNorm(size, eps=1e-6) if style.rms_norm else nn.LayerNorm(size, elementwise_affine=False, eps=1e-6)


def adaptive_modulation(hidden_size: int, chunks: int) -> nn.Sequential:
    """Map the condition (B, D) to `chunks` vectors side by side (B, chunks D)."""
    return nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, chunks * hidden_size))


class Attention(nn.Module):
    """Multi-head self-attention, softmax(q k^T / sqrt(D / heads)) v on each head."""

    def __init__(self, hidden_size: int, num_heads: int, style: Style) -> None:
        super().__init__()
        self.num_heads, head = num_heads, hidden_size // num_heads
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.proj = nn.Linear(hidden_size, hidden_size)
        if style.qk_norm:  # with weights, since no modulation follows
            self.q_norm, self.k_norm = (nn.RMSNorm(head, eps=1e-6) if style.rms_norm else nn.LayerNorm(head)
                                        for _ in range(2))  # fmt: skip
        self.style = style

    def forward(self, x: Tensor, rotation: Tensor | None = None) -> Tensor:
        """Map tokens (B, T, D) to tokens (B, T, D), positions told by ``rotation`` (2, T, D/heads) if at all."""
        qkv: Tensor = self.qkv(x)  # (B, T, D) -> (B, T, 3 D)
        qkv = qkv.view(*x.shape[:2], 3, self.num_heads, x.shape[2] // self.num_heads)  # (B, T, 3, heads, D/heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()  # each (B, heads, T, D/heads)
        if self.style.qk_norm:
            # Under autocast q and k are narrower than the weights: the norm is taken in their precision.
            q = self.q_norm(q.to(self.q_norm.weight.dtype)).type_as(v)
            k = self.k_norm(k.to(self.k_norm.weight.dtype)).type_as(v)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        x = attend(q, k, v)  # (B, heads, T, D/heads)
        return cast(Tensor, self.proj(x.transpose(1, 2).flatten(2)))  # (B, heads, T, D/heads) -> (B, T, D)


class MLP(nn.Module):
    """Two linear layers with GELU in its tanh form between them."""

    def __init__(self, hidden_size: int, mlp_ratio: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(hidden_size, int(hidden_size * mlp_ratio))
        self.fc2 = nn.Linear(self.fc1.out_features, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.fc2(gelu(self.fc1(x))))  # (B, T, D) -> (B, T, D)


class SwiGLU(nn.Module):
    """W3 (SiLU(W1 x) * W2 x), with W1 and W2 side by side in one layer, and 2/3 of the width of an MLP."""

    def __init__(self, hidden_size: int, mlp_ratio: float) -> None:
        super().__init__()
        width = int(2 / 3 * int(hidden_size * mlp_ratio))
        self.w12 = nn.Linear(hidden_size, 2 * width)
        self.w3 = nn.Linear(width, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.w12(x).chunk(2, dim=-1)  # (B, T, D) -> (B, T, width) twice
        return cast(Tensor, self.w3(F.silu(gate) * value))  # (B, T, width) -> (B, T, D)


class SiTBlock(nn.Module):
    """One transformer block; see the equations at the head of this file."""

    def __init__(self, hidden_size: int, num_heads: int, mlp_ratio: float, style: Style) -> None:
        super().__init__()
        self.norm1 = norm(hidden_size, style)
        self.attn = Attention(hidden_size, num_heads, style)
        self.norm2 = norm(hidden_size, style)
        self.mlp = (SwiGLU if style.swiglu else MLP)(hidden_size, mlp_ratio)
        self.adaLN_modulation = adaptive_modulation(hidden_size, chunks=6)

    def forward(self, x: Tensor, condition: Tensor, rotation: Tensor | None = None) -> Tensor:
        """Map tokens (B, T, D) under a condition (B, D) to tokens (B, T, D)."""
        modulation: Tensor = self.adaLN_modulation(condition)  # (B, D) -> (B, 6 D)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulation.chunk(6, dim=-1)  # each (B, D)
        x = x + gate_a[:, None] * self.attn(modulate(self.norm1(x), shift_a, scale_a), rotation)
        x = x + gate_m[:, None] * self.mlp(modulate(self.norm2(x), shift_m, scale_m))
        return x


class FinalLayer(nn.Module):
    """Modulated norm and a linear map from each token to the pixels of its patch, ordered (p, q, c)."""

    def __init__(self, hidden_size: int, patch_size: int, out_channels: int, style: Style) -> None:
        super().__init__()
        self.norm_final = norm(hidden_size, style)
        self.linear = nn.Linear(hidden_size, patch_size * patch_size * out_channels)
        self.adaLN_modulation = adaptive_modulation(hidden_size, chunks=2)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map tokens (B, T, D) under a condition (B, D) to patches (B, T, p p C)."""
        modulation: Tensor = self.adaLN_modulation(condition)  # (B, D) -> (B, 2 D)
        shift, scale = modulation.chunk(2, dim=-1)  # each (B, D)
        return cast(Tensor, self.linear(modulate(self.norm_final(x), shift, scale)))  # (B, T, D) -> (B, T, p p C)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax of q k^T / sqrt(d), times v, on each head: three times (B, heads, T, d) -> (B, heads, T, d).

    Compiled for a CPU in 16 bits and up to 512 tokens, plain products around a fused softmax take 0.6 of the time of
    torch's fused kernel. They keep T x T weights, so training, which would store them, does without.
    """
    plain = q.device.type == "cpu" and q.dtype.itemsize == 2 and q.shape[2] <= 512
    if not plain or torch.is_grad_enabled() or not torch.compiler.is_compiling():
        return F.scaled_dot_product_attention(q, k, v)
    allowed = _narrow_products_allowed()
    allow = torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp  # on any device, its name notwithstanding
    allow(True)
    with sdpa_kernel(SDPBackend.MATH):
        x = F.scaled_dot_product_attention(q, k, v)
    allow(allowed)
    return x


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _narrow_products_allowed() -> bool:
    return bool(torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed())  # type: ignore[no-untyped-call]


def gelu(x: Tensor) -> Tensor:
    r"""GELU in its tanh form, :math:`x (1 + \tanh u) / 2 = x \, \mathrm{sigmoid}(2 u)`,
    :math:`u = \sqrt{2 / \pi} (x + 0.044715 x^3)`.

    Compiled for a CPU, the sigmoid takes a third of the time of the tanh, which was a tenth of a forward pass.
    """
    if not torch.compiler.is_compiling():
        return F.gelu(x, approximate="tanh")
    wide = x.float() if x.dtype.itemsize < 4 else x
    return (wide * torch.sigmoid(2 * math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3))).to(x.dtype)


def rotary_angles(head_dim: int, height: int, width: int, like: Tensor) -> Tensor:
    r"""The angles by which pairs of channels are rotated, from the row r and the column c of a patch.

    .. math:: \theta = [\omega_0 r, \omega_0 r, \omega_1 r, \omega_1 r, \dots, \omega_0 c, \omega_0 c, \dots],
        \quad \omega_i = 10000^{-i / (d/4)}, \quad i = 0, \dots, d/4 - 1

    Returns:
        Shape (height * width, head_dim), row by row; device of ``like``, and its dtype, or float32 if that is wider.

    Source: Su et al. (2021), arXiv:2104.09864; on two axes as Fang et al. (2023), arXiv:2303.11331.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    arange = functools.partial(torch.arange, dtype=dtype, device=like.device)
    omega = 10_000 ** (-arange(head_dim // 4) / (head_dim // 4))  # (d/4,)
    omega = omega.repeat_interleave(2)  # both channels of a pair, (d/2,)
    row, column = arange(height)[:, None] * omega, arange(width)[:, None] * omega  # (h, d/2), (w, d/2)
    row, column = row[:, None].expand(height, width, -1), column.expand(height, width, -1)
    return torch.cat([row, column], dim=2).flatten(0, 1)  # (h w, d)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotate the pairs (x_0, x_1), (x_2, x_3), ... of heads (..., T, d) by their angles' (cos, sin), (2, T, d)."""
    even, odd = x[..., ::2], x[..., 1::2]
    turned = torch.stack([-odd, even], dim=-1).flatten(-2)  # each pair by a right angle, (..., T, d)
    cos, sin = rotation.to(x.dtype).unbind()  # each (T, d)
    return x * cos + turned * sin  # (..., T, d)
