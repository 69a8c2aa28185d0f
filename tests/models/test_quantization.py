"""Blocks in 8 bits, against the same network in float64."""

import logging
import subprocess
import sys

import pytest
import torch

from models import SiT, quantize
from models.quantization import CHOICES, IMPORT_NOISE, quiet_import


def network() -> SiT:
    torch.manual_seed(0)
    model = SiT(input_size=8, patch_size=2, in_channels=3, hidden_size=64, depth=2, num_heads=4, num_classes=10).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name != "pos_embed":
                parameter.normal_(std=0.1)
    return model


@pytest.mark.parametrize("how", [how for how in CHOICES if how != "float8"])  # whose products need a GPU
def test_a_network_in_8_bits_is_near_itself_in_a_quarter_of_the_memory(how):
    pytest.importorskip("torchao")
    model = network()
    x, t, y = torch.randn(4, 3, 8, 8), torch.rand(4), torch.arange(4)
    with torch.no_grad():
        exact = model.double()(x.double(), t.double(), y)
        model = model.float()
        before = {name: p.nbytes for name, p in model.named_parameters()}
        assert quantize(model, how) is model
        error = (model(x, t, y) - exact).norm() / exact.norm()
    assert 0 < error < (0.1 if "float" in how else 0.03)  # three and seven bits of mantissa
    for name, p in model.named_parameters():
        weight = name.startswith("blocks.") and p.dim() == 2 and "adaLN" not in name
        held = sum(getattr(p, part).nbytes for part in ("qdata", "scale")) if weight else p.nbytes
        share = held / before[name]
        assert share == (pytest.approx(0.25, abs=0.07) if weight else 0.5 if name.startswith("blocks.") else 1)


def test_a_wrong_choice_and_a_missing_library_are_answered(monkeypatch):
    with pytest.raises(ValueError, match=r"quantize: how must be one of int8_weights, int8, .*, got 'int4'"):
        quantize(network(), "int4")
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(ImportError, match=r"pip install 'sit-interpolants\[quantize\]'"):
        quantize(network())


IMPORTS = {
    "torchao": "import models; models.quantize(models.create_model('SiT-T/4', input_size=8, in_channels=1))",
    "diffusers": "import training.diffusers_pipeline",
}


@pytest.mark.parametrize("library", IMPORTS)
def test_an_import_prints_nothing(library):
    pytest.importorskip(library)
    ran = subprocess.run([sys.executable, "-c", IMPORTS[library]], capture_output=True, text=True, check=True)
    assert ran.stdout + ran.stderr == ""


def test_other_messages_of_the_same_loggers_are_seen(caplog):
    for name, noise in IMPORT_NOISE.items():
        with quiet_import():
            logging.getLogger(name).warning("%s", noise)
            logging.getLogger(name).warning("something else")
        logging.getLogger(name).warning("%s", noise)
        assert [record.getMessage() for record in caplog.records if record.name == name] == ["something else", noise]
