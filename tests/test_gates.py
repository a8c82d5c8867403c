"""Gates with mass at exactly 0 and 1, against closed forms, quadrature and their laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import SIGNIFICANCE, central, close, of_noise, pullback
from scipy import stats
from scipy.special import expit, log_ndtr, logit

from relaxjax import gates

KEY = jax.random.key(0)
DTYPES = ["bfloat16", "float16", "float32", "float64"]
MEAN, SCALE = 0.3, 0.5  # the reference's gates
L, T, LOW, HIGH = 0.7, 2 / 3, -0.1, 1.1
HARD = dict(temperature=T, stretch=(LOW, HIGH))


def gaussian(noise, mean, scale):
    return np.clip(mean + scale * noise, 0, 1)


def hard_concrete(noise, logits, temperature, low, high):
    return np.clip(low + (high - low) * expit((logits + noise) / temperature), 0, 1)


def gaussian_log_prob(z, mean, scale):
    masses = log_ndtr(-mean / scale), log_ndtr((mean - 1) / scale)
    inside = stats.norm(mean, scale).logpdf(z)
    return np.where(z == 0, masses[0], np.where(z == 1, masses[1], inside))


def hard_concrete_log_prob(z, logits, temperature, low, high):
    """By the law of sbar, whose cdf is that of a logistic at temperature * logit(r)."""
    law = stats.logistic(logits)
    at = lambda r: temperature * logit(r)
    r = np.where((z == 0) | (z == 1), 0.5, (z - low) / (high - low))
    inside = law.logpdf(at(r)) + np.log(temperature / (r * (1 - r) * (high - low)))
    masses = law.logcdf(at(-low / (high - low))), law.logsf(at((1 - low) / (high - low)))
    return np.where(z == 0, masses[0], np.where(z == 1, masses[1], inside))


def jacobian(f, args, k):
    """df/dargs[k] of a NumPy formula, dense, by central differences."""
    at = lambda x: f(*args[:k], x, *args[k + 1 :])
    outputs = range(np.size(f(*args)))
    rows = [central(lambda x, i=i: np.ravel(at(x))[i], args[k]) for i in outputs]
    return np.reshape(rows, np.shape(f(*args)) + np.shape(args[k]))


def legendre(edges, n=300):
    """Nodes and weights of Gauss-Legendre on every piece between the edges."""
    x, w = np.polynomial.legendre.leggauss(n)
    halves = np.diff(edges)[:, None] / 2
    return ((edges[:-1] + edges[1:])[:, None] / 2 + halves * x).ravel(), (halves * w).ravel()


# ------------------------------------------------------------------------------------ densities


@pytest.mark.parametrize(
    "z, mean, expected, rtol",
    [
        (0.0, MEAN, -1.2937038116, 1e-10),
        (1.0, MEAN, -2.5163148530, 1e-10),
        (0.4, MEAN, -0.2457913526, 1e-9),
        (1.0, -10.0, -246.01203654, 1e-10),
        (-0.1, MEAN, -np.inf, 0),
        (1.1, MEAN, -np.inf, 0),
    ],
)
def test_gaussian_density_oracles(z, mean, expected, rtol):
    close(gates.gaussian_log_prob(z, mean, scale=SCALE), expected, rtol=rtol)


@pytest.mark.parametrize(
    "z, expected",
    [
        (0.0, np.log(0.0912392361)),
        (1.0, np.log(0.2893389308)),
        (0.4, -0.7660086537),
        (-0.01, -np.inf),
        (1.01, -np.inf),
    ],
)
def test_hard_concrete_density_oracles(z, expected):
    close(gates.hard_concrete_log_prob(z, L, **HARD), expected, rtol=2e-9)


@pytest.mark.parametrize("mean, scale", [(0.3, 0.5), (-3.0, 1.0), (0.98, 0.05), (2.0, 3.0)])
def test_gaussian_law_integrates_to_one(mean, scale):
    z, w = legendre(np.linspace(0, 1, 5))
    log_prob = jax.jit(lambda z: gates.gaussian_log_prob(z, jnp.full(z.shape, mean), scale=scale))
    assert w @ np.exp(log_prob(z)) + np.sum(np.exp(log_prob(np.array([0.0, 1])))) == pytest.approx(
        1, abs=1e-10
    )


@pytest.mark.parametrize(
    "logits, temperature, stretch",
    [(0.7, 2 / 3, (-0.1, 1.1)), (-1.2, 0.1, (-0.5, 1.01)), (0.3, 3.0, (-0.01, 2.0))],
)
def test_hard_concrete_law_integrates_to_one(logits, temperature, stretch):
    z, w = legendre(np.linspace(0, 1, 5))
    log_prob = jax.jit(
        lambda z: gates.hard_concrete_log_prob(
            z, jnp.full(z.shape, logits), temperature=temperature, stretch=stretch
        )
    )
    assert w @ np.exp(log_prob(z)) + np.sum(np.exp(log_prob(np.array([0.0, 1])))) == pytest.approx(
        1, abs=1e-10
    )


@pytest.mark.parametrize("z", [0.0, 0.02, 0.4, 0.95, 1.0])
def test_densities_and_their_gradients(z):
    """Oracle: scipy's normal and logistic laws, by central differences; z itself inside alone."""
    first = 0 if 0 < z < 1 else 1  # a point mass has no derivative in z
    log_prob = lambda z, m, s: gates.gaussian_log_prob(z, m, scale=s)
    for args in [(z, 0.3, 0.5), (z, -1.0, 0.4), (z, 1.5, 2.0)]:
        close(log_prob(*args), gaussian_log_prob(*args), rtol=1e-11)
        actual = jax.grad(log_prob, (0, 1, 2))(*args)
        for k in range(first, 3):
            close(actual[k], jacobian(gaussian_log_prob, args, k), rtol=2e-8, atol=1e-8)
        assert np.all(np.isfinite(actual))
    log_prob = lambda z, l, t, *stretch: gates.hard_concrete_log_prob(
        z, l, temperature=t, stretch=stretch
    )
    for args in [(z, 0.7, 2 / 3, -0.1, 1.1), (z, -2.0, 1.5, -0.4, 1.02)]:
        close(log_prob(*args), hard_concrete_log_prob(*args), rtol=1e-11)
        actual = jax.grad(log_prob, (0, 1, 2, 3, 4))(*args)
        for k in range(first, 5):
            close(actual[k], jacobian(hard_concrete_log_prob, args, k), rtol=2e-8, atol=1e-8)
        assert np.all(np.isfinite(actual))


@pytest.mark.parametrize("z", [-0.5, 0.0, 1.0, 1.5])
def test_the_branches_not_taken_leak_no_nan(z):
    """Extreme parameters, where another branch of the law overflows."""
    for mean in (-1e4, 1e4):
        gradients = jax.grad(lambda *a: gates.gaussian_log_prob(a[0], a[1], scale=a[2]), (0, 1, 2))(
            z, mean, 1e-3
        )
        assert np.all(np.isfinite(gradients))
    for logits in (-1e4, 1e4):
        value, gradients = jax.value_and_grad(
            lambda z, l, t: gates.hard_concrete_log_prob(
                z, l, temperature=t, stretch=(-1e-3, 1.001)
            ),
            (0, 1, 2),
        )(z, logits, 1e-3)
        assert np.all(np.isfinite(gradients))
        assert np.isfinite(value) == (0 <= z <= 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [0.01, 1e-3])
def test_own_draws_have_a_finite_density(dtype, width):
    """Of the width, scale or temperature; a full-shaped one, so that no sum of gradients rounds."""
    shape = (20, 1000)
    widths = jnp.full(shape, width, dtype)
    mean = jnp.broadcast_to(jnp.linspace(-0.01, 1.01, 1000).astype(dtype), shape)
    logits = jnp.broadcast_to(jnp.linspace(-5, 5, 1000).astype(dtype), shape)
    gaussian = lambda z, m, w: gates.gaussian_log_prob(z, m, scale=w)
    hard = lambda z, l, w: gates.hard_concrete_log_prob(z, l, temperature=w, stretch=(-0.1, 1.1))
    for log_prob, z, parameter in [
        (gaussian, gates.gaussian(KEY, mean, scale=width), mean),
        (hard, gates.hard_concrete(KEY, logits, temperature=width), logits),
    ]:
        assert np.any(z == 0) and np.any(z == 1) and np.any((z > 0) & (z < 1))

        @jax.jit
        def both(*args, log_prob=log_prob):
            value, back = jax.vjp(log_prob, *args)
            return value, *back(jnp.ones_like(value))

        for x in both(z, parameter, widths):
            assert x.dtype == dtype and bool(jnp.all(jnp.isfinite(x)))


# ------------------------------------------------------------------- probabilities, without noise


def test_active_probability_is_the_mass_above_zero():
    close(gates.gaussian_active_probability(MEAN, scale=SCALE), 0.7257468822, rtol=1e-9)
    close(gates.hard_concrete_active_probability(L, **HARD), 0.9087607639, rtol=1e-9)
    at = np.array([-15.0, -1.0, 0.3, 3.0])
    for scale in (0.5, 2.0):
        actual = gates.gaussian_active_probability(at, scale=scale)
        close(actual, stats.norm.cdf(at / scale), rtol=1e-9, atol=0)  # 5e-198 at -30
        close(actual, -np.expm1(gates.gaussian_log_prob(np.zeros(4), at, scale=scale)), atol=1e-14)
    for temperature, stretch in ((0.3, (-0.1, 1.1)), (2.0, (-0.5, 1.2))):
        args = dict(temperature=temperature, stretch=stretch)
        actual = gates.hard_concrete_active_probability(at, **args)
        expected = expit(at - temperature * np.log(-stretch[0] / stretch[1]))
        close(actual, expected, rtol=1e-12)
        close(actual, -np.expm1(gates.hard_concrete_log_prob(np.zeros(4), at, **args)), atol=1e-14)


def test_active_probability_has_its_gradients():
    actual = jax.grad(lambda m, s: gates.gaussian_active_probability(m, scale=s), (0, 1))(0.3, 0.5)
    formula = lambda m, s: stats.norm.cdf(m / s)
    for k in range(2):
        close(actual[k], jacobian(formula, (0.3, 0.5), k), rtol=1e-8)
    probability = lambda l, t, *stretch: gates.hard_concrete_active_probability(
        l, temperature=t, stretch=stretch
    )
    formula = lambda l, t, low, high: expit(l - t * np.log(-low / high))
    args = (0.7, 2 / 3, -0.1, 1.1)
    actual = jax.grad(probability, (0, 1, 2, 3))(*args)
    for k in range(4):
        close(actual[k], jacobian(formula, args, k), rtol=1e-7)


def test_deterministic_gates():
    mean = np.array([-2.0, 0.25, 0.9, 3.0])
    z, back = jax.vjp(gates.gaussian_deterministic, mean)
    assert np.array_equal(z, [0, 0.25, 0.9, 1])
    assert np.array_equal(back(jnp.full(4, 3.0))[0], [0, 3, 3, 0])
    close(gates.hard_concrete_deterministic(L, stretch=(LOW, HIGH)), 0.7018253266, rtol=1e-9)
    deterministic = lambda l, *stretch: gates.hard_concrete_deterministic(l, stretch=stretch)
    formula = lambda l, low, high: np.clip(low + (high - low) * expit(l), 0, 1)
    for l in (-1e4, -3.0, 0.7, 3.0, 1e4):
        args = (l, -0.1, 1.1)
        close(deterministic(*args), formula(*args), rtol=1e-13)
        actual = jax.grad(deterministic, (0, 1, 2))(*args)
        for k in range(3):
            # Far logits lose the step of a central difference: they are closed or open, all 0.
            expected = 0 if abs(l) > 2.5 else jacobian(formula, args, k)
            close(actual[k], expected, rtol=1e-8, atol=0)


# ----------------------------------------------------------------------------------------- laws


def assert_law(z, cdf):
    """Chi-squared on the two masses and the inside, Kolmogorov-Smirnov within."""
    z = z.astype(jnp.float64) if z.dtype == jnp.bfloat16 else z
    top = cdf(1 - float(jnp.finfo(z.dtype).epsneg) / 2)
    z = np.asarray(z, np.float64)
    assert np.all((z >= 0) & (z <= 1))
    inside = z[(z > 0) & (z < 1)]
    counts = [np.sum(z == 0), len(inside), np.sum(z == 1)]
    p = np.array([cdf(0.0), top - cdf(0.0), 1 - top])
    assert stats.chisquare(counts, p * z.size).pvalue > SIGNIFICANCE
    within = lambda x: (cdf(x) - p[0]) / p[1]
    assert stats.kstest(inside, within).pvalue > SIGNIFICANCE


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_laws(dtype):
    for mean, scale in ((0.3, 0.5), (0.9, 0.2), (-0.4, 1.5)):
        mean = jnp.asarray(mean, dtype)
        z = gates.gaussian(jax.random.key(1), mean, scale=scale, shape=(200_000,))
        assert z.dtype == dtype
        assert_law(z, stats.norm(float(mean), scale).cdf)
    for logits, temperature, (low, high) in (
        (0.7, 2 / 3, (-0.1, 1.1)),
        (-1.0, 0.2, (-0.5, 1.05)),
        (0.3, 2.0, (-0.2, 1.4)),
    ):
        logits = jnp.asarray(logits, dtype)
        z = gates.hard_concrete(
            jax.random.key(2),
            logits,
            temperature=temperature,
            stretch=(low, high),
            shape=(200_000,),
        )
        assert z.dtype == dtype
        cdf = lambda x: expit(
            temperature * logit((x - low) / (high - low)) - float(logits)  # noqa: B023
        )
        assert_law(z, cdf)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_masses_in_few_bits(dtype):
    """A draw within half a step of 1 rounds to 1, so the mass there is of all those."""
    n, top = 200_000, 1 - float(jnp.finfo(dtype).epsneg) / 2
    mean = jnp.asarray(0.5, dtype)
    logits = jnp.asarray(0.75, dtype)
    gaussian_cdf = stats.norm(0.5, 0.5).cdf
    hard_cdf = lambda x: expit(T * logit((x - LOW) / (HIGH - LOW)) - 0.75)
    for z, cdf in [
        (gates.gaussian(jax.random.key(3), mean, shape=(n,)), gaussian_cdf),
        (gates.hard_concrete(jax.random.key(4), logits, shape=(n,)), hard_cdf),
    ]:
        assert z.dtype == dtype
        z = np.asarray(z, float)
        counts = [np.sum(z == 0), np.sum((z > 0) & (z < 1)), np.sum(z == 1)]
        p = np.array([cdf(0.0), cdf(top) - cdf(0.0), 1 - cdf(top)])
        assert stats.chisquare(counts, n * p).pvalue > SIGNIFICANCE


GATES = {
    "gaussian": (gates.gaussian, 0.3),
    "hard_concrete": (gates.hard_concrete, 0.7),
}


@pytest.mark.parametrize(
    "name, value, gradient",
    [
        ("gaussian", 0.3660022948, 0.6449902230),
        ("hard_concrete", 0.6489936708, 0.2014013051),
    ],
)
def test_default_draws_have_the_expectations(name, value, gradient):
    """Scale 0.5; temperature 2/3 and stretch (-0.1, 1.1): 200,000 draws within 5.5 errors."""
    sampler, parameter = GATES[name]
    z, back = jax.vjp(lambda p: sampler(jax.random.key(5), p), np.full(200_000, parameter))
    for draws, expected in ((z, value), (back(jnp.ones(200_000))[0], gradient)):
        error = np.std(draws) / np.sqrt(200_000)
        assert abs(np.mean(draws) - expected) < 5.5 * error


@pytest.mark.parametrize("name", GATES)
def test_noise_is_independent(name):
    """Of entries, rows and successive draws of one call: correlations within 5 standard errors."""
    sampler, _ = GATES[name]
    n = 100_000
    z = np.asarray(sampler(jax.random.key(6), np.full((3, 4), 0.4), shape=(n, 3, 4)))
    flat = (z.reshape(n, 12) - z.mean()) / z.std()
    correlation = flat.T @ flat / n - np.eye(12)
    assert np.abs(correlation - np.diag(np.diag(correlation))).max() < 5 / np.sqrt(n)
    assert np.abs(flat[1:].T @ flat[:-1] / n).max() < 5 / np.sqrt(n)


# ---------------------------------------------------------------------------------------- rules

NOISE = np.array([-4.0, -0.9, -0.3, 0.2, 0.6, 1.1, 5.0])
GAUSSIAN_ARGS = (np.linspace(0.1, 0.9, 7), np.linspace(0.3, 0.9, 7))
HARD_ARGS = (
    np.linspace(-0.5, 1.0, 7),
    np.linspace(0.4, 2.0, 7),
    np.linspace(-0.4, -0.1, 7),
    np.linspace(1.05, 1.3, 7),
)


@pytest.mark.parametrize(
    "core, formula, args",
    [
        (gates._gaussian, gaussian, GAUSSIAN_ARGS),
        (of_noise(gates._hard_concrete), hard_concrete, HARD_ARGS),
    ],
    ids=["gaussian", "hard_concrete"],
)
def test_rules_are_dense_jacobians(core, formula, args):
    """Oracle: NumPy at fixed noise by central differences; some gates closed, some open."""
    value = core(NOISE, *args)
    close(value, formula(NOISE, *args), rtol=1e-14)
    assert {0.0, 1.0} < set(np.asarray(value))
    inside = (value > 0) & (value < 1)
    actual = jax.jacrev(lambda *a: core(NOISE, *a), tuple(range(len(args))))(*args)
    for k, rows in enumerate(actual):
        expected = jacobian(lambda *a: formula(NOISE, *a), args, k)
        close(rows, expected, rtol=1e-8, atol=1e-9)
        assert np.all(rows[~inside] == 0)
    # The cotangent is the rule's linear argument: not its sign, not its square.
    g = np.array([1.0, -2, 3, -4, 5, -6, 7])
    for k, cotangent in enumerate(pullback(lambda *a: core(NOISE, *a), *args)(g)):
        close(cotangent, g @ np.asarray(actual[k]), rtol=1e-13)


def test_core_oracle():
    args = tuple(np.float64(a) for a in (0.4, L, T, LOW, HIGH))
    close(of_noise(gates._hard_concrete)(*args), 0.9066692605, rtol=1e-9)
    _, dl, dt, *_ = pullback(of_noise(gates._hard_concrete), *args)(jnp.asarray(1.0))
    close(dl, 0.2432751407, rtol=1e-9)
    close(dt, -0.4014039822, rtol=1e-9)


FUNCTIONS = {
    "z": (lambda z: z, lambda z: np.ones_like(z)),
    "square": (lambda z: (z - 0.45) ** 2, lambda z: 2 * (z - 0.45)),
}


@pytest.mark.parametrize(
    "f, value, dmean, dscale",
    [
        ("z", 0.3660022948, 0.6449902230, 0.1834971373),
        ("square", None, -0.00999993, 0.18038787),
    ],
)
def test_gaussian_expectations(f, value, dmean, dscale):
    """Oracle: the reference; here the core and its rule by quadrature, split at the kinks."""
    kinks = [-MEAN / SCALE, (1 - MEAN) / SCALE]
    noise, w = legendre(np.array([-12, *kinks, 12]))
    w = w * stats.norm.pdf(noise)
    args = np.full(len(noise), MEAN), np.full(len(noise), SCALE)
    z, back = jax.vjp(lambda *a: gates._gaussian(noise, *a), *args)
    function, slope = FUNCTIONS[f]
    if value:
        close(w @ function(np.asarray(z)), value, rtol=2e-10)
    for actual, expected in zip(back(w * slope(np.asarray(z))), (dmean, dscale), strict=True):
        close(np.sum(actual), expected, rtol=1e-9, atol=1e-8 if f == "square" else 0)


@pytest.mark.once
def test_hard_concrete_expectations():
    """Oracle: the reference; for the stretch, differences of E[z] by the same quadrature."""

    def nodes(l, t, low, high):
        kinks = [t * logit((x - low) / (high - low)) - l for x in (0, 1)]
        noise, w = legendre(np.array([-45, -12, *kinks, 12, 45]))
        return noise, w * stats.logistic.pdf(noise)

    def expectation(*args):
        noise, w = nodes(*args)
        return w @ hard_concrete(noise, *args)

    args = (L, T, LOW, HIGH)
    noise, w = nodes(*args)
    z, back = jax.vjp(
        lambda *a: of_noise(gates._hard_concrete)(noise, *a),
        *(np.full(len(noise), a) for a in args),
    )
    close(w @ np.asarray(z), 0.6489936708, rtol=2e-10)
    actual = [float(np.sum(cotangent)) for cotangent in back(jnp.asarray(w))]
    close(actual[:2], [0.2014013051, -0.0487198291], rtol=2e-9)
    close(actual, [jacobian(expectation, args, k) for k in range(4)], rtol=1e-7)


@pytest.mark.parametrize(
    "core, args",
    [(gates._gaussian, GAUSSIAN_ARGS), (of_noise(gates._hard_concrete), HARD_ARGS)],
    ids=["gaussian", "hard_concrete"],
)
def test_second_derivatives(core, args):
    """Oracle: central differences of the first derivatives."""
    weights = np.arange(1.0, 8.0)
    gradient = jax.jit(jax.grad(lambda a: jnp.sum(weights * jnp.sin(2 * core(NOISE, *a)))))
    a = np.stack(args)
    actual = jax.jit(jax.jacrev(gradient))(a)
    step = 1e-5
    for i in np.ndindex(a.shape):
        e = np.zeros_like(a)
        e[i] = step
        expected = (gradient(a + e) - gradient(a - e)) / (2 * step)
        close(actual[(..., *i)], expected, rtol=1e-7, atol=1e-8)


# ------------------------------------------------------------------------------------ the edges


def test_closed_and_open_gates_have_no_gradient():
    ends = np.array([-np.inf, -1e4, 1e4, np.inf])
    ones = np.ones(4)
    z, back = jax.vjp(lambda m, s: gates.gaussian(KEY, m, scale=s), ends, 1e-3 * ones)
    assert np.array_equal(z, [0, 0, 1, 1])
    assert all(np.array_equal(g, np.zeros(4)) for g in back(jnp.asarray(ones)))
    for temperature in (1e-3, 0.5):
        z, back = jax.vjp(
            lambda l, t, *stretch: gates.hard_concrete(KEY, l, temperature=t, stretch=stretch),
            ends,
            temperature * ones,
            np.float64(-0.1),
            np.float64(1.1),
        )
        assert np.array_equal(z, [0, 0, 1, 1])
        assert all(np.all(np.asarray(g) == 0) for g in back(jnp.asarray(ones)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_everything_is_finite_at_the_extremes(dtype):
    logits = jnp.asarray([-1e4, -30, 0, 30, 1e4], dtype)
    gaussian = lambda m, s: gates.gaussian(KEY, m, scale=s)
    hard = lambda l, t: gates.hard_concrete(KEY, l, temperature=t)
    for sampler in (gaussian, hard):

        @jax.jit
        def both(width, sampler=sampler):
            z, back = jax.vjp(sampler, logits, width)
            return z, *back(jnp.ones_like(z))

        for width in (1e-3, 1.0, 1e3):
            for x in both(jnp.full(5, width, dtype)):
                assert x.dtype == dtype and bool(jnp.all(jnp.isfinite(x)))


@pytest.mark.optimized
@pytest.mark.parametrize(
    "function",
    [
        lambda x: gates.gaussian(KEY, x),
        lambda x: gates.gaussian_deterministic(x),
        lambda x: gates.gaussian_active_probability(x, scale=0.5),
        lambda x: gates.gaussian_log_prob(jnp.full_like(x, 0.25), x, scale=0.5),
        lambda x: gates.hard_concrete(KEY, x),
        lambda x: gates.hard_concrete_deterministic(x, stretch=(LOW, HIGH)),
        lambda x: gates.hard_concrete_active_probability(x, **HARD),
        lambda x: gates.hard_concrete_log_prob(jnp.full_like(x, 0.25), x, **HARD),
    ],
)
def test_one_rounding_at_the_end(function):
    """Oracle: the same call in float32, rounded; NaN stays NaN."""
    for dtype in (jnp.bfloat16, jnp.float16):
        x = jnp.linspace(-1.5, 1.5, 100).astype(dtype)
        value = function(x)
        assert value.dtype == dtype
        assert np.array_equal(value, function(x.astype(jnp.float32)).astype(dtype))
        assert jax.grad(lambda x: jnp.sum(function(x)))(x).dtype == dtype
    assert np.isnan(function(jnp.asarray(jnp.nan)))


@pytest.mark.parametrize("log_prob", ["gaussian_log_prob", "hard_concrete_log_prob"])
def test_the_density_of_nan_is_nan(log_prob):
    args = dict(scale=SCALE) if log_prob == "gaussian_log_prob" else HARD
    assert np.isnan(getattr(gates, log_prob)(jnp.asarray(jnp.nan), 0.3, **args))


def test_vmap_is_a_loop():
    """One key and many hyperparameters: values and gradients."""
    x = np.linspace(-0.5, 1.5, 6)
    z, g = np.clip(x, 0, 1), np.arange(1.0, 7.0)

    def both(sampler):
        z, back = jax.vjp(sampler, x)
        return z, back(jnp.asarray(g))[0]

    for sweep, values in [
        (lambda v: both(lambda m: gates.gaussian(KEY, m, scale=v)), [0.1, 0.5, 2.0]),
        (lambda v: both(lambda l: gates.hard_concrete(KEY, l, temperature=v)), [0.1, 0.5, 2.0]),
        (
            lambda v: both(lambda l: gates.hard_concrete(KEY, l, stretch=(v, 1.1))),
            [-0.5, -0.1, -0.01],
        ),
        (
            lambda v: both(lambda l: gates.hard_concrete(KEY, l, stretch=(-0.1, v))),
            [1.5, 1.1, 1.01],
        ),
        (lambda v: both(lambda m: gates.gaussian_log_prob(z, m, scale=v)), [0.1, 0.5, 2.0]),
        (
            lambda v: both(
                lambda l: gates.hard_concrete_log_prob(z, l, temperature=v, stretch=(LOW, HIGH))
            ),
            [0.1, 0.5, 2.0],
        ),
    ]:
        swept = jax.jit(jax.vmap(sweep))(jnp.asarray(values))
        one = jax.jit(sweep)
        loop = [one(jnp.asarray(v)) for v in values]
        for k in range(2):
            expected = np.stack([row[k] for row in loop])
            close(swept[k], expected, rtol=1e-12, atol=1e-14)
        assert not np.array_equal(swept[0][0], swept[0][2])


def test_batch_shaped_hyperparameters():
    """Entry by entry: what a scalar there gives under the same key; its gradient from z alone."""
    shape = (3, 4)
    rng = np.random.default_rng(0)
    x, width = rng.normal(size=shape), rng.uniform(0.2, 2, size=shape)
    low, high = rng.uniform(-0.5, -0.05, size=shape), rng.uniform(1.05, 1.5, size=shape)
    z = gates.gaussian(KEY, x, scale=width)
    hard = gates.hard_concrete(KEY, x, temperature=width)
    p = gates.hard_concrete_active_probability(x, temperature=width, stretch=(LOW, HIGH))
    log_prob = gates.gaussian_log_prob(z, x, scale=width)
    hard_log_prob = gates.hard_concrete_log_prob(hard, x, temperature=width, stretch=(LOW, HIGH))
    for i in np.ndindex(shape):
        close(z[i], gates.gaussian(KEY, x, scale=width[i])[i], rtol=1e-13)
        close(hard[i], gates.hard_concrete(KEY, x, temperature=width[i])[i], rtol=1e-13)
        close(p[i], expit(x[i] - width[i] * np.log(1 / 11)), rtol=1e-12)
    close(log_prob, gaussian_log_prob(np.asarray(z), x, width), rtol=1e-11)
    close(hard_log_prob, hard_concrete_log_prob(np.asarray(hard), x, width, LOW, HIGH), rtol=1e-10)
    stretched = gates.hard_concrete(KEY, x, temperature=width, stretch=(low, high))
    for i in np.ndindex(shape):
        one = gates.hard_concrete(KEY, x, temperature=width[i], stretch=(low[i], high[i]))
        close(stretched[i], one[i], rtol=1e-13)


def test_more_draws_than_parameters():
    """shape broadcasts parameters and hyperparameters; the rule sums over the draws."""
    x, width = np.array([[-0.2], [0.3], [0.9]]), np.linspace(0.3, 1.2, 4)[None]
    x, width = np.broadcast_to(x, (3, 4)), np.broadcast_to(width, (3, 4))
    z, back = jax.vjp(lambda m, s: gates.gaussian(KEY, m, scale=s, shape=(50, 3, 4)), x, width)
    z = np.asarray(z)
    inside = (z > 0) & (z < 1)
    assert z.shape == (50, 3, 4) and len(np.unique(z[inside])) == np.sum(inside)
    dmean, dscale = back(jnp.ones_like(z))
    assert np.array_equal(dmean, inside.sum(0))
    close(dscale, np.sum(np.where(inside, (z - x) / width, 0), 0), rtol=1e-11)
    z, back = jax.vjp(
        lambda l, t: gates.hard_concrete(KEY, l, temperature=t, shape=(50, 3, 4)), x, width
    )
    z = np.asarray(z)
    inside = (z > 0) & (z < 1)
    assert z.shape == (50, 3, 4) and len(np.unique(z[inside])) == np.sum(inside)
    r = np.where(inside, (z - LOW) / (HIGH - LOW), 0.5)
    slope = np.where(inside, (HIGH - LOW) * r * (1 - r) / width, 0)
    dl, dt = back(jnp.ones_like(z))
    close(dl, slope.sum(0), rtol=1e-9)
    close(dt, -np.sum(slope * logit(r), 0), rtol=1e-9)


# --------------------------------------------------------------------------------------- errors

BAD_STRETCHES = [(0.0, 1.1), (-0.1, 1.0), (0.1, 1.1), (-0.1, 0.9), (1.1, -0.1), (np.nan, 1.1)]


@pytest.mark.parametrize(
    "call",
    [
        lambda s: gates.hard_concrete(KEY, np.ones(3), stretch=s),
        lambda s: gates.hard_concrete_deterministic(np.ones(3), stretch=s),
        lambda s: gates.hard_concrete_active_probability(np.ones(3), temperature=T, stretch=s),
        lambda s: gates.hard_concrete_log_prob(
            np.full(3, 0.4), np.ones(3), temperature=T, stretch=s
        ),
    ],
    ids=["draw", "deterministic", "active_probability", "log_prob"],
)
def test_a_stretch_surrounds_the_unit_interval(call):
    for stretch in BAD_STRETCHES:
        with pytest.raises(ValueError, match=r"^stretch: got .*need"):
            call(stretch)
        traced = call(tuple(jnp.asarray(end, jnp.float64) for end in stretch))
        assert np.all(np.isnan(traced)), stretch
    for stretch in ((-0.1,), (-0.1, 1.1, 2.0), -0.1):
        with pytest.raises((ValueError, TypeError), match="stretch: got .*need"):
            call(stretch)


@pytest.mark.parametrize(
    "name, call",
    [
        ("scale", lambda v: gates.gaussian(KEY, np.ones(3), scale=v)),
        ("scale", lambda v: gates.gaussian_active_probability(np.ones(3), scale=v)),
        ("scale", lambda v: gates.gaussian_log_prob(np.full(3, 0.4), np.ones(3), scale=v)),
        ("temperature", lambda v: gates.hard_concrete(KEY, np.ones(3), temperature=v)),
        (
            "temperature",
            lambda v: gates.hard_concrete_active_probability(
                np.ones(3), temperature=v, stretch=(LOW, HIGH)
            ),
        ),
        (
            "temperature",
            lambda v: gates.hard_concrete_log_prob(
                np.full(3, 0.4), np.ones(3), temperature=v, stretch=(LOW, HIGH)
            ),
        ),
    ],
)
def test_bad_hyperparameters(name, call):
    for bad in (0, -1.0, np.array([1.0, -1.0, 1.0]), np.inf, np.nan):
        with pytest.raises(ValueError, match=f"^{name}: got .*need"):
            call(bad)
    with pytest.raises(ValueError, match=f"^{name}: got shape .*need"):
        call(np.ones(2))
    assert np.all(np.isnan(call(jnp.asarray(-1.0))))
    assert np.array_equal(np.isnan(call(jnp.asarray([1.0, -1.0, 1.0]))), [False, True, False])


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: gates.gaussian(KEY, jnp.arange(3)), TypeError, "mean: got int"),
        (lambda: gates.gaussian_deterministic(jnp.arange(3)), TypeError, "mean: got int"),
        (
            lambda: gates.gaussian_active_probability(np.arange(3), scale=1.0),
            TypeError,
            "mean: got int",
        ),
        (
            lambda: gates.gaussian_log_prob(np.arange(3), np.ones(3), scale=1.0),
            TypeError,
            "z: got int",
        ),
        (
            lambda: gates.gaussian_log_prob(np.ones(2), np.ones(3), scale=1.0),
            ValueError,
            "z: got shape",
        ),
        (lambda: gates.gaussian(KEY, np.ones(3), shape=(2,)), ValueError, "shape: got"),
        (lambda: gates.hard_concrete(KEY, jnp.arange(3)), TypeError, "logits: got int"),
        (
            lambda: gates.hard_concrete_deterministic(np.arange(3), stretch=(LOW, HIGH)),
            TypeError,
            "logits: got int",
        ),
        (
            lambda: gates.hard_concrete_log_prob(np.ones(3, int), np.ones(3), **HARD),
            TypeError,
            "z: got int",
        ),
        (
            lambda: gates.hard_concrete_log_prob(np.ones(2), np.ones(3), **HARD),
            ValueError,
            "z: got shape",
        ),
        (lambda: gates.hard_concrete(KEY, np.ones(3), shape=(2,)), ValueError, "shape: got"),
    ],
)
def test_errors_name_the_argument(call, error, words):
    with pytest.raises(error, match=f"^{words}") as caught:
        call()
    assert "need" in str(caught.value)


@pytest.mark.parametrize(
    "function",
    [
        lambda: gates.gaussian_active_probability(0.3),
        lambda: gates.gaussian_log_prob(0.4, 0.3),
        lambda: gates.hard_concrete_deterministic(0.7),
        lambda: gates.hard_concrete_active_probability(0.7, temperature=T),
        lambda: gates.hard_concrete_log_prob(0.4, 0.7, stretch=(LOW, HIGH)),
    ],
)
def test_densities_and_probabilities_have_no_defaults(function):
    with pytest.raises(TypeError, match="required keyword-only"):
        function()
