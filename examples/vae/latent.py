"""The latent: its shape, how it is drawn and scored, and its divergence from the prior.

The estimator's name says its distribution, --latent its shape. The prior is the distribution at
neutral parameters: uniform where it is finite, but for counts. Families, log-probabilities and KL
divergences are relaxjax's own.
"""

import functools
import math
import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from relaxjax import (
    Family,
    bernoulli,
    categorical,
    counts,
    families,
    gates,
    simplex,
    subsets,
    top_k,
)
from relaxjax.catalog import ESTIMATORS
from vae.errors import UsageError

SYNTAX = re.compile(r"([1-9]\d{0,5})(?:choose([1-9]\d{0,5}))?(?:x([1-9]\d{0,5}))?")
# --latent as each distribution takes it, and where it is not given.
NUMBER = "a number, such as 12"
CLASSES = "CLASSESxVARIABLES, such as 8x4"
SUBSET = "NchooseK, such as 10choose3"
MAX_SETS = 2**16


class Latent(NamedTuple):
    """What is static of it.

    Fields:
      name: as --latent spells it.
      law: a key of LAWS.
      shape: of the parameters, which the encoder returns.
      event: of a sample, which the decoder takes.
      k: of a subset, else None.
    """

    name: str
    law: str
    shape: tuple[int, ...]
    event: tuple[int, ...]
    k: int | None = None


class LatentLaw(NamedTuple):
    """What may depend on traced hyperparameters.

    Fields:
      family: draws and scores samples.
      prior: the prior's parameters.
    """

    family: Family
    prior: jax.Array

    def divergence(self, params):
        """KL(q || prior) of one joint sample, in nats."""
        kl = self.family.kl or functools.partial(enumerated_kl, self.family)
        return kl(params, self.prior)

    @property
    def states(self):
        """How many samples there are; infinity where they are too many to list, or a continuum."""
        if self.family.support is None:
            return math.inf
        sample = jax.eval_shape(self.family.sample, jax.random.key(0), self.prior)
        variables = sample.shape[: sample.ndim - self.family.event_ndim]
        one = self.prior[(0,) * len(variables)]
        try:
            values = jax.eval_shape(self.family.support, one).shape[0]
        except ValueError:
            return math.inf
        return values ** math.prod(variables)


def enumerated_kl(family, params_q, params_p):
    """The KL divergence of variables whose samples have the shape of their parameters, as the sum
    over every value of each."""

    def of_one(q, p):
        values = family.support(q)
        log_q, log_p = (jax.vmap(family.log_prob, (0, None))(values, l) for l in (q, p))
        never = log_q == -jnp.inf
        log_ratio = jnp.where(never, 0, log_q) - jnp.where(never, 0, log_p)
        return jnp.sum(jnp.exp(log_q) * log_ratio)

    one = params_q.shape[params_q.ndim - family.event_ndim :]
    return jnp.sum(jax.vmap(of_one)(params_q.reshape(-1, *one), params_p.reshape(-1, *one)))


class Option(NamedTuple):
    """What a distribution makes of --latent.

    Fields:
      syntax: of its value.
      default: value.
      family: (latent, hyperparameters) -> the Family.
      prior: every parameter of the prior.
    """

    syntax: str
    default: str
    family: Callable[[Latent, dict], Family]
    prior: float = 0.0


def build(latent, hyperparameters):
    """The LatentLaw, with an estimator's hyperparameters."""
    option = LAWS[latent.law]
    prior = jnp.full(latent.shape, option.prior, jnp.float32)
    return LatentLaw(option.family(latent, hyperparameters), prior)


def law_of(estimator):
    """The distribution that a row of the catalog estimates for, a key of LAWS."""
    law = ESTIMATORS[estimator].law
    return law if law in LAWS else estimator


def default(estimator):
    if estimator == "categorical/unordered_set":
        return "64x1"  # it takes one variable alone
    return LAWS[law_of(estimator)].default


def parse(text, law=None):
    """ "12" is twelve bits, "8x4" four categoricals of eight classes, "10choose3" three of ten
    items, "10choose3x2" two of those; where a law is given, variables of that law instead."""
    match = SYNTAX.fullmatch(text)
    n, k, variables = (part and int(part) for part in match.groups()) if match else (0, 0, 0)
    if not n or (k or 1) > n or (variables and not k and n == 1):
        raise UsageError(
            f"--latent: got {text!r}, need CLASSESxVARIABLES, such as 8x4, a number of bits, such "
            "as 12, or NchooseK with K up to N, such as 10choose3"
        )
    syntax = SUBSET if k else CLASSES if variables else NUMBER
    law = law or {NUMBER: "bernoulli", CLASSES: "categorical", SUBSET: "subsets"}[syntax]
    if syntax != LAWS[law].syntax:
        raise UsageError(f"--latent: got {text} for {law}, need {LAWS[law].syntax}")
    # One variable has no axis of its own: what estimates for one categorical takes it too.
    event = shape = (n,) if variables in (None, 1) else (variables, n)
    if law == "simplex/invertible_gaussian":
        shape = (*event[:-1], n - 1)
    if law == "counts/generalized_gumbel_softmax":
        event = event[:-1]
    if law == "top_k" and math.comb(n, k) > MAX_SETS:
        raise UsageError(
            f"--latent: got {text} for top_k, whose divergence sums over every set, need at most "
            f"{MAX_SETS} sets; an estimator of subsets takes any"
        )
    return Latent(text, law, shape, event, k)


def _values(latent, given):
    return counts.generalized_family(np.arange(latent.shape[-1], dtype=np.float32))


def _continuous(module, name, kl=None):
    """The family of a distribution with densities: a sampler, its _log_prob and its _kl."""
    sample, log_prob = getattr(module, name), getattr(module, f"{name}_log_prob")
    kl = kl or getattr(module, f"{name}_kl")

    def family(latent, given):
        scale = [given["scale"]] if "scale" in given else []
        return Family(
            name=latent.law,
            sample=lambda key, params: jax.lax.stop_gradient(sample(key, params, **given)),
            log_prob=families.total(functools.partial(log_prob, **given)),
            kl=families.total(lambda q, p: kl(q, *scale, p, *scale)),
        )

    return family


LAWS = {
    "bernoulli": Option(NUMBER, "12", lambda latent, given: bernoulli.family),
    "correlated": Option(NUMBER, "12", lambda latent, given: bernoulli.family),
    "categorical": Option(CLASSES, "8x4", lambda latent, given: categorical.family),
    "subsets": Option(SUBSET, "10choose3", lambda latent, given: subsets.family(latent.k)),
    "top_k": Option(SUBSET, "10choose3", lambda latent, given: top_k.set_family(latent.k)),
    "counts/poisson": Option(
        NUMBER, "3", lambda latent, given: counts.truncated_poisson_family(given["truncation"])
    ),
    "counts/geometric": Option(
        NUMBER, "3", lambda latent, given: counts.truncated_geometric_family(given["truncation"])
    ),
    "counts/generalized_gumbel_softmax": Option(CLASSES, "8x4", _values),
    "gates/gaussian": Option(NUMBER, "12", _continuous(gates, "gaussian"), prior=0.5),
    # The divergence is that of the gates before they are clipped, which is never less.
    "gates/hard_concrete": Option(
        NUMBER, "12", _continuous(gates, "hard_concrete", bernoulli.concrete_kl)
    ),
    "simplex/invertible_gaussian": Option(
        CLASSES, "8x4", _continuous(simplex, "invertible_gaussian")
    ),
    "simplex/logistic_normal": Option(CLASSES, "8x4", _continuous(simplex, "logistic_normal")),
}
