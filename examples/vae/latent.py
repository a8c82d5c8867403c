"""The law of the latent: its shape, how it is drawn and scored, and its divergence from the prior.

The estimator's name says the law, --latent its shape. The prior is uniform where the law is finite,
else the law itself at neutral parameters.
"""

import functools
import itertools
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
    families,
    gates,
    simplex,
    subsets,
    top_k,
)
from vae.errors import UsageError

SYNTAX = re.compile(r"([1-9]\d{0,5})(?:choose([1-9]\d{0,5}))?(?:x([1-9]\d{0,5}))?")
# --latent as each kind of law takes it, and where it is not given.
NUMBER = "a number, such as 12"
CLASSES = "CLASSESxVARIABLES, such as 8x4"
SUBSET = "NchooseK, such as 10choose3"
MAX_ORDERS = 2**16


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


class Law(NamedTuple):
    """What may depend on traced hyperparameters.

    Fields:
      family: draws and scores samples; its densities may lack a constant factor.
      prior: the prior's parameters.
      divergence: parameters -> KL(q || prior) of one joint sample, in nats and in closed form. For
        gates it is that of the draw before it is clipped, which is never less.
      states: how many samples there are.
    """

    family: Family
    prior: jax.Array
    divergence: Callable[[jax.Array], jax.Array]
    states: float


def build(latent, hyperparameters):
    return LAWS[latent.law].build(latent, hyperparameters)


def law_of(estimator):
    """The law that a row of the catalog estimates for, a key of LAWS."""
    module = estimator.split("/")[0]
    return module if module in LAWS else estimator


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
    kind = SUBSET if k else CLASSES if variables else NUMBER
    law = law or {NUMBER: "bernoulli", CLASSES: "categorical", SUBSET: "subsets"}[kind]
    if kind != LAWS[law].kind:
        raise UsageError(f"--latent: got {text} for {law}, need {LAWS[law].kind}")
    # One variable has no axis of its own: what estimates for one categorical takes it too.
    event = shape = (n,) if variables in (None, 1) else (variables, n)
    if law == "simplex/invertible_gaussian":
        shape = (*event[:-1], n - 1)
    if law == "counts/generalized_gumbel_softmax":
        event = event[:-1]
    if law == "top_k" and math.perm(n, k) > MAX_ORDERS:
        raise UsageError(
            f"--latent: got {text} for top_k, need at most {MAX_ORDERS} orders in which a set can "
            "be drawn; an estimator of subsets takes any"
        )
    return Latent(text, law, shape, event, k)


# ------------------------------------------------------------------------------------- the laws


def _finite(family, table, latent, values):
    """Independent variables, each with log-probabilities table(parameters)[..., values]."""
    prior = jnp.zeros(latent.shape, jnp.float32)
    log_p = jax.nn.log_softmax(table(prior))

    def divergence(params):
        log_q = jax.nn.log_softmax(table(params))
        return jnp.sum(jnp.exp(log_q) * (log_q - log_p))

    return Law(family, prior, divergence, values ** math.prod(log_p.shape[:-1]))


def _bernoulli(latent, hyperparameters):
    two = lambda l: jnp.stack([l, jnp.zeros_like(l)], axis=-1)  # a bit is one of two classes
    return _finite(bernoulli.family, two, latent, 2)


def _categorical(latent, hyperparameters):
    return _finite(categorical.family, lambda l: l, latent, latent.shape[-1])


def _counts(table, latent, hyperparameters):
    """Counts from 0, of which each variable has log-probabilities table(parameters, values)."""
    values = hyperparameters.get("truncation", latent.shape[-1] - 1) + 1
    points = np.arange(values, dtype=np.float32)
    logits = lambda params: table(params, np.expand_dims(points, tuple(range(params.ndim))))

    def log_prob(x, params):
        one_hot = (x[..., None] == points).astype(jnp.float32)
        return categorical.family.log_prob(one_hot, logits(params))

    family = Family(
        name="counts",
        sample=lambda key, params: categorical.sample(key, logits(params)) @ points,
        log_prob=log_prob,
        mean=lambda params: jax.nn.softmax(logits(params)) @ points,
        support=lambda params: families.joint_support(points, latent.event, jnp.float32),
    )
    return _finite(family, logits, latent, values)


def _poisson(log_rate, values):
    return values * log_rate[..., None] - jax.lax.lgamma(jnp.asarray(values + 1))


def _geometric(logits, values):
    return -values * jax.nn.softplus(logits)[..., None]


def _generalized(log_probs, values):
    return log_probs


def _sets(family, divergence, latent):
    prior = jnp.zeros(latent.shape, jnp.float32)
    variables = math.prod(latent.shape[:-1])
    sets = math.comb(latent.shape[-1], latent.k)
    uniform = variables * math.log(sets)
    return Law(family, prior, lambda l: divergence(l) + uniform, sets**variables)


def _subsets(latent, hyperparameters):
    family = subsets.family(latent.k)
    first = np.zeros(latent.shape, np.float32)
    first[..., : latent.k] = 1
    # log q(x) is linear in x: its mean is that at the mean.
    negative_entropy = lambda l: jnp.sum((family.mean(l) - first) * l) + family.log_prob(first, l)
    return _sets(family, negative_entropy, latent)


def _top_k(latent, hyperparameters):
    """The set that Plackett-Luce draws, whatever the order."""
    k, n = latent.k, latent.shape[-1]
    orders = np.array(list(itertools.permutations(range(k))))

    def log_prob_of_one(x, logits):
        items = jax.lax.top_k(x, k)[1][orders]
        return jax.nn.logsumexp(jax.vmap(top_k.log_prob, (0, None))(items, logits))

    def each(f, *arrays):
        return jnp.sum(jax.vmap(f)(*(a.reshape(-1, n) for a in arrays)))

    family = Family(
        name="top_k",
        sample=lambda key, l: jnp.sum(jax.nn.one_hot(top_k.sample(key, l, k), n), axis=-2),
        log_prob=lambda x, logits: each(log_prob_of_one, x, logits),
        support=subsets.family(k).support,
    )
    sets = family.support(jnp.zeros(n))

    def negative_entropy(logits):
        log_q = jax.vmap(log_prob_of_one, (0, None))(sets, logits)
        return jnp.sum(jnp.exp(log_q) * log_q)

    return _sets(family, functools.partial(each, negative_entropy), latent)


def _continuous(sample, log_prob, divergence, prior, latent):
    family = Family(
        name=latent.law,
        sample=lambda key, params: jax.lax.stop_gradient(sample(key, params)),
        log_prob=lambda z, params: jnp.sum(log_prob(z, params)),
    )
    prior = jnp.full(latent.shape, prior, jnp.float32)
    return Law(family, prior, lambda params: jnp.sum(divergence(params, prior)), math.inf)


def _normal_divergence(scale):
    return lambda mean, prior: ((mean - prior) / scale) ** 2 / 2


def _gaussian_gates(latent, hyperparameters):
    scale = hyperparameters["scale"]
    return _continuous(
        functools.partial(gates.gaussian, scale=scale),
        functools.partial(gates.gaussian_log_prob, scale=scale),
        _normal_divergence(scale),
        0.5,
        latent,
    )


def _hard_concrete(latent, hyperparameters):
    return _continuous(
        functools.partial(gates.hard_concrete, **hyperparameters),
        functools.partial(gates.hard_concrete_log_prob, **hyperparameters),
        bernoulli.concrete_kl,
        0.0,
        latent,
    )


def _invertible_gaussian(latent, hyperparameters):
    return _continuous(
        functools.partial(simplex.invertible_gaussian, **hyperparameters),
        functools.partial(simplex.invertible_gaussian_log_prob, **hyperparameters),
        _normal_divergence(hyperparameters["scale"]),
        0.0,
        latent,
    )


def _logistic_normal(latent, hyperparameters):
    scale, temperature = hyperparameters["scale"], hyperparameters["temperature"]
    center = lambda y: y - jnp.mean(y, axis=-1, keepdims=True)  # softmax does not see a shift

    def log_prob(z, mean):
        return -(((center(temperature * jnp.log(z)) - center(mean)) / scale) ** 2) / 2

    return _continuous(
        functools.partial(simplex.logistic_normal, scale=scale, temperature=temperature),
        log_prob,
        lambda mean, prior: _normal_divergence(scale)(center(mean), prior),
        0.0,
        latent,
    )


class Kind(NamedTuple):
    kind: str
    default: str
    build: Callable[[Latent, dict], Law]


LAWS = {
    "bernoulli": Kind(NUMBER, "12", _bernoulli),
    "categorical": Kind(CLASSES, "8x4", _categorical),
    "subsets": Kind(SUBSET, "10choose3", _subsets),
    "top_k": Kind(SUBSET, "10choose3", _top_k),
    "counts/poisson": Kind(NUMBER, "3", functools.partial(_counts, _poisson)),
    "counts/geometric": Kind(NUMBER, "3", functools.partial(_counts, _geometric)),
    "counts/generalized_gumbel_softmax": Kind(
        CLASSES, "8x4", functools.partial(_counts, _generalized)
    ),
    "gates/gaussian": Kind(NUMBER, "12", _gaussian_gates),
    "gates/hard_concrete": Kind(NUMBER, "12", _hard_concrete),
    "simplex/invertible_gaussian": Kind(CLASSES, "8x4", _invertible_gaussian),
    "simplex/logistic_normal": Kind(CLASSES, "8x4", _logistic_normal),
}
