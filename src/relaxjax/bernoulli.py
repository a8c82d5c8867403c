"""One bit with probability p = sigmoid(logits), and the gradients that it can carry.

Start with `zgr`: exactly 0 or 1 forward, unbiased for an f that is quadratic in each bit, no
hyperparameter. `concrete` relaxes the bit itself.

Throughout: `key` is a PRNG key; `logits` are log-odds of any shape, -inf and +inf a bit that is
always 0 or 1, with gradient 0; a hyperparameter is a positive scalar or has the shape of logits,
may be traced, and raises ValueError when a Python or NumPy number is out of range (a jax.Array
gives NaN). `shape` is the shape of the result, logits broadcast to it; None takes that of logits.
The result has the dtype of logits; arithmetic and noise are in float32 or wider. Integer logits
raise TypeError, a shape that logits do not broadcast to ValueError. Every sampler serves one call
of f and costs O(1) time and memory an entry unless it says otherwise. In the formulas b is the
drawn bit, g the incoming cotangent, s the sigmoid, and d^2 z of a hard draw follows by applying
the stated rule to every b in it.
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
    """A bit without a gradient.

    Law: b ~ Bernoulli(p), exactly 0.0 or 1.0; P(b = 1) is exact to 2^-23 in float32.
    Gradient: 0.
    """
    wide, dtype = _arguments.parameters("logits", logits, shape)
    return _draw(key, wide).astype(dtype)


def _draw(key, logits):
    return _draw_probability(key, jax.nn.sigmoid(jax.lax.stop_gradient(logits)))


def _draw_probability(key, p):
    u = jax.random.uniform(key, p.shape, p.dtype)
    # u < NaN is False: a bad logit would make a plausible 0.
    return jnp.where(jnp.isnan(p), jnp.nan, (u < p).astype(p.dtype))


def log_prob(x, logits):
    """Log-probability of bits.

    Value: x log p + (1 - x) log(1 - p), entry by entry, linear in x; exact in both tails; -inf
      where x contradicts infinite logits.
    Args:
      x: 0 or 1, broadcast with logits.
      logits: log-odds.
    Returns the broadcast shape, in the dtype of logits; differentiable to any order.
    """
    x, wide, dtype = _arguments.broadcast_together(x, logits, name="x")
    ones = _numerics.mul_log(x, jax.nn.log_sigmoid(wide))
    zeros = _numerics.mul_log(1 - x, jax.nn.log_sigmoid(-wide))
    return (ones + zeros).astype(dtype)


def mean(logits):
    """E[b] = sigmoid(logits), in the shape and dtype of logits."""
    wide, dtype = _arguments.parameters("logits", logits, None)
    return jax.nn.sigmoid(wide).astype(dtype)


def entropy(logits):
    """The entropy of a bit in nats, in the shape and dtype of logits.

    Value: -p log p - (1 - p) log(1 - p), exact in both tails; 0 at infinite logits.
    Differentiable to any order.
    """
    wide, dtype = _arguments.parameters("logits", logits, None)
    return _numerics.entropy(_numerics.log_bits(wide)).astype(dtype)


def kl(logits_q, logits_p):
    """KL divergence of two bits.

    Value: q log(q / p) + (1 - q) log((1 - q) / (1 - p)), exact in both tails; +inf where q may be
      what p never is.
    Args: logits_q, logits_p: log-odds, broadcast together.
    Returns nats, in the broadcast shape and the dtype of logits_p; differentiable to any order.
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
    """A relaxed bit in (0, 1): binary Concrete, or Gumbel-sigmoid.

    Law: z = s(y), y = (logits + L) / temperature, L ~ Logistic(0, 1); P(z > 1/2) = p at every
      temperature, and z tends to the bit as it falls. Rounding may give exactly 0 or 1.
    Gradient: exact, dz/dlogits = s'(y) / temperature, dz/dtemperature = -s'(y) y / temperature.
    Bias: none for E[f(z)] under this law; biased for E[f(b)].
    Source: Maddison et al. 2017, arXiv:1611.00712, appendix B; Jang et al. 2017, arXiv:1611.01144.
      Their alpha is exp(logits), lambda or tau is temperature.
    """
    wide, dtype = _arguments.parameters("logits", logits, shape)
    temperature = _arguments.hyperparameter("temperature", temperature, wide)
    x = wide + _noise.logistic(key, wide.shape, wide.dtype)
    return _rules.tempered_sigmoid(x, temperature).astype(dtype)


def concrete_log_prob(z, logits, *, temperature):
    """Log-density of `concrete` at z in (0, 1).

    Value: log temperature - sp(d) - sp(-d) - log z - log(1 - z), d = temperature logit(z) - logits,
      sp the softplus. z is clamped into the open interval of its dtype, so that every draw, also
      one rounded to 0 or 1, has a finite value; the gradient is 0 where clamped.
    Args:
      z: values in [0, 1], broadcast with logits.
      logits: log-odds, finite: at infinite ones there is no density (-inf or NaN).
      temperature: positive; required, so that it cannot disagree with the sampler's.
    Returns the broadcast shape, in the dtype of logits; differentiable in all three.
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
    """The draw of `concrete` before the sigmoid, exact where z has rounded to 0 or 1.

    Law: y = (logits + L) / temperature, L ~ Logistic(0, 1): Logistic(logits / temperature,
      scale 1 / temperature). concrete(key, ...) = s(y) for the same key.
    Gradient: exact, dy/dlogits = 1 / temperature, dy/dtemperature = -y / temperature; 0 at infinite
      logits, where y is infinite.
    Bias: none for E[f(y)] under this law; no estimate of E[f(b)].
    Source: Maddison et al. 2017, arXiv:1611.00712, appendix C.3.
    """
    wide, dtype = _arguments.parameters("logits", logits, shape)
    temperature = _arguments.hyperparameter("temperature", temperature, wide)
    x = wide + _noise.logistic(key, wide.shape, wide.dtype)
    return _rules.tempered(x, temperature).astype(dtype)


def logit_concrete_log_prob(y, logits, *, temperature):
    """Log-density of `logit_concrete` at a real y, exact and finite at every finite y.

    Value: log temperature - sp(d) - sp(-d), d = temperature y - logits, sp the softplus.
    Args, returns and source: as `concrete_log_prob`, with y for z and nothing clamped.
    """
    y = _arguments.floats("y", y)
    y, wide, dtype = _arguments.broadcast_together(y, logits, name="y")
    temperature = _arguments.hyperparameter("temperature", temperature, wide)
    return _numerics.logistic_log_density(y, wide, temperature).astype(dtype)


def concrete_kl(logits_q, logits_p):
    """KL divergence of two relaxed bits of one temperature, which drops out.

    Value: x coth(x / 2) - 2 at x = logits_q - logits_p: the KL of two unit logistics a distance x
      apart. Symmetric; 0 where both are equal (and infinite alike), +inf where one is infinite.
    Args: logits_q, logits_p: log-odds, broadcast together.
    Returns nats, in the broadcast shape and the dtype of logits_p; differentiable to any order.
    """
    _arguments.floats("logits_q", logits_q)
    q, p, dtype = _arguments.broadcast_together(logits_q, logits_p, name="logits_q")
    # inf - inf of two bits that are sure alike.
    x = jnp.where(jnp.isinf(q) & (q == p), 0, q - p)
    return _logistic_kl(x).astype(dtype)


def _logistic_kl(x):
    c = jnp.where(jnp.abs(x) < 0.5, x * x, 0)
    # Taylor series: below 1/2 the closed form cancels to rounding error.
    coefficients = (1 / 6, -1 / 360, 1 / 15120, -1 / 604800, 1 / 23950080, -691 / 653837184000)
    series = c * functools.reduce(lambda acc, a: acc * c + a, reversed(coefficients))
    a = jnp.where(jnp.abs(x) < 0.5, 1, jnp.abs(x))
    small = jnp.where(a < 80, a, 1)
    tail = jnp.where(a < 80, 2 * small / jnp.expm1(small), 0)
    return jnp.where(jnp.abs(x) < 0.5, series, a - 2 + tail)


# -------------------------------------------------------------------------------- hard forward


def straight_through(key, logits, *, shape=None):
    """A bit whose gradient is that of its mean.

    Law: z = b ~ Bernoulli(p), exactly 0.0 or 1.0.
    Gradient: dz/dlogits = p (1 - p).
    Bias: none for f linear in each bit; second order otherwise.
    Source: Bengio, Leonard, Courville 2013, arXiv:1308.3432, section 5.
    """
    wide, dtype = _arguments.parameters("logits", logits, shape)
    return jnp.asarray(hard(_straight_through_rule, _draw(key, wide), wide), dtype)


def _straight_through_rule(g, b, logits):
    return (g * _numerics.sigmoid_slope(logits),)


def zgr(key, logits, *, shape=None):
    """A bit with the zero-temperature limit of the Gumbel-Rao gradient: a second-order rule.

    Law: z = b ~ Bernoulli(p), exactly 0.0 or 1.0.
    Gradient: dz/dlogits = |b - p| / 2, which is ((b - p)^2 + p (1 - p)) / 2.
    Bias: none for f quadratic in each bit; third order otherwise. Equal to DARN(1/2), and to
      ReinMax of the two classes.
    Source: Shekhovtsov 2023, "Cold analysis of Rao-Blackwellized straight-through Gumbel-softmax
      gradient estimator" (ZGR).
    """
    wide, dtype = _arguments.parameters("logits", logits, shape)
    return jnp.asarray(hard(_zgr_rule, _draw(key, wide), wide), dtype)


def _zgr_rule(g, b, logits):
    return (g * _distance(b, jax.nn.sigmoid(logits), jax.nn.sigmoid(-logits)) / 2,)


def straight_through_concrete(key, logits, *, temperature=0.5, shape=None):
    """A bit whose gradient is that of the relaxed bit drawn with the same noise.

    Law: z = b = 1[x > 0], x = logits + L, L ~ Logistic(0, 1): Bernoulli(p) at every temperature.
    Gradient: dz/dlogits = s'(x / temperature) / temperature; 0 in temperature, on which the law
      does not depend.
    Bias: present even for linear f; it falls with the temperature while the variance grows.
    Source: Jang et al. 2017, arXiv:1611.01144, section 2.2 (their tau is temperature).
    """
    wide, dtype = _arguments.parameters("logits", logits, shape)
    temperature = _arguments.hyperparameter("temperature", temperature, wide)
    x = wide + _noise.logistic(key, wide.shape, wide.dtype)
    return jnp.asarray(_rules.tempered_bit(x, temperature), dtype)


def gumbel_rao(key, logits, *, temperature=0.5, num_noise=10, shape=None):
    """A bit with the gradient of `straight_through_concrete`, averaged over noise given the bit.

    Law: z = b ~ Bernoulli(p), exactly 0.0 or 1.0.
    Gradient: dz/dlogits = the mean of s'(x_k / temperature) / temperature over num_noise draws of
      x = logits + L given b, dx/dlogits = 1; 0 in temperature.
    Bias: that of straight_through_concrete, whose expectation this has for every num_noise, with
      less variance; zgr as the temperature tends to 0.
    Cost: one call of f; the backward pass redraws num_noise logistic variables an entry, one after
      the other, so that memory does not grow with num_noise.
    Args: num_noise: static integer >= 1.
    Source: Paulus, Maddison, Krause 2021, arXiv:2010.04838 (their K is num_noise, tau temperature).
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
    """The map from the odds e^L of logistic noise to logits + L given that its sign is b's; no
    rejection."""
    sign = 2 * b - 1
    # |x| = sp(sp(sign logits) + L), with one logarithm a noise. q is the other bit's probability.
    log_q = jax.nn.log_sigmoid(-sign * logits)
    q = jnp.exp(log_q)
    return lambda odds: sign * (jnp.log(q + odds) - log_q)


def stochastic_times_smooth(key, logits, *, shape=None):
    """A bit of probability sqrt(p) times sqrt(p): a sample in {0, sqrt(p)} with mean p.

    Law: z = q b, q = sqrt(p), b ~ Bernoulli(q). Not 0/1.
    Gradient: b dq/dlogits + q db/dlogits, db that of `zgr` at b's own log-odds: with b = 1
      (3/4) q (1 - p), with b = 0 (1/4) q^2 (1 + q).
    Bias: none for E[f(z)] under this law and f quadratic in each entry; third order otherwise.
    Source: Bengio, Leonard, Courville 2013, arXiv:1308.3432, section 4. Their rule keeps the first
      term alone, which is half the gradient of a linear f.
    """
    wide, dtype = _arguments.parameters("logits", logits, shape)
    b = _draw_probability(key, _numerics.sqrt_sigmoid(jax.lax.stop_gradient(wide)))
    return _stochastic_times_smooth(b, wide).astype(dtype)


@jax.custom_vjp
def _stochastic_times_smooth(b, logits):
    return _numerics.sqrt_sigmoid(logits) * b


def _stochastic_times_smooth_fwd(b, logits):
    q = _numerics.sqrt_sigmoid(logits)
    # log q - log(1 - q), the log-odds of b, whose own second derivative is zgr's.
    log_odds = jax.nn.log_sigmoid(logits) / 2 + jax.nn.softplus(logits) + jnp.log1p(q)
    return _stochastic_times_smooth(b, logits), (hard(_zgr_rule, b, log_odds), logits)


def _stochastic_times_smooth_bwd(residuals, g):
    b, logits = residuals
    q, tail = _numerics.sqrt_sigmoid(logits), jax.nn.sigmoid(-logits)
    distance = _distance(b, q, tail / (1 + q))
    return None, g * q * (b * tail / 2 + distance * (1 + q) / 4)


_stochastic_times_smooth.defvjp(_stochastic_times_smooth_fwd, _stochastic_times_smooth_bwd)


def stochastic_times_smooth_log_prob(z, logits):
    """Log-probability of `stochastic_times_smooth` at 0 and at q = sqrt(p).

    Value: log(1 - q) at 0, log q within a rounding of q, -inf elsewhere; exact in both tails.
    Args:
      z: 0 or q, broadcast with logits.
      logits: log-odds of p.
    Returns the broadcast shape, in the dtype of logits; differentiable in logits.
    """
    z_dtype = _arguments.floats("z", z).dtype
    z, wide, dtype = _arguments.broadcast_together(z, logits)
    log_p, q = _numerics.log_sqrt_bits(wide), _numerics.sqrt_sigmoid(wide)
    near = jnp.abs(z - q) <= 4 * float(jnp.finfo(z_dtype).eps) * q
    value = jnp.where(z == 0, log_p[..., 0], jnp.where(near, log_p[..., 1], -jnp.inf))
    return jnp.where(jnp.isnan(q), jnp.nan, value).astype(dtype)


def _distance(b, p, rest):
    """|b - p| of a bit b, from p and rest = 1 - p, without the cancellation of that difference."""
    bit = jax.lax.stop_gradient(b)
    # The last term is 0; it carries the derivative in b.
    return bit * rest + (1 - bit) * p + (2 * bit - 1) * (b - bit)


def _logistic_noise(key, logits):
    return _noise.logistic(key, logits.shape, logits.dtype)


def _bit_of(noise, logits):
    return _numerics.indicator(logits + noise)


def _free(noise, logits):
    return logits + noise


def _free_given_bit(noise, b, logits):
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
    relaxation=Relaxation(
        noise=_logistic_noise,
        hard=_bit_of,
        free=_free,
        given=_free_given_bit,
        relax=_rules.tempered_sigmoid,
    ),
)
