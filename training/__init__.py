"""Training and sampling: a network and a path, composed."""

from training.carried import carried_interval
from training.checkpoint import load_field
from training.fields import Field
from training.fitted_grid import fit_grid
from training.guidance import Guidance
from training.likelihood import Likelihood, dequantize, log_likelihood
from training.objectives import InterpolantLoss
from training.official import official_w, sample_official_ode, sample_official_sde
from training.samplers import ODE_METHODS, SDE_METHODS, encode, sample_ode, sample_sde

__all__ = [
    "ODE_METHODS", "SDE_METHODS", "Field", "Guidance", "InterpolantLoss", "Likelihood", "carried_interval",
    "dequantize", "encode", "fit_grid", "load_field", "log_likelihood", "official_w", "sample_ode",
    "sample_official_ode", "sample_official_sde", "sample_sde",
]  # fmt: skip
