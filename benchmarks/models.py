"""How fast the networks are, beside a SiT written the textbook way: ``python benchmarks/models.py cpu`` or ``memory``.

cpu: forward pass and train step (forward, backward, AdamW, EMA) of SiT-S/2 and SiT-B/2, process time of one thread,
medians of runs that take turns. Plain is eager and float32, each operation as the paper's equations name it.

memory: what the forward pass keeps for the backward pass, with and without activation checkpointing.

choices: what was tried for the forward pass, one change at a time beside the network as it is.

gpu: SiT-XL/2, train steps at the batches that fit and 250 guided steps of the SDE sampler: images a second, TFLOP/s and
the share of the device's peak (MFU).

Each part prints a table, and writes its numbers with device, versions and date to benchmarks/results.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import functools
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # else this file would hide the package of its name

import torch
from timing import in_turns
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import interpolants
from models import PUBLISHED, SiT, create_model, quantize
from models.blocks import Attention
from models.embeddings import sincos_position_embedding
from training.fields import Field
from training.meters import peak_flops
from training.samplers import sample_sde

RESULTS = Path(__file__).resolve().parent / "results"
DECAY = 0.9999


# The textbook


class PlainBlock(nn.Module):
    """LayerNorm, attention by softmax, MLP, and their modulation."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = (nn.LayerNorm(width, elementwise_affine=False, eps=1e-6) for _ in range(2))
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def attention(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) / math.sqrt(width // self.heads)).softmax(-1)
        out: Tensor = self.proj((weights @ v).transpose(1, 2).reshape(batch, tokens, width))
        return out

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(c).chunk(6, dim=1)
        x = x + gate_a.unsqueeze(1) * self.attention(self.norm1(x) * (1 + scale_a.unsqueeze(1)) + shift_a.unsqueeze(1))
        return x + gate_m.unsqueeze(1) * self.mlp(self.norm2(x) * (1 + scale_m.unsqueeze(1)) + shift_m.unsqueeze(1))


class Plain(nn.Module):
    """The network of the paper."""

    def __init__(self, like: SiT) -> None:
        super().__init__()
        config = like.config
        width, self.patch, self.grid = config.hidden_size, config.patch_size, like.grid
        self.channels = config.in_channels
        self.embed = nn.Conv2d(config.in_channels, width, self.patch, self.patch)
        self.time = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(config.num_classes + 1, width)
        self.position = nn.Parameter(sincos_position_embedding(width, *self.grid)[None].float(), requires_grad=False)
        self.blocks = nn.ModuleList(PlainBlock(width, config.num_heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.linear = nn.Linear(width, self.patch**2 * config.in_channels)
        # The same weights in the same order: the two networks are one function.
        ours = dict(like.named_parameters())
        order = [
            "x_embedder.proj", "t_embedder.mlp.0", "t_embedder.mlp.2", "y_embedder.embedding_table",
            *(f"blocks.{i}.{n}" for i in range(config.depth)
              for n in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "adaLN_modulation.1")),
            "final_layer.adaLN_modulation.1", "final_layer.linear",
        ]  # fmt: skip
        layers = [m for m in self.modules() if isinstance(m, (nn.Conv2d, nn.Linear, nn.Embedding))]
        for name, layer in zip(order, layers, strict=True):
            layer.weight.data.copy_(ours[f"{name}.weight"].data)
            if not isinstance(layer, nn.Embedding):
                layer.bias.data.copy_(ours[f"{name}.bias"].data)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        frequencies = torch.exp(-math.log(10_000) * torch.arange(128, device=x.device) / 128)
        angles = t[:, None] * frequencies
        c = self.time(torch.cat([angles.cos(), angles.sin()], dim=1).to(x.dtype)) + self.label(y)
        h = self.embed(x).flatten(2).transpose(1, 2) + self.position
        for block in self.blocks:
            h = block(h, c)
        shift, scale = self.modulation(c).chunk(2, dim=1)
        h = self.linear(self.norm(h) * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1))
        (rows, columns), p = self.grid, self.patch
        h = h.reshape(len(x), rows, columns, p, p, self.channels)
        return torch.einsum("nhwpqc->nchpwq", h).reshape(x.shape)


# Ours and theirs, ready to run


def networks(name: str, device: str = "cpu") -> tuple[SiT, Plain]:
    """One function, twice; with no weight that is zero."""
    torch.manual_seed(0)
    model = create_model(name, input_size=32).to(device)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "adaLN" in key or "final_layer" in key:
                parameter.normal_(std=0.02)
    return model, Plain(model).to(device)


def inputs(batch: int, device: str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(batch)
    x, t = torch.randn(batch, 4, 32, 32, generator=generator), torch.rand(batch, generator=generator)
    return x.to(device), t.to(device), torch.randint(1000, (batch,), generator=generator).to(device)


def autocast(device: str, enabled: bool) -> torch.autocast:
    return torch.autocast(device, dtype=torch.bfloat16, enabled=enabled)


def narrowed(model: SiT) -> SiT:
    """A copy whose blocks hold their weights in bfloat16, as one would sample from."""
    model = copy.deepcopy(model)
    model.blocks.bfloat16()
    return model


def forward(
    model: nn.Module, batch: int, bf16: bool, device: str = "cpu", form: dict[str, Any] | None = None
) -> Callable[[], Tensor]:
    model.eval()
    x, t, y = inputs(batch, device)
    x = x.to(**(form or {}))

    @torch.no_grad()
    def run() -> Tensor:
        with autocast(device, bf16):
            out: Tensor = model(x, t, y)
        return out

    return run


def plain_step(model: Plain, batch: int, device: str = "cpu") -> Callable[[], Tensor]:
    """The official script's: AdamW at its defaults, and the average parameter by parameter."""
    average = copy.deepcopy(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.0)
    x, t, y = inputs(batch, device)

    def run() -> Tensor:
        loss = (model(x, t, y) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for mean, value in zip(average.parameters(), model.parameters(), strict=True):
                mean.mul_(DECAY).add_(value.data, alpha=1 - DECAY)
        return loss.detach()

    return run


def our_step(model: SiT, batch: int, device: str = "cpu") -> Callable[[], Tensor]:
    model.train()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, weight_decay=0.0, fused=True)
    x, t, y = inputs(batch, device)

    def run() -> Tensor:
        with autocast(device, True):
            loss = (model(x, t, y) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update_parameters(model)
        return loss.detach()

    return run


# Measurements


def cpu(names: list[str], batches: list[int], repeats: int) -> None:
    """Print and keep the times, and the errors against float64."""
    rows = []
    for name in names:
        model, plain = networks(name)
        exact = copy.deepcopy(plain).double()
        ours, narrow = copy.deepcopy(model).compile_blocks(), narrowed(model).compile_blocks()
        for batch in batches:
            x, t, y = inputs(batch)
            with torch.no_grad():
                truth = exact(x.double(), t.double(), y)
            runs = {
                "plain": forward(plain, batch, bf16=False),
                "plain, autocast": forward(plain, batch, bf16=True),
                "ours, bf16": forward(model, batch, bf16=True),
                "ours, bf16, compiled": forward(ours, batch, bf16=True),
                "ours, bf16 blocks, compiled": forward(narrow, batch, bf16=False),
            }
            errors = {key: float((run().double() - truth).norm() / truth.norm()) for key, run in runs.items()}
            times = in_turns(runs, repeats)
            rows += [
                {"model": name, "batch": batch, "what": "forward", "how": key, "seconds": times[key],
                 "ratio": times["plain"] / times[key], "error": errors[key]}
                for key in runs
            ]  # fmt: skip
            steps = {
                "plain": plain_step(copy.deepcopy(plain), batch),
                "ours, bf16, compiled": our_step(copy.deepcopy(model).compile_blocks(), batch),
            }
            times = in_turns(steps, max(2, repeats // 2))
            rows += [
                {"model": name, "batch": batch, "what": "train step", "how": key, "seconds": times[key],
                 "ratio": times["plain"] / times[key]}
                for key in steps
            ]  # fmt: skip
            for row in rows[-len(runs) - len(steps) :]:
                print(_line(row), flush=True)
    keep("models-cpu", {"rows": rows, "threads": 1})


class ModulatedAtOnce(nn.Module):
    """The network with what modulates all blocks as one product."""

    def __init__(self, model: SiT) -> None:
        super().__init__()
        self.network = model
        layers = [block.adaLN_modulation[1] for block in model.blocks]
        self.weight = torch.cat([layer.weight for layer in layers]).detach()
        self.bias = torch.cat([layer.bias for layer in layers]).detach()
        for block in model.blocks:
            block.adaLN_modulation = nn.Identity()

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        network = self.network
        tokens = network.x_embedder(x) + network.pos_embed
        condition = network.t_embedder(t) + network.y_embedder(y)
        with network._autocast_to_blocks(tokens):
            parts = nn.functional.linear(nn.functional.silu(condition), self.weight, self.bias)
            for block, part in zip(network.blocks, parts.chunk(len(network.blocks), dim=1), strict=True):
                tokens = block(tokens, part)
        return network._join(network.final_layer(tokens, condition))


def choices(names: list[str], batches: list[int], repeats: int) -> None:
    """Print and keep the time of each variant of the compiled forward pass, and its error against float64."""
    rows = []
    for name in names:
        model, plain = networks(name)
        exact = plain.double()
        fused = narrowed(model)
        for block in fused.blocks:  # torch's fused kernel, on every device
            block.attn.forward = functools.partial(_fused_attention, block.attn)
        last = copy.deepcopy(model).to(memory_format=torch.channels_last)
        variants: dict[str, nn.Module] = {
            "bf16 blocks": narrowed(model).compile_blocks(),
            "bf16 blocks, torch's guard of the softmax": narrowed(model).compile_blocks(options={}),
            "bf16 blocks, torch's fused attention": fused.compile_blocks(),
            "bf16 blocks, adaLN of all blocks at once": ModulatedAtOnce(narrowed(model).compile_blocks()),
            "bf16 blocks, channels last": narrowed(last).compile_blocks(),
            "bf16 blocks, the whole network compiled": torch.compile(narrowed(model)),
            "all of it in bf16": copy.deepcopy(model).bfloat16().compile_blocks(),
            **{f"quantize, {how}": quantize(copy.deepcopy(model), how).compile_blocks()
               for how in ("int8_weights", "int8", "float8_weights")},
        }  # fmt: skip
        for batch in batches:
            x, t, y = inputs(batch)
            with torch.no_grad():
                truth = exact(x.double(), t.double(), y)
            forms = {"all of it in bf16": {"dtype": torch.bfloat16},
                     "bf16 blocks, channels last": {"memory_format": torch.channels_last}}  # fmt: skip
            runs = {key: forward(variant, batch, bf16=False, form=forms.get(key)) for key, variant in variants.items()}
            errors = {key: float((run().double() - truth).norm() / truth.norm()) for key, run in runs.items()}
            times = in_turns(runs, repeats)
            base = times["bf16 blocks"]
            rows += [
                {"model": name, "batch": batch, "how": key, "seconds": times[key], "time": times[key] / base,
                 "error": errors[key]}
                for key in runs
            ]  # fmt: skip
            for row in rows[-len(runs) :]:
                print(f"| {name} | {batch} | {row['how']} | {row['seconds']:.3f} | {row['time']:.2f} "
                      f"| {row['error']:.1e} |", flush=True)  # fmt: skip
    keep("models-choices", {"rows": rows, "threads": 1})


def _fused_attention(layer: Attention, x: Tensor, rotation: Tensor | None = None) -> Tensor:
    batch, tokens, _ = x.shape
    q, k, v = layer.qkv(x).view(batch, tokens, 3, layer.num_heads, -1).permute(2, 0, 3, 1, 4).unbind()
    out: Tensor = layer.proj(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
    return out


def _line(row: dict[str, Any]) -> str:
    error = f"{row['error']:.1e}" if "error" in row else ""
    return (
        f"| {row['model']} | {row['batch']} | {row['what']} | {row['how']} | {row['seconds']:.3f} "
        f"| {row['ratio']:.2f} | {error} |"
    )


def memory(names: list[str], batches: list[int]) -> None:
    """Print and keep the bytes that the forward pass of a train step keeps."""
    rows = []
    for name in names:
        model, _ = networks(name)
        for batch in batches:
            for model.activation_checkpointing in (False, True):
                kept: dict[int, int] = {}

                def pack(tensor: Tensor, kept: dict[int, int] = kept) -> Tensor:
                    storage = tensor.untyped_storage()
                    kept[storage.data_ptr()] = storage.nbytes()
                    return tensor

                parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
                with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), autocast("cpu", True):
                    out = model.train()(*inputs(batch))
                size = sum(n for pointer, n in kept.items() if pointer not in parameters)
                del out
                rows.append(
                    {"model": name, "batch": batch, "checkpointing": model.activation_checkpointing, "bytes": size}
                )
                print(f"| {name} | {batch} | {model.activation_checkpointing} | {size / 2**20:.0f} MiB |", flush=True)
    keep("models-memory", {"rows": rows})


def gpu(name: str, device: str, largest: int, num_steps: int) -> None:
    """Print and keep images a second, TFLOP/s and MFU, in training at each batch that fits and in guided sampling:
    plain, plain with TF32 (what the official script runs), ours.
    """
    kind = torch.cuda.get_device_name() if device == "cuda" else device
    peak = peak_flops(kind) or math.nan
    per_pass = 2 * PUBLISHED[name].gmacs * 1e9
    rows: list[dict[str, Any]] = []
    for how in ("plain", "plain, TF32", "ours, bf16, compiled", "ours, bf16, compiled, checkpointing"):
        torch.set_float32_matmul_precision("high" if how == "plain, TF32" else "highest")
        checkpointing = how.endswith("checkpointing")
        for batch in (2**k for k in range(3, 11) if 2**k <= largest):
            try:
                model, plain = networks(name, device)
                model.activation_checkpointing = checkpointing
                ours = how.startswith("ours")
                step = our_step(model.compile_blocks(), batch, device) if ours else plain_step(plain, batch, device)
                seconds = _seconds(step, device, repeats=10)
            except torch.cuda.OutOfMemoryError:
                break
            finally:
                model = plain = step = None  # type: ignore[assignment]  # or the next batch finds the memory taken
                _clear(device)
            rows.append(_speed(how, "train step", batch, batch / seconds, 3 * per_pass, peak))  # backward is two passes
        if not checkpointing:
            batch = min(32, largest)
            model, plain = networks(name, device)
            network = narrowed(model).compile_blocks() if how.startswith("ours") else plain
            seconds = _seconds(_sampling(network, batch, device, num_steps), device, repeats=1)
            passes = 2 * num_steps  # with the class and without
            rows.append(_speed(how, f"{num_steps} guided steps", batch, batch / seconds, passes * per_pass, peak))
            model = plain = network = None  # type: ignore[assignment]
            _clear(device)
    keep("models-gpu", {"model": name, "rows": rows, "peak_flops": peak})


def _sampling(network: nn.Module, batch: int, device: str, num_steps: int) -> Callable[[], Tensor]:
    if isinstance(network, Plain):
        network.null_class = 1000  # type: ignore[assignment]
    field = Field(network.eval().requires_grad_(False), interpolants.linear(), guidance_scale=4.0)
    noise, _, y = inputs(batch, device)
    return lambda: sample_sde(field, noise, w="sigma", num_steps=num_steps, seed=0, y=y)


def _seconds(run: Callable[[], Tensor], device: str, repeats: int) -> float:
    """Of one call, after one that compiles."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    run()
    wait()
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    wait()
    return (time.perf_counter() - start) / repeats


def _clear(device: str) -> None:
    if device == "cuda":
        torch.cuda.empty_cache()


def _speed(how: str, what: str, batch: int, images: float, flop: float, peak: float) -> dict[str, Any]:
    row = {"how": how, "what": what, "batch": batch, "images_per_second": images, "tflops": images * flop / 1e12,
           "mfu": images * flop / peak}  # fmt: skip
    print(f"| {how} | {what} | {batch} | {images:.2f} | {row['tflops']:.2f} | {row['mfu']:.3f} |", flush=True)
    return row


def keep(name: str, content: dict[str, Any]) -> None:
    """Write a result with what it depends on."""
    context = {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else processor(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(context | content, indent=1) + "\n")


def processor() -> str:
    """Its name with family and model: two generations of one name differ twofold in the speed of bfloat16."""
    lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    about = {name.strip(): value.strip() for name, _, value in lines}
    if "model name" not in about:
        return platform.processor()
    return f"{about['model name']}, family {about.get('cpu family')}, model {about.get('model')}"


def main() -> None:
    """Run the part named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["cpu", "memory", "choices", "gpu"])
    parser.add_argument("--models", nargs="+", help="SiT-S/2 and SiT-B/2; of the part gpu SiT-XL/2")
    parser.add_argument("--batches", nargs="+", type=int, default=[4, 8])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cuda", help="of the part gpu; another tries its code")
    parser.add_argument("--largest", type=int, default=1024, help="batch of the part gpu")
    parser.add_argument("--num-steps", type=int, default=250, help="of its sampler")
    options = parser.parse_args()
    if options.part != "gpu":
        torch.set_num_threads(1)
    torch._dynamo.config.recompile_limit = 64  # a compilation of the one block for each variant, size and batch
    models = options.models or (["SiT-XL/2"] if options.part == "gpu" else ["SiT-S/2", "SiT-B/2"])
    if options.part == "cpu":
        cpu(models, options.batches, options.repeats)
    elif options.part == "memory":
        memory(models, options.batches)
    elif options.part == "choices":
        choices(models, options.batches, options.repeats)
    else:
        for name in models:
            gpu(name, options.device, options.largest, options.num_steps)


if __name__ == "__main__":
    main()
