"""Draws docs/images/overview.png: two functions of time, what follows from them with its proof, and samples.

Run from anywhere: python docs/overview.py
"""

from __future__ import annotations

from pathlib import Path as File
from typing import Any

import numpy as np
import sympy as sp
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

import interpolants as ip
from training import Field, sample_ode, sample_sde

ALPHA, SIGMA, W = "sin(pi*t/2)", "cos(pi*t/2)", "2*sigma"
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
STEPS = 200
TITLE: dict[str, Any] = {"fontsize": 11.5, "fontweight": "bold"}


def main() -> None:
    """Derive, prove, sample and draw."""
    path = ip.Path(ALPHA, SIGMA)
    figure = Figure(figsize=(12.5, 5.0), layout="constrained", facecolor="white")
    left, middle, right = figure.subfigures(1, 3, width_ratios=[0.95, 1.35, 1.2])
    top, bottom = left.subplots(2, 1, height_ratios=[0.2, 1.0])
    code(top)
    functions(bottom, path)
    formulas(middle.subplots(), path)
    samples(*right.subplots(2, 1, sharex=True), path)
    file = File(__file__).parent / "images/overview.png"
    figure.savefig(file, dpi=130)
    print(file)


def code(axes: Axes) -> None:
    """The line that states the path."""
    axes.axis("off")
    axes.set_title("You write two functions of time", **TITLE)
    text = f'path = ip.Path("{ALPHA}",\n               "{SIGMA}")'
    axes.text(0.5, 0.35, text, transform=axes.transAxes, family="monospace", fontsize=9.5, ha="center", va="center",
              bbox={"facecolor": "#f2f2f2", "edgecolor": "#cccccc", "boxstyle": "round,pad=0.7"})  # fmt: skip


def functions(axes: Axes, path: ip.Path) -> None:
    """alpha and sigma over time."""
    t = np.linspace(0, 1, 201)
    axes.plot(t, path.alpha(t), color=BLUE, linewidth=2.5, label=r"$\alpha(t)$, of the data")
    axes.plot(t, path.sigma(t), color=ORANGE, linewidth=2.5, linestyle="--", label=r"$\sigma(t)$, of the noise")
    axes.set(xlabel="t, from noise to data", xlim=(0, 1), ylim=(0, 1.05))
    axes.legend(loc="lower center", frameon=False)


def formulas(axes: Axes, path: ip.Path) -> None:
    """What the engine derives, and how many identities its ledger proves of it."""
    x, v = sp.Symbol("x"), sp.Symbol("v")

    def of_velocity(quantity: str) -> str:
        a, b = path.conversion("velocity", quantity)
        return sp.latex(a.expr * x + b.expr * v)

    sde, forward = path.sde("velocity", W.replace("sigma", f"{SIGMA}")), path.forward_sde()
    weight = path.loss_weight("noise", space="velocity")
    rows = (
        ("velocity", rf"${sp.latex(path.d_alpha.expr)}\,data {sp.latex(path.d_sigma.expr)}\,noise$"),
        ("data from velocity", f"${of_velocity('data')}$"),
        ("noise from velocity", f"${of_velocity('noise')}$"),
        ("score from velocity", f"${of_velocity('score')}$"),
        ("forward SDE", rf"$f = {sp.latex(forward.f.expr)},\ \ g^2 = {sp.latex(forward.g_squared.expr)}$"),
        (r"SDE, $w = 2\sigma$", rf"$dx = ({sp.latex(sde.a.expr * x + sde.b.expr * v)})\,dt + \sqrt{{w}}\,dW$"),
        ("loss weight, noise", f"${sp.latex(weight.expr)}$"),
    )
    axes.axis("off")
    axes.set_title("All that follows is derived and proved", **TITLE)
    for i, (name, formula) in enumerate(rows):
        y = 0.95 - 0.128 * i
        axes.text(0.0, y, name, transform=axes.transAxes, fontsize=9, color="#555555", va="center")
        axes.text(0.27, y, formula, transform=axes.transAxes, fontsize=12.5, va="center", in_layout=False)
    statuses = [entry.status for entry in ip.prove(path).entries]
    proved = f"{statuses.count('proved')} of {len(statuses)} identities proved"
    axes.text(0.5, 0.04, f"✓  {proved}", transform=axes.transAxes, fontsize=12, color=GREEN, ha="center",
              fontweight="bold")  # fmt: skip


def samples(ode: Axes, sde: Axes, path: ip.Path) -> None:
    """The exact density of x_t over time, and the same noise carried through it by the ODE and by the SDE."""
    means, stds = torch.tensor([[-1.6], [0.2], [1.7]]).double(), torch.tensor([0.15, 0.3, 0.15]).double()
    law = ip.oracle.GaussianMixture(means, stds, weights=torch.tensor([0.3, 0.3, 0.4]).double())
    field = Field(lambda x, t: law.velocity(x, t, path), path, prediction="velocity")
    noise = torch.special.ndtri((torch.arange(16).double() + 0.5) / 16)[:, None]
    w = W.replace("sigma", SIGMA)
    draw(
        ode,
        "and runs: by the ODE",
        sample_ode(field, noise, num_steps=STEPS, method="heun2", trajectory=True),
        law,
        path,
    )
    draw(
        sde,
        r"or by any SDE, such as w = 2$\sigma$",
        sample_sde(field, noise, w=w, num_steps=STEPS, seed=3, trajectory=True),
        law,
        path,
    )
    sde.set_xlabel("t, from noise to data")


def draw(axes: Axes, title: str, states: Tensor, law: ip.oracle.GaussianMixture, path: ip.Path) -> None:
    """Trajectories, shape (times, samples, 1), on the density of their law."""
    t, x = torch.linspace(0, 1, 161).double(), torch.linspace(-3, 3, 241).double()
    density = torch.stack([law.log_prob(x[:, None], at, path).exp() for at in t], dim=1)
    axes.pcolormesh(t, x, density.clamp(max=1.0) ** 0.7, cmap="Greys", shading="gouraud", rasterized=True)
    axes.plot(np.linspace(0, 1, len(states)), states[:, :, 0], color=BLUE if "ODE" in title else ORANGE, linewidth=0.9)
    axes.set(xlim=(0, 1), ylim=(-3, 3), yticks=[-2, 0, 2])
    axes.set_ylabel("x")
    axes.set_title(title, **TITLE)


if __name__ == "__main__":
    main()
