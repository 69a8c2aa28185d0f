"""Two questions about samplers, answered without sampling noise: python examples/questions.py
[--output runs/study/questions].

What does w do for a given error of a network? And which distribution does guidance sample from? On a line, where the
law of the data is a Gaussian mixture, the exact velocity is known; the law of the samples of an SDE is the solution of
its Fokker-Planck equation, and that of an ODE follows from where it carries each quantile of the noise.
``questions.json`` in the folder has all numbers; figures are beside it.
"""

from __future__ import annotations

import itertools
import math
import shlex
import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import scipy
import sympy as sp
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.linalg import solve_banded
from scipy.special import expit, exprel, logit
from torch import Tensor, nn

import interpolants as ip
from interpolants import Coefficient
from interpolants.dynamics import Dynamics
from interpolants.oracle import GaussianMixture
from training import Field, Guidance, InterpolantLoss, log_likelihood
from training.config import run_script
from training.environment import commit, now
from training.figures import COLORS, FAINT, INK, style_axes
from training.files import write_png
from training.shards import write_json

Array = NDArray[np.float64]
Found = Mapping[str, Any]

PATH: Final = ip.linear()
REACH: Final = 7.0
"""The line is cut off where, at all times, no more than 1e-11 of all mass lies beyond."""
RATIOS: Final = tuple(2.0 ** (k / 2) for k in range(-4, 13))
"""The n of w = n sigma."""
NAMED: Final = ("sin_squared", "decreasing", "kl_optimal", "kl_regularized")
"""Of ``interpolants.diffusion``; on this path ``sigma`` and ``linear`` are 2 sigma."""
SHOWN_RATIOS: Final = (0.5, 2.0, 8.0, 32.0)
MARKERS: Final = ("^", "v", "D", "X")
SCALES: Final = (1.0, 1.5, 2.0, 3.0, 4.0)
SHOWN_SCALES: Final = (1.0, 2.0, 4.0)
INTERVAL: Final = (0.2, 0.8)
"""Of the times, for guidance that is not at all of them."""
NOISES: Final = (2.0, 8.0, 32.0)
"""The n of w = n sigma, for guidance."""
SHOWN_LAWS: Final = {
    "tilted": (r"$p(x|c)^s \, p(x)^{1-s} / Z$", INK, "--"),
    "ODE": ("samples of the ODE", COLORS[0], "-"),
    "SDE, n = 2": (r"of the SDE, $w = 2 \sigma$", COLORS[1], "-"),
    "SDE, n = 32": (r"of the SDE, $w = 32 \sigma$", COLORS[2], "-"),
}


def _mixture(*components: tuple[float, float, float]) -> GaussianMixture:
    """On the line, of a mean, a deviation and a weight each."""
    means, stds, weights = torch.tensor(components, dtype=torch.float64).T
    return GaussianMixture(means[:, None], stds, weights)


DATA: Final = _mixture((-1.5, 0.35, 0.3), (0.3, 0.25, 0.3), (1.6, 0.5, 0.4))
OF_CLASS: Final = ((-0.9, 0.5, 0.5), (1.1, 0.4, 0.5))
OF_OTHER: Final = ((-0.1, 0.4, 0.6), (2.0, 0.5, 0.4))
CLASS: Final = _mixture(*OF_CLASS)
ALL_CLASSES: Final = _mixture(*OF_CLASS, *OF_OTHER)


@dataclass(frozen=True)
class Questions:
    """How precisely to answer.

    Args:
        output: Folder to which all is written.
        seed: Of the first network; the others have those that follow.
        networks: How many there are.
        steps: Of their training; few leave the error that is asked about.
        batch_size: Of a step.
        width: Of a network's two hidden layers.
        cells: Into which the line is divided.
        times: Steps of the Fokker-Planck equation.
        tolerance: Of the ODE.
    """

    output: str = "runs/study"
    seed: int = 0
    networks: int = 4
    steps: int = 1000
    batch_size: int = 256
    width: int = 32
    cells: int = 2000
    times: int = 2000
    tolerance: float = 1e-7

    def __post_init__(self) -> None:
        minima = {"networks": 1, "steps": 1, "batch_size": 1, "width": 1, "cells": 50, "times": 20}
        for name, minimum in minima.items():
            if (value := getattr(self, name)) < minimum:
                raise ValueError(f"config: {name} must be at least {minimum}, got {value}.")


# Laws on the line


class Law(NamedTuple):
    """A density on the line, by its logarithm at equally spaced x."""

    x: Array
    log_density: Array

    def mean(self, of: Array) -> float:
        """E of a function with these values at x."""
        return float(np.trapezoid(np.exp(self.log_density) * of, self.x))

    def moments(self) -> dict[str, float]:
        """Mean and variance."""
        mean = self.mean(self.x)
        return {"mean": mean, "variance": self.mean((self.x - mean) ** 2)}

    def kl(self, other: Law) -> float:
        """KL(this || other), at the same x."""
        return self.mean(self.log_density - other.log_density)


def centres(cells: int) -> Array:
    """Of the cells that the line is divided into."""
    faces = np.linspace(-REACH, REACH, cells + 1)
    return (faces[1:] + faces[:-1]) / 2


def marginal(mixture: GaussianMixture, t: float, x: Array) -> Law:
    """Of x_t for data of the mixture."""
    return Law(x, mixture.log_prob(_states(x), t, PATH).numpy())


def tilted(strong: GaussianMixture, weak: GaussianMixture, scale: float, x: Array) -> Law:
    """strong^scale weak^(1 - scale) / Z of the data, which guidance is said to sample from."""
    (_, log_strong), (_, log_weak) = (marginal(each, 1.0, x) for each in (strong, weak))
    unscaled = Law(x, log_weak + scale * (log_strong - log_weak))
    return Law(x, unscaled.log_density - math.log(unscaled.mean(np.ones_like(x))))


def by_flow(field: Field, x: Array, tolerance: float) -> Law:
    """Of the samples of the ODE: the change of variables along its flow, with the exact divergence."""
    return Law(x, log_likelihood(field, _states(x), rtol=tolerance, atol=tolerance).nats.numpy())


def by_fokker_planck(field: Field, equations: Sequence[Dynamics], start: Law, times: Array) -> list[Law]:
    r"""Of the states at the last time of SDEs that are driven by one network, which have one law at the first time:

    .. math:: \partial_t q = -\partial_x \left[(a x + b \hat v) q - \tfrac12 w \, \partial_x q\right],

    by finite volumes with the flux of Scharfetter and Gummel, which is exact where the flux and its coefficients are
    constant between two cells, and by implicit steps of Euler: mass is kept and no density is negative, however long
    the steps are.

    Args:
        field: The network, that predicts the velocity.
        equations: One for each law; w > 0 at all ``times``.
        start: At the ``centres`` of cells.
        times: Increasing.
    """
    x, width = start.x, start.x[1] - start.x[0]
    faces = (x[1:] + x[:-1]) / 2
    a, b, w = (np.stack([getattr(each, name)(times) for each in equations]) for name in ("a", "b", "w"))
    q = np.tile(np.exp(start.log_density), (len(equations), 1))
    for k, step in enumerate(np.diff(times), start=1):
        drift = a[:, k, None] * faces + b[:, k, None] * velocity(field, faces, times[k])
        q = _implicit_step(q, drift, w[:, k, None] / 2, width, step)
    least = np.finfo(float).tiny  # what is less has become 0
    return [Law(x, np.log(np.maximum(each, least))) for each in q]


def _implicit_step(q: Array, drift: Array, diffusion: Array, width: float, step: float) -> Array:
    """Solve q' - step * (what flows into each cell) = q; the rows are parts of one system in which none meets another.

    Of q' in the cells beside a face, diffusion / width (B(-z) q'_left - B(z) q'_right) flows through it to the right,
    with z = drift width / diffusion and B(z) = z / (e^z - 1). Nothing flows through the ends of the line.
    """
    z = drift * (width / diffusion)
    rightward, leftward = (np.pad(step / width**2 * diffusion / exprel(each), ((0, 0), (1, 1))) for each in (-z, z))
    diagonal = 1 + rightward[:, 1:] + leftward[:, :-1]  # what leaves a cell, by its right and its left face
    above, below = -leftward[:, :-1], -rightward[:, 1:]
    banded = np.stack([each.ravel() for each in (above, diagonal, below)])
    solved: Array = solve_banded((1, 1), banded, q.ravel(), check_finite=False).reshape(q.shape)
    return solved


def velocity(field: Field, x: Array, t: float) -> Array:
    """Of a field, on the line."""
    with torch.inference_mode():
        return field.velocity(_states(x), float(t))[:, 0].numpy()


def _states(x: Array) -> Tensor:
    return torch.from_numpy(x)[:, None]


# What w does


class Network(nn.Module):
    """A small one, (x, t) -> velocity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1)
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x of shape (batch, 1), t of shape (batch,)."""
        prediction: Tensor = self.layers(torch.cat([x, t[:, None].to(x)], 1))
        return prediction


def trained(settings: Questions, seed: int) -> Field:
    """A network after a few steps."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network, loss = Network(settings.width).double(), InterpolantLoss(PATH)
        optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
        for _ in range(settings.steps):
            optimizer.zero_grad()
            loss(network, DATA.sample(settings.batch_size)).mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return Field(network.requires_grad_(False), PATH)


def exact(mixture: GaussianMixture, guidance: Guidance | None = None) -> Field:
    """The field whose velocity is that of a mixture, guided or not."""
    return Field(lambda x, t: mixture.velocity(x, t, PATH), PATH, guidance=guidance)


def squared_error(field: Field, mixture: GaussianMixture, times: Array, x: Array) -> Array:
    """L(t) = E |v_hat - v|^2 over x_t, by quadrature."""
    truth = exact(mixture)
    return np.array([marginal(mixture, t, x).mean((velocity(field, x, t) - velocity(truth, x, t)) ** 2) for t in times])


def bound(equation: Dynamics, error: Callable[[Array], Array], start: float, stop: float) -> float:
    r"""Of KL(law of x_stop || law of the SDE's state at stop), when both are one law at ``start``:

    .. math:: \int \frac{b^2}{2 w} L \, dt, \qquad b = 1 + \frac{w}{2 \omega},

    because the drift a x + b v_hat errs by b (v_hat - v).
    """
    return _integral(lambda t: equation.b(t) ** 2 / (2 * equation.w(t)) * error(t), start, stop)


def best_ratio(error: Callable[[Array], Array], start: float, stop: float) -> float:
    """The n with the least bound for w = n sigma: here, where omega = (1 - t) / t, the bound is P / n + Q + R n."""
    p = _integral(lambda t: error(t) / (2 * (1 - t)), start, stop)
    r = _integral(lambda t: t**2 * error(t) / (8 * (1 - t)), start, stop)
    return math.sqrt(p / r)


def _integral(function: Callable[[Array], Array], start: float, stop: float) -> float:
    """By the trapezoidal rule in log(t / (1 - t)), which resolves poles at both ends; they are not in it."""
    u = np.linspace(logit(start), logit(stop), 20001)
    t = expit(u)
    return float(np.trapezoid(function(t) * t * (1 - t), u))


def ask_w(settings: Questions) -> dict[str, Any]:
    """The divergence and its bound, for each network and w."""
    x, shown = centres(settings.cells), np.linspace(0.0, 1.0, 101)
    family = [PATH.sde("velocity", ip.diffusion.sigma(n / 2)) for n in RATIOS]
    # Every bound is infinite at t = 1, where w vanishes: there it ends where its factor is large for w = n sigma.
    factors = [Coefficient(each.b.expr / sp.sqrt(2 * each.w.expr)) for each in family]
    equations = [*family, *(PATH.sde("velocity", name) for name in NAMED)]
    start, stop = PATH.interval(*factors, *(c for each in equations for c in (each.a, each.b, each.amplitude)))
    times = np.linspace(start, stop, settings.times + 1)
    first, last = (marginal(DATA, t, x) for t in (start, stop))
    networks = []
    for seed in range(settings.seed, settings.seed + settings.networks):
        field = trained(settings, seed)
        errors = squared_error(field, DATA, shown, x)
        error, mean_error = CubicSpline(shown, errors), float(f"{np.trapezoid(errors, shown):.3g}")
        equations[-1] = PATH.sde("velocity", ip.diffusion.kl_regularized(1.0, mean_error))
        rows = [
            {
                "noise": _integral(equation.w, start, stop),
                "bound": bound(equation, error, start, stop),
                "kl": last.kl(law),
            }
            for equation, law in zip(equations, by_fokker_planck(field, equations, first, times), strict=True)
        ]
        networks.append(
            {
                "seed": seed,
                "error": errors.tolist(),
                "mean_error": mean_error,
                "family": [{"n": n, **row} for n, row in zip(RATIOS, rows, strict=False)],
                "named": dict(zip(NAMED, rows[len(RATIOS) :], strict=True)),
                "ode": marginal(DATA, 1.0, x).kl(by_flow(field, x, settings.tolerance)),
                "best_by_bound": best_ratio(error, start, stop),
            }
        )
    without_error = [last.kl(law) for law in by_fokker_planck(exact(DATA), equations, first, times)]
    return {
        "start": start,
        "stop": stop,
        "times": shown.tolist(),
        "networks": networks,
        "without_error": max(without_error),
    }


# What guidance samples from


def ask_guidance(settings: Questions) -> dict[str, Any]:
    """The laws of samples beside the tilted one, for each scale."""
    x = centres(settings.cells)
    equations = [PATH.sde("velocity", ip.diffusion.sigma(n / 2)) for n in NOISES]
    stop = PATH.interval(*PATH.conversion("velocity", "score"))[1]
    times, first = np.linspace(0.0, stop, settings.times + 1), marginal(CLASS, 0.0, x)
    shown = np.linspace(-3.5, 3.5, 281)
    rows: list[dict[str, Any]] = []
    for scale in SCALES:
        supposed = tilted(CLASS, ALL_CLASSES, scale, x)
        always, between = (
            exact(CLASS, Guidance(scale, weak=exact(ALL_CLASSES), interval=interval)) for interval in (None, INTERVAL)
        )
        solved = by_fokker_planck(always, equations, first, times)
        laws = {
            "ODE": by_flow(always, x, settings.tolerance),
            "ODE, interval": by_flow(between, x, settings.tolerance),
            **{f"SDE, n = {n:g}": law for n, law in zip(NOISES, solved, strict=True)},
        }
        rows.append(
            {
                "scale": scale,
                "tilted": supposed.moments(),
                "laws": {name: {"kl": supposed.kl(law), **law.moments()} for name, law in laws.items()},
            }
        )
        if scale in SHOWN_SCALES:
            rows[-1]["densities"] = {
                name: np.exp(np.interp(shown, x, law.log_density)).tolist()
                for name, law in {"tilted": supposed, **laws}.items()
                if name in SHOWN_LAWS
            }
    return {"stop": stop, "interval": INTERVAL, "x": shown.tolist(), "scales": rows}


# The figures


def w_figure(found: Found) -> Figure:
    """The error of the networks; the divergence and its bound; and the divergence beside that of the ODE."""
    figure = Figure(figsize=(12, 4.2), layout="constrained")
    error, both, ratio = figure.subplots(1, 3)
    for color, network in zip(itertools.cycle(COLORS), found["networks"]):
        error.plot(found["times"], network["error"], color=color, linewidth=1.2)
        noise, bounds, kls = (np.array([row[key] for row in network["family"]]) for key in ("noise", "bound", "kl"))
        both.plot(noise, bounds, "--", color=color, linewidth=1.2)
        both.plot(noise, kls, color=color, linewidth=1.2)
        least = int(kls.argmin())
        ratio.plot(noise, kls / network["ode"], color=color, linewidth=1.2)
        ratio.plot(noise[least], kls[least] / network["ode"], "o", color=color, markersize=7, fillstyle="none")
        for marker, row in zip(MARKERS, network["named"].values(), strict=True):
            both.plot(row["noise"], row["kl"], marker, color=color, markersize=5)
            ratio.plot(row["noise"], row["kl"] / network["ode"], marker, color=color, markersize=5)
    ratio.axhline(1.0, color=FAINT, linewidth=1, zorder=0)
    shown = [
        row["kl"] / network["ode"]
        for network in found["networks"]
        for row in (*network["named"].values(), min(network["family"], key=lambda row: float(row["kl"])))
    ]
    ratio.set_ylim(min(shown) - 0.03, max(1.1, *shown) + 0.05)  # what n sigma makes much worse leaves the picture
    style_axes(error, r"Error $L(t) = E \, |\hat v - v|^2$ of each network", "t (0 is noise, 1 is data)")
    added = r"noise added, $\int w \, dt$"
    style_axes(both, "KL(data || samples), nats", added)
    style_axes(ratio, "KL(data || samples) / that of the ODE", added)
    for axes in (both, ratio):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    error.set_ylim(bottom=0.0)
    both.set_yscale("log")
    both.yaxis.set_major_formatter("{x:g}")
    looks: dict[str, dict[str, Any]] = {
        r"bound, $w = n \sigma$": {"linestyle": "--"},
        r"$w = n \sigma$": {"linestyle": "-"},
        "the least of it": {"marker": "o", "fillstyle": "none", "linestyle": "", "markersize": 7},
        **{name: {"marker": marker, "linestyle": ""} for name, marker in zip(NAMED, MARKERS, strict=True)},
    }
    handles = [Line2D([], [], color=INK, label=label, **look) for label, look in looks.items()]
    figure.legend(handles=handles, frameon=False, fontsize=9, loc="outside lower center", ncols=len(handles))
    return figure


def guidance_figure(found: Found) -> Figure:
    """Densities of samples beside the tilted ones."""
    figure = Figure(figsize=(12, 4.0), layout="constrained")
    shown = [row for row in found["scales"] if "densities" in row]
    for axes, row in zip(figure.subplots(1, len(shown)), shown, strict=True):
        for name, (label, color, style) in SHOWN_LAWS.items():
            front = 3 if name == "tilted" else 2
            axes.plot(found["x"], row["densities"][name], style, color=color, label=label, linewidth=1.4, zorder=front)
        style_axes(axes, f"s = {row['scale']:g}", "x")
        axes.set_ylim(bottom=0.0)
        axes.set_xlim(-3.5, 3.5)
    figure.axes[0].set_ylabel("density", color=INK)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, fontsize=9, loc="outside lower center", ncols=len(labels))
    return figure


# The page


def section(found: Found, images: str) -> str:
    """Both answers in Markdown.

    Args:
        found: What ``questions.json`` has.
        images: The folder of the figures, from the page.
    """
    return f"""## What w does for a given error

![The error of networks, and what w makes of it]({images}/questions-w.png)

{w_method(found["w"], found["settings"])}

{w_answer(found["w"])}

{w_table(found["w"])}

## Which distribution guidance samples from

![Densities of guided samples, and the tilted ones]({images}/questions-guidance.png)

{guidance_method(found["guidance"])}

{guidance_answer(found["guidance"])}

{guidance_table(found["guidance"])}
"""


def w_method(found: Found, settings: Found) -> str:
    """What is measured, and how."""
    return _paragraph(
        f"{settings['networks']} networks of width {settings['width']} learned the velocity of a mixture of",
        f"{len(DATA.weights)} Gaussians on the line in {settings['steps']:,} steps. There the exact velocity is known,",
        "and with it L(t) and the bound KL(data || samples) <= integral of (1 + w / 2 omega)^2 / (2 w) L that",
        "`kl_optimal` minimises. The divergence itself is that of the Fokker-Planck equation of the learned SDE: no",
        "samples are drawn.",
        f"Of a velocity without error it is computed to be at most {found['without_error']:.1g}. SDEs run from",
        f"t = {found['start']:.3g} to 1 - {1 - found['stop']:.1g}, where the library finds the coefficients of all of",
        "them bounded, and the bound's factor for w = n sigma; the ODE runs from 0 to 1.",
    )


def w_answer(found: Found) -> str:
    """What the numbers say."""
    networks = found["networks"]
    rows = [row for network in networks for row in (*network["family"], *network["named"].values())]
    held = sum(row["kl"] <= row["bound"] for row in rows)
    loose = [row["bound"] / row["kl"] for network in networks for row in network["family"]]
    best = [min(network["family"], key=lambda row: float(row["kl"])) for network in networks]
    most = [network["family"][-1] for network in networks]
    gains, losses = (
        [row["kl"] / network["ode"] for row, network in zip(chosen, networks, strict=True)] for chosen in (best, most)
    )
    decreasing = [network["named"]["decreasing"] for network in networks]
    return _paragraph(
        f"The divergence is within the bound for {held} of {len(rows)} pairs of a network and a w; for w = n sigma the",
        f"bound is {_range(loose)} times as large. By the bound the best n is",
        f"{_range([network['best_by_bound'] for network in networks])}; by the divergence it is",
        f"{_range([row['n'] for row in best])}, of n from {RATIOS[0]:g} to {RATIOS[-1]:g}, and then the SDE has",
        f"{_range(gains)} times the divergence of the ODE, less than 0.99 for {sum(gain < 0.99 for gain in gains)} of",
        f"{len(networks)} networks. With n = {RATIOS[-1]:g} it has {_range(losses)} times that of the ODE. Where w",
        f"vanishes fast the two part: the bound of `decreasing` is {_range([row['bound'] for row in decreasing])}, its",
        f"divergence {_range([row['kl'] for row in decreasing])}.",
    )


def _paragraph(*parts: str) -> str:
    return textwrap.fill(" ".join(parts), 120, break_on_hyphens=False)


def _range(values: Sequence[float]) -> str:
    low, high = (f"{value:.3g}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def w_table(found: Found) -> str:
    """A line each w; the divergence of each network, and the mean of the bounds."""
    networks = found["networks"]
    ode = ("0, the ODE", "0", *(f"{network['ode']:.3f}" for network in networks), "-")
    chosen = {f"{n:g} sigma": [_of_ratio(network, n) for network in networks] for n in SHOWN_RATIOS}
    chosen |= {f"`{name}`": [network["named"][name] for network in networks] for name in NAMED}
    rows = [
        (
            name,
            _range([row["noise"] for row in of]),
            *(f"{row['kl']:.3f}" for row in of),
            _range([row["bound"] for row in of]),
        )
        for name, of in chosen.items()
    ]
    head = ("w", "noise: integral of w", *(f"KL, network {k + 1}" for k in range(len(networks))), "bound")
    return table(head, [ode, *rows])


def _of_ratio(network: Found, n: float) -> Found:
    row: Found
    (row,) = (row for row in network["family"] if row["n"] == n)
    return row


def guidance_method(found: Found) -> str:
    """What is measured, and how."""
    return _paragraph(
        "The velocity u + s (c - u), with exact c of a class and u of all, is often said to sample from the tilted",
        "density p(x|c)^s p(x)^(1-s) / Z. Its score is that of the tilted density of each t, but it does not carry one",
        "of these densities into the next. Here those of the samples are computed: of the ODE by the change of",
        "variables along it, and of the SDE by its Fokker-Planck equation, up to where the library finds the score",
        f"bounded, t = {found['stop']:.3g}.",
    )


def guidance_answer(found: Found) -> str:
    """What the numbers say."""
    unguided, *_, most = found["scales"]
    ode, noisy, supposed = most["laws"]["ODE"], most["laws"][f"SDE, n = {NOISES[-1]:g}"], most["tilted"]
    guided = [row["laws"] for row in found["scales"] if row["scale"] > 1]
    names = ("ODE", *(f"SDE, n = {n:g}" for n in NOISES))
    falls = sum(bool(np.all(np.diff([laws[name]["kl"] for name in names]) < 0)) for laws in guided)
    nearer = sum(laws["ODE, interval"]["kl"] < laws["ODE"]["kl"] for laws in guided)
    low, high = found["interval"]
    return _paragraph(
        f"At s = {unguided['scale']:g} KL(tilted || samples) is {unguided['laws']['ODE']['kl']:.1g} by the ODE, and at",
        f"most {max(law['kl'] for law in unguided['laws'].values()):.1g} by any w. At s = {most['scale']:g} it is",
        f"{ode['kl']:.3g} by the ODE, whose samples have mean {ode['mean']:.2f} and variance {ode['variance']:.2f}",
        f"where the tilted density has {supposed['mean']:.2f} and {supposed['variance']:.2f}, and {noisy['kl']:.3g} by",
        f"the SDE with w = {NOISES[-1]:g} sigma. For {falls} of {len(guided)} scales above 1 each step from the ODE to",
        f"a larger w is one towards the tilted density; guidance at t from {low:g} to {high:g} alone is nearer to it",
        f"than guidance at all t for {nearer} of {len(guided)}.",
    )


def guidance_table(found: Found) -> str:
    """A line each scale: the divergence of each law, and the mean and the variance of those of the ODE."""
    names = list(found["scales"][0]["laws"])
    described = ("ODE", "ODE, interval")
    rows = [
        (
            f"{row['scale']:g}",
            *(f"{row['laws'][name]['kl']:.2g}" for name in names),
            *(
                f"{law['mean']:.2f}, {law['variance']:.2f}"
                for law in (row["tilted"], *(row["laws"][n] for n in described))
            ),
        )
        for row in found["scales"]
    ]
    means = (f"mean, variance: {name}" for name in ("tilted", *described))
    return table(("s", *(f"KL: {name}" for name in names), *means), rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows))


def main(settings: Questions) -> None:
    """Answer both, and write the numbers and the figures."""
    folder, started = Path(settings.output), time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {
        "settings": {name: value for name, value in asdict(settings).items() if name != "output"},
        "w": ask_w(settings),
        "guidance": ask_guidance(settings),
        "seconds": time.perf_counter() - started,
        "versions": {module.__name__: module.__version__ for module in (ip, np, scipy, torch)},
        "command": shlex.join(["python", *sys.argv]),
        "commit": commit(),
        "date": now(),
    }
    write_json(folder / "questions.json", found)
    for name, figure in (("w", w_figure(found["w"])), ("guidance", guidance_figure(found["guidance"]))):
        write_png(folder / f"questions-{name}.png", figure.savefig, dpi=110)
    print(section(found, "."))


if __name__ == "__main__":
    run_script(main, Questions)
