"""A network with the interface of the official release, written from its structure, is taken as it is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import interpolants as ip
from training import Field, Guidance, InterpolantLoss, sample_ode


class OfficialNetwork(nn.Module):
    """``model(x, t, y)`` with doubled channels inside, label dropout in training mode, and ``forward_with_cfg``.

    Args:
        halves: Whether ``forward`` drops the second half of the channels, as SiT's does and DiT's does not.
    """

    def __init__(self, halves: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.halves = halves
        self.conv = nn.Conv2d(4, 16, 3, padding=1)
        self.time, self.label = nn.Linear(1, 16), nn.Embedding(1001, 16)
        self.last = nn.Conv2d(16, 8, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        if self.training:
            y = torch.where(torch.rand(len(y)) < 0.5, 1000, y)
        hidden = self.conv(x) + (self.time(t[:, None]) + self.label(y))[:, :, None, None]
        x = self.last(torch.nn.functional.silu(hidden))
        if self.halves:
            x, _ = x.chunk(2, dim=1)
        return x

    def forward_with_cfg(self, x: Tensor, t: Tensor, y: Tensor, cfg_scale: float) -> Tensor:
        """Of a batch whose second half has the null class; 3 channels are guided."""
        half = x[: len(x) // 2]
        model_out = self.forward(torch.cat([half, half], dim=0), t, y)
        eps, rest = model_out[:, :3], model_out[:, 3:]
        cond_eps, uncond_eps = torch.split(eps, len(eps) // 2, dim=0)
        half_eps = uncond_eps + cfg_scale * (cond_eps - uncond_eps)
        eps = torch.cat([half_eps, half_eps], dim=0)
        return torch.cat([eps, rest], dim=1)


class FirstHalf(nn.Module):
    """What docs/howto/own-network.md shows for networks that return their variances too."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        prediction: Tensor = self.model(x, t, y)
        return prediction[:, : x.shape[1]]


def official_guidance(scale: float) -> Guidance:
    return Guidance(scale, channels=3, y_negative=1000)


def test_it_is_guided_as_by_its_own_forward_with_cfg() -> None:
    model = OfficialNetwork().eval()
    x, t, y = torch.randn(3, 4, 8, 8), torch.tensor([0.2, 0.5, 0.9]), torch.tensor([1, 7, 999])
    with torch.no_grad():
        null = torch.full_like(y, 1000)
        expected = model.forward_with_cfg(torch.cat([x, x]), torch.cat([t, t]), torch.cat([y, null]), 4.0)[:3]
        found = Field(model, ip.linear(), guidance=official_guidance(4.0)).velocity(x, t, y)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_it_samples_as_its_own_loop_of_euler_does_in_evaluation_mode() -> None:
    model = OfficialNetwork().train()
    noise, y = torch.randn(2, 4, 8, 8), torch.tensor([3, 5])
    found = sample_ode(
        Field(model, ip.linear(), guidance=official_guidance(1.5)), noise, num_steps=5, method="euler", y=y
    )
    assert model.training, "it is given back as it was"
    model.eval()
    z, labels = torch.cat([noise, noise]), torch.tensor([3, 5, 1000, 1000])
    with torch.no_grad():
        for n in range(5):
            z = z + 0.2 * model.forward_with_cfg(z, torch.full((4,), 0.2 * n), labels, 1.5)
    torch.testing.assert_close(found, z[:2], rtol=1e-5, atol=1e-5)


def test_it_trains() -> None:
    model = OfficialNetwork().train()
    loss = InterpolantLoss(ip.linear())(model, torch.randn(4, 4, 8, 8), y=torch.tensor([0, 1, 2, 3])).mean()
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_variances_behind_the_prediction_are_refused_and_the_first_half_is_taken() -> None:
    model = OfficialNetwork(halves=False).eval()
    x, t, y = torch.randn(3, 4, 8, 8), torch.tensor([0.2, 0.5, 0.9]), torch.tensor([1, 7, 999])
    with pytest.raises(ValueError, match=r"shape of x, \(3, 4, 8, 8\), got \(3, 8, 8, 8\).*prediction\[:, :4\]"):
        Field(model, ip.linear()).velocity(x, t, y)
    with torch.no_grad():
        found = Field(FirstHalf(model), ip.linear()).velocity(x, t, y)
        torch.testing.assert_close(found, OfficialNetwork().eval()(x, t, y))
