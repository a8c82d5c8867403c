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
import math

import jax
import jax.numpy as jnp
import numpy as np

from relaxjax import _arguments, _numerics
from relaxjax.families import Family, joint_support

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
    x, wide, dtype = _arguments.together(x, logits, name="x")
    ones = _numerics.linear(x, jax.nn.log_sigmoid(wide))
    zeros = _numerics.linear(1 - x, jax.nn.log_sigmoid(-wide))
    return (ones + zeros).astype(dtype)


def mean(logits):
    """E[b] = sigmoid(logits), in the shape and dtype of logits."""
    wide, dtype = _arguments.parameters("logits", logits, None)
    return jax.nn.sigmoid(wide).astype(dtype)


def _support(logits):
    logits = _arguments.floats("logits", logits)
    return joint_support(np.array([0.0, 1.0]), logits.shape, logits.dtype)


family = Family(
    name="bernoulli",
    sample=sample,
    log_prob=lambda x, logits: jnp.sum(log_prob(x, logits)),
    mean=mean,
    support=_support,
)

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
    temperature = _arguments.real("temperature", temperature, wide)
    noise = _numerics.logistic(key, wide.shape, wide.dtype)
    return _concrete(noise, wide, temperature).astype(dtype)


@jax.custom_vjp
def _concrete(noise, logits, temperature):
    return jax.nn.sigmoid((logits + noise) / temperature)


def _concrete_fwd(noise, logits, temperature):
    # y, not z: z rounds to 1 from y = 17 on, where s'(y) is not yet 0. By the rule that knows of an
    # infinite y, for second derivatives.
    y = _logit_concrete(noise, logits, temperature)
    return _concrete(noise, logits, temperature), (y, temperature)


def _concrete_bwd(residuals, g):
    y, temperature = residuals
    w = _numerics.sigmoid_slope(y)
    dlogits = g * w / temperature
    # 0 * inf: an infinite y has slope 0.
    dtemperature = jnp.where(w == 0, 0, -dlogits * jnp.where(w == 0, 0, y))
    return None, dlogits, _numerics.sum_like(dtemperature, temperature)


_concrete.defvjp(_concrete_fwd, _concrete_bwd)


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
    z, wide, dtype = _arguments.together(z, logits)
    temperature = _arguments.real("temperature", temperature, wide)
    outside = (z < 0) | (z > 1)
    z = _numerics.interior(z, z_dtype)
    log_z, log_1z = jnp.log(z), jnp.log1p(-z)
    value = _logistic_log_density(log_z - log_1z, wide, temperature) - log_z - log_1z
    return jnp.where(outside, -jnp.inf, value).astype(dtype)


def _logistic_log_density(y, logits, temperature):
    return jnp.log(temperature) - _numerics.softplus_sum(temperature * y - logits)


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
    temperature = _arguments.real("temperature", temperature, wide)
    noise = _numerics.logistic(key, wide.shape, wide.dtype)
    return _logit_concrete(noise, wide, temperature).astype(dtype)


@jax.custom_vjp
def _logit_concrete(noise, logits, temperature):
    return (logits + noise) / temperature


def _logit_concrete_fwd(noise, logits, temperature):
    y = _logit_concrete(noise, logits, temperature)
    return y, (y, temperature)


def _logit_concrete_bwd(residuals, g):
    y, temperature = residuals
    sure = jnp.isinf(y)
    dlogits = jnp.where(sure, 0, g / temperature)
    dtemperature = -dlogits * jnp.where(sure, 0, y)
    return None, dlogits, _numerics.sum_like(dtemperature, temperature)


_logit_concrete.defvjp(_logit_concrete_fwd, _logit_concrete_bwd)


def logit_concrete_log_prob(y, logits, *, temperature):
    """Log-density of `logit_concrete` at a real y, exact and finite at every finite y.

    Value: log temperature - sp(d) - sp(-d), d = temperature y - logits, sp the softplus.
    Args, returns and source: as `concrete_log_prob`, with y for z and nothing clamped.
    """
    y = _arguments.floats("y", y)
    y, wide, dtype = _arguments.together(y, logits, name="y")
    temperature = _arguments.real("temperature", temperature, wide)
    return _logistic_log_density(y, wide, temperature).astype(dtype)


def concrete_kl(logits_q, logits_p):
    """KL divergence of two relaxed bits of one temperature, which drops out.

    Value: x coth(x / 2) - 2 at x = logits_q - logits_p: the KL of two unit logistics a distance x
      apart. Symmetric; 0 where both are equal (and infinite alike), +inf where one is infinite.
    Args: logits_q, logits_p: log-odds, broadcast together.
    Returns nats, in the broadcast shape and the dtype of logits_p; differentiable to any order.
    """
    _arguments.floats("logits_q", logits_q)
    q, p, dtype = _arguments.together(logits_q, logits_p, name="logits_q")
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
    return _straight_through(_draw(key, wide), wide).astype(dtype)


@jax.custom_vjp
def _straight_through(b, logits):
    return b


def _straight_through_fwd(b, logits):
    return _straight_through(b, logits), (logits,)


def _straight_through_bwd(residuals, g):
    (logits,) = residuals
    return None, g * _numerics.sigmoid_slope(logits)


_straight_through.defvjp(_straight_through_fwd, _straight_through_bwd)


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
    return _zgr(_draw(key, wide), wide).astype(dtype)


@jax.custom_vjp
def _zgr(b, logits):
    return b


def _zgr_fwd(b, logits):
    b = _zgr(b, logits)
    return b, (b, logits)


def _zgr_bwd(residuals, g):
    b, logits = residuals
    return None, g * _distance(b, jax.nn.sigmoid(logits), jax.nn.sigmoid(-logits)) / 2


_zgr.defvjp(_zgr_fwd, _zgr_bwd)


def straight_through_concrete(key, logits, *, temperature=0.5, shape=None):
    """A bit whose gradient is that of the relaxed bit drawn with the same noise.

    Law: z = b = 1[x > 0], x = logits + L, L ~ Logistic(0, 1): Bernoulli(p) at every temperature.
    Gradient: dz/dlogits = s'(x / temperature) / temperature; 0 in temperature, on which the law
      does not depend.
    Bias: present even for linear f; it falls with the temperature while the variance grows.
    Source: Jang et al. 2017, arXiv:1611.01144, section 2.2 (their tau is temperature).
    """
    wide, dtype = _arguments.parameters("logits", logits, shape)
    temperature = _arguments.real("temperature", temperature, wide)
    noise = _numerics.logistic(key, wide.shape, wide.dtype)
    return _straight_through_concrete(noise, wide, temperature).astype(dtype)


@jax.custom_vjp
def _straight_through_concrete(noise, logits, temperature):
    x = logits + noise
    return jnp.where(jnp.isnan(x), jnp.nan, (x > 0).astype(x.dtype))


def _straight_through_concrete_fwd(noise, logits, temperature):
    return _straight_through_concrete(noise, logits, temperature), (logits + noise, temperature)


def _straight_through_concrete_bwd(residuals, g):
    x, temperature = residuals
    return None, g * _numerics.sigmoid_slope(x / temperature) / temperature, None


_straight_through_concrete.defvjp(_straight_through_concrete_fwd, _straight_through_concrete_bwd)


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
    temperature = _arguments.real("temperature", temperature, wide)
    num_noise = _arguments.count("num_noise", num_noise, 1)
    z = _gumbel_rao(_numerics.noise_key(key), _draw(key, wide), wide, temperature, num_noise)
    return jnp.asarray(z, dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _gumbel_rao(key, b, logits, temperature, num_noise):
    return b


def _gumbel_rao_fwd(key, b, logits, temperature, num_noise):
    b = _gumbel_rao(key, b, logits, temperature, num_noise)
    return b, (key, jax.lax.stop_gradient(b), logits, temperature)


def _gumbel_rao_bwd(num_noise, residuals, g):
    key, b, logits, temperature = residuals
    given_bit = _logistic_given_bit(b, logits)

    def weight(key):
        x = given_bit(_numerics.odds(key, logits.shape, logits.dtype))
        x = _numerics.follow(x, logits)
        return _numerics.sigmoid_slope(x / temperature) / temperature

    return None, None, g * _numerics.mean_over_noise(weight, key, num_noise), None


_gumbel_rao.defvjp(_gumbel_rao_fwd, _gumbel_rao_bwd)


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
    b = _draw_probability(key, _root(jax.lax.stop_gradient(wide)))
    return _stochastic_times_smooth(b, wide).astype(dtype)


@jax.custom_vjp
def _stochastic_times_smooth(b, logits):
    return _root(logits) * b


def _stochastic_times_smooth_fwd(b, logits):
    q = _root(logits)
    # log q - log(1 - q), the log-odds of b, whose own second derivative is zgr's.
    log_odds = jax.nn.log_sigmoid(logits) / 2 + jax.nn.softplus(logits) + jnp.log1p(q)
    return _stochastic_times_smooth(b, logits), (_zgr(b, log_odds), logits)


def _stochastic_times_smooth_bwd(residuals, g):
    b, logits = residuals
    q, tail = _root(logits), jax.nn.sigmoid(-logits)
    distance = _distance(b, q, tail / (1 + q))
    return None, g * q * (b * tail / 2 + distance * (1 + q) / 4)


_stochastic_times_smooth.defvjp(_stochastic_times_smooth_fwd, _stochastic_times_smooth_bwd)


def _root(logits):
    """sqrt(p), which does not underflow where p does; smooth at 0 too."""
    below = logits < 0
    negative, positive = jnp.where(below, logits, 0), jnp.where(below, 0, logits)
    scale = jnp.where(below, jnp.exp(negative / 2), 1)
    return scale * jax.lax.rsqrt(1 + jnp.exp(negative - positive))


def _root_log_probs(logits):
    """log(1 - q) = log((1 - p) / (1 + q)) and log q, q = sqrt(p)."""
    log_q = jax.nn.log_sigmoid(logits) / 2
    return jax.nn.log_sigmoid(-logits) - jnp.log1p(jnp.exp(log_q)), log_q


def _stochastic_times_smooth_log_prob(z, logits):
    """Log-probability of 0 and of q, to whose rounding z may come; -inf elsewhere."""
    z_dtype = _arguments.floats("z", z).dtype
    z, wide, dtype = _arguments.together(z, logits)
    log_zero, log_q = _root_log_probs(wide)
    q = _root(wide)
    near = jnp.abs(z - q) <= 4 * float(jnp.finfo(z_dtype).eps) * q
    value = jnp.where(z == 0, log_zero, jnp.where(near, log_q, -jnp.inf))
    return jnp.where(jnp.isnan(q), jnp.nan, value).astype(dtype)


def _distance(b, p, rest):
    """|b - p| of a bit b, from p and rest = 1 - p, without the cancellation of that difference."""
    bit = jax.lax.stop_gradient(b)
    # The last term is 0; it carries the derivative in b.
    return bit * rest + (1 - bit) * p + (2 * bit - 1) * (b - bit)


# ------------------------------------------------------------------------------ correlated bits


def correlated_concrete(key, logits, correlation_tril, *, temperature=0.5, shape=None):
    """Relaxed bits (..., D), each a `concrete`, joined by a Gaussian copula.

    Law: z = s(x), x = (logits + lam(v)) / temperature, v = R eps, eps_i ~ N(0, 1), where R is
      correlation_tril and lam(v) = log Phi(v) - log Phi(-v), Logistic(0, 1) each. Rounding may give
      exactly 0 or 1.
    Gradient: exact: to logits h = g s'(x) / temperature, to temperature -sum_i h_i x_i, to R the
      lower triangle of (h lam'(v)) eps^T; lam' = phi / (Phi Phi(-.)).
    Bias: none for E[f(z)] under this law; biased for E[f(b)].
    Cost: O(D^2) a draw.
    Args:
      logits: (..., D) log-odds.
      correlation_tril: (D, D), the Cholesky factor of the correlation matrix, which all draws
        share: lower triangular, its rows of norm 1 within 1e-3, used as they are. Another raises
        ValueError in NumPy and gives NaN in a jax.Array.
      temperature: positive; a scalar or of the batch shape, without D.
      shape: the batch shape of z, without D.
    Source: Lee et al. 2022, "Self-supervision enhanced feature selection with correlated gates",
      with the logistic noise of Maddison et al. 2017, arXiv:1611.00712.
    """
    return _correlated(_correlated_concrete, key, logits, correlation_tril, temperature, shape)


def _correlated(rule, key, logits, tril, temperature, shape):
    wide, dtype = _arguments.parameters("logits", logits, shape, event_ndim=1)
    tril = _correlation_factor(tril, wide)
    temperature = _arguments.real("temperature", temperature, wide, event_ndim=1)
    noise = _numerics.normal(key, wide.shape, wide.dtype)
    return rule(noise, wide, tril, temperature).astype(dtype)


def _correlated_concrete(noise, logits, tril, temperature):
    x = logits + _correlated_logistic(noise, tril)
    return _concrete(jnp.zeros((), x.dtype), x, temperature)


def _correlated_logistic(noise, tril):
    return _numerics.once(_numerics.normal_logit(_correlated_normal(noise, tril)))


def _correlated_normal(noise, tril):
    # XLA would draw the noise again for each of the D sums. Not the default precision, which has
    # 10 bits of mantissa on some accelerators.
    noise = _numerics.once(noise)
    v = jnp.einsum("...j,ij->...i", noise, jnp.tril(tril), precision="highest")
    return _numerics.once(v)


def _correlation_factor(tril, logits):
    """The factor in the dtype of logits; NaN where a jax.Array is none."""
    n = logits.shape[-1]
    need = f"need a lower triangular matrix {[n, n]} with rows of norm 1 within 1e-3"
    x = _arguments.floats("correlation_tril", tril)
    if x.shape != (n, n):
        raise ValueError(f"correlation_tril: got {_arguments.describe(x)}, {need}")
    wide = x.astype(logits.dtype)
    # NumPy's own arithmetic for what NumPy can decide, also inside a trace.
    xp, m = (jnp, wide) if isinstance(tril, jax.Array) else (np, np.asarray(tril, np.float64))
    good = xp.all(xp.triu(m, 1) == 0) & xp.all(abs(xp.sqrt(xp.sum(m * m, axis=-1)) - 1) <= 1e-3)
    if xp is np and not good:
        raise ValueError(f"correlation_tril: got {tril}, {need}")
    return jnp.where(good, wide, jnp.nan)


def correlated_concrete_log_prob(z, logits, correlation_tril, *, temperature):
    """Log-density of `correlated_concrete` at z in (0, 1)^D.

    Value: sum_i (concrete_log_prob(z_i) - log R_ii) - (|R^-1 v|^2 - |v|^2) / 2, lam(v) = x,
      x = temperature logit(z) - logits: the marginals times the density of the copula. z is clamped
      as in `concrete_log_prob`.
    Args:
      z: (..., D) in [0, 1], broadcast with logits.
      logits, correlation_tril, temperature: as in `correlated_concrete`, logits finite and
        temperature required.
    Returns the broadcast batch shape, in the dtype of logits; differentiable in all four.
    Source: Sklar's theorem; Song 2000, Scandinavian Journal of Statistics 27(2).
    """
    z_dtype = _arguments.floats("z", z).dtype
    z, wide, dtype = _arguments.together(z, logits, event_ndim=1)
    tril = _correlation_factor(correlation_tril, wide)
    temperature = _arguments.real("temperature", temperature, wide, event_ndim=1)
    outside = jnp.any((z < 0) | (z > 1), axis=-1)
    z = _numerics.interior(z, z_dtype)
    log_z, log_1z = jnp.log(z), jnp.log1p(-z)
    y = log_z - log_1z
    v = _numerics.normal_score(temperature * y - wide)
    columns = v.reshape(-1, v.shape[-1]).T
    eps = jax.scipy.linalg.solve_triangular(tril, columns, lower=True).T.reshape(v.shape)
    terms = _logistic_log_density(y, wide, temperature) - log_z - log_1z - (eps - v) * (eps + v) / 2
    value = jnp.sum(terms, axis=-1) - jnp.sum(jnp.log(jnp.diagonal(tril)))
    return jnp.where(outside, -jnp.inf, value).astype(dtype)


def _correlated_concrete_own_log_prob(key, logits, tril, temperature, shape):
    """log-density of the draw with this key, from its noise; all wide."""
    noise = _numerics.normal(key, (*shape, logits.shape[-1]), logits.dtype)
    v = _correlated_normal(noise, tril)
    spread = lambda x: jnp.broadcast_to(x, noise.shape)
    temperature = spread(temperature[..., None])
    # The sum as its logits, since the rule gives nothing to the noise.
    x = spread(logits) + _numerics.normal_logit(v)
    y = _logit_concrete(jnp.zeros((), x.dtype), x, temperature)
    # The density of the noise, and its slope in y's, v's and z's turn.
    terms = -(noise * noise + math.log(2 * math.pi)) / 2 - jnp.log(spread(jnp.diagonal(tril)))
    terms += jnp.log(temperature / _numerics.normal_rate(v)) + _numerics.softplus_sum(y)
    return jnp.sum(terms, axis=-1)


def correlated_straight_through(key, logits, correlation_tril, *, temperature=0.5, shape=None):
    """Bits (..., D) joined by a Gaussian copula, with the gradient of `correlated_concrete`.

    Law: z = b = 1[logits + lam(v) > 0], exactly 0.0 or 1.0, each bit Bernoulli(p) and all of them
      1 with the normal orthant probability of v at Phi^-1(p), at every temperature.
    Gradient: that of `correlated_concrete` with the same noise, in logits and correlation_tril; 0
      in temperature, on which the law does not depend.
    Bias: present even for linear f.
    Cost, args: as `correlated_concrete`.
    Source: as `correlated_concrete`.
    """
    return _correlated(
        _correlated_straight_through, key, logits, correlation_tril, temperature, shape
    )


def _correlated_straight_through(noise, logits, tril, temperature):
    x = logits + _correlated_logistic(noise, tril)
    return _straight_through_concrete(jnp.zeros((), x.dtype), x, temperature)
