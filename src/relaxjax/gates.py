"""Gates in [0, 1] with mass at exactly 0 and 1, for choosing features, units or weights.

Start with `hard_concrete`, a bit's log-odds in; `gaussian` is the stochastic gate of feature
selection. The sum of `..._active_probability` is the expected number of gates that are not 0, to
penalize; `..._deterministic` is the gate of a trained model.

Throughout: `key` is a PRNG key; `mean` and `logits` have any shape, infinite ones a gate that is
always 0 or 1, with gradient 0; a hyperparameter is a positive scalar or has their shape, may be
traced, and raises ValueError when a Python or NumPy number is out of range (a jax.Array gives NaN);
so do both ends of `stretch`, (low, high) with low < 0 and high > 1. `shape` is the shape of the
result, mean or logits broadcast to it; None takes theirs. The result has the dtype of mean or
logits; arithmetic and noise are in float32 or wider. Integer ones raise TypeError, a shape that
they do not broadcast to ValueError. Every sampler serves one call of f and costs O(1) time and
memory an entry. In the formulas s is the sigmoid, sp the softplus, Phi the normal cdf, and clip(x)
is x where 0 < x < 1, else the nearer end of [0, 1] with derivative 0.
"""

import math

import jax
import jax.numpy as jnp

from relaxjax import _arguments, _noise, _numerics, _special

# ------------------------------------------------------------------------------------ Gaussian


def gaussian(key, mean, *, scale=0.5, shape=None):
    """A Gaussian clipped to [0, 1]: the stochastic gate (STG).

    Law: z = clip(mean + scale eps), eps ~ N(0, 1): P(z = 0) = Phi(-mean / scale), P(z = 1) =
      Phi((mean - 1) / scale), Gaussian between.
    Gradient: exact, dz/dmean = 1 and dz/dscale = eps where 0 < z < 1, else 0.
    Bias: none for E[f(z)] under this law.
    Source: Yamada et al. 2020, arXiv:1810.04247; their mu is mean, sigma is scale.
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
    """The gate without noise, clip(mean), in the shape and dtype of mean."""
    wide, dtype = _arguments.parameters("mean", mean, None)
    return _numerics.unit(wide).astype(dtype)


def gaussian_active_probability(mean, *, scale):
    """P(z > 0) = Phi(mean / scale) of `gaussian`, in the shape and dtype of mean.

    Exact in the tails; differentiable in both. `scale` is required, so that it cannot disagree with
    the sampler's.
    """
    wide, dtype = _arguments.parameters("mean", mean, None)
    return jax.scipy.special.ndtr(wide / _arguments.hyperparameter("scale", scale, wide)).astype(
        dtype
    )


def gaussian_log_prob(z, mean, *, scale):
    """Log-probability of `gaussian` at z = 0 and z = 1, log-density between.

    Value: log Phi(-mean / scale) at 0, log Phi((mean - 1) / scale) at 1, log N(z; mean, scale^2)
      between, -inf outside: with respect to Lebesgue measure and a point mass at each end, 1 in
      total. Its derivative in z is 0 at the ends.
    Args:
      z: values in [0, 1], broadcast with mean.
      mean: finite.
      scale: positive; required, so that it cannot disagree with the sampler's.
    Returns the broadcast shape, in the dtype of mean; differentiable in all three.
    """
    _arguments.floats("z", z)
    z, wide, dtype = _arguments.broadcast_together(z, mean, other="mean")
    scale = _arguments.hyperparameter("scale", scale, wide)
    end, outside = (z == 0) | (z == 1), (z < 0) | (z > 1)
    # Each branch has an argument of its own, that the others' slopes may not overflow.
    mass = _special.log_ndtr(jnp.where(end, jnp.where(z == 0, -wide, wide - 1), 0) / scale)
    x = jnp.where(end | outside, 0, z - wide) / scale
    density = -x * x / 2 - jnp.log(scale) - math.log(2 * math.pi) / 2
    value = jnp.where(end, mass, density)
    return jnp.where(outside, -jnp.inf, value).astype(dtype)


def gaussian_mean(mean, *, scale):
    """E[z] of `gaussian`, in the shape and dtype of mean.

    Value: the integral of clip(x) over x ~ N(mean, scale^2), in closed form. `scale` is required.
    """
    wide, dtype = _arguments.parameters("mean", mean, None)
    scale = _arguments.hyperparameter("scale", scale, wide)
    return _clipped_mean(wide, scale, _gaussian_pieces(wide, scale)).astype(dtype)


def _clipped_mean(mean, scale, pieces):
    _, (at_1, _), inside = pieces
    return mean * inside[0] + scale * inside[1] + at_1


def gaussian_variance(mean, *, scale):
    """The variance of z of `gaussian`, in the shape and dtype of mean; `scale` is required."""
    wide, dtype = _arguments.parameters("mean", mean, None)
    scale = _arguments.hyperparameter("scale", scale, wide)
    pieces = (at_0, _), (at_1, _), inside = _gaussian_pieces(wide, scale)
    value = _clipped_mean(wide, scale, pieces)
    square = _inner_square(wide - value, scale, inside)
    return (square + value**2 * at_0 + (1 - value) ** 2 * at_1).astype(dtype)


def gaussian_entropy(mean, *, scale):
    """The entropy of `gaussian` with respect to the measure of `gaussian_log_prob`.

    Value: -E[gaussian_log_prob(z)] in nats, in closed form. In the shape and dtype of mean; `scale`
      is required.
    """
    wide, dtype = _arguments.parameters("mean", mean, None)
    scale = _arguments.hyperparameter("scale", scale, wide)
    return _gaussian_cross_entropy(wide, scale, wide, scale).astype(dtype)


def gaussian_kl(mean_q, scale_q, mean_p, scale_p):
    """KL divergence of two `gaussian`, each of a scale of its own.

    Value: E_q[log q - log p] of the clipped draws, in closed form: what `gaussian_log_prob` says at
      0, at 1 and between. Never more than the KL of the Gaussians before they are clipped.
    Args: means of any shape, broadcast together; scales as the sampler takes them.
    Returns nats, in the broadcast shape and the dtype of mean_p; differentiable in all four.
    """
    _arguments.floats("mean_q", mean_q)
    q, p, dtype = _arguments.broadcast_together(mean_q, mean_p, 0, "mean_q", "mean_p")
    scale_q = _arguments.hyperparameter("scale_q", scale_q, q)
    scale_p = _arguments.hyperparameter("scale_p", scale_p, p)
    cross = _gaussian_cross_entropy(q, scale_q, p, scale_p)
    return (cross - _gaussian_cross_entropy(q, scale_q, q, scale_q)).astype(dtype)


def _gaussian_cross_entropy(mean_q, scale_q, mean_p, scale_p):
    """-E_q[log p], with respect to the measure of `gaussian_log_prob`."""
    (q_0, _), (q_1, _), inside = _gaussian_pieces(mean_q, scale_q)
    (_, log_0), (_, log_1), _ = _gaussian_pieces(mean_p, scale_p)
    square = _inner_square(mean_q - mean_p, scale_q, inside) / scale_p**2
    density = inside[0] * (jnp.log(scale_p) + math.log(2 * math.pi) / 2) + square / 2
    return density - q_0 * log_0 - q_1 * log_1


def _gaussian_pieces(mean, scale):
    """P(z = 0) and P(z = 1), each with its logarithm, and E[eps^j; 0 < z < 1] for j = 0, 1, 2."""
    low, high = -mean / scale, (1 - mean) / scale
    logs = _special.log_ndtr(low), _special.log_ndtr(-high)
    at_0, at_1 = (jnp.exp(log) for log in logs)
    # Of two numbers in one tail, whichever it is, so that their difference keeps its digits.
    sign = jnp.where(low > 0, -1, 1)
    between = sign * (jax.scipy.special.ndtr(sign * high) - jax.scipy.special.ndtr(sign * low))
    slope_low, slope_high = (jnp.exp(-x * x / 2) / math.sqrt(2 * math.pi) for x in (low, high))
    inside = between, slope_low - slope_high, between + low * slope_low - high * slope_high
    return (at_0, logs[0]), (at_1, logs[1]), inside


def _inner_square(shift, scale, inside):
    """E[(shift + scale eps)^2; 0 < z < 1]."""
    return shift**2 * inside[0] + 2 * shift * scale * inside[1] + scale**2 * inside[2]


# ------------------------------------------------------------------------------- hard concrete


def hard_concrete(key, logits, *, temperature=2 / 3, stretch=(-0.1, 1.1), shape=None):
    """A relaxed bit, stretched beyond [0, 1] and clipped to it.

    Law: z = clip(low + (high - low) s((logits + L) / temperature)), L ~ Logistic(0, 1), (low, high)
      the stretch; P(z = 0) = s(temperature log(-low / high) - logits).
    Gradient: exact; where 0 < z < 1, with y = (logits + L) / temperature and r = s(y), dz/dlogits =
      (high - low) r (1 - r) / temperature, dz/dtemperature = -y dz/dlogits, dz/dlow = 1 - r,
      dz/dhigh = r; else 0.
    Bias: none for E[f(z)] under this law.
    Source: Louizos, Welling, Kingma 2018, arXiv:1712.01312, eq. 10-11. Their log alpha is logits,
      beta is temperature, (gamma, zeta) the stretch.
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
    # Finite, for 0 * y at infinite logits.
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
    """The gate without noise, clip(low + (high - low) s(logits)), in the shape and dtype of logits.

    Source: Louizos et al. 2018, eq. 13; no temperature. `stretch` is required.
    """
    wide, dtype = _arguments.parameters("logits", logits, None)
    low, high = _arguments.stretch_ends(stretch, wide)
    return _numerics.unit(low + (high - low) * jax.nn.sigmoid(wide)).astype(dtype)


def hard_concrete_active_probability(logits, *, temperature, stretch):
    """P(z > 0) = s(logits - temperature log(-low / high)) of `hard_concrete`.

    Source: Louizos et al. 2018, eq. 12. Both hyperparameters are required, so that they cannot
    disagree with the sampler's. In the shape and dtype of logits; differentiable in all three.
    """
    wide, dtype = _arguments.parameters("logits", logits, None)
    temperature = _arguments.hyperparameter("temperature", temperature, wide)
    return jax.nn.sigmoid(
        wide - temperature * _log_odds(0, *_arguments.stretch_ends(stretch, wide))
    ).astype(dtype)


def hard_concrete_log_prob(z, logits, *, temperature, stretch):
    """Log-probability of `hard_concrete` at z = 0 and z = 1, log-density between.

    Value: with t(x) = temperature log((x - low) / (high - x)), -sp(logits - t(0)) at 0,
      -sp(t(1) - logits) at 1, `bernoulli.concrete_log_prob` at r = (z - low) / (high - low) less
      log(high - low) between, -inf outside: with respect to Lebesgue measure and a point mass at
      each end, 1 in total. Its derivative in z is 0 at the ends.
    Args:
      z: values in [0, 1], broadcast with logits.
      logits: finite.
      temperature, stretch: required, so that they cannot disagree with the sampler's.
    Returns the broadcast shape, in the dtype of logits; differentiable in all of them.
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
    # The last two terms are the slope of y in z.
    density = _numerics.logistic_log_density(y, wide, temperature)
    density += jnp.log(high - low) - jnp.log(inside - low) - jnp.log(high - inside)
    value = jnp.where(end, mass, density)
    return jnp.where(outside, -jnp.inf, value).astype(dtype)


def _log_odds(z, low, high):
    """logit of (z - low) / (high - low)."""
    return jnp.log((z - low) / (high - z))
