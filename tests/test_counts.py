"""Relaxed counts and values, against closed forms, enumeration and their laws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import SIGNIFICANCE, central, close, of_noise, pullback
from scipy import stats
from scipy.special import expit, gammaln, logit, softmax

from relaxjax import counts

KEY = jax.random.key(0)
HALF = np.float64(0.5)
POISSON = functools.partial(counts._relaxed_count, counts._POISSON)
GEOMETRIC = functools.partial(counts._relaxed_count, counts._GEOMETRIC)


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
    actual = jax.jacrev(lambda *a: core(noise, *a), tuple(range(len(args))))(*args)
    for k, rows in enumerate(actual):
        close(rows, jacobian(lambda *a: formula(noise, *a), args, k), rtol=1e-8, atol=1e-8)
    # The cotangent is the rule's linear argument: not its sign, not its square.
    g = np.array([1.0, -2, 3])
    for k, cotangent in enumerate(pullback(lambda *a: core(noise, *a), *args)(g)):
        close(cotangent, np.tensordot(g, np.asarray(actual[k]), 1), rtol=1e-11)


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
        z, back = jax.vjp(lambda *a, core=core: core(WIDE_NOISE, *a), PARAMETER, HALF)
        expected, expected_back = jax.vjp(general, PARAMETER, HALF)
        close(z, expected, rtol=1e-13)
        for a, b in zip(back(jnp.ones(3)), expected_back(jnp.ones(3)), strict=True):
            close(a, b, rtol=1e-11)


@pytest.mark.parametrize("temperature", [1e-3, 0.5, 1e3])
def test_a_mask_weighs_nothing(temperature):
    """Oracle: the classes without it; its gradients, and its value's, are exactly 0."""
    mask = np.array([True, False, True, True, False])
    log_probs = np.where(mask, LOG_PROBS[0], -np.inf)
    values = np.where(mask, VALUES[0], 1e30)
    args = (log_probs, values, np.float64(temperature))
    z, back = jax.vjp(lambda *a: of_noise(counts._relaxed_value)(NOISE[0], *a), *args)
    kept = (LOG_PROBS[0][mask], VALUES[0][mask], np.float64(temperature))
    expected, kept_back = jax.vjp(
        lambda *a: of_noise(counts._relaxed_value)(NOISE[0][mask], *a), *kept
    )
    close(z, expected, rtol=1e-13)
    dl, dv, dt = back(jnp.asarray(1.0))
    expected_dl, expected_dv, expected_dt = kept_back(jnp.asarray(1.0))
    assert np.all(dl[~mask] == 0) and np.all(dv[~mask] == 0)
    close(dl[mask], expected_dl, rtol=1e-10)
    close(dv[mask], expected_dv, rtol=1e-10)
    close(dt, expected_dt, rtol=1e-10)
    core = lambda l: of_noise(counts._relaxed_value)(NOISE[0], l, VALUES[0], args[2])
    second = jax.jit(jax.grad(lambda l: jnp.sum(jax.grad(core)(l) ** 2)))(log_probs)
    assert np.all(np.isfinite(second)) and np.all(second[~mask] == 0)


def test_one_class_left_is_sure():
    log_probs = np.array([-np.inf, 0.3, -np.inf])
    z, back = jax.vjp(
        lambda l, v, t: counts.generalized_gumbel_softmax(KEY, l, v, temperature=t),
        log_probs,
        np.array([5.0, 2.0, -1.0]),
        HALF,
    )
    assert z == 2
    dl, dv, dt = back(jnp.asarray(1.0))
    assert np.all(dl == 0) and np.array_equal(dv, [0, 1, 0]) and dt == 0
    masked = counts.generalized_gumbel_softmax(KEY, np.full(3, -np.inf), np.ones(3))
    assert np.isnan(masked)


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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
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
    z = counts.generalized_gumbel_softmax(
        jax.random.key(3), jnp.asarray(log_probs, dtype), jnp.asarray(values, dtype), **args
    )
    p = np.zeros(5)
    p[values] = softmax(log_probs)
    assert z.dtype == dtype
    assert_counts(np.asarray(z, float), p)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_few_bits_keep_the_law(dtype):
    """Small counts are exact there; a value between two of them rounds to one bit's width."""
    z = counts.poisson(
        jax.random.key(4),
        jnp.asarray(0.5, dtype),
        truncation=9,
        temperature=1e-3,
        shape=(200_000,),
    )
    assert z.dtype == dtype
    p = stats.poisson.pmf(np.arange(10), np.exp(0.5))
    assert_counts(np.asarray(z, float), p / p.sum())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("temperature", [0.5, 2.0])  # a colder float32 is often exactly 3
def test_two_values_are_a_relaxed_bit(temperature, dtype):
    """Kolmogorov-Smirnov: (z - a) / (b - a) is a sigmoid of a logistic over the temperature."""
    z = counts.generalized_gumbel_softmax(
        jax.random.key(5),
        jnp.asarray([0.25, 1.0], dtype),
        jnp.asarray([-1.0, 3.0], dtype),
        temperature=temperature,
        shape=(200_000,),
    )
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
    z, back = jax.vjp(lambda *a: of_noise(counts._relaxed_value)(both, *a), *args)
    dl, dv, dt = (np.asarray(x) for x in back(jnp.asarray(w)))
    expectation = lambda l, a, b, t: w @ (a + (b - a) * expit((l + noise) / t))
    args = (0.5, 0.0, 1.0, 0.5)
    close(w @ np.asarray(z), expectation(*args), rtol=1e-12)
    close(dl.sum(0), [-0.20570715, 0.20570715], rtol=2e-8)
    close(dv.sum(0), [jacobian(expectation, args, k) for k in (1, 2)], rtol=1e-8)
    close(dt, jacobian(expectation, args, 3), rtol=1e-7)


def test_expectation_of_a_relaxed_poisson():
    """Oracle: the reference's Monte Carlo at rate 3, temperature 0.5, with its standard errors."""
    n = 200_000
    # In one compiled call: 200,000 rows of 15 classes.
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


def test_the_default_temperature():
    values = np.arange(3.0)
    for draw in (
        lambda **a: counts.generalized_gumbel_softmax(KEY, np.zeros(3), values, **a),
        lambda **a: counts.poisson(KEY, np.zeros(3), truncation=4, **a),
        lambda **a: counts.geometric(KEY, np.zeros(3), truncation=4, **a),
    ):
        assert np.array_equal(draw(), draw(temperature=0.5))


def test_noise_is_independent():
    """Of entries, rows and successive draws of one call: correlations within 5 standard errors."""
    n = 50_000
    values = np.array([0.0, 1.0, 3.0])
    for z in (
        counts.generalized_gumbel_softmax(KEY, np.zeros((3, 2, 3)), values, shape=(n, 3, 2)),
        counts.poisson(KEY, np.zeros((3, 2)), truncation=3, shape=(n, 3, 2)),
        counts.geometric(KEY, np.zeros((3, 2)), truncation=3, shape=(n, 3, 2)),
    ):
        assert z.shape == (n, 3, 2)
        z = np.asarray(z).reshape(n, 6)
        z = (z - z.mean(0)) / z.std(0)
        assert np.abs(z.T @ z / n - np.eye(6)).max() < 5 / np.sqrt(n)
        assert np.abs(z[1:].T @ z[:-1] / n).max() < 5 / np.sqrt(n)


# ----------------------------------------------------------------------------------- truncations


@pytest.mark.parametrize("tail", [1e-6, 1e-3])
def test_poisson_truncation(tail):
    """Oracle: scipy's survival function, exact at N and too large at N - 1."""
    for rate in (1e-9, 0.1, 1.0, 3.0, 10.0, 100.0, 12_345.6):
        for x in (rate, np.float64(rate), np.full((2, 3), rate), jnp.asarray(rate)):
            n = counts.poisson_truncation(x, tail)
            assert type(n) is int and n >= 1
            assert stats.poisson.sf(n, rate) <= tail
            assert n == 1 or stats.poisson.sf(n - 1, rate) > tail
    assert counts.poisson_truncation(np.array([[0.1, 10.0], [3.0, 1.0]])) == 28


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
    actual = [counts.poisson_truncation(rate) for rate in (0.1, 1.0, 3.0, 10.0, 100.0)]
    assert actual == [4, 9, 14, 28, 151]
    actual = [counts.geometric_truncation(logits) for logits in (-4.0, -1.0, 0.0, 2.0)]
    assert actual == [761, 44, 19, 6]


@pytest.mark.parametrize(
    "name, truncation",
    [("rate", counts.poisson_truncation), ("logits", counts.geometric_truncation)],
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


def test_a_negative_rate():
    for rate in (-1.0, np.array([1.0, -1.0]), jnp.asarray(-1.0)):
        with pytest.raises(ValueError, match="^rate: got .*need"):
            counts.poisson_truncation(rate)


# ------------------------------------------------------------------------------------ the edges

DRAWS = {
    "values": lambda x, **a: counts.generalized_gumbel_softmax(
        KEY, jnp.stack([x, -x, jnp.zeros_like(x)], -1), jnp.asarray([0, 1, 4], x.dtype), **a
    ),
    "poisson": lambda x, **a: counts.poisson(KEY, x, truncation=20, **a),
    "geometric": lambda x, **a: counts.geometric(KEY, x, truncation=20, **a),
}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
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
            close(z[jnp.asarray([0, -1])], np.asarray(ends, float), atol=1e-12)


@pytest.mark.optimized
@pytest.mark.parametrize("name", DRAWS)
def test_one_rounding_at_the_end(name):
    """Oracle: the same call in float32, rounded; NaN stays NaN in its entry."""
    draw = DRAWS[name]
    for dtype in (jnp.bfloat16, jnp.float16):
        x = jnp.linspace(-1.5, 1.5, 50).astype(dtype)
        value = draw(x)
        assert value.dtype == dtype
        assert np.array_equal(value, draw(x.astype(jnp.float32)).astype(dtype))
        assert jax.grad(lambda x: jnp.sum(draw(x)))(x).dtype == dtype
    nan = np.isnan(draw(x.at[0].set(jnp.nan)).astype(jnp.float32))
    assert nan[0] and not np.any(nan[1:])


@pytest.mark.parametrize("name", DRAWS)
def test_vmap_is_a_loop(name):
    """One key and many temperatures: values and gradients."""
    x = jnp.linspace(-1, 1, 4)

    def sweep(t):
        z, back = jax.vjp(lambda x, t: DRAWS[name](x, temperature=t), x, t)
        return z, *back(jnp.arange(1.0, 5.0))

    temperatures = jnp.asarray([0.1, 0.5, 2.0])
    swept, one = jax.jit(jax.vmap(sweep))(temperatures), jax.jit(sweep)
    for i, t in enumerate(temperatures):
        for a, b in zip(swept, one(t), strict=True):
            close(a[i], b, rtol=1e-10, atol=1e-13)
    assert not np.array_equal(swept[0][0], swept[0][2])


@pytest.mark.parametrize("name", DRAWS)
def test_batch_shaped_temperatures(name):
    """Entry by entry: what a scalar there gives under the same key, with its gradients."""
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3)))
    t = np.random.default_rng(2).uniform(0.2, 2, size=(2, 3))

    def both(t, g):
        z, back = jax.vjp(lambda x, t: DRAWS[name](x, temperature=t), x, t)
        return z, *back(g)

    z, dx, dt = jax.jit(both)(t, jnp.ones((2, 3)))
    one_hots = jnp.eye(6).reshape(6, 2, 3)
    scalars = jax.jit(jax.vmap(both))(t.ravel(), one_hots)
    close(z.ravel(), np.diag(scalars[0].reshape(6, 6)), rtol=1e-11)
    close(dx.ravel(), np.diag(scalars[1].reshape(6, 6)), rtol=1e-10)
    close(dt.ravel(), scalars[2], rtol=1e-10)


@pytest.mark.parametrize("name", DRAWS)
def test_more_draws_than_parameters(name):
    """shape broadcasts parameters and temperatures, each draw has its noise."""
    x, t = jnp.linspace(-1, 1, 4), np.linspace(0.5, 2, 4)

    @jax.jit
    def both(x, t):
        z, back = jax.vjp(lambda x, t: DRAWS[name](x, temperature=t, shape=(50, 4)), x, t)
        return z, *back(jnp.ones((50, 4)))

    z, *gradients = both(x, t)
    expected, *full = both(*(jnp.broadcast_to(a, (50, 4)) for a in (x, t)))
    assert z.shape == (50, 4) and len(np.unique(z)) == 200
    close(z, expected, rtol=1e-13)
    for a, b in zip(gradients, full, strict=True):
        close(a, np.sum(b, 0), rtol=1e-11)


def test_values_of_each_row_and_of_all():
    """values (n,) under log_probs (3, n): its gradient is the sum of those of its rows."""
    draw = lambda v: counts.generalized_gumbel_softmax(KEY, LOG_PROBS, v)
    shared, rows = VALUES[0], np.broadcast_to(VALUES[0], (3, 5))
    z, back = jax.vjp(draw, shared)
    expected, rows_back = jax.vjp(draw, rows)
    assert z.shape == (3,)
    close(z, expected, rtol=1e-14)
    g = jnp.asarray([1.0, -2, 3])
    close(back(g)[0], np.sum(rows_back(g)[0], 0), rtol=1e-12)
    close(np.sum(rows_back(g)[0], -1), g, rtol=1e-13)  # dz/dv_k is w_k, which sum to 1


# --------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("name", DRAWS)
def test_a_bad_temperature(name):
    draw = lambda t: DRAWS[name](jnp.ones(3), temperature=t)
    for bad in (0, -1.0, np.array([1.0, -1.0, 1.0]), np.inf, np.nan):
        with pytest.raises(ValueError, match="^temperature: got .*need"):
            draw(bad)
    with pytest.raises(ValueError, match="^temperature: got shape .*need"):
        draw(np.ones(2))
    assert np.all(np.isnan(draw(jnp.asarray(-1.0))))
    assert np.array_equal(np.isnan(draw(jnp.asarray([1.0, -1.0, 1.0]))), [False, True, False])


@pytest.mark.parametrize("draw", [counts.poisson, counts.geometric])
def test_a_truncation_is_a_positive_int(draw):
    for bad, error in ((0, ValueError), (-3, ValueError), (2.0, TypeError), (None, TypeError)):
        with pytest.raises(error, match="^truncation: got .*need"):
            draw(KEY, np.ones(3), truncation=bad)
    with pytest.raises(TypeError, match="truncation"):
        draw(KEY, np.ones(3))
    z = draw(KEY, np.zeros(100), truncation=1)  # the smallest: a bit
    assert np.all((z >= 0) & (z <= 1))


@pytest.mark.parametrize(
    "call, error, words",
    [
        (
            lambda: counts.generalized_gumbel_softmax(KEY, jnp.arange(3), np.ones(3)),
            TypeError,
            "log_probs: got int",
        ),
        (
            lambda: counts.generalized_gumbel_softmax(KEY, 0.5, np.ones(1)),
            ValueError,
            "log_probs: got float",
        ),
        (
            lambda: counts.generalized_gumbel_softmax(KEY, np.ones(3), np.arange(3)),
            TypeError,
            "values: got int",
        ),
        (
            lambda: counts.generalized_gumbel_softmax(KEY, np.ones(3), np.ones(4)),
            ValueError,
            "values: got shape",
        ),
        (
            lambda: counts.generalized_gumbel_softmax(KEY, np.ones((3, 2)), np.ones(2), shape=(2,)),
            ValueError,
            "shape: got",
        ),
        (lambda: counts.poisson(KEY, jnp.arange(3), truncation=3), TypeError, "log_rate: got int"),
        (
            lambda: counts.poisson(KEY, np.ones(3), truncation=3, shape=(2,)),
            ValueError,
            "shape: got",
        ),
        (lambda: counts.geometric(KEY, jnp.arange(3), truncation=3), TypeError, "logits: got int"),
        (
            lambda: counts.geometric(KEY, np.ones(3), truncation=3, shape=(2,)),
            ValueError,
            "shape: got",
        ),
    ],
)
def test_errors_name_the_argument(call, error, words):
    with pytest.raises(error, match=f"^{words}") as caught:
        call()
    assert "need" in str(caught.value)
