"""Features kept in a file: those of the reference are made once."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from training.features import Extractor, FeatureSet, extract
from training.hub import sha256
from training.image_sets import ARRAY, ImageSet, keys, reading_npz
from training.moments import Gaussian
from training.shards import write_arrays

MOMENTS: Final = {"pool": ("mu", "sigma", "n"), "spatial": ("mu_s", "sigma_s", "n_s")}
"""Keys of mean, covariance and number, the first two as in the references of ADM (and of pytorch-fid)."""

FORMAT: Final = 2


def save(file: Path, features: FeatureSet) -> None:
    """Write moments, rows and where they are from to an ``.npz``, whole or not at all."""
    plain = ("source", "source_sha256", "extractor", "extractor_sha256", "unreadable", "space")
    contents: dict[str, Any] = {name: value for name in plain if (value := getattr(features, name)) is not None}
    for name, gaussian in features.gaussians.items():
        mu, sigma, count = MOMENTS[name]
        contents |= {mu: gaussian.mu.numpy(), sigma: gaussian.sigma.numpy()}
        contents |= {} if gaussian.count is None else {count: gaussian.count}
    contents |= {f"rows_{name}": rows.numpy() for name, rows in features.rows.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_arrays(file, contents)


def load(file: Path) -> FeatureSet:
    """Read what ``save`` wrote, or what another program did: ``mu`` and ``sigma``, and of spatial features ``mu_s`` and
    ``sigma_s``. These do not say of how many images, by which extractor, they are.

    Raises:
        ValueError: If there are no moments, or they are not finite, or of other shapes.
    """
    names = [name for name in keys(file) if name != ARRAY]
    with reading_npz(file), np.load(file, allow_pickle=False) as content:
        found = {name: content[name] for name in names}
    gaussians = {name: _gaussian(file, found, *keys_of) for name, keys_of in MOMENTS.items() if keys_of[0] in found}
    if "pool" not in gaussians:
        raise ValueError(f"{file}: must hold mu and sigma, got {', '.join(names) or 'none'}.")
    said = {
        name: str(found[name])
        for name in ("source", "source_sha256", "extractor", "extractor_sha256", "space")
        if name in found
    }
    return FeatureSet(
        source=said.get("source", str(file)),
        source_sha256=said.get("source_sha256") or sha256(file),
        extractor=said.get("extractor"),
        extractor_sha256=said.get("extractor_sha256"),
        gaussians=gaussians,
        rows={name.removeprefix("rows_"): torch.from_numpy(found[name]) for name in names if name.startswith("rows_")},
        unreadable=tuple(map(str, found.get("unreadable", ()))),
        space=said.get("space"),
    )


def cached(extractor: Extractor, images: ImageSet, folder: Path, *, keep: int, **options: Any) -> FeatureSet:
    """The features of a reference: from a file in a folder, if they are of these images by this extractor, else made
    and written there.

    Args:
        extractor, images, keep, options: See ``extract``.
        folder: Of such files, which are named by the checksums of images and extractor.
    """
    made_from = f"{FORMAT} {images.digest} {extractor.name} {extractor.sha256} {keep}"
    file = folder / f"{hashlib.sha256(made_from.encode()).hexdigest()[:32]}.npz"
    if file.exists():
        return dataclasses.replace(load(file), source=images.name)  # which may lie elsewhere now, or in two places
    features = extract(extractor, images, keep=keep, **options)
    save(file, features)
    return features


def _gaussian(file: Path, found: Mapping[str, Any], mu: str, sigma: str, count: str) -> Gaussian:
    if sigma not in found:
        raise ValueError(f"{file}: must hold {sigma} beside {mu}.")
    mean, covariance = (torch.from_numpy(np.asarray(found[name], np.float64)) for name in (mu, sigma))
    _require_moments(file, mean, covariance, mu, sigma)
    return Gaussian(mean, covariance, int(found[count]) if count in found else None)


def _require_moments(file: Path, mean: Tensor, covariance: Tensor, mu: str, sigma: str) -> None:
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise ValueError(
            f"{file}: {mu} and {sigma} must have shapes (d,) and (d, d), got {tuple(mean.shape)} and "
            f"{tuple(covariance.shape)}."
        )
    if not bool(torch.isfinite(mean).all() and torch.isfinite(covariance).all()):
        raise ValueError(f"{file}: {mu} and {sigma} must be finite, got NaN or infinity.")
