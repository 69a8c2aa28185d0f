"""Images from each kind of file, as numpy and Pillow read them."""

import hashlib
import json
import zipfile

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from training.data import digits
from training.image_sets import open_images


def pixels(count=7, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 5, 4, channels), dtype=np.uint8)


def planes(images):
    return torch.from_numpy(np.broadcast_to(images, (*images.shape[:3], 3)).transpose(0, 3, 1, 2).copy())


def whole(images, batch_size=3, workers=0):
    batches = list(images.read(batch_size, workers))
    assert [place for places, _ in batches for place in places] == list(range(len(images)))
    return torch.cat([batch for _, batch in batches])


def save_npz(file, images, how):
    if how == "zip64":  # as a file is written whose size is not known beforehand
        with zipfile.ZipFile(file, "w") as archive:
            for key, array in (("labels", np.arange(3)), ("arr_0", images)):
                with archive.open(f"{key}.npy", "w", force_zip64=True) as stream:
                    np.lib.format.write_array(stream, array)
    elif how == "fortran":
        np.savez(file, arr_0=np.asfortranarray(images))
    else:
        {"stored": np.savez, "compressed": np.savez_compressed}[how](file, mu=np.zeros(3), arr_0=images)
    return file


@pytest.mark.parametrize("how", ["stored", "compressed", "zip64", "fortran"])
def test_an_npz_is_read_in_batches_and_stays_on_the_disk_where_it_can(tmp_path, how):
    images = pixels()
    found = open_images(save_npz(tmp_path / "a.npz", images, how))
    assert torch.equal(whole(found), planes(images))
    assert isinstance(found.arrays[0], np.memmap) == (how in ("stored", "zip64"))
    assert found.digest == hashlib.sha256((tmp_path / "a.npz").read_bytes()).hexdigest()


@pytest.mark.parametrize("channels", [1, 3])
def test_shards_are_one_after_another_and_grey_becomes_rgb(tmp_path, channels):
    images = pixels(11, channels)
    for number, rows in enumerate(np.split(images, [4, 8])):
        np.save(tmp_path / f"images-{number:06d}.npy", rows)
    np.save(tmp_path / "labels.npy", np.arange(11))
    found = open_images(tmp_path)
    assert torch.equal(whole(found, 5), planes(images))
    assert torch.equal(found[range(3, 9)], planes(images[3:9]))
    before = found.digest
    np.save(tmp_path / "images-000002.npy", images[8:] ^ 1)
    assert open_images(tmp_path).digest != before


def test_shards_that_are_not_all_there_are_not_measured(tmp_path):
    np.save(tmp_path / "images-000000.npy", pixels())
    (tmp_path / "settings.json").write_text(json.dumps({"sampling": {"num_samples": 1000}}))
    with pytest.raises(ValueError, match=r"there must be 1,000 images, as settings.json says, got 7"):
        open_images(tmp_path)


def save_folder(folder, images):
    for number, image in enumerate(images):
        file = folder / f"{number // 3}" / f"{number:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_folder_is_read_in_the_order_of_its_names(tmp_path, workers):
    images = pixels()
    save_folder(tmp_path, images)
    assert torch.equal(whole(open_images(tmp_path), workers=workers), planes(images))


def test_what_is_in_a_folder_is_known_by_its_digest(tmp_path):
    save_folder(tmp_path, pixels())
    first = open_images(tmp_path).digest
    assert open_images(tmp_path).digest == first
    (tmp_path / "0" / "000.png").rename(tmp_path / "0" / "0000.png")
    second = open_images(tmp_path).digest
    save_folder(tmp_path, pixels(seed=1)[:1])
    assert len({first, second, open_images(tmp_path).digest}) == 3


def save_config(folder, **data):
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump({"model": {"input_size": 4, "in_channels": 3}, "data": data}))
    return file


def test_the_images_of_a_run_are_cropped_as_it_crops_them_and_the_damaged_left_out(tmp_path):
    """5 x 4 pixels are cropped to the rows 0 to 3: (5 - 4) // 2 from above."""
    images = pixels()
    save_folder(tmp_path / "data", images)
    file = save_config(tmp_path, name="folder", source=str(tmp_path / "data"))
    found = open_images(file)
    assert torch.equal(whole(found), planes(images[:, :4]))
    before = found.digest
    (tmp_path / "data" / "1" / "004.png").write_bytes(b"damaged")
    damaged = open_images(file)
    assert torch.equal(damaged[range(3, 6)], planes(images[[3, 5], :4]))
    assert damaged.digest != before


def test_a_run_means_its_data_and_not_its_pictures(tmp_path):
    save_folder(tmp_path / "data", pixels())
    run = tmp_path / "run"
    save_folder(run, pixels(seed=1))  # where loss.png and its like lie
    save_config(run, name="folder", source=str(tmp_path / "data"), held_out=0.3).rename(run / "config.yaml")
    for part in ("train", "heldout"):
        assert torch.equal(whole(open_images(run, part)), whole(open_images(run / "config.yaml", part)))
        assert open_images(run, part).name == open_images(run / "config.yaml", part).name


def test_the_digits_are_those_that_are_trained_on(tmp_path):
    file = tmp_path / "digits.yaml"
    file.write_text("seed: 1\n")
    for part in ("train", "heldout"):
        found = open_images(file, part)
        expected = ((digits(part)[0] + 1) * 127.5).round().byte().expand(-1, 3, -1, -1)
        assert torch.equal(whole(found, 500), expected)
        assert found.name == str(file) + ("" if part == "train" else ", heldout")


def test_the_part_of_a_run_that_was_held_out(tmp_path):
    """The numbers 4 and 3 have the smallest checksums of 0 to 6."""
    images = pixels()
    save_folder(tmp_path / "data", images)
    file = save_config(tmp_path, name="folder", source=str(tmp_path / "data"), held_out=0.3)
    assert torch.equal(whole(open_images(file, "heldout")), planes(images[[3, 4], :4]))
    assert torch.equal(whole(open_images(file)), planes(images[[0, 1, 2, 5, 6], :4]))
    with pytest.raises(ValueError, match=r"data: part must be train unless the images are those of a run's .yaml"):
        open_images(tmp_path / "data", "heldout")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: {"arr_0": pixels().astype(np.float32)}, r"uint8, 0 to 255, of shape \(N, H, W, 3\), got float32"),
        (lambda: {"arr_0": pixels().transpose(0, 3, 1, 2)}, r"shape \(N, H, W, 3\), got uint8 of \(7, 3, 5, 4\)"),
        (lambda: {"arr_0": pixels()[0]}, r"shape \(N, H, W, 3\), got uint8 of \(5, 4, 3\)"),
        (lambda: {"arr_0": pixels() % 2}, "must be from 0 to 255, got none above 1"),
        (lambda: {"arr_0": pixels(1)}, "there must be at least 2 images, got 1"),
        (lambda: {"arr_0": pixels(0)}, "there must be at least 2 images, got 0"),
        (lambda: {"arr_0": np.array([None])}, "images must be uint8, got objects"),
        (lambda: {"samples": pixels()}, "must hold images as arr_0, got samples"),
    ],
)
def test_an_npz_of_something_else_is_refused(tmp_path, make, message):
    np.savez(tmp_path / "a.npz", **make())
    with pytest.raises(ValueError, match=rf"a.npz: .*{message}"):
        open_images(tmp_path / "a.npz")


def test_other_files_are_refused(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"damaged")
    (tmp_path / "none").mkdir()
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "images-000000.npy").write_bytes(b"damaged")
    (tmp_path / "sizes").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "a.png").write_bytes(b"damaged")
    for name, size in (("a", (4, 4)), ("b", (4, 5))):
        Image.new("RGB", size).save(tmp_path / "sizes" / f"{name}.png")
    for name, message in (
        ("a.npz", "a.npz: must be an .npz, and cannot be read"),
        ("b.npz", "b.npz: must be an .npz, and cannot be read"),
        ("gone", "gone: images must be a folder, an .npz, a run or its .yaml"),
        ("none", "none: there must be images in it"),
        ("shards", "images-000000.npy: the shard cannot be read"),
        ("sizes", r"b.png: images must be of one size, \(4, 4\) of the first, got \(4, 5\)"),
        ("damaged", "a.png: the image cannot be read"),
    ):
        with pytest.raises(ValueError, match=message):
            open_images(tmp_path / name)


def test_shards_of_other_sizes_are_refused(tmp_path):
    np.save(tmp_path / "images-000000.npy", pixels())
    np.save(tmp_path / "images-000001.npy", pixels()[:, :4])
    with pytest.raises(ValueError, match=r"000001.npy: images must be .* of shape \(N, 5, 4, 3\), got uint8 of \(7, 4"):
        open_images(tmp_path)
