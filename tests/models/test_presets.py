"""Laws of the named sizes: the published parameter counts, and names that are not swallowed."""

from __future__ import annotations

import pytest
import torch

from models import PRESETS, create_model


def count(name: str, *, learn_sigma: bool) -> int:
    with torch.device("meta"):
        model = create_model(name, input_size=32, learn_sigma=learn_sigma)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "published"),
    [("SiT-S/2", 32_963_360), ("SiT-B/2", 130_512_416), ("SiT-L/2", 458_102_816), ("SiT-XL/2", 675_129_632)],
)
def test_parameter_counts_are_the_published_ones(name: str, published: int) -> None:
    """The published counts include the frozen position embedding and the doubled last layer (learn_sigma)."""
    assert count(name, learn_sigma=True) == published


@pytest.mark.parametrize("name", PRESETS)
def test_parameter_count_is_that_of_the_formula(name: str) -> None:
    """Summed by hand from the shapes in the paper, for every preset, without and with the doubled last layer."""
    depth, d, _, p = PRESETS[name]
    patches, time, labels, positions = d * (4 * p * p + 1), (256 * d + d) + (d * d + d), 1001 * d, (32 // p) ** 2 * d
    block = (3 * d * d + 3 * d) + (d * d + d) + (4 * d * d + 4 * d) + (4 * d * d + d) + (6 * d * d + 6 * d)
    for channels in (4, 8):
        final = (2 * d * d + 2 * d) + (d + 1) * p * p * channels
        assert count(name, learn_sigma=channels == 8) == patches + time + labels + positions + depth * block + final


def test_the_tiny_model_is_tiny() -> None:
    model = create_model("SiT-T/2", input_size=8, in_channels=1, num_classes=10)
    assert sum(parameter.numel() for parameter in model.parameters()) == 1_274_372


def test_presets_are_the_published_sizes() -> None:
    sizes = {"SiT-T": (4, 128, 4), "SiT-S": (12, 384, 6), "SiT-B": (12, 768, 12)}
    sizes |= {"SiT-L": (24, 1024, 16), "SiT-XL": (28, 1152, 16)}
    expected = {f"{size}/{p}": (*sizes[size], p) for size in sizes for p in (2, 4, 8)} | {"SiT-T/1": (4, 128, 4, 1)}
    assert {name: tuple(preset) for name, preset in PRESETS.items()} == expected


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("SiT-XL", "SiT-XL/"), ("sit-b/4", "SiT-B/4"), ("SiT-XXL/2", "SiT-XL/2"), ("SiT-L/3", "SiT-L/")],
)
def test_an_unknown_name_is_answered_with_the_valid_ones_and_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=rf"^create_model: name must be one of .*SiT-S/8.*got '{name}'.*'{nearest}"):
        create_model(name, input_size=32)


def test_a_misspelt_argument_is_not_swallowed() -> None:
    with pytest.raises(TypeError, match="num_class"):
        create_model("SiT-T/2", input_size=8, num_class=10)  # type: ignore[call-arg]
