"""The figures of a path's page, by plotly, with the colours and dashes of ``interpolants.plot``.

A triangle at the edge of a panel marks a pole: there the curve leaves the picture for good.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import plotly.graph_objects as go

from interpolants.explorer.report import TIMES, FloatArray, Function, Report
from interpolants.explorer.simulation import NUM_STEPS, Errors, Flow
from interpolants.plot import DECADES, MAX_LOG_SNR, STYLES

ALPHA: Final = "\N{GREEK SMALL LETTER ALPHA}"
SIGMA: Final = "\N{GREEK SMALL LETTER SIGMA}"

GREY: Final = "#888888"
"""Of what is not a curve; readable on white and on black."""

NUM_TRAILS: Final = 14
"""Particles whose way is drawn."""

_TIME_AXIS: Final = {
    "range": [0, 1], "tickvals": [0, 0.25, 0.5, 0.75, 1], "zeroline": False,
    "ticktext": ["0<br>noise", "0.25", "<i>t</i>", "0.75", "1<br>data"],
}  # fmt: skip


def overview(report: Report) -> list[go.Figure]:
    """Alpha and sigma; the log-SNR; the Wronskian and the gains of conversions; the choices of w."""
    gains = {f"|b| to {target}": report.conversions["velocity", target].b for target in ("data", "noise", "score")}
    exploding = report.sigma.values.max() > 2
    return [
        _curves(
            f"<b>Path</b>   x<sub>t</sub> = {ALPHA} data + {SIGMA} noise", "weight of data, of noise",
            {ALPHA: report.alpha, SIGMA: report.sigma}, "log" if exploding else "linear",
        ),
        _curves(
            f"<b>log-SNR</b>   λ = log({ALPHA}² / {SIGMA}²)", "λ, nats",
            {"log-SNR": report.log_snr}, "linear", MAX_LOG_SNR,
        ),
        _curves(
            "<b>Wronskian</b> W, and gain |b| of target = a x<sub>t</sub> + b velocity", "W per unit time; gain",
            {"W": report.wronskian, **gains}, "log",
        ),
        _curves("<b>SDE noise</b>, the named w", "w per unit time", {w.name: w for w in report.choices}, "log"),
    ]  # fmt: skip


def conversion(a: Function, b: Function) -> go.Figure:
    """The two coefficients of target = a x_t + b source."""
    return _curves("", "coefficient", {"a(t)": a, "b(t)": b}, "linear")


def _curves(title: str, unit: str, functions: dict[str, Function], scale: str, most: float = math.inf) -> go.Figure:
    """Functions of time, their absolute values on a logarithmic scale, cut at ``most`` in either direction."""
    curves = {name: np.abs(f.values) if scale == "log" else f.values for name, f in functions.items()}
    low, high = _limits(list(curves.values()), scale)
    limits = max(low, -most), min(high, most)
    figure = go.Figure()
    for (name, curve), style in zip(curves.items(), STYLES, strict=False):
        figure.add_traces(_curve(name, curve, style, limits))
    figure.update_layout(
        height=335, margin={"t": 15, "b": 85, "l": 62, "r": 16}, title=title, xaxis=_TIME_AXIS,
        yaxis=_value_axis(unit, limits, scale), legend={"orientation": "h", "x": 0, "y": -0.2, "font": {"size": 12}},
    )  # fmt: skip
    return figure


def convergence(errors: Errors) -> go.Figure:
    """Error against number of steps, both logarithmic; the table below it is the legend."""
    figure = go.Figure()
    for solver, (color, dashes) in zip(errors.solvers, STYLES, strict=True):
        calls = "1 call" if solver.calls == 1 else f"{solver.calls} calls"
        figure.add_scatter(
            x=list(NUM_STEPS), y=solver.errors, name=solver.solver, showlegend=False,
            mode="lines+markers", line={"color": color, "dash": dash(dashes)},
            hovertemplate=f"{solver.solver}<br>%{{x}} steps, {calls} each<br>error %{{y:.2e}}<extra></extra>",
        )  # fmt: skip
    worst = max(float(solver.errors.max()) for solver in errors.solvers)
    best = min(float(solver.errors.min()) for solver in errors.solvers)
    figure.add_hline(y=errors.floor, line={"color": GREY, "dash": "dot"})
    figure.add_annotation(
        x=1, xref="paper", xanchor="right", y=math.log10(errors.floor), yanchor="bottom", showarrow=False,
        text="accuracy of the reference", font={"color": GREY, "size": 12},
    )  # fmt: skip
    decades = [math.log10(max(min(best, errors.floor), 1e-12)) - 0.4, math.log10(min(worst, 1e3)) + 0.3]
    figure.update_layout(
        height=470, margin={"t": 20, "b": 60, "l": 75, "r": 20},
        xaxis={"type": "log", "title": "number of equal steps", "tickvals": list(NUM_STEPS)},
        yaxis={"type": "log", "title": "root mean square error at the last time", "range": decades,
               "exponentformat": "power", "dtick": 1},
    )  # fmt: skip
    return figure


def particles(flow: Flow) -> list[go.Figure]:
    """One figure for the ODE and one for the SDE, with axes only: the page draws the particles."""
    colors = [color for color, _ in STYLES[: flow.centres.shape[1]]]
    rings = {"mode": "lines", "line": {"color": GREY, "width": 1, "dash": "dot"}, "hoverinfo": "skip"}
    trails = {"mode": "lines", "line": {"color": GREY, "width": 1}, "opacity": 0.6, "hoverinfo": "skip"}
    points = {"mode": "markers", "marker": {"size": 5, "opacity": 0.85, "line": {"width": 0}}}
    drawn = []
    for title in ("<b>ODE</b>  dx = v dt", "<b>SDE</b>  dx = (v + w/2 score) dt + √w dW"):
        figure = go.Figure([go.Scatter(x=[], y=[], showlegend=False, **trace) for trace in (rings, trails, points)])
        axis = {"range": [-3.6, 3.6], "zeroline": False}
        figure.update_layout(
            height=475, margin={"t": 15, "b": 50, "l": 45, "r": 20}, meta={"colors": colors}, title=title,
            xaxis={**axis, "title": _unit(flow, 1)},
            yaxis={**axis, "title": _unit(flow, 2), "constrain": "domain", "scaleanchor": "x"},
        )  # fmt: skip
        drawn.append(figure)
    return drawn


def _unit(flow: Flow, axis: int) -> str:
    scaled = flow.extent.max() > 1.5
    return f"x<sub>{axis}</sub>" + (f" / √({ALPHA}² + {SIGMA}²)" if scaled else "")


def _curve(name: str, values: FloatArray, style: tuple[str, Any], limits: tuple[float, float]) -> list[go.Scatter]:
    """The curve, and a triangle at each end where it has a pole."""
    color, dashes = style
    shown = np.where(np.isfinite(values), values, np.nan)
    line = {"color": color, "dash": dash(dashes), "simplify": False}
    hover = f"{name} = %{{y:.5g}} at t = %{{x:.3f}}<extra></extra>"
    traces = [go.Scatter(x=TIMES, y=shown, name=name, mode="lines", line=line, hovertemplate=hover)]
    for end in (0, -1):
        if not np.isinf(values[end]):
            continue
        top = values[end] > 0
        marker = {"symbol": "triangle-up" if top else "triangle-down", "size": 11, "color": color}
        traces.append(
            go.Scatter(
                x=[TIMES[end]],
                y=[limits[1] if top else limits[0]],
                mode="markers",
                marker=marker,
                showlegend=False,
                cliponaxis=False,
                hovertemplate=f"{name} has a pole at t = {abs(end)}<extra></extra>",
            )
        )
    return traces


def _limits(curves: Sequence[FloatArray], scale: str) -> tuple[float, float]:
    """What a panel shows: all values of curves without a pole, and of the others those inside."""
    parts = [curve if np.isfinite(curve).all() else curve[8:-8] for curve in curves]
    values = np.concatenate([part[np.isfinite(part)] for part in parts])
    if scale == "log":
        values = values[values > 0]
        return max(values.min() / 2, DECADES[0]), min(values.max() * 2, DECADES[1])
    margin = 0.06 * max(float(np.ptp(values)), 0.5)
    return float(values.min()) - margin, float(values.max()) + margin


def _value_axis(title: str, limits: tuple[float, float], scale: str) -> dict[str, Any]:
    if scale == "linear":
        return {"title": title, "range": list(limits), "zeroline": True}
    decades = [math.log10(value) for value in limits]
    return {"title": title, "type": "log", "range": decades, "exponentformat": "power", "dtick": 1}


def dash(dashes: Any) -> str:
    """A line style of matplotlib in the form of plotly and SVG: lengths, or "solid"."""
    named = {"-": "solid", "--": "9px,9px", "-.": "9px,3px,3px,3px"}
    return named[dashes] if isinstance(dashes, str) else ",".join(f"{2 * length}px" for length in dashes[1])
