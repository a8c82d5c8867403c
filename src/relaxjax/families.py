"""What a score-function estimator needs to know of a law.

A law module offers its own (`bernoulli.family`, `categorical.family`); `from_distribution` makes
one of any distrax or TFP distribution.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

MAX_SUPPORT = 2**20


class Family(NamedTuple):
    """A law of one whole joint sample x, whose leading axes are independent variables.

    Fields:
      name: what error messages call it.
      sample: (key, params) -> x, without a gradient.
      log_prob: (x, params) -> scalar, the log-probability of all of x.
      mean: params -> E[x], or None where the law has none to offer.
      support: params -> (S, *x.shape), every joint sample; at most 2^20 of them. None where the
        law is not finite.
    """

    name: str
    sample: Callable[[jax.Array, Any], jax.Array]
    log_prob: Callable[[jax.Array, Any], jax.Array]
    mean: Callable[[Any], jax.Array] | None = None
    support: Callable[[Any], jax.Array] | None = None


def check_enumerable(values, shape):
    """ValueError where variables of so many values each, one an entry of shape, are too many."""
    variables = math.prod(shape)
    # The first test keeps a count of subsets, of thousands of digits, from being raised to a power.
    if values > MAX_SUPPORT or values**variables > MAX_SUPPORT:
        shown = values if values <= MAX_SUPPORT else f"over {MAX_SUPPORT}"
        raise ValueError(
            f"params: got {variables} variables of {shown} values, "
            f"need at most {MAX_SUPPORT} joint samples to enumerate"
        )


def joint_support(points, shape, dtype):
    """Every joint sample of independent variables, each of which takes the given points.

    Args:
      points: (m, *event) NumPy array, the values of one variable.
      shape: batch shape, one variable an entry.
      dtype: of the result.
    Returns: (m ** prod(shape), *shape, *event); the last variable changes fastest.
    Errors: ValueError above 2^20 samples.
    """
    check_enumerable(len(points), shape)
    variables = math.prod(shape)
    index = np.array(list(itertools.product(range(len(points)), repeat=variables)), np.int32)
    samples = points[index.reshape(-1, *shape)]
    return jnp.asarray(samples, dtype)


def from_distribution(build, *, support=None):
    """The family of any distrax or TFP distribution, neither of which is imported.

    Args:
      build: params -> an object with `sample(seed=key)` and `log_prob(x)`; params any pytree.
      support: params -> (S, *x.shape), every joint sample, where the law is finite.
    Returns a Family named "from_distribution". Its samples keep the shape and dtype of the law and
      carry no gradient, also where `sample` is reparameterized; its log_prob sums over the batch
      axes, which are independent variables of the joint sample; its mean is `build(params).mean()`
      and raises what that raises.
    Errors: TypeError where build is not callable, or where what it builds lacks a method.
    """
    if not callable(build):
        raise TypeError(f"build: got {build!r}, need a function of params")

    def method(params, name):
        distribution = build(params)
        if not callable(getattr(distribution, name, None)):
            raise TypeError(f"build: got a {type(distribution).__name__}, need a method {name}")
        return getattr(distribution, name)

    return Family(
        name="from_distribution",
        sample=lambda key, params: jax.lax.stop_gradient(
            jnp.asarray(method(params, "sample")(seed=key))
        ),
        log_prob=lambda x, params: jnp.sum(method(params, "log_prob")(x)),
        mean=lambda params: method(params, "mean")(),
        support=support,
    )
