"""Gaussian routes to the simplex, against closed forms, quadrature and their laws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import SIGNIFICANCE, central, close, pullback, with_slopes
from scipy import stats
from scipy.special import expit, logit, softmax

from relaxjax import simplex

KEY = jax.random.key(0)
MEAN, SCALE = np.array([0.5, -0.2]), np.array([0.8, 1.3])  # the reference's Gaussian
Z = np.array([0.2, 0.5, 0.3])
SETTINGS = [(1.0, 1.0), (0.5, 2.0)]  # temperature, offset


def thorough(*values):
    return pytest.param(*values, marks=pytest.mark.thorough)


# Hyperparameters by position, and the slopes in all of them.
INVERTIBLE = with_slopes(
    lambda z, mean, scale, temperature, offset: simplex.invertible_gaussian_log_prob(
        z, mean, scale=scale, temperature=temperature, offset=offset
    )
)
LOGISTIC = with_slopes(
    lambda z, mean, scale, temperature: simplex.logistic_normal_log_prob(
        z, mean, scale=scale, temperature=temperature
    )
)
INVERTIBLE_KL = with_slopes(simplex.invertible_gaussian_kl)
LOGISTIC_KL = with_slopes(simplex.logistic_normal_kl)


def invertible_gaussian(noise, mean, scale, temperature, offset):
    """Temperature and offset: scalars, or with a trailing axis of 1."""
    x = (mean + scale * noise) / temperature
    last = np.broadcast_to(np.log(offset), (*x.shape[:-1], 1))
    return softmax(np.concatenate([x, last], -1), -1)


def logistic_normal(noise, mean, scale, temperature):
    return softmax((mean + scale * noise) / temperature, -1)


def log_density(z, mean, scale, temperature, offset):
    """By the Gaussian and a numeric determinant of the inverse in the first C - 1 coordinates."""
    inverse = lambda x: temperature * (np.log(x) - np.log(1 - np.sum(x)) + np.log(offset))
    matrix = [central(lambda x, i=i: inverse(x)[i], z[:-1]) for i in range(len(z) - 1)]
    gaussian = np.sum(stats.norm(mean, scale).logpdf(inverse(z[:-1])))
    return gaussian + np.linalg.slogdet(matrix)[1]


def jacobian(f, args, k):
    """df/dargs[k] of a NumPy formula, dense, by central differences."""
    at = lambda x: f(*args[:k], x, *args[k + 1 :])
    outputs = range(np.size(f(*args)))
    rows = [central(lambda x, i=i: np.ravel(at(x))[i], args[k]) for i in outputs]
    return np.reshape(rows, np.shape(f(*args)) + np.shape(args[k]))


# -------------------------------------------------------------------------------------- density


@pytest.mark.parametrize(
    "temperature, offset, expected", [(1.0, 1.0, 0.8394499024), (0.5, 2.0, -0.0462257752)]
)
def test_density_oracles(temperature, offset, expected):
    close(INVERTIBLE(Z, MEAN, SCALE, temperature, offset)[0], expected, rtol=1e-8)


@pytest.mark.parametrize(
    "temperature, offset, z, log_det",
    [
        (1.0, 1.0, (0.446946646, 0.221947136, 0.331106219), -3.415948158),
        (0.5, 2.0, (0.426581080, 0.105193599, 0.468225321), -2.476416933),
    ],
)
def test_core_and_log_det_oracles(temperature, offset, z, log_det):
    y = np.array([0.3, -0.4])
    t, o = np.float64(temperature), np.float64(offset)
    actual = simplex._invertible_gaussian((y - MEAN) / SCALE, MEAN, SCALE, t, o)
    close(actual, z, rtol=2e-8)
    log_prob, *_ = INVERTIBLE(actual, MEAN, SCALE, temperature, offset)
    close(np.sum(stats.norm(MEAN, SCALE).logpdf(y)) - log_prob, log_det, rtol=1e-9)


def simplex_grid():
    """Points of the simplex of three classes and their weights: each coordinate of the unit square
    by its own logit."""
    s, step = np.linspace(-40, 40, 401, retstep=True)
    u, w = expit(s), expit(s) * expit(-s) * step
    first, rest = np.broadcast_to(u[:, None], (401, 401)), expit(-s)[:, None]
    z = np.stack([first, rest * u, rest * expit(-s)], -1)
    return z.reshape(-1, 3), ((w * expit(-s))[:, None] * w).ravel()


def log_probs(density, z, mean, scale, *hyperparameters):
    mean, scale = (np.broadcast_to(x, (len(z), len(x))) for x in (mean, scale))
    return np.asarray(density(z, mean, scale, *hyperparameters)[0])


@pytest.mark.parametrize("temperature, offset", [*SETTINGS, (2.0, 0.3)])
def test_density_integrates_to_one(temperature, offset):
    """Oracle: 2-D quadrature, C = 3."""
    z, w = simplex_grid()
    log_p = log_probs(INVERTIBLE, z, MEAN, SCALE, temperature, offset)
    assert w @ np.exp(log_p) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("temperature, offset", SETTINGS)
def test_density_and_its_gradients(temperature, offset):
    """Oracle: a numeric determinant; z along the simplex, where alone the density is defined."""
    args = (MEAN, SCALE, np.float64(temperature), np.float64(offset))
    value, *actual = INVERTIBLE(Z, *args)
    close(value, log_density(Z, *args), rtol=1e-7)

    # The determinant by hand from here on, checked above: differences of differences are coarse.
    def formula(z, mean, scale, temperature, offset):
        y = temperature * (np.log(z[:-1]) - np.log(z[-1]) + np.log(offset))
        gaussian = np.sum(-(((y - mean) / scale) ** 2) / 2 - np.log(scale * np.sqrt(2 * np.pi)))
        return gaussian + (len(z) - 1) * np.log(temperature) - np.sum(np.log(z))

    close(value, formula(Z, *args), rtol=1e-13)
    tangents = np.array([[1, 0, -1], [0, 1, -1.0]])
    close(tangents @ actual[0], tangents @ jacobian(formula, (Z, *args), 0), rtol=1e-8)
    for k in range(1, 5):
        close(actual[k], jacobian(formula, (Z, *args), k), rtol=1e-8, atol=1e-9)


def test_density_of_two_classes_is_the_logit_normal():
    """Oracle: the cdf of z_1 is Phi((temperature (logit z_1 + log offset) - mean) / scale)."""
    x = np.linspace(0.01, 0.99, 50)
    temperature, offset, mean, scale = 0.5, 2.0, 0.5, 0.8
    expected = stats.norm(mean, scale).logpdf(temperature * (logit(x) + np.log(offset)))
    expected += np.log(temperature / (x * (1 - x)))
    z = np.stack([x, 1 - x], -1)
    actual, *_ = INVERTIBLE(z, np.full((50, 1), mean), scale, temperature, offset)
    assert actual.shape == (50,)
    close(actual, expected, rtol=1e-11)


def ratios_log_density(z, mean, scale, temperature):
    """Of the logistic-normal: scipy's dense Gaussian of the log-ratios to the last class, by the
    slope of these in the other entries of z."""
    A = np.eye(len(mean))[:-1] - np.eye(len(mean))[-1]
    covariance = A @ np.diag(np.broadcast_to(scale, len(mean)) ** 2) @ A.T / temperature**2
    gaussian = stats.multivariate_normal(A @ mean / temperature, covariance)
    return gaussian.logpdf(np.log(z) @ A.T) - np.sum(np.log(z), axis=-1)


MEAN3, SCALE3 = np.array([0.5, -0.2, 1.1]), np.array([0.8, 1.3, 0.5])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
@pytest.mark.parametrize("scale", [SCALE3, np.float64(0.7)], ids=["scales", "scale"])
def test_logistic_normal_density(scale, temperature):
    """Oracle: scipy's dense Gaussian; z along the simplex, where alone the density is defined."""
    args = Z, MEAN3, scale, np.float64(temperature)
    value, *actual = LOGISTIC(*args)
    close(value, ratios_log_density(*args), rtol=1e-12)
    tangents = np.array([[1, 0, -1], [0, 1, -1.0]])
    expected = [jacobian(ratios_log_density, args, k) for k in range(4)]
    close(tangents @ actual[0], tangents @ expected[0], rtol=1e-7)
    for k in range(1, 4):
        close(actual[k], expected[k], rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_logistic_normal_density_integrates_to_one(temperature):
    z, w = simplex_grid()
    log_p = log_probs(LOGISTIC, z, MEAN3, SCALE3, temperature)
    assert w @ np.exp(log_p) == pytest.approx(1, abs=1e-6)


def test_logistic_normal_density_with_a_mask():
    """That of the other classes; -inf where z holds the masked one; one class is sure."""
    of = lambda z, mean: LOGISTIC(np.array(z), np.array(mean), 0.7, 0.5)
    value, *slopes = of([0.2, 0, 0.8], [0.3, -np.inf, -1.0])
    expected, *kept = of([0.2, 0.8], [0.3, -1.0])
    close(value, expected, rtol=1e-12)
    for a, b in zip(slopes, kept, strict=True):
        close(np.delete(a, 1) if np.ndim(a) else a, b, rtol=1e-11)
    assert of([0.2, 0.3, 0.5], [0.3, -np.inf, -1.0])[0] == -np.inf
    assert of([0.0, 1.0], [-np.inf, 0.3])[0] == 0


def test_log_probs_of_own_draws():
    """Of the very draws of the sampler. Oracle: the density at the draw, and its derivatives
    through the draw; with a mask, and a scale an entry."""
    rng = np.random.default_rng(3)
    mean, scale = rng.normal(size=(20, 3)), rng.uniform(0.5, 1.5, size=(20, 3))
    t, o = rng.uniform(0.5, 2, size=(2, 20))
    masked = np.where(np.arange(60).reshape(20, 3) % 8 == 1, -np.inf, mean)
    cases = {
        "invertible_gaussian": (mean, dict(scale=scale, temperature=t, offset=o)),
        "logistic_normal": (masked, dict(scale=scale, temperature=t)),
    }

    @jax.jit
    def both(cases):
        results = {}
        for name, args in cases.items():
            sample, log_prob, together = (
                getattr(simplex, name + end) for end in ("", "_log_prob", "_and_log_prob")
            )
            at_z = lambda mean, h, f=sample, g=log_prob: g(f(KEY, mean, **h), mean, **h)
            value, back = jax.vjp(lambda mean, h, f=together: f(KEY, mean, **h)[1], *args)
            expected, expected_back = jax.vjp(at_z, *args)
            draws = together(KEY, args[0], **args[1])[0], sample(KEY, args[0], **args[1])
            ones = jnp.ones(20)
            results[name] = draws, (value, back(ones)), (expected, expected_back(ones))
        return results

    for (z, alone), actual, expected in both(cases).values():
        assert np.array_equal(z, alone)
        for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
            close(a, b, rtol=1e-7, atol=1e-8)


# ------------------------------------------------------------------------------------------- KL


def gaussian_kl(mean_q, scale_q, mean_p, scale_p):
    """By Gauss-Hermite quadrature, which is exact for a quadratic, of each coordinate."""
    x, w = np.polynomial.hermite_e.hermegauss(8)
    y = (mean_q + np.multiply.outer(x, scale_q)).reshape(8, -1)
    ratio = stats.norm(mean_q, scale_q).logpdf(y) - stats.norm(mean_p, scale_p).logpdf(y)
    return np.sum(w @ ratio) / np.sum(w)


def test_kl():
    ones = np.ones(2)
    close(INVERTIBLE_KL(MEAN, SCALE, 0 * MEAN, ones)[0], 0.2707792868, rtol=1e-9)
    args = (MEAN, SCALE, np.array([-0.7, 0.4]), np.array([0.5, 2.0]))
    value, *gradients = INVERTIBLE_KL(*args)
    close(value, gaussian_kl(*args), rtol=1e-10)
    assert INVERTIBLE_KL(MEAN, SCALE, MEAN, SCALE)[0] == 0
    closed = lambda m, s, n, t: np.sum(np.log(t / s) + (s**2 + (m - n) ** 2) / (2 * t**2) - 0.5)
    close(closed(*args), gaussian_kl(*args), rtol=1e-10)
    for k in range(4):
        close(gradients[k], jacobian(closed, args, k), rtol=1e-8)


@pytest.mark.parametrize("temperature, offset", SETTINGS)
def test_kl_is_that_of_the_densities_on_the_simplex(temperature, offset):
    """Oracle: E_q[log q(z) - log p(z)] by Gauss-Hermite, exact for a quadratic."""
    x, w = np.polynomial.hermite_e.hermegauss(8)
    noise = np.stack(np.meshgrid(x, x), -1).reshape(-1, 2)
    w = np.outer(w, w).ravel() / np.sum(w) ** 2
    z = invertible_gaussian(noise, MEAN, SCALE, temperature, offset)
    other = np.array([-0.7, 0.4]), np.array([0.5, 2.0])
    log_q, log_p = (
        log_probs(INVERTIBLE, z, *law, temperature, offset) for law in ((MEAN, SCALE), other)
    )
    close(w @ (log_q - log_p), INVERTIBLE_KL(MEAN, SCALE, *other)[0], rtol=1e-10)


def test_kl_of_a_batch():
    """Scales as scalars, by batch and whole; a row of the batch is a KL."""
    rng = np.random.default_rng(0)
    m, n = rng.normal(size=(2, 3, 3, 2))  # a batch of (3, 3): no shape fits by accident
    whole, rows = rng.uniform(0.5, 2, size=(3, 3, 2)), rng.uniform(0.5, 2, size=(3, 3))
    actual, *_ = INVERTIBLE_KL(m, whole, n, rows)
    assert actual.shape == (3, 3)
    for i in np.ndindex(3, 3):
        close(actual[i], gaussian_kl(m[i], whole[i], n[i], np.full(2, rows[i])), rtol=1e-9)
    actual, *_ = INVERTIBLE_KL(m, 0.8, n, whole)
    for i in np.ndindex(3, 3):
        close(actual[i], gaussian_kl(m[i], np.full(2, 0.8), n[i], whole[i]), rtol=1e-9)


def ratios_kl(mean_q, scale_q, mean_p, scale_p):
    """Of two logistic-normals: the dense Gaussians of the log-ratios to the last class."""
    A = np.eye(len(mean_q))[:-1] - np.eye(len(mean_q))[-1]
    of = lambda scale: A @ np.diag(np.broadcast_to(scale, len(mean_q)) ** 2) @ A.T
    inverse, shift = np.linalg.inv(of(scale_p)), A @ (mean_p - mean_q)
    trace = np.trace(inverse @ of(scale_q)) + shift @ inverse @ shift - len(shift)
    return (trace + np.linalg.slogdet(of(scale_p))[1] - np.linalg.slogdet(of(scale_q))[1]) / 2


def test_logistic_normal_kl():
    """Oracle: dense matrices, and their central differences; a shift of a mean changes nothing."""
    args = MEAN3, SCALE3, np.array([-0.7, 0.4, 0.1]), np.array([0.5, 2.0, 1.0])
    value, *gradients = LOGISTIC_KL(*args)
    close(value, ratios_kl(*args), rtol=1e-11)
    for k in range(4):
        close(gradients[k], jacobian(ratios_kl, args, k), rtol=1e-7, atol=1e-9)
    close(LOGISTIC_KL(args[0] + 3.0, *args[1:])[0], value, rtol=1e-11)
    close(LOGISTIC_KL(*args[:2], *args[:2])[0], 0, atol=1e-14)
    assert LOGISTIC_KL(args[0][:1], 0.5, args[2][:1], 2.0)[0] == 0  # one class is sure


def test_logistic_normal_kl_of_a_batch():
    """Scales as scalars, by batch and whole."""
    rng = np.random.default_rng(0)
    m, n = rng.normal(size=(2, 3, 3, 4))
    whole, rows = rng.uniform(0.5, 2, size=(3, 3, 4)), rng.uniform(0.5, 2, size=(3, 3))
    for scale_q, scale_p in ((whole, rows), (np.float64(0.8), whole)):
        actual, *_ = LOGISTIC_KL(m, scale_q, n, scale_p)
        assert actual.shape == (3, 3)
        at = lambda s, i: s[i] if s.ndim else s
        for i in np.ndindex(3, 3):
            close(actual[i], ratios_kl(m[i], at(scale_q, i), n[i], at(scale_p, i)), rtol=1e-10)


# ----------------------------------------------------------------------------------------- laws


@pytest.mark.parametrize(
    "temperature, offset, dtype",
    [
        (0.5, 2.0, "float32"),
        *(thorough(*case) for case in ((0.5, 2.0, "float64"), (1.0, 1.0, "float32"))),
        thorough(1.0, 1.0, "float64"),
    ],
)
def test_invertible_gaussian_has_its_law(temperature, offset, dtype):
    """Every log-ratio to the last class is its own Gaussian, and independent of the others."""
    n = 200_000
    mean = jnp.asarray([0.5, -0.25, 1.0], dtype)
    scale = jnp.asarray([0.75, 1.25, 0.5], dtype)
    args = dict(scale=scale, temperature=temperature, offset=offset)
    draw = jax.jit(functools.partial(simplex.invertible_gaussian, shape=(n,)))
    z = draw(jax.random.key(1), mean, **args)
    assert z.dtype == dtype and z.shape == (n, 4)
    z = np.asarray(z, float)
    close(z.sum(-1), 1, rtol=1e-6 if dtype == "float32" else 1e-14)
    y = temperature * (np.log(z[:, :-1]) - np.log(z[:, -1:]) + np.log(offset))
    eps = (y - np.asarray(mean, float)) / np.asarray(scale, float)
    for i in range(3):
        assert stats.kstest(eps[:, i], stats.norm.cdf).pvalue > SIGNIFICANCE
    correlation = np.corrcoef(eps, rowvar=False) - np.eye(3)
    assert np.abs(correlation).max() < 5 / np.sqrt(n)


@pytest.mark.parametrize("dtype", ["float32", thorough("float64")])
def test_logistic_normal_has_its_law(dtype):
    """Every log-ratio is Gaussian with the variances of both its classes: unshared noise."""
    n, temperature = 200_000, 0.5
    mean, scale = np.array([0.5, -0.25, 1.0]), np.array([0.75, 1.25, 0.5])
    draw = jax.jit(functools.partial(simplex.logistic_normal, shape=(n,)))
    args = jnp.asarray(mean, dtype), jnp.asarray(scale, dtype)
    z = draw(jax.random.key(2), args[0], scale=args[1], temperature=temperature)
    assert z.dtype == dtype and z.shape == (n, 3)
    log_z = np.log(np.asarray(z, float))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        law = stats.norm(
            (mean[i] - mean[j]) / temperature, np.hypot(scale[i], scale[j]) / temperature
        )
        assert stats.kstest(log_z[:, i] - log_z[:, j], law.cdf).pvalue > SIGNIFICANCE


@pytest.mark.parametrize("n", [20_000, thorough(1_000_000)])
@pytest.mark.parametrize("sampler", ["invertible_gaussian", "logistic_normal"])
def test_no_nan_in_cold_draws(sampler, n):

    @jax.jit
    def worst(mean):
        z, back = jax.vjp(
            lambda m: getattr(simplex, sampler)(jax.random.key(5), m, temperature=0.01, shape=(n,)),
            mean,
        )
        return jnp.all(jnp.isfinite(z)), jnp.max(jnp.abs(z.sum(-1) - 1)), back(jnp.ones_like(z))[0]

    finite, error, gradient = worst(jnp.asarray([0.3, -0.1], jnp.float32))
    assert finite and error < 1e-6 and np.all(np.isfinite(gradient))


# --------------------------------------------------------------------------------- expectations


def test_expectation_of_the_invertible_gaussian():
    """Oracle: the reference, C = 2; the rule against differences of the expectation."""
    noise, dx = np.linspace(-12, 12, 4001, retstep=True)
    w = stats.norm.pdf(noise) * dx
    args = (0.5, 0.8, 0.5, 2.0)
    full = [np.full((4001, 1), a) for a in args]
    core = functools.partial(simplex._invertible_gaussian, noise[:, None])
    cotangent = jnp.stack([jnp.asarray(w), jnp.zeros(4001)], -1)
    z, gradients = jax.jit(lambda *a: (core(*a), pullback(core, *a)(cotangent)))(*full)
    close(w @ np.asarray(z)[:, 0], 0.5523884901, rtol=1e-9)
    expectation = lambda m, s, t, o: w @ expit((m + s * noise) / t - np.log(o))
    for k, actual in enumerate(gradients):
        close(np.sum(actual), jacobian(expectation, args, k), rtol=1e-8)


def test_expectation_of_the_logistic_normal():
    """Oracle: the reference, C = 2, by a 2-D grid; the rule against differences of it."""
    x, dx = np.linspace(-9, 9, 301, retstep=True)
    noise = np.stack(np.meshgrid(x, x), -1).reshape(-1, 2)
    w = np.prod(stats.norm.pdf(noise), -1) * dx**2
    n = len(noise)
    full = [np.broadcast_to(a, (n, 2)) for a in (MEAN, SCALE)] + [np.full((n, 1), 0.5)]
    core = functools.partial(simplex._logistic_normal, noise)
    cotangent = jnp.stack([jnp.asarray(w), jnp.zeros(n)], -1)
    z, gradients = jax.jit(lambda *a: (core(*a), pullback(core, *a)(cotangent)))(*full)
    close(w @ np.asarray(z)[:, 0], 0.6545085251, rtol=1e-9)
    # The difference of the two is one Gaussian.
    line, step = np.linspace(-12, 12, 4001, retstep=True)
    density = stats.norm.pdf(line) * step

    def expectation(mean, scale, temperature):
        y = (mean[0] - mean[1] + np.hypot(*scale) * line) / temperature
        return density @ expit(y)

    for k, actual in enumerate(gradients):
        total = np.sum(actual, 0 if k < 2 else None)
        close(total, jacobian(expectation, (MEAN, SCALE, 0.5), k), rtol=1e-7)


# ---------------------------------------------------------------------------------------- rules

RNG = np.random.default_rng(0)
NOISE = RNG.normal(size=(2, 3))
MEANS, SCALES = RNG.normal(size=(2, 3)), RNG.uniform(0.4, 1.5, size=(2, 3))
SCALAR = (np.float64(0.6), np.float64(1.7))
ROWS = (np.array([[0.4], [1.5]]), np.array([[0.5], [2.5]]))
CORES = [
    (simplex._invertible_gaussian, invertible_gaussian, (MEANS, SCALES, *SCALAR)),
    (simplex._invertible_gaussian, invertible_gaussian, (MEANS, SCALES, *ROWS)),
    (simplex._logistic_normal, logistic_normal, (MEANS, SCALES, SCALAR[0])),
    (simplex._logistic_normal, logistic_normal, (MEANS, SCALES, ROWS[0])),
]
IDS = ["invertible-scalar", "invertible-rows", "logistic-scalar", "logistic-rows"]


@pytest.mark.parametrize("core, formula, args", CORES, ids=IDS)
def test_rules_are_dense_jacobians(core, formula, args):
    """Oracle: NumPy at fixed noise by central differences; in every real argument."""
    close(core(NOISE, *args), formula(NOISE, *args), rtol=1e-14)
    shape = np.shape(formula(NOISE, *args))
    pulled = jax.jit(jax.vmap(lambda g: pullback(lambda *a: core(NOISE, *a), *args)(g)))
    size = np.prod(shape)
    dense = pulled(np.eye(size).reshape(size, *shape))
    for k, rows in enumerate(dense):
        expected = jacobian(lambda *a: formula(NOISE, *a), args, k)
        rows = np.reshape(rows, shape + np.shape(args[k]))
        close(rows, expected, rtol=1e-8, atol=1e-9)
    # The cotangent is the rule's linear argument: not its sign, not its square.
    g = np.arange(1.0, 1 + size).reshape(2, -1) * [[1], [-1]]
    for k, cotangent in enumerate(pulled(g[None])):
        expected = np.tensordot(g.ravel(), np.asarray(dense[k]), 1)
        close(cotangent[0], expected, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("core, formula, args", CORES, ids=IDS)
def test_second_derivatives(core, formula, args):
    """Oracle: central differences of the first derivatives."""
    weights = np.arange(1.0, 1 + np.size(formula(NOISE, *args))).reshape(2, -1)
    sizes = np.cumsum([np.size(a) for a in args])[:-1]
    split = lambda a: [
        x.reshape(np.shape(b)) for x, b in zip(jnp.split(a, sizes), args, strict=True)
    ]
    gradient = jax.jit(jax.grad(lambda a: jnp.sum(weights * jnp.sin(2 * core(NOISE, *split(a))))))
    a = np.concatenate([np.ravel(x) for x in args])
    actual = jax.jit(jax.jacrev(gradient))(a)
    step = 1e-5
    for i, e in enumerate(np.eye(len(a)) * step):
        expected = (gradient(a + e) - gradient(a - e)) / (2 * step)
        close(actual[:, i], expected, rtol=1e-7, atol=2e-8)


def test_a_saturated_draw_keeps_its_gradients():
    """In float32 z is exactly 0 and 1 there, but the last class still has its slope."""
    noise, one = jnp.zeros(1, jnp.float32), jnp.ones(1, jnp.float32)
    t = jnp.asarray(0.5, jnp.float32)
    z, back = jax.vjp(lambda m: simplex._invertible_gaussian(noise, m, one, t, one), 20 * one)
    assert z[0] == 1
    close(back(jnp.asarray([0, 1], jnp.float32))[0], -2 * np.exp(-40), rtol=1e-5, atol=0)


# ------------------------------------------------------------------------------------ the edges


def test_one_class_is_sure():
    """C = 1 of each law: mean of last axis 0 and 1."""
    z, *slopes = with_slopes(lambda m, s: simplex.logistic_normal(KEY, m, scale=s))(
        np.ones((4, 1)), 0.5
    )
    assert np.array_equal(z, np.ones((4, 1)))
    assert all(np.all(np.asarray(slope) == 0) for slope in slopes)
    empty = np.ones((4, 0))
    assert np.array_equal(simplex.invertible_gaussian(KEY, empty), np.ones((4, 1)))
    assert np.array_equal(INVERTIBLE(np.ones((4, 1)), empty, 1.0, 0.5, 2.0)[0], np.zeros(4))


def test_two_classes_are_a_sigmoid():
    """Oracle: the sigmoid of the same noise, that of mean 0 and scale 1."""
    draw = jax.jit(simplex.invertible_gaussian)
    plain = np.asarray(draw(KEY, np.zeros((50, 1))))
    noise = np.log(plain[:, :1]) - np.log(plain[:, 1:])
    z = np.asarray(draw(KEY, np.full((50, 1), 0.3), scale=0.7, temperature=0.4, offset=2.0))
    assert z.shape == (50, 2)
    close(z[:, :1], expit((0.3 + 0.7 * noise) / 0.4 - np.log(2)), rtol=1e-11)
    close(z.sum(-1), 1, rtol=1e-15)


@pytest.mark.parametrize("sampler", ["invertible_gaussian", "logistic_normal"])
def test_a_scale_of_the_batch_shape_is_one_a_row(sampler):
    """Not one a class, where the last axis is as long; one of the whole shape is one an entry."""
    draw = jax.jit(lambda s: getattr(simplex, sampler)(KEY, np.zeros((2, 2)), scale=s))
    rows = draw(np.array([0.1, 3.0]))
    for i, scale in enumerate((0.1, 3.0)):
        close(rows[i], draw(scale)[i], rtol=1e-14)
    whole = draw(np.array([[0.1, 0.1], [3.0, 3.0]]))
    close(whole, rows, rtol=1e-14)
    columns = np.asarray(draw(np.array([[0.1, 3.0], [0.1, 3.0]])))
    assert not np.allclose(columns, rows)


@pytest.mark.parametrize("sampler", ["invertible_gaussian", "logistic_normal"])
def test_more_draws_than_scales(sampler):
    """shape broadcasts a scale of the shape of mean too, one an entry."""
    rng = np.random.default_rng(2)
    mean, scale = rng.normal(size=(4, 2)), rng.uniform(0.5, 2, size=(4, 2))
    t = np.linspace(0.5, 2, 4)

    @jax.jit
    def both(*args):
        draw = lambda m, s, t: getattr(simplex, sampler)(
            KEY, m, scale=s, temperature=t, shape=(50, 4)
        )
        z, back = jax.vjp(draw, *args)
        return z, *back(jnp.cumsum(jnp.ones_like(z), -1))

    z, *actual = both(mean, scale, t)
    expected = both(*(np.broadcast_to(a, (50, *a.shape)) for a in (mean, scale, t)))
    assert len(np.unique(z[..., 0])) == 200
    close(z, expected[0], rtol=1e-14)
    for a, b in zip(actual, expected[1:], strict=True):
        close(a, np.sum(b, 0), rtol=1e-11)
