"""A network on its path: any quantity of the path, at any state and time."""

from __future__ import annotations

import math
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from interpolants import Coefficient, Path, match_snr
from interpolants.coefficient import at
from interpolants.quantities import check_quantity
from training import hub
from training.guidance import Guidance

Labels = Tensor | Sequence[int] | int
"""One label a sample, or one for all."""


def as_labels(y: Labels | None, x: Tensor) -> Tensor | None:
    """Labels as a tensor on the device of the state x, shape (batch,); conditions that are tensors as they are.

    Raises:
        TypeError: If they are no integers.
    """
    if y is None or isinstance(y, Tensor):
        return y
    labels = torch.as_tensor(y, device=x.device)
    if labels.dtype != torch.int64:
        raise TypeError(f"y: labels must be integers, got {y!r}.")
    return labels.expand(len(x)) if labels.dim() == 0 else labels


def unwrapped(model: object) -> object:
    """The network inside DataParallel, DistributedDataParallel, OnPath and similar wrappers."""
    while isinstance(model, nn.Module) and callable(getattr(model, "module", None)):
        model = model.module
    return model


class Field:
    """A network, the path it was trained on, and what it predicts.

    Args:
        model: Called as ``model(x, t, y)``, or ``model(x, t)`` where y is None, with x, which it must not change, of
            shape (batch, ...) and t of shape (batch,), float32 or the wider dtype of x; returns the shape of x. Any
            callable serves.
        path: The path of its training, data at t = 1.
        prediction: What it predicts: velocity, score, noise or data.
        guidance_scale: Of classifier-free guidance, u + guidance_scale (c - u) with c and u the predictions with the
            label and with ``model.null_class``: short for ``guidance=Guidance(scale=guidance_scale)``. 1 is unguided
            and costs no second evaluation. Source: Ho & Salimans (2022), arXiv:2207.12598.
        guidance: See Guidance: on some channels or times, by a weaker network or a negative class, rescaled.
        dtype: What the network computes in: it sees x in this dtype, and t in it or float32 if that is wider. The
            network itself is not cast. None is the dtype of x.

    Attributes:
        guidance: What guides it; of scale 1 where nothing does.

    Raises:
        TypeError: If ``path``, ``guidance`` or ``guidance.weak`` is of another type, or ``dtype`` not floating point.
        ValueError: If ``prediction`` is unknown; the path runs in the paper's time or does not end in the data itself
            (alpha = 1); both ``guidance_scale`` and ``guidance`` are given; guidance is asked of a network that has no
            null class, without a weak network or a negative class; the weak Field is on another path; or a conversion
            that guidance needs has a pole in ``guidance.interval``.
    """

    def __init__(
        self,
        model: Callable[..., Tensor],
        path: Path,
        prediction: str = "velocity",
        guidance_scale: float = 1.0,
        *,
        guidance: Guidance | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        check_quantity(prediction, "Field: prediction")
        require_data_at_one(path, "Field")
        if not math.isfinite(guidance_scale):
            raise ValueError(f"Field: guidance_scale must be finite, got {guidance_scale!r}. 1 is unguided.")
        if guidance is not None and not isinstance(guidance, Guidance):
            raise TypeError(f"Field: guidance must be a Guidance, got {guidance!r}. A number is guidance_scale.")
        if guidance is not None and guidance_scale != 1.0:
            raise ValueError(
                f"Field: guidance_scale must be 1 where guidance is given, got {guidance_scale!r}. "
                "Set the scale of the Guidance."
            )
        if dtype is not None and not dtype.is_floating_point:
            raise TypeError(f"Field: dtype must be floating point, got {dtype}. None is that of x.")
        self.model, self.path, self.prediction, self.dtype = model, path, prediction, dtype
        self.guidance = Guidance(scale=guidance_scale) if guidance is None else guidance
        self._weak = self._weak_field()
        negative = self.guidance.y_negative
        network = unwrapped(model)
        self._negative: int | Tensor | None = getattr(network, "null_class", None) if negative is None else negative
        if self.guidance.scale != 1.0 and self._weak is None and self._negative is None:
            name = "guidance_scale" if guidance is None else "guidance.scale"
            raise ValueError(
                f"Field: {name} must be 1 for a network without model.null_class, got {self.guidance.scale!r}. "
                "Train it with class dropout, or guide it by a weak network or a negative class."
            )
        by_null_class = self.guidance.scale != 1.0 and self._weak is None and negative is None
        if by_null_class and getattr(network, "class_dropout", None) == 0:
            warnings.warn(
                "Field: guidance by a null class that was never trained, as the network's class_dropout is 0. Train it "
                "with class dropout, or guide it by a weak network or a negative class.",
                stacklevel=2,
            )
        self._to_space = self._conversion_to_space()
        self._interval = self._guided_interval()

    @property
    def guidance_scale(self) -> float:
        """The scale of the guidance; 1 is unguided."""
        return self.guidance.scale

    def _weak_field(self) -> Field | None:
        weak = self.guidance.weak
        if isinstance(weak, Field):
            if weak.path != self.path:
                raise ValueError(f"Field: guidance.weak must be on the same path, {self.path}, got {weak.path}.")
            return weak
        if weak is not None and not callable(weak):
            raise TypeError(f"Field: guidance.weak must be a Field or a network, got {type(weak).__name__}.")
        return None if weak is None else Field(weak, self.path, self.prediction, dtype=self.dtype)

    def _conversion_to_space(self) -> tuple[Coefficient, Coefficient] | None:
        """The conversion that a rescale needs; None where it needs none."""
        # For a rescale the score is the noise, which has fewer poles: they differ by a factor.
        prediction, space = ("noise" if q == "score" else q for q in (self.prediction, self.guidance.space))
        if not self.guidance.rescale or space is None or space == prediction:
            return None
        return self.path.conversion(self.prediction, space)

    def _guided_interval(self) -> tuple[float, float] | None:
        """The times that are guided; None where it is all of them, and no time need be looked at."""
        needed = list(self._to_space or ())
        if self._weak is not None and self._weak.prediction != self.prediction:
            needed += self.path.conversion(self._weak.prediction, self.prediction)
        interval = self.guidance.interval or self.path.interval(*needed)
        for end in (0, 1):
            if end in interval and any(c.limit(end).is_infinite for c in needed):
                raise ValueError(
                    f"Field: guidance.interval must not contain t = {end}, where a conversion that guidance needs has "
                    f"a pole, got {interval!r}. None stops short of it."
                )
        return None if interval == (0.0, 1.0) else interval

    def predict(self, x: Tensor, t: Tensor | float, y: Labels | None = None) -> Tensor:
        """The network's own prediction, guided, in the dtype of x.

        It is one evaluation of the network, whose batch has each sample that is guided twice, and with a weak network
        one of that, of the guided samples. Where guidance has an interval, times on an accelerator are waited for: a
        Python float or a scalar on the CPU are not.

        Args:
            x: State, shape (batch, ...).
            t: Scalar or shape (batch,).
            y: Labels, shape (batch,), a list of them, one for all, or None.

        Raises:
            ValueError: If t or the network's prediction is not of the shape stated; with guidance also if y is None
                but labels tell the weak prediction from the strong, if the negative labels are not of the shape of y,
                or the state does not have the channels.
        """
        y = as_labels(y, x)
        if isinstance(t, Tensor) and t.dim():
            if t.shape != x.shape[:1]:
                raise ValueError(
                    f"Field: t must be a scalar or have shape (batch,) = {tuple(x.shape[:1])}, got {tuple(t.shape)}."
                )
            t = t.to(x.device)  # a scalar on the CPU stays there: the guided times are looked at without waiting
        dtype = torch.promote_types(self.dtype or x.dtype, torch.float32)  # bfloat16 would round 0.998 to 1
        if isinstance(t, Tensor):
            time = t.to(x.device, dtype).expand(x.shape[0])
        else:  # filled on the device: nothing is copied to it, and a graph of it can be captured
            time = torch.full((x.shape[0],), t, dtype=dtype, device=x.device)
        if self.guidance.scale == 1.0:
            return self._evaluate(x, time, y)
        # Before the time is looked at: what is wrong should not come to light half way through sampling.
        self.guidance.check_state(x)
        negative = None if self._weak is not None else self._negative_labels(y)
        rows = self._guided_rows(t)
        if rows is None:
            return self._evaluate(x, time, y)
        some_x, some_t = x[rows], t[rows] if isinstance(t, Tensor) and isinstance(rows, Tensor) else t
        if self._weak is not None:
            strong = self._evaluate(x, time, y)
            weak = self._weak.quantity(self.prediction, some_x, some_t, None if y is None else y[rows])
        else:
            assert y is not None, "its absence is refused with the negative labels"
            assert negative is not None, "without a weak network there are negative labels"
            labels = torch.cat([y, negative[rows]])
            both = self._evaluate(torch.cat([x, some_x]), torch.cat([time, time[rows]]), labels)
            strong, weak = both[: x.shape[0]], both[x.shape[0] :]  # whose length torch.export may leave open
        coefficients = () if self._to_space is None else at(self._to_space, some_t, some_x)
        guided = self.guidance.combine(strong[rows], weak, some_x, *coefficients)
        return strong.index_copy(0, rows, guided) if isinstance(rows, Tensor) else guided

    def _guided_rows(self, t: Tensor | float) -> Tensor | slice | None:
        """The samples whose time is guided: their indices, a slice of all, or None of them."""
        if self._interval is None:
            return slice(None)
        low, high = self._interval
        inside = (low <= t) & (t <= high)
        if not isinstance(inside, Tensor) or inside.dim() == 0:
            return slice(None) if inside else None
        rows = inside.nonzero().squeeze(1)
        return rows if len(rows) else None

    def _negative_labels(self, y: Tensor | None) -> Tensor:
        """The labels of the weak prediction, shape (batch,)."""
        if y is None:
            raise ValueError("Field: y must be given where guidance_scale is not 1, got None.")
        # A narrow integer type of y could not hold the null class.
        dtype = torch.promote_types(y.dtype, torch.int64)
        negative = torch.as_tensor(self._negative, dtype=dtype, device=y.device)
        if negative.dim() and negative.shape != y.shape:
            raise ValueError(
                f"Field: guidance.y_negative must be a class or have the shape of y, {tuple(y.shape)}, "
                f"got {tuple(negative.shape)}."
            )
        return negative.expand_as(y)

    def _evaluate(self, x: Tensor, time: Tensor, y: Tensor | None) -> Tensor:
        """The network's own prediction, unguided, for times of shape (batch,), in the dtype of x."""
        state = x.to(self.dtype or x.dtype)
        prediction = self.model(state, time) if y is None else self.model(state, time, y)
        if prediction.shape != x.shape:
            doubled = x.dim() > 1 and prediction.shape == (len(x), 2 * x.shape[1], *x.shape[2:])
            hint = f" If these are variances too, wrap it to return prediction[:, :{x.shape[1]}]." if doubled else ""
            raise ValueError(
                f"Field: the network must return the shape of x, {tuple(x.shape)}, got {tuple(prediction.shape)}.{hint}"
            )
        return prediction.to(x.dtype)

    @contextmanager
    def evaluation_mode(self) -> Iterator[None]:
        """Within it torch networks are in evaluation mode: one in training mode would drop classes while it samples."""
        modules = list(self.model.modules()) if isinstance(self.model, nn.Module) else []
        before = [module.training for module in modules]
        for module in modules:
            module.training = False
        try:
            with nullcontext() if self._weak is None else self._weak.evaluation_mode():
                yield
        finally:
            for module, training in zip(modules, before, strict=True):
                module.training = training

    def parameters(self) -> Iterator[nn.Parameter]:
        """Those of the network, and of the weak one."""
        yield from self.model.parameters() if isinstance(self.model, nn.Module) else ()
        yield from self._weak.parameters() if self._weak is not None else ()

    def quantity(self, name: str, x: Tensor, t: Tensor | float, y: Labels | None = None) -> Tensor:
        """The velocity, score, noise or data at (x, t), converted from the prediction."""
        return self.path.convert(self.predict(x, t, y), x, t, source=self.prediction, target=name)

    def velocity(self, x: Tensor, t: Tensor | float, y: Labels | None = None) -> Tensor:
        """E[dx_t/dt | x_t = x]."""
        return self.quantity("velocity", x, t, y)

    def score(self, x: Tensor, t: Tensor | float, y: Labels | None = None) -> Tensor:
        """grad_x log p_t(x)."""
        return self.quantity("score", x, t, y)

    def noise(self, x: Tensor, t: Tensor | float, y: Labels | None = None) -> Tensor:
        """E[noise | x_t = x]."""
        return self.quantity("noise", x, t, y)

    def data(self, x: Tensor, t: Tensor | float, y: Labels | None = None) -> Tensor:
        """E[data | x_t = x], the denoised state."""
        return self.quantity("data", x, t, y)

    def on(self, path: Path) -> Field:
        """The same network on another path, called at the time of equal SNR: see ``interpolants.match_snr``.

        It predicts the same quantity, except where the velocity would have a pole on either path: then it predicts the
        data. The guidance interval is in times of the new path.

        Raises:
            ValueError: If the path runs in the paper's time, or does not end at the data itself.
        """
        require_data_at_one(path, "Field.on")
        weak = None if self._weak is None else self._weak.on(path)
        model = OnPath(self, path)
        return Field(model, path, model.prediction, guidance=replace(self.guidance, weak=weak))

    def save_pretrained(self, folder: str | os.PathLike[str], *, license: str | None = None) -> None:
        """Write the network, its path and its prediction into a folder, with a model card.

        Args:
            folder: To write into; made if it is not there.
            license: Of the weights, as the Hugging Face hub names it.

        Raises:
            TypeError: If the network is no SiT.
        """
        hub.save(folder, self.model, self.path, self.prediction, license)

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        *,
        path: Path | None = None,
        prediction: str | None = None,
        device: str | torch.device = "cpu",
        guidance_scale: float = 1.0,
        guidance: Guidance | None = None,
        dtype: torch.dtype | None = None,
        **download: Any,
    ) -> Field:
        """The Field that ``save_pretrained`` wrote: it knows its path and its prediction.

        Args:
            name: A folder, or a repository of the Hugging Face hub.
            path, prediction: What it is expected to have; None takes what it has.
            device: Of the network.
            guidance_scale, guidance, dtype: See Field.
            download: Of huggingface_hub.snapshot_download: revision, token, cache_dir, local_files_only.

        Raises:
            FileNotFoundError: If the folder holds no path.
            ValueError: If the path, the prediction or the weights are not those that are expected.
        """
        model, found, predicted = hub.load(name, **download)
        if path is not None and hub.is_path(found, path):
            path = found
        for argument, expected, got in (("path", path, found), ("prediction", prediction, predicted)):
            if expected is not None and expected != got:
                raise ValueError(
                    f"Field.from_pretrained: {argument} must be {got!r}, as in the folder, got {expected!r}. "
                    "Leave it out; another path after training is match_snr's."
                )
        model = model.to(device).requires_grad_(False)
        return cls(model, found, predicted, guidance_scale, guidance=guidance, dtype=dtype)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        license: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        message: str = "Upload a Field",
    ) -> str:
        """Upload what ``save_pretrained`` writes to a repository of the Hugging Face hub, and return its address.

        Args:
            repo_id: owner/name; made if it is not there.
            license: See save_pretrained.
            private: Of a new repository; None is the owner's default.
            token: Of access; None is the one that is logged in.
            message: Of the commit.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, license=license)
            return hub.push(folder, repo_id, private=private, token=token, message=message)


class OnPath(nn.Module):
    """A network on a path that it was not trained on; see ``Field.on``.

    Args:
        field: The network on the path of its training; its guidance is ignored.
        path: The other path.

    Attributes:
        module: The network itself.
        prediction: What it predicts on the other path.
    """

    def __init__(self, field: Field, path: Path) -> None:
        super().__init__()
        self.module, self.change = field.model, match_snr(trained=field.path, sampled=path)
        self._trained = Field(field.model, field.path, field.prediction, dtype=field.dtype)
        self.prediction = field.prediction
        needed = (*path.row("velocity"), *field.path.conversion("velocity", "data"))
        if field.prediction == "velocity" and path.interval(*needed) != (0.0, 1.0):
            self.prediction = "data"

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Its prediction at the state x, shape (batch, ...), and the times t, shape (batch,)."""
        trained = self._trained
        return self.change.predict(trained._evaluate, x, t, prediction=trained.prediction, target=self.prediction, y=y)


def require_data_at_one(path: Path, where: str) -> None:
    """Raise unless x_1 is the data, up to what is left of the noise: TypeError for no path, else ValueError."""
    if not isinstance(path, Path):
        raise TypeError(f"{where}: path must be an interpolants.Path, got {type(path).__name__}.")
    if abs(float(path.alpha.limit(path.data_end)) - 1.0) > 1e-6:
        raise ValueError(
            f"{where}: alpha must be 1 at the data end, so that samples are in the units of the data, got "
            f"{path.alpha.limit(path.data_end)}. Divide alpha and sigma by it."
        )
    if path.data_end != 1:
        raise ValueError(f"{where}: path must have data at t = 1, got one in the paper's time. Pass the original path.")
