"""Laws of the named sizes: the published parameter counts, and names that are not swallowed."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models import PRESETS, PUBLISHED, create_model
from models.blocks import Style


def count(name: str, *, learn_sigma: bool) -> int:
    with torch.device("meta"):
        model = create_model(name, input_size=32, learn_sigma=learn_sigma)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_multiply_accumulates_are_the_published_ones(name: str) -> None:
    """The published counts include the frozen position embedding and the doubled last layer (learn_sigma)."""
    parameters = {"S": 32_963_360, "B": 130_512_416, "L": 458_102_816, "XL": 675_129_632}
    gmacs = {"S": "6.06", "B": "23.0", "L": "80.7", "XL": "118.6"}
    size = name.removeprefix("SiT-").removesuffix("/2")
    assert count(name, learn_sigma=True) == PUBLISHED[name].parameters == parameters[size]
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        model = create_model(name, input_size=32, learn_sigma=True).eval()
        model(torch.zeros(1, 4, 32, 32), torch.zeros(1), torch.zeros(1, dtype=torch.long))
    decimals = len(gmacs[size].partition(".")[2])
    assert f"{counter.get_total_flops() / 2e9:.{decimals}f}" == gmacs[size]
    assert f"{PUBLISHED[name].gmacs:.{decimals}f}" == gmacs[size]


def test_the_papers_distances_are_its_own() -> None:
    fids = {name: (row.fid_ode, row.fid_sde) for name, row in PUBLISHED.items()}
    assert fids == {
        "SiT-S/2": (58.97, 57.64),
        "SiT-B/2": (34.84, 33.02),
        "SiT-L/2": (20.01, 18.79),
        "SiT-XL/2": (18.04, 17.19),
    }


@pytest.mark.parametrize("name", PRESETS)
def test_parameter_count_is_that_of_the_formula(name: str) -> None:
    """Summed by hand from the shapes in the papers, for every preset, without and with the doubled last layer."""
    depth, d, heads, p, modern = PRESETS[name]
    patches, time, labels, positions = d * (4 * p * p + 1), (256 * d + d) + (d * d + d), 1001 * d, (32 // p) ** 2 * d
    mlp = (4 * d * d + 4 * d) + (4 * d * d + d)
    norms = 0
    if modern:  # SwiGLU of 2/3 of the width; weights of the norms: two of the tokens, two of the heads
        width = 8 * d // 3
        mlp = (2 * d * width + 2 * width) + (d * width + d)
        norms = 2 * d + 2 * (d // heads)
    block = (3 * d * d + 3 * d) + (d * d + d) + mlp + norms + (6 * d * d + 6 * d)
    for channels in (4, 8):
        final = (2 * d * d + 2 * d) + (d + 1) * p * p * channels + (d if modern else 0)
        assert count(name, learn_sigma=channels == 8) == patches + time + labels + positions + depth * block + final


@pytest.mark.parametrize(("name", "billions"), [("1p0B", 1.0), ("1p6B", 1.6)])
def test_a_lightningdit_named_by_its_size_has_it(name: str, billions: float) -> None:
    """On latents of 16 x 16 x 32, each a token, for which they were made."""
    with torch.device("meta"):
        model = create_model(f"LightningDiT-{name}/1", input_size=16, in_channels=32)
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e9, 1) == billions


def test_the_tiny_model_is_tiny() -> None:
    model = create_model("SiT-T/2", input_size=8, in_channels=1, num_classes=10)
    assert sum(parameter.numel() for parameter in model.parameters()) == 1_274_372


def test_presets_are_the_published_sizes() -> None:
    sizes = {"SiT-N": (4, 64, 2), "SiT-T": (4, 128, 4), "SiT-S": (12, 384, 6), "SiT-B": (12, 768, 12)}
    sizes |= {"SiT-L": (24, 1024, 16), "SiT-XL": (28, 1152, 16)}
    expected = {f"{size}/{p}": (*sizes[size], p, False) for size in sizes for p in (2, 4, 8)}
    expected |= {f"{size}/1": (*sizes[size], 1, False) for size in ("SiT-N", "SiT-T")}
    modern = {n: sizes[f"SiT-{n}"] for n in ("B", "L", "XL")} | {"1p0B": (24, 1536, 24), "1p6B": (28, 1792, 28)}
    expected |= {f"LightningDiT-{n}/{p}": (*modern[n], p, True) for n in modern for p in (1, 2)}
    assert {name: tuple(preset) for name, preset in PRESETS.items()} == expected


def test_a_preset_may_be_changed_part_by_part() -> None:
    with torch.device("meta"):
        model = create_model("LightningDiT-B/2", input_size=32, qk_norm=False)
        plain = create_model("SiT-B/2", input_size=32, rope=True)
    assert model.config.style == Style(rope=True, swiglu=True, rms_norm=True, qk_norm=False)
    assert plain.config.style == Style(rope=True)


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
