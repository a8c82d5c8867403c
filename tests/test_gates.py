"""Gates with mass at exactly 0 and 1, against closed forms, quadrature and their laws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import SIGNIFICANCE, central, close, of_noise, pullback, with_slopes
from scipy import stats
from scipy.special import expit, log_ndtr, logit

from relaxjax import gates

KEY = jax.random.key(0)
MEAN, SCALE = 0.3, 0.5  # the reference's gates
L, T, LOW, HIGH = 0.7, 2 / 3, -0.1, 1.1
HARD = dict(temperature=T, stretch=(LOW, HIGH))


def thorough(*values):
    return pytest.param(*values, marks=pytest.mark.thorough)


# Hyperparameters by position, and the slopes in all of them.
GAUSSIAN = with_slopes(lambda z, mean, scale: gates.gaussian_log_prob(z, mean, scale=scale))
HARD_CONCRETE = with_slopes(
    lambda z, logits, temperature, *stretch: gates.hard_concrete_log_prob(
        z, logits, temperature=temperature, stretch=stretch
    )
)


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


leggauss = functools.cache(np.polynomial.legendre.leggauss)


def legendre(edges, n=300):
    """Nodes and weights of Gauss-Legendre on every piece between the edges."""
    x, w = leggauss(n)
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


NODES, WEIGHTS = (
    np.append(x, [y, y]) for x, y in zip(legendre(np.linspace(0, 1, 5)), (0, 1), strict=True)
)
NODES[-1] = 1  # the last two are the masses


@pytest.mark.parametrize("mean, scale", [(0.3, 0.5), (-3.0, 1.0), (0.98, 0.05), (2.0, 3.0)])
def test_gaussian_law_integrates_to_one(mean, scale):
    log_p, *_ = GAUSSIAN(NODES, np.full(NODES.shape, mean), scale)
    assert WEIGHTS @ np.exp(log_p) == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize(
    "logits, temperature, stretch",
    [(0.7, 2 / 3, (-0.1, 1.1)), (-1.2, 0.1, (-0.5, 1.01)), (0.3, 3.0, (-0.01, 2.0))],
)
def test_hard_concrete_law_integrates_to_one(logits, temperature, stretch):
    log_p, *_ = HARD_CONCRETE(NODES, np.full(NODES.shape, logits), temperature, *stretch)
    assert WEIGHTS @ np.exp(log_p) == pytest.approx(1, abs=1e-10)


@pytest.mark.parametrize("z", [0.0, 0.02, 0.4, 0.95, 1.0])
def test_densities_and_their_gradients(z):
    """Oracle: scipy's normal and logistic laws, by central differences; z itself inside alone."""
    first = 0 if 0 < z < 1 else 1  # a point mass has no derivative in z
    for both, formula, points in [
        (GAUSSIAN, gaussian_log_prob, [(0.3, 0.5), (-1.0, 0.4), (1.5, 2.0)]),
        (HARD_CONCRETE, hard_concrete_log_prob, [(0.7, 2 / 3, -0.1, 1.1), (-2.0, 1.5, -0.4, 1.02)]),
    ]:
        for args in points:
            value, *slopes = both(z, *args)
            close(value, formula(z, *args), rtol=1e-11)
            for k in range(first, len(slopes)):
                close(slopes[k], jacobian(formula, (z, *args), k), rtol=2e-8, atol=1e-8)
            assert np.all(np.isfinite(slopes))


def test_the_branches_not_taken_leak_no_nan():
    """Extreme parameters, where another branch of the law overflows."""
    z, ends = (x.ravel() for x in np.meshgrid([-0.5, 0.0, 1.0, 1.5], [-1e4, 1e4]))
    narrow = np.full(8, 1e-3)
    _, *slopes = GAUSSIAN(z, ends, narrow)
    assert np.all(np.isfinite(slopes))
    value, *slopes = HARD_CONCRETE(z, ends, narrow, np.full(8, -1e-3), np.full(8, 1.001))
    assert np.all(np.isfinite(slopes))
    assert np.array_equal(np.isfinite(value), (z >= 0) & (z <= 1))


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
    probability = lambda m, s: gates.gaussian_active_probability(m, scale=s)
    _, *actual = with_slopes(probability)(0.3, 0.5)
    formula = lambda m, s: stats.norm.cdf(m / s)
    for k in range(2):
        close(actual[k], jacobian(formula, (0.3, 0.5), k), rtol=1e-8)
    probability = lambda l, t, *stretch: gates.hard_concrete_active_probability(
        l, temperature=t, stretch=stretch
    )
    formula = lambda l, t, low, high: expit(l - t * np.log(-low / high))
    args = (0.7, 2 / 3, -0.1, 1.1)
    _, *actual = with_slopes(probability)(*args)
    for k in range(4):
        close(actual[k], jacobian(formula, args, k), rtol=1e-7)


def test_deterministic_gates():
    mean = np.array([-2.0, 0.25, 0.9, 3.0])
    z, back = jax.vjp(gates.gaussian_deterministic, mean)
    assert np.array_equal(z, [0, 0.25, 0.9, 1])
    assert np.array_equal(back(jnp.full(4, 3.0))[0], [0, 3, 3, 0])
    close(gates.hard_concrete_deterministic(L, stretch=(LOW, HIGH)), 0.7018253266, rtol=1e-9)
    deterministic = lambda l, *stretch: gates.hard_concrete_deterministic(l, stretch=stretch)
    both = with_slopes(deterministic)
    formula = lambda l, low, high: np.clip(low + (high - low) * expit(l), 0, 1)
    for l in (-1e4, -3.0, 0.7, 3.0, 1e4):
        args = (l, -0.1, 1.1)
        value, *actual = both(*args)
        close(value, formula(*args), rtol=1e-13)
        for k in range(3):
            # Far logits lose the step of a central difference: they are closed or open, all 0.
            expected = 0 if abs(l) > 2.5 else jacobian(formula, args, k)
            close(actual[k], expected, rtol=1e-8, atol=0)


def expectation(f, mean, scale):
    """E[f(z, log-probability or density of z)] of a Gaussian gate, by quadrature."""
    log_p = gaussian_log_prob(NODES, mean, scale)
    return WEIGHTS @ (np.exp(log_p) * f(NODES, log_p))


def gaussian_mean(mean, scale):
    return expectation(lambda z, log_p: z, mean, scale)


def gaussian_variance(mean, scale):
    m = gaussian_mean(mean, scale)
    return expectation(lambda z, log_p: (z - m) ** 2, mean, scale)


def gaussian_entropy(mean, scale):
    return expectation(lambda z, log_p: -log_p, mean, scale)


def gaussian_kl(mean_q, scale_q, mean_p, scale_p):
    ratio = lambda z, log_q: log_q - gaussian_log_prob(z, mean_p, scale_p)
    return expectation(ratio, mean_q, scale_q)


MOMENTS = [gaussian_mean, gaussian_variance, gaussian_entropy]
POINTS = [(0.3, 0.5), (-2.0, 0.4), (1.5, 1.0), (0.5, 3.0), (-3.0, 0.5), (0.97, 0.05)]


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda f: f.__name__)
def test_gaussian_moments(moment):
    """Oracle: quadrature between the masses, and its central differences."""
    value, *slopes = with_slopes(lambda m, s: getattr(gates, moment.__name__)(m, scale=s))(
        *np.transpose(POINTS)
    )
    for i, point in enumerate(POINTS):
        close(value[i], moment(*point), rtol=1e-8)
        for k in range(2):
            close(slopes[k][i], jacobian(moment, point, k), rtol=1e-6, atol=1e-9)


def test_gaussian_mean_oracle():
    close(gates.gaussian_mean(MEAN, scale=SCALE), 0.3660022948, rtol=1e-9)


def test_gaussian_kl():
    """Oracle: quadrature, and its central differences; 0 of two that are the same."""
    args = np.concatenate([np.transpose(POINTS), np.transpose(POINTS[2:] + POINTS[:2])])
    both = with_slopes(gates.gaussian_kl)
    value, *slopes = both(*args)
    for i, point in enumerate(args.T):
        close(value[i], gaussian_kl(*point), rtol=1e-8)
        for k in range(4):
            close(slopes[k][i], jacobian(gaussian_kl, tuple(point), k), rtol=1e-6, atol=1e-8)
    value, *slopes = both(*args[:2], *args[:2])
    close(value, np.zeros(6), atol=1e-14)
    close(slopes, np.zeros((4, 6)), atol=1e-12)


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


draw_gaussian = jax.jit(gates.gaussian, static_argnames="shape")
draw_hard_concrete = jax.jit(gates.hard_concrete, static_argnames="shape")
GAUSSIAN_LAWS = [(0.3, 0.5), (0.9, 0.2), (-0.4, 1.5)]
HARD_LAWS = [(0.7, 2 / 3, -0.1, 1.1), (-1.0, 0.2, -0.5, 1.05), (0.3, 2.0, -0.2, 1.4)]


def often_and_rarely(laws):
    """In float32 by default the first one."""
    cases = [(*law, dtype) for dtype in ("float32", "float64") for law in laws]
    return [cases[0], *(thorough(*case) for case in cases[1:])]


@pytest.mark.parametrize("mean, scale, dtype", often_and_rarely(GAUSSIAN_LAWS))
def test_gaussian_has_its_law(mean, scale, dtype):
    mean = jnp.asarray(mean, dtype)
    z = draw_gaussian(jax.random.key(1), mean, scale=scale, shape=(200_000,))
    assert z.dtype == dtype
    assert_law(z, stats.norm(float(mean), scale).cdf)


@pytest.mark.parametrize("logits, temperature, low, high, dtype", often_and_rarely(HARD_LAWS))
def test_hard_concrete_has_its_law(logits, temperature, low, high, dtype):
    logits, args = jnp.asarray(logits, dtype), dict(temperature=temperature, stretch=(low, high))
    z = draw_hard_concrete(jax.random.key(2), logits, **args, shape=(200_000,))
    assert z.dtype == dtype
    cdf = lambda x: expit(temperature * logit((x - low) / (high - low)) - float(logits))
    assert_law(z, cdf)


@pytest.mark.parametrize("dtype", ["bfloat16", thorough("float16")])
def test_masses_in_few_bits(dtype):
    """A draw within half a step of 1 rounds to 1, so the mass there is of all those."""
    n, top = 200_000, 1 - float(jnp.finfo(dtype).epsneg) / 2
    mean = jnp.asarray(0.5, dtype)
    logits = jnp.asarray(0.75, dtype)
    gaussian_cdf = stats.norm(0.5, 0.5).cdf
    hard_cdf = lambda x: expit(T * logit((x - LOW) / (HIGH - LOW)) - 0.75)
    for z, cdf in [
        (draw_gaussian(jax.random.key(3), mean, shape=(n,)), gaussian_cdf),
        (draw_hard_concrete(jax.random.key(4), logits, shape=(n,)), hard_cdf),
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
    both = with_slopes(functools.partial(sampler, jax.random.key(5)))
    for draws, expected in zip(both(np.full(200_000, parameter)), (value, gradient), strict=True):
        error = np.std(draws) / np.sqrt(200_000)
        assert abs(np.mean(draws) - expected) < 5.5 * error


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
    value = np.asarray(core(NOISE, *args))
    close(value, formula(NOISE, *args), rtol=1e-14)
    assert {0.0, 1.0} < set(value)
    inside = (value > 0) & (value < 1)
    pulled = jax.jit(lambda g: pullback(lambda *a: core(NOISE, *a), *args)(g))
    actual = jax.jit(jax.vmap(pulled))(np.eye(7))
    for k, rows in enumerate(actual):
        rows = np.asarray(rows)
        expected = jacobian(lambda *a: formula(NOISE, *a), args, k)
        close(rows, expected, rtol=1e-8, atol=1e-9)
        assert np.all(rows[~inside] == 0)
    # The cotangent is the rule's linear argument: not its sign, not its square.
    g = np.array([1.0, -2, 3, -4, 5, -6, 7])
    for k, cotangent in enumerate(pulled(g)):
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
    ends, ones = np.array([-np.inf, -1e4, 1e4, np.inf]), np.ones(4)
    gaussian = with_slopes(lambda m, s: gates.gaussian(KEY, m, scale=s))
    hard = with_slopes(
        lambda l, t, *stretch: gates.hard_concrete(KEY, l, temperature=t, stretch=stretch)
    )
    cases = [gaussian(ends, 1e-3 * ones)]
    cases += [hard(ends, temperature * ones, -0.1, 1.1) for temperature in (1e-3, 0.5)]
    for z, *slopes in cases:
        assert np.array_equal(z, [0, 0, 1, 1])
        assert all(np.all(np.asarray(slope) == 0) for slope in slopes)


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
    traced = jax.jit(call)
    for stretch in BAD_STRETCHES:
        with pytest.raises(ValueError, match=r"^stretch: got .*need"):
            jax.eval_shape(lambda: call(stretch))  # noqa: B023
        assert np.all(np.isnan(traced(tuple(np.array(stretch))))), stretch
    for stretch, error in (
        ((-0.1,), ValueError),
        ((-0.1, 1.1, 2.0), ValueError),
        (-0.1, TypeError),
    ):
        with pytest.raises(error, match="stretch: got .*need"):
            jax.eval_shape(lambda: call(stretch))  # noqa: B023
