"""The pictures of a path: what is drawn, by hand-written values; and the page of paths, as its script writes it."""

import importlib.util
import io
import re
import subprocess
import sys
from pathlib import Path as File

import matplotlib
import numpy as np
import pytest
from PIL import Image

import interpolants as ip
from interpolants import library
from interpolants.plot import plot

DOCS = File(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def gvp():
    return plot(library.gvp()).axes


@pytest.fixture(scope="module")
def exploding():
    return plot(library.ve()).axes


def curves(axes):
    """Curves by label, as (times, values); poles, which are single points, and guides are not among them."""
    lines = [line for line in axes.get_lines() if len(line.get_xdata()) > 2]
    return {line.get_label(): (np.array(line.get_xdata()), np.array(line.get_ydata())) for line in lines}


def poles(axes):
    """(time, marker, colour) of each mark."""
    points = [line for line in axes.get_lines() if len(line.get_xdata()) == 1]
    return [(line.get_xdata()[0], line.get_ydata()[0], line.get_marker(), line.get_color()) for line in points]


def test_alpha_and_sigma_are_drawn_with_their_formulas(gvp):
    drawn = curves(gvp[0])
    alpha, sigma = r"$\alpha = \sin{\left(\frac{\pi t}{2} \right)}$", r"$\sigma = \cos{\left(\frac{\pi t}{2} \right)}$"
    assert list(drawn) == [alpha, sigma]
    times, values = drawn[alpha]
    np.testing.assert_array_equal(times, np.linspace(0, 1, 401))
    np.testing.assert_allclose(values, np.sin(np.pi * times / 2), atol=1e-15)
    np.testing.assert_allclose(drawn[sigma][1], np.cos(np.pi * times / 2), atol=1e-15)
    assert gvp[0].get_yscale() == "linear"
    assert [text.get_text() for text in gvp[0].get_legend().get_texts()] == [alpha, sigma]


def test_the_log_snr_is_drawn_and_its_poles_are_marked_by_sign(gvp):
    ((times, values),) = curves(gvp[1]).values()
    inner = slice(1, -1)
    np.testing.assert_allclose(values[inner], 2 * np.log(np.tan(np.pi * times[inner] / 2)), atol=1e-12)
    assert np.isnan(values[[0, -1]]).all()
    assert poles(gvp[1]) == [(0, 0.0, "v", "#0072B2"), (1, 1.0, "^", "#0072B2")]
    (zero,) = (line for line in gvp[1].get_lines() if len(line.get_xdata()) == 2)
    assert list(zero.get_ydata()) == [0, 0]
    assert zero.get_color() == "0.8"
    assert gvp[1].get_legend() is None
    low, high = gvp[1].get_ylim()
    assert -20 < low < values[1] < values[-2] < high < 20


def test_a_steep_log_snr_is_cut():
    axes = plot(ip.Path("t**9", "(1-t)**9")).axes[1]
    assert axes.get_ylim() == (-20.0, 20.0)


def test_gains_of_the_velocity_are_drawn_as_magnitudes_with_their_poles(gvp):
    drawn = curves(gvp[2])
    times = np.linspace(0, 1, 401)
    assert list(drawn) == ["data", "noise", "score"]
    np.testing.assert_allclose(drawn["data"][1], 2 / np.pi * np.cos(np.pi * times / 2), atol=1e-15)
    np.testing.assert_allclose(drawn["noise"][1], 2 / np.pi * np.sin(np.pi * times / 2), atol=1e-15)
    np.testing.assert_allclose(drawn["score"][1][:-1], 2 / np.pi * np.tan(np.pi * times[:-1] / 2), rtol=1e-12)
    assert poles(gvp[2]) == [(1, 1.0, "^", "#009E73")]
    assert gvp[2].get_yscale() == "log"
    inside = np.concatenate([values[4:-4] for _, values in drawn.values()])
    assert gvp[2].get_ylim() == pytest.approx((inside.min() / 2, inside.max() * 2))


def test_the_noise_of_the_named_sdes_is_drawn(gvp):
    t = np.linspace(0, 1, 401)[1:]
    drawn = {label: values[1:] for label, (_, values) in curves(gvp[3]).items()}
    expected = {
        "constant": np.full(400, 2.0),
        "sigma": 2 * np.cos(np.pi * t / 2),
        "linear": 2 * (1 - t),
        "decreasing": (np.cos(np.pi * t) + 1) ** 2 / 2,
        "sin_squared": 2 * np.sin(np.pi * t) ** 2,
        "kl_optimal $= g^2$": np.pi / np.tan(np.pi * t / 2),
        "kl_regularized": 2 / np.sqrt((2 / np.pi * np.tan(np.pi * t / 2)) ** 2 + 8),
    }
    assert list(drawn) == list(expected)
    for label, values in expected.items():
        np.testing.assert_allclose(drawn[label], values, rtol=1e-12, atol=1e-14, err_msg=label)
    assert poles(gvp[3]) == [(0, 1.0, "^", "#000000")]
    assert gvp[3].get_ylim()[0] == 1e-3
    assert gvp[3].get_yscale() == "log"


def test_exploding_noise_is_drawn_on_a_logarithmic_axis_within_six_decades(exploding):
    functions, ratio, gains, noise = exploding
    assert functions.get_yscale() == "log"
    assert poles(ratio) == poles(gains) == poles(noise) == []
    assert gains.get_ylim() == noise.get_ylim() == (1e-3, 1e3)
    times, values = curves(ratio)["log-SNR"]
    np.testing.assert_allclose(values, -2 * np.log(50) + 2 * times * np.log(5000), atol=1e-12)


def test_poles_are_whole_triangles_on_the_edge_above_the_curves(gvp):
    marks = [(axes, line) for axes in gvp for line in axes.get_lines() if len(line.get_xdata()) == 1]
    assert len(marks) == 4
    for axes, mark in marks:
        x, y = mark.get_transform().transform(mark.get_xydata()[0])
        left, right, bottom, top = (getattr(axes.bbox, side) for side in ("x0", "x1", "y0", "y1"))
        assert any(x == pytest.approx(side) for side in (left, right))
        assert any(y == pytest.approx(side) for side in (bottom, top))
        assert not mark.get_clip_on()
        assert mark.get_zorder() > max(line.get_zorder() for line in axes.get_lines() if len(line.get_xdata()) > 2)


OKABE_ITO = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
"""In the order of their figure."""


def test_colours_and_dashes_both_tell_curves_apart(gvp):
    for axes in gvp:
        lines = [line for line in axes.get_lines() if len(line.get_xdata()) > 2]
        assert {line.get_color() for line in lines} <= set(OKABE_ITO)
        assert (
            len({line.get_color() for line in lines}) == len({str(line._dash_pattern) for line in lines}) == len(lines)
        )


def test_titles_and_ends_of_time(gvp):
    assert [axes.get_title() for axes in gvp] == [
        r"$x_t = \alpha\,$data$\;+\;\sigma\,$noise",
        r"log-SNR, $\log(\alpha^2 / \sigma^2)$",
        r"gain $|b|$ of target $= a\,x_t + b\,$velocity",
        r"SDE noise $w$, for $\mathrm{d}x = (v + \frac{w}{2}\,\mathrm{score})\,\mathrm{d}t + \sqrt{w}\,\mathrm{d}W$",
    ]
    for axes in gvp:
        assert axes.get_xlim() == (0.0, 1.0)
        assert list(axes.get_xticks()) == [0, 1 / 4, 1 / 2, 3 / 4, 1]
        assert [label.get_text() for label in axes.get_xticklabels()] == ["0\nnoise", "0.25", "$t$", "0.75", "1\ndata"]
    assert plot(library.linear()).get_suptitle() == "linear"


def test_no_label_lies_on_a_panel():
    """Measured as matplotlib sets them, in pixels."""
    figure = plot(library.gvp())
    figure.draw_without_rendering()
    panels = [axes.get_window_extent() for axes in figure.axes]
    for axes, panel in zip(figure.axes, panels, strict=True):
        assert axes.title.get_window_extent().width < 1.1 * panel.width
        assert not axes.spines["top"].get_visible()
        assert not axes.spines["right"].get_visible()
        if legend := axes.get_legend():
            box = legend.get_window_extent()
            assert 0 <= box.x0 - panel.x1 < 0.1 * panel.width
            assert (box.y0 + box.y1) / 2 == pytest.approx((panel.y0 + panel.y1) / 2, abs=1)
            assert box.x1 <= figure.bbox.width
            assert not any(box.overlaps(other) for other in panels)


def test_in_the_papers_time_everything_is_mirrored():
    axes = plot(library.linear().in_paper_time()).axes
    assert poles(axes[2]) == [(0, 1.0, "^", "#009E73")]  # of -(1 - t) / t: a gain is a magnitude
    assert [label.get_text() for label in axes[0].get_xticklabels()][::4] == ["0\ndata", "1\nnoise"]
    times, values = curves(axes[3])["kl_optimal $= g^2$"]
    np.testing.assert_allclose(values[1:-1], 2 * times[1:-1] / (1 - times[1:-1]), rtol=1e-12)
    times, values = curves(axes[3])["linear"]
    np.testing.assert_allclose(values, 2 * times, atol=1e-15)


def test_long_formulas_are_left_out(exploding):
    assert list(curves(exploding[0])) == [r"$\alpha = 1$", r"$\sigma = 50 e^{- t \log{\left(5000 \right)}}$"]
    long = plot(library.vp()).axes[0]
    assert list(curves(long)) == [r"$\alpha$", r"$\sigma$"]


def test_a_formula_of_48_characters_is_shown_and_one_of_49_is_not():
    labels = [
        next(iter(curves(plot(ip.Path(f"exp(2*t-2)*{power}*(t+11)/12", "1-t")).axes[0]))) for power in ("t**2", "t**11")
    ]
    assert labels == [r"$\alpha = \frac{t^{2} \left(t + 11\right) e^{2 t - 2}}{12}$", r"$\alpha$"]


def test_a_figure_can_be_saved(tmp_path):
    plot(library.linear()).savefig(tmp_path / "path.png", dpi=40)
    assert (tmp_path / "path.png").stat().st_size > 1000


def test_without_matplotlib_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(
        ImportError, match=r"^plot: matplotlib must be installed .* pip install 'sit-interpolants\[plot\]'"
    ):
        plot(library.linear())


def test_matplotlib_is_imported_when_a_path_is_drawn_and_pyplot_never():
    program = """
import sys
import interpolants.plot
assert "matplotlib" not in sys.modules
interpolants.plot.plot(interpolants.linear())
assert "matplotlib" in sys.modules and "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=DOCS.parent)


def test_the_page_of_paths_is_what_its_script_writes():
    spec = importlib.util.spec_from_file_location("paths_page", DOCS / "paths.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    committed = (DOCS / "paths.md").read_text(encoding="utf-8")
    assert script.page() == committed, "run: python docs/paths.py"
    pictures = re.findall(r"\]\((images/paths/\w+\.png)\)", committed)
    assert sorted(pictures) == sorted(str(p.relative_to(DOCS)) for p in (DOCS / "images/paths").iterdir())
    assert all(1000 < (DOCS / picture).stat().st_size < 60_000 for picture in pictures)
    named = set(re.findall(r"^## `(\w+)\(", committed, flags=re.MULTILINE))
    assert named == {*library.LIBRARY, "fm_ot", "polynomial", "from_beta", "from_log_snr"}


@pytest.mark.parametrize("path", [library.vp(), library.ve(), library.gvp()], ids=lambda path: path.name)
def test_the_pictures_of_the_page_are_what_is_drawn(path):
    """With the matplotlib that drew them; others set text a little differently."""
    pinned = re.search(r"matplotlib==(\S+)", (DOCS.parent / "constraints.txt").read_text())[1]
    if matplotlib.__version__ != pinned:
        pytest.skip(f"drawn with matplotlib {pinned}")
    buffer = io.BytesIO()
    plot(path).savefig(buffer, dpi=80)
    committed, drawn = (
        np.asarray(Image.open(file).convert("RGB")).astype(int)
        for file in (DOCS / "images" / "paths" / f"{path.name}.png", buffer)
    )
    assert committed.shape == drawn.shape
    differ = np.abs(committed - drawn).max(axis=2) > 40  # the committed ones have 256 colours
    assert differ.mean() < 2e-5, "run: python docs/paths.py, and look at the pictures"
