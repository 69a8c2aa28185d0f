"""Laws of the embeddings, against closed forms in plain Python."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.embeddings import LabelEmbedding, PatchEmbedding, TimestepEmbedding, sincos_position_embedding


@given(quarter=st.integers(1, 12), height=st.integers(1, 5), width=st.integers(1, 5))
def test_position_embedding_is_the_closed_form(quarter: int, height: int, width: int) -> None:
    """Channels are [sin, cos] of the column, then [sin, cos] of the row; tokens run row by row."""
    table = sincos_position_embedding(4 * quarter, height, width)
    assert table.shape == (height * width, 4 * quarter)
    assert table.dtype == torch.float64
    for row in range(height):
        for column in range(width):
            expected = [
                wave(10_000 ** (-i / quarter) * position)
                for position in (column, row)
                for wave in (math.sin, math.cos)
                for i in range(quarter)
            ]
            assert table[row * width + column].tolist() == pytest.approx(expected, abs=1e-13)


def test_position_embedding_of_a_known_patch() -> None:
    """Row 0, column 1: the column's half has moved, the row's half still reads sin 0 = 0 and cos 0 = 1."""
    row_0_column_1 = sincos_position_embedding(8, 2, 3)[1]
    expected = [math.sin(1), math.sin(0.01), math.cos(1), math.cos(0.01), 0, 0, 1, 1]
    assert row_0_column_1.tolist() == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(("dim", "height", "width"), [(6, 2, 2), (0, 2, 2), (8, 0, 2), (8, 2, -1)])
def test_position_embedding_refuses_what_it_cannot_encode(dim: int, height: int, width: int) -> None:
    with pytest.raises(ValueError, match=r"^sincos_position_embedding: (dim|height and width) must be .*positive"):
        sincos_position_embedding(dim, height, width)


def sinusoids(embedding: TimestepEmbedding, t: torch.Tensor) -> torch.Tensor:
    """What the MLP is given."""
    seen: list[torch.Tensor] = []
    handle = embedding.mlp.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    embedding(t)
    handle.remove()
    return seen[0]


@given(time=st.floats(0, 1))
def test_time_sinusoids_are_the_closed_form_in_unscaled_time(time: float) -> None:
    embedding = TimestepEmbedding(8).double()
    angles = [time * math.exp(-math.log(1e4) * i / 128) for i in range(128)]
    expected = [math.cos(a) for a in angles] + [math.sin(a) for a in angles]
    assert sinusoids(embedding, torch.tensor([time], dtype=torch.float64))[0].tolist() == pytest.approx(
        expected, abs=1e-14
    )


def test_time_keeps_float32_until_the_mlp_when_the_weights_are_bfloat16() -> None:
    """Had t been rounded to bfloat16 first, the error would be 2^-9; rounding the result of each sinusoid is all."""
    t = torch.tensor([0.9385])  # Lies between the bfloat16 numbers 0.9375 and 0.94140625.
    exact = sinusoids(TimestepEmbedding(8).double(), t.double())
    rounded = sinusoids(TimestepEmbedding(8).bfloat16(), t)
    assert torch.equal(rounded, exact.bfloat16())


def test_patches_are_projected_row_by_row() -> None:
    """With weight one on the first pixel of the patch, token n is the top left pixel of patch n."""
    embedding = PatchEmbedding(patch_size=2, in_channels=1, hidden_size=1)
    embedding.reset_parameters()  # Zeroes the bias.
    with torch.no_grad():
        embedding.proj.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    image = torch.arange(24.0).view(1, 1, 4, 6)
    assert embedding(image)[0, :, 0].tolist() == [0, 2, 4, 12, 14, 16]


def test_labels_are_dropped_at_the_given_rate_in_training_and_never_in_evaluation() -> None:
    labels, rate = torch.arange(10).repeat(2000), 0.1
    embedding = LabelEmbedding(num_classes=10, hidden_size=1, class_dropout=rate)
    with torch.no_grad():
        embedding.embedding_table.weight.copy_(torch.arange(11.0)[:, None])  # The embedding tells its row.
    torch.manual_seed(0)
    rows = embedding(labels)[:, 0].long()
    dropped = rows != labels
    assert (rows[dropped] == 10).all()
    bound = 5 * math.sqrt(len(labels) * rate * (1 - rate))  # Five standard deviations of the binomial.
    assert abs(dropped.sum().item() - len(labels) * rate) < bound
    per_class = dropped.view(-1, 10).sum(0)
    assert (abs(per_class - 2000 * rate) < 5 * math.sqrt(2000 * rate * (1 - rate))).all()
    assert torch.equal(embedding.eval()(labels)[:, 0].long(), labels)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_a_narrow_integer_label_can_be_dropped_to_a_null_class_that_it_cannot_hold(dtype: torch.dtype) -> None:
    embedding = LabelEmbedding(num_classes=1000, hidden_size=4, class_dropout=1.0)
    dropped = embedding(torch.tensor([7, 200], dtype=torch.int16).to(dtype))
    assert torch.equal(dropped, embedding.embedding_table.weight[[1000, 1000]])
