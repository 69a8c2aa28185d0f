"""How many calls of the network a sample takes, beside other samplers: ``python benchmarks/samplers.py calls``,
``network``, ``sde`` or ``overhead``.

calls: error of the ODE's samples against calls, on six Gaussian mixtures whose flow is known: a table of the calls that
an error takes, benchmarks/results/samplers-calls.json, and docs/images/samplers.png. The network is exact, so that the
error is the solver's. Of each project it takes the method that is best for the mixture and the error, which one knows
afterwards. diffusers takes part if it is installed.

network: the same with the network of a run, ``--run runs/digits``, and benchmarks/results/samplers-network.json.

sde: the official Euler-Maruyama scheme with its two calls a step, and ours with one, fed the same noise; and how far
samples are from the modes of a mixture, for several methods.

overhead: process time of a step beyond the network, one thread, at batch 4 x 4 x 32 x 32.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # else models.py beside this file would be `models`

import numpy as np
import torch
import torchdiffeq
from timing import in_turns
from torch import Tensor

import interpolants as ip
from benchmarks.models import keep
from interpolants import time_grid
from training import Field, fit_grid, sample_ode, sample_official_sde, sample_sde
from training.checkpoint import find
from training.multistep import ODE_METHODS as DERIVED

IMAGE = Path(__file__).resolve().parent.parent / "docs" / "images" / "samplers.png"
SAMPLES = 1024
LEVELS = (3e-2, 1e-2, 5e-3, 3e-3, 1e-3)
CALLS = (*range(4, 25), 28, 32, 36, 40, 48, 56, 64)
STAGES = {"euler": 1, "midpoint": 2, "heun2": 2, "heun3": 3, "rk4": 4}
ADAPTIVE = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")
GRIDS = ("uniform", "shifted", "log_snr", "edm", "cosine", "optimized", "scales")

Velocity: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"
Point: TypeAlias = tuple[int, float, float]
"""Calls of the network, and the errors: of all samples, and of the 99 % of them that err least."""
Curves: TypeAlias = dict[str, list[Point]]


@dataclass(frozen=True)
class Case:
    """A mixture, and the standard deviations of its modes and along its principal axes: what one knows of data."""

    name: str
    mixture: ip.oracle.GaussianMixture
    stds: tuple[float, ...]


def cases() -> list[Case]:
    """Three from which the settings of ours were chosen, and three more that were made after that."""
    return [
        _case("2-D, 8 modes, std 0.2", _ring(8), torch.full((8,), 0.2)),
        _case("16-D, 10 modes, std 0.15", _normal(10, 16), torch.full((10,), 0.15)),
        _case("64-D, 10 modes, std 0.05", _normal(10, 64), torch.full((10,), 0.05)),
        _case("3-D, 20 modes on a helix, std 0.1", _helix(20), torch.full((20,), 0.1)),
        _case("24-D, 12 modes, std 0.02 to 1", _normal(12, 24), torch.logspace(math.log10(0.02), 0, 12)),
        _case("100-D, 5 modes, std 0.015 to 1.5", _spectrum(100) * _normal(5, 100), _spectrum(100).expand(5, 100)),
    ]


def _ring(modes: int) -> Tensor:
    angle = torch.arange(modes, dtype=torch.float64) * 2 * math.pi / modes
    return 2 * torch.stack([angle.cos(), angle.sin()], 1)


def _helix(modes: int) -> Tensor:
    angle = torch.linspace(0, 4 * math.pi, modes, dtype=torch.float64)
    return torch.stack([angle.cos(), angle.sin(), angle / math.pi - 2], 1)


def _normal(modes: int, dims: int) -> Tensor:
    return torch.randn(modes, dims, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _spectrum(dims: int) -> Tensor:
    """Deviations that fall along the principal axes, as those of images do."""
    return 1.5 / torch.arange(1, dims + 1, dtype=torch.float64)


def _case(name: str, means: Tensor, stds: Tensor) -> Case:
    mixture = ip.oracle.GaussianMixture(means, stds.double())
    centred = means - means.mean(0)
    axes = torch.linalg.eigvalsh(centred.T @ centred / len(means) + torch.diag((mixture.stds**2).mean(0))).sqrt()
    return Case(name, mixture, (*sorted({*mixture.stds.flatten().tolist()}), *axes.tolist()))


class Counted:
    """A velocity, counted."""

    def __init__(self, velocity: Velocity) -> None:
        self.velocity, self.calls = velocity, 0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        return self.velocity(x, t)


def exact(case: Case) -> Velocity:
    """The velocity of a mixture on the linear path, one time for all samples, by products of matrices.

    Ten times as fast as the oracle, to which it is held.
    """
    means, stds, weights = case.mixture.means, case.mixture.stds, case.mixture.weights

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        time, state = t.flatten()[0].item(), x.double()
        variances = time**2 * stds**2 + (1 - time) ** 2  # (K, d)
        distances = state**2 @ (1 / variances).T - 2 * time * state @ (means / variances).T
        distances += (time**2 * means**2 / variances).sum(1)
        shares = torch.softmax(weights.log() - variances.log().sum(1) / 2 - distances / 2, dim=1)  # (batch, K)
        slopes = (time * stds**2 - (1 - time)) / variances
        return (shares @ (means * (1 - time * slopes)) + shares @ slopes * state).to(x.dtype)

    x = torch.randn(64, means.shape[1], dtype=torch.float64)
    for time in (0.0, 0.3, 0.9, 1.0):
        t = torch.tensor(time, dtype=torch.float64)
        torch.testing.assert_close(velocity(x, t), case.mixture.velocity(x, t, ip.linear()), rtol=1e-8, atol=1e-8)
    return velocity


# Calls


def calls() -> None:
    """Print the table, keep the numbers, and draw the picture."""
    curves = {}
    for case in cases():
        noise = torch.randn(SAMPLES, case.mixture.means.shape[1], generator=torch.Generator().manual_seed(1)).double()
        network = Counted(exact(case))
        field = Field(network, ip.linear())
        reference = sample_ode(field, noise, method="dopri8", rtol=1e-11, atol=1e-12)
        curves[case.name] = measured(network, noise, reference, case.stds)
    report("samplers-calls", curves)
    draw(curves)
    print(f"\n{IMAGE}")


def trained(run: str) -> None:
    """As ``calls``, for the trained network of a run that predicts the velocity on the linear path."""
    learned = find(run).field(device=torch.device("cpu"))
    if learned.path != ip.linear() or learned.prediction != "velocity":
        raise SystemExit(f"{run}: must predict the velocity on the linear path, got {learned.prediction}.")
    labels = torch.arange(64) % learned.model.num_classes
    noise = torch.randn(64, *learned.model.input_shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        counted = Counted(lambda x, t: learned.predict(x, t, labels[: len(x)]))
        field = Field(counted, ip.linear())
        reference = sample_ode(field, noise, method="rk4", num_steps=250, state_dtype=torch.float64)
        curves = measured(counted, noise, reference)
    report("samplers-network", {"the network of the run": curves})


def measured(
    network: Counted, noise: Tensor, reference: Tensor, stds: tuple[float, ...] | None = None
) -> dict[str, Curves]:
    """The curves of each project's methods, and of some settings of ours that are fixed before the data is seen.

    Without the deviations of the data, of ours only the settings that need none.
    """

    def point(draw: Callable[[], Tensor]) -> Point:
        network.calls = 0
        squares = (draw() - reference).square().flatten(1).mean(1).sort()[0]
        used = network.calls
        few = squares[: int(0.99 * len(squares))]
        return used, squares.mean().sqrt().item(), few.mean().sqrt().item()

    def ours(method: str, grid: time_grid.TimeGridLike) -> list[Point]:
        return [
            point(lambda n=n: sample_ode(field, noise, method=method, num_steps=n, grid=grid))
            for n in steps(STAGES.get(method, 1))
        ]

    field = Field(network, ip.linear())
    default = [point(lambda: official_ode(network, noise, "dopri5", 250))]
    official: Curves = {"dopri5 by default": default}
    for method, stages in STAGES.items():
        more = (80, 96, 128, *((192, 256, 384, 512, 768, 1024) if stages == 1 else ()))
        official[method] = [
            point(lambda n=n, m=method: official_ode(network, noise, m, n + 1)) for n in steps(stages, more)
        ]
    for method in ("explicit_adams", "implicit_adams"):
        official[method] = [point(lambda n=n, m=method: official_ode(network, noise, m, n + 1)) for n in range(2, 33)]
    for method in ADAPTIVE:
        for name, ratio in (("", 1e-3), (", atol = rtol", 1.0)):
            official[method + name] = [
                point(lambda m=method, r=10 ** (-k / 2), q=ratio: official_ode(network, noise, m, 2, r, q * r))
                for k in range(1, 13)
            ]
    by_others = {
        name: [point(lambda n=n, make=make: by_diffusers(make(n), network, noise)) for n in steps(stages)]
        for name, (make, stages) in diffusers_schedulers().items()
    }
    pilot = torch.randn(32, *noise.shape[1:], generator=torch.Generator().manual_seed(2)).to(noise)
    groups = {"official, by default": {"dopri5": default}, "official, best": official, "diffusers, best": by_others}
    if not by_others:
        del groups["diffusers, best"]
    if stds is not None:
        methods = (*DERIVED, "midpoint", "heun3", "rk4")
        groups["ours, best"] = {f"{method}, {grid}": ours(method, grid) for grid in GRIDS for method in methods}
    for name, grid in (("uniform", "uniform"), ("scales", "scales"), ("fitted", fit_grid(field, pilot))):
        groups[f"adams_pc2, {name}"] = {f"adams_pc2, {name}": ours("adams_pc2", grid)}
    if stds is not None:
        optimized = time_grid.optimized(stds, 2)
        groups["adams_pc2, optimized for the data"] = {"adams_pc2, optimized": ours("adams_pc2", optimized)}
    return groups


def steps(stages: int, more: Iterable[int] = ()) -> list[int]:
    """Numbers of steps of a method with some stages, so that the calls are those of CALLS or just below."""
    return sorted({n // stages for n in (*CALLS, *more) if n >= stages})


def official_ode(
    network: Velocity, noise: Tensor, method: str, outputs: int, rtol: float = 1e-3, atol: float = 1e-6
) -> Tensor:
    """As the official release: outputs on linspace, and for fixed steps these are the steps. The last step of an
    adaptive method goes beyond t = 1, and is given the velocity at 1.
    """
    times = torch.linspace(0, 1, outputs, dtype=noise.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # implicit_adams, where it does not converge
        return torchdiffeq.odeint(
            lambda t, x: network(x, t.clamp(max=1)), noise, times, method=method, rtol=rtol, atol=atol
        )[-1]


def diffusers_schedulers() -> dict[str, tuple[Callable[[int], Any], int]]:
    """Those without noise of their own that run on flow matching's sigmas, made of the number of steps; and the calls
    of a step. UniPC's solver bh1 is left out, whose last step to sigma = 0 is not finite.
    """
    try:
        import diffusers
    except ImportError:
        return {}
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
    schedulers: dict[str, tuple[Callable[[int], Any], int]] = {}

    def add(name: str, kind: str, stages: int = 1, equal: bool = False, **settings: Any) -> None:
        def make(num_steps: int) -> Any:
            scheduler = getattr(diffusers, f"{kind}Scheduler")(**settings)
            if equal:
                scheduler.set_timesteps(sigmas=1 - np.arange(num_steps) / num_steps)
            else:
                scheduler.set_timesteps(num_steps)
            scheduler.set_begin_index(0)  # as the pipelines do; it is else looked for, among times that are rounded
            return scheduler

        schedulers[name] = make, stages

    for shift in (1.0, 3.0):
        shifted, of_shift = flow | {"flow_shift": shift}, f", shift {shift:g}"
        for order in (2, 3):
            add(f"DPM-Solver++ {order}M{of_shift}", "DPMSolverMultistep", solver_order=order, **shifted)
            add(f"DPM-Solver++ {order}S{of_shift}", "DPMSolverSinglestep", solver_order=order, **shifted)
            add(f"DEIS {order}{of_shift}", "DEISMultistep", solver_order=order, **shifted)
            add(f"UniPC {order}{of_shift}", "UniPCMultistep", solver_order=order, **shifted)
        heun = shifted | {"solver_type": "heun"}
        add(f"DPM-Solver++ 2M, heun{of_shift}", "DPMSolverMultistep", solver_order=2, **heun)
        add(f"FlowMatchEuler{of_shift}", "FlowMatchEulerDiscrete", shift=shift)
        add(f"FlowMatchHeun{of_shift}", "FlowMatchHeunDiscrete", 2, shift=shift)
    for order in (2, 3):
        add(f"UniPC {order}, Karras", "UniPCMultistep", solver_order=order, use_karras_sigmas=True, **flow)
        add(f"UniPC {order}, equal steps", "UniPCMultistep", equal=True, solver_order=order, **flow)
    return schedulers


def by_diffusers(scheduler: Any, network: Velocity, noise: Tensor) -> Tensor:
    x = noise
    for step in scheduler.timesteps:
        index = scheduler.step_index if scheduler.step_index is not None else 0
        sigma = float(scheduler.sigmas[index])
        # Their velocity is noise - data, and sigma the weight of the noise.
        x = scheduler.step(-network(x, torch.tensor(1.0 - sigma).to(noise)), step, x, return_dict=False)[0]
    return x


def report(name: str, curves: dict[str, dict[str, Curves]]) -> None:
    """Print the calls for an error of all samples / of 99 % of them, and keep them with their methods."""
    groups = list(next(iter(curves.values())))
    print(f"\nCalls for an error (root mean square) of all samples / of the 99 % that err least, {name}\n")
    print("| | error | " + " | ".join(groups) + " |\n" + "|---" * (2 + len(groups)) + "|")
    rows = []
    for case, of_group in curves.items():
        for level in LEVELS:
            best = {
                group: [min((_needed(points, level, m), method) for method, points in methods.items()) for m in (1, 2)]
                for group, methods in of_group.items()
            }
            print(f"| {case} | {level:g} | " + " | ".join(_both(pair) for pair in best.values()) + " |", flush=True)
            finite = {
                group: [(None, None) if math.isinf(n) else (n, name) for n, name in pair]
                for group, pair in best.items()
            }
            rows.append({"case": case, "error": level} | finite)
    keep(name, {"levels": LEVELS, "calls": CALLS, "rows": rows})


def _needed(points: list[Point], level: float, measure: int) -> float:
    """The calls from which on the error stays at or below the level."""
    points = sorted(points)
    above = [i for i, point in enumerate(points) if not point[measure] <= level]
    first = above[-1] + 1 if above else 0
    return points[first][0] if first < len(points) else math.inf


def _both(pair: list[tuple[float, str]]) -> str:
    return " / ".join("-" if math.isinf(n) else f"{n}" for n, _ in pair)


STYLES: dict[str, tuple[str, dict[str, Any]]] = {
    "official, by default": ("official SiT, dopri5 as it is", {"color": "tab:blue", "marker": "*", "ms": 11, "ls": ""}),
    "official, best": ("official SiT, the best of its methods", {"color": "tab:blue", "ls": "--"}),
    "diffusers, best": ("diffusers, the best of its methods", {"color": "tab:gray", "ls": ":"}),
    "adams_pc2, uniform": ("adams_pc2, equal steps", {"color": "tab:green"}),
    "adams_pc2, scales": ("adams_pc2, grid scales", {"color": "tab:orange"}),
    "adams_pc2, fitted": ("adams_pc2, grid fitted to the network", {"color": "tab:red", "lw": 2.2}),
    "adams_pc2, optimized for the data": ("adams_pc2, grid made from the data's deviations", {"color": "tab:purple"}),
}


def draw(curves: dict[str, dict[str, Curves]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(3, 2, figsize=(6, 9), sharex=True, sharey=True, layout="constrained")
    for axes, (case, groups) in zip(panels.T.flat, curves.items(), strict=True):
        for group, (label, style) in STYLES.items():
            if group in groups:
                points = sorted((used, error) for curve in groups[group].values() for used, _, error in curve)
                points = [(used, error) for used, error in points if math.isfinite(error)]
                least = [min(error for n, error in points if n <= used) for used, _ in points]  # of several methods
                errors = least if "best" in group else [error for _, error in points]
                axes.plot([used for used, _ in points], errors, label=label, **style)
        axes.set_title(case, fontsize=11)
        axes.grid(alpha=0.3)
    ticks = (4, 8, 16, 32, 64)
    panels[0, 0].set(xscale="log", yscale="log", xlim=(4, 90), ylim=(1e-4, 0.5), xticks=ticks, xticklabels=ticks)
    panels[0, 0].minorticks_off()
    figure.supxlabel("calls of the network", fontsize=11)
    figure.supylabel("error of the 99 % of samples that err least", fontsize=11)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper center", fontsize=11)
    figure.savefig(IMAGE, dpi=170)
    plt.close(figure)


# SDE


def sde() -> None:
    """Print the calls and the difference at equal noise, and the distance of the law for every method."""
    path, num_steps = ip.linear(), 250
    print("\nEuler-Maruyama, 250 steps, w = 2 sigma, the same noise, float32\n")
    print("| mixture | official calls | our calls | max difference |\n|---|---|---|---|")
    for case in cases():
        network = Counted(exact(case))
        dims = case.mixture.means.shape[1]
        generator = torch.Generator().manual_seed(3)
        noise = torch.randn(256, dims, generator=generator)
        increments = torch.randn(num_steps - 1, 256, dims, generator=generator)
        theirs = official_sde(network, noise, increments, num_steps)
        calls, network.calls = network.calls, 0
        ours = sample_official_sde(Field(network, path), noise, num_steps=num_steps, increments=increments)
        print(f"| {case.name} | {calls} | {network.calls} | {(ours - theirs).abs().max().item():.1e} |")
    case = cases()[2]
    network, modes, dims = Counted(exact(case)), case.mixture.means, case.mixture.means.shape[1]
    field, noise = Field(network, path), torch.randn(2000, dims, generator=torch.Generator().manual_seed(4)).double()

    def row(name: str, samples: Tensor, used: int) -> None:
        deviation = torch.cdist(samples, modes).amin(1).square().mean().sqrt() / (case.stds[0] * math.sqrt(dims))
        print(f"| {name} | {used} | {deviation.item() - 1:+.3f} |", flush=True)

    print(f"\nDeviation of 2,000 samples from the nearest mode, beside the exact one: {case.name}\n")
    print("| scheme | calls | relative error |\n|---|---|---|")
    lasts = [(last, size) for last in ("mean", "euler", "tweedie") for size in (0.04, 0.01, 0.0025)] + [(None, 0.0)]
    for method, stages in (("euler", 1), ("heun", 2)):
        for last, size in lasts:
            for n in (13, 25, 50, 125, 250):
                points = n if stages == 1 else (n + 1) // 2
                settings: dict[str, Any] = {"method": method, "last_step": last, "last_step_size": size}
                generator = torch.Generator().manual_seed(5)
                samples = sample_official_sde(field, noise, num_steps=points, generator=generator, **settings)
                # Velocity and score are two calls; a last step by Euler or Tweedie has one of them.
                used = 2 * stages * (points - 1) + {"mean": 2, None: 0}.get(last, 1)
                row(f"official {method}, last step {last} of {size}", samples, used)
    for method, grid in (
        ("euler", "uniform"),
        ("euler", "edm"),
        ("exponential1", "uniform"),
        ("exponential2", "uniform"),
        ("sde_dpm_solver2", "edm"),
    ):
        for n in (12, 25, 50, 100, 250):
            network.calls = 0
            samples = sample_sde(field, noise, w="sigma", num_steps=n, seed=0, method=method, grid=grid)
            row(f"sample_sde {method}, {grid}", samples, network.calls)


def official_sde(network: Counted, noise: Tensor, increments: Tensor, num_steps: int) -> Tensor:
    """As the official release: velocity and score are two calls, diffusion "sigma", last step "Mean" of 0.04."""

    def score(x: Tensor, t: Tensor) -> Tensor:
        return (t * network(x, t) - x) / (1 - t)  # of the velocity on the linear path

    def drift(x: Tensor, t: Tensor) -> Tensor:
        return network(x, t) + (1 - t) * score(x, t)

    times, x = torch.linspace(0, 0.96, num_steps, dtype=noise.dtype), noise
    h = times[1] - times[0]
    for t, z in zip(times[:-1], increments, strict=True):
        x = x + h * drift(x, t) + torch.sqrt(2 * (1 - t) * h) * z
    return x + 0.04 * drift(x, times[-1])


# Overhead


def overhead(num_steps: int = 200, repeats: int = 15) -> None:
    """Print the time of a step of each sampler, taking turns, with a network that costs nothing."""
    torch.set_num_threads(1)
    noise = torch.randn(4, 4, 32, 32)
    output = torch.randn(4, 4, 32, 32)

    def network(x: Tensor, t: Tensor) -> Tensor:
        return output

    field = Field(network, ip.linear())
    increments = torch.randn(num_steps, *noise.shape)
    samplers: dict[str, Callable[[], object]] = {
        "a bare loop: x + h v + s z, randn": lambda: bare(noise, output, num_steps),
        "official Euler-Maruyama": lambda: official_loop(network, noise, num_steps),
        "sample_official_sde, given noise": lambda: sample_official_sde(
            field, noise, num_steps=num_steps, increments=increments[1:]
        ),
    }
    for method in ("ddim", "adams2", "adams_pc2", "exponential2", "exponential3", "unipc2", "euler", "heun2"):
        samplers[f"sample_ode {method}"] = lambda m=method: sample_ode(field, noise, method=m, num_steps=num_steps)
    for method in ("exponential1", "exponential2", "euler", "heun", "srk"):
        samplers[f"sample_sde {method}"] = lambda m=method: sample_sde(
            field, noise, w="sigma", method=m, num_steps=num_steps, seed=0
        )
    seconds = in_turns(samplers, repeats)
    print("\nProcess time of a step, microseconds, one thread, 4 x 4 x 32 x 32, float32\n\n| sampler | us |\n|---|---|")
    for name, median in seconds.items():
        print(f"| {name} | {1e6 * median / num_steps:.0f} |")


def bare(x: Tensor, velocity: Tensor, num_steps: int) -> Tensor:
    for _ in range(num_steps):
        x = x + 0.01 * velocity + 0.1 * torch.randn(x.shape)
    return x


def official_loop(network: Callable[..., Tensor], x: Tensor, num_steps: int) -> Tensor:
    """The operations of the official step: times as a vector, coefficients as tensors, two calls."""
    times = torch.linspace(0, 0.96, num_steps + 1)
    h = times[1] - times[0]
    for time_ in times[:-1]:
        t = torch.ones(x.shape[0]) * time_
        z = torch.randn(x.shape)
        e = t.view(-1, 1, 1, 1)
        alpha, d_alpha, sigma, d_sigma = e, 1.0, 1 - e, -1.0
        ratio = alpha / d_alpha
        variance = sigma**2 - ratio * d_sigma * sigma
        score = (ratio * network(x, t) - x) / variance
        drift = network(x, t) + (1 - e) * score
        x = x + drift * h + torch.sqrt(2 * (1 - e)) * z * torch.sqrt(h)
    return x


def main() -> None:
    """Run the part named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["calls", "network", "sde", "overhead"])
    parser.add_argument("--run", default="runs/digits", help="of network: the folder of a run (default %(default)s)")
    arguments = parser.parse_args()
    parts = {"calls": calls, "network": lambda: trained(arguments.run), "sde": sde, "overhead": overhead}
    parts[arguments.part]()


if __name__ == "__main__":
    main()
