"""One bit with probability p = sigmoid(logits), and the gradients that it can carry.

Start with `zgr`: its bit is exactly 0 or 1, its gradient is unbiased for an f that is quadratic in
each bit, and it has no hyperparameter. `concrete` relaxes the bit itself.

Every entry of logits is a bit of its own, so that the batch shape is the whole shape. A second
derivative of an exact bit follows by applying the stated rule to every b in that rule again.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from relaxjax import _arguments, _noise, _numerics, _rules
from relaxjax._rules import hard
from relaxjax.families import Family, Relaxation, joint_support, total

# ------------------------------------------------------------------------------------- the bit


def sample(key, logits, *, shape=None):
    """Sample exact bits without a gradient.

    Distribution: b ~ Bernoulli(p), p = sigmoid(logits), exactly 0.0 or 1.0. The rarer value is
      drawn with its probability to 2^-32 (2^-64 in float64), and never where that is below it.
    Gradient: 0.
    Cost: O(1) time and memory per entry.

    Args:
      key: PRNG key.
      logits: floats of any shape, log-odds; -inf and +inf make a bit that is always 0 or 1.
      shape: shape of b, to which logits broadcast; None takes that of logits.

    Returns:
      b, of that shape, in the dtype of logits; noise is drawn in float32 or wider.

    Raises:
      TypeError: logits are not floats, or shape is no tuple of integers.
      ValueError: logits do not broadcast to shape.
    """
    wide, dtype = _arguments.parameters("logits", logits, shape)
    return _draw(key, wide).astype(dtype)


def _draw(key, logits):
    logits = jax.lax.stop_gradient(logits)
    return _draw_rare(key, jax.nn.sigmoid(-jnp.abs(logits)), logits > 0)


def _draw_rare(key, q, often):
    """Draw bits that are `often`, a boolean, but with probability q <= 1/2."""
    b = _noise.rarely(key, q) != often
    # No word is below NaN's share, so that a bad logit would make a plausible 0.
    return jnp.where(jnp.isnan(q), jnp.nan, b.astype(q.dtype))


def log_prob(x, logits):
    """Compute the log-probability of each bit.

    Value: x log p + (1 - x) log(1 - p), p = sigmoid(logits), which is linear in x and exact in both
      tails; -inf where x contradicts infinite logits.

    Args:
      x: 0 or 1 of any dtype; broadcast with logits.
      logits: floats, log-odds; -inf and +inf make a bit that is always 0 or 1.

    Returns:
      Nats, in the shape that x and logits broadcast to and in the dtype of logits; arithmetic is in
      float32 or wider. Differentiable to any order.

    Raises:
      TypeError: logits are not floats.
      ValueError: x and logits do not broadcast together.
    """
    x, wide, dtype = _arguments.broadcast_together(x, logits, name="x")
    ones = _numerics.mul_log(x, jax.nn.log_sigmoid(wide))
    zeros = _numerics.mul_log(1 - x, jax.nn.log_sigmoid(-wide))
    return (ones + zeros).astype(dtype)


def mean(logits):
    """Compute the mean of each bit.

    Value: E[b] = p = sigmoid(logits).

    Args:
      logits: floats of any shape, log-odds; -inf and +inf make a bit that is always 0 or 1.

    Returns:
      p, in the shape and dtype of logits.

    Raises:
      TypeError: logits are not floats.
    """
    wide, dtype = _arguments.parameters("logits", logits, None)
    return jax.nn.sigmoid(wide).astype(dtype)


def entropy(logits):
    """Compute the entropy of each bit.

    Value: -p log p - (1 - p) log(1 - p), p = sigmoid(logits), exact in both tails; 0 at infinite
      logits.

    Args:
      logits: floats of any shape, log-odds; -inf and +inf make a bit that is always 0 or 1.

    Returns:
      Nats, in the shape and dtype of logits; differentiable to any order.

    Raises:
      TypeError: logits are not floats.
    """
    wide, dtype = _arguments.parameters("logits", logits, None)
    return _numerics.entropy(_numerics.log_bits(wide)).astype(dtype)


def kl(logits_q, logits_p):
    """Compute the KL divergence of each bit q from each bit p.

    Value: q log(q / p) + (1 - q) log((1 - q) / (1 - p)), q = sigmoid(logits_q),
      p = sigmoid(logits_p), exact in both tails; +inf where q may be what p never is.

    Args:
      logits_q: floats, log-odds; -inf and +inf make a bit that is always 0 or 1.
      logits_p: the same for p; broadcast with logits_q.

    Returns:
      Nats, in the shape that both broadcast to and in the dtype of logits_p; differentiable to any
      order.

    Raises:
      TypeError: logits_q or logits_p are not floats.
      ValueError: they do not broadcast together.
    """
    _arguments.floats("logits_q", logits_q)
    q, p, dtype = _arguments.broadcast_together(logits_q, logits_p, 0, "logits_q", "logits_p")
    return _numerics.kl(_numerics.log_bits(q), _numerics.log_bits(p)).astype(dtype)


def _support(logits):
    logits = _arguments.floats("logits", logits)
    return joint_support(np.array([0.0, 1.0]), logits.shape, logits.dtype)


def _variance(u, logits):
    return jnp.sum(u * u * _numerics.sigmoid_slope(logits))


def _neighbors(x, logits):
    step = (1 - 2 * x)[None]
    return step, jax.nn.sigmoid(step * logits[None])


# ----------------------------------------------------------------------------- relaxed forward


def concrete(key, logits, *, temperature=0.5, shape=None):
    """Sample relaxed bits in (0, 1), whose gradient is exact: binary Concrete, or Gumbel-sigmoid.

    Distribution: z = sigmoid(y), y = (logits + L) / temperature, L ~ Logistic(0, 1). At every
      temperature P(z > 1/2) = p = sigmoid(logits), and z tends to the exact bit b = 1[z > 1/2] as
      the temperature falls. Rounding may give exactly 0 or 1.
    Gradient: exact; dz/dlogits = sigmoid'(y) / temperature and
      dz/dtemperature = -sigmoid'(y) y / temperature.
    Bias: none for E[f(z)] under this distribution; present for E[f(b)].
    Cost: one call of f; O(1) time and memory per entry.

    Args:
      key: PRNG key.
      logits: floats of any shape, log-odds; -inf and +inf make a z that is always 0 or 1, with
        gradient 0.
      temperature: positive scalar, or an array of the shape of z; may be traced.
      shape: shape of z, to which logits broadcast; None takes that of logits.

    Returns:
      z, of that shape, in the dtype of logits; noise and arithmetic are in float32 or wider.

    Raises:
      TypeError: logits are not floats, temperature is no number, or shape no tuple of integers.
      ValueError: a Python or NumPy temperature is not positive (a jax.Array gives NaN), or
        temperature or shape does not fit the shape of logits.

    Source: Maddison et al. 2017, arXiv:1611.00712, appendix B; Jang et al. 2017, arXiv:1611.01144.
      Their alpha is exp(logits), and their lambda or tau is temperature here.
    """
    wide, dtype = _arguments.parameters("logits", logits, shape)
    temperature = _arguments.hyperparameter("temperature", temperature, wide)
    x = wide + _noise.logistic(key, wide.shape, wide.dtype)
    return _rules.tempered_sigmoid(x, temperature).astype(dtype)


def concrete_log_prob(z, logits, *, temperature):
    """Compute the log-density of `concrete` at z in (0, 1), entry by entry.

    Value: log temperature - softplus(d) - softplus(-d) - log z - log(1 - z), where
      d = temperature log(z / (1 - z)) - logits; -inf outside [0, 1]. z is clamped into the open
      interval of its dtype, so that every draw, also one that has rounded to 0 or 1, has a finite
      value; the gradient in z is 0 where z is clamped.

    Args:
      z: floats in [0, 1]; broadcast with logits.
      logits: finite floats, log-odds; at infinite ones there is no density (-inf or NaN).
      temperature: positive scalar, or an array of the broadcast shape; may be traced. It is
        required, so that it cannot disagree with that of the sampler.

    Returns:
      Nats, in the shape that z and logits broadcast to and in the dtype of logits; differentiable
      in z, logits and temperature.

    Raises:
      TypeError: z or logits are not floats, or temperature is no number.
      ValueError: a Python or NumPy temperature is not positive (a jax.Array gives NaN), or the
        shapes do not broadcast together.

    Source: Maddison et al. 2017, arXiv:1611.00712, appendix B.
    """
    z_dtype = _arguments.floats("z", z).dtype
    z, wide, dtype = _arguments.broadcast_together(z, logits)
    temperature = _arguments.hyperparameter("temperature", temperature, wide)
    outside = (z < 0) | (z > 1)
    z = _numerics.interior(z, z_dtype)
    log_z, log_1z = jnp.log(z), jnp.log1p(-z)
    value = _numerics.logistic_log_density(log_z - log_1z, wide, temperature) - log_z - log_1z
    return jnp.where(outside, -jnp.inf, value).astype(dtype)


def logit_concrete(key, logits, *, temperature=0.5, shape=None):
    """Sample `concrete` before its sigmoid, exact where a relaxed bit has rounded to 0 or 1.

    Distribution: y = (logits + L) / temperature, L ~ Logistic(0, 1), which is the logistic
      distribution of location logits / temperature and scale 1 / temperature. For the same key
      concrete(key, ...) = sigmoid(y).
    Gradient: exact; dy/dlogits = 1 / temperature and dy/dtemperature = -y / temperature.
    Bias: none for E[f(y)] under this distribution; f(y) does not estimate E[f(b)].
    Cost: one call of f; O(1) time and memory per entry.

    Args:
      key: PRNG key.
      logits: floats of any shape, log-odds; infinite ones make an infinite y, with gradient 0.
      temperature: positive scalar, or an array of the shape of y; may be traced.
      shape: shape of y, to which logits broadcast; None takes that of logits.

    Returns:
      y, of that shape, in the dtype of logits; noise and arithmetic are in float32 or wider.

    Raises:
      TypeError: logits are not floats, temperature is no number, or shape no tuple of integers.
      ValueError: a Python or NumPy temperature is not positive (a jax.Array gives NaN), or
        temperature or shape does not fit the shape of logits.

    Source: Maddison et al. 2017, arXiv:1611.00712, appendix C.3.
    """
    wide, dtype = _arguments.parameters("logits", logits, shape)
    temperature = _arguments.hyperparameter("temperature", temperature, wide)
    x = wide + _noise.logistic(key, wide.shape, wide.dtype)
    return _rules.tempered(x, temperature).astype(dtype)


def logit_concrete_log_prob(y, logits, *, temperature):
    """Compute the log-density of `logit_concrete` at a real y, entry by entry.

    Value: log temperature - softplus(d) - softplus(-d), d = temperature y - logits, which is exact
      and finite at every finite y. Nothing is clamped.

    Args:
      y: floats; broadcast with logits.
      logits: finite floats, log-odds; at infinite ones there is no density (-inf or NaN).
      temperature: positive scalar, or an array of the broadcast shape; may be traced. It is
        required, so that it cannot disagree with that of the sampler.

    Returns:
      Nats, in the shape that y and logits broadcast to and in the dtype of logits; differentiable
      in y, logits and temperature.

    Raises:
      TypeError: y or logits are not floats, or temperature is no number.
      ValueError: a Python or NumPy temperature is not positive (a jax.Array gives NaN), or the
        shapes do not broadcast together.

    Source: Maddison et al. 2017, arXiv:1611.00712, appendix B.
    """
    y = _arguments.floats("y", y)
    y, wide, dtype = _arguments.broadcast_together(y, logits, name="y")
    temperature = _arguments.hyperparameter("temperature", temperature, wide)
    return _numerics.logistic_log_density(y, wide, temperature).astype(dtype)


def concrete_kl(logits_q, logits_p):
    """Compute the KL divergence of two relaxed bits of one temperature, which drops out.

    Value: x coth(x / 2) - 2 at x = logits_q - logits_p, the KL divergence of two unit logistics
      whose locations are x apart. Symmetric; 0 where both are equal, infinite ones too, and
      otherwise +inf where one is infinite.

    Args:
      logits_q: floats, log-odds of `concrete` under q.
      logits_p: the same under p; broadcast with logits_q.

    Returns:
      Nats, in the shape that both broadcast to and in the dtype of logits_p; differentiable to any
      order.

    Raises:
      TypeError: logits_q or logits_p are not floats.
      ValueError: they do not broadcast together.
    """
    _arguments.floats("logits_q", logits_q)
    q, p, dtype = _arguments.broadcast_together(logits_q, logits_p, 0, "logits_q", "logits_p")
    # Two bits that are sure and alike would make inf - inf.
    x = jnp.where(jnp.isinf(q) & (q == p), 0, q - p)
    return _logistic_kl(x).astype(dtype)


def _logistic_kl(x):
    c = jnp.where(jnp.abs(x) < 0.5, x * x, 0)
    # This is the Taylor series, because below 1/2 the closed form cancels to rounding error.
    coefficients = (1 / 6, -1 / 360, 1 / 15120, -1 / 604800, 1 / 23950080, -691 / 653837184000)
    series = c * functools.reduce(lambda acc, a: acc * c + a, reversed(coefficients))
    a = jnp.where(jnp.abs(x) < 0.5, 1, jnp.abs(x))
    small = jnp.where(a < 80, a, 1)
    tail = jnp.where(a < 80, 2 * small / jnp.expm1(small), 0)
    return jnp.where(jnp.abs(x) < 0.5, series, a - 2 + tail)


# -------------------------------------------------------------------------------- hard forward


def straight_through(key, logits, *, shape=None):
    """Sample exact bits that have the gradient of their mean.

    Distribution: z = b ~ Bernoulli(p), p = sigmoid(logits), exactly 0.0 or 1.0.
    Gradient: dz/dlogits = p (1 - p).
    Bias: none for f linear in each bit; second order otherwise.
    Cost: one call of f; O(1) time and memory per entry.

    Args:
      key: PRNG key.
      logits: floats of any shape, log-odds; -inf and +inf make a bit that is always 0 or 1, with
        gradient 0.
      shape: shape of z, to which logits broadcast; None takes that of logits.

    Returns:
      z, of that shape, in the dtype of logits; noise and arithmetic are in float32 or wider.

    Raises:
      TypeError: logits are not floats, or shape is no tuple of integers.
      ValueError: logits do not broadcast to shape.

    Source: Bengio, Leonard, Courville 2013, arXiv:1308.3432, section 5.
    """
    wide, dtype = _arguments.parameters("logits", logits, shape)
    return jnp.asarray(hard(_straight_through_rule, _draw(key, wide), wide), dtype)


def _straight_through_rule(g, b, logits):
    return (g * _numerics.sigmoid_slope(logits),)


def zgr(key, logits, *, shape=None):
    """Sample exact bits with a second-order gradient that has no hyperparameter.

    Distribution: z = b ~ Bernoulli(p), p = sigmoid(logits), exactly 0.0 or 1.0.
    Gradient: dz/dlogits = |b - p| / 2, which is ((b - p)^2 + p (1 - p)) / 2: the limit of the
      `gumbel_rao` gradient as the temperature tends to 0.
    Bias: none for f quadratic in each bit; third order otherwise. The rule equals DARN(1/2), and
      ReinMax of the two classes.
    Cost: one call of f; O(1) time and memory per entry.

    Args:
      key: PRNG key.
      logits: floats of any shape, log-odds; -inf and +inf make a bit that is always 0 or 1, with
        gradient 0.
      shape: shape of z, to which logits broadcast; None takes that of logits.

    Returns:
      z, of that shape, in the dtype of logits; noise and arithmetic are in float32 or wider.

    Raises:
      TypeError: logits are not floats, or shape is no tuple of integers.
      ValueError: logits do not broadcast to shape.

    Source: Shekhovtsov 2023, "Cold analysis of Rao-Blackwellized straight-through Gumbel-softmax
      gradient estimator" (ZGR).

    The sample carries the gradient, so that jax.grad needs nothing else:

    >>> import jax, jax.numpy as jnp
    >>> from relaxjax import bernoulli
    >>> loss = lambda logits: jnp.sum((bernoulli.zgr(jax.random.key(0), logits) - 0.45) ** 2)
    >>> jax.grad(loss)(jnp.zeros(4)).shape
    (4,)
    """
    wide, dtype = _arguments.parameters("logits", logits, shape)
    return jnp.asarray(hard(_zgr_rule, _draw(key, wide), wide), dtype)


def _zgr_rule(g, b, logits):
    return (g * _distance(b, jax.nn.sigmoid(logits), jax.nn.sigmoid(-logits)) / 2,)


def straight_through_concrete(key, logits, *, temperature=0.5, shape=None):
    """Sample exact bits that have the gradient of the relaxed bits drawn with the same noise.

    Distribution: z = b = 1[x > 0], x = logits + L, L ~ Logistic(0, 1), exactly 0.0 or 1.0; this is
      Bernoulli(p), p = sigmoid(logits), at every temperature.
    Gradient: dz/dlogits = sigmoid'(x / temperature) / temperature; 0 for temperature, on which the
      distribution does not depend.
    Bias: present even for linear f; it falls with the temperature while the variance grows.
    Cost: one call of f; O(1) time and memory per entry.

    Args:
      key: PRNG key.
      logits: floats of any shape, log-odds; -inf and +inf make a bit that is always 0 or 1, with
        gradient 0.
      temperature: positive scalar, or an array of the shape of z; may be traced.
      shape: shape of z, to which logits broadcast; None takes that of logits.

    Returns:
      z, of that shape, in the dtype of logits; noise and arithmetic are in float32 or wider.

    Raises:
      TypeError: logits are not floats, temperature is no number, or shape no tuple of integers.
      ValueError: a Python or NumPy temperature is not positive (a jax.Array gives NaN), or
        temperature or shape does not fit the shape of logits.

    Source: Jang et al. 2017, arXiv:1611.01144, section 2.2; their tau is temperature here.
    """
    wide, dtype = _arguments.parameters("logits", logits, shape)
    temperature = _arguments.hyperparameter("temperature", temperature, wide)
    x = wide + _noise.logistic(key, wide.shape, wide.dtype)
    return jnp.asarray(_rules.tempered_bit(x, temperature), dtype)


def gumbel_rao(key, logits, *, temperature=0.5, num_noise=10, shape=None):
    """Sample exact bits with the gradient of `straight_through_concrete` averaged over noise.

    Distribution: z = b ~ Bernoulli(p), p = sigmoid(logits), exactly 0.0 or 1.0.
    Gradient: dz/dlogits = the mean over k of sigmoid'(x_k / temperature) / temperature, where x_1,
      ..., x_num_noise are draws of x = logits + L, L ~ Logistic(0, 1), given that x > 0 just where
      b = 1; a second derivative takes dx_k/dlogits = 1. The gradient for temperature is 0.
    Bias: that of `straight_through_concrete`: the gradient has the same expectation at every
      num_noise, with less variance, and tends to that of `zgr` as the temperature tends to 0.
    Cost: one call of f; the backward pass draws num_noise logistic variables per entry, one after
      the other, so that memory does not grow with num_noise.

    Args:
      key: PRNG key.
      logits: floats of any shape, log-odds; -inf and +inf make a bit that is always 0 or 1, with
        gradient 0.
      temperature: positive scalar, or an array of the shape of z; may be traced.
      num_noise: static integer >= 1, the number of draws of noise per entry.
      shape: shape of z, to which logits broadcast; None takes that of logits.

    Returns:
      z, of that shape, in the dtype of logits; noise and arithmetic are in float32 or wider.

    Raises:
      TypeError: logits are not floats, temperature is no number, num_noise no integer, or shape no
        tuple of integers.
      ValueError: a Python or NumPy temperature is not positive (a jax.Array gives NaN), num_noise
        is below 1, or temperature or shape does not fit the shape of logits.

    Source: Paulus, Maddison, Krause 2021, arXiv:2010.04838; their K is num_noise, and their tau is
      temperature here.
    """
    wide, dtype = _arguments.parameters("logits", logits, shape)
    temperature = _arguments.hyperparameter("temperature", temperature, wide)
    num_noise = _arguments.count("num_noise", num_noise, 1)
    rule = functools.partial(_gumbel_rao_rule, num_noise)
    z = hard(rule, _draw(key, wide), wide, temperature, _noise.noise_key(key))
    return jnp.asarray(z, dtype)


def _gumbel_rao_rule(num_noise, g, b, logits, temperature, key):
    given_bit = _logistic_given_bit(jax.lax.stop_gradient(b), logits)

    def weight(key):
        x = given_bit(_noise.odds(key, logits.shape, logits.dtype))
        x = _numerics.with_unit_slope(x, logits)
        return _numerics.sigmoid_slope(x / temperature) / temperature

    return g * _noise.mean_over_noise(weight, key, num_noise), None, None


def _logistic_given_bit(b, logits):
    """Return the map from the odds e^L of logistic noise L to a draw of logits + L given that it is
    positive just where b = 1; no draw is rejected.
    """
    sign = 2 * b - 1
    # |x| = softplus(softplus(sign logits) + L), at one logarithm per noise variable; q is the
    # probability of the other bit.
    log_q = jax.nn.log_sigmoid(-sign * logits)
    q = jnp.exp(log_q)
    return lambda odds: sign * (jnp.log(q + odds) - log_q)


def stochastic_times_smooth(key, logits, *, shape=None):
    """Sample a bit of probability sqrt(p) times sqrt(p): a value in {0, sqrt(p)} with mean p.

    Distribution: z = q b, q = sqrt(p), p = sigmoid(logits), b ~ Bernoulli(q). z is not 0/1.
    Gradient: dz/dlogits = b dq/dlogits + q db/dlogits, where db follows the rule of `zgr` at b's
      own log-odds: (3/4) q (1 - p) where b = 1, and (1/4) q^2 (1 + q) where b = 0.
    Bias: none for E[f(z)] under this distribution and f quadratic in each entry; third order
      otherwise.
    Cost: one call of f; O(1) time and memory per entry.

    Args:
      key: PRNG key.
      logits: floats of any shape, log-odds of p; -inf and +inf make a z that is always 0 or 1, with
        gradient 0.
      shape: shape of z, to which logits broadcast; None takes that of logits.

    Returns:
      z, of that shape, in the dtype of logits; noise and arithmetic are in float32 or wider.

    Raises:
      TypeError: logits are not floats, or shape is no tuple of integers.
      ValueError: logits do not broadcast to shape.

    Source: Bengio, Leonard, Courville 2013, arXiv:1308.3432, section 4. Their rule keeps the first
      term alone, which is half the gradient of a linear f.
    """
    wide, dtype = _arguments.parameters("logits", logits, shape)
    q, fixed = _numerics.sqrt_sigmoid(wide), jax.lax.stop_gradient(wide)
    # 1 - q without cancellation, where it is the rarer one.
    rare = jnp.where(q > 0.5, jax.nn.sigmoid(-fixed) / (1 + q), q)
    b = _draw_rare(key, jax.lax.stop_gradient(rare), q > 0.5)
    return _stochastic_times_smooth(b, wide).astype(dtype)


@jax.custom_vjp
def _stochastic_times_smooth(b, logits):
    return _numerics.sqrt_sigmoid(logits) * b


def _stochastic_times_smooth_fwd(b, logits):
    q = _numerics.sqrt_sigmoid(logits)
    # These are the log-odds of b, log q - log(1 - q). A second derivative gives the b in the
    # residuals the rule of zgr.
    log_odds = jax.nn.log_sigmoid(logits) / 2 + jax.nn.softplus(logits) + jnp.log1p(q)
    return _stochastic_times_smooth(b, logits), (hard(_zgr_rule, b, log_odds), logits)


def _stochastic_times_smooth_bwd(residuals, g):
    b, logits = residuals
    q, tail = _numerics.sqrt_sigmoid(logits), jax.nn.sigmoid(-logits)
    distance = _distance(b, q, tail / (1 + q))
    return None, g * q * (b * tail / 2 + distance * (1 + q) / 4)


_stochastic_times_smooth.defvjp(_stochastic_times_smooth_fwd, _stochastic_times_smooth_bwd)


def stochastic_times_smooth_log_prob(z, logits):
    """Compute the log-probability of `stochastic_times_smooth` at 0 and at q = sqrt(p).

    Value: log(1 - q) at z = 0, log q where |z - q| <= 4 eps q, with the eps of the dtype of z, and
      -inf elsewhere; exact in both tails. p = sigmoid(logits).

    Args:
      z: floats, 0 or q; broadcast with logits.
      logits: floats, log-odds of p; -inf and +inf make a z that is always 0 or 1.

    Returns:
      Nats, in the shape that z and logits broadcast to and in the dtype of logits; differentiable
      in logits.

    Raises:
      TypeError: z or logits are not floats.
      ValueError: z and logits do not broadcast together.
    """
    z_dtype = _arguments.floats("z", z).dtype
    z, wide, dtype = _arguments.broadcast_together(z, logits)
    log_p, q = _numerics.log_sqrt_bits(wide), _numerics.sqrt_sigmoid(wide)
    near = jnp.abs(z - q) <= 4 * float(jnp.finfo(z_dtype).eps) * q
    value = jnp.where(z == 0, log_p[..., 0], jnp.where(near, log_p[..., 1], -jnp.inf))
    return jnp.where(jnp.isnan(q) | jnp.isnan(z), jnp.nan, value).astype(dtype)


def _distance(b, p, rest):
    """Compute |b - p| for a bit b from p and rest = 1 - p, without the cancellation of b - p."""
    bit = jax.lax.stop_gradient(b)
    # The last term is 0 and carries the derivative in b.
    return bit * rest + (1 - bit) * p + (2 * bit - 1) * (b - bit)


def _logistic_noise(key, logits):
    return _noise.logistic(key, logits.shape, logits.dtype)


def _bit_of(noise, logits):
    return _numerics.indicator(logits + noise)


def _free(noise, logits):
    return logits + noise


def _given_bit(noise, b, logits):
    return _logistic_given_bit(b, logits)(jnp.exp(noise))


# ----------------------------------------------------------------------------------- the family

family = Family(
    name="bernoulli",
    sample=sample,
    log_prob=total(log_prob),
    mean=mean,
    support=_support,
    kl=total(kl),
    event_ndim=0,
    variance=_variance,
    neighbors=_neighbors,
    relaxation=Relaxation(_logistic_noise, _bit_of, _free, _given_bit, _rules.tempered_sigmoid),
)
