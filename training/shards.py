"""Results in a folder of shards: by any number of processes, and whole whenever they are killed.

A folder has ``settings.json``, all that the results depend on, written first, and the files of each shard. Shard k is
of the items from k * size on, so that its files do not depend on the number of processes, nor on how often they were
stopped. Each file is written under another name, flushed to the disk and renamed: whenever the machine stops, it is not
there, or whole. What is there is not made again.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from training.checkpoint import different_settings
from training.files import write_file, write_text
from training.fingerprint import changes
from training.processes import Processes, leave, stop_signals
from training.progress import progress

SETTINGS: Final = "settings.json"
FINGERPRINT: Final = "fingerprint"
SOURCES: Final = ("source", "data.source")
"""Settings that say where data lie."""


class Shards:
    """A folder that is begun, or gone on with; shards are written in any order.

    Args:
        folder: Where to.
        settings: All that the results depend on, plain data.
        count: Of all items.
        size: Items of a shard; the last one may have fewer.

    Attributes:
        shards: Their numbers.

    Raises:
        ValueError: If there are results with other settings in the folder.
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, Any], count: int, size: int) -> None:
        self.folder, self.count, self.size = Path(folder), count, size
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))  # where tuples are lists
        self.shards = range(-(-count // size))
        if (self.folder / SETTINGS).exists() and any(self.folder.glob("*.npy")):
            require_equal_settings(self.folder, json.loads((self.folder / SETTINGS).read_text()), self.settings)

    def begin(self) -> None:
        """Write the settings. Only for the first process, and before any shard."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / SETTINGS, self.settings)

    def of(self, shard: int) -> range:
        """The items of a shard."""
        return range(shard * self.size, min((shard + 1) * self.size, self.count))

    def has(self, shard: int) -> bool:
        """Whether a shard is written."""
        raise NotImplementedError


class ArrayShards(Shards):
    """Shards of one array each, such as ``images-000000.npy``, a row an item.

    Args:
        folder, settings, count, size: See Shards.
        name: Of the files.
        shape: Of a row.
        dtype: Such as uint8.
    """

    def __init__(
        self,
        folder: str | Path,
        settings: Mapping[str, Any],
        count: int,
        size: int,
        *,
        name: str,
        shape: tuple[int, ...],
        dtype: str,
    ) -> None:
        super().__init__(folder, settings, count, size)
        self.name, self.shape, self.dtype = name, shape, dtype

    def has(self, shard: int) -> bool:
        """See Shards."""
        try:
            check_array(self._file(shard), (len(self.of(shard)), *self.shape), self.dtype, self.name)
        except ValueError:  # not yet, or it was damaged later
            return False
        return True

    def write(self, shard: int, array: NDArray[Any]) -> None:
        """Write a shard.

        Raises:
            OSError: If the disk is full or the folder cannot be written.
        """
        assert array.shape == (len(self.of(shard)), *self.shape)
        write_array(self._file(shard), array.astype(self.dtype, copy=False))

    def read(self, shard: int) -> NDArray[Any]:
        """The rows of a shard."""
        array: NDArray[Any] = np.load(self._file(shard))
        return array

    def _file(self, shard: int) -> Path:
        return self.folder / f"{self.name}-{shard:06d}.npy"


def write_missing(
    shards: Shards, processes: Processes, write: Callable[[list[int]], Generator[int, None, None]]
) -> bool:
    """Write the shards that are not there, until all are, or a signal comes; the first process shows how fast it goes.

    Each process has those with shard mod count = rank. After a batch all of them meet, so one must take less than
    ``processes.TIMEOUT``. At the end they part.

    Args:
        shards: The folder.
        processes: That write it.
        write: Writes some shards, and yields the number of items after each batch.

    Returns:
        Whether all are there.

    Raises:
        ConnectionError: If another process has died.
    """
    missing = [shard for shard in shards.shards if not shards.has(shard)]
    if processes.is_first:
        shards.begin()
    processes.wait()
    batches = write([shard for shard in missing if shard % processes.count == processes.rank])
    left = sum(len(shards.of(shard)) for shard in missing)
    done, quiet = shards.count - left, not processes.is_first
    bar = progress(total=shards.count, initial=done, unit="image", desc=str(shards.folder), disable=quiet)
    working, stopped, started = True, False, time.perf_counter()
    with processes.together(), stop_signals() as caught, bar:
        while working and not stopped:
            count = next(batches, None)
            mine = torch.tensor([count or 0, count is not None, bool(caught)], device=processes.device)
            items, at_work, told_to_stop = (processes.mean(mine) * processes.count).round().int().tolist()
            if not quiet and left > items > 0 and bar.n == done:  # the first batch, of several
                rate = items / (time.perf_counter() - started)
                time_left = tqdm.format_interval((left - items) / rate)
                tqdm.write(f"about {time_left} for {left - items:,} more, at {rate:.3g} images/s", file=sys.stderr)
            bar.update(items)
            working, stopped = at_work > 0, told_to_stop > 0
    batches.close()  # which ends its workers
    leave()
    if stopped and processes.is_first:
        reason = caught[0] if caught else "a signal to another process"
        print(f"stopped by {reason}: {shards.folder} is not complete. The same command resumes.")
    return not stopped


def check_array(file: Path, shape: tuple[int, ...], dtype: str, where: str) -> None:
    """By the head and the size of a file, without reading it.

    Raises:
        ValueError: If it is not there, or of another shape, dtype or size.
    """
    try:
        array = np.load(file, mmap_mode="r")
        found = (array.shape, array.dtype.name)
        whole = array.offset + array.nbytes == file.stat().st_size
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{where}: {file} cannot be read: {error}.") from None
    if found != (shape, dtype) or not whole:
        raise ValueError(
            f"{where}: {file} must have shape {shape} of {dtype} and no more, got {found[0]} of {found[1]}."
        )


def write_json(file: Path, contents: Mapping[str, Any]) -> None:
    """Plain data, whole or not at all."""
    write_text(file, json.dumps(contents, indent=1, allow_nan=False) + "\n")


def write_array(file: Path, array: NDArray[Any]) -> None:
    """An array, whole or not at all."""
    write_file(file, lambda stream: np.save(stream, array, allow_pickle=False))


def write_arrays(file: Path, arrays: Mapping[str, Any]) -> None:
    """An ``.npz`` of several, whole or not at all."""
    write_file(file, lambda stream: np.savez(stream, **arrays))


def require_equal_settings(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise ValueError, with what differs, unless what is in a folder was begun with the same settings.

    Data with a fingerprint, under that key, are the same wherever they lie.
    """
    known = FINGERPRINT in before  # by older versions it is not
    apart = (f"{FINGERPRINT}.", *(SOURCES if known else ()))
    different = different_settings(before, now, but=apart)
    if known:
        different += changes(before[FINGERPRINT], now[FINGERPRINT])
    if different:
        raise ValueError(
            f"{folder} was begun with other settings: {'; '.join(different)}. Restore them, or write to a new folder."
        )
