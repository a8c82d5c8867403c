"""Gates with mass at exactly 0 and 1."""

from relaxjax import _arguments, gates
from relaxjax.distributions._base import Law, register_kl


class GaussianRelaxedBernoulli(Law):
    """A Gaussian clipped to [0, 1], by `gates.gaussian`; log_prob is a mass at 0 and 1.

    Closed forms: mean, variance; entropy and the KL divergence with another, with respect to the
      measure of log_prob.
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
    """A relaxed bit stretched and clipped to [0, 1], by `gates.hard_concrete`; log_prob is a mass
    at 0 and 1."""

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
