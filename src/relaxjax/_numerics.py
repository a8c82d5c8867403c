"""Every log, exp and division that can go wrong, and reductions over short rows.

Estimators compute in float32 or wider ("wide") and round once, at the end.
"""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np

# This keeps XLA from computing an array again for each of its consumers.
computed_once = jax.lax.optimization_barrier

# Reductions over a last axis this short are unrolled: XLA's CPU code for a short minor axis is
# slower than elementwise code (benchmarks/speed.py), and a GPU fuses either.
SHORT = 16

# ---------------------------------------------------------------------------------------- dtypes


def widen(x):
    """Return x in float32 or wider."""
    return x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x


def widest(*arrays):
    """Return the widest float dtype among the arrays, at least float32, without promotion."""
    dtypes = [widen(x).dtype for x in arrays]
    return functools.reduce(lambda a, b: a if jnp.finfo(a).bits >= jnp.finfo(b).bits else b, dtypes)


# ------------------------------------------------------------------------- elementwise and by rows


def row_sum(x):
    """Sum over the last axis, which is kept."""
    if x.shape[-1] > SHORT:
        return jnp.sum(x, axis=-1, keepdims=True)
    return functools.reduce(operator.add, columns(computed_once(x)))


def row_max(x):
    """Take the maximum over the last axis, which is kept."""
    if x.shape[-1] > SHORT:
        return jnp.max(x, axis=-1, keepdims=True)
    return functools.reduce(jnp.maximum, columns(computed_once(x)))


def ranks(x):
    """Rank the last axis: 0 at the largest, 1 at the next, ...; of equal entries the first leads.

    This compares each entry with each other one, for short rows: it is 18 times as fast on a CPU as
    sorting 65,536 rows of 10.
    """
    n = x.shape[-1]
    earlier = np.tri(n, k=-1, dtype=bool).reshape((1,) * (x.ndim - 1) + (n, n))
    one, other = x[..., None], x[..., None, :]
    return jnp.sum((other > one) | ((other == one) & earlier), axis=-1)


def kth_largest(x, k):
    """Return the k-th largest of the last axis, which is kept."""
    if x.shape[-1] > SHORT:
        return jax.lax.top_k(x, k)[0][..., -1:]
    return row_sum(jnp.where(ranks(x) == k - 1, x, 0))


def top_indices(x, k):
    """Return where the k largest of the last axis are, the largest first."""
    if x.shape[-1] > SHORT:
        return jax.lax.top_k(x, k)[1]
    at = jnp.arange(k).reshape((1,) * (x.ndim - 1) + (k, 1)) == ranks(x)[..., None, :]
    place = jax.lax.broadcasted_iota(jnp.int32, at.shape, at.ndim - 1)
    return jnp.sum(jnp.where(at, place, 0), axis=-1, dtype=jnp.int32)


def k_hot(x, k):
    """Return 1 at the k largest of the last axis and 0 elsewhere."""
    if x.shape[-1] > SHORT:
        one = jnp.ones((), x.dtype)
        return jnp.put_along_axis(jnp.zeros_like(x), top_indices(x, k), one, -1, inplace=False)
    return (ranks(x) < k).astype(x.dtype)


def one_hot_of_largest(x):
    """Return 1 at the first of the largest of the last axis; NaN where none is finite."""
    d = jax.nn.one_hot(jnp.argmax(x, axis=-1), x.shape[-1], dtype=x.dtype)
    # arg-max would make a class of a row of NaN or of nothing but masks.
    return jnp.where(jnp.isfinite(row_max(x)), d, jnp.nan)


def indicator(x):
    """Return 1 where x > 0, else 0; NaN stays NaN."""
    return jnp.where(jnp.isnan(x), jnp.nan, (x > 0).astype(x.dtype))


def columns(x):
    """Return the columns of the last axis, which each of them keeps."""
    return [x[..., i : i + 1] for i in range(x.shape[-1])]


@jax.jit
def softmax(x):
    """Compute the softmax over the last axis; NaN for a row that is masked throughout."""
    if x.shape[-1] > SHORT:
        return jax.nn.softmax(x, axis=-1)
    x = computed_once(x)
    e = computed_once(jnp.exp(x - computed_once(jax.lax.stop_gradient(row_max(x)))))
    return e * computed_once(1 / row_sum(e))


def covariance(p, g):
    """Compute J(p) g, J(p) = diag(p) - p p^T: exactly 0 wherever p is 0, whatever g is there."""
    pg = computed_once(jnp.where(p == 0, 0, p * g))
    return pg - p * computed_once(row_sum(pg))


def log_or_zero(p):
    """Compute log p, with 0 at p = 0, for products p log p and their derivatives."""
    return jnp.where(p == 0, 0, jnp.log(jnp.where(p == 0, 1, p)))


def entropy(log_p):
    """Compute -sum p log p over the last axis from log p."""
    return -jnp.sum(jnp.exp(log_p) * jnp.where(log_p == -jnp.inf, 0, log_p), axis=-1)


def kl(log_q, log_p):
    """Compute sum q log(q / p) over the last axis, from log q and log p; inf where p = 0 < q."""
    never = log_q == -jnp.inf
    terms = jnp.where(never, 0, log_q) - jnp.where(never, 0, log_p)
    return jnp.sum(jnp.exp(log_q) * terms, axis=-1)


def log_bits(logits):
    """Compute the log-probabilities of 0 and 1, on a new last axis."""
    return jnp.stack([jax.nn.log_sigmoid(-logits), jax.nn.log_sigmoid(logits)], axis=-1)


def softplus_sum(x):
    """Compute softplus(x) + softplus(-x) = -log(sigmoid'(x)), without a kink at 0."""
    return jax.nn.softplus(x) + jax.nn.softplus(-x)


def logistic_log_density(y, logits, temperature):
    """Compute the log-density at y of (logits + L) / temperature, L ~ Logistic(0, 1)."""
    return jnp.log(temperature) - softplus_sum(temperature * y - logits)


@jax.custom_jvp
def sigmoid_slope(x):
    """Compute sigmoid'(x), without the cancellation of s (1 - s)."""
    e = jnp.exp(-jnp.abs(x))
    r = 1 / (1 + e)
    return e * r * r


@sigmoid_slope.defjvp
def _sigmoid_slope_jvp(primals, tangents):
    # The derivative takes the slope from its own function and has no |x|, whose derivative at 0
    # would be wrong.
    (x,), (dx,) = primals, tangents
    slope = sigmoid_slope(x)
    return slope, -slope * jnp.tanh(x / 2) * dx


def sqrt_sigmoid(x):
    """Compute sqrt(sigmoid(x)) without underflow where sigmoid(x) underflows; smooth at 0 too."""
    below = x < 0
    negative, positive = jnp.where(below, x, 0), jnp.where(below, 0, x)
    scale = jnp.where(below, jnp.exp(negative / 2), 1)
    return scale * jax.lax.rsqrt(1 + jnp.exp(negative - positive))


def log_sqrt_bits(x):
    """Compute the log-probabilities of 0 and 1 of a bit with probability q = sqrt(sigmoid(x)).

    They are log(1 - q) = log((1 - q^2) / (1 + q)) and log q, on a new last axis.
    """
    log_q = jax.nn.log_sigmoid(x) / 2
    log_zero = jax.nn.log_sigmoid(-x) - jnp.log1p(jnp.exp(log_q))
    return jnp.stack([log_zero, log_q], axis=-1)


def with_unit_slope(value, logits):
    """Return value with the derivative 1 in logits, or 0 where these are infinite."""
    finite = jnp.where(jnp.isinf(logits), 0, logits)
    return jax.lax.stop_gradient(value) + (finite - jax.lax.stop_gradient(finite))


def sum_like(x, like):
    """Sum x to the shape of a hyperparameter: a scalar, one number per row, or x as it is."""
    if like.ndim == 0:
        return jnp.sum(x)
    return x if like.shape == x.shape else row_sum(x)


def mul_log(x, log_p):
    """Compute x log p, linear in x; where log p = -inf it is 0 at x = 0 and -inf elsewhere."""
    impossible = log_p == -jnp.inf
    return jnp.where(impossible & (x != 0), -jnp.inf, x * jnp.where(impossible, 0, log_p))


def finite_multiples(x):
    """Put 1e30 for infinity, so that 0 x is 0 and other multiples are finite; NaN stays NaN."""
    return jnp.clip(x, -1e30, 1e30)


def unit(z):
    """Clip z to [0, 1], with derivative 0 where it is clipped, at the ends too."""
    return jnp.where(z <= 0, 0, jnp.where(z >= 1, 1, z))


def interior(z, dtype):
    """Clamp z into (0, 1) as dtype resolves it, with derivative 0 where it is clamped."""
    info = jnp.finfo(dtype)
    low, high = float(info.tiny), float(1 - info.epsneg)
    return jnp.where(z < low, low, jnp.where(z > high, high, z))
