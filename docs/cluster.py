"""Writes the tables of docs/training.md: memory, checkpoints and speed of SiT on many GPUs, from shapes alone.

Run from anywhere: python docs/cluster.py
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from models import SiT, create_model
from models.sit import SiTConfig
from training.meters import peak_flops, training_flops

PAGE: Final = Path(__file__).parent / "training.md"
NAMES: Final = ("SiT-S/2", "SiT-B/2", "SiT-L/2", "SiT-XL/2")
SIZE: Final = 32
"""Height and width of the latents of 256 x 256 pixels."""
BATCH: Final = 256
"""Of all GPUs together."""
GPUS: Final = (8, 64)
PEAK: Final = peak_flops("NVIDIA H100 80GB HBM3") or math.nan
USES: Final = (0.25, 0.5)
"""MFU, the part of PEAK that the products of the network take."""
RUNS: Final = (400_000, 7_000_000)
DAY: Final = 24 * 60 * 60


# What a GPU holds


class Held(NamedTuple):
    """Bytes from the first step to the last, float32 each."""

    parameters: int
    gradients: int
    moments: int
    averages: int


class Kept(NamedTuple):
    """Bytes that a forward pass keeps for the backward pass: of each sample, and copies of the weights in bfloat16."""

    sample: int
    copies: int


def network(name: str) -> SiT:
    """Without numbers."""
    with torch.device("meta"):
        return create_model(name, input_size=SIZE)


def held(model: SiT, parts: int = 1, averages: int = 1) -> Held:
    """By the first of so many processes that share each parameter; 1 is DDP, where each has all."""
    every = sum(_part(p, parts) for p in model.parameters())
    trained = sum(_part(p, parts) for p in model.parameters() if p.requires_grad)
    return Held(every, trained, 2 * trained, averages * every)


def gathered(model: SiT, parts: int) -> int:
    """Bytes that FSDP puts together at a time: the block that computes, the next one, and all that is in no block."""
    block, everything = (
        parts * sum(_part(p, parts) for p in module.parameters()) for module in (model.blocks[0], model)
    )
    return everything - (len(model.blocks) - 2) * block


def _part(parameter: Tensor, parts: int) -> int:
    """Bytes of the first. FSDP2 gives each process ceil(n / parts) of n rows, and fills up what the last ones lack."""
    return math.ceil(len(parameter) / parts) * parameter[0].nbytes


@lru_cache
def kept(config: SiTConfig, checkpointing: bool) -> Kept:
    """Under autocast to bfloat16, blocks not compiled. Tensors have shapes and storages here, but no numbers.

    Labels are left out: they keep nothing but themselves.
    """

    def bytes_of(batch: int) -> int:
        storages: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            storages[storage._cdata] = storage.nbytes()
            return tensor

        with FakeTensorMode():
            model = SiT(**{**asdict(config), "num_classes": 0}).train()
            model.activation_checkpointing = checkpointing
            x, t = torch.empty(batch, *model.input_shape), torch.empty(batch)
            hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
            with hooks, torch.autocast("cpu", dtype=torch.bfloat16):
                out = model(x, t)  # which holds what is kept until it is counted
            for parameter in model.parameters():
                storages.pop(parameter.untyped_storage()._cdata, None)
            del out
        return sum(storages.values())

    one, two = bytes_of(1), bytes_of(2)
    return Kept(two - one, 2 * one - two)


def at_most(model: SiT, gpus: int, *, sharded: bool, checkpointing: bool) -> int:
    """Bytes that tensors take on a GPU in a step, with one average: the sum of all above, though not all at once."""
    share = BATCH // gpus
    activations, inputs = kept(model.config, False), kept(model.config, True)
    needed = share * activations.sample + activations.copies
    if checkpointing:
        # Autocast holds its copies until the forward pass ends; then one block at a time is computed again.
        needed = share * inputs.sample + max(activations.copies, needed // len(model.blocks))
    return sum(held(model, gpus if sharded else 1)) + (gathered(model, gpus) if sharded else 0) + needed


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


# What is written, and sent, and how fast


def checkpoint(model: SiT, averages: int = 1) -> dict[str, int]:
    """Bytes of the tensors in each kind of file of a checkpoint; with each moment of a parameter, its step number."""
    trained = [p for p in model.parameters() if p.requires_grad]
    whole = _bytes(model.state_dict().values())
    return {"network": whole, "averages": averages * whole, "optimizer": 2 * _bytes(trained) + 4 * len(trained)}


def sent(model: SiT, gpus: int, *, sharded: bool) -> float:
    """Bytes that each GPU sends in a step, in rings: DDP sums gradients and spreads the sums; FSDP gathers parameters
    for both passes and sums gradients.
    """
    return (3 if sharded else 2) * (gpus - 1) / gpus * _bytes(model.parameters())


def seconds(flops: float, gpus: int, use: float) -> float:
    """Of a step that has this MFU, where a sample takes so many FLOPs."""
    return flops * BATCH / gpus / (use * PEAK)


# The tables


def tables() -> dict[str, str]:
    """By the names of their markers."""
    models = {name: network(name) for name in NAMES}
    largest = models[NAMES[-1]]
    return {
        "held": _table(("MiB", "", "parameters", "gradients", "moments", "an average", "all"), _held(models)),
        "kept": _table(
            ("MiB", "a sample", "checkpointed", "copies in bfloat16", *(f"gathered, {gpus} GPUs" for gpus in GPUS)),
            _kept(models),
        ),
        "most": _table(
            ("GPUs", "samples on each", "", "GiB, at most", "with activation checkpointing"), _most(largest)
        ),
        "files": _table(("GB", "network", "an average", "optimizer", "all"), _files(models)),
        "speed": _table(
            ("GPUs", "MFU", "ms a step", "steps/s", *(f"days for {_steps(n)} steps" for n in RUNS), "GB: DDP", "FSDP"),
            _speed(largest),
        ),
    }


def _held(models: Mapping[str, SiT]) -> Iterator[list[str]]:
    for name, model in models.items():
        for how, parts in (("DDP", 1), *((f"FSDP, {gpus} GPUs", gpus) for gpus in GPUS)):
            sizes = held(model, parts)
            yield [name, how, *map(_mib, (*sizes, sum(sizes)))]


def _kept(models: Mapping[str, SiT]) -> Iterator[list[str]]:
    for name, model in models.items():
        sample, copies = kept(model.config, False)
        together = (gathered(model, gpus) for gpus in GPUS)
        yield [name, *map(_mib, (sample, kept(model.config, True).sample, copies, *together))]


def _most(model: SiT) -> Iterator[list[str]]:
    for gpus in GPUS:
        for sharded in (False, True):
            sizes = [at_most(model, gpus, sharded=sharded, checkpointing=c) / 2**30 for c in (False, True)]
            yield [str(gpus), str(BATCH // gpus), "FSDP" if sharded else "DDP", *(f"{size:.1f}" for size in sizes)]


def _files(models: Mapping[str, SiT]) -> Iterator[list[str]]:
    for name, model in models.items():
        sizes = checkpoint(model).values()
        yield [name, *(f"{size / 1e9:.2f}" for size in (*sizes, sum(sizes)))]


def _speed(model: SiT) -> Iterator[list[str]]:
    flops = training_flops(model)
    for gpus in GPUS:
        exchange = [f"{sent(model, gpus, sharded=sharded) / 1e9:.1f}" for sharded in (False, True)]
        for use in USES:
            step = seconds(flops, gpus, use)
            days = [f"{steps * step / DAY:.2g}" for steps in RUNS]
            yield [str(gpus), f"{use:.0%}", f"{1e3 * step:.1f}", f"{1 / step:.1f}", *days, *exchange]


def _steps(number: int) -> str:
    return f"{number // 1_000_000} M" if number >= 1_000_000 else f"{number // 1000} K"


def _mib(size: float) -> str:
    return f"{size / 2**20:,.{0 if size >= 100 * 2**20 else 1}f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def page(text: str) -> str:
    """The page, with its tables written anew between their markers.

    Raises:
        ValueError: If it has not the two markers of each table, once.
    """
    for name, table in tables().items():
        begin, end = f"<!-- {name}: written by docs/cluster.py -->", f"<!-- end of {name} -->"
        new = f"{begin}\n{table}\n{end}"
        text, count = re.subn(f"{begin}\n.*?{end}", new, text, flags=re.DOTALL)  # no table has a backslash
        if count != 1:
            raise ValueError(f"{PAGE.name}: must have {begin!r} and {end!r} once, got {count} of them.")
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
