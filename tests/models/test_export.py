"""Networks and Fields exported: torch.export and ONNX compute what eager mode does, for any size of the batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import interpolants as ip
from models import SiT
from training import Field, Guidance, sample_ode

runtime = pytest.importorskip("onnxruntime")

STYLES: dict[str, dict[str, bool]] = {
    "plain": {},
    "LightningDiT": {"rope": True, "swiglu": True, "rms_norm": True, "qk_norm": True, "learn_sigma": True},
}
BATCH = ({0: torch.export.Dim.DYNAMIC},) * 3


def network(**style: bool) -> SiT:
    torch.manual_seed(0)
    model = SiT(
        input_size=(4, 8), patch_size=2, in_channels=2, hidden_size=32, depth=2, num_heads=2, num_classes=5, **style
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.3)
    return model.eval()


def inputs(batch: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(batch)
    return torch.randn(batch, 2, 4, 8), torch.rand(batch), torch.randint(6, (batch,))


class Velocity(nn.Module):
    """The velocity of a Field, guidance and conversion included: docs/howto/export.md has the same."""

    def __init__(self, field: Field) -> None:
        super().__init__()
        self.network, self.field = field.model, field

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return self.field.velocity(x, t, y)


def guided() -> Field:
    return Field(network(), ip.vp(), "noise", guidance=Guidance(3.0, channels=1, rescale=0.5))


def modules() -> dict[str, nn.Module]:
    return {**{name: network(**style) for name, style in STYLES.items()}, "guided Field": Velocity(guided()).eval()}


@pytest.mark.parametrize("name", modules())
def test_a_module_is_exported_for_any_batch_and_computes_what_it_did(tmp_path: Path, name: str) -> None:
    module = modules()[name]
    program = torch.export.export(module, inputs(3), dynamic_shapes=BATCH)
    exported = program.module()
    for batch in (1, 2, 7):
        expected = module(*inputs(batch)).detach()
        largest = float(expected.abs().max())
        torch.testing.assert_close(exported(*inputs(batch)), expected, rtol=1e-5, atol=1e-5 * largest)
    if name == "plain":
        return  # the others have all of its operations
    session = to_onnx(program, tmp_path / "network.onnx")
    assert [value.name for value in session.get_inputs()] == ["x", "t", "y"]
    for batch in (1, 2, 7):
        given = dict(zip(("x", "t", "y"), (value.numpy() for value in inputs(batch)), strict=True))
        expected = module(*inputs(batch)).detach().numpy()
        np.testing.assert_allclose(
            session.run(["prediction"], given)[0], expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max()
        )
    if name == "guided Field":
        check_samples(session)


def to_onnx(program: Any, file: Path) -> Any:
    torch.onnx.export(program, input_names=["x", "t", "y"], output_names=["prediction"]).save(file)
    return runtime.InferenceSession(file, providers=["CPUExecutionProvider"])


def check_samples(session: Any) -> None:
    """A loop in numpy over the exported velocity draws what sample_ode does."""
    noise, _, y = inputs(4)
    times = np.linspace(0.0, 0.9, 7)  # short of the data, where the velocity of VP is infinite
    expected = sample_ode(guided(), noise, method="midpoint", grid=[*times, 0.95], y=y, trajectory=True)[6]
    x = noise.numpy() * np.float32(ip.vp().sigma(0.0))
    for t, h in zip(times[:-1], np.diff(times), strict=True):

        def velocity(x: Any, t: float) -> Any:
            return session.run(None, {"x": x, "t": np.full(len(x), t, np.float32), "y": y.numpy()})[0]

        x = x + np.float32(h) * velocity(x + np.float32(h / 2) * velocity(x, t), t + h / 2)
    np.testing.assert_allclose(x, expected.numpy(), rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
