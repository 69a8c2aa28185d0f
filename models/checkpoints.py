"""Read and write the checkpoints of the official SiT release, and read those of networks with its block.

Two layouts exist: the released weights are a bare state dict; a training run saves {model, ema, opt, args}. Nothing but
tensors, plain containers and argparse.Namespace is unpickled, so a file from elsewhere cannot run code.

Networks with the block have conventions of their own for the time and the output, which no file tells:

    SiT, LightningDiT    t = 0 noise, t = 1 data; the velocity, noise to data
    REPA                 t = 0 data, t = 1 noise; its negative: use  lambda x, t, y: -model(x, 1 - t, y)
    DiT                  t = 0, ..., 999 from data to noise; the noise, on the path linear_vp
"""

from __future__ import annotations

import argparse
import math
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.blocks import Style
from models.embeddings import sincos_position_embedding
from models.presets import PRESETS, create_model
from models.sit import SiT

_WHERE = "load_official"
_FIRST = "x_embedder.proj.weight"
_LEFT_OUT = ("projectors.", "feat_rope.")


def load_official(
    file: str | os.PathLike[str],
    *,
    input_size: int | Sequence[int] | None = None,
    in_channels: int | None = None,
    num_classes: int | None = None,
    class_dropout: float = 0.1,
    use_ema: bool = True,
    **style: bool,
) -> SiT:
    """Build the SiT that a checkpoint of the official release holds, and load its weights.

    Size, patch, channels, classes and learn_sigma are read off the shapes of the tensors. The weights are float32 on
    the CPU and the model is in eval mode, so no label is dropped: call ``.train()`` to go on training.

    REPA's projectors and the constant tables of LightningDiT's rotations are left out. RoPE without tables leaves no
    trace in a file; such a file must be told by ``style``.

    Args:
        file: A bare state dict, or a training checkpoint {model, ema, opt, args} or {state_dict}. Prefixes of the
            names, as of compiled or wrapped networks, are left out.
        input_size: Height and width of the input, or one integer for both. None is a square input, the side being
            found from the number of tokens; else it is checked against the position embedding in the file.
        in_channels: Channels that the file is expected to have; None takes what it has.
        num_classes: Classes, without the null class, that the file is expected to have (0: no label table); None takes
            what it has, the last row of the table being the null class. An official network trained without class
            dropout has no null class, which no file tells: give the number of classes and ``class_dropout=0``, and one
            of zeros is added.
        class_dropout: Used when training goes on; the file does not tell it.
        use_ema: Take the averaged weights of a training checkpoint, else the raw ones. A bare state dict has one set.
        style: rope, swiglu, rms_norm or qk_norm, in place of what the names in the file tell.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read as tensors, or is not a SiT of a known size: the message lists the keys
            that are missing, unexpected or of the wrong shape.
    """
    content = _without_prefix(_select(_read(Path(file)), use_ema), use_ema)
    weights = {key: value for key, value in content.items() if not key.startswith(_LEFT_OUT)}
    dimensions = {"pos_embed": 3, "x_embedder.proj.weight": 4, "final_layer.linear.weight": 2}
    if absent := [key for key, n in dimensions.items() if key not in weights or weights[key].ndim != n]:
        raise ValueError(_message("file", "a SiT state dict", f"no {', '.join(absent)}", "Is it another network?"))

    hidden_size, channels, patch_size, _ = weights["x_embedder.proj.weight"].shape
    depth = 1 + max((int(i[1]) for key in weights if (i := re.match(r"blocks\.(\d+)\.", key))), default=-1)
    names = [
        n for n, p in PRESETS.items() if (p.depth, p.hidden_size, p.patch_size) == (depth, hidden_size, patch_size)
    ]
    if not names:
        got = f"depth {depth}, hidden size {hidden_size}, patch {patch_size}"
        raise ValueError(
            _message("file", f"one of {', '.join(PRESETS)}", got, "The number of heads is not in the file.")
        )
    table = weights.get("y_embedder.embedding_table.weight")
    classes = 0 if table is None else table.shape[0] - 1
    if table is not None and class_dropout == 0.0 and num_classes == table.shape[0]:  # there is no null class
        classes = num_classes
        weights["y_embedder.embedding_table.weight"] = torch.cat([table, torch.zeros_like(table[:1])])
    for argument, expected, found in (("in_channels", in_channels, channels), ("num_classes", num_classes, classes)):
        if expected is not None and expected != found:
            fix = "Or leave it out."
            if argument == "num_classes" and expected == found + 1:
                fix = "Or leave it out; if it was trained without class dropout, pass class_dropout=0."
            raise ValueError(_message(argument, f"{found}, as in the file", expected, fix))
    if input_size is None:
        input_size = patch_size * math.isqrt(weights["pos_embed"].shape[1])

    with torch.device("meta"):
        model = create_model(
            names[0],
            input_size=input_size,
            in_channels=channels,
            num_classes=classes,
            class_dropout=class_dropout,
            learn_sigma=weights["final_layer.linear.weight"].shape[0] == 2 * channels * patch_size**2,
            **{**_style(content), **style},
        )
    _check_keys_and_shapes(model.state_dict(), weights)
    # The grids 16 x 64 and 32 x 32 have equally many tokens; only the values tell them apart.
    positions = sincos_position_embedding(hidden_size, *model.grid)
    if not torch.allclose(weights["pos_embed"][0].double(), positions, atol=1e-2):
        raise ValueError(_message("input_size", "that of the file's pos_embed", input_size, "Pass the other (H, W)."))
    model = model.to_empty(device="cpu").float()
    model.load_state_dict(weights)
    return model.eval()


def save_official(model: SiT, file: str | os.PathLike[str]) -> None:
    """Write the weights as a bare state dict, the layout of the released ones, which the official code reads.

    Its scripts build networks with learn_sigma: for one without, theirs must be told ``learn_sigma=False``.

    Args:
        model: Of the paper's block, with classes; any sizes.
        file: To write. What was there before is replaced once the new file is complete.

    Raises:
        ValueError: If the official code has no such network: one of another style, or without classes.
    """
    config = model.config
    if config.style != Style() or config.num_classes == 0:
        raise ValueError(
            f"save_official: model must be of the paper's block and have classes, got {config}. "
            "Any SiT is kept by save_pretrained."
        )
    file = Path(file)
    unfinished = file.with_name(f".unfinished-{file.name}")
    torch.save({key: value.detach().cpu() for key, value in model.state_dict().items()}, unfinished)
    os.replace(unfinished, file)


def _style(content: Mapping[str, Tensor]) -> dict[str, bool]:
    """What the names in a state dict tell of the blocks."""
    return {
        "rope": any(key.startswith("feat_rope.") for key in content),
        "swiglu": "blocks.0.mlp.w12.weight" in content,
        "rms_norm": "blocks.0.norm1.weight" in content,
        "qk_norm": "blocks.0.attn.q_norm.weight" in content,
    }


def _read(file: Path) -> Any:
    if not file.is_file():
        raise FileNotFoundError(_message("file", "an existing file", str(file), "Check the path."))
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            # Mapped and not read: of a training checkpoint, the other weights and the optimizer stay on the disk.
            return torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except (PermissionError, MemoryError):
        raise
    except Exception as error:  # A damaged pickle can raise anything.
        fix = f"The file is damaged, or holds objects that could run code ({type(error).__name__})."
        raise ValueError(_message("file", "a checkpoint of tensors only", str(file), fix)) from error


def _select(content: Any, use_ema: bool) -> dict[str, Tensor]:
    """Return the state dict of a training checkpoint, or the content itself if it is one."""
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):  # of Lightning
        content = content["state_dict"]
    if isinstance(content, Mapping) and ("model" in content or "ema" in content):
        key = "ema" if use_ema else "model"
        if key not in content:
            fix = f"Pass use_ema={not use_ema}."
            raise ValueError(_message("file", f"a training checkpoint with {key!r}", [str(k) for k in content], fix))
        content = content[key]
    if not isinstance(content, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise ValueError(
            _message("file", "a state dict of tensors", type(content).__name__, "Is it another checkpoint?")
        )
    return dict(content)


def _without_prefix(content: dict[str, Tensor], use_ema: bool) -> dict[str, Tensor]:
    """The network in a state dict, without what its names begin with, such as ``module.`` or ``_orig_mod.``.

    Of several networks it is the one whose prefix says that it is an average, or does not say so.
    """
    prefixes = [key.removesuffix(_FIRST) for key in content if key.endswith(_FIRST)]
    chosen = [prefix for prefix in prefixes if ("ema" in prefix.lower()) == use_ema] if len(prefixes) > 1 else prefixes
    if not prefixes or "" in prefixes:
        return content
    if len(chosen) != 1:
        fix = "Save the state dict of one of them."
        raise ValueError(_message("file", "a state dict of one SiT", f"several, named {', '.join(prefixes)}", fix))
    return {key.removeprefix(chosen[0]): value for key, value in content.items() if key.startswith(chosen[0])}


def _check_keys_and_shapes(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    missing = [key for key in expected if key not in weights]
    unexpected = [key for key in weights if key not in expected]
    mismatched = [
        f"{key} {tuple(weights[key].shape)} instead of {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key in weights and weights[key].shape != tensor.shape
    ]
    found = {"missing": missing, "unexpected": unexpected, "mismatched": mismatched}
    if faults := "; ".join(f"{kind}: {', '.join(keys)}" for kind, keys in found.items() if keys):
        raise ValueError(_message("file", "a SiT state dict", faults, "Is it of another input size, or incomplete?"))


def _message(argument: str, contract: str, value: object, fix: str) -> str:
    return f"{_WHERE}: {argument} must be {contract}, got {value!r}. {fix}"
