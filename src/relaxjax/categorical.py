"""One of C classes with probabilities p = softmax(logits), and the gradients that it can carry.

Start with `reinmax`: its sample is exactly one-hot, its gradient is unbiased for an f that is
quadratic in each variable's one-hot, and it has no hyperparameter to tune. `gumbel_softmax` relaxes
the one-hot itself.

Classes are the last axis, and the axes before it are independent variables. A second derivative of
an exact one-hot d follows by applying the stated rule to every d in that rule again.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from relaxjax import _arguments, _noise, _numerics, _rules
from relaxjax._rules import hard
from relaxjax.families import Family, Relaxation, joint_support, total

# --------------------------------------------------------------------------------- the one-hot


def sample(key, logits, *, shape=None):
    """Sample an exact one-hot vector without a gradient.

    Distribution: d ~ Categorical(p), p = softmax(logits); entries exactly 0.0 and 1.0. The draw
      inverts the cumulative sum of p at one uniform number, and so does every hard estimator of
      this module but `straight_through_gumbel_softmax`. A probability is right to the rounding of
      that sum, 2^-24 in float32, so that a class below half of it may never be drawn; where it is
      the first one, right to 2^-32.
    Gradient: 0.
    Cost: O(C) time and memory per draw; measured faster than Gumbel noise at every C from 2 to 1024
      (docs/benchmarks.md).

    Args:
      key: PRNG key.
      logits: (..., C) floats, unnormalized log-probabilities; -inf masks a class, which is never
        drawn. A row that is masked throughout, or has a NaN or +inf, gives NaN.
      shape: batch shape of d, to which that of logits broadcasts; None takes that of logits.

    Returns:
      d, of shape (*shape, C), in the dtype of logits; arithmetic is in float32 or wider.

    Raises:
      TypeError: logits are not floats, or shape is no tuple of integers.
      ValueError: logits have no axis of classes, or their batch shape does not broadcast to shape.
    """
    wide, dtype = _arguments.parameters("logits", logits, shape, event_ndim=1)
    return _draw(key, wide).astype(dtype)


def _draw(key, logits):
    u = _noise.uniform(key, (*logits.shape[:-1], 1), logits.dtype)
    return _draw_from(u, jax.lax.stop_gradient(logits))


@jax.jit
def _draw_from(u, logits):
    """Draw the first class whose cumulative weight exceeds the share u, in [0, 1), of the total."""
    classes = logits.shape[-1]
    if classes <= _numerics.SHORT:
        weights = _numerics.computed_once(jnp.exp(logits - _numerics.row_max(logits)))
        # Sums taken one after the other never fall, so that those that t has passed can be counted.
        *cumulative, total = itertools.accumulate(_numerics.columns(weights))
        t = _numerics.computed_once(u * total)
        zero = jnp.zeros_like(t, jnp.int32)
        index = sum(((c <= t).astype(jnp.int32) for c in cumulative), zero)[..., 0]
    else:
        p = jax.nn.softmax(logits)
        # A parallel sum may fall by rounding. Hence the code takes the first class that exceeds t
        # and no count, the largest sum as the total, and 0 at a masked class, which must not
        # exceed t.
        cumulative = jnp.where(p > 0, jnp.cumsum(p, axis=-1), 0)
        total = jnp.max(cumulative, axis=-1, keepdims=True)
        index = jnp.argmax(cumulative > u * total, axis=-1)
    return jnp.where(total > 0, jax.nn.one_hot(index, classes, dtype=logits.dtype), jnp.nan)


def log_prob(x, logits):
    """Compute the log-probability of a one-hot vector.

    Value: sum_i x_i log p_i, p = softmax(logits), which is linear in x; -inf where x holds a masked
      class.

    Args:
      x: (..., C) one-hot, of any dtype; broadcast with logits.
      logits: (..., C) floats, unnormalized log-probabilities; -inf masks a class. A row that is
        masked throughout, or has a NaN or +inf, gives NaN.

    Returns:
      Nats, in the batch shape that x and logits broadcast to and in the dtype of logits; arithmetic
      is in float32 or wider. Differentiable to any order.

    Raises:
      TypeError: logits are not floats.
      ValueError: logits have no axis of classes, or x and logits do not broadcast together.
    """
    x, wide, dtype = _arguments.broadcast_together(x, logits, event_ndim=1, name="x")
    return jnp.sum(_numerics.mul_log(x, jax.nn.log_softmax(wide)), axis=-1).astype(dtype)


def mean(logits):
    """Compute the mean of a one-hot vector, which holds the probabilities.

    Value: E[d] = p = softmax(logits).

    Args:
      logits: (..., C) floats, unnormalized log-probabilities; -inf masks a class, whose p is 0. A
        row that is masked throughout, or has a NaN or +inf, gives NaN.

    Returns:
      p, in the shape and dtype of logits.

    Raises:
      TypeError: logits are not floats.
      ValueError: logits have no axis of classes.
    """
    wide, dtype = _arguments.parameters("logits", logits, None, event_ndim=1)
    return _numerics.softmax(wide).astype(dtype)


def entropy(logits):
    """Compute the entropy of a class.

    Value: -sum_i p_i log p_i, p = softmax(logits); a masked class contributes 0.

    Args:
      logits: (..., C) floats, unnormalized log-probabilities; -inf masks a class. A row that is
        masked throughout, or has a NaN or +inf, gives NaN.

    Returns:
      Nats, in the batch shape and dtype of logits; differentiable to any order.

    Raises:
      TypeError: logits are not floats.
      ValueError: logits have no axis of classes.
    """
    wide, dtype = _arguments.parameters("logits", logits, None, event_ndim=1)
    return _numerics.entropy(jax.nn.log_softmax(wide)).astype(dtype)


def kl(logits_q, logits_p):
    """Compute the KL divergence of a categorical distribution q from another, p.

    Value: sum_i q_i log(q_i / p_i), q = softmax(logits_q), p = softmax(logits_p). A class that is
      masked in q contributes 0, and one that is masked in p alone +inf.

    Args:
      logits_q: (..., C) floats, unnormalized log-probabilities; -inf masks a class. A row that is
        masked throughout, or has a NaN or +inf, gives NaN.
      logits_p: the same for p; broadcast with logits_q.

    Returns:
      Nats, in the batch shape that both broadcast to and in the dtype of logits_p; differentiable
      to any order.

    Raises:
      TypeError: logits_q or logits_p are not floats.
      ValueError: they have no axis of classes, or do not broadcast together.
    """
    _arguments.floats("logits_q", logits_q, event_ndim=1)
    q, p, dtype = _arguments.broadcast_together(logits_q, logits_p, 1, "logits_q", "logits_p")
    return _numerics.kl(jax.nn.log_softmax(q), jax.nn.log_softmax(p)).astype(dtype)


def _support(logits):
    logits = _arguments.floats("logits", logits, event_ndim=1)
    return joint_support(np.eye(logits.shape[-1]), logits.shape[:-1], logits.dtype)


def _variance(u, logits):
    p = _numerics.softmax(logits)
    return jnp.sum(p * (u - _numerics.row_sum(p * u)) ** 2)


def _neighbors(x, logits):
    C = x.shape[-1]
    shifted = (np.arange(C) - np.arange(1, C)[:, None]) % C
    y = jnp.moveaxis(x[..., shifted], -2, 0)
    return y - x[None], jnp.sum(y * _numerics.softmax(logits)[None], axis=-1)


# ----------------------------------------------------------------------------- relaxed forward


def gumbel_softmax(key, logits, *, temperature=0.5, shape=None):
    """Sample a relaxed one-hot vector with an exact gradient: Concrete, or Gumbel-softmax.

    Distribution: z = softmax((logits + G) / temperature), in the simplex, G_i ~ Gumbel(0, 1). At
      every temperature P(arg-max z = i) = p_i, p = softmax(logits). Rounding may give exactly 0 or
      1.
    Gradient: exact. With g the gradient in z, J(z) = diag(z) - z z^T and h = J(z) g:
      h / temperature for logits and -sum_i h_i log z_i / temperature for temperature.
    Bias: none for E[f(z)] under this distribution; present for E[f(d)] of the exact one-hot d.
    Cost: one call of f; O(C) time and memory per draw. The backward pass keeps z and no noise.

    Args:
      key: PRNG key.
      logits: (..., C) floats, unnormalized log-probabilities; -inf masks a class, whose z and
        gradient are 0. A row that is masked throughout, or has a NaN or +inf, gives NaN.
      temperature: positive scalar, or an array of the batch shape; may be traced.
      shape: batch shape of z, to which that of logits broadcasts; None takes that of logits.

    Returns:
      z, of shape (*shape, C), in the dtype of logits; noise and arithmetic are in float32 or wider.

    Raises:
      TypeError: logits are not floats, temperature is no number, or shape no tuple of integers.
      ValueError: logits have no axis of classes, a Python or NumPy temperature is not positive (a
        jax.Array gives NaN), or temperature or shape does not fit the batch shape.

    Source: Maddison et al. 2017, arXiv:1611.00712, eq. 10; Jang et al. 2017, arXiv:1611.01144,
      eq. 2. Their log alpha or log pi is logits, and their lambda or tau is temperature here.
    """
    wide, dtype = _arguments.parameters("logits", logits, shape, event_ndim=1)
    temperature = _arguments.hyperparameter("temperature", temperature, wide, event_ndim=1)
    x = wide + _noise.gumbel(key, wide.shape, wide.dtype)
    return _rules.tempered_softmax(x, temperature).astype(dtype)


def gumbel_softmax_log_prob(z, logits, *, temperature):
    """Compute the log-density of `gumbel_softmax` at z in the simplex.

    Value: lgamma(n) + (n - 1) log temperature + sum_i (a_i - log z_i) - n lse(a), where
      a = logits - temperature log z, lse is log-sum-exp, and all run over the n unmasked classes; 0
      at n = 1; -inf where a masked class has z > 0, or an entry is negative. It is the density in
      any n - 1 of the n entries of z. z is clamped to the smallest normal number of its dtype, so
      that every draw has a finite value; the gradient in z is 0 where z is clamped.

    Args:
      z: (..., C) floats, rows that sum to 1; broadcast with logits.
      logits: (..., C) floats, unnormalized log-probabilities; -inf masks a class. A row that is
        masked throughout, or has a NaN or +inf, gives NaN.
      temperature: positive scalar, or an array of the broadcast batch shape; may be traced. It is
        required, so that it cannot disagree with that of the sampler.

    Returns:
      Nats, in the batch shape that z and logits broadcast to and in the dtype of logits;
      differentiable in z, logits and temperature.

    Raises:
      TypeError: z or logits are not floats, or temperature is no number.
      ValueError: z or logits have no axis of classes, a Python or NumPy temperature is not positive
        (a jax.Array gives NaN), or the shapes do not broadcast together.

    Source: Maddison et al. 2017, arXiv:1611.00712, eq. 23.
    """
    z_dtype = _arguments.floats("z", z, event_ndim=1).dtype
    z, wide, dtype = _arguments.broadcast_together(z, logits, event_ndim=1)
    temperature = _arguments.hyperparameter("temperature", temperature, wide, event_ndim=1)
    masked = wide == -jnp.inf
    outside = jnp.any((z < 0) | (masked & (z > 0)), axis=-1)
    tiny = float(jnp.finfo(z_dtype).tiny)
    log_z = jnp.log(jnp.where(masked, 1, jnp.where(z < tiny, tiny, z)))
    value = _log_density(log_z, wide, temperature) - jnp.sum(log_z, axis=-1)
    return jnp.where(outside & ~jnp.isnan(value), -jnp.inf, value).astype(dtype)


def _log_density(log_z, logits, temperature):
    """Compute the log-density of the differences of log z, from log z that is finite everywhere."""
    masked = logits == -jnp.inf
    n = jnp.sum(~masked, axis=-1).astype(logits.dtype)
    a = jnp.where(masked, 0, logits) - temperature * log_z
    lse = jax.nn.logsumexp(a, axis=-1, where=~masked)
    log_temperature = jnp.broadcast_to(jnp.log(temperature), (*n.shape, 1))[..., 0]
    value = jnp.sum(jnp.where(masked, 0, a), axis=-1) - n * lse
    value += jax.lax.lgamma(n) + (n - 1) * log_temperature
    return jnp.where(n > 0, value, jnp.nan)


def log_gumbel_softmax(key, logits, *, temperature=0.5, shape=None):
    """Sample the logarithm of `gumbel_softmax`, exact where an entry of z has rounded to 0 or 1.

    Distribution: u = log z, z the draw of `gumbel_softmax` for the same key; rows have
      log sum_i exp(u_i) = 0; -inf in a masked class.
    Gradient: exact. With g the gradient in u, z = exp(u) and e = g - z sum_i g_i over the unmasked
      classes: e / temperature for logits and -sum_i e_i u_i / temperature for temperature. g in a
      masked class is dropped.
    Bias: none for E[f(u)] under this distribution; f(u) does not estimate E[f(d)].
    Cost: one call of f; O(C) time and memory per draw.

    Args:
      key: PRNG key.
      logits: (..., C) floats, unnormalized log-probabilities; -inf masks a class, whose u is -inf
        and gradient 0. A row that is masked throughout, or has a NaN or +inf, gives NaN.
      temperature: positive scalar, or an array of the batch shape; may be traced.
      shape: batch shape of u, to which that of logits broadcasts; None takes that of logits.

    Returns:
      u, of shape (*shape, C), in the dtype of logits; noise and arithmetic are in float32 or wider.

    Raises:
      TypeError: logits are not floats, temperature is no number, or shape no tuple of integers.
      ValueError: logits have no axis of classes, a Python or NumPy temperature is not positive (a
        jax.Array gives NaN), or temperature or shape does not fit the batch shape.

    Source: Maddison et al. 2017, arXiv:1611.00712, appendix C.3 (ExpConcrete).
    """
    wide, dtype = _arguments.parameters("logits", logits, shape, event_ndim=1)
    temperature = _arguments.hyperparameter("temperature", temperature, wide, event_ndim=1)
    x = wide + _noise.gumbel(key, wide.shape, wide.dtype)
    return _rules.tempered_log_softmax(x, temperature).astype(dtype)


def log_gumbel_softmax_log_prob(log_z, logits, *, temperature):
    """Compute the log-density of `log_gumbel_softmax`, which is exact at any temperature.

    Value: lgamma(n) + (n - 1) log temperature + sum_i a_i - n lse(a), where
      a = logits - temperature log_z, lse is log-sum-exp, and all run over the n unmasked classes;
      -inf where a masked class has a finite log_z. It is the density in the n - 1 differences log
      z_i - log z_j to any one entry j, not in n - 1 of the entries themselves. Nothing is clamped.

    Args:
      log_z: (..., C) floats, normalized: lse(log_z) = 0; broadcast with logits.
      logits: (..., C) floats, unnormalized log-probabilities; -inf masks a class. A row that is
        masked throughout, or has a NaN or +inf, gives NaN.
      temperature: positive scalar, or an array of the broadcast batch shape; may be traced. It is
        required, so that it cannot disagree with that of the sampler.

    Returns:
      Nats, in the batch shape that log_z and logits broadcast to and in the dtype of logits;
      differentiable in log_z, logits and temperature.

    Raises:
      TypeError: log_z or logits are not floats, or temperature is no number.
      ValueError: log_z or logits have no axis of classes, a Python or NumPy temperature is not
        positive (a jax.Array gives NaN), or the shapes do not broadcast together.

    Source: Maddison et al. 2017, arXiv:1611.00712, eq. 23.
    """
    _arguments.floats("log_z", log_z, event_ndim=1)
    log_z, wide, dtype = _arguments.broadcast_together(log_z, logits, event_ndim=1, name="log_z")
    temperature = _arguments.hyperparameter("temperature", temperature, wide, event_ndim=1)
    masked = wide == -jnp.inf
    outside = jnp.any(masked & (log_z > -jnp.inf), axis=-1)
    value = _log_density(jnp.where(masked, 0, log_z), wide, temperature)
    return jnp.where(outside & ~jnp.isnan(value), -jnp.inf, value).astype(dtype)


# -------------------------------------------------------------------------------- hard forward


def straight_through(key, logits, *, temperature=1.0, shape=None):
    """Sample an exact one-hot vector that has the gradient of a softmax.

    Distribution: z = d ~ Categorical(p), p = softmax(logits); entries exactly 0.0 and 1.0.
    Gradient: J(q) g / temperature for logits and 0 for temperature, where g is the gradient in z,
      J(q) = diag(q) - q q^T and q = softmax(logits / temperature).
    Bias: at temperature 1 none for f linear in each variable's z, second order otherwise; at
      another temperature present even for linear f.
    Cost: one call of f; O(C) time and memory per draw.

    Args:
      key: PRNG key.
      logits: (..., C) floats, unnormalized log-probabilities; -inf masks a class, whose z and
        gradient are 0. A row that is masked throughout, or has a NaN or +inf, gives NaN.
      temperature: positive scalar, or an array of the batch shape; may be traced.
      shape: batch shape of z, to which that of logits broadcasts; None takes that of logits.

    Returns:
      z, of shape (*shape, C), in the dtype of logits; arithmetic is in float32 or wider.

    Raises:
      TypeError: logits are not floats, temperature is no number, or shape no tuple of integers.
      ValueError: logits have no axis of classes, a Python or NumPy temperature is not positive (a
        jax.Array gives NaN), or temperature or shape does not fit the batch shape.

    Source: Bengio, Leonard, Courville 2013, arXiv:1308.3432, section 5, for one-hots.
    """
    wide, dtype = _arguments.parameters("logits", logits, shape, event_ndim=1)
    temperature = _arguments.hyperparameter("temperature", temperature, wide, event_ndim=1)
    return jnp.asarray(hard(_straight_through_rule, _draw(key, wide), wide, temperature), dtype)


def _straight_through_rule(g, d, logits, temperature):
    q = _numerics.softmax(logits / temperature)
    return _numerics.covariance(q, g) / temperature, None


def straight_through_gumbel_softmax(key, logits, *, temperature=0.5, shape=None):
    """Sample an exact one-hot vector that has the gradient of a relaxed one of the same noise.

    Distribution: z = the one-hot of arg-max(x), x = logits + G, G_i ~ Gumbel(0, 1); entries exactly
      0.0 and 1.0. This is Categorical(softmax(logits)) at every temperature.
    Gradient: J(y) g / temperature for logits and 0 for temperature, where g is the gradient in z,
      J(y) = diag(y) - y y^T and y = softmax(x / temperature).
    Bias: present even for linear f; it falls with the temperature while the variance grows.
    Cost: one call of f; O(C) time and memory per draw.

    Args:
      key: PRNG key.
      logits: (..., C) floats, unnormalized log-probabilities; -inf masks a class, whose z and
        gradient are 0. A row that is masked throughout, or has a NaN or +inf, gives NaN.
      temperature: positive scalar, or an array of the batch shape; may be traced.
      shape: batch shape of z, to which that of logits broadcasts; None takes that of logits.

    Returns:
      z, of shape (*shape, C), in the dtype of logits; noise and arithmetic are in float32 or wider.

    Raises:
      TypeError: logits are not floats, temperature is no number, or shape no tuple of integers.
      ValueError: logits have no axis of classes, a Python or NumPy temperature is not positive (a
        jax.Array gives NaN), or temperature or shape does not fit the batch shape.

    Source: Jang et al. 2017, arXiv:1611.01144, section 2.2; their tau is temperature here.
    """
    wide, dtype = _arguments.parameters("logits", logits, shape, event_ndim=1)
    temperature = _arguments.hyperparameter("temperature", temperature, wide, event_ndim=1)
    x = wide + _noise.gumbel(key, wide.shape, wide.dtype)
    return jnp.asarray(_rules.tempered_one_hot(x, temperature), dtype)


def decoupled_straight_through(
    key, logits, *, forward_temperature=1.0, backward_temperature=1.0, shape=None
):
    """Sample an exact one-hot vector at one temperature, with the gradient of a softmax at another.

    Distribution: z = d ~ Categorical(softmax(logits / forward_temperature)); entries exactly 0.0
      and 1.0.
    Gradient: h = J(q) g / backward_temperature for logits, where g is the gradient in z,
      J(q) = diag(q) - q q^T and q = softmax(logits / backward_temperature);
      -sum_i h_i logits_i / forward_temperature for forward_temperature, since the distribution
      depends on logits / forward_temperature alone; 0 for backward_temperature.
    Bias: with equal temperatures none for f linear in each variable's z; otherwise present even for
      linear f.
    Cost: one call of f; O(C) time and memory per draw.

    Args:
      key: PRNG key.
      logits: (..., C) floats, unnormalized log-probabilities; -inf masks a class, whose z and
        gradient are 0. A row that is masked throughout, or has a NaN or +inf, gives NaN.
      forward_temperature: positive scalar, or an array of the batch shape; may be traced.
      backward_temperature: the same.
      shape: batch shape of z, to which that of logits broadcasts; None takes that of logits.

    Returns:
      z, of shape (*shape, C), in the dtype of logits; arithmetic is in float32 or wider.

    Raises:
      TypeError: logits are not floats, a temperature is no number, or shape no tuple of integers.
      ValueError: logits have no axis of classes, a Python or NumPy temperature is not positive (a
        jax.Array gives NaN), or a temperature or shape does not fit the batch shape.

    Source: Shah et al. 2024, arXiv:2410.13331, second version: the two temperatures share no noise.
    """
    wide, dtype = _arguments.parameters("logits", logits, shape, event_ndim=1)
    forward = _arguments.hyperparameter(
        "forward_temperature", forward_temperature, wide, event_ndim=1
    )
    backward = _arguments.hyperparameter(
        "backward_temperature", backward_temperature, wide, event_ndim=1
    )
    d = _draw(key, wide / forward)
    return jnp.asarray(hard(_decoupled_rule, d, wide, forward, backward), dtype)


def _decoupled_rule(g, d, logits, forward, backward):
    h = _numerics.covariance(_numerics.softmax(logits / backward), g) / backward
    finite = jnp.where(logits == -jnp.inf, 0, logits)
    return h, _numerics.sum_like(-finite * h / forward, forward), None


def gapped_straight_through(key, logits, *, temperature=1.0, gap=1.0, shape=None):
    """Sample an exact one-hot vector with the gradient of a softmax pushed to the drawn class.

    Distribution: z = d ~ Categorical(softmax(logits)); entries exactly 0.0 and 1.0.
    Gradient: J(y) g / temperature for logits and 0 for temperature and gap, where g is the gradient
      in z, J(y) = diag(y) - y y^T and y = softmax(x / temperature). x is max(logits) at the drawn
      class and min(logits, max(logits) - gap) at the others; a second derivative takes
      dx/dlogits = 1.
    Bias: present even for linear f. The push uses no noise of its own, so that the variance is low.
    Cost: one call of f; O(C) time and memory per draw.

    Args:
      key: PRNG key.
      logits: (..., C) floats, unnormalized log-probabilities; -inf masks a class, whose z and
        gradient are 0. A row that is masked throughout, or has a NaN or +inf, gives NaN.
      temperature: positive scalar, or an array of the batch shape; may be traced.
      gap: nonnegative scalar, or an array of the batch shape, in units of logits; may be traced.
      shape: batch shape of z, to which that of logits broadcasts; None takes that of logits.

    Returns:
      z, of shape (*shape, C), in the dtype of logits; arithmetic is in float32 or wider.

    Raises:
      TypeError: logits are not floats, temperature or gap is no number, or shape no tuple of
        integers.
      ValueError: logits have no axis of classes, a Python or NumPy temperature is not positive or
        gap negative (a jax.Array gives NaN), or temperature, gap or shape does not fit the batch
        shape.

    Source: Fan et al. 2022, arXiv:2206.07235; x is logits + m1 - m2 of their algorithm.
    """
    wide, dtype = _arguments.parameters("logits", logits, shape, event_ndim=1)
    temperature = _arguments.hyperparameter("temperature", temperature, wide, event_ndim=1)
    gap = _arguments.hyperparameter("gap", gap, wide, event_ndim=1, interval=_arguments.NONNEGATIVE)
    return jnp.asarray(hard(_gapped_rule, _draw(key, wide), wide, temperature, gap), dtype)


def _gapped_rule(g, d, logits, temperature, gap):
    d = jax.lax.stop_gradient(d)
    top = _numerics.row_max(logits)
    pushed = jnp.where(d == 0, jnp.minimum(logits, top - gap), top + 0 * d)
    y = _numerics.softmax(_numerics.with_unit_slope(pushed, logits) / temperature)
    return _numerics.covariance(y, g) / temperature, None, None


def reinmax(key, logits, *, temperature=1.0, shape=None):
    """Sample an exact one-hot vector with a second-order straight-through gradient.

    Distribution: z = d ~ Categorical(p), p = softmax(logits); entries exactly 0.0 and 1.0.
    Gradient: 2 J(m) g - J(p) g / 2 for logits and 0 for temperature, where g is the gradient in z,
      J(x) = diag(x) - x x^T and m = (d + softmax(logits / temperature)) / 2.
    Bias: at temperature 1 none for f quadratic in each variable's z, third order otherwise; at
      another temperature present even for linear f.
    Cost: one call of f; O(C) time and memory per draw.

    Args:
      key: PRNG key.
      logits: (..., C) floats, unnormalized log-probabilities; -inf masks a class, whose z and
        gradient are 0. A row that is masked throughout, or has a NaN or +inf, gives NaN.
      temperature: positive scalar, or an array of the batch shape; may be traced.
      shape: batch shape of z, to which that of logits broadcasts; None takes that of logits.

    Returns:
      z, of shape (*shape, C), in the dtype of logits; arithmetic is in float32 or wider.

    Raises:
      TypeError: logits are not floats, temperature is no number, or shape no tuple of integers.
      ValueError: logits have no axis of classes, a Python or NumPy temperature is not positive (a
        jax.Array gives NaN), or temperature or shape does not fit the batch shape.

    Source: Liu et al. 2023, arXiv:2304.08612, algorithm 2; its theta, tau, pi_0 and (pi_1 + D) / 2
      are logits, temperature, p and m here.
    """
    wide, dtype = _arguments.parameters("logits", logits, shape, event_ndim=1)
    temperature = _arguments.hyperparameter("temperature", temperature, wide, event_ndim=1)
    return jnp.asarray(hard(_reinmax_rule, _draw(key, wide), wide, temperature), dtype)


def _reinmax_rule(g, d, logits, temperature):
    p = _numerics.softmax(logits)
    m = (d + _numerics.softmax(logits / temperature)) / 2
    return 2 * _numerics.covariance(m, g) - _numerics.covariance(p, g) / 2, None


def zgr(key, logits, *, shape=None):
    """Sample an exact one-hot vector with a second-order gradient that has no hyperparameter.

    Distribution: z = d ~ Categorical(p), p = softmax(logits); entries exactly 0.0 and 1.0.
    Gradient: (J(p) g + (d - p) <d - p, g>) / 2 for logits, where g is the gradient in z and
      J(p) = diag(p) - p p^T: the limit of the `gumbel_rao` gradient as the temperature tends to 0.
    Bias: none for f quadratic in each variable's z, third order otherwise. The gradient is that of
      `reinmax` at temperature 1.
    Cost: one call of f; O(C) time and memory per draw.

    Args:
      key: PRNG key.
      logits: (..., C) floats, unnormalized log-probabilities; -inf masks a class, whose z and
        gradient are 0. A row that is masked throughout, or has a NaN or +inf, gives NaN.
      shape: batch shape of z, to which that of logits broadcasts; None takes that of logits.

    Returns:
      z, of shape (*shape, C), in the dtype of logits; arithmetic is in float32 or wider.

    Raises:
      TypeError: logits are not floats, or shape is no tuple of integers.
      ValueError: logits have no axis of classes, or their batch shape does not broadcast to shape.

    Source: Shekhovtsov 2023, "Cold analysis of Rao-Blackwellized straight-through Gumbel-softmax
      gradient estimator" (ZGR).
    """
    wide, dtype = _arguments.parameters("logits", logits, shape, event_ndim=1)
    return jnp.asarray(hard(_zgr_rule, _draw(key, wide), wide), dtype)


def _zgr_rule(g, d, logits):
    p = _numerics.softmax(logits)
    delta = d - p
    along = _numerics.row_sum(jnp.where(delta == 0, 0, delta * g))
    return ((_numerics.covariance(p, g) + delta * along) / 2,)


def gumbel_rao(key, logits, *, temperature=0.5, num_noise=10, shape=None):
    """Sample an exact one-hot vector with a straight-through gradient averaged over Gumbel noise.

    Distribution: z = d ~ Categorical(p), p = softmax(logits); entries exactly 0.0 and 1.0.
    Gradient: for logits the mean over k of J(y_k) g / temperature, where g is the gradient in z,
      J(y) = diag(y) - y y^T, y_k = softmax(x_k / temperature), and x_1, ..., x_num_noise are draws
      of x = logits + G, G_i ~ Gumbel(0, 1), given that arg-max x is the class of d; a second
      derivative takes dx_k/dlogits = 1. The gradient for temperature is 0.
    Bias: that of `straight_through_gumbel_softmax`: the gradient has the same expectation at every
      num_noise, with less variance, and tends to that of `zgr` as the temperature tends to 0.
    Cost: one call of f; the backward pass draws num_noise * C Gumbel variables, one vector after
      the other, so that memory does not grow with num_noise.

    Args:
      key: PRNG key.
      logits: (..., C) floats, unnormalized log-probabilities; -inf masks a class, whose z and
        gradient are 0. A row that is masked throughout, or has a NaN or +inf, gives NaN.
      temperature: positive scalar, or an array of the batch shape; may be traced.
      num_noise: static integer >= 1, the number of draws of noise.
      shape: batch shape of z, to which that of logits broadcasts; None takes that of logits.

    Returns:
      z, of shape (*shape, C), in the dtype of logits; noise and arithmetic are in float32 or wider.

    Raises:
      TypeError: logits are not floats, temperature is no number, num_noise no integer, or shape no
        tuple of integers.
      ValueError: logits have no axis of classes, a Python or NumPy temperature is not positive (a
        jax.Array gives NaN), num_noise is below 1, or temperature or shape does not fit the batch
        shape.

    Source: Paulus, Maddison, Krause 2021, arXiv:2010.04838; their K is num_noise, and their tau is
      temperature here.
    """
    wide, dtype = _arguments.parameters("logits", logits, shape, event_ndim=1)
    temperature = _arguments.hyperparameter("temperature", temperature, wide, event_ndim=1)
    num_noise = _arguments.count("num_noise", num_noise, 1)
    rule = functools.partial(_gumbel_rao_rule, num_noise)
    z = hard(rule, _draw(key, wide), wide, temperature, _noise.noise_key(key))
    return jnp.asarray(z, dtype)


def _gumbel_rao_rule(num_noise, g, d, logits, temperature, key):
    d = jax.lax.stop_gradient(d)

    def gradient(key):
        noise = _noise.exponential(key, logits.shape, logits.dtype)
        x = _numerics.with_unit_slope(_gumbel_given_class(noise, d, logits), logits)
        return _numerics.covariance(_numerics.softmax(x / temperature), g) / temperature

    return _noise.mean_over_noise(gradient, key, num_noise), None, None


def _gumbel_given_class(noise, d, logits):
    """Return log p + G given that its arg-max is the class of d, from one exponential variable per
    entry; no draw is rejected.

    With x the result and E the exponential variables, e^-x of the largest entry is its own E, and
    e^-x of every other entry lies beyond that by its own E / p.
    """
    masked = logits == -jnp.inf
    log_p = jnp.where(masked, 0, jax.nn.log_softmax(logits))
    first = _numerics.row_sum(jnp.where(d == 0, 0, d * noise))
    others = log_p - jnp.log(noise + first * jnp.exp(log_p))
    return jnp.where(d == 0, jnp.where(masked, -jnp.inf, others), -jnp.log(first) + 0 * d)


# ----------------------------------------------------------------------------------- the family


def _gumbel_noise(key, logits):
    return _noise.gumbel(key, logits.shape, logits.dtype)


def _class_of(noise, logits):
    return _numerics.one_hot_of_largest(logits + noise)


def _free(noise, logits):
    # The logits are normalized, because `_gumbel_given_class` normalizes them too.
    return jax.nn.log_softmax(logits) + noise


def _relax(z, temperature):
    return _rules.tempered_softmax(z, temperature)  # a plain function, which pickles


def _given_class(noise, d, logits):
    return _gumbel_given_class(jnp.exp(-noise), d, logits)


family = Family(
    name="categorical",
    sample=sample,
    log_prob=total(log_prob),
    mean=mean,
    support=_support,
    kl=total(kl),
    event_ndim=1,
    variance=_variance,
    neighbors=_neighbors,
    relaxation=Relaxation(_gumbel_noise, _class_of, _free, _given_class, _relax),
)
