"""Custom rules that laws share: the one of hard draws, and relaxed samples of x = logits + noise.

Whatever made x receives its cotangent by ordinary autodiff, so that noise takes no part in a rule.
"""

import functools

import jax
import jax.numpy as jnp

from relaxjax import _numerics

# ---------------------------------------------------------------------------------- hard draws


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def hard(rule, d, *params):
    """d, a draw that carries the gradient which its rule gives to params.

    Args:
      rule: (g, d, *params) -> a cotangent for each of params, None for zero, from g, that of d.
      d: the draw; the noise that made it has no gradient.
      *params: arrays.
    Returns: d. A second derivative goes through the rule, and through every d in it by the rule
      again; a rule that takes d for a constant there stops its gradient.
    """
    del rule, params
    return d


def _hard_fwd(rule, d, *params):
    # The primal, not d itself, which would make second derivatives silently wrong.
    d = hard(rule, d, *params)
    return d, (d, params)


def _hard_bwd(rule, residuals, g):
    d, params = residuals
    return None, *rule(g, d, *params)


hard.defvjp(_hard_fwd, _hard_bwd)


def tempered_bit(x, temperature):
    """1 where x > 0, else 0, with the gradient of `tempered_sigmoid` in x alone."""
    return hard(_tempered_bit_rule, _numerics.indicator(x), x, temperature)


def _tempered_bit_rule(g, b, x, temperature):
    return g * _numerics.sigmoid_slope(x / temperature) / temperature, None


def tempered_one_hot(x, temperature):
    """The one-hot of the largest, with the gradient of `tempered_softmax` in x alone."""
    return hard(_tempered_one_hot_rule, _numerics.one_hot_of_largest(x), x, temperature)


def _tempered_one_hot_rule(g, d, x, temperature):
    y = _numerics.softmax(x / temperature)
    return _numerics.covariance(y, g) / temperature, None


# -------------------------------------------------------------------------------------- relaxed


@jax.custom_vjp
def tempered(x, temperature):
    """x / temperature; an infinite x gets and gives no gradient."""
    return x / temperature


def _tempered_fwd(x, temperature):
    y = tempered(x, temperature)
    return y, (y, temperature)


def _tempered_bwd(residuals, g):
    y, temperature = residuals
    sure = jnp.isinf(y)
    dx = jnp.where(sure, 0, g / temperature)
    dtemperature = -dx * jnp.where(sure, 0, y)
    return dx, _numerics.sum_like(dtemperature, temperature)


tempered.defvjp(_tempered_fwd, _tempered_bwd)


@jax.custom_vjp
def tempered_sigmoid(x, temperature):
    """s(x / temperature)."""
    return jax.nn.sigmoid(x / temperature)


def _tempered_sigmoid_fwd(x, temperature):
    # y, not z: z rounds to 1 from y = 17 on, where s'(y) is not yet 0. By the rule that knows of an
    # infinite y, for second derivatives.
    return tempered_sigmoid(x, temperature), (tempered(x, temperature), temperature)


def _tempered_sigmoid_bwd(residuals, g):
    y, temperature = residuals
    slope = _numerics.sigmoid_slope(y)
    dx = g * slope / temperature
    # 0 * inf: an infinite y has slope 0.
    dtemperature = jnp.where(slope == 0, 0, -dx * jnp.where(slope == 0, 0, y))
    return dx, _numerics.sum_like(dtemperature, temperature)


tempered_sigmoid.defvjp(_tempered_sigmoid_fwd, _tempered_sigmoid_bwd)


@jax.custom_vjp
def tempered_softmax(x, temperature):
    """softmax(x / temperature)."""
    return _numerics.softmax(x / temperature)


def _tempered_softmax_fwd(x, temperature):
    z = tempered_softmax(x, temperature)
    return z, (z, temperature)


def _tempered_softmax_bwd(residuals, g):
    z, temperature = residuals
    dx = _numerics.covariance(z, g) / temperature
    # x / temperature is log z up to a constant of the row, and dx sums to 0.
    dtemperature = -dx * _numerics.log_or_zero(z)
    return dx, _numerics.sum_like(dtemperature, temperature)


tempered_softmax.defvjp(_tempered_softmax_fwd, _tempered_softmax_bwd)


@jax.custom_vjp
def tempered_log_softmax(x, temperature):
    """log softmax(x / temperature); the cotangent of a masked class is dropped."""
    return jax.nn.log_softmax(x / temperature)


def _tempered_log_softmax_fwd(x, temperature):
    u = tempered_log_softmax(x, temperature)
    return u, (u, temperature)


def _tempered_log_softmax_bwd(residuals, g):
    u, temperature = residuals
    masked = u == -jnp.inf
    g = jnp.where(masked, 0, g)
    dx = (g - jnp.exp(u) * _numerics.row_sum(g)) / temperature
    dtemperature = -dx * jnp.where(masked, 0, u)
    return dx, _numerics.sum_like(dtemperature, temperature)


tempered_log_softmax.defvjp(_tempered_log_softmax_fwd, _tempered_log_softmax_bwd)
