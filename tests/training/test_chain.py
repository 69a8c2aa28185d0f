"""Every path with every prediction: fifty steps of training and a sample by ODE and SDE, all finite."""

import pytest
import torch
from strategies import LIBRARY

import interpolants as ip
from models import SiT
from training import Field, InterpolantLoss, sample_ode, sample_sde


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.name)
@pytest.mark.parametrize("prediction", ip.QUANTITIES)
def test_a_network_trains_and_samples(path, prediction):
    torch.manual_seed(0)
    data, y = torch.randn(64, 1, 4, 4) * 0.3 + 0.5, torch.arange(64) % 3
    model = SiT(input_size=4, patch_size=2, in_channels=1, hidden_size=32, depth=1, num_heads=2, num_classes=3)
    loss, optimizer = InterpolantLoss(path, prediction), torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(50):
        value = loss(model, data, y=y).mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert all(map(torch.isfinite, map(torch.tensor, losses)))
    assert sum(losses[-10:]) < sum(losses[:10])
    field = Field(model.eval(), path, prediction)
    noise = torch.randn(8, 1, 4, 4)
    for samples in (
        sample_ode(field, noise, num_steps=20, y=y[:8]),
        sample_ode(field, noise, method="dopri5", y=y[:8]),
        sample_sde(field, noise, w="sigma", num_steps=50, seed=0, y=y[:8]),
    ):
        assert samples.isfinite().all()
        assert samples.shape == noise.shape
