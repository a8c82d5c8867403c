"""k of n items: n independent bits given that their sum is k (conditional Bernoulli).

Start with `zgr`: it is exactly k-hot forward and unbiased for an f that is quadratic in x, and has
no hyperparameter to tune. `simple` has less variance and is unbiased for a linear f. Every function
costs O(n k) time and memory per variable.
"""

import functools

import jax
import jax.numpy as jnp

from relaxjax import _arguments, _noise, _numerics
from relaxjax._rules import hard
from relaxjax.families import Family, support_of_subsets, total

# ------------------------------------------------------------------------------------ the subset


def sample(key, logits, k, *, shape=None):
    """Sample a k-hot vector, which carries no gradient.

    Distribution: P(x) = exp(sum_i x_i logits_i) / e_k, where e_k is the sum over the k-subsets of
      the product of exp(logits); entries exactly 0.0 and 1.0, k of them 1. One uniform per item
      decides the items from the last to the first, given how many are left to draw.
    Gradient: 0.

    Args:
      key: PRNG key.
      logits: (..., n) floats, log-odds; adding a constant to a row changes nothing; leading axes
        are independent variables, and -inf masks an item, of probability 0. A row with fewer than k
        unmasked items, a NaN or +inf gives NaN.
      k: static integer from 1 to n.
      shape: batch shape of the result, to which that of logits broadcasts; None takes that of
        logits.

    Returns:
      x, of shape (*shape, n), in the dtype of logits; arithmetic is in float32 or wider.

    Raises:
      TypeError: logits are not floats, k is no static integer, or shape no tuple of integers.
      ValueError: logits have no axis of items, k is not from 1 to n, or shape does not fit the
        batch shape.

    Source: Chen, Dempster, Liu 1994, Biometrika 81(3).
    """
    z, _, dtype = _draw(key, logits, k, shape)
    return z.astype(dtype)


def log_prob(x, logits, k):
    """Compute the log-probability of k-hot vectors.

    Value: sum_i x_i logits_i - log e_k, where e_k is the sum over the k-subsets of the product of
      exp(logits); -inf where x is not k-hot or holds a masked item.

    Args:
      x: (..., n) k-hot, broadcast with logits.
      logits: (..., n) floats, log-odds; -inf masks an item, and a row with fewer than k unmasked
        items, a NaN or +inf gives NaN.
      k: static integer from 1 to n.

    Returns:
      The log-probability in nats, of the broadcast batch shape, in the dtype of logits;
      differentiable to any order, with gradient x - mu in logits, mu the mean.

    Raises:
      TypeError: logits are not floats, or k is no static integer.
      ValueError: logits have no axis of items, x does not broadcast with them, or k is not from 1
        to n.
    """
    x, wide, dtype = _arguments.broadcast_together(x, logits, event_ndim=1, name="x")
    k = _arguments.subset_size(k, wide.shape[-1])
    # Of the logits as they came, since many x often share one row.
    own = _shifted(jnp.asarray(logits).astype(wide.dtype), k)
    value = jnp.sum(_numerics.mul_log(x, jnp.broadcast_to(own, x.shape)), axis=-1)
    value -= jnp.broadcast_to(_log_total(own, k), value.shape)
    subset = jnp.all((x == 0) | (x == 1), axis=-1) & (jnp.sum(x, axis=-1) == k)
    return jnp.where(subset | jnp.isnan(value), value, -jnp.inf).astype(dtype)


def mean(logits, k):
    """Compute E[x], the probability of each item.

    Value: mu = d log e_k / dlogits, where e_k is the sum over the k-subsets of the product of
      exp(logits); it sums to k.
    Gradient: Cov g, where Cov is the covariance of x and g the gradient in mu, computed from logits
      alone: nothing else is kept for it.

    Args:
      logits: (..., n) floats, log-odds; -inf masks an item, whose mean and gradient are 0. A row
        with fewer than k unmasked items, a NaN or +inf gives NaN.
      k: static integer from 1 to n.

    Returns:
      mu, in the shape and dtype of logits.

    Raises:
      TypeError: logits are not floats, or k is no static integer.
      ValueError: logits have no axis of items, or k is not from 1 to n.
    """
    wide, dtype = _arguments.parameters("logits", logits, None, event_ndim=1)
    k = _arguments.subset_size(k, wide.shape[-1])
    return jnp.asarray(_mean(_shifted(wide, k), k), dtype)


def entropy(logits, k):
    """Compute the entropy of k-hot vectors.

    Value: log e_k - sum_i mu_i logits_i, where e_k is the sum over the k-subsets of the product of
      exp(logits) and mu the mean.

    Args:
      logits: (..., n) floats, log-odds; -inf masks an item. A row with fewer than k unmasked items,
        a NaN or +inf gives NaN.
      k: static integer from 1 to n.

    Returns:
      The entropy in nats, in the batch shape and dtype of logits; differentiable to any order.

    Raises:
      TypeError: logits are not floats, or k is no static integer.
      ValueError: logits have no axis of items, or k is not from 1 to n.
    """
    wide, dtype = _arguments.parameters("logits", logits, None, event_ndim=1)
    k = _arguments.subset_size(k, wide.shape[-1])
    return _cross_entropy(wide, wide, k).astype(dtype)


def kl(logits_q, logits_p, k):
    """Compute the KL divergence of two distributions of k-hot vectors.

    Value: E_q[log q - log p]; +inf where q may hold an item that is masked in p.

    Args:
      logits_q: (..., n) floats, log-odds of q; -inf masks an item.
      logits_p: (..., n) floats, log-odds of p, broadcast with logits_q. In both a row with fewer
        than k unmasked items, a NaN or +inf gives NaN.
      k: static integer from 1 to n.

    Returns:
      The divergence in nats, of the broadcast batch shape, in the dtype of logits_p; differentiable
      to any order.

    Raises:
      TypeError: logits_q or logits_p are not floats, or k is no static integer.
      ValueError: either has no axis of items, they do not broadcast, or k is not from 1 to n.
    """
    _arguments.floats("logits_q", logits_q, event_ndim=1)
    q, p, dtype = _arguments.broadcast_together(logits_q, logits_p, 1, "logits_q", "logits_p")
    k = _arguments.subset_size(k, q.shape[-1])
    return (_cross_entropy(q, p, k) - _cross_entropy(q, q, k)).astype(dtype)


def family(k):
    """Make the family of k-subsets, for logits (..., n).

    Args:
      k: static integer >= 1.

    Returns:
      A `Family` with mean, support, kl, event_ndim and variance; its support runs in the order of
      itertools.combinations.

    Raises:
      TypeError: k is no static integer.
      ValueError: k is below 1.
    """
    return _family(_arguments.count("k", k, 1))


@functools.cache  # one k, one family: equal as a static argument of jit
def _family(k):
    given_k = lambda function: functools.partial(function, k=k)
    return Family(
        name="subsets",
        sample=given_k(sample),
        log_prob=total(given_k(log_prob)),
        mean=given_k(mean),
        support=given_k(support_of_subsets),
        kl=total(given_k(kl)),
        event_ndim=1,
        variance=given_k(_variance),
    )


def _variance(u, logits, k):
    _, pull = jax.vjp(functools.partial(mean, k=k), logits)
    return jnp.sum(u * pull(u)[0])


# -------------------------------------------------------------------------------- hard forward


def simple(key, logits, k, *, shape=None):
    """Sample an exact k-hot vector that carries the gradient of its mean.

    Distribution: z = x, P(x) = exp(sum_i x_i logits_i) / e_k, where e_k is the sum over the
      k-subsets of the product of exp(logits); entries exactly 0.0 and 1.0, k of them 1. The draw is
      that of `sample`.
    Gradient: Cov g for logits, where Cov is the covariance of x and g the gradient in z: the
      vector-Jacobian product of `mean`.
    Bias: none for f linear in x; second order otherwise.
    Cost: one call of f; O(n k) time and memory per variable; x and logits are kept, and the
      backward pass computes the rest again.

    Args:
      key: PRNG key.
      logits: (..., n) floats, log-odds; adding a constant to a row changes nothing; leading axes
        are independent variables, and -inf masks an item, whose z and gradient are 0. A row with
        fewer than k unmasked items, a NaN or +inf gives NaN.
      k: static integer from 1 to n.
      shape: batch shape of z, to which that of logits broadcasts; None takes that of logits.

    Returns:
      z, of shape (*shape, n), in the dtype of logits; arithmetic is in float32 or wider.

    Raises:
      TypeError: logits are not floats, k is no static integer, or shape no tuple of integers.
      ValueError: logits have no axis of items, k is not from 1 to n, or shape does not fit the
        batch shape.

    Source: Ahmed et al. 2023, arXiv:2210.01941 (SIMPLE).
    """
    x, wide, dtype = _draw(key, logits, k, shape)
    return jnp.asarray(hard(functools.partial(_simple_rule, k), x, wide), dtype)


def _simple_rule(k, g, x, logits):
    return (_mean_and_covariance(logits, k, g)[1],)


def zgr(key, logits, k, *, shape=None):
    """Sample an exact k-hot vector that carries a gradient which is exact for quadratics.

    Distribution: z = x, P(x) = exp(sum_i x_i logits_i) / e_k, where e_k is the sum over the
      k-subsets of the product of exp(logits); entries exactly 0.0 and 1.0, k of them 1. The draw is
      that of `sample`.
    Gradient: (Cov g + (x - mu) <x - mu, g>) / 2 for logits, where mu and Cov are the mean and the
      covariance of x and g is the gradient in z. Second derivatives apply this rule to every x
      in it.
    Bias: none for f quadratic in x; third order otherwise.
    Cost: one call of f; O(n k) time and memory per variable; x and logits are kept, and the
      backward pass computes the rest again. The standard deviation of `simple` is about a fifth of
      this one's.

    Args:
      key: PRNG key.
      logits: (..., n) floats, log-odds; adding a constant to a row changes nothing; leading axes
        are independent variables, and -inf masks an item, whose z and gradient are 0. A row with
        fewer than k unmasked items, a NaN or +inf gives NaN.
      k: static integer from 1 to n.
      shape: batch shape of z, to which that of logits broadcasts; None takes that of logits.

    Returns:
      z, of shape (*shape, n), in the dtype of logits; arithmetic is in float32 or wider.

    Raises:
      TypeError: logits are not floats, k is no static integer, or shape no tuple of integers.
      ValueError: logits have no axis of items, k is not from 1 to n, or shape does not fit the
        batch shape.

    Source: the ZGR of `categorical.zgr`, of which this is the form for k-hots.
    """
    x, wide, dtype = _draw(key, logits, k, shape)
    return jnp.asarray(hard(functools.partial(_zgr_rule, k), x, wide), dtype)


def _zgr_rule(k, g, x, logits):
    mu, covariance = _mean_and_covariance(logits, k, g)
    delta = x - mu
    along = _numerics.row_sum(jnp.where(delta == 0, 0, delta * g))
    return ((covariance + delta * along) / 2,)


# --------------------------------------------------------------- elementary symmetric polynomials

# Ratios of neighbors, r_j = log e_j - log e_(j-1) of the items so far, rather than log e_j: adding
# an item then is an average of ratios, with errors that do not grow with n or with log e_k, and
# the ratios stay as large as the logits. r_j falls with j; it is -inf where there are fewer than j
# items, and r_0 = inf. Items and j lead, the batch comes last.
#
# It is a scan: on a CPU, for the mean and its gradient at n = 1,000, k = 50, a scan is 1.1 times as
# fast as divide and conquer over products in log space for one row, 1.9 times for 64 rows, 50 times
# as fast as an associative scan, and compiles in a sixth of their time. Products of probabilities,
# tilted to a sum with mean k, are 1.3 to 2 times as fast as the scan for one row, 1.3 times as slow
# for 64, and need a search for the tilt that would have to be safe at masks and at logits of 1e4.


@functools.partial(jax.jit, static_argnums=1)
def _conditionals(logits, k):
    """P(item i is in | j of the items up to i are), as [i, j - 1], and the ratios of all items."""
    items = jnp.moveaxis(logits, -1, 0)[:, None]
    empty = jnp.full((k, *items.shape[2:]), -jnp.inf, items.dtype)
    ratios, q = jax.lax.scan(_add, empty, items)
    return q, ratios


@jax.custom_jvp
def _add(ratios, logit):
    """The ratios with one more item, and its q_j = P(it is in | j of the items up to it are in).

    In exact arithmetic they are logaddexp(r_j, logit) - softplus(logit - r_(j-1)) and
    s(logit - r_j).
    """
    # A masked item has q = 0 also where the ratio is -inf.
    above = jnp.where(logit == -jnp.inf, -jnp.inf, logit - ratios)
    e = jnp.exp(-jnp.abs(above))
    q = jnp.where(above > 0, 1, e) / (1 + e)
    between = jnp.minimum(jnp.maximum(ratios, logit), _shift_in(jnp.inf, ratios))
    excess = jnp.log1p(e)
    return (between + excess - _shift_in(0, excess)), q


@_add.defjvp
def _add_jvp(primals, tangents):
    # Rules without the kinks of the formulas, which second derivatives would see.
    ratios, q = _add(*primals)
    dratios, dlogit = tangents
    dabove = dlogit - dratios
    shifted = _shift_in(0, q) * (dlogit - _shift_in(0, dratios))
    return (ratios, q), (dratios + q * dabove - shifted, q * (1 - q) * dabove)


def _shift_in(first, x):
    """(first, x_1, ..., x_(k-1))."""
    return jnp.concatenate([jnp.full_like(x[:1], first), x[:-1]])


@functools.partial(jax.jit, static_argnums=1)
def _marginals(logits, k):
    """mu, from the last item to the first, by weights that are P(j items are left to draw)."""

    def take(weights, q):
        taken = weights * q
        left = jnp.concatenate([taken[1:], jnp.zeros_like(taken[:1])])
        # A product with ones, since a sum takes several times as long on two cores.
        one = jnp.ones(k, taken.dtype)
        return weights - taken + left, jnp.tensordot(one, taken, 1, precision="highest")

    q, _ = _conditionals(logits, k)
    weights = jnp.zeros_like(q[0]).at[-1].set(1)
    _, mu = jax.lax.scan(take, weights, q, reverse=True)
    return jnp.moveaxis(mu, 0, -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _mean(logits, k):
    return _marginals(logits, k)


def _mean_fwd(logits, k):
    # Not the primal itself, as in _log_total_fwd.
    return _marginals(logits, k), (logits,)


def _mean_bwd(k, residuals, g):
    (logits,) = residuals
    return (_mean_and_covariance(logits, k, g)[1],)


_mean.defvjp(_mean_fwd, _mean_bwd)


@functools.partial(jax.jit, static_argnums=1)
def _mean_and_covariance(logits, k, g):
    """mu and Cov g, Cov being the Jacobian of mu and symmetric."""
    g = jnp.where(logits == -jnp.inf, 0, g)
    return jax.jvp(lambda l: _marginals(l, k), (logits,), (g,))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _log_total(logits, k):
    """log e_k."""
    return jnp.sum(_conditionals(logits, k)[1], axis=0)


def _log_total_fwd(logits, k):
    # Not the primal itself, whose rule would refuse forward over reverse; there is no draw here.
    return jnp.sum(_conditionals(logits, k)[1], axis=0), (logits,)


def _log_total_bwd(k, residuals, g):
    (logits,) = residuals
    return (g[..., None] * _marginals(logits, k),)


_log_total.defvjp(_log_total_fwd, _log_total_bwd)


def _cross_entropy(logits_q, logits_p, k):
    """-E_q[log p] of k-hots."""
    logits_q, logits_p = _shifted(logits_q, k), _shifted(logits_p, k)
    mean = _numerics.mul_log(_mean(logits_q, k), logits_p)
    return jnp.asarray(_log_total(logits_p, k)) - jnp.sum(mean, axis=-1)


# ------------------------------------------------------------------------------------- the draw


def _draw(key, logits, k, shape):
    """The draw, the shifted logits of its law in its shape, and the dtype to return."""
    wide, dtype = _arguments.parameters("logits", logits, shape, event_ndim=1)
    k = _arguments.subset_size(k, wide.shape[-1])
    # The law of the logits as they came, since many draws often share one row.
    own = _shifted(_numerics.widen(jnp.asarray(logits)), k)
    own = own.reshape((1,) * (wide.ndim - own.ndim) + own.shape)
    u = _noise.uniform(key, wide.shape, wide.dtype)
    x = _draw_from(u, jax.lax.stop_gradient(own), k)
    return x, jnp.broadcast_to(own, wide.shape), dtype


@functools.partial(jax.jit, static_argnums=2)
def _draw_from(u, logits, k):
    def take(left, item):
        u, q = item
        q = jnp.broadcast_to(q, (k, *left.shape))
        q = jnp.take_along_axis(q, jnp.maximum(left, 1)[None] - 1, axis=0)[0]
        x = (u < q) & (left > 0)
        return left - x.astype(left.dtype), x.astype(u.dtype)

    q, _ = _conditionals(logits, k)
    left = jnp.full(u.shape[:-1], k)
    _, x = jax.lax.scan(take, left, (jnp.moveaxis(u, -1, 0), q), reverse=True)
    # u < NaN is False: a row without a law would have no ones.
    return jnp.where(jnp.isnan(logits), jnp.nan, jnp.moveaxis(x, 0, -1))


def _shifted(logits, k):
    """logits less the k-th largest, so that a large e_k costs no digits; NaN without a law."""
    kth = _numerics.kth_largest(jax.lax.stop_gradient(logits), k)
    has_a_law = jnp.isfinite(kth) & (_numerics.row_max(logits) < jnp.inf)
    return jnp.where(has_a_law, logits - kth, jnp.nan)
