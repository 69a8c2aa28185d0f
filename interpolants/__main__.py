"""``python -m interpolants "t" "1-t"``: what follows from a path, and its ledger; for example

python -m interpolants "sin(pi*t/2)" "cos(pi*t/2)"
python -m interpolants "t**p" "1-t**p" --parameter p=2 --latex
python -m interpolants vp
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence

import sympy as sp

from interpolants import diffusion, library
from interpolants.coefficient import Coefficient
from interpolants.identities import prove
from interpolants.path import Path
from interpolants.quantities import QUANTITIES


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the formulas and the ledger; 0 where every identity holds, 1 where one failed, 2 for wrong input."""
    parser = argparse.ArgumentParser(
        prog="python -m interpolants",
        description="Derive and prove what follows from a path, noise at t = 0, data at 1.",
    )
    parser.add_argument("alpha", help=f'alpha(t), such as "t", or one of {", ".join(library.LIBRARY)}')
    parser.add_argument("sigma", nargs="?", help='sigma(t), such as "1-t"')
    parser.add_argument("--parameter", action="append", default=[], metavar="NAME=NUMBER", help="such as p=2")
    parser.add_argument("--latex", action="store_true", help="LaTeX instead of plain text")
    given = parser.parse_args(arguments)
    try:
        path = _path(given.alpha, given.sigma, dict(map(_parameter, given.parameter)))
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    ledger = prove(path)
    for name, expr in formulas(path):
        print(f"{name} = {sp.latex(expr) if given.latex else expr}")
    print(f"\n{ledger.latex() if given.latex else ledger}")
    return 0 if ledger.ok else 1


def _path(alpha: str, sigma: str | None, parameters: dict[str, float]) -> Path:
    if sigma is None and not alpha.isidentifier():
        raise ValueError(f"sigma: must be given after alpha = {alpha!r}, such as 1-t.")
    if sigma is None and parameters:
        raise ValueError(f"--parameter: must not be given with a path of the library, got {', '.join(parameters)}.")
    if "name" in parameters:
        raise ValueError("--parameter: must be another name than 'name', which is that of the path.")
    return library.by_name(alpha) if sigma is None else Path(alpha, sigma, name=None, **parameters)


def _parameter(text: str) -> tuple[str, float]:
    name, _, number = text.partition("=")
    try:
        return name.strip(), float(number)
    except ValueError:
        raise ValueError(f"--parameter: must be NAME=NUMBER, such as p=2, got {text!r}.") from None


def formulas(path: Path) -> Iterator[tuple[str, sp.Expr]]:
    """The name and the expression of each derived formula."""

    def of(name: str, coefficient: Coefficient) -> tuple[str, sp.Expr]:
        return name, coefficient.expr

    yield of("alpha", path.alpha)
    yield of("sigma", path.sigma)
    yield of("alpha'", path.d_alpha)
    yield of("sigma'", path.d_sigma)
    yield of("W", path.wronskian)
    yield of("log-SNR", path.log_snr)
    for source in QUANTITIES:
        for target in QUANTITIES:
            if source != target:
                a, b = path.conversion(source, target)
                yield f"{target} from {source}", a.expr * sp.Symbol("x") + b.expr * sp.Symbol(source)
    f, g_squared = path.forward_sde()
    yield of("f", f)
    yield of("g^2", g_squared)
    for choice in diffusion.CHOICES:
        sde = path.sde("velocity", choice)
        yield of(f"w, {choice}", sde.w)
        yield f"drift, {choice}", sde.a.expr * sp.Symbol("x") + sde.b.expr * sp.Symbol("velocity")


if __name__ == "__main__":
    sys.exit(main())
