"""k of n items, and one of n values."""

import functools
import itertools
import math

import jax.numpy as jnp
import numpy as np

from relaxjax import _arguments, _numerics, counts, families, subsets, top_k
from relaxjax.distributions._law import Law, register_kl


class _Choice(Law):
    """A law of k of n."""

    _event_ndim = 1

    def _store_choice(self, logits, k, **reals):
        self._store(logits, **reals)
        with self._named():
            self.k = _arguments.choice(k, self.logits.shape[-1])


class GumbelSoftmaxTopK(_Choice):
    """A relaxed k-hot, by `top_k.relaxed`, whose density has no closed form.

    log_prob is the Plackett-Luce probability of the set for an exactly k-hot value, which samples
    tend to as the temperature falls, and NaN for a relaxed one.
    """

    def __init__(self, logits, k, *, temperature=0.5):
        self._store_choice(logits, k, temperature=temperature)

    def _draw(self, key, shape):
        return top_k.relaxed(key, self.logits, self.k, temperature=self.temperature, shape=shape)

    def log_prob(self, value):
        return top_k._log_prob_of_set(value, self.logits, self.k)


class PlackettLuce(_Choice):
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
        logits = top_k._lawful(_numerics.widen(self.logits), self.k)
        return jnp.where(jnp.isnan(logits[..., :1]), -1, top_k._indices(logits, self.k))

    def _points(self):
        n = self.logits.shape[-1]
        families.check_enumerable(math.perm(n, self.k), ())
        return np.array(list(itertools.permutations(range(n), self.k)))


class Subset(_Choice):
    """A k-hot, n independent bits given that their sum is k, with the gradient of `subsets.zgr`.

    Closed forms: mean, mode, variance, entropy; the KL divergence with another of the same k.
    """

    has_enumerate_support = True

    def __init__(self, logits, k):
        self._store_choice(logits, k)

    def _draw(self, key, shape):
        return subsets.zgr(key, self.logits, self.k, shape=shape)

    def log_prob(self, value):
        return subsets.log_prob(value, self.logits, self.k)

    def mean(self):
        return subsets.mean(self.logits, self.k)

    def mode(self):
        logits = top_k._lawful(_numerics.widen(self.logits), self.k)
        k_hot = top_k._k_hot(logits, self.k)
        return jnp.where(jnp.isnan(logits), jnp.nan, k_hot).astype(self.dtype)

    def variance(self):
        mean = subsets.mean(_numerics.widen(self.logits), self.k)
        return (mean * (1 - mean)).astype(self.dtype)

    def entropy(self):
        logits = _numerics.widen(self.logits)
        return subsets._cross_entropy(logits, logits, self.k).astype(self.dtype)

    def _points(self):
        return subsets._support(np.zeros(self.logits.shape[-1], np.float32), self.k)


@register_kl((Subset, Subset))
def _subset_kl(q, p):
    if q.k != p.k:
        raise ValueError(f"Subset: got k = {q.k} and k = {p.k}, need one k on both sides")
    logits_q, logits_p, dtype = _arguments.together(q.logits, p.logits, 1, "q", "p")
    cross_entropy = functools.partial(subsets._cross_entropy, k=p.k)
    return (cross_entropy(logits_q, logits_p) - cross_entropy(logits_q, logits_q)).astype(dtype)


class GeneralizedGumbelSoftmax(Law):
    """A relaxed draw of one of n values, by `counts.generalized_gumbel_softmax`, whose density has
    no closed form.

    log_prob is the probability of a value that is exactly one of `values`, which samples tend to as
    the temperature falls, and NaN for another.
    """

    _parameter, _event_ndim, _by_entry = "log_probs", 1, ("values",)

    def __init__(self, log_probs, values, *, temperature=0.5):
        with self._named():
            values = _arguments.vector("values", values)
        self._store(log_probs, values=values, temperature=temperature)

    @property
    def event_shape(self):
        return ()

    def _draw(self, key, shape):
        return counts.generalized_gumbel_softmax(
            key, self.log_probs, self.values, temperature=self.temperature, shape=shape
        )

    def log_prob(self, value):
        return counts._log_prob_of_value(value, self.log_probs, self.values)
