"""A field gives every quantity of the mixture from a network that predicts any one of them, and guides it."""

import warnings

import pytest
import torch
from mixtures import exact_field, mixture
from strategies import LIBRARY

import interpolants as ip
from models import create_model
from training import Field, InterpolantLoss, encode, log_likelihood, sample_ode, sample_sde
from training.guidance import Guidance


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.name)
@pytest.mark.parametrize("prediction", ip.QUANTITIES)
def test_every_quantity_of_an_exact_network_is_the_mixtures(path, prediction):
    m, field = mixture(), exact_field(path, prediction)
    x = torch.randn(8, 2, dtype=torch.float64)
    t = torch.linspace(0.1, 0.9, 8, dtype=torch.float64)
    for quantity in ip.QUANTITIES:
        expected = getattr(m, quantity)(x, t, path)
        torch.testing.assert_close(getattr(field, quantity)(x, t), expected, rtol=1e-6, atol=1e-6)
        one = getattr(field, quantity)(x[:1], 0.1)
        torch.testing.assert_close(one, getattr(m, quantity)(x[:1], 0.1, path), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("trained", [ip.linear(), ip.vp(), ip.sub_vp()], ids=lambda p: p.name)
@pytest.mark.parametrize("sampled", LIBRARY, ids=lambda p: p.name)
@pytest.mark.parametrize("prediction", ip.QUANTITIES)
def test_on_another_path_an_exact_network_is_exact(trained, sampled, prediction):
    """At times whose SNR both paths have; the ends, which others than pure noise and data have, are not."""
    m, field = mixture(), exact_field(trained, prediction).on(sampled)
    assert field.path == sampled
    assert field.prediction in (prediction, "data")
    x, t = torch.randn(5, 2, dtype=torch.float64), torch.linspace(0.2, 0.9, 5, dtype=torch.float64)
    for quantity in ip.QUANTITIES:
        expected = getattr(m, quantity)(x, t, sampled)
        torch.testing.assert_close(field.quantity(quantity, x, t), expected, rtol=1e-6, atol=1e-6)
    for end in (0.0, 1.0):
        assert field.predict(x, end).isfinite().all()


@pytest.mark.parametrize(
    ("trained", "sampled", "predicted"),
    [(ip.linear(), ip.gvp(), "velocity"), (ip.linear(), ip.vp(), "data"), (ip.gvp(), ip.linear_vp(), "data")],
    ids=lambda value: str(getattr(value, "name", value)),
)
def test_a_velocity_that_has_a_pole_is_not_what_is_predicted_on_another_path(trained, sampled, predicted):
    assert exact_field(trained, "velocity").on(sampled).prediction == predicted


def test_on_another_path_the_network_is_the_same_one():
    """Its parameters, its mode, its null class and its dtype; but what it is written as is that of its training."""
    model = create_model("SiT-T/8", input_size=8, in_channels=1, num_classes=3).train()
    field = Field(model, ip.linear(), guidance_scale=2.0, dtype=torch.float64).on(ip.gvp())
    assert {id(p) for p in field.parameters()} == {id(p) for p in model.parameters()}
    with field.evaluation_mode():
        assert not any(module.training for module in model.modules())
    assert model.training
    assert field.guidance.scale == 2.0
    seen = []
    model.double().register_forward_hook(lambda _, inputs, __: seen.append((inputs[0].dtype, inputs[2].tolist())))
    assert field.velocity(torch.randn(1, 1, 8, 8), 0.3, 1).dtype == torch.float32
    assert seen == [(torch.float64, [1, 3])]
    with pytest.raises(TypeError, match="SiT"):
        field.save_pretrained("nowhere")
    with pytest.raises(ValueError, match=r"Field.on: path must have data at t = 1"):
        field.on(ip.gvp().in_paper_time())


class Labelled:
    """A network whose output tells its label: y, and -7 for the null class 10."""

    null_class = 10

    def __init__(self):
        self.batches = []

    def __call__(self, x, t, y):
        self.batches.append(len(x))
        return torch.where(y == 10, -7.0, y.to(x.dtype))[:, None].expand_as(x)


def test_guidance_extrapolates_from_the_null_class_in_one_call():
    network = Labelled()
    field = Field(network, ip.linear(), guidance_scale=1.5)
    x, y = torch.zeros(3, 2), torch.tensor([0, 4, 9])
    expected = torch.tensor([-7 + 1.5 * (c + 7) for c in (0.0, 4.0, 9.0)])
    torch.testing.assert_close(field.predict(x, 0.3, y)[:, 0], expected)
    assert network.batches == [6]


def test_guidance_of_scale_one_is_not_computed():
    network = Labelled()
    field = Field(network, ip.linear())
    assert field.predict(torch.zeros(3, 2), 0.3, torch.tensor([0, 4, 9]))[:, 0].tolist() == [0.0, 4.0, 9.0]
    assert network.batches == [3]


def test_guided_quantities_are_guided_conversions():
    """A conversion is affine in the prediction, so guiding before it and after it is the same."""
    path, x, y = ip.linear(), torch.randn(3, 2), torch.tensor([1, 2, 3])
    guided = Field(Labelled(), path, guidance_scale=2.0).score(x, 0.4, y)
    plain = Field(Labelled(), path)
    with_label, without = plain.score(x, 0.4, y), plain.score(x, 0.4, torch.full_like(y, 10))
    torch.testing.assert_close(guided, without + 2.0 * (with_label - without))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_time_may_be_a_number_a_scalar_or_one_for_each_sample(dtype):
    """The network sees one for each sample, in float32 at least, whatever the dtype of its state."""
    x, times = torch.ones(3, 2, dtype=dtype), []

    def network(x, t):
        times.append(t)
        return x * t[:, None].to(x.dtype)

    field = Field(network, ip.linear())
    values = [field.predict(x, t) for t in (0.998, torch.tensor(0.998), torch.full((3,), 0.998, dtype=torch.float64))]
    precise = torch.float64 if dtype == torch.float64 else torch.float32
    for value, time in zip(values, times, strict=True):
        assert (time.shape, time.dtype, value.dtype) == ((3,), precise, dtype)
        torch.testing.assert_close(time, torch.full((3,), 0.998, dtype=precise), rtol=1e-7, atol=0)
        torch.testing.assert_close(value, values[0], rtol=1e-7, atol=0)
    assert field.predict(x, 1).tolist() == x.tolist()


@pytest.mark.parametrize("state", [torch.float32, torch.float64])
@pytest.mark.parametrize("inside", [None, torch.bfloat16, torch.float32, torch.float64])
def test_a_network_computes_in_a_dtype_of_its_own(state, inside):
    def network(x, t):
        assert x.dtype == (inside or state)
        assert t.dtype == (torch.float64 if x.dtype == torch.float64 else torch.float32)
        return x + torch.tensor(2.0**-12, dtype=x.dtype)

    x = torch.full((3, 2), 1 + 2.0**-12, dtype=state)
    value = Field(network, ip.linear(), dtype=inside).predict(x, 0.5)
    assert value.dtype == state
    assert torch.equal(value, torch.full_like(x, 1.0 if inside == torch.bfloat16 else 1 + 2.0**-11))
    data = Field(network, ip.linear(), dtype=inside).data(x, 0.5)
    assert data.dtype == state
    torch.testing.assert_close(data, x + 0.5 * value)


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match=r"t must be a scalar or have shape \(batch,\) = \(3,\), got \(2,\)"):
        Field(lambda x, t: x, ip.linear()).predict(torch.zeros(3, 2), torch.zeros(2))
    with pytest.raises(TypeError, match=r"dtype must be floating point, got torch\.int64"):
        Field(lambda x, t: x, ip.linear(), dtype=torch.int64)
    with pytest.raises(
        ValueError, match=r"Field: prediction must be one of .* got 'velocty'\. Did you mean 'velocity'"
    ):
        Field(Labelled(), ip.linear(), "velocty")
    with pytest.raises(ValueError, match=r"guidance_scale must be 1 for a network without model\.null_class"):
        Field(lambda x, t: x, ip.linear(), guidance_scale=2.0)
    with pytest.raises(ValueError, match="y must be given"):
        Field(Labelled(), ip.linear(), guidance_scale=2.0).predict(torch.zeros(1, 2), 0.5)
    with pytest.raises(ValueError, match=r"must return the shape of x, \(4, 2\), got \(4, 1\)"):
        Field(lambda x, t: x[:, :1], ip.linear()).predict(torch.zeros(4, 2), 0.5)
    with pytest.raises(ValueError, match=r"alpha must be 1 at the data end.* got sqrt\(2\)"):
        Field(Labelled(), ip.Path("sqrt(2)*t", "sqrt(2)*(1-t)"))
    with pytest.raises(TypeError, match=r"path must be an interpolants\.Path, got str"):
        Field(Labelled(), "linear")
    with pytest.raises(ValueError, match="guidance_scale must be finite"):
        Field(Labelled(), ip.linear(), guidance_scale=float("nan"))
    with pytest.raises(ValueError, match="in the paper's time"):
        Field(Labelled(), ip.linear().in_paper_time())


@pytest.mark.parametrize("wrap", [torch.nn.DataParallel, torch.compile, lambda model: Wrapped(Wrapped(model))])
def test_a_wrapped_network_has_its_null_class(wrap):
    model = create_model("SiT-N/4", input_size=8, in_channels=1, num_classes=10)
    field, plain = (Field(network, ip.linear(), guidance_scale=2.0) for network in (wrap(model), model))
    assert field._negative == plain._negative == 10


class Wrapped(torch.nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, *arguments):
        return self.module(*arguments)


def test_guidance_by_a_null_class_that_was_not_trained_is_said():
    model = create_model("SiT-N/4", input_size=8, in_channels=1, num_classes=10, class_dropout=0.0)
    with pytest.warns(UserWarning, match="Field: guidance by a null class that was never trained"):
        Field(model, ip.linear(), guidance_scale=4.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Field(model, ip.linear())
        Field(model, ip.linear(), guidance=Guidance(scale=4.0, y_negative=3))
        Field(create_model("SiT-N/4", input_size=8, in_channels=1, num_classes=10), ip.linear(), guidance_scale=4.0)


def test_labels_may_be_a_list_or_one_for_all():
    torch.manual_seed(0)
    model = create_model("SiT-N/4", input_size=8, in_channels=1, num_classes=10).eval()
    for parameter in model.parameters():
        parameter.data.normal_(std=0.1)
    field, x = Field(model, ip.linear(), guidance_scale=2.0), torch.randn(2, 1, 8, 8)
    one, each = torch.tensor([3, 3]), torch.tensor([1, 4])
    calls = {
        "velocity": lambda y: field.velocity(x, 0.5, y),
        "ODE": lambda y: sample_ode(field, x, y=y, num_steps=2),
        "SDE": lambda y: sample_sde(field, x, y=y, num_steps=2, w="sigma", seed=0),
        "noise": lambda y: encode(field, x, y=y, num_steps=2, method="euler", rtol=1e-3),
        "likelihood": lambda y: log_likelihood(field, x, y=y, probes=1, method="euler", num_steps=2).nats,
        "loss": lambda y: InterpolantLoss(ip.linear())(model, x, y, noise=x, t=torch.tensor([0.2, 0.7])),
    }
    for name, call in calls.items():
        assert torch.equal(call([1, 4]), call(each)), name
        assert torch.equal(call(3), call(one)), name
    with pytest.raises(TypeError, match=r"y: labels must be integers, got \[0.5, 1\]"):
        field.velocity(x, 0.5, [0.5, 1])
    with pytest.raises(ValueError, match=r"y: must have one label a sample, 2, got 3"):
        sample_ode(field, x, y=[1, 2, 3])


def test_the_default_dtype_of_torch_changes_nothing():
    field, x = Field(lambda x, t: torch.sin(x) * t[:, None], ip.vp()), torch.randn(3, 2)
    calls = (
        lambda: field.score(x, 0.3), lambda: sample_ode(field, x, num_steps=3),
        lambda: sample_sde(field, x, w="sigma", num_steps=3, seed=0), lambda: ip.vp().alpha(0.3),
        lambda: log_likelihood(field, x, probes=2, method="euler", num_steps=3).nats,
    )  # fmt: skip
    before = [call() for call in calls]
    torch.set_default_dtype(torch.float64)
    try:
        after = [call() for call in calls]
    finally:
        torch.set_default_dtype(torch.float32)
    for first, second in zip(before, after, strict=True):
        assert getattr(first, "dtype", float) == getattr(second, "dtype", float)
        torch.testing.assert_close(first, second, rtol=0, atol=0)
