r"""The log-density of data under a trained network: the instantaneous change of variables along the ODE dx = v dt,

.. math:: \log p_1(x_1) = \log p_0(x_0) - \int_0^1 \nabla \cdot v(x_t, t) \, dt, \qquad p_0 = N(0, \sigma(0)^2),

integrated from the data to the noise together with its path. The divergence is exact, or Hutchinson's estimate from
probes e with E[e e^T] = 1, which is unbiased as long as e is the same at all times of a solve:

.. math:: \nabla \cdot v = E[e^T (\partial v / \partial x) \, e]

Sources: Chen et al. (2018), arXiv:1806.07366; Grathwohl et al. (2019), arXiv:1810.01367; Song et al. (2021),
arXiv:2011.13456, appendix D.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Final, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from interpolants.coefficient import check_interval
from training.brownian import stream
from training.carried import require_carried
from training.fields import Field, Labels, as_labels
from training.odeint import ADAPTIVE_METHODS, MAX_CALLS, odeint
from training.samplers import FIXED_METHODS

PROBES: Final = ("rademacher", "gaussian")

_HALF_RANGE: Final = 127.5  # 0, ..., 255 -> [-1, 1]
_OF_PROBES, _OF_DEQUANTIZATION = 0, 1  # streams of their own: the probes are independent of the noise on an image
_CPU: Final = torch.device("cpu")


class Likelihood(NamedTuple):
    """The log-density of each sample; all of shape (batch,).

    Attributes:
        nats: log p of the data, of the dequantized image where the data are uint8, in the units of training.
        bits_per_dim: -nats / (d log 2), d the dimension of a sample; for uint8 images log2(127.5) more, which makes it
            the code length of the image of whole numbers. See ``dequantize``.
        standard_error: Of nats, from the spread over the probes: 0 for the exact divergence, NaN for a single probe,
            which has no spread. It knows nothing of the solver's error, or of the dequantization's noise.
    """

    nats: Tensor
    bits_per_dim: Tensor
    standard_error: Tensor


def log_likelihood(
    field: Field,
    data: Tensor,
    *,
    y: Labels | None = None,
    probes: int | None = None,
    probe: str = "rademacher",
    seed: int = 0,
    indices: Sequence[int] | None = None,
    method: str = "dopri5",
    num_steps: int = 50,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_calls: int = MAX_CALLS,
    interval: tuple[float, float] | None = None,
    base: Callable[[Tensor], Tensor] | None = None,
) -> Likelihood:
    r"""Log-density of the data under the probability-flow ODE of the network.

    Args:
        field: The trained network on its path, with its guidance; evaluated in the dtype of the data.
        data: Shape (batch, ...): floating point, in the units of training, or uint8 images, which are dequantized.
        y: Labels, shape (batch,), or None.
        probes: None for the exact divergence, one backward pass a dimension; else the number of probes of Hutchinson's
            estimate, one backward pass a probe.
        probe: rademacher (signs) or gaussian. Signs have the smaller variance, 2 \sum_{i \ne j} S_ij^2 of the
            symmetric part S of the Jacobian against 2 \sum_ij S_ij^2, and are exact where S is diagonal.
        seed: Of the probes and of the dequantization. Sample i of a seed has the same ones in whatever batch it stands.
        indices: The i of each sample; None numbers the batch from 0.
        method: Of torchdiffeq. The steps of an adaptive method follow from the whole batch, so a sample's result
            depends on it within the tolerances; that of a fixed-step method does not.
        num_steps: Equal steps of a fixed-step method; an adaptive one takes its own.
        rtol, atol: Tolerances of an adaptive method, on the state and on the integral of the divergence.
        max_calls: Most calls of the network by an adaptive method.
        interval: Times to integrate over; None is all of [0, 1] on which the drift's coefficients are bounded. Where a
            pole of theirs amplifies the network's error beyond use, another has to be given: see
            ``carried_interval``.
        base: Log-density of the noise, the state at t = 0 over sigma(0), as a function of shape (batch, ...) to
            (batch,); None is that of the standard normal law.

    Returns:
        Nats, bits per dimension and the standard error of the nats, each of shape (batch,), in float32 at least.

    The result is a function of ``data``, differentiable where it requires a gradient and grad mode is on: then the
    graph of the whole solve is kept, and ``backward`` reaches the network's parameters too. Else nothing is kept.

    At t = 0 the state is taken to be N(0, sigma(0)^2). Where alpha(0) > 0, as on vp, that is the law that samples are
    drawn from, not that of alpha(0) data + sigma(0) noise: the density is that of the samples.

    Where the interval ends at a t before 1 (see ``Dynamics.interval``), or sigma(1) > 0, the density is that of
    alpha(t) data at t, in the units of the data: of the data with a noise of deviation sigma(t) / alpha(t) on it.

    Raises:
        TypeError: If the data are not a floating point or uint8 tensor.
        ValueError: If another argument is not valid, the network's velocity or its divergence is not finite, or its
            prediction does not carry the ODE over the whole interval and none is given.
    """
    _check_one_of("method", method, (*FIXED_METHODS, *ADAPTIVE_METHODS))
    _check_one_of("probe", probe, PROBES)
    _check_integer("num_steps", num_steps, 1)
    _check_integer("seed", seed, 0)
    if probes is not None:
        _check_integer("probes", probes, 1, " Leave it out, or None, for the exact divergence.")
    _check_integer("max_calls", max_calls, 1)
    for name, tolerance in (("rtol", rtol), ("atol", atol)):
        if not 0.0 < tolerance < math.inf:
            raise ValueError(f"log_likelihood: {name} must be positive and finite, got {tolerance!r}.")
    _check_shape("log_likelihood: data", data)
    indices = _checked_indices("log_likelihood", indices, data)
    offset = 0.0
    if data.dtype == torch.uint8:
        data, offset = dequantize(data, seed=seed, indices=indices), math.log2(_HALF_RANGE)
    elif not data.is_floating_point():
        raise TypeError(
            f"log_likelihood: data must be floating point in the units of training, or uint8 images, got {data.dtype}."
        )
    if not bool(torch.isfinite(data).all()):
        raise ValueError("log_likelihood: data must be finite, got NaN or infinity.")

    path, dynamics, dims = field.path, field.path.ode(field.prediction), data[0].numel()
    if interval is None:
        require_carried("log_likelihood", field, data.detach(), y=y, seed=seed, indices=indices)
    else:
        check_interval(interval, "log_likelihood: interval")
    start, stop = interval or dynamics.interval()
    alpha, std = float(path.alpha(stop)), float(path.sigma(start))
    differentiable = data.requires_grad and torch.is_grad_enabled()

    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))  # no derivative of any kind is to be had within it
        stack.enter_context(torch.set_grad_enabled(differentiable))
        stack.enter_context(field.evaluation_mode())
        if differentiable:  # the fused kernels of attention have no second derivative
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        given = as_labels(y, data)
        labels = None if given is None else given.clone()  # of a tensor made in inference mode, a normal one
        initial = alpha * data.to(torch.promote_types(data.dtype, torch.float32))
        directions = None if probes is None else _probes(probe, probes, seed, indices, initial)

        def augmented(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            with torch.enable_grad():
                x = state[0] if differentiable else state[0].detach().requires_grad_()
                velocity = dynamics.drift(x, field.predict(x.to(data.dtype), t, labels).to(x.dtype), t)
                divergence = _divergence(velocity, x, directions, differentiable)
            _check_finite(velocity, divergence, t)
            return (velocity, divergence) if differentiable else (velocity.detach(), divergence.detach())

        grid = torch.linspace(stop, start, num_steps + 1, dtype=torch.float64, device=data.device)
        options: dict[str, object] = {"grid_constructor": lambda *_: grid}
        if method in ADAPTIVE_METHODS:
            # torchdiffeq's own guess of a first step may probe beyond the end, and would be differentiated.
            options = {"step_t": grid[-1:], "first_step": 0.01 * (stop - start)}
        zeros = initial.new_zeros(1 if directions is None else len(directions), len(data))
        states, integrals = odeint(
            augmented,
            (initial, zeros),
            grid[[0, -1]],
            method=method,
            where="log_likelihood",
            rtol=rtol,
            atol=atol,
            options=options,
            max_calls=max_calls if method in ADAPTIVE_METHODS else None,
        )
        # From data to noise the integral runs against time, which gives it the sign of minus the divergence's.
        integral = integrals[-1]  # (1 or probes, batch)
        at_noise = (base or _standard_normal)(states[-1] / std)
        if at_noise.shape != (len(data),):
            raise ValueError(
                f"log_likelihood: base must return one number a sample, shape {(len(data),)}, got "
                f"{tuple(at_noise.shape)}."
            )
        nats = at_noise - dims * math.log(std) + integral.mean(0) + dims * math.log(alpha)
        return Likelihood(nats, offset - nats / (dims * math.log(2)), _standard_error(integral.detach(), probes))


def dequantize(images: Tensor, *, seed: int = 0, indices: Sequence[int] | None = None) -> Tensor:
    r"""Images of whole numbers k = 0, ..., 255 as continuous data, with uniform noise of one bin's width on them:

    .. math:: x = (k + u - \tfrac12) / 127.5 - 1, \qquad u \sim U[0, 1)

    A density of x makes a probability of k, the integral over its bin. By Jensen's inequality

    .. math:: -\tfrac1d \log_2 P(k) \le E_u\left[-\tfrac1d \log_2 p(x)\right] + \log_2 127.5

    with 1 / 127.5 the width of a bin of x: the bits per dimension of ``log_likelihood`` are, on average over u, an
    upper bound of those of the image. More seeds make the average more precise; they do not tighten the bound.

    Args:
        images: uint8, shape (batch, ...).
        seed: Of the noise. Image i of a seed has the same noise in whatever batch it stands.
        indices: The i of each image; None numbers the batch from 0.

    Returns:
        float32, shape of ``images``, in [-1 - 1/255, 1 + 1/255].

    Raises:
        TypeError: If the images are not a tensor of uint8.
        ValueError: If the shape, the seed or the indices are not valid.

    Source: Theis et al. (2016), arXiv:1511.01844, section 3.1.
    """
    _check_shape("dequantize: images", images)
    if images.dtype != torch.uint8:
        raise TypeError(f"dequantize: images must be of torch.uint8, got {images.dtype}.")
    _check_integer("seed", seed, 0, where="dequantize")
    checked = _checked_indices("dequantize", indices, images)
    streams = [stream(seed, index, _CPU, _OF_DEQUANTIZATION) for index in checked]
    u = torch.stack([torch.rand(images.shape[1:], generator=generator) for generator in streams])
    return (images + (u.to(images.device) - 0.5)) / _HALF_RANGE - 1.0


def _probes(probe: str, count: int, seed: int, indices: Sequence[int], like: Tensor) -> Tensor:
    """Shape (count, batch, d); drawn on the CPU in one dtype, so that they are the same everywhere."""
    shape = count, like[0].numel()
    streams = [stream(seed, index, _CPU, _OF_PROBES) for index in indices]
    if probe == "gaussian":
        drawn = [torch.randn(shape, generator=generator, dtype=torch.float64) for generator in streams]
    else:
        drawn = [torch.randint(0, 2, shape, generator=generator) * 2 - 1 for generator in streams]
    return torch.stack(drawn, dim=1).to(like)


def _standard_normal(noise: Tensor) -> Tensor:
    return -0.5 * noise.square().flatten(1).sum(1) - 0.5 * noise[0].numel() * math.log(2 * math.pi)


def _divergence(velocity: Tensor, x: Tensor, directions: Tensor | None, differentiable: bool) -> Tensor:
    """The exact divergence, shape (1, batch), or e^T J e of each probe e, shape (probes, batch).

    One backward pass after the other: a batched one (is_grads_batched) was no faster, takes the memory of all of them,
    and does not work with every network.
    """
    flat = velocity.flatten(1)

    def pulled_back(output: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(output, x, retain_graph=True, create_graph=differentiable)
        return gradient.flatten(1)

    if directions is not None:
        return torch.stack([(pulled_back((flat * e).sum()) * e).sum(1) for e in directions])
    divergence = torch.zeros_like(flat[:, 0])
    for i in range(flat.shape[1]):
        divergence = divergence + pulled_back(flat[:, i].sum())[:, i]
    return divergence[None]


def _standard_error(integral: Tensor, probes: int | None) -> Tensor:
    """Of the mean over the probes; shape (batch,)."""
    if probes is None or probes == 1:
        return torch.full_like(integral[0], 0.0 if probes is None else math.nan)
    return integral.std(0) / math.sqrt(probes)


def _check_finite(velocity: Tensor, divergence: Tensor, t: Tensor) -> None:
    bad = ~(torch.isfinite(velocity).flatten(1).all(1) & torch.isfinite(divergence).all(0))
    if bool(bad.any()):
        raise ValueError(
            f"log_likelihood: the velocity and its divergence must be finite, got NaN or infinity for {int(bad.sum())} "
            f"of {len(bad)} samples at t = {float(t):.4g}. Check the network's output and its derivative."
        )


def _check_one_of(name: str, value: str, valid: Sequence[str]) -> None:
    if value not in valid:
        raise ValueError(f"log_likelihood: {name} must be one of {', '.join(valid)}, got {value!r}.")


def _check_integer(name: str, value: object, minimum: int, fix: str = "", where: str = "log_likelihood") -> None:
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < minimum:
        raise ValueError(f"{where}: {name} must be an integer of at least {minimum}, got {value!r}.{fix}")


def _check_shape(what: str, data: Tensor) -> None:
    if not isinstance(data, Tensor):
        raise TypeError(f"{what} must be a torch.Tensor, got {type(data).__name__}.")
    if data.dim() < 2 or data.numel() == 0:
        raise ValueError(f"{what} must be of shape (batch, ...) and not empty, got {tuple(data.shape)}.")


def _checked_indices(where: str, indices: Sequence[int] | None, data: Tensor) -> Sequence[int]:
    indices = range(len(data)) if indices is None else indices
    if len(indices) != len(data):
        raise ValueError(f"{where}: indices must have one index a sample, {len(data)}, got {len(indices)}.")
    for index in indices:
        _check_integer("each of indices", index, 0, where=where)
    return indices
