"""Figures of a path, of a run and of its samples: each is a matplotlib Figure, made without global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import sympy as sp
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from torch import Tensor

from interpolants import Path
from interpolants.diffusion import DiffusionLike

INK: Final = "#1f2933"
FAINT: Final = "#9aa5b1"
COLORS: Final = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2")
STYLES: Final = ("-", "-", "--", "-", "-.", "-")  # so that curves that coincide are seen
GAP: Final = 1  # pixels between two images


def sample_grid(
    samples: Tensor,
    labels: Tensor,
    title: str,
    *,
    real: tuple[Tensor, Tensor, str] | None = None,
    rows: int = 8,
) -> Figure:
    """Samples, beside real images if there are some, one column a class.

    Args:
        samples: Images in [-1, 1], shape (N, C, H, W) with C 1 or 3; the first ``rows`` of each class are shown.
        labels: Their classes, shape (N,).
        title: What the samples are, for instance the sampler.
        real: Real images, their classes, and what they are.
        rows: Most images a class.
    """
    classes = sorted(set(labels.tolist()))
    panels = [(samples, labels, title), *([] if real is None else [real])]
    rows = min(rows, max(int((labels == label).sum()) for label in classes))
    title_width = 0.09 * max(len(name) for *_, name in panels)  # inches
    width = 0.1 + len(panels) * max(0.4 + 0.41 * len(classes), title_width)
    figure = Figure(figsize=(width, 0.8 + 0.41 * rows), layout=ConstrainedLayoutEngine(compress=True, wspace=0.05))
    for axes, (images, of, name) in zip(np.ravel(figure.subplots(1, len(panels))), panels, strict=True):
        grid = torch.full((rows, len(classes), *images.shape[1:]), torch.nan)
        for column, label in enumerate(classes):
            chosen = images[of == label][:rows]
            grid[: len(chosen), column] = chosen
        _show(axes, grid)
        _label_tiles(axes.set_xticks, [str(label) for label in classes], images.shape[-1])
        axes.set_title(name, fontsize=11, color=INK, pad=10)
    return figure


def trajectory_figure(trajectories: Mapping[str, Tensor], times: Sequence[float], labels: Sequence[object]) -> Figure:
    """The same noise on its way from t = 0 to t = 1: one row a sample, one column a time, one panel a sampler.

    Args:
        trajectories: States by the name of the sampler, each of shape (times, samples, C, H, W).
        times: Of the columns.
        labels: Of the rows.
    """
    panels = len(trajectories)
    figure = Figure(
        figsize=(0.5 + panels * (0.2 + 0.5 * len(times)), 0.9 + 0.47 * len(labels)),
        layout=ConstrainedLayoutEngine(compress=True, wspace=0.03),
    )
    for axes, (name, states) in zip(np.ravel(figure.subplots(1, panels)), trajectories.items(), strict=True):
        _show(axes, states.transpose(0, 1))
        _label_tiles(axes.set_xticks, [f"{time:.3g}" for time in times], states.shape[-1], fontsize=8)
        _label_tiles(axes.set_yticks, [str(label) for label in labels], states.shape[-2])
        axes.set_title(name, fontsize=11, color=INK, pad=10)
        axes.set_xlabel("t, from noise to data", color=INK)
        axes.xaxis.set_label_position("bottom")
    return figure


def reconstruction_figure(panels: Mapping[str, tuple[Tensor, Tensor]], labels: Sequence[object]) -> Figure:
    """Images above what became of them, above the difference, where grey is none: one column an image.

    Args:
        panels: Originals and reconstructions by the title of their panel, in [-1, 1], each of shape (N, C, H, W).
        labels: Of the columns.
    """
    figure = Figure(
        figsize=(1.0 + 1.6 * len(labels), len(panels) * (0.6 + 4.8)),
        layout=ConstrainedLayoutEngine(compress=True, hspace=0.05),
    )
    for axes, (name, (originals, decoded)) in zip(
        np.ravel(figure.subplots(len(panels), 1)), panels.items(), strict=True
    ):
        _show(axes, torch.stack([originals, decoded, decoded - originals]))
        _label_tiles(axes.set_xticks, [str(label) for label in labels], decoded.shape[-1])
        _label_tiles(axes.set_yticks, ["original", "decoded", "difference"], decoded.shape[-2])
        axes.set_title(name, fontsize=11, color=INK, pad=10)
    return figure


def path_figure(path: Path, ws: Mapping[str, DiffusionLike]) -> Figure:
    """alpha and sigma, the log signal-to-noise ratio, and choices of the SDE's squared noise amplitude w.

    Args:
        path: Data at t = 1.
        ws: Choices of w by their label.
    """
    times = np.linspace(0.0, 1.0, 501)
    inside = times[1:-1]  # The log-SNR is infinite at the ends, and so are some w.
    figure = Figure(figsize=(12, 3.4), layout=ConstrainedLayoutEngine(wspace=0.03))
    weights, snr, noise = figure.subplots(1, 3)
    for color, name, coefficient in zip(COLORS, ("alpha", "sigma"), (path.alpha, path.sigma), strict=False):
        formula = sp.latex(coefficient.expr)
        label = rf"$\{name} = {formula}$" if len(formula) < 30 else rf"$\{name}$"
        weights.plot(times, coefficient(times), color=color, label=label)
    snr.plot(inside, path.log_snr(inside), color=INK)
    snr.axhline(0.0, color=FAINT, linewidth=0.8, zorder=0)
    curves = {name: path.sde("velocity", w=w).w(inside) for name, w in ws.items()}
    top = 1.3 * float(np.median([curve.max() for curve in curves.values()]))  # What is unbounded leaves the picture.
    for color, style, (name, curve) in zip(COLORS, STYLES, curves.items(), strict=False):
        label = f"{name} (above)" if curve.min() > top else name
        noise.plot(inside, curve, color=color, linestyle=style, label=label)
    noise.set_ylim(-0.02 * top, top)
    weights.set_ylim(-0.03, 1.25 * max(float(path.alpha(times).max()), float(path.sigma(times).max())))
    for axes, title in (
        (weights, r"$x_t = \alpha(t)\,\mathrm{data} + \sigma(t)\,\mathrm{noise}$"),
        (snr, r"log-SNR, $\log\,\alpha^2 / \sigma^2$"),
        (noise, r"squared noise amplitude $w(t)$ of the SDE"),
    ):
        style_axes(axes, title, "t (0 is noise, 1 is data)")
        axes.set_xlim(0, 1)
    weights.legend(frameon=False, fontsize=9, loc="upper center", ncols=2)
    noise.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.suptitle(f"Path: {path.name}", fontsize=12, color=INK)
    return figure


def loss_figure(log: Sequence[Mapping[str, float]]) -> Figure:
    """The training loss of each logged step, and its running mean.

    Args:
        log: Lines of metrics.jsonl, with "step" and "loss"; those whose loss was not finite, None, are left out.
    """
    log = [line for line in log if line["loss"] is not None]
    steps = np.array([line["step"] for line in log])
    losses = np.array([line["loss"] for line in log])
    half = len(losses) // 40
    window = np.ones(2 * half + 1)
    running = np.convolve(losses, window, "same") / np.convolve(np.ones_like(losses), window, "same")
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(steps, losses, color=COLORS[0], alpha=0.25, linewidth=0.8, label="logged step")
    axes.plot(steps, running, color=COLORS[0], label=f"mean of {len(window)} logged steps")
    style_axes(axes, "Training loss", "step")
    axes.set_ylabel("squared error a dimension", color=INK)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:.2g}")
    axes.yaxis.set_minor_formatter("{x:.2g}")
    axes.legend(frameon=False, fontsize=9)
    return figure


def style_axes(axes: Axes, title: str, xlabel: str) -> None:
    """The look of all axes."""
    axes.set_title(title, fontsize=11, color=INK)
    axes.set_xlabel(xlabel, color=INK)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(color="#e4e7eb", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)


def _show(axes: Axes, grid: Tensor) -> None:
    """Images of shape (rows, columns, C, H, W), values in [-1, 1]; NaN is left blank."""
    rows, columns, channels, height, width = grid.shape
    canvas = torch.full((rows, columns, channels, height + GAP, width + GAP), torch.nan)
    canvas[..., :height, :width] = grid.clamp(-1, 1)
    picture = canvas.permute(0, 3, 1, 4, 2).reshape(rows * (height + GAP), columns * (width + GAP), channels)
    picture = picture[:-GAP, :-GAP]
    if channels == 3:
        axes.imshow(((picture + 1) / 2).nan_to_num(1.0).numpy(), interpolation="nearest")
    else:
        axes.imshow(picture[..., 0].numpy(), cmap="gray_r", vmin=-1, vmax=1, interpolation="nearest")
    axes.tick_params(length=0, labeltop=True, labelbottom=False, colors=INK)
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _label_tiles(set_ticks: Any, labels: Sequence[str], size: int, fontsize: int = 10) -> None:
    set_ticks([(size - 1) / 2 + k * (size + GAP) for k in range(len(labels))], labels, fontsize=fontsize)
