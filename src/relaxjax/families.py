"""What an estimator needs to know about a distribution: `Family`.

Start with the family of a module (`bernoulli.family`, `categorical.family`, `subsets.family(k)`),
or make one of any distrax or TFP distribution with `from_distribution`. An estimator asks for the
fields that it needs, never for a name: a distribution of your own that fills them in gets the
estimator, and one that lacks a field gets an error that says which.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from relaxjax import _arguments

MAX_SUPPORT = 2**20


@dataclasses.dataclass(frozen=True)
class Relaxation:
    """A distribution as a function of noise, which `control_variates.rebar` and `relax` need.

    Params are one array with the batch axes first; z is shaped as params.

    Fields:
      noise: (key, params) -> the noise behind one whole sample.
      hard: (noise, params) -> x, the sample that this noise makes; it carries no gradient.
      free: (noise, params) -> z, the variable of which both x and the relaxed sample are functions.
      given: (noise, x, params) -> z', made from fresh noise and distributed as z is given x.
      relax: (z, temperature) -> the relaxed sample.
    """

    noise: Callable[[jax.Array, Any], jax.Array]
    hard: Callable[[jax.Array, Any], jax.Array]
    free: Callable[[jax.Array, Any], jax.Array]
    given: Callable[[jax.Array, jax.Array, Any], jax.Array]
    relax: Callable[[jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Family:
    """A distribution of one whole joint sample x, as functions that estimators call.

    A family pickles where its functions do. The first three fields are enough for `reinforce`,
    `rloo` and `vimco`; each of the others may be None and says which estimators need it.

    Fields:
      name: what error messages call it, and nothing else.
      sample: (key, params) -> x, which carries no gradient.
      log_prob: (x, params) -> scalar, the log-probability of all of x in nats.
      mean: params -> E[x]. `double_cv`, `muprop`, `quadratic` and `rodeo` need it.
      support: params -> (S, *x.shape), every joint sample; at most 2^20 of them. `exact` needs it,
        and so does the exact reference of `audit.measure`.
      kl: (params_q, params_p) -> scalar, the KL divergence of two joint samples in nats.
      event_ndim: how many axes of x belong to one variable: 0 for bits, 1 for one-hots. It promises
        that the axes before them, and the same leading axes of every array in params, are
        independent variables, and that every function of this family takes any number of such axes,
        none included. It is None where the joint sample is one piece. `indecater`, `rebar`, `relax`
        and `rodeo` need it, and `exact` is faster with it.
      variance: (u, params) -> scalar, the variance of <u, x> for a constant u shaped as x.
        `quadratic` needs it for factors.
      neighbors: (x, params) -> (steps, probabilities): for each variable every other value that it
        may take, as (R, *x.shape) steps to it from x, and the probabilities (R, *batch) of these
        values. `indecater` and `rodeo` need it.
      relaxation: a `Relaxation`. `rebar` and `relax` need it.
    """

    name: str
    sample: Callable[[jax.Array, Any], jax.Array]
    log_prob: Callable[[jax.Array, Any], jax.Array]
    mean: Callable[[Any], jax.Array] | None = None
    support: Callable[[Any], jax.Array] | None = None
    kl: Callable[[Any, Any], jax.Array] | None = None
    event_ndim: int | None = None
    variance: Callable[[jax.Array, Any], jax.Array] | None = None
    neighbors: Callable[[jax.Array, Any], tuple[jax.Array, jax.Array]] | None = None
    relaxation: Relaxation | None = None


@dataclasses.dataclass(frozen=True)
class _Total:
    function: Callable[..., jax.Array]

    def __call__(self, *args):
        return jnp.sum(self.function(*args))


def total(function):
    """Sum a function of an array of variables over all of them.

    Args:
      function: of arrays, to an array with one entry for each variable.

    Returns:
      A function of the same arguments, to a scalar; it pickles if function does, and is equal to
      another of an equal function.
    """
    return _Total(function)


def check_enumerable(values, shape):
    """Check that the joint samples of independent variables are few enough to enumerate.

    Args:
      values: the number of values of one variable, an int.
      shape: batch shape, a tuple with one variable for each entry.

    Returns:
      None.

    Raises:
      ValueError: there are more than 2^20 joint samples.
    """
    variables = math.prod(shape)
    # The first test keeps a count of subsets, of thousands of digits, from being raised to a power.
    if values > MAX_SUPPORT or values**variables > MAX_SUPPORT:
        shown = values if values <= MAX_SUPPORT else f"over {MAX_SUPPORT}"
        raise ValueError(
            f"params: got {variables} variables of {shown} values, "
            f"need at most {MAX_SUPPORT} joint samples to enumerate"
        )


def joint_index(values, shape):
    """List every joint choice, by each of some variables, of one of its values.

    Args:
      values: the number of values of one variable, an int.
      shape: batch shape, a tuple with one variable for each entry.

    Returns:
      NumPy integers from 0 to values - 1, of shape (values ** prod(shape), *shape); the last
      variable changes fastest.

    Raises:
      ValueError: there are more than 2^20 joint choices.
    """
    check_enumerable(values, shape)
    variables = math.prod(shape)
    place = values ** np.arange(variables - 1, -1, -1)
    index = np.arange(values**variables)[:, None] // place % values
    return index.astype(np.int32).reshape(-1, *shape) if variables else np.zeros((1, *shape), int)


def joint_support(points, shape, dtype):
    """List every joint sample of independent variables that take the same values.

    Args:
      points: (m, *event) NumPy array, the values of one variable.
      shape: batch shape, a tuple with one variable for each entry.
      dtype: dtype of the result.

    Returns:
      An array (m ** prod(shape), *shape, *event); the last variable changes fastest.

    Raises:
      ValueError: there are more than 2^20 joint samples.
    """
    return jnp.asarray(points[joint_index(len(points), shape)], dtype)


def support_of_subsets(logits, k):
    """List every joint sample of independent k-hots, in the order of itertools.combinations.

    Args:
      logits: (..., n) floats, of which only the shape and the dtype are used.
      k: static integer from 1 to n.

    Returns:
      An array (S, ..., n) of entries 0 and 1, in the dtype of logits.

    Raises:
      TypeError: logits are not floats, or k is no static integer.
      ValueError: logits have no axis of items, k is not from 1 to n, or there are more than 2^20
        joint samples.
    """
    logits = _arguments.floats("logits", logits, event_ndim=1)
    n = logits.shape[-1]
    k = _arguments.subset_size(k, n)
    check_enumerable(math.comb(n, k), logits.shape[:-1])
    chosen = np.array(list(itertools.combinations(range(n), k)))
    points = np.zeros((len(chosen), n))
    np.put_along_axis(points, chosen, 1, axis=-1)
    return joint_support(points, logits.shape[:-1], logits.dtype)


def from_distribution(build, *, support=None):
    """Make the family of any distrax or TFP distribution, neither of which is imported.

    Args:
      build: params -> an object with `sample(seed=key)` and `log_prob(x)`; params may be any
        pytree.
      support: params -> (S, *x.shape), every joint sample, where these are finitely many; None
        leaves the field out.

    Returns:
      A `Family` named "from_distribution". Its samples keep the shape and dtype of the distribution
      and carry no gradient, also where `sample` is reparameterized; its log_prob sums over the
      batch axes, which are independent variables of the joint sample; its mean is
      `build(params).mean()` and raises what that raises. `dataclasses.replace` adds fields.

    Raises:
      TypeError: build is not callable or, when the family is used, what it builds lacks a method.
    """
    if not callable(build):
        raise TypeError(f"build: got {build!r}, need a function of params")
    return Family(
        name="from_distribution",
        sample=functools.partial(_sample_from, build),
        log_prob=functools.partial(_log_prob_from, build),
        mean=functools.partial(_mean_from, build),
        support=support,
    )


def _method(build, params, name):
    """The method of that name of build(params), or the error that it has none."""
    distribution = build(params)
    if not callable(getattr(distribution, name, None)):
        raise TypeError(f"build: got a {type(distribution).__name__}, need a method {name}")
    return getattr(distribution, name)


def _sample_from(build, key, params):
    return jax.lax.stop_gradient(jnp.asarray(_method(build, params, "sample")(seed=key)))


def _log_prob_from(build, x, params):
    return jnp.sum(_method(build, params, "log_prob")(x))


def _mean_from(build, params):
    return _method(build, params, "mean")()
