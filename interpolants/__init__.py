"""Probability paths for generative models: write alpha(t) and sigma(t), get all that follows.

Conventions: t = 0 is noise, t = 1 is data; x_t = alpha(t) data + sigma(t) noise.
"""

from interpolants import diffusion, exponential, oracle, time_density, time_grid, two_sided, weights
from interpolants.coefficient import Coefficient
from interpolants.dynamics import Dynamics, ForwardSDE, Pole
from interpolants.expression import t
from interpolants.identities import Entry, Ledger, prove
from interpolants.library import (
    by_name,
    cosine,
    edm,
    fm_ot,
    from_beta,
    from_log_snr,
    gvp,
    linear,
    linear_vp,
    polynomial,
    sigmoid,
    sub_vp,
    ve,
    vp,
)
from interpolants.path import Path
from interpolants.quantities import QUANTITIES
from interpolants.time_change import SNRMatch, match_snr, shifted, time_at_log_snr
from interpolants.two_sided import TwoSided, TwoSidedDynamics

__version__ = "0.1.0"
__all__ = [
    "QUANTITIES", "Coefficient", "Dynamics", "Entry", "ForwardSDE", "Ledger", "Path", "Pole", "SNRMatch", "TwoSided",
    "TwoSidedDynamics", "by_name", "cosine", "diffusion", "edm", "exponential", "fm_ot", "from_beta", "from_log_snr",
    "gvp", "linear", "linear_vp", "match_snr", "oracle", "polynomial", "prove", "shifted", "sigmoid", "sub_vp", "t",
    "time_at_log_snr", "time_density", "time_grid", "two_sided", "ve", "vp", "weights",
]  # fmt: skip
