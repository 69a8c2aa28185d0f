import io
import sys

import numpy as np
import pytest
import torch

import interpolants as ip
from training.figures import loss_figure, path_figure, reconstruction_figure, sample_grid, trajectory_figure


@pytest.fixture(autouse=True)
def _no_global_state():
    yield
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or pyplot.get_fignums() == []


def drawn(figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def tile(axes, row: int, column: int, size: int) -> np.ndarray:
    start_row, start_column = row * (size + 1), column * (size + 1)
    return axes.images[0].get_array()[start_row : start_row + size, start_column : start_column + size]


def shades(count: int, channels: int = 1, size: int = 2) -> torch.Tensor:
    """Images of which no two pixels are equal."""
    return torch.linspace(-1, 1, count * channels * size**2).view(count, channels, size, size)


def test_each_column_of_the_grid_is_a_class():
    labels = torch.tensor([1, 0, 1, 0, 2])
    images, real = shades(5), -shades(5)
    figure = sample_grid(images, labels, "Samples", real=(real, labels, "Real"), rows=2)
    left, right = figure.axes
    for axes, source in ((left, images), (right, real)):
        for (row, column), index in {(0, 0): 1, (1, 0): 3, (0, 1): 0, (1, 1): 2, (0, 2): 4}.items():
            assert np.array_equal(tile(axes, row, column, 2), source[index, 0].numpy())
        assert np.ma.getmaskarray(tile(axes, 1, 2, 2)).all()  # There is no second image of class 2.
        assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1", "2"]
        assert axes.get_xticks().tolist() == [0.5, 3.5, 6.5]
    assert (left.get_title(), right.get_title()) == ("Samples", "Real")
    assert drawn(figure)


def test_the_grid_of_colour_images_is_in_colour():
    images = torch.stack([torch.tensor([1.0, -1.0, 3.0]).view(3, 1, 1).expand(3, 2, 2)] * 2)
    labels = torch.tensor([0, 1])
    figure = sample_grid(images, labels, "A long title, which is wider than two small images", rows=1)
    assert drawn(figure)
    (axes,) = figure.axes  # no real ones beside them
    extent = axes.title.get_window_extent()
    assert 0 <= extent.x0 < extent.x1 <= figure.bbox.width
    assert np.array_equal(tile(axes, 0, 1, 2)[0, 0], [1, 0, 1])


def test_a_row_of_the_trajectory_is_a_sample_and_a_column_a_time():
    states = shades(6).reshape(3, 2, 1, 2, 2)  # 3 times of 2 samples
    figure = trajectory_figure({"ODE": states, "SDE": -states}, times=[0, 0.5, 1], labels=[4, 7])
    for axes, source in zip(figure.axes, (states, -states), strict=True):
        for row in range(2):
            for column in range(3):
                assert np.array_equal(tile(axes, row, column, 2), source[column, row, 0].numpy())
        assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "0.5", "1"]
        assert [label.get_text() for label in axes.get_yticklabels()] == ["4", "7"]
    assert [axes.get_title() for axes in figure.axes] == ["ODE", "SDE"]
    assert drawn(figure)
    assert drawn(trajectory_figure({"ODE": states}, times=[0, 0.5, 1], labels=[4, 7]))


def test_a_column_of_the_reconstructions_is_an_image():
    originals, decoded = shades(3), shades(3).flip(0) / 2
    figure = reconstruction_figure({"plain": (originals, decoded), "dark": (-originals, decoded)}, [7, 8, 9])
    for axes, source in zip(figure.axes, (originals, -originals), strict=True):
        for column in range(3):
            for row, images in enumerate((source, decoded, decoded - source)):
                expected = images[column, 0].clamp(-1, 1).numpy()  # 0 is the grey between -1 and 1
                assert np.array_equal(tile(axes, row, column, 2), expected)
        assert [label.get_text() for label in axes.get_xticklabels()] == ["7", "8", "9"]
        assert [label.get_text() for label in axes.get_yticklabels()] == ["original", "decoded", "difference"]
    assert [axes.get_title() for axes in figure.axes] == ["plain", "dark"]
    assert drawn(figure)


def test_the_path_is_drawn_as_it_is():
    figure = path_figure(ip.linear(), {"two": 2, "shrinking": "2*(1 - t)", "unbounded": ip.diffusion.kl_optimal()})
    weights, snr, noise = figure.axes
    alpha, sigma = weights.lines
    t = alpha.get_xdata()
    assert (t[0], t[-1]) == (0, 1)
    assert alpha.get_ydata() == pytest.approx(t)
    assert sigma.get_ydata() == pytest.approx(1 - t)
    t = snr.lines[0].get_xdata()
    assert snr.lines[0].get_ydata() == pytest.approx(2 * np.log(t / (1 - t)))
    two, shrinking, unbounded = noise.lines
    assert two.get_ydata() == pytest.approx(np.full(len(t), 2))
    assert shrinking.get_ydata() == pytest.approx(2 * (1 - t))
    assert unbounded.get_ydata() == pytest.approx(2 * (1 - t) / t)
    assert noise.get_ylim()[1] < 5  # What is unbounded does not hide the others.
    assert drawn(figure)


@pytest.mark.parametrize("path", [ip.gvp(), ip.vp(), ip.Path("t**2", "sqrt(1 - t**4)")], ids=lambda path: path.name)
def test_any_path_can_be_drawn(path):
    assert drawn(path_figure(path, {name: choice(1.0) for name, choice in ip.diffusion.CHOICES.items()}))


def test_the_loss_is_drawn_as_logged_with_its_running_mean():
    log = [{"step": 10 * k, "loss": 1.0 + k} for k in range(1, 81)]
    axes = loss_figure([*log[:3], {"step": 35, "loss": None}, *log[3:]]).axes[0]  # which was left out
    raw, mean = axes.lines
    assert raw.get_xdata().tolist() == mean.get_xdata().tolist() == [line["step"] for line in log]
    assert raw.get_ydata().tolist() == [line["loss"] for line in log]
    assert mean.get_ydata()[10] == pytest.approx(np.mean([line["loss"] for line in log[8:13]]))
    assert mean.get_ydata()[0] == pytest.approx(np.mean([line["loss"] for line in log[:3]]))


def test_a_log_of_one_line_can_be_drawn():
    assert drawn(loss_figure([{"step": 1, "loss": 1.5}]))
