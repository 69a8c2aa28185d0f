import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from training.data import ShuffledBatches, derived_seed, digits


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
