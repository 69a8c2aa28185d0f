"""The study: what is compared, that it resumes, and that the page says what the figures do."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scripts import EXAMPLES

from examples import study
from examples.study import TIMES, Study, begin, measure_one, networks, result_file, samplings
from examples.study_page import CLAIMS, PATHS, interval, ratio, read, text, verdict, write_page
from models import PUBLISHED
from training.config import DataConfig, ModelConfig, TrainingConfig, read_config

SHORT = TrainingConfig(steps=4, warmup_steps=1, checkpoint_every=4)
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def tiny(tmp_path):
    return Study(run=str(tmp_path / "study"), calls=4, num_samples=20, device="cpu", training=SHORT)


def test_networks_differ_in_one_thing_at_a_time():
    found = networks(read_config(["--config", str(EXAMPLES / "configs" / "study.yaml")], Study))
    assert (found["ddpm"].prediction, found["ddpm"].path, found["ddpm"].time.steps) == ("noise", "vp", 1000)
    for path in PATHS:
        weighted, velocity = found[f"{path} weighted score"], found[f"{path} velocity"]
        assert (weighted.prediction, weighted.loss().space, weighted.path) == ("score", "velocity", path)
        assert (velocity.prediction, velocity.loss().space, velocity.time.steps) == ("velocity", "velocity", None)
    assert len({config.training.learning_rate for config in found.values()}) == 1
    assert {config.training.steps for config in found.values()} == {1000, 250}
    small = found["linear velocity, small"].model
    assert small.name == "SiT-N/4"
    assert {name for claim in CLAIMS for name, _ in (claim.better, claim.worse)} <= found.keys()


@pytest.mark.parametrize("name", ["ddpm", "linear velocity", "linear velocity, early"])
def test_all_samplers_of_a_network_make_as_many_calls(tiny, name, monkeypatch):
    monkeypatch.setattr(study, "CALLS", (2, 6))
    measure_one(tiny, name, 0)
    for sampling in samplings(name, tiny):
        found = json.loads(result_file(tiny, name, 0, sampling).read_text())
        wanted = int(sampling.split()[1]) if sampling.endswith("calls") else tiny.calls
        if "guided" not in sampling:  # a guided call evaluates twice where it is guided
            assert found["calls"] in (wanted, wanted + 1)  # one more to the end, where a conversion has a pole there
        assert math.isfinite(found["frechet"])
        assert 0 <= found["agreement"] <= 1


def test_what_is_done_is_not_done_again_and_the_rest_is_the_same(tiny):
    measure_one(tiny, "ddpm", 0)
    files = {what: result_file(tiny, "ddpm", 0, what) for what in ("error", "ODE", "SDE", "ancestral")}
    before = {what: json.loads(file.read_text()) for what, file in files.items()}
    files["SDE"].unlink()
    files["ODE"].write_text("{}")
    measure_one(tiny, "ddpm", 0)
    assert files["ODE"].read_text() == "{}"
    after = json.loads(files["SDE"].read_text())
    assert {**after, "seconds": 0} == {**before["SDE"], "seconds": 0}


def test_a_folder_of_images_serves_too(tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(6):
            pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")
    (tmp_path / "colours.py").write_text("def means(images):\n    return images.float().mean((2, 3))\n")
    monkeypatch.syspath_prepend(tmp_path)
    images = Study(
        run=str(tmp_path / "study"), calls=4, num_samples=20, device="cpu", extractor="colours:means",
        data=DataConfig("folder", str(tmp_path / "images"), batch_size=4),
        model=ModelConfig("SiT-N/4", in_channels=3, num_classes=2), training=SHORT,
    )  # fmt: skip
    measure_one(images, "ddpm", 0)
    found = json.loads(result_file(images, "ddpm", 0, "ancestral").read_text())
    assert found.keys() == {"frechet", "precision", "recall", "calls", "seconds"}  # there is no classifier of its own
    assert np.load(result_file(images, "ddpm", 0, "ancestral").with_suffix(".npy")).shape == (10, 8, 8, 3)


def test_other_settings_are_refused_and_more_seeds_are_not(tiny, tmp_path):
    begin(tmp_path, tiny)
    begin(tmp_path, Study(**{**vars(tiny), "seeds": 7, "jobs": 1}))
    with pytest.raises(ValueError, match="calls was 4, is 6"):
        begin(tmp_path, Study(**{**vars(tiny), "calls": 6}))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"seeds": 1}, "seeds must be at least 2, got 1"), ({"calls": 3}, "calls must be at least 4, got 3")],
)
def test_wrong_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Study(**arguments)


# The page


def test_an_interval_is_that_of_student():
    mean, half = interval([1.0, 2.0, 4.0])
    assert mean == pytest.approx(7 / 3)
    assert half == pytest.approx(4.302652729911275 * np.std([1, 2, 4], ddof=1) / 3**0.5)  # tables of t, 2 degrees


def test_a_ratio_is_of_pairs_of_one_seed():
    """Distances that vary much from seed to seed, and whose ratio does not."""
    found = {"networks": {"a": {"ODE": {"frechet": [1.0, 10.0, 100.0]}}, "b": {"ODE": {"frechet": [2.0, 20.0, 200.0]}}}}
    assert ratio(found, ("a", "ODE"), ("b", "ODE")) == pytest.approx((0.5, 0.5, 0.5))


def test_verdicts():
    assert [verdict(0.5, 0.9), verdict(0.5, 1.1), verdict(1.1, 1.2)] == ["agrees", "within noise", "differs"]


SEEDS = np.array([1.0, 1.3, 0.8])
"""By which all distances of a seed are larger."""
PAPER = {
    ("ddpm", "ancestral"): 44.2, ("vp score", "ODE"): 43.6, ("vp weighted score", "ODE"): 39.1,
    ("vp velocity", "ODE"): 39.8, ("vp velocity", "SDE"): 37.8, ("linear velocity", "ODE"): 34.8,
    ("linear velocity", "SDE"): 33.6, ("gvp velocity", "ODE"): 34.6, ("gvp velocity", "SDE"): 32.9,
    ("linear velocity, small", "ODE"): 59.0, ("linear velocity, small", "SDE"): 57.6,
    ("ddpm, small", "ancestral"): 68.4, ("linear velocity", "ODE, guided 1.5"): 8.0,
}  # fmt: skip


def invented(changes):
    """The figures of a study whose distances are the paper's, but for some."""
    settings = Study()

    def figures(row):
        distances = np.array(changes.get(row, PAPER.get(row, 50.0))) * SEEDS
        others = {key: [0.5, 0.6, 0.7] for key in ("precision", "recall", "agreement", "calls", "seconds")}
        return {"frechet": distances.tolist(), **others}

    rows = {name: {each: figures((name, each)) for each in samplings(name, settings)} for name in networks(settings)}
    for number, of in enumerate(rows.values()):
        of["error"] = {"velocity_error": [[1.0 + number + t for t in TIMES]] * 3, "seconds": [60.0] * 3}
    about = {"command": "python study.py", "commit": "1b", "date": "today", "torch": "2", "seconds": 600.0}
    return {
        "settings": {**settings.facts(), "seeds": 3, "jobs": 2},
        "networks": rows,
        "times": TIMES,
        "reference": 9,
        "floor": 0.1,
        **about,
    }


def verdicts_of(page):
    rows = [line.split(" | ") for line in page.splitlines() if line.endswith("** |")]
    return {row[0].removeprefix("| "): row[-1].removesuffix(" |").strip("*") for row in rows}


def write(folder, changes):
    folder.mkdir(exist_ok=True)
    (folder / "study.json").write_text(json.dumps(invented(changes)))
    return folder


def test_each_row_says_what_the_figures_do(tmp_path):
    as_published = {claim.what: "agrees" for claim in CLAIMS}
    assert verdicts_of(text(write(tmp_path, {}))) == as_published
    planted = {("vp weighted score", "ODE"): 41.0, ("gvp velocity", "ODE"): [34.7, 34.8, 34.9]}
    others = {"VP: weighted score rather than velocity": "differs", "velocity: GVP rather than Linear": "within noise"}
    assert verdicts_of(text(write(tmp_path, planted))) == as_published | others


def test_the_figures_of_the_paper_are_those_of_the_models():
    """Where another part of the project has them too."""
    small = next(claim for claim in CLAIMS if claim.what == "SiT: size B rather than S")
    assert (small.paper_better, small.paper_worse) == (PUBLISHED["SiT-B/2"].fid_ode, PUBLISHED["SiT-S/2"].fid_ode)


def test_the_page_and_its_figures_are_written(tmp_path):
    (write(tmp_path / "study", {}) / "notes.md").write_text("### What we conclude\n")
    write_page(tmp_path / "study", tmp_path / "page" / "study.md")
    page = (tmp_path / "page" / "study.md").read_text()
    assert "### What we conclude\n" in page
    for name in ("networks", "error", "calls", "guidance"):
        assert f"(images/study-{name}.png)" in page
        assert (tmp_path / "page" / "images" / f"study-{name}.png").stat().st_size > 10_000


def test_the_page_in_the_docs_is_that_of_its_figures():
    assert (DOCS / "study.md").read_text() == text(DOCS / "study")
    found = read(DOCS / "study")[0]
    assert found["settings"]["seeds"] >= 3
    assert found["seconds"] <= 90 * 60
