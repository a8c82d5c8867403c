"""Relaxed counts and values, against closed forms, enumeration and their laws."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import SIGNIFICANCE, central, close, of_noise, pullback, with_slopes
from scipy import stats
from scipy.special import expit, gammaln, log_softmax, logit, softmax

from relaxjax import counts

KEY = jax.random.key(0)
HALF = np.float64(0.5)
POISSON = functools.partial(counts._relaxed_count, counts._POISSON)
GEOMETRIC = functools.partial(counts._relaxed_count, counts._GEOMETRIC)


def thorough(*values):
    return pytest.param(*values, marks=pytest.mark.thorough)


def relaxed(noise, log_probs, values, temperature):
    return np.sum(values * softmax((log_probs + noise) / temperature, -1), -1)


def poisson(noise, log_rate, temperature):
    k = np.arange(noise.shape[-1])
    return relaxed(noise, k * np.expand_dims(log_rate, -1) - gammaln(k + 1), k, temperature)


def geometric(noise, logits, temperature):
    k = np.arange(noise.shape[-1])
    return relaxed(noise, -k * np.logaddexp(0, np.expand_dims(logits, -1)), k, temperature)


def jacobian(f, args, k):
    """df/dargs[k] of a NumPy formula, dense, by central differences."""
    at = lambda x: f(*args[:k], x, *args[k + 1 :])
    outputs = range(np.size(f(*args)))
    rows = [central(lambda x, i=i: np.ravel(at(x))[i], args[k]) for i in outputs]
    return np.reshape(rows, np.shape(f(*args)) + np.shape(args[k]))


# ---------------------------------------------------------------------------------------- rules


@pytest.mark.parametrize(
    "core, parameter, z, gradient, dt",
    [
        (POISSON, np.log(3.0), 2.6718030800, 2.6044360451, 0.1125254625),
        (GEOMETRIC, np.float64(-1), 1.0048227741, -0.8532952993, 1.9878286064),
    ],
    ids=["poisson", "geometric"],
)
def test_core_oracles(core, parameter, z, gradient, dt):
    """No noise, counts to 5, temperature 0.5."""
    value, back = jax.vjp(core, np.zeros(6), parameter, HALF)
    close(value, z, rtol=1e-9)
    _, actual_gradient, actual_dt = back(jnp.asarray(1.0))
    close(actual_gradient, gradient, rtol=1e-9)
    close(actual_dt, dt, rtol=1e-9)


RNG = np.random.default_rng(0)
LOG_PROBS, VALUES = RNG.normal(size=(3, 5)), RNG.normal(size=(3, 5)) * 2
NOISE, WIDE_NOISE = RNG.gumbel(size=(3, 5)), RNG.gumbel(size=(3, 9))
PARAMETER = np.array([-1.2, 0.3, 1.5])


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
@pytest.mark.parametrize(
    "core, formula, noise, args",
    [
        (of_noise(counts._relaxed_value), relaxed, NOISE, (LOG_PROBS, VALUES)),
        (POISSON, poisson, WIDE_NOISE, (PARAMETER,)),
        (GEOMETRIC, geometric, WIDE_NOISE, (PARAMETER,)),
    ],
    ids=["values", "poisson", "geometric"],
)
def test_rules_are_dense_jacobians(core, formula, noise, args, temperature):
    """Oracle: NumPy at fixed noise by central differences; in every real argument."""
    args = (*args, np.float64(temperature))
    close(core(noise, *args), formula(noise, *args), rtol=1e-13)
    pulled = jax.jit(jax.vmap(lambda g: pullback(lambda *a: core(noise, *a), *args)(g)))
    actual = pulled(np.eye(3))
    for k, rows in enumerate(actual):
        close(rows, jacobian(lambda *a: formula(noise, *a), args, k), rtol=1e-8, atol=1e-8)
    # The cotangent is the rule's linear argument: not its sign, not its square.
    g = np.array([[1.0, -2, 3]] * 3)
    for k, cotangent in enumerate(pulled(g)):
        close(cotangent[0], np.tensordot(g[0], np.asarray(actual[k]), 1), rtol=1e-11)


@pytest.mark.parametrize(
    "core, noise, args",
    [
        (of_noise(counts._relaxed_value), NOISE, (LOG_PROBS, VALUES, np.float64(0.6))),
        (POISSON, WIDE_NOISE, (PARAMETER, np.float64(0.6))),
        (GEOMETRIC, WIDE_NOISE, (PARAMETER, np.float64(0.6))),
    ],
    ids=["values", "poisson", "geometric"],
)
def test_second_derivatives(core, noise, args):
    """Oracle: central differences of the first derivatives."""
    sizes = np.cumsum([np.size(a) for a in args])[:-1]
    split = lambda a: [
        x.reshape(np.shape(b)) for x, b in zip(jnp.split(a, sizes), args, strict=True)
    ]
    weights = np.array([1.0, 2, 3])
    gradient = jax.jit(jax.grad(lambda a: jnp.sum(weights * jnp.sin(core(noise, *split(a))))))
    a = np.concatenate([np.ravel(x) for x in args])
    actual = jax.jit(jax.jacrev(gradient))(a)
    step = 1e-5
    for i, e in enumerate(np.eye(len(a)) * step):
        expected = (gradient(a + e) - gradient(a - e)) / (2 * step)
        close(actual[:, i], expected, rtol=1e-7, atol=1e-7)


def test_counts_are_values_with_their_log_pmf():
    """The two laws under one noise, and by the general form: value and both gradients."""
    k = np.arange(9.0)[None]
    by_rate = lambda l: k * l[:, None] - gammaln(k + 1)
    by_logits = lambda l: -k * jax.nn.softplus(l)[:, None]
    values = np.broadcast_to(k, (3, 9))
    for core, log_pmf in ((POISSON, by_rate), (GEOMETRIC, by_logits)):
        general = lambda l, t, log_pmf=log_pmf: of_noise(counts._relaxed_value)(
            WIDE_NOISE, log_pmf(l), values, t
        )
        actual = with_slopes(functools.partial(core, WIDE_NOISE))(PARAMETER, HALF)
        for a, b in zip(actual, with_slopes(general)(PARAMETER, HALF), strict=True):
            close(a, b, rtol=1e-11)


@jax.jit
def RELAXED_VALUE(noise, *args):
    return with_slopes(functools.partial(of_noise(counts._relaxed_value), noise))(*args)


@pytest.mark.parametrize("temperature", [1e-3, 0.5, 1e3])
def test_a_mask_weighs_nothing(temperature):
    """Oracle: the classes without it; its gradients, and its value's, are exactly 0."""
    mask = np.array([True, False, True, True, False])
    log_probs = np.where(mask, LOG_PROBS[0], -np.inf)
    values = np.where(mask, VALUES[0], 1e30)
    args = (log_probs, values, np.float64(temperature))
    kept = (LOG_PROBS[0][mask], VALUES[0][mask], np.float64(temperature))
    z, dl, dv, dt = RELAXED_VALUE(NOISE[0], *args)
    expected, expected_dl, expected_dv, expected_dt = RELAXED_VALUE(NOISE[0][mask], *kept)
    close(z, expected, rtol=1e-13)
    assert np.all(dl[~mask] == 0) and np.all(dv[~mask] == 0)
    close(dl[mask], expected_dl, rtol=1e-10)
    close(dv[mask], expected_dv, rtol=1e-10)
    close(dt, expected_dt, rtol=1e-10)
    core = lambda l: of_noise(counts._relaxed_value)(NOISE[0], l, VALUES[0], args[2])
    second = jax.jit(jax.grad(lambda l: jnp.sum(jax.grad(core)(l) ** 2)))(log_probs)
    assert np.all(np.isfinite(second)) and np.all(second[~mask] == 0)


def test_one_class_left_is_sure():
    log_probs, values = np.array([-np.inf, 0.3, -np.inf]), np.array([5.0, 2.0, -1.0])
    draw = lambda l, v, t: counts.generalized_gumbel_softmax(KEY, l, v, temperature=t)
    both = with_slopes(draw)
    z, dl, dv, dt = both(log_probs, values, HALF)
    assert z == 2 and np.all(dl == 0) and np.array_equal(dv, [0, 1, 0]) and dt == 0
    assert np.isnan(both(np.full(3, -np.inf), values, HALF)[0])


# ----------------------------------------------------------------------------------------- laws


def assert_counts(z, p):
    """Chi-squared of the nearest values, classes expected fewer than 10 times taken together."""
    expected = len(z) * p
    observed = np.bincount(np.rint(z).astype(int), minlength=len(p))
    assert np.mean(np.abs(z - np.rint(z)) < 1e-3) > 0.99
    group = np.cumsum(expected >= 10) * (expected >= 10)  # 0 for the rare, 1, 2, ... else
    observed, expected = np.bincount(group, observed), np.bincount(group, expected)
    if expected[0] < 10:
        observed, expected = (np.append(x[0] + x[1], x[2:]) for x in (observed, expected))
    assert stats.chisquare(observed, expected).pvalue > SIGNIFICANCE


RATES, LOGITS = ((3.0, 14), (3.0, 2), (0.3, 5)), ((0.0, 19), (0.5, 3))  # and the truncation


@pytest.mark.parametrize("dtype", ["float32", thorough("float64")])
def test_cold_draws_have_the_truncated_laws(dtype):
    """Oracle: scipy's probabilities of 0 to the truncation, renormalized: no mass in the last."""
    args = dict(temperature=1e-4, shape=(100_000,))
    k = np.arange(20)
    laws = [(counts.poisson, np.log(rate), n, stats.poisson(rate).pmf(k)) for rate, n in RATES]
    laws += [(counts.geometric, l, n, stats.geom(expit(l)).pmf(k + 1)) for l, n in LOGITS]
    for sampler, parameter, n, p in laws:
        draw = jax.jit(lambda key, x, f=sampler, n=n: f(key, x, truncation=n, **args))
        z = draw(jax.random.key(1), jnp.asarray(parameter, dtype))
        assert z.dtype == dtype and z.shape == (100_000,)
        assert_counts(np.asarray(z, float), p[: n + 1] / p[: n + 1].sum())
    log_probs, values = np.array([0.2, -np.inf, -1.0, 0.7]), np.array([4, 3, 1, 0])
    draw = jax.jit(functools.partial(counts.generalized_gumbel_softmax, **args))
    z = draw(jax.random.key(3), jnp.asarray(log_probs, dtype), jnp.asarray(values, dtype))
    p = np.zeros(5)
    p[values] = softmax(log_probs)
    assert z.dtype == dtype
    assert_counts(np.asarray(z, float), p)


@pytest.mark.parametrize("dtype", ["bfloat16", thorough("float16")])
def test_few_bits_keep_the_law(dtype):
    """Small counts are exact there; a value between two of them rounds to one bit's width."""
    args = dict(truncation=9, temperature=1e-3, shape=(200_000,))
    draw = jax.jit(functools.partial(counts.poisson, **args))
    z = draw(jax.random.key(4), jnp.asarray(0.5, dtype))
    assert z.dtype == dtype
    p = stats.poisson.pmf(np.arange(10), np.exp(0.5))
    assert_counts(np.asarray(z, float), p / p.sum())


@pytest.mark.parametrize(
    "temperature, dtype",  # a colder float32 is often exactly 3
    [
        (0.5, "float32"),
        *(thorough(t, dtype) for t, dtype in ((0.5, "float64"), (2.0, "float32"))),
        thorough(2.0, "float64"),
    ],
)
def test_two_values_are_a_relaxed_bit(temperature, dtype):
    """Kolmogorov-Smirnov: (z - a) / (b - a) is a sigmoid of a logistic over the temperature."""
    draw = jax.jit(functools.partial(counts.generalized_gumbel_softmax, shape=(200_000,)))
    args = jnp.asarray([0.25, 1.0], dtype), jnp.asarray([-1.0, 3.0], dtype)
    z = draw(jax.random.key(5), *args, temperature=temperature)
    w = (np.asarray(z, float) + 1) / 4
    law = lambda w: stats.logistic.cdf(temperature * logit(np.clip(w, 0, 1)), 0.75)
    assert stats.kstest(w, law).pvalue > SIGNIFICANCE


def test_expectation_of_two_values():
    """Oracle: the reference's relaxed bit, E[dz/dlogits] 0.20570715, and quadrature of E[z]."""
    noise, dx = np.linspace(-45, 45, 20_001, retstep=True)
    w = stats.logistic.pdf(noise) * dx
    n = len(noise)
    args = (
        np.broadcast_to([0.0, 0.5], (n, 2)),
        np.broadcast_to([0.0, 1.0], (n, 2)),
        HALF,
    )
    both = np.stack([np.zeros(n), noise], -1)
    core = functools.partial(of_noise(counts._relaxed_value), both)
    z, gradients = jax.jit(lambda *a: (core(*a), pullback(core, *a)(jnp.asarray(w))))(*args)
    dl, dv, dt = (np.asarray(x) for x in gradients)
    expectation = lambda l, a, b, t: w @ (a + (b - a) * expit((l + noise) / t))
    args = (0.5, 0.0, 1.0, 0.5)
    close(w @ np.asarray(z), expectation(*args), rtol=1e-12)
    close(dl.sum(0), [-0.20570715, 0.20570715], rtol=2e-8)
    close(dv.sum(0), [jacobian(expectation, args, k) for k in (1, 2)], rtol=1e-8)
    close(dt, jacobian(expectation, args, 3), rtol=1e-7)


@pytest.mark.parametrize("n", [20_000, thorough(200_000)])
def test_expectation_of_a_relaxed_poisson(n):
    """Oracle: the reference's Monte Carlo at rate 3, temperature 0.5, with its standard errors."""
    z, gradient = jax.jit(
        jax.vmap(
            jax.value_and_grad(
                lambda l, key: counts.poisson(key, l, truncation=14, temperature=0.5)
            )
        )
    )(np.full(n, np.log(3.0)), jax.random.split(jax.random.key(6), n))
    for draws, expected, error in ((z, 3.0327, 0.0009), (gradient, 2.982, 0.0023)):
        total = np.hypot(error, np.std(draws) / np.sqrt(n))
        assert abs(np.mean(draws) - expected) < 5.5 * total


# ----------------------------------------------------------------------------------- truncations


@pytest.mark.parametrize("tail", [1e-6, 1e-3])
def test_poisson_truncation(tail):
    """Oracle: scipy's survival function, exact at N and too large at N - 1."""
    for rate in (1e-9, 0.1, 1.0, 3.0, 10.0, 100.0, 12_345.6):
        l = math.log(rate)
        for x in (l, np.float64(l), np.full((2, 3), l), jnp.asarray(l)):
            n = counts.poisson_truncation(x, tail)
            assert type(n) is int and n >= 1
            assert stats.poisson.sf(n, rate) <= tail
            assert n == 1 or stats.poisson.sf(n - 1, rate) > tail
    assert counts.poisson_truncation(np.log([[0.1, 10.0], [3.0, 1.0]])) == 28


@pytest.mark.parametrize("tail", [1e-6, 1e-3])
def test_geometric_truncation(tail):
    """Oracle: scipy's survival function; its geometric law counts the success too."""
    for logits in (-7.0, -4.0, -1.0, 0.0, 2.0, 30.0):
        for x in (logits, np.float64(logits), np.full((2, 3), logits), jnp.asarray(logits)):
            n = counts.geometric_truncation(x, tail)
            assert type(n) is int and n >= 1
            assert stats.geom.sf(n + 1, expit(logits)) <= tail
            assert n == 1 or stats.geom.sf(n, expit(logits)) > tail
    assert counts.geometric_truncation(np.array([[2.0, -1.0], [0.0, 2.0]])) == 44


def test_truncation_oracles():
    actual = [counts.poisson_truncation(math.log(rate)) for rate in (0.1, 1.0, 3.0, 10.0, 100.0)]
    assert actual == [4, 9, 14, 28, 151]
    actual = [counts.geometric_truncation(logits) for logits in (-4.0, -1.0, 0.0, 2.0)]
    assert actual == [761, 44, 19, 6]


@pytest.mark.parametrize(
    "name, truncation",
    [("log_rate", counts.poisson_truncation), ("logits", counts.geometric_truncation)],
)
def test_a_truncation_is_found_outside_a_trace(name, truncation):
    for trace in (jax.jit, jax.vmap, jax.grad):
        with pytest.raises(TypeError, match=f"^{name}: got .*need"):
            trace(lambda x: jnp.float64(truncation(x)))(jnp.ones(3) if trace is jax.vmap else 1.0)
    with pytest.raises(ValueError, match=f"^{name}: got .*need"):
        truncation(np.nan)
    for tail in (0.0, -1e-6, 1.0, np.nan):
        with pytest.raises(ValueError, match="^tail: got .*need"):
            truncation(1.0, tail)


def test_a_rate_for_its_logarithm():
    """The truncation of one above e^18 would take gigabytes to find."""
    for log_rate in (100.0, np.array([1.0, 19.0]), jnp.asarray(20.0)):
        with pytest.raises(ValueError, match="^log_rate: got .*need"):
            counts.poisson_truncation(log_rate)


# ------------------------------------------------------------------------------------ the edges

DRAWS = {
    "values": lambda x, **a: counts.generalized_gumbel_softmax(
        KEY, jnp.stack([x, -x, jnp.zeros_like(x)], -1), jnp.asarray([0, 1, 4], x.dtype), **a
    ),
    "poisson": lambda x, **a: counts.poisson(KEY, x, truncation=20, **a),
    "geometric": lambda x, **a: counts.geometric(KEY, x, truncation=20, **a),
}


@pytest.mark.parametrize("dtype", ["float32", thorough("bfloat16"), thorough("float16")])
@pytest.mark.parametrize("name", DRAWS)
def test_everything_is_finite_at_the_extremes(name, dtype):
    x = jnp.asarray([-1e4, -3, 0, 3, 1e4], dtype)

    @jax.jit
    def both(t):
        z, back = jax.vjp(lambda x, t: DRAWS[name](x, temperature=t), x, t)
        return z, *back(jnp.ones_like(z))

    for temperature in (1e-3, 1.0, 1e3):
        z, *gradients = both(jnp.asarray(temperature, dtype))
        for a in (z, *gradients):
            assert a.dtype == dtype and bool(jnp.all(jnp.isfinite(a)))
        assert np.all((z >= 0) & (z <= (4 if name == "values" else 20)))
        if temperature <= 1 and name != "values":
            # Almost no events, or all; a success almost never leaves the counts alike.
            ends = [0, 20] if name == "poisson" else [z[0], 0]
            close([z[0], z[-1]], np.asarray(ends, float), atol=1e-12)


def test_values_of_each_row_and_of_all():
    """values (n,) under log_probs (3, n): its gradient is the sum of those of its rows."""
    g = jnp.asarray([1.0, -2, 3])

    @jax.jit
    def both(v):
        draw = lambda v: counts.generalized_gumbel_softmax(KEY, LOG_PROBS, v)
        return draw(v), pullback(draw, v)(g)[0]

    z, actual = both(VALUES[0])
    expected, rows = both(np.broadcast_to(VALUES[0], (3, 5)))
    assert z.shape == (3,)
    close(z, expected, rtol=1e-14)
    close(actual, np.sum(rows, 0), rtol=1e-12)
    close(np.sum(rows, -1), g, rtol=1e-13)  # dz/dv_k is w_k, which sum to 1


# ------------------------------------------------------------------------------ exact values


def test_log_prob_of_value():
    """Oracle: the softmax in NumPy, and its slopes; a value that is given twice, a mask, and one
    that is none of them."""
    both = with_slopes(lambda l, x, v: counts.log_prob_of_value(x, l, v))
    values, l = np.array([0.0, 2.0, 2.0, 5.0]), LOG_PROBS[:, :4]
    p = softmax(l, axis=-1)
    value, slope, *_ = both(l, np.array([5.0, 2.0, 0.0]), values)
    close(value, np.log([p[0, 3], p[1, 1] + p[1, 2], p[2, 0]]), rtol=1e-12)
    kept = np.array([values == 5, values == 2, values == 0])
    close(slope, np.where(kept, p, 0) / np.sum(p * kept, -1, keepdims=True) - p, rtol=1e-11)
    masked = np.where(np.arange(4) == 2, -np.inf, l)
    value, slope, *_ = both(masked, np.array([2.0, 3.0, 2.0 + 1e-9]), values)
    close(value[0], log_softmax(masked[0])[1], rtol=1e-12)
    assert np.all(np.isnan(value[1:])) and np.all(slope[:, 2] == 0)
    masked = np.where(values == 2, -np.inf, l)
    value, slope, *_ = both(masked, np.full(3, 2.0), values)
    assert np.all(value == -np.inf) and np.all(np.isfinite(slope))


def test_log_prob_of_values_in_few_bits():
    """Those that the dtype of the parameters holds: a draw of the family is one of them."""
    values, l = np.array([0.1, 0.3, 1.7]), jnp.zeros(3, "bfloat16")
    x = counts.generalized_family(values).sample(KEY, jnp.zeros((50, 3), "bfloat16"))
    assert np.all(np.isfinite(counts.log_prob_of_value(x, l, values).astype(float)))


# --------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("draw", [counts.poisson, counts.geometric])
def test_a_truncation_is_the_callers(draw):
    """Required; the smallest makes a bit."""
    with pytest.raises(TypeError, match="truncation"):
        draw(KEY, np.ones(3))
    z = jax.jit(functools.partial(draw, truncation=1))(KEY, np.zeros(100))
    assert np.all((z >= 0) & (z <= 1))


@pytest.mark.parametrize("values", [np.arange(301.0), [1.0, 1.0, 2.0]], ids=["rounded", "twice"])
def test_equal_values_are_refused(values):
    """301 integers in bfloat16, whose step is 2 above 256, and a value given twice: which of two
    equal values a sample is cannot be told."""
    family = counts.generalized_family(values)
    params = jnp.zeros((2, len(values)), jnp.bfloat16)
    for field in (family.support, family.mean, lambda l: family.sample(KEY, l)):
        with pytest.raises(ValueError, match="values are equal"):
            field(params)
