"""One bit."""

import distrax
import jax.numpy as jnp
import numpy as np
from tensorflow_probability.substrates.jax import distributions as tfd

from relaxjax import _numerics, bernoulli
from relaxjax.distributions._base import (
    HardLaw,
    Law,
    agree,
    both_ways,
    logits_of,
    register_kl,
)


class RelaxedBernoulli(Law):
    """A relaxed bit in (0, 1), by `bernoulli.concrete`.

    KL divergence in closed form with another or TFP's; NaN where the temperatures differ.
    """

    def __init__(self, logits, *, temperature=0.5):
        self._store(logits, temperature=temperature)

    def _draw(self, key, shape):
        return bernoulli.concrete(key, self.logits, temperature=self.temperature, shape=shape)

    def _draw_and_log_prob(self, key, shape):
        y = bernoulli.logit_concrete(key, self.logits, temperature=self.temperature, shape=shape)
        log_prob = bernoulli.logit_concrete_log_prob(y, self.logits, temperature=self.temperature)
        return self._draw(key, shape), log_prob + _numerics.softplus_sum(y)

    def log_prob(self, value):
        return bernoulli.concrete_log_prob(value, self.logits, temperature=self.temperature)


@register_kl(*both_ways(RelaxedBernoulli, tfd.RelaxedBernoulli))
def _relaxed_bernoulli_kl(q, p):
    kl = bernoulli.concrete_kl(logits_of(q), logits_of(p))
    same = jnp.broadcast_to(agree((q.temperature, p.temperature)), kl.shape)
    return jnp.where(same, kl, jnp.nan)


class StraightThroughBernoulli(HardLaw):
    """A bit, exactly 0.0 or 1.0, with the gradient that `estimator` names.

    Estimators, of `bernoulli`: "straight_through"; "concrete", straight_through_concrete
      (temperature); "zgr"; "gumbel_rao" (temperature, num_noise).
    Closed forms: mean, mode, variance, entropy; the KL divergence with another, whatever the
      estimators, and with the Bernoulli of distrax and of TFP.
    """

    _module = bernoulli
    _estimators = {
        "straight_through": bernoulli.straight_through,
        "concrete": bernoulli.straight_through_concrete,
        "zgr": bernoulli.zgr,
        "gumbel_rao": bernoulli.gumbel_rao,
    }

    def mode(self):
        return _numerics.indicator(self.logits)

    def variance(self):
        return _numerics.sigmoid_slope(_numerics.widen(self.logits)).astype(self.dtype)

    def _points(self):
        return np.array([0.0, 1.0])


@register_kl(*both_ways(StraightThroughBernoulli, distrax.Bernoulli, tfd.Bernoulli))
def _bernoulli_kl(q, p):
    return bernoulli.kl(logits_of(q), logits_of(p))


class StochasticTimesSmooth(Law):
    """A bit of probability q = sqrt(p) times q, by `bernoulli.stochastic_times_smooth`.

    Closed forms: mean p, mode, variance, entropy. log_prob takes what is q to rounding for q.
    """

    has_enumerate_support = True

    def __init__(self, logits):
        self._store(logits)

    def _draw(self, key, shape):
        return bernoulli.stochastic_times_smooth(key, self.logits, shape=shape)

    def log_prob(self, value):
        return bernoulli.stochastic_times_smooth_log_prob(value, self.logits)

    def mean(self):
        return bernoulli.mean(self.logits)

    def mode(self):
        q = _numerics.sqrt_sigmoid(_numerics.widen(self.logits))
        return jnp.where(q <= 0.5, 0, q).astype(self.dtype)

    def variance(self):
        log_p = _numerics.log_sqrt_bits(_numerics.widen(self.logits))
        return jnp.exp(3 * log_p[..., 1] + log_p[..., 0]).astype(self.dtype)

    def entropy(self):
        log_p = _numerics.log_sqrt_bits(_numerics.widen(self.logits))
        return _numerics.entropy(log_p).astype(self.dtype)

    def enumerate_support(self):
        """0 and q, (2, *batch_shape)."""
        q = _numerics.sqrt_sigmoid(_numerics.widen(self.logits)).astype(self.dtype)
        return jnp.stack([jnp.zeros_like(q), q])
