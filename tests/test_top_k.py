"""Gumbel top-k, against the Plackett-Luce law by enumeration and the chain in NumPy."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import SIGNIFICANCE, central, close, k_hots, of_noise, with_slopes
from scipy import stats
from scipy.special import logsumexp

from relaxjax import _numerics, _rules, top_k

KEY = jax.random.key(0)
DTYPES = ["bfloat16", "float16", "float32", "float64"]
# The reference's inputs.
L5 = np.array([0.5, -1, 0, 1.2, 0.3])
G5 = np.array([1, -2, 0.5, 0.3, -0.7])
WEIGHTS = np.log([0.7, 0.2, 0.1])
MASKED = np.array([0.5, -np.inf, 0, 1.2, -np.inf, 0.3])
NOISE = np.array([0.4, -0.7, 1.9, 0.1, -0.2, 0.8])
HALF = np.float64(0.5)

sample = jax.jit(top_k.sample, static_argnums=2, static_argnames="shape")
relaxed = jax.jit(top_k.relaxed, static_argnums=2, static_argnames="shape")
straight_through = jax.jit(top_k.straight_through, static_argnums=2, static_argnames="shape")
log_prob = jax.jit(top_k.log_prob)
log_prob_of_all = jax.jit(jax.vmap(top_k.log_prob, (0, None)))
log_prob_slope = jax.jit(jax.grad(lambda l, i: top_k.log_prob(i, l)))
log_prob_curve = jax.jit(jax.jacrev(jax.grad(lambda l, i: top_k.log_prob(i, l))))
of_sets = jax.jit(jax.vmap(top_k.log_prob_of_set, (0, None, None)), static_argnums=2)


def thorough(*values):
    return pytest.param(*values, marks=pytest.mark.thorough)


def in_float32(*cases):
    """By default in float32, and the other dtypes for those who wait."""
    often = [(*case, "float32") for case in cases]
    return often + [thorough(*c, d) for c in cases for d in DTYPES if d != "float32"]


def plackett_luce(indices, logits):
    """log p of an order: draw after draw from what is left."""
    left, total = list(range(len(logits))), 0.0
    for i in indices:
        total += logits[i] - logsumexp(logits[left])
        left.remove(i)
    return total


def orders(logits, k):
    """Every ordered k-tuple of unmasked items, and their probabilities."""
    tuples = list(itertools.permutations(np.flatnonzero(logits > -np.inf), k))
    return np.array(tuples), np.exp([plackett_luce(order, logits) for order in tuples])


def lse(x):
    """Of complex x too, for derivatives by complex steps."""
    return np.max(x.real) + np.log(np.sum(np.exp(x - np.max(x.real))))


def chain(y, k, temperature):
    """The reference's recursion; log(1 - q) is lse of the others less lse of all."""
    a, total = y + 0j, 0
    for _ in range(k):
        x = a / temperature
        total = total + np.exp(x - lse(x))
        a = a + [lse(np.delete(x, i)) - lse(x) for i in range(len(x))]
    return total


def jacobians(y, k, temperature):
    """d chain / dy and d chain / dtemperature, by complex steps: exact to rounding."""
    n, step = len(y), 1e-30j
    dy = [chain(y + step * e, k, temperature).imag / 1e-30 for e in np.eye(n)]
    return np.stack(dy, axis=-1), chain(y, k, temperature + step).imag / 1e-30


@functools.partial(jax.jit, static_argnums=(0, 3))
def rule(name, noise, logits, k, temperature, g):
    """The value and the cotangents of logits and temperature."""
    core = getattr(top_k, f"_{name}")
    z, back = jax.vjp(lambda l, t: core(noise + l, k, t), logits, temperature)
    return z, *back(g)


# -------------------------------------------------------------------------------------- log_prob


@pytest.mark.parametrize(
    "indices, logits, expected",
    [
        ((3, 0), L5, -1.8134279904),
        ((3, 0, 2, 4, 1), L5, -3.0542364525),
        ((0, 1), WEIGHTS, -0.7621400520),
    ],
)
def test_log_prob_oracles(indices, logits, expected):
    close(log_prob(np.array(indices), logits), expected, rtol=1e-10)


def test_log_prob_of_two_orders():
    both = [log_prob(np.array(order), WEIGHTS) for order in ((0, 1), (1, 0))]
    close(logsumexp(both), np.log(0.7 * 0.2 / 0.3 + 0.2 * 0.7 / 0.8), rtol=1e-12)
    close(logsumexp(both), -0.443686, rtol=1e-6)
    close(of_sets(np.array([[1.0, 1, 0]]), WEIGHTS, 2), [logsumexp(both)], rtol=1e-10)


@pytest.mark.parametrize(
    "logits, k", [(L5, 1), (L5, 3), (L5[:4], 4), (MASKED, 2), (MASKED, 4)], ids=str
)
def test_log_prob_is_the_sequential_law(logits, k):
    """Oracle: every ordered tuple; the values, and their total."""
    tuples, p = orders(logits, k)
    values = log_prob_of_all(tuples, logits)
    close(values, np.log(p), rtol=1e-12, atol=1e-13)
    close(np.sum(np.exp(values)), 1, rtol=1e-12)


def test_what_cannot_be_drawn_has_probability_zero():
    for indices in ((3, 3), (0, 2, 3, 0), (4, 4, 1, 2), (0, 1, 1, 2)):
        assert log_prob(np.array(indices), L5) == -np.inf
    for indices in ((1, 0), (0, 4), (0, 2, 3, 1)):
        assert log_prob(np.array(indices), MASKED) == -np.inf
    for indices in ((5, 0), (0, -1), (0, 2, 3, 5)):  # no item
        assert np.isnan(log_prob(np.array(indices), L5))


@pytest.mark.parametrize("logits", [L5, [0.5, -np.inf, 0, 1.2, 0.3]], ids=str)
@pytest.mark.parametrize("indices", [(3, 0), (2, 4, 0, 3)], ids=str)
def test_log_prob_has_its_derivatives(indices, logits):
    """Oracle: central differences, of the gradient by itself for the second."""
    logits, order = np.array(logits), np.array(indices)
    gradient, second = lambda l: log_prob_slope(l, order), log_prob_curve(logits, order)
    live = np.flatnonzero(logits > -np.inf)
    values = np.append(logits[live], -np.inf)  # the last is every mask's
    at = np.where(np.isin(np.arange(5), live), np.cumsum(logits > -np.inf) - 1, -1)
    formula = lambda l: plackett_luce(indices, np.append(l, -np.inf)[at])
    close(gradient(logits)[live], central(formula, values[:-1]), rtol=1e-7, atol=1e-9)
    for i in live:
        e = 1e-5 * np.eye(5)[i]
        expected = (gradient(logits + e) - gradient(logits - e)) / 2e-5
        close(second[i], expected, rtol=1e-8, atol=1e-9)
    masked = logits == -np.inf
    assert np.all(gradient(logits)[masked] == 0) and np.all(second[masked] == 0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_log_prob_of_sure_and_of_rare_orders(dtype):
    """Where 1 - sum p has no digit left, and at logits of 1e4; gradients stay finite."""
    for logits in ([40.0, 0, -40], [1e4, 0.0, -1e4]):
        logits = np.array(logits, dtype)
        for order in itertools.permutations(range(3)):
            expected = plackett_luce(order, logits.astype(np.float64))
            actual = log_prob(np.array(order), logits)
            assert actual.dtype == dtype
            close(actual, expected, rtol=20 * np.finfo(dtype).eps)
            assert np.all(np.isfinite(log_prob_slope(logits, np.array(order))))


def of_set(x, logits):
    """log p of a k-hot by all orders of its items."""
    return logsumexp([plackett_luce(o, logits) for o in itertools.permutations(np.flatnonzero(x))])


@pytest.mark.parametrize("k", [1, 2, 3, 5])
@pytest.mark.parametrize(
    "logits", [L5, [30, 1e4, -30, 0, 1], [0, 12, -12, 3, 11.5]], ids=["near", "far", "spread"]
)
def test_log_prob_of_a_set(logits, k):
    """Oracle: its k! orders; the total; in float32 too."""
    logits, x = np.array(logits, float), k_hots(5, k)
    values, expected = of_sets(x, logits, k), [of_set(row, logits) for row in x]
    close(values, expected, rtol=1e-10, atol=1e-11)
    close(logsumexp(values), 0, atol=1e-11)
    narrow = of_sets(x.astype(np.float32), logits.astype(np.float32), k)
    close(narrow, expected, rtol=3e-6, atol=3e-6)


def test_log_prob_of_a_set_has_its_derivatives():
    """Oracle: central differences, of the gradient by itself for the second; with a mask the law
    of the other items."""
    x, mask = np.array([1.0, 0, 1, 0, 0]), np.arange(5) == 3
    f = lambda logits: top_k.log_prob_of_set(x, logits, 2)
    both, second = jax.jit(jax.value_and_grad(f)), jax.jit(jax.jacrev(jax.grad(f)))
    gradient = lambda l: both(l)[1]
    close(gradient(L5), central(lambda l: of_set(x, l), L5), rtol=1e-7, atol=1e-9)
    masked = np.where(mask, -np.inf, L5)
    close(both(masked)[0], of_set(x[~mask], L5[~mask]), rtol=1e-11)
    expected = central(lambda l: of_set(x[~mask], l), L5[~mask])
    close(gradient(masked)[~mask], expected, rtol=1e-7, atol=1e-9)
    for logits in (L5, masked):
        actual = np.asarray(second(logits))
        for i in np.flatnonzero(np.isfinite(logits)):
            e = 1e-5 * np.eye(5)[i]
            close(actual[i], (gradient(logits + e) - gradient(logits - e)) / 2e-5, 1e-6, 1e-8)
    assert gradient(masked)[3] == 0 and np.all(actual[3] == 0) and np.all(actual[:, 3] == 0)


def test_what_is_no_set():
    """-inf for another number of items or a masked one, NaN for no 0/1 vector or no law; all of the
    items are sure."""
    x = np.array([[1.0, 0, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0], [1, 0, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0]])
    values = of_sets(x, MASKED, 2)
    assert np.isfinite(values[0]) and np.array_equal(values[1:], np.full(3, -np.inf))
    values = of_sets(np.array([[0.9, 0, 1.1, 0, 0, 0], [2, 0, 0, 0, 0, 0]]), MASKED, 2)
    assert np.all(np.isnan(values))
    assert np.isnan(of_sets(x[:1], np.where(np.arange(6) == 0, 0, -np.inf), 2)[0])
    f = lambda l: top_k.log_prob_of_set(np.ones(4), l, 4)
    value, slope = with_slopes(f)(L5[:4])
    assert value == 0 and np.array_equal(slope, np.zeros(4))


def test_log_prob_of_a_large_set():
    """Oracle: inclusion and exclusion over the 2^10 subsets of 10 of 20."""
    weights = np.random.default_rng(0).uniform(0.5, 2, 20)
    w = weights[:10] / weights[10:].sum()
    signs = np.array(list(itertools.product([0, 1], repeat=10)))
    exact = np.sum((-1.0) ** signs.sum(-1) / (1 + signs @ w))
    close(of_sets(np.repeat([[1.0, 0]], 10, -1), np.log(weights), 10)[0], np.log(exact), rtol=1e-9)


# --------------------------------------------------------------------------------------- the laws


def check_law(codes, support, p):
    """Chi-squared over the support; codes are one number a draw, as support's are."""
    counts = np.sum(np.asarray(codes)[:, None] == support, axis=0)
    assert counts.sum() == len(codes)
    assert stats.chisquare(counts, p / p.sum() * len(codes)).pvalue > SIGNIFICANCE


def code(indices):
    return np.asarray(indices) @ 10 ** np.arange(np.shape(indices)[-1])


def sets(logits, k):
    """The masks of the k-sets as binary numbers, and their probabilities."""
    tuples, p = orders(logits, k)
    masks, inverse = np.unique(np.sum(2**tuples, axis=-1), return_inverse=True)
    return masks, np.bincount(inverse, p)


@pytest.mark.parametrize(
    "logits, k, dtype",
    [*in_float32((MASKED, 4)), *(thorough(*c, d) for c in ((WEIGHTS, 1), (L5, 2)) for d in DTYPES)],
    ids=str,
)
def test_sample_has_its_law(logits, k, dtype):
    """Every ordered tuple; masked items never."""
    logits = jnp.asarray(logits, dtype)
    indices = sample(jax.random.key(1), logits, k, shape=(100_000,))
    assert jnp.issubdtype(indices.dtype, jnp.integer) and indices.shape == (100_000, k)
    tuples, p = orders(np.asarray(logits, float), k)
    check_law(code(indices), code(tuples), p)


@pytest.mark.parametrize("dtype", ["float32", *(thorough(d) for d in DTYPES if d != "float32")])
def test_straight_through_has_the_law_of_the_sets(dtype):
    logits = jnp.asarray(MASKED, dtype)
    z = straight_through(jax.random.key(2), logits, 2, shape=(100_000,))
    assert z.dtype == dtype
    z = np.asarray(z, float)
    assert np.all((z == 0) | (z == 1)) and np.all(z.sum(-1) == 2)
    check_law(z @ 2 ** np.arange(6), *sets(np.asarray(logits, float), 2))


def test_cold_relaxed_draws_have_the_law_of_the_sets():
    """At 1e-3 a draw is k-hot but where two perturbed logits are as near as that."""
    z = np.asarray(relaxed(jax.random.key(3), L5, 2, temperature=1e-3, shape=(100_000,)))
    hard = np.all(np.abs(z - np.round(z)) < 1e-2, axis=-1)
    assert np.mean(~hard) < 0.02
    codes = np.sum(2 ** np.argsort(-z, axis=-1)[:, :2], axis=-1)
    check_law(codes, *sets(L5, 2))


def test_inclusion_is_not_that_of_the_conditional_bernoulli():
    """Oracle: the reference's inclusion probabilities."""
    expected = (0.466139376, 0.114672880, 0.298796186, 0.728204739, 0.392186819)
    tuples, _ = orders(L5, 2)
    p = np.exp(log_prob_of_all(tuples, L5))
    close([p[np.any(tuples == i, axis=-1)].sum() for i in range(5)], expected, rtol=5e-9)
    z = np.asarray(straight_through(jax.random.key(4), L5, 2, shape=(100_000,)))
    for count, q in zip(z.sum(0), expected, strict=True):
        assert stats.binomtest(int(count), 100_000, q).pvalue > SIGNIFICANCE


@pytest.mark.parametrize("dtype", ["float32", thorough("float64")])
def test_relaxed_one_of_two_has_the_law_of_a_relaxed_bit(dtype):
    logits = np.array([0.3, -0.5], dtype)
    z = relaxed(jax.random.key(5), logits, 1, temperature=2.0, shape=(100_000,))
    z = np.asarray(z, np.float64)
    law = stats.logistic(0.8 / 2, 1 / 2)
    assert stats.kstest(np.log(z[:, 0]) - np.log(z[:, 1]), law.cdf).pvalue > SIGNIFICANCE


# -------------------------------------------------------------------------------------- the rules


def test_relaxed_oracles():
    """Without noise, which is y = logits."""
    one = (0.449360796, 0.111383097, 0.287856709, 0.773975754, 0.377423645)
    half = (0.500493628, 0.031704728, 0.216536588, 0.885822592, 0.365442464)
    dl = (0.560862334, -0.140766228, 0.100038988, 0.050926129, -0.571061223)
    noise = np.zeros(5)
    close(rule("relaxed", noise, L5, 2, np.float64(1), G5)[0], one, rtol=5e-9)
    z, actual, dt = rule("relaxed", noise, L5, 2, HALF, G5)
    close(z, half, rtol=2e-8)
    close(actual, dl, rtol=1e-8)
    close(dt, -0.5076306154, rtol=1e-9)
    z, *_ = rule("relaxed", np.zeros(2), np.array([5.0, 0]), 2, np.float64(1), G5[:2])
    close(z, (1.4933, 0.5067), atol=5e-5)  # entries pass 1


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_relaxed_is_its_chain(temperature, k):
    """Oracle: the chain in NumPy over what is unmasked, and its dense Jacobians."""
    for logits in (L5[:4], MASKED, 3 * MASKED):
        n, live = len(logits), np.isfinite(logits)
        noise = NOISE[:n]
        y = (logits + noise)[live]
        dy, dt = jacobians(y, k, temperature)
        value, rows = np.zeros(n), np.zeros((n, n))
        value[live] = chain(y, k, temperature).real
        rows[np.ix_(live, live)] = dy
        args = noise, logits, k, np.float64(temperature)
        z, gradients, slopes = zip(*(rule("relaxed", *args, g) for g in np.eye(n)), strict=True)
        close(z[0], value, rtol=1e-11, atol=1e-300)
        close(np.sum(z[0]), k, rtol=1e-13)
        close(gradients, rows, rtol=1e-8, atol=1e-12)
        close(np.asarray(slopes)[live], dt, rtol=1e-8, atol=1e-12)
        for array in (np.asarray(z), np.asarray(gradients)):
            assert np.all(array[:, ~live] == 0)
        assert np.all(np.asarray(slopes)[~live] == 0)


def test_relaxed_agrees_with_central_differences():
    """The oracle above by another route, which shares no complex step with it."""
    t = 0.7
    value = lambda y, t: G5 @ chain(y, 3, t).real
    _, dl, dt = rule("relaxed", NOISE[:5], L5, 3, np.float64(t), G5)
    close(dl, central(lambda l: value(l + NOISE[:5], t), L5), rtol=1e-8, atol=1e-9)
    close(dt, central(lambda t: value(L5 + NOISE[:5], t), t), rtol=1e-8)


def test_relaxed_one_of_n_is_gumbel_softmax():
    for logits in (MASKED, np.append(1e4 * NOISE[:5], 0)):
        for t in (HALF, np.float64(3)):
            g = np.append(G5, 0.4)
            expected = jax.vjp(of_noise(_rules.tempered_softmax), NOISE, logits, t)
            z, dl, dt = rule("relaxed", NOISE, logits, 1, t, g)
            close(z, expected[0], rtol=1e-11, atol=1e-300)
            _, expected_dl, expected_dt = expected[1](g)
            close(dl, expected_dl, rtol=1e-9, atol=1e-13)
            close(dt, expected_dt, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("k", [2, 4])
def test_straight_through_rule(k):
    """Forward exactly the top k; backward that of relaxed, and nothing to the temperature."""
    g = np.append(G5, 0.4)
    for logits in (MASKED, np.append(2 * L5, -1)):
        y = logits + NOISE
        top = np.zeros(6)
        top[np.argsort(-y)[:k]] = 1
        for t in (np.float64(0.3), np.float64(2)):
            z, dl, dt = rule("straight_through", NOISE, logits, k, t, g)
            assert np.array_equal(z, top) and dt == 0
            close(dl, rule("relaxed", NOISE, logits, k, t, g)[1], rtol=1e-11, atol=1e-14)
            live = np.isfinite(y)
            expected = jacobians(y[live], k, t)[0].T @ g[live]
            close(np.asarray(dl)[live], expected, rtol=1e-9, atol=1e-12)
            assert np.all(np.asarray(dl)[~live] == 0)


def test_second_derivatives_of_relaxed():
    """Oracle: central differences of the complex-step gradient, in logits and temperature."""
    noise, step = NOISE[:5], 1e-5
    f = lambda a: G5 @ of_noise(top_k._relaxed)(noise, a[:5], 2, a[5]) ** 2 / 2
    a = np.append(L5, 0.8)

    def gradient(a):
        dy, dt = jacobians(a[:5] + noise, 2, a[5])
        weights = G5 * chain(a[:5] + noise, 2, a[5]).real
        return np.append(weights @ dy, weights @ dt)

    second = jax.jit(jax.jacrev(jax.grad(f)))(a)
    for i in range(6):
        e = step * np.eye(6)[i]
        expected = (gradient(a + e) - gradient(a - e)) / (2 * step)
        close(second[:, i], expected, rtol=1e-7, atol=1e-8)


def test_second_derivatives_apply_the_rule_to_the_draw():
    """Oracle: differences of the stated rule, with the draw's differential put in.

    With f(z) = <w, z>^2 / 2 the gradient is R(l)^T w <w, z>, R relaxed's Jacobian; its total
    derivative is the partial one in l plus the partial one in z through R itself.
    """
    w, step, noise = np.array([0.7, -1.1, 0.4, 0.2, 0.9]), 1e-5, NOISE[:5]
    f = lambda l: (top_k._straight_through(noise + l, 2, HALF) @ w) ** 2 / 2
    R = lambda l: jacobians(l + noise, 2, 0.5)[0]
    gradient = lambda z, l: R(l).T @ w * (w @ z)
    second = jax.jit(jax.jacrev(jax.grad(f)))(L5)
    z, slope = np.asarray(top_k._straight_through(noise + L5, 2, HALF)), R(L5)
    for i in range(5):
        e = step * np.eye(5)[i]
        up, down = (gradient(z + s * slope @ e, L5 + s * e) for s in (1, -1))
        close(second[:, i], (up - down) / (2 * step), rtol=1e-7, atol=1e-8)


# ----------------------------------------------------------------------------- batches and dtypes


@functools.partial(jax.jit, static_argnums=1)
def everything(logits, k, temperature):
    """All that the module makes of logits, with the cotangents, by its public names."""
    indices = top_k.sample(KEY, logits, k)
    results = {}
    for name, f in {
        "log_prob": lambda l: top_k.log_prob(indices, l),
        "relaxed": lambda l: top_k.relaxed(KEY, l, k, temperature=temperature),
        "straight_through": lambda l: top_k.straight_through(KEY, l, k, temperature=temperature),
    }.items():
        value, back = jax.vjp(f, logits)
        g = jnp.arange(1, 1 + value.size).reshape(value.shape).astype(logits.dtype)
        results |= {name: value, f"cotangent of {name}": back(g)[0]}
    return results


@pytest.mark.parametrize("temperature, dtype", in_float32((1e-3,), (1e3,)))
def test_everything_is_finite_at_the_extremes(temperature, dtype):
    """k = 20 of 50 at logits of 1e4, and at spread ones; masked items are exactly 0."""
    spread = np.linspace(-1e4, 1e4, 50)
    mixed = 1e4 * np.repeat([1.0, 0, -1, 0, 1], 10)
    for logits in (spread, mixed):
        logits = np.where(np.arange(50) % 10 == 4, -np.inf, logits)
        results = everything(jnp.asarray(logits, dtype), 20, jnp.asarray(temperature, dtype))
        for name, value in results.items():
            value = np.asarray(value, np.float64)
            # Near ties at a low temperature the chain's derivatives are as (2 / temperature)^k.
            if temperature == 1e3 or logits is spread or "cotangent" not in name:
                assert np.all(np.isfinite(value)), name
            assert value.ndim == 0 or np.all(value[4::10] == 0), name
        close(np.sum(np.asarray(results["straight_through"], float)), 20, rtol=0, atol=0)
        rounding = 50 * float(jnp.finfo(dtype).eps)
        close(np.sum(np.asarray(results["relaxed"], float)), 20, rtol=rounding)


def test_a_cold_chain_is_the_top_k():
    """n = 50, k = 20 at 1e-3 in float32, to rounding where the perturbed logits are apart."""
    logits = np.linspace(-3, 3, 50).astype(np.float32)
    noise = np.zeros(50, np.float32)
    args = noise, logits, 20, np.float32(1e-3), np.ones(50, np.float32)
    z, dl, dt = rule("relaxed", *args)
    close(z, np.arange(50) >= 30, rtol=0, atol=1e-6)
    assert np.all(np.isfinite(dl)) and np.isfinite(dt)
    hard, *_ = rule("straight_through", *args)
    assert np.array_equal(hard, np.arange(50) >= 30)


@pytest.mark.parametrize("name", ["relaxed", "straight_through"])
def test_many_items(name):
    """100 of 10,000 in float32, forward and backward."""
    logits = np.random.default_rng(2).normal(size=10_000).astype(np.float32)

    @jax.jit
    def both(logits):
        z, back = jax.vjp(lambda l: getattr(top_k, name)(KEY, l, 100), logits)
        return z, back(jnp.cos(jnp.arange(10_000, dtype=jnp.float32)))[0]

    z, gradient = both(logits)
    assert z.dtype == gradient.dtype == np.float32
    close(np.sum(z, dtype=np.float64), 100, rtol=1e-4)
    assert np.all(np.isfinite(z)) and np.all(np.isfinite(gradient)) and np.any(gradient != 0)
    # A shift of all logits changes nothing.
    scale = np.sum(np.abs(gradient), dtype=np.float64)
    assert abs(np.sum(gradient, dtype=np.float64)) < 1e-4 * scale


@pytest.mark.parametrize("n", [6, 20])
def test_equal_items_are_drawn_in_their_order(n):
    """Oracle: a stable sort, on both ways to select; noise ties one pair in 2^24."""
    y = np.resize([1.0, 0.0, 1.0, 0.0, -1.0], n)
    for k in (1, 3, n - 1):
        order = np.argsort(-y, stable=True)[:k]
        assert np.array_equal(_numerics.top_indices(jnp.asarray(y), k), order)
        hot = top_k._straight_through(jnp.asarray(y), k, HALF)
        assert np.array_equal(hot, np.isin(range(n), order))


def test_one_item():
    for name in ("relaxed", "straight_through"):
        z, dl, dt = rule(name, NOISE[:1], L5[:1], 1, HALF, G5[:1])
        assert z == 1 and dl == 0 and dt == 0
    assert sample(KEY, L5[:1], 1) == 0 and log_prob(np.array([0]), L5[:1]) == 0


@pytest.mark.parametrize("name", ["relaxed", "straight_through"])
def test_all_of_n(name):
    """The draw sums to n; a hard one is all ones, and its rule is the chain's still."""
    noise, k = NOISE[:4], 4
    z, dl, _ = rule(name, noise, L5[:4], k, HALF, G5[:4])
    if name == "straight_through":
        assert np.array_equal(z, np.ones(4))
    close(np.sum(z), 4, rtol=1e-13)
    close(dl, jacobians(L5[:4] + noise, k, 0.5)[0].T @ G5[:4], rtol=1e-9, atol=1e-12)


# -------------------------------------------------------------------------------------- the edges


def test_long_rows_without_a_law():
    """Of 20 items, by another code than few. Too few items: -1 and NaN; with NaN or +inf NaN too;
    the row beside is unharmed."""
    logits = np.tile(L5, (4, 4))
    logits[0, 1:], logits[1, 0], logits[2, -1] = -np.inf, np.nan, np.inf
    logits = jnp.asarray(logits)
    indices = np.asarray(sample(KEY, logits, 2))
    assert np.all(indices[0] == -1) and len(set(indices[3])) == 2 and np.all(indices[3] >= 0)
    results = everything(logits, 2, HALF)
    for name in ("relaxed", "straight_through"):
        z = np.asarray(results[name])
        assert np.all(np.isnan(z[0])) and np.all(np.isnan(z[:3]).any(-1))
        assert np.sum(z[3]) == pytest.approx(2, rel=1e-12)
        assert np.all(np.isfinite(results[f"cotangent of {name}"][3]))
    values = np.asarray(log_prob(np.tile([0, 3], (4, 1)), logits))
    assert np.all(np.isnan(values[:3]))
    close(values[3], plackett_luce((0, 3), np.asarray(logits[3])), rtol=1e-12)
