"""Extractors as their networks are called by hand, and features of many images as of all at once."""

import dataclasses
import hashlib
import math
import re
import sys

import numpy as np
import pytest
import torch
from torch import nn

from training.data import digits
from training.evaluation import DigitsClassifier
from training.features import PUBLISHED, extract, load_extractor, widths
from training.image_sets import ArrayImages, open_images


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 9, 1)
        self.tower = nn.Conv2d(6, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.conv(x), self.tower(x)], 1)


class Inception(nn.Module):
    """Called, and with parts named, as NVIDIA's file: it resizes and scales the images itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        self.layers.add_module("conv", nn.Conv2d(3, 6, 3, stride=64))
        self.layers.add_module("mixed_5", nn.ReLU())
        self.layers.add_module("mixed_6", Block())
        self.layers.add_module("pool2", nn.AdaptiveAvgPool2d(1))
        self.output = nn.Linear(12, 4)

    def forward(self, img: torch.Tensor, return_features: bool = False, no_output_bias: bool = False) -> torch.Tensor:
        theta = torch.eye(2, 3)
        theta[0, 2] += theta[0, 0] / img.shape[3] - theta[0, 0] / 299
        theta[1, 2] += theta[1, 1] / img.shape[2] - theta[1, 1] / 299
        grid = nn.functional.affine_grid(theta.expand(img.shape[0], 2, 3), [img.shape[0], 3, 299, 299], False)
        x = nn.functional.grid_sample(img.float(), grid, "bilinear", "border", False)
        features = self.layers((x - 128) / 128).flatten(1)
        if return_features:
            return features
        logits = nn.functional.linear(features, self.output.weight, None if no_output_bias else self.output.bias)
        return logits.softmax(1)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Inception().requires_grad_(False)


@pytest.fixture(scope="module")
def file(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("networks") / "inception.pt"
    torch.jit.script(network).save(path)
    return path


def images(count=5, height=13, width=10, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, 3, height, width), generator=generator, dtype=torch.uint8)


def image_set(pixels, name="here"):
    array = pixels.permute(0, 2, 3, 1).numpy()
    found = ArrayImages(name, [], [])
    found.arrays, found._starts, found.digest = [array], [0, len(array)], "0"
    return found


# Extractors


def test_a_torch_script_file_gives_features_and_probabilities(network, file):
    extractor, x = load_extractor(str(file)), images()
    found = extractor(x)
    assert (extractor.name, extractor.sha256) == (str(file), hashlib.sha256(file.read_bytes()).hexdigest())
    torch.testing.assert_close(found["pool"], network(x, return_features=True))
    torch.testing.assert_close(found["probabilities"], network(x, no_output_bias=True))
    assert not torch.allclose(found["probabilities"], network(x), atol=1e-3)


def test_its_spatial_features_are_of_images_resized_as_by_tensorflow_1(network, file):
    """Pixel i of 299 is read at i * before / 299, between the two about it; by hand. The channel varies fastest."""
    x = images(2).numpy().astype(np.float64)

    def read(length):
        places = np.arange(299) * length / 299
        low = np.floor(places).astype(int)
        return low, np.minimum(low + 1, length - 1), places - low

    (top, bottom, v), (left, right, u) = read(13), read(10)
    rows = x[:, :, top] * (1 - v)[:, None] + x[:, :, bottom] * v[:, None]
    resized = rows[..., left] * (1 - u) + rows[..., right] * u
    layers = network.layers
    seen = layers.mixed_6.conv(layers.mixed_5(layers.conv(torch.from_numpy((resized - 128) / 128).float())))
    expected = np.stack([seen[:, channel].numpy() for channel in range(7)], -1)  # (2, h, w, 7)
    found = load_extractor(str(file))(images(2))["spatial"]
    np.testing.assert_allclose(found, expected.reshape(2, -1), rtol=1e-4, atol=1e-4)


def test_a_plain_torch_script_file_gives_features_alone(tmp_path):
    class Mean(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.float().mean(3)

    torch.jit.script(Mean()).save(tmp_path / "mean.pt")
    found = load_extractor(str(tmp_path / "mean.pt"))(images())
    assert found.keys() == {"pool"}
    assert torch.equal(found["pool"], images().float().mean(3).flatten(1))


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of a user."""
    (tmp_path / "of_a_user.py").write_text(
        "import torch\n"
        "def plain(x): return x.float().mean((2, 3))\n"
        "def both(x): return {'pool': plain(x), 'probabilities': plain(x).softmax(1)}\n"
        "def known(x): return plain(x)\n"
        "known.sha256 = 'of the weights'\n"
        "def of_clip(x): return plain(x)\n"
        "of_clip.space = 'clip'\n"
        "def of_vgg(x): return plain(x)\n"
        "of_vgg.space = 'vgg'\n"
        "def arrays(x): return plain(x).numpy()\n"
        "def whole(x): return x.sum((2, 3))\n"
        "def logits(x): return {'pool': plain(x), 'probabilities': plain(x)}\n"
        "def wrong(x): return {'pooled': plain(x)}\n"
        "def few(x): return plain(x)[1:]\n"
        "def narrow(x): return plain(x)[:, : 2 if len(x) == 1 else 3]\n"
        "def at_times(x): return {'pool': plain(x)} | ({} if len(x) == 1 else {'spatial': plain(x)})\n"
        "def wide(x): return plain(x).double() * 1e60\n"
        "def empty(x): return plain(x)[:, :0]\n"
        "def nan(x): return torch.where(x[:, :, 0, 0] == 7, torch.nan, plain(x))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "of_a_user.py"


def test_a_function_gives_features_or_several_outputs(module):
    plain, both = (load_extractor(f"of_a_user:{name}") for name in ("plain", "both"))
    expected = images().float().mean((2, 3))
    assert torch.equal(plain(images())["pool"], expected)
    assert torch.equal(both(images())["probabilities"], expected.softmax(1))
    assert plain.sha256 == hashlib.sha256(module.read_bytes()).hexdigest()
    assert load_extractor("of_a_user:known").sha256 == "of the weights"


def test_outputs_of_other_names_or_numbers_are_refused(module):
    with pytest.raises(ValueError, match=r"outputs must be pool and, .* spatial and probabilities, got pooled"):
        load_extractor("of_a_user:wrong")(images())
    with pytest.raises(ValueError, match=r"pool must have shape \(5, ...\) for as many images, got \(4, 3\)"):
        load_extractor("of_a_user:few")(images())
    with pytest.raises(TypeError, match="pool must be a floating-point tensor, got ndarray"):
        load_extractor("of_a_user:arrays")(images())
    with pytest.raises(TypeError, match=r"pool must be a floating-point tensor, got torch.int64"):
        load_extractor("of_a_user:whole")(images())
    with pytest.raises(ValueError, match=r"probabilities must be >= 0 with rows that sum to 1, .* logits.softmax"):
        load_extractor("of_a_user:logits")(images())


def test_what_features_are_is_what_their_extractor_says(module, tmp_path):
    assert [load_extractor(f"of_a_user:{name}").space for name in ("plain", "of_clip")] == [None, "clip"]
    assert load_extractor("digits").space is None
    with pytest.raises(ValueError, match="of_a_user:of_vgg: space must be one of inception, clip, or None, got 'vgg'"):
        load_extractor("of_a_user:of_vgg")

    class Saying(nn.Module):
        space: str

        def __init__(self) -> None:
            super().__init__()
            self.space = "clip"

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.float().mean(3)

    torch.jit.script(Saying()).save(tmp_path / "saying.pt")
    extractor = load_extractor(str(tmp_path / "saying.pt"))
    assert (extractor.space, extract(extractor, image_set(images())).space) == ("clip", "clip")


def test_a_function_sees_what_the_page_says(module):
    """uint8 images of three channels, in no graph, as many as there are in a batch."""
    seen = []
    sys.modules.pop("of_a_user", None)
    extractor = load_extractor("of_a_user:plain")
    call = sys.modules["of_a_user"]
    plain = call.plain
    call.plain = lambda x: seen.append((x.dtype, tuple(x.shape), torch.is_inference_mode_enabled())) or plain(x)
    extract(load_extractor("of_a_user:plain"), image_set(images(7)), batch_size=4)
    assert seen == [(torch.uint8, (4, 3, 13, 10), True), (torch.uint8, (3, 3, 13, 10), True)]
    assert extractor.sha256 == hashlib.sha256(module.read_bytes()).hexdigest()


def test_the_published_inception_is_known_by_its_checksum(file, tmp_path, monkeypatch):
    """Another file under its name is refused before it is loaded; under another name it is a network of one's own."""
    name, published = "inception-2015-12-05.pt", PUBLISHED["inception-2015-12-05.pt"]
    assert published.url.endswith(name)
    other = tmp_path / name
    other.write_bytes(file.read_bytes())
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    with pytest.raises(ValueError, match=f"{published.sha256}, got {digest}. Fetch it again from https:.* rename it"):
        load_extractor(str(other))
    assert load_extractor(str(file)).space is None
    monkeypatch.setitem(PUBLISHED, name, dataclasses.replace(published, sha256=digest))
    assert [load_extractor(str(each)).space for each in (other, file)] == ["inception", "inception"]


def test_the_digits_are_seen_as_by_their_classifier():
    """uint8 is within 1/255 of the pixels: the features, margins of about 1, are within 0.02."""
    x, labels = digits("heldout")
    extractor, classifier = load_extractor("digits"), DigitsClassifier(*digits("train"))
    found = extractor(((x[:50] + 1) * 127.5).round().byte().expand(-1, 3, -1, -1))["pool"]
    np.testing.assert_allclose(found, classifier.features(x[:50]), atol=0.02)
    assert extractor.sha256 == classifier.digest != DigitsClassifier(x, labels).digest
    with pytest.raises(ValueError, match=r"images must be of 8 x 8 pixels, got \(13, 10\)"):
        extractor(images())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone.pt", "must be digits, a TorchScript file, or module:function, got 'gone.pt'"),
        ("os:gone", "os:gone: must be module:function that can be imported, got AttributeError: .*'gone'"),
        ("no_such:thing", "no_such:thing: must be module:function .* got ModuleNotFoundError: .*'no_such'"),
        (":", "must be module:function that can be imported, got ValueError"),
        ("sys:exit", "sys:exit: must have an attribute sha256, as its module has no file, got none"),
        (__file__, "must be a TorchScript file, and cannot be loaded"),
    ],
)
def test_what_is_no_extractor_is_refused(name, message):
    with pytest.raises(ValueError, match=f"extractor.*{message}") as error:
        load_extractor(name)
    assert "\n" not in str(error.value)


FAULTY = """
import torch

network = torch.nn.Linear(12, 3)


def heard(images):
    return network(images.float().flatten(1))


def features(images):
    return heard(images)  # line 12
"""


def test_an_error_of_a_users_code_says_whose_it_is_on_what_and_where(tmp_path, monkeypatch):
    """Its own message and the line of the user's that it arose at, not that of torch's; the cause is kept."""
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "faulty.py"
    file.write_text(FAULTY.lstrip())
    said = (
        "extractor faulty:features: must take uint8 images of shape (5, 3, 13, 10), got RuntimeError: "
        f"{file}, line 7: mat1 and mat2 shapes cannot be multiplied (5x390 and 12x3)"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$") as error:
        load_extractor("faulty:features")(images())
    assert isinstance(error.value.__cause__, RuntimeError)

    (tmp_path / "unready.py").write_text("def features(images):\n    return images\n\nopen('weights.gone')\n")
    where = f"{tmp_path / 'unready.py'}, line 4"
    with pytest.raises(ValueError, match=f"be imported, got FileNotFoundError: {where}: .*weights.gone"):
        load_extractor("unready:features")


def test_an_error_of_a_torch_script_file_says_whose_it_is_and_on_what(tmp_path):
    torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(12, 3))).save(tmp_path / "small.pt")
    said = r"must take uint8 images of shape \(5, 3, 13, 10\), got RuntimeError: RuntimeError: mat1 and mat2 [^\n]*$"
    with pytest.raises(ValueError, match=said):
        load_extractor(str(tmp_path / "small.pt"))(images())


# Features of many images


@pytest.mark.parametrize(("batch_size", "keep"), [(4, None), (100, 7), (1, 1)])
def test_features_do_not_depend_on_batches_and_moments_are_of_all(module, batch_size, keep):
    pixels = images(23)
    found = extract(load_extractor("of_a_user:both"), image_set(pixels), batch_size=batch_size, keep=keep)
    rows = pixels.float().mean((2, 3))
    kept = np.linspace(0, 22, keep or 23).round().astype(int)
    torch.testing.assert_close(found.rows["pool"], rows[kept])
    torch.testing.assert_close(found.rows["probabilities"], rows.softmax(1)[kept])
    assert found.rows["pool"].dtype == torch.float32
    assert found.gaussians.keys() == {"pool"}
    assert (found.gaussians["pool"].count, found.count) == (23, keep or 23)
    np.testing.assert_allclose(found.gaussians["pool"].sigma, np.cov(rows.double().numpy(), rowvar=False), rtol=1e-6)


def test_images_that_cannot_be_read_are_listed(tmp_path, module):
    import yaml
    from PIL import Image

    for number in range(6):
        Image.fromarray(images(1, 4, 4, seed=number)[0].permute(1, 2, 0).numpy()).save(tmp_path / f"{number}.png")
    (tmp_path / "2.png").write_bytes(b"damaged")
    config = tmp_path / "run.yaml"
    data = {"name": "folder", "source": str(tmp_path)}
    config.write_text(yaml.safe_dump({"model": {"input_size": 4, "in_channels": 3}, "data": data}))
    found = extract(load_extractor("of_a_user:plain"), open_images(config), batch_size=3)
    assert (found.count, found.gaussians["pool"].count) == (5, 5)
    (damaged,) = found.unreadable
    assert damaged.startswith(f"{tmp_path / '2.png'}: ")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "narrow",
            r"the same names and widths .* \{'pool': 3\}, then \{'pool': 2\} for images from 4",
        ),
        ("at_times", r"'spatial': 3\}, then \{'pool': 3\} for images from 4"),
        ("wide", "features must be finite"),
        ("empty", r"pool must have shape \(4, \.\.\.\) for as many images, got \(4, 0\)"),
    ],
)
def test_features_that_belong_to_no_matrix_of_float32_are_refused(module, name, message):
    with pytest.raises(ValueError, match=message):
        extract(load_extractor(f"of_a_user:{name}"), image_set(images(5)), batch_size=4)


def test_a_feature_that_is_not_finite_is_named_by_its_image(module):
    pixels = images(9)
    pixels[:, :, 0, 0] = 0
    pixels[5, :, 0, 0] = 7
    extractor = load_extractor("of_a_user:nan")
    assert widths(extractor, image_set(pixels)) == {"pool": 3}
    with pytest.raises(ValueError, match="here: pool features must be finite, got NaN or infinity for image 5"):
        extract(extractor, image_set(pixels), batch_size=2)
    with pytest.raises(ValueError, match="for image 1"):
        widths(extractor, image_set(pixels[4:]))


def test_one_image_has_no_covariance(module):
    with pytest.raises(ValueError, match="here: at least 2 images must be readable, got 1"):
        extract(load_extractor("of_a_user:plain"), image_set(images(1)))


def test_the_resized_corner_stays(file):
    """A constant image stays one, whatever is beyond its border."""
    x = torch.full((1, 3, 4, 4), 200, dtype=torch.uint8)
    found = load_extractor(str(file))(x)["spatial"].view(-1, 7)
    assert math.isclose(float(found.std(0).max()), 0, abs_tol=1e-4)
