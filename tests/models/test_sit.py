"""Laws of the network, against a second SiT written from the paper's equations on a bare state dict."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from copies import Copies
from einops import einsum, rearrange
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from models import SiT, SiTConfig
from models.blocks import attend, gelu
from models.inductor import UnguardedSoftmax

SMALL: dict[str, Any] = {
    "input_size": 8,
    "patch_size": 2,
    "in_channels": 3,
    "hidden_size": 32,
    "depth": 2,
    "num_heads": 4,
    "num_classes": 10,
}


def build(seed: int = 0, **changes: Any) -> SiT:
    """A small network in which no weight is zero, so that every part of it bears on the output."""
    torch.manual_seed(seed)
    model = SiT(**{**SMALL, **changes}).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "pos_embed":
                parameter.normal_(std=0.2)
    return model


def inputs(model: SiT, batch: int = 3, seed: int = 1) -> tuple[Tensor, Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, *model.input_shape, generator=generator)
    t = torch.rand(batch, generator=generator)
    y = torch.randint(model.num_classes + 1, (batch,), generator=generator) if model.num_classes else None
    if model.config.condition_dim:
        y = torch.randn(batch, model.config.condition_dim, generator=generator)
    return x, t, y


def reference(model: SiT, x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
    """The network in float64 from its state dict alone: explicit softmax, moments, tanh and patches."""
    w: dict[str, Tensor] = {key: value.double() for key, value in model.state_dict().items()}
    c = model.config
    p, grid = c.patch_size, x.shape[2] // c.patch_size

    def linear(v: Tensor, name: str) -> Tensor:
        product: Tensor = einsum(v, w[f"{name}.weight"], "... i, o i -> ... o")
        return product + w[f"{name}.bias"]

    def silu(v: Tensor) -> Tensor:
        return v / (1 + torch.exp(-v))

    def gelu(v: Tensor) -> Tensor:
        return 0.5 * v * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (v + 0.044715 * v**3)))

    def norm(v: Tensor, name: str, eps: float = 1e-6) -> Tensor:
        if not c.rms_norm:
            v = v - v.mean(-1, keepdim=True)
        v = v / ((v**2).mean(-1, keepdim=True) + eps) ** 0.5
        return v * w.get(f"{name}.weight", torch.ones(())) + w.get(f"{name}.bias", torch.zeros(()))

    def rotated(v: Tensor) -> Tensor:
        """Complex numbers on the unit circle times pairs of channels: half of them tell the row, half the column."""
        quarter = v.shape[-1] // 4
        frequency = torch.tensor([1e4 ** (-i / quarter) for i in range(quarter)], dtype=torch.float64)
        row, column = torch.meshgrid(torch.arange(x.shape[2] // p), torch.arange(x.shape[3] // p), indexing="ij")
        angle = torch.cat([place.flatten()[:, None] * frequency for place in (row, column)], dim=1)
        pairs = torch.view_as_complex(rearrange(v, "b h t (d two) -> b h t d two", two=2).contiguous())
        return rearrange(torch.view_as_real(pairs * torch.exp(1j * angle)), "b h t d two -> b h t (d two)")

    def modulation(v: Tensor, name: str) -> list[Tensor]:
        return list(rearrange(linear(silu(v), f"{name}.adaLN_modulation.1"), "b (k d) -> k b 1 d", d=c.hidden_size))

    def attention(v: Tensor, name: str) -> Tensor:
        q, k, v = rearrange(linear(v, f"{name}.qkv"), "b t (k h d) -> k b h t d", k=3, h=c.num_heads)
        if c.qk_norm:
            eps = 1e-6 if c.rms_norm else 1e-5
            q, k = norm(q, f"{name}.q_norm", eps), norm(k, f"{name}.k_norm", eps)
        if c.rope:
            q, k = rotated(q), rotated(k)
        logits = einsum(q, k, "b h i d, b h j d -> b h i j") / (c.hidden_size / c.num_heads) ** 0.5
        weights = logits.exp() / logits.exp().sum(-1, keepdim=True)
        return linear(
            rearrange(einsum(weights, v, "b h i j, b h j d -> b h i d"), "b h t d -> b t (h d)"), f"{name}.proj"
        )

    def mlp(v: Tensor, name: str) -> Tensor:
        if c.swiglu:
            gate, value = rearrange(linear(v, f"{name}.w12"), "b t (two d) -> two b t d", two=2)
            return linear(silu(gate) * value, f"{name}.w3")
        return linear(gelu(linear(v, f"{name}.fc1")), f"{name}.fc2")

    patches = rearrange(x.double(), "b c (h p) (w q) -> b (h w) (c p q)", p=p, q=p)
    kernel = rearrange(w["x_embedder.proj.weight"], "d c p q -> d (c p q)")
    h = einsum(patches, kernel, "b t i, d i -> b t d") + w["x_embedder.proj.bias"] + w["pos_embed"]
    angles = t.double()[:, None] * torch.tensor([1e4 ** (-i / 128) for i in range(128)], dtype=torch.float64)
    wave = torch.cat([torch.cos(angles), torch.sin(angles)], dim=1)
    condition = linear(silu(linear(wave, "t_embedder.mlp.0")), "t_embedder.mlp.2")
    if y is not None:
        condition = condition + (
            w["y_embedder.embedding_table.weight"][y]
            if c.num_classes
            else einsum(y.double(), w["y_embedder.proj.weight"], "b i, o i -> b o")
        )
    for i in range(c.depth):
        name = f"blocks.{i}"
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulation(condition, name)
        h = h + gate_a * attention(norm(h, f"{name}.norm1") * (1 + scale_a) + shift_a, f"{name}.attn")
        h = h + gate_m * mlp(norm(h, f"{name}.norm2") * (1 + scale_m) + shift_m, f"{name}.mlp")
    shift, scale = modulation(condition, "final_layer")
    out = linear(norm(h, "final_layer.norm_final") * (1 + scale) + shift, "final_layer.linear")
    return rearrange(out, "b (h w) (p q c) -> b c (h p) (w q)", h=grid, p=p, q=p)[:, : c.in_channels]


ARCHITECTURES = {
    "square": {},
    "wide": {"input_size": (4, 12)},
    "tall, unconditional": {"input_size": (8, 4), "num_classes": 0},
    "learn_sigma": {"learn_sigma": True},
    "patch 4, one channel": {"patch_size": 4, "in_channels": 1, "mlp_ratio": 2.0},
    "vectors": {"num_classes": 0, "condition_dim": 5},
    "rope": {"rope": True, "input_size": (4, 12)},
    "swiglu": {"swiglu": True},
    "rms_norm": {"rms_norm": True},
    "qk_norm": {"qk_norm": True},
    "all that is modern": {"rope": True, "swiglu": True, "rms_norm": True, "qk_norm": True},
}


@pytest.mark.parametrize("changes", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_network_is_the_documented_one(changes: dict[str, Any]) -> None:
    model = build(**changes)
    x, t, y = inputs(model)
    expected = reference(model, x, t, y)
    assert expected.std() > 0.1  # The comparison would say nothing about a network that is almost zero.
    torch.testing.assert_close(model(x, t, y), expected.float(), rtol=1e-5, atol=1e-5)
    in_double = model.double()(x.double(), t.double(), y)
    torch.testing.assert_close(in_double, expected, rtol=1e-10, atol=1e-10)


def test_position_embedding_follows_the_rows_and_columns_of_a_non_square_input() -> None:
    """The last of 2 x 6 patches stands in row 1, column 5: sin of the first frequency, which is 1, tells each."""
    model = SiT(**{**SMALL, "input_size": (4, 12)})
    last = model.pos_embed[0, -1]
    assert (last[0].item(), last[16].item()) == pytest.approx((math.sin(5), math.sin(1)))


@pytest.mark.parametrize("num_classes", [0, 10])
def test_state_dict_has_the_official_names(num_classes: int) -> None:
    block = ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "adaLN_modulation.1"]
    layers = ["x_embedder.proj", "t_embedder.mlp.0", "t_embedder.mlp.2"]
    layers += [f"blocks.{i}.{name}" for i in range(SMALL["depth"]) for name in block]
    layers += ["final_layer.linear", "final_layer.adaLN_modulation.1"]
    expected = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")} | {"pos_embed"}
    if num_classes:
        expected.add("y_embedder.embedding_table.weight")
    state = SiT(**{**SMALL, "num_classes": num_classes}).state_dict()
    assert set(state) == expected
    assert state["pos_embed"].shape == (1, 16, 32)
    if num_classes:
        assert state["y_embedder.embedding_table.weight"].shape == (11, 32)


def test_only_the_position_embedding_is_frozen_and_every_other_weight_gets_a_gradient() -> None:
    model = build()
    x, t, y = inputs(model)
    model(x, t, y).square().mean().backward()
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    untouched = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert frozen == untouched == {"pos_embed"}


def test_a_new_network_is_zero_and_its_blocks_are_the_identity() -> None:
    model = SiT(**SMALL)
    x, t, y = inputs(model)
    assert not model(x, t, y).any()
    tokens, condition = torch.randn(3, 16, 32), torch.randn(3, 32)
    assert torch.equal(model.blocks[0](tokens, condition), tokens)


def test_initial_weights_have_the_documented_distributions() -> None:
    """Xavier-uniform has bound (6 / (fan in + fan out))^(1/2); the two embeddings have standard deviation 0.02."""
    torch.manual_seed(0)
    model = SiT(**{**SMALL, "hidden_size": 128, "num_classes": 300, "depth": 1})
    state = model.state_dict()
    fans = {
        "x_embedder.proj.weight": (3 * 2 * 2, 128),
        "blocks.0.attn.qkv.weight": (128, 3 * 128),
        "blocks.0.attn.proj.weight": (128, 128),
        "blocks.0.mlp.fc1.weight": (128, 512),
        "blocks.0.mlp.fc2.weight": (512, 128),
    }
    normal = {"t_embedder.mlp.0.weight", "t_embedder.mlp.2.weight", "y_embedder.embedding_table.weight"}
    for name, value in state.items():
        if name in fans:
            bound = (6 / sum(fans[name])) ** 0.5
            assert 0.98 * bound < value.abs().max() <= bound, name
            assert value.std().item() == pytest.approx(bound / 3**0.5, rel=0.05), name
        elif name in normal:
            assert value.std().item() == pytest.approx(0.02, rel=0.02), name
        elif name != "pos_embed":
            assert not value.any(), name


def test_a_network_made_on_the_meta_device_can_be_initialised_later() -> None:
    with torch.device("meta"):
        model = SiT(**SMALL)
    model.to_empty(device="cpu").reset_parameters()
    assert torch.equal(model.pos_embed, SiT(**SMALL).pos_embed)
    assert not model.pos_embed.requires_grad
    assert not model(*inputs(model)).any()


def test_config_rebuilds_the_network_through_json() -> None:
    model = SiT(**{**SMALL, "input_size": (8, 4), "class_dropout": 0.3, "learn_sigma": True, "mlp_ratio": 2.5})
    again = SiT(**json.loads(json.dumps(dataclasses.asdict(model.config))))
    assert again.config == model.config
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}
    assert SiTConfig(**SMALL) == SiTConfig(**{**SMALL, "input_size": [8, 8]})


def test_dropping_every_label_is_the_null_class() -> None:
    model = build(class_dropout=1.0)
    x, t, y = inputs(model)
    assert y is not None
    assert model.null_class == model.num_classes == 10
    null = torch.full_like(y, model.null_class)
    assert torch.equal(model.train()(x, t, y), model.eval()(x, t, null))
    assert not torch.allclose(model(x, t, torch.zeros_like(y)), model(x, t, null), atol=1e-3)


def test_dropout_makes_training_mode_random_and_leaves_evaluation_alone() -> None:
    model = build(class_dropout=0.5)
    x, t, y = inputs(model, batch=16)
    assert not torch.equal(model.train()(x, t, y), model(x, t, y))
    assert torch.equal(model.eval()(x, t, y), model(x, t, y))


def test_an_unconditional_network_has_no_null_class() -> None:
    model = SiT(**{**SMALL, "num_classes": 0})
    assert (model.num_classes, model.null_class) == (0, None)


def test_a_sample_does_not_depend_on_its_neighbours() -> None:
    """In float64, where what remains is the order of sums within kernels that depend on the batch size."""
    model = build().double()
    x, t, y = inputs(model, batch=5)
    assert y is not None
    x, t = x.double(), t.double()
    together = model(x, t, y)
    alone = torch.cat([model(x[i : i + 1], t[i : i + 1], y[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-12)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(model(x[order], t[order], y[order]), together[order], rtol=1e-12, atol=1e-12)
    assert model(x[:0], t[:0], y[:0]).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("style", [{}, {"rope": True, "swiglu": True, "rms_norm": True, "qk_norm": True}], ids=str)
def test_bfloat16_is_near_float32_both_under_autocast_and_as_weights(style: dict[str, Any]) -> None:
    """Eight bits of mantissa through two blocks: a few percent of the output's size, and not the size itself."""
    model = build(**style)
    x, t, y = inputs(model)
    exact = model(x, t, y)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        autocast = model(x, t, y)
    pure = model.bfloat16()(x.bfloat16(), t, y)
    assert (autocast.dtype, pure.dtype) == (torch.float32, torch.bfloat16)
    for rounded in (autocast, pure):
        assert (rounded.float() - exact).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize("style", [{}, {"rope": True, "swiglu": True}], ids=str)
@pytest.mark.parametrize("compiled", [False, True])
def test_blocks_in_bfloat16_do_what_autocast_does_and_spare_its_casts(style: dict[str, Any], compiled: bool) -> None:
    torch._dynamo.reset()
    model = build(**style)
    x, t, y = inputs(model)
    exact = model(x, t, y)
    narrow = copy.deepcopy(model)
    narrow.blocks.bfloat16()
    if compiled:
        model.compile_blocks(fullgraph=True, backend="aot_eager")
        narrow.compile_blocks(fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(narrow(x, t, y), model(x, t, y), rtol=0, atol=0)
    out = narrow(x, t, y)  # and without autocast the patch embedding stays in float32
    assert out.dtype == torch.float32
    assert 0 < (out - exact).norm() < 0.05 * exact.norm()


def test_under_autocast_neighbouring_times_stay_apart() -> None:
    """In bfloat16 all of [0.502, 0.504] is one number."""
    model = build()
    x, _, y = inputs(model, batch=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        conditions = [model.t_embedder(torch.tensor([time])) for time in (0.5021, 0.5029)]
        outputs = [model(x, torch.tensor([time]), y) for time in (0.5021, 0.5029)]
    assert not torch.equal(*conditions)
    assert not torch.equal(*outputs)
    exact = [model(x, torch.tensor([time]), y) for time in (0.5021, 0.5029)]
    assert (exact[1] - exact[0]).norm() > 0


@pytest.mark.parametrize("style", [{}, {"rope": True, "qk_norm": True}], ids=str)
def test_activation_checkpointing_keeps_the_gradients_and_not_the_activations(style: dict[str, Any]) -> None:
    model = build(depth=3, **style)
    x, t, y = inputs(model)
    kept, gradients = [], []
    for model.activation_checkpointing in (False, True):
        sizes: list[int] = []

        def pack(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = model(x, t, y).square().mean()
            kept.append(sum(sizes))  # of the forward pass
        gradients.append(torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad]))
    assert kept[1] < 0.3 * kept[0]
    torch.testing.assert_close(*gradients, rtol=0.0, atol=0.0)


def test_the_null_vector_is_no_condition_and_dropout_gives_it() -> None:
    model = build(num_classes=0, condition_dim=5, class_dropout=1.0)
    x, t, y = inputs(model)
    assert y is not None
    assert model.null_class == 0
    none = model.eval()(x, t, torch.zeros_like(y))
    assert torch.equal(model.train()(x, t, y), none)
    assert not torch.allclose(model.eval()(x, t, y), none, atol=1e-3)
    with pytest.raises(ValueError, match=r"y must be one condition a sample, B = 3, got \(2, 5\)"):
        model(x, t, y[:2])
    with pytest.raises(ValueError, match=r"y must be one condition a sample, B = 3, got None"):
        model(x, t)


def test_a_module_of_ones_own_may_embed_the_condition() -> None:
    class Words(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.EmbeddingBag(7, 32)

        def forward(self, y: Tensor) -> Tensor:
            embedded: Tensor = self.table(y)
            return embedded

    model = build(num_classes=0)
    model.y_embedder = Words()
    x, t, _ = inputs(model)
    words = torch.tensor([[1, 2], [3, 4], [5, 6]])
    out = model(x, t, words)
    assert torch.equal(out, model(x, t, words.flip(1)))  # the mean of the words
    assert not torch.allclose(out, model(x, t, words.flip(0)), atol=1e-3)


def test_compiled_blocks_are_the_same_function_under_the_same_names() -> None:
    """The whole network too: aot_eager traces as the default does, and spares the C++ compiler."""
    torch._dynamo.reset()
    model = build(depth=3)
    x, t, y = inputs(model)
    expected, names = model(x, t, y), list(model.state_dict())
    compiled = model.compile_blocks(fullgraph=True, backend="aot_eager")
    assert compiled is model
    with torch._dynamo.config.patch(error_on_recompile=True):  # one block serves all
        torch.testing.assert_close(model(x, t, y), expected, rtol=1e-5, atol=1e-5)
    assert list(model.state_dict()) == names
    copied = copy.deepcopy(model)
    torch.testing.assert_close(copied(x, t, y), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"num_classes": 0}], ids=["conditional", "unconditional"])
def test_compiled_without_graph_break_it_is_the_same_function(changes: dict[str, Any]) -> None:
    """The aot_eager backend traces as the default does, forward and backward, and spares the C++ compiler."""
    torch._dynamo.reset()
    model = build(depth=1, **changes).train().double()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    if model.y_embedder is not None:
        model.y_embedder.class_dropout = 0.0
    x, t, y = inputs(model)
    x, t = x.double(), t.double()
    expected, got = model(x, t, y), compiled(x, t, y)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
    weight = model.get_parameter("blocks.0.attn.qkv.weight")
    gradients = [torch.autograd.grad(out.square().sum(), weight)[0] for out in (expected, got)]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


def test_class_dropout_compiles_without_graph_break() -> None:
    torch._dynamo.reset()
    model = build(depth=1, class_dropout=1.0)
    x, t, y = inputs(model)
    assert y is not None
    expected = model(x, t, torch.full_like(y, 10))
    compiled = torch.compile(model.train(), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, t, y), expected, rtol=1e-5, atol=1e-5)


WRONG_INPUTS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "x without batch": ({"x": torch.zeros(3, 8, 8)}, ValueError, "x must be of shape (B, C, H, W)"),
    "x of other channels": ({"x": torch.zeros(2, 4, 8, 8)}, ValueError, "(C, H, W) = (3, 8, 8), got (2, 4, 8, 8)"),
    "x transposed": ({"x": torch.zeros(2, 3, 8, 16)}, ValueError, "got (2, 3, 8, 16)"),
    "t scalar": ({"t": torch.tensor(0.5)}, ValueError, "t must be of shape (B,) with B = 2, got ()"),
    "t of one": ({"t": torch.zeros(1)}, ValueError, "t must be of shape (B,) with B = 2, got (1,)"),
    "t column": ({"t": torch.zeros(2, 1)}, ValueError, "got (2, 1)"),
    "t integer": ({"t": torch.zeros(2, dtype=torch.long)}, TypeError, "t must be floating point, got torch.int64"),
    "y missing": ({"y": None}, ValueError, "y must be labels of shape (B,) with B = 2, got None"),
    "y float": ({"y": torch.zeros(2)}, TypeError, "y must be of an integer dtype, got torch.float32"),
    "y boolean": ({"y": torch.zeros(2, dtype=torch.bool)}, TypeError, "got torch.bool"),
    "y one-hot": ({"y": torch.zeros(2, 10, dtype=torch.long)}, ValueError, "y must be of shape (B,)"),
    "y too large": ({"y": torch.tensor([10, 11])}, ValueError, "y must be in [0, 10], got [11]"),
    "y narrow": ({"y": torch.tensor([10, 200], dtype=torch.uint8)}, ValueError, "y must be in [0, 10], got [200]"),
    "y negative": ({"y": torch.tensor([-1, 3])}, ValueError, "got [-1]"),
}


@pytest.mark.parametrize("case", WRONG_INPUTS)
def test_a_wrong_input_is_answered_with_the_contract(case: str) -> None:
    change, error, message = WRONG_INPUTS[case]
    arguments = {"x": torch.zeros(2, 3, 8, 8), "t": torch.zeros(2), "y": torch.tensor([0, 10]), **change}
    with pytest.raises(error, match="^SiT.forward: .*" + re.escape(message)):
        SiT(**SMALL)(**arguments)


def test_an_unconditional_network_takes_no_label() -> None:
    model = SiT(**{**SMALL, "num_classes": 0})
    x, t, _ = inputs(model, batch=2)
    with pytest.raises(ValueError, match="y must be None, as num_classes is 0"):
        model(x, t, torch.zeros(2, dtype=torch.long))


def test_a_label_beyond_narrow_integers_is_in_range() -> None:
    """1000 does not fit into uint8: the comparison must not wrap it to 232."""
    model = SiT(**{**SMALL, "num_classes": 1000})
    x, t, _ = inputs(model, batch=2)
    model(x, t, torch.tensor([240, 255], dtype=torch.uint8))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("patch_size", 0),
        ("patch_size", 3),  # Does not divide input_size, which the message names.
        ("input_size", 8.0),
        ("input_size", (8, 8, 8)),
        ("input_size", (8, 7)),
        ("input_size", "8"),
        ("in_channels", -1),
        ("depth", True),
        ("hidden_size", 30),
        ("num_heads", 5),
        ("mlp_ratio", 0.0),
        ("mlp_ratio", float("nan")),
        ("num_classes", -1),
        ("class_dropout", 1.5),
        ("learn_sigma", "no"),
        ("rope", 2),
        ("condition_dim", -1),
        ("condition_dim", 4),  # besides ten classes
    ],
)
def test_a_wrong_configuration_is_refused(name: str, value: object) -> None:
    culprit = {"patch_size": "(patch_size|input_size)", "num_heads": "hidden_size"}.get(name, name)
    with pytest.raises(ValueError, match=rf"^SiT: {culprit} must be .*, got "):
        SiT(**{**SMALL, name: value})


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_gelu_is_one_function_compiled_or_not(dtype: torch.dtype) -> None:
    x = torch.linspace(-8, 8, 201).to(dtype)
    wide = x.double()
    expected = 0.5 * wide * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (wide + 0.044715 * wide**3)))
    for function in (gelu, torch.compile(gelu, fullgraph=True, backend="aot_eager")):
        torch.testing.assert_close(function(x), expected.to(dtype), rtol=2 * torch.finfo(dtype).eps, atol=1e-6)


@pytest.mark.parametrize("allowed", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_attention_is_one_function_compiled_or_not(dtype: torch.dtype, allowed: bool) -> None:
    """And torch's settings, which it touches where that is faster, are as before."""
    setting = torch.backends.cuda
    before = setting.fp16_bf16_reduction_math_sdp_allowed()
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 4, 16, 8, generator=generator, dtype=torch.float64).to(dtype).unbind()
    weights = (torch.einsum("bhqd, bhkd -> bhqk", q.double(), k.double()) / 8**0.5).softmax(-1)
    expected = torch.einsum("bhqk, bhkd -> bhqd", weights, v.double())
    torch._dynamo.reset()
    setting.allow_fp16_bf16_reduction_math_sdp(allowed)
    try:
        for function in (attend, torch.compile(attend, fullgraph=True, backend="aot_eager")):
            for context in (torch.no_grad(), torch.enable_grad()):
                with context:
                    got = function(q, k, v)
                torch.testing.assert_close(got.double(), expected, rtol=0, atol=4 * torch.finfo(dtype).eps)
                assert setting.fp16_bf16_reduction_math_sdp_allowed() == allowed
                assert setting.flash_sdp_enabled()
    finally:
        setting.allow_fp16_bf16_reduction_math_sdp(before)


@pytest.mark.parametrize("masked", [False, True])
def test_compiled_softmax_is_without_guard_but_under_a_mask(masked: bool) -> None:
    """Of a row of scores that are all minus infinity torch's guard makes zeros; 0 / 0 is NaN."""
    q, k = torch.full((2, 1, 4, 8), 1e20), torch.full((2, 1, 4, 8), -1e20)
    v, mask = torch.randn(2, 1, 4, 8), torch.zeros(4, 4, dtype=torch.bool) if masked else None

    def attention(q: Tensor, k: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            return F.scaled_dot_product_attention(q, k, v, mask)

    torch._dynamo.reset()
    with torch.no_grad():
        guarded = torch.compile(attention)(q, k)
        got = torch.compile(attention, options={"post_grad_custom_pre_pass": UnguardedSoftmax()})(q, k)
        ordinary = torch.compile(attention, options={"post_grad_custom_pre_pass": UnguardedSoftmax()})(v, v)
        expected = attention(v, v)
    assert guarded.eq(0).all()
    assert got.eq(0).all() if masked else got.isnan().all()
    torch.testing.assert_close(ordinary, expected)


def test_blocks_are_compiled_by_default_without_guard() -> None:
    """Unless a backend, a mode or options are asked for, which are then taken as they are."""
    seen: list[dict[str, Any]] = []
    model = build()
    for module in (*model.blocks, model.final_layer):
        module.compile = lambda **options: seen.append(options)  # type: ignore[method-assign]
    model.compile_blocks(dynamic=False)
    assert len(seen) == len(model.blocks) + 1
    for options in seen:
        assert isinstance(options["options"]["post_grad_custom_pre_pass"], UnguardedSoftmax)
        assert options["dynamic"] is False
    for chosen in ({"mode": "default"}, {"backend": "aot_eager"}, {"options": {}}):
        seen.clear()
        model.compile_blocks(**chosen)
        assert seen == [chosen] * (len(model.blocks) + 1)


@pytest.mark.parametrize("style", [{}, {"rope": True, "swiglu": True, "rms_norm": True, "qk_norm": True}], ids=str)
@pytest.mark.parametrize("changes", [{}, {"num_classes": 0}, {"num_classes": 0, "condition_dim": 5}], ids=str)
def test_a_pass_neither_waits_for_the_device_nor_copies_to_it(changes: dict[str, Any], style: dict[str, Any]) -> None:
    """On the device "meta", which has no numbers, a look at one raises."""
    model = build(**changes, **style).to("meta").train()
    x, t, y = (None if value is None else value.to("meta") for value in inputs(build(**changes)))
    assert x is not None
    assert t is not None
    with Copies() as copies:
        model(x, t, y).square().sum().backward()
    assert copies.seen == []
