"""Noise, and every log, exp and division that can go wrong.

Estimators compute in float32 or wider ("wide") and round once, at the end; noise is drawn wide too,
since a bfloat16 uniform takes 256 values.
"""

import functools
import math
import operator

import jax
import jax.numpy as jnp
import numpy as np

# Keeps XLA from computing an array once for each of its consumers.
once = jax.lax.optimization_barrier

# Reductions over a last axis this short are unrolled: XLA's CPU code for a short minor axis is
# slower than elementwise code (benchmarks/speed.py), and a GPU fuses either.
SHORT = 16

# ---------------------------------------------------------------------------------------- dtypes


def widen(x):
    return x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x


def widest(*arrays):
    """The widest float dtype among the arrays, at least float32, without promotion."""
    dtypes = [widen(x).dtype for x in arrays]
    return functools.reduce(lambda a, b: a if jnp.finfo(a).bits >= jnp.finfo(b).bits else b, dtypes)


# ------------------------------------------------------------------------------------------ noise


def _words(key, shape, dtype):
    """One random word an entry, as wide as dtype, and its number of bits."""
    bits = jnp.finfo(dtype).bits
    return jax.random.bits(key, shape, f"uint{bits}"), bits


def exponential(key, shape, dtype):
    """Standard exponential noise from one word each: never 0, and finest where it is small."""
    words, bits = _words(key, shape, dtype)
    # v = 1 - u, each exact to rounding, so that neither tail is a difference.
    u, v = ((w.astype(dtype) + 0.5) * 2.0**-bits for w in (~words, words))
    # -log1p(-v), with its series where log u would cancel: log1p itself costs twice as much.
    terms = {32: 5, 64: 11}[bits]
    series = v * functools.reduce(lambda acc, k: acc * v + 1 / k, range(terms, 0, -1), 0.0)
    return jnp.where(v < 1 / 32, series, -jnp.log(u))


def gumbel(key, shape, dtype):
    """Standard Gumbel noise from one word each, in [-3.13, 22.9] for float32."""
    return -jnp.log(exponential(key, shape, dtype))


def _signs_and_tails(key, shape, dtype):
    """Of one word each: a fair bit, and a uniform h in (0, 1/2], so that both tails are fine."""
    words, bits = _words(key, shape, dtype)
    return words & 1 == 1, ((words >> 1).astype(dtype) + 0.5) * 2.0**-bits


def logistic(key, shape, dtype):
    """Standard logistic noise from one word each: symmetric, and never infinite."""
    positive, h = _signs_and_tails(key, shape, dtype)
    magnitude = jnp.log(1 / h - 1)
    return jnp.where(positive, magnitude, -magnitude)


def odds(key, shape, dtype):
    """exp of that logistic noise, without a logarithm."""
    positive, h = _signs_and_tails(key, shape, dtype)
    return jnp.where(positive, 1 - h, h) / jnp.where(positive, h, 1 - h)


# -Phi^-1(h) / (1 - 2 h) to 1e-8, as a ratio of polynomials in w = -log(4 h (1 - h)), w^6 first.
_NORMAL = (
    (
        1.9095609e-07,
        5.92815225e-05,
        0.00113764587,
        0.0125206981,
        0.0909935297,
        0.447427993,
        1.25331413,
    ),
    (3.73507772e-06, 0.000248326939, 0.00231098972, 0.0346492664, 0.0951962205, 1.0),
)


def normal(key, shape, dtype):
    """Standard Gaussian noise from one word each, in [-6.34, 6.34] for float32.

    There jax.random.normal ends at 5.42, in coarse steps, and costs up to twice as much.
    """
    if jnp.finfo(dtype).bits != 32:
        return jax.random.normal(key, shape, dtype)
    words, bits = _words(key, shape, dtype)
    # One bit is the sign, the others a uniform h in (0, 1/2], and x = 1 - 2 h without cancellation.
    h = ((words >> 1).astype(dtype) + 0.5) * 2.0**-bits
    x = ((~words >> 1).astype(dtype) + 0.5) * 2.0 ** (1 - bits)
    w = -jnp.log(4 * h * (1 - h))
    ratio = [functools.reduce(lambda acc, c: acc * w + c, coefficients) for coefficients in _NORMAL]
    # The division keeps XLA's CPU code from computing this for every use, the sign from a fusion
    # that is slow.
    magnitude = x * ratio[0] / ratio[1]
    return jnp.where(words & 1 == 1, magnitude, -magnitude)


def noise_key(key):
    """A second key for noise beside a draw from key itself, whose draw stays that of `sample`."""
    # No array draws the word of this index, so the two streams share nothing.
    return jax.random.fold_in(key, np.uint32(2**32 - 1))


def mean_over_noise(weight, key, num_noise):
    """The mean of weight(key_k) over num_noise keys, one at a time: memory of one."""
    shape = jax.eval_shape(weight, key)

    def add(total, key):
        return total + weight(key), None

    zero = jnp.zeros(shape.shape, shape.dtype)
    total, _ = jax.lax.scan(add, zero, jax.random.split(key, num_noise))
    return total / num_noise


# ------------------------------------------------------------------------- elementwise and by rows


def row_sum(x):
    """Sum over the last axis, kept."""
    if x.shape[-1] > SHORT:
        return jnp.sum(x, axis=-1, keepdims=True)
    return functools.reduce(operator.add, columns(once(x)))


def row_max(x):
    """Maximum over the last axis, kept."""
    if x.shape[-1] > SHORT:
        return jnp.max(x, axis=-1, keepdims=True)
    return functools.reduce(jnp.maximum, columns(once(x)))


def ranks(x):
    """0 at the largest of the last axis, 1 at the next, ...; of equal entries the first leads.

    Each entry against each, for short rows: 18 times as fast on a CPU as sorting 65,536 rows of 10.
    """
    n = x.shape[-1]
    earlier = np.tri(n, k=-1, dtype=bool).reshape((1,) * (x.ndim - 1) + (n, n))
    one, other = x[..., None], x[..., None, :]
    return jnp.sum((other > one) | ((other == one) & earlier), axis=-1)


def kth_largest(x, k):
    """The k-th largest of the last axis, kept."""
    if x.shape[-1] > SHORT:
        return jax.lax.top_k(x, k)[0][..., -1:]
    return row_sum(jnp.where(ranks(x) == k - 1, x, 0))


def columns(x):
    return [x[..., i : i + 1] for i in range(x.shape[-1])]


@jax.jit
def softmax(x):
    """softmax over the last axis; NaN for a row that is masked throughout."""
    if x.shape[-1] > SHORT:
        return jax.nn.softmax(x, axis=-1)
    x = once(x)
    e = once(jnp.exp(x - once(jax.lax.stop_gradient(row_max(x)))))
    return e * once(1 / row_sum(e))


def covariance(p, g):
    """J(p) g, J(p) = diag(p) - p p^T; exactly 0 wherever p is, whatever g is there."""
    pg = once(jnp.where(p == 0, 0, p * g))
    return pg - p * once(row_sum(pg))


def log_of(p):
    """log p with 0 at p = 0, for products p log p and their derivatives."""
    return jnp.where(p == 0, 0, jnp.log(jnp.where(p == 0, 1, p)))


def softplus_sum(x):
    """softplus(x) + softplus(-x) = -log(sigmoid'(x)), without a kink at 0."""
    return jax.nn.softplus(x) + jax.nn.softplus(-x)


@jax.custom_jvp
def sigmoid_slope(x):
    """sigmoid'(x), without the cancellation of s (1 - s)."""
    e = jnp.exp(-jnp.abs(x))
    r = 1 / (1 + e)
    return e * r * r


@sigmoid_slope.defjvp
def _sigmoid_slope_jvp(primals, tangents):
    # By itself a formula without |x|, whose derivative at 0 is not this one's.
    (x,), (dx,) = primals, tangents
    slope = sigmoid_slope(x)
    return slope, -slope * jnp.tanh(x / 2) * dx


def follow(value, logits):
    """value, with the derivative 1 in logits (0 where these are infinite)."""
    finite = jnp.where(jnp.isinf(logits), 0, logits)
    return jax.lax.stop_gradient(value) + (finite - jax.lax.stop_gradient(finite))


def sum_like(x, like):
    """x summed to the shape of a hyperparameter: a scalar, one number a row, or as it is."""
    if like.ndim == 0:
        return jnp.sum(x)
    return x if like.shape == x.shape else row_sum(x)


def linear(x, log_p):
    """x log p, linear in x, where log p = -inf contributes 0 at x = 0 and -inf elsewhere."""
    impossible = log_p == -jnp.inf
    return jnp.where(impossible & (x != 0), -jnp.inf, x * jnp.where(impossible, 0, log_p))


def _mills(r):
    """y Phi(-y) / phi(y) = 1 - r + 3 r^2 - 15 r^3 + ... at a large y, r = 1 / y^2."""
    return functools.reduce(lambda acc, n: 1 - (2 * n - 1) * acc * r, range(7, 0, -1), 1.0)


def log_ndtr(x):
    """log Phi(x), with a slope that is exact in the far tail too.

    There jax's value is a series of three terms, and its rule takes the exponential of a difference
    of two numbers as large as x^2 / 2.
    """
    far = x < {32: -10, 64: -20}[jnp.finfo(x.dtype).bits]
    y = jnp.where(far, x, -30)
    tail = -y * y / 2 - jnp.log(-y) - math.log(2 * math.pi) / 2 + jnp.log(_mills(1 / (y * y)))
    return jnp.where(far, tail, jax.scipy.special.log_ndtr(jnp.where(far, 0, x)))


def _upper_tail(y):
    """Phi(-y) = exp(a) m at y >= 0, as a, m, and Phi(y)."""
    far = y > {32: 10, 64: 30}[jnp.finfo(y.dtype).bits]
    # Where erfc underflows. Not by rsqrt: XLA's CPU code is slow with it.
    large = jnp.where(far, y, 30)
    near = once(jax.lax.erfc(y / math.sqrt(2)) / 2)
    m = jnp.where(far, _mills(1 / (large * large)) / (math.sqrt(2 * math.pi) * large), near)
    return jnp.where(far, -y * y / 2, 0), m, jnp.where(far, 1, 1 - near)


@jax.custom_jvp
def normal_logit(v):
    """log Phi(v) - log Phi(-v): the log-odds of the uniform that a normal v makes, at any v."""
    a, m, rest = _upper_tail(jnp.abs(v))
    odds = a + jnp.log(m / rest)
    return jnp.where(v > 0, -odds, odds)


@normal_logit.defjvp
def _normal_logit_jvp(primals, tangents):
    (v,), (dv,) = primals, tangents
    return normal_logit(v), normal_rate(v) * dv


@jax.custom_jvp
def normal_rate(v):
    """d normal_logit / dv = phi(v) / (Phi(v) Phi(-v)), as large as |v|."""
    a, m, rest = _upper_tail(jnp.abs(v))
    return jnp.exp(-v * v / 2 - a) / (math.sqrt(2 * math.pi) * m * rest)


@normal_rate.defjvp
def _normal_rate_jvp(primals, tangents):
    # By itself a formula without |v|, whose derivative at 0 is not this one's.
    (v,), (dv,) = primals, tangents
    rate = normal_rate(v)
    return rate, rate * (rate * jnp.tanh(normal_logit(v) / 2) - v) * dv


@jax.custom_jvp
def normal_score(x):
    """The v with normal_logit(v) = x, at any finite x, by Newton steps."""
    tail = -jax.nn.softplus(jnp.abs(x))
    # Below -5 the asymptote of log Phi: nearer to 0 it is so coarse that three steps are too few.
    low, high = jnp.minimum(tail, -5), jnp.maximum(tail, -5)
    far = -jnp.sqrt(-2 * low - math.log(2 * math.pi) - jnp.log(-2 * low))
    start = jnp.where(tail < -5, far, jax.scipy.special.ndtri(jnp.exp(high)))
    start = jnp.where(x > 0, -start, start)
    return jax.lax.fori_loop(0, 3, lambda _, v: v - (normal_logit(v) - x) / normal_rate(v), start)


@normal_score.defjvp
def _normal_score_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    v = normal_score(x)
    return v, dx / normal_rate(v)


def bounded(x):
    """x with 1e30 for infinity, so that 0 x is 0 and its multiples are finite; NaN stays NaN."""
    return jnp.clip(x, -1e30, 1e30)


def unit(z):
    """z clipped to [0, 1], with derivative 0 where clipped, at the ends too."""
    return jnp.where(z <= 0, 0, jnp.where(z >= 1, 1, z))


def interior(z, dtype):
    """z clamped into (0, 1) as dtype resolves it, with derivative 0 where clamped."""
    info = jnp.finfo(dtype)
    low, high = float(info.tiny), float(1 - info.epsneg)
    return jnp.where(z < low, low, jnp.where(z > high, high, z))
