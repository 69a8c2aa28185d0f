"""Probability paths for generative models: write alpha(t) and sigma(t), get all that follows.

Conventions: t = 0 is noise, t = 1 is data; x_t = alpha(t) data + sigma(t) noise.
"""

from interpolants import diffusion, oracle
from interpolants.coefficient import Coefficient
from interpolants.dynamics import Dynamics, ForwardSDE
from interpolants.expression import t
from interpolants.library import by_name, gvp, linear, vp
from interpolants.path import Path
from interpolants.quantities import QUANTITIES

__version__ = "0.1.0"
__all__ = [
    "QUANTITIES", "Coefficient", "Dynamics", "ForwardSDE", "Path",
    "by_name", "diffusion", "gvp", "linear", "oracle", "t", "vp",
]  # fmt: skip
