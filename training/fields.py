"""A network on its path: any quantity of the path, at any state and time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from interpolants import Path
from interpolants.quantities import check_quantity


class Field:
    """A network, the path it was trained on, and what it predicts.

    Args:
        model: Called as ``model(x, t, y)``, or ``model(x, t)`` where y is None, with x of shape (batch, ...) and t of
            shape (batch,), float32 or the wider dtype of x; returns the shape of x. Any callable serves.
        path: The path of its training, data at t = 1.
        prediction: What it predicts: velocity, score, noise or data.
        guidance_scale: Of classifier-free guidance, u + guidance_scale (c - u) with c and u the predictions with the
            label and with ``model.null_class``. 1 is unguided and costs no second evaluation. Conversions are affine in
            the prediction, so guidance in one quantity's space is guidance in all. Source: Ho & Salimans (2022),
            arXiv:2207.12598.

    Raises:
        ValueError: If ``prediction`` is unknown, the path runs in the paper's time or does not end in the data itself
            (alpha = 1), or guidance is asked of a network that has no null class.
    """

    def __init__(
        self,
        model: Callable[..., Tensor],
        path: Path,
        prediction: str = "velocity",
        guidance_scale: float = 1.0,
    ) -> None:
        check_quantity(prediction, "Field: prediction")
        require_data_at_one(path, "Field")
        if not math.isfinite(guidance_scale):
            raise ValueError(f"Field: guidance_scale must be finite, got {guidance_scale!r}. 1 is unguided.")
        self._null_class: int | None = getattr(model, "null_class", None)
        if guidance_scale != 1.0 and self._null_class is None:
            raise ValueError(
                f"Field: guidance_scale must be 1 for a network without model.null_class, got {guidance_scale!r}. "
                "Train it with class dropout."
            )
        self.model, self.path, self.prediction, self.guidance_scale = model, path, prediction, guidance_scale

    def predict(self, x: Tensor, t: Tensor | float, y: Tensor | None = None) -> Tensor:
        """The network's own prediction, guided; one evaluation of the network, of twice the batch where it is guided.

        Args:
            x: State, shape (batch, ...).
            t: Scalar or shape (batch,).
            y: Labels, shape (batch,), or None.
        """
        dtype = torch.promote_types(x.dtype, torch.float32)  # bfloat16 would round 0.998 to 1
        time = torch.as_tensor(t, dtype=dtype, device=x.device).expand(x.shape[0])
        if self.guidance_scale == 1.0:
            return self._evaluate(x, time, y)
        assert self._null_class is not None, "the constructor refuses guidance without a null class"
        if y is None:
            raise ValueError("Field: y must be given where guidance_scale is not 1, got None.")
        null = torch.full_like(y, self._null_class)
        both = self._evaluate(torch.cat([x, x]), torch.cat([time, time]), torch.cat([y, null]))
        with_label, without = both.chunk(2)
        return without + self.guidance_scale * (with_label - without)

    def _evaluate(self, x: Tensor, time: Tensor, y: Tensor | None) -> Tensor:
        prediction = self.model(x, time) if y is None else self.model(x, time, y)
        if prediction.shape != x.shape:
            raise ValueError(
                f"Field: the network must return the shape of x, {tuple(x.shape)}, got {tuple(prediction.shape)}."
            )
        return prediction

    @contextmanager
    def evaluation_mode(self) -> Iterator[None]:
        """Within it a torch network is in evaluation mode: one in training mode would drop classes while it samples."""
        modules = list(self.model.modules()) if isinstance(self.model, nn.Module) else []
        before = [module.training for module in modules]
        for module in modules:
            module.training = False
        try:
            yield
        finally:
            for module, training in zip(modules, before, strict=True):
                module.training = training

    def quantity(self, name: str, x: Tensor, t: Tensor | float, y: Tensor | None = None) -> Tensor:
        """The velocity, score, noise or data at (x, t), converted from the prediction."""
        return self.path.convert(self.predict(x, t, y), x, t, source=self.prediction, target=name)

    def velocity(self, x: Tensor, t: Tensor | float, y: Tensor | None = None) -> Tensor:
        """E[dx_t/dt | x_t = x]."""
        return self.quantity("velocity", x, t, y)

    def score(self, x: Tensor, t: Tensor | float, y: Tensor | None = None) -> Tensor:
        """grad_x log p_t(x)."""
        return self.quantity("score", x, t, y)

    def noise(self, x: Tensor, t: Tensor | float, y: Tensor | None = None) -> Tensor:
        """E[noise | x_t = x]."""
        return self.quantity("noise", x, t, y)

    def data(self, x: Tensor, t: Tensor | float, y: Tensor | None = None) -> Tensor:
        """E[data | x_t = x], the denoised state."""
        return self.quantity("data", x, t, y)


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
