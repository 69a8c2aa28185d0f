"""Figures against torchmetrics, closed forms, and loops over pairs of rows."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.image.kid import poly_mmd

from training import metrics
from training.metrics import Neighbourhoods, cmmd, inception_score, kid
from training.resampling import Statistic, estimate


@pytest.fixture(params=[1 << 24, 40], autouse=True)
def budget(request, monkeypatch):
    """All rows at once, and one or a few at a time."""
    monkeypatch.setattr(metrics, "BUDGET", request.param)


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def value(statistic: Statistic) -> float:
    return estimate(statistic, replicates=0).value


def repeated(rows, counts):
    return rows.repeat_interleave(counts.long(), 0)


# Inception score


def by_kl(probabilities):
    marginal = probabilities.mean(0)
    divergences = [sum(p * math.log(p / q) for p, q in zip(row, marginal, strict=True)) for row in probabilities]
    return math.exp(np.mean(divergences))


@pytest.mark.parametrize("splits", [1, 3])
def test_the_inception_score_is_that_of_its_definition(splits):
    p = normal(0, 20, 5).softmax(1)
    scores = [by_kl(p[i * 20 // splits : (i + 1) * 20 // splits].numpy()) for i in range(splits)]
    found = estimate(inception_score(p, splits=splits), replicates=0)
    assert found.value == pytest.approx(np.mean(scores), rel=1e-12)
    assert found.std == (None if splits == 1 else pytest.approx(np.std(scores), rel=1e-10))


def test_it_is_the_number_of_classes_at_most_and_one_at_least():
    assert value(inception_score(torch.eye(4).repeat(3, 1))) == pytest.approx(4)
    assert value(inception_score(torch.full((6, 4), 0.25))) == pytest.approx(1)


def test_its_rows_may_count_more_than_once():
    p, counts = normal(0, 4, 3).softmax(1), torch.tensor([[2.0, 0, 1, 3]], dtype=torch.float64)
    found = inception_score(p).values(counts)
    assert found.item() == pytest.approx(by_kl(repeated(p, counts[0]).numpy()), rel=1e-12)


@pytest.mark.parametrize("p", [torch.zeros(3, 4), torch.tensor([[1.5, -0.5]]), torch.ones(3)])
def test_what_are_no_probabilities_is_refused(p):
    with pytest.raises(ValueError, match=r"inception_score: probabilities must be .* logits.softmax\(1\)"):
        inception_score(p)


def test_no_more_parts_than_samples():
    with pytest.raises(ValueError, match="splits must be 1 to 3, the number of samples, got 10"):
        inception_score(torch.full((3, 4), 0.25), splits=10)


# Kernel distances


def test_a_block_of_kid_is_that_of_torchmetrics():
    x, y = normal(0, 30, 6), normal(1, 30, 6) + 0.3
    found = estimate(kid(x, y), replicates=0)
    assert found.value == pytest.approx(float(poly_mmd(y, x)), rel=1e-10)
    assert found.std is None


def pairs(x, y, kernel, own=True):
    """The mean of a kernel over pairs of rows, by a loop."""
    return np.mean([kernel(a, b) for (i, a), (j, b) in itertools.product(enumerate(x), enumerate(y)) if own or i != j])


def cubic(a, b):
    return (float(a @ b) / len(a) + 1) ** 3


@pytest.mark.parametrize("m", [8, 4])
def test_kid_of_several_blocks_is_the_mean_over_them(m):
    """Those of the reference come again where they are fewer."""
    x, y = normal(0, 8, 3), normal(1, m, 3)
    orders = [torch.randperm(n, generator=torch.Generator().manual_seed(0)) for n in (8, m)]
    blocks, others = (
        [rows[order[k : k + 4]] for k in range(0, len(rows), 4)] for rows, order in zip((x, y), orders, strict=True)
    )
    expected = [
        pairs(a, a, cubic, own=False) + pairs(b, b, cubic, own=False) - 2 * pairs(a, b, cubic)
        for a, b in zip(blocks, itertools.cycle(others), strict=False)
    ]
    found = estimate(kid(x, y, block_size=4), replicates=0)
    assert (found.value, found.std) == pytest.approx((np.mean(expected), np.std(expected)), rel=1e-10)


def test_each_row_is_in_one_block_of_kid():
    statistic = kid(normal(0, 13, 3), normal(1, 5, 3), block_size=4)
    each_left_out = torch.ones(13, 13, dtype=torch.float64) - torch.eye(13, dtype=torch.float64)
    found, whole = statistic.values(each_left_out), statistic.values(torch.ones(1, 13, dtype=torch.float64))
    assert whole.shape == (1, 3)
    assert ((found != whole).sum(1) == 1).all()


def test_kid_is_unbiased():
    """Of sets from one distribution it is 0 on average, while with pairs of a row with itself it would be 0.5."""
    values = [value(kid(normal(2 * i, 16, 3), normal(2 * i + 1, 16, 3))) for i in range(200)]
    assert abs(np.mean(values)) < 3 * np.std(values) / 200**0.5
    assert np.std(values) / 200**0.5 < 0.05


def test_a_row_drawn_twice_is_no_pair_of_its_own_in_kid():
    x, y, counts = normal(0, 5, 3), normal(1, 4, 3), torch.tensor([2, 0, 1, 3, 1], dtype=torch.float64)
    within = [
        (counts[i] * counts[j] * cubic(x[i], x[j]), counts[i] * counts[j])
        for i, j in itertools.permutations(range(5), 2)
    ]
    first = sum(k for k, _ in within) / sum(weight for _, weight in within)
    expected = first + pairs(y, y, cubic, own=False) - 2 * pairs(repeated(x, counts), y, cubic)
    assert kid(x, y).values(counts[None]).item() == pytest.approx(float(expected), rel=1e-10)


def gaussian(a, b):
    a, b = a / a.norm(), b / b.norm()
    return math.exp(-float((a - b) @ (a - b)) / (2 * 10**2))


@given(n=st.integers(1, 8), m=st.integers(1, 8))
def test_cmmd_is_that_of_its_definition(n, m):
    x, y = normal(n, n, 4) + 1, normal(m + 10, m, 4)
    expected = 1000 * (pairs(x, x, gaussian) + pairs(y, y, gaussian) - 2 * pairs(x, y, gaussian))
    assert value(cmmd(x, y)) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_cmmd_counts_a_row_drawn_twice_as_two():
    x, y, counts = normal(0, 5, 3), normal(1, 4, 3), torch.tensor([[2.0, 0, 1, 3, 1]])
    found = cmmd(x, y).values(counts.double())
    assert found.item() == pytest.approx(value(cmmd(repeated(x, counts[0]), y)), rel=1e-9)


# Neighbours


def by_loops(x, y, k=3, wide=5):
    """Precision, density, recall and coverage, word for word."""

    def far(a, b):
        return float((a - b).norm())

    def radius(rows, i, number):
        return sorted(far(rows[i], other) for j, other in enumerate(rows) if j != i)[number - 1]

    x_radii = [radius(x, i, k) for i in range(len(x))]
    y_radii, y_wide = ([radius(y, j, number) for j in range(len(y))] for number in (k, wide))
    precision = np.mean([any(far(a, b) <= r for b, r in zip(y, y_radii, strict=True)) for a in x])
    density = np.mean([sum(far(a, b) <= r for b, r in zip(y, y_wide, strict=True)) / wide for a in x])
    recall = np.mean([any(far(a, b) <= r for a, r in zip(x, x_radii, strict=True)) for b in y])
    coverage = np.mean([any(far(a, b) <= r for a in x) for b, r in zip(y, y_wide, strict=True)])
    return precision, density, recall, coverage


def all_of(x, y):
    found = Neighbourhoods(x, y)
    return *found.precision_and_density(), found.recall(), found.coverage()


@pytest.mark.parametrize(("n", "m", "shift"), [(20, 30, 0.5), (30, 12, 1.0), (6, 6, 0.0)])
def test_neighbours_are_found_as_by_loops(n, m, shift):
    x, y = 0.8 * normal(n, n, 3) + shift, normal(m + 50, m, 3)
    found = [value(statistic) for statistic in all_of(x, y)]
    assert found == pytest.approx(by_loops(x, y), abs=1e-12)
    assert len({*found}) > 1


def test_rows_that_are_left_out_are_neighbours_of_none():
    x, y = normal(0, 24, 3) + 1.2, normal(1, 40, 3)
    there = torch.ones(4, 24, dtype=torch.float64)
    for number, gone in enumerate(([], [0], [3, 4, 5, 6], list(range(0, 24, 3)))):
        there[number, gone] = 0
    found = Neighbourhoods(x, y)
    expected = [by_loops(x[each > 0], y)[2:] for each in there]
    for place, statistic in enumerate((found.recall(), found.coverage())):
        assert statistic.values(there)[:, 0].tolist() == pytest.approx([each[place] for each in expected], abs=1e-12)
    assert len({recall for recall, _ in expected}) > 1


def test_a_set_covers_itself():
    x = normal(0, 20, 3)
    precision, _, recall, coverage = (value(statistic) for statistic in all_of(x, x))
    assert (precision, recall, coverage) == (1, 1, 1)
    far = [value(statistic) for statistic in all_of(x + 100, x)]
    assert far == [0, 0, 0, 0]


@pytest.mark.parametrize(("of", "least"), [(kid, 2), (cmmd, 1), (Neighbourhoods, 6)])
def test_sets_that_cannot_be_compared_are_refused(of, least):
    with pytest.raises(ValueError, match=rf"reference must have shape \(N, d\), N at least {least}, got \({least - 1}"):
        of(torch.zeros(9, 3), torch.zeros(least - 1, 3))
    with pytest.raises(ValueError, match="widths must be equal, got 3 and 4"):
        of(torch.zeros(9, 3), torch.zeros(9, 4))
