"""Gaussian routes to the simplex, against closed forms, quadrature and their laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import SIGNIFICANCE, central, close, pullback
from scipy import integrate, stats
from scipy.special import expit, logit, softmax

from relaxjax import simplex

KEY = jax.random.key(0)
DTYPES = ["bfloat16", "float16", "float32", "float64"]
MEAN, SCALE = np.array([0.5, -0.2]), np.array([0.8, 1.3])  # the reference's Gaussian
Z = np.array([0.2, 0.5, 0.3])
SETTINGS = [(1.0, 1.0), (0.5, 2.0)]  # temperature, offset


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
    args = dict(temperature=temperature, offset=offset)
    close(simplex.invertible_gaussian_log_prob(Z, MEAN, scale=SCALE, **args), expected, rtol=1e-8)


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
    log_prob = simplex.invertible_gaussian_log_prob(
        actual, MEAN, scale=SCALE, temperature=temperature, offset=offset
    )
    close(np.sum(stats.norm(MEAN, SCALE).logpdf(y)) - log_prob, log_det, rtol=1e-9)


@pytest.mark.parametrize("temperature, offset", [*SETTINGS, (2.0, 0.3)])
def test_density_integrates_to_one(temperature, offset):
    """Oracle: 2-D quadrature, C = 3; each coordinate of the unit square by its own logit."""
    s = np.linspace(-40, 40, 401)
    u, w = expit(s), expit(s) * expit(-s) * (s[1] - s[0])
    first, rest = np.broadcast_to(u[:, None], (401, 401)), expit(-s)[:, None]
    z = np.stack([first, rest * u, rest * expit(-s)], -1)
    log_prob = jax.jit(
        lambda z: simplex.invertible_gaussian_log_prob(
            z,
            jnp.broadcast_to(MEAN, (*z.shape[:-1], 2)),
            scale=jnp.broadcast_to(SCALE, (*z.shape[:-1], 2)),
            temperature=temperature,
            offset=offset,
        )
    )
    total = np.sum(np.exp(log_prob(z)) * (w * expit(-s))[:, None] * w)
    assert total == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("temperature, offset", SETTINGS)
def test_density_and_its_gradients(temperature, offset):
    """Oracle: a numeric determinant; z along the simplex, where alone the density is defined."""
    args = (MEAN, SCALE, np.float64(temperature), np.float64(offset))
    log_prob = lambda z, m, s, t, o: simplex.invertible_gaussian_log_prob(
        z, m, scale=s, temperature=t, offset=o
    )
    close(log_prob(Z, *args), log_density(Z, *args), rtol=1e-7)

    # The determinant by hand from here on, checked above: differences of differences are coarse.
    def formula(z, mean, scale, temperature, offset):
        y = temperature * (np.log(z[:-1]) - np.log(z[-1]) + np.log(offset))
        gaussian = np.sum(-(((y - mean) / scale) ** 2) / 2 - np.log(scale * np.sqrt(2 * np.pi)))
        return gaussian + (len(z) - 1) * np.log(temperature) - np.sum(np.log(z))

    close(log_prob(Z, *args), formula(Z, *args), rtol=1e-13)
    actual = jax.grad(log_prob, (0, 1, 2, 3, 4))(Z, *args)
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
    actual = simplex.invertible_gaussian_log_prob(
        np.stack([x, 1 - x], -1),
        np.full((50, 1), mean),
        scale=scale,
        temperature=temperature,
        offset=offset,
    )
    assert actual.shape == (50,)
    close(actual, expected, rtol=1e-11)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("temperature", [0.01, 1e-3])
def test_own_draws_have_a_finite_density(dtype, temperature):
    """Full-shaped parameters, so that no sum of gradients rounds."""
    n = 10_000
    mean = jnp.broadcast_to(jnp.asarray([0.5, -0.25, 0.0], dtype), (n, 3))
    scale = jnp.full((n, 3), 1, dtype)
    t, offset = jnp.full(n, temperature, dtype), jnp.full(n, 1.5, dtype)
    z = simplex.invertible_gaussian(KEY, mean, scale=scale, temperature=t, offset=offset)
    assert z.dtype == dtype and np.any(np.asarray(z, float) < 1e-60)
    log_prob = lambda z, m, s, t, o: simplex.invertible_gaussian_log_prob(
        z, m, scale=s, temperature=t, offset=o
    )

    @jax.jit
    def both(*args):
        value, back = jax.vjp(log_prob, *args)
        return value, *back(jnp.ones_like(value))

    for x in both(z, mean, scale, t, offset):
        assert x.dtype == dtype and bool(jnp.all(jnp.isfinite(x)))


# ------------------------------------------------------------------------------------------- KL


def gaussian_kl(mean_q, scale_q, mean_p, scale_p):
    """By quadrature of each coordinate."""
    total = 0.0
    for m, s, n, t in zip(mean_q, scale_q, mean_p, scale_p, strict=True):
        q, p = stats.norm(m, s), stats.norm(n, t)
        integrand = lambda y, q=q, p=p: q.pdf(y) * (q.logpdf(y) - p.logpdf(y))
        total += integrate.quad(integrand, m - 12 * s, m + 12 * s, epsabs=1e-13, limit=200)[0]
    return total


def test_kl():
    ones = np.ones(2)
    close(simplex.invertible_gaussian_kl(MEAN, SCALE, 0 * MEAN, ones), 0.2707792868, rtol=1e-9)
    args = (MEAN, SCALE, np.array([-0.7, 0.4]), np.array([0.5, 2.0]))
    close(simplex.invertible_gaussian_kl(*args), gaussian_kl(*args), rtol=1e-10)
    assert simplex.invertible_gaussian_kl(MEAN, SCALE, MEAN, SCALE) == 0
    gradients = jax.grad(simplex.invertible_gaussian_kl, (0, 1, 2, 3))(*args)
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
        simplex.invertible_gaussian_log_prob(
            z,
            np.broadcast_to(m, z[:, 1:].shape),
            scale=np.broadcast_to(s, z[:, 1:].shape),
            temperature=temperature,
            offset=offset,
        )
        for m, s in ((MEAN, SCALE), other)
    )
    close(w @ (log_q - log_p), simplex.invertible_gaussian_kl(MEAN, SCALE, *other), rtol=1e-10)


def test_kl_of_a_batch():
    """Scales as scalars, by batch and whole; a row of the batch is a KL."""
    rng = np.random.default_rng(0)
    m, n = rng.normal(size=(2, 3, 3, 2))  # a batch of (3, 3): no shape fits by accident
    whole, rows = rng.uniform(0.5, 2, size=(3, 3, 2)), rng.uniform(0.5, 2, size=(3, 3))
    actual = simplex.invertible_gaussian_kl(m, whole, n, rows)
    assert actual.shape == (3, 3)
    for i in np.ndindex(3, 3):
        close(actual[i], gaussian_kl(m[i], whole[i], n[i], np.full(2, rows[i])), rtol=1e-9)
    actual = simplex.invertible_gaussian_kl(m, 0.8, n, whole)
    for i in np.ndindex(3, 3):
        close(actual[i], gaussian_kl(m[i], np.full(2, 0.8), n[i], whole[i]), rtol=1e-9)


# ----------------------------------------------------------------------------------------- laws


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("temperature, offset", SETTINGS)
def test_invertible_gaussian_has_its_law(temperature, offset, dtype):
    """Every log-ratio to the last class is its own Gaussian, and independent of the others."""
    n = 200_000
    mean = jnp.asarray([0.5, -0.25, 1.0], dtype)
    scale = jnp.asarray([0.75, 1.25, 0.5], dtype)
    z = simplex.invertible_gaussian(
        jax.random.key(1), mean, scale=scale, temperature=temperature, offset=offset, shape=(n,)
    )
    assert z.dtype == dtype and z.shape == (n, 4)
    z = np.asarray(z, float)
    close(z.sum(-1), 1, rtol=1e-6 if dtype == "float32" else 1e-14)
    y = temperature * (np.log(z[:, :-1]) - np.log(z[:, -1:]) + np.log(offset))
    eps = (y - np.asarray(mean, float)) / np.asarray(scale, float)
    for i in range(3):
        assert stats.kstest(eps[:, i], stats.norm.cdf).pvalue > SIGNIFICANCE
    correlation = np.corrcoef(eps, rowvar=False) - np.eye(3)
    assert np.abs(correlation).max() < 5 / np.sqrt(n)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logistic_normal_has_its_law(dtype):
    """Every log-ratio is Gaussian with the variances of both its classes: unshared noise."""
    n, temperature = 200_000, 0.5
    mean, scale = np.array([0.5, -0.25, 1.0]), np.array([0.75, 1.25, 0.5])
    z = simplex.logistic_normal(
        jax.random.key(2),
        jnp.asarray(mean, dtype),
        scale=jnp.asarray(scale, dtype),
        temperature=temperature,
        shape=(n,),
    )
    assert z.dtype == dtype and z.shape == (n, 3)
    log_z = np.log(np.asarray(z, float))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        law = stats.norm(
            (mean[i] - mean[j]) / temperature, np.hypot(scale[i], scale[j]) / temperature
        )
        assert stats.kstest(log_z[:, i] - log_z[:, j], law.cdf).pvalue > SIGNIFICANCE


def test_defaults():
    """Scale 1, temperature 1 and offset 1."""
    mean = np.array([0.5, -0.2])
    explicit = simplex.invertible_gaussian(KEY, mean, scale=1.0, temperature=1.0, offset=1.0)
    assert np.array_equal(simplex.invertible_gaussian(KEY, mean), explicit)
    explicit = simplex.logistic_normal(KEY, mean, scale=1.0, temperature=1.0)
    assert np.array_equal(simplex.logistic_normal(KEY, mean), explicit)


def test_noise_is_independent():
    """Of entries, rows and successive draws of one call: correlations within 5 standard errors."""
    n = 100_000
    z = simplex.invertible_gaussian(jax.random.key(3), np.zeros((2, 3, 2)), shape=(n, 2, 3))
    y = (jnp.log(z[..., :-1]) - jnp.log(z[..., -1:])).reshape(n, 12)
    x = jnp.log(simplex.logistic_normal(jax.random.key(4), np.zeros((4, 2)), shape=(n, 4)))
    for draws in (np.asarray(y), np.asarray(x[..., 0] - x[..., 1])):
        eps = (draws - draws.mean(0)) / draws.std(0)
        correlation = eps.T @ eps / n
        assert np.abs(correlation - np.eye(len(correlation))).max() < 5 / np.sqrt(n)
        assert np.abs(eps[1:].T @ eps[:-1] / n).max() < 5 / np.sqrt(n)


@pytest.mark.parametrize("sampler", ["invertible_gaussian", "logistic_normal"])
def test_no_nan_in_a_million_cold_draws(sampler):
    n = 1_000_000

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
    z, back = jax.vjp(lambda *a: simplex._invertible_gaussian(noise[:, None], *a), *full)
    close(w @ np.asarray(z[:, 0]), 0.5523884901, rtol=1e-9)
    expectation = lambda m, s, t, o: w @ expit((m + s * noise) / t - np.log(o))
    cotangent = jnp.stack([jnp.asarray(w), jnp.zeros(4001)], -1)
    for k, actual in enumerate(back(cotangent)):
        close(np.sum(actual), jacobian(expectation, args, k), rtol=1e-8)


def test_expectation_of_the_logistic_normal():
    """Oracle: the reference, C = 2, by a 2-D grid; the rule against differences of it."""
    x, dx = np.linspace(-9, 9, 301, retstep=True)
    noise = np.stack(np.meshgrid(x, x), -1).reshape(-1, 2)
    w = np.prod(stats.norm.pdf(noise), -1) * dx**2
    n = len(noise)
    full = [np.broadcast_to(a, (n, 2)) for a in (MEAN, SCALE)] + [np.full((n, 1), 0.5)]
    z, back = jax.vjp(lambda *a: simplex._logistic_normal(noise, *a), *full)
    close(w @ np.asarray(z[:, 0]), 0.6545085251, rtol=1e-9)
    # The difference of the two is one Gaussian.
    line, step = np.linspace(-12, 12, 4001, retstep=True)
    density = stats.norm.pdf(line) * step

    def expectation(mean, scale, temperature):
        y = (mean[0] - mean[1] + np.hypot(*scale) * line) / temperature
        return density @ expit(y)

    cotangent = jnp.stack([jnp.asarray(w), jnp.zeros(n)], -1)
    for k, actual in enumerate(back(cotangent)):
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
    actual = jax.jacrev(lambda *a: core(NOISE, *a), tuple(range(len(args))))(*args)
    for k, rows in enumerate(actual):
        close(rows, jacobian(lambda *a: formula(NOISE, *a), args, k), rtol=1e-8, atol=1e-9)
    # The cotangent is the rule's linear argument: not its sign, not its square.
    g = np.arange(1.0, 1 + np.size(formula(NOISE, *args))).reshape(2, -1) * [[1], [-1]]
    for k, cotangent in enumerate(pullback(lambda *a: core(NOISE, *a), *args)(g)):
        close(cotangent, np.tensordot(g, np.asarray(actual[k]), 2), rtol=1e-10, atol=1e-13)


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
    z, back = jax.vjp(lambda m, s: simplex.logistic_normal(KEY, m, scale=s), np.ones((4, 1)), 0.5)
    assert np.array_equal(z, np.ones((4, 1)))
    assert all(np.all(np.asarray(g) == 0) for g in back(jnp.ones((4, 1))))
    empty = np.ones((4, 0))
    assert np.array_equal(simplex.invertible_gaussian(KEY, empty), np.ones((4, 1)))
    log_prob = simplex.invertible_gaussian_log_prob(
        np.ones((4, 1)), empty, scale=1.0, temperature=0.5, offset=2.0
    )
    assert np.array_equal(log_prob, np.zeros(4))


def test_two_classes_are_a_sigmoid():
    """Oracle: the sigmoid of the same noise, that of mean 0 and scale 1."""
    plain = simplex.invertible_gaussian(KEY, np.zeros((50, 1)))
    noise = np.log(plain[:, :1]) - np.log(plain[:, 1:])
    z = simplex.invertible_gaussian(
        KEY, np.full((50, 1), 0.3), scale=0.7, temperature=0.4, offset=2.0
    )
    assert z.shape == (50, 2)
    close(z[:, :1], expit((0.3 + 0.7 * noise) / 0.4 - np.log(2)), rtol=1e-11)
    close(z.sum(-1), 1, rtol=1e-15)


@pytest.mark.parametrize("dtype", DTYPES)
def test_everything_is_finite_at_the_extremes(dtype):
    mean = jnp.asarray([[1e4, -1e4], [0, 0], [-1e4, -1e4]], dtype)
    for sampler in (simplex.invertible_gaussian, simplex.logistic_normal):

        @jax.jit
        def both(scale, t, sampler=sampler):
            draw = lambda m, s, t: sampler(KEY, m, scale=s, temperature=t)
            z, back = jax.vjp(draw, mean, scale, t)
            return z, *back(jnp.cumsum(jnp.ones_like(z), -1))

        for temperature in (1e-3, 1.0, 1e3):
            for x in both(jnp.asarray(1, dtype), jnp.asarray(temperature, dtype)):
                assert x.dtype == dtype and bool(jnp.all(jnp.isfinite(x)))


@pytest.mark.optimized
@pytest.mark.parametrize(
    "function",
    [
        lambda x: simplex.invertible_gaussian(KEY, x, scale=0.5, temperature=0.7, offset=2.0),
        lambda x: simplex.logistic_normal(KEY, x, scale=0.5, temperature=0.7),
        lambda x: simplex.invertible_gaussian_kl(x, 0.5, jnp.zeros_like(x), 2.0),
        lambda x: simplex.invertible_gaussian_log_prob(
            jnp.full((50, 3), 0.25, x.dtype), x, scale=0.5, temperature=0.7, offset=2.0
        ),
    ],
    ids=["invertible_gaussian", "logistic_normal", "kl", "log_prob"],
)
def test_one_rounding_at_the_end(function):
    """Oracle: the same call in float32, rounded; NaN stays NaN in its row."""
    for dtype in (jnp.bfloat16, jnp.float16):
        x = jnp.linspace(-1.5, 1.5, 100).reshape(50, 2).astype(dtype)
        value = function(x)
        assert value.dtype == dtype
        assert np.array_equal(value, function(x.astype(jnp.float32)).astype(dtype))
        assert jax.grad(lambda x: jnp.sum(function(x)))(x).dtype == dtype
    nan = np.isnan(function(x.at[0, 0].set(jnp.nan)).astype(jnp.float32))
    assert np.all(nan[0]) and not np.any(nan[1:])


def test_vmap_is_a_loop():
    """One key and many hyperparameters: values and gradients."""
    x = MEANS
    z, g = invertible_gaussian(NOISE, x, SCALES, 0.6, 1.7), np.arange(1.0, 9.0).reshape(2, 4)
    fixed = dict(scale=1.0, temperature=1.0, offset=1.0)

    def both(f, cotangent):
        y, back = jax.vjp(f, x)
        return y, back(jnp.asarray(cotangent))[0]

    sweeps = [
        (lambda m, a: simplex.invertible_gaussian(KEY, m, **a), ("scale", "temperature", "offset")),
        (lambda m, a: simplex.logistic_normal(KEY, m, **a), ("scale", "temperature")),
        (
            lambda m, a: simplex.invertible_gaussian_log_prob(z, m, **{**fixed, **a}),
            ("scale", "temperature", "offset"),
        ),
    ]
    for (f, names), cotangent in zip(sweeps, (g, g[:, :3], g[:, 0]), strict=True):
        for name in names:
            sweep = lambda v: both(lambda m: f(m, {name: v}), cotangent)  # noqa: B023
            swept, one = jax.jit(jax.vmap(sweep))(jnp.asarray([0.1, 0.5, 2.0])), jax.jit(sweep)
            for i, v in enumerate((0.1, 0.5, 2.0)):
                for a, b in zip(swept, one(jnp.asarray(v)), strict=True):
                    close(a[i], b, rtol=1e-11, atol=1e-14)
            assert not np.array_equal(swept[0][0], swept[0][2])


def test_batch_shaped_hyperparameters():
    """Row by row: what scalars there give under the same key; for the density a loop over rows."""
    batch = (3, 4)
    rng = np.random.default_rng(1)
    mean = rng.normal(size=(*batch, 2))
    scale, t, offset = rng.uniform(0.4, 2, size=(3, *batch))
    z = simplex.invertible_gaussian(KEY, mean, scale=scale, temperature=t, offset=offset)
    x = simplex.logistic_normal(KEY, mean, scale=scale, temperature=t)
    args = dict(scale=scale, temperature=t, offset=offset)
    log_prob = simplex.invertible_gaussian_log_prob(z, mean, **args)
    assert z.shape == (3, 4, 3) and log_prob.shape == batch
    for i in np.ndindex(batch):
        args = dict(scale=scale[i], temperature=t[i], offset=offset[i])
        close(z[i], simplex.invertible_gaussian(KEY, mean, **args)[i], rtol=1e-12)
        one = simplex.invertible_gaussian_log_prob(np.asarray(z[i]), mean[i], **args)
        close(log_prob[i], one, rtol=1e-12)
        del args["offset"]
        close(x[i], simplex.logistic_normal(KEY, mean, **args)[i], rtol=1e-12)


@pytest.mark.parametrize("sampler", ["invertible_gaussian", "logistic_normal"])
def test_a_scale_of_the_batch_shape_is_one_a_row(sampler):
    """Not one a class, where the last axis is as long; one of the whole shape is one an entry."""
    draw = lambda s: getattr(simplex, sampler)(KEY, np.zeros((2, 2)), scale=s)
    rows = draw(np.array([0.1, 3.0]))
    for i, scale in enumerate((0.1, 3.0)):
        close(rows[i], draw(scale)[i], rtol=1e-14)
    whole = draw(np.array([[0.1, 0.1], [3.0, 3.0]]))
    close(whole, rows, rtol=1e-14)
    columns = np.asarray(draw(np.array([[0.1, 3.0], [0.1, 3.0]])))
    assert not np.allclose(columns, rows)


@pytest.mark.parametrize("sampler", ["invertible_gaussian", "logistic_normal"])
def test_more_draws_than_parameters(sampler):
    """shape broadcasts parameters and hyperparameters, each draw has its noise."""
    rng = np.random.default_rng(2)
    mean, scale = rng.normal(size=(4, 2)), rng.uniform(0.5, 2, size=(4, 2))
    t = np.linspace(0.5, 2, 4)
    draw = lambda m, s, t: getattr(simplex, sampler)(KEY, m, scale=s, temperature=t, shape=(50, 4))
    z, back = jax.vjp(draw, mean, scale, t)
    full = [np.broadcast_to(a, (50, *a.shape)) for a in (mean, scale, t)]
    assert len(np.unique(z[..., 0])) == 200
    close(z, draw(*full), rtol=1e-14)
    g = jnp.cumsum(jnp.ones_like(z), -1)
    for actual, expected in zip(back(g), jax.vjp(draw, *full)[1](g), strict=True):
        close(actual, np.sum(expected, 0), rtol=1e-11)


# --------------------------------------------------------------------------------------- errors


def invertible(**changes):
    args = dict(scale=1.0, temperature=1.0, offset=1.0) | changes
    return simplex.invertible_gaussian(KEY, np.ones((3, 2)), **args)


def density(**changes):
    args = dict(scale=1.0, temperature=1.0, offset=1.0) | changes
    return simplex.invertible_gaussian_log_prob(np.full((3, 3), 1 / 3), np.ones((3, 2)), **args)


def logistic(**changes):
    return simplex.logistic_normal(KEY, np.ones((3, 2)), **changes)


def kl(**changes):
    args = dict(scale_q=1.0, scale_p=1.0) | changes
    mean = np.ones((3, 2))
    return simplex.invertible_gaussian_kl(mean, args["scale_q"], mean, args["scale_p"])


@pytest.mark.parametrize(
    "call, name",
    [(call, name) for call in (invertible, density) for name in ("scale", "temperature", "offset")]
    + [(logistic, "scale"), (logistic, "temperature"), (kl, "scale_q"), (kl, "scale_p")],
)
def test_bad_hyperparameters(call, name):
    for bad in (0, -1.0, np.array([1.0, -1.0, 1.0]), np.inf, np.nan):
        with pytest.raises(ValueError, match=f"^{name}: got .*need"):
            call(**{name: bad})
    with pytest.raises(ValueError, match=f"^{name}: got shape .*need"):
        call(**{name: np.ones(5)})
    assert np.all(np.isnan(call(**{name: jnp.asarray(-1.0)})))
    nan = np.isnan(call(**{name: jnp.asarray([1.0, -1.0, 1.0])})).reshape(3, -1)
    assert np.array_equal(nan.all(-1), [False, True, False])
    assert np.array_equal(nan.any(-1), [False, True, False])


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: simplex.invertible_gaussian(KEY, jnp.arange(3)), TypeError, "mean: got int"),
        (lambda: simplex.invertible_gaussian(KEY, 0.5), ValueError, "mean: got float"),
        (
            lambda: simplex.invertible_gaussian(KEY, np.ones((3, 2)), shape=(2,)),
            ValueError,
            "shape: got",
        ),
        (lambda: simplex.logistic_normal(KEY, jnp.arange(3)), TypeError, "mean: got int"),
        (lambda: simplex.logistic_normal(KEY, 0.5), ValueError, "mean: got float"),
        (
            lambda: simplex.logistic_normal(KEY, np.ones((3, 2)), shape=(2,)),
            ValueError,
            "shape: got",
        ),
        (
            lambda: simplex.invertible_gaussian_log_prob(
                np.ones(2), np.ones(2), scale=1.0, temperature=1.0, offset=1.0
            ),
            ValueError,
            "z: got shape",
        ),
        (
            lambda: simplex.invertible_gaussian_log_prob(
                np.arange(3), np.ones(2), scale=1.0, temperature=1.0, offset=1.0
            ),
            TypeError,
            "z: got int",
        ),
        (
            lambda: simplex.invertible_gaussian_kl(np.arange(2), 1.0, np.ones(2), 1.0),
            TypeError,
            "mean_q: got int",
        ),
        (
            lambda: simplex.invertible_gaussian_kl(np.ones(2), 1.0, np.arange(2), 1.0),
            TypeError,
            "mean_p: got int",
        ),
        (
            lambda: simplex.invertible_gaussian_kl(np.ones(2), 1.0, np.ones(3), 1.0),
            ValueError,
            "mean_[qp]: got shape",
        ),
    ],
)
def test_errors_name_the_argument(call, error, words):
    with pytest.raises(error, match=f"^{words}") as caught:
        call()
    assert "need" in str(caught.value)


@pytest.mark.parametrize("missing", ["scale", "temperature", "offset"])
def test_densities_have_no_defaults(missing):
    args = dict(scale=1.0, temperature=1.0, offset=1.0)
    del args[missing]
    with pytest.raises(TypeError, match="required keyword-only"):
        simplex.invertible_gaussian_log_prob(Z, MEAN, **args)
