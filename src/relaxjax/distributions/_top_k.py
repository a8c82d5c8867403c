"""k of n items without replacement."""

import itertools
import math

import jax.numpy as jnp
import numpy as np

from relaxjax import _arguments, _numerics, families, top_k
from relaxjax.distributions._base import ChoiceLaw


class GumbelSoftmaxTopK(ChoiceLaw):
    """A relaxed k-hot, by `top_k.relaxed`, whose density has no closed form.

    log_prob is the Plackett-Luce probability of the set for an exactly k-hot value, which samples
    tend to as the temperature falls, and NaN for a relaxed one.
    """

    def __init__(self, logits, k, *, temperature=0.5):
        self._store_choice(logits, k, temperature=temperature)

    def _draw(self, key, shape):
        return top_k.relaxed(key, self.logits, self.k, temperature=self.temperature, shape=shape)

    def log_prob(self, value):
        return top_k.log_prob_of_set(value, self.logits, self.k)


class PlackettLuce(ChoiceLaw):
    """The indices of k of n items in the order of their draw, by `top_k.sample`: no gradient.

    Closed forms: mode, the k largest logits in order.
    """

    has_enumerate_support = True

    def __init__(self, logits, k):
        self._store_choice(logits, k)

    @property
    def event_shape(self):
        return (self.k,)

    @property
    def dtype(self):
        return jnp.dtype(jnp.int32)

    def _draw(self, key, shape):
        return top_k.sample(key, self.logits, self.k, shape=shape)

    def log_prob(self, value):
        value = jnp.asarray(value)
        batch = jnp.broadcast_shapes(value.shape[:-1], self.batch_shape)
        return top_k.log_prob(
            jnp.broadcast_to(value, (*batch, *value.shape[-1:])),
            jnp.broadcast_to(self.logits, (*batch, self.logits.shape[-1])),
        )

    def mode(self):
        logits = _arguments.nan_rows(_numerics.widen(self.logits), self.k)
        return jnp.where(jnp.isnan(logits[..., :1]), -1, _numerics.top_indices(logits, self.k))

    def _points(self):
        n = self.logits.shape[-1]
        families.check_enumerable(math.perm(n, self.k), ())
        return np.array(list(itertools.permutations(range(n), self.k)))
