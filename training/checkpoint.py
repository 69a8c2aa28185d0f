"""Checkpoints that no kill can break and no load can run code from.

A checkpoint is a folder ``checkpoints/step-00000900`` with

- ``model.safetensors`` and ``ema.safetensors``: the state dicts of the network and of its average, with equal names;
  each further average has a file of its own;
- ``optimizer.safetensors``: the optimizer's tensors, named ``<index of the parameter>/<name in its state>``;
- ``checkpoint.json``: all that is not a tensor, the SHA-256 of each file above, and of itself.

It is written to a hidden sibling, flushed to the disk, and renamed: whenever the process or the machine stops, there is
the folder that was, or the whole new one. Nothing is unpickled. Parameters that lie in parts are put together, so that
what is written does not depend on the number of processes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
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
from training.files import flush
from training.fingerprint import Fingerprint, changes
from training.hub import sha256
from training.sharding import part, whole

FORMAT: Final = 2
JSON_FILE: Final = "checkpoint.json"
CHECKPOINTS: Final = "checkpoints"
UNFINISHED: Final = ".unfinished-"


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
        different = different_settings(self.meta["config"], config, only=only, but=but)
        if different:
            raise CheckpointError(
                f"{self.folder}: the run was begun with other settings: {'; '.join(different)}. "
                "Restore them, or set run to a new folder."
            )

    def require_data(self, now: Fingerprint) -> None:
        """Check that a run is gone on with the data that it was begun with, wherever they lie now.

        Raises:
            CheckpointError: If they are others; says what differs.
        """
        before = self.meta.get("data")  # which older checkpoints do not have
        if before is not None and (different := changes(before, now)):
            raise CheckpointError(
                f"{self.folder}: the run was begun with other data: {'; '.join(different)}. "
                "Restore them, or set run to a new folder."
            )

    def restore(
        self, model: nn.Module, averages: Mapping[str, AveragedModel], optimizer: torch.optim.Optimizer
    ) -> None:
        """Put all back as it was when the checkpoint was saved; each process takes its part of each parameter."""
        _load(model, self.tensors("model"))
        for name, average in averages.items():
            _load(average.module, self.tensors(name))
            average.n_averaged.fill_(self.meta["ema_updates"])
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        optimizer.load_state_dict(_unflatten(self.tensors("optimizer"), self.meta["optimizer"], parameters))

    def field(self, *, weights: str = "ema", guidance_scale: float = 1.0, device: str | torch.device = "cpu") -> Field:
        """The network on its path; see load_field."""
        there = [name.removesuffix(".safetensors") for name in self.meta["sha256"] if not name.startswith("optimizer")]
        if weights not in there:
            raise ValueError(f"load_field: weights must be one of {', '.join(sorted(there))}, got {weights!r}.")
        model = SiT(**self.meta["model"])
        model.load_state_dict(self.tensors(weights))
        model = model.to(device, torch.float32).eval().requires_grad_(False)
        path = interpolants.Path.from_text(self.meta["path"])
        return Field(model, path, self.meta["prediction"], guidance_scale)


@dataclass(frozen=True)
class Snapshot:
    """All of a checkpoint, in the memory of this process, apart from what training goes on with.

    Attributes:
        tensors: For each file, its tensors by name, on the CPU.
        meta: What is not a tensor.
    """

    tensors: Mapping[str, Mapping[str, Tensor]]
    meta: Mapping[str, Any]

    @property
    def step(self) -> int:
        """Number of optimizer steps made."""
        return int(self.meta["step"])


def snapshot(
    *,
    step: int,
    model: SiT,
    averages: Mapping[str, AveragedModel],
    optimizer: torch.optim.Optimizer,
    path: interpolants.Path,
    prediction: str,
    config: Mapping[str, Any],
    data: Fingerprint,
    state: Mapping[str, Any],
    keep: bool = True,
) -> Snapshot | None:
    """Copy the state of a run at a step; where parameters lie in parts, all processes call it together.

    Args:
        step: Number of steps made.
        model, averages, optimizer: What is saved; the averages by their names, the first of which is "ema".
        path, prediction: What the network means.
        config: Settings of the run, plain data.
        data: Fingerprint of the training data.
        state: What else the next step depends on, and the time it took, plain data.
        keep: Whether this process has use for it; else it takes part, and gets None.
    """
    optimizer_tensors, optimizer_numbers = _flatten(optimizer.state_dict())
    files = {
        "model": model.state_dict(),
        **{name: average.module.state_dict() for name, average in averages.items()},
        "optimizer": optimizer_tensors,
    }
    meta = {
        "format": FORMAT,
        "step": step,
        "ema_updates": int(next(iter(averages.values())).n_averaged),
        "state": dict(state),
        "path": path.to_text(),
        "prediction": prediction,
        "model": asdict(model.config),
        "config": dict(config),
        "data": data,
        "optimizer": optimizer_numbers,
        "versions": {"torch": torch.__version__, "interpolants": interpolants.__version__},
    }
    tensors = {name: {key: _copy(value, keep) for key, value in file.items()} for name, file in files.items()}
    return Snapshot(tensors, meta) if keep else None


def write(run: str | Path, contents: Snapshot, *, keep: int = 2, keep_every: int | None = None) -> Path:
    """Write a checkpoint, and delete all but the last ``keep`` and those that are kept for good.

    Args:
        run: Folder of the run; the checkpoint lies in its ``checkpoints``.
        contents: What to write.
        keep: How many to keep, at least 1. One that is newer than this one, for instance damaged, is left alone.
        keep_every: Those of the multiples of this step are kept for good.

    Returns:
        The new folder.

    Raises:
        OSError: If the disk is full or the folder cannot be written. The checkpoints before it are as they were.
    """
    folder = Path(run) / CHECKPOINTS / f"step-{contents.step:08d}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(UNFINISHED + folder.name)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    for name, tensors in contents.tensors.items():
        write_tensors(temporary / f"{name}.safetensors", tensors)
    files = [f"{name}.safetensors" for name in contents.tensors]
    meta = {**contents.meta, "sha256": {name: sha256(temporary / name) for name in files}}
    meta["digest"] = _digest(meta)
    (temporary / JSON_FILE).write_text(json.dumps(meta, indent=2, allow_nan=False) + "\n")
    for entry in (*temporary.iterdir(), temporary):
        flush(entry)
    if folder.exists():  # Of an earlier attempt at the same step, such as a damaged one that was passed over.
        _delete(folder)
    temporary.rename(folder)
    flush(folder.parent)
    older = [other for other in _folders(run) if other.name < folder.name]
    for other in older[: max(0, len(older) - (keep - 1))]:
        if not (keep_every and int(other.name.removeprefix("step-")) % keep_every == 0):
            _delete(other)
    return folder


class Writer:
    """Writes checkpoints while the training goes on, one at a time."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[Path] | None = None

    def start(self, run: str | Path, contents: Snapshot, *, keep: int, keep_every: int | None) -> None:
        """Write as ``write`` does, once the one before is written.

        Raises:
            OSError: If that one could not be.
        """
        self.wait()
        self._writing = self._thread.submit(write, run, contents, keep=keep, keep_every=keep_every)

    @property
    def failed(self) -> bool:
        """Whether the last one could not be written."""
        return self._writing is not None and self._writing.done() and self._writing.exception() is not None

    def check(self) -> None:
        """Raise the OSError of a write that has failed."""
        if self.failed:
            self.wait()

    def wait(self) -> None:
        """Until all is on the disk.

        Raises:
            OSError: If it could not be written.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()


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
        except CheckpointError as error:
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
        weights: "ema", another average such as "ema-0.999" or "ema-width-0.05", or "model".
        guidance_scale: See Field.
        device: Of the network.

    Raises:
        ValueError: If there is no valid checkpoint, or it has no such ``weights``.
    """
    return find(source).field(weights=weights, guidance_scale=guidance_scale, device=device)


def run_of(place: str | Path) -> Path | None:
    """The run with checkpoints that a folder is, or that a folder or a file in its checkpoints belongs to, if any."""
    place = Path(place)
    inside = [folder.parent for folder in (place, *place.parents) if folder.name == CHECKPOINTS]
    return next((run for run in (place, *inside) if any((run / CHECKPOINTS).glob(f"step-*/{JSON_FILE}"))), None)


def find(source: str | Path) -> Checkpoint:
    """The checkpoint at ``source``: its folder, or a run, of which the newest valid one is taken.

    Raises:
        CheckpointError: If there is none.
    """
    source = Path(source)
    checkpoint = load_checkpoint(source) if source.name.startswith("step-") else latest(run_of(source) or source)
    if checkpoint is None:
        if source.is_file():
            raise CheckpointError(f"{source}: a run must be a folder, got a file. Official weights are --pretrained.")
        raise CheckpointError(f"{source}: there is no checkpoint. Train first: sit train, or examples/train.py.")
    return checkpoint


def write_tensors(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a file of safetensors.

    Raises:
        OSError: If it cannot be written.
    """
    try:
        save_file(dict(tensors), file)
    except SafetensorError as error:  # which wraps that of the disk
        raise OSError(f"{file}: cannot be written, {error}.") from None


def remove_unfinished(run: str | Path) -> None:
    """Delete what a killed write or deletion left behind. Only for the one process that trains the run.

    Raises:
        OSError: If it cannot be deleted.
    """
    for leftover in Path(run).glob(f"*/{UNFINISHED}*"):  # of checkpoints, and of snapshots of averages
        try:
            shutil.rmtree(leftover)
        except OSError as error:
            raise OSError(f"{leftover}: cannot be deleted, {error}.") from None


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings as ``{"training.steps": 5, ...}``."""
    if not isinstance(config, dict):
        return {prefix: config}
    dot = prefix and prefix + "."
    return {key: value for name, inner in config.items() for key, value in flat(inner, dot + name).items()}


def different_settings(
    before: Mapping[str, Any], now: Mapping[str, Any], *, only: tuple[str, ...] = ("",), but: tuple[str, ...] = ()
) -> list[str]:
    """Which of two nested settings differ, each in words.

    Args:
        before, now: Plain data.
        only: Beginnings of the names that are compared; by default all.
        but: Beginnings of the names that are not.
    """
    first, second = flat(dict(before)), flat(json.loads(json.dumps(now)))  # where tuples are lists
    return [
        f"{key} was {first.get(key)!r}, is {second.get(key)!r}"
        for key in sorted(first.keys() | second.keys())
        if first.get(key) != second.get(key) and key.startswith(only) and not key.startswith(but)
    ]


def _folders(run: str | Path) -> list[Path]:
    """Oldest first."""
    return sorted((Path(run) / CHECKPOINTS).glob("step-" + "[0-9]" * 8))


def _delete(folder: Path) -> None:
    """Rename, then delete, so that a kill leaves no half folder under a name that counts."""
    doomed = folder.with_name(f"{UNFINISHED}deletion-{folder.name}")
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


def _unflatten(tensors: Mapping[str, Tensor], groups: list[dict[str, Any]], parameters: list[Tensor]) -> dict[str, Any]:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split("/")
        state.setdefault(int(index), {})[name] = part(value, parameters[int(index)])
    tuples = [{k: tuple(v) if k == "betas" else v for k, v in group.items()} for group in groups]
    return {"state": state, "param_groups": tuples}


def _load(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    own = module.state_dict()
    module.load_state_dict({name: part(value, own[name]) if name in own else value for name, value in tensors.items()})


def _copy(tensor: Tensor, keep: bool) -> Tensor:
    """All of a tensor on the CPU, in memory of its own; or nothing."""
    full = whole(tensor)
    if not keep:
        return torch.empty(0)
    return full.clone(memory_format=torch.contiguous_format) if full.device.type == "cpu" else full.cpu().contiguous()


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
