"""What score-function estimators are made of: samples, values, scores, and the one scalar that
carries a value and a given gradient.

Every estimator reads: stop params and draw x from them; evaluate f, not stopped, so that the value
carries the gradient of whatever f closes over; compute g from numbers; attach g to the value.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from relaxjax import _arguments, _numerics
from relaxjax.families import Family, joint_index

# -------------------------------------------------------------------------------- the scalar


@jax.custom_jvp
def attach(value, params, g):
    """Return value, whose gradient in params is g beside whatever gradient value has of its own.

    A custom_jvp over arrays alone, where every other rule is a custom_vjp: value still depends on
    what the user's f closes over, tracers included, and a rule on f or on an estimator would cut
    that off. Not value + <g, params - stop_gradient(params)>: a mask makes that -inf - -inf, and
    the compiler has to compute g even where only the value is asked for.

    Args:
      value: float scalar.
      params: a pytree of arrays.
      g: a pytree of the structure of params, with leaves of the same shapes.

    Returns:
      value. g is a constant, which knows no second derivative in params, alone or mixed with what
      value depends on: these are NaN, since 0 would be a wrong number that nobody sees.
    """
    del params, g
    return value


@functools.partial(attach.defjvp, symbolic_zeros=True)
def _attach_jvp(primals, tangents):
    value, params, g = primals
    value_dot, params_dot, _ = tangents
    moves = lambda x: not isinstance(x, jax.custom_derivatives.SymbolicZero) and _has_tangent(x)
    total = value_dot * _one(params, value.dtype) if moves(value_dot) else jnp.zeros_like(value)
    for a, b in zip(jax.tree.leaves(g), jax.tree.leaves(params_dot), strict=True):
        if moves(b):
            wide = _numerics.widen(b)
            product = jnp.sum(jax.lax.stop_gradient(a).astype(wide.dtype) * wide)
            total = total + product.astype(value.dtype) * _one((params, value), value.dtype)
    return attach(value, params, g), total


def _one(tree, dtype):
    """1, whose derivative in every float of the tree is NaN: that of sqrt(0 x) is 0 / 0.

    Plain arithmetic: a rule that raises would do so where a second derivative is thrown away, and
    one that says NaN is lost in a scan under reverse over reverse.
    """
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    zeros = [jnp.sum(jnp.sqrt(0 * jnp.clip(x, -1, 1))).astype(dtype) for x in floats]
    return sum(zeros, jnp.ones((), dtype))


def _has_tangent(leaf):
    return leaf.dtype != jax.dtypes.float0  # that of an integer


def add(g, h, scale=1.0):
    """g + scale h, leaf by leaf."""
    return jax.tree.map(lambda a, b: a + scale * b if _has_tangent(a) else a, g, h)


def attach_variance(value, params, phi, gradient):
    """Return value, with the gradient g = gradient(phi) in params and that of ||g||^2 in phi.

    E[g] does not depend on phi, so that the gradient of ||g||^2 estimates that of the total
    variance. It is taken in here, in phi alone, and attached as a number: no transformation of the
    caller's can tell phi from weights that f closes over.

    Args:
      value: float scalar.
      params: a pytree of arrays.
      phi: a pytree of floats.
      gradient: phi -> g, a pytree of the structure and shapes of params.

    Returns:
      value. Both gradients are constants.
    """

    def squared(phi):
        g = gradient(phi)
        return sum(jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(g) if _has_tangent(leaf)), g

    slope, g = jax.grad(squared, has_aux=True)(jax.lax.stop_gradient(phi))
    return attach(attach(value, params, g), phi, slope)


# ------------------------------------------------------------------------- samples and values


def draw(key, params, family, num_samples):
    """num_samples whole samples, which carry no gradient."""
    require(family, "a score estimator")
    params = jax.lax.stop_gradient(params)
    keys = jax.random.split(key, num_samples)
    return jax.lax.stop_gradient(jax.vmap(family.sample, (0, None))(keys, params))


def evaluate(f, x):
    """f of each sample; the values carry the gradient of what f closes over."""
    return jax.vmap(lambda x: _arguments.scalar(f(x)))(x)


def evaluate_with_slopes(f, x):
    """f of each sample, and its gradient in x as a number; one evaluation serves both."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"family: got samples of {x.dtype}, need floats, in which f has a gradient; "
            "rloo needs none"
        )
    values, slopes = jax.vmap(jax.value_and_grad(lambda x: _arguments.scalar(f(x))))(x)
    return values, jax.lax.stop_gradient(slopes)


def mean_value(values):
    return jnp.mean(_numerics.widen(values)).astype(values.dtype)


def constants(*trees):
    """The trees as constants, with their floats in the one wide dtype in which g is computed."""
    trees = jax.tree.map(lambda x: jax.lax.stop_gradient(jnp.asarray(x)), trees)
    floating = lambda x: jnp.issubdtype(x.dtype, jnp.floating)
    dtype = _numerics.widest(*filter(floating, jax.tree.leaves(trees)))
    return jax.tree.map(lambda x: x.astype(dtype) if floating(x) else x, trees)


def weighted(a, x):
    """sum_k a_k x_k over the first axis of x and the last of a, in full precision everywhere."""
    return jnp.tensordot(a, x, 1, precision="highest")


def mean_of_others(x):
    """The mean of x_j over j != k for each k, without a difference that would cancel."""
    weights = (1 - np.eye(len(x))) / (len(x) - 1)
    return weighted(jnp.asarray(weights, x.dtype), x)


def inner_product(v, delta):
    """<v, delta>, where an entry with delta = 0 (a sure one) drops v, whatever it is."""
    return jnp.sum(jnp.where(delta == 0, 0, v * delta))


# -------------------------------------------------------------------------------------- the law


def require(family, estimator, *fields):
    """Raise where family is no Family, or lacks a field that the estimator needs."""
    if not isinstance(family, Family):
        need = "a Family, such as bernoulli.family or subsets.family(k)"
        raise TypeError(f"family: got {family!r} for {estimator}, need {need}")
    for field in fields:
        if getattr(family, field) is None:
            raise ValueError(
                f"family: got {family.name}, whose {field} is None, need one with {field} for "
                f"{estimator}; reinforce and rloo need sample and log_prob alone"
            )


def log_probs(family, x, params):
    """log_prob of every x."""
    log_p = jax.vmap(family.log_prob, (0, None))(x, params)
    if log_p.shape != x.shape[:1]:
        raise ValueError(
            f"family: got {family.name}, whose log_prob returns shape {list(log_p.shape[1:])}, "
            "need a scalar, such as families.total(log_prob) gives"
        )
    return log_p


def score(family, a, x, params):
    """sum_k a_k s(x_k), s the gradient of log_prob in params: one pullback for all samples."""
    return _weighted_score(functools.partial(log_probs, family), a, x, params)


def score_by_variable(family, a, x, params):
    """sum_ki a_ki s_i(x_ki) over samples k and independent variables i.

    s_i is the gradient of the log_prob of one variable.
    """
    of_each = over_variables(family, family.log_prob, x[0].shape)
    return _weighted_score(jax.vmap(of_each, (0, None)), a, x, params)


def _weighted_score(of_each, a, x, params):
    # Not the gradient of a sum: 0 times the log-probability of an impossible x is NaN.
    log_p, pull = jax.vjp(lambda params: of_each(x, params), params)
    return pull(a.astype(log_p.dtype))[0]


def over_variables(family, function, shape):
    """function, which takes one independent variable, for all those of a sample of that shape."""
    for _ in range(len(shape) - family.event_ndim):
        function = jax.vmap(function)
    return function


def support_and_log_probs(family, params):
    """Every joint sample, and the log-probability of each.

    For independent variables it adds up entries of one table, the log-probability of every value of
    every variable, by one product for all joint samples: several times as fast as log_prob of each.
    """
    fixed = jax.lax.stop_gradient(params)
    x = family.support(fixed)
    shape = jax.eval_shape(family.sample, jax.random.key(0), fixed).shape
    if x.shape[1:] != shape:
        raise ValueError(
            f"family: got {family.name}, whose support has shape {list(x.shape)}, need "
            f"{['S', *shape]}, every sample once"
        )
    of_each = lambda x, params: log_probs(family, x, params)
    if not _is_product(family, params):
        return x, of_each(x, params)
    points = over_variables(family, family.support, x[0].shape)(fixed)
    table = over_variables(family, of_each, x[0].shape)(points, params)
    if table.size == len(x):  # of one variable
        return x, table.ravel()
    values = table.shape[-1]
    index = joint_index(values, (table.size // values,))
    chosen = jnp.asarray(np.eye(values, dtype=bool)[index].reshape(len(x), -1)).astype(table.dtype)
    of_all = lambda y: jnp.tensordot(chosen, y.ravel(), 1, precision="highest")
    never = table == -jnp.inf  # and not -inf in a product with 0
    return x, jnp.where(
        of_all(never.astype(table.dtype)) > 0, -jnp.inf, of_all(jnp.where(never, 0, table))
    )


def _is_product(family, params):
    """Whether the support is that of each independent variable in turn, the last one fastest.

    Tried with other params of these shapes, at compile time: a support in another order, or one
    that does not take a single variable, gets the general sum.
    """
    if family.event_ndim is None:
        return False
    with jax.ensure_compile_time_eval():
        zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(lambda: params))
        x = np.asarray(family.support(zeros))
        points = np.asarray(over_variables(family, family.support, x[0].shape)(zeros))
    event = x.shape[x.ndim - family.event_ndim :]
    batch = x.shape[1 : x.ndim - family.event_ndim]
    values = points.shape[len(batch)] if points.ndim == x.ndim else 0
    variables = math.prod(batch)
    if points.shape != (*batch, values, *event) or len(x) != values**variables or not variables:
        return False
    points = points.reshape(variables, values, *event)
    # Of equal points any order would do here, and another with other params.
    if any(len(np.unique(of_one, axis=0)) < values for of_one in points):
        return False
    index = joint_index(values, (len(points),))
    return np.array_equal(x.reshape(len(x), -1, *event), points[np.arange(len(points)), index])


def mean_and_pullback(family, params):
    """mu = E[x], and v -> Cov(x, s) v, which is the pullback of mu whatever the distribution."""
    mu, pull = jax.vjp(family.mean, params)
    return mu, lambda v: pull(v)[0]
