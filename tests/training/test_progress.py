"""Lines where there is no terminal, a bar where there is one."""

import io
import re
import sys

import pytest
from tqdm import tqdm

from training.progress import progress


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
