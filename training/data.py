"""What is trained on: digits, a folder of images, or whatever `datasets` loads; cached latents are in latents.py.

A source gives the examples of some indices, and takes for each a seed for what is random about it: the flip of an
image. So what is seen in a step depends on its number alone, whoever reads it: any rank, any worker, any part of a run.

A part of a source is a source too: the training part, or the held-out part.
"""

from __future__ import annotations

import copy
import signal
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Protocol, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from training.fingerprint import Fingerprint, fingerprint
from training.images import UNREADABLE, center_crop, decode, holds_data, image_files
from training.order import ShuffledBatches, generator

HELD_OUT_EVERY: Final = 5
"""Of the digits of each class, in scikit-learn's order, every fifth is held out, beginning with the first."""

MAX_CLASSES: Final = 1_000_000
"""Whole numbers from here on are no labels."""

NAMES: Final = ("digits", "folder", "datasets", "latents")

PARTS: Final = ("train", "heldout")
"""The part of a source to train on, and the part that is never trained on."""

T = TypeVar("T")

Seed = tuple[int, int]
"""Of a run, and of the place of an example in the order of all that it sees."""


@dataclass(frozen=True)
class Batch:
    """Examples.

    Attributes:
        data: Pixels, uint8 0 to 255, or float32 in training units; shape (batch, C, H, W).
        labels: int64, shape (batch,); zeros where there are no classes.
        unreadable: Names of examples that could not be read, in the place of which others stand.
    """

    data: Tensor
    labels: Tensor
    unreadable: tuple[str, ...] = ()


class Source(Protocol):
    """Examples by index.

    Attributes:
        shape: (C, H, W) of each.
        num_classes: Labels are below it; 0 if there are none.
    """

    shape: tuple[int, int, int]
    num_classes: int

    def __len__(self) -> int: ...

    @property
    def fingerprint(self) -> Fingerprint:
        """What the examples are, by which a run that is resumed knows its data again."""
        ...

    def batch(self, indices: Sequence[int], seeds: Sequence[Seed]) -> Batch:
        """The examples of these indices, what is random about each drawn by its seed."""
        ...


# Parts of a source


def held_out(count: int, share: float) -> NDArray[np.bool_]:
    """Which of ``count`` examples are held out: round(share * count) of them; shape (count,).

    They are the ones whose index, in decimal, has the lowest SHA-256. So they are always the same, and a larger share
    contains a smaller one.

    Raises:
        ValueError: If none would be held out, or none would be left.
    """
    number = round(share * count)
    if not 0 < number < count:
        raise ValueError(f"data.held_out must be a share of the {count:,} examples that leaves some, got {share!r}.")
    ranked = sorted(range(count), key=lambda place: sha256(str(place).encode()).digest())
    found = np.zeros(count, dtype=bool)
    found[ranked[:number]] = True
    return found


class Examples:
    """The examples of a source, or a part of them.

    Attributes:
        places: Index of each of them among all examples.
    """

    places: Sequence[int]

    def __len__(self) -> int:
        return len(self.places)

    def part(self, name: str, share: float | None) -> Self:
        """One of PARTS.

        Args:
            name: train or heldout.
            share: Share of the examples that is held out; None holds out nothing, so train is all of them.

        Raises:
            ValueError: If nothing is held out and that part is asked for; see also ``held_out``.
        """
        if share is None:
            if name == "heldout":
                raise ValueError(
                    "config: data.held_out must be the share that was held out from the training, got null. To "
                    "measure other data, set data.source, or data.split for datasets."
                )
            return self
        found = copy.copy(self)
        vars(found).pop("fingerprint", None)  # the cached one is that of all examples
        out = held_out(len(self), share)
        found.places = np.asarray(self.places)[out if name == "heldout" else ~out].tolist()
        return found


# Sources


def digits(split: str) -> tuple[Tensor, Tensor]:
    """Scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, as installed with it: nothing is downloaded.

    The held-out fifth is fixed by a rule, HELD_OUT_EVERY, not by a draw: it is always the same, for everybody, and is
    never trained on.

    Args:
        split: "train" (1,433 images) or "heldout" (364).

    Returns:
        Images in [-1, 1], float32, shape (N, 1, 8, 8), and labels 0-9, int64, shape (N,).

    Raises:
        ValueError: If the split is neither.

    Source: Alpaydin & Kaynak (1998), Optical Recognition of Handwritten Digits, UCI Machine Learning Repository.
    """
    if split not in ("train", "heldout"):
        raise ValueError(f"digits: split must be 'train' or 'heldout', got {split!r}.")
    from sklearn.datasets import load_digits  # here, as it takes a second that other data need not pay

    pixels, labels = load_digits(return_X_y=True)
    held_out = np.zeros(len(labels), dtype=bool)
    for digit in range(10):
        held_out[np.flatnonzero(labels == digit)[::HELD_OUT_EVERY]] = True
    chosen = held_out if split == "heldout" else ~held_out
    images = torch.from_numpy(pixels[chosen]).float() / 8 - 1  # 0, ..., 16 -> [-1, 1]
    return images.view(-1, 1, 8, 8), torch.from_numpy(labels[chosen]).long()


class Digits:
    """The digits as a source: in memory, and never flipped."""

    shape = (1, 8, 8)
    num_classes = 10

    def __init__(self, split: str = "train") -> None:
        self.images, self.labels = digits(split)

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """See Source."""
        names = [str(digit) for digit in range(self.num_classes)]
        examples = zip(self.labels.tolist(), self.images, strict=True)
        return fingerprint(names, ((label, image.numpy().tobytes().hex()) for label, image in examples))

    def batch(self, indices: Sequence[int], seeds: Sequence[Seed]) -> Batch:
        """See Source."""
        chosen = torch.as_tensor(indices)
        return Batch(self.images[chosen], self.labels[chosen])


class Images(Examples):
    """Encoded images, cropped to the size and flipped left to right or not with equal chance.

    What cannot be read is left out: the next that can stands in its place, and its name is in ``Batch.unreadable``.

    Args:
        size: Height and width, or one integer for both.
        channels: 3 for RGB, or 1 for grey.
        flip: Whether to flip half of them.

    Attributes:
        classes: Names of the classes, where they have any.
    """

    num_classes: int
    classes: list[str]

    def __init__(self, size: int | tuple[int, int], channels: int, flip: bool) -> None:
        if channels not in (1, 3):
            raise ValueError(f"data: images have 3 channels, or 1 for grey; the network takes {channels}.")
        height, width = (size, size) if isinstance(size, int) else size
        self.shape, self.flip = (channels, height, width), flip

    @property
    def fingerprint(self) -> Fingerprint:
        """See Source."""
        raise NotImplementedError

    def name_of(self, index: int) -> str:
        """What an example is called in messages."""
        raise NotImplementedError

    def encoded(self, index: int) -> tuple[bytes | str | Path, int]:
        """The image as bytes or file, and its label.

        Raises:
            One of UNREADABLE: If there is none.
        """
        raise NotImplementedError

    def pixels(self, index: int) -> tuple[Tensor, int]:
        """The image cropped, not flipped, (C, H, W), uint8, and its label.

        Raises:
            One of UNREADABLE: If it is damaged.
        """
        source, label = self.encoded(index)
        pixels = center_crop(decode(source, self.shape[0]), *self.shape[1:])
        return torch.from_numpy(pixels).permute(2, 0, 1), label

    def batch(self, indices: Sequence[int], seeds: Sequence[Seed]) -> Batch:
        """See Source.

        Raises:
            ValueError: If none can be read.
        """
        images, labels = [], []
        unreadable: list[str] = []
        for index, seed in zip(indices, seeds, strict=True):
            pixels, label = self._readable(int(index), unreadable)
            flipped = self.flip and generator("example", *seed).random() < 0.5
            images.append(pixels.flip(2) if flipped else pixels)
            labels.append(label)
        return Batch(torch.stack(images), torch.tensor(labels), tuple(unreadable))

    def _readable(self, index: int, unreadable: list[str]) -> tuple[Tensor, int]:
        for other in range(len(self)):
            found = (index + other) % len(self)
            try:
                return self.pixels(found)
            except UNREADABLE as error:
                unreadable.append(f"{self.name_of(found)}: {error}")
        raise ValueError(f"data: no image can be read, the last is {unreadable[-1]}.")


class ImageFolder(Images):
    """A folder with a folder of images for each class, or images without classes; in any format that Pillow reads.

    Args:
        folder: Its subfolders with images, sorted by name, are the classes 0, 1, ...; images may lie at any depth in
            them. Hidden files and folders and those that systems leave are passed over; see ``images.holds_data``.
        size, channels, flip: See Images.

    Raises:
        ValueError: If there is no such folder, no image in it, or there are images beside the folders of classes.
    """

    def __init__(self, folder: str | Path, size: int | tuple[int, int], channels: int = 3, flip: bool = True) -> None:
        super().__init__(size, channels, flip)
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise ValueError(f"data: {folder} must be a folder of images, and is not there.")
        files = image_files(self.folder)
        if not files:
            raise ValueError(f"data: {folder} must hold images, and has none with a name that ends like .png or .jpg.")
        loose = [file for file in files if file.parent == self.folder]
        folders = sorted(entry.name for entry in self.folder.iterdir() if entry.is_dir() and holds_data(entry.name))
        tops = {self._top(file) for file in files}
        self.classes = [name for name in folders if name in tops]
        if self.classes and loose:
            raise ValueError(
                f"data: {folder} must hold images or a folder of images for each class, and holds {len(loose)} images, "
                f"such as {loose[0].name}, beside the folders {_shortened(self.classes)}. Move the ones or the others."
            )
        if self.classes and (empty := [name for name in folders if name not in self.classes]):
            warnings.warn(f"data: no class, as no image is in it: {_shortened(empty)}, in {folder}", stacklevel=2)
        self.num_classes = len(self.classes)
        labels = {name: label for label, name in enumerate(self.classes)}
        self.files = [(file, labels.get(self._top(file), 0)) for file in files]
        self.places = range(len(files))

    def _top(self, file: Path) -> str:
        """The folder of its class, or its own name."""
        return file.relative_to(self.folder).parts[0]

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """See Source; each image by its name in the folder and its size."""
        chosen = map(self.encoded, range(len(self)))
        return fingerprint(self.classes, ((label, self._described(file)) for file, label in chosen))

    def _described(self, file: Path) -> str:
        size = file.stat().st_size if file.exists() else "missing"  # where a link leads nowhere
        return f"{file.relative_to(self.folder).as_posix()} {size}"

    def name_of(self, index: int) -> str:
        """See Images."""
        return str(self.encoded(index)[0])

    def encoded(self, index: int) -> tuple[Path, int]:
        """See Images."""
        return self.files[self.places[index]]


def _shortened(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


class HubImages(Images):
    """A dataset that `datasets` loads: Parquet or Arrow files, a folder of them, or a repository of the hub.

    Args:
        name: A file, a folder, or the name of a dataset on the hub.
        size, channels, flip: See Images.
        split: Such as "train".
        image_column: None is the only column of images.
        label_column: None is the only column of class labels; without one there are no classes.

    Raises:
        ValueError: If there is no such dataset, split or column.
    """

    def __init__(
        self,
        name: str | Path,
        size: int | tuple[int, int],
        channels: int = 3,
        flip: bool = True,
        *,
        split: str = "train",
        image_column: str | None = None,
        label_column: str | None = None,
    ) -> None:
        super().__init__(size, channels, flip)
        datasets = _datasets()
        if not sys.stderr.isatty():  # in a file its bars would be one long line
            datasets.disable_progress_bars()
        rows = _load(str(name), split)
        images = [key for key, kind in rows.features.items() if isinstance(kind, datasets.Image)]
        labels = [key for key, kind in rows.features.items() if isinstance(kind, datasets.ClassLabel)]
        self.name, self.split = str(name), split
        self.image_column = _only(image_column, images, "image_column", rows.column_names)
        if self.image_column not in images:
            raise ValueError(f"data: image_column must be a column of images, got {self.image_column!r}.")
        self.label_column = None
        if labels or label_column:
            self.label_column = _only(label_column, labels, "label_column", rows.column_names)
        self.rows = rows.cast_column(self.image_column, datasets.Image(decode=False))
        self.classes: list[str] = []
        self._labels: list[int | None] | None = None
        if self.label_column is not None:
            self.classes, self._labels = _classes(self.rows, self.label_column)
        self.num_classes = len(self.classes)
        self.places = range(len(self.rows))

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """See Source; each image by its label, its path if it has one, and the length of its bytes."""
        import pyarrow.compute as pc  # `datasets` brings it

        lengths, names = [], []
        for chunk in self.rows.data.column(self.image_column).chunks:  # of whose bytes only the lengths are read
            lengths += pc.binary_length(chunk.field("bytes")).to_pylist()
            names += chunk.field("path").to_pylist()
        labels = [None] * len(lengths) if self._labels is None else self._labels
        rows = list(zip(labels, names, lengths, strict=True))
        described = (
            (label or 0, f"{label} {Path(name).name if name else None} {length}")
            for label, name, length in (rows[place] for place in self.places)
        )
        return fingerprint(self.classes, described)

    def name_of(self, index: int) -> str:
        """See Images."""
        return f"{self.name}, {self.split}, row {self.places[index]}"

    def encoded(self, index: int) -> tuple[bytes | str | Path, int]:
        """See Images."""
        row = self.places[index]
        image, label = self.rows[row][self.image_column], 0 if self._labels is None else self._labels[row]
        if image is None or label is None:
            raise ValueError(f"{self.image_column if image is None else self.label_column} is null")
        return image["bytes"] or image["path"], label


def _classes(rows: Any, column: str) -> tuple[list[str], list[int | None] | None]:
    """The names of the classes, and the label of each row, None where it is null; no classes if all are.

    Class labels and whole numbers are labels as they are; texts are classes in the order of the alphabet.

    Raises:
        ValueError: If the column holds anything else.
    """
    kind, values = rows.features[column], rows.data.column(column).to_pylist()
    names = list(getattr(kind, "names", None) or [])
    if names:
        values = [None if value == -1 else value for value in values]  # which `datasets` writes for a missing one
    found = [value for value in values if value is not None]
    if all(type(value) is int for value in found):
        fits = all(0 <= value < (len(names) or MAX_CLASSES) for value in found)
        if fits and not names:
            names = [str(label) for label in range(1 + max(found, default=-1))]
    elif fits := all(isinstance(value, str) for value in found):
        names = sorted(set(found))
        labels = {name: label for label, name in enumerate(names)}
        values = [value if value is None else labels[value] for value in values]
    if not fits:
        raise ValueError(
            f"data: label_column must hold labels 0, 1, ... below {len(names) or MAX_CLASSES:,}, or texts, got "
            f"{column!r} with {_shortened(sorted(set(map(repr, found))))}."
        )
    return (names, values) if found else ([], None)


def _datasets() -> Any:
    try:
        import datasets  # here, as it takes a second that other data need not pay
    except ImportError as error:
        message = "data: `datasets` must be installed. pip install 'sit-interpolants[datasets]' brings it."
        raise ImportError(message) from error
    return datasets


def _load(name: str, split: str) -> Any:
    datasets = _datasets()
    path = Path(name)
    files = [path] if path.is_file() else sorted(path.rglob("*.parquet")) + sorted(path.rglob("*.arrow"))
    try:
        if files:
            kind = "arrow" if files[0].suffix == ".arrow" else "parquet"
            return datasets.load_dataset(kind, data_files={split: [str(file) for file in files]}, split=split)
        return datasets.load_dataset(name, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(f"data: {name!r}, split {split!r}, cannot be loaded: {str(error).splitlines()[0]}") from error


def _only(asked: str | None, found: list[str], argument: str, columns: list[str]) -> str:
    if asked is not None:
        if asked not in columns:
            raise ValueError(f"data: {argument} must be one of {', '.join(columns)}, got {asked!r}.")
        return asked
    if len(found) != 1:
        raise ValueError(
            f"data: {argument} must be set, as {len(found)} columns may be meant, of {', '.join(columns)}."
        )
    return found[0]


# The examples of each step


class Steps(Dataset[Batch]):
    """The share of one rank of the batch of each step, by the number of the step.

    Args:
        source: The examples.
        order: Which of them a step sees.
        rank, ranks: Rank 0, 1, ... of so many takes its part of each batch, in order.

    Raises:
        ValueError: If the batch cannot be shared equally.
    """

    def __init__(self, source: Source, order: ShuffledBatches, rank: int = 0, ranks: int = 1) -> None:
        if order.batch_size % ranks:
            raise ValueError(f"data.batch_size must be a multiple of the {ranks} ranks, got {order.batch_size}.")
        self.source, self.order, self.rank = source, order, rank
        self.share = order.batch_size // ranks

    def __getitem__(self, step: int) -> Batch:
        mine = slice(self.rank * self.share, (self.rank + 1) * self.share)
        first = step * self.order.batch_size + mine.start
        seeds = [(self.order.seed, place) for place in range(first, first + self.share)]
        return self.source.batch(self.order.indices(step)[mine].tolist(), seeds)

    def read(self, first: int, last: int, workers: int = 0, pin_memory: bool = False) -> Iterator[Batch]:
        """The batches of the steps first, ..., last - 1, by so many processes beside this one, ahead of time."""
        return read_ahead(self, range(first, last), workers, pin_memory)


def read_ahead(dataset: Dataset[T], keys: Iterable[Any], workers: int, pin_memory: bool = False) -> Iterator[T]:
    """``dataset[key]`` for each key, in their order, by so many processes beside this one, ahead of time."""
    return iter(
        DataLoader(
            dataset,
            batch_size=None,
            sampler=keys,
            num_workers=workers,
            pin_memory=pin_memory,
            worker_init_fn=_leave_signals_to_the_first,
        )
    )


def _leave_signals_to_the_first(worker: int) -> None:
    """It finishes what it is at and stops the workers; a Ctrl-C reaches all of them at once."""
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
