"""Argument checks, noise, and every log, exp and division that can go wrong.

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

# ------------------------------------------------------------------------------------- arguments


def describe(x):
    return f"{x.dtype}{list(x.shape)}"


def floats(name, x, event_ndim=0, least=1):
    """x as a JAX array of floats with event_ndim axes or more, the last ones not below least."""
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{name}: got {describe(x)}, need floats (float32, bfloat16, ...)")
    if x.ndim < event_ndim or min(x.shape[x.ndim - event_ndim :], default=least) < least:
        raise ValueError(f"{name}: got {describe(x)}, need shape (..., C) with C >= {least}")
    return x


def vector(name, x, least=1):
    """x as a JAX array of floats (..., C), C >= least; one number alone is another type."""
    x = floats(name, x)
    if x.ndim == 0:
        raise TypeError(f"{name}: got {describe(x)}, need shape (..., C) with C >= {least}")
    return floats(name, x, 1, least)


def widen(x):
    return x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x


def widest(*arrays):
    """The widest float dtype among the arrays, at least float32, without promotion."""
    dtypes = [widen(x).dtype for x in arrays]
    return functools.reduce(lambda a, b: a if jnp.finfo(a).bits >= jnp.finfo(b).bits else b, dtypes)


def parameters(name, x, shape, event_ndim=0, least=1):
    """x wide, its batch axes broadcast to shape (None keeps them), and the dtype to return."""
    x = floats(name, x, event_ndim, least)
    wide = widen(x)
    if shape is not None:
        split = x.ndim - event_ndim
        batch, event = x.shape[:split], x.shape[split:]
        try:
            shape = tuple(operator.index(n) for n in shape)
        except TypeError:
            raise TypeError(f"shape: got {shape!r}, need a tuple of integers or None") from None
        if not _broadcasts(batch, shape):
            raise ValueError(
                f"shape: got {shape}, need one that the batch shape {batch} of {name} broadcasts to"
            )
        wide = jnp.broadcast_to(wide, shape + event)
    return wide, x.dtype


def together(x, logits, event_ndim=0, name="z", other="logits", least=1):
    """Two arrays in one wide dtype and one shape, and the dtype to return: that of logits."""
    logits = floats(other, logits, event_ndim, least)
    x = jnp.asarray(x)
    dtype = widest(logits, *[x] * jnp.issubdtype(x.dtype, jnp.floating))
    try:
        shape = jnp.broadcast_shapes(x.shape, logits.shape)
    except ValueError:
        shape = None
    if (
        shape is None
        or shape[len(shape) - event_ndim :] != logits.shape[logits.ndim - event_ndim :]
    ):
        raise ValueError(
            f"{name}: got shape {list(x.shape)}, need one that broadcasts with {other}, "
            f"{list(logits.shape)}"
        )
    wide = [jnp.broadcast_to(y.astype(dtype), shape) for y in (x, logits)]
    return *wide, logits.dtype


POSITIVE = "a positive number", lambda x: x > 0
NONNEGATIVE = "a nonnegative number", lambda x: x >= 0
ANY = "a finite number", lambda x: x == x


def real(name, x, like, event_ndim=0, *, range=POSITIVE):
    """A real hyperparameter in like's dtype, in the range POSITIVE, NONNEGATIVE or ANY.

    A Python or NumPy number out of range raises; in a jax.Array, which may be traced, it becomes
    NaN. A scalar stays one; another shape is broadcast to like's batch axes, with a trailing axis
    of 1 for every event axis, so that both combine with like as they are.
    """
    need, holds = range
    if not isinstance(x, jax.Array):
        try:
            value = np.asarray(x, np.float64)
        except (TypeError, ValueError):
            raise TypeError(f"{name}: got {x!r}, need {need}") from None
        if not np.all(np.isfinite(value) & holds(value)):
            raise ValueError(f"{name}: got {x}, need {need}")
    x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jnp.complexfloating) or not jnp.issubdtype(x.dtype, jnp.number):
        raise TypeError(f"{name}: got {describe(x)}, need {need}")
    batch = like.shape[: like.ndim - event_ndim]
    if x.ndim and not _broadcasts(x.shape, batch):
        raise ValueError(f"{name}: got shape {x.shape}, need a scalar or the batch shape {batch}")
    x = x.astype(like.dtype)
    x = jnp.where(jnp.isfinite(x) & holds(x), x, jnp.nan)
    return jnp.broadcast_to(x, batch).reshape(batch + (1,) * event_ndim) if x.ndim else x


def count(name, n, least):
    """A static count as an int: it sets a shape or a loop, so it cannot be traced."""
    need = f"{name}: got {n!r}, need a static integer >= {least}"
    try:
        value = operator.index(n)
    except TypeError:
        raise TypeError(need) from None
    if isinstance(n, bool):
        raise TypeError(need)
    if value < least:
        raise ValueError(need)
    return value


def choice(k, n):
    """k as a static int from 1 to n: so many of n items."""
    k = count("k", k, 1)
    if k > n:
        raise ValueError(f"k: got {k}, need at most the number of items, {n}")
    return k


def scalar(value, name="f"):
    """The value of f, refused unless it is one float: estimators differentiate it."""
    value = jnp.asarray(value)
    if value.shape or not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(f"{name}: got a value {describe(value)}, need it to return a float scalar")
    return value


def _broadcasts(shape, target):
    try:
        return jnp.broadcast_shapes(shape, target) == tuple(target)
    except ValueError:
        return False


# ------------------------------------------------------------------------------------------ noise


def _words(key, shape, dtype):
    """One random word an entry, as wide as dtype, and its number of bits."""
    bits = jnp.finfo(dtype).bits
    return jax.random.bits(key, shape, f"uint{bits}"), bits


def gumbel(key, shape, dtype):
    """Standard Gumbel noise from one word each, in [-3.13, 22.9] for float32."""
    words, bits = _words(key, shape, dtype)
    # v = 1 - u, each exact to rounding, so that neither tail is a difference.
    u, v = ((w.astype(dtype) + 0.5) * 2.0**-bits for w in (~words, words))
    # -log1p(-v), with its series where log u would cancel: log1p itself costs twice as much.
    terms = {32: 5, 64: 11}[bits]
    series = v * functools.reduce(lambda acc, k: acc * v + 1 / k, range(terms, 0, -1), 0.0)
    return -jnp.log(jnp.where(v < 1 / 32, series, -jnp.log(u)))


def logistic(key, shape, dtype):
    """Standard logistic noise from one word each: symmetric, and never infinite."""
    words, bits = _words(key, shape, dtype)
    # One bit is the sign, the others a uniform h in (0, 1/2]: both tails are equally fine.
    h = ((words >> 1).astype(dtype) + 0.5) * 2.0**-bits
    magnitude = jnp.log(1 / h - 1)
    return jnp.where(words & 1 == 1, magnitude, -magnitude)


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


def sigmoid_slope(x):
    """sigmoid'(x), without the cancellation of s (1 - s)."""
    return jax.nn.sigmoid(x) * jax.nn.sigmoid(-x)


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


def log_ndtr(x):
    """log Phi(x), with a slope that is exact in the far tail too.

    There jax's value is a series of three terms, and its rule takes the exponential of a difference
    of two numbers as large as x^2 / 2.
    """
    far = x < {32: -10, 64: -20}[jnp.finfo(x.dtype).bits]
    y = jnp.where(far, x, -30)
    series = functools.reduce(lambda acc, n: 1 - (2 * n - 1) * acc / (y * y), range(7, 0, -1), 1.0)
    tail = -y * y / 2 - jnp.log(-y) - math.log(2 * math.pi) / 2 + jnp.log(series)
    return jnp.where(far, tail, jax.scipy.special.log_ndtr(jnp.where(far, 0, x)))


def _upper_tail(y):
    """Phi(-y) = exp(a) m at y >= 0, as a, m, and Phi(y)."""
    far = y > {32: 10, 64: 30}[jnp.finfo(y.dtype).bits]
    # 1 - 1/y^2 + 3/y^4 - ..., where erfc underflows. Not by rsqrt: XLA's CPU code is slow with it.
    large = jnp.where(far, y, 30)
    r = 1 / (large * large)
    series = functools.reduce(lambda acc, n: 1 - (2 * n - 1) * acc * r, range(7, 0, -1), 1.0)
    near = once(jax.lax.erfc(y / math.sqrt(2)) / 2)
    m = jnp.where(far, series / (math.sqrt(2 * math.pi) * large), near)
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
