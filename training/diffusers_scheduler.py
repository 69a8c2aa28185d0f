r"""A scheduler of diffusers for any path: the steps of training/samplers.py, one call of ``step`` at a time.

Time here runs from noise at t = 0 to data at t = 1. What a network is asked with, ``timesteps``, is a linear function
of it that the configuration states: "t" for the networks of this project, "1000*(1 - t)" for those of flow matching in
diffusers, and "1000*(1 - t) - 1" for those of DDPM, whose step i = 0, ..., 999 is at t = 1 - (i + 1) / 1000.

A prediction is one of ours, or by its name in diffusers a row (of data, of noise) of its own:

====================  ==========================================
velocity, score, ...  see interpolants.quantities
epsilon, sample       the noise, the data
v_prediction          (-sigma, alpha), Salimans & Ho (2022), arXiv:2202.00512, appendix D
flow_prediction       (-1, 1): noise - data, minus the velocity of the linear path
====================  ==========================================

Levels of noise, ``sigmas``, are sigma / alpha for epsilon, sample and v_prediction, and sigma / (alpha + sigma) for all
others: see training/diffusers_sigmas.py.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import sympy as sp
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin, SchedulerOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

import interpolants
from interpolants import Coefficient, Path, exponential, time_grid
from interpolants.dynamics import Dynamics
from interpolants.exponential import Steps
from interpolants.expression import t, to_expr
from interpolants.library import from_texts
from interpolants.quantities import QUANTITIES, Row, between, row
from interpolants.time_grid import FloatArray, TimeGrid
from training import multistep
from training.diffusers_sigmas import TIME_SHIFTS, shift_factor, shifted, times_at
from training.fields import require_data_at_one
from training.multistep import Multistep, Stepper

EULER: Final = Multistep("velocity", "t", 1)
"""On the velocity; HEUN is the same with each step's end predicted, corrected and predicted again."""
HEUN: Final = Multistep("velocity", "t", 1, corrected=True)
ODE_METHODS: Final = {"euler": EULER, "heun2": HEUN, **multistep.ODE_METHODS}
SDE_METHODS: Final = {"euler": EULER, **multistep.SDE_METHODS}
METHODS: Final = (*dict.fromkeys((*ODE_METHODS, *SDE_METHODS)), "ancestral")

FROM_DIFFUSERS: Final = {"epsilon": "noise", "sample": "data", "v_prediction": "data", "flow_prediction": "velocity"}
"""What diffusers calls a prediction, and the quantity that it is turned into first."""
SHIFTING: Final = (
    *("shift", "use_dynamic_shifting", "time_shift_type", "shift_terminal"),
    *("base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len"),
)
"""The configuration by which a flow-matching pipeline computes ``mu``, and the scheduler applies it."""
NO_BETAS: Final = (
    "The path of a PathScheduler (it has alpha and sigma instead of betas: use a pipeline that keeps its scheduler, "
    "such as DDPMPipeline)"
)
"""The ``beta_schedule`` of our configuration. DDIMPipeline and others build a scheduler of their own from the
configuration of any other. That needs betas, and refuses an unknown schedule: "... is not implemented for ...".
"""
DEGREE: Final = 7
"""Of the polynomial through a schedule of DDPM."""
FIT_TOLERANCE: Final = 1e-4
"""Of its values: a thousand factors in float32 may err by so much."""

Generator = torch.Generator | list[torch.Generator] | None


class PathScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]
    r"""The steps from noise to data on a path, in the manner of a scheduler of diffusers.

    Its steps are those of ``sample_ode`` and ``sample_sde`` with the same method and grid, up to rounding. A state is
    x_t itself: ``scale_model_input`` changes nothing, and a sample starts as ``init_noise_sigma`` times normal noise.

    Args:
        alpha, sigma: The path, as text in t.
        parameters: Numbers for the other names in the two.
        prediction_type: What the network predicts: velocity, score, noise or data; or epsilon, sample, v_prediction or
            flow_prediction as in diffusers.
        method: Of the ODE: euler, heun2 (two calls of the network a step, and ``timesteps`` has each time twice), or a
            derived one, one call a step, of the table in training/samplers.py. With w euler, exponential1, 2 and 3,
            sde_dpm_solver2 and 3. Or ancestral.
        w: Squared noise amplitude, as text: a name of ``interpolants.diffusion``, or an expression. None is the ODE.
        eta: Of ``ancestral``: 0 is DDIM, 1 DDPM.
        grid: A name of ``interpolants.time_grid``.
        timestep: What the network is asked with, linear in t.
        shift: Factor of sigma / alpha at every time of ``grid`` or ``sigmas``; 1 leaves them.
        use_dynamic_shifting: Whether the factor is a function of ``mu`` instead, which the pipeline computes from the
            size of the image.
        time_shift_type: The function: "exponential" (e^mu) or "linear" (mu).
        shift_terminal: Noise level that the last of ``sigmas`` is stretched to, after the shift; None leaves it.
        base_shift, max_shift, base_image_seq_len, max_image_seq_len: Numbers from which the pipeline computes ``mu``.

    Attributes:
        path: The path.
        prediction: The quantity that the steps are made of: of epsilon the noise, of sample and v_prediction the data,
            of flow_prediction the velocity.
        timesteps: What the network is asked with at each call, float32; None before ``set_timesteps``.
        times: The same in t, with the end of the last step, an array of float64.
        order: Number of ``timesteps`` per step of ``num_inference_steps``.
        config: The arguments, and ``num_train_timesteps``, the length of the range of ``timestep``.

    Raises:
        ValueError: If the two functions are no path or an argument is not valid.
    """

    order = 1
    _compatibles: ClassVar[list[str]] = []  # no scheduler of diffusers has such a configuration

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        alpha: str = "t",
        sigma: str = "1 - t",
        parameters: dict[str, float] | None = None,
        prediction_type: str = "velocity",
        method: str = "adams_pc2",
        w: str | None = None,
        eta: float = 1.0,
        grid: str = "uniform",
        timestep: str = "t",
        shift: float = 1.0,
        use_dynamic_shifting: bool = False,
        time_shift_type: str = "exponential",
        shift_terminal: float | None = None,
        base_shift: float | None = 0.5,
        max_shift: float | None = 1.15,
        base_image_seq_len: int = 256,
        max_image_seq_len: int = 4096,
    ) -> None:
        self.path = from_texts(alpha, sigma, parameters or {}, "PathScheduler: parameters")
        require_data_at_one(self.path, "PathScheduler")
        valid = (*QUANTITIES, *FROM_DIFFUSERS)
        _check_one_of("prediction_type", prediction_type, valid)
        _check_method(method, w, eta)
        self.method, self.w, self.eta = method, w, eta
        methods = ODE_METHODS if w is None else SDE_METHODS
        self._derived = methods.get(method, multistep.DDIM)
        self.prediction = FROM_DIFFUSERS.get(prediction_type, prediction_type)
        self._from_output = tuple(map(Coefficient, _row_to_quantity(prediction_type, self.prediction, self.path)))
        time_grid.choose(grid)
        self._zero, self._slope = _linear(timestep)
        length = abs(self._slope)
        self.register_to_config(
            num_train_timesteps=int(length) if length.is_integer() else length, beta_schedule=NO_BETAS
        )
        self._level_is_ratio = prediction_type in ("epsilon", "sample", "v_prediction")
        _check_one_of("time_shift_type", time_shift_type, tuple(TIME_SHIFTS))
        if shift != 1.0 or use_dynamic_shifting or shift_terminal:
            self._check_shift(shift, shift_terminal)
        self.order = 2 if method == "heun2" else 1
        if w is not None and method == "euler":
            self.path.sde("velocity", w=w).require_finite()
        prediction = self.prediction
        self._equation = self.path.ode(prediction) if w is None else self.path.sde(prediction, w=w)
        self.times: FloatArray | None = None
        self.timesteps: Tensor | None = None
        self.num_inference_steps: int | None = None
        self._forget()

    def _forget(self) -> None:
        self._begin_index: int | None = None
        self._step_index: int | None = None
        self._first = 0
        self._stages: list[Stage] = []

    @classmethod
    def from_config(cls, config: Any, **changes: Any) -> Any:
        """The scheduler of a configuration of this class, with ``changes`` to it.

        Raises:
            ValueError: If it is another scheduler's, of which diffusers would take the names that both have.
        """
        if "alpha" not in config:
            raise ValueError(
                "PathScheduler.from_config: config must be of a PathScheduler, got one without alpha. Of another "
                "scheduler PathScheduler.like(scheduler) takes the path."
            )
        # diffusers takes positional arguments for defaults, and would leave the path out. The other two are derived.
        left_out = ("_use_default_values", "num_train_timesteps", "beta_schedule")
        config = {name: value for name, value in config.items() if name not in left_out}
        return super().from_config(config, **changes)

    @classmethod
    def from_path(cls, path: Path, **config: Any) -> PathScheduler:
        """The scheduler of a path; ``config`` are the other arguments of the class."""
        text = path.to_text()
        scheduler: PathScheduler = cls(text["alpha"], text["sigma"], **config)
        return scheduler

    @classmethod
    def like(cls, scheduler: Any, **config: Any) -> PathScheduler:
        """The scheduler for the network that one of diffusers is for: its path, its prediction and its times.

        Args:
            scheduler: One with ``alphas_cumprod``, as for DDPM, or a FlowMatchEulerDiscreteScheduler, whose shift is
                kept. Its spacing of the times and its clipping are not: choose ``grid``, or pass ``timesteps`` or
                ``sigmas`` to ``set_timesteps``.
            config: Other arguments of the class: method, w, eta, grid, shift.

        Raises:
            TypeError: If it is of neither kind.
            ValueError: If its ``alphas_cumprod`` are no smooth path, see ``ddpm_path``, or not of its betas, or if it
                is set to other times or another path than its kind has.
        """
        for name, usual in (("use_flow_sigmas", False), ("timestep_type", "discrete"), ("invert_sigmas", False)):
            if (got := getattr(scheduler, "config", {}).get(name, usual)) != usual:
                raise ValueError(f"PathScheduler.like: {name} must be {usual!r}, got {got!r}. Take from_path.")
        if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
            path, prediction, offset = interpolants.linear(), "flow_prediction", ""
            number = scheduler.config.num_train_timesteps
            shifting = {name: scheduler.config[name] for name in SHIFTING if name in scheduler.config}
            config = {**shifting, "shift": scheduler.shift, **config}
        elif hasattr(scheduler, "alphas_cumprod"):
            products = torch.cumprod(1.0 - scheduler.betas.double(), 0)  # in float32 the first of sigma lose digits
            if not torch.allclose(products.float(), scheduler.alphas_cumprod.cpu().float(), rtol=1e-3):
                raise ValueError(
                    "PathScheduler.like: alphas_cumprod must be those of the betas, got others. Take from_path."
                )
            path, prediction, offset = ddpm_path(products), scheduler.config.prediction_type, " - 1"
            number = len(products)
        else:
            raise TypeError(
                "PathScheduler.like: scheduler must have alphas_cumprod or be a FlowMatchEulerDiscreteScheduler, got "
                f"{type(scheduler).__name__}. from_path takes any path."
            )
        return cls.from_path(path, prediction_type=prediction, timestep=f"{number}*(1 - t){offset}", **config)

    # The times

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | torch.device | None = None,
        timesteps: Sequence[float] | Tensor | None = None,
        sigmas: Sequence[float] | Tensor | None = None,
        mu: float | None = None,
    ) -> None:
        """Choose the steps; forgets those that were made.

        Args:
            num_inference_steps: Steps over the grid. A method of order four makes one more, a short first one, and
                where the data end is a pole of the network's prediction a last step of Euler leads on to it. With
                timesteps or sigmas it must be their number.
            device: Of ``timesteps``.
            timesteps: The times themselves, as the network is asked, without the last, which is the data.
            sigmas: Noise levels (defined at the head of this file), decreasing, before the shift. A last 0, the data,
                may be left out.
            mu: Argument of dynamic shifting; ignored without it, as pipelines pass it to any scheduler.

        Raises:
            ValueError: Unless exactly one of the three is given, and is valid.
        """
        given = [values for values in (timesteps, sigmas) if values is not None]
        if len(given) + (num_inference_steps is not None and not given) != 1:
            raise ValueError(
                "set_timesteps: one of num_inference_steps, timesteps and sigmas must be given, got "
                f"{num_inference_steps!r}, {timesteps!r} and {sigmas!r}."
            )
        if given and num_inference_steps not in (None, len(given[0])):
            raise ValueError(
                f"set_timesteps: num_inference_steps must be the number of values, {len(given[0])}, got "
                f"{num_inference_steps}. Leave it out."
            )
        start, stop = self._interval()
        if timesteps is not None:
            times = self._through(self._time(_array(timesteps)), "timesteps")
        elif sigmas is not None:
            levels, terminal = _array(sigmas), self.config.shift_terminal
            times = times_at(self.path, levels, ratio=self._level_is_ratio, factor=self._factor(mu), terminal=terminal)
            times = self._through(times, "sigmas")
        else:
            assert num_inference_steps is not None, "checked above"
            grid = time_grid.choose(self.config.grid)
            assert isinstance(grid, TimeGrid), "it was chosen by its name"
            times = shifted(grid, self._factor(mu)).times(self.path, num_inference_steps, (start, stop))
        times = self._derived.refined_start(times)
        # A pipeline that begins in the middle counts in num_inference_steps, or in timesteps if it passed those.
        self.order = 2 if self.method == "heun2" and num_inference_steps is not None else 1
        self.num_inference_steps = len(times) - 1
        asked = np.repeat(times, 2)[1:-1] if self.method == "heun2" else times[:-1]
        if stop < 1.0:
            asked, times = np.append(asked, stop), np.append(times, 1.0)
        self._ends_short = stop < 1.0
        self.times = times
        self.timesteps = torch.from_numpy(self._zero + self._slope * asked).to(device=device, dtype=torch.float32)
        self._forget()

    def _through(self, given: FloatArray, name: str) -> FloatArray:
        """The given times, followed by the end."""
        start, stop = self._interval()
        times = time_grid.as_times([*given, stop], f"set_timesteps: the times of {name}, and the end")
        if times[0] < start:
            raise ValueError(
                f"set_timesteps: {name} must lie where the coefficients of the {self.prediction} are bounded, "
                f"t >= {start:.6g}, got {times[0]:.6g}."
            )
        return times

    def _factor(self, mu: float | None) -> float:
        """The factor of sigma / alpha."""
        config = self.config
        return shift_factor(mu, config.time_shift_type) if config.use_dynamic_shifting else float(config.shift)

    def _check_shift(self, shift: float, shift_terminal: float | None) -> None:
        if self._level_is_ratio or float(self.path.alpha(0.0)) != 0.0:
            raise ValueError(
                "PathScheduler: shift, use_dynamic_shifting and shift_terminal must be left at their defaults for "
                "epsilon, sample and v_prediction, and on a path that does not start with pure noise, got shift "
                f"{shift!r} and shift_terminal {shift_terminal!r}. Choose a grid."
            )
        if not (0 < shift < math.inf and 0 <= (shift_terminal or 0.0) < 1):
            raise ValueError(
                "PathScheduler: shift must be positive and finite, and shift_terminal in [0, 1), got "
                f"{shift!r} and {shift_terminal!r}."
            )

    def _interval(self) -> tuple[float, float]:
        """Where the coefficients of the steps are bounded."""
        if self.w is not None and self.method == "euler":
            return self._equation.interval()
        return self.path.interval(*self.path.conversion(self.prediction, self._derived.space))

    def _time(self, timestep: Any) -> Any:
        return (timestep - self._zero) / self._slope

    @property
    def init_noise_sigma(self) -> float:
        """The standard deviation sqrt(alpha^2 + sigma^2) of x_t at the first of the times, for data of variance 1."""
        first = 0.0 if self.times is None else float(self.times[0])
        return math.hypot(float(self.path.alpha(first)), float(self.path.sigma(first)))

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """The sample itself: the network sees x_t.

        Args:
            sample: The state.
            timestep: Not used.
        """
        return sample

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: float | Tensor) -> Tensor:
        """x_t = alpha data + sigma noise at ``timesteps``, in the units of the network, scalar or of shape (batch,) or
        (1,).
        """
        time = self._time(torch.as_tensor(timesteps, dtype=torch.float64)).to(noise.device)
        return self.path.interpolate(original_samples, noise, time.reshape(()) if time.numel() == 1 else time)

    def scale_noise(self, sample: Tensor, timestep: float | Tensor, noise: Tensor) -> Tensor:
        """``add_noise``, with the order of arguments that flow-matching pipelines use."""
        return self.add_noise(sample, noise, timestep)

    # The steps

    @property
    def step_index(self) -> int | None:
        """The number of the call of the network that comes next; None before the first."""
        return self._step_index

    @property
    def begin_index(self) -> int | None:
        """Where to begin; None is at the timestep of the first call."""
        return self._begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Begin at a later one of ``timesteps``, as from an image with noise.

        Raises:
            ValueError: If it is negative.
        """
        if begin_index < 0:
            raise ValueError(f"PathScheduler.set_begin_index: begin_index must be at least 0, got {begin_index!r}.")
        self._begin_index = begin_index

    def step(
        self,
        model_output: Tensor,
        timestep: float | Tensor,
        sample: Tensor,
        generator: Generator = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[Tensor]:
        """The next state from the network's prediction at this one, in at least float32.

        Args:
            model_output: What the network returned for ``sample`` at ``timestep``, shape (batch, ...).
            timestep: One of ``timesteps``; read at the first call alone, from which the steps follow in order.
            sample: The state that the step before returned, shape (batch, ...).
            generator: Of the noise of w or eta: one, or one a sample.
            return_dict: Return an object with ``prev_sample``, the state, not a tuple of it.

        Raises:
            ValueError: If the shapes differ, ``timestep`` is none of ``timesteps``, or no step is left.
        """
        if model_output.shape != sample.shape:
            raise ValueError(
                f"PathScheduler.step: model_output must have the shape of sample, {tuple(sample.shape)}, got "
                f"{tuple(model_output.shape)}. Of a network that also predicts variances pass the first half."
            )
        if self._step_index is None:
            self._begin(timestep, sample)
        assert self._step_index is not None, "set where the steps begin"
        assert self.timesteps is not None, "needed there"
        if self._step_index >= len(self.timesteps):
            raise ValueError("PathScheduler.step: must follow set_timesteps, got no step that is left. Call it again.")
        x = sample.to(torch.promote_types(sample.dtype, torch.float32))
        output = model_output.to(x.dtype)

        def normal() -> Tensor:
            numbers: Tensor = randn_tensor(x.shape, generator=generator, device=x.device, dtype=x.dtype)
            return numbers

        state = self._stages[self._step_index - self._first](output, x, normal).to(sample.dtype)
        self._step_index += 1
        return SchedulerOutput(prev_sample=state) if return_dict else (state,)

    def _begin(self, timestep: float | Tensor, sample: Tensor) -> None:
        if self.timesteps is None or self.times is None:
            raise ValueError("PathScheduler.step: must follow set_timesteps, got none.")
        index = self._begin_index
        if index is None:
            # The last of those that are equal: heun2 asks for the same time at the end of a step and at a start.
            found = (self.timesteps == torch.as_tensor(timestep, device=self.timesteps.device)).nonzero()
            if len(found) == 0:
                raise ValueError(f"PathScheduler.step: timestep must be one of {self.timesteps}, got {timestep!r}.")
            index = int(found[-1])
        if index == 0:
            self._check_start(sample)
        self._step_index = self._first = index
        times = self.times[(index + 1) // 2 if self.method == "heun2" else index :]
        inner = times[:-1] if self._ends_short else times
        self._stages = self._stages_over(inner) if len(inner) > 1 else []
        if self.method == "heun2" and index % 2 == 1:  # the end of a step that was not begun
            self._stages.insert(0, _unchanged)
        if self._ends_short:
            closing = _euler_steps(self._equation, self.prediction, times[-2:], noise=False)
            self._stages += self._calls(closing, EULER)

    def _check_start(self, sample: Tensor) -> None:
        """Refuse a state that is clearly unscaled noise: many pipelines start from it without ``init_noise_sigma``."""
        first, scale = float(self.times[0]) if self.times is not None else 0.0, self.init_noise_sigma
        noise_alone = float(self.path.alpha(first)) < 0.1 * float(self.path.sigma(first))
        # Each size is then at least eight standard errors from the midpoint of the two, in the log.
        if noise_alone and abs(math.log(scale)) * math.sqrt(2 * sample.numel()) > 16:
            found = float(sample.float().square().mean().sqrt())
            if found > 0 and abs(math.log(found)) < abs(math.log(found / scale)):
                raise ValueError(
                    f"PathScheduler.step: sample must start as init_noise_sigma = {scale:.6g} times normal noise, got "
                    f"a standard deviation of {found:.3g}. If the pipeline does not scale its noise, pass scaled "
                    "latents."
                )

    def _stages_over(self, times: FloatArray) -> list[Stage]:
        """What is made of each prediction of the network."""
        if self.method == "ancestral":
            table = exponential.ancestral(self.path, times, self.eta)
        elif self.w is not None and self.method == "euler":
            table = _euler_steps(self._equation, self.prediction, times)
        else:
            table = self._derived.steps(self.path, tuple(times.tolist()), 0 if self.w is None else self.w)
        return self._calls(table, self._derived)

    def _calls(self, table: Steps, method: Multistep) -> list[Stage]:
        heun = method == HEUN  # by value: a copy of the scheduler has a copy of the method
        times = table.times if heun else table.times[:-1]
        (a, b), (c, d) = (
            (coefficients[0](times), coefficients[1](times))
            for coefficients in (self.path.conversion(self.prediction, table.space), self._from_output)
        )
        # a x + b (c x + d output)
        calls = _Calls(Stepper(table, method), (a + b * c).tolist(), (b * d).tolist(), heun)
        makes = (calls.step, calls.correction) if heun else (calls.step,)
        return [functools.partial(make, n) for n in range(len(table.carry)) for make in makes]


@dataclass
class _Calls:
    """What is made of each prediction of the network.

    No closures: a copy of the scheduler has its own history of predictions, and can be pickled.
    """

    stepper: Stepper
    of_state: list[float]
    of_output: list[float]
    heun: bool

    def _observe(self, n: int, output: Tensor, x: Tensor) -> None:
        self.stepper.observe(torch.add(self.of_output[n] * output, x, alpha=self.of_state[n]))

    def step(self, n: int, output: Tensor, x: Tensor, normal: Callable[[], Tensor]) -> Tensor:
        self._observe(n, output, x)
        return self.stepper.advance(x if self.heun else self.stepper.corrected(x), normal)

    def correction(self, n: int, output: Tensor, x: Tensor, normal: Callable[[], Tensor]) -> Tensor:
        self._observe(n + 1, output, x)
        return self.stepper.recombined()


def _unchanged(output: Tensor, x: Tensor, normal: Callable[[], Tensor]) -> Tensor:
    return x


Stage = Callable[[Tensor, Tensor, Callable[[], Tensor]], Tensor]
"""The next state from the output, the state, and normal numbers."""


def ddpm_path(alphas_cumprod: Sequence[float] | Tensor) -> Path:
    r"""The variance-preserving path of DDPM: alpha^2 = ``alphas_cumprod[i]`` at t = 1 - (i + 1) / N, for i below N.

    log alpha^2 is a polynomial in 1 - t, fitted. For rates beta that are a polynomial in i, such as the linear and the
    scaled linear ones, log alphas_cumprod, the sum of -beta - beta^2 / 2 - ..., is one up to the terms that high powers
    of beta make negligible: the usual ones are met to 1e-7.

    Args:
        alphas_cumprod: The products of 1 - beta, decreasing in (0, 1), shape (N,).

    Raises:
        ValueError: If they are not of this kind, or the fit is off by more than 1e-4 of a value. Of squaredcos_cap_v2
            ``interpolants.cosine()`` is the path.
    """
    values = np.asarray(torch.as_tensor(alphas_cumprod).cpu(), dtype=np.float64)
    if values.ndim != 1 or len(values) <= DEGREE or not ((values > 0) & (values < 1)).all():
        raise ValueError(
            f"ddpm_path: alphas_cumprod must be more than {DEGREE} numbers inside (0, 1), got shape {values.shape}, "
            f"from {values.max(initial=0.0):.6g} to {values.min(initial=1.0):.6g}. A last one of 0 is no polynomial."
        )
    tau = np.arange(1, len(values) + 1) / len(values)
    powers, logarithm = tau[:, None] ** np.arange(1, DEGREE + 1), np.log(values)
    # In relative error, since next to the data -log alpha^2 is sigma^2.
    found = np.linalg.lstsq(powers / logarithm[:, None], np.ones_like(tau), rcond=None)[0]
    error = np.abs(np.expm1(powers @ found - logarithm)).max()
    if error > FIT_TOLERANCE:
        raise ValueError(
            f"ddpm_path: alphas_cumprod must be the exponential of a polynomial, got an error of {error:.3g}. Of the "
            "schedule squaredcos_cap_v2 interpolants.cosine() is the path."
        )
    log_alpha_squared = sum(
        sp.Rational(c).limit_denominator(10**6) * (1 - t) ** k for k, c in enumerate(found, start=1)
    )
    return Path(sp.exp(log_alpha_squared / 2), sp.sqrt(1 - sp.exp(log_alpha_squared)), name="ddpm")


def _euler_steps(equation: Dynamics, prediction: str, times: FloatArray, noise: bool = True) -> Steps:
    """x + h (a x + b prediction) + sqrt(h w) z."""
    h = np.diff(times)
    a, b, amplitude = (c(times[:-1]) for c in (equation.a, equation.b, equation.amplitude))
    # Never quite 0: each step draws, as those of sample_sde do, so that the later ones have the same noise.
    of_noise = np.maximum(np.sqrt(h) * amplitude, np.finfo(float).tiny) if noise else np.zeros_like(h)
    return Steps(times, prediction, 1.0 + h * a, (h * b)[:, None], of_noise, np.zeros((len(h), 2)))


def _array(values: Sequence[float] | Tensor) -> FloatArray:
    return np.asarray(torch.as_tensor(values).cpu(), dtype=np.float64)


def _row_to_quantity(prediction_type: str, quantity: str, path: Path) -> Row:
    """The c and d of quantity = c x + d output."""
    alpha, sigma = path.alpha.expr, path.sigma.expr
    named = {"v_prediction": (-sigma, alpha), "flow_prediction": (-sp.Integer(1), sp.Integer(1))}
    target = row(quantity, alpha, sigma)
    return between(named.get(prediction_type, target), target, alpha, sigma)


def _linear(timestep: str) -> tuple[float, float]:
    """Its value at t = 0 and its slope."""
    expr = to_expr(timestep, where="timestep")
    slope = sp.expand(sp.diff(expr, t))
    if slope.has(t) or slope == 0:
        raise ValueError(
            f"PathScheduler: timestep must be linear in t, got {timestep!r}. 't' is the time itself, "
            "'1000*(1 - t) - 1' the steps of DDPM."
        )
    return float(expr.subs(t, 0)), float(slope)


def _check_method(method: str, w: str | None, eta: float) -> None:
    _check_one_of("method", method, METHODS)
    if w is not None:
        _check_one_of("method with w", method, tuple(SDE_METHODS))
    elif method != "ancestral":
        _check_one_of("method without w", method, tuple(ODE_METHODS))
    if not 0.0 <= eta <= 1.0 or (eta != 1.0 and method != "ancestral"):
        raise ValueError(
            f"PathScheduler: eta must be in [0, 1] for ancestral and 1 for others, got {eta!r} for {method}."
        )


def _check_one_of(argument: str, value: str, valid: Sequence[str]) -> None:
    if value not in valid:
        raise ValueError(f"PathScheduler: {argument} must be one of {', '.join(valid)}, got {value!r}.")
