"""From images to latents, a trained network, samples and images again, as a user does it."""

import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from scripts import call, call_in_ranks, call_killed
from tiny_vae import LATENT, SIZE, posterior, reconstruction, save_images, save_vae

from examples import compare_latents, sample
from training.checkpoint import latest
from training.config import Config, DataConfig, ModelConfig, SamplingConfig, TrainingConfig
from training.decoder import Decoder
from training.images import image_files
from training.latents import MANIFEST, Latents, Writer
from training.shards import SETTINGS
from training.trainer import Trainer

ROOT = Path(__file__).parents[2]
BROKEN = (4, 9)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("here")
    save_vae(folder / "vae")
    return folder


@pytest.fixture(scope="module")
def images(here):
    """Shards of 4, 5 and 2 images from 0, 5 and 10 on, without the broken ones."""
    return save_images(here / "images", broken=BROKEN)


def flags(here, output, **others):
    settings = {
        "source": here / "images", "output": output, "vae": here / "vae", "image_size": SIZE, "batch_size": 2,
        "shard_size": 5, "device": "cpu", **others,
    }  # fmt: skip
    return [f"--{name}={value}" for name, value in settings.items()]


@pytest.fixture(scope="module")
def encoded(here, images):
    """By two workers beside the process."""
    assert call("encode_latents.py", *flags(here, here / "latents", workers=2)) == 0
    return here / "latents"


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix != ".png"}


# Encoding


def test_latents_are_what_diffusers_makes_of_the_images_and_their_mirror_images(here, images, encoded):
    """To the rounding of float16, 2^-11 of a number."""
    crops, labels = images
    latents = Latents(encoded)
    assert (len(latents), latents.shape, latents.num_classes) == (10, LATENT, 2)
    assert latents.labels.tolist() == labels
    for side, pixels in enumerate((crops, crops[:, :, ::-1].copy())):
        for kind, exact in enumerate(posterior(here / "vae", pixels)):
            got = np.stack([latents.posterior(index)[kind][side] for index in range(10)])
            np.testing.assert_allclose(got, exact.numpy(), rtol=2**-10.9, atol=1e-6)


def test_draws_have_the_moments_of_the_vae(here, images, encoded):
    """Of the scaled latents, over 4,000 seeds, half of them of the mirror image; bounds of five standard errors."""
    index, count = 6, 4000
    draws = Latents(encoded).batch([index] * count, [(1, place) for place in range(count)])
    assert set(draws.labels.tolist()) == {images[1][index]}
    crop = images[0][index]
    mean, std = posterior(here / "vae", np.stack([crop, crop[:, ::-1]]))
    middle, spread = mean.mean(0), (std.square().mean(0) + mean.var(0, correction=0)).sqrt()
    z = draws.data / 0.18215
    assert ((z.mean(0) - middle).abs() < 5 * spread / count**0.5).all()
    assert ((z.std(0) / spread - 1).abs() < 5 / (2 * count) ** 0.5).all()


def test_the_manifest_says_what_they_are(here, images, encoded):
    manifest = json.loads((encoded / MANIFEST).read_text())
    said = {name: manifest[name] for name in ("count", "images", "image_size", "crop", "shape", "dtype", "classes")}
    assert said == {
        "count": 10, "images": 12, "image_size": SIZE, "crop": "ADM centre crop", "shape": [4, 8, 8],
        "dtype": "float16", "classes": ["cats", "dogs"],
    }  # fmt: skip
    assert manifest["vae"]["name"] == str(here / "vae")
    assert [shard["count"] for shard in manifest["shards"]] == [4, 4, 2]
    assert [(image["index"], Path(image["name"]).name) for image in manifest["unreadable"]] == [
        (4, "04.jpg"), (9, "09.jpg")
    ]  # fmt: skip


def test_decoding_is_the_vaes_own_reconstruction(here, images, encoded):
    """From float32, in both normalizations."""
    assert call("encode_latents.py", *flags(here, here / "exact", dtype="float32")) == 0
    for normalization in ("scale", "per_channel"):
        latents = Latents(here / "exact", normalization, flip=False)
        mean, std = posterior(here / "vae", images[0])
        x = latents.batch(range(10), [(0, 0)] * 10).data
        drawn = (latents.to_vae(x) - mean) / std
        torch.testing.assert_close(drawn, drawn[:1].expand_as(drawn), rtol=0, atol=1e-3)  # the same noise for all
        exact = reconstruction(here / "vae", mean + std * drawn[:1])
        torch.testing.assert_close(latents.decoder()(x), exact, rtol=0, atol=1e-4)


def test_what_datasets_loads_is_encoded_too(here, images, tmp_path):
    features = datasets.Features({"image": datasets.Image(), "kind": datasets.ClassLabel(names=["cats", "dogs"])})
    rows = [{"image": Image.fromarray(crop), "kind": label} for crop, label in zip(*images, strict=True)]
    datasets.Dataset.from_list(rows, features=features).to_parquet(tmp_path / "images" / "0.parquet")
    assert call("encode_latents.py", *flags(tmp_path, tmp_path / "latents", name="datasets", vae=here / "vae")) == 0
    latents = Latents(tmp_path / "latents")
    assert latents.manifest["classes"] == ["cats", "dogs"]
    mean, _ = posterior(here / "vae", images[0])
    got = np.stack([latents.posterior(index)[0][0] for index in range(10)])
    np.testing.assert_allclose(got, mean.numpy(), rtol=2**-10.9, atol=1e-6)


# Stopped, and gone on with


def test_a_signal_ends_it_and_the_same_command_resumes(here, encoded, tmp_path, monkeypatch, capsys):
    write = Writer.write

    def write_and_interrupt(writer, shard, *arrays):
        write(writer, shard, *arrays)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Writer, "write", write_and_interrupt)
    for number in range(3):
        assert not (tmp_path / MANIFEST).exists()
        assert not (tmp_path / f"shard-{number:05d}.json").exists()
        assert call("encode_latents.py", *flags(here, tmp_path)) == 0
        said = f"stopped by SIGTERM: {tmp_path} is not complete. The same command resumes.\n"
        assert capsys.readouterr().out == said
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert call("encode_latents.py", *flags(here, tmp_path)) == 0
    said = f"encoded 10 images; 2 could not be read: see {tmp_path}/manifest.json\n"
    assert capsys.readouterr().out == said
    assert contents(tmp_path) == contents(encoded)


def test_killed_and_gone_on_with_by_two_processes_it_is_the_same(here, encoded, tmp_path):
    """Killed in the second shard, when half of a file is written."""
    call_killed("encode_latents.py", *flags(here, tmp_path), saves=3)
    assert {file.suffix for file in tmp_path.iterdir()} == {".json", ".npy", ".unfinished"}
    first = {name: data for name, data in contents(tmp_path).items() if "-00000" in name}
    times = {name: (tmp_path / name).stat().st_mtime_ns for name in first}
    assert call_in_ranks(2, "encode_latents.py", *flags(here, tmp_path)).count("encoded 10 images") == 1
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in first} == times
    assert contents(tmp_path) == contents(encoded)


def test_the_same_images_elsewhere_are_the_same_and_others_are_named(here, encoded, tmp_path, capsys):
    output, images = tmp_path / "latents", tmp_path / "images"
    shutil.copytree(encoded, output)
    shutil.copytree(here / "images", images)
    assert call("encode_latents.py", *flags(here, output, source=images)) == 0
    assert contents(output) == contents(encoded) | {SETTINGS: (output / SETTINGS).read_bytes()} | {
        MANIFEST: (output / MANIFEST).read_bytes()
    }
    image_files(images)[0].write_bytes(b"")
    assert call("encode_latents.py", *flags(here, output, source=images)) == 2
    assert "has other examples, or in another order. Restore them" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"batch_size": 3}, "was begun with other settings: batch_size was 2, is 3. Restore them, or write to a new"),
        ({"dtype": "float32"}, "other settings: dtype was 'float16', is 'float32'"),
        ({"dtype": "int8"}, "config: dtype must be one of float16, float32, got 'int8'"),
        ({"name": "zip"}, "config: name must be one of folder, datasets, got 'zip'"),
        ({"image_size": 15}, "config: image_size must be a multiple of 2, got 15"),
        ({"shard_size": 0}, "config: shard_size must be at least 1, got 0"),
        ({"workers": -1}, "config: workers must be at least 0, got -1"),
        ({"device": "abacus"}, "config: device must be available, got 'abacus'"),
        ({"source": "nowhere"}, "data: nowhere must be a folder of images, and is not there"),
        ({"vae": "nowhere"}, "autoencoder: 'nowhere' must be a diffusers AutoencoderKL, and cannot be loaded"),
        ({"shard": 3}, "config: there is no setting 'shard'. Nearest: 'shard_size'"),
    ],
)
def test_a_mistake_is_one_clear_line(here, encoded, others, message, capsys):
    before = contents(encoded)
    assert call("encode_latents.py", *flags(here, encoded, **others)) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.startswith("error: ")
    assert (said.err.count("\n"), said.out) == (1, "")
    assert contents(encoded) == before


def test_other_weights_are_other_settings(here, images, encoded, tmp_path, capsys):
    shutil.copytree(encoded, tmp_path / "latents")
    shutil.copytree(here / "images", tmp_path / "images")
    save_vae(tmp_path / "vae", seed=1)
    assert call("encode_latents.py", *flags(here, tmp_path / "latents", vae=tmp_path / "vae")) == 2
    assert "vae.sha256 was" in capsys.readouterr().err


def test_settings_are_required(capsys):
    assert call("encode_latents.py") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: config: source and output must be set, got nothing. Add --source TEXT (Folder of im")
    assert said.endswith("; --output TEXT (Folder that the latents are written to).\n")


# Decoding


def test_the_comparison_measures_both_sides(here, images, encoded, tmp_path, capsys):
    output = tmp_path / "comparison.png"
    assert call("compare_latents.py", f"--latents={encoded}", f"--output={output}", "--count=3", "--verify=true") == 0
    assert output.read_bytes().startswith(b"\x89PNG")
    verified, *sides, last = capsys.readouterr().out.splitlines()
    assert verified == f"{encoded}: every file is, to the byte, what was written"
    chosen = images[0][[0, 4, 9]]  # spread over ten; of these, the two that could not be read are left out
    for said, name, pixels in zip(
        sides, ("the images", "their mirror images"), (chosen, chosen[:, :, ::-1].copy()), strict=True
    ):
        decoded = reconstruction(here / "vae", posterior(here / "vae", pixels)[0]).permute(0, 2, 3, 1).numpy()
        error = (decoded + 1) * 127.5 - pixels
        psnr = np.mean([10 * np.log10(255**2 / np.mean(one**2)) for one in error])
        numbers = [float(part) for part in said.removeprefix(f"{name}: PSNR ").split() if part[0].isdigit()]
        assert numbers == pytest.approx([psnr, np.abs(error).mean(), 255], abs=0.02)
    assert last == f"3 of 10 images, and what {here}/vae makes of their latents: {output}"


def test_the_comparison_finds_the_image_of_each_of_the_latents(encoded):
    images, indices = compare_latents.encoded_images(Latents(encoded))
    assert indices == [0, 1, 2, 3, 5, 6, 7, 8, 10, 11]
    assert (len(images), images.shape) == (12, (3, SIZE, SIZE))


def test_images_that_have_gone_are_not_compared(here, images, encoded, tmp_path, capsys):
    shutil.copytree(here / "images", tmp_path / "images")
    assert call("encode_latents.py", *flags(here, tmp_path / "latents", source=tmp_path / "images")) == 0
    (tmp_path / "images" / "dogs" / "08.jpg").unlink()
    capsys.readouterr()
    assert call("compare_latents.py", f"--latents={tmp_path / 'latents'}") == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'images'} must hold the 12 images encoded, got 11.\n"


# Training


@pytest.fixture(scope="module")
def run(here, encoded):
    config = run_config(here)
    assert Trainer(config).fit()
    return config


def run_config(here, **data):
    return Config(
        run=str(here / "run"),
        device="cpu",
        model=ModelConfig("SiT-T/8", input_size=8, in_channels=4, num_classes=2),
        data=DataConfig(**{"name": "latents", "source": str(here / "latents"), "batch_size": 4, **data}),
        training=TrainingConfig(steps=2),
        sampling=SamplingConfig(num_samples=6),
    )


def pictures(config):
    return sample.Pictures(**{each.name: getattr(config, each.name) for each in dataclasses.fields(Config)})


def test_a_network_is_trained_on_latents_and_its_samples_are_decoded(here, images, run, capsys):
    assert latest(run.run).step == 2
    sample.main(pictures(run))
    assert capsys.readouterr().out.count("6 samples by") == 2
    names = ("samples_ode.png", "samples_sde.png", "trajectory.png")
    assert all((here / "run" / name).read_bytes().startswith(b"\x89PNG") for name in names)
    with np.load(here / "run" / "samples_ode.npz") as drawn:
        x = torch.from_numpy(drawn["samples"])
        assert x.shape == (6, *LATENT)  # in training units
    decoder = Decoder(pictures(run), LATENT, torch.device("cpu"))
    torch.testing.assert_close(decoder.images(x), reconstruction(here / "vae", x / 0.18215), rtol=0, atol=1e-5)


def test_real_images_beside_them_are_decoded_and_not_flipped(here, images, run):
    source = Latents(here / "latents", flip=False)
    decoder = Decoder(pictures(run), LATENT, torch.device("cpu"))
    real, labels, what = sample.real_examples(pictures(run), decoder.images)
    x = source.batch(range(10), [(run.seed, index) for index in range(10)])
    assert (labels.tolist(), what) == (images[1], "Real, from the training data, decoded")
    torch.testing.assert_close(real, reconstruction(here / "vae", x.data / 0.18215), rtol=0, atol=1e-5)


def test_a_picture_has_the_first_of_each_class():
    labels = torch.tensor([2, 0, 1, 0, 2, 0, 5])
    assert sample.first_of_each(labels, rows=2, classes=3) == [1, 3, 2, 0, 4]


def test_the_vae_may_be_named_where_it_has_gone(here, run, tmp_path):
    """And one with other weights under the old name is refused."""
    shutil.copytree(here / "latents", tmp_path / "latents")
    manifest = json.loads((tmp_path / "latents" / MANIFEST).read_text())
    manifest["vae"]["name"] = str(tmp_path / "vae")
    (tmp_path / "latents" / MANIFEST).write_text(json.dumps(manifest))
    elsewhere = run_config(here, source=str(tmp_path / "latents"))
    with pytest.raises(
        ValueError, match=r"autoencoder: '.*vae' must be a diffusers AutoencoderKL, and cannot be loaded"
    ):
        sample.main(pictures(elsewhere))
    named = run_config(here, source=str(tmp_path / "latents"), vae=str(here / "vae"))
    x = torch.randn(2, *LATENT)
    decoded = Decoder(pictures(named), LATENT, torch.device("cpu")).images(x)
    torch.testing.assert_close(decoded, reconstruction(here / "vae", x / 0.18215), rtol=0, atol=1e-5)
    save_vae(tmp_path / "vae", seed=1)
    with pytest.raises(ValueError, match=r"must be the one that .* was encoded by, with the SHA-256") as caught:
        sample.main(pictures(elsewhere))
    assert "\n" not in str(caught.value)


def test_a_vae_with_other_latents_does_not_decode_them(encoded, tmp_path):
    with pytest.raises(ValueError, match=r"must have 4 channels and images 2 times as large, as .*, got 4 and 4\.$"):
        Latents(encoded).decoder(str(save_vae(tmp_path, levels=3)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"normalization": "std"}, "config: data.normalization must be one of scale, per_channel, got 'std'"),
        ({"source": None}, "config: data.source must be set, for data.name latents, got None"),
        ({"name": "folder", "normalization": "scale"}, "data.normalization must be null, for data.name folder"),
        ({"name": "folder", "vae": "x"}, "config: data.vae must be null, for data.name folder, got 'x'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(here, data, message):
    with pytest.raises(ValueError, match=message):
        run_config(here, **data)


def test_a_network_of_another_shape_is_refused(here, encoded):
    config = run_config(here)
    object.__setattr__(config, "model", ModelConfig("SiT-T/8", input_size=8, in_channels=3, num_classes=2))
    with pytest.raises(ValueError, match=r"must be those of the data, \(4, 8, 8\), got \(3, 8, 8\)"):
        Trainer(config)


@pytest.mark.parametrize("normalization", ["per_channel", None])
def test_the_normalization_is_that_of_the_settings(here, encoded, normalization):
    source = run_config(here, normalization=normalization).data_source()
    expected = Latents(encoded, normalization or "scale")
    assert torch.equal(source.batch([3], [(0, 0)]).data, expected.batch([3], [(0, 0)]).data)
