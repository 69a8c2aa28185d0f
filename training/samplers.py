"""From noise to data, and back: every solver on one trained network.

All of them integrate a drift a(t) x + b(t) prediction on the interval where a and b are bounded: [0, 1], unless the
prediction's conversion has a pole at an end, such as that of the noise at t = 0 on the linear path, where a network's
error would be amplified without bound. From an interval that ends short of t = 1 one Euler step leads to t = 1, with
one more call of the network; for an SDE it may be another step, see ``LAST_STEPS``.

ODE methods, with the calls of the network a step and the order of convergence:

    of torchdiffeq                   euler 1, 1; midpoint, heun2 2, 2; heun3 3, 3; rk4 4, 4; adaptive ones;
                                     scipy_solver (LSODA, on the CPU); and in equal steps alone explicit_adams 1, 4 and
                                     implicit_adams, which iterates to the tolerance
    adams2, adams3                   1, 2 and 1, 3    Adams-Bashforth on the velocity
    adams_pc2, adams_pc3             1, 3 and 1, 4    each state corrected once its prediction is known
    ddim                             1, 1             exact for a constant prediction of the data
    exponential2, exponential3       1, 2 and 1, 3    exact for a polynomial prediction of the data in t
    exponential_pc2, exponential_pc3 1, 3 and 1, 4    the same, corrected
    dpm_solver2, dpm_solver3         1, 2 and 1, 3    as exponential2 and 3 in the log-SNR: DPM-Solver++ (2M, 3M), whose
                                                      published weights approximate the integral
    unipc2, unipc3                   1, 3 and 1, 4    the same, corrected

torchdiffeq's explicit_adams is that of four predictions: its default of eleven is not stable, and errs the more the
more steps it takes. The methods of torchsde that are left out are Euler's for a noise that does not depend on the
state, or need its matrix.

Methods of order four make one more step, a short first one. The orders of methods on the data hold where the log-SNR
at t = 1 is finite; where no noise is left at all, a corrected state errs as one that is not, and a polynomial in the
log-SNR does not reach the end: for dpm_solver and unipc take a grid such as "log_snr" from some twenty steps on.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import numpy as np
import torch
import torchsde
from torch import Tensor

from interpolants import exponential, time_grid
from interpolants.diffusion import DiffusionLike
from interpolants.dynamics import Dynamics
from interpolants.exponential import Steps
from interpolants.time_grid import FloatArray, TimeGrid, TimeGridLike
from training import multistep
from training.adaptive import TABLEAUS, integrate_each
from training.brownian import SampleNoise
from training.carried import is_bounded, require_carried
from training.fields import Field, Labels, as_labels
from training.monitor import Callback, Monitor
from training.multistep import Multistep
from training.odeint import ADAPTIVE_METHODS, ADJOINT, GRADIENTS, MAX_CALLS, odeint

FIXED_METHODS: Final = ("euler", "midpoint", "heun2", "heun3", "rk4")
EQUAL_STEPS_METHODS: Final = ("explicit_adams", "implicit_adams")
OWN_STEPS_METHODS: Final = (*ADAPTIVE_METHODS, "scipy_solver")
ODE_METHODS: Final = (*FIXED_METHODS, *EQUAL_STEPS_METHODS, *OWN_STEPS_METHODS, *multistep.ODE_METHODS)
INVERTIBLE_METHODS: Final = (*FIXED_METHODS, "ddim", *ADAPTIVE_METHODS)
"""The methods of ``encode``: their steps do not depend on earlier ones."""
TORCHSDE_METHODS: Final = {"euler": "ito", "srk": "ito", "heun": "stratonovich", "midpoint": "stratonovich"}
"""The amplitude does not depend on the state, so that both calculi agree."""
SDE_METHODS: Final = (*TORCHSDE_METHODS, *multistep.SDE_METHODS, "ancestral")
LAST_STEPS: Final = ("mean", "euler", "tweedie", None)
"""The noise-free last step from the end of an SDE's interval to t = 1: by the SDE's drift; by the ODE's; to the mean of
the data given the state; or none, so that the sample is the state at the end of the interval."""

Interval = tuple[float, float]


def default_ode_method(field: Field) -> str:
    """heun2; unipc2 where the velocity has a pole in the prediction, by which heun2 amplifies its error."""
    return "heun2" if is_bounded(field) else "unipc2"


def sample_ode(
    field: Field,
    noise: Tensor,
    *,
    num_steps: int = 50,
    method: str | None = None,
    grid: TimeGridLike = "uniform",
    y: Labels | None = None,
    rtol: float = 1e-3,
    atol: float = 1e-6,
    per_sample: bool = False,
    interval: Interval | None = None,
    trajectory: bool = False,
    progress: bool = False,
    callback: Callback | None = None,
    state_dtype: torch.dtype | None = None,
    max_calls: int = MAX_CALLS,
    gradient: str | None = None,
) -> Tensor:
    r"""Draw samples by integrating the probability-flow ODE dx = v dt from noise (t = 0) to data (t = 1).

    Args:
        field: The trained network on its path.
        noise: Standard normal, shape (batch, ...); its dtype is that of the samples.
        num_steps: Number of steps of a fixed-step method; an adaptive one chooses its own, and this only sets the
            number of states of its trajectory.
        method: One of ``ODE_METHODS``; the table is in the module. None is that of ``default_ode_method``.
        grid: The times of the steps: from ``interpolants.time_grid``, or its name, or the times themselves, which start
            at the noise; ``num_steps`` is then not used.
        y: Labels, shape (batch,), or None.
        rtol, atol: Tolerances of an adaptive method.
        per_sample: Each sample takes steps of its own, and does not depend on its neighbours: for dopri5 and bosh3.
        interval: Where to integrate; None is where the drift's coefficients are bounded.
        trajectory: Return all states, not only the last. Without it only the current one is kept.
        progress: Show a progress bar.
        callback: Called as callback(step, t, x) at the start of every step, of scipy_solver at every call of the
            network; it must not change x.
        state_dtype: Of the integration: float32, or the wider dtype of the noise, where None.
        max_calls: Most calls of the network by a method that chooses its own steps.
        gradient: None computes none. "steps" keeps the states of all steps, so that ``backward`` reaches the noise and
            the network's parameters; "adjoint", for torchdiffeq's methods but scipy_solver, keeps none of them and
            solves the adjoint ODE in ``backward``, whose gradient errs as its solver does. Source of the latter: Chen
            et al. (2018), arXiv:1806.07366.

    Returns:
        Samples at t = 1, shape (batch, ...), or (num_steps + 1, batch, ...) with ``trajectory``, one state more for a
        method of order four.

    Raises:
        ValueError: If the method or an argument is not valid; or, with the step and its time, if the network's output
            is not finite, an adaptive method finds no step, or it needs more than ``max_calls``.
    """
    y = _checked_inputs(field, "noise", noise, y)
    method = method or default_ode_method(field)
    _check_method(method, ODE_METHODS)
    derived = multistep.ODE_METHODS.get(method)
    dynamics = field.path.ode(field.prediction)
    bounded = dynamics.interval if derived is None else _bounded_conversion(field, derived.space)
    times = _times(field, num_steps, grid, interval, bounded)
    if derived is not None:
        times = derived.refined_start(times)
    if method in EQUAL_STEPS_METHODS and np.ptp(np.diff(times)) > 1e-9:
        raise ValueError(f"grid: must have equal steps for the method {method}, got others. Take adams_pc2.")
    check_tolerances(rtol, atol)
    if per_sample:
        _check_per_sample(field, method, trajectory)
    check_max_calls(max_calls)
    _check_gradient(gradient, method, per_sample)
    monitor = Monitor(None if method in OWN_STEPS_METHODS else len(times) - 1, progress, callback, trajectory)
    with _recording(gradient), field.evaluation_mode(), monitor:
        network = _Network(field, noise, y, monitor, max_calls=max_calls, gradient=gradient)
        x = network.initial(noise, times[0], state_dtype)
        if derived is not None:
            table = derived.steps(field.path, tuple(times.tolist()))
            x = _derived(network, table, derived, x)
        elif per_sample:
            x = _each_by_itself(network, dynamics, x, times, method, rtol, atol)
        else:
            x = _by_torchdiffeq(network, dynamics, x, times, method, rtol, atol)
        samples = monitor.finished(_to_the_data(network, dynamics, x, times[-1])).to(noise.dtype)
    return samples if gradient else samples.clone()  # a tensor of inference mode cannot take part in autograd


def encode(
    field: Field,
    data: Tensor,
    *,
    num_steps: int = 50,
    method: str = "dopri5",
    grid: TimeGridLike = "uniform",
    y: Labels | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-6,
    per_sample: bool = False,
    interval: Interval | None = None,
    progress: bool = False,
    callback: Callback | None = None,
    state_dtype: torch.dtype | None = None,
    max_iterations: int = 100,
    max_calls: int = MAX_CALLS,
) -> Tensor:
    r"""The noise from which ``sample_ode`` with the same arguments (whose defaults differ) draws ``data``.

    An adaptive method integrates the ODE from t = 1 to t = 0, which inverts its flow up to its tolerance. The map
    x_n -> x_{n+1} of a fixed step, or of ddim, is itself inverted, by the iteration x <- x + (x_{n+1} - step(x)) until
    that is below the tolerance, so that the samples are the data however few the steps are; it takes several times the
    calls of the step.

    Args:
        data: Shape (batch, ...).
        method: One of torchdiffeq's, of fixed or adaptive steps, or ddim: methods whose steps know no past.
        rtol, atol: Also of the inversion of fixed steps.
        max_iterations: For each step.
        field, num_steps, grid, y, per_sample, interval, progress, callback, state_dtype, max_calls: As in
            ``sample_ode``.

    Returns:
        Shape (batch, ...), standard normal for data of the law of the network. Where the interval ends before 1, as for
        a predicted data on the linear path, the data stands for the state there, and decoding errs by that step.

    Raises:
        ValueError: As in ``sample_ode``.
            For an adaptive method also if the prediction does not carry the ODE over its whole interval and none is
            given: see ``training.carried``.
        ArithmeticError: If a step cannot be inverted, being too long.
    """
    y = _checked_inputs(field, "data", data, y)
    _check_method(method, INVERTIBLE_METHODS)
    dynamics = field.path.ode(field.prediction)
    bounded = dynamics.interval if method != "ddim" else _bounded_conversion(field, multistep.DDIM.space)
    times = _times(field, num_steps, grid, interval, bounded)
    check_tolerances(rtol, atol)
    check_max_calls(max_calls)
    if max_iterations < 1:
        raise ValueError(f"max_iterations: must be at least 1, got {max_iterations!r}.")
    if per_sample:
        _check_per_sample(field, method, trajectory=False)
    adaptive = method in ADAPTIVE_METHODS
    if adaptive and interval is None and isinstance(grid, str | TimeGrid):
        require_carried("encode", field, data, y=y)
    monitor = Monitor(None if adaptive else len(times) - 1, progress, callback)
    with torch.inference_mode(), field.evaluation_mode(), monitor:
        network = _Network(field, data, y, monitor, max_calls=max_calls)
        x = network.initial(data, None, state_dtype)
        if not adaptive:
            for number, n in enumerate(reversed(range(len(times) - 1))):
                monitor.start_of_step(number, times[n + 1], x)
                step = (
                    _ddim_step(network, times[n : n + 2], number)
                    if method == "ddim"
                    else functools.partial(_fixed_step, network, dynamics, times[n : n + 2], method)
                )
                x = _inverted(step, x, rtol, atol, max_iterations)
        elif per_sample:
            x = _each_by_itself(network, dynamics, x, times[::-1], method, rtol, atol)
        else:
            x = _by_torchdiffeq(network, dynamics, x, times[::-1], method, rtol, atol)
        noise = monitor.finished(x).to(data.dtype) / float(field.path.sigma(times[0]))
    return noise.clone()


def sample_sde(
    field: Field,
    noise: Tensor,
    *,
    w: DiffusionLike | None = None,
    num_steps: int = 250,
    seed: int,
    method: str = "euler",
    eta: float = 1.0,
    grid: TimeGridLike = "uniform",
    y: Labels | None = None,
    indices: Sequence[int] | None = None,
    interval: Interval | None = None,
    last_step: str | None = "mean",
    trajectory: bool = False,
    progress: bool = False,
    callback: Callback | None = None,
    state_dtype: torch.dtype | None = None,
) -> Tensor:
    r"""Draw samples by integrating the SDE from noise (t = 0) to data (t = 1).

    .. math:: dX_t = [v(X_t, t) + \tfrac12 w(t) s(X_t, t)] \, dt + \sqrt{w(t)} \, dW_t

    Args:
        field: The trained network on its path.
        noise: State at t = 0, standard normal, shape (batch, ...).
        w: Squared noise amplitude, data units^2 per unit time: from ``interpolants.diffusion``, or an expression.
        num_steps: Number of steps.
        seed: Seed of the noise. With one method and grid, sample i of a seed has the same noise in every batch.
        method: euler (1 call of the network a step), or srk, heun, midpoint (2 calls), of torchsde; or derived, with 1
            call: exponential1, 2 and 3, exact for a polynomial prediction of the data in t whatever w is;
            sde_dpm_solver2 and 3, the same in the log-SNR; ancestral, which has no w: DDIM with noise, and DDPM.
        eta: Of ``ancestral``: 0 is DDIM, 1 DDPM.
        grid: The times of the steps: from ``interpolants.time_grid``, or its name, or the times themselves, which start
            at the noise; ``num_steps`` is then not used.
        y: Labels, shape (batch,), or None.
        indices: The i of each sample; None numbers the batch from 0.
        interval: Where to integrate; None is where the drift's coefficients are bounded.
        last_step: Last step from an interval that ends at t < 1, one of ``LAST_STEPS``: mean, x + (1 - t) drift; euler,
            x + (1 - t) velocity; tweedie, E[data | x]; each is one more call of the network. None stays at x.
        trajectory, progress, callback, state_dtype: As in ``sample_ode``.

    Returns:
        Samples at t = 1, shape (batch, ...), or (num_steps + 1, batch, ...) with ``trajectory``.

    Raises:
        ValueError: If w is negative anywhere, or makes the drift unbounded on [0, 1] for a network without error where
            the method meets it and no ``interval`` is given; if there is no last step, and another than mean is asked
            for; if another argument is not valid, or the network's output is not finite.
    """
    y = _checked_inputs(field, "noise", noise, y)
    _check_method(method, SDE_METHODS)
    if (w is None) != (method == "ancestral"):
        raise ValueError(
            f"w: must be given, or None for the method ancestral, whose noise is eta's; got {w!r} for {method}."
        )
    check_eta(eta, method)
    derived = multistep.SDE_METHODS.get(method)
    equation = field.path.ode(field.prediction) if w is None else field.path.sde(field.prediction, w=w)
    if method in TORCHSDE_METHODS:
        if interval is None:
            _check_bounded(field, w)
        times = _times(field, num_steps, grid, interval, equation.interval)
    else:
        times = _times(field, num_steps, grid, interval, _bounded_conversion(field, "data"))
    check_last_step(last_step, times[-1])
    monitor = Monitor(len(times) - 1, progress, callback, trajectory)
    with torch.inference_mode(), field.evaluation_mode(), monitor:
        network = _Network(field, noise, y, monitor)
        x = network.initial(noise, times[0], state_dtype)
        stream = SampleNoise(x.flatten(1), range(len(x)) if indices is None else indices, seed)
        if method in TORCHSDE_METHODS:
            x = _by_torchsde(network, equation, x, times, method, stream)
        else:
            table = (
                exponential.ancestral(field.path, times, eta)
                if derived is None
                else derived.steps(field.path, tuple(times.tolist()), w if w is not None else 0)
            )
            x = _derived(network, table, derived or multistep.DDIM, x, stream)
        samples = monitor.finished(_last_step(network, equation, x, times[-1], last_step)).to(noise.dtype)
    return samples.clone()


# The network as the solvers see it


class _Network:
    """The network's predictions for states that are kept in a wider dtype than it works in, under the monitor's eye."""

    def __init__(
        self,
        field: Field,
        like: Tensor,
        y: Tensor | None,
        monitor: Monitor,
        max_calls: int | None = None,
        gradient: str | None = None,
    ) -> None:
        self.field, self.y, self.dtype, self.monitor = field, y, like.dtype, monitor
        self.max_calls, self.gradient = max_calls, gradient

    def initial(self, values: Tensor, start: float | None, state_dtype: torch.dtype | None) -> Tensor:
        """The values in the dtype of the state; noise becomes the state at ``start``, sigma(start) times it."""
        dtype = state_dtype or torch.promote_types(values.dtype, torch.float32)
        if not dtype.is_floating_point:
            raise ValueError(f"state_dtype: must be floating point, got {dtype}.")
        x = (values if self.gradient else values.detach()).to(dtype, copy=True)  # the caller's stays as it is
        return x if start is None else float(self.field.path.sigma(start)) * x

    def parameters(self) -> list[Tensor]:
        """Those of the network that are trained."""
        return [parameter for parameter in self.field.parameters() if parameter.requires_grad]

    def __call__(self, x: Tensor, time: Tensor | float, rows: Tensor | None = None, step: int | None = None) -> Tensor:
        y = self.y if rows is None or self.y is None else self.y[rows]
        state = x if self.field.dtype is not None else x.to(self.dtype)
        prediction = self.field.predict(state, time, y).to(x.dtype)
        self.monitor.prediction(time, prediction, step)
        return prediction


# The three kinds of solvers


def _drift(network: _Network, dynamics: Dynamics, times: FloatArray) -> Callable[..., Tensor]:
    """a x + b prediction at (t, x), of all samples or of some ``rows``; beyond the times, where the guess of a first
    step of an adaptive method may probe, it is that at their end.
    """
    first, last = float(times.min()), float(times.max())

    def drift(t: Tensor, state: Tensor, rows: Tensor | None = None) -> Tensor:
        time = t.clamp(first, last)
        return dynamics.drift(state, network(state, time, rows), time)

    return drift


def _fixed_step(network: _Network, dynamics: Dynamics, times: FloatArray, method: str, x: Tensor) -> Tensor:
    """One step of a fixed method of torchdiffeq."""
    grid = torch.from_numpy(times.copy()).to(x.device)
    after: Tensor = odeint(_drift(network, dynamics, times), x, grid, method=method, where="encode")[-1]
    return after


def _by_torchdiffeq(
    network: _Network, dynamics: Dynamics, x: Tensor, times: FloatArray, method: str, rtol: float, atol: float
) -> Tensor:
    """The state at the last of the times, which may decrease."""
    grid = torch.from_numpy(times.copy()).to(x.device)
    steps, drift = itertools.count(), _drift(network, dynamics, times)

    def starts(t: Tensor, state: Tensor) -> None:
        network.monitor.start_of_step(next(steps), t, state)

    def told(t: Tensor, state: Tensor) -> Tensor:
        starts(t, state)
        return drift(t, state)

    def forth_or_back(function: object, state: object, ends: Tensor) -> Tensor:
        """The grid, in the direction of a solve: the adjoint one goes back."""
        return grid if bool((ends[-1] > ends[0]) == (grid[-1] > grid[0])) else grid.flip(0)

    own_steps = method in OWN_STEPS_METHODS
    options: dict[str, object] = {} if own_steps else {"grid_constructor": forth_or_back}
    if method in ADAPTIVE_METHODS:
        options["step_t"] = grid[-1:]
    if method == "explicit_adams":
        options["max_order"] = 5  # torchdiffeq counts one more
    wanted = grid if own_steps and network.monitor.states is not None else grid[[0, -1]]
    states = odeint(
        told if method == "scipy_solver" else drift,  # scipy tells of no steps
        x,
        wanted,
        method=method,
        where="sampling",
        rtol=rtol,
        atol=atol,
        options=options,
        max_calls=network.max_calls if own_steps else None,
        starts=starts,
        parameters=network.parameters() if network.gradient == ADJOINT else None,
    )
    if own_steps and network.monitor.states is not None:
        network.monitor.states = list(states[:-1])
    last_state: Tensor = states[-1]
    return last_state


def _each_by_itself(
    network: _Network, dynamics: Dynamics, x: Tensor, times: FloatArray, method: str, rtol: float, atol: float
) -> Tensor:
    """The state at the last of the times, which may decrease, by steps of each sample's own."""
    drift, starts = _drift(network, dynamics, times), network.monitor.start_of_step
    return integrate_each(
        drift, x, float(times[0]), float(times[-1]), method, rtol, atol, starts, max_calls=network.max_calls
    )


def _inverted(step: Callable[[Tensor], Tensor], after: Tensor, rtol: float, atol: float, max_iterations: int) -> Tensor:
    """The state that ``step`` leads to ``after``, by fixed-point iteration."""
    x = after
    for _ in range(max_iterations):
        missing = after - step(x)
        x = x + missing
        if bool((missing.abs() <= atol + rtol * after.abs()).all()):
            return x
        if float(missing.abs().max()) > 1e6 * (1.0 + float(after.abs().max())):
            break
    raise ArithmeticError(
        f"encode: a step was not inverted by at most {max_iterations} iterations, {float(missing.abs().max()):.3g} is "
        "left. Take more steps, or an adaptive method."
    )


def _predictions(network: _Network, table: Steps, first: int = 0) -> Callable[[int, Tensor], Tensor]:
    """The network's prediction at the start of step n of the table, in its space; ``first`` is step 0's number."""
    field, times = network.field, table.times.tolist()
    converts = field.prediction != table.space
    a, b = (
        (c(table.times[:-1]).tolist() for c in field.path.conversion(field.prediction, table.space))
        if converts
        else ([], [])
    )

    def predict(n: int, state: Tensor) -> Tensor:
        prediction = network(state, times[n], step=first + n)
        if not converts:
            return prediction.clone()  # it is kept for the next steps, and the network may write to it again
        return torch.add(b[n] * prediction, state, alpha=a[n])

    return predict


def _derived(
    network: _Network, table: Steps, method: Multistep, x: Tensor, stream: SampleNoise | None = None
) -> Tensor:
    times = table.times.tolist()

    def starts(n: int, state: Tensor) -> None:
        network.monitor.start_of_step(n, times[n], state)

    def normal() -> Tensor:
        assert stream is not None, "only the steps of an SDE have noise"
        return stream.normal().view_as(x)

    return multistep.integrate(table, method, x, _predictions(network, table), starts, normal)


def _ddim_step(network: _Network, times: FloatArray, number: int) -> Callable[[Tensor], Tensor]:
    """Step ``number``, from the first of two times to the second."""
    table = multistep.DDIM.steps(network.field.path, tuple(times.tolist()))
    predict, carry, weight = _predictions(network, table, number), float(table.carry[0]), float(table.weights[0, 0])
    return lambda x: carry * x + weight * predict(0, x)


def _by_torchsde(
    network: _Network, equation: Dynamics, x: Tensor, times: FloatArray, method: str, stream: SampleNoise
) -> Tensor:
    steps = torch.tensor([0.0, len(times) - 1.0], dtype=torch.float64)
    unit = _UnitSteps(network, equation, x, times, TORCHSDE_METHODS[method], stream)
    # torchsde draws from torch's default generator to learn shapes: what the caller draws from it is not to change.
    with torch.random.fork_rng([] if x.device.type == "cpu" else [x.device], device_type=x.device.type):
        states = torchsde.sdeint(unit, x.flatten(1), steps, bm=stream, dt=1.0, method=method)
    last: Tensor = states[-1]
    return last.reshape(x.shape)


class _UnitSteps:
    """The SDE in the step's number u, in which every step of the time grid has length exactly 1.

    With h the length of the current step in t, dX = h drift du + sqrt(h) sqrt(w) dW_u. So torchsde, which adds up its
    step lengths, makes the steps of the grid and no extra one for the rounding error of their sum. A stage at the end
    of a step is not the start of the next: the Brownian motion, which is asked first, knows which step it is.
    """

    noise_type = "additive"

    def __init__(
        self, network: _Network, equation: Dynamics, x: Tensor, times: FloatArray, sde_type: str, stream: SampleNoise
    ) -> None:
        self.network, self.equation, self.shape, self.stream = network, equation, x.shape, stream
        self.sde_type, self.times = sde_type, times
        self._stages: dict[float, list[tuple[float, ...]]] = {}
        self._last: tuple[float, Tensor, Tensor] | None = None

    def f(self, u: Tensor, x: Tensor) -> Tensor:
        # torchsde asks for the drift at the start once more, to learn its shape, and some methods for that of a stage
        # again: the network is not called again.
        if self._last is None or self._last[0] != float(u) or self._last[1] is not x:
            step, (time, a, b, _) = self._stage(u)
            state = x.reshape(self.shape)
            if float(u) == step:
                self.network.monitor.start_of_step(step, time, state)
            prediction = self.network(state, time, step=step)
            self._last = float(u), x, torch.add(b * prediction, state, alpha=a).flatten(1)
        return self._last[2]

    def g_prod(self, u: Tensor, x: Tensor, v: Tensor) -> Tensor:
        """The amplitude times v, without the matrix of an additive noise, which would be diagonal."""
        _, (*_, amplitude) = self._stage(u)
        return v * amplitude

    def _stage(self, u: Tensor) -> tuple[int, tuple[float, ...]]:
        """The number of the step, and at u the time, h a, h b and sqrt(h w)."""
        step = self.stream.step
        fraction = float(u) - step
        if fraction not in self._stages:  # of all steps at once: two or three stages make a method
            lengths = np.diff(self.times)
            times = self.times[1:] if fraction == 1.0 else self.times[:-1] + fraction * lengths
            a, b, amplitude = (c(times) for c in (self.equation.a, self.equation.b, self.equation.amplitude))
            columns = (times, lengths * a, lengths * b, np.sqrt(lengths) * amplitude)
            self._stages[fraction] = list(zip(*(column.tolist() for column in columns), strict=True))
        return step, self._stages[fraction][step]


def _to_the_data(network: _Network, equation: Dynamics, x: Tensor, stop: float) -> Tensor:
    """x led on to t = 1 by an Euler step of the drift, where the interval ends before it."""
    if stop == 1.0:
        return x
    return x + (1.0 - stop) * equation.drift(x, network(x, stop), stop)


def _last_step(network: _Network, equation: Dynamics, x: Tensor, stop: float, last_step: str | None) -> Tensor:
    """The sample after one of ``LAST_STEPS`` from x at the time ``stop``."""
    if last_step == "mean" or stop == 1.0:
        return _to_the_data(network, equation, x, stop)
    if last_step is None:
        return x
    path, prediction = network.field.path, network.field.prediction
    if last_step == "euler":
        return _to_the_data(network, path.ode(prediction), x, stop)
    return path.convert(network(x, stop), x, stop, source=prediction, target="data")


# Arguments


def _bounded_conversion(field: Field, space: str) -> Callable[[], Interval]:
    return lambda: field.path.interval(*field.path.conversion(field.prediction, space))


def _times(
    field: Field,
    num_steps: int,
    grid: TimeGridLike,
    interval: Interval | None,
    bounded: Callable[[], Interval],
) -> FloatArray:
    """The times of the steps; ``bounded`` is where the coefficients are."""
    chosen = time_grid.choose(grid)
    if not isinstance(chosen, TimeGrid):
        if interval is not None:
            raise ValueError(f"interval: must be None where the grid is given by its times, got {interval!r}.")
        times, (start, stop) = chosen, bounded()
        if times[0] < start or times[-1] > stop:
            raise ValueError(
                f"grid: must lie in [{start:.6g}, {stop:.6g}], where the coefficients of the {field.prediction} are "
                f"bounded, got times from {times[0]:.6g} to {times[-1]:.6g}."
            )
        return times
    return chosen.times(field.path, num_steps, bounded() if interval is None else interval)


def _check_bounded(field: Field, w: DiffusionLike | None) -> None:
    """Raise unless the drift of an exact velocity is bounded: a pole of w score at an end is no error of a network."""
    assert w is not None, "torchsde's methods have one"
    try:
        field.path.sde("velocity", w=w).require_finite()
    except ValueError as error:
        derived = ", ".join(multistep.SDE_METHODS)
        raise ValueError(f"{error} Or pass interval=, or take {derived}, which solve any w without it.") from None


def check_tolerances(rtol: float, atol: float) -> None:
    """Raise ValueError unless an adaptive method can reach them."""
    if not (0 <= rtol < math.inf and 0 <= atol < math.inf and rtol + atol > 0):
        raise ValueError(f"rtol, atol: must be finite and >= 0, and not both 0, got {rtol!r}, {atol!r}.")


@contextmanager
def _recording(gradient: str | None) -> Iterator[None]:
    """Whether a gradient can be had of what is computed; also where the caller has switched that off."""
    with torch.inference_mode(gradient is None), torch.set_grad_enabled(gradient is not None):
        yield


def check_eta(eta: float, method: str) -> None:
    """Raise ValueError where the method takes none."""
    if eta != 1.0 and method != "ancestral":
        raise ValueError(f"eta: must be 1 for the method {method}, got {eta!r}; it is for ancestral. The noise is w's.")


def check_last_step(last_step: str | None, stop: float) -> None:
    """Raise ValueError unless it is one of LAST_STEPS, and 'mean' if the interval ends at t = 1."""
    if last_step not in LAST_STEPS:
        raise ValueError(f"last_step: must be one of {', '.join(map(str, LAST_STEPS))}, got {last_step!r}.")
    if stop == 1.0 and last_step != "mean":
        raise ValueError(
            f"last_step: must be 'mean' where the interval ends at t = 1, got {last_step!r}. Pass an interval "
            "that ends before, such as (0, 0.96)."
        )


def check_max_calls(max_calls: int) -> None:
    """Raise ValueError unless it is a number of calls."""
    if max_calls < 1:
        raise ValueError(f"max_calls: must be at least 1, got {max_calls!r}.")


def _check_gradient(gradient: str | None, method: str, per_sample: bool) -> None:
    if gradient is None:
        return
    if gradient not in GRADIENTS:
        raise ValueError(f"gradient: must be None or one of {', '.join(GRADIENTS)}, got {gradient!r}.")
    if per_sample or method == "scipy_solver":
        raise ValueError(f"gradient: must be None with per_sample and for scipy_solver, got {gradient!r}.")
    if gradient == ADJOINT and method in multistep.ODE_METHODS:
        raise ValueError(f"gradient: must be 'steps' for the method {method}, got 'adjoint'; that is torchdiffeq's.")


def _check_per_sample(field: Field, method: str, trajectory: bool) -> None:
    if isinstance(field.guidance.y_negative, Tensor) and field.guidance.y_negative.dim():
        raise ValueError("per_sample: must be False with one guidance.y_negative a sample. Give one class for all.")
    if method not in TABLEAUS:
        raise ValueError(f"per_sample: must be False for the method {method!r}; it is for {', '.join(TABLEAUS)}.")
    if trajectory:
        raise ValueError("trajectory: must be False with per_sample, whose samples are at different times.")


def _checked_inputs(field: Field, name: str, values: Tensor, y: Labels | None) -> Tensor | None:
    """The labels as a tensor."""
    if not isinstance(field, Field):
        raise TypeError(f"field: must be a training.Field, got {type(field).__name__}. Field(model, path) is one.")
    if not isinstance(values, Tensor):
        raise TypeError(f"{name}: must be a torch.Tensor, got {type(values).__name__}.")
    if not values.is_floating_point() or values.dim() < 2 or len(values) == 0:
        shape = tuple(values.shape)
        raise ValueError(f"{name}: must be floating point of shape (batch, ...), got {values.dtype} of shape {shape}.")
    labels = as_labels(y, values)
    if labels is not None and len(labels) != len(values):
        raise ValueError(f"y: must have one label a sample, {len(values)}, got {len(labels)}.")
    return labels


def _check_method(method: str, valid: Sequence[str]) -> None:
    if method not in valid:
        raise ValueError(f"method: must be one of {', '.join(valid)}, got {method!r}.")
