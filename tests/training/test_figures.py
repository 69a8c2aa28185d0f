import io
import sys
from itertools import combinations

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from PIL import Image

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
    figure = sample_grid(images, labels, "Samples", real=(real, labels, "Real"), names=["cats", "dogs"])
    left, right = figure.axes
    for axes, source in ((left, images), (right, real)):
        for (row, column), index in {(0, 0): 1, (1, 0): 3, (0, 1): 0, (1, 1): 2, (0, 2): 4}.items():
            assert np.array_equal(tile(axes, row, column, 2), source[index, 0].numpy())
        assert np.ma.getmaskarray(tile(axes, 1, 2, 2)).all()  # There is no second image of class 2.
        assert [label.get_text() for label in axes.get_xticklabels()] == ["cats", "dogs", "2"]
        assert axes.get_xticks().tolist() == [0.5, 3.5, 6.5]
    assert (left.get_title(), right.get_title()) == ("Samples", "Real")
    assert drawn(figure)


def test_few_classes_of_many_images_have_several_columns_each():
    """Two classes with 9 images each take isqrt(9 // 2) = 2 columns: 5 rows, not 9."""
    images, labels = shades(18), torch.arange(18) % 2
    (axes,) = sample_grid(images, labels, "Samples", names=["cats", "dogs"]).axes
    for index, label in enumerate(labels.tolist()):
        place = index // 2
        assert np.array_equal(tile(axes, place // 2, 2 * label + place % 2, 2), images[index, 0].numpy())
    assert [text.get_text() for text in axes.get_xticklabels()] == ["cats", "", "dogs", ""]
    assert np.ma.getmaskarray(tile(axes, 4, 1, 2)).all()  # There is no tenth cat.


def test_without_classes_all_are_in_a_square():
    images, none = shades(7), torch.zeros(7).long()
    figure = sample_grid(images, none, "Samples", real=(-images, none, "Real"))
    for axes, source in zip(figure.axes, (images, -images), strict=True):
        assert axes.images[0].get_array().shape == (8, 8)
        for number, image in enumerate(source):
            assert np.array_equal(tile(axes, number // 3, number % 3, 2), image[0].numpy())
        assert list(axes.get_xticklabels()) == []


def test_real_images_of_other_classes_are_not_shown():
    labels, real_labels = torch.tensor([3, 5]), torch.tensor([5, 4, 5, 5])
    left, right = sample_grid(shades(2), labels, "", real=(shades(4), real_labels, "")).axes
    assert left.images[0].get_array().shape == right.images[0].get_array().shape == (2, 5)
    assert np.ma.getmaskarray(tile(right, 0, 0, 2)).all()
    assert np.array_equal(tile(right, 0, 1, 2), shades(4)[0, 0].numpy())


@pytest.mark.parametrize(("size", "scale"), [(2, 32), (8, 8), (24, 2), (32, 2), (33, 1), (64, 1), (65, 1), (128, 1)])
def test_images_are_as_large_as_they_are_or_enlarged_by_a_whole_factor(size, scale):
    """To the pixel, in the file that is written."""
    images = torch.rand(4, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    none = torch.zeros(4).long()
    figure = sample_grid(images, none, "A long title " * 9, real=(images, none, "Real"))
    with Image.open(io.BytesIO(drawn(figure))) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    side = (2 * (size + 1) - 1) * scale
    wide = np.flatnonzero((pixels[-40] < 250).any(1))  # of the last row of images
    left, right = wide[0], wide[-1] + 1
    expected = ((images[2] + 1) * 127.5).permute(1, 2, 0).numpy().repeat(scale, 0).repeat(scale, 1)
    found = pixels[-20 - size * scale : -20, left : left + size * scale]
    np.testing.assert_allclose(found, expected, atol=1.1)
    assert right - left >= 2 * side  # both panels


def overlaps(figure) -> list[tuple[str, str]]:
    """Texts that lie over each other, or beyond the figure."""
    FigureCanvasAgg(figure).draw()
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    (right, top), inside = figure.bbox.max, "inside the figure"
    out = [(name, inside) for name, box in boxes if box.x0 < 0 or box.y0 < 0 or box.x1 > right or box.y1 > top]
    level = [(text.get_text(), text.get_window_extent()) for text in texts if not text.get_rotation()]
    return out + [(a, b) for (a, one), (b, other) in combinations(level, 2) if one.overlaps(other)]


@pytest.mark.parametrize("size", [2, 8, 40, 128])
@pytest.mark.parametrize("classes", [1, 2, 10])
def test_no_text_lies_over_another_or_is_cut(size, classes):
    count = 20
    labels, images = torch.arange(count) % classes, torch.zeros(count, 3, size, size)
    names = ["a", "automobile", "a class with a name that is quite long", *"bcdefgh"]
    title = "Samples: SDE, w = kl_optimal, euler_maruyama, 250 steps"
    assert overlaps(sample_grid(images, labels, title, real=(images, labels, title), names=names)) == []
    states = torch.zeros(9, len(names), 3, size, size)
    by = {f"ODE, {title}": states, f"SDE, {title}": states}
    assert overlaps(trajectory_figure(by, torch.linspace(0, 1, 9).tolist(), names)) == []


@pytest.mark.parametrize("name", ["$1 and $2", r"$\frac$", "a\nb", "\udce9", "x_{", "%", "z" * 999])
def test_a_class_may_have_any_name(name):
    figure = sample_grid(shades(4), torch.tensor([0, 0, 1, 1]), "w = $1", names=[name, "b"])
    drawn(figure)
    label = figure.axes[0].get_xticklabels()[0]
    assert label.get_text() == {"a\nb": "a b", "\udce9": " ", "z" * 999: "z" * 21 + "..."}.get(name, name)
    assert not label.get_parse_math()
    assert not figure.axes[0].title.get_parse_math()


def test_the_grid_of_colour_images_is_in_colour():
    images = torch.stack([torch.tensor([1.0, -1.0, 3.0]).view(3, 1, 1).expand(3, 2, 2)] * 2)
    labels = torch.tensor([0, 1])
    (axes,) = sample_grid(images, labels, "A long title, which is wider than two small images").axes  # no real ones
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
