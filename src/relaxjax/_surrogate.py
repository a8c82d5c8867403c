"""What score-function estimators are made of: samples, values, scores, and the one scalar that
carries a value and a given gradient.

Every estimator reads: stop params and draw x from them; evaluate f, not stopped, so that the value
carries the gradient of whatever f closes over; compute g from numbers; attach g to the value.
"""

import jax
import jax.numpy as jnp
import numpy as np

from relaxjax import _arguments, _numerics

# -------------------------------------------------------------------------------- the scalar


@jax.custom_jvp
def attach(value, params, g):
    """value, whose gradient in params is g beside whatever gradient value has of its own.

    A custom_jvp over arrays alone, where every other rule is a custom_vjp: value still depends on
    what the user's f closes over, tracers included, which a rule on f or on an estimator would
    cut off. Not value + <g, params - stop_gradient(params)>: a mask makes that -inf - -inf, and
    the compiler has to compute g even where only the value is asked for.

    Args: value: a float scalar; params, g: pytrees of one structure, matching leaves of one shape.
    Returns value. g is a constant: a second derivative in params is 0.
    """
    del params, g
    return value


@attach.defjvp
def _attach_jvp(primals, tangents):
    value, params, g = primals
    value_dot, params_dot, _ = tangents
    pairs = zip(jax.tree.leaves(g), jax.tree.leaves(params_dot), strict=True)
    for a, b in pairs:
        if b.dtype != jax.dtypes.float0:  # an integer leaf has no tangent
            wide = _numerics.widen(b)
            product = jnp.sum(jax.lax.stop_gradient(a).astype(wide.dtype) * wide)
            value_dot = value_dot + product.astype(value.dtype)
    return attach(value, params, g), value_dot


def attach_variance(value, params, phi, gradient):
    """value, with the gradient g = gradient(phi) in params and that of ||g||^2 in phi.

    E[g] does not depend on phi, so that ||g||^2 estimates the gradient of the total variance. It is
    differentiated in here, in phi alone, and attached as a number: no transformation of the
    caller's can tell phi from weights that f closes over.
    """

    def squared(phi):
        g = gradient(phi)
        return sum(jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(g)), g

    slope, g = jax.grad(squared, has_aux=True)(jax.lax.stop_gradient(phi))
    return attach(attach(value, params, g), phi, slope)


# ------------------------------------------------------------------------- samples and values


def draw(key, params, family, num_samples):
    """num_samples whole samples, which carry no gradient."""
    params = jax.lax.stop_gradient(params)
    keys = jax.random.split(key, num_samples)
    return jax.lax.stop_gradient(jax.vmap(family.sample, (0, None))(keys, params))


def evaluate(f, x):
    """f of each sample; it carries the gradient of what f closes over."""
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
    """The trees as constants, their floats in one wide dtype: that in which g is computed."""
    trees = jax.tree.map(lambda x: jax.lax.stop_gradient(jnp.asarray(x)), trees)
    floating = lambda x: jnp.issubdtype(x.dtype, jnp.floating)
    dtype = _numerics.widest(*filter(floating, jax.tree.leaves(trees)))
    return jax.tree.map(lambda x: x.astype(dtype) if floating(x) else x, trees)


def weighted(a, x):
    """sum_k a_k x_k over the first axis of x and the last of a, in full precision anywhere."""
    return jnp.tensordot(a, x, 1, precision="highest")


def others(x):
    """For each k the mean of x_j over j != k; no difference that would cancel."""
    weights = (1 - np.eye(len(x))) / (len(x) - 1)
    return weighted(jnp.asarray(weights, x.dtype), x)


def inner(v, delta):
    """<v, delta>, where delta = 0 (a sure entry) drops whatever v is."""
    return jnp.sum(jnp.where(delta == 0, 0, v * delta))


# -------------------------------------------------------------------------------------- the law

# Event axes of the laws of independent variables.
_EVENT_NDIM = {"bernoulli": 0, "categorical": 1}


def score(family, a, x, params):
    """sum_k a_k s(x_k), s the gradient of log_prob in params: one pullback for all samples."""
    log_probs = jax.vmap(family.log_prob, (0, None))
    return jax.grad(lambda params: jnp.sum(a * log_probs(x, params)))(params)


def log_probs(family, x, params):
    """log_prob of every x, the same for all data: of independent variables by a product, which for
    a support and a batch of data is several times as fast as the sums."""
    event_ndim = _EVENT_NDIM.get(family.name)
    if event_ndim is None:
        return jax.vmap(family.log_prob, (0, None))(x, params)
    x, params = _numerics.widen(x), _numerics.widen(params)
    if event_ndim == 0:  # a bit as a class of two
        x = jnp.stack([1 - x, x], axis=-1)
        log_p = jnp.stack([jax.nn.log_sigmoid(-params), jax.nn.log_sigmoid(params)], axis=-1)
    else:
        log_p = jax.nn.log_softmax(params)
    impossible = log_p == -jnp.inf
    total = lambda v: jnp.tensordot(x.reshape(len(x), -1), v.ravel(), 1, precision="highest")
    ruled_out = total(impossible.astype(x.dtype)) > 0
    return jnp.where(ruled_out, -jnp.inf, total(jnp.where(impossible, 0, log_p)))


def mean_and_pullback(family, params):
    """mu = E[x], and v -> Cov(x, s) v, which is the pullback of mu whatever the law."""
    mu, pull = jax.vjp(needed(family, "mean"), params)
    return mu, lambda v: pull(v)[0]


def needed(family, field):
    function = getattr(family, field)
    if function is None:
        raise ValueError(
            f"family: got {family.name}, which has no {field}, need one that has; "
            "reinforce and rloo need sample and log_prob alone"
        )
    return function


def independent(family, estimator):
    """The number of event axes of a law of independent bits or categoricals; others are refused."""
    event_ndim = _EVENT_NDIM.get(family.name)
    if event_ndim is None:
        raise ValueError(
            f"family: got {family.name} for {estimator}, need bernoulli.family or "
            "categorical.family; rloo and double_cv serve others"
        )
    return event_ndim


def neighbors(x, params, event_ndim):
    """Every other value of each variable: its steps (R, *x.shape) from x, R = C - 1 or 1, and the
    probabilities (R, *batch) of the values that they lead to."""
    if event_ndim == 0:
        step = (1 - 2 * x)[None]
        return step, jax.nn.sigmoid(step * params[None])
    C = x.shape[-1]
    shifted = (np.arange(C) - np.arange(1, C)[:, None]) % C
    y = jnp.moveaxis(x[..., shifted], -2, 0)
    return y - x[None], jnp.sum(y * _numerics.softmax(params)[None], axis=-1)
