"""The page of a study: python examples/study_page.py runs/study docs/study.md.

The folder has ``study.json``, and may have ``questions.json`` of ``examples/questions.py``, and ``notes.md``: what
people conclude, which is put into the page as it is. Intervals are of the mean over the seeds, 95 %, by Student's
distribution. Two networks, or two samplers, are compared by the ratio of their Frechet distances, of which the
logarithm is averaged over the seeds: the same seed means the same order of the data, and the same noise in training and
sampling.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.special import stdtrit

from examples.questions import guidance_figure as guidance_of_mixture
from examples.questions import section, table, w_figure
from training.figures import COLORS, FAINT, INK, style_axes
from training.files import write_png, write_text

LEVEL: Final = 0.95
IMAGES: Final = "images"
PATHS: Final = {"vp": "VP", "linear": "Linear", "gvp": "GVP"}
OBJECTIVES: Final = ("noise", "score", "weighted score", "velocity", "data")

Found = Mapping[str, Any]
Row = tuple[str, str]
"""Names of a network and of a sampling."""


class Claim(NamedTuple):
    """A comparison of the paper: the lower Frechet distance first."""

    what: str
    better: Row
    worse: Row
    paper_better: float
    paper_worse: float


DDPM: Final = ("ddpm", "ancestral")
CLAIMS: Final = (
    Claim("score in continuous time rather than DDPM", ("vp score", "ODE"), DDPM, 43.6, 44.2),
    Claim("VP: weighted score rather than score", ("vp weighted score", "ODE"), ("vp score", "ODE"), 39.1, 43.6),
    Claim("VP: velocity rather than score", ("vp velocity", "ODE"), ("vp score", "ODE"), 39.8, 43.6),
    Claim("VP: weighted score rather than velocity", ("vp weighted score", "ODE"), ("vp velocity", "ODE"), 39.1, 39.8),
    Claim("velocity: Linear rather than VP", ("linear velocity", "ODE"), ("vp velocity", "ODE"), 34.8, 39.8),
    Claim("velocity: GVP rather than VP", ("gvp velocity", "ODE"), ("vp velocity", "ODE"), 34.6, 39.8),
    Claim("velocity: GVP rather than Linear", ("gvp velocity", "ODE"), ("linear velocity", "ODE"), 34.6, 34.8),
    Claim("VP: SDE rather than ODE", ("vp velocity", "SDE"), ("vp velocity", "ODE"), 37.8, 39.8),
    Claim("Linear: SDE rather than ODE", ("linear velocity", "SDE"), ("linear velocity", "ODE"), 33.6, 34.8),
    Claim("GVP: SDE rather than ODE", ("gvp velocity", "SDE"), ("gvp velocity", "ODE"), 32.9, 34.6),
    Claim("SiT: size B rather than S", ("linear velocity", "ODE"), ("linear velocity, small", "ODE"), 34.84, 58.97),
    Claim("DiT: size B rather than S", DDPM, ("ddpm, small", "ancestral"), 43.5, 68.4),
    Claim("size S: SiT rather than DiT", ("linear velocity, small", "SDE"), ("ddpm, small", "ancestral"), 57.64, 68.4),
    Claim("size B: SiT rather than DiT", ("linear velocity", "SDE"), DDPM, 33.02, 43.5),
    Claim("guided by 1.5", ("linear velocity", "ODE, guided 1.5"), ("linear velocity", "ODE"), 2.15, 9.35),
)  # fmt: skip
"""The distances of guidance are of XL after 7 M steps; all others of B, or of the size named, after 400 K."""

STEPS: Final = (
    ("DDPM: noise at 1,000 times, VP, ancestral", DDPM),
    ("in continuous time, by the SDE", ("vp noise", "SDE")),
    ("which predicts the velocity", ("vp velocity", "SDE")),
    ("on the path Linear: SiT", ("linear velocity", "SDE")),
    ("by the ODE", ("linear velocity", "ODE")),
    ("guided by 1.25", ("linear velocity", "ODE, guided 1.25")),
)


def write_page(folder: Path, page: Path) -> None:
    """Write the page and its figures.

    Args:
        folder: Of the study.
        page: Markdown; the figures are in images/ beside it.
    """
    found, questions, _ = read(folder)
    images = page.parent / IMAGES
    images.mkdir(parents=True, exist_ok=True)
    figures = {
        "networks": networks_figure(found),
        "error": error_figure(found),
        "calls": calls_figure(found),
        "guidance": guidance_figure(found),
    }
    if (results := folder / "results").exists():
        figures["samples"] = samples_figure(results)
    for name, figure in figures.items():
        write_png(images / f"study-{name}.png", figure.savefig, dpi=110)
    if questions is not None:
        write_png(images / "questions-w.png", w_figure(questions["w"]).savefig, dpi=110)
        guidance = guidance_of_mixture(questions["guidance"])
        write_png(images / "questions-guidance.png", guidance.savefig, dpi=110)
    write_text(page, text(folder))


def read(folder: Path) -> tuple[Found, Found | None, str]:
    """The figures of the study, those of the questions, and the notes."""
    questions, notes = folder / "questions.json", folder / "notes.md"
    return (
        json.loads((folder / "study.json").read_text()),
        json.loads(questions.read_text()) if questions.exists() else None,
        notes.read_text() if notes.exists() else "",
    )


def text(folder: Path) -> str:
    """The page in Markdown."""
    found, questions, notes = read(folder)
    more = "" if questions is None else section(questions, IMAGES)
    settings, floor = found["settings"], found["floor"]
    unseen = "" if floor is None else f" That of images which were never trained on is {floor:.2f}."
    page = f"""# The paper's comparisons, repeated

Ma et al. (2024), arXiv:2401.08740, compare networks that differ in one thing at a time: time, path, what the network
predicts, sampler, guidance, size. Here the same is done on {settings["data"]["name"]}, with small networks, each
trained in {_minutes(found)}, and the order of the results is set beside the paper's.

    {found["command"]}

Commit {found["commit"]}, torch {found["torch"]}, {found["date"]}; {found["seconds"] / 60:.0f} minutes of
{settings["jobs"]} processes.

- Networks: {settings["model"]["name"]}, or {settings["small"]}, half as wide, where it says small; trained for
  {settings["training"]["steps"]:,} steps of {settings["data"]["batch_size"]} images, with {settings["seeds"]} seeds.
- Samplers: {settings["calls"]} calls of the network for a sample, whatever the sampler, and one more to the end where a
  conversion has a pole there. They are derived ones, which meet no pole: `adams_pc2` for the ODE, `exponential1` with
  w = sigma for the SDE; and DDPM's `ancestral`.
- Frechet distances: of {settings["num_samples"]:,} samples from the {found["reference"]:,} images of the training, by
  the features of `{settings["extractor"]}`; lower is better.{unseen}
- Figures are means over the seeds, with 95 % intervals.

## Beside the paper

A ratio is of the Frechet distance of the first to that of the second. It agrees where it is below 1 as the paper's is,
and differs where it is above 1, both with all of its interval; else it is within noise. The paper gives no intervals;
where its own two distances are within 2 % of each other, its order is weak too.

{claims_table(found)}

{notes}
## All networks

![Frechet distance of all networks]({IMAGES}/study-networks.png)

{networks_table(found)}

![Samples of the first seed]({IMAGES}/study-samples.png)

## Which w

Frechet distance by the SDE with each w, from the same networks.

{w_table(found)}

## What each step from DDPM to SiT buys

{steps_table(found)}

## Why velocity rather than noise

The squared error of the network's velocity, whatever it predicts, at times that it was trained at, on images that it
never saw where there are such. What no network can know is in all curves of a panel alike.

![Error of the velocity over time]({IMAGES}/study-error.png)

{error_table(found)}

## When the SDE beats the ODE

A network after all steps, and one after a quarter of them, by both samplers with more and more calls.

![Frechet distance over the number of calls]({IMAGES}/study-calls.png)

{calls_table(found)}

## Guidance

![Frechet distance and recall over the scale]({IMAGES}/study-guidance.png)

{guidance_table(found)}

{more}"""
    return page.rstrip() + "\n"


# Tables


def claims_table(found: Found) -> str:
    """The paper's comparisons, row by row."""
    rows = []
    for claim in CLAIMS:
        mean, low, high = ratio(found, claim.better, claim.worse)
        rows.append(
            (
                claim.what,
                f"{claim.paper_better:g} / {claim.paper_worse:g} = {claim.paper_better / claim.paper_worse:.2f}",
                f"{_mean(found, claim.better):.3g} / {_mean(found, claim.worse):.3g} = {mean:.2f}",
                f"{low:.2f} to {high:.2f}",
                f"**{verdict(low, high)}**",
            )
        )
    return table(("comparison", "paper", "here", "interval", ""), rows)


def verdict(low: float, high: float) -> str:
    """Of an interval of a ratio that is below 1 in the paper."""
    if high < 1:
        return "agrees"
    return "differs" if low > 1 else "within noise"


def networks_table(found: Found) -> str:
    """Frechet distances of each, and more of its samples by the ODE."""
    agree = "agreement" in found["networks"]["ddpm"]["ODE"]
    rows = []
    for name, of in found["networks"].items():
        sampled = of["ODE"]
        more = [interval_text(sampled[each], 2) for each in ("precision", "recall", *(["agreement"] if agree else []))]
        ancestral = interval_text(of["ancestral"]["frechet"]) if "ancestral" in of else "-"
        rows.append((_label(name), *(interval_text(of[kind]["frechet"]) for kind in ("ODE", "SDE")), ancestral, *more))
    head = ("network", "ODE", "SDE, w = sigma", "ancestral", "precision", "recall", *(["agreement"] if agree else []))
    return table(head, rows)


def w_table(found: Found) -> str:
    """A line each w."""
    prefix = "SDE, w = "
    names = [each.removeprefix(prefix) for each in found["networks"]["linear velocity"] if each.startswith(prefix)]
    first = {"0, the ODE": "ODE", "`sigma`": "SDE"}
    rows = [(w, *(_frechet(found, f"{path} velocity", kind) for path in PATHS)) for w, kind in first.items()]
    rows += [(f"`{w}`", *(_frechet(found, f"{path} velocity", prefix + w) for path in PATHS)) for w in names]
    return table(("w", *PATHS.values()), rows)


def steps_table(found: Found) -> str:
    """From one row to the next one thing changes."""
    rows, before = [], None
    for what, row in STEPS:
        change = "" if before is None else _interval(*ratio(found, row, before))
        rows.append((what, _frechet(found, *row), change))
        before = row
    return table(("", "Frechet distance", "ratio to the row above"), rows)


def error_table(found: Found) -> str:
    """The mean over the times, and the largest, relative to the network that predicts the velocity."""
    rows = []
    for path, label in PATHS.items():
        errors = {name: np.array(_errors(found, f"{path} {name}")) for name in OBJECTIVES}
        for name, each in errors.items():
            worse = each.mean(0) - errors["velocity"].mean(0)
            at = found["times"][int(worse.argmax())]
            most = "-" if name == "velocity" else f"{worse.max():.3g} at t = {at:g}"
            rows.append((label, name, interval_text(each.mean(1), 3), most))
    return table(("path", "predicts", "mean over the times", "at most above that of velocity"), rows)


def calls_table(found: Found) -> str:
    """A line each number of calls."""
    rows = []
    for calls in sorted(_calls(found)):
        cells = []
        for name in ("linear velocity", "linear velocity, early"):
            ode, sde = ((name, _of_calls(found, kind, calls)) for kind in ("ODE", "SDE"))
            cells += [_frechet(found, *ode), _frechet(found, *sde), _interval(*ratio(found, sde, ode))]
        rows.append((f"{calls}", *cells))
    head = ("calls", "ODE", "SDE", "SDE / ODE", "early: ODE", "early: SDE", "early: SDE / ODE")
    return table(head, rows)


def guidance_table(found: Found) -> str:
    """A line each scale and interval."""
    of = found["networks"]["linear velocity"]
    metrics = [name for name in ("frechet", "precision", "recall", "agreement") if name in of["ODE"]]
    rows = []
    for sampling, values in of.items():
        if sampling == "ODE" or "guided" in sampling:
            what = sampling.removeprefix("ODE, guided ") if "guided" in sampling else "1"
            cells = [interval_text(values[name], 2) for name in metrics]
            rows.append((what, *cells, f"{np.mean(values['calls']):.0f}"))
    head = ("scale", "Frechet distance", *metrics[1:], "evaluations a sample")
    return table(head, rows)


# Figures


def networks_figure(found: Found) -> Figure:
    """Frechet distances of all, by both samplers; a point a seed."""
    names = list(found["networks"])
    figure = Figure(figsize=(9, 0.6 + 0.34 * len(names)), layout="constrained")
    axes = figure.subplots()
    for color, kind, shift in zip(COLORS, ("ODE", "SDE", "ancestral"), (-0.18, 0.18, 0.0), strict=False):
        for place, name in enumerate(names):
            if kind in found["networks"][name]:
                values = found["networks"][name][kind]["frechet"]
                axes.plot(values, [place + shift] * len(values), "o", color=color, alpha=0.45, markersize=4)
                axes.plot(np.mean(values), place + shift, "|", color=color, markersize=11, markeredgewidth=2)
        axes.plot([], [], "o", color=color, label=kind)
    if found["floor"] is not None:
        axes.axvline(found["floor"], color=FAINT, linestyle="--", linewidth=1, label="images never trained on")
    style_axes(axes, "A point a seed; a line at the mean", "Frechet distance")
    axes.set_xscale("log")
    axes.set_yticks(range(len(names)), [_label(name) for name in names])
    axes.invert_yaxis()
    figure.legend(*axes.get_legend_handles_labels(), frameon=False, fontsize=9, loc="outside right upper")
    return figure


def error_figure(found: Found) -> Figure:
    """The error of the velocity over time, a panel a path."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    for axes, (path, label) in zip(figure.subplots(1, len(PATHS), sharey=True), PATHS.items(), strict=True):
        for color, name in zip(COLORS, OBJECTIVES, strict=False):
            axes.plot(found["times"], np.mean(_errors(found, f"{path} {name}"), axis=0), color=color, label=name)
        style_axes(axes, label, "t (0 is noise, 1 is data)")
        axes.set_yscale("log")
    figure.axes[0].set_ylabel("squared error of the velocity, a dimension", color=INK, fontsize=9)
    figure.axes[-1].legend(frameon=False, fontsize=9, title="predicts")
    return figure


def calls_figure(found: Found) -> Figure:
    """Frechet distance over the number of calls."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    calls = sorted(_calls(found))
    panels = {"linear velocity": "after all steps", "linear velocity, early": "after a quarter of the steps"}
    for axes, (name, label) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        for color, kind in zip(COLORS, ("ODE", "SDE"), strict=False):
            values = np.array([found["networks"][name][_of_calls(found, kind, each)]["frechet"] for each in calls])
            axes.plot(calls, values, "o", color=color, alpha=0.35, markersize=4)
            axes.plot(calls, values.mean(1), color=color, label=kind)
        style_axes(axes, f"Linear, velocity, {label}", "calls of the network")
        axes.set_xscale("log")
        axes.set_xticks(calls, [str(each) for each in calls])
        axes.minorticks_off()
        axes.legend(frameon=False, fontsize=9)
    figure.axes[0].set_ylabel("Frechet distance", color=INK)
    return figure


def guidance_figure(found: Found) -> Figure:
    """What guidance buys, and what it costs."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    of = found["networks"]["linear velocity"]
    curves: dict[str, list[tuple[float, Any]]] = {"at all times": [(1.0, of["ODE"])]}
    for sampling, values in of.items():
        if "guided" in sampling:
            scale, _, where = sampling.removeprefix("ODE, guided ").partition(" ")
            curves.setdefault(where or "at all times", [(1.0, of["ODE"])]).append((float(scale), values))
    metrics = {"frechet": "Frechet distance", "recall": "recall"}
    for axes, (metric, label) in zip(figure.subplots(1, 2), metrics.items(), strict=True):
        for color, (where, points) in zip(COLORS, curves.items(), strict=False):
            scales = [scale for scale, _ in points]
            values_at = np.array([values[metric] for _, values in points])
            axes.plot(scales, values_at, "o", color=color, alpha=0.35, markersize=4)
            axes.plot(scales, values_at.mean(1), color=color, label=where)
        style_axes(axes, label, "scale of the guidance")
        axes.legend(frameon=False, fontsize=9)
    return figure


def samples_figure(results: Path) -> Figure:
    """The first samples of the first seed, a row a network."""
    names = [name for name in _ordered(results) if (results / name / "0" / "ODE.npy").exists()]
    figure = Figure(figsize=(9, 0.6 + 0.36 * len(names)), layout="constrained")
    for axes, kind in zip(figure.subplots(1, 2), ("ODE", "SDE"), strict=True):
        rows = [np.load(results / name / "0" / f"{kind}.npy") for name in names]
        axes.imshow(np.concatenate([_side_by_side(row) for row in rows]), cmap="gray_r", interpolation="nearest")
        height = rows[0].shape[1] + 1
        axes.set_xticks([])
        axes.set_yticks([height * (k + 0.5) for k in range(len(names))], [_label(name) for name in names], fontsize=8)
        axes.set_title(kind, fontsize=11, color=INK)
        axes.tick_params(length=0, colors=INK)
        for spine in axes.spines.values():
            spine.set_visible(False)
    figure.axes[1].set_yticks([])
    return figure


def _side_by_side(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    padded = np.pad(images, ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=128)  # (N, H + 1, W + 1, C)
    row = np.concatenate(list(padded), axis=1)
    return row[..., 0] if row.shape[-1] == 1 else row


def _ordered(results: Path) -> Iterator[str]:
    found = sorted(folder.name for folder in results.iterdir())
    first = ["ddpm", *(f"{path} {name}" for path in PATHS for name in OBJECTIVES)]
    yield from (name for name in first if name in found)
    yield from (name for name in found if name not in first)


# Numbers


def ratio(found: Found, first: Row, second: Row) -> tuple[float, float, float]:
    """A Frechet distance over another, of the same seeds: geometric mean and ends of its interval."""
    a, b = (np.array(found["networks"][network][sampling]["frechet"]) for network, sampling in (first, second))
    mean, half = interval(np.log(a / b))
    return float(np.exp(mean)), float(np.exp(mean - half)), float(np.exp(mean + half))


def interval(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, float]:
    """Mean, and half of its interval."""
    numbers = np.asarray(values, float)
    error = numbers.std(ddof=1) / len(numbers) ** 0.5
    return float(numbers.mean()), float(stdtrit(len(numbers) - 1, (1 + LEVEL) / 2) * error)


def interval_text(values: Sequence[float] | NDArray[np.float64], digits: int = 2) -> str:
    """Mean ± half of its interval."""
    mean, half = interval(values)
    return f"{mean:.{digits}f} ± {half:.{digits}f}"


def _interval(mean: float, low: float, high: float) -> str:
    return f"{mean:.2f} ({low:.2f} to {high:.2f})"


def _mean(found: Found, row: Row) -> float:
    return float(np.mean(found["networks"][row[0]][row[1]]["frechet"]))


def _frechet(found: Found, network: str, sampling: str) -> str:
    return interval_text(found["networks"][network][sampling]["frechet"])


def _errors(found: Found, network: str) -> list[list[float]]:
    errors: list[list[float]] = found["networks"][network]["error"]["velocity_error"]
    return errors


def _calls(found: Found) -> set[int]:
    parts = [name.split(", ")[1].split(" ") for name in found["networks"]["linear velocity"] if name.endswith("calls")]
    return {int(number) for number, _ in parts}


def _of_calls(found: Found, kind: str, calls: int) -> str:
    return f"{kind}, {calls} calls"


def _minutes(found: Found) -> str:
    seconds = np.mean([np.mean(of["error"]["seconds"]) for of in found["networks"].values()])
    return f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.0f} minutes"


def _label(network: str) -> str:
    for path, label in {**PATHS, "ddpm": "DDPM"}.items():
        if network.startswith(path):
            return label + network.removeprefix(path)
    return network


if __name__ == "__main__":
    write_page(Path(sys.argv[1]), Path(sys.argv[2]))
