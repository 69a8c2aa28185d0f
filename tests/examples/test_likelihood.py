"""The log-likelihood of many images, as a user measures it: beside log_likelihood called on all of them at once."""

import dataclasses
import json
import math
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import save_network
from PIL import Image
from scripts import call, call_in_ranks, call_killed, contents

from examples.likelihood import figures
from training import Field, log_likelihood
from training.checkpoint import CheckpointError, latest, load_field
from training.config import Config, DataConfig, ModelConfig, TrainingConfig
from training.data import digits
from training.shards import SETTINGS, ArrayShards
from training.trainer import Trainer

COUNT = 26
CHOSEN = [round(k * 363 / (COUNT - 1)) for k in range(COUNT)]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return save_network(tmp_path_factory.mktemp("network"))


def flags(network, output, *others):
    """Of the held-out digits, in three shards."""
    return (
        f"--pretrained={network}", f"--output={output}", "--device=cpu", "--part=heldout",
        f"--likelihood.count={COUNT}", "--likelihood.batch_size=10", "--likelihood.seed=5",
        "--likelihood.method=heun2", "--likelihood.num_steps=3", *others,
    )  # fmt: skip


@pytest.fixture(scope="module")
def measured(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("measured")
    assert call("likelihood.py", *flags(network, folder)) == 0
    return folder


def rows_of(folder):
    return np.concatenate([np.load(file) for file in sorted(folder.glob("likelihood-*.npy"))])


def directly(network, probes=4, method="heun2", chosen=CHOSEN):
    images, labels = digits("heldout")
    return log_likelihood(
        Field.from_pretrained(network), images[chosen], y=labels[chosen], probes=probes, seed=5, indices=chosen,
        method=method, num_steps=3,
    )  # fmt: skip


# What is measured


def test_it_is_that_of_all_at_once(network, measured):
    """In float32; of an error, of the order of one number in a sum of 64."""
    direct = directly(network)
    for got, expected in zip(rows_of(measured).T, direct, strict=True):
        np.testing.assert_allclose(got, expected.numpy(), rtol=1e-4, atol=1e-4)
    found = json.loads((measured / "likelihood.json").read_text())
    assert (found["images"], found["of"]) == (COUNT, 364)
    assert found["nats"]["mean"] == pytest.approx(float(direct.nats.double().mean()), rel=1e-5)
    assert found["bits_per_dim"]["mean"] == pytest.approx(float(direct.bits_per_dim.double().mean()), rel=1e-5)


def test_the_standard_errors_are_those_of_the_mean():
    """Of 4,000 means, each over 20 images with an error of their own, and over the errors alone."""
    random = np.random.default_rng(0)
    errors = random.uniform(0.5, 2.0, 20)
    images = 3 * random.standard_normal((4000, 20))
    spread_of_means = (images + errors * random.standard_normal(images.shape)).mean(1).std()
    spread_of_probes = (errors * random.standard_normal(images.shape)).mean(1).std()
    nats = images + errors * random.standard_normal(images.shape)
    each = [figures(np.stack([row, -row / (64 * math.log(2)), errors], 1), 64) for row in nats]
    over_images = np.sqrt(np.mean([found["nats"]["over_images"] ** 2 for found in each]))
    assert over_images == pytest.approx(spread_of_means, rel=0.05)
    assert each[0]["nats"]["over_probes"] == pytest.approx(spread_of_probes, rel=0.05)
    for name in ("over_images", "over_probes"):
        assert each[0]["bits_per_dim"][name] == pytest.approx(each[0]["nats"][name] / 64 / math.log(2))


def test_it_says_of_how_many_images_it_is(network, tmp_path, capsys):
    assert call("likelihood.py", *flags(network, tmp_path)) == 0
    said = capsys.readouterr()
    first, second = said.out.splitlines()
    found = json.loads((tmp_path / "likelihood.json").read_text())
    nats, bits = found["nats"], found["bits_per_dim"]
    assert first == (
        f"nats {nats['mean']:.4f} of only 26 of 364 images; standard error {nats['over_images']:.2g} over images, "
        f"{nats['over_probes']:.2g} over probes"
    )
    assert second.startswith(f"bits_per_dim {bits['mean']:.4f} of only 26 of 364 images; standard error ")
    assert "for 16 more, at " in said.err


def test_of_all_images_with_one_probe(network, tmp_path, capsys):
    whole = ("--likelihood.count=500", "--likelihood.probes=1", "--likelihood.batch_size=400")
    assert call("likelihood.py", *flags(network, tmp_path, *whole)) == 0
    first, _ = capsys.readouterr().out.splitlines()
    assert "of all 364 images; standard error " in first
    assert first.endswith(" over images, unknown over probes")
    assert json.loads((tmp_path / "likelihood.json").read_text())["nats"]["over_probes"] is None
    expected = directly(network, probes=1, chosen=list(range(364)))
    np.testing.assert_allclose(rows_of(tmp_path)[:, 0], expected.nats.numpy(), rtol=1e-4, atol=1e-4)


def test_the_divergence_may_be_exact(network, tmp_path):
    exact = ("--likelihood.probes=null", "--likelihood.count=6", "--likelihood.method=dopri5")
    assert call("likelihood.py", *flags(network, tmp_path, *exact)) == 0
    expected = directly(network, probes=None, method="dopri5", chosen=[0, 73, 145, 218, 290, 363])
    np.testing.assert_allclose(rows_of(tmp_path)[:, 0], expected.nats.numpy(), rtol=1e-5, atol=1e-4)
    assert not rows_of(tmp_path)[:, 2].any()


def test_the_training_digits_are_others(network, tmp_path):
    few = ("--part=train", "--likelihood.count=3")
    assert call("likelihood.py", *flags(network, tmp_path, *few)) == 0
    images, labels = digits("train")
    chosen = [0, 716, 1432]
    field = Field.from_pretrained(network)
    settings = {"probes": 4, "seed": 5, "indices": chosen, "method": "heun2", "num_steps": 3}
    expected = log_likelihood(field, images[chosen], y=labels[chosen], **settings)
    np.testing.assert_allclose(rows_of(tmp_path)[:, 0], expected.nats.numpy(), rtol=1e-4, atol=1e-4)
    assert json.loads((tmp_path / "likelihood.json").read_text())["of"] == 1433


# A folder of images


@pytest.fixture
def folder(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    for index, image in enumerate(pixels):
        (tmp_path / "images" / "ab"[index // 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "images" / "ab"[index // 2] / f"{index}.png")
    return tmp_path / "images", torch.from_numpy(pixels).permute(0, 3, 1, 2)


def of_folder(network, images, output):
    data = (
        "--data.name=folder", f"--data.source={images}", "--model.in_channels=3", "--likelihood.count=null",
        "--part=train",
    )  # fmt: skip
    return flags(network, output, *data)


def test_images_of_whole_numbers_are_not_flipped_and_get_a_code_length(folder, tmp_path):
    network = save_network(tmp_path / "network", shape=(3, 8, 8), num_classes=2)
    assert call("likelihood.py", *of_folder(network, folder[0], tmp_path / "measured")) == 0
    y, settings = torch.tensor([0, 0, 1, 1]), {"probes": 4, "seed": 5, "method": "heun2", "num_steps": 3}
    expected = log_likelihood(Field.from_pretrained(network), folder[1], y=y, **settings)
    for got, values in zip(rows_of(tmp_path / "measured").T, expected, strict=True):
        np.testing.assert_allclose(got, values.numpy(), rtol=1e-4, atol=1e-4)
    bits, nats = rows_of(tmp_path / "measured")[:, 1], rows_of(tmp_path / "measured")[:, 0]
    np.testing.assert_allclose(bits, math.log2(127.5) - nats / 192 / math.log(2), rtol=1e-5)


def test_a_network_without_classes_does_not_ask_for_them(folder, tmp_path):
    network = save_network(tmp_path / "network", shape=(3, 8, 8), num_classes=0)
    assert call("likelihood.py", *of_folder(network, folder[0], tmp_path / "measured")) == 0
    settings = {"probes": 4, "seed": 5, "method": "heun2", "num_steps": 3}
    expected = log_likelihood(Field.from_pretrained(network), folder[1], **settings)
    np.testing.assert_allclose(rows_of(tmp_path / "measured")[:, 0], expected.nats.numpy(), rtol=1e-4, atol=1e-4)


def test_an_image_that_cannot_be_read_is_named(folder, tmp_path, capsys):
    network = save_network(tmp_path / "network", shape=(3, 8, 8), num_classes=2)
    broken = folder[0] / "b" / "2.png"
    broken.write_bytes(broken.read_bytes()[:60])
    assert call("likelihood.py", *of_folder(network, folder[0], tmp_path / "measured")) == 2
    assert f"error: data: every image must be readable, and is not: {broken}: " in capsys.readouterr().err
    assert not list((tmp_path / "measured").glob("*.npy"))


# A run that held out some


@pytest.fixture
def trained(folder, tmp_path):
    """A run on the images 0, 1 and 2: of the numbers 0 to 3 the checksum of 3 is the least."""
    data = DataConfig(name="folder", source=str(folder[0]), held_out=0.25, batch_size=2)
    model = ModelConfig("SiT-N/8", in_channels=3, num_classes=2)
    config = Config(run=str(tmp_path / "run"), device="cpu", data=data, model=model, training=TrainingConfig(steps=2))
    assert Trainer(config).fit()
    assert latest(config.run).meta["data"]["count"] == 3
    return config


def of_run(trained, *others):
    method = ("--likelihood.method=heun2", "--likelihood.num_steps=3", "--device=cpu")
    return (f"--run={trained.run}", f"--output={trained.run}-measured", "--part=heldout", *method, *others)


def test_what_a_run_held_out_is_measured(folder, trained):
    assert call("likelihood.py", *of_run(trained)) == 0
    settings = {"probes": 4, "method": "heun2", "num_steps": 3}
    expected = log_likelihood(load_field(trained.run), folder[1][3:], y=1, **settings)
    for got, values in zip(rows_of(Path(f"{trained.run}-measured")).T, expected, strict=True):
        np.testing.assert_allclose(got, values.numpy(), rtol=1e-4, atol=1e-4)


def test_what_was_trained_on_does_not_pass_for_held_out(trained, capsys):
    assert call("likelihood.py", *of_run(trained, "--data.held_out=0.5")) == 2
    assert "the run was begun with other data: class 'a' had 2 examples, has 1" in capsys.readouterr().err
    assert call("likelihood.py", *of_run(trained, "--data.held_out=null")) == 2
    assert "the run was begun with other data: class 'b' had 1 examples, has 2" in capsys.readouterr().err


def test_nothing_of_other_data_is_held_out_unasked(folder, trained, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(trained.data.source, other)
    next(other.rglob("*.png")).unlink()
    method = of_run(trained)[3:]
    all_of = (f"--run={trained.run}", f"--output={tmp_path / 'all'}", f"--data.source={other}", *method)
    assert call("likelihood.py", *all_of) == 2
    assert "To measure all of other data, set data.held_out to null." in capsys.readouterr().err
    assert call("likelihood.py", *all_of, "--data.held_out=null") == 0
    assert len(rows_of(tmp_path / "all")) == 3


def test_a_run_goes_on_with_what_it_held_out(trained):
    more = dataclasses.replace(trained, training=TrainingConfig(steps=3))
    with pytest.raises(CheckpointError, match=r"data.held_out was 0.25, is 0.5"):
        Trainer(dataclasses.replace(more, data=dataclasses.replace(trained.data, held_out=0.5)))
    assert Trainer(more).fit()


# Whoever measures it


def test_two_processes_measure_the_same_to_the_bit(network, measured, tmp_path):
    assert call_in_ranks(2, "likelihood.py", *flags(network, tmp_path)).count("nats") == 1
    assert contents(tmp_path) == contents(measured)


def test_killed_and_gone_on_with_it_is_the_same_to_the_bit(network, measured, tmp_path):
    call_killed("likelihood.py", *flags(network, tmp_path), saves=1)
    assert {file.name for file in tmp_path.iterdir()} == {
        SETTINGS, "likelihood-000000.npy", "likelihood-000001.npy.unfinished"
    }  # fmt: skip
    assert call("likelihood.py", *flags(network, tmp_path)) == 0
    assert contents(tmp_path) == contents(measured)


def test_a_signal_ends_it_and_the_same_command_resumes(network, measured, tmp_path, monkeypatch, capsys):
    written, write = [], ArrayShards.write

    def write_and_interrupt(results, shard, array):
        write(results, shard, array)
        written.append(shard)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(ArrayShards, "write", write_and_interrupt)
    for _ in range(3):
        assert call("likelihood.py", *flags(network, tmp_path)) == 0
        said = f"stopped by SIGTERM: {tmp_path} is not complete. The same command resumes.\n"
        assert capsys.readouterr().out == said
    assert written == [0, 1, 2]
    assert call("likelihood.py", *flags(network, tmp_path)) == 0
    assert contents(tmp_path) == contents(measured)


# What is wrong


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (("--likelihood.seed=6",), "was begun with other settings: likelihood.seed was 5, is 6. Restore them"),
        (("--likelihood.count=27",), "likelihood.count was 26, is 27."),
        (
            ("--part=train",),
            "images was 364, is 1433; part was 'heldout', is 'train'; class '0' had 36 examples, has 142;",
        ),
        (("--likelihood.batch_size=0",), "config: likelihood.batch_size must be at least 1, got 0."),
        (("--likelihood.count=0",), "config: likelihood.count must be at least 1, got 0."),
        (("--likelihood.probs=3",), "config: there is no setting 'likelihood.probs'. Nearest: 'likelihood.probes'."),
        (
            ("--data.split=test",),
            "config: data.split must be train, for data.name digits; --part heldout measures",
        ),
        (("--part=test",), "config: part must be one of train, heldout, got 'test'."),
        (("--data.held_out=0.1",), "data.held_out must be null for digits, which always hold out a fifth, got 0.1."),
    ],
)
def test_a_mistake_is_one_clear_line(network, measured, others, message, capsys):
    before = contents(measured)
    assert call("likelihood.py", *flags(network, measured, *others)) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.startswith("error: ")
    assert (said.err.count("\n"), said.out) == (1, "")
    assert contents(measured) == before


def test_what_has_measured_nothing_may_be_begun_otherwise(network, tmp_path, capsys):
    assert call("likelihood.py", *flags(network, tmp_path, "--likelihood.method=dopri")) == 2
    assert "log_likelihood: method must be one of euler," in capsys.readouterr().err
    assert call("likelihood.py", *flags(network, tmp_path)) == 0


@pytest.mark.parametrize(
    ("shape", "num_classes", "message"),
    [
        ((3, 8, 8), 10, "config: data must have the shape of the network, (3, 8, 8), got (1, 8, 8)."),
        ((1, 8, 8), 4, "config: data must have classes, at most the 4 of the network, got 10."),
    ],
)
def test_a_network_of_other_images_is_refused(tmp_path, shape, num_classes, message, capsys):
    network = save_network(tmp_path / "network", shape, num_classes)
    assert call("likelihood.py", *flags(network, tmp_path / "measured")) == 2
    assert message in capsys.readouterr().err
