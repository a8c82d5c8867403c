"""Distributions of gates with mass at exactly 0 and 1."""

from relaxjax import _arguments, gates
from relaxjax.distributions._base import Law, register_kl


class GaussianRelaxedBernoulli(Law):
    """A Gaussian clipped to [0, 1], with the gradient of `gates.gaussian`.

    Distribution: z = clip(mean + scale eps, 0, 1), eps ~ N(0, 1).
    Log-probability: by `gates.gaussian_log_prob`, the log of a mass at 0 and 1, a log-density
      between.
    KL divergence: in closed form with another, with respect to the measure of log_prob.
    Closed forms: mean, variance; entropy, with respect to the measure of log_prob.
    No closed form: mode.

    Args:
      mean: floats of any shape; infinite ones are a z that is always 0 or 1, with gradient 0. It is
        stored as `loc`.
      scale: positive scalar, or an array that broadcasts with mean; may be traced.

    Raises:
      TypeError: mean is not floats, or scale is no number.
      ValueError: mean and scale do not broadcast, or a Python or NumPy scale is not positive.
    """

    _parameter = "mean"

    def __init__(self, mean, *, scale=0.5):
        self._store(mean, scale=scale)

    def _draw(self, key, shape):
        return gates.gaussian(key, self.loc, scale=self.scale, shape=shape)

    def log_prob(self, value):
        return gates.gaussian_log_prob(value, self.loc, scale=self.scale)

    def mean(self):
        return gates.gaussian_mean(self.loc, scale=self.scale)

    def variance(self):
        return gates.gaussian_variance(self.loc, scale=self.scale)

    def entropy(self):
        return gates.gaussian_entropy(self.loc, scale=self.scale)


@register_kl((GaussianRelaxedBernoulli, GaussianRelaxedBernoulli))
def _gaussian_kl(q, p):
    return gates.gaussian_kl(q.loc, q.scale, p.loc, p.scale)


class HardConcrete(Law):
    """A relaxed bit, stretched and clipped to [0, 1], with the gradient of `gates.hard_concrete`.

    Distribution: z = clip(low + (high - low) s((logits + L) / temperature), 0, 1),
      L ~ Logistic(0, 1), s the sigmoid.
    Log-probability: by `gates.hard_concrete_log_prob`, the log of a mass at 0 and 1, a log-density
      between.
    No closed form: mean, mode, variance, entropy and KL divergence.

    Args:
      logits: floats of any shape, log-odds; infinite ones are a z that is always 0 or 1, with
        gradient 0.
      temperature: positive scalar, or an array that broadcasts with logits; may be traced.
      stretch: a pair (low, high) with low < 0 and high > 1, each a scalar or an array that
        broadcasts with logits; may be traced.

    Raises:
      TypeError: logits are not floats, temperature or an end of stretch is no number, or stretch no
        pair.
      ValueError: the arguments do not broadcast, a Python or NumPy temperature is not positive, or
        stretch has another length or a Python or NumPy end out of range.
    """

    def __init__(self, logits, *, temperature=2 / 3, stretch=(-0.1, 1.1)):
        with self._named():
            low, high = _arguments.pair(stretch)
        self._store(logits, temperature=temperature, stretch_low=low, stretch_high=high)

    @property
    def _hyperparameters(self):
        stretch = self.stretch_low, self.stretch_high
        return {"temperature": self.temperature, "stretch": stretch}

    def _draw(self, key, shape):
        return gates.hard_concrete(key, self.logits, shape=shape, **self._hyperparameters)

    def log_prob(self, value):
        return gates.hard_concrete_log_prob(value, self.logits, **self._hyperparameters)
