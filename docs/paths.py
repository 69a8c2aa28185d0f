"""Writes docs/paths.md and its pictures: every path of the library, with what the engine derives from it.

Run from anywhere: python docs/paths.py
"""

from __future__ import annotations

import inspect
import io
import re
from pathlib import Path as File

import sympy as sp

import interpolants as ip
from interpolants import library
from interpolants.coefficient import Coefficient
from interpolants.plot import plot

DOCS = File(__file__).parent
IMAGES = "images/paths"
CALLS = (
    "linear()", "fm_ot(0.01)", "polynomial(2)", "gvp()", "linear_vp()", "vp()", "sub_vp()", "cosine()", "sigmoid()",
    "ve()", "edm()", "from_beta(beta='3 + 14*exp(-2*t)')", "from_log_snr(log_snr='2*log(t/(1 - t))')",
)  # fmt: skip

HEAD = r"""# The paths of the library

Written by `python docs/paths.py`; nothing below is typed in by hand but the names.

A path is $x_t = \alpha(t)\,\text{data} + \sigma(t)\,\text{noise}$, with noise at $t = 0$ and data at $t = 1$. Each is a
function in `interpolants`, with its parameters and source in its docstring. From $\alpha$ and $\sigma$ follow

- the log-SNR $\log(\alpha^2 / \sigma^2)$, which increases;
- the Wronskian $W = \alpha' \sigma - \alpha \sigma'$, the determinant of the conversions from the velocity;
- the forward SDE $\mathrm{d}X = f X \, \mathrm{d}\tau + g \, \mathrm{d}W$ from data to noise, $\tau = 1 - t$, with
  $f = -\alpha' / \alpha$ and $g^2 = 2 \sigma W / \alpha$.

Values at the ends are exact limits. In the pictures a triangle at an edge marks a pole at an end of time; the gain is
the factor on the error of a predicted velocity, and the curves of $w$ are the choices in `interpolants.diffusion`.
"""


def page() -> str:
    """The text of docs/paths.md."""
    return "\n".join([HEAD, *(_section(call) for call in CALLS)])


def draw() -> None:
    """Write the pictures, in few colours: they are small."""
    from PIL import Image

    (DOCS / IMAGES).mkdir(parents=True, exist_ok=True)
    for call in CALLS:
        png = io.BytesIO()
        plot(_path(call)).savefig(png, dpi=80)
        Image.open(png).convert("RGB").quantize(96, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
            DOCS / _image(call), optimize=True
        )


def _path(call: str) -> ip.Path:
    name, arguments = _parts(call)
    path: ip.Path = getattr(library, name)(*arguments)
    return path


def _parts(call: str) -> tuple[str, list[float | str]]:
    name, text = re.fullmatch(r"(\w+)\((.*)\)", call).groups()  # type: ignore[union-attr]
    if "=" in text:
        return name, [text.split("=", 1)[1].strip("'")]
    return name, [float(text)] if text else []


def _image(call: str) -> str:
    return f"{IMAGES}/{_parts(call)[0]}.png"


def _section(call: str) -> str:
    path, name = _path(call), _parts(call)[0]
    docstring = inspect.getdoc(getattr(library, name)) or ""
    source = " ".join(docstring.split("Source: ")[1].split())
    f, g_squared = path.forward_sde()
    rows = ((r"\alpha", path.alpha), (r"\sigma", path.sigma), (r"\log(\alpha^2 / \sigma^2)", path.log_snr))
    ends = "\n".join(f"| ${symbol}$ | {_end(c, 0)} | {_end(c, 1)} |" for symbol, c in rows)
    formulas = {r"\alpha": path.alpha, r"\sigma": path.sigma}
    derived = {"W": path.wronskian, "f": f, "g^2": g_squared}
    return f"""## `{call}`

{_formulas(formulas)}
Source: {source}

| | $t = 0$, noise | $t = 1$, data |
|---|---|---|
{ends}

{_formulas(derived)}
![{call}]({_image(call)})
"""


def _formulas(named: dict[str, Coefficient]) -> str:
    return "\n".join(f"$$\n{symbol} = {sp.latex(c.expr)}\n$$\n" for symbol, c in named.items())


def _end(coefficient: Coefficient, end: int) -> str:
    return f"${sp.latex(coefficient.limit(end))}$"


if __name__ == "__main__":
    (DOCS / "paths.md").write_text(page(), encoding="utf-8")
    draw()
