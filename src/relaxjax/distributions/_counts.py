"""One of n values."""

from relaxjax import _arguments, counts
from relaxjax.distributions._base import Law


class GeneralizedGumbelSoftmax(Law):
    """A relaxed draw of one of n values, by `counts.generalized_gumbel_softmax`, whose density has
    no closed form.

    log_prob is the probability of a value that is exactly one of `values`, which samples tend to as
    the temperature falls, and NaN for another.
    """

    _parameter, _event_ndim, _by_entry = "log_probs", 1, ("values",)

    def __init__(self, log_probs, values, *, temperature=0.5):
        with self._named():
            values = _arguments.floats("values", values, 1)
        self._store(log_probs, values=values, temperature=temperature)

    @property
    def event_shape(self):
        return ()

    def _draw(self, key, shape):
        return counts.generalized_gumbel_softmax(
            key, self.log_probs, self.values, temperature=self.temperature, shape=shape
        )

    def log_prob(self, value):
        return counts.log_prob_of_value(value, self.log_probs, self.values)
