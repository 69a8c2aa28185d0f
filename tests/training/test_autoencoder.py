"""The VAE against diffusers, called directly; and what is said of one that is not whole."""

import hashlib
import json
import logging
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_vae import LATENT, SIZE, posterior, reconstruction, save_vae

from training.autoencoder import CONFIG, WEIGHTS, Autoencoder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_vae(tmp_path_factory.mktemp("vae"))


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), dtype=np.uint8)


def in_unit_range(pixels):
    return torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1


def test_it_encodes_and_decodes_as_diffusers_does(folder, pixels):
    vae = Autoencoder(folder)
    mean, std = vae.encode(in_unit_range(pixels))
    assert mean.shape == std.shape == (5, *LATENT)
    torch.testing.assert_close((mean, std), posterior(folder, pixels))
    images = vae.decode(mean, chunk=2)
    torch.testing.assert_close(images, reconstruction(folder, mean))
    assert (images.abs() == 1).any()  # cut off there
    assert images.dtype == torch.float32


def test_it_says_what_it_is(folder, tmp_path):
    vae = Autoencoder(folder)
    assert (vae.name, vae.channels, vae.factor) == (str(folder), 4, 2)
    assert (vae.scaling_factor, vae.shift_factor) == (0.18215, 0.0)  # what diffusers has by default: that of SD
    assert vae.digest == hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    other = Autoencoder(save_vae(tmp_path, seed=1, scaling_factor=0.3611, shift_factor=0.1159))
    assert (other.scaling_factor, other.shift_factor) == (0.3611, 0.1159)
    assert other.digest != vae.digest


def test_in_bfloat16_it_is_nearly_the_same(folder, pixels):
    mean, std = Autoencoder(folder, dtype=torch.bfloat16).encode(in_unit_range(pixels))
    assert mean.dtype == std.dtype == torch.float32
    exact = posterior(folder, pixels)
    assert 0 < (mean - exact[0]).abs().max() < 0.1  # 2^-8 of numbers up to 4, after a few layers
    torch.testing.assert_close(std, exact[1], rtol=0.1, atol=0)


def test_weights_by_their_former_names_are_read(folder, tmp_path, pixels):
    """As those of stabilityai/sd-vae-ft-ema have them."""
    former = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = load_file(folder / WEIGHTS)
    renamed = 0
    for name in list(weights):
        for now, before in former.items():
            if f"attentions.0.{now}." in name:
                weights[name.replace(now, before)] = weights.pop(name)
                renamed += 1
    assert renamed == 16
    save_file(weights, tmp_path / WEIGHTS, metadata={"format": "pt"})
    (tmp_path / CONFIG).write_bytes((folder / CONFIG).read_bytes())
    torch.testing.assert_close(Autoencoder(tmp_path).encode(in_unit_range(pixels)), posterior(folder, pixels))


def rewritten(change):
    def damage(folder):
        weights = load_file(folder / WEIGHTS)
        change(weights)
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})

    return damage


def configured(**settings):
    def damage(folder):
        config = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps({**config, **settings}))

    return damage


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / CONFIG).unlink(), "no file named config.json"),
        (lambda folder: (folder / CONFIG).write_text("{"), "not a valid JSON file"),
        (configured(latent_channels=8), "size mismatch for encoder.conv_out.weight"),
        (configured(down_block_types=["Spiral", "Spiral"]), "Spiral does not exist"),
        (lambda folder: (folder / WEIGHTS).unlink(), f"no file named {WEIGHTS}"),
        (lambda folder: (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-9]), "Unable to load weights"),
        (
            rewritten(lambda weights: weights.pop("encoder.conv_in.bias")),
            "1 missing keys, such as encoder.conv_in.bias",
        ),
        (rewritten(lambda weights: weights.update(extra=torch.ones(1))), "1 unexpected keys, such as extra"),
    ],
)
def test_what_is_not_a_whole_vae_is_refused_in_one_line(folder, tmp_path, damage, reason):
    for name in (CONFIG, WEIGHTS):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    damage(tmp_path)
    with pytest.raises(ValueError, match="must be a diffusers AutoencoderKL, and cannot be loaded") as caught:
        Autoencoder(tmp_path)
    assert reason in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["no such folder", "nobody/no-such-vae", "a/b/c"])
def test_one_that_is_not_there_is_refused_in_one_line(name):
    with pytest.raises(ValueError, match=f"^autoencoder: '{name}' must be .* cannot be loaded: .+") as caught:
        Autoencoder(name)
    assert "\n" not in str(caught.value)


def test_without_diffusers_the_extra_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ImportError, match=r"pip install 'sit-interpolants\[vae\]'"):
        Autoencoder(folder)


def test_the_log_is_left_as_it_was(folder):
    Autoencoder(folder)
    assert logging.root.manager.disable == logging.NOTSET


@pytest.mark.parametrize(
    "pixels",
    [
        torch.zeros(3, 16, 16),
        torch.zeros(2, 1, 16, 16),
        torch.zeros(2, 3, 16, 15),
        torch.zeros(2, 3, 16, 16, dtype=torch.uint8),
    ],
)
def test_other_images_are_refused(folder, pixels):
    with pytest.raises(ValueError, match=r"Autoencoder.encode: pixels must be floating point of shape \(B, 3, H, W\)"):
        Autoencoder(folder).encode(pixels)


@pytest.mark.parametrize("latents", [torch.zeros(4, 8, 8), torch.zeros(2, 3, 8, 8)])
def test_other_latents_are_refused(folder, latents):
    with pytest.raises(ValueError, match=r"Autoencoder.decode: latents must have shape \(B, 4, h, w\), got"):
        Autoencoder(folder).decode(latents)
