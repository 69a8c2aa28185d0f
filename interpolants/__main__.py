"""``python -m interpolants prove`` and ``explore``: what follows from a path; see ``--help``.

``python -m interpolants "t" "1-t"`` is ``prove`` too. Nothing but the standard library is imported before the arguments
are read: ``sit prove --help``, which runs this file, does not wait for torch.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    import sympy as sp

    from interpolants import Coefficient, Ledger, Path

PROG: Final = "python -m interpolants"
PATHS: Final = ("linear", "gvp", "linear_vp", "vp", "sub_vp", "cosine", "sigmoid", "ve", "edm")
"""The names of the library, by which no module has to be imported."""

PARAMETER: Final = "--parameter"

PROVE: Final = """examples:
  %(prog)s "t" "1-t"
  %(prog)s "t**p" "1-t**p" --parameter p=2
  %(prog)s vp --latex

exit codes: 0 no identity failed; 1 one failed; 2 wrong input; 130 interrupted
"""
EXPLORE: Final = """examples:
  %(prog)s
  %(prog)s "sin(pi*t/2)" "cos(pi*t/2)"
  %(prog)s vp --html vp.html

exit codes: 0 done; 2 wrong input or a missing package; 130 interrupted
"""
HELP: Final = """usage: {prog} COMMAND ...
       {prog} COMMAND --help

Derive what follows from a path, noise at t = 0, data at t = 1.

commands:
  prove    print the formulas, and the identities that are proved of them; may be left out
  explore  draw pictures of them, in the browser or as one file

examples:
  {prog} prove "t" "1-t"
  {prog} explore vp --html vp.html
"""


def main(arguments: Sequence[str] | None = None, prog: str = PROG) -> int:
    """Do what the arguments say, by default those of the process; returns the exit code.

    Returns:
        0 where all went well, 1 where an identity failed, 2 for wrong input, 130 where it was interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words in (["-h"], ["--help"]):
        print(HELP.format(prog=prog), end="")
        return 0
    known = parsers(prog)
    near = difflib.get_close_matches(words[0], (*known, *PATHS), n=1, cutoff=0.7) if words else []
    if near and near[0] in known and words[0] not in known:
        return _fail(f"there is no command {words[0]!r}. Nearest: {near[0]}.")
    command = words.pop(0) if words and words[0] in known else "prove"
    try:
        given = known[command].parse_args(words)
        code = _prove(given) if command == "prove" else _explore(given)
        if sys.stdout is not None:  # as it is where it is closed
            sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader has seen enough, as head has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, ImportError) as error:
        return _fail(str(error))
    except ArithmeticError as error:
        if type(error) is not ArithmeticError:  # a division by zero is a fault of ours
            raise
        return _fail(str(error))  # a limit that is not established
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def parsers(prog: str) -> dict[str, argparse.ArgumentParser]:
    """A parser for each command."""
    prove = _Parser(f"{prog} prove", "Print what follows from a path, and which identities are proved of it.", PROVE)
    prove.add_argument("alpha", help=f'alpha(t), such as "t", or a path by its name: {", ".join(PATHS)}')
    prove.add_argument("--latex", action="store_true", help="LaTeX instead of plain text")
    about = "Show what follows from a path in the browser, on a page that this computer alone sees."
    explore = _Parser(f"{prog} explore", about, EXPLORE)
    explore.add_argument("alpha", nargs="?", default="linear", help="as of prove (default: linear)")
    explore.add_argument("--html", metavar="FILE", help="write one file that needs no connection, and show no page")
    explore.add_argument("--port", type=int, metavar="N", help="of the page (default: the first one that is free)")
    explore.add_argument("--no-browser", action="store_true", help="print the address, and open no browser")
    for parser in (prove, explore):
        parser.add_argument("sigma", nargs="?", help='sigma(t), such as "1-t"; none with the name of a path')
        given = "a number in alpha and sigma by its name, such as p=2; may be given again"
        parser.add_argument(PARAMETER, action="append", default=[], metavar="NAME=NUMBER", help=given)
    return {"prove": prove, "explore": explore}


class _Parser(argparse.ArgumentParser):
    """Says a mistake in one line, as all other mistakes are said."""

    def __init__(self, prog: str, description: str, examples: str) -> None:
        layout = argparse.RawDescriptionHelpFormatter
        super().__init__(prog, description=description, epilog=examples, formatter_class=layout, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        if found := re.search("unrecognized arguments: (.*)", message):
            words = found[1].split()
            unknown = [word.partition("=")[0] for word in words if word.startswith("-")]
            said = [f"there is no option {flag}.{self._nearest(flag)}" for flag in unknown]
            message = " ".join(said) or f"at most alpha and sigma may be given, got {' '.join(words)} too."
        elif "are required: alpha" in message:
            message = "alpha must be given, got nothing. Add alpha and sigma, or the name of a path."
        else:
            message = f"{message}."
        sys.exit(_fail(f"{message} See: {self.prog} --help."))

    def _nearest(self, flag: str) -> str:
        near = difflib.get_close_matches(flag, self._option_string_actions, n=1)
        return f" Nearest: {near[0]}." if near else ""


def _fail(message: str) -> int:
    from interpolants.terminal import RED, paint

    print(f"{paint('error:', RED, sys.stderr)} {message}", file=sys.stderr)
    return 2


def _prove(given: argparse.Namespace) -> int:
    import sympy as sp

    import interpolants

    path = _path(given)
    ledger = interpolants.prove(path)
    for name, expr in formulas(path):
        print(f"{name} = {sp.latex(expr) if given.latex else expr}")
    print(f"\n{ledger.latex() if given.latex else _coloured(ledger)}")
    return 0 if ledger.ok else 1


def _explore(given: argparse.Namespace) -> int:
    path = _path(given)
    from interpolants import explorer

    if given.html is not None:
        explorer.write_html(path, given.html)
        print(f"{path.name}: {given.html}")
        return 0
    explorer.launch(
        alpha=given.alpha,
        sigma=given.sigma,
        parameters=_parameters(given),
        host="127.0.0.1",
        port=given.port,
        browser=not given.no_browser,
    )
    return 0


def _path(given: argparse.Namespace) -> Path:
    from interpolants.library import from_texts

    return from_texts(given.alpha, given.sigma, _parameters(given), PARAMETER)


def _parameters(given: argparse.Namespace) -> dict[str, float]:
    from interpolants.library import parameter

    return dict(parameter(text, PARAMETER) for text in given.parameter)


def _coloured(ledger: Ledger) -> str:
    """The ledger as text, with the status of each identity in its colour where there are colours."""
    from interpolants.terminal import GREEN, RED, YELLOW, paint

    colours = {"proved": GREEN, "bounded": YELLOW, "undecided": YELLOW, "failed": RED}
    summary, *lines = str(ledger).splitlines()
    for place, entry in enumerate(ledger.entries, len(ledger.undecided)):
        head, status, note = lines[place].partition(f"  {entry.status}")
        lines[place] = f"{head}  {paint(status.strip(), colours[entry.status], sys.stdout)}{note}"
    return "\n".join([summary, *lines])


def formulas(path: Path) -> Iterator[tuple[str, sp.Expr]]:
    """The name and the expression of each derived formula."""
    import sympy as sp

    from interpolants import QUANTITIES, diffusion

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
    sys.exit(main(prog=PROG if PurePath(sys.argv[0]).name == "__main__.py" else sys.argv[0]))
