"""Images that are measured: an array in a file, shards, a folder, or what a run is trained on; a batch at a time."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from training.config import Config, read_config
from training.data import Digits, Images, Source, read_ahead
from training.environment import CONFIG_FILE
from training.files import as_utf8
from training.hub import sha256
from training.images import UNREADABLE, decode, image_files, to_pixels
from training.progress import side_progress
from training.shards import SETTINGS

ARRAY: Final = "arr_0"
"""The key of the images in an ``.npz``, as the evaluator of ADM has it."""

SHARDS: Final = "images-*.npy"

BATCH: Final = 16
"""Images that are looked at together, before any are measured."""


class ImageSet(Dataset[Tensor]):
    """Images by their places: ``images[range(3, 5)]`` is uint8 of shape (2, 3, H, W), or of fewer where one is damaged.

    Attributes:
        name: Where they are from.
    """

    name: str

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, rows: range) -> Tensor:
        raise NotImplementedError

    def unreadable(self, rows: range) -> list[str]:
        """The images left out of ``images[rows]``, with the reason."""
        return []

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all."""
        raise NotImplementedError

    def read(self, batch_size: int, workers: int = 0) -> Iterator[tuple[range, Tensor]]:
        """All of them, with their places, by so many processes beside this one, ahead of time."""
        batches = [range(k, min(k + batch_size, len(self))) for k in range(0, len(self), batch_size)]
        return zip(batches, read_ahead(self, batches, workers), strict=True)


class ArrayImages(ImageSet):
    """Arrays of images, uint8, (N, H, W, 3) or of 1 channel, one after another; those in memory maps stay on the disk.

    Args:
        name: Where they are from.
        files: Of the arrays.
        arrays: One of each file.

    Raises:
        ValueError: If they have another dtype or shape.
    """

    def __init__(self, name: str, files: Sequence[Path], arrays: Sequence[NDArray[Any]]) -> None:
        self.name, self.files, self.arrays = name, files, arrays
        for file, array in zip(files, arrays, strict=True):
            fits = array.ndim == 4 and array.shape[3] in (1, 3) and array.shape[1:] == arrays[0].shape[1:]
            if not fits or array.dtype != np.uint8:
                size = "(N, H, W, 3)" if array is arrays[0] else f"(N, {', '.join(map(str, arrays[0].shape[1:]))})"
                raise ValueError(
                    f"{file}: images must be uint8, 0 to 255, of shape {size}, got {array.dtype} of {array.shape}."
                )
        self._starts = [0, *accumulate(map(len, arrays))]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, rows: range) -> Tensor:
        parts, start = [], rows.start
        while start < rows.stop:
            shard = bisect_right(self._starts, start) - 1
            stop = min(rows.stop, self._starts[shard + 1])
            parts.append(self.arrays[shard][start - self._starts[shard] : stop - self._starts[shard]])
            start = stop
        return planes(np.concatenate(parts))

    @cached_property
    def digest(self) -> str:
        """Of the file, or of all files."""
        return _digest(self.files)


class FileImages(ImageSet):
    """The images of a folder, at any depth, in the order of their names, all of one size.

    Raises:
        ValueError: If there are none.
    """

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self.files = image_files(folder)
        if not self.files:
            raise ValueError(f"{folder}: there must be images in it, got none with a name that ends like .png or .jpg.")
        self.size = self._image(self.files[0]).size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rows: range) -> Tensor:
        images = []
        for file in self.files[rows.start : rows.stop]:
            image = self._image(file)
            if image.size != self.size:
                raise ValueError(f"{file}: images must be of one size, {self.size} of the first, got {image.size}.")
            images.append(np.asarray(image))
        return planes(np.stack(images))

    @cached_property
    def digest(self) -> str:
        """Of all files, with their names in the folder."""
        return _digest(self.files, Path(self.name))

    def _image(self, file: Path) -> Any:
        try:
            return decode(file, 3)
        except UNREADABLE as error:
            raise ValueError(f"{file}: the image cannot be read: {error}.") from None


class SourceImages(ImageSet):
    """What a run is trained on, not flipped. Images that cannot be read are left out.

    Raises:
        TypeError: If these are no images.
    """

    def __init__(self, name: str, source: Source) -> None:
        if not isinstance(source, Digits | Images):
            raise TypeError(f"{name}: data must be images, got {type(source).__name__}. Give the images themselves.")
        self.name, self.source = name, source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, rows: range) -> Tensor:
        if isinstance(self.source, Digits):
            return planes(to_pixels(self.source.images[rows.start : rows.stop]))
        images = [torch.empty(0, 3, *self.source.shape[1:], dtype=torch.uint8)]
        for index in rows:
            try:
                images.append(self.source.pixels(index)[0].expand(1, 3, -1, -1))
            except UNREADABLE:
                continue  # who reads sees that there are fewer, and counts them
        return torch.cat(images)

    def unreadable(self, rows: range) -> list[str]:
        """See ImageSet."""
        found = []
        if isinstance(self.source, Images):
            for index in rows:
                try:
                    self.source.pixels(index)
                except UNREADABLE as error:
                    found.append(f"{self.source.name_of(index)}: {error}")
        return found

    @cached_property
    def digest(self) -> str:
        """Of all images as they are encoded, and the size to which they are cropped."""
        if isinstance(self.source, Digits):
            return hashlib.sha256(self.source.images.numpy().tobytes()).hexdigest()
        digest = hashlib.sha256(str(self.source.shape).encode())
        images = range(len(self.source))
        for index in side_progress(images, desc=f"checksums of {self.name}", unit="image"):
            try:
                image = self.source.encoded(index)[0]
                each = hashlib.sha256(image).digest() if isinstance(image, bytes) else sha256(Path(image)).encode()
            except UNREADABLE:
                each = b"unreadable"
            digest.update(each)
        return digest.hexdigest()


def open_images(source: str | os.PathLike[str], part: str = "train") -> ImageSet:
    """Images of any kind.

    Args:
        source: A file ``.npz`` with ``arr_0``, uint8, (N, H, W, 3); a folder of shards ``images-000000.npy`` of such
            arrays; a folder of images; or a run or its settings, ``.yaml``, whose data are meant.
        part: Part of the data (settings of a run only): train or heldout.

    Raises:
        ValueError: If it is none of these, or of another shape, dtype or range.
        TypeError: If a run is trained on what are no images.
    """
    path = Path(source)
    if (settings := path / CONFIG_FILE).is_file():
        path = settings
    if path.suffix in (".yaml", ".yml"):
        config: Config = read_config(["--config", str(path)])
        name = str(path) if part == "train" else f"{path}, {part}"
        images: ImageSet = SourceImages(name, config.data_source(part, flip=False))
    elif part != "train":
        raise ValueError(f"{path}: part must be train unless the images are those of a run's .yaml, got {part}.")
    elif path.is_dir():
        images = _shards(path) if any(path.glob(SHARDS)) else FileImages(path)
    elif path.suffix == ".npz":
        images = ArrayImages(str(path), [path], [_array(path)])
    else:
        raise ValueError(f"{path}: images must be a folder, an .npz, a run or its .yaml, and there is no such one.")
    if len(images) < 2:
        raise ValueError(f"{path}: there must be at least 2 images, got {len(images)}.")
    _ = images[range(min(len(images), BATCH))]  # what cannot be read, or is of another size, is said here
    if isinstance(images, ArrayImages) and not any(part.max() > 1 for _, part in images.read(BATCH)):
        raise ValueError(
            f"{path}: images must be from 0 to 255, got none above 1. Multiply those from 0 to 1 by 255, then round."
        )
    return images


def planes(pixels: NDArray[Any]) -> Tensor:
    """From (n, H, W, 1 or 3) to (n, 3, H, W)."""
    return torch.from_numpy(pixels).movedim(-1, 1).expand(-1, 3, -1, -1)


def keys(file: Path) -> list[str]:
    """Names of the arrays in an ``.npz``.

    Raises:
        ValueError: If it cannot be read.
    """
    with reading_npz(file), zipfile.ZipFile(file) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


@contextmanager
def reading_npz(file: Path) -> Iterator[None]:
    """Turn the errors of a missing or damaged file into a ValueError."""
    try:
        yield
    except (OSError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{file}: must be an .npz, and cannot be read: {error}.") from None


def _shards(folder: Path) -> ArrayImages:
    """Those of ``examples/generate.py``, whose settings say how many images there should be."""
    files = sorted(folder.glob(SHARDS))
    images = ArrayImages(str(folder), files, [_mapped(file) for file in files])
    settings = json.loads((folder / SETTINGS).read_text()) if (folder / SETTINGS).exists() else {}
    wanted = settings.get("sampling", {}).get("num_samples", len(images))
    if len(images) != wanted:
        raise ValueError(
            f"{folder}: there must be {wanted:,} images, as {SETTINGS} says, got {len(images):,}. The command that was "
            "stopped resumes."
        )
    return images


def _mapped(file: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(file, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{file}: the shard cannot be read: {error}.") from None
    return array


def _array(file: Path) -> NDArray[Any]:
    """The images of an ``.npz``: mapped where they are not compressed, else in memory."""
    found = keys(file)
    if ARRAY not in found:
        raise ValueError(f"{file}: must hold images as {ARRAY}, got {', '.join(found)}.")
    with reading_npz(file), zipfile.ZipFile(file) as archive, archive.open(f"{ARRAY}.npy") as stream:
        entry = archive.getinfo(f"{ARRAY}.npy")
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(stream)
        head = stream.tell()
        if dtype.hasobject:
            raise ValueError(f"{file}: images must be uint8, got objects.")
        if entry.compress_type != zipfile.ZIP_STORED or fortran:
            stream.seek(0)
            array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
            return array
    with file.open("rb") as raw:
        raw.seek(entry.header_offset + 26)  # where the lengths of the name and of the extra field stand, before both
        lengths = np.frombuffer(raw.read(4), "<u2")
    return np.memmap(file, dtype, "r", entry.header_offset + 30 + int(lengths.sum()) + head, shape)


def _digest(files: Sequence[Path], folder: Path | None = None) -> str:
    """SHA-256 of one file, or of the lines of those of several."""
    names = (str(file.relative_to(folder) if folder else file.name) for file in files)
    read = side_progress(files, desc=f"checksums of {folder or files[0].parent}", unit="file")
    digests = dict(zip(names, map(sha256, read), strict=True))
    if len(digests) == 1 and not folder:
        return next(iter(digests.values()))
    lines = "".join(f"{digest}  {name}\n" for name, digest in digests.items())
    return hashlib.sha256(as_utf8(lines)).hexdigest()
