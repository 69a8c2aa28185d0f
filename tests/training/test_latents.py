"""Cached latents: what is read is what was written, drawn and scaled as it is said; whatever kills the writing."""

import json
import os
import pickle
import signal

import numpy as np
import pytest
import torch

from training import files
from training.data import Steps
from training.latents import KINDS, LABELS, MANIFEST, Latents, Writer
from training.order import ShuffledBatches
from training.shards import SETTINGS

SHAPE = (3, 4, 2)
VAE = {"name": "nowhere/vae", "sha256": "0" * 64, "factor": 8, "scaling_factor": 0.25, "shift_factor": 0.5}
SETTINGS_HERE = {
    "vae": VAE, "image_size": 32, "shape": SHAPE, "dtype": "float32", "images": 10, "shard_size": 4, "num_classes": 3,
}  # fmt: skip
LEFT_OUT = {1, 4, 5, 6, 7}
KEPT = [image for image in range(10) if image not in LEFT_OUT]


def numbers(dtype="float32"):
    """Mean and std of ten images and of their mirror images."""
    random = np.random.default_rng(0)
    mean = 3 * random.standard_normal((10, 2, *SHAPE)) + np.arange(3)[:, None, None]
    return mean.astype(dtype), np.exp(random.standard_normal((10, 2, *SHAPE))).astype(dtype)


def write_shard(writer, shard, mean, std):
    rows = [image for image in writer.of(shard) if image not in LEFT_OUT]
    unreadable = [{"index": i, "name": f"image {i}", "error": "OSError"} for i in writer.of(shard) if i in LEFT_OUT]
    writer.write(shard, mean[rows], std[rows], [image % 3 for image in rows], unreadable)


def write(folder, order=None, mean=None, std=None, **settings):
    """Shards of 3, 0 and 2 images."""
    settings = {**SETTINGS_HERE, **settings}
    writer = Writer(folder, settings)
    writer.begin()
    given = dict(zip(KINDS, numbers(settings["dtype"]), strict=True))
    for shard in order or writer.shards:
        write_shard(writer, shard, given["mean"] if mean is None else mean, given["std"] if std is None else std)
    writer.finish()
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("latents"))


def seeds(count, first=0):
    return [(7, place) for place in range(first, first + count)]


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


# What is read


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_posterior_of_each_image_is_what_was_written(tmp_path, dtype):
    latents = Latents(write(tmp_path, dtype=dtype))
    assert (len(latents), latents.shape, latents.num_classes) == (5, SHAPE, 3)
    assert latents.labels.tolist() == [image % 3 for image in KEPT]
    for index, image in enumerate(KEPT):
        for got, written in zip(latents.posterior(index), numbers(dtype), strict=True):
            assert got.dtype == dtype
            np.testing.assert_array_equal(got, written[image])
    with pytest.raises(IndexError):
        latents.posterior(5)


def test_images_left_out_are_listed(folder):
    unreadable = json.loads((folder / MANIFEST).read_text())["unreadable"]
    assert [image["index"] for image in unreadable] == sorted(LEFT_OUT)
    assert unreadable[0] == {"index": 1, "name": "image 1", "error": "OSError"}


def test_a_part_has_its_own_posteriors_labels_and_fingerprint(folder):
    """The numbers 4 and 3 have the smallest checksums of 0 to 4."""
    whole, seen = Latents(folder, flip=False), []
    before = whole.fingerprint
    for name, places in (("train", [0, 1, 2]), ("heldout", [3, 4])):
        part = whole.part(name, 0.4)
        assert part.labels.tolist() == [KEPT[place] % 3 for place in places]
        drawn = part.batch(range(len(part)), seeds(len(places)))
        expected = whole.batch(places, seeds(len(places)))
        assert torch.equal(drawn.data, expected.data)
        assert torch.equal(drawn.labels, expected.labels)
        seen.append(part.fingerprint["sha256"])
    assert len({before["sha256"], *seen}) == 3
    assert (len(whole), whole.fingerprint) == (5, before)


def test_draws_have_the_moments_of_the_posterior(folder):
    """Standard errors of 20,000 draws: std / 141 of a mean, std / 200 of a std; the bounds are five of them."""
    count, index = 20_000, 3
    latents = Latents(folder, flip=False)
    draws = latents.batch([index] * count, seeds(count))
    assert draws.data.dtype == torch.float32
    assert set(draws.labels.tolist()) == {KEPT[index] % 3}
    z = draws.data.numpy() / VAE["scaling_factor"] + VAE["shift_factor"]
    mean, std = (array[KEPT[index], 0] for array in numbers())
    assert (np.abs(z.mean(0) - mean) < 5 * std / count**0.5).all()
    assert (np.abs(z.std(0) / std - 1) < 5 / (2 * count) ** 0.5).all()
    normal = ((z - mean) / std).reshape(count, -1)
    correlations = np.corrcoef(normal.T) - np.eye(normal.shape[1])
    assert np.abs(correlations).max() < 6 / count**0.5
    assert abs((normal**4).mean() - 3) < 0.05


def test_half_are_of_the_mirror_image(tmp_path):
    mean, std = numbers()
    folder, count = write(tmp_path, std=0 * std), 2000
    draws = Latents(folder).batch([0] * count, seeds(count)).data
    plain, mirrored = ((torch.from_numpy(mean[0, side]) - 0.5) * 0.25 for side in (0, 1))
    flipped = [bool(torch.equal(draw, mirrored)) for draw in draws]
    assert all(bool(torch.equal(draw, plain)) != was for draw, was in zip(draws, flipped, strict=True))
    assert abs(sum(flipped) - count / 2) < 5 * (count / 4) ** 0.5
    never = Latents(folder, flip=False).batch([0] * count, seeds(count)).data
    assert torch.equal(never, plain.expand(count, *SHAPE))


def test_the_noise_of_a_mirror_image_is_not_that_which_decided(tmp_path):
    """Given that it is flipped, the noise is still standard normal."""
    mean, std = numbers()
    folder, count = write(tmp_path, mean=np.stack([0 * mean[:, 0], 1e4 + 0 * mean[:, 1]], 1), std=0 * std + 1), 8000
    z = Latents(folder).to_vae(Latents(folder).batch([0] * count, seeds(count)).data)
    for side in (z[z[:, 0, 0, 0] < 5e3], z[z[:, 0, 0, 0] > 5e3] - 1e4):
        assert side.mean(0).abs().max() < 5 / len(side) ** 0.5
        assert (side.std(0) - 1).abs().max() < 5 / (2 * len(side)) ** 0.5


def test_the_seed_alone_decides(folder):
    latents = Latents(folder)
    together = latents.batch([0, 3, 3, 4], seeds(4)).data
    for place, index in enumerate([0, 3, 3, 4]):
        assert torch.equal(latents.batch([index], seeds(1, first=place)).data[0], together[place])
    assert not torch.equal(together[1], together[2])
    assert not torch.equal(latents.batch([0], [(8, 0)]).data[0], together[0])
    copy = pickle.loads(pickle.dumps(latents))  # as a worker that is spawned gets it
    assert torch.equal(copy.batch([0, 3, 3, 4], seeds(4)).data, together)


def test_workers_read_the_same(folder):
    latents = Latents(folder)
    steps = Steps(latents, ShuffledBatches(len(latents), 4, seed=3))
    alone, helped = (list(steps.read(0, 6, workers)) for workers in (0, 2))
    for first, second in zip(alone, helped, strict=True):
        assert torch.equal(first.data, second.data)
        assert torch.equal(first.labels, second.labels)


# Training units


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_moments_of_the_channels_are_those_of_all_draws(tmp_path, dtype):
    manifest = json.loads((write(tmp_path, dtype=dtype) / MANIFEST).read_text())
    mean, std = (array[KEPT].astype(np.float64).swapaxes(0, 2).reshape(3, -1) for array in numbers(dtype))
    np.testing.assert_allclose(manifest["mean"], mean.mean(1), rtol=1e-12)
    np.testing.assert_allclose(manifest["std"], np.sqrt(mean.var(1) + (std**2).mean(1)), rtol=1e-12)


def test_per_channel_normalization_gives_mean_0_and_std_1(folder):
    """Of 40,000 draws with 8 numbers each, of 5 images: the statistical error is about 0.005."""
    latents = Latents(folder, "per_channel")
    count = 40_000
    x = latents.batch([place % 5 for place in range(count)], seeds(count)).data
    assert x.mean((0, 2, 3)).abs().max() < 0.02
    assert (x.std((0, 2, 3)) - 1).abs().max() < 0.02


def test_both_normalizations_are_undone(folder):
    scaled, channelled = (Latents(folder, name) for name in ("scale", "per_channel"))
    x, y = (latents.batch(range(5), seeds(5)).data for latents in (scaled, channelled))
    z = x.numpy() / 0.25 + 0.5
    np.testing.assert_allclose(scaled.to_vae(x).numpy(), z, rtol=1e-6)
    np.testing.assert_allclose(channelled.to_vae(y).numpy(), z, rtol=1e-4, atol=1e-5)
    assert scaled.to_vae(x.expand(2, *x.shape)).shape == (2, 5, *SHAPE)


# What is wrong


def edited(**changes):
    def damage(folder):
        manifest = json.loads((folder / MANIFEST).read_text())
        (folder / MANIFEST).write_text(json.dumps({**manifest, **changes}))

    return damage


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / MANIFEST).unlink(), "has no manifest.json; they are not complete: the command that began them"),
        (lambda f: [file.unlink() for file in f.iterdir()], "has no manifest.json; sit encode, or examples/enc"),
        (lambda f: (f / MANIFEST).write_text((f / MANIFEST).read_text()[:200]), "must be JSON, and is damaged"),
        (lambda f: (f / MANIFEST).write_text("[]"), "must be of format 1 with vae, image_size, shape"),
        (lambda f: (f / MANIFEST).write_text('{"format": 1, "vae": {}}'), "must be of format 1 with vae, image_size"),
        (edited(format=2), "must be of format 1 with"),
        (
            edited(shape=[3, 2, 4]),
            r"mean-00000.npy must have shape \(3, 2, 3, 2, 4\) of float32 .* got \(3, 2, 3, 4, 2\)",
        ),
        (edited(dtype="float16"), r"mean-00000.npy must have .* of float16 and no more, got .* of float32"),
        (edited(count=6), r"labels.npy must have shape \(6,\) of int64"),
        (lambda f: (f / "std-00002.npy").unlink(), "std-00002.npy cannot be read"),
        (lambda f: os.truncate(f / "std-00000.npy", 500), "std-00000.npy cannot be read"),
        (lambda f: os.truncate(f / "std-00000.npy", 10), "std-00000.npy cannot be read"),
        (lambda f: os.truncate(f / "std-00000.npy", 0), "std-00000.npy cannot be read"),
        (lambda f: (f / "std-00000.npy").open("ab").write(b"more"), "std-00000.npy must have .* and no more"),
        (
            lambda f: np.save(f / "mean-00000.npy", np.zeros((3, 2, *SHAPE))),
            "must have .* float32 .* got .* of float64",
        ),
    ],
)
def test_a_folder_that_is_not_whole_is_refused_in_one_line(folder, tmp_path, damage, message):
    for name, data in contents(folder).items():
        (tmp_path / name).write_bytes(data)
    Latents(tmp_path)
    damage(tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        Latents(tmp_path)
    assert str(caught.value).startswith(f"latents: {tmp_path}")
    assert "\n" not in str(caught.value)


def test_an_unknown_normalization_is_refused(folder):
    with pytest.raises(ValueError, match="normalization must be one of scale, per_channel, got 'scaled'"):
        Latents(folder, "scaled")


@pytest.mark.parametrize("name", ["mean-00000.npy", "std-00002.npy", LABELS])
def test_a_bit_that_was_turned_is_found_where_it_is_looked_for(folder, tmp_path, name):
    for each, data in contents(folder).items():
        (tmp_path / each).write_bytes(data)
    Latents(tmp_path).verify()
    data = bytearray((tmp_path / name).read_bytes())
    data[-1] ^= 1
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=f"{name} is damaged, its SHA-256 is not that of manifest.json"):
        Latents(tmp_path).verify()


# Writing


def test_any_order_of_the_shards_gives_the_same(folder, tmp_path):
    assert contents(write(tmp_path, order=[2, 0, 1])) == contents(folder)


def test_it_is_known_which_shards_are_there(tmp_path):
    writer = Writer(tmp_path, SETTINGS_HERE)
    writer.begin()
    assert [writer.has(shard) for shard in writer.shards] == [False, False, False]
    assert [list(writer.of(shard)) for shard in writer.shards] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    for shard in (0, 2):
        write_shard(writer, shard, *numbers())
    assert [writer.has(shard) for shard in writer.shards] == [True, False, True]
    for name, damage in (
        ("mean-00000.npy", lambda file: os.truncate(file, 300)),
        ("std-00000.npy", lambda file: file.unlink()),
        ("shard-00000.json", lambda file: file.write_text("{")),
    ):
        damage(tmp_path / name)
        assert not writer.has(0)
        write_shard(writer, 0, *numbers())
        assert writer.has(0)


def test_it_is_gone_on_with_by_the_same_settings_alone(tmp_path):
    writer = Writer(tmp_path, SETTINGS_HERE)
    writer.begin()
    write_shard(writer, 1, *numbers())
    Writer(tmp_path, SETTINGS_HERE)
    other = {**SETTINGS_HERE, "shard_size": 5, "vae": {**VAE, "sha256": "1" * 64}}
    with pytest.raises(ValueError, match="was begun with other settings") as caught:
        Writer(tmp_path, other)
    assert f"shard_size was 4, is 5; vae.sha256 was '{'0' * 64}', is '{'1' * 64}'. Restore them" in str(caught.value)


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_not_written(tmp_path, kind, value):
    writer = Writer(tmp_path, SETTINGS_HERE)
    writer.begin()
    arrays = numbers()
    arrays[kind][9, 1, 2, 3, 1] = value
    with pytest.raises(FloatingPointError, match="latents: those of images 8 to 9 must be finite float32 numbers"):
        write_shard(writer, 2, *arrays)
    assert {file.name for file in tmp_path.iterdir()} == {SETTINGS}


def test_images_none_of_which_can_be_read_are_refused(tmp_path):
    writer = Writer(tmp_path, {**SETTINGS_HERE, "images": 4})
    writer.begin()
    empty = np.empty((0, 2, *SHAPE), np.float32)
    writer.write(0, empty, empty, [], [{"index": i, "name": "", "error": ""} for i in range(4)])
    with pytest.raises(ValueError, match=r"latents: none of the 4 images of .* can be read"):
        writer.finish()


def finished_unless_killed(folder, at=None):
    """Go on with the folder, in a process that is killed at so many flushes; returns whether it came to the end."""
    child = os.fork()
    if child == 0:
        flushed = []

        def flush_or_die(path):
            if len(flushed) == at:
                if path.is_file():  # as if it had been written by half
                    os.truncate(path, path.stat().st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            flushed.append(path)

        files.flush = flush_or_die
        writer = Writer(folder, SETTINGS_HERE)
        missing = [shard for shard in writer.shards if not writer.has(shard)]
        writer.begin()
        for shard in missing:
            write_shard(writer, shard, *numbers())
        writer.finish()
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL)
    return status == 0


def test_whenever_it_is_killed_the_rest_gives_the_same(folder, tmp_path):
    """Before and after the renaming of each file, from the settings to the manifest."""
    states, at = set(), 0
    while not finished_unless_killed(tmp_path / str(at), at):
        here = tmp_path / str(at)
        states.add(frozenset(file.name for file in here.iterdir()))
        if not (here / MANIFEST).exists():
            with pytest.raises(ValueError, match=r"has no manifest.json"):
                Latents(here)
        assert finished_unless_killed(here)
        assert contents(here) == contents(folder)
        at += 1
    assert at == len(states) == 2 * len(contents(folder)) == 24
