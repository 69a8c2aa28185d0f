"""Weights that a run begins from: those of another run, a folder or repository of a Field, or an official file."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import cast

import interpolants
from models import SiT, load_official
from training import hub
from training.checkpoint import find


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
    if place.is_file():
        found = load_official(place, input_size=model.input_shape[1:])
    elif (place / "checkpoints").is_dir() or place.name.startswith("step-"):
        field = find(place).field()
        found, trained_for = cast(SiT, field.model), (field.path, field.prediction)
    else:
        found, its_path, its_prediction = hub.load(source)
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
