"""How many calls of the network a sample takes, beside other samplers: ``python benchmarks/samplers.py calls``, ``sde``
or ``overhead``.

calls: error of the ODE's samples against calls, on three Gaussian mixtures whose flow is known: a table of the calls
that an error takes, and docs/images/samplers.png. The network is exact, so that the error is the solver's. diffusers
takes part if it is installed.

sde: the official Euler-Maruyama scheme with its two calls a step, and ours with one, fed the same noise; and how far
samples are from the modes of a mixture, for several methods.

overhead: process time of a step beyond the network, one thread, at batch 4 x 4 x 32 x 32.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # else models.py beside this file would be `models`

import torch
import torchdiffeq
from timing import in_turns
from torch import Tensor

import interpolants as ip
from training import Field, sample_ode, sample_official_sde, sample_sde

IMAGE = Path(__file__).resolve().parent.parent / "docs" / "images" / "samplers.png"
SAMPLES = 1024
LEVELS = (3e-2, 1e-2, 5e-3, 3e-3, 1e-3)
EULER_STEPS = (4, 6, 8, 10, 12, 14, 16, 18, 20, 24, 28, 32, 40, 48, 64, 80, 96, 128, 192, 256, 384, 512, 768, 1024)
OUR_STEPS = (4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 28, 32, 40, 48, 64)


@dataclass(frozen=True)
class Case:
    """A mixture, and the standard deviations of its modes and along its principal axes: what one knows of data."""

    name: str
    mixture: ip.oracle.GaussianMixture
    stds: tuple[float, ...]


def cases() -> list[Case]:
    angle = torch.arange(8, dtype=torch.float64) * math.pi / 4
    ring = 2 * torch.stack([angle.cos(), angle.sin()], 1)
    return [
        _case("2-D, 8 modes, std 0.2", ring, 0.2),
        _case("16-D, 10 modes, std 0.15", _means(10, 16), 0.15),
        _case("64-D, 10 modes, std 0.05", _means(10, 64), 0.05),
    ]


def _means(modes: int, dims: int) -> Tensor:
    return torch.randn(modes, dims, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _case(name: str, means: Tensor, std: float) -> Case:
    stds, weights = means.new_full((len(means),), std), means.new_full((len(means),), 1 / len(means))
    centred = means - means.mean(0)
    axes = torch.linalg.eigvalsh(centred.T @ centred / len(means) + std**2 * torch.eye(means.shape[1])).sqrt()
    return Case(name, ip.oracle.GaussianMixture(means, stds, weights), (std, *axes.tolist()))


class Counted:
    """The exact velocity of a mixture, counted."""

    def __init__(self, case: Case, path: ip.Path) -> None:
        self.case, self.path, self.calls = case, path, 0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        return self.case.mixture.velocity(x.double(), t.double(), self.path).to(x.dtype)


# Calls


def calls() -> None:
    """Print the table, and draw the picture."""
    curves = {case.name: measured(case) for case in cases()}
    print(f"\nCalls of the network for an error (root mean square over {SAMPLES} samples), linear path\n")
    print(
        "| mixture | error | official: best of Euler, dopri5 | " + " | ".join(OURS) + " | diffusers | ours / official |"
    )
    print("|" + "---|" * (5 + len(OURS)))
    for name, of_method in curves.items():
        for level in LEVELS:
            needed = {method: _needed(points, level) for method, points in of_method.items()}
            official = min(needed["official Euler"], needed["official dopri5"])
            others = min((n for method, n in needed.items() if method.startswith("diffusers")), default=math.inf)
            shown = [official, *(needed[method] for method in OURS), others]
            ratio = min(needed[method] for method in OURS) / official
            print(f"| {name} | {level:g} | " + " | ".join(_count(n) for n in shown) + f" | {ratio:.2f} |")
    draw(curves)
    print(f"\n{IMAGE}")


def measured(case: Case) -> dict[str, list[tuple[int, float]]]:
    """(calls, error) of each method."""
    path = ip.linear()
    noise = torch.randn(SAMPLES, case.mixture.means.shape[1], generator=torch.Generator().manual_seed(1)).double()
    network = Counted(case, path)
    field = Field(network, path)
    exact = sample_ode(field, noise, method="dopri8", rtol=1e-11, atol=1e-12)

    def point(draw: Callable[[], Tensor]) -> tuple[int, float]:
        network.calls = 0
        error = (draw() - exact).square().mean().sqrt().item()
        return network.calls, error

    curves = {
        "official Euler": [point(lambda n=n: official_ode(network, noise, "euler", n + 1)) for n in EULER_STEPS],
        "official dopri5": [point(lambda: official_ode(network, noise, "dopri5", 250))],
    }
    for name, (method, grid) in OURS.items():
        curves[name] = [
            point(lambda n=n, m=method, g=grid: sample_ode(field, noise, method=m, num_steps=n, grid=g(case)))
            for n in OUR_STEPS
        ]
    for name, scheduler in diffusers_schedulers().items():
        curves[name] = [point(lambda n=n, s=scheduler: by_diffusers(s, network, noise, n)) for n in OUR_STEPS]
    return curves


OURS: dict[str, tuple[str, Callable[[Case], ip.time_grid.TimeGrid]]] = {
    "adams_pc2, uniform": ("adams_pc2", lambda case: ip.time_grid.uniform()),
    "adams_pc2, optimized for modes": ("adams_pc2", lambda case: ip.time_grid.optimized(case.stds[:1], 2)),
    "adams_pc2, optimized for modes and axes": ("adams_pc2", lambda case: ip.time_grid.optimized(case.stds, 2)),
    "unipc2, log_snr": ("unipc2", lambda case: ip.time_grid.log_snr(10.0)),
}


def official_ode(network: Counted, noise: Tensor, method: str, outputs: int) -> Tensor:
    """As the official release: all outputs on linspace, atol 1e-6, rtol 1e-3. Its last step goes beyond t = 1, and is
    given the velocity at 1.
    """
    times = torch.linspace(0, 1, outputs, dtype=torch.float64)
    return torchdiffeq.odeint(
        lambda t, x: network(x, t.clamp(max=1)), noise, times, method=method, atol=1e-6, rtol=1e-3
    )[-1]


def diffusers_schedulers() -> dict[str, Callable[[], object]]:
    """Those that run with flow matching's sigmas, where the package is installed."""
    try:
        from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler
    except ImportError:
        return {}
    settings = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 1.0}
    return {
        "diffusers DPM-Solver++ (2M)": lambda: DPMSolverMultistepScheduler(solver_order=2, **settings),
        "diffusers UniPC": lambda: UniPCMultistepScheduler(solver_order=2, **settings),
    }


def by_diffusers(make: Callable[[], object], network: Counted, noise: Tensor, num_steps: int) -> Tensor:
    scheduler = make()
    scheduler.set_timesteps(num_steps)
    x = noise
    for step in scheduler.timesteps:
        index = scheduler.step_index if scheduler.step_index is not None else 0
        sigma = float(scheduler.sigmas[index])
        # Their velocity is noise - data, and sigma the weight of the noise.
        x = scheduler.step(-network(x, torch.tensor(1.0 - sigma).double()), step, x, return_dict=False)[0]
    return x


def _needed(points: list[tuple[int, float]], level: float) -> float:
    """The calls from which on the error stays at or below the level."""
    above = [i for i, (_, error) in enumerate(points) if not error <= level]
    first = above[-1] + 1 if above else 0
    return points[first][0] if first < len(points) else math.inf


def _count(n: float) -> str:
    return "-" if math.isinf(n) else str(int(n))


def draw(curves: dict[str, dict[str, list[tuple[int, float]]]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(curves), figsize=(5 * len(curves), 4.2), sharey=True)
    for axis, (name, of_method) in zip(axes, curves.items(), strict=True):
        for method, points in of_method.items():
            style = {"marker": "*", "ms": 12, "ls": ""} if len(points) == 1 else {"marker": ".", "ms": 4}
            dashed = "--" if method.startswith("official") else ":" if method.startswith("diffusers") else "-"
            axis.plot(*zip(*points, strict=True), label=method, **({"ls": dashed} | style))
        axis.set(xscale="log", yscale="log", title=name, xlabel="calls of the network", xlim=(4, 1100), ylim=(2e-5, 2))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("error of the samples")
    axes[0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(IMAGE, dpi=110)


# SDE


def sde() -> None:
    """Print the calls and the difference at equal noise, and the distance of the law for every method."""
    path, num_steps = ip.linear(), 250
    print("\nEuler-Maruyama, 250 steps, w = 2 sigma, the same noise, float32\n")
    print("| mixture | official calls | our calls | max difference |\n|---|---|---|---|")
    for case in cases():
        network = Counted(case, path)
        dims = case.mixture.means.shape[1]
        generator = torch.Generator().manual_seed(3)
        noise = torch.randn(256, dims, generator=generator)
        increments = torch.randn(num_steps - 1, 256, dims, generator=generator)
        theirs = official_sde(network, noise, increments, num_steps)
        calls, network.calls = network.calls, 0
        ours = sample_official_sde(Field(network, path), noise, num_steps=num_steps, increments=increments)
        print(f"| {case.name} | {calls} | {network.calls} | {(ours - theirs).abs().max().item():.1e} |")
    case = cases()[2]
    network, modes, dims = Counted(case, path), case.mixture.means, case.mixture.means.shape[1]
    print(f"\nDeviation of 2,000 samples from the nearest mode, beside the exact one: {case.name}\n")
    rows = [("official scheme", "", n) for n in (25, 50, 125, 250)]
    rows += [
        (f"sample_sde {method}{'' if grid == 'uniform' else ', ' + grid}", (method, grid), n)
        for method, grid in (
            ("euler", "uniform"),
            ("exponential1", "uniform"),
            ("exponential2", "uniform"),
            ("sde_dpm_solver2", "edm"),
        )
        for n in (12, 25, 50, 100, 250)
    ]
    print("| scheme | calls | relative error |\n|---|---|---|")
    for name, settings, n in rows:
        generator = torch.Generator().manual_seed(4)
        noise = torch.randn(2000, dims, generator=generator).double()
        network.calls = 0
        if not settings:
            increments = torch.randn(n - 1, 2000, dims, generator=generator).double()
            samples = official_sde(network, noise, increments, n)
        else:
            method, grid = settings
            samples = sample_sde(Field(network, path), noise, w="sigma", num_steps=n, seed=0, method=method, grid=grid)
        deviation = torch.cdist(samples, modes).amin(1).square().mean().sqrt() / (case.stds[0] * math.sqrt(dims))
        print(f"| {name} | {network.calls} | {deviation.item() - 1:+.3f} |", flush=True)


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
    parser.add_argument("part", choices=["calls", "sde", "overhead"])
    {"calls": calls, "sde": sde, "overhead": overhead}[parser.parse_args().part]()


if __name__ == "__main__":
    main()
