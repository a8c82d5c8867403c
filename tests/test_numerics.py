"""Noise and tails of the one home of numerics, where no estimator's own test would see a fault."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from relaxjax import _noise, _numerics, _special, bernoulli, categorical, subsets

pytestmark = pytest.mark.optimized

KEY = jax.random.key(3)
WORDS = 2**32
DTYPES = ["float32", *["float64"] * jax.config.jax_enable_x64]


@pytest.mark.parametrize(
    "noise, law",
    [
        (_noise.normal, stats.norm),
        (_noise.logistic, stats.logistic),
        (_noise.odds, stats.fisk(1)),
        (_noise.exponential, stats.expon),
        (_noise.gumbel, stats.gumbel_r),
    ],
)
@pytest.mark.parametrize("n", [100_000, pytest.param(1_000_000, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_noise_has_its_law(noise, law, dtype, n):
    """Kolmogorov-Smirnov, and the counts in both tails, which it hardly sees."""
    x = np.asarray(noise(KEY, (n,), jnp.dtype(dtype)), float)
    assert stats.kstest(x, law.cdf).pvalue > 1e-6
    for tail in 1e-3, 1e-4, 1e-5:
        for count in np.sum(x < law.ppf(tail)), np.sum(x > law.isf(tail)):
            assert 1e-6 < stats.binom.cdf(count, n, tail) < 1 - 1e-6
    # Words of 16 bits would pass all of that, and take 65,536 values.
    assert len(np.unique(x[:100_000])) > 99_000


def test_normal_is_the_quantile_of_its_word(monkeypatch):
    """Oracle: scipy's quantile of the word's uniform, at both ends and all between."""
    rng = np.random.default_rng(0)
    words = np.concatenate(
        [[0, 1, 2, 3, WORDS - 2, WORDS - 1, 2**31, 2**31 + 1], rng.integers(0, WORDS, 100_000)]
    ).astype(np.uint32)
    monkeypatch.setattr(_noise, "_words", lambda key, shape, dtype: (jnp.asarray(words), 32))
    x = np.asarray(_noise.normal(KEY, words.shape, jnp.float32), float)
    h = ((words >> 1).astype(float) + 0.5) / WORDS
    expected = np.where(words & 1, 1, -1) * -special.ndtri(h)
    np.testing.assert_allclose(x, expected, rtol=4e-6, atol=2e-7)
    assert 6.3 < np.max(np.abs(x)) < 6.4


@pytest.mark.parametrize("dtype", DTYPES)
def test_log_ndtr(dtype):
    """Oracles: scipy, and the ratio phi / Phi by scipy's scaled complementary error function."""
    x = np.concatenate([np.linspace(-60, 8, 401), [-1e4, -300.0, -20.01, -19.99, -10.01, -9.99]])
    # Near 0 the logarithm rounds as 1 does.
    rtol, atol = {"float32": (1e-6, 1e-7), "float64": (1e-13, 1e-15)}[dtype]
    wide = jnp.asarray(x, dtype)
    exact = np.asarray(wide, float)
    value, slope = jax.jit(jax.vmap(jax.value_and_grad(_special.log_ndtr)))(wide)
    np.testing.assert_allclose(value, special.log_ndtr(exact), rtol=rtol, atol=atol)
    expected = np.sqrt(2 / np.pi) / special.erfcx(-exact / np.sqrt(2))
    np.testing.assert_allclose(slope, expected, rtol=20 * rtol, atol=atol)


@pytest.mark.parametrize("dtype", DTYPES)
def test_sigmoid_slope(dtype):
    """Oracle: hyperbolic functions by NumPy, with two derivatives more, at 0 and in the tails."""
    x = np.concatenate([np.linspace(-80, 80, 401), [-1e-3, 1e-3, -np.inf, np.inf]])
    half = np.where(np.isinf(x), np.sign(x) * 1e3, x) / 2
    with np.errstate(over="ignore"):
        slope, t = 1 / (4 * np.cosh(half) ** 2), np.tanh(half)
    expected = slope, -slope * t, slope * (t * t - 2 * slope)
    first = jax.grad(_numerics.sigmoid_slope)
    rtol = {"float32": 2e-6, "float64": 2e-14}[dtype]
    for f, y in zip((_numerics.sigmoid_slope, first, jax.grad(first)), expected, strict=True):
        got = jax.jit(jax.vmap(f))(jnp.asarray(x, dtype))
        # The last one changes sign, where its two terms cancel.
        np.testing.assert_allclose(got, y, rtol=rtol, atol=rtol / 10)


def among(l, place):
    """Three logits, 0 but for l at that place."""
    return jnp.stack([l if i == place else 0 * l for i in range(3)], axis=-1)


RARE = {  # of a draw from l where something is rare, whether it is there; and its probability
    "bit": (lambda l: bernoulli.sample(None, l) == 1, special.expit),
    "other bit": (lambda l: bernoulli.zgr(None, -l) == 0, special.expit),
    "smooth bit": (
        lambda l: bernoulli.stochastic_times_smooth(None, 2 * l) > 0,
        lambda l: np.sqrt(special.expit(2 * l)),
    ),
    "smooth 0": (
        lambda l: bernoulli.stochastic_times_smooth(None, -l) == 0,
        lambda l: special.expit(l) / (1 + np.sqrt(special.expit(-l))),
    ),
    "class": (
        lambda l: categorical.sample(None, among(l, 0))[..., 0] == 1,
        lambda l: np.exp(l) / (2 + np.exp(l)),
    ),
    "item": (
        lambda l: subsets.sample(None, among(l, 2), 1)[..., 2] == 1,
        lambda l: np.exp(l) / (2 + np.exp(l)),
    ),
}


@pytest.mark.parametrize("share", [5.4, 2.0**12 + 0.5, 0.9, 2e-8])
@pytest.mark.parametrize("name", RARE)
def test_what_is_rare_has_its_share_of_all_words(name, share, monkeypatch):
    """To one word of 2^32, and none where it has less: at logit -40, for one. A float32 uniform is
    0, below every probability, at 512 words."""
    there, law = RARE[name]
    near = np.arange(-(2**13), 2**13)
    words = np.concatenate([near[near >= 0], near + 2**31, near[near < 0] + 2**32])
    shaped = lambda shape: words.astype(np.uint32).reshape(-1, *(1,) * (len(shape) - 1))
    of = lambda key, shape, dtype: (jnp.broadcast_to(shaped(shape), shape), 32)
    monkeypatch.setattr(_noise, "_words", of)
    l = np.log(share / WORDS)
    count = int(jnp.sum(there(jnp.full(len(words), l, jnp.float32))))
    expected = law(np.float64(np.float32(l))) * WORDS
    assert abs(count - expected) <= 1 + 1e-6 * expected and (count == 0 or expected > 0.5)


def test_what_is_rare_after_others_is_not_drawn_too_often(monkeypatch):
    """To the rounding of a float32 sum: at logit -40 never."""
    words = jnp.arange(2**31 - 2**12, 2**31 + 2**12, dtype=jnp.uint32)
    monkeypatch.setattr(_noise, "_words", lambda key, shape, dtype: (words[:, None], 32))
    for logit, most in ((-40.0, 0), (-18.0, 256)):
        for place in (1, 2):
            l = among(jnp.full(len(words), logit, jnp.float32), place)
            assert jnp.sum(categorical.sample(None, l)[:, place]) <= most
