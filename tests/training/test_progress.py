"""Lines where there is no terminal, a bar where there is one."""

import io
import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from tqdm import tqdm

import interpolants as ip
from models import create_model
from training import Field
from training.config import ODEConfig, SamplingConfig
from training.data import ImageFolder
from training.generate import draw
from training.image_sets import open_images
from training.metrics import Neighbourhoods, cmmd, kid
from training.moments import Gaussian, frechet
from training.progress import progress, side_progress
from training.resampling import Statistic, estimate


def shown(monkeypatch, seconds, terminal=False):
    out = io.StringIO()
    out.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", out)
    with progress(total=5, initial=1, unit="step", desc="runs/x", seconds=seconds) as bar:
        for number in range(4):
            bar.set_postfix(loss=f"{number:.3f}", refresh=False)
            bar.update()
            tqdm.write("said", file=sys.stderr)
    return out.getvalue()


def test_in_a_file_there_are_lines_and_no_moves_of_the_cursor(monkeypatch):
    text = shown(monkeypatch, seconds=0.0)
    assert "\r" not in text
    assert "\x1b" not in text
    lines = [line for line in text.splitlines() if line != "said"]
    assert all(re.fullmatch(r"runs/x: [1-5] of 5 steps, .*left.*", line) for line in lines)
    assert re.fullmatch(r"runs/x: 5 of 5 steps, .* 00:00 left, loss=3\.000", lines[-1])


def test_lines_are_as_rare_as_asked(monkeypatch):
    lines = [line for line in shown(monkeypatch, seconds=60.0).splitlines() if line != "said"]
    assert [line.split(",")[0] for line in lines] == ["runs/x: 1 of 5 steps", "runs/x: 5 of 5 steps"]


def test_on_a_terminal_there_is_a_bar(monkeypatch):
    text = shown(monkeypatch, seconds=60.0, terminal=True)
    assert "\r" in text
    assert "█" in text or "#" in text


def test_what_is_disabled_says_nothing(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    with progress(range(3), disable=True) as bar:
        assert list(bar) == [0, 1, 2]
    assert out.getvalue() == ""


@pytest.mark.parametrize("count", [0, 3])
def test_an_iterable_is_gone_through(monkeypatch, count):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    assert list(progress(range(count), desc="x", unit="image")) == list(range(count))
    assert out.getvalue().splitlines()[-1].startswith(f"x: {count} of {count} images")


def test_what_is_soon_done_says_nothing(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    assert list(side_progress(range(3))) == [0, 1, 2]
    assert out.getvalue() == ""


def some_images(folder):
    for number in range(3):
        Image.fromarray(np.full((4, 4, 3), 200 + number, np.uint8)).save(folder / f"{number}.png")
    return folder


def evaluate(statistic: Statistic):
    return estimate(statistic, replicates=3)


ROWS = torch.randn(12, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
WORKS = {
    "Frechet distances: 4 of 4 sets": lambda _: evaluate(frechet(ROWS, Gaussian.of(ROWS + 1))),
    "kernel of the samples: 1 of 1 blocks": lambda _: evaluate(kid(ROWS, ROWS + 1)),
    "kernel of the reference: 1 of 1 blocks": lambda _: evaluate(cmmd(ROWS, ROWS + 1)),
    "nearest neighbours: 1 of 1 blocks": lambda _: Neighbourhoods(ROWS, ROWS + 1),
    "neighbourhoods: 1 of 1 blocks": lambda _: Neighbourhoods(ROWS, ROWS + 1).precision_and_density(),
    "looking into .*: 3 of .* images": lambda folder: open_images(some_images(folder)),
    "checksums of .*: 3 of 3 files": lambda folder: open_images(some_images(folder)).digest,
    "looking at the data: 3 of .* examples": lambda folder: ImageFolder(some_images(folder), 4).fingerprint,
    "ODE, euler, 2 steps: 3 of 3 samples": lambda _: draw(
        Field(create_model("SiT-T/4", input_size=4, in_channels=1, num_classes=2), ip.linear()),
        ODEConfig("euler", 2),
        SamplingConfig(num_samples=3, batch_size=2),
    ),
}


@pytest.mark.parametrize("lines", WORKS)
def test_a_work_that_is_long_with_much_data_shows_how_far_it_is(lines, monkeypatch, tmp_path):
    out, clock = io.StringIO(), iter(range(0, 10**9, 70))  # more than a minute between any two looks at it
    monkeypatch.setattr(sys, "stderr", out)
    monkeypatch.setattr("tqdm.std.time", lambda: next(clock))
    WORKS[lines](tmp_path)
    assert re.search(f"^{lines}", out.getvalue(), re.MULTILINE)
    assert len(set(out.getvalue().splitlines())) == len(out.getvalue().splitlines())
