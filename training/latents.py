"""Latents of images, encoded once by a VAE: the folder that they are kept in, and the source that training reads.

A folder of latents has

- ``settings.json``: all that they depend on, written first;
- ``mean-00000.npy`` and ``std-00000.npy`` of each shard: the posterior of each image and of its mirror image, in the
  VAE's own units, shape (images, 2, C, h, w), float16 or float32;
- ``shard-00000.json`` of each shard, written when both are there: labels, images that could not be read, sums over the
  latents, and the SHA-256 of both files;
- ``labels.npy``, int64, shape (images,);
- ``manifest.json``, written last: the settings, all shards, and the mean and standard deviation of each channel.

A shard is of the images from shard * shard_size on, without those that cannot be read. So its files do not depend on
the number of processes, nor on how often they were stopped: see ``shards``.

float16 rounds a number by up to 2^-11 of it.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.autoencoder import Autoencoder
from training.data import Batch, Examples, Seed
from training.fingerprint import Fingerprint, fingerprint
from training.hub import sha256
from training.order import generator
from training.progress import side_progress
from training.shards import SETTINGS, Shards, check_array, write_array, write_json

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
LABELS: Final = "labels.npy"
KINDS: Final = ("mean", "std")
DTYPES: Final = ("float16", "float32")
NORMALIZATIONS: Final = ("scale", "per_channel")
OPEN: Final = 640
"""Files that a process maps at a time: each map keeps a descriptor, of which there are often no more than 1,024."""

Unreadable = Mapping[str, Any]
"""The index of an image, its name, and the kind of error."""


class Latents(Examples):
    r"""Latents as a source: a draw from the posterior of an image or of its mirror image, with equal chance.

    .. math:: x = (\mathrm{mean} + \mathrm{std} \, \epsilon - \mathrm{offset}) \cdot \mathrm{scale}

    Args:
        folder: As ``examples/encode_latents.py`` writes it.
        normalization: "scale" by the VAE's own factor, as SiT and DiT do; or "per_channel", to mean 0 and standard
            deviation 1 of each.
        flip: Whether half of them are of the mirror image.

    Attributes:
        manifest: What ``manifest.json`` says.

    Raises:
        ValueError: If the folder is not complete, a file has not the size and shape that the manifest says, or the
            normalization is unknown. Checksums are left to ``verify``.
    """

    def __init__(self, folder: str | Path, normalization: str = "scale", flip: bool = True) -> None:
        if normalization not in NORMALIZATIONS:
            raise ValueError(
                f"latents: normalization must be one of {', '.join(NORMALIZATIONS)}, got {normalization!r}."
            )
        self.folder, self.flip, self.manifest = Path(folder), flip, _manifest(Path(folder))
        channels, height, width = self.manifest["shape"]
        self.shape = (channels, height, width)
        self.num_classes: int = self.manifest["num_classes"]
        counts = [shard["count"] for shard in self.manifest["shards"]]
        self._starts = [0, *accumulate(counts)]
        self._files = [tuple(self.folder / _name(kind, shard) for kind in KINDS) for shard in range(len(counts))]
        for count, files in zip(counts, self._files, strict=True):
            for file in files:
                check_array(file, (count, 2, *self.shape), self.manifest["dtype"], "latents")
        self.places = range(self.manifest["count"])
        check_array(self.folder / LABELS, (len(self),), "int64", "latents")
        self._labels = torch.from_numpy(np.load(self.folder / LABELS))
        offset, scale = torch.tensor(self.manifest["mean"]), 1 / torch.tensor(self.manifest["std"])
        if normalization == "scale":
            offset, scale = (torch.tensor(self.manifest["vae"][f"{kind}_factor"]) for kind in ("shift", "scaling"))
        self.offset, self.scale = offset.view(-1, 1, 1), scale.view(-1, 1, 1)

    @property
    def labels(self) -> Tensor:
        """The labels of all, int64, shape (N,)."""
        return self._labels[list(self.places)]

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """See Source; by the checksums of the files, the units of the VAE, and which of the latents are chosen."""
        classes = self.manifest.get("classes") or [str(label) for label in range(self.num_classes)]
        each = fingerprint(classes, ((label, "") for label in self.labels.tolist()))
        hashed = {name: self.manifest[name] for name in ("shape", "mean", "std", "sha256", "shards")}
        if len(self) < self.manifest["count"]:
            hashed["places"] = list(self.places)
        return {**each, "sha256": hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()}

    def posterior(self, index: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Mean and standard deviation of the latents of an image and of its mirror image, each (2, C, h, w)."""
        place = self.places[index]
        shard = bisect_right(self._starts, place) - 1
        mean, std = (_mapped(file)[place - self._starts[shard]] for file in self._files[shard])
        return mean, std

    def batch(self, indices: Sequence[int], seeds: Sequence[Seed]) -> Batch:
        """See Source: float32, in training units."""
        data = np.empty((len(indices), *self.shape), np.float32)
        for z, index, seed in zip(data, indices, seeds, strict=True):
            random = generator("example", *seed)
            side = int(self.flip and random.random() < 0.5)
            mean, std = self.posterior(index)
            z[:] = mean[side] + std[side] * random.standard_normal(self.shape, np.float32)
        labels = self._labels[[self.places[index] for index in indices]]
        return Batch((torch.from_numpy(data) - self.offset) * self.scale, labels)

    def to_vae(self, x: Tensor) -> Tensor:
        """From training units to the VAE's own, shape (..., C, h, w)."""
        return x / self.scale.to(x.device) + self.offset.to(x.device)

    def autoencoder(self, name: str | None = None, device: str | torch.device = "cpu") -> Autoencoder:
        """The VAE that they are from, or another that decodes them.

        Raises:
            ValueError: If it cannot be loaded, is no longer the one that it was, or has other latents.
        """
        origin = self.manifest["vae"]
        vae = Autoencoder(name or origin["name"], device)
        if name is None and vae.digest != origin["sha256"]:
            raise ValueError(
                f"latents: the VAE {vae.name!r} must be the one that {self.folder} was encoded by, with the SHA-256 "
                f"{origin['sha256']}, got {vae.digest}. Say which VAE to decode by."
            )
        if (vae.channels, vae.factor) != (self.shape[0], origin["factor"]):
            raise ValueError(
                f"latents: the VAE {vae.name!r} must have {self.shape[0]} channels and images {origin['factor']} times "
                f"as large, as {self.folder}, got {vae.channels} and {vae.factor}."
            )
        return vae

    def decoder(self, name: str | None = None, device: str | torch.device = "cpu") -> Callable[[Tensor], Tensor]:
        """From training units, shape (B, C, h, w), to images in [-1, 1]; see ``autoencoder``."""
        vae = self.autoencoder(name, device)
        return lambda x: vae.decode(self.to_vae(x))

    def verify(self) -> None:
        """Read every file, and compare it with its checksum.

        Raises:
            ValueError: If one is not, to the byte, what was written.
        """
        shards = ({"sha256": self.manifest["sha256"]}, *self.manifest["shards"])
        files = [each for shard in shards for each in shard["sha256"].items()]
        for name, digest in side_progress(files, desc=f"checksums of {self.folder}", unit="file"):
            if sha256(self.folder / name) != digest:
                raise ValueError(f"latents: {self.folder / name} is damaged, its SHA-256 is not that of {MANIFEST}.")


class Writer(Shards):
    """Writes a folder of latents, or goes on with it: shards in any order, by any number of processes.

    Args:
        folder: Where to.
        settings: All that the latents depend on, plain data, of which it reads ``shape`` (C, h, w) and ``dtype`` of the
            latents, the number of ``images`` and ``shard_size``.

    Raises:
        ValueError: If there are latents with other settings in the folder.
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, Any]) -> None:
        super().__init__(folder, {"format": FORMAT, **settings}, settings["images"], settings["shard_size"])
        self.shape, self.dtype = tuple(settings["shape"]), settings["dtype"]

    def has(self, shard: int) -> bool:
        """See Shards."""
        try:
            shape = (len(self._shard(shard)["labels"]), 2, *self.shape)
            for kind in KINDS:
                check_array(self.folder / _name(kind, shard), shape, self.dtype, "latents")
        except (FileNotFoundError, ValueError):  # not yet, or it was damaged later
            return False
        return True

    def write(
        self, shard: int, mean: NDArray[Any], std: NDArray[Any], labels: list[int], unreadable: list[Unreadable]
    ) -> None:
        """Write a shard: see the head of this file.

        Raises:
            FloatingPointError: If a number is not finite.
            OSError: If the disk is full or the folder cannot be written.
        """
        if not (np.isfinite(mean).all() and np.isfinite(std).all()):
            raise FloatingPointError(
                f"latents: those of images {self.of(shard)[0]} to {self.of(shard)[-1]} must be finite {self.dtype} "
                "numbers, and some are not. Use float32."
            )
        squares = (np.einsum("nfchw,nfchw->c", array, array, dtype=np.float64) for array in (mean, std))
        contents = {
            "labels": labels,
            "unreadable": unreadable,
            "sum": np.einsum("nfchw->c", mean, dtype=np.float64).tolist(),
            "sum_of_squares": np.sum(list(squares), 0).tolist(),
            "sha256": {
                _name(kind, shard): _written(self.folder / _name(kind, shard), array)
                for kind, array in zip(KINDS, (mean, std), strict=True)
            },
        }
        write_json(self.folder / _name("shard", shard), contents)

    def finish(self) -> dict[str, Any]:
        r"""Write the labels and the manifest. Only for the first process, once all shards are written.

        The standard deviation of a channel is that of draws from the posteriors,
        :math:`\sqrt{\mathrm{Var}[\mathrm{mean}] + \mathrm{E}[\mathrm{std}^2]}`.

        Raises:
            ValueError: If no image could be read.
        """
        shards = [self._shard(shard) for shard in self.shards]
        labels = np.array([label for shard in shards for label in shard["labels"]], np.int64)
        if not len(labels):
            raise ValueError(f"latents: none of the {self.count} images of {self.folder} can be read.")
        numbers = len(labels) * 2 * self.shape[1] * self.shape[2]
        mean, square = (np.sum([shard[name] for shard in shards], 0) / numbers for name in ("sum", "sum_of_squares"))
        manifest = {
            **self.settings,
            "count": len(labels),
            "mean": mean.tolist(),
            "std": np.sqrt(square - mean**2).tolist(),
            "sha256": {LABELS: _written(self.folder / LABELS, labels)},
            "shards": [{"count": len(shard["labels"]), "sha256": shard["sha256"]} for shard in shards],
            "unreadable": [image for shard in shards for image in shard["unreadable"]],
        }
        write_json(self.folder / MANIFEST, manifest)
        return manifest

    def _shard(self, shard: int) -> dict[str, Any]:
        contents: dict[str, Any] = json.loads((self.folder / _name("shard", shard)).read_text())
        return contents


@lru_cache(OPEN)
def _mapped(file: Path) -> NDArray[Any]:
    array: NDArray[Any] = np.load(file, mmap_mode="r").view(np.ndarray)
    return array


def _name(kind: str, shard: int) -> str:
    return f"{kind}-{shard:05d}.{'npy' if kind in KINDS else 'json'}"


def _manifest(folder: Path) -> dict[str, Any]:
    file = folder / MANIFEST
    try:
        manifest = json.loads(file.read_text())
    except FileNotFoundError:
        begun = "they are not complete: the command that began them resumes"
        missing = begun if (folder / SETTINGS).exists() else "sit encode, or examples/encode_latents.py, writes them"
        raise ValueError(f"latents: {folder} must be a folder of latents, and has no {MANIFEST}; {missing}.") from None
    except ValueError as error:
        raise ValueError(f"latents: {file} must be JSON, and is damaged: {error}.") from None
    known = ("vae", "image_size", "shape", "dtype", "num_classes", "count", "mean", "std", "sha256", "shards")
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT or not manifest.keys() >= set(known):
        raise ValueError(f"latents: {file} must be of format {FORMAT} with {', '.join(known)}, and is not.")
    return manifest


def _written(file: Path, array: NDArray[Any]) -> str:
    """The checksum of the file that is written."""
    write_array(file, array)
    return sha256(file)
