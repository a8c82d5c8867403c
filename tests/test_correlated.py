"""Bits joined by a Gaussian copula, against scipy's normal laws, quadrature and their Jacobians."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import SIGNIFICANCE, central, close
from scipy import linalg, stats
from scipy.special import expit, log_expit, log_ndtr, logit, ndtr, ndtri, ndtri_exp

from relaxjax import _rules, bernoulli, correlated

KEY = jax.random.key(0)
DTYPES = ["bfloat16", "float16", "float32", "float64"]
# The reference's inputs.
L = np.array([0.5, -0.3])
R = np.array([[1, 0], [0.6, 0.8]])
EPS = np.array([0.7, -1.3])
G = np.array([1.0, -2.0])
T = np.float64(0.5)
L3 = np.array([0.4, -1.1, 0.2])
R3 = np.array([[1, 0, 0], [-0.8, 0.6, 0], [0.36, 0.48, 0.8]])
# Rows of norm 0.9992, and the same in every dtype.
NARROW = np.array([[1, 0], [153 / 256, 205 / 256]])

draw_concrete = jax.jit(correlated.concrete, static_argnames="shape")
straight_through = jax.jit(correlated.straight_through, static_argnames="shape")


def factor(rho):
    return np.array([[1, 0], [rho, np.sqrt(1 - rho**2)]])


@jax.jit
def log_prob(z, logits, correlation_tril, temperature):
    return correlated.concrete_log_prob(z, logits, correlation_tril, temperature=temperature)


log_prob_gradients = jax.jit(jax.grad(log_prob, (0, 1, 2, 3)))


def thorough(*values):
    return pytest.param(*values, marks=pytest.mark.thorough)


@functools.partial(jax.jit, static_argnums=0)
def core(name, noise, logits, correlation_tril, temperature):
    """The draw from its noise."""
    relaxed = {"concrete": _rules.tempered_sigmoid, "straight_through": _rules.tempered_bit}
    return relaxed[name](logits + correlated._logistic(noise, correlation_tril), temperature)


@functools.partial(jax.jit, static_argnums=0)
def rule(name, noise, logits, correlation_tril, temperature, g):
    """The value and the cotangents of logits, factor and temperature."""
    z, back = jax.vjp(lambda *a: core(name, noise, *a), logits, correlation_tril, temperature)
    return z, *back(g)


def lam(v):
    """The logit of a uniform that a normal v makes."""
    return log_ndtr(v) - log_ndtr(-v)


def concrete(noise, logits, correlation_tril, temperature):
    return expit((logits + lam(noise @ correlation_tril.T)) / temperature)


def normal_score(x):
    """The normal v with lam(v) = x, on whichever tail is exact."""
    return np.where(x <= 0, ndtri_exp(log_expit(x)), -ndtri_exp(log_expit(-x)))


def concrete_log_density(z, logits, temperature):
    x = temperature * logit(z) - logits
    return np.log(temperature) + stats.logistic.logpdf(x) - np.log(z * (1 - z))


def density(z, logits, correlation_tril, temperature):
    """The log density by scipy's joint normal over its marginals: Sklar's theorem."""
    v = normal_score(temperature * logit(z) - logits)
    joint = stats.multivariate_normal(cov=correlation_tril @ correlation_tril.T)
    copula = joint.logpdf(v) - np.sum(stats.norm.logpdf(v), axis=-1)
    return np.sum(concrete_log_density(z, logits, temperature), axis=-1) + copula


def orthants(logits, correlation_tril):
    """P(b) for all states b, in the order of binary counting, by the joint normal cdf."""
    n = len(logits)
    states = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    bound, p = ndtri(expit(logits)), []
    for signs in 2 * states - 1:
        cov = np.outer(signs, signs) * (correlation_tril @ correlation_tril.T)
        p.append(stats.multivariate_normal(cov=cov, seed=0, abseps=1e-7).cdf(signs * bound))
    return states, np.array(p)


def recovered(z, logits, correlation_tril, temperature):
    """The noise of relaxed draws."""
    v = normal_score(temperature * logit(z) - logits)
    shape = (len(logits), -1)
    return linalg.solve_triangular(correlation_tril, v.T.reshape(shape), lower=True).T


# -------------------------------------------------------------------------------------- densities


def test_log_prob_oracles():
    z = np.array([0.3, 0.8])
    close(log_prob(z, L, R, T), -1.5097115298, rtol=1e-10)
    close(log_prob(z, L, np.eye(2), T), -1.2088307182, rtol=1e-10)
    gradient = log_prob_gradients(z, L, R, T)[2]
    close(gradient, [[-0.16448138, 0], [-0.85033677, 0.52813907]], rtol=3e-8)
    assert gradient[0, 1] == 0


log_prob_of_many = jax.jit(jax.vmap(log_prob, (0, None, None, None)))


@pytest.mark.parametrize(
    "rho, temperature",
    [
        (0.6, 0.5),
        (0.99, 1.0),
        *(thorough(*case) for case in ((-0.9, 1.0), (0.99, 0.5), (0.0, 2.0))),
    ],
)
def test_density_integrates_to_one(rho, temperature):
    """By the trapezoid rule over the logits of z; a row of the grid sums to concrete's density."""
    x = np.arange(-24, 24, 0.1)
    y = (x[:, None] + L) / temperature  # a grid in each variable
    z = np.stack(np.meshgrid(expit(y[:, 0]), expit(y[:, 1]), indexing="ij"), axis=-1)
    weights = 0.1 / temperature * expit(y) * expit(-y)  # dz
    values = log_prob_of_many(z.reshape(-1, 2), L, factor(rho), np.float64(temperature))
    p = np.exp(values).reshape(z.shape[:2])
    assert weights[:, 0] @ p @ weights[:, 1] == pytest.approx(1, abs=1e-6)
    inside = np.abs(x) < 8  # elsewhere 1 - z rounds
    for i, marginal in ((0, p @ weights[:, 1]), (1, weights[:, 0] @ p)):
        expected = concrete_log_density(expit(y[inside, i]), L[i], temperature)
        close(marginal[inside], np.exp(expected), rtol=1e-4)


POINTS = [
    (np.array([0.3, 0.8]), L, R, 0.5),
    (np.array([0.5, 0.5]), np.zeros(2), R, 0.5),  # x = 0, where a form with |x| has a kink
    (np.array([0.5, 0.9]), np.zeros(2), factor(-0.95), 2.0),
    (np.array([0.02, 0.6, 0.99]), L3, R3, 0.8),
    (np.array([0.4]), np.array([0.7]), np.eye(1), 0.3),
    (np.array([0.3, 0.8]), np.array([6.0, -9.0]), R, 1.5),
]


@pytest.mark.parametrize("z, logits, tril, temperature", POINTS, ids=lambda a: str(np.shape(a)))
def test_log_prob_and_its_gradients(z, logits, tril, temperature):
    """Oracle: scipy's joint normal, by central differences in all four arguments."""
    args = z, logits, tril, np.float64(temperature)
    close(log_prob(*args), density(*args), rtol=1e-10)
    actual = log_prob_gradients(*args)
    for k in range(4):
        at = lambda a, k=k: density(*args[:k], np.tril(a) if k == 2 else a, *args[k + 1 :])
        close(actual[k], central(at, args[k]), rtol=2e-7, atol=1e-7)
    assert np.all(np.asarray(actual[2])[np.triu_indices(len(z), 1)] == 0)


def test_second_derivatives_of_log_prob():
    """Oracle: central differences of the gradients; at x = 0 too."""
    gradient = jax.jit(jax.grad(lambda a: log_prob(a[:2], a[2:4], R, a[4])))
    second = jax.jit(jax.jacrev(gradient))
    for a in ([0.3, 0.8, *L, 0.5], [0.5, 0.5, 0, 0, 0.5], [0.5, 0.6, 0, -1, 1.5]):
        a, actual = np.array(a), second(np.array(a))
        for i, e in enumerate(1e-5 * np.eye(5)):
            expected = (gradient(a + e) - gradient(a - e)) / 2e-5
            close(actual[:, i], expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("logits", [[1e4, 1e4], [-1e4, 1e4], [30.0, -200]], ids=str)
def test_log_prob_of_far_logits(logits):
    """Where s(x) underflows; oracle: scipy's inverse of the logarithm of the normal cdf."""
    z, logits = np.array([0.3, 0.8]), np.array(logits)
    args = z, logits, R, T
    close(log_prob(*args), density(*args), rtol=1e-11)
    step = 1e-4 * np.abs(logits).min()
    difference = central(lambda l: density(z, l, R, T), logits, step)
    close(log_prob_gradients(*args)[1], difference, rtol=1e-6)
    narrow = tuple(np.asarray(a, np.float32) for a in args)
    # Terms as large as |x| times 1 / (1 - rho), of which each rounds.
    close(log_prob(*narrow), density(*args), rtol=5e-6)
    for k, actual in enumerate(log_prob_gradients(*narrow)):
        assert np.all(np.isfinite(actual))
        close(actual, log_prob_gradients(*args)[k], rtol=1e-3, atol=1e-3 * np.abs(actual).max())


def test_log_prob_of_own_draws():
    """Oracle: scipy's joint normal at the draw of `concrete`, and the slopes of log_prob there,
    through the draw too."""
    rng = np.random.default_rng(5)
    args = rng.normal(size=(20, 3)), R3, rng.uniform(0.5, 2, size=20)

    @jax.jit
    def both(l, r, t):
        own = lambda *a: correlated.concrete_and_log_prob(KEY, *a[:2], temperature=a[2])
        z, back = jax.vjp(own, l, r, t)
        of_z = lambda l, r, t: log_prob(correlated.concrete(KEY, l, r, temperature=t), l, r, t)
        expected = jax.vjp(of_z, l, r, t)[1](jnp.ones(20))
        return z, back((jnp.zeros((20, 3)), jnp.ones(20))), expected

    (z, value), actual, expected = both(*args)
    assert np.array_equal(z, draw_concrete(KEY, *args[:2], temperature=args[2]))
    close(value, [density(z[i], args[0][i], R3, args[2][i]) for i in range(20)], rtol=1e-8)
    for a, b in zip(actual, expected, strict=True):
        close(a, b, rtol=1e-6, atol=1e-8)


def test_independent_bits_are_concrete():
    """Oracle: the sum of the bits' own densities, of one bit and of three."""
    z = np.array([0.1, 0.5, 0.97])
    expected = bernoulli.concrete_log_prob(z, L3, temperature=0.7)
    close(log_prob(z, L3, np.eye(3), np.float64(0.7)), np.sum(expected), rtol=1e-12)
    close(log_prob(z[:1], L3[:1], np.eye(1), np.float64(0.7)), expected[0], rtol=1e-12)


# --------------------------------------------------------------------------------------- the laws


@pytest.mark.parametrize(
    "dtype", ["float32", *(thorough(dtype) for dtype in DTYPES if dtype != "float32")]
)
def test_bits_have_the_law_of_orthants(dtype):
    """Chi-squared over the four states; oracle: the bivariate normal cdf."""
    logits, tril = jnp.asarray(L, dtype), jnp.asarray(NARROW, dtype)
    b = straight_through(jax.random.key(1), logits, tril, shape=(200_000,))
    assert b.dtype == dtype and b.shape == (200_000, 2)
    check_orthants(b, np.asarray(logits, float), factor(153 / 256 / np.hypot(153, 205) * 256))


@pytest.mark.parametrize("name", [thorough("eye"), thorough("R"), thorough("strong"), "R3"])
def test_bits_have_the_law_of_their_factor(name):
    logits, tril = {
        "eye": (L, np.eye(2)),
        "R": (L, R),
        "strong": (L, factor(-0.95)),
        "R3": (L3, R3),
    }[name]
    b = straight_through(jax.random.key(2), logits, tril, shape=(200_000,))
    check_orthants(b, logits, tril)


def check_orthants(b, logits, tril):
    b = np.asarray(b, int)
    states, p = orthants(logits, tril)
    counts = np.bincount(b @ (1 << np.arange(len(logits))), minlength=len(states))
    assert np.sum(p) == pytest.approx(1, abs=1e-6) and np.all((b == 0) | (b == 1))
    assert stats.chisquare(counts, p / p.sum() * len(b)).pvalue > SIGNIFICANCE


def test_the_oracle_of_the_orthants():
    """Oracle: the reference's P(1, 1), its gradient and its derivative in the correlation."""
    both = lambda l, rho: orthants(l, factor(rho))[1][-1]
    close(both(L, 0.6), 0.35759433, rtol=2e-7)
    close(both(L, 0.0), 0.26489223, rtol=2e-7)
    close(central(lambda l: both(l, 0.6), L, 1e-3), (0.07512717, 0.17165578), rtol=1e-4)
    close((both(L, 0.601) - both(L, 0.599)) / 0.002, 0.16979351, rtol=1e-4)


@pytest.mark.parametrize(
    "tril, dtype",
    [
        (R3, "float32"),
        *(thorough(*case) for case in ((R3, "float64"), (np.eye(3), "float32"))),
        thorough(np.eye(3), "float64"),
    ],
    ids=["R3-float32", "R3-float64", "eye-float32", "eye-float64"],
)
def test_relaxed_bits_have_their_law(tril, dtype):
    """Marginals are concrete; their normal scores have the factor's correlation, 5 errors wide."""
    logits, tril, n = L3.astype(dtype), tril.astype(dtype), 200_000
    t = np.asarray(2.0, dtype)  # warm, so that nothing saturates
    z = np.asarray(draw_concrete(jax.random.key(3), logits, tril, temperature=t, shape=(n,)), float)
    for i in range(3):
        law = stats.logistic(logits[i] / 2, 1 / 2)
        assert stats.kstest(logit(z[:, i]), law.cdf).pvalue > SIGNIFICANCE
    v = normal_score(2 * logit(z) - logits)
    expected = (tril @ tril.T).astype(float)
    error = (1 - expected**2) / np.sqrt(n)
    assert np.all(np.abs(np.corrcoef(v, rowvar=False) - expected) < 5 * error + 1e-6)
    # The whitened scores are independent normals, and so are their squares.
    eps = recovered(z, logits, tril, 2)
    for x in eps.T:
        assert stats.kstest(x, stats.norm.cdf).pvalue > SIGNIFICANCE
    for x in (eps, eps**2):
        off = np.corrcoef(x, rowvar=False) - np.eye(3)
        assert np.abs(off).max() < 5 / np.sqrt(n)


# -------------------------------------------------------------------------------------- the rules


def test_core_oracles():
    z, dl, dR, dt = rule("concrete", EPS, L, R, T, G)
    close(z, (0.96387191, 0.06828276), rtol=1e-7)
    close(dl, (0.06964571, -0.25448088), rtol=1e-7)
    close(dR, [[0.08299657, 0], [-0.29917663, 0.55561374]], rtol=1e-7)
    close(dt, -0.89376193, rtol=1e-8)
    assert dR[0, 1] == 0


@pytest.mark.parametrize("v, rate", [(0.3, 1.6153868), (6, 6.1584826), (-40, 40.0249688)])
def test_the_rate_of_the_logit_of_a_uniform(v, rate):
    """At the logit that puts z at 1/2, where dz/dR is rate v / (4 temperature)."""
    noise = np.array([float(v)])
    z, dl, dR, _ = rule("concrete", noise, -lam(noise), np.eye(1), T, np.ones(1))
    close(z, [0.5], rtol=1e-12)
    close(dl, [0.5], rtol=1e-12)
    close(dR * 2 / v, [[rate]], rtol=0, atol=5e-8)  # the reference prints seven decimals


RULES = [
    (np.array([0.7, -1.3]), L, R, 0.5),
    (np.array([0.0, 0.0]), np.zeros(2), factor(-0.95), 0.3),
    (np.array([0.3, 1.2, -2.0]), L3, R3, 1.0),
    (np.array([-6.0, 5.0, 4.0]), np.array([8.0, -3.0, 0.0]), R3, 2.5),
    (np.array([1.7]), np.array([-0.4]), np.eye(1), 0.8),
]


@pytest.mark.parametrize("noise, logits, tril, t", RULES, ids=lambda a: str(np.shape(a)))
def test_rules_are_their_dense_jacobians(noise, logits, tril, t):
    """Oracle: NumPy's formula by central differences; a hard forward keeps it, but in t."""
    args, n = (logits, tril, np.float64(t)), len(noise)
    expected = []
    for k in range(3):
        at = lambda a, i, k=k: concrete(
            noise, *args[:k], np.tril(a) if k == 1 else a, *args[k + 1 :]
        )[i]
        expected.append([central(lambda a, i=i: at(a, i), args[k]) for i in range(n)])  # noqa: B023
    for name in ("concrete", "straight_through"):
        z, *rows = zip(*(rule(name, noise, *args, g) for g in np.eye(n)), strict=True)
        if name == "concrete":
            close(z[0], concrete(noise, *args), rtol=1e-11)
            close(rows[2], expected[2], rtol=1e-7, atol=1e-9)
        else:
            assert np.array_equal(z[0], logits + lam(tril @ noise) > 0)
            assert np.all(np.asarray(rows[2]) == 0)
        close(rows[0], expected[0], rtol=1e-7, atol=1e-9)
        close(rows[1], expected[1], rtol=1e-7, atol=1e-9)
        assert np.all(np.asarray(rows[1])[:, *np.triu_indices(n, 1)] == 0)


def test_a_batch_sums_into_the_factor():
    rng = np.random.default_rng(0)
    noise, logits, g = rng.normal(size=(3, 4, 3))
    for name in ("concrete", "straight_through"):
        z, dl, dR, dt = rule(name, noise, logits, R3, T, g)
        rows = [rule(name, noise[i], logits[i], R3, T, g[i]) for i in range(4)]
        close(z, [row[0] for row in rows], rtol=1e-13)
        close(dl, [row[1] for row in rows], rtol=1e-12)
        close(dR, np.sum([row[2] for row in rows], axis=0), rtol=1e-12)
        close(dt, np.sum([row[3] for row in rows]), rtol=1e-12)


def test_expected_gradient_of_a_product():
    """Oracle: the reference's Monte Carlo mean of straight-through's gradient for f = b1 b2."""
    noise = np.random.default_rng(1).normal(size=(400_000, 2))
    b, *_ = rule("straight_through", noise, np.tile(L, (400_000, 1)), R, T, noise)
    g = np.asarray(b)[:, ::-1]
    _, dl, *_ = rule("straight_through", noise, np.tile(L, (400_000, 1)), R, T, g)
    own = np.std(dl, axis=0) / np.sqrt(400_000)
    assert np.all(
        np.abs(np.mean(dl, axis=0) - np.array([0.07178, 0.14375])) < 5.5 * np.hypot(own, 1e-4)
    )


def test_second_derivatives_of_relaxed_bits():
    """Oracle: central differences of the first derivatives, in logits, factor and temperature."""
    weights = np.array([1.0, -2.0, 0.5])

    @jax.jit
    @jax.grad
    def gradient(a):
        tril = jnp.tril(a[3:12].reshape(3, 3))
        z = core("concrete", EPS3, a[:3], tril, a[12])
        return jnp.sum(weights * jnp.sin(2 * z))

    a = np.concatenate([L3, R3.ravel(), [0.6]])
    second = jax.jit(jax.jacrev(gradient))(a)
    for i, e in enumerate(1e-5 * np.eye(13)):
        expected = (gradient(a + e) - gradient(a - e)) / 2e-5
        close(second[:, i], expected, rtol=1e-7, atol=1e-8)


EPS3 = np.array([0.3, 1.2, -0.8])


def test_second_derivatives_apply_the_rule_to_the_bits():
    """Oracle: differences of the stated rule, with the draw's differential put in.

    With f(z) = <w, z>^2 / 2 the gradient is M(l)^T w <w, z>, M relaxed's Jacobian, diagonal; its
    total derivative is the partial one in l plus the partial one in z through M itself.
    """
    w, step = np.array([0.7, -1.1, 0.4]), 1e-5
    hard = functools.partial(core, "straight_through")
    second = jax.jit(
        jax.jacrev(jax.grad(lambda l: (hard(EPS3, l, R3, T) @ w) ** 2 / 2)),
    )(L3)

    def slope(l):
        z = concrete(EPS3, l, R3, T)
        return z * (1 - z) / T

    gradient = lambda z, l: slope(l) * w * (w @ z)
    b = np.asarray(hard(EPS3, L3, R3, T))
    for i, e in enumerate(step * np.eye(3)):
        up, down = (gradient(b + s * slope(L3) * e, L3 + s * e) for s in (1, -1))
        close(second[:, i], (up - down) / (2 * step), rtol=1e-7, atol=1e-9)


# ----------------------------------------------------------------------------- batches and dtypes


def test_batches_by_the_public_names():
    """Shape (40, 3) of logits (3, 2), a temperature a row: the rule at the noise of the draws."""
    rng = np.random.default_rng(2)
    logits, t = rng.normal(size=(40, 3, 2)), rng.uniform(0.7, 2, size=(40, 3))
    g = rng.normal(size=(40, 3, 2))

    @functools.partial(jax.jit, static_argnums=0)
    def both(name, logits, t):
        draw = lambda l, r, t: getattr(correlated, name)(KEY, l, r, temperature=t, shape=(40, 3))
        z, back = jax.vjp(draw, logits, R, t)
        return z, *back(g)

    z, dl, dR, dt = both("concrete", logits, t)
    assert z.shape == dl.shape == (40, 3, 2) and dt.shape == (40, 3)
    x, wide = np.asarray(z).reshape(-1, 2), t.reshape(-1, 1)
    v = normal_score(wide * logit(x) - logits.reshape(-1, 2))
    noise = linalg.solve_triangular(R, v.T, lower=True).T
    assert len(np.unique(noise)) == 240
    slope = x * (1 - x) / wide
    expected = g.reshape(-1, 2) * slope
    close(dl, expected.reshape(40, 3, 2), rtol=1e-10)
    close(dt, np.sum(-expected * logit(x), axis=-1).reshape(40, 3), rtol=1e-10)
    rate = stats.norm.pdf(v) / (ndtr(v) * ndtr(-v))
    close(dR, np.tril((expected * rate).T @ noise), rtol=1e-7, atol=1e-9)
    hard, hard_dl, hard_dR, hard_dt = both("straight_through", logits, t)
    assert set(np.unique(hard)) == {0.0, 1.0} and np.all(hard_dt == 0)
    assert hard_dl.shape == dl.shape and hard_dR[0, 1] == 0
    # Fewer parameters than draws, and a scalar temperature: sums of the above.
    tiled, full = np.broadcast_to(logits[0], (40, 3, 2)), np.full((40, 3), 0.8)
    for name in ("concrete", "straight_through"):
        many = both(name, tiled, full)
        few = both(name, logits[0], np.float64(0.8))
        close(few[0], many[0], rtol=1e-12)
        close(few[1], np.sum(many[1], axis=0), rtol=1e-10)
        close(few[2], many[2], rtol=1e-10)
        close(few[3], np.sum(many[3]), rtol=1e-10)
    for l, shape in ((L, ()), (L, (7,)), (L, None), (logits, None)):
        for sampler in (correlated.concrete, correlated.straight_through):
            z = jax.eval_shape(lambda l, f=sampler, s=shape: f(KEY, l, R, shape=s), l)
            assert z.shape == (*(l.shape[:-1] if shape is None else shape), 2)


def test_log_prob_of_a_batch():
    """Rows, with a temperature each, of a (2, 3) batch."""
    rng = np.random.default_rng(3)
    z, logits = rng.uniform(size=(2, 3, 3)), rng.normal(size=(2, 3, 3))
    t = rng.uniform(0.3, 2, size=(2, 3))
    values, scalar = log_prob(z, logits, R3, t), log_prob(z, logits, R3, t[0, 0])
    assert values.shape == scalar.shape == (2, 3)
    for i in np.ndindex(2, 3):
        close(values[i], density(z[i], logits[i], R3, t[i]), rtol=1e-10)
        close(scalar[i], density(z[i], logits[i], R3, t[0, 0]), rtol=1e-10)


def test_vmap_over_temperature_is_a_loop():
    """The draws, and a gradient in the factor."""

    def sweep(t):
        of = lambda f: lambda r: f(KEY, L, r, temperature=t)[1]
        samplers = correlated.concrete, correlated.straight_through
        return [x for f in samplers for x in jax.value_and_grad(of(f))(R)]

    temperatures, one = np.array([0.1, 0.5, 3.0]), jax.jit(sweep)
    swept = jax.jit(jax.vmap(sweep))(temperatures)
    loop = [one(t) for t in temperatures]
    for k, actual in enumerate(swept):
        close(actual, np.stack([values[k] for values in loop]), rtol=1e-11, atol=1e-14)
    assert all(not np.allclose(swept[k][0], swept[k][2]) for k in (0, 1, 3))


# -------------------------------------------------------------------------------------- the edges


def test_far_logits_are_sure():
    """0 and 1 exactly, with no gradient where they are infinite; the bit between them keeps its
    own. One NaN beside another bit leaves it as it is."""
    for f in (correlated.concrete, correlated.straight_through):

        @jax.jit
        def both(logits, f=f):
            z, back = jax.vjp(lambda l, r: f(KEY, l, r), logits, R3)
            return z, *back(jnp.ones(3))

        z, dl, dR = both(np.array([-np.inf, 0.3, np.inf]))
        assert z[0] == 0 and z[2] == 1 and np.isfinite(z[1])
        assert dl[0] == 0 and dl[2] == 0 and dl[1] > 0
        assert np.all(dR[0] == 0) and np.all(dR[2] == 0) and np.all(np.isfinite(dR))
        z, dl, dR = both(np.array([-1e4, 0.3, 1e4]))
        assert z[0] == 0 and z[2] == 1
        z, *_ = both(np.array([0.3, np.nan, 0.3]))
        assert np.array_equal(np.isnan(z), [False, True, False])


CALLS = {
    "concrete": lambda l, r, t: correlated.concrete(KEY, l, r, temperature=t),
    "straight_through": lambda l, r, t: correlated.straight_through(KEY, l, r, temperature=t),
    "concrete_log_prob": lambda l, r, t: correlated.concrete_log_prob(
        np.full(np.shape(l), 0.4), l, r, temperature=t
    ),
}
BAD_FACTORS = {
    "upper": R.T,
    "correlation": R @ R.T,
    "covariance": 2 * R,
    "long row": R * [[1], [1.002]],
    "short row": R * [[0.998], [1]],
    "nan": np.array([[1, 0], [np.nan, 0.8]]),
}


@pytest.mark.parametrize("name", CALLS)
def test_bad_factors(name):
    """NumPy raises, a jax.Array gives NaN, eagerly and in a trace; 5e-4 off passes as it is."""
    call = CALLS[name]
    traced = jax.jit(call)
    for bad in BAD_FACTORS.values():
        with pytest.raises(ValueError, match="(?s)^correlation_tril: got .*need"):
            call(L, bad, 0.5)
        assert np.any(np.isnan(traced(L, jnp.asarray(bad), 0.5)))
    assert np.any(np.isnan(call(L, jnp.asarray(BAD_FACTORS["upper"]), 0.5)))
    for shape in ((3, 3), (2, 3), (2,), (1, 1)):
        for module in (np, jnp):
            with pytest.raises(ValueError, match="(?s)^correlation_tril: got .*need"):
                call(L, module.ones(shape), 0.5)
    with pytest.raises(TypeError, match="(?s)^correlation_tril: got .*need"):
        call(L, np.eye(2, dtype=int), 0.5)
    for good in (R * 1.0005, R * 0.9995, NARROW):
        jax.eval_shape(lambda l, good=good: call(l, good, 0.5), L)  # NumPy does not raise
        assert np.all(np.isfinite(traced(L, jnp.asarray(good), 0.5)))


def test_a_factor_is_never_normalized():
    """Rows of norm 1.0005 scale the noise by 1.0005, and the density knows."""
    z, long = np.array([0.3, 0.8]), 1.0005 * R
    close(log_prob(z, L, long, T), density(z, L, long, T), rtol=1e-10)
    assert abs(density(z, L, long, T) - density(z, L, R, T)) > 1e-4
    one, two = (draw_concrete(KEY, L, r, temperature=T, shape=(50,)) for r in (R, long))
    noise = recovered(np.asarray(one), L, R, T)
    close(two, concrete(noise, L, long, T), rtol=1e-9)
