"""Samples measured beside real images, as a user measures them."""

import json

import numpy as np
import pytest
import scipy.linalg
from scripts import EXAMPLES, call

from training.data import digits
from training.evaluation import DigitsClassifier
from training.images import to_pixels

REAL = str(EXAMPLES / "configs" / "digits.yaml")
EXTRACTOR = """
import torch
WIDTH, BROKEN = 3, None

def means(images):
    features = images.float().mean((2, 3))[:, :WIDTH]
    if BROKEN is not None and len(images) > BROKEN:
        features[BROKEN] = torch.nan
    return features
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of a user, with an extractor in a module of its own name, as modules are imported once."""
    (tmp_path / f"of_{tmp_path.name}.py").write_text(EXTRACTOR)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def means(place) -> str:
    return f"of_{place.name}:means"


def write_samples(file, count=300, shape=(8, 8, 3), seed=0):
    """Real digits with noise, as a file of ADM."""
    images, _ = digits("heldout")
    pixels = to_pixels(images[:count]).repeat(3, axis=3).astype(float)
    noisy = pixels + np.random.default_rng(seed).normal(0, 20, (*pixels.shape[:3], 1))
    array = np.rint(noisy.clip(0, 255)).astype(np.uint8)
    np.savez(file, arr_0=np.resize(array, (count, *shape)))
    return array


def measured(*flags):
    assert call("evaluate.py", *flags, "--device=cpu") == 0
    return json.loads(open("samples-metrics.json").read())


def refused(capfd, *flags) -> str:
    assert call("evaluate.py", *flags, "--device=cpu") == 2
    printed = capfd.readouterr().err
    assert "Traceback" not in printed
    return printed.strip().splitlines()[-1]


def frechet(a, b) -> float:
    """By the root of the product, as Heusel et al. compute it."""
    root = scipy.linalg.sqrtm(np.cov(a, rowvar=False) @ np.cov(b, rowvar=False)).real
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root))


def test_samples_of_digits_beside_those_of_the_training(place, capfd):
    array = write_samples(place / "samples.npz")
    found = measured("--samples=samples.npz", f"--reference={REAL}", "--extractor=digits", "--replicates=50")
    real, labels = digits("train")

    def features(pixels):
        return DigitsClassifier(real, labels).features(real.new_tensor(pixels / 127.5 - 1).movedim(3, 1)).numpy()

    figures = found["figures"]
    assert figures["frechet"]["value"] == pytest.approx(
        frechet(features(array[..., :1]), features(to_pixels(real))), rel=1e-5
    )
    assert figures["frechet"]["low"] < figures["frechet"]["value"] < figures["frechet"]["high"]
    assert {"kid", "precision", "recall", "density", "coverage"} <= figures.keys()
    assert set(found["left_out"]) == {"spatial", "inception", "cmmd"}
    assert (found["samples"]["count"], found["reference"]["count"]) == (300, len(real))
    printed = capfd.readouterr().out
    assert "50,000 samples are usual" in printed
    assert "left out: spatial, as the extractor gives no spatial features" in printed
    assert f"{figures['frechet']['value']:.5g}" in printed


def test_figures_have_the_names_of_their_features(place):
    """FID, KID and the inception score are of Inception, CMMD of CLIP; of others they are distances and scores."""
    write_samples(place / "samples.npz", count=30)
    with open(place / f"of_{place.name}.py", "a") as module:
        for space in ("inception", "clip"):
            module.write(f"def {space}(x): return {{'pool': means(x), 'probabilities': means(x).softmax(1)}}\n")
            module.write(f"{space}.space = '{space}'\n")
    labels = {}
    for name in ("means", "inception", "clip"):
        found = measured(
            "--samples=samples.npz", "--reference=samples.npz", f"--extractor=of_{place.name}:{name}", "--replicates=0"
        )
        labels[name] = {key: figure["label"] for key, figure in found["figures"].items()}
        assert found["extractor"]["space"] == (None if name == "means" else name)
        assert ("cmmd" in found["left_out"]) == (name != "clip")
    assert [labels[name]["frechet"] for name in labels] == [
        "Frechet distance", "Frechet distance (FID)", "Frechet distance"
    ]  # fmt: skip
    assert [labels[name]["kid"] for name in labels] == ["kernel distance", "kernel distance (KID)", "kernel distance"]
    assert labels["inception"]["inception_score_whole"] == "inception score, in one"
    assert labels["clip"]["inception_score_whole"] == "classifier score, in one"
    assert labels["clip"]["cmmd"] == "CMMD"


def test_held_out_digits_are_what_samples_are_at_best(place, capfd):
    flags = (f"--samples={REAL}", f"--reference={REAL}", "--extractor=digits", "--replicates=0")
    assert call("evaluate.py", *flags, "--samples_part=heldout", "--output=best.json", "--device=cpu") == 0
    found = json.loads((place / "best.json").read_text())
    assert [found[name]["count"] for name in ("samples", "reference")] == [364, 1433]
    assert found["samples"]["source"] == f"{REAL}, heldout"
    assert found["figures"]["frechet"]["value"] > 0
    write_samples(place / "samples.npz", count=30)
    flags = (*flags[1:], "--samples=samples.npz", "--samples_part=heldout")
    assert "samples.npz: part must be train unless the images are those of a run's .yaml" in refused(capfd, *flags)


def test_statistics_of_another_program_are_a_reference(place):
    array = write_samples(place / "samples.npz", seed=0).mean((1, 2))
    other = write_samples(place / "other.npz", seed=1).mean((1, 2)) * [1.0, 0.9, 1.1]
    np.savez(place / "statistics.npz", mu=other.mean(0), sigma=np.cov(other.T))
    found = measured("--samples=samples.npz", "--reference=statistics.npz", f"--extractor={means(place)}")
    distance = ((array.mean(0) - other.mean(0)) ** 2).sum() + np.trace(np.cov(array.T) + np.cov(other.T))
    roots = np.linalg.eigvals(np.cov(array.T) @ np.cov(other.T)).real.clip(0) ** 0.5
    assert found["figures"]["frechet"]["value"] == pytest.approx(distance - 2 * roots.sum(), rel=1e-5, abs=1e-6)
    assert "does not say its extractor" in " ".join(found["figures"]["frechet"]["notes"])
    assert found["left_out"]["kid"] == "the reference has no images, but moments alone"


def test_a_set_beside_itself_is_at_no_distance(place):
    write_samples(place / "samples.npz")
    flags = ("--samples=samples.npz", "--reference=samples.npz", f"--extractor={means(place)}", "--replicates=0")
    figures = measured(*flags)["figures"]
    assert abs(figures["frechet"]["value"]) < 1e-6
    assert (figures["precision"]["value"], figures["recall"]["value"], figures["coverage"]["value"]) == (1, 1, 1)
    assert figures["frechet"]["low"] is None


def test_what_cannot_be_compared_is_refused_before_the_work(place, capfd):
    flags = ("--samples=samples.npz", f"--extractor={means(place)}")
    write_samples(place / "samples.npz", count=20)
    np.savez(place / "wide.npz", mu=np.zeros(5), sigma=np.eye(5))
    assert "the reference must have 3 pool features" in refused(capfd, *flags, "--reference=wide.npz")
    np.savez(place / "by.npz", mu=np.zeros(3), sigma=np.eye(3), extractor="inception.pt", extractor_sha256="12ab")
    assert "the reference must be by the extractor" in refused(capfd, *flags, "--reference=by.npz")
    np.savez(place / "nan.npz", mu=np.zeros(3), sigma=np.full((3, 3), np.nan))
    assert "must be finite, got NaN" in refused(capfd, *flags, "--reference=nan.npz")
    write_samples(place / "large.npz", count=20, shape=(16, 16, 3))
    large = refused(capfd, *flags, "--reference=large.npz")
    assert "images must be as large as those of large.npz" in large
    assert "Give the run as the reference" in large
    np.savez(place / "floats.npz", arr_0=np.zeros((4, 8, 8, 3)))
    assert "images must be uint8, 0 to 255" in refused(capfd, *flags, "--reference=floats.npz")
    np.savez(place / "unit.npz", arr_0=np.ones((4, 8, 8, 3), np.uint8))
    assert "Multiply those from 0 to 1 by 255" in refused(capfd, *flags, "--reference=unit.npz")
    np.savez(place / "one.npz", arr_0=np.full((1, 8, 8, 3), 200, np.uint8))
    assert "there must be at least 2 images, got 1" in refused(capfd, *flags, "--reference=one.npz")
    assert "no such one" in refused(capfd, *flags, "--reference=nowhere")
    nothing = ("--samples=samples.npz", "--reference=samples.npz")
    assert "extractor: must be digits, a TorchScript file" in refused(capfd, *nothing, "--extractor=nothing")
    assert "figures must be of frechet" in refused(capfd, *nothing, "--extractor=digits", "--figures=[fid]")


@pytest.mark.parametrize(("broken", "image"), [(0, 0), (5, 5)])
def test_a_feature_that_is_not_finite_is_told_with_its_image(place, capfd, broken, image):
    """The first images are looked at before the others."""
    module = place / f"of_{place.name}.py"
    module.write_text(EXTRACTOR.replace("BROKEN = 3, None", f"BROKEN = 3, {broken}"))
    write_samples(place / "samples.npz", count=20)
    flags = ("--samples=samples.npz", "--reference=samples.npz", f"--extractor={means(place)}")
    assert f"pool features must be finite, got NaN or infinity for image {image}" in refused(capfd, *flags)
