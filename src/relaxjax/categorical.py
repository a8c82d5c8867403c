"""One of C classes with probabilities p = softmax(logits), and the gradients that it can carry.

Start with `reinmax`: exactly one-hot forward, unbiased for an f that is quadratic in each
variable's one-hot, no hyperparameter to tune. `gumbel_softmax` relaxes the one-hot itself.

Throughout: `key` is a PRNG key; `logits` are unnormalized log-probabilities (..., C), leading axes
independent variables, -inf a masked class of probability 0 and gradient exactly 0; a row that is
masked throughout, or has a NaN or +inf, gives NaN. A hyperparameter is a positive scalar or has the
batch shape, may be traced, and raises ValueError when a Python or NumPy number is out of range (a
jax.Array gives NaN). `shape` is the batch shape of the result, without the axis of classes; None
takes that of logits. Results are (*shape, C) in the dtype of logits; arithmetic and noise are in
float32 or wider. Integer logits raise TypeError, missing axes and a shape that logits do not
broadcast to ValueError. Every sampler serves one call of f and costs O(C) time and memory a
variable unless it says otherwise. In the formulas d is the drawn one-hot, g the incoming cotangent,
J(x) = diag(x) - x x^T; second derivatives follow by applying the stated rule to every d in it.
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
    """A one-hot draw without a gradient; the draw under every hard estimator of this module but
    straight_through_gumbel_softmax.

    Law: d ~ Categorical(p), entries exactly 0.0 and 1.0. By inversion from one uniform a draw,
      which measured faster than Gumbel noise at every C from 2 to 1024 (benchmarks/speed.py). A
      float32 uniform has steps of 2^-23: the total variation from p is 2e-7 at C = 10, 2e-5 at
      C = 1,000, 1e-3 at C = 50,000, and a class below 1e-7 may never be drawn.
    Gradient: 0.
    """
    wide, dtype = _arguments.parameters("logits", logits, shape, event_ndim=1)
    return _draw(key, wide).astype(dtype)


def _draw(key, logits):
    u = jax.random.uniform(key, (*logits.shape[:-1], 1), logits.dtype)
    return _draw_from(u, jax.lax.stop_gradient(logits))


@jax.jit
def _draw_from(u, logits):
    """The first class whose cumulative weight exceeds the share u, in [0, 1), of the total."""
    classes = logits.shape[-1]
    if classes <= _numerics.SHORT:
        weights = _numerics.computed_once(jnp.exp(logits - _numerics.row_max(logits)))
        # Summed one after the other, the sums never fall: those that t has passed can be counted.
        *cumulative, total = itertools.accumulate(_numerics.columns(weights))
        t = _numerics.computed_once(u * total)
        zero = jnp.zeros_like(t, jnp.int32)
        index = sum(((c <= t).astype(jnp.int32) for c in cumulative), zero)[..., 0]
    else:
        p = jax.nn.softmax(logits)
        # A parallel sum may fall by rounding: hence the first class that exceeds t, not a count,
        # the largest sum as the total, and 0 at a masked class, which must not exceed t.
        cumulative = jnp.where(p > 0, jnp.cumsum(p, axis=-1), 0)
        total = jnp.max(cumulative, axis=-1, keepdims=True)
        index = jnp.argmax(cumulative > u * total, axis=-1)
    return jnp.where(total > 0, jax.nn.one_hot(index, classes, dtype=logits.dtype), jnp.nan)


def log_prob(x, logits):
    """Log-probability of one-hots.

    Value: sum_i x_i log p_i, linear in x; -inf where x holds a masked class.
    Args:
      x: (..., C) one-hot, broadcast with logits.
      logits: (..., C).
    Returns the broadcast batch shape, in the dtype of logits; differentiable to any order.
    """
    x, wide, dtype = _arguments.broadcast_together(x, logits, event_ndim=1, name="x")
    return jnp.sum(_numerics.mul_log(x, jax.nn.log_softmax(wide)), axis=-1).astype(dtype)


def mean(logits):
    """E[d] = softmax(logits), in the shape and dtype of logits."""
    wide, dtype = _arguments.parameters("logits", logits, None, event_ndim=1)
    return _numerics.softmax(wide).astype(dtype)


def entropy(logits):
    """The entropy of a class in nats, in the batch shape and dtype of logits.

    Value: -sum_i p_i log p_i; a masked class contributes 0. Differentiable to any order.
    """
    wide, dtype = _arguments.parameters("logits", logits, None, event_ndim=1)
    return _numerics.entropy(jax.nn.log_softmax(wide)).astype(dtype)


def kl(logits_q, logits_p):
    """KL divergence of two categoricals.

    Value: sum_i q_i log(q_i / p_i); a class masked in q contributes 0, one that is masked in p
      alone +inf.
    Args: logits_q, logits_p: (..., C), broadcast together.
    Returns nats, in the broadcast batch shape and the dtype of logits_p; differentiable to any
      order.
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
    """A relaxed one-hot in the simplex: Concrete, or Gumbel-softmax.

    Law: z = softmax((logits + G) / temperature), G_i ~ Gumbel; P(arg-max z = i) = p_i at every
      temperature. Rounding may give exactly 0 or 1.
    Gradient: exact. With h = J(z) g, to logits h / temperature and to temperature
      -sum_i h_i log z_i / temperature: z alone is kept, no noise.
    Bias: none for E[f(z)] under this law; biased for E[f(d)].
    Source: Maddison et al. 2017, arXiv:1611.00712, eq. 10; Jang et al. 2017, arXiv:1611.01144,
      eq. 2. Their log alpha or log pi is logits, lambda or tau temperature.
    """
    wide, dtype = _arguments.parameters("logits", logits, shape, event_ndim=1)
    temperature = _arguments.hyperparameter("temperature", temperature, wide, event_ndim=1)
    x = wide + _noise.gumbel(key, wide.shape, wide.dtype)
    return _rules.tempered_softmax(x, temperature).astype(dtype)


def gumbel_softmax_log_prob(z, logits, *, temperature):
    """Log-density of `gumbel_softmax` at z in the simplex.

    Value: lgamma(n) + (n - 1) log temperature + sum_i (a_i - log z_i) - n lse(a), with
      a = logits - temperature log z, over the n unmasked classes; 0 at n = 1; -inf where a masked
      class has z > 0. The density in any n - 1 of the n entries of z. z is clamped to its dtype's
      smallest normal number, so that every draw has a finite value; gradient 0 where clamped.
    Args:
      z: (..., C), rows that sum to 1, broadcast with logits.
      logits: (..., C).
      temperature: positive; required, so that it cannot disagree with the sampler's.
    Returns the broadcast batch shape, in the dtype of logits; differentiable in all three.
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
    return jnp.where(outside, -jnp.inf, value).astype(dtype)


def _log_density(log_z, logits, temperature):
    """The density of log z's differences, from log z that is finite everywhere."""
    masked = logits == -jnp.inf
    n = jnp.sum(~masked, axis=-1).astype(logits.dtype)
    a = jnp.where(masked, 0, logits) - temperature * log_z
    lse = jax.nn.logsumexp(a, axis=-1, where=~masked)
    log_temperature = jnp.broadcast_to(jnp.log(temperature), (*n.shape, 1))[..., 0]
    value = jnp.sum(jnp.where(masked, 0, a), axis=-1) - n * lse
    value += jax.lax.lgamma(n) + (n - 1) * log_temperature
    return jnp.where(n > 0, value, jnp.nan)


def log_gumbel_softmax(key, logits, *, temperature=0.5, shape=None):
    """The logarithm of `gumbel_softmax`, exact where an entry of that has rounded to 0 or 1.

    Law: u = log z of the same key; rows have lse(u) = 0; -inf in a masked class.
    Gradient: exact. With e = g - z sum_i g_i over unmasked classes, to logits e / temperature and
      to temperature -sum_i e_i u_i / temperature; g in a masked class is dropped.
    Bias: none for E[f(u)] under this law; no estimate of E[f(d)].
    Source: Maddison et al. 2017, arXiv:1611.00712, appendix C.3 (ExpConcrete).
    """
    wide, dtype = _arguments.parameters("logits", logits, shape, event_ndim=1)
    temperature = _arguments.hyperparameter("temperature", temperature, wide, event_ndim=1)
    x = wide + _noise.gumbel(key, wide.shape, wide.dtype)
    return _rules.tempered_log_softmax(x, temperature).astype(dtype)


def log_gumbel_softmax_log_prob(log_z, logits, *, temperature):
    """Log-density of `log_gumbel_softmax`, exact at any temperature.

    Value: lgamma(n) + (n - 1) log temperature + sum_i a_i - n lse(a), with
      a = logits - temperature log z, over the n unmasked classes; -inf where a masked class has a
      finite log z. The density in the n - 1 differences log z_i - log z_j to any one entry j, not
      in n - 1 of the entries themselves.
    Args, returns and source: as `gumbel_softmax_log_prob`, with log_z (normalized: lse(log z) = 0)
      for z and nothing clamped.
    """
    _arguments.floats("log_z", log_z, event_ndim=1)
    log_z, wide, dtype = _arguments.broadcast_together(log_z, logits, event_ndim=1, name="log_z")
    temperature = _arguments.hyperparameter("temperature", temperature, wide, event_ndim=1)
    masked = wide == -jnp.inf
    outside = jnp.any(masked & (log_z > -jnp.inf), axis=-1)
    value = _log_density(jnp.where(masked, 0, log_z), wide, temperature)
    return jnp.where(outside, -jnp.inf, value).astype(dtype)


# -------------------------------------------------------------------------------- hard forward


def straight_through(key, logits, *, temperature=1.0, shape=None):
    """A one-hot draw whose gradient is that of a softmax.

    Law: z = d ~ Categorical(p), entries exactly 0.0 and 1.0.
    Gradient: J(q) g / temperature, q = softmax(logits / temperature); 0 in temperature.
    Bias: at temperature 1 none for f linear in each variable's z, second order otherwise; at
      another temperature present even for linear f.
    Source: Bengio, Leonard, Courville 2013, arXiv:1308.3432, section 5, for one-hots.
    """
    wide, dtype = _arguments.parameters("logits", logits, shape, event_ndim=1)
    temperature = _arguments.hyperparameter("temperature", temperature, wide, event_ndim=1)
    return jnp.asarray(hard(_straight_through_rule, _draw(key, wide), wide, temperature), dtype)


def _straight_through_rule(g, d, logits, temperature):
    q = _numerics.softmax(logits / temperature)
    return _numerics.covariance(q, g) / temperature, None


def straight_through_gumbel_softmax(key, logits, *, temperature=0.5, shape=None):
    """A one-hot draw whose gradient is that of the relaxed one drawn with the same noise.

    Law: z = one-hot of arg-max(x), x = logits + G, G_i ~ Gumbel: Categorical(p) at every
      temperature, entries exactly 0.0 and 1.0.
    Gradient: J(y) g / temperature, y = softmax(x / temperature); 0 in temperature.
    Bias: present even for linear f; it falls with the temperature while the variance grows.
    Source: Jang et al. 2017, arXiv:1611.01144, section 2.2 (their tau is temperature).
    """
    wide, dtype = _arguments.parameters("logits", logits, shape, event_ndim=1)
    temperature = _arguments.hyperparameter("temperature", temperature, wide, event_ndim=1)
    x = wide + _noise.gumbel(key, wide.shape, wide.dtype)
    return jnp.asarray(_rules.tempered_one_hot(x, temperature), dtype)


def decoupled_straight_through(
    key, logits, *, forward_temperature=1.0, backward_temperature=1.0, shape=None
):
    """Straight-through with one temperature for the law and another for the gradient.

    Law: z = d ~ Categorical(softmax(logits / forward_temperature)), entries exactly 0.0 and 1.0.
    Gradient: to logits h = J(q) g / backward_temperature, q = softmax(logits /
      backward_temperature); to forward_temperature, on which the law depends through
      logits / forward_temperature, -sum_i h_i logits_i / forward_temperature; 0 in
      backward_temperature.
    Bias: with equal temperatures none for f linear in each variable's z; otherwise present even
      for linear f.
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
    """A one-hot draw whose gradient is that of a softmax pushed, without noise, to its class.

    Law: z = d ~ Categorical(p), entries exactly 0.0 and 1.0.
    Gradient: J(y) g / temperature, y = softmax(x / temperature); x is max(logits) at the drawn
      class, min(logits, max(logits) - gap) at the others, dx/dlogits = 1; 0 in temperature, gap.
    Bias: present even for linear f; no noise but the draw's, hence a low variance.
    Args: gap: a nonnegative number, in units of logits.
    Source: Fan et al. 2022, arXiv:2206.07235, with x = logits + m1 - m2 of their algorithm.
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
    """A one-hot draw with the ReinMax gradient, a second-order straight-through.

    Law: z = d ~ Categorical(p), entries exactly 0.0 and 1.0.
    Gradient: 2 J(m) g - J(p) g / 2, m = (d + softmax(logits / temperature)) / 2; 0 in temperature.
    Bias: at temperature 1 none for f quadratic in each variable's z, third order otherwise; at
      another temperature present even for linear f.
    Source: Liu et al. 2023, arXiv:2304.08612, algorithm 2; its theta, tau, pi_0, (pi_1 + D) / 2 are
      logits, temperature, p, m.
    """
    wide, dtype = _arguments.parameters("logits", logits, shape, event_ndim=1)
    temperature = _arguments.hyperparameter("temperature", temperature, wide, event_ndim=1)
    return jnp.asarray(hard(_reinmax_rule, _draw(key, wide), wide, temperature), dtype)


def _reinmax_rule(g, d, logits, temperature):
    p = _numerics.softmax(logits)
    m = (d + _numerics.softmax(logits / temperature)) / 2
    return 2 * _numerics.covariance(m, g) - _numerics.covariance(p, g) / 2, None


def zgr(key, logits, *, shape=None):
    """A one-hot draw with the zero-temperature limit of the Gumbel-Rao gradient.

    Law: z = d ~ Categorical(p), entries exactly 0.0 and 1.0.
    Gradient: (J(p) g + (d - p) <d - p, g>) / 2.
    Bias: none for f quadratic in each variable's z, third order otherwise. The gradient of reinmax
      at temperature 1.
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
    """A one-hot draw with straight_through_gumbel_softmax's gradient, averaged over noise given it.

    Law: z = d ~ Categorical(p), entries exactly 0.0 and 1.0.
    Gradient: the mean of J(y_k) g / temperature, y_k = softmax(x_k / temperature), over num_noise
      draws of x = logits + G given arg-max x = d, dx/dlogits = 1; 0 in temperature.
    Bias: that of straight_through_gumbel_softmax, whose expectation this has for every num_noise,
      with less variance; zgr as the temperature tends to 0.
    Cost: one call of f; the backward pass redraws num_noise * C Gumbel variables, one vector after
      the other, so that memory does not grow with num_noise.
    Args: num_noise: static integer >= 1.
    Source: Paulus, Maddison, Krause 2021, arXiv:2010.04838 (their K is num_noise, tau temperature).
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
    """log p + G given that its arg-max is d's class, from one exponential draw E an entry; no
    rejection.

    e^-G of the largest is its E, and those of the others are E / p beyond that.
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
    # Normalized, as the law of z given the class takes them.
    return jax.nn.log_softmax(logits) + noise


def _relax(z, temperature):
    return _rules.tempered_softmax(z, temperature)  # a plain function, which pickles


def _free_given_class(noise, d, logits):
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
    relaxation=Relaxation(
        noise=_gumbel_noise,
        hard=_class_of,
        free=_free,
        given=_free_given_class,
        relax=_relax,
    ),
)
