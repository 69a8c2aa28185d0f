"""The example scripts as a user runs them, in this process, or in some that are forked from it, which start at once."""

from __future__ import annotations

import os
import runpy
import signal
import socket
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def call(name: str, *flags: str) -> int:
    """Run a script in this process; returns its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *flags])
        patch.setattr(warnings, "formatwarning", warnings.formatwarning)  # put back afterwards
        try:
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        except SystemExit as ended:
            return int(ended.code or 0)
    return 0


def call_in_ranks(count: int, name: str, *flags: str) -> str:
    """Run a script in so many processes, as torchrun starts them; returns what they print."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        place = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(count)}
    read, write = os.pipe()

    def run(rank: int) -> int:
        os.environ.update(place, RANK=str(rank), LOCAL_RANK=str(rank))
        sys.stdout = os.fdopen(write, "w", buffering=1)
        return call(name, *flags)

    children = [_forked(lambda rank=rank: run(rank)) for rank in range(count)]
    os.close(write)
    with os.fdopen(read) as said:
        text = said.read()
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * count, text
    return text


def call_killed(name: str, *flags: str, saves: int) -> None:
    """Run a script in a process that is killed when half of an array is on the disk, after it has saved so many."""
    save, saved = np.save, list[Any]()

    def save_or_die(stream: IO[bytes], array: Any, **options: Any) -> None:
        if len(saved) == saves:
            stream.write(array.tobytes()[: array.nbytes // 2])
            stream.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        saved.append(stream.name)
        save(stream, array, **options)

    def run() -> int:
        np.save = save_or_die
        return call(name, *flags)

    assert os.waitpid(_forked(run), 0)[1] == signal.SIGKILL


def contents(folder: Path) -> dict[str, bytes]:
    """Of all files."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def _forked(run: Callable[[], int]) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = run()
        finally:
            os._exit(code)
    return child
