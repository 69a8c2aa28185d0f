"""What a network sees in images: extractors of features, and the features of a set of images."""

from __future__ import annotations

import importlib
import re
import textwrap
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from training.hub import sha256
from training.image_sets import ImageSet
from training.images import to_unit_range
from training.metrics import require_probabilities
from training.moments import FeatureStatistics, Gaussian
from training.progress import progress

OUTPUTS: Final = ("pool", "spatial", "probabilities")
"""Features; those that still tell places apart, for sFID; and probabilities of classes, for the inception score."""

SPACES: Final = ("inception", "clip")
"""Features with figures of their own name: FID, sFID, KID and inception score for Inception, CMMD for CLIP."""

SPATIAL_CHANNELS: Final = 7
"""Of the 192 of a layer on 17 x 17 places, so that about as many features are left as after the pooling: 2,023."""


@dataclass(frozen=True)
class Published:
    """A published file with a network.

    Attributes:
        url: Where its authors offer it.
        sha256: Checksum of the file.
        space: Space of its features, one of SPACES.
    """

    url: str
    sha256: str
    space: str


PUBLISHED: Final = {
    "inception-2015-12-05.pt": Published(
        "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",
        "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
        "inception",
    ),
}
"""Published files by name. NVIDIA publishes no checksum; this one is in k_diffusion/evaluation.py of k-diffusion."""


@dataclass(frozen=True)
class Extractor:
    """From images to features.

    Attributes:
        name: As the user gave it.
        sha256: What the features depend on.
        outputs: From uint8 images, (n, 3, H, W), to some of OUTPUTS, each (n, ...).
        space: Space of the features, one of SPACES; None is any other.

    Raises:
        ValueError: If the space is none of these.
    """

    name: str
    sha256: str
    outputs: Callable[[Tensor], Mapping[str, Tensor]]
    space: str | None = None

    def __post_init__(self) -> None:
        if self.space not in (None, *SPACES):
            raise ValueError(
                f"extractor {self.name}: space must be one of {', '.join(SPACES)}, or None, got {self.space!r}."
            )

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """The outputs of images as vectors, each (n, width).

        Raises:
            TypeError: If they are not floating-point tensors.
            ValueError: If there are others, not as many as images, without a feature, or probabilities that do not sum
            to 1.
        """
        with torch.backends.cudnn.flags(allow_tf32=False):
            found = self.outputs(images)
        if "pool" not in found or not found.keys() <= set(OUTPUTS):
            raise ValueError(
                f"extractor {self.name}: outputs must be pool and, where it has them, {' and '.join(OUTPUTS[1:])}, got "
                f"{', '.join(found) or 'none'}."
            )
        for name, value in found.items():
            if not (isinstance(value, Tensor) and value.is_floating_point()):
                got = value.dtype if isinstance(value, Tensor) else type(value).__name__
                raise TypeError(f"extractor {self.name}: {name} must be a floating-point tensor, got {got}.")
            if value.ndim < 2 or len(value) != len(images) or not value[:1].numel():
                raise ValueError(
                    f"extractor {self.name}: {name} must have shape ({len(images)}, ...) for as many images, got "
                    f"{tuple(value.shape)}."
                )
        if "probabilities" in found:
            require_probabilities(f"extractor {self.name}", found["probabilities"])
        return {name: value.flatten(1) for name, value in found.items()}


# Extractors


def load_extractor(name: str, device: torch.device | str = "cpu") -> Extractor:
    """An extractor by its name.

    Args:
        name: digits, the margins of a classifier of 8 x 8 digits; a TorchScript file, see ``torch_script``; or
            module:function, see ``function``.
        device: Where a TorchScript file computes.

    Raises:
        ValueError: If there is no such extractor.
    """
    if name == "digits":
        return _digits()
    if Path(name).is_file():
        return torch_script(Path(name), device)
    if ":" in name:
        return function(name)
    raise ValueError(
        f"extractor: must be digits, a TorchScript file, or module:function, got {name!r}, and no such file is there."
    )


def torch_script(file: Path, device: torch.device | str = "cpu") -> Extractor:
    """A network in a TorchScript file, such as NVIDIA's inception-2015-12-05.pt, the network of FID.

    It is called on uint8 images, (n, 3, H, W), with ``return_features=True`` where it knows that, and gives features.
    Parts that are named as in NVIDIA's file give more. ``output.weight`` gives probabilities, without the bias, as the
    inception score has them; ``layers`` up to ``mixed_6.conv`` give spatial features, of images resized as TensorFlow 1
    did: the first 7 channels, the last index that of the channel, as in the statistics of ADM.

    Its attribute ``space``, if it has one, names the space of the features, one of SPACES.

    Raises:
        ValueError: If it is not a TorchScript file, or has the name of a published file but not its checksum.
    """
    digest, published = sha256(file), PUBLISHED.get(file.name)
    if published is not None and published.sha256 != digest:
        raise ValueError(
            f"extractor: {file} must be the published file of that name, SHA-256 {published.sha256}, got {digest}. "
            f"Fetch it again from {published.url}. If it is a network of your own, rename it."
        )
    try:
        network = torch.jit.load(file, map_location=device).eval()  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"extractor: {file} must be a TorchScript file, and cannot be loaded: {reason}") from None
    known = [argument.name for argument in network.forward.schema.arguments]
    flags = {"return_features": True} if "return_features" in known else {}
    layers = dict(network.layers.named_children()) if hasattr(network, "layers") else {}
    weight = network.output.weight if hasattr(network, "output") else None

    def outputs(images: Tensor) -> dict[str, Tensor]:
        with _of_user(str(file), _takes(images)):
            found = {"pool": network(images, **flags)}
        if weight is not None:
            found["probabilities"] = (found["pool"].flatten(1) @ weight.T).softmax(1)
        if "mixed_6" in layers:
            found["spatial"] = _spatial(layers, images)
        return found

    spaces = {each.sha256: each.space for each in PUBLISHED.values()}
    return Extractor(str(file), digest, outputs, spaces.get(digest, getattr(network, "space", None)))


def _spatial(layers: Mapping[str, Any], images: Tensor) -> Tensor:
    x = _resized(images.float()) / 128 - 1
    for name, layer in layers.items():
        if name == "mixed_6":
            return layer.conv(x)[:, :SPATIAL_CHANNELS].movedim(1, -1)  # type: ignore[no-any-return]
        x = layer(x)
    raise AssertionError("there is a mixed_6")


def _resized(images: Tensor, size: int = 299) -> Tensor:
    """Bilinear, where pixel i of ``size`` is read at i * before / size: its corner stays, not its centre."""
    height, width = images.shape[2:]
    places = torch.arange(size, device=images.device, dtype=images.dtype) * 2 / size - 1
    y, x = torch.meshgrid(places + 1 / height, places + 1 / width, indexing="ij")
    grid = torch.stack([x, y], -1).expand(len(images), -1, -1, -1)
    return torch.nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def function(name: str) -> Extractor:
    """A function of yours, module:function.

    It takes uint8 images, (n, 3, H, W), on the device of the measurement, and returns features, (n, ...), or a mapping
    with "pool" and others of OUTPUTS, all floating-point. Its attribute ``sha256``, if it has one, is a checksum of
    what the features depend on, such as the weights; else that of the module's file is used. Its attribute ``space``,
    if it has one, names the space of the features, one of SPACES.

    Raises:
        ValueError: If there is no such function, its code raises an error, or nothing says what its features depend on.
        TypeError: If it is no function.
    """
    module_name, _, attribute = name.partition(":")
    with _of_user(name, "be module:function that can be imported"):
        module = importlib.import_module(module_name)
        call = getattr(module, attribute)
    if not callable(call):
        raise TypeError(f"extractor: {name!r} must be module:function, got {type(call).__name__}.")
    file, digest = getattr(module, "__file__", None), getattr(call, "sha256", None)
    if file is None and digest is None:
        raise ValueError(f"extractor {name}: must have an attribute sha256, as its module has no file, got none.")

    def outputs(images: Tensor) -> Mapping[str, Tensor]:
        with _of_user(name, _takes(images)):
            found = call(images)
        return found if isinstance(found, Mapping) else {"pool": found}

    return Extractor(name, digest or sha256(Path(str(file))), outputs, getattr(call, "space", None))


@contextmanager
def _of_user(name: str, contract: str) -> Iterator[None]:
    """An error that the user's code raises says in which extractor, what was asked of it, and where."""
    try:
        yield
    except Exception as error:  # his code may raise anything
        frames = traceback.extract_tb(error.__traceback__)
        others = re.compile("|".join(["site-packages", "^<", *map(re.escape, (__file__, str(importlib.__file__)))]))
        places = [f"{each.filename}, line {each.lineno}: " for each in frames if not others.search(each.filename)]
        reason = str(error).strip()
        if "TorchScript interpreter" in reason:  # whose stack comes first
            reason = reason.splitlines()[-1]
        raise ValueError(
            f"extractor {name}: must {contract}, got {type(error).__name__}: "
            f"{''.join(places[-1:])}{textwrap.shorten(reason, 300)}"
        ) from error


def _takes(images: Tensor) -> str:
    return f"take {str(images.dtype).removeprefix('torch.')} images of shape {tuple(images.shape)}"


def _digits() -> Extractor:
    from training.data import digits
    from training.evaluation import DigitsClassifier  # here, as it takes a second that others need not pay

    classifier = DigitsClassifier(*digits("train"))

    def outputs(images: Tensor) -> dict[str, Tensor]:
        if images.shape[2:] != (8, 8):
            raise ValueError(f"extractor digits: images must be of 8 x 8 pixels, got {tuple(images.shape[2:])}.")
        return {"pool": classifier.features(to_unit_range(images[:, :1]))}

    return Extractor("digits", classifier.digest, outputs)


# The features of a set of images


@dataclass(frozen=True)
class FeatureSet:
    """Features of images, and their moments.

    Attributes:
        source, source_sha256: The images.
        extractor, extractor_sha256: What made the features; None where nobody says.
        space: Space of the features, one of SPACES; None is any other.
        gaussians: Mean and covariance of "pool" and, where there are such, "spatial", of all images.
        rows: Of OUTPUTS, float32, each (N, width), of all images or of some that are spread over them; may be empty.
        unreadable: Images that were left out.
    """

    source: str
    source_sha256: str
    extractor: str | None
    extractor_sha256: str | None
    gaussians: Mapping[str, Gaussian]
    rows: Mapping[str, Tensor]
    unreadable: tuple[str, ...] = ()
    space: str | None = None

    @property
    def count(self) -> int:
        """Number of rows."""
        return len(self.rows["pool"])


def extract(
    extractor: Extractor,
    images: ImageSet,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 64,
    workers: int = 0,
    keep: int | None = None,
) -> FeatureSet:
    """The features of all images, in memory that grows with those kept alone.

    Args:
        extractor: What makes them.
        images: Of which.
        device: Where to compute.
        batch_size: Images at a time.
        workers: Processes beside this one that read ahead.
        keep: Rows kept, at most; None is all.

    Raises:
        ValueError: If a feature is not finite in float32, the outputs of two batches differ in their names or widths,
            or fewer than 2 images can be read.
    """
    count = len(images)
    kept = np.unique(np.linspace(0, count - 1, count if keep is None else min(keep, count)).round().astype(int))
    statistics: dict[str, FeatureStatistics] = {}
    parts: dict[str, list[Tensor]] = {}
    unreadable: list[str] = []
    before: dict[str, int] = {}
    with progress(total=count, desc=images.name, unit="image") as bar:
        for places, batch in images.read(batch_size, workers):
            unreadable += images.unreadable(places) if len(batch) < len(places) else []
            bar.update(len(places))
            if not len(batch):
                continue
            inside = (kept >= places.start) & (kept < places.start + len(batch))
            wanted = torch.from_numpy(kept[inside] - places.start)
            found = extractor(batch.to(device))
            now = {name: values.shape[1] for name, values in found.items()}
            if (before := before or now) != now:
                raise ValueError(
                    f"extractor {extractor.name}: outputs must have the same names and widths for all images, got "
                    f"{before}, then {now} for images from {places.start}."
                )
            for name, values in found.items():
                _require_finite(values, name, images, places)
                if name != "probabilities":
                    if name not in statistics:
                        statistics[name] = FeatureStatistics(values.shape[1], values.device)
                    statistics[name].update(values)
                parts.setdefault(name, []).append(values[wanted.to(values.device)].float().cpu())
    if count - len(unreadable) < 2:
        raise ValueError(f"{images.name}: at least 2 images must be readable, got {count - len(unreadable)}.")
    return FeatureSet(
        images.name,
        images.digest,
        extractor.name,
        extractor.sha256,
        {name: each.gaussian().to("cpu") for name, each in statistics.items()},
        {name: torch.cat(part) for name, part in parts.items()},
        tuple(unreadable),
        extractor.space,
    )


def widths(extractor: Extractor, images: ImageSet, device: torch.device | str = "cpu") -> dict[str, int]:
    """The width of each output, from the first images.

    Raises:
        ValueError: If a feature is not finite.
    """
    places = range(min(2, len(images)))
    found = extractor(images[places].to(device))
    for name, values in found.items():
        _require_finite(values, name, images, places)
    return {name: values.shape[1] for name, values in found.items()}


def _require_finite(values: Tensor, name: str, images: ImageSet, places: range) -> None:
    finite = torch.isfinite(values.float()).all(1)  # in which the rows are kept
    if not bool(finite.all()):
        first = places.start + int(finite.logical_not().nonzero()[0])
        raise ValueError(f"{images.name}: {name} features must be finite, got NaN or infinity for image {first}.")
