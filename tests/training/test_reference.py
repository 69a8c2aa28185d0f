"""Features in files: our own, and the layouts of other programs."""

import dataclasses
import zipfile

import numpy as np
import pytest
import torch

from training.features import Extractor, FeatureSet
from training.image_sets import open_images
from training.moments import Gaussian
from training.reference import cached, load, save


def features(**changes):
    rows = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    gaussians = {"pool": Gaussian.of(rows), "spatial": Gaussian.of(rows[:, :2])}
    left_out = ("a.png: damaged", "b.png: empty")
    whole = FeatureSet("images/", "0a", "net.pt", "1b", gaussians, {"pool": rows}, left_out, "clip")
    return dataclasses.replace(whole, **changes)


def test_what_is_saved_is_loaded(tmp_path):
    before = features()
    save(tmp_path / "made" / "a.npz", before)
    after = load(tmp_path / "made" / "a.npz")
    for name in ("source", "source_sha256", "extractor", "extractor_sha256", "unreadable", "space"):
        assert getattr(after, name) == getattr(before, name)
    assert after.gaussians.keys() == before.gaussians.keys()
    for name, gaussian in before.gaussians.items():
        assert torch.equal(after.gaussians[name].mu, gaussian.mu)
        assert torch.equal(after.gaussians[name].sigma, gaussian.sigma)
        assert after.gaussians[name].count == 9
    assert torch.equal(after.rows["pool"], before.rows["pool"])


def test_numpy_reads_the_usual_keys(tmp_path):
    save(tmp_path / "a.npz", features())
    with np.load(tmp_path / "a.npz", allow_pickle=False) as content:
        rows = content["rows_pool"].astype(np.float64)
        np.testing.assert_allclose(content["mu"], rows.mean(0))
        np.testing.assert_allclose(content["sigma"], np.cov(rows, rowvar=False))
        assert (int(content["n"]), str(content["extractor_sha256"])) == (9, "1b")


def test_statistics_of_adm_do_not_say_what_they_are_of(tmp_path):
    rng = np.random.default_rng(0)
    adm = {
        "arr_0": np.zeros((2, 4, 4, 3), np.uint8), "mu": rng.random(3, np.float32),
        "sigma": np.eye(3, dtype=np.float32), "mu_s": rng.random(2), "sigma_s": np.eye(2),
    }  # fmt: skip
    np.savez(tmp_path / "a.npz", **adm)
    found = load(tmp_path / "a.npz")
    assert found.extractor is found.extractor_sha256 is found.gaussians["pool"].count is None
    np.testing.assert_array_equal(found.gaussians["spatial"].mu, adm["mu_s"])
    assert found.gaussians["pool"].mu.dtype == torch.float64
    assert (found.source, dict(found.rows)) == (str(tmp_path / "a.npz"), {})


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"arr_0": np.zeros(3)}, "must hold mu and sigma, got none"),
        ({"mu": np.zeros(3)}, "must hold sigma beside mu"),
        (
            {"mu": np.zeros(3), "sigma": np.eye(4)},
            r"mu and sigma must have shapes \(d,\) and \(d, d\), got \(3,\) and \(4, 4\)",
        ),
        ({"mu": np.full(3, np.nan), "sigma": np.eye(3)}, "mu and sigma must be finite"),
    ],
)
def test_other_files_are_refused(tmp_path, contents, message):
    np.savez(tmp_path / "a.npz", **contents)
    with pytest.raises(ValueError, match=rf"a\.npz: {message}"):
        load(tmp_path / "a.npz")


class Counting:
    """An extractor that counts how often it is called."""

    def __init__(self):
        self.calls = 0

    def __call__(self, images):
        self.calls += 1
        return {"pool": images.float().mean((2, 3))}


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("name", ["mu", "arr_0"])
def test_a_damaged_file_is_refused_in_a_line(tmp_path, write, name):
    file, rng = tmp_path / "a.npz", np.random.default_rng(0)
    arrays = {
        "mu": rng.normal(size=500),
        "sigma": np.eye(500),
        "arr_0": rng.integers(256, size=(9, 8, 8, 3), dtype="u1"),
    }
    write(file, **arrays)
    contents = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        entry = archive.getinfo(f"{name}.npy")
    begin = entry.header_offset + 30 + int.from_bytes(contents[entry.header_offset + 26 :][:2], "little")
    begin += int.from_bytes(contents[entry.header_offset + 28 :][:2], "little")
    if write is np.savez:
        contents[begin + entry.compress_size // 2] ^= 255  # the checksum is another
    else:
        contents[begin] = 255  # no block of DEFLATE begins so
    file.write_bytes(contents)
    with pytest.raises(ValueError, match=r"a.npz: must be an .npz, and cannot be read"):
        (load if name == "mu" else open_images)(file)


def test_a_reference_is_made_once_and_again_when_anything_else_is_asked(tmp_path):
    def write(seed):
        pixels = np.random.default_rng(seed).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
        np.savez(tmp_path / "a.npz", arr_0=pixels)
        return pixels

    def ask(sha256="1b", keep=4, file="a.npz"):
        counting = Counting()
        images = open_images(tmp_path / file)
        return counting, cached(Extractor("mean", sha256, counting), images, tmp_path / "cache", keep=keep)

    pixels = write(0)
    first, made = ask()
    again, found = ask()
    assert (first.calls, again.calls) == (1, 0)
    assert torch.equal(made.rows["pool"], found.rows["pool"])
    np.testing.assert_allclose(found.gaussians["pool"].mu, pixels.mean((0, 1, 2)), rtol=1e-6)
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes())
    again, found = ask(file="b.npz")
    assert (again.calls, found.source) == (0, str(tmp_path / "b.npz"))  # the same images, which lie elsewhere
    assert ask(sha256="2c")[0].calls == 1
    assert ask(keep=5)[0].calls == 1
    pixels = write(1)
    other, found = ask()
    assert other.calls == 1
    np.testing.assert_allclose(found.gaussians["pool"].mu, pixels.mean((0, 1, 2)), rtol=1e-6)
    assert len(list((tmp_path / "cache").iterdir())) == 4
