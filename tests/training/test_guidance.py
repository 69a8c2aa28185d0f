"""Guidance against closed forms: Gaussian classes, the official formula, the papers' formulas written by hand."""

import math

import pytest
import torch
from strategies import LIBRARY
from torch import nn

import interpolants as ip
from models import create_model
from training import Field
from training.guidance import Guidance

MEANS = torch.tensor([[1.0, -0.5, 2.0], [-1.5, 0.5, 0.0]], dtype=torch.float64)
STDS = torch.tensor([0.5, 0.8], dtype=torch.float64)
NULL = 2
Y = torch.tensor([0, 1, 1, 0, 1])
T = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], dtype=torch.float64)


def states(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def log_densities(x, t, path):
    """log p_t(x | class 0), log p_t(x | class 1), log p_t(x) for equally likely classes N(mean, std^2 I)."""
    variance = path.alpha(t)[:, None] ** 2 * STDS**2 + path.sigma(t)[:, None] ** 2
    distance = (x[:, None] - path.alpha(t)[:, None, None] * MEANS).square().sum(2)
    of_class = -distance / (2 * variance) - 1.5 * torch.log(2 * math.pi * variance)
    return of_class[:, 0], of_class[:, 1], torch.logsumexp(of_class, 1) - math.log(2)


def gradient(log_density, x):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(log_density(x).sum(), x)[0]


def from_noise(noise, x, t, path, target):
    """The target by hand from E[noise | x]."""
    a, s, da, ds = (
        c(t).reshape(-1, *[1] * (x.dim() - 1)) for c in (path.alpha, path.sigma, path.d_alpha, path.d_sigma)
    )
    data = (x - s * noise) / a
    return {"noise": noise, "data": data, "score": -noise / s, "velocity": da * data + ds * noise}[target]


def to_noise(value, x, t, path, source):
    """E[noise | x] by hand from any of the four."""
    a, s, da, ds = (
        c(t).reshape(-1, *[1] * (x.dim() - 1)) for c in (path.alpha, path.sigma, path.d_alpha, path.d_sigma)
    )
    velocity = (a * value - da * x) / (a * ds - da * s) if source == "velocity" else None
    return {"noise": value, "data": (x - a * value) / s, "score": -s * value, "velocity": velocity}[source]


class GaussianClasses:
    """An exact network for the two classes and, as the null class, for both together."""

    null_class = NULL

    def __init__(self, path, prediction):
        self.path, self.prediction = path, prediction

    def __call__(self, x, t, y):
        scores = torch.stack([gradient(lambda z, k=k: log_densities(z, t, self.path)[k], x) for k in range(3)])
        score = scores[y, torch.arange(len(x))]
        return from_noise(-self.path.sigma(t)[:, None] * score, x, t, self.path, self.prediction)


class Table:
    """A network that tells labels, elements and times apart, and keeps what it was asked."""

    def __init__(self, null_class=NULL, seed=0, size=4):
        self.null_class, self.values, self.calls = null_class, states(8, size, 3, seed=seed), []

    def __call__(self, x, t, y):
        self.calls.append((x, t, y))
        return self.at(x, t, y)

    def at(self, x, t, y):
        rows = self.values[y].flatten(1)[:, : x[0].numel()].reshape(x.shape)
        return (rows * (1 + t.reshape(-1, *[1] * (x.dim() - 1)))).to(x.dtype) + x / 2

    @property
    def batches(self):
        return [len(x) for x, _, _ in self.calls]


class Unlabelled:
    """x -> factor x."""

    def __init__(self, factor):
        self.factor, self.batches = factor, []

    def __call__(self, x, t, y=None):
        self.batches.append(len(x))
        return self.factor * x


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.name)
@pytest.mark.parametrize("prediction", ip.QUANTITIES)
def test_guided_quantities_are_those_of_the_tempered_density(path, prediction):
    """Guidance of any network, in any quantity: the score of p(x | y)^scale p(x)^(1 - scale), and what follows."""
    x, scale = 1.5 * states(5, 3), 2.5
    field = Field(GaussianClasses(path, prediction), path, prediction, guidance=Guidance(scale))

    def log_tempered(z):
        densities = torch.stack(log_densities(z, T, path))
        return scale * densities[Y, torch.arange(5)] + (1 - scale) * densities[NULL]

    noise = -path.sigma(T)[:, None] * gradient(log_tempered, x)
    for quantity in ip.QUANTITIES:
        expected = from_noise(noise, x, T, path, quantity)
        torch.testing.assert_close(field.quantity(quantity, x, T, Y), expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("prediction", ip.QUANTITIES)
@pytest.mark.parametrize("weak", [None, 0])
def test_on_another_path_guidance_is_that_of_its_densities(prediction, weak):
    """By the null class, or by a weak network, on the path of its training too, that answers for class 0."""
    x, scale, trained, path = 1.5 * states(5, 3), 2.5, ip.linear(), ip.gvp()
    exact = GaussianClasses(trained, prediction)
    guidance = Guidance(scale, weak=None if weak is None else lambda x, t, y: exact(x, t, torch.full_like(y, weak)))
    field = Field(exact, trained, prediction, guidance=guidance).on(path)

    def log_tempered(z):
        densities = torch.stack(log_densities(z, T, path))
        return scale * densities[Y, torch.arange(5)] + (1 - scale) * densities[NULL if weak is None else weak]

    noise = -path.sigma(T)[:, None] * gradient(log_tempered, x)
    for quantity in ip.QUANTITIES:
        expected = from_noise(noise, x, T, path, quantity)
        torch.testing.assert_close(field.quantity(quantity, x, T, Y), expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("scale", [1.5, 4.0, 0.0, -1.0])
def test_the_first_three_channels_are_guided_as_in_the_official_code(scale):
    """forward_with_cfg: eps, rest = out[:, :3], out[:, 3:]; half_eps = u + scale (c - u); the rest is each half's."""
    network, x = Table(), states(5, 4, 3)
    field = Field(network, ip.linear(), guidance=Guidance(scale, channels=3))
    out = torch.cat([network.at(x, T, Y), network.at(x, T, torch.full((5,), NULL))])
    cond, uncond = out[:5, :3], out[5:, :3]
    expected = torch.cat([uncond + scale * (cond - uncond), out[:5, 3:]], dim=1)
    assert torch.equal(field.predict(x, T, Y), expected)
    assert network.batches == [10]
    assert torch.equal(network.calls[0][0], torch.cat([x, x]))
    assert torch.equal(network.calls[0][1], torch.cat([T, T]))
    assert network.calls[0][2].tolist() == [*Y.tolist(), *[NULL] * 5]
    everything = Field(network, ip.linear(), guidance=Guidance(scale, channels=4)).predict(x, T, Y)
    assert torch.equal(everything, Field(network, ip.linear(), guidance_scale=scale).predict(x, T, Y))


def test_guidance_scale_is_short_for_a_guidance():
    network, x = Table(), states(5, 4, 3)
    short, long = (
        Field(network, ip.linear(), "noise", 1.5),
        Field(network, ip.linear(), "noise", guidance=Guidance(1.5)),
    )
    assert short.guidance == long.guidance == Guidance(scale=1.5)
    assert short.guidance_scale == long.guidance_scale == 1.5
    assert torch.equal(short.predict(x, 0.3, Y), long.predict(x, 0.3, Y))
    assert Field(network, ip.linear()).guidance == Guidance() == Guidance(1.0, None, None, None, None, 0.0, None)


@pytest.mark.parametrize("more", [{}, {"rescale": 0.7, "space": "data"}, {"channels": 2}, {"interval": (0.2, 0.8)}])
@pytest.mark.parametrize("weak", [None, Unlabelled(2.0)])
def test_scale_one_is_the_unguided_prediction_bit_for_bit(more, weak):
    network, x = Table(), states(5, 4, 3)
    field = Field(network, ip.linear(), guidance=Guidance(1.0, weak=weak, **more))
    assert torch.equal(field.predict(x, 0.3, Y), network.at(x, torch.full((5,), 0.3, dtype=torch.float64), Y))
    assert network.batches == [5]
    assert weak is None or weak.batches == []


@pytest.mark.parametrize("as_time", [float, torch.tensor, lambda t: torch.full((5,), t)])
@pytest.mark.parametrize(("t", "guided"), [(0.29, False), (0.3, True), (0.5, True), (0.7, True), (0.71, False)])
def test_outside_the_interval_no_weak_prediction_is_computed(as_time, t, guided):
    network, x = Table(), states(5, 4, 3)
    guidance, time = Guidance(2.0, interval=(0.3, 0.7)), as_time(t)
    value = Field(network, ip.linear(), guidance=guidance).predict(x, time, Y)
    assert network.batches == [10 if guided else 5]
    whole = Field(network, ip.linear(), guidance_scale=2.0 if guided else 1.0)
    assert torch.equal(value, whole.predict(x, time, Y))


def test_of_a_batch_of_times_only_the_samples_inside_are_guided():
    network, x, y = Table(), states(5, 4, 3), torch.tensor([0, 1, 3, 4, 5])
    negative = torch.tensor([3, 4, 5, 6, 7])
    t = torch.tensor([0.5, 0.1, 0.9, 0.7, 0.3])
    guidance = Guidance(2.0, interval=(0.3, 0.7), channels=3, y_negative=negative, rescale=0.5, space="data")
    value = Field(network, ip.linear(), guidance=guidance).predict(x, t, y)
    ((seen_x, seen_t, seen_y),) = network.calls
    assert torch.equal(seen_x, torch.cat([x, x[[0, 3, 4]]]))
    assert torch.equal(seen_t, torch.cat([t, t[[0, 3, 4]]]).double())
    assert seen_y.tolist() == [0, 1, 3, 4, 5, 3, 6, 7]
    for i in range(5):
        one = Guidance(2.0, interval=(0.3, 0.7), channels=3, y_negative=int(negative[i]), rescale=0.5, space="data")
        alone = Field(network, ip.linear(), guidance=one).predict(x[i : i + 1], t[i], y[i : i + 1])
        torch.testing.assert_close(value[i : i + 1], alone, rtol=1e-12, atol=1e-12)
    assert torch.equal(value[1:3], network.at(x, t.double(), y)[1:3])


def test_the_whole_interval_looks_at_no_time():
    """A time that must not be compared stands for one on an accelerator, which would be waited for."""

    class Unread(torch.Tensor):
        def __le__(self, other):
            raise AssertionError("a time was looked at")

        __ge__ = __le__

    x, t = states(5, 4, 3), torch.tensor(0.3).as_subclass(Unread)
    for interval in (None, (0.0, 1.0), (0, 1)):
        network = Table()
        Field(network, ip.linear(), guidance=Guidance(2.0, interval=interval)).predict(x, t, Y)
        assert network.batches == [10]
    with pytest.raises(AssertionError, match="looked at"):
        Field(Table(), ip.linear(), guidance=Guidance(2.0, interval=(0.0, 0.5))).predict(x, t, Y)


def rescaled_by_hand(c, g, x, t, path, prediction, space, phi):
    """Lin et al.: to the space, x_rescaled = x_cfg std(x_pos) / std(x_cfg), phi x_rescaled + (1 - phi) x_cfg, back."""
    if space == prediction:
        U, W = c, g
    else:
        U, W = (from_noise(to_noise(v, x, t, path, prediction), x, t, path, space) for v in (c, g))
    dims = tuple(range(1, x.dim()))
    W = phi * W * U.std(dims, keepdim=True) / W.std(dims, keepdim=True) + (1 - phi) * W
    return W if space == prediction else from_noise(to_noise(W, x, t, path, space), x, t, path, prediction)


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.name)
@pytest.mark.parametrize("prediction", ip.QUANTITIES)
@pytest.mark.parametrize("space", [None, *ip.QUANTITIES])
def test_rescale_is_the_papers_formula_in_its_space(path, prediction, space):
    network, x = Table(), states(5, 4, 3)
    c, u = network.at(x, T, Y), network.at(x, T, torch.full((5,), NULL))
    for phi, k in ((0.7, None), (1.0, 2)):
        field = Field(network, path, prediction, guidance=Guidance(3.0, rescale=phi, space=space, channels=k))
        strong, weak, state = (v[:, :k] for v in (c, u, x))
        guided = weak + 3.0 * (strong - weak)
        expected = rescaled_by_hand(strong, guided, state, T, path, prediction, space or prediction, phi)
        value = field.predict(x, T, Y)
        torch.testing.assert_close(value[:, :k], expected, rtol=1e-8, atol=1e-8)
        if k is not None:
            assert torch.equal(value[:, k:], c[:, k:])
        if k is None and path.name == "linear":
            alone = torch.cat([field.predict(x[i : i + 1], T[i], Y[i : i + 1]) for i in range(5)])
            torch.testing.assert_close(value, alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("space", "end"), [("noise", 0), ("score", 0), ("data", 1)])
def test_rescale_has_its_limit_where_the_way_back_has_a_pole(space, end):
    """From noise to velocity at t = 0, and from data at t = 1, a formula that converts back divides by zero."""
    network, x = Table(), states(5, 4, 3)
    field = Field(network, ip.linear(), guidance=Guidance(3.0, rescale=0.7, space=space))
    c, u = (network.at(x, torch.full((5,), float(end)), y) for y in (Y, torch.full((5,), NULL)))
    near = abs(end - 1e-6)
    t = torch.full((5,), near, dtype=torch.float64)
    expected = rescaled_by_hand(c, u + 3.0 * (c - u), x, t, ip.linear(), "velocity", space, 0.7)
    torch.testing.assert_close(field.predict(x, float(end), Y), expected, rtol=1e-4, atol=1e-4)
    single = field.predict(x.float(), near, Y)
    torch.testing.assert_close(single.double(), field.predict(x, near, Y), rtol=1e-5, atol=1e-5)


def test_a_prediction_without_deviation_is_not_rescaled():
    """A transformer whose last layer starts at zero predicts zero: no NaN comes of it, in value or gradient."""
    field = Field(Table(), ip.linear(), guidance=Guidance(3.0, rescale=0.7))
    field.model.values = torch.tensor([1.0, 2.0, 0.0])[:, None, None].expand(3, 4, 3)
    x = torch.zeros(5, 4, 3, requires_grad=True)
    value = field.predict(x, 0.0, Y)
    assert torch.equal(value, (3.0 * field.model.values[Y]).expand_as(x))
    (grad,) = torch.autograd.grad(value.sum(), x)
    assert bool(grad.isfinite().all())
    strong, weak = torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, 5.0]])
    assert Guidance(2.0, rescale=0.7).combine(strong, weak, strong).tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("space", ip.QUANTITIES)
def test_without_rescale_the_space_makes_no_difference_and_has_no_pole(space):
    network, x = Table(), states(5, 4, 3)
    for prediction in ip.QUANTITIES:
        plain = Field(network, ip.linear(), prediction, guidance_scale=2.0)
        field = Field(network, ip.linear(), prediction, guidance=Guidance(2.0, space=space, interval=(0.0, 1.0)))
        for t in (0.0, 0.4, 1.0):
            assert torch.equal(field.predict(x, t, Y), plain.predict(x, t, Y))


# A weak network


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.name)
@pytest.mark.parametrize("prediction", ip.QUANTITIES)
@pytest.mark.parametrize("of_weak", ip.QUANTITIES)
def test_autoguidance_leads_away_from_a_weak_network_with_the_same_label(path, prediction, of_weak):
    network, other, x = Table(None), Table(None, seed=1), states(5, 4, 3)
    field = Field(network, path, prediction, guidance=Guidance(2.0, weak=Field(other, path, of_weak)))
    t = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    strong, u = network.at(x, t, Y), other.at(x, t, Y)
    weak = from_noise(to_noise(u, x, t, path, of_weak), x, t, path, prediction)
    torch.testing.assert_close(field.predict(x, t, Y), weak + 2.0 * (strong - weak), rtol=1e-8, atol=1e-8)
    assert (network.batches, other.batches) == ([5], [5])
    assert other.calls[0][2].tolist() == Y.tolist()


def test_a_weak_network_predicts_what_the_strong_one_does():
    x = states(5, 4)
    strong, weak = Unlabelled(3.0), Unlabelled(2.0)
    field = Field(strong, ip.linear(), "noise", guidance=Guidance(1.5, weak=weak))
    torch.testing.assert_close(field.noise(x, 0.5), 3.5 * x)
    assert (strong.batches, weak.batches) == ([5], [5])
    field = Field(strong, ip.linear(), guidance=Guidance(1.5, weak=weak, channels=2, interval=(0.0, 0.6)))
    t = torch.tensor([0.1, 0.7, 0.2, 0.61, 0.6])
    expected = 3.0 * x
    expected[[0, 2, 4], :2] *= 3.5 / 3.0
    torch.testing.assert_close(field.predict(x, t), expected)
    assert weak.batches == [5, 3]
    field.predict(x, 0.61)
    assert weak.batches == [5, 3]


def test_a_weak_network_is_asked_for_the_guided_samples_alone():
    network, other, x, y = Table(), Table(seed=1), states(5, 4, 3), torch.tensor([0, 1, 3, 4, 5])
    field = Field(network, ip.linear(), guidance=Guidance(2.0, weak=other, interval=(0.3, 0.8)))
    strong, weak = network.at(x, T, y), other.at(x, T, y)
    expected = torch.where(torch.tensor([0, 1, 1, 1, 0]).bool()[:, None, None], 2.0 * strong - weak, strong)
    torch.testing.assert_close(field.predict(x, T, y), expected)
    assert torch.equal(field.predict(x, T / 10, y), network.at(x, T / 10, y))
    assert [c[2].tolist() for c in other.calls] == [[1, 3, 4]]


def test_a_weak_field_may_itself_be_guided():
    network, other, x = Table(), Table(seed=1), states(5, 4, 3)
    weak = Field(other, ip.linear(), guidance_scale=3.0)
    field = Field(network, ip.linear(), guidance=Guidance(2.0, weak=weak))
    u = weak.predict(x, 0.4, Y)
    torch.testing.assert_close(field.predict(x, 0.4, Y), u + 2.0 * (Field(network, ip.linear()).predict(x, 0.4, Y) - u))


def test_evaluation_mode_reaches_the_weak_network():
    class Network(nn.Linear):
        def forward(self, x, t):
            return super().forward(x)

    strong, weak = Network(2, 2), Network(2, 2)
    weak.eval()
    for given in (weak, Field(weak, ip.linear())):
        field = Field(strong, ip.linear(), guidance=Guidance(2.0, weak=given))
        weak.train()
        with field.evaluation_mode():
            assert not strong.training
            assert not weak.training
        assert strong.training
        assert weak.training


def test_no_weak_prediction_is_converted_at_a_pole():
    """From noise to data on the linear path, data = (x - (1 - t) noise) / t: guided from where 1 / t is 1,000."""
    strong, weak, x = Unlabelled(3.0), Unlabelled(2.0), states(5, 4)
    field = Field(strong, ip.linear(), "data", guidance=Guidance(2.0, weak=Field(weak, ip.linear(), "noise")))
    for t in (0.0, 0.00099):
        assert torch.equal(field.predict(x, t), 3.0 * x)
    assert weak.batches == []
    for t in (0.0011, 1.0):
        u = (x - (1 - t) * 2.0 * x) / t
        torch.testing.assert_close(field.predict(x, t), u + 2.0 * (3.0 * x - u))
    assert weak.batches == [5, 5]
    with pytest.raises(ValueError, match=r"guidance.interval must not contain t = 0, .* a pole, got \(0.0, 0.7\)"):
        Field(
            strong,
            ip.linear(),
            "data",
            guidance=Guidance(2.0, weak=Field(weak, ip.linear(), "noise"), interval=(0.0, 0.7)),
        )
    early = Guidance(2.0, weak=Field(weak, ip.linear(), "noise"), interval=(1e-5, 0.7))
    u = (x - (1 - 2e-5) * 2.0 * x) / 2e-5
    torch.testing.assert_close(Field(strong, ip.linear(), "data", guidance=early).predict(x, 2e-5), 6.0 * x - u)


def test_no_rescale_in_a_space_that_has_a_pole():
    """From data to noise on the linear path, noise = (x - t data) / (1 - t)."""
    network, x = Table(), states(5, 4, 3)
    for space in ("noise", "score"):
        field = Field(network, ip.linear(), "data", guidance=Guidance(2.0, rescale=0.5, space=space))
        network.calls.clear()
        for t in (0.0, 0.9989, 0.9991, 1.0):
            assert bool(field.predict(x, t, Y).isfinite().all())
        assert network.batches == [10, 10, 5, 5]
        with pytest.raises(ValueError, match=r"must not contain t = 1, .* got \(0.5, 1.0\). None stops short"):
            Field(
                network,
                ip.linear(),
                "data",
                guidance=Guidance(2.0, rescale=0.5, space=space, interval=(0.5, 1.0)),
            )


@pytest.mark.parametrize(("prediction", "space"), [("score", "noise"), ("noise", "score")])
def test_for_a_rescale_score_and_noise_are_one_space_without_a_pole(prediction, space):
    network, x = Table(), states(5, 4, 3)
    own = Field(network, ip.linear(), prediction, guidance=Guidance(2.0, rescale=0.5))
    field = Field(network, ip.linear(), prediction, guidance=Guidance(2.0, rescale=0.5, space=space))
    for t in (0.0, 0.4, 1.0):
        assert torch.equal(field.predict(x, t, Y), own.predict(x, t, Y))
    assert network.batches == [10] * 6


# Negative classes


@pytest.mark.parametrize("negative", [3, torch.tensor(3), torch.tensor([3, 4, 3, 5, 6])])
def test_a_negative_class_takes_the_place_of_the_null_class(negative):
    x = states(5, 4, 3)
    for null in (None, NULL):
        network = Table(null)
        value = Field(network, ip.linear(), guidance=Guidance(2.0, y_negative=negative)).predict(x, T, Y)
        c, u = network.at(x, T, Y), network.at(x, T, torch.as_tensor(negative).expand(5))
        assert torch.equal(value, u + 2.0 * (c - u))
        assert network.batches == [10]


def test_narrow_labels_hold_a_large_null_class():
    network, x = Table(), torch.zeros(2, 2)
    network.null_class, network.at = 1000, lambda x, t, y: y[:, None].to(x.dtype).expand_as(x)
    field = Field(network, ip.linear(), guidance_scale=2.0)
    assert field.predict(x, 0.5, torch.tensor([3, 7], dtype=torch.uint8))[:, 0].tolist() == [-994.0, -986.0]


def test_a_state_without_channels_is_guided():
    class Scalar(Table):
        def at(self, x, t, y):
            return y.to(x.dtype)

    field = Field(Scalar(), ip.linear(), guidance_scale=3.0)
    assert field.predict(torch.zeros(5), 0.5, Y).tolist() == [-4.0, -1.0, -1.0, -4.0, -1.0]
    for more in ({"channels": 1}, {"rescale": 0.1}):
        with pytest.raises(ValueError, match=r"x must have shape \(batch, C, \.\.\.\) .* got \(5,\)"):
            Field(Scalar(), ip.linear(), guidance=Guidance(3.0, **more)).predict(torch.zeros(5), 0.5, Y)


# Precision


def test_the_guided_prediction_is_formed_in_the_dtype_of_the_state():
    """0.001 (c - u) is lost in bfloat16, in which the network computes."""

    def network(x, t, y):
        assert (x.dtype, t.dtype) == (torch.bfloat16, torch.float32)
        return (y < NULL).to(x.dtype)[:, None].expand_as(x)

    network.null_class = NULL
    for weak in (None, lambda x, t, y: network(x, t, torch.full_like(y, NULL))):
        field = Field(network, ip.linear(), guidance=Guidance(1.001, weak=weak), dtype=torch.bfloat16)
        value = field.predict(torch.zeros(5, 2), 0.998, Y)
        torch.testing.assert_close(value, torch.full((5, 2), 1.001), rtol=1e-6, atol=0)


def test_gradients_flow_through_the_rows_that_are_guided():
    network = Table()
    x = states(5, 4, 3).requires_grad_()
    field = Field(network, ip.linear(), guidance=Guidance(2.0, interval=(0.2, 0.6)))
    (grad,) = torch.autograd.grad(field.predict(x, T, Y).sum(), x)
    torch.testing.assert_close(grad, torch.full_like(x, 0.5))


# Wrong input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": math.inf}, r"Guidance: scale must be finite, got inf. 1 is unguided"),
        ({"scale": math.nan}, r"Guidance: scale must be finite, got nan"),
        ({"channels": 0}, r"Guidance: channels must be an integer of at least 1, got 0. None guides all"),
        ({"channels": 1.5}, r"channels must be an integer of at least 1, got 1.5"),
        ({"channels": True}, r"channels must be an integer of at least 1, got True"),
        ({"interval": (-0.1, 0.5)}, r"Guidance: interval must be inside \[0, 1\] and not empty, got \(-0.1, 0.5\)"),
        ({"interval": (0.5, 1.1)}, r"interval must be inside"),
        ({"interval": (0.5, 0.5)}, r"interval must be inside"),
        ({"interval": (0.7, 0.3)}, r"interval must be inside"),
        ({"interval": (math.nan, 0.3)}, r"interval must be inside"),
        ({"rescale": -0.1}, r"Guidance: rescale must be in \[0, 1\], got -0.1. 0 is none"),
        ({"rescale": 1.1}, r"rescale must be in \[0, 1\], got 1.1"),
        ({"rescale": math.nan}, r"rescale must be in \[0, 1\], got nan"),
        ({"space": "eps"}, r"Guidance: space must be one of .* got 'eps'. Did you mean 'noise'"),
        ({"weak": Unlabelled(1.0), "y_negative": 0}, r"Guidance: y_negative must be None with a weak network, got 0"),
    ],
)
def test_wrong_guidance_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Guidance(**arguments)


def test_guidance_that_does_not_fit_the_field_is_refused():
    path, network, x = ip.linear(), Table(), states(5, 4, 3)
    with pytest.raises(ValueError, match=r"guidance_scale must be 1 where guidance is given, got 2.0. Set the scale"):
        Field(network, path, guidance_scale=2.0, guidance=Guidance(2.0))
    with pytest.raises(TypeError, match=r"guidance must be a Guidance, got 1.5. A number is guidance_scale"):
        Field(network, path, guidance=1.5)
    with pytest.raises(ValueError, match=r"guidance.scale must be 1 for a network without model\.null_class, got 2.0"):
        Field(Table(None), path, guidance=Guidance(2.0))
    with pytest.raises(ValueError, match=r"weak must be on the same path, Path\(linear: .*, got Path\(gvp: "):
        Field(network, path, guidance=Guidance(2.0, weak=Field(network, ip.gvp())))
    with pytest.raises(TypeError, match=r"guidance.weak must be a Field or a network, got str"):
        Field(network, path, guidance=Guidance(2.0, weak="small"))
    assert Field(network, path, guidance=Guidance(2.0, weak=Field(network, ip.Path("t", "1-t")))).guidance_scale == 2.0
    field = Field(network, path, guidance=Guidance(2.0, interval=(0.5, 0.7), channels=5))
    with pytest.raises(ValueError, match=r"channels must be at most those of the state, 4, got 5. None guides all"):
        field.predict(x, 0.0, Y)
    with pytest.raises(ValueError, match=r"y must be given where guidance_scale is not 1, got None"):
        Field(network, path, guidance=Guidance(2.0, interval=(0.5, 0.7))).predict(x, 0.0)
    with pytest.raises(ValueError, match=r"y must be given"):
        Field(network, path, guidance=Guidance(2.0, y_negative=3)).predict(x, 0.5)
    with pytest.raises(ValueError, match=r"y_negative must be a class or have the shape of y, \(5,\), got \(4,\)"):
        Field(network, path, guidance=Guidance(2.0, y_negative=torch.arange(4))).predict(x, 0.5, Y)
    weak = Guidance(2.0, weak=lambda x, t, y: x[:, :1])
    with pytest.raises(ValueError, match=r"must return the shape of x, \(5, 4, 3\), got \(5, 1, 3\)"):
        Field(network, path, guidance=weak).predict(x, 0.5, Y)
    assert network.batches == [5]


def test_a_vector_condition_is_guided_against_the_zero_vector():
    torch.manual_seed(0)
    model = create_model("SiT-T/2", input_size=4, in_channels=1, num_classes=0, condition_dim=3).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, y, t = torch.randn(2, 1, 4, 4), torch.randn(2, 3), torch.tensor([0.2, 0.7])
    with torch.no_grad():
        weak, strong = model(x, t, torch.zeros_like(y)), model(x, t, y)
        guided = Field(model, ip.linear(), guidance_scale=3.0).predict(x, t, y)
    torch.testing.assert_close(guided, weak + 3.0 * (strong - weak), rtol=1e-5, atol=1e-5)
    assert (strong - weak).abs().max() > 0.01
