"""The noise of many images, as a user finds it: from it the ODE leads back to them."""

import json

import numpy as np
import pytest
import torch
from networks import save_network
from scripts import call, call_in_ranks, call_killed, contents

from training import Field, Guidance, sample_ode
from training.data import digits

COUNT = 7
CHOSEN = [round(k * 363 / (COUNT - 1)) for k in range(COUNT)]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return save_network(tmp_path_factory.mktemp("network"))


def flags(network, output, *others):
    """Of the held-out digits, in three shards."""
    return (
        f"--pretrained={network}", f"--output={output}", "--device=cpu", "--part=heldout", f"--count={COUNT}",
        "--sampling.batch_size=3", "--sampling.ode.rtol=1e-6", "--sampling.guidance_scale=2", *others,
    )  # fmt: skip


@pytest.fixture(scope="module")
def reversed_(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reversed")
    assert call("reverse.py", *flags(network, folder)) == 0
    return folder


def read(folder):
    return (torch.from_numpy(np.load(folder / f"{name}.npy")) for name in ("noise", "labels"))


def test_the_ode_leads_back_to_the_images(network, reversed_):
    """By another solver, in fixed steps."""
    noise, labels = read(reversed_)
    images, of = digits("heldout")
    assert (noise.dtype, labels.tolist()) == (torch.float32, of[CHOSEN].tolist())
    field = Field.from_pretrained(network, guidance=Guidance(scale=2.0))
    again = sample_ode(field, noise, method="rk4", num_steps=40, y=labels)
    torch.testing.assert_close(again, images[CHOSEN], rtol=0, atol=1e-4)
    assert (noise - images[CHOSEN]).abs().mean() > 0.05


def test_steps_of_a_fixed_method_are_inverted_themselves(network, tmp_path):
    these = ("--sampling.ode.method=euler", "--sampling.ode.num_steps=3", "--part=train")
    assert call("reverse.py", *flags(network, tmp_path, *these)) == 0
    noise, labels = read(tmp_path)
    field = Field.from_pretrained(network, guidance=Guidance(scale=2.0))
    again = sample_ode(field, noise, method="euler", num_steps=3, y=labels)
    chosen = np.linspace(0, 1432, COUNT).round().astype(int)
    torch.testing.assert_close(again, digits("train")[0][chosen], rtol=0, atol=1e-4)


def test_a_network_without_classes_is_reversed_too(tmp_path):
    network = save_network(tmp_path / "network", num_classes=0)
    assert call("reverse.py", *flags(network, tmp_path / "out", "--sampling.guidance_scale=1")) == 0
    noise, labels = read(tmp_path / "out")
    assert not labels.any()
    again = sample_ode(Field.from_pretrained(network), noise, method="rk4", num_steps=40)
    torch.testing.assert_close(again, digits("heldout")[0][CHOSEN], rtol=0, atol=1e-4)


def test_killed_and_gone_on_with_by_two_processes_it_is_the_same(network, reversed_, tmp_path):
    call_killed("reverse.py", *flags(network, tmp_path), saves=3)
    assert not (tmp_path / "noise.npy").exists()
    said = call_in_ranks(2, "reverse.py", *flags(network, tmp_path))
    square = np.square(np.load(tmp_path / "noise.npy")).mean()
    assert f"the noise of 7 images: {tmp_path}/noise.npy; mean square {square:.3f}\n" in said
    assert contents(tmp_path) == contents(reversed_)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (("--sampling.ode.method=unipc2",), "config: sampling.ode.method must be one of euler, "),
        (("--sampling.ode.official=true",), "config: sampling.ode.official must be false in reverse, got true."),
        (("--count=0",), "config: count must be at least 1, or null, got 0."),
        (("--part=test",), "config: part must be one of train, heldout, got 'test'."),
        (("--sampling.path=gvp",), "path was None, is 'gvp'"),
        (("--sampling.guidance_scale=3",), "guidance_scale was 2.0, is 3.0"),
        (("--sampling.ode.rtol=1e-5",), "ode.rtol was 1e-06, is 1e-05"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_clear_line(network, reversed_, others, message, capsys):
    before = contents(reversed_)
    assert call("reverse.py", *flags(network, reversed_, *others)) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert contents(reversed_) == before


def test_the_settings_are_in_the_folder(reversed_):
    (file,) = reversed_.glob("*.json")
    assert json.loads(file.read_text())["ode"]["method"] == "dopri5"
