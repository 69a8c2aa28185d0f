"""Many samples, as a user draws them: each is that of its number, whoever draws it and however often it is stopped."""

import json
import os
import re
import signal
from argparse import Namespace

import numpy as np
import pytest
import torch
from networks import save_network
from PIL import Image
from scripts import call, call_in_ranks, call_killed, contents
from tiny_vae import LATENT, reconstruction, save_vae

import interpolants as ip
from models import create_model
from training import Field, sample_ode, sample_sde
from training.autoencoder import Autoencoder
from training.checkpoint import latest
from training.config import Config, ModelConfig, TrainingConfig
from training.latents import Writer
from training.shards import SETTINGS, ArrayShards
from training.trained import Trained
from training.trainer import Trainer

COUNT, CLASSES = 22, 3
SAMPLERS = {
    "ode": ("--sampling.ode.method=heun2", "--sampling.ode.num_steps=3"),
    "sde": ("--sampler=sde", "--sampling.sde.num_steps=3"),
    "dopri5": ("--sampling.ode.method=dopri5",),
}


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return save_network(tmp_path_factory.mktemp("network"), num_classes=CLASSES)


def flags(network, output, *others, sampler="ode", count=COUNT, batch=5):
    """Five shards, the last of two."""
    return (
        f"--pretrained={network}", f"--output={output}", "--device=cpu", f"--sampling.num_samples={count}",
        f"--sampling.batch_size={batch}", "--sampling.seed=3", *SAMPLERS[sampler], *others,
    )  # fmt: skip


@pytest.fixture(scope="module")
def drawn(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    assert call("generate.py", *flags(network, folder, "--png=true")) == 0
    return folder


def images_of(folder):
    with np.load(folder / "samples.npz", allow_pickle=False) as content:
        return content["arr_0"]


def noise_of(shape, count=COUNT, seed=3):
    """At t = 0, by hand."""
    seeds = [np.random.SeedSequence((seed, i), spawn_key=(2,)).generate_state(1, np.uint64)[0] for i in range(count)]
    return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(int(s) >> 1)) for s in seeds])


def as_pixels(images):
    return np.rint((images.numpy().clip(-1, 1) + 1) * 127.5).astype(np.uint8).transpose(0, 2, 3, 1)


def assert_equal_but_for_rounding(got, expected):
    """In another batch the sums of a matrix product may be in another order: 1e-7 of a number, a pixel of 10,000."""
    assert (got.shape, got.dtype) == (expected.shape, np.uint8)
    difference = np.abs(got.astype(int) - expected.astype(int))
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 1e-3


# What is drawn


@pytest.mark.parametrize("sampler", ["ode", "sde"])
def test_a_sample_is_that_of_its_number(network, tmp_path, sampler):
    """Beside a call of the sampler with the noise and the labels of all at once."""
    assert call("generate.py", *flags(network, tmp_path, sampler=sampler)) == 0
    field, y = Field.from_pretrained(network), torch.arange(COUNT) % CLASSES
    if sampler == "ode":
        samples = sample_ode(field, noise_of((1, 8, 8)), num_steps=3, y=y)
    else:
        samples = sample_sde(field, noise_of((1, 8, 8)), w="sigma", num_steps=3, seed=3, y=y)
    assert_equal_but_for_rounding(images_of(tmp_path), as_pixels(samples).repeat(3, axis=3))


def test_samples_are_drawn_along_another_path(network, tmp_path):
    """Beside match_snr by hand, guided; by an SDE, whose samples differ between paths."""
    more = ("--sampling.path=gvp", "--sampling.guidance_scale=2", "--sampling.sde.w=sin_squared")
    assert call("generate.py", *flags(network, tmp_path, *more, sampler="sde")) == 0
    model, change = Field.from_pretrained(network).model, ip.match_snr(trained=ip.linear(), sampled=ip.gvp())

    def moved(x, t, y):
        return change.predict(model, x, t, y=y)

    moved.null_class = model.null_class
    field, y = Field(moved, ip.gvp(), guidance_scale=2.0), torch.arange(COUNT) % CLASSES
    samples = sample_sde(field, noise_of((1, 8, 8)), w="sin_squared", num_steps=3, seed=3, y=y)
    assert_equal_but_for_rounding(images_of(tmp_path), as_pixels(samples).repeat(3, axis=3))
    kept = json.loads((tmp_path / SETTINGS).read_text())
    assert kept["sampling"]["path"] == "gvp"


def test_the_npz_is_in_the_layout_of_adm(drawn, capfd):
    with np.load(drawn / "samples.npz", allow_pickle=False) as content:
        assert content.files == ["arr_0", "arr_1"]
        images, labels = content["arr_0"], content["arr_1"]
    assert (images.shape, images.dtype) == ((COUNT, 8, 8, 3), np.uint8)
    assert np.array_equal(labels, np.arange(COUNT) % CLASSES)
    assert np.array_equal(np.load(drawn / "labels.npy"), labels)
    shards = [np.load(drawn / f"images-{shard:06d}.npy") for shard in range(5)]
    assert [shard.shape for shard in shards] == [(5, 8, 8, 1)] * 4 + [(2, 8, 8, 1)]
    assert np.array_equal(images, np.concatenate(shards).repeat(3, axis=3))
    assert len(np.unique(images, axis=0)) == COUNT


def test_png_files_are_named_by_the_number(drawn):
    names = sorted(file.name for file in (drawn / "png").iterdir())
    assert names == [f"{index:06d}.png" for index in range(COUNT)]
    images = np.stack([np.asarray(Image.open(drawn / "png" / name)) for name in names])
    assert np.array_equal(images, images_of(drawn))


def test_it_says_how_long_it_takes_and_what_it_has_made(network, tmp_path, capsys):
    assert call("generate.py", *flags(network, tmp_path)) == 0
    said = capsys.readouterr()
    assert said.out == f"22 samples by ODE, heun2, 3 steps: {tmp_path}/samples.npz\n"
    assert re.search(r"about 00:0\d for 17 more, at [\d.e+]+ images/s\n", said.err)
    assert "22 of 22 images" in said.err


# Whoever draws it


def test_two_processes_make_the_bytes_of_one(network, drawn, tmp_path):
    said = call_in_ranks(2, "generate.py", *flags(network, tmp_path, "--png=true"))
    assert said.count("22 samples by") == 1
    assert contents(tmp_path) == contents(drawn)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_neither_the_batch_nor_the_number_of_samples_matters(network, tmp_path, sampler):
    assert call("generate.py", *flags(network, tmp_path / "one", sampler=sampler)) == 0
    assert call("generate.py", *flags(network, tmp_path / "other", sampler=sampler, batch=7, count=30)) == 0
    assert_equal_but_for_rounding(images_of(tmp_path / "other")[:COUNT], images_of(tmp_path / "one"))


def test_killed_and_gone_on_with_by_two_processes_it_is_the_same(network, drawn, tmp_path):
    """Killed when half of the third shard is written."""
    call_killed("generate.py", *flags(network, tmp_path, "--png=true"), saves=2)
    assert {file.name for file in tmp_path.iterdir()} == {
        SETTINGS, "images-000000.npy", "images-000001.npy", "images-000002.npy.unfinished"
    }  # fmt: skip
    times = {file.name: file.stat().st_mtime_ns for file in tmp_path.glob("*.npy")}
    call_in_ranks(2, "generate.py", *flags(network, tmp_path, "--png=true"))
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in times} == times
    assert contents(tmp_path) == contents(drawn)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_the_same_command_resumes(network, drawn, tmp_path, monkeypatch, capsys, number):
    written, write = [], ArrayShards.write

    def write_and_interrupt(images, shard, array):
        write(images, shard, array)
        written.append(shard)
        if len(written) in (2, 3):
            os.kill(os.getpid(), number)

    monkeypatch.setattr(ArrayShards, "write", write_and_interrupt)
    for last in (1, 2):
        assert call("generate.py", *flags(network, tmp_path, "--png=true")) == 0
        assert written[-1] == last
        said = f"stopped by {number.name}: {tmp_path} is not complete. The same command resumes.\n"
        assert capsys.readouterr().out == said
        assert not (tmp_path / "samples.npz").exists()
    assert call("generate.py", *flags(network, tmp_path, "--png=true")) == 0
    assert written == [0, 1, 2, 3, 4]
    assert contents(tmp_path) == contents(drawn)


def test_a_shard_that_was_damaged_is_drawn_again(network, drawn, tmp_path):
    for name, data in contents(drawn).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    os.truncate(tmp_path / "images-000003.npy", 200)
    (tmp_path / "images-000001.npy").unlink()
    assert call("generate.py", *flags(network, tmp_path)) == 0
    assert contents(tmp_path) == contents(drawn)


# What is wrong


@pytest.mark.parametrize(
    ("others", "message"),
    [
        (("--sampling.seed=4",), "was begun with other settings: sampling.seed was 3, is 4. Restore them, or write to"),
        (("--sampling.num_samples=23",), "sampling.num_samples was 22, is 23."),
        (("--sampling.batch_size=6",), "sampling.batch_size was 5, is 6."),
        (("--sampling.ode.num_steps=4",), "sampling.ode.num_steps was 3, is 4."),
        (("--sampling.guidance_scale=2",), "sampling.guidance_scale was 1.0, is 2.0."),
        (("--sampling.classes=[1]",), "sampling.classes was 'balanced', is [1]."),
        (("--precision=bfloat16",), "precision was 'float32', is 'bfloat16'."),
        (("--sampler=sde",), "sampler was 'ode', is 'sde'; sampling.ode.atol was"),
        (("--sampler=both",), "config: sampler must be one of ode, sde, got 'both'."),
        (("--precision=float16",), "config: precision must be one of float32, tf32, bfloat16, got 'float16'."),
        (("--weights=model",), "config: weights must be left out with pretrained, got 'model'."),
        (("--sampling.classes=[0, 3]",), "config: sampling.classes must be below 3, as the network's, got (0, 3)."),
        (("--vae=nowhere",), "autoencoder: 'nowhere' must be a diffusers AutoencoderKL, and cannot be loaded"),
        (("--vas=nowhere",), "config: there is no setting 'vas'."),
    ],
)
def test_a_mistake_is_one_clear_line(network, drawn, others, message, capsys):
    before = contents(drawn)
    assert call("generate.py", *flags(network, drawn, *others)) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.startswith("error: ")
    assert (said.err.count("\n"), said.out) == (1, "")
    assert contents(drawn) == before


def test_another_network_is_another_setting(network, drawn, tmp_path, capsys):
    model = Field.from_pretrained(network).model
    model.final_layer.linear.bias.data += 1e-3
    Field(model, ip.linear()).save_pretrained(tmp_path)
    assert call("generate.py", *flags(tmp_path, drawn)) == 2
    assert re.search("other settings: network.sha256 was '[0-9a-f]{64}', is '[0-9a-f]{64}'", capsys.readouterr().err)


def test_what_has_made_nothing_may_be_begun_otherwise(network, tmp_path, capsys):
    assert call("generate.py", *flags(network, tmp_path, "--sampling.sde.w=t - 1", sampler="sde")) == 2
    assert "w: t - 1 must be finite and >= 0" in capsys.readouterr().err
    assert call("generate.py", *flags(network, tmp_path, sampler="sde")) == 0


def test_a_sample_that_is_not_finite_is_named_and_not_written(tmp_path, capsys):
    """Numbers 7 and 9, of class 1."""
    network = save_network(tmp_path / "network", num_classes=CLASSES, damaged=1)
    classes = "--sampling.classes=[0, 2, 0, 2, 0, 2, 0, 1, 0, 1, 0, 0]"
    assert call("generate.py", *flags(network, tmp_path / "drawn", classes)) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: generate: samples must be finite, and not finite are 7, 9: ")
    assert "in step 1 of 3, at t = 0" in error
    assert [file.name for file in (tmp_path / "drawn").glob("*.npy*")] == ["images-000000.npy"]


# Networks


def test_of_a_run_the_weights_are_chosen_by_name(tmp_path):
    settings = TrainingConfig(steps=4, learning_rate=0.005, warmup_steps=0, ema_decays=(0.1, 0.9))
    run = {"run": str(tmp_path / "run"), "device": "cpu", "model": ModelConfig("SiT-T/8"), "training": settings}
    assert Trainer(Config(**run)).fit()
    fields = {}
    for weights in ("ema", "ema-0.9", "model"):
        chosen = Trained(**run, weights=weights).field(torch.device("cpu"))
        for name, value in latest(tmp_path / "run").tensors(weights).items():
            assert torch.equal(chosen.model.state_dict()[name], value)
        fields[weights] = chosen
    assert len({float(field.model.final_layer.linear.weight.sum()) for field in fields.values()}) == 3
    these = ("--model.name=SiT-T/8", f"--run={tmp_path / 'run'}", f"--output={tmp_path / 'drawn'}", "--device=cpu")
    number = ("--sampling.num_samples=4", "--sampling.ode.num_steps=2", "--sampling.seed=3", "--weights=model")
    assert call("generate.py", *these, *number) == 0
    samples = sample_ode(fields["model"], noise_of((1, 8, 8), 4), num_steps=2, y=torch.arange(4))
    assert_equal_but_for_rounding(images_of(tmp_path / "drawn"), as_pixels(samples).repeat(3, axis=3))


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """A training checkpoint of the release: a network, and its average, which differs."""
    torch.manual_seed(0)
    model = create_model("SiT-T/8", input_size=8, in_channels=1, num_classes=CLASSES)
    for parameter in (each for each in model.parameters() if each.requires_grad):  # the positions are constant
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    average = {name: value if name == "pos_embed" else 0.9 * value for name, value in model.state_dict().items()}
    file = tmp_path_factory.mktemp("official") / "0000100.pt"
    torch.save({"model": model.state_dict(), "ema": average, "opt": {}, "args": Namespace(model="SiT-T/8")}, file)
    return file


@pytest.mark.parametrize("weights", ["ema", "model"])
def test_an_official_file_is_drawn_from_on_the_path_of_the_settings(official, tmp_path, weights):
    model = create_model("SiT-T/8", input_size=8, in_channels=1, num_classes=CLASSES).eval()
    model.load_state_dict(torch.load(official, weights_only=False)[weights])
    these = ("--path=vp", "--prediction=noise", f"--weights={weights}", "--sampling.ode.method=euler")
    assert call("generate.py", *flags(official, tmp_path, *these, count=4)) == 0
    field = Field(model, ip.vp(), "noise")
    samples = sample_ode(field, noise_of((1, 8, 8), 4), num_steps=3, method="euler", y=torch.arange(4) % CLASSES)
    assert_equal_but_for_rounding(images_of(tmp_path), as_pixels(samples).repeat(3, axis=3))


def test_pictures_of_an_official_file_need_no_run(official, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    these = ("--sampling.classes=[2, 0]", "--sampling.sde.num_steps=3", "--sampling.sde.last_step=tweedie")
    these = (*flags(official, "drawn", count=4), *these, "--sampling.sde.interval=[0, 0.9]")
    assert call("sample.py", *these) == 0
    assert {file.name for file in (tmp_path / "drawn").iterdir()} == {
        "samples_ode.npz", "samples_ode.png", "samples_sde.npz", "samples_sde.png", "trajectory.png"
    }  # fmt: skip
    assert f"4 samples by SDE, w = sigma, 3 steps, last step tweedie, of {official}" in capsys.readouterr().out
    with np.load("drawn/samples_sde.npz") as content:
        samples, labels = torch.from_numpy(content["samples"]), content["labels"]
    model = create_model("SiT-T/8", input_size=8, in_channels=1, num_classes=CLASSES).eval()
    model.load_state_dict(torch.load(official, weights_only=False)["ema"])
    field, noise, y = Field(model, ip.linear()), noise_of((1, 8, 8), 4), torch.tensor([2, 0, 2, 0])
    settings = {"w": "sigma", "num_steps": 3, "seed": 3, "y": y, "interval": (0.0, 0.9), "last_step": "tweedie"}
    torch.testing.assert_close(samples, sample_sde(field, noise, **settings), rtol=1e-4, atol=1e-4)
    assert labels.tolist() == y.tolist()
    official_sde = ("--sampler=sde", "--sampling.sde.official=true", "--sampling.sde.method=heun")
    assert call("sample.py", *flags(official, "other", count=4), *official_sde, "--sampling.sde.num_steps=3") == 0
    assert {file.name for file in (tmp_path / "other").iterdir()} == {"samples_sde.npz", "samples_sde.png"}


@pytest.mark.parametrize(
    ("script", "others", "message"),
    [
        (
            "generate.py",
            ("--pretrained=SiT-XL-2-256x256.pt",),
            "pretrained: must be a file that is there, got 'SiT-",
        ),
        ("generate.py", ("--pretrained={official}", "--weights=ema-0.9"), "weights must be ema or model for an offici"),
        ("generate.py", ("--pretrained={official}", "--precision=tf32"), "config: precision must be float32 or bfloat"),
        ("sample.py", ("--pretrained={official}", "--output=null"), "output must be set with pretrained, got null."),
    ],
)
def test_a_mistake_about_an_official_file_is_one_clear_line(official, tmp_path, script, others, message, capsys):
    others = (each.format(official=official) for each in others)
    assert call(script, *flags(official, tmp_path / "drawn"), *others) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "drawn").exists()


def test_without_a_checkpoint_or_with_another_path_there_is_one_clear_line(tmp_path, capsys):
    assert call("generate.py", f"--run={tmp_path}", f"--output={tmp_path / 'drawn'}") == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path}: there is no checkpoint. Train first: sit train, or examples/train.py.\n"
    )


def test_a_network_without_classes_is_sampled_too(tmp_path):
    network = save_network(tmp_path / "network", shape=(3, 8, 8), num_classes=0)
    assert call("generate.py", *flags(network, tmp_path / "drawn")) == 0
    samples = sample_ode(Field.from_pretrained(network), noise_of((3, 8, 8)), num_steps=3)
    assert_equal_but_for_rounding(images_of(tmp_path / "drawn"), as_pixels(samples))
    assert not np.load(tmp_path / "drawn" / "labels.npy").any()


def test_blocks_in_bfloat16_give_nearly_the_same(network, drawn, tmp_path):
    assert call("generate.py", *flags(network, tmp_path, "--precision=bfloat16")) == 0
    difference = np.abs(images_of(tmp_path).astype(int) - images_of(drawn)).mean()
    assert 0 < difference < 1


# Latents


@pytest.fixture(scope="module")
def latent_network(tmp_path_factory):
    folder = tmp_path_factory.mktemp("latent")
    save_vae(folder / "vae")
    return save_network(folder / "network", shape=LATENT, num_classes=CLASSES), folder / "vae"


def samples_of(network):
    return sample_ode(Field.from_pretrained(network), noise_of(LATENT), num_steps=3, y=torch.arange(COUNT) % CLASSES)


def test_latents_are_decoded_by_a_vae(latent_network, tmp_path):
    network, vae = latent_network
    assert call("generate.py", *flags(network, tmp_path, f"--vae={vae}", batch=20)) == 0
    assert_equal_but_for_rounding(images_of(tmp_path), as_pixels(reconstruction(vae, samples_of(network) / 0.18215)))


def test_latents_are_decoded_as_the_data_were_normalized(latent_network, tmp_path):
    network, vae = latent_network
    known = Autoencoder(vae)
    settings = {
        "vae": {"name": str(vae), "sha256": known.digest, "factor": 2, "scaling_factor": 0.18215, "shift_factor": 0.0},
        "image_size": 16, "shape": LATENT, "dtype": "float32", "images": 9, "shard_size": 9, "num_classes": CLASSES,
    }  # fmt: skip
    writer = Writer(tmp_path / "latents", settings)
    writer.begin()
    spread = np.array([1, 2, 3, 4], np.float32)[:, None, None]
    mean = spread * np.random.default_rng(0).standard_normal((9, 2, *LATENT), np.float32) + spread
    writer.write(0, mean, 0 * mean, [0] * 9, [])
    manifest = writer.finish()
    data = ("--data.name=latents", f"--data.source={tmp_path / 'latents'}", "--data.normalization=per_channel")
    assert call("generate.py", *flags(network, tmp_path / "drawn", *data)) == 0
    mean, std = (torch.tensor(manifest[name])[:, None, None] for name in ("mean", "std"))
    expected = as_pixels(reconstruction(vae, samples_of(network) * std + mean))
    assert_equal_but_for_rounding(images_of(tmp_path / "drawn"), expected)
    saved = json.loads((tmp_path / "drawn" / SETTINGS).read_text())
    assert saved["vae"]["sha256"] == known.digest


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ((), "config: vae must be set to decode samples of 4 channels, got null."),
        (("--data.name=latents", "--data.source=nowhere"), "latents: nowhere must be a folder of latents"),
    ],
)
def test_latents_without_a_vae_are_refused(latent_network, tmp_path, others, message, capsys):
    assert call("generate.py", *flags(latent_network[0], tmp_path, *others)) == 2
    assert message in capsys.readouterr().err


def test_an_image_that_the_vae_makes_not_finite_is_named(latent_network, tmp_path, monkeypatch, capsys):
    decode = Autoencoder.decode

    def decode_wrongly(vae, latents):
        images = decode(vae, latents).clone()
        images[1, 0, 0, 0] = torch.inf
        return images

    monkeypatch.setattr(Autoencoder, "decode", decode_wrongly)
    network, vae = latent_network
    assert call("generate.py", *flags(network, tmp_path, f"--vae={vae}", batch=20)) == 2
    assert "not finite are 1: so the VAE has decoded them." in capsys.readouterr().err
    assert not list(tmp_path.glob("*.npy"))
