"""The laws and rules of one bit, against closed forms, quadrature and enumeration."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import SIGNIFICANCE, close, hard_rule, of_noise, pullback, with_slopes
from scipy import integrate, stats
from scipy.special import expit, log_expit

from relaxjax import _noise, _rules, bernoulli

L, P = 0.5, 0.6224593312018546  # the reference's bit
FUNCTIONS = {
    "b": lambda z: z,
    "square": lambda z: (z - 0.45) ** 2,
    "exp": np.exp,
    "cube": lambda z: z**3,
}
SLOPES = {
    "b": lambda z: 1.0,
    "square": lambda z: 2 * (z - 0.45),
    "exp": np.exp,
    "cube": lambda z: 3 * z**2,
}
KEY = jax.random.key(0)
DTYPES = ["bfloat16", "float16", "float32", "float64"]

concrete_kl = jax.jit(bernoulli.concrete_kl)
kl_gradients = jax.jit(jax.grad(bernoulli.concrete_kl, argnums=(0, 1)))


def thorough(*values):
    return pytest.param(*values, marks=pytest.mark.thorough)


STRAIGHT_THROUGH = hard_rule(bernoulli._straight_through_rule)
ZGR = hard_rule(bernoulli._zgr_rule)
SMOOTH = bernoulli._stochastic_times_smooth
WEIGHTS = {rule: jax.jit(jax.grad(rule, argnums=1)) for rule in (STRAIGHT_THROUGH, ZGR, SMOOTH)}


def weight(rule, b, logits):
    """dz/dlogits of a core at scalars, by its own rule."""
    return float(WEIGHTS[rule](b, logits))


# ------------------------------------------------------------------------------------ densities


@pytest.mark.parametrize(
    "value, expected",
    [
        (lambda: bernoulli.logit_concrete_log_prob(1.5, 0.7, temperature=0.5), -2.0800664766),
        (lambda: bernoulli.logit_concrete_log_prob(-40.0, 2.0, temperature=0.1), -8.3075364633),
        (lambda: bernoulli.concrete_log_prob(0.3, 0.7, temperature=0.5), -0.8191112267),
        (lambda: bernoulli.concrete_log_prob(0.9, -1.2, temperature=0.25), -1.0483087052),
    ],
)
def test_density_oracles(value, expected):
    close(value(), expected, rtol=1e-9)


@pytest.mark.parametrize("logits, temperature", [(0.7, 0.5), (-1.2, 1.0), (0.3, 2.0)])
def test_concrete_density_integrates_to_one(logits, temperature):
    """By the trapezoid rule over the logit of z."""
    y, step = np.linspace(-60, 30, 9001, retstep=True)
    log_p = bernoulli.concrete_log_prob(expit(y), np.full(9001, logits), temperature=temperature)
    assert np.sum(np.exp(log_p) * expit(y) * expit(-y)) * step == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0])
def test_logit_concrete_density_is_scipys(temperature):
    y = np.linspace(-30, 30, 101) / temperature
    expected = stats.logistic(0.7 / temperature, 1 / temperature).logpdf(y)
    actual = bernoulli.logit_concrete_log_prob(y, np.full(101, 0.7), temperature=temperature)
    close(actual, expected, rtol=1e-12)


def test_a_density_is_computed_in_the_wider_dtype():
    z, args = np.float32(0.3), dict(temperature=0.5)
    wide = bernoulli.concrete_log_prob(np.float64(z), L, **args)
    close(bernoulli.concrete_log_prob(z, np.float64(L), **args), wide, rtol=1e-14)


def test_density_at_its_maximum_has_right_second_derivatives():
    """At d = 0, where the form with |d| has a kink: -2 s'(0) temperature^2 = -temperature^2 / 2."""
    log_prob = lambda y: bernoulli.logit_concrete_log_prob(y, 1.0, temperature=0.5)
    close(jax.jit(jax.grad(jax.grad(log_prob)))(2.0), -0.125, rtol=1e-12)


@pytest.mark.parametrize(
    "x, kl, gradient",
    [
        (0.5, 0.0414940825, 0.1652900760),
        (1.0, 0.1639534137, 0.3226062253),
        (2.0, 0.6260705710, 0.5889736245),
        (-3.0, 1.3143741789, None),
        (20.0, 18.0000000824, None),
    ],
)
def test_kl_oracles(x, kl, gradient):
    close(concrete_kl(x + 0.3, 0.3), kl, rtol=1e-8)
    close(concrete_kl(0.3, x + 0.3), kl, rtol=1e-8)  # symmetric
    if gradient:
        close(kl_gradients(x, 0.0), (gradient, -gradient), rtol=1e-8)


@pytest.mark.parametrize("x", [0.01, 0.3, 0.4999, 0.5001, 5.0, 79.0, 81.0])
def test_kl_is_the_quadrature(x):
    q, p = stats.logistic(x), stats.logistic(0)
    expected, _ = integrate.quad(
        lambda y: q.pdf(y) * (q.logpdf(y) - p.logpdf(y)), x - 45, x + 45, points=[0, x], limit=300
    )
    close(concrete_kl(x, 0.0), expected, rtol=1e-6, atol=1e-10)
    step = 1e-4
    values = [float(concrete_kl(x + h, 0.0)) for h in (-step, step)]
    close(kl_gradients(x, 0.0)[0], (values[1] - values[0]) / (2 * step), rtol=1e-5)


def test_kl_at_its_ends():
    assert concrete_kl(1.0, 1.0) == 0 == kl_gradients(1.0, 1.0)[0]
    second = jax.jit(jax.grad(jax.grad(bernoulli.concrete_kl)))
    close(second(1.0, 1.0), 1 / 3, rtol=1e-12)
    assert concrete_kl(np.inf, np.inf) == 0 == concrete_kl(-np.inf, -np.inf)
    assert concrete_kl(np.inf, 0.0) == np.inf == concrete_kl(0.0, -np.inf)
    x = np.geomspace(1e-3, 1e4, 200, dtype=np.float32)
    wide = concrete_kl(x.astype(np.float64), np.zeros(200))
    close(concrete_kl(x, np.zeros(200, np.float32)), wide, rtol=4e-6)


def test_log_prob():
    both = with_slopes(bernoulli.log_prob)
    logits, ones = np.array([-1e4, -3.0, 0.2, 40.0]), np.ones(4)
    for x in (0.0, 1.0):
        value, _, slope = both(x * ones, logits)
        close(value, -np.logaddexp(0, -logits if x else logits), rtol=1e-12)
        close(slope, expit(-logits) if x else -expit(logits), rtol=1e-12, atol=1e-300)
    close(both(np.zeros(4), logits)[1], logits, rtol=1e-12)  # linear in x, at 0 too
    sure = np.array([-np.inf, np.inf, -np.inf, np.inf])
    value, _, slope = both(np.array([0.0, 1.0, 1.0, 0.0]), sure)
    assert np.array_equal(value, [0, 0, -np.inf, -np.inf]) and np.array_equal(slope, np.zeros(4))


TAILS = np.array([-1e4, -40.0, -3.0, -0.1, 0.0, 0.7, 5.0, 40.0, 1e4])
SURE = np.array([-np.inf, np.inf])


def test_entropy():
    """Oracle: scipy's, and the slope -logits p (1 - p); exact in both tails, 0 where it is sure."""
    inner = TAILS[2:7]
    value, slope = with_slopes(bernoulli.entropy)(np.append(TAILS, SURE))
    close(value[2:7], stats.bernoulli(expit(inner)).entropy(), rtol=1e-12)
    close(value[1:8:6], np.full(2, 41 * np.exp(-40)), rtol=1e-10)  # p (1 - log p) at p = exp(-40)
    close(slope[:9], -TAILS * expit(TAILS) * expit(-TAILS), rtol=1e-10, atol=1e-300)
    assert np.array_equal(value[9:], [0, 0]) and np.array_equal(slope[9:], [0, 0])
    second = jax.jit(jax.vmap(jax.grad(jax.grad(bernoulli.entropy))))(np.append(inner, SURE))
    v = expit(inner) * expit(-inner)
    close(second, np.append(v * (inner * np.tanh(inner / 2) - 1), [0, 0]), rtol=1e-10)


def test_kl():
    """Oracle: scipy's of the two probabilities, by their logarithms in the tails; the slopes
    (logits_q - logits_p) q (1 - q) and p - q."""
    q, p = (x.ravel() for x in np.meshgrid(TAILS, TAILS))
    bits = lambda x: np.stack([expit(-x), expit(x)])
    inner = (np.abs(q) < 6) & (np.abs(p) < 6)
    value, dq, dp = with_slopes(bernoulli.kl)(q, p)
    close(value[inner], stats.entropy(bits(q[inner]), bits(p[inner])), rtol=1e-9, atol=1e-14)
    of_one = expit(q) * (log_expit(q) - log_expit(p))
    of_zero = expit(-q) * (log_expit(-q) - log_expit(-p))
    close(value, of_one + of_zero, rtol=1e-12, atol=1e-15)
    close(dq, (q - p) * expit(q) * expit(-q), rtol=1e-9, atol=1e-15)
    close(dp, expit(p) - expit(q), rtol=1e-9, atol=1e-15)


def test_kl_of_sure_bits():
    """0 alike, -log of the bit's probability against an unsure one, +inf against what never is; the
    slopes where it is finite are finite, and 0 in what is infinite."""
    both = with_slopes(bernoulli.kl)
    value, dq, dp = both(np.tile(SURE, 3), np.append(SURE, [0.7, 0.7, -40, -40]))
    close(value, [0, 0, *np.logaddexp(0, [0.7, -0.7, -40, 40])], rtol=1e-12)
    close(dq, np.zeros(6), atol=0)
    close(dp, [0, 0, expit(0.7), -expit(-0.7), expit(-40), -1], rtol=1e-12, atol=0)
    never, *_ = both(np.array([0.3, 0.3, *SURE, *SURE]), np.array([*SURE, *-SURE, *-SURE]))
    assert np.array_equal(never, np.full(6, np.inf))


def test_log_prob_of_stochastic_times_smooth():
    """Oracle: q = sqrt(p) in NumPy, in both tails; its slopes; -inf at any other value."""
    l = np.array([-300.0, -5.0, -0.4, 0.3, 6.0, 60.0])
    q = np.exp(log_expit(l) / 2)
    both = with_slopes(bernoulli.stochastic_times_smooth_log_prob)
    value, _, slope = both(q, l)
    close(value, log_expit(l) / 2, rtol=1e-12)
    close(slope, expit(-l) / 2, rtol=1e-12)
    value, _, slope = both(0 * q, l)
    close(value, np.log(-np.expm1(log_expit(l) / 2)), rtol=1e-9)
    close(slope, -q * (1 + q) / 2, rtol=1e-9)
    for z in (q * 0.99, q * 1.01, -q):
        assert np.array_equal(both(z, l)[0], np.full(6, -np.inf))


# ----------------------------------------------------------------------------------------- laws


# Those that are not here by default draw the bits of `sample`: test_one_key_is_one_bit.
HARD = ["sample", "straight_through", "zgr", "gumbel_rao", "straight_through_concrete"]
OFTEN = [(name, "float32") for name in ("sample", "straight_through_concrete")]
RARELY = [(name, dtype) for name in HARD for dtype in DTYPES if (name, dtype) not in OFTEN]


@pytest.mark.parametrize("sampler, dtype", [*OFTEN, *(thorough(*case) for case in RARELY)])
def test_hard_bits_have_their_law(sampler, dtype):
    logits = jnp.asarray([-6.0, -1.0, 0.5, 3.0], dtype)
    draw = jax.jit(functools.partial(getattr(bernoulli, sampler), shape=(200_000, 4)))
    z = np.asarray(draw(jax.random.key(1), logits))
    assert z.dtype == dtype and np.all((z == 0) | (z == 1))
    counts = z.astype(float).sum(0)
    p = expit(np.asarray(logits, float))
    for count, probability in zip(counts, p, strict=True):
        assert stats.binomtest(int(count), 200_000, probability).pvalue > SIGNIFICANCE


@pytest.mark.parametrize(
    "temperature, dtype",
    [
        (0.5, "float32"),
        *(thorough(t, dtype) for t in (0.1, 2.0) for dtype in ("float32", "float64")),
        thorough(0.5, "float64"),
    ],
)
def test_relaxed_bits_have_their_law(temperature, dtype):
    logits = jnp.asarray(0.7, dtype)
    args = dict(temperature=temperature, shape=(200_000,))
    law = stats.logistic(0.7 / temperature, 1 / temperature)
    y = np.asarray(bernoulli.logit_concrete(jax.random.key(2), logits, **args), float)
    assert stats.kstest(y, law.cdf).pvalue > SIGNIFICANCE
    z = np.asarray(bernoulli.concrete(jax.random.key(2), logits, **args), float)
    close(z, expit(y), rtol=1e-5, atol=1e-7)  # one draw under both


def test_stochastic_times_smooth_has_its_law():
    z = bernoulli.stochastic_times_smooth(jax.random.key(3), np.float64(-0.4), shape=(200_000,))
    q = np.sqrt(expit(-0.4))
    assert np.allclose(np.unique(z), [0, q], rtol=1e-12)
    assert stats.binomtest(int(np.sum(z > 0)), 200_000, q).pvalue > SIGNIFICANCE


@pytest.mark.thorough
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logistic_noise(dtype):
    """Kolmogorov-Smirnov on 2e6 draws."""
    noise = np.asarray(_noise.logistic(jax.random.key(4), (2_000_000,), jnp.dtype(dtype)), float)
    assert stats.kstest(noise, stats.logistic.cdf).pvalue > SIGNIFICANCE
    assert np.all(np.isfinite(noise))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ends_of_logistic_noise(dtype, monkeypatch):
    """The range, by extreme words."""
    bits = 32 if dtype == "float32" else 64
    words = np.array([0, 1, 2**bits - 2, 2**bits - 1], f"uint{bits}")
    monkeypatch.setattr(_noise, "_words", lambda *a: (jnp.asarray(words), bits))
    ends = np.asarray(_noise.logistic(None, None, jnp.dtype(dtype)), float)
    tail = (bits + 1) * np.log(2)
    close(ends, [-tail, tail, 0, 0], rtol=1e-6, atol=3e-7)


def test_one_key_is_one_bit():
    logits = np.linspace(-2, 2, 1000)
    draws = [
        getattr(bernoulli, name)(jax.random.key(6), logits)
        for name in ("sample", "straight_through", "zgr", "gumbel_rao")
    ]
    for draw in draws[1:]:
        assert np.array_equal(draw, draws[0])


# ---------------------------------------------------------------------------------------- rules

POINTS = np.array([-1e4, -30.0, -1.3, 0.0, 0.5, 2.0, 30.0, 1e4])


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_relaxed_rules(temperature):
    """Oracle: the formulas of the docstrings in NumPy."""
    noise = np.linspace(-3, 3, 8)
    g = np.arange(1.0, 9.0)
    y = (POINTS + noise) / temperature
    slope = expit(y) * expit(-y)
    t = np.float64(temperature)
    _, dl, dt = pullback(of_noise(_rules.tempered_sigmoid), noise, POINTS, t)(g)
    close(dl, g * slope / temperature, rtol=1e-12, atol=1e-300)
    close(dt, -np.sum(g * slope * y / temperature), rtol=1e-12)
    _, dl, dt = pullback(of_noise(_rules.tempered), noise, POINTS, t)(g)
    close(dl, g / temperature, rtol=1e-12)
    close(dt, -np.sum(g * y / temperature), rtol=1e-12)
    *_, dt = pullback(of_noise(_rules.tempered_sigmoid), noise, POINTS, np.full(8, temperature))(g)
    close(dt, -g * slope * y / temperature, rtol=1e-12, atol=1e-300)


def test_hard_rules():
    g, p = np.arange(1.0, 9.0), expit(POINTS)
    for b in (0.0, 1.0):
        b = np.full(8, b)
        _, dl = pullback(STRAIGHT_THROUGH, b, POINTS)(g)
        close(dl, g * p * expit(-POINTS), rtol=1e-12, atol=1e-300)
        _, dl = pullback(ZGR, b, POINTS)(g)
        close(dl, g * np.where(b, expit(-POINTS), p) / 2, rtol=1e-12, atol=1e-300)
        _, dl = pullback(SMOOTH, b, POINTS)(g)
        q = np.sqrt(p)
        expected = np.where(b, 0.75 * q * expit(-POINTS), 0.25 * p * (1 + q))
        close(dl, g * expected, rtol=1e-10, atol=1e-300)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_straight_through_concrete_rule(temperature):
    noise, g = np.linspace(-3, 3, 8), np.arange(1.0, 9.0)
    x = POINTS + noise
    z, back = jax.vjp(of_noise(_rules.tempered_bit), noise, POINTS, temperature)
    assert np.array_equal(z, x > 0)
    _, dl, dt = back(g)
    s = expit(x / temperature) * expit(-x / temperature) / temperature
    close(dl, g * s, rtol=1e-12, atol=1e-300)
    assert dt == 0


def test_weight_oracles():
    close(weight(ZGR, 1.0, L), 0.18877033)
    close(weight(ZGR, 0.0, L), 0.31122967)
    close(weight(SMOOTH, 1.0, L), 0.22339862)
    close(weight(SMOOTH, 0.0, L), 0.27838885)


EXPECTED = {  # reference: d/dl E[f] by the rule, f = b, square, exp, cube
    "straight_through": (0.23500371, 0.08105717, 0.48635441, 0.43884076),
    "zgr": (0.23500371, 0.02350037, 0.43690502, 0.35250557),
    "true": (0.23500371, 0.02350037, 0.40380261, 0.23500371),
}


@pytest.mark.parametrize("rule", ["straight_through", "zgr"])
def test_expected_gradients(rule):
    """Oracle: both bits, weighted by their probabilities."""
    core = {"straight_through": STRAIGHT_THROUGH, "zgr": ZGR}[rule]
    for name, expected in zip(FUNCTIONS, EXPECTED[rule], strict=True):
        actual = sum(q * SLOPES[name](b) * weight(core, b, L) for b, q in ((1.0, P), (0.0, 1 - P)))
        close(actual, expected, rtol=2e-7)


def test_zgr_is_exact_on_quadratics_of_each_bit():
    """Oracle: every state of three bits; f quadratic in each bit, with products of them."""
    rng = np.random.default_rng(0)
    A, b, logits = rng.normal(size=(3, 3)), rng.normal(size=3), rng.normal(size=3)
    f = lambda z: z @ A @ z + b @ z + z[0] * z[1] * z[2]
    x = bernoulli.family.support(logits)

    @jax.jit
    def both(logits):
        p = lambda l: jnp.exp(jax.vmap(bernoulli.family.log_prob, (0, None))(x, l))
        estimate = jax.vmap(jax.grad(lambda l, x: f(ZGR(x, l))), (None, 0))
        return p(logits) @ estimate(logits, x), jax.grad(lambda l: p(l) @ jax.vmap(f)(x))(logits)

    close(*both(logits), rtol=1e-12)


def test_stochastic_times_smooth_is_exact_on_quadratics():
    q = np.sqrt(P)
    rule = lambda slope: (
        q * slope(q) * weight(SMOOTH, 1.0, L) + (1 - q) * slope(0) * weight(SMOOTH, 0.0, L)
    )
    for name, expected in (("b", 0.23500371), ("square", 0.06660978), ("exp", 0.44670236)):
        close(rule(SLOPES[name]), expected, rtol=2e-7)
    true = lambda f, s: (f(q) - f(0) + q * s(q)) * q * (1 - P) / 2
    close(true(FUNCTIONS["square"], SLOPES["square"]), 0.06660978, rtol=2e-7)


@pytest.mark.parametrize("temperature, expected", [(0.5, 0.20570715), (0.1, 0.23344382)])
def test_concrete_expected_gradient(temperature, expected):
    """Oracle: the reference's quadrature of E[dz/dl]; ours over the noise, by the rule."""
    noise = stats.logistic.ppf((np.arange(200_000) + 0.5) / 200_000)
    _, dl, _ = pullback(
        of_noise(_rules.tempered_sigmoid), noise, np.full(noise.shape, L), np.float64(temperature)
    )(np.ones(noise.shape))
    close(np.mean(dl), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "temperature, expected",
    [(0.5, (0.20570715, 0.04739282, 0.40548256)), (0.1, (0.23344382, 0.03114172, 0.44070397))],
)
def test_straight_through_concrete_expected_gradient(temperature, expected):
    """Oracle: quadrature over the noise."""
    noise = stats.logistic.ppf((np.arange(400_000) + 0.5) / 400_000)
    l = np.full(noise.shape, L)
    for name, value in zip(("b", "square", "exp"), expected, strict=True):
        z, back = jax.vjp(lambda l: of_noise(_rules.tempered_bit)(noise, l, temperature), l)
        slopes = np.broadcast_to(SLOPES[name](np.asarray(z)), z.shape)
        # The midpoint rule's error at the jump of the slope, where x = 0.
        jump = abs(SLOPES[name](1.0) - SLOPES[name](0.0)) / 4 / temperature / 400_000
        close(np.mean(back(jnp.asarray(slopes))[0]), value, rtol=1e-6, atol=jump)


@pytest.mark.parametrize(
    "temperature, given_1, given_0",
    [
        (0.5, 0.18678269, 0.23690831),
        (0.01, 0.18939838, 0.31015221),
    ],
)
def test_gumbel_rao_weight(temperature, given_1, given_0):
    """Oracle: the reference's quadrature of E[weight | b]; ours over the conditional draw."""
    noise = stats.logistic.ppf((np.arange(400_000) + 0.5) / 400_000)
    for b, expected in ((1.0, given_1), (0.0, given_0)):
        x = np.asarray(bernoulli._logistic_given_bit(b, L)(np.exp(noise))) / temperature
        assert np.all((x > 0) == b)
        close(np.mean(expit(x) * expit(-x)) / temperature, expected, rtol=1e-4)


@pytest.mark.parametrize("b", [0.0, 1.0])
def test_conditional_draw_has_the_law_of_rejection(b):
    """Oracle: unconditional draws, kept where their sign is b's."""
    x = L + np.random.default_rng(7).logistic(size=400_000)
    kept = x[(x > 0) == b]
    noise = np.random.default_rng(8).logistic(size=200_000)
    ours = np.asarray(bernoulli._logistic_given_bit(b, L)(np.exp(noise)))
    assert stats.ks_2samp(kept, ours).pvalue > SIGNIFICANCE


@jax.jit
def gumbel_rao_pullback(key, b, logits, temperature, g):
    core = hard_rule(functools.partial(bernoulli._gumbel_rao_rule, 5))
    return pullback(lambda l: core(b, l, temperature, key), logits)(g)[0]


@pytest.mark.parametrize("temperature", [0.7, 100.0])
@pytest.mark.parametrize("dtype, rtol, atol", [("float64", 1e-12, 0), ("float32", 1e-5, 1e-37)])
def test_gumbel_rao_rule_is_its_noises_mean(dtype, rtol, atol, temperature):
    """The rule at one key against NumPy on the very noise that it redraws, also where the other
    bit's probability is 0 in float32 and its logarithm counts."""
    key = jax.random.key(9)
    l, b = np.array([0.5, -1.0, 2.0, 150.0, 150.0]), np.array([1.0, 0.0, 0.0, 1.0, 0.0])
    g = np.arange(1.0, 6.0)
    actual = gumbel_rao_pullback(key, *(jnp.asarray(x, dtype) for x in (b, l, temperature, g)))
    weights = []
    for k in jax.random.split(key, 5):
        w = np.asarray(_noise.logistic(k, (5,), jnp.dtype(dtype)), float)
        sign = 2 * b - 1
        x = sign * np.logaddexp(0, np.logaddexp(0, sign * l) + w) / temperature
        weights.append(expit(x) * expit(-x) / temperature)
    close(actual, g * np.mean(weights, axis=0), rtol=rtol, atol=atol)
    assert len(np.unique(weights)) == 25


@pytest.mark.parametrize("n", [20_000, thorough(200_000)])
def test_gumbel_rao_at_one_noise_and_at_many(n):
    """K = 1 in expectation and K = 50 agree; the latter has the smaller deviation."""
    means = []
    for num_noise in (1, 50):
        rao = functools.partial(bernoulli.gumbel_rao, jax.random.key(10), num_noise=num_noise)
        _, grads = with_slopes(rao)(np.full(n, L))
        means.append((np.mean(grads), np.std(grads) / np.sqrt(n)))
    for mean, error in means:
        assert abs(mean - 0.20570715) < 5.5 * error
    assert means[1][1] < means[0][1] / 3


# ---------------------------------------------------------------------------- second derivatives


SECOND = jax.jit(jax.grad(jax.grad(SMOOTH, 1), 1))


@pytest.mark.parametrize("logits", [-3.0, 0.0, 0.5, 4.0])
def test_second_derivatives_of_stochastic_times_smooth(logits):
    """Oracle: the product rule of q and a zgr bit by hand; f(z) = z, so d^2 is the rule's own."""
    p = expit(logits)
    q, tail = np.sqrt(p), 1 - p
    dq = q * tail / 2
    for b in (0.0, 1.0):
        sign, db = 2 * b - 1, abs(b - q) * (1 + q) / 4
        # w = q (b tail / 2 + |b - q| (1 + q) / 4)
        dw = dq * (b * tail / 2 + abs(b - q) * (1 + q) / 4)
        dw += q * (db * tail / 2 - b * p * tail / 2)
        dw += q * (sign * (db - dq) * (1 + q) + abs(b - q) * dq) / 4
        close(SECOND(b, logits), dw, rtol=1e-10)


def test_second_derivatives_apply_the_rule_to_b():
    """Oracle: f(z) = z^2 by hand, d/dl [2 b w(b, l)] with db/dl = w wherever b stands."""
    v = P * (1 - P)
    square = lambda rule: lambda l, b: rule(b, l) ** 2
    second = [jax.jit(jax.grad(jax.grad(square(rule)))) for rule in (STRAIGHT_THROUGH, ZGR)]
    for b in (0.0, 1.0):
        # straight-through: w = v(l), dv/dl = v (1 - 2 p)
        close(second[0](L, b), 2 * v * v + 2 * b * v * (1 - 2 * P), rtol=1e-12)
        # zgr: w = |b - p| / 2, dw/dl = sign (w - v) / 2
        w, sign = abs(b - P) / 2, 2 * b - 1
        close(second[1](L, b), 2 * w * w + 2 * b * sign * (w - v) / 2, rtol=1e-12)


def test_second_derivatives_of_rules_with_noise():
    """Oracle: f(z) = z^2 by hand; w is a mean of s'(x / t) / t with dx/dl = 1, x of the noise."""
    key, l, t = jax.random.key(11), np.float64(L), np.float64(0.7)
    gumbel_rao = hard_rule(functools.partial(bernoulli._gumbel_rao_rule, 3))
    odds = [_noise.odds(k, (), jnp.dtype("float64")) for k in jax.random.split(key, 3)]
    for b, noise in ((np.float64(0), np.float64(-0.9)), (np.float64(1), np.float64(0.9))):
        given = [bernoulli._logistic_given_bit(b, l)(o) for o in odds]
        for rule, x in (
            (
                lambda l, b=b: gumbel_rao(b, l, t, key),
                np.array(given),
            ),
            (lambda l, n=noise: of_noise(_rules.tempered_bit)(n, l, t), l + noise),
        ):
            slope, half = expit(x / t) * expit(-x / t), np.tanh(x / t / 2)
            w, dw = np.mean(slope) / t, -np.mean(slope * half) / t**2
            second = jax.grad(jax.grad(lambda l, rule=rule: rule(l) ** 2))(l)
            close(second, 2 * w * w + 2 * b * dw, rtol=1e-11)


@pytest.mark.parametrize("core", [of_noise(_rules.tempered_sigmoid), of_noise(_rules.tempered)])
def test_second_derivatives_of_relaxed_bits(core):
    """Oracle: central differences of the first derivatives, in logits and temperature."""
    f = lambda a: jnp.sum(jnp.tanh(core(np.array([0.3, -2.0]), a[:2], a[2])))
    a = np.array([0.4, 1.1, 0.6])
    gradient, step = jax.jit(jax.grad(f)), 1e-5
    second = jax.jit(jax.jacrev(gradient))(a)
    for i, e in enumerate(np.eye(3) * step):
        close(second[:, i], (gradient(a + e) - gradient(a - e)) / (2 * step), rtol=1e-6)


# ----------------------------------------------------------------------------------- the edges

SAMPLERS = [
    bernoulli.concrete,
    bernoulli.logit_concrete,
    bernoulli.straight_through,
    bernoulli.straight_through_concrete,
    bernoulli.zgr,
    bernoulli.gumbel_rao,
    bernoulli.stochastic_times_smooth,
]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: s.__name__)
def test_a_sure_bit_has_no_gradient(sampler):
    z, slope = with_slopes(functools.partial(sampler, jax.random.key(0)))(SURE)
    expected = SURE if sampler is bernoulli.logit_concrete else [0, 1]
    assert np.array_equal(z, expected) and np.array_equal(slope, [0, 0])
