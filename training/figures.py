"""Figures of a path, of a run and of its samples: each is a matplotlib Figure, made without global state."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
DPI: Final = 150
TILE: Final = 64  # smaller images are enlarged to at most this size, by a whole factor
GAP: Final = 1  # between two images, in pixels of the images
COLUMNS: Final = 10  # at most, if each is a class
LONGEST: Final = 24  # characters of a class name
TITLE_SIZE: Final = 11
LABEL_SIZE: Final = 9


@dataclass(frozen=True)
class Tiles:
    """Images in rows and columns.

    Attributes:
        images: In [-1, 1], shape (rows, columns, C, H, W) with C 1 or 3; NaN is left blank.
        title: Above them.
        columns, rows: Labels above the columns, and before the rows; empty is none.
        below: Below them.
    """

    images: Tensor
    title: str = ""
    columns: Sequence[str] = ()
    rows: Sequence[str] = ()
    below: str = ""


def tile_figure(panels: Sequence[Tiles], *, stacked: bool = False) -> Figure:
    """Images at their real size, or enlarged by a whole factor, without interpolation.

    Args:
        panels: What to show, side by side.
        stacked: Whether to put the panels one above the other instead.
    """
    panes = [_Pane(tiles) for tiles in panels]
    for pane in panes:  # align the images of all
        if stacked:
            pane.left = max(each.left for each in panes)
        else:
            pane.top = max(each.top for each in panes)
    widths, heights = [pane.left + pane.size[0] + pane.right for pane in panes], [pane.height for pane in panes]
    width, height = (max(widths), sum(heights)) if stacked else (sum(widths), max(heights))
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    for number, pane in enumerate(panes):
        left, above = (0, sum(heights[:number])) if stacked else (sum(widths[:number]), 0)
        pane.draw(figure, left, above, width, height)
    return figure


class _Pane:
    """Tiles with room for what is written about them, in pixels of the picture."""

    MARGIN = 20

    def __init__(self, tiles: Tiles) -> None:
        self.tiles = tiles
        rows, columns, _, height, width = tiles.images.shape
        self.scale = max(1, TILE // max(height, width))
        self.size = tuple((n * (side + GAP) - GAP) * self.scale for n, side in ((columns, width), (rows, height)))
        names = max((_length(name, LABEL_SIZE) for name in tiles.columns), default=0)
        self.turned = names > width * self.scale
        self.names = (names * math.sqrt(0.5) if self.turned else _points(LABEL_SIZE)) + 12 if names else 0.0
        longest = max(self.size[0], 4 * TILE)
        self.title = textwrap.wrap(tiles.title, max(1, int(longest / _length("x", TITLE_SIZE))))
        needed = max((_length(line, TITLE_SIZE) for line in self.title), default=0)
        before = max((_length(name, LABEL_SIZE) + 12 for name in tiles.rows), default=0)
        right = names * math.sqrt(0.5) if self.turned else 0.0  # beyond the last column
        beyond = (needed - self.size[0]) / 2  # of the title, on either side of the images
        self.left = round(self.MARGIN + max(before, beyond))
        self.right = round(self.MARGIN + max(right, beyond))
        self.top = round(self.MARGIN + self.names + len(self.title) * 1.3 * _points(TITLE_SIZE))
        self.bottom = round(self.MARGIN + (2 * _points(LABEL_SIZE) if tiles.below else 0))

    @property
    def height(self) -> int:
        return self.top + self.size[1] + self.bottom

    def draw(self, figure: Figure, left: int, above: int, width: int, height: int) -> None:
        """Draw it that many pixels from the left and the top of a figure of this width and height."""
        x, y = left + self.left, height - above - self.top - self.size[1]
        axes = figure.add_axes((x / width, y / height, self.size[0] / width, self.size[1] / height))
        _show(axes, self.tiles.images)
        turned = {"rotation": 45, "ha": "left", "rotation_mode": "anchor"} if self.turned else {}
        _label_tiles(axes.set_xticks, self.tiles.columns, self.tiles.images.shape[-1], **turned)
        _label_tiles(axes.set_yticks, self.tiles.rows, self.tiles.images.shape[-2])
        pad = 4 + self.names * 72 / DPI
        how: dict[str, Any] = {"pad": pad, "y": 1.0, "linespacing": 1.2, "parse_math": False}
        axes.set_title("\n".join(self.title), fontsize=TITLE_SIZE, color=INK, **how)
        if self.tiles.below:
            axes.set_xlabel(self.tiles.below, color=INK, fontsize=LABEL_SIZE)
            axes.xaxis.set_label_position("bottom")


def _points(size: float) -> float:
    return size * DPI / 72


def _length(text: str, size: float) -> float:
    """An upper estimate of the width of a text, in pixels."""
    return 0.62 * _points(size) * len(text)


def by_class(
    images: Tensor, labels: Tensor, classes: Sequence[int], names: Sequence[str] = (), title: str = ""
) -> Tiles:
    """Images with one column per class, or several where few classes have many images each; or in a square if there is
    one class only, or more than ``COLUMNS``.

    Args:
        images: In [-1, 1], shape (N, C, H, W).
        labels: Shape (N,).
        classes: Labels of the columns.
        names: Names of the classes, by label; a label without a name is shown as a number.
        title: Above them.
    """
    if not 1 < len(classes) <= COLUMNS:
        columns = max(1, math.ceil(math.sqrt(len(images))))
        grid = images.new_full((max(1, math.ceil(len(images) / columns)) * columns, *images.shape[1:]), torch.nan)
        grid[: len(images)] = images
        return Tiles(grid.view(-1, columns, *images.shape[1:]), title)
    of_class = [images[labels == label] for label in classes]
    tallest = max(map(len, of_class))
    wide = max(1, math.isqrt(tallest // len(classes)))  # else few classes make a picture that no screen holds
    rows = math.ceil(tallest / wide)
    grid = images.new_full((rows, len(classes) * wide, *images.shape[1:]), torch.nan)
    for number, chosen in enumerate(of_class):
        for place, image in enumerate(chosen):
            grid[place // wide, number * wide + place % wide] = image
    return Tiles(grid, title, [text for label in classes for text in (name_of(label, names), *[""] * (wide - 1))])


def name_of(label: int, names: Sequence[str]) -> str:
    """The name of a class, on one line and shortened, or its label."""
    if label >= len(names):
        return str(label)
    name = "".join(c if c.isprintable() else " " for c in names[label])  # a file's name may hold anything
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 3]}..."


def sample_grid(
    samples: Tensor,
    labels: Tensor,
    title: str,
    *,
    real: tuple[Tensor, Tensor, str] | None = None,
    names: Sequence[str] = (),
) -> Figure:
    """Samples, beside real images if there are some, arranged as by ``by_class``.

    Args:
        samples: Images in [-1, 1], shape (N, C, H, W) with C 1 or 3.
        labels: Their classes, shape (N,).
        title: What the samples are, for instance the sampler.
        real: Real images, their classes, and their title; of each class, as many are shown as there are samples.
        names: Names of the classes, by label.
    """
    counts = {label: int((labels == label).sum()) for label in sorted(set(labels.tolist()))}
    panels = [by_class(samples, labels, list(counts), names, title)]
    if real is not None:
        images, of, what = real
        beside = torch.cat([(of == label).nonzero()[:count, 0] for label, count in counts.items()])
        panels.append(by_class(images[beside], of[beside], list(counts), names, what))
    return tile_figure(panels)


def trajectory_figure(trajectories: Mapping[str, Tensor], times: Sequence[float], labels: Sequence[object]) -> Figure:
    """The same noise on its way from t = 0 to t = 1: one row a sample, one column a time, one panel a sampler.

    Args:
        trajectories: States by the name of the sampler, each of shape (times, samples, C, H, W).
        times: Of the columns.
        labels: Of the rows.
    """
    columns, rows = [f"{time:.3g}" for time in times], [str(label) for label in labels]
    return tile_figure(
        [
            Tiles(states.transpose(0, 1), name, columns, rows, "t, from noise to data")
            for name, states in trajectories.items()
        ]
    )


def reconstruction_figure(panels: Mapping[str, tuple[Tensor, Tensor]], labels: Sequence[object]) -> Figure:
    """Images above what became of them, above the difference, where grey is none: one column an image.

    Args:
        panels: Originals and reconstructions by the title of their panel, in [-1, 1], each of shape (N, C, H, W).
        labels: Of the columns.
    """
    columns, rows = [str(label) for label in labels], ["original", "decoded", "difference"]
    return tile_figure(
        [
            Tiles(torch.stack([originals, decoded, decoded - originals]), name, columns, rows)
            for name, (originals, decoded) in panels.items()
        ],
        stacked=True,
    )


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
        axes.imshow(picture[..., 0].numpy(), cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
    axes.tick_params(length=0, labeltop=True, labelbottom=False, colors=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _label_tiles(set_ticks: Any, labels: Sequence[str], size: int, **how: Any) -> None:
    places = [(size - 1) / 2 + k * (size + GAP) for k in range(len(labels))]
    set_ticks(places, labels, fontsize=LABEL_SIZE, parse_math=False, **how)  # names may hold a $
