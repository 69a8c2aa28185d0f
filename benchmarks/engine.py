"""What the engine costs and how accurate it is: ``python benchmarks/engine.py cost``, ``accuracy``, ``traffic`` or
``random``.

cost: process time, which other programs on the machine disturb little. Each path is built in an interpreter of its own;
kernels and the same formulas written by hand take turns, and the medians stand side by side.

traffic: the bytes that ``Path.convert`` moves under torch.compile.

accuracy: every coefficient and conversion of the library, float32 in and out, against 60-digit mpmath.

random: paths, and what is nearly one, drawn by a grammar, each in a process of its own, against an oracle that shares
no code with the engine (tests/support/random_paths.py and path_oracle.py). Prints what is wrong, and exits with 1 if
anything is. The cases are those of the seeds N, N + 1, ...: ``random --paths 1 --seed K`` repeats the case K.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import mpmath
import numpy as np
import torch

import interpolants as ip
from interpolants.library import LIBRARY
from interpolants.limits import evaluate

BATCH = 256
PI = math.pi
A = PI / (2 * 1.008)
"""Of the cosine path: alpha = sin(A t) / sin(A)."""
LOW, BOTTOM = math.exp(-3.0), 1 - math.exp(-6.0)
"""Of the sigmoid path."""
RATE = math.log(5000.0)
SHRINK = 1 - (0.002 / 80.0) ** (1 / 7)
"""Of edm."""


def vp_exponent(t):
    s = 1 - t
    return -(s * s * 9.95 + s * 0.1)  # log alpha^2


def vp_rate(t):
    return 0.05 + 9.95 * (1 - t)  # alpha' / alpha


def cosine_sigma(t):
    return torch.sqrt(torch.sin(A * (1 - t)) * torch.sin(A * (1 + t))) / math.sin(A)


def sigmoid_alpha(t):
    y = torch.exp(-6 * (1 - t))
    return torch.sqrt((1 + LOW) * (y - math.exp(-6.0)) / ((1 - math.exp(-6.0)) * (y + LOW)))


def sigmoid_sigma(t):
    y = torch.exp(-6 * (1 - t))
    return torch.sqrt((math.exp(-6.0) + LOW) * -torch.expm1(-6 * (1 - t)) / (BOTTOM * (y + LOW)))


def sigmoid_score_b(t):
    y = torch.exp(6 * t)
    return (y + math.exp(3.0)) * -torch.expm1(-6 * t) / (3 * (1 + math.exp(3.0)))


# Each formula as one writes it for torch, with what numerical analysis suggests: 1 - t next to the data, expm1.
HAND_WRITTEN = {
    "linear": {
        "alpha": lambda t: 1.0 * t,
        "sigma": lambda t: 1 - t,
        "velocity -> data b": lambda t: 1 - t,
        "velocity -> noise b": lambda t: -t,
        "velocity -> score a": lambda t: -1 / (1 - t),
        "velocity -> score b": lambda t: t / (1 - t),
    },
    "gvp": {
        "alpha": lambda t: torch.sin(PI / 2 * t),
        "sigma": lambda t: torch.sin(PI / 2 * (1 - t)),
        "velocity -> data a": lambda t: torch.sin(PI / 2 * t),
        "velocity -> data b": lambda t: 2 / PI * torch.sin(PI / 2 * (1 - t)),
        "velocity -> noise a": lambda t: torch.sin(PI / 2 * (1 - t)),
        "velocity -> noise b": lambda t: -2 / PI * torch.sin(PI / 2 * t),
        "velocity -> score b": lambda t: 2 / PI * torch.sin(PI / 2 * t) / torch.sin(PI / 2 * (1 - t)),
    },
    "linear_vp": {
        "alpha": lambda t: 1.0 * t,
        "sigma": lambda t: torch.sqrt((1 - t) * (1 + t)),
        "velocity -> data a": lambda t: 1.0 * t,
        "velocity -> data b": lambda t: (1 - t) * (1 + t),
        "velocity -> noise a": lambda t: torch.sqrt((1 - t) * (1 + t)),
        "velocity -> noise b": lambda t: -t * torch.sqrt((1 - t) * (1 + t)),
        "velocity -> score b": lambda t: 1.0 * t,
    },
    "vp": {
        "alpha": lambda t: torch.exp(vp_exponent(t) / 2),
        "sigma": lambda t: torch.sqrt(-torch.expm1(vp_exponent(t))),
        "velocity -> data a": lambda t: torch.exp(vp_exponent(t) / 2),
        "velocity -> data b": lambda t: -torch.expm1(vp_exponent(t)) / (torch.exp(vp_exponent(t) / 2) * vp_rate(t)),
        "velocity -> noise a": lambda t: torch.sqrt(-torch.expm1(vp_exponent(t))),
        "velocity -> noise b": lambda t: -torch.sqrt(-torch.expm1(vp_exponent(t))) / vp_rate(t),
        "velocity -> score b": lambda t: 1 / vp_rate(t),
    },
    "sub_vp": {
        "alpha": lambda t: torch.exp(vp_exponent(t) / 2),
        "sigma": lambda t: -torch.expm1(vp_exponent(t)),
        "velocity -> data a": lambda t: 2 * torch.exp(vp_exponent(t) / 2) / (1 + torch.exp(vp_exponent(t))),
        "velocity -> data b": lambda t: (
            -torch.expm1(vp_exponent(t))
            / (torch.exp(vp_exponent(t) / 2) * vp_rate(t) * (1 + torch.exp(vp_exponent(t))))
        ),
        "velocity -> noise a": lambda t: 1 / (1 + torch.exp(vp_exponent(t))),
        "velocity -> noise b": lambda t: -1 / (vp_rate(t) * (1 + torch.exp(vp_exponent(t)))),
        "velocity -> score a": lambda t: 1 / torch.expm1(2 * vp_exponent(t)),
        "velocity -> score b": lambda t: -1 / (vp_rate(t) * torch.expm1(2 * vp_exponent(t))),
    },
    "cosine": {
        "alpha": lambda t: torch.sin(A * t) / math.sin(A),
        "sigma": cosine_sigma,
        "velocity -> data a": lambda t: torch.sin(A * t) / math.sin(A),
        "velocity -> data b": lambda t: (
            torch.sin(A * (1 - t)) * torch.sin(A * (1 + t)) / (A * math.sin(A) * torch.cos(A * t))
        ),
        "velocity -> noise a": cosine_sigma,
        "velocity -> noise b": lambda t: -cosine_sigma(t) * torch.tan(A * t) / A,
        "velocity -> score b": lambda t: torch.tan(A * t) / A,
    },
    "sigmoid": {
        "alpha": sigmoid_alpha,
        "sigma": sigmoid_sigma,
        "velocity -> data a": sigmoid_alpha,
        "velocity -> data b": lambda t: sigmoid_score_b(t) * sigmoid_sigma(t) ** 2 / sigmoid_alpha(t),
        "velocity -> noise a": sigmoid_sigma,
        "velocity -> noise b": lambda t: -sigmoid_score_b(t) * sigmoid_sigma(t),
        "velocity -> score b": sigmoid_score_b,
    },
    "ve": {
        "sigma": lambda t: 50 * torch.exp(-RATE * t),
        "velocity -> noise b": lambda t: torch.exp(RATE * t) / (-50 * RATE),
        "velocity -> score b": lambda t: torch.exp(2 * RATE * t) / (2500 * RATE),
    },
    "edm": {
        "sigma": lambda t: 80 * (1 - SHRINK * t) ** 7,
        "velocity -> data b": lambda t: (1 - SHRINK * t) / (7 * SHRINK),
        "velocity -> noise b": lambda t: -1 / (560 * SHRINK * (1 - SHRINK * t) ** 6),
        "velocity -> score b": lambda t: 1 / (7 * 80**2 * SHRINK * (1 - SHRINK * t) ** 13),
    },
}


def coefficients(path: ip.Path, sources: tuple[str, ...] = ("velocity",)) -> dict[str, ip.Coefficient]:
    """alpha, sigma and the conversions that depend on time."""
    found = {"alpha": path.alpha, "sigma": path.sigma}
    for source in sources:
        for target in ip.QUANTITIES:
            if target != source:
                pair = path.conversion(source, target)
                found |= {f"{source} -> {target} {name}": c for name, c in zip("ab", pair, strict=True)}
    return {name: c for name, c in found.items() if c.expr.has(ip.t)}


# Cost

IMPORT = """
import time
import sympy, torch
start = time.process_time()
import interpolants
print(time.process_time() - start)
"""
BUILD = """
import sys, time
import interpolants as ip
from interpolants.library import LIBRARY
ip.Path("t**3", "1 - t**3")
start = time.process_time()
path = LIBRARY[sys.argv[1]]()
for target in sys.argv[2:]:
    path.conversion("velocity", target)
print(time.process_time() - start)
"""
USER = """
import time
import interpolants as ip
start = time.process_time()
path = ip.Path("sin(pi*t/2)**(3/2)", "cos(pi*t/2)**2")
path.ode("velocity")
path.sde("velocity", w="sigma")
print(time.process_time() - start)
"""


def fresh(code: str, *arguments: str, repeats: int = 3) -> float:
    """The median of what the code prints in new interpreters."""
    runs = [
        subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True).stdout
        for _ in range(repeats)
    ]
    return statistics.median(map(float, runs))


def interleaved(first, second, times: torch.Tensor, rounds: int = 41, calls: int = 50) -> tuple[float, float]:
    """Median process time of a call of each, in microseconds, the two taking turns."""
    results: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for function, result in zip((first, second), results, strict=True):
            start = time.process_time()
            for _ in range(calls):
                function(times)
            result.append((time.process_time() - start) / calls * 1e6)
    return statistics.median(results[0]), statistics.median(results[1])


def cost() -> None:
    torch.set_num_threads(1)
    print(f"import interpolants, after torch and sympy: {fresh(IMPORT):.3f} s")
    print(f"a path of one's own, its ODE and an SDE:    {fresh(USER):.3f} s")
    for name in LIBRARY:
        ready, converting = fresh(BUILD, name), fresh(BUILD, name, "data", "noise", "score")
        print(f"{name:10} ready: {ready:.3f} s; with its conversions from the velocity {converting:.3f} s")
    times = torch.rand(BATCH, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.98 + 0.01
    print(f"\n{'batch ' + str(BATCH) + ', float64':32}   kernel  by hand  ratio     call")
    for name, make in LIBRARY.items():
        for label, coefficient in coefficients(make()).items():
            by_hand = HAND_WRITTEN[name][label]
            torch.testing.assert_close(coefficient.kernel(times), by_hand(times), rtol=1e-9, atol=1e-12)
            kernel, hand = interleaved(coefficient.kernel, by_hand, times)
            call, _ = interleaved(coefficient, by_hand, times, rounds=11)
            print(f"{name:10} {label:21} {kernel:6.1f}us {hand:6.1f}us {kernel / hand:5.2f}x {call:6.1f}us", flush=True)


# Accuracy


def times_in_float32() -> np.ndarray:
    """4,000 times: both ends, 10^-k and 1 - 10^-k, and random ones, evenly and in powers of the distance to an end."""
    rng = np.random.default_rng(0)
    powers = 10.0 ** -np.arange(1, 8)
    near = 10.0 ** rng.uniform(-7, 0, (2, 1000))
    times = np.concatenate([[0.0, 1.0], powers, 1 - powers, near[0], 1 - near[1], rng.uniform(0, 1, 1984)])
    return times.astype(np.float32)


def worst_of_path(name: str) -> list[tuple[str, float, float]]:
    """For each coefficient of a path, the largest error in float32 ulps and the time of it."""
    torch.set_num_threads(1)
    times = times_in_float32()
    rows = []
    for label, coefficient in coefficients(LIBRARY[name](), ip.QUANTITIES).items():
        got = coefficient(torch.from_numpy(times)).numpy()
        worst, at = 0.0, math.nan
        for time_, value in zip(times.tolist(), got, strict=True):
            error = ulps(coefficient, time_, value)
            if not error <= worst:
                worst, at = error, time_
        rows.append((f"{name:10} {label}", worst, at))
    return rows


def ulps(coefficient: ip.Coefficient, time_: float, value: np.float32) -> float:
    if time_ in (0.0, 1.0):
        limit = coefficient.limit(int(time_))
        if limit.is_infinite:
            return 0.0 if value == float(limit) else math.inf
        exact = mpmath.mpmathify(limit.evalf(60))
    else:
        exact = evaluate(coefficient.expr, mpmath.mpf(time_), digits=60)
    if not np.isfinite(value):
        return 0.0 if abs(exact) > np.finfo(np.float32).max else math.inf
    return float(abs(mpmath.mpf(float(value)) - exact) / float(np.spacing(np.abs(np.float32(exact)))))


def traffic() -> None:
    """The bytes that the compiled ``convert`` reads and writes, as torch counts them, and those of its tensors."""
    import torch._inductor.config
    from torch._inductor import metrics

    torch._inductor.config.force_disable_caches = True
    torch._logging.set_logs(inductor_metrics=True)  # which makes it count, and print
    x, prediction = torch.randn(2, BATCH, 4, 32, 32)
    times = torch.rand(BATCH)
    tensors = 3 * x.numel() * x.element_size() + times.numel() * times.element_size()
    for name, make in LIBRARY.items():
        path = make()
        path.conversion("velocity", "data")

        def convert(prediction, x, times, path=path):
            return path.convert(prediction, x, times, source="velocity", target="data")

        torch._dynamo.reset()
        metrics.reset()
        torch.compile(convert, fullgraph=True)(prediction, x, times)
        print(f"{name:10} {metrics.num_bytes_accessed:,} bytes, prediction, x, t and result have {tensors:,}")


def accuracy() -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        rows = [row for path in pool.imap(worst_of_path, LIBRARY) for row in path]
    for label, worst, at in rows:
        print(f"{label:34} {worst:5.2f} ulp at t = {at:.8g}")
    for name, build in LIBRARY.items():
        path = build()
        measured = [path.wronskian, path.log_snr, *coefficients(path, ip.QUANTITIES).values()]
        print(f"{name:34} {max(c.error() for c in measured):5.2f} ulp in float64, 2,000 times or more")
    worst = max(error for _, error, _ in rows)
    print(f"{len(rows)} coefficients at {len(times_in_float32())} times: at most {worst:.2f} ulp")
    sys.exit(worst > 2)


# Random paths


def random_paths(paths: int, seed: int, seconds: float, jobs: int) -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))
    from engine_trial import STAGES, WRONG
    from random_paths import draw
    from trial_processes import outcomes

    lines, cases, decisions, notes = Counter(), Counter(), Counter(), 0
    times, worst, errors = defaultdict(list), (0.0, "nothing"), []
    with contextlib.suppress(KeyboardInterrupt):  # the table then tells of those that ended
        for outcome in outcomes(map(draw, range(seed, seed + paths)), seconds=seconds, jobs=jobs, thorough=True):
            case = outcome.case
            kinds = [finding.kind for finding in outcome.findings]
            for kind in dict.fromkeys(kinds):
                first, more = outcome.findings[kinds.index(kind)], kinds.count(kind) - 1
                print(f"seed {case.seed}: {first}{f', and {more} more' if more else ''}; {case}", flush=True)
            lines.update(kinds)
            cases.update(set(kinds))
            decisions[outcome.verdict.holds, outcome.engine] += 1
            notes += len(outcome.notes)
            for stage, duration in outcome.seconds.items():
                times[stage].append(duration)
            errors += outcome.errors
            worst = max(worst, (outcome.worst[0], f"seed {case.seed}: {outcome.worst[1]}"))
    print(f"\n{'wrong':20} lines  paths")
    for kind in WRONG:
        print(f"{kind:20} {lines[kind]:5}  {cases[kind]:5}")
    decided = ("accepted", "refused", "undecided", "unfinished")
    print(f"\n{'':20}" + "".join(f"{name:>12}" for name in decided))
    for holds, right in ((True, "a path"), (False, "no path"), (None, "unknown")):
        print(f"{right:20}" + "".join(f"{decisions[holds, name]:12}" for name in decided))
    print(f"\n{'seconds of a stage':20}       ended      median         95%")
    for stage in STAGES:
        ended = times[stage] or [math.nan]
        print(f"{stage:20}{len(times[stage]):12}{statistics.median(ended):12.2f}{np.quantile(ended, 0.95):12.2f}")
    print(f"\nrefusals that the contract allows: {notes}; largest error that is right: {worst[0]:.2f} ulp, {worst[1]}")
    within = ", ".join(f"{100 * np.mean(np.array(errors) <= most):.1f} % within {most}" for most in (2, 4, 8))
    print(f"errors of {len(errors)} coefficients in ulp of float64, each its largest: {within}")
    sys.exit(bool(lines))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", choices=["cost", "accuracy", "traffic", "random"])
    of_random = parser.add_argument_group("random")
    of_random.add_argument("--paths", type=int, default=200, help="number of paths")
    of_random.add_argument("--seed", type=int, default=0, help="of the first path")
    of_random.add_argument("--seconds", type=float, default=10.0, help="processor time for each of five stages")
    of_random.add_argument("--jobs", type=int, default=2, help="number of processes")
    arguments = parser.parse_args()
    if arguments.figures == "random":
        random_paths(arguments.paths, arguments.seed, arguments.seconds, arguments.jobs)
    else:
        {"cost": cost, "accuracy": accuracy, "traffic": traffic}[arguments.figures]()
