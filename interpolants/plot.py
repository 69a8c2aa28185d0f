r"""A path in four pictures: alpha and sigma, the log-SNR, the gains of conversions, and the noise of SDEs.

The gain |b| of target = a x_t + b velocity is the factor on the error of a network that predicts the velocity. Where it
has a pole at an end of time, a triangle at the edge says so: there the target cannot be had from the velocity.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import sympy as sp

from interpolants import diffusion
from interpolants.coefficient import Coefficient

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from interpolants.path import Path

STYLES: Final = (
    ("#0072B2", "-"), ("#D55E00", "--"), ("#009E73", "-."), ("#CC79A7", (0, (5, 1, 1, 1, 1, 1))),
    ("#E69F00", (0, (1, 1))), ("#000000", (0, (7, 2))), ("#56B4E9", (0, (3, 1, 1, 1))),
)  # fmt: skip
"""Colour and dashes of each curve, so that either tells them apart. Colours: Okabe and Ito (2008)."""

MAX_LABEL: Final = 48
"""Characters of LaTeX above which a formula is left out of a legend."""

MAX_LOG_SNR: Final = 20.0
DECADES: Final = (1e-3, 1e3)
"""What a logarithmic panel shows at most."""


def plot(path: Path) -> Figure:
    r"""The path as a figure of four panels over time.

    - alpha(t) and sigma(t), on a logarithmic axis where the noise explodes;
    - the log-SNR log(alpha^2 / sigma^2), cut at \pm 20;
    - the gain |b(t)| with which an error of the predicted velocity becomes one of data, noise and score;
    - w(t) of the named choices in ``interpolants.diffusion``; kl_optimal is g^2 of the forward SDE.

    Poles at the ends are marked by triangles. The figure is free of pyplot: save it by ``figure.savefig("path.png")``.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "plot: matplotlib must be installed to draw a path. pip install 'sit-interpolants[plot]' brings it."
        ) from error
    figure = Figure(figsize=(10.0, 5.8), layout="constrained")
    figure.suptitle(path.name)
    functions, ratio, gains, noise = figure.subplots(2, 2).flat
    _draw_functions(functions, path)
    _draw_log_snr(ratio, path)
    _draw_gains(gains, path)
    _draw_noise(noise, path)
    for axes in (functions, ratio, gains, noise):
        _label_time(axes, path)
    return figure


def _draw_functions(axes: Axes, path: Path) -> None:
    axes.set_title(r"$x_t = \alpha\,$data$\;+\;\sigma\,$noise")
    _curves(axes, {_formula(r"\alpha", path.alpha): path.alpha, _formula(r"\sigma", path.sigma): path.sigma})
    if any(float(path.sigma.limit(end)) > 2 for end in (0, 1)):
        axes.set_yscale("log")


def _draw_log_snr(axes: Axes, path: Path) -> None:
    axes.set_title(r"log-SNR, $\log(\alpha^2 / \sigma^2)$")
    axes.axhline(0.0, color="0.8", linewidth=0.8)
    _curves(axes, {"log-SNR": path.log_snr}, legend=False)
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, -MAX_LOG_SNR), min(high, MAX_LOG_SNR))
    _mark_poles(axes, {"log-SNR": path.log_snr})


def _draw_gains(axes: Axes, path: Path) -> None:
    axes.set_title(r"gain $|b|$ of target $= a\,x_t + b\,$velocity")
    gains = {target: path.conversion("velocity", target)[1] for target in ("data", "noise", "score")}
    _curves(axes, gains, magnitude=True)
    _logarithmic(axes)
    _mark_poles(axes, gains, magnitude=True)


def _draw_noise(axes: Axes, path: Path) -> None:
    axes.set_title(
        r"SDE noise $w$, for $\mathrm{d}x = (v + \frac{w}{2}\,\mathrm{score})\,\mathrm{d}t + \sqrt{w}\,\mathrm{d}W$"
    )
    towards_data = 1 if path.data_end == 1 else -1
    noise = {
        name + (r" $= g^2$" if name == "kl_optimal" else ""): Coefficient(
            choice().expr(path.alpha.expr, path.sigma.expr, towards_data)
        )
        for name, choice in diffusion.CHOICES.items()
    }
    _curves(axes, noise)
    _logarithmic(axes)
    _mark_poles(axes, noise)


def _curves(
    axes: Axes, coefficients: Mapping[str, Coefficient], *, magnitude: bool = False, legend: bool = True
) -> None:
    times = np.linspace(0.0, 1.0, 401)
    for (label, coefficient), (color, dashes) in zip(coefficients.items(), cycle(STYLES), strict=False):
        values = np.where(np.isfinite(values := coefficient(times)), values, np.nan)
        axes.plot(times, np.abs(values) if magnitude else values, color=color, linestyle=dashes, label=label)
    if legend:
        # Outside: wherever the curves of a path run, no label lies on them.
        axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5), handlelength=2.6)


def _logarithmic(axes: Axes) -> None:
    """A logarithmic axis on what the curves take inside, within DECADES."""
    inside = np.concatenate([np.asarray(line.get_ydata())[4:-4] for line in axes.get_lines()])
    inside = inside[np.isfinite(inside)]
    axes.set_yscale("log")
    axes.set_ylim(max(inside.min() / 2, DECADES[0]), min(inside.max() * 2, DECADES[1]))


def _mark_poles(axes: Axes, coefficients: Mapping[str, Coefficient], *, magnitude: bool = False) -> None:
    for coefficient, (color, _) in zip(coefficients.values(), cycle(STYLES), strict=False):
        for end in (0, 1):
            value = coefficient.limit(end)
            if value.is_infinite:
                top = magnitude or value == sp.oo
                axes.plot(
                    end, float(top), marker="^" if top else "v", color=color, markersize=7, linestyle="none",
                    transform=axes.get_xaxis_transform(), clip_on=False, zorder=3,
                )  # fmt: skip


def _label_time(axes: Axes, path: Path) -> None:
    axes.set_xlim(0.0, 1.0)
    names = {path.end("noise"): "noise", path.end("data"): "data"}
    axes.set_xticks([0.0, 0.25, 0.5, 0.75, 1.0], [f"0\n{names[0]}", "0.25", r"$t$", "0.75", f"1\n{names[1]}"])
    axes.spines[["top", "right"]].set_visible(False)
    axes.title.set_fontsize("medium")


def _formula(name: str, coefficient: Coefficient) -> str:
    text: Any = sp.latex(coefficient.expr)
    return f"${name} = {text}$" if len(text) <= MAX_LABEL else f"${name}$"
