"""The distrax classes as objects: gradients, transformations, shapes, errors, composition."""

import functools
import itertools
import pickle
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import close

import relaxjax
from relaxjax import bernoulli, categorical, correlated, counts, gates, simplex, subsets, top_k

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its own, as it is imported
    distrax = pytest.importorskip("distrax", reason="needs the extra distrax")
    from tensorflow_probability.substrates.jax import distributions as tfd

    from relaxjax import distributions

KEY = jax.random.key(0)
thorough = functools.partial(pytest.param, marks=pytest.mark.thorough)
L = np.array([[0.3, -1.0, 2.0], [0.0, 0.5, -0.2]])
BITS = np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
INNER = np.array([[0.2, 0.7, 0.4], [0.9, 0.05, 0.5]])
SIMPLEX = np.array([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]])
ROWS, ENTRIES = np.array([0.6, 1.3]), np.array([[0.6, 0.7, 0.8], [1.1, 1.0, 0.9]])
TRIL = np.array([[1, 0, 0], [0.6, 0.8, 0], [0, -0.6, 0.8]])


class Case(NamedTuple):
    """A class beside the functions that it is a shell of, or a formula where there is none.

    Fields:
      build: **params -> the law.
      params: arrays in the batch shape, in the order of the law's leaves.
      sample: (key, **params) -> z.
      log_prob: (x, **params) -> its log-probability.
      x: values to evaluate log_prob at.
    """

    build: Callable
    params: dict[str, Any]
    sample: Callable
    log_prob: Callable
    x: np.ndarray


def logistic_normal_log_prob(x, mean, scale, temperature):
    """Dense: the log-ratios to the last class are Gaussian."""

    def one(x, mean, scale, temperature):
        r = jnp.log(x[:-1] / x[-1]) - (mean[:-1] - mean[-1]) / temperature
        covariance = (jnp.diag(scale[:-1] ** 2) + scale[-1] ** 2) / temperature**2
        value = -r @ jnp.linalg.inv(covariance) @ r - jnp.linalg.slogdet(2 * np.pi * covariance)[1]
        return value / 2 - jnp.sum(jnp.log(x))

    return jax.vmap(one)(x, mean, scale, temperature)


def smooth_log_prob(x, logits):
    q = jnp.sqrt(jax.nn.sigmoid(logits))
    return jnp.where(x > 0, jnp.log(q), jnp.log(1 - q))


def set_log_prob(x, logits, temperature):
    """Every order of the set; NaN for a relaxed value."""
    orders = np.array(list(itertools.permutations(range(3), 2)))
    each = lambda order: top_k.log_prob(jnp.broadcast_to(order, (2, 2)), logits)
    log_p = jax.vmap(each)(orders)
    hot = np.array([np.isin(range(3), order) for order in orders])
    of_x = jnp.all(hot[:, None] == (x > 0.5)[None], axis=-1)
    value = jax.nn.logsumexp(jnp.where(of_x, log_p, -jnp.inf), axis=0)
    return jnp.where(jnp.all((x == 0) | (x == 1), axis=-1), value, jnp.nan)


def value_log_prob(x, log_probs, values, temperature):
    log_p = jnp.sum(jnp.where(values == x[:, None], jax.nn.log_softmax(log_probs), 0), axis=-1)
    return jnp.where(jnp.any(values == x[:, None], axis=-1), log_p, jnp.nan)


def stretched(function):
    return lambda x, logits, temperature, low, high: function(
        x, logits, temperature=temperature, stretch=(low, high)
    )


D = distributions
K = {"k": 2}
CASES = {
    "RelaxedBernoulli": Case(
        D.RelaxedBernoulli,
        {"logits": L, "temperature": ENTRIES},
        bernoulli.concrete,
        bernoulli.concrete_log_prob,
        INNER,
    ),
    "StraightThroughBernoulli": Case(
        functools.partial(D.StraightThroughBernoulli, estimator="concrete"),
        {"logits": L, "temperature": ENTRIES},
        bernoulli.straight_through_concrete,
        lambda x, logits, temperature: bernoulli.log_prob(x, logits),
        BITS,
    ),
    "GaussianRelaxedBernoulli": Case(
        D.GaussianRelaxedBernoulli,
        {"mean": L, "scale": ENTRIES},
        gates.gaussian,
        gates.gaussian_log_prob,
        np.where(BITS == 1, 1, INNER),
    ),
    "CorrelatedRelaxedBernoulli": Case(
        D.CorrelatedRelaxedBernoulli,
        {"logits": L, "temperature": ROWS, "correlation_tril": jnp.array(TRIL)},
        correlated.concrete,
        correlated.concrete_log_prob,
        INNER,
    ),
    "HardConcrete": Case(
        lambda logits, temperature, low, high: D.HardConcrete(
            logits, temperature=temperature, stretch=(low, high)
        ),
        {"logits": L, "temperature": ENTRIES, "low": -ENTRIES, "high": 1 + ENTRIES},
        stretched(gates.hard_concrete),
        stretched(gates.hard_concrete_log_prob),
        np.where(BITS == 1, 0, INNER),
    ),
    "StochasticTimesSmooth": Case(
        D.StochasticTimesSmooth,
        {"logits": L},
        bernoulli.stochastic_times_smooth,
        smooth_log_prob,
        BITS * np.sqrt(1 / (1 + np.exp(-L))),
    ),
    "RelaxedOneHotCategorical": Case(
        D.RelaxedOneHotCategorical,
        {"logits": L, "temperature": ROWS},
        categorical.gumbel_softmax,
        categorical.gumbel_softmax_log_prob,
        SIMPLEX,
    ),
    "StraightThroughOneHotCategorical": Case(
        functools.partial(D.StraightThroughOneHotCategorical, estimator="decoupled"),
        {"logits": L, "forward_temperature": ROWS, "backward_temperature": 2 * ROWS},
        categorical.decoupled_straight_through,
        lambda x, logits, forward_temperature, backward_temperature: categorical.log_prob(
            x, logits / forward_temperature[:, None]
        ),
        np.eye(3)[:2],
    ),
    "InvertibleGaussian": Case(
        D.InvertibleGaussian,
        {"mean": L[:, :2], "scale": ENTRIES[:, :2], "temperature": ROWS, "offset": 2 * ROWS},
        simplex.invertible_gaussian,
        simplex.invertible_gaussian_log_prob,
        SIMPLEX,
    ),
    "LogisticNormal": Case(
        D.LogisticNormal,
        {"mean": L, "scale": ENTRIES, "temperature": ROWS},
        simplex.logistic_normal,
        logistic_normal_log_prob,
        SIMPLEX,
    ),
    "GumbelSoftmaxTopK": Case(
        functools.partial(D.GumbelSoftmaxTopK, **K),
        {"logits": L, "temperature": ROWS},
        functools.partial(top_k.relaxed, **K),
        set_log_prob,
        np.array([[1.0, 0, 1], [0, 1, 1]]),
    ),
    "PlackettLuce": Case(
        functools.partial(D.PlackettLuce, **K),
        {"logits": L},
        functools.partial(top_k.sample, **K),
        top_k.log_prob,
        np.array([[0, 2], [1, 0]]),
    ),
    "Subset": Case(
        functools.partial(D.Subset, **K),
        {"logits": L},
        functools.partial(subsets.zgr, **K),
        functools.partial(subsets.log_prob, **K),
        np.array([[1.0, 0, 1], [0, 1, 1]]),
    ),
    "GeneralizedGumbelSoftmax": Case(
        D.GeneralizedGumbelSoftmax,
        {"log_probs": L, "values": SIMPLEX, "temperature": ROWS},
        counts.generalized_gumbel_softmax,
        value_log_prob,
        SIMPLEX[:, 1],
    ),
}
every_class = pytest.mark.parametrize("name", CASES)


def law_of(name):
    return CASES[name].build(**CASES[name].params)


def sampled(case, key, params):
    try:
        return case.sample(key, **params)
    except TypeError:  # the parameters of `stretched` are positional
        return case.sample(key, *params.values())


@pytest.mark.once
def test_every_class_is_here():
    assert set(CASES) == set(D.__all__) and all(vars(D)[name].__doc__ for name in CASES)
    assert all(getattr(D, name).__module__ == D.__name__ for name in D.__all__)


# ------------------------------------------------------- what a class and its functions compute

KEYS = jax.random.split(KEY, 2)


class Computed(NamedTuple):
    """Of a class, what an instance and a function of its parameters compute.

    Fields:
      z: a sample.
      log_prob: of the case's x.
      own_z, own_log_prob: of sample_and_log_prob; for the function, of z.
      slopes: the derivatives of a weighted sum of each: of z, log_prob, and the last two together.
    """

    z: jax.Array
    log_prob: jax.Array
    own_z: jax.Array
    own_log_prob: jax.Array
    slopes: Any


class Transformed(NamedTuple):
    """What transformations make of an instance.

    Fields:
      same, carry, mapped: the instance through jit, the carry of a scan, and tree_map.
      instances: the draws, one with each of KEYS, by a vmap over the instance in each step of the
        scan.
      rows: the instance, built by a vmap over parameters.
      row: the draw with KEYS[1] of the second row of the instance, sliced.
    """

    same: Any
    carry: Any
    mapped: Any
    instances: jax.Array
    rows: Any
    row: jax.Array


@functools.cache
def computed(name):
    """(of the class, of the functions, transformed), by one program."""
    case, law = CASES[name], law_of(name)
    rng = np.random.default_rng(1)
    a = rng.normal(size=law.batch_shape + law.event_shape)
    b = rng.normal(size=law.batch_shape)

    def ours(law):
        return law.sample(seed=KEY), law.log_prob(case.x), *law.sample_and_log_prob(seed=KEY)

    def theirs(params):
        z = sampled(case, KEY, params)
        return z, case.log_prob(case.x, **params), z, case.log_prob(z, **params)

    def with_slopes(values):
        def losses(argument):
            z, log_p, own_z, own_log_p = found = values(argument)
            weigh = lambda x, weights: jnp.sum(x.astype(jnp.float64) * weights)
            known = jnp.where(jnp.isnan(own_log_p), 0, own_log_p)
            return jnp.stack([weigh(z, a), weigh(log_p, b), weigh(own_z, a) + weigh(known, b)]), (
                found
            )

        return lambda argument: jax.jacrev(losses, has_aux=True)(argument)

    axes = {n: None if n == "correlation_tril" else 0 for n in case.params}
    in_axes = jax.tree.unflatten(jax.tree.structure(law), list(axes.values()))

    def step(law, keys):
        draws = jax.vmap(lambda law, key: law.sample(seed=key), (in_axes, 0))(law, keys)
        return jax.tree.map(lambda x: x * 1, law), draws

    @jax.jit
    def program(law, params):
        both = [
            (*found, slopes)
            for slopes, found in (with_slopes(ours)(law), with_slopes(theirs)(params))
        ]
        carry, instances = jax.lax.scan(step, law, jnp.stack([KEYS, KEYS]))
        rows = jax.vmap(lambda params: case.build(**params), (axes,))(params)
        row = law[1].sample(seed=KEYS[1])
        mapped = jax.tree.map(lambda x: x, law)
        return *both, (law, carry, mapped, instances, rows, row)

    one, other, transformed = program(law, case.params)
    return Computed(*one), Computed(*other), Transformed(*transformed)


@every_class
def test_a_class_computes_what_its_functions_do(name):
    """A sample to the bit, and also that of sample_and_log_prob; its density against log_prob at
    the sample, from which it never computes; the gradients of all of them."""
    law, params = law_of(name), CASES[name].params
    ours, theirs, _ = computed(name)
    assert np.array_equal(ours.z, theirs.z) and np.array_equal(ours.own_z, ours.z)
    close(ours.log_prob, theirs.log_prob, rtol=1e-9, atol=1e-11)
    close(ours.own_log_prob, theirs.own_log_prob, rtol=1e-9, atol=1e-11)
    assert type(ours.slopes) is type(law) and np.any(ours.slopes._first)
    for leaf, parameter in zip(jax.tree.leaves(ours.slopes), params, strict=True):
        close(leaf, theirs.slopes[parameter], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    "law, estimator",
    [
        (law, estimator)
        for law in (D.StraightThroughBernoulli, D.StraightThroughOneHotCategorical)
        for estimator in law._estimators
    ],
)
def test_estimators(law, estimator):
    """`concrete` is short for straight_through_concrete, and so on; draws to the bit."""
    module = bernoulli if law is D.StraightThroughBernoulli else categorical
    short = {
        "concrete": "straight_through_concrete",
        "gumbel_softmax": "straight_through_gumbel_softmax",
        "decoupled": "decoupled_straight_through",
        "gapped": "gapped_straight_through",
    }
    function = getattr(module, short.get(estimator, estimator))
    # Another temperature than the default, where there is one.
    given = {n: 0.3 for n in function.__kwdefaults__ if n == "temperature"}

    def value_and_grad(draw):
        f = lambda l: (jnp.sum(jnp.sin(2 * draw(l) + INNER)), draw(l))
        return jax.value_and_grad(f, has_aux=True)

    @jax.jit
    def both(l):
        ours = value_and_grad(lambda l: law(l, estimator=estimator, **given).sample(seed=KEY))
        return ours(l), value_and_grad(lambda l: function(KEY, l, **given))(l)

    ((_, z), gradient), ((_, expected), of_function) = both(L)
    assert np.array_equal(z, expected) and np.any(gradient)
    close(gradient, of_function, rtol=1e-12, atol=1e-14)
    defaults = vars(law(L, estimator=estimator))
    assert all(np.all(defaults[n] == x) for n, x in function.__kwdefaults__.items() if n != "shape")


# ----------------------------------------------------------------------------- transformations


@every_class
def test_an_instance_is_a_pytree(name):
    """jit, tree_map, eval_shape, pickle, and a scan's carry give the same law."""
    case, law = CASES[name], law_of(name)
    (z, *_), _, transformed = computed(name)
    copies = transformed.same, transformed.carry, transformed.mapped
    for copy in (*copies, pickle.loads(pickle.dumps(law))):
        assert type(copy) is type(law) and jax.tree.structure(copy) == jax.tree.structure(law)
        assert vars(copy).keys() == vars(law).keys()
        assert all(np.array_equal(vars(copy)[n], vars(law)[n]) for n in vars(law))
    many = law.sample(seed=KEY, sample_shape=99)
    assert np.all(np.std(many, axis=0) > 0)  # each of them is a draw of its own
    assert jax.tree.leaves(jax.tree.map(lambda _: 0, law)) == [0] * len(case.params)

    spec = jax.eval_shape(lambda params: case.build(**params), case.params)
    assert type(spec) is type(law) and jax.tree.structure(spec) == jax.tree.structure(law)
    out, log_p = jax.eval_shape(lambda law: law.sample_and_log_prob(seed=KEY), spec)
    assert (out.shape, out.dtype) == (z.shape, law.dtype) and log_p.shape == law.batch_shape
    assert spec.batch_shape == law.batch_shape and spec.event_shape == law.event_shape


@every_class
def test_vmap_over_parameters_and_instances(name):
    """One instance of a batch of two is a vmap of two instances, whose parameters are scalars."""
    law, found = law_of(name), computed(name)[2]
    rows = found.rows
    for n, x in vars(law).items():
        x = np.stack([x, x]) if n == "correlation_tril" else x
        assert np.array_equal(vars(rows)[n], x)
    assert rows.batch_shape == law.batch_shape and rows.event_shape == law.event_shape
    for draws in found.instances:
        close(draws[1], found.row, rtol=1e-10)
        assert not np.array_equal(draws[0], draws[1])


@pytest.mark.parametrize("name", ["RelaxedBernoulli", "GumbelSoftmaxTopK", "LogisticNormal"])
def test_a_hundred_temperatures_compile_once(name):
    case, traces = CASES[name], []

    @jax.jit
    def whole(law):
        traces.append("an instance")
        return law.sample(seed=KEY)

    @jax.jit
    def inside(temperature):
        traces.append("a temperature")
        return case.build(**case.params | {"temperature": temperature}).sample(seed=KEY)

    for temperature in np.geomspace(0.1, 2, 100):
        whole(case.build(**case.params | {"temperature": float(temperature)}))
        inside(temperature)
    assert traces == ["an instance", "a temperature"]


# -------------------------------------------------------------------------------------- shapes


@pytest.mark.once
@every_class
@pytest.mark.parametrize(
    "sample_shape, expected",
    [
        ((), ()),
        (1, (1,)),
        thorough(np.int16(2), (2,)),
        thorough([2], (2,)),
        ((np.int32(2),), (2,)),
        ((4, 5), (4, 5)),
    ],
)
def test_sample_shapes(name, sample_shape, expected):
    """distrax's published expectations: sample_shape + batch_shape + event_shape."""
    law = law_of(name)
    draw = lambda law: law.sample_and_log_prob(seed=KEY, sample_shape=sample_shape)
    z, log_p = jax.eval_shape(draw, law)
    assert z.shape == expected + law.batch_shape + law.event_shape and z.dtype == law.dtype
    assert log_p.shape == expected + law.batch_shape
    again = jax.eval_shape(lambda law, z: law.log_prob(z), law, z)
    assert again.shape == log_p.shape and again.dtype == law._first.dtype


@pytest.mark.once
@every_class
@pytest.mark.parametrize("index", [1, slice(-1), (slice(None),), Ellipsis, np.array([1, 0, -1])])
def test_slicing(name, index):
    """As NumPy slices the parameters by their batch axes."""
    law = law_of(name)
    sliced = law[index]
    assert type(sliced) is type(law) and sliced.event_shape == law.event_shape
    for n, x in vars(law).items():
        expected = np.asarray(x)[index] if hasattr(x, "shape") and n != "correlation_tril" else x
        assert np.array_equal(vars(sliced)[n], expected)
    assert sliced.batch_shape == sliced._first.shape[: len(sliced.batch_shape)]
    with pytest.raises(IndexError):
        law[2, 0, 0, 0]


@pytest.mark.once
@pytest.mark.parametrize(
    "logits, temperature",
    [((), ()), ((3,), ()), ((), (3,)), ((2, 3), (3,)), ((2, 1), (4, 1, 3)), ((0,), ())],
)
def test_broadcasting_is_tfps(logits, temperature):
    """Oracle: the shapes of TFP's RelaxedBernoulli and RelaxedOneHotCategorical."""
    logits, temperature = np.zeros(logits), np.ones(temperature)
    law, twin = D.RelaxedBernoulli(logits, temperature=temperature), tfd.RelaxedBernoulli
    twin = twin(temperature, logits=logits)
    assert law.batch_shape == tuple(twin.batch_shape) == law.temperature.shape
    assert law.event_shape == tuple(twin.event_shape)
    logits = np.zeros((*logits.shape, 5))
    law = D.RelaxedOneHotCategorical(logits, temperature=temperature)
    twin = tfd.RelaxedOneHotCategorical(temperature, logits=logits)
    assert law.batch_shape == tuple(twin.batch_shape) and law.event_shape == (5,)
    z = jax.eval_shape(lambda law: law.sample(seed=KEY, sample_shape=2), law)
    assert z.shape == (2, *law.batch_shape, 5)


def test_scale_by_entry_or_by_row():
    """By rank, as in the functions."""
    mean = np.zeros((2, 3))
    for scale, row in ((0.5, [0.5] * 3), ([0.5, 0.7], [0.5] * 3), (ENTRIES, ENTRIES[0])):
        for law in (D.InvertibleGaussian(mean, scale=scale), D.LogisticNormal(mean, scale=scale)):
            assert law.scale.shape == (2, 3) and np.array_equal(law.scale[0], row)
    assert D.LogisticNormal(mean[0], scale=ENTRIES).batch_shape == (2,)


@every_class
def test_dtypes_are_those_of_the_first_parameter(name):
    """Of samples and densities; hyperparameters are kept wide."""
    case, (first, *others) = CASES[name], CASES[name].params
    law = case.build(**case.params | {first: jnp.asarray(case.params[first], jnp.bfloat16)})
    z, log_p = jax.eval_shape(lambda law: law.sample_and_log_prob(seed=KEY), law)
    assert law._first.dtype == log_p.dtype == jnp.bfloat16
    assert z.dtype == law.dtype == (jnp.int32 if name == "PlackettLuce" else jnp.bfloat16)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(law)[1:]) and len(others) < 4


def test_a_narrow_sample_is_that_of_sample_and_log_prob():
    law = D.RelaxedBernoulli(jnp.zeros(3, jnp.bfloat16), temperature=0.1)
    draws = jax.jit(lambda law: (law.sample(seed=KEY), law.sample_and_log_prob(seed=KEY)[0]))
    assert np.array_equal(*draws(law))


# ---------------------------------------------------------------------------------- bad input


@pytest.mark.once
@pytest.mark.parametrize(
    "name, arguments, message, kind",
    [
        (
            "RelaxedBernoulli",
            {"temperature": np.ones(4)},
            "temperature: got shape (4,)",
            ValueError,
        ),
        ("RelaxedBernoulli", {"temperature": -1.0}, "temperature: got -1.0", ValueError),
        ("RelaxedBernoulli", {"temperature": None}, "temperature: got None", TypeError),
        (
            "CorrelatedRelaxedBernoulli",
            {"correlation_tril": np.eye(2)},
            "correlation_tril: got",
            ValueError,
        ),
        ("HardConcrete", {"stretch": 0.5}, "stretch: got 0.5", TypeError),
        ("HardConcrete", {"stretch": (-0.1, 0.9)}, "stretch: got 0.9", ValueError),
        ("HardConcrete", {"stretch": (-np.ones(4), 2.0)}, "stretch: got shape (4,)", ValueError),
        ("GaussianRelaxedBernoulli", {"scale": 0}, "scale: got 0", ValueError),
        (
            "StraightThroughBernoulli",
            {"estimator": "reinmax"},
            "estimator: got 'reinmax', need",
            ValueError,
        ),
        (
            "StraightThroughBernoulli",
            {"estimator": "zgr", "temperature": 1.0},
            "temperature: ",
            TypeError,
        ),
        (
            "StraightThroughBernoulli",
            {"estimator": "gumbel_rao", "num_noise": 0},
            "num_noise: got",
            ValueError,
        ),
        (
            "StraightThroughOneHotCategorical",
            {"estimator": ["zgr"]},
            "estimator: got ['zgr']",
            TypeError,
        ),
        (
            "StraightThroughOneHotCategorical",
            {"estimator": "gapped", "gap": -1},
            "gap: got -1",
            ValueError,
        ),
        ("InvertibleGaussian", {"scale": np.ones((2, 2))}, "scale: got shape (2, 2)", ValueError),
        ("InvertibleGaussian", {"offset": np.ones((2, 3))}, "offset: got shape (2, 3)", ValueError),
        ("LogisticNormal", {"temperature": 0.0}, "temperature: got 0.0", ValueError),
        ("GumbelSoftmaxTopK", {"k": 4}, "k: got 4", ValueError),
        ("PlackettLuce", {"k": 1.5}, "k: got 1.5", TypeError),
        ("Subset", {"k": 0}, "k: got 0", ValueError),
        ("GeneralizedGumbelSoftmax", {"values": np.ones(4)}, "values: got shape (4,)", ValueError),
        ("GeneralizedGumbelSoftmax", {"values": 1.0}, "values: got", ValueError),
    ],
)
def test_errors_name_class_and_argument(name, arguments, message, kind):
    """ValueError for a wrong value or shape, TypeError for a wrong type."""
    build = lambda first: getattr(D, name)(first, **arguments)
    for trace in (build, functools.partial(jax.eval_shape, build)):
        with pytest.raises(kind, match="^" + re.escape(f"{name}: {message}")) as error:
            trace(jnp.array(L))
        assert error.type is kind


@pytest.mark.once
@every_class
def test_a_missing_or_wrong_parameter(name):
    """The first one, the others without a default, and one that no class has."""
    law, first = getattr(D, name), list(CASES[name].params)[0]
    missing = {
        "CorrelatedRelaxedBernoulli": "correlation_tril",
        "GeneralizedGumbelSoftmax": "values",
    } | dict.fromkeys(["GumbelSoftmaxTopK", "PlackettLuce", "Subset"], "k")
    more = {"CorrelatedRelaxedBernoulli": (TRIL,), "GeneralizedGumbelSoftmax": (ROWS,)}
    more = more.get(name, (2,) * (name in missing))
    with pytest.raises(TypeError, match=rf"{name}.*\b{first}\b"):
        law()
    if name in missing:
        with pytest.raises(TypeError, match=rf"{name}.*\b{missing[name]}\b"):
            law(L)
    for bad in (None, "half", np.arange(6).reshape(2, 3)):
        with pytest.raises(TypeError, match=f"^{name}: {first}: got"):
            law(bad, *more)
    with pytest.raises(TypeError, match=f"{name}.*probs"):
        law(L, *more, probs=L)


@pytest.mark.once
@pytest.mark.parametrize("law", [D.GumbelSoftmaxTopK, D.PlackettLuce, D.Subset])
def test_k_is_static(law):
    with pytest.raises(TypeError, match=f"^{law.__name__}: k: got .*, need a static integer"):
        jax.jit(lambda k: law(L, k).sample(seed=KEY))(2)


def test_a_bad_traced_value_is_nan():
    @jax.jit
    def computed(law, other):
        return law.sample(seed=KEY), law.log_prob(INNER), other.sample(seed=KEY)

    law = D.RelaxedBernoulli(L, temperature=jnp.array(-1.0))
    for x in computed(law, D.CorrelatedRelaxedBernoulli(L, 2 * jnp.array(TRIL))):
        assert np.all(np.isnan(x))


@pytest.mark.once
def test_without_distrax():
    """In an interpreter of its own: relaxjax does not import distrax, and says what does."""
    program = """
import sys
sys.modules["distrax"] = None
import relaxjax
try:
    import relaxjax.distributions
except ImportError as error:
    print(error)
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout == "relaxjax.distributions needs distrax: pip install 'relaxjax[distrax]'\n"
    assert "distributions" not in relaxjax.__all__
