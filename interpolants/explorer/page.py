"""The page of a path as HTML: its panels, and the one file that holds all of them and asks the network for nothing.

Formulas are MathML, which browsers typeset by themselves; figures are JSON that ``page.js`` draws. Every text is
escaped here, on its way into the page.
"""

from __future__ import annotations

import base64
import functools
import html
import json
from importlib.resources import files
from typing import Any, Final

import numpy as np
import plotly.graph_objects as go
from latex2mathml.converter import convert
from plotly.offline import get_plotlyjs

from interpolants.explorer import figures
from interpolants.explorer.report import End, FloatArray, Function, Report
from interpolants.explorer.simulation import NUM_STEPS, SCALES, Errors, Flow
from interpolants.expression import CONSTANTS, FUNCTIONS
from interpolants.identities import Ledger
from interpolants.plot import STYLES
from interpolants.quantities import QUANTITIES

TITLE: Final = "Path explorer"
_POLICY: Final = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
_SIGNS: Final = {"proved": "&#10003;", "bounded": "&#8776;", "undecided": "?", "failed": "&#10007;"}
_QUANTITY: Final = {"velocity": "v", "score": "s", "noise": r"\text{noise}", "data": r"\text{data}"}


def style() -> str:
    """The style sheet of all panels."""
    return (files(__package__) / "page.css").read_text(encoding="utf-8")


def script() -> str:
    """What draws the figures and moves the particles; needs plotly.js."""
    return (files(__package__) / "page.js").read_text(encoding="utf-8")


@functools.lru_cache(maxsize=1024)
def formula(latex: str) -> str:
    """LaTeX as presentation MathML, with fractions of full size."""
    return str(convert(latex, display="block"))


# Panels


def heading() -> str:
    """What the page is."""
    return (
        f'<div class="explorer heading"><h1>{TITLE}</h1><p>Write two functions of time: '
        "<i>x<sub>t</sub> = &alpha; data + &sigma; noise</i>, noise at t = 0, data at t = 1. "
        f"Numbers, t, {', '.join(CONSTANTS)}, parameters, + - * / ** and {', '.join(FUNCTIONS)} are read.</p></div>"
    )


def verdict(report: Report) -> str:
    """That it is a path, and which."""
    return (
        '<div class="explorer verdict valid" role="status"><strong>&#10003; A path</strong>'
        f'<div class="formula">{formula(report.x_t)}</div>'
        f"<small>noise at t = 0, data at t = 1; the log-SNR increases in between</small></div>"
    )


def refusal(reason: str, *, title: str = "Not a path") -> str:
    """Why there is nothing to show."""
    return (
        f'<div class="explorer verdict invalid" role="status"><strong>&#10007; {html.escape(title)}</strong>'
        f"<p>{html.escape(reason)}</p></div>"
    )


def note(text: str) -> str:
    """A line in place of a panel."""
    return f'<div class="explorer note">{html.escape(text)}</div>'


def caption(text: str) -> str:
    """A line above a panel."""
    return f'<div class="explorer"><small>{html.escape(text)}</small></div>'


def overview(report: Report) -> str:
    """The four panels of functions, and their ends."""
    functions = [report.alpha, report.sigma, report.d_alpha, report.d_sigma, report.wronskian, report.log_snr]
    return _panel(f'<div class="grid">{"".join(map(figure, figures.overview(report)))}</div>{_functions(functions)}')


def conversions(report: Report) -> str:
    """The twelve conversions, one of which is shown: the page's two menus choose it."""
    first = ("velocity", "score")
    parts = []
    for (source, target), conversion in report.conversions.items():
        a, b = conversion.a, conversion.b
        shown = "" if (source, target) == first else " hidden"
        rule = rf"{_QUANTITY[target]} = a\, x_t + b\, {_QUANTITY[source]}"
        parts.append(
            f'<div class="conversion" data-pair="{source} {target}"{shown}>'
            f'<p class="formula">{formula(rule)}</p>{_functions([a, b])}'
            f"{figure(figures.conversion(a, b))}</div>"
        )
    menus = "".join(
        f'<label>{role} <select class="{role}">{"".join(_option(q, q == chosen) for q in QUANTITIES)}</select></label>'
        for role, chosen in zip(("source", "target"), first, strict=True)
    )
    same = '<p class="conversion same" hidden>Source and target are the same: a = 0 and b = 1.</p>'
    return _panel(
        f'<div class="conversions"><div class="controls">{menus}<span>A network that predicts the source gives the '
        f"target by these two functions of time.</span></div>{same}{''.join(parts)}</div>"
    )


def formulas(report: Report) -> str:
    """All formulas."""
    f, g_squared = report.forward
    sde = r"dx = (a\, x + b\, v)\, dt + \sqrt{w}\, dW"
    forward = r"dx = f\, x\, d\tau + g\, dW, \quad \tau = 1 - t"
    rows = [
        f"<tr><th scope='row'>{target} from {source}</th><td class='formula'>{formula(conversion.formula)}</td></tr>"
        for (source, target), conversion in report.conversions.items()
    ]
    return _panel(
        "<h3>The path</h3>"
        + _functions([report.alpha, report.sigma, report.d_alpha, report.d_sigma, report.wronskian, report.log_snr])
        + f"<h3>SDE from noise to data, w = {html.escape(report.w)}</h3><p>{formula(sde)}</p>"
        + _functions(list(report.sde))
        + f"<h3>SDE from data to noise</h3><p>{formula(forward)}</p>{_functions([f, g_squared])}"
        + f"<h3>Conversions</h3><table class='rules'>{''.join(rows)}</table>"
    )


def ledger(ledger: Ledger) -> str:
    """The identities, each with its status as a word and a colour."""
    counts = {status: sum(entry.status == status for entry in ledger.entries) for status in _SIGNS}
    summary = "".join(f"{_badge(status)} <b>{count}</b> &ensp;" for status, count in counts.items() if count)
    rows = "".join(
        f"<tr><td>{_badge(entry.status)}</td><th scope='row'>{html.escape(entry.name)}</th>"
        f"<td class='formula'>{formula(entry.statement)}</td>"
        f"<td class='number' data-head='equations:'>{entry.equations}</td>"
        f"<td>{_remark(entry.bound, entry.counterexample or entry.reason)}</td></tr>"
        for entry in ledger.entries
    )
    return _panel(
        f"<p class='summary'>{summary}</p><p>Each derived formula is set beside a statement that was not used to "
        "derive it. <i>Proved</i>: their difference is zero in normal form, for all t. <i>Bounded</i>: interval "
        "arithmetic bounds it on [1/16, 15/16]. <i>Failed</i>: the two sides differ, or it is not decided.</p>"
        "<table class='ledger'><thead><tr><th>status</th><th>identity</th><th>statement</th>"
        f"<th>equations</th><th>remark</th></tr></thead><tbody>{rows}</tbody></table>"
    )


def particles(flow: Flow) -> str:
    """Particles under the ODE and the SDE, with sliders for the scale of w and for time."""
    drawn = {
        "times": flow.times.tolist(),
        "scales": list(SCALES),
        "shape": list(flow.ode.shape),
        "ode": _packed(flow.ode / flow.extent[:, None, None]),
        "sde": _packed(flow.sde / flow.extent[None, :, None, None]),
        "centres": (flow.centres / flow.extent[:, None, None]).round(4).tolist(),
        "radii": (flow.radii / flow.extent[:, None]).round(4).tolist(),
        "trails": figures.NUM_TRAILS,
    }
    return _panel(
        '<div class="particles"><div class="controls">'
        '<button type="button" class="play" aria-label="play or pause">&#9654;</button>'
        f'<label>time <input type="range" class="time" min="0" max="{len(flow.times) - 1}" value="0" step="1">'
        '<output class="time-value"></output></label>'
        f'<label>scale of w <input type="range" class="scale" min="0" max="{len(SCALES) - 1}" '
        f'value="{SCALES.index(1.0)}" step="1">'
        f'<output class="scale-value"></output></label><span>w = {html.escape(flow.w)}</span></div>'
        f'<div class="grid">{"".join(map(figure, figures.particles(flow)))}</div>{_json(drawn, "frames")}'
        "<p>Five Gaussians, whose velocity and score are known exactly at every time: nothing is trained. Both sides "
        "start from the same points; a colour is the component in which a point ends. Dotted circles are the "
        "components' exact law, two standard deviations wide: it is the same for every w. With more noise a point "
        "forgets sooner where it came from.</p></div>"
    )


def solvers(errors: Errors) -> str:
    """The error of solvers against their number of steps."""
    head = "".join(f"<th class='number'>{count}</th>" for count in NUM_STEPS)
    rows = "".join(
        f"<tr><th scope='row'>{_line(*style)} {html.escape(s.solver)}</th><td class='number'>{s.calls}</td>"
        + "".join(f"<td class='number'>{error:.1e}</td>" for error in s.errors)
        + f"<td class='number'>{'' if np.isnan(s.slope) else f'{s.slope:.2f}'}</td></tr>"
        for s, style in zip(errors.solvers, STYLES, strict=True)
    )
    low, high = errors.interval
    where = "" if errors.interval == (0.0, 1.0) else (
        f" The velocity is infinite at an end of this path: all solvers run on t from {low:.1e} to 1 - {1 - high:.1e}."
    )  # fmt: skip
    return _panel(
        f"{figure(figures.convergence(errors))}<div class='scroll'><table><thead><tr><th>solver</th>"
        f"<th class='number'>calls a step</th>{head}<th class='number'>slope</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
        "<p>Sixty-four points of the mixture of five Gaussians, by the probability-flow ODE in equal time steps; "
        "the multistep methods are those of <code>interpolants.exponential</code>, derived from the path. The slope is "
        f"that over the last doublings.{where}</p>"
    )


# The one file


def document(report: Report, ledger_: Ledger, flow: Flow, errors: Errors) -> str:
    """A page of HTML with everything in it: styles, plotly.js, the figures and the particles' frames."""
    panels = {
        "Path": overview(report),
        "Conversions": conversions(report),
        "Particles": particles(flow),
        "Solvers": solvers(errors),
        "Formulas": formulas(report),
        "Ledger": ledger(ledger_),
    }
    tabs = "".join(
        f'<button type="button" role="tab" id="tab-{name}" aria-controls="panel-{name}" '
        f'aria-selected="{str(number == 0).lower()}">{name}</button>'
        for number, name in enumerate(panels)
    )
    sections = "".join(
        f'<section role="tabpanel" id="panel-{name}" aria-labelledby="tab-{name}"{" hidden" if number else ""}>{panel}'
        "</section>"
        for number, (name, panel) in enumerate(panels.items())
    )
    title = html.escape(f"{report.name} - {TITLE}")
    return (
        f'<!doctype html>\n<html lang="en" class="alone"><head><meta charset="utf-8"><title>{title}</title>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{style()}</style></head>\n<body><main><div class='explorer heading'>"
        f"<h1>{TITLE}: {html.escape(report.name)}</h1></div>{verdict(report)}\n"
        f'<div class="explorer tabs" role="tablist">{tabs}</div>\n{sections}</main>\n'
        f"<script>{get_plotlyjs()}</script>\n<script>{script()}</script></body></html>\n"
    )


# Parts


def figure(drawn: go.Figure) -> str:
    """A place for a figure, drawn once it is shown, below a title in HTML, which wraps unlike plotly's."""
    title = drawn.layout.title.text or ""
    drawn.update_layout(template="none", title=None)
    return (
        f'<div><div class="title">{title}</div><div class="figure" style="height:{drawn.layout.height}px">'
        f"{_json(drawn.to_plotly_json(), 'spec')}</div></div>"
    )


def _json(value: Any, kind: str) -> str:
    """Data for ``page.js``: text that is not shown, in no script, which gradio would warn of."""
    text = json.dumps(value, allow_nan=False)
    return f'<div hidden class="{kind}">{html.escape(text, quote=False)}</div>'


def _packed(values: FloatArray) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def _panel(content: str) -> str:
    return f'<div class="explorer">{content}</div>'


def _option(value: str, selected: bool) -> str:
    return f"<option{' selected' if selected else ''}>{value}</option>"


def _functions(functions: list[Function]) -> str:
    rows = "".join(
        f"<tr><td class='formula'>{formula(f'{f.symbol} = {f.formula}')}</td>"
        + "".join(f"<td class='formula' data-head='t = {t}:'>{_end(end)}</td>" for t, end in enumerate(f.ends))
        + "</tr>"
        for f in functions
    )
    return (
        "<table class='functions'><thead><tr><th>function</th><th>at t = 0, noise</th>"
        f"<th>at t = 1, data</th></tr></thead><tbody>{rows}</tbody></table>"
    )


def _end(end: End) -> str:
    if not end.behaviour:
        return formula(end.limit)
    latex = rf"{end.limit} \quad {end.behaviour}"
    return f"<span class='pole'>{formula(latex)}</span>"


def _line(color: str, dashes: Any) -> str:
    """A short line in the style of a curve, for the legend."""
    stroke = "currentColor" if color == "#000000" else color
    return (
        '<svg class="line" width="36" height="8" aria-hidden="true"><line x2="36" y1="4" y2="4" stroke-width="2" '
        f'style="stroke: {stroke}; stroke-dasharray: {figures.dash(dashes).replace("solid", "none")}"/></svg>'
    )


def _badge(status: str) -> str:
    return f'<span class="badge {status}">{_SIGNS[status]} {status}</span>'


def _remark(bound: float | None, why: str | None) -> str:
    if why is not None:
        return html.escape(why)
    return "" if bound is None else f"the difference is below {bound:.1e}"
