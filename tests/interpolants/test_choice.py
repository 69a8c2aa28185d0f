"""Choices by text: a name with arguments is the choice that is called with them."""

import pytest

from interpolants import diffusion, time_grid, weights


@pytest.mark.parametrize(
    ("choose", "text", "expected"),
    [
        (diffusion.choose, "sigma", diffusion.sigma(1)),
        (diffusion.choose, "sigma()", diffusion.sigma(1)),
        (diffusion.choose, "sigma(0.5)", diffusion.sigma(0.5)),
        (diffusion.choose, " sin_squared ( 1/4 ) ", diffusion.sin_squared(0.25)),
        (diffusion.choose, "kl_regularized(2)", diffusion.kl_regularized(2, 1)),
        (diffusion.choose, "kl_regularized(2, Max(t, 1 - t))", diffusion.kl_regularized(2, "Max(t, 1-t)")),
        (weights.choose, "min_snr(3)", weights.min_snr(3)),
    ],
)
def test_a_name_with_arguments_is_the_choice_called_with_them(choose, text, expected):
    assert choose(text) == expected


def test_a_grid_takes_arguments_too():
    assert time_grid.choose("shifted(2)").name == time_grid.shifted(2.0).name
    assert time_grid.choose("edm(5, 0.01)").name == time_grid.edm(5.0).name


def test_a_name_of_a_function_with_arguments_is_the_function():
    assert str(weights.choose("sigmoid(t)").name) == "1/(1 + exp(-t))"


@pytest.mark.parametrize(
    ("choose", "text", "message"),
    [
        (diffusion.choose, "sigma(1, 2)", r"^w: must be of the form sigma\(norm\), got 'sigma\(1, 2\)': too many"),
        (diffusion.choose, "sigma(t)", r"^w: must be of the form sigma\(norm\), got 'sigma\(t\)': norm is a number"),
        (diffusion.choose, "sigma(x)", "^w: unknown name 'x'"),
        (diffusion.choose, "sigma(0.5)*2", r"^w: unknown call sigma\(...\)"),
        (diffusion.choose, "sigma(0.5)(2)", "^w: "),
        (diffusion.choose, "sigma(0.5", "^w: 'sigma.0.5' is not an expression.*Named choices: constant"),
        (diffusion.choose, "sigma(1,,2)", "^w: '' is not an expression"),
        (diffusion.choose, "sigma(__import__('os'))", "^w: "),
        (diffusion.choose, "kl_regularized(-1)", "eta must be > 0"),
        (time_grid.choose, "shifted(0)", "shift"),
        (time_grid.choose, "uniform(2)", r"^grid: must be of the form uniform\(\)"),
        (weights.choose, "min_snr(-1)", "gamma must be positive"),
    ],
)
def test_arguments_that_a_choice_does_not_take_are_refused(choose, text, message):
    with pytest.raises(ValueError, match=message):
        choose(text)
