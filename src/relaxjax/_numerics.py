"""Argument checks, noise, and every log, exp and division that can go wrong.

Estimators compute in float32 or wider ("wide") and round once, at the end; noise is drawn wide too,
since a bfloat16 uniform takes 256 values.
"""

import functools
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


def floats(name, x, event_ndim=0):
    """x as a JAX array of floats with at least event_ndim axes, none of the last ones empty."""
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{name}: got {describe(x)}, need floats (float32, bfloat16, ...)")
    if x.ndim < event_ndim or 0 in x.shape[x.ndim - event_ndim :]:
        raise ValueError(f"{name}: got {describe(x)}, need shape (..., C) with C >= 1")
    return x


def widen(x):
    return x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x


def parameters(name, x, shape, event_ndim=0):
    """x wide, its batch axes broadcast to shape (None keeps them), and the dtype to return."""
    x = floats(name, x, event_ndim)
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


def together(x, logits, event_ndim=0, name="z"):
    """Two arrays in one wide dtype and one shape, and the dtype to return: that of logits."""
    logits = floats("logits", logits, event_ndim)
    x = jnp.asarray(x)
    dtype = functools.reduce(
        lambda a, b: a if jnp.finfo(a).bits >= jnp.finfo(b).bits else b,
        [y.dtype for y in (widen(logits), x) if jnp.issubdtype(y.dtype, jnp.floating)],
    )
    try:
        shape = jnp.broadcast_shapes(x.shape, logits.shape)
    except ValueError:
        shape = None
    if (
        shape is None
        or shape[len(shape) - event_ndim :] != logits.shape[logits.ndim - event_ndim :]
    ):
        raise ValueError(
            f"{name}: got shape {list(x.shape)}, need one that broadcasts with logits, "
            f"{list(logits.shape)}"
        )
    wide = [jnp.broadcast_to(y.astype(dtype), shape) for y in (x, logits)]
    return *wide, logits.dtype


def real(name, x, like, event_ndim=0, *, zero=False):
    """A positive (or, with zero, nonnegative) hyperparameter in like's dtype.

    A Python or NumPy number out of range raises; in a jax.Array, which may be traced, it becomes
    NaN. A scalar stays one; another shape is broadcast to like's batch axes, with a trailing axis
    of 1 for every event axis, so that both combine with like as they are.
    """
    need = "a nonnegative number" if zero else "a positive number"
    if not isinstance(x, jax.Array):
        try:
            value = np.asarray(x, np.float64)
        except (TypeError, ValueError):
            raise TypeError(f"{name}: got {x!r}, need {need}") from None
        if not np.all(np.isfinite(value) & ((value > 0) | (zero & (value == 0)))):
            raise ValueError(f"{name}: got {x}, need {need}")
    x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jnp.complexfloating) or not jnp.issubdtype(x.dtype, jnp.number):
        raise TypeError(f"{name}: got {describe(x)}, need {need}")
    batch = like.shape[: like.ndim - event_ndim]
    if x.ndim and not _broadcasts(x.shape, batch):
        raise ValueError(f"{name}: got shape {x.shape}, need a scalar or the batch shape {batch}")
    x = x.astype(like.dtype)
    x = jnp.where(jnp.isfinite(x) & (x >= 0 if zero else x > 0), x, jnp.nan)
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


def scalar(value):
    """f's value, refused unless it is one float: estimators differentiate it."""
    value = jnp.asarray(value)
    if value.shape or not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(f"f: got a value {describe(value)}, need f to return a float scalar")
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


def interior(z, dtype):
    """z clamped into (0, 1) as dtype resolves it, with derivative 0 where clamped."""
    info = jnp.finfo(dtype)
    low, high = float(info.tiny), float(1 - info.epsneg)
    return jnp.where(z < low, low, jnp.where(z > high, high, z))
