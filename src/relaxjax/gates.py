"""Gates in [0, 1] with mass at exactly 0 and 1, for choosing features, units or weights.

Start with `hard_concrete`, which takes a bit's log-odds; `gaussian` is the stochastic gate of
feature selection. A sum of `..._active_probability` is the expected number of gates that are not 0,
which a loss can penalize, and `..._deterministic` is the gate of a trained model.

Every entry is a gate of its own, so that the batch shape is the whole shape.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from relaxjax import _arguments, _noise, _numerics, _special

# ------------------------------------------------------------------------------------ Gaussian


def gaussian(key, mean, *, scale=0.5, shape=None):
    """Sample stochastic gates (STG), a Gaussian clipped to [0, 1], with an exact gradient.

    Distribution: z = clip(mean + scale eps), eps ~ N(0, 1), where clip(x) is x in (0, 1) and else
      the nearer end of [0, 1]. P(z = 0) = Phi(-mean / scale) and P(z = 1) =
      Phi((mean - 1) / scale), Phi the normal cdf; between them z is Gaussian.
    Gradient: exact; dz/dmean = 1 and dz/dscale = eps where 0 < z < 1, and both are 0 elsewhere.
    Bias: none for E[f(z)] under this distribution.
    Cost: one call of f; O(1) time and memory per entry.

    Args:
      key: PRNG key.
      mean: floats of any shape; -inf and +inf make a gate that is always 0 or 1, with gradient 0.
      scale: positive scalar, or an array of the shape of z, the standard deviation before clipping;
        may be traced.
      shape: shape of z, to which mean broadcasts; None takes that of mean.

    Returns:
      z, of that shape, in the dtype of mean; noise and arithmetic are in float32 or wider.

    Raises:
      TypeError: mean is not floats, scale is no number, or shape no tuple of integers.
      ValueError: a Python or NumPy scale is not positive (a jax.Array gives NaN), or scale or shape
        does not fit the shape of mean.

    Source: Yamada et al. 2020, arXiv:1810.04247; their mu is mean, and their sigma is scale here.
    """
    wide, dtype = _arguments.parameters("mean", mean, shape)
    scale = _arguments.hyperparameter("scale", scale, wide)
    noise = _noise.normal(key, wide.shape, wide.dtype)
    return _gaussian(noise, wide, scale).astype(dtype)


@jax.custom_vjp
def _gaussian(noise, mean, scale):
    return _numerics.unit(mean + scale * noise)


def _gaussian_fwd(noise, mean, scale):
    z = _gaussian(noise, mean, scale)
    return z, (z, noise, scale)


def _gaussian_bwd(residuals, g):
    z, noise, scale = residuals
    dmean = jnp.where((z == 0) | (z == 1), 0, g)
    return None, dmean, _numerics.sum_like(dmean * noise, scale)


_gaussian.defvjp(_gaussian_fwd, _gaussian_bwd)


def gaussian_deterministic(mean):
    """Compute the gate of `gaussian` without noise, for a trained model.

    Value: clip(mean), which is mean in (0, 1) and else the nearer end of [0, 1], with derivative 0
      there.

    Args:
      mean: floats of any shape.

    Returns:
      The gate, in the shape and dtype of mean.

    Raises:
      TypeError: mean is not floats.
    """
    wide, dtype = _arguments.parameters("mean", mean, None)
    return _numerics.unit(wide).astype(dtype)


def gaussian_active_probability(mean, *, scale):
    """Compute the probability that a gate of `gaussian` is not 0.

    Value: P(z > 0) = Phi(mean / scale), Phi the normal cdf, which is exact in the tails.

    Args:
      mean: floats of any shape; -inf and +inf make a gate that is always 0 or 1, with gradient 0 in
        mean.
      scale: positive scalar, or an array of the shape of mean, the standard deviation before
        clipping; may be traced. It is required, so that it cannot disagree with that of the
        sampler.

    Returns:
      The probability, in the shape and dtype of mean; differentiable in mean, and in scale where
      mean is finite.

    Raises:
      TypeError: mean is not floats, or scale is no number.
      ValueError: a Python or NumPy scale is not positive (a jax.Array gives NaN), or it does not
        fit the shape of mean.
    """
    wide, scale, dtype = _finite(mean, scale)
    return jax.scipy.special.ndtr(wide / scale).astype(dtype)


def _finite(mean, scale):
    """mean wide, an infinite one far out instead and without a gradient; scale; and the dtype to
    return."""
    wide, dtype = _arguments.parameters("mean", mean, None)
    scale = _arguments.hyperparameter("scale", scale, wide)
    far = jnp.sign(wide) * jax.lax.stop_gradient(1e6 * jnp.maximum(scale, 1))
    return jnp.where(jnp.isinf(wide), far, wide), scale, dtype


def gaussian_log_prob(z, mean, *, scale):
    """Compute the log-probability of `gaussian` at z = 0 and 1, and its log-density between.

    Value: log Phi(-mean / scale) at 0, log Phi((mean - 1) / scale) at 1, log N(z; mean, scale^2)
      between, -inf outside, Phi the normal cdf. This is with respect to Lebesgue measure and a
      point mass at each end, and the total is 1. The derivative in z is 0 at the ends.

    Args:
      z: floats in [0, 1]; broadcast with mean.
      mean: finite floats.
      scale: positive scalar, or an array of the broadcast shape, the standard deviation before
        clipping; may be traced. It is required, so that it cannot disagree with that of the
        sampler.

    Returns:
      Nats, in the shape that z and mean broadcast to and in the dtype of mean; differentiable in z,
      mean and scale.

    Raises:
      TypeError: z or mean is not floats, or scale is no number.
      ValueError: a Python or NumPy scale is not positive (a jax.Array gives NaN), or the shapes do
        not broadcast together.
    """
    _arguments.floats("z", z)
    z, wide, dtype = _arguments.broadcast_together(z, mean, other="mean")
    scale = _arguments.hyperparameter("scale", scale, wide)
    end, outside = (z == 0) | (z == 1), (z < 0) | (z > 1)
    # Each branch has an argument of its own, so that the slopes of the others cannot overflow.
    mass = _special.log_ndtr(jnp.where(end, jnp.where(z == 0, -wide, wide - 1), 0) / scale)
    x = jnp.where(end | outside, 0, z - wide) / scale
    density = -x * x / 2 - jnp.log(scale) - math.log(2 * math.pi) / 2
    value = jnp.where(end, mass, density)
    return jnp.where(outside, -jnp.inf, value).astype(dtype)


def gaussian_mean(mean, *, scale):
    """Compute the mean of a gate of `gaussian`.

    Value: E[z], the integral of clip(x) over x ~ N(mean, scale^2) in closed form, where clip(x) is
      x in (0, 1) and else the nearer end of [0, 1].

    Args:
      mean: floats of any shape; an infinite one is a gate that is always 0 or 1, with
        gradient 0.
      scale: positive scalar, or an array of the shape of mean, the standard deviation before
        clipping; may be traced. It is required, so that it cannot disagree with that of the
        sampler.

    Returns:
      E[z], in the shape and dtype of mean.

    Raises:
      TypeError: mean is not floats, or scale is no number.
      ValueError: a Python or NumPy scale is not positive (a jax.Array gives NaN), or it does not
        fit the shape of mean.
    """
    wide, scale, dtype = _finite(mean, scale)
    return _clipped_mean(wide, scale, _gaussian_pieces(wide, scale)).astype(dtype)


def _clipped_mean(mean, scale, pieces):
    _, (at_1, _), inside = pieces
    return mean * inside[0] + scale * inside[1] + at_1


def gaussian_variance(mean, *, scale):
    """Compute the variance of a gate of `gaussian`.

    Value: E[(z - E[z])^2], in closed form.

    Args:
      mean: floats of any shape; an infinite one is a gate that is always 0 or 1, with
        gradient 0.
      scale: positive scalar, or an array of the shape of mean, the standard deviation before
        clipping; may be traced. It is required, so that it cannot disagree with that of the
        sampler.

    Returns:
      The variance of z, in the shape and dtype of mean.

    Raises:
      TypeError: mean is not floats, or scale is no number.
      ValueError: a Python or NumPy scale is not positive (a jax.Array gives NaN), or it does not
        fit the shape of mean.
    """
    wide, scale, dtype = _finite(mean, scale)
    pieces = (at_0, _), (at_1, _), inside = _gaussian_pieces(wide, scale)
    value = _clipped_mean(wide, scale, pieces)
    square = _inner_square(value, wide, scale, inside)
    return (square + value**2 * at_0 + (1 - value) ** 2 * at_1).astype(dtype)


def gaussian_entropy(mean, *, scale):
    """Compute the entropy of a gate of `gaussian`.

    Value: -E[gaussian_log_prob(z)] in closed form, with respect to the measure of
      `gaussian_log_prob`: Lebesgue measure and a point mass at each end.

    Args:
      mean: floats of any shape; an infinite one is a gate that is always 0 or 1, with
        gradient 0.
      scale: positive scalar, or an array of the shape of mean, the standard deviation before
        clipping; may be traced. It is required, so that it cannot disagree with that of the
        sampler.

    Returns:
      Nats, in the shape and dtype of mean.

    Raises:
      TypeError: mean is not floats, or scale is no number.
      ValueError: a Python or NumPy scale is not positive (a jax.Array gives NaN), or it does not
        fit the shape of mean.
    """
    wide, scale, dtype = _finite(mean, scale)
    return _gaussian_cross_entropy(wide, scale, wide, scale).astype(dtype)


def gaussian_kl(mean_q, scale_q, mean_p, scale_p):
    """Compute the KL divergence of one `gaussian` gate from another, each of a scale of its own.

    Value: E_q[log q - log p] of the clipped draws in closed form, log q and log p as
      `gaussian_log_prob` has them at 0, at 1 and between. It is never more than the KL divergence
      of the Gaussians before they are clipped.

    Args:
      mean_q: finite floats of any shape.
      scale_q: positive scalar, or an array of the broadcast shape; may be traced.
      mean_p: the same as mean_q, for p; broadcast with mean_q.
      scale_p: the same as scale_q, for p.

    Returns:
      Nats, in the shape that both means broadcast to and in the dtype of mean_p; differentiable in
      all four.

    Raises:
      TypeError: mean_q or mean_p is not floats, or a scale is no number.
      ValueError: a Python or NumPy scale is not positive (a jax.Array gives NaN), or the shapes do
        not broadcast together.
    """
    _arguments.floats("mean_q", mean_q)
    q, p, dtype = _arguments.broadcast_together(mean_q, mean_p, 0, "mean_q", "mean_p")
    scale_q = _arguments.hyperparameter("scale_q", scale_q, q)
    scale_p = _arguments.hyperparameter("scale_p", scale_p, p)
    cross = _gaussian_cross_entropy(q, scale_q, p, scale_p)
    return (cross - _gaussian_cross_entropy(q, scale_q, q, scale_q)).astype(dtype)


def _gaussian_cross_entropy(mean_q, scale_q, mean_p, scale_p):
    """Compute -E_q[log p] with respect to the measure of `gaussian_log_prob`."""
    (q_0, _), (q_1, _), inside = _gaussian_pieces(mean_q, scale_q)
    (_, log_0), (_, log_1), _ = _gaussian_pieces(mean_p, scale_p)
    square = _inner_square(mean_p, mean_q, scale_q, inside) / scale_p**2
    density = inside[0] * (jnp.log(scale_p) + math.log(2 * math.pi) / 2) + square / 2
    return density - q_0 * log_0 - q_1 * log_1


def _gaussian_pieces(mean, scale):
    """Compute P(z = 0), P(z = 1), the logarithm of each, and E[eps^j; 0 < z < 1], j = 0, 1, 2."""
    low, high = -mean / scale, (1 - mean) / scale
    logs = _special.log_ndtr(low), _special.log_ndtr(-high)
    at_0, at_1 = (jnp.exp(log) for log in logs)
    # The difference of two probabilities in the same tail, whichever that is, keeps its digits.
    sign = jnp.where(low > 0, -1, 1)
    between = sign * (jax.scipy.special.ndtr(sign * high) - jax.scipy.special.ndtr(sign * low))
    slope_low, slope_high = (jnp.exp(-x * x / 2) / math.sqrt(2 * math.pi) for x in (low, high))
    inside = between, slope_low - slope_high, between + low * slope_low - high * slope_high
    return (at_0, logs[0]), (at_1, logs[1]), inside


def _inner_square(center, mean, scale, inside):
    """Compute E[(x - center)^2; 0 < x < 1], x ~ N(mean, scale^2)."""
    shift = mean - center
    closed = shift**2 * inside[0] + 2 * shift * scale * inside[1] + scale**2 * inside[2]
    # Where the density is nearly flat between 0 and 1 that cancels: the rule of 16 nodes does not.
    flat = (scale > 1) & (jnp.abs(mean - 0.5) < 8 * scale**2)
    mean, scale = jnp.where(flat, mean, 0), jnp.where(flat, scale, 1)
    nodes = zip(*np.polynomial.legendre.leggauss(16), strict=True)
    square = sum(
        float(w / 2)
        * (float((1 + x) / 2) - center) ** 2
        * jnp.exp(-(((float((1 + x) / 2) - mean) / scale) ** 2) / 2)
        for x, w in nodes
    )
    return jnp.where(flat, square / (math.sqrt(2 * math.pi) * scale), closed)


# ------------------------------------------------------------------------------- hard concrete


def hard_concrete(key, logits, *, temperature=2 / 3, stretch=(-0.1, 1.1), shape=None):
    """Sample gates by clipping relaxed bits stretched beyond [0, 1], with an exact gradient.

    Distribution: z = clip(low + (high - low) r), r = sigmoid(y), y = (logits + L) / temperature,
      L ~ Logistic(0, 1), (low, high) = stretch, where clip(x) is x in (0, 1) and else the nearer
      end of [0, 1]; P(z = 0) = sigmoid(temperature log(-low / high) - logits).
    Gradient: exact; where 0 < z < 1, dz/dlogits = (high - low) r (1 - r) / temperature,
      dz/dtemperature = -y dz/dlogits, dz/dlow = 1 - r and dz/dhigh = r; all are 0 elsewhere.
    Bias: none for E[f(z)] under this distribution.
    Cost: one call of f; O(1) time and memory per entry.

    Args:
      key: PRNG key.
      logits: floats of any shape, log-odds; -inf and +inf make a gate that is always 0 or 1, with
        gradient 0.
      temperature: positive scalar, or an array of the shape of z; may be traced.
      stretch: a pair (low, high), low < 0 and high > 1, each a scalar or an array of the shape of
        z; may be traced.
      shape: shape of z, to which logits broadcast; None takes that of logits.

    Returns:
      z, of that shape, in the dtype of logits; noise and arithmetic are in float32 or wider.

    Raises:
      TypeError: logits are not floats, temperature or an end of stretch is no number, stretch is no
        pair, or shape no tuple of integers.
      ValueError: a Python or NumPy temperature is not positive or stretch not around [0, 1] (a
        jax.Array gives NaN), stretch has another length, or one of them or shape does not fit the
        shape of logits.

    Source: Louizos, Welling, Kingma 2018, arXiv:1712.01312, eq. 10-11. Their log alpha is logits,
      their beta is temperature, and their (gamma, zeta) is stretch here.
    """
    wide, dtype = _arguments.parameters("logits", logits, shape)
    temperature = _arguments.hyperparameter("temperature", temperature, wide)
    low, high = _arguments.stretch_ends(stretch, wide)
    x = wide + _noise.logistic(key, wide.shape, wide.dtype)
    return _hard_concrete(x, temperature, low, high).astype(dtype)


@jax.custom_vjp
def _hard_concrete(x, temperature, low, high):
    return _numerics.unit(low + (high - low) * jax.nn.sigmoid(x / temperature))


def _hard_concrete_fwd(x, temperature, low, high):
    z = _hard_concrete(x, temperature, low, high)
    y = x / temperature
    # y is made finite, because the backward pass has 0 * y at infinite logits.
    return z, (z, jax.nn.sigmoid(y), jnp.where(jnp.isinf(y), 0, y), temperature, low, high)


def _hard_concrete_bwd(residuals, g):
    z, r, y, temperature, low, high = residuals
    g = jnp.where((z == 0) | (z == 1), 0, g)
    dhigh = g * r
    dlow = g - dhigh
    dx = dhigh * (1 - r) * ((high - low) / temperature)
    return (
        dx,
        _numerics.sum_like(-dx * y, temperature),
        _numerics.sum_like(dlow, low),
        _numerics.sum_like(dhigh, high),
    )


_hard_concrete.defvjp(_hard_concrete_fwd, _hard_concrete_bwd)


def hard_concrete_deterministic(logits, *, stretch):
    """Compute the gate of `hard_concrete` without noise, for a trained model.

    Value: clip(low + (high - low) sigmoid(logits)), (low, high) = stretch, where clip(x) is x in
      (0, 1) and else the nearer end of [0, 1], with derivative 0 there. It has no temperature.

    Args:
      logits: floats of any shape, log-odds.
      stretch: a pair (low, high), low < 0 and high > 1, each a scalar or an array of the shape of
        logits; may be traced. It is required, so that it cannot disagree with that of the sampler.

    Returns:
      The gate, in the shape and dtype of logits.

    Raises:
      TypeError: logits are not floats, stretch is no pair, or an end of it is no number.
      ValueError: a Python or NumPy stretch is not around [0, 1] (a jax.Array gives NaN), has
        another length, or does not fit the shape of logits.

    Source: Louizos et al. 2018, arXiv:1712.01312, eq. 13.
    """
    wide, dtype = _arguments.parameters("logits", logits, None)
    low, high = _arguments.stretch_ends(stretch, wide)
    return _numerics.unit(low + (high - low) * jax.nn.sigmoid(wide)).astype(dtype)


def hard_concrete_active_probability(logits, *, temperature, stretch):
    """Compute the probability that a gate of `hard_concrete` is not 0.

    Value: P(z > 0) = sigmoid(logits - temperature log(-low / high)), (low, high) = stretch.

    Args:
      logits: floats of any shape, log-odds; -inf and +inf make a gate that is always 0 or 1.
      temperature: positive scalar, or an array of the shape of logits; may be traced. It is
        required, like stretch, so that neither can disagree with the sampler's.
      stretch: a pair (low, high), low < 0 and high > 1, each a scalar or an array of the shape of
        logits; may be traced.

    Returns:
      The probability, in the shape and dtype of logits; differentiable in all three.

    Raises:
      TypeError: logits are not floats, temperature or an end of stretch is no number, or stretch is
        no pair.
      ValueError: a Python or NumPy temperature is not positive or stretch not around [0, 1] (a
        jax.Array gives NaN), stretch has another length, or one of them does not fit the shape of
        logits.

    Source: Louizos et al. 2018, arXiv:1712.01312, eq. 12.
    """
    wide, dtype = _arguments.parameters("logits", logits, None)
    temperature = _arguments.hyperparameter("temperature", temperature, wide)
    return jax.nn.sigmoid(
        wide - temperature * _log_odds(0, *_arguments.stretch_ends(stretch, wide))
    ).astype(dtype)


def hard_concrete_log_prob(z, logits, *, temperature, stretch):
    """Compute the log-probability of `hard_concrete` at z = 0 and 1, and its log-density between.

    Value: with (low, high) = stretch and t(x) = temperature log((x - low) / (high - x)):
      -softplus(logits - t(0)) at 0, -softplus(t(1) - logits) at 1, `bernoulli.concrete_log_prob` at
      r = (z - low) / (high - low) less log(high - low) between, -inf outside. This is with respect
      to Lebesgue measure and a point mass at each end, and the total is 1. The derivative in z is 0
      at the ends.

    Args:
      z: floats in [0, 1]; broadcast with logits.
      logits: finite floats, log-odds.
      temperature: positive scalar, or an array of the broadcast shape; may be traced. It is
        required, like stretch, so that neither can disagree with the sampler's.
      stretch: a pair (low, high), low < 0 and high > 1, each a scalar or an array of the broadcast
        shape; may be traced.

    Returns:
      Nats, in the shape that z and logits broadcast to and in the dtype of logits; differentiable
      in all of them.

    Raises:
      TypeError: z or logits are not floats, temperature or an end of stretch is no number, or
        stretch is no pair.
      ValueError: a Python or NumPy temperature is not positive or stretch not around [0, 1] (a
        jax.Array gives NaN), stretch has another length, or the shapes do not broadcast together.
    """
    _arguments.floats("z", z)
    z, wide, dtype = _arguments.broadcast_together(z, logits)
    temperature = _arguments.hyperparameter("temperature", temperature, wide)
    low, high = _arguments.stretch_ends(stretch, wide)
    end, outside = (z == 0) | (z == 1), (z < 0) | (z > 1)
    x = temperature * jnp.where(z == 0, _log_odds(0, low, high), -_log_odds(1, low, high))
    mass = jax.nn.log_sigmoid(x - jnp.where(z == 0, wide, -wide))
    inside = jnp.where(end | outside, 0.5, z)
    y = _log_odds(inside, low, high)
    # The terms that this adds are the log-slope of y in z.
    density = _numerics.logistic_log_density(y, wide, temperature)
    density += jnp.log(high - low) - jnp.log(inside - low) - jnp.log(high - inside)
    value = jnp.where(end, mass, density)
    return jnp.where(outside, -jnp.inf, value).astype(dtype)


def _log_odds(z, low, high):
    """Compute the log-odds of (z - low) / (high - low)."""
    return jnp.log((z - low) / (high - z))
