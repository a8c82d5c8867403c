"""The laws and rules of one bit, against closed forms, quadrature and enumeration."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import SIGNIFICANCE, close, hard_rule, of_noise, pullback
from scipy import integrate, stats
from scipy.special import expit

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


def weight(rule, *args):
    """dz/dlogits of a core at scalars, by its own rule."""
    *draws, logits = [jnp.asarray(a, jnp.float64) for a in args]
    return float(jax.grad(lambda l: rule(*draws, l))(logits))


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
    density = jax.jit(
        lambda z: jnp.exp(bernoulli.concrete_log_prob(z, logits, temperature=temperature))
    )
    total, _ = integrate.quad(lambda z: float(density(z)), 0, 1, limit=200)
    assert total == pytest.approx(1, abs=1e-4)


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
    close(jax.jacrev(jax.grad(log_prob))(2.0), -0.125, rtol=1e-12)


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
    close(bernoulli.concrete_kl(x + 0.3, 0.3), kl, rtol=1e-8)
    close(bernoulli.concrete_kl(0.3, x + 0.3), kl, rtol=1e-8)  # symmetric
    if gradient:
        close(jax.grad(bernoulli.concrete_kl)(x, 0.0), gradient, rtol=1e-8)
        close(jax.grad(bernoulli.concrete_kl, argnums=1)(x, 0.0), -gradient, rtol=1e-8)


@pytest.mark.parametrize("x", [0.01, 0.3, 0.4999, 0.5001, 5.0, 79.0, 81.0])
def test_kl_is_the_quadrature(x):
    q, p = stats.logistic(x), stats.logistic(0)
    expected, _ = integrate.quad(
        lambda y: q.pdf(y) * (q.logpdf(y) - p.logpdf(y)), x - 45, x + 45, points=[0, x], limit=300
    )
    close(bernoulli.concrete_kl(x, 0.0), expected, rtol=1e-6, atol=1e-10)
    step = 1e-4
    values = [float(bernoulli.concrete_kl(x + h, 0.0)) for h in (-step, step)]
    close(jax.grad(bernoulli.concrete_kl)(x, 0.0), (values[1] - values[0]) / (2 * step), rtol=1e-5)


def test_kl_at_its_ends():
    assert bernoulli.concrete_kl(1.0, 1.0) == 0
    assert jax.grad(bernoulli.concrete_kl)(1.0, 1.0) == 0
    close(jax.jacrev(jax.grad(bernoulli.concrete_kl))(1.0, 1.0), 1 / 3, rtol=1e-12)
    assert bernoulli.concrete_kl(np.inf, np.inf) == 0 == bernoulli.concrete_kl(-np.inf, -np.inf)
    assert bernoulli.concrete_kl(np.inf, 0.0) == np.inf == bernoulli.concrete_kl(0.0, -np.inf)
    x = np.geomspace(1e-3, 1e4, 200, dtype=np.float32)
    wide = bernoulli.concrete_kl(x.astype(np.float64), np.zeros(200))
    close(bernoulli.concrete_kl(x, np.zeros(200, np.float32)), wide, rtol=4e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("temperature", [0.01, 0.1, 0.5, 2.0])
def test_own_draws_have_a_finite_density(dtype, temperature):
    logits = jnp.linspace(-20, 20, 1000).astype(dtype)
    z = bernoulli.concrete(jax.random.key(0), logits, temperature=temperature, shape=(100, 1000))
    log_prob = lambda z, l: bernoulli.concrete_log_prob(z, l, temperature=temperature)
    value, gradients = jax.value_and_grad(lambda *a: jnp.sum(log_prob(*a).astype(float)), (0, 1))(
        z, logits
    )
    assert np.isfinite(value) and bool(jnp.all(jnp.isfinite(log_prob(z, logits))))
    assert bool(jnp.all(jnp.isfinite(gradients[1])))


def test_log_prob():
    logits = np.array([-1e4, -3.0, 0.2, 40.0])
    for x in (0.0, 1.0):
        expected = -np.logaddexp(0, -logits if x else logits)
        close(bernoulli.log_prob(x, logits), expected, rtol=1e-12)
        gradient = jax.grad(lambda l, x=x: jnp.sum(bernoulli.log_prob(x, l)))(logits)
        close(gradient, expit(-logits) if x else -expit(logits), rtol=1e-12, atol=1e-300)
    close(jax.grad(bernoulli.log_prob)(0.0, 0.7), 0.7, rtol=1e-12)  # linear in x, at 0 too
    sure = np.array([-np.inf, np.inf])
    for x, expected in (([0.0, 1.0], [0.0, 0.0]), ([1.0, 0.0], [-np.inf, -np.inf])):
        assert np.array_equal(bernoulli.log_prob(np.array(x), sure), expected)
        gradient = jax.grad(lambda l, x=x: jnp.sum(bernoulli.log_prob(np.array(x), l)))(sure)
        assert np.array_equal(gradient, [0, 0])


# ----------------------------------------------------------------------------------------- laws


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "sampler", ["sample", "straight_through", "zgr", "gumbel_rao", "straight_through_concrete"]
)
def test_hard_bits_have_their_law(sampler, dtype):
    logits = jnp.asarray([-6.0, -1.0, 0.5, 3.0], dtype)
    z = getattr(bernoulli, sampler)(jax.random.key(1), logits, shape=(200_000, 4))
    assert z.dtype == dtype and set(np.unique(np.asarray(z, float))) == {0.0, 1.0}
    counts = np.asarray(z, float).sum(0)
    p = expit(np.asarray(logits, float))
    for count, probability in zip(counts, p, strict=True):
        assert stats.binomtest(int(count), 200_000, probability).pvalue > SIGNIFICANCE


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logistic_noise(dtype):
    """Kolmogorov-Smirnov on 2e6 draws, and the ends of the range by extreme words."""
    noise = np.asarray(_noise.logistic(jax.random.key(4), (2_000_000,), jnp.dtype(dtype)), float)
    assert stats.kstest(noise, stats.logistic.cdf).pvalue > SIGNIFICANCE
    assert np.all(np.isfinite(noise))
    bits = 32 if dtype == "float32" else 64
    words = np.array([0, 1, 2**bits - 2, 2**bits - 1], f"uint{bits}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_noise, "_words", lambda *a: (jnp.asarray(words), bits))
        ends = np.asarray(_noise.logistic(None, None, jnp.dtype(dtype)), float)
    tail = (bits + 1) * np.log(2)
    close(ends, [-tail, tail, 0, 0], rtol=1e-6, atol=3e-7)


def test_noise_is_independent():
    """Pearson correlation of entries, rows and draws of one call, within 5 standard errors of 0."""
    z = np.asarray(bernoulli.concrete(jax.random.key(5), np.zeros((3, 4)), shape=(100_000, 3, 4)))
    flat = z.reshape(100_000, 12)
    correlation = np.corrcoef(flat, rowvar=False) - np.eye(12)
    draws = [np.corrcoef(flat[1:, i], flat[:-1, i])[0, 1] for i in range(12)]
    assert max(np.abs(correlation).max(), np.abs(draws).max()) < 5 / np.sqrt(100_000)


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
        _, dl = pullback(hard_rule(bernoulli._straight_through_rule), b, POINTS)(g)
        close(dl, g * p * expit(-POINTS), rtol=1e-12, atol=1e-300)
        _, dl = pullback(hard_rule(bernoulli._zgr_rule), b, POINTS)(g)
        close(dl, g * np.where(b, expit(-POINTS), p) / 2, rtol=1e-12, atol=1e-300)
        _, dl = pullback(bernoulli._stochastic_times_smooth, b, POINTS)(g)
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
    close(weight(hard_rule(bernoulli._zgr_rule), 1.0, L), 0.18877033)
    close(weight(hard_rule(bernoulli._zgr_rule), 0.0, L), 0.31122967)
    close(weight(bernoulli._stochastic_times_smooth, 1.0, L), 0.22339862)
    close(weight(bernoulli._stochastic_times_smooth, 0.0, L), 0.27838885)


EXPECTED = {  # reference: d/dl E[f] by the rule, f = b, square, exp, cube
    "straight_through": (0.23500371, 0.08105717, 0.48635441, 0.43884076),
    "zgr": (0.23500371, 0.02350037, 0.43690502, 0.35250557),
    "true": (0.23500371, 0.02350037, 0.40380261, 0.23500371),
}


@pytest.mark.parametrize("rule", ["straight_through", "zgr"])
def test_expected_gradients(rule):
    """Oracle: both bits, weighted by their probabilities."""
    core = hard_rule(getattr(bernoulli, f"_{rule}_rule"))
    for name, expected in zip(FUNCTIONS, EXPECTED[rule], strict=True):
        actual = sum(q * SLOPES[name](b) * weight(core, b, L) for b, q in ((1.0, P), (0.0, 1 - P)))
        close(actual, expected, rtol=2e-7)


def test_zgr_is_exact_on_quadratics_of_each_bit():
    """Oracle: every state of three bits; f quadratic in each bit, with products of them."""
    rng = np.random.default_rng(0)
    A, b, logits = rng.normal(size=(3, 3)), rng.normal(size=3), rng.normal(size=3)
    f = lambda z: z @ A @ z + b @ z + z[0] * z[1] * z[2]
    states = bernoulli.family.support(logits)
    p = np.exp([bernoulli.family.log_prob(x, logits) for x in states])
    estimate = jax.grad(lambda l, x: f(hard_rule(bernoulli._zgr_rule)(x, l)))
    exact = jax.grad(
        lambda l: sum(jnp.exp(bernoulli.family.log_prob(x, l)) * f(x) for x in states)
    )(logits)
    close(p @ np.stack([estimate(logits, x) for x in states]), exact, rtol=1e-12)


def test_stochastic_times_smooth_is_exact_on_quadratics():
    q = np.sqrt(P)
    rule = lambda slope: (
        q * slope(q) * weight(bernoulli._stochastic_times_smooth, 1.0, L)
        + (1 - q) * slope(0) * weight(bernoulli._stochastic_times_smooth, 0.0, L)
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


@pytest.mark.parametrize("temperature", [0.7, 100.0])
@pytest.mark.parametrize("dtype, rtol, atol", [("float64", 1e-12, 0), ("float32", 1e-5, 1e-37)])
def test_gumbel_rao_rule_is_its_noises_mean(dtype, rtol, atol, temperature):
    """The rule at one key against NumPy on the very noise that it redraws, also where the other
    bit's probability is 0 in float32 and its logarithm counts."""
    key = jax.random.key(9)
    l, b = np.array([0.5, -1.0, 2.0, 150.0, 150.0]), np.array([1.0, 0.0, 0.0, 1.0, 0.0])
    g = np.arange(1.0, 6.0)
    L, B, G, T = (jnp.asarray(x, dtype) for x in (l, b, g, temperature))
    back = pullback(
        lambda l: hard_rule(functools.partial(bernoulli._gumbel_rao_rule, 5))(B, l, T, key), L
    )
    weights = []
    for k in jax.random.split(key, 5):
        w = np.asarray(_noise.logistic(k, (5,), jnp.dtype(dtype)), float)
        sign = 2 * b - 1
        x = sign * np.logaddexp(0, np.logaddexp(0, sign * l) + w) / temperature
        weights.append(expit(x) * expit(-x) / temperature)
    close(back(G)[0], g * np.mean(weights, axis=0), rtol=rtol, atol=atol)
    assert len(np.unique(weights)) == 25


def test_gumbel_rao_in_the_limits():
    """K = 1 in expectation and K = 50 agree; at a low temperature the rule is zgr's."""
    l = np.full(200_000, L)
    means = []
    for num_noise in (1, 50):
        grads = jax.grad(
            lambda l, n=num_noise: jnp.sum(
                bernoulli.gumbel_rao(jax.random.key(10), l, temperature=0.5, num_noise=n)
            )
        )(l)
        means.append((np.mean(grads), np.std(grads) / np.sqrt(200_000)))
    for mean, error in means:
        assert abs(mean - 0.20570715) < 5.5 * error
    assert means[1][1] < means[0][1] / 3


# ---------------------------------------------------------------------------- second derivatives


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
        second = jax.grad(jax.grad(lambda l, b=b: bernoulli._stochastic_times_smooth(b, l)))
        close(second(logits), dw, rtol=1e-10)


def test_second_derivatives_apply_the_rule_to_b():
    """Oracle: f(z) = z^2 by hand, d/dl [2 b w(b, l)] with db/dl = w wherever b stands."""
    v = P * (1 - P)
    for b in (0.0, 1.0):
        second = lambda rule: float(jax.grad(jax.grad(lambda l: rule(b, l) ** 2))(L))  # noqa: B023
        # straight-through: w = v(l), dv/dl = v (1 - 2 p)
        close(
            second(hard_rule(bernoulli._straight_through_rule)),
            2 * v * v + 2 * b * v * (1 - 2 * P),
            rtol=1e-12,
        )
        # zgr: w = |b - p| / 2, dw/dl = sign (w - v) / 2
        w, sign = abs(b - P) / 2, 2 * b - 1
        close(
            second(hard_rule(bernoulli._zgr_rule)),
            2 * w * w + 2 * b * sign * (w - v) / 2,
            rtol=1e-12,
        )


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
    second = jax.jacrev(jax.grad(f))(a)
    step = 1e-5
    for i in range(3):
        e = np.eye(3)[i] * step
        close(second[:, i], (jax.grad(f)(a + e) - jax.grad(f)(a - e)) / (2 * step), rtol=1e-6)


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
    logits = np.array([-np.inf, np.inf])
    z, back = jax.vjp(lambda l: sampler(jax.random.key(0), l), logits)
    expected = logits if sampler is bernoulli.logit_concrete else [0, 1]
    assert np.array_equal(z, expected)
    assert np.array_equal(back(jnp.ones(2))[0], [0, 0])


@pytest.mark.parametrize("sampler", [bernoulli.sample, *SAMPLERS], ids=lambda s: s.__name__)
def test_one_rounding_at_the_end(sampler):
    """Oracle: the same call in float32, rounded: noise and arithmetic are no narrower."""
    for dtype in (jnp.bfloat16, jnp.float16):
        logits = jnp.linspace(-3, 3, 100).astype(dtype)
        wide = sampler(KEY, logits.astype(jnp.float32))
        assert np.array_equal(sampler(KEY, logits), wide.astype(dtype))


@pytest.mark.parametrize("sampler", [bernoulli.sample, *SAMPLERS], ids=lambda s: s.__name__)
def test_nan_logits_stay_nan(sampler):
    assert np.isnan(sampler(jax.random.key(0), jnp.asarray(jnp.nan)))


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: bernoulli.zgr(jax.random.key(0), jnp.arange(3)), TypeError, "logits: got int"),
        (lambda: bernoulli.log_prob(1.0, np.arange(3)), TypeError, "logits: got int"),
        (lambda: bernoulli.log_prob(np.ones(2), np.ones(3)), ValueError, "x: got shape"),
        (lambda: bernoulli.concrete_log_prob(1, 0.5, temperature=1.0), TypeError, "z: got int"),
        (lambda: bernoulli.concrete_kl(1, 0.5), TypeError, "logits_q: got int"),
        (
            lambda: bernoulli.zgr(jax.random.key(0), np.ones(3), shape=(2,)),
            ValueError,
            "shape: got",
        ),
        (lambda: bernoulli.zgr(jax.random.key(0), np.ones(3), shape=3.0), TypeError, "shape: got"),
        (
            lambda: bernoulli.concrete(jax.random.key(0), np.ones(3), temperature=np.ones(2)),
            ValueError,
            "temperature: got shape",
        ),
        (
            lambda: bernoulli.gumbel_rao(jax.random.key(0), np.ones(3), num_noise=0),
            ValueError,
            "num_noise: got 0",
        ),
        (
            lambda: bernoulli.gumbel_rao(jax.random.key(0), np.ones(3), num_noise=2.0),
            TypeError,
            "num_noise: got 2.0",
        ),
    ],
)
def test_errors_name_the_argument(call, error, words):
    with pytest.raises(error, match=words) as caught:
        call()
    assert "need" in str(caught.value)


@pytest.mark.parametrize(
    "bad", [0, -1.0, np.float32(0), np.array([1.0, -1.0, 1.0]), np.inf, np.nan]
)
def test_a_bad_temperature_raises(bad):
    with pytest.raises(ValueError, match="temperature: got"):
        bernoulli.concrete(jax.random.key(0), np.ones(3), temperature=bad)
    with pytest.raises(ValueError, match="temperature: got"):
        bernoulli.concrete_log_prob(np.full(3, 0.5), np.ones(3), temperature=bad)
    traced = jnp.asarray(bad, jnp.float64)
    z = bernoulli.concrete(jax.random.key(0), np.ones(3), temperature=traced)
    assert np.array_equal(np.isnan(z), np.broadcast_to(~((bad > np.zeros(3)) & (bad < np.inf)), 3))


def test_family():
    logits = np.random.default_rng(0).normal(size=(2, 3))
    support = bernoulli.family.support(logits)
    assert support.shape == (64, 2, 3) and len(np.unique(support.reshape(64, 6), axis=0)) == 64
    p = np.exp([bernoulli.family.log_prob(x, logits) for x in support])
    assert np.sum(p) == pytest.approx(1, abs=1e-12)
    close(np.tensordot(p, support, 1), bernoulli.family.mean(logits), rtol=1e-12)
    assert bernoulli.family.sample(jax.random.key(0), logits).shape == (2, 3)
    with pytest.raises(ValueError, match="21 variables of 2 values"):
        bernoulli.family.support(np.zeros(21))
