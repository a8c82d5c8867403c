"""Custom rules that distributions share: for hard draws, and for relaxed x = logits + noise.

Ordinary autodiff takes the gradient in x on to whatever made x, so that noise takes no part in a
rule.
"""

import functools

import jax
import jax.numpy as jnp

from relaxjax import _numerics

# ---------------------------------------------------------------------------------- hard draws


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def hard(rule, d, *params):
    """Return the draw d such that it carries the gradient which its rule gives to params.

    Args:
      rule: (g, d, *params) -> one gradient for each of params, or None for zero, where g is the
        gradient in d.
      d: the draw; the noise that made it has no gradient.
      *params: arrays.

    Returns:
      d. A second derivative differentiates the rule, and every d in it by the rule again; a rule
      for which d is a constant there stops the gradient of d.
    """
    del rule, params
    return d


def _hard_fwd(rule, d, *params):
    # This calls the primal: d itself would make second derivatives silently wrong.
    d = hard(rule, d, *params)
    return d, (d, params)


def _hard_bwd(rule, residuals, g):
    d, params = residuals
    return None, *rule(g, d, *params)


hard.defvjp(_hard_fwd, _hard_bwd)


def tempered_bit(x, temperature):
    """Return 1 where x > 0, else 0, with the gradient of `tempered_sigmoid` in x alone."""
    return hard(_tempered_bit_rule, _numerics.indicator(x), x, temperature)


def _tempered_bit_rule(g, b, x, temperature):
    return g * _numerics.sigmoid_slope(x / temperature) / temperature, None


def tempered_one_hot(x, temperature):
    """Return the one-hot of the largest, with the gradient of `tempered_softmax` in x alone."""
    return hard(_tempered_one_hot_rule, _numerics.one_hot_of_largest(x), x, temperature)


def _tempered_one_hot_rule(g, d, x, temperature):
    y = _numerics.softmax(x / temperature)
    return _numerics.covariance(y, g) / temperature, None


# -------------------------------------------------------------------------------------- relaxed


def _of_tempered(function, pull, log):
    """Return function(x / temperature) with a rule that keeps nothing but the result y.

    Args:
      function: takes x / temperature to y.
      pull: (y, g) -> the gradient in x / temperature, where g is the gradient in y.
      log: y -> x / temperature, with 0 where that is infinite; a constant of the row may be missing
        where the gradients of a row sum to 0.

    Returns:
      (x, temperature) -> y.
    """

    @jax.custom_vjp
    def rule(x, temperature):
        return function(x / temperature)

    def forward(x, temperature):
        y = rule(x, temperature)
        return y, (y, temperature)

    def backward(residuals, g):
        y, temperature = residuals
        dx = pull(y, g) / temperature
        return dx, _numerics.sum_like(-dx * log(y), temperature)

    rule.defvjp(forward, backward)
    return rule


def _finite(y):
    return jnp.where(jnp.isinf(y), 0, y)


def _pull_log_softmax(u, g):
    g = jnp.where(u == -jnp.inf, 0, g)
    return g - jnp.exp(u) * _numerics.row_sum(g)


# This is x / temperature; an infinite x gets and gives no gradient.
tempered = _of_tempered(lambda y: y, lambda y, g: jnp.where(jnp.isinf(y), 0, g), _finite)
tempered_softmax = _of_tempered(_numerics.softmax, _numerics.covariance, _numerics.log_or_zero)
# This is log softmax(x / temperature); the gradient in a masked class is dropped.
tempered_log_softmax = _of_tempered(jax.nn.log_softmax, _pull_log_softmax, _finite)


def tempered_sigmoid(x, temperature):
    """Compute sigmoid(x / temperature)."""
    return _sigmoid(tempered(x, temperature))


@jax.custom_vjp
def _sigmoid(y):
    return jax.nn.sigmoid(y)


def _sigmoid_fwd(y):
    # The residual is y, not z, which rounds to 1 from y = 17 on, where sigmoid'(y) is not yet 0.
    return _sigmoid(y), (y,)


def _sigmoid_bwd(residuals, g):
    (y,) = residuals
    return (g * _numerics.sigmoid_slope(y),)


_sigmoid.defvjp(_sigmoid_fwd, _sigmoid_bwd)
