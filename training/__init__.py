"""Training and sampling: a network and a path, composed."""

from training.fields import Field
from training.objectives import InterpolantLoss
from training.samplers import Likelihood, log_likelihood, sample_ode, sample_sde

__all__ = ["Field", "InterpolantLoss", "Likelihood", "log_likelihood", "sample_ode", "sample_sde"]
