"""Noise made from random words: one word per entry, drawn in float32 or wider.

A bfloat16 uniform takes only 256 values, and the tails of jax.random's own noise are as coarse as
its uniform.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np


def _words(key, shape, dtype):
    """Draw one random word per entry, as wide as dtype, and return its number of bits beside it."""
    bits = jnp.finfo(dtype).bits
    return jax.random.bits(key, shape, f"uint{bits}"), bits


def exponential(key, shape, dtype):
    """Draw standard exponential noise, one word per entry: never 0, and finest near 0."""
    words, bits = _words(key, shape, dtype)
    # Both u and v = 1 - u are exact to rounding, so that neither tail is a difference.
    u, v = ((w.astype(dtype) + 0.5) * 2.0**-bits for w in (~words, words))
    # This is -log1p(-v), by its series where log u would cancel; log1p itself costs twice as much.
    terms = {32: 5, 64: 11}[bits]
    series = v * functools.reduce(lambda acc, k: acc * v + 1 / k, range(terms, 0, -1), 0.0)
    return jnp.where(v < 1 / 32, series, -jnp.log(u))


def gumbel(key, shape, dtype):
    """Draw standard Gumbel noise from one word per entry, in [-3.13, 22.9] for float32."""
    return -jnp.log(exponential(key, shape, dtype))


def _signs_and_tails(key, shape, dtype):
    """Draw a fair bit and a uniform h in (0, 1/2] from one word, so that both tails are fine."""
    words, bits = _words(key, shape, dtype)
    return words & 1 == 1, ((words >> 1).astype(dtype) + 0.5) * 2.0**-bits


def logistic(key, shape, dtype):
    """Draw standard logistic noise from one word per entry: symmetric, and never infinite."""
    positive, h = _signs_and_tails(key, shape, dtype)
    magnitude = jnp.log(1 / h - 1)
    return jnp.where(positive, magnitude, -magnitude)


def odds(key, shape, dtype):
    """Draw the exp of that logistic noise without taking a logarithm."""
    positive, h = _signs_and_tails(key, shape, dtype)
    return jnp.where(positive, 1 - h, h) / jnp.where(positive, h, 1 - h)


# The coefficients of -Phi^-1(h) / (1 - 2 h), to 1.2e-8, as a ratio of polynomials in
# w = -log(4 h (1 - h)), w^6 first. benchmarks/normal_noise.py fits and prints them.
_NORMAL = (
    (
        2.20294893e-07,
        6.84019906e-05,
        0.00131279859,
        0.0144488011,
        0.105007708,
        0.516344607,
        1.44636893,
    ),
    (4.30938735e-06, 0.0002865477, 0.00266683521, 0.0399855003, 0.109857298, 1.15403545),
)


def normal(key, shape, dtype):
    """Draw standard Gaussian noise from one word per entry, in [-6.34, 6.34] for float32.

    There jax.random.normal ends at 5.42, in coarse steps, and costs up to twice as much.
    """
    if jnp.finfo(dtype).bits != 32:
        return jax.random.normal(key, shape, dtype)
    words, bits = _words(key, shape, dtype)
    # One bit is the sign, and the others make a uniform h in (0, 1/2], and x = 1 - 2 h without
    # cancellation.
    h = ((words >> 1).astype(dtype) + 0.5) * 2.0**-bits
    x = ((~words >> 1).astype(dtype) + 0.5) * 2.0 ** (1 - bits)
    w = -jnp.log(4 * h * (1 - h))
    ratio = [functools.reduce(lambda acc, c: acc * w + c, coefficients) for coefficients in _NORMAL]
    # The division keeps XLA's CPU code from computing this again for every use, and the sign at the
    # end keeps it from a slow fusion.
    magnitude = x * ratio[0] / ratio[1]
    return jnp.where(words & 1 == 1, magnitude, -magnitude)


def uniform(key, shape, dtype):
    """Draw a uniform in (0, 1), finest near 0; that of jax.random is 0 as often as 2^-23."""
    word, bits = _words(key, shape, dtype)
    below_one = 1 - float(jnp.finfo(dtype).epsneg)
    return jnp.minimum((word.astype(dtype) + 0.5) * 2.0**-bits, below_one)


def rarely(key, q):
    """Draw booleans that are True with probability q in [0, 1/2], to one word, and rounded down."""
    word, bits = _words(key, q.shape, q.dtype)
    return word < (q * 2.0**bits).astype(word.dtype)


def noise_key(key):
    """Return a second key, for noise beside the draw that `sample` makes from key itself."""
    # No array draws the word of this index, so the two streams share nothing.
    return jax.random.fold_in(key, np.uint32(2**32 - 1))


def mean_over_noise(weight, key, num_noise):
    """Average weight(key_k) over num_noise keys, one at a time, in the memory of one."""
    shape = jax.eval_shape(weight, key)

    def add(total, key):
        return total + weight(key), None

    zero = jnp.zeros(shape.shape, shape.dtype)
    total, _ = jax.lax.scan(add, zero, jax.random.split(key, num_noise))
    return total / num_noise
