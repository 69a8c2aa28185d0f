"""SiT, the Scalable Interpolant Transformer: a network from a noisy image, a time and a class to an image.

The network does not know what its output means (velocity, score, noise or data), nor on which path x lies.
Source: Ma et al. (2024), arXiv:2401.08740; the block is that of Peebles & Xie (2023), arXiv:2212.09748.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from models.blocks import FinalLayer, SiTBlock
from models.embeddings import LabelEmbedding, PatchEmbedding, TimestepEmbedding, sincos_position_embedding


@dataclass(frozen=True, kw_only=True)
class SiTConfig:
    """All that the constructor of :class:`SiT` was given: ``SiT(**dataclasses.asdict(config))`` rebuilds the network.

    An integer input_size is stored as (H, W). The values are plain numbers, so the dictionary goes into JSON and back.

    Raises:
        ValueError: If a value is out of its range, or two of them do not fit together.
    """

    input_size: int | Sequence[int]
    patch_size: int
    in_channels: int
    hidden_size: int
    depth: int
    num_heads: int
    mlp_ratio: float = 4.0
    num_classes: int = 1000
    class_dropout: float = 0.1
    learn_sigma: bool = False

    def __post_init__(self) -> None:
        for name in ("patch_size", "in_channels", "hidden_size", "depth", "num_heads"):
            if not _is_integer(getattr(self, name), minimum=1):
                raise ValueError(
                    _message(name, "a positive integer", getattr(self, name), "Presets hold usual values.")
                )
        size = tuple(self.input_size) if isinstance(self.input_size, Sequence) else (self.input_size,) * 2
        if len(size) != 2 or not all(_is_integer(n, minimum=1) and n % self.patch_size == 0 for n in size):
            contract = f"an integer or (H, W), each a positive multiple of patch_size = {self.patch_size}"
            raise ValueError(_message("input_size", contract, self.input_size, "Change one of the two."))
        object.__setattr__(self, "input_size", size)
        if self.hidden_size % 4 or self.hidden_size % self.num_heads:
            contract = f"a multiple of 4 (position embedding) and of num_heads = {self.num_heads}"
            raise ValueError(_message("hidden_size", contract, self.hidden_size, "Change one of the two."))
        if not 1 / self.hidden_size <= self.mlp_ratio < math.inf:
            raise ValueError(
                _message("mlp_ratio", "finite and at least 1 / hidden_size", self.mlp_ratio, "4.0 is usual.")
            )
        if not _is_integer(self.num_classes, minimum=0):
            raise ValueError(_message("num_classes", "an integer >= 0", self.num_classes, "0 is unconditional."))
        if not 0 <= self.class_dropout <= 1:
            raise ValueError(_message("class_dropout", "in [0, 1]", self.class_dropout, "It is a probability."))
        if self.learn_sigma not in (True, False):
            raise ValueError(_message("learn_sigma", "True or False", self.learn_sigma, "It doubles the channels."))


class SiT(nn.Module):
    """Scalable Interpolant Transformer.

    The names in the state dict are those of the released checkpoints. ``pos_embed`` is a frozen parameter, and so is
    counted by ``sum(p.numel() for p in model.parameters())``, as the published sizes are.

    Args:
        input_size: Height and width of x in pixels (or latent pixels), or one integer for both.
        patch_size: Side p of a patch; divides both sizes.
        in_channels: Channels C of x.
        hidden_size: Width D of the tokens; a multiple of 4 and of num_heads.
        depth: Number of blocks.
        num_heads: Attention heads.
        mlp_ratio: Hidden width of each MLP, as a multiple of D.
        num_classes: Classes 0, ..., num_classes - 1, besides the null class num_classes; 0 for no label at all.
        class_dropout: Probability that training mode replaces a label by the null class; not used if num_classes = 0.
        learn_sigma: Double the channels of the last layer, as in the released checkpoints. The second half is dropped.

    Raises:
        ValueError: If a value is out of its range, or two of them do not fit together.
    """

    def __init__(
        self,
        *,
        input_size: int | Sequence[int],
        patch_size: int,
        in_channels: int,
        hidden_size: int,
        depth: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        num_classes: int = 1000,
        class_dropout: float = 0.1,
        learn_sigma: bool = False,
    ) -> None:
        super().__init__()
        self.config = SiTConfig(
            input_size=input_size,
            patch_size=patch_size,
            in_channels=in_channels,
            hidden_size=hidden_size,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            num_classes=num_classes,
            class_dropout=class_dropout,
            learn_sigma=learn_sigma,
        )
        self.num_classes = num_classes
        self.null_class = num_classes if num_classes > 0 else None
        height, width = cast(tuple[int, int], self.config.input_size)
        self.input_shape = (in_channels, height, width)
        self.grid = (height // patch_size, width // patch_size)

        self.x_embedder = PatchEmbedding(patch_size, in_channels, hidden_size)
        self.t_embedder = TimestepEmbedding(hidden_size)
        self.y_embedder = LabelEmbedding(num_classes, hidden_size, class_dropout) if num_classes > 0 else None
        tokens = self.grid[0] * self.grid[1]
        self.pos_embed = nn.Parameter(torch.empty(1, tokens, hidden_size), requires_grad=False)
        self.blocks = nn.ModuleList(SiTBlock(hidden_size, num_heads, mlp_ratio) for _ in range(depth))
        self.final_layer = FinalLayer(hidden_size, patch_size, in_channels * (2 if learn_sigma else 1))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw fresh weights, also after ``to_empty`` from the meta device; the network then returns zero.

        Linear layers Xavier-uniform with bias zero (qkv as one matrix); what modulates, and the last layer, zero.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        self.x_embedder.reset_parameters()
        self.t_embedder.reset_parameters()
        if self.y_embedder is not None:
            self.y_embedder.reset_parameters()
        self.pos_embed.copy_(sincos_position_embedding(self.config.hidden_size, *self.grid))
        for name, parameter in self.named_parameters():
            if "adaLN_modulation" in name or name.startswith("final_layer.linear"):
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Run the network.

        Args:
            x: Images, shape (B, C, H, W).
            t: Times in [0, 1], 0 noise and 1 data, floating point, shape (B,).
            y: Labels in [0, num_classes], the last of them the null class, integer, shape (B,); None if unconditional.

        Returns:
            Shape (B, C, H, W), in the precision of the weights or of the surrounding autocast.

        Raises:
            ValueError: If a shape does not fit, y is missing or not wanted, or a label is out of range. Labels are read
                only on the CPU outside of torch.compile: elsewhere this would stall the device or break the graph.
            TypeError: If t is not floating point or y is not integer.
        """
        self._check(x, t, y)
        tokens = self.x_embedder(x) + self.pos_embed  # (B, C, H, W) -> (B, T, D)
        condition = self.t_embedder(t)  # (B,) -> (B, D)
        if self.y_embedder is not None:
            condition = condition + self.y_embedder(y)
        for block in self.blocks:
            tokens = block(tokens, condition)
        patches: Tensor = self.final_layer(tokens, condition)  # (B, T, D) -> (B, T, p p C')
        return self._join(patches)[:, : self.config.in_channels]  # (B, T, p p C') -> (B, C, H, W)

    def _join(self, patches: Tensor) -> Tensor:
        """Lay patches side by side: (B, h w, p q C') -> (B, C', h p, w q)."""
        (h, w), p = self.grid, self.config.patch_size
        batch, channels = patches.shape[0], patches.shape[2] // p**2
        image = patches.view(batch, h, w, p, p, channels).permute(0, 5, 1, 3, 2, 4)  # (B, C', h, p, w, q)
        return image.reshape(batch, channels, h * p, w * p)  # (B, C', h p, w q)

    def _check(self, x: Tensor, t: Tensor, y: Tensor | None) -> None:
        where = "SiT.forward"
        if x.ndim != 4 or x.shape[1:] != self.input_shape:
            contract = f"of shape (B, C, H, W) with (C, H, W) = {self.input_shape}"
            raise ValueError(_message("x", contract, tuple(x.shape), "Build the model for this size.", where))
        batch = x.shape[0]
        if t.shape != (batch,):
            contract = f"of shape (B,) with B = {batch}"
            raise ValueError(_message("t", contract, tuple(t.shape), "For one time, pass t.expand(B).", where))
        if not t.is_floating_point():
            raise TypeError(_message("t", "floating point", t.dtype, "Times lie in [0, 1], not 0, 1, ..., 999.", where))
        if self.y_embedder is None:
            if y is not None:
                fix = "Build the model with num_classes > 0 to condition it."
                raise ValueError(_message("y", "None, as num_classes is 0", tuple(y.shape), fix, where))
            return
        if y is None:
            fix = f"For no condition, pass the null class {self.null_class} for each sample."
            raise ValueError(_message("y", f"labels of shape (B,) with B = {batch}", None, fix, where))
        if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
            raise TypeError(_message("y", "of an integer dtype", y.dtype, "Pass y.long().", where))
        if y.shape != (batch,):
            fix = "Pass class indices, one for each sample."
            raise ValueError(_message("y", f"of shape (B,) with B = {batch}", tuple(y.shape), fix, where))
        if y.device.type == "cpu" and not torch.compiler.is_compiling():
            labels = y.long()  # A narrow integer type would wrap num_classes.
            wrong = labels[(labels < 0) | (labels > self.num_classes)]
            if wrong.numel() > 0:
                contract = f"in [0, {self.num_classes}]"
                fix = f"Classes begin at 0, and {self.null_class} is the null class."
                raise ValueError(_message("y", contract, wrong.tolist(), fix, where))


def _is_integer(value: object, *, minimum: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= minimum


def _message(argument: str, contract: str, value: object, fix: str, where: str = "SiT") -> str:
    return f"{where}: {argument} must be {contract}, got {value!r}. {fix}"
