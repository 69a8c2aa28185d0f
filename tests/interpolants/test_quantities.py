"""The names of what a network can predict, and the hints at them."""

import pytest

import interpolants as ip
from interpolants.quantities import check_quantity

NAMES_OF_OTHERS = {
    "noise": ["eps", "epsilon"],
    "data": ["x0", "x1", "x_0", "x_1", "denoiser", "sample"],
    "velocity": ["v", "vel", "v_prediction"],
    "score": ["s"],
}


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        *((name, ours) for ours, names in NAMES_OF_OTHERS.items() for name in names),
        ("velocty", "velocity"), ("scores", "score"), ("nois", "noise"), ("dta", "data"), ("Data", "data"),
    ],
)  # fmt: skip
def test_other_names_and_misspelt_ones_are_understood_in_the_hint(name, ours):
    with pytest.raises(ValueError, match=f"must be one of .* got '{name}'\\. Did you mean '{ours}'\\?$"):
        ip.linear().ode(name)


@pytest.mark.parametrize("name", ["banana", None, 3])
def test_what_resembles_no_quantity_gets_no_hint(name):
    with pytest.raises(ValueError, match=rf"^x must be one of velocity, score, noise, data, got {name!r}\.$"):
        check_quantity(name, "x")
    for quantity in ip.QUANTITIES:
        check_quantity(quantity, "x")
