import io
import json
import shutil

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from training.data import Digits, HubImages, ImageFolder, Steps, digits, held_out
from training.fingerprint import changes, fingerprint
from training.order import ShuffledBatches, derived_seed


def test_the_two_splits_are_all_of_the_digits_scaled():
    pixels, labels = load_digits(return_X_y=True)
    (train, train_labels), (heldout, heldout_labels) = digits("train"), digits("heldout")
    assert train.shape == (1433, 1, 8, 8)
    assert heldout.shape == (364, 1, 8, 8)
    assert train.dtype == torch.float32
    assert train_labels.dtype == torch.int64
    restored = torch.cat([(images.flatten(1) + 1) * 8 for images in (train, heldout)]).numpy()
    rows = np.column_stack([restored, torch.cat([train_labels, heldout_labels])])
    expected = np.column_stack([pixels, labels])
    assert np.array_equal(rows[np.lexsort(rows.T)], expected[np.lexsort(expected.T)])


def test_a_fifth_of_each_class_is_held_out_always_the_same():
    (_, labels), (_, heldout) = digits("train"), digits("heldout")
    total = (torch.bincount(labels) + torch.bincount(heldout)).tolist()
    assert torch.bincount(heldout).tolist() == [-(-n // 5) for n in total]
    pixels, everything = load_digits(return_X_y=True)
    second_held_out_zero = pixels[np.flatnonzero(everything == 0)[5]]
    images = digits("heldout")[0][heldout == 0]
    assert np.array_equal((images[1].flatten() + 1) * 8, second_held_out_zero)


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match=r"digits: split must be 'train' or 'heldout', got 'test'"):
        digits("test")


@given(length=st.integers(1, 40), batch=st.integers(1, 60), seed=st.integers(0, 2**40), start=st.integers(0, 50))
def test_every_epoch_holds_every_sample_once_and_the_step_alone_decides(length, batch, seed, start):
    batches = ShuffledBatches(length, batch, seed)
    epochs = 3
    steps = -(-epochs * length // batch)
    order = torch.cat([batches.indices(step) for step in range(steps)])
    for epoch in order[: epochs * length].view(epochs, length):
        assert epoch.sort().values.tolist() == list(range(length))
    late = ShuffledBatches(length, batch, seed)
    assert torch.equal(late.indices(start), batches.indices(start))
    assert torch.equal(late.indices(0), order[:batch])


def test_epochs_and_seeds_have_orders_of_their_own():
    epochs = ShuffledBatches(100, 100, 0)
    others = ShuffledBatches(100, 100, 1)
    orders = {tuple(b.indices(step).tolist()) for b in (epochs, others) for step in range(5)}
    assert len(orders) == 10


@pytest.mark.parametrize(
    ("arguments", "name"), [((0, 1, 0), "length"), ((1, 0, 0), "batch_size"), ((1, 1, -1), "seed")]
)
def test_what_is_out_of_range_is_named(arguments, name):
    with pytest.raises(ValueError, match=f"ShuffledBatches: {name} must be at least"):
        ShuffledBatches(*arguments)


def test_a_step_before_the_first_is_refused():
    with pytest.raises(ValueError, match="step must be at least 0, got -1"):
        ShuffledBatches(4, 2, 0).indices(-1)


def test_derived_seeds_differ_by_seed_purpose_and_index():
    seeds = {
        derived_seed(seed, purpose, index)
        for seed in (0, 1, 2)
        for purpose in ("weights", "order", "step")
        for index in range(4)
    }
    assert len(seeds) == 36


# Parts


def test_the_examples_held_out_are_those_of_the_least_checksums():
    """By sha256sum, the numbers 0 to 9 come in the order 9, 8, 4, 3, ..."""
    assert np.flatnonzero(held_out(10, 0.1)).tolist() == [9]
    assert np.flatnonzero(held_out(10, 0.4)).tolist() == [3, 4, 8, 9]
    assert np.flatnonzero(held_out(10, 0.33)).tolist() == [4, 8, 9]
    shares = [held_out(1000, share) for share in (0.05, 0.2, 0.5)]
    assert [part.sum() for part in shares] == [50, 200, 500]
    assert not (shares[0] & ~shares[1]).any()
    assert not (shares[1] & ~shares[2]).any()


@pytest.mark.parametrize("share", [0.01, 0.99, 1.0, 0.0])
def test_a_share_of_none_or_of_all_is_refused(share):
    with pytest.raises(ValueError, match=r"data.held_out must be a share of the 10 examples that leaves some, got"):
        held_out(10, share)


def test_no_part_is_held_out_of_data_without_one(folder):
    source = ImageFolder(folder, 8)
    assert source.part("train", None) is source
    with pytest.raises(ValueError, match=r"data.held_out must be the share that was held out from the training"):
        source.part("heldout", None)


@pytest.mark.filterwarnings("ignore:data. no class, as no image is in it. parquet")
@pytest.mark.parametrize("kind", ["folder", "table"])
def test_the_parts_of_a_source_are_all_of_it_and_have_nothing_in_common(kind, folder, table):
    """The numbers 4 and 3 have the smallest checksums of 0 to 5."""
    whole = ImageFolder(folder, 8, flip=False) if kind == "folder" else HubImages(table, 8, flip=False)
    prints = [whole.fingerprint]
    for name, numbers in (("train", [0, 1, 2, 12]), ("heldout", [10, 11])):
        source = whole.part(name, 1 / 3)
        got = source.batch(range(len(source)), seeds(len(source)))
        assert torch.equal(got.data, expected(numbers))
        assert got.labels.tolist() == [n // 10 for n in numbers]
        assert (source.num_classes, source.classes) == (2, ["a", "b"])
        assert source.fingerprint["count"] == len(numbers)
        prints.append(source.fingerprint)
        assert str(source.name_of(len(source) - 1)) == str(whole.name_of(5 if name == "train" else 4))
    assert changes(prints[0], prints[1]) == ["class 'b' had 3 examples, has 1"]
    assert len(whole) == 6
    assert whole.fingerprint == prints[0]


def test_nothing_held_out_stands_in_for_what_cannot_be_read(folder):
    source = ImageFolder(folder, 8, flip=False).part("train", 1 / 3)
    for name in ("0.png", "1.png", "deeper/2.png"):
        (folder / "a" / name).write_bytes(b"")
    assert torch.equal(source.batch([0, 1, 2, 3], seeds(4)).data, expected([12] * 4))


# Images


def picture(seed, size=8):
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Two classes of three images each, b before a by the time of writing."""
    for label, name in ((1, "b"), (0, "a")):
        (tmp_path / name / "deeper").mkdir(parents=True)
        for index in range(3):
            place = tmp_path / name / ("deeper" if index == 2 else "")
            Image.fromarray(picture(10 * label + index)).save(place / f"{index}.png")
        (tmp_path / name / "notes.txt").write_text("no image")
    return tmp_path


@pytest.fixture
def table(tmp_path, folder):
    """The same six images in the layout of the hub, in two Parquet files."""
    file = tmp_path / "parquet"
    file.mkdir()
    columns = {"img": [10 * k + i for k in (0, 1) for i in range(3)], "label": [0] * 3 + [1] * 3}
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = [{"img": Image.fromarray(picture(n)), "label": label} for n, label in zip(*columns.values(), strict=True)]
    whole = datasets.Dataset.from_list(rows, features=features)
    whole.select(range(4)).to_parquet(file / "0.parquet")
    whole.select(range(4, 6)).to_parquet(file / "1.parquet")
    return file


def expected(numbers):
    return torch.from_numpy(np.stack([picture(n) for n in numbers])).permute(0, 3, 1, 2)


def seeds(count, first=0):
    return [(5, place) for place in range(first, first + count)]


@pytest.mark.filterwarnings("ignore:data. no class, as no image is in it. parquet")
@pytest.mark.parametrize("kind", ["folder", "file", "files"])
def test_images_of_a_folder_and_of_a_table_are_those_that_were_written(kind, folder, table):
    source = ImageFolder(folder, 8, flip=False) if kind == "folder" else None
    if source is None:
        source = HubImages(table if kind == "files" else table / "0.parquet", 8, flip=False)
    assert source.classes == ["a", "b"]
    numbers = [0, 1, 2, 10, 11, 12][: 4 if kind == "file" else 6]
    assert len(source) == len(numbers)
    assert source.shape == (3, 8, 8)
    got = source.batch(range(len(numbers))[::-1], seeds(len(numbers)))
    assert torch.equal(got.data, expected(numbers[::-1]))
    assert got.labels.tolist() == [n // 10 for n in numbers[::-1]]
    assert got.unreadable == ()


def test_half_are_flipped_by_their_place_and_by_nothing_else(folder):
    source, whole = ImageFolder(folder, 8), expected([0])
    flips = []
    for place in range(400):
        got = source.batch([0], [(5, place)]).data
        flips.append(bool(torch.equal(got, whole.flip(3))))
        assert flips[-1] or torch.equal(got, whole)
    assert 150 < sum(flips) < 250
    together = source.batch([0] * 400, seeds(400)).data
    assert [bool(torch.equal(image, whole[0].flip(2))) for image in together] == flips
    assert torch.equal(source.batch([0] * 8, seeds(8, first=8)).data, together[8:16])


def test_what_cannot_be_read_is_replaced_and_named(folder):
    (folder / "a" / "1.png").write_bytes(b"no image")
    (folder / "b" / "deeper" / "2.png").write_bytes((folder / "b" / "0.png").read_bytes()[:60])
    source = ImageFolder(folder, 8, flip=False)
    got = source.batch([0, 1, 5], seeds(3))
    assert torch.equal(got.data, expected([0, 2, 0]))  # the next; after the last the first
    assert got.labels.tolist() == [0, 0, 0]
    assert [name.split(": ")[0] for name in got.unreadable] == [
        str(folder / "a" / "1.png"), str(folder / "b" / "deeper" / "2.png")
    ]  # fmt: skip
    for file in folder.rglob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(ValueError, match=r"data: no image can be read, the last is .*png"):
        source.batch([0], seeds(1))


def test_images_without_classes(tmp_path):
    Image.fromarray(picture(3)).convert("L").save(tmp_path / "x.png")
    source = ImageFolder(tmp_path, 8, channels=1, flip=False)
    assert (source.num_classes, source.shape) == (0, (1, 8, 8))
    batch = source.batch([0], seeds(1))
    assert batch.data.shape == (1, 1, 8, 8)
    assert batch.labels.tolist() == [0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: ImageFolder(f / "c", 8), "must be a folder of images, and is not there"),
        (lambda f: ImageFolder(f / "a" / "deeper" / "none", 8), "is not there"),
        (lambda f: ImageFolder(f, 8, channels=4), "images have 3 channels, or 1 for grey; the network takes 4"),
        (lambda f: HubImages(f / "nowhere", 8), "cannot be loaded"),
        (lambda f: HubImages(f / "parquet", 8, image_column="picture"), "image_column must be one of img, label, got"),
        (lambda f: HubImages(f / "parquet", 8, image_column="label"), "image_column must be a column of images"),
        (lambda f: HubImages(f / "parquet", 8, split="test", label_column="x"), "label_column must be one of"),
    ],
)
def test_wrong_sources_are_refused(make, message, folder, table):
    with pytest.raises(ValueError, match=message):
        make(folder)


def png(seed=0):
    buffer = io.BytesIO()
    Image.fromarray(picture(seed)).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def labelled(folder, kind, labels, images=None):
    """A source of so many images, with these labels in a column of this kind."""
    features = datasets.Features({"img": datasets.Image(), "label": kind})
    columns = {"img": images or [png(seed) for seed in range(len(labels))], "label": labels}
    datasets.Dataset.from_dict(columns, features=features).to_parquet(str(folder / "x.parquet"))
    return HubImages(folder / "x.parquet", 8, flip=False, label_column="label")


NAMES = datasets.ClassLabel(names=["a", "b", "c"])


@pytest.mark.parametrize(
    ("kind", "labels", "classes", "right"),
    [
        (NAMES, [1, 0], ["a", "b", "c"], [1, 0]),
        (datasets.Value("int64"), [2, 0], ["0", "1", "2"], [2, 0]),
        (datasets.Value("string"), ["dog", "cat", "dog"], ["cat", "dog"], [1, 0, 1]),
        (NAMES, [-1, -1], [], [0, 0]),
        (NAMES, [None, None], [], [0, 0]),
    ],
)
def test_labels_are_numbers_or_texts(kind, labels, classes, right, tmp_path):
    source = labelled(tmp_path, kind, labels)
    assert (source.classes, source.num_classes) == (classes, len(classes))
    batch = source.batch(range(len(labels)), seeds(len(labels)))
    assert (batch.labels.tolist(), batch.unreadable) == (right, ())


@pytest.mark.parametrize(
    ("kind", "labels"),
    [
        (datasets.Value("int64"), [0, -1]),
        (datasets.Value("int64"), [0, 10**9]),
        (datasets.Value("float32"), [0.0, 1.5]),
        (datasets.Value("bool"), [True, False]),
        (datasets.Sequence(datasets.Value("int64")), [[0], [1]]),
    ],
)
def test_columns_that_are_no_labels_are_refused_by_name(kind, labels, tmp_path):
    with pytest.raises(ValueError, match=r"data: label_column must hold labels 0, 1, .*, got 'label' with"):
        labelled(tmp_path, kind, labels)


def test_rows_without_an_image_or_a_label_are_left_out_and_named(tmp_path):
    source = labelled(tmp_path, NAMES, [0, None, 2, 1], [None, png(1), png(2), png(3)])
    batch = source.batch([0, 1, 3], seeds(3))
    assert batch.labels.tolist() == [2, 2, 1]
    assert torch.equal(batch.data, expected([2, 2, 3]))
    lines = [line.split(", ")[-1] for line in batch.unreadable]
    assert lines == ["row 0: img is null", "row 1: label is null", "row 1: label is null"]
    missing = labelled(tmp_path, NAMES, [-1, 1])
    assert missing.batch([0], seeds(1)).labels.tolist() == [1]


@pytest.mark.parametrize("inside", [(), ("1.png",)])
@pytest.mark.parametrize("left", [".thumbnails", "@eaDir", "__MACOSX", ".ipynb_checkpoints"])
def test_folders_that_systems_leave_are_no_classes(left, inside, tmp_path):
    for name in ("0.png", *(f"{left}/{name}" for name in inside)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(picture(0)).save(tmp_path / name)
    source = ImageFolder(tmp_path, 8)
    assert (len(source), source.classes) == (1, [])


def test_images_beside_folders_of_classes_are_in_the_way(folder):
    Image.fromarray(picture(0)).save(folder / "loose.png")
    with pytest.raises(ValueError, match=r"holds 1 images, such as loose.png, beside the folders a, b\. Move"):
        ImageFolder(folder, 8)


def test_a_folder_without_an_image_is_no_class_and_said(folder):
    (folder / "0").mkdir()
    with pytest.warns(UserWarning, match="no class, as no image is in it: 0"):
        assert ImageFolder(folder, 8).classes == ["a", "b"]


# Fingerprints

OTHER = ["class 'b' has other examples, or in another order"]


def test_a_fingerprint_is_of_the_data_and_not_of_their_place(folder, tmp_path_factory):
    before = ImageFolder(folder, 8).fingerprint
    moved = tmp_path_factory.mktemp("elsewhere") / "moved"
    shutil.copytree(folder, moved)
    now = ImageFolder(moved, 16, flip=False).fingerprint
    assert json.loads(json.dumps(now)) == before
    assert changes(before, now) == []
    assert [(row["name"], row["count"]) for row in before["classes"]] == [("a", 3), ("b", 3)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: shutil.copytree(f / "a", f / "aa"), ["class 'aa' is new", "class 'b' was 1, is 2"]),
        (lambda f: shutil.rmtree(f / "a"), ["class 'a' is gone", "class 'b' was 1, is 0"]),
        (lambda f: shutil.copy(f / "a" / "0.png", f / "a" / "9.png"), ["class 'a' had 3 examples, has 4"]),
        (
            lambda f: (f / "b" / "0.png").rename(f / "b" / "9.png"),
            OTHER,
        ),
        (lambda f: (f / "b" / "0.png").write_bytes(b"x"), OTHER),
        (lambda f: (f / "notes").mkdir(), []),
    ],
)
@pytest.mark.filterwarnings("ignore:data. no class")
def test_what_changes_in_a_folder_is_named(change, said, folder):
    before = ImageFolder(folder, 8).fingerprint
    change(folder)
    assert changes(before, ImageFolder(folder, 8).fingerprint) == said


def test_what_changes_in_a_table_is_named(tmp_path):
    first = labelled(tmp_path, NAMES, [0, 1, 1]).fingerprint
    assert changes(first, labelled(tmp_path, NAMES, [0, 1, 1]).fingerprint) == []
    assert changes(first, labelled(tmp_path, NAMES, [0, 1, 2]).fingerprint) == [
        "class 'b' had 2 examples, has 1", "class 'c' had 0 examples, has 1"
    ]  # fmt: skip
    wider = [png(0), png(1), {"bytes": png(2)["bytes"] + b"0", "path": None}]
    assert changes(first, labelled(tmp_path, NAMES, [0, 1, 1], wider).fingerprint) == OTHER
    assert changes(Digits().fingerprint, Digits("heldout").fingerprint)[0] == "class '0' had 142 examples, has 36"


def test_without_classes_the_number_or_the_order_is_named():
    first = fingerprint([], [(0, "a"), (0, "b")])
    assert changes(first, fingerprint([], [(0, "a")])) == ["there were 2 examples, there are 1"]
    assert changes(first, fingerprint([], [(0, "b"), (0, "a")])) == ["the examples, or their order, are others"]


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match="must hold images, and has none"):
        ImageFolder(tmp_path, 8)


# The examples of each step


@pytest.mark.filterwarnings("ignore:data. no class")
def test_any_number_of_ranks_sees_the_same(folder, table):
    """Of workers too, as test_processes.py shows."""
    source = ImageFolder(folder, 8)
    order = ShuffledBatches(len(source), 4, seed=3)
    whole = list(Steps(source, order).read(0, 5))
    for ranks in (1, 2, 4):
        read = [list(Steps(source, order, rank, ranks).read(2, 5)) for rank in range(ranks)]
        for step, parts in enumerate(zip(*read, strict=True), start=2):
            assert torch.equal(torch.cat([part.data for part in parts]), whole[step].data)
            assert torch.equal(torch.cat([part.labels for part in parts]), whole[step].labels)
    with pytest.raises(ValueError, match=r"data\.batch_size must be a multiple of the 3 ranks, got 4"):
        Steps(source, order, 0, 3)
