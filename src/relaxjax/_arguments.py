"""Checks of arguments at the public entries: an error says what was got and what is needed."""

import operator

import jax
import jax.numpy as jnp
import numpy as np

from relaxjax import _numerics


def describe(x):
    return f"{x.dtype}{list(x.shape)}"


def array(name, x, need):
    """x as a JAX array of numbers; TypeError where it is none."""
    try:
        x = jnp.asarray(x)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: got {x!r}, need {need}") from None
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise TypeError(f"{name}: got {describe(x)}, need {need}")
    return x


def floats(name, x, event_ndim=0, least=1):
    """x as a JAX array of floats with at least event_ndim axes, these of length least or more."""
    x = array(name, x, "an array of floats")
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"{name}: got {describe(x)}, need floats (float32, bfloat16, ...)")
    if x.ndim < event_ndim or min(x.shape[x.ndim - event_ndim :], default=least) < least:
        raise ValueError(f"{name}: got {describe(x)}, need shape (..., n) with n >= {least}")
    return x


def parameters(name, x, shape, event_ndim=0, least=1):
    """x wide, with its batch axes broadcast to shape (None keeps them), and the dtype to return."""
    x = floats(name, x, event_ndim, least)
    wide = _numerics.widen(x)
    if shape is not None:
        split = x.ndim - event_ndim
        batch, event = x.shape[:split], x.shape[split:]
        try:
            shape = tuple(operator.index(n) for n in shape)
        except TypeError:
            raise TypeError(f"shape: got {shape!r}, need a tuple of integers or None") from None
        if min(shape, default=0) < 0 or not _broadcasts(batch, shape):
            raise ValueError(
                f"shape: got {shape}, need one that the batch shape {batch} of {name} broadcasts to"
            )
        wide = jnp.broadcast_to(wide, shape + event)
    return wide, x.dtype


def broadcast_together(x, logits, event_ndim=0, name="z", other="logits", least=1):
    """Two arrays in one wide dtype and one shape, and the dtype to return: that of logits."""
    logits = floats(other, logits, event_ndim, least)
    x = array(name, x, "an array of numbers")
    dtype = _numerics.widest(logits, *[x] * jnp.issubdtype(x.dtype, jnp.floating))
    try:
        shape = jnp.broadcast_shapes(x.shape, logits.shape)
    except ValueError:
        shape = None
    # Event axes have to be the same: one column would be taken for all.
    event = logits.shape[logits.ndim - event_ndim :]
    if shape is None or x.shape[max(0, x.ndim - event_ndim) :] != event:
        raise ValueError(
            f"{name}: got shape {list(x.shape)}, need one that broadcasts with {other}, "
            f"{list(logits.shape)}"
        )
    wide = [jnp.broadcast_to(y.astype(dtype), shape) for y in (x, logits)]
    return *wide, logits.dtype


POSITIVE = "a positive number", lambda x: x > 0
NONNEGATIVE = "a nonnegative number", lambda x: x >= 0
ANY = "a finite number", lambda x: x == x
LOW_END, HIGH_END = ("a low end < 0", lambda x: x < 0), ("a high end > 1", lambda x: x > 1)


def as_float64(name, x, need):
    """A Python or NumPy x in NumPy's float64; TypeError where it is no number, or is traced."""
    try:
        value = np.asarray(x)
        if value.dtype.kind in "OSUc":  # None, strings, complex: some of them float64 takes too
            raise TypeError
        return value.astype(np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: got {x!r}, need {need}") from None


def hyperparameter(name, x, like, event_ndim=0, *, interval=POSITIVE):
    """A real hyperparameter in the dtype of like, in an interval such as POSITIVE.

    A Python or NumPy number outside of the interval raises; in a jax.Array, which may be traced, it
    becomes NaN. A scalar stays one; another shape is broadcast to the batch axes of like, with a
    trailing axis of length 1 for each event axis, so that both combine with like as they are.
    """
    need, holds = interval
    x = _held(x)
    if not isinstance(x, jax.Array):
        value = as_float64(name, x, need)
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


def subset_size(k, n):
    """k as a static int from 1 to n, the size of a subset of n items."""
    k = count("k", k, 1)
    if k > n:
        raise ValueError(f"k: got {k}, need at most the number of items, {n}")
    return k


def nan_rows(logits, k):
    """logits, NaN in rows without a distribution: with NaN, +inf or fewer than k unmasked items."""
    enough = jnp.sum(logits > -jnp.inf, axis=-1, keepdims=True) >= k
    return jnp.where(enough & (_numerics.row_max(logits) < jnp.inf), logits, jnp.nan)


def pair(stretch):
    """The two ends of a stretch."""
    try:
        low, high = stretch
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError  # no pair, or not of two
        raise kind(f"stretch: got {stretch!r}, need a pair (low, high)") from None
    return low, high


def stretch_ends(stretch, like):
    """Both ends of a stretch as hyperparameters, the low one below 0 and the high one above 1."""
    low, high = pair(stretch)
    low = hyperparameter("stretch", low, like, interval=LOW_END)
    return low, hyperparameter("stretch", high, like, interval=HIGH_END)


def correlation_factor(tril, logits):
    """The Cholesky factor of a correlation matrix, in the dtype of logits (..., D).

    A jax.Array that is no such factor becomes NaN; another array raises.
    """
    n = logits.shape[-1]
    need = f"need a lower triangular matrix {[n, n]} with rows of norm 1 within 1e-3"
    tril = _held(tril)
    x = floats("correlation_tril", tril)
    if x.shape != (n, n):
        raise ValueError(f"correlation_tril: got {describe(x)}, {need}")
    wide = x.astype(logits.dtype)
    # What NumPy can decide, its own arithmetic decides, also inside a trace.
    xp, m = (jnp, wide) if isinstance(tril, jax.Array) else (np, np.asarray(tril, np.float64))
    good = xp.all(xp.triu(m, 1) == 0) & xp.all(abs(xp.sqrt(xp.sum(m * m, axis=-1)) - 1) <= 1e-3)
    if xp is np and not good:
        raise ValueError(f"correlation_tril: got {tril}, {need}")
    return jnp.where(good, wide, jnp.nan)


def scalar(value, name="f"):
    """The value of f, refused unless it is one float, since estimators differentiate it."""
    need = "it to return a float scalar"
    value = array(name, value, need)
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(f"{name}: got a value {describe(value)}, need {need}")
    if value.shape:
        raise ValueError(f"{name}: got a value {describe(value)}, need {need}")
    return value


def _held(x):
    """The array in a container that JAX can convert, such as an nnx.Param; else x."""
    convert = getattr(x, "__jax_array__", None)
    return convert() if convert else x


def _broadcasts(shape, target):
    try:
        return jnp.broadcast_shapes(shape, target) == tuple(target)
    except ValueError:
        return False
