"""Distributions of one bit."""

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
    """A relaxed bit in (0, 1), with the gradient of `bernoulli.concrete`.

    Distribution: z = s((logits + L) / temperature), L ~ Logistic(0, 1), s the sigmoid; rounding may
      give exactly 0 or 1.
    Log-probability: the log-density of z, by `bernoulli.concrete_log_prob`, for finite logits.
    KL divergence: in closed form with another RelaxedBernoulli or TFP's; NaN where the temperatures
      differ.
    No closed form: mean, mode, variance, entropy.

    Args:
      logits: floats of any shape, log-odds; infinite ones are a z that is always 0 or 1, with
        gradient 0.
      temperature: positive scalar, or an array that broadcasts with logits; may be traced.

    Raises:
      TypeError: logits are not floats, or temperature is no number.
      ValueError: logits and temperature do not broadcast, or a Python or NumPy temperature is not
        positive.
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
    """An exact bit, 0.0 or 1.0, with the gradient that `estimator` names.

    Distribution: b ~ Bernoulli(p), p = sigmoid(logits), whatever the estimator.
    Estimators: "straight_through"; "concrete" (temperature), which is straight_through_concrete;
      "zgr"; "gumbel_rao" (temperature, num_noise); all of them functions of `bernoulli`.
    Log-probability: that of b, by `bernoulli.log_prob`.
    KL divergence: in closed form with another, whatever the estimators, and with the Bernoulli of
      distrax and of TFP.
    Closed forms: mean, mode, variance, entropy; enumerate_support() is 0 and 1.

    Args:
      logits: floats of any shape, log-odds; infinite ones are a bit that is always 0 or 1, with
        gradient 0.
      estimator: one of the names above, "straight_through" by default.
      **hyperparameters: those of the estimator in brackets above, with the defaults of its
        function: temperature is a positive scalar, or an array that broadcasts with logits, and may
        be traced; num_noise is a static integer >= 1.

    Raises:
      TypeError: logits are not floats, estimator is no string, a hyperparameter is not one of the
        estimator's, temperature is no number, or num_noise no static integer.
      ValueError: estimator is another one, logits and temperature do not broadcast, a Python or
        NumPy temperature is not positive, or num_noise is below 1.
    """

    _module = bernoulli
    _estimators = {
        "straight_through": bernoulli.straight_through,
        "concrete": bernoulli.straight_through_concrete,
        "zgr": bernoulli.zgr,
        "gumbel_rao": bernoulli.gumbel_rao,
    }

    def __init__(self, logits, *, estimator="straight_through", **hyperparameters):
        self._store_estimator(logits, estimator, hyperparameters)

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
    """A bit of probability sqrt(p), times sqrt(p), by `bernoulli.stochastic_times_smooth`.

    Distribution: z = q b, q = sqrt(p), b ~ Bernoulli(q), p = sigmoid(logits); z is in {0, q}.
    Log-probability: log(1 - q) at 0, log q at what is q to rounding and -inf elsewhere, by
      `bernoulli.stochastic_times_smooth_log_prob`.
    Closed forms: mean p, mode, variance, entropy; enumerate_support() is 0 and q.
    No closed form: a KL divergence.

    Args:
      logits: floats of any shape, log-odds of p.

    Raises:
      TypeError: logits are not floats.
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
        """List both values, 0 and q = sqrt(p).

        Returns:
          An array (2, *batch_shape) in the dtype of logits.
        """
        q = _numerics.sqrt_sigmoid(_numerics.widen(self.logits)).astype(self.dtype)
        return jnp.stack([jnp.zeros_like(q), q])
