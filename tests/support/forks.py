"""The training script in processes that start in milliseconds, forked from one that has imported everything.

Tests kill many of them, and an interpreter of its own for each would take seconds.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import runpy
import signal
import sys
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import torch

from training.checkpoint import latest
from training.hub import sha256
from training.record import METRICS_FILE, read_log

ROOT = Path(__file__).parents[2]
SMALL = (
    "--config", str(ROOT / "examples" / "configs" / "digits.yaml"), "--model.name=SiT-T/8", "--data.batch_size=8",
    "--training.warmup_steps=4", "--training.learning_rate=0.001", "--training.ema_decays=[0.9, 0.5]",
    "--training.ema_widths=[0.1]", "--training.ema_snapshot_every=5", "--log.every=1",
)  # fmt: skip
"""One token an image: steps of milliseconds."""

MEASURED = ("seconds", "seconds_per_step", "images_per_second", "peak_memory_gib")

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["training.trainer", "training.figures", "sklearn.datasets"])


def start(
    out: Path, *flags: str, die_at: tuple[str, str] | None = None, largest_file: int | None = None
) -> ForkServerProcess:
    """Start examples/train.py as a user does.

    Args:
        out: File to which what it prints is added.
        flags: After those of SMALL.
        die_at: An audit event of Python, such as os.rename, and a part of its arguments: SIGKILL just before it.
        largest_file: Bytes; writing more fails.
    """
    process = _forks.Process(target=_train, args=(out, [*SMALL, *flags], die_at, largest_file))
    process.start()
    return process


def _train(out: Path, flags: Sequence[str], die_at: tuple[str, str] | None, largest_file: int | None) -> None:
    with out.open("ab") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)

    def audit(event: str, about: tuple[Any, ...]) -> None:
        if die_at is not None and event == die_at[0] and die_at[1] in str(about):
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(audit)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    multiprocessing.set_start_method("fork", force=True)  # of workers, as in any process that was not forked so
    torch.set_num_threads(1)
    sys.argv = ["train.py", *flags]
    runpy.run_path(str(ROOT / "examples" / "train.py"), run_name="__main__")


def results(run: Path) -> dict[str, Any]:
    """What a run has made, but for the time that it took: the checksum of each file of tensors, and the metrics."""
    found = latest(run)
    assert found is not None
    files = [*found.folder.glob("*.safetensors"), *run.glob("snapshots/*")]
    return {
        "files": {str(file.relative_to(run)): sha256(file) for file in files},
        "numbers": {name: found.meta[name] for name in ("step", "ema_updates", "optimizer", "path", "model")},
        "metrics": [{k: v for k, v in line.items() if k not in MEASURED} for line in read_log(run / METRICS_FILE)],
    }
