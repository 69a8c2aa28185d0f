"""Named paths, each with its source."""

from __future__ import annotations

import difflib
from collections.abc import Callable

import sympy as sp

from interpolants.expression import exact, t
from interpolants.path import Path


def linear() -> Path:
    r"""Straight line: alpha = t, sigma = 1 - t.

    The Wronskian is 1. Source: Lipman et al. (2023), arXiv:2210.02747; Liu et al. (2023), arXiv:2209.03003.
    """
    return Path(t, 1 - t, name="linear")


def gvp() -> Path:
    r"""Generalized variance-preserving path: alpha = sin(pi t / 2), sigma = cos(pi t / 2).

    alpha^2 + sigma^2 = 1 at all t, and the Wronskian is the constant pi/2, so no conversion from the velocity to
    data or noise is singular. Source: Albergo et al. (2023), arXiv:2303.08797; Ma et al. (2024), arXiv:2401.08740.
    """
    return Path(sp.sin(sp.pi * t / 2), sp.cos(sp.pi * t / 2), name="gvp")


def vp(beta_min: float = 0.1, beta_max: float = 20.0) -> Path:
    r"""Variance-preserving diffusion with beta linear in time, beta(s) = beta_min + s (beta_max - beta_min), s = 1 - t.

    .. math:: \log \alpha = -\tfrac14 s^2 (\beta_{max} - \beta_{min}) - \tfrac12 s \beta_{min}, \quad
        \sigma = \sqrt{1 - \alpha^2}

    Args:
        beta_min, beta_max: The noise rate at the data end and at the noise end, 0 < beta_min <= beta_max.

    Raises:
        ValueError: If the rates are not positive and in order, or too small to reach noise.

    Source: Song et al. (2021), arXiv:2011.13456, equation 32.
    """
    if not 0 < beta_min <= beta_max:
        raise ValueError(f"vp: must have 0 < beta_min <= beta_max, got beta_min={beta_min!r}, beta_max={beta_max!r}.")
    low, high = exact(beta_min), exact(beta_max)
    log_alpha = -((1 - t) ** 2) * (high - low) / 4 - (1 - t) * low / 2
    name = "vp" if (beta_min, beta_max) == (0.1, 20.0) else f"vp({beta_min:g}, {beta_max:g})"
    return Path(sp.exp(log_alpha), sp.sqrt(1 - sp.exp(2 * log_alpha)), name=name)


LIBRARY: dict[str, Callable[[], Path]] = {"linear": linear, "gvp": gvp, "vp": vp}


def by_name(name: str) -> Path:
    """The path of the library with that name.

    Raises:
        ValueError: If there is none; lists the names.
    """
    if name not in LIBRARY:
        near = difflib.get_close_matches(str(name), LIBRARY, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"path: must be one of {', '.join(LIBRARY)}, got {name!r}.{hint}")
    return LIBRARY[name]()
