"""Weights that a run begins from: those of another run, a folder or repository of a Field, or an official file."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Final, cast

import interpolants
from models import SiT, load_official
from training import hub
from training.checkpoint import find, run_of

OFFICIAL: Final = (".pt", ".pth", ".ckpt", ".bin")
"""Suffixes of files of weights; a name on the hub has none of them."""


def is_official(source: str) -> bool:
    """Whether it is a file, or is named like one."""
    return Path(source).is_file() or Path(source).suffix in OFFICIAL


def load_pretrained(
    source: str,
    path: interpolants.Path,
    prediction: str,
    *,
    input_size: Sequence[int] | None = None,
    use_ema: bool = True,
    name: str = "pretrained",
) -> tuple[SiT, interpolants.Path, str]:
    """A network, its path and its prediction.

    Args:
        source: A folder that ``Field.save_pretrained`` wrote, or a repository of the hub, which know their path and
            prediction; or a file that ``load_official`` reads, which does not.
        path, prediction: Path and prediction of an official file.
        input_size: Height and width of the data of an official file; None is a square.
        use_ema: Whether to take the averaged weights of an official training checkpoint, not the weights themselves.
        name: Name of the source in errors.

    Raises:
        OSError: If there is no such source.
        ValueError: If it does not hold a network, or belongs to a run, whose path and prediction it does not know.
    """
    if (run := run_of(source)) is not None:
        flag = "--run" if name == "pretrained" else f"--{name}"
        raise ValueError(f"{name}: must not be in a run, got {source!r}. The newest weights of it are {flag} {run}.")
    if not is_official(source):
        return hub.load(source)
    if not Path(source).is_file():
        raise FileNotFoundError(
            f"{name}: must be a file that is there, got {source!r}. Download official weights from the authors' "
            "own page."
        )
    return load_official(source, input_size=input_size, use_ema=use_ema), path, prediction


def load_initial(model: SiT, source: str, path: interpolants.Path, prediction: str) -> None:
    """Copy weights into a network.

    Args:
        model: The network, which keeps its own class dropout.
        source: A run or one of its checkpoints, of which the averaged weights are taken; a folder that
            ``Field.save_pretrained`` wrote, or a repository of the hub; or a file that ``load_official`` reads.
        path, prediction: What the network is going to be trained for. Others in ``source`` are warned of.

    Raises:
        ValueError: If the weights are of another network; names the parameters that do not fit.
        OSError: If there is no such source.
    """
    place, trained_for = Path(source), (path, prediction)
    if (place / "checkpoints").is_dir() or place.name.startswith("step-"):
        field = find(place).field()
        found, trained_for = cast(SiT, field.model), (field.path, field.prediction)
    else:
        size = model.input_shape[1:]
        found, its_path, its_prediction = load_pretrained(source, path, prediction, input_size=size, name="init")
        trained_for = its_path, its_prediction
    if trained_for != (path, prediction):
        warnings.warn(
            f"init: the network of {source} predicts the {trained_for[1]} on the path {trained_for[0].name}, and is "
            f"trained from here to predict the {prediction} on {path.name}.",
            stacklevel=2,
        )
    have, want = found.state_dict(), model.state_dict()
    wrong = [
        f"{name} {tuple(have[name].shape) if name in have else 'missing'}, not {tuple(value.shape)}"
        for name, value in want.items()
        if name not in have or have[name].shape != value.shape
    ]
    wrong += [f"{name} unexpected" for name in have if name not in want]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ValueError(
            f"init: the weights of {source} must be those of the network that model describes, and are not: "
            f"{'; '.join(wrong[:3])}{more}. Set model.name, model.num_classes, model.learn_sigma and so on to theirs."
        )
    model.load_state_dict(have)
