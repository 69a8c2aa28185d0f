"""SiT, the Scalable Interpolant Transformer: a network from a noisy image, a time and a class to an image.

The network does not know what its output means (velocity, score, noise or data), nor on which path x lies.
Source: Ma et al. (2024), arXiv:2401.08740; the block is that of Peebles & Xie (2023), arXiv:2212.09748.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.blocks import FinalLayer, SiTBlock, Style, rotary_angles
from models.embeddings import (
    LabelEmbedding,
    PatchEmbedding,
    TimestepEmbedding,
    VectorEmbedding,
    sincos_position_embedding,
)
from models.hub import SharedNetwork


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
    condition_dim: int = 0
    rope: bool = False
    swiglu: bool = False
    rms_norm: bool = False
    qk_norm: bool = False

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
        if not _is_integer(self.condition_dim, minimum=0) or (self.condition_dim and self.num_classes):
            fix = "A network is conditioned by classes or by vectors."
            raise ValueError(_message("condition_dim", "0, or positive with num_classes=0", self.condition_dim, fix))
        for name in ("learn_sigma", "rope", "swiglu", "rms_norm", "qk_norm"):
            if getattr(self, name) not in (True, False):
                raise ValueError(_message(name, "True or False", getattr(self, name), "It is a switch."))
        if self.rope and self.hidden_size // self.num_heads % 4:
            contract = "False where hidden_size / num_heads is no multiple of 4"
            raise ValueError(_message("rope", contract, self.rope, "It rotates pairs of channels on two axes."))

    @property
    def style(self) -> Style:
        """What the blocks do otherwise than those of the paper."""
        return Style(rope=self.rope, swiglu=self.swiglu, rms_norm=self.rms_norm, qk_norm=self.qk_norm)


class SiT(SharedNetwork):
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
        condition_dim: Length of the vectors that condition the network in place of classes, with num_classes=0; for
            guidance and dropout the null condition is the zero vector. Any other condition enters by a module of your
            own that maps what is passed as y to (B, D), set as ``model.y_embedder``.
        rope, swiglu, rms_norm, qk_norm: What later transformers do otherwise; see blocks.Style. All on is LightningDiT.

    Attributes:
        null_class: What ``y`` is where no condition is meant: num_classes, or 0 for vectors; None if unconditional.
        class_dropout: If it is 0, training does not reach the null class.
        activation_checkpointing: Keep only the input of each block for the backward pass, and run it once more there:
            less memory, a third more time. False at first.

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
        condition_dim: int = 0,
        rope: bool = False,
        swiglu: bool = False,
        rms_norm: bool = False,
        qk_norm: bool = False,
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
            condition_dim=condition_dim,
            rope=rope,
            swiglu=swiglu,
            rms_norm=rms_norm,
            qk_norm=qk_norm,
        )
        self.num_classes, self.class_dropout = num_classes, class_dropout
        self.null_class = num_classes if num_classes > 0 else 0 if condition_dim > 0 else None
        self.activation_checkpointing = False
        height, width = cast(tuple[int, int], self.config.input_size)
        self.input_shape = (in_channels, height, width)
        self.grid = (height // patch_size, width // patch_size)

        self.x_embedder = PatchEmbedding(patch_size, in_channels, hidden_size)
        self.t_embedder = TimestepEmbedding(hidden_size)
        self.y_embedder: nn.Module | None = None
        if num_classes > 0:
            self.y_embedder = LabelEmbedding(num_classes, hidden_size, class_dropout)
        elif condition_dim > 0:
            self.y_embedder = VectorEmbedding(condition_dim, hidden_size, class_dropout)
        tokens = self.grid[0] * self.grid[1]
        self.pos_embed = nn.Parameter(torch.empty(1, tokens, hidden_size), requires_grad=False)
        style = self.config.style
        self.blocks = nn.ModuleList(SiTBlock(hidden_size, num_heads, mlp_ratio, style) for _ in range(depth))
        self.final_layer = FinalLayer(hidden_size, patch_size, in_channels * (2 if learn_sigma else 1), style)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw fresh weights, also after ``to_empty`` from the meta device; the network then returns zero.

        Linear layers Xavier-uniform with bias zero (qkv as one matrix); what modulates, and the last layer, zero.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
                module.reset_parameters()
        self.x_embedder.reset_parameters()
        self.t_embedder.reset_parameters()
        if isinstance(self.y_embedder, (LabelEmbedding, VectorEmbedding)):
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
            y: Labels in [0, num_classes], the last of them the null class, integer, shape (B,); vectors of shape
                (B, condition_dim); None if unconditional.

        Returns:
            Shape (B, C, H, W), in the precision of the weights. Under autocast, and after ``model.blocks.bfloat16()``,
            the blocks multiply in the narrower precision; the embeddings of the conditions, the sum over blocks and the
            last layer stay in that of the weights. The second spares a cast of the weights at each call.

        Raises:
            ValueError: If a shape does not fit, y is missing or not wanted, or a label is out of range. Labels are read
                only on the CPU outside of torch.compile: elsewhere this would stall the device or break the graph.
            TypeError: If t is not floating point or y is not integer.
        """
        self._check(x, t, y)
        tokens = self.x_embedder(x) + self.pos_embed  # (B, C, H, W) -> (B, T, D)
        with _autocast(x.device, enabled=False):  # neighbouring times differ by less than bfloat16 resolves
            condition = self.t_embedder(t)  # (B,) -> (B, D)
            if self.y_embedder is not None:
                condition = condition + self.y_embedder(y)
        rotation = self._rotation(x) if self.config.rope else None
        with self._autocast_to_blocks(tokens):
            for block in self.blocks:
                if self.activation_checkpointing and torch.is_grad_enabled():
                    tokens = checkpoint(block, tokens, condition, rotation, use_reentrant=False)
                else:
                    tokens = block(tokens, condition, rotation)
        with _autocast(x.device, enabled=False):  # nothing after it averages its rounding errors
            patches: Tensor = self.final_layer(tokens, condition)  # (B, T, D) -> (B, T, p p C')
        image = self._join(patches)  # (B, T, p p C') -> (B, C', H, W)
        return image[:, : self.config.in_channels] if self.config.learn_sigma else image

    def compile_blocks(self, **options: Any) -> SiT:
        """Compile each block and the last layer, in place, and return the network.

        One block is compiled and serves all: a tenth of the time that compiling the whole network takes, for most of
        its speed. Names in the state dict stay as they are.

        Args:
            options: Of torch.compile. Where they name no backend, no mode and no options, those are of models.inductor.
        """
        if not options.keys() & {"backend", "mode", "options"}:
            from .inductor import UnguardedSoftmax  # its import takes the compiler's with it

            options["options"] = {"post_grad_custom_pre_pass": UnguardedSoftmax()}
        for module in (*self.blocks, self.final_layer):
            module.compile(**options)
        return self

    def _autocast_to_blocks(self, tokens: Tensor) -> AbstractContextManager[None]:
        """What makes the blocks multiply in the precision of their weights, where it is not that of the tokens."""
        dtype = next(self.blocks.parameters()).dtype
        return nullcontext() if dtype == tokens.dtype else _autocast(tokens.device, dtype=dtype)

    def _rotation(self, like: Tensor) -> Tensor:
        """cos and sin of the rotary angles, (2, T, D/heads); not a buffer, which Module.bfloat16() would round."""
        angles = rotary_angles(self.config.hidden_size // self.config.num_heads, *self.grid, like)
        return torch.stack([angles.cos(), angles.sin()])

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
        if not isinstance(self.y_embedder, LabelEmbedding):
            if y is None or len(y) != batch:
                got = None if y is None else tuple(y.shape)
                raise ValueError(_message("y", f"one condition a sample, B = {batch}", got, "Zeros are none.", where))
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


def _autocast(device: torch.device, **settings: Any) -> AbstractContextManager[None]:
    available = torch.amp.is_autocast_available(device.type)  # not on the meta device
    return torch.autocast(device.type, **settings) if available else nullcontext()


def _is_integer(value: object, *, minimum: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= minimum


def _message(argument: str, contract: str, value: object, fix: str, where: str = "SiT") -> str:
    return f"{where}: {argument} must be {contract}, got {value!r}. {fix}"
