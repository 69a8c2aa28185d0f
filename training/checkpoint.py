"""Checkpoints that no kill can break and no load can run code from.

A checkpoint is a folder ``checkpoints/step-00000900`` with

- ``model.safetensors`` and ``ema.safetensors``: the state dicts of the network and of its average, with equal names;
- ``optimizer.safetensors``: the optimizer's tensors, named ``<index of the parameter>/<name in its state>``;
- ``checkpoint.json``: all that is not a tensor, the SHA-256 of each file above, and of itself.

It is written to a hidden sibling, flushed to the disk, and renamed: whenever the process or the machine stops, there is
the folder that was, or the whole new one. Nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import interpolants
from models import SiT
from training.fields import Field
from training.hub import as_text, from_text, sha256

FORMAT: Final = 1
JSON_FILE: Final = "checkpoint.json"
_UNFINISHED: Final = ".unfinished-"


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged, or of another run."""


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: its folder and what its ``checkpoint.json`` says."""

    folder: Path
    meta: Mapping[str, Any]

    @property
    def step(self) -> int:
        """Number of optimizer steps made."""
        return int(self.meta["step"])

    @property
    def digest(self) -> str:
        """SHA-256 of everything in the checkpoint: its identity."""
        return str(self.meta["digest"])

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of ``model``, ``ema`` or ``optimizer``.

        Raises:
            CheckpointError: If the file has gone since it was verified.
        """
        file = self.folder / f"{name}.safetensors"
        try:
            return load_file(file)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{file}: cannot be read, {error}.") from None

    def require_settings(
        self, config: Mapping[str, Any], *, only: tuple[str, ...] = ("",), but: tuple[str, ...] = ()
    ) -> None:
        """Check that a run is gone on with, or sampled, with the settings that it was begun with.

        Args:
            config: The settings of now, plain data.
            only: Beginnings of the names that are compared, such as "model."; by default all.
            but: Beginnings of the names that are not.

        Raises:
            CheckpointError: If some differ; names them.
        """
        before, now = flat(self.meta["config"]), flat(config)
        different = [
            f"{key} was {before.get(key)!r}, is {now.get(key)!r}"
            for key in sorted(before.keys() | now.keys())
            if before.get(key) != now.get(key) and key.startswith(only) and not key.startswith(but)
        ]
        if different:
            raise CheckpointError(
                f"{self.folder}: the run was begun with other settings: {'; '.join(different)}. "
                "Restore them, or set run to a new folder."
            )

    def restore(self, model: nn.Module, ema: AveragedModel, optimizer: torch.optim.Optimizer) -> None:
        """Put all three back as they were when the checkpoint was saved."""
        model.load_state_dict(self.tensors("model"))
        ema.module.load_state_dict(self.tensors("ema"))
        ema.n_averaged.fill_(self.meta["ema_updates"])
        optimizer.load_state_dict(_unflatten(self.tensors("optimizer"), self.meta["optimizer"]))

    def field(self, *, weights: str = "ema", guidance_scale: float = 1.0, device: str | torch.device = "cpu") -> Field:
        """The network on its path; see load_field."""
        if weights not in ("ema", "model"):
            raise ValueError(f"load_field: weights must be 'ema' or 'model', got {weights!r}.")
        model = SiT(**self.meta["model"])
        model.load_state_dict(self.tensors(weights))
        model = model.to(device).eval().requires_grad_(False)
        return Field(model, from_text(self.meta["path"]), self.meta["prediction"], guidance_scale)


def save(
    run: str | Path,
    *,
    step: int,
    model: SiT,
    ema: AveragedModel,
    optimizer: torch.optim.Optimizer,
    path: interpolants.Path,
    prediction: str,
    config: Mapping[str, Any],
    seconds: float = 0.0,
    keep: int = 2,
) -> Path:
    """Write the checkpoint of a step and delete all but the last ``keep``.

    Args:
        run: Folder of the run; the checkpoint lies in its ``checkpoints``.
        step: Number of optimizer steps made.
        model, ema, optimizer: What is saved.
        path, prediction: What the network means.
        config: Settings of the run, plain data.
        seconds: Time spent training so far.
        keep: How many to keep, at least 1. One that is newer than this one, for instance damaged, is left alone.

    Returns:
        The new folder.

    Raises:
        OSError: If the disk is full or the folder cannot be written. The checkpoints before it are as they were.
    """
    folder = Path(run) / "checkpoints" / f"step-{step:08d}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(_UNFINISHED + folder.name)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    optimizer_tensors, optimizer_numbers = _flatten(optimizer.state_dict())
    files = {
        "model.safetensors": model.state_dict(),
        "ema.safetensors": ema.module.state_dict(),
        "optimizer.safetensors": optimizer_tensors,
    }
    for name, tensors in files.items():
        save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, temporary / name)
    meta = {
        "format": FORMAT,
        "step": step,
        "ema_updates": int(ema.n_averaged),
        "seconds": seconds,
        "path": as_text(path),
        "prediction": prediction,
        "model": asdict(model.config),
        "config": dict(config),
        "optimizer": optimizer_numbers,
        "versions": {"torch": torch.__version__, "interpolants": interpolants.__version__},
        "sha256": {name: sha256(temporary / name) for name in files},
    }
    meta["digest"] = _digest(meta)
    (temporary / JSON_FILE).write_text(json.dumps(meta, indent=2, allow_nan=False) + "\n")
    for entry in (*temporary.iterdir(), temporary):
        _flush(entry)
    if folder.exists():  # Of an earlier attempt at the same step, such as a damaged one that was passed over.
        _delete(folder)
    temporary.rename(folder)
    _flush(folder.parent)
    older = [other for other in _folders(run) if other.name < folder.name]
    for other in older[: max(0, len(older) - (keep - 1))]:
        _delete(other)
    return folder


def load_checkpoint(folder: str | Path) -> Checkpoint:
    """Read and verify a checkpoint: every file is there and is, to the byte, what was written.

    Raises:
        CheckpointError: If not. The message names the file and the reason.
    """
    folder = Path(folder)
    source = folder / JSON_FILE
    try:
        meta = json.loads(source.read_text())
    except FileNotFoundError:
        raise CheckpointError(f"{source}: there is no such file, so no checkpoint here.") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{source}: damaged, {error}.") from None
    if not isinstance(meta, dict) or meta.get("digest") != _digest(meta):
        raise CheckpointError(f"{source}: damaged, its checksum is not that of its contents.")
    if meta["format"] != FORMAT:
        raise CheckpointError(
            f"{source}: format must be {FORMAT}, got {meta['format']!r}. Use the version that wrote it."
        )
    for name in meta["sha256"]:
        _verify(folder / name, meta["sha256"][name])
    return Checkpoint(folder, meta)


def latest(run: str | Path) -> Checkpoint | None:
    """The newest valid checkpoint of a run, or None if the run has none yet.

    A damaged one is reported by a warning that names the file and the reason, and the one before it is used.

    Raises:
        CheckpointError: If there are checkpoints and all of them are damaged.
    """
    reason: CheckpointError | None = None
    for folder in reversed(_folders(run)):
        try:
            return load_checkpoint(folder)
        except CheckpointError as error:  # noqa: PERF203
            warnings.warn(f"checkpoint passed over: {error}", stacklevel=2)
            reason = error
    if reason is not None:
        raise CheckpointError(f"{run}: no checkpoint is intact. {reason} Delete them to start anew.")
    return None


def load_field(
    source: str | Path, *, weights: str = "ema", guidance_scale: float = 1.0, device: str | torch.device = "cpu"
) -> Field:
    """A trained network on its path, ready to sample from.

    Args:
        source: A run, of which the newest valid checkpoint is taken, or the folder of a checkpoint.
        weights: "ema" or "model".
        guidance_scale: See Field.
        device: Of the network.

    Raises:
        CheckpointError: If there is no valid checkpoint.
        ValueError: If ``weights`` is neither.
    """
    return find(source).field(weights=weights, guidance_scale=guidance_scale, device=device)


def find(source: str | Path) -> Checkpoint:
    """The checkpoint at ``source``: its folder, or a run, of which the newest valid one is taken.

    Raises:
        CheckpointError: If there is none.
    """
    source = Path(source)
    checkpoint = load_checkpoint(source) if source.name.startswith("step-") else latest(source)
    if checkpoint is None:
        raise CheckpointError(f"{source}: there is no checkpoint. Train first: examples/train.py writes one.")
    return checkpoint


def remove_unfinished(run: str | Path) -> None:
    """Delete what a killed write or deletion left behind. Only for the one process that trains the run."""
    for leftover in (Path(run) / "checkpoints").glob(_UNFINISHED + "*"):
        shutil.rmtree(leftover)


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings as ``{"training.steps": 5, ...}``."""
    if not isinstance(config, dict):
        return {prefix: config}
    dot = prefix and prefix + "."
    return {key: value for name, inner in config.items() for key, value in flat(inner, dot + name).items()}


def _folders(run: str | Path) -> list[Path]:
    """Oldest first."""
    return sorted((Path(run) / "checkpoints").glob("step-" + "[0-9]" * 8))


def _delete(folder: Path) -> None:
    """Rename, then delete, so that a kill leaves no half folder under a name that counts."""
    doomed = folder.with_name(f"{_UNFINISHED}deletion-{folder.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed)


def _flatten(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """An optimizer's state dict as named tensors, and its groups of plain numbers.

    Raises:
        TypeError: If a state is not a tensor. AdamW's all are.
    """
    tensors = {}
    for index, values in state["state"].items():
        for name, value in values.items():
            if not isinstance(value, Tensor):
                raise TypeError(f"checkpoint: optimizer state {name!r} must be a tensor, got {type(value).__name__}.")
            tensors[f"{index}/{name}"] = value
    return tensors, state["param_groups"]


def _unflatten(tensors: Mapping[str, Tensor], groups: list[dict[str, Any]]) -> dict[str, Any]:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split("/")
        state.setdefault(int(index), {})[name] = value
    tuples = [{k: tuple(v) if k == "betas" else v for k, v in group.items()} for group in groups]
    return {"state": state, "param_groups": tuples}


def _verify(file: Path, expected: str) -> None:
    try:
        found = sha256(file)
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read, {error.strerror}.") from None
    if found != expected:
        raise CheckpointError(f"{file}: damaged, its SHA-256 is not the one in {JSON_FILE}.")


def _digest(meta: Mapping[str, Any]) -> str:
    content = {key: value for key, value in meta.items() if key != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _flush(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
