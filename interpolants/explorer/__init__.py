"""A page on which a path is looked at: ``python -m interpolants explore``, or as one file without any request.

What is shown of two functions of time: whether they are a path, or why not; curves, conversions and their exact ends;
the derived formulas and the ledger of identities; particles of a mixture under the ODE and the SDE; errors of solvers.
Needs the extra ``explore``.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path as File
from typing import Final

from interpolants.diffusion import DiffusionLike
from interpolants.path import Path

__all__ = ["launch", "write_html"]


def write_html(path: Path, file: str | os.PathLike[str], *, w: DiffusionLike = "sigma") -> None:
    """Write the page of ``path`` as one file of HTML, about 6 MB, that asks the network for nothing.

    Args:
        path: With data at t = 1.
        file: Where to; a file that is there is replaced.
        w: Squared noise amplitude of the SDE, as in ``Path.sde``; the page has a slider for multiples of it.

    Raises:
        ImportError: Without the extra ``explore``.
        ValueError: If data is not at t = 1, or w is not valid.
        ArithmeticError: If the limit of a coefficient at an end is not established.
    """
    _require("plotly", "latex2mathml")
    from interpolants.explorer import page, report, simulation
    from interpolants.identities import prove

    described = report.report(path, w)
    text = page.document(described, prove(path), simulation.flow(path, w), simulation.errors(path))
    File(file).write_text(text, encoding="utf-8")


LAST_PORT: Final = 65_535


def launch(
    *,
    alpha: str = "t",
    sigma: str | None = "1-t",
    parameters: Mapping[str, float] | None = None,
    host: str = "127.0.0.1",
    port: int | None = None,
    browser: bool = True,
) -> None:
    """Serve the page until it is interrupted.

    Args:
        alpha, sigma: What the page opens with, as text; or the name of a path of the library, and None.
        parameters: Numbers for the other names in them.
        host: Address to listen at. The default is reached from this machine alone; "0.0.0.0" from everywhere.
        port: To listen at; None takes a free one.
        browser: Whether to open a browser.

    Raises:
        ImportError: Without the extra ``explore``.
        OSError: If the port is taken.
        ValueError: If it is no port.
    """
    if port is not None and not 0 < port <= LAST_PORT:
        raise ValueError(f"explorer: port must be in [1, {LAST_PORT}], or left out, got {port}.")
    _require("gradio", "plotly", "latex2mathml")
    from interpolants.explorer import app

    with app.serving(alpha, sigma, parameters or {}, host=host, port=port) as served:
        print(f"The path explorer is at {served.url} - Ctrl-C ends it.", flush=True)
        if browser:
            served.open_browser()
        served.wait()


def _require(*modules: str) -> None:
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ImportError(
                f"explorer: {module} must be installed to show a path. "
                'pip install "sit-interpolants[explore]" brings it.'
            ) from error
