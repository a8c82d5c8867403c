"""k of n items drawn without replacement (Plackett-Luce): the top k of logits + Gumbel noise.

Start with `straight_through`, which is exactly k-hot forward; `relaxed` relaxes the k-hot itself.
For subsets of which only the sum is given see `subsets`: that is another distribution, with
gradients that have less bias. One key gives every sampler the same noise.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from relaxjax import _arguments, _noise, _numerics
from relaxjax._rules import hard
from relaxjax.families import Family, support_of_subsets, total

# ------------------------------------------------------------------------------- the ordered draw


def sample(key, logits, k, *, shape=None):
    """Sample the indices of k items, drawn without replacement, in the order of their draw.

    Distribution: one item after the other, from softmax(logits) over the items that are left: the k
      largest of y = logits + G, G_i ~ Gumbel, the largest first.
    Cost: O(n) noise, and a selection of the k largest entries of y.

    Args:
      key: PRNG key.
      logits: (..., n) floats, unnormalized log-probabilities of the first draw; leading axes are
        independent variables, and -inf masks an item, which is never drawn.
      k: static integer from 1 to n.
      shape: batch shape of the result, to which that of logits broadcasts; None takes that of
        logits.

    Returns:
      int32 indices, of shape (*shape, k); -1 throughout a row with fewer than k unmasked items, a
      NaN or +inf.

    Raises:
      TypeError: logits are not floats, k is no static integer, or shape no tuple of integers.
      ValueError: logits have no axis of items, k is not from 1 to n, or shape does not fit the
        batch shape.

    Source: Kool et al. 2019, arXiv:1903.06059, section 2.
    """
    wide, _, k = _parameters(logits, k, shape)
    y = wide + _noise.gumbel(key, wide.shape, wide.dtype)
    return jnp.where(jnp.isnan(wide[..., :1]), -1, _numerics.top_indices(y, k))


def log_prob(indices, logits):
    """Compute the log-probability of k items, drawn without replacement, in the order given.

    Value: sum_j (logits_(i_j) - lse_j) over the indices i_1, ..., i_k, where lse_j is the logsumexp
      of logits over all items but i_1, ..., i_(j-1); -inf where an item repeats or is masked, NaN
      where an index is not one of an item.

    Args:
      indices: (..., k) integers, k from 1 to n, with the batch shape of logits.
      logits: (..., n) floats, unnormalized log-probabilities of the first draw; -inf masks an item,
        and a row with fewer than k unmasked items, a NaN or +inf gives NaN.

    Returns:
      The log-probability in nats, of the batch shape, in the dtype of logits; differentiable in
      logits to any order.

    Raises:
      TypeError: logits are not floats, or indices not integers.
      ValueError: logits have no axis of items, indices have another batch shape, or k is not from 1
        to n.

    Source: Kool et al. 2019, arXiv:1903.06059, section 2.
    """
    logits = _arguments.floats("logits", logits, event_ndim=1)
    indices = jnp.asarray(indices)
    if not jnp.issubdtype(indices.dtype, jnp.integer):
        raise TypeError(f"indices: got {_arguments.describe(indices)}, need integers")
    *batch, n = logits.shape
    if list(indices.shape[:-1]) != batch or not indices.ndim or not 1 <= indices.shape[-1] <= n:
        raise ValueError(
            f"indices: got shape {list(indices.shape)}, need {[*batch, 'k']}, k from 1 to {n}, for "
            f"logits of shape {list(logits.shape)}"
        )
    wide = _arguments.nan_rows(_numerics.widen(logits), indices.shape[-1])
    return _log_prob(indices, wide).astype(logits.dtype)


@jax.jit
def _log_prob(indices, logits):
    n, k = logits.shape[-1], indices.shape[-1]
    valid = jnp.all((indices >= 0) & (indices < n), axis=-1)
    indices = jnp.clip(indices, 0, n - 1)
    one = jnp.ones((), bool)
    drawn = jnp.zeros(logits.shape, bool)
    drawn = jnp.put_along_axis(drawn, indices, one, axis=-1, inplace=False)
    chosen = jnp.take_along_axis(logits, indices, axis=-1)
    possible = (jnp.sum(drawn, axis=-1) == k) & jnp.all(chosen != -jnp.inf, axis=-1)
    # What is left in the end. Not the logsumexp of nothing, whose gradient is NaN.
    rest = jnp.where(drawn, -jnp.inf, logits)
    none = jnp.all(rest == -jnp.inf, axis=-1, keepdims=True)
    left = jax.nn.logsumexp(jnp.where(none, 0, rest), axis=-1)
    left = jnp.where(none[..., 0], -jnp.inf, left)

    def put_back(left, logit):
        # softplus(left - logit) is -log p of this draw, exact in both tails.
        surprise = jax.nn.softplus(left - logit)
        return logit + surprise, surprise

    chosen = jnp.where(chosen == -jnp.inf, 0, chosen)
    _, surprise = jax.lax.scan(put_back, left, jnp.moveaxis(chosen, -1, 0), reverse=True)
    value = -jnp.sum(surprise, axis=0)
    unlawful = jnp.isnan(logits[..., 0]) | ~valid
    return jnp.where(unlawful, jnp.nan, jnp.where(possible, value, -jnp.inf))


def log_prob_of_set(x, logits, k):
    """Compute the log-probability of the set of k items that are drawn, whatever their order.

    Value: log of the sum of the probabilities of all orders of the items i of x, which share their
      beginnings; above k = 8 log of the integral of prod_i (1 - exp(-exp(logits_i - m))) under the
      distribution of m, the largest perturbation of the other items: Gumbel(logsumexp of their
      logits). -inf where x holds another number of items or a masked one, NaN where it is no 0/1
      vector.
    Cost: O(n + k 2^k) up to k = 8, O(n sqrt(k)) above.

    Args:
      x: (..., n) k-hot, broadcast with logits.
      logits: (..., n) floats, unnormalized log-probabilities of the first draw; -inf masks an item,
        and a row with fewer than k unmasked items, a NaN or +inf gives NaN.
      k: static integer from 1 to n.

    Returns:
      The log-probability in nats, of the broadcast batch shape, in the dtype of logits;
      differentiable in logits to any order.

    Raises:
      TypeError: logits are not floats, or k is no static integer.
      ValueError: logits have no axis of items, x does not broadcast with them, or k is not from 1
        to n.

    Source: Kool et al. 2020, arXiv:2002.06043, appendix B.
    """
    x, wide, dtype = _arguments.broadcast_together(x, logits, event_ndim=1, name="x")
    k = _arguments.subset_size(k, wide.shape[-1])
    wide = _arguments.nan_rows(wide, k)
    chosen = x == 1
    binary = jnp.all(chosen | (x == 0), axis=-1)
    possible = (jnp.sum(chosen, axis=-1) == k) & jnp.all(~chosen | (wide != -jnp.inf), axis=-1)
    rest = jnp.where(chosen, -jnp.inf, wide)
    none = jnp.all(rest == -jnp.inf, axis=-1)
    # Without a logsumexp of nothing, whose gradient is NaN.
    left = jax.nn.logsumexp(jnp.where(none[..., None], 0, rest), axis=-1)
    of_set = _log_prob_by_orders if k <= 8 else _log_prob_by_quadrature
    value = of_set(chosen, jnp.where(chosen & possible[..., None], wide, 0), left, k)
    value = jnp.where(possible, jnp.where(none, 0, value), -jnp.inf)
    return jnp.where(binary & ~jnp.isnan(wide[..., 0]), value, jnp.nan).astype(dtype)


def _log_prob_by_orders(chosen, logits, left, k):
    """The log-probability that the first k draws are the chosen items, from that of every part.

    A part of the set has a number, whose bits say which items it holds; left is the logsumexp of
    the logits that are not chosen.
    """
    items = _numerics.top_indices(chosen.astype(logits.dtype), k)
    a = jnp.take_along_axis(logits, items, axis=-1)
    parts = np.arange(2**k)
    holds = (parts[:, None] >> np.arange(k)) % 2 == 1
    # What a draw has to choose from after each part but the whole set.
    others = jnp.where(holds[:-1], -jnp.inf, a[..., None, :])
    total = jnp.logaddexp(left[..., None], jax.nn.logsumexp(others, axis=-1))
    log_p = jnp.zeros((*a.shape[:-1], 1), a.dtype)
    for size in range(1, k + 1):
        before, now = (parts[holds.sum(-1) == s] for s in (size - 1, size))
        last = np.nonzero(holds[now])[1].reshape(-1, size)  # every item may be the last one drawn
        earlier = now[:, None] - (1 << last)
        step = a[..., last] - total[..., earlier]
        log_p = jax.nn.logsumexp(log_p[..., np.searchsorted(before, earlier)] + step, axis=-1)
    return log_p[..., 0]


def _log_prob_by_quadrature(chosen, logits, left, k):
    """The same from an integral, for sets of which the parts are too many."""
    # The logarithm of the integrand at m = left + g is concave in g, with its maximum in
    # [-log(k + 1), 0], a tail below exp(-g) and a width of 1 / sqrt(k + 1) or more; the sum of a
    # smooth function over an even grid converges exponentially.
    step = 0.35 / math.sqrt(k + 1)
    grid = np.arange(-math.log(k + 1) - 5, 40, step)
    a = jnp.where(chosen, logits - left[..., None], 0)

    def log_integrand(g):
        terms = jnp.where(chosen, _log_1_exp_exp(a - g), 0)
        return -g - jnp.exp(-g) + jnp.sum(terms, axis=-1)

    values = jax.vmap(log_integrand)(jnp.asarray(grid, a.dtype))
    return jax.nn.logsumexp(values, axis=0) + math.log(step)


def _log_1_exp_exp(r):
    """log(1 - exp(-exp(r))), exact in both tails."""
    y = jnp.exp(jnp.minimum(r, 5))  # 1 from there on, with a slope of 0
    small = jnp.minimum(r, -4)
    w = jnp.exp(small)
    series = small - w / 2 + w * w / 24 - w**4 / 2880
    return jnp.where(r < -4, series, jnp.log(-jnp.expm1(-jnp.where(r < -4, 1, y))))


# ------------------------------------------------------------------------------------ the k-hot


def relaxed(key, logits, k, *, temperature=0.5, shape=None):
    """Sample a relaxed k-hot: the sum of k relaxed draws, each from what those before it left.

    Distribution: with y = logits + G, G_i ~ Gumbel, a = y and z = 0, k times:
      q = softmax(a / temperature), z += q, a += log(1 - q). z sums to k; an entry may pass 1. At k
      = 1 it is `categorical.gumbel_softmax`; as the temperature falls it tends to the k-hot of the
      top k of y.
    Gradient: exact, in logits and temperature. Near ties of y it grows as (2 / temperature)^k.
    Bias: none for E[f(z)] under this distribution; present for E[f] of the k-hot.
    Cost: one call of f; O(n k) time per row; y alone is kept, and the backward pass draws again
      from it, with O(n k) memory.

    Args:
      key: PRNG key.
      logits: (..., n) floats, unnormalized log-probabilities of the first draw; leading axes are
        independent variables, and -inf masks an item, whose z and gradient are 0. A row with fewer
        than k unmasked items, a NaN or +inf gives NaN.
      k: static integer from 1 to n.
      temperature: positive scalar, or an array of the batch shape; may be traced.
      shape: batch shape of z, to which that of logits broadcasts; None takes that of logits.

    Returns:
      z, of shape (*shape, n), in the dtype of logits; arithmetic is in float32 or wider.

    Raises:
      TypeError: logits are not floats, k is no static integer, temperature is no number, or shape
        no tuple of integers.
      ValueError: logits have no axis of items, k is not from 1 to n, a Python or NumPy temperature
        is not positive, or temperature or shape does not fit the batch shape.

    Source: Plotz and Roth 2018, arXiv:1810.12575; Xie and Ermon 2019, arXiv:1901.10517.
    """
    wide, dtype, k = _parameters(logits, k, shape)
    temperature = _arguments.hyperparameter("temperature", temperature, wide, event_ndim=1)
    y = wide + _noise.gumbel(key, wide.shape, wide.dtype)
    return jnp.asarray(_relaxed(y, k, temperature), dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _relaxed(y, k, temperature):
    return _chain(y, k, temperature)[0]


def _relaxed_fwd(y, k, temperature):
    return _relaxed(y, k, temperature), (y, temperature)


def _relaxed_bwd(k, residuals, g):
    y, temperature = residuals
    return _chain_back(_chain(y, k, temperature)[1], temperature, g)


_relaxed.defvjp(_relaxed_fwd, _relaxed_bwd)


def straight_through(key, logits, k, *, temperature=0.5, shape=None):
    """Sample an exact k-hot that carries the gradient of the relaxed one drawn with the same noise.

    Distribution: z is the k-hot of the top k of y = logits + G, G_i ~ Gumbel, entries exactly 0.0
      and 1.0: the set of `sample`'s indices, at every temperature.
    Gradient: for logits g pulled back through the relaxed k-hot that `relaxed` makes of the same y,
      where g is the gradient in z, and 0 for temperature, on which the distribution does not
      depend.
    Bias: present even for linear f.
    Cost: one call of f; O(n k) time per row; y alone is kept beside z, and the backward pass runs
      the k relaxed draws from it, with O(n k) memory.

    Args:
      key: PRNG key.
      logits: (..., n) floats, unnormalized log-probabilities of the first draw; leading axes are
        independent variables, and -inf masks an item, whose z and gradient are 0. A row with fewer
        than k unmasked items, a NaN or +inf gives NaN.
      k: static integer from 1 to n.
      temperature: positive scalar, or an array of the batch shape; may be traced.
      shape: batch shape of z, to which that of logits broadcasts; None takes that of logits.

    Returns:
      z, of shape (*shape, n), in the dtype of logits; arithmetic is in float32 or wider.

    Raises:
      TypeError: logits are not floats, k is no static integer, temperature is no number, or shape
        no tuple of integers.
      ValueError: logits have no axis of items, k is not from 1 to n, a Python or NumPy temperature
        is not positive, or temperature or shape does not fit the batch shape.

    Source: Xie and Ermon 2019, arXiv:1901.10517.
    """
    wide, dtype, k = _parameters(logits, k, shape)
    temperature = _arguments.hyperparameter("temperature", temperature, wide, event_ndim=1)
    y = wide + _noise.gumbel(key, wide.shape, wide.dtype)
    return jnp.asarray(_straight_through(y, k, temperature), dtype)


def _straight_through(y, k, temperature):
    z = jnp.where(jnp.isnan(y), jnp.nan, _numerics.k_hot(y, k))
    return hard(functools.partial(_straight_through_rule, k), z, y, temperature)


def _straight_through_rule(k, g, z, y, temperature):
    return _chain_back(_chain(y, k, temperature)[1], temperature, g)[0], None


def set_family(k):
    """Make the family of the set of k items that are drawn, whatever their order.

    Args:
      k: static integer >= 1.

    Returns:
      A `Family` for logits (..., n). Its samples are k-hots (..., n), its log_prob is
      `log_prob_of_set`, and its support runs in the order of itertools.combinations. It has no
      mean, since that of a Plackett-Luce set has no closed form.

    Raises:
      TypeError: k is no static integer.
      ValueError: k is below 1.
    """
    k = _arguments.count("k", k, 1)
    return Family(
        name="top_k",
        sample=functools.partial(_sample_set, k=k),
        log_prob=total(functools.partial(log_prob_of_set, k=k)),
        support=functools.partial(support_of_subsets, k=k),
        event_ndim=1,
    )


def _sample_set(key, logits, k):
    wide, dtype, k = _parameters(jax.lax.stop_gradient(logits), k, None)
    y = wide + _noise.gumbel(key, wide.shape, wide.dtype)
    return jnp.where(jnp.isnan(y), jnp.nan, _numerics.k_hot(y, k)).astype(dtype)


# ------------------------------------------------------------------------------------ the chain

# Here the items lie along the first axis of an array, and a sum over it is a product with ones,
# since a reduction takes several times as long on two cores of a CPU.


@functools.partial(jax.jit, static_argnums=1)
def _chain(y, k, temperature):
    """z, and what each draw's derivatives need: (a, shares, odds, lead), of the last one (a, q)."""
    y, temperature = _items_first(y), _items_first(temperature)
    masked = y == -jnp.inf

    def tempered(a):
        # -inf / temperature would have the derivative NaN in temperature.
        return jnp.where(masked, -jnp.inf, jnp.where(masked, 0, a) / temperature)

    def draw(carry, _):
        a, z = carry
        shares, odds, lead = _shares(tempered(a))
        first, left, log_left = _numerics.computed_once(
            (jax.nn.sigmoid(-odds), jax.nn.sigmoid(odds), jax.nn.log_sigmoid(odds))
        )
        others = shares * left
        # Not log1p, which costs twice as much: the sum that this joins rounds as 1 - q does.
        log_left = jnp.where(lead, log_left, jnp.log(1 - others))
        return (a + log_left, z + jnp.where(lead, first, others)), (a, shares, odds, lead)

    # No draw comes after the last one, for which a softmax is enough.
    (a, z), draws = jax.lax.scan(draw, (y, jnp.zeros_like(y)), None, length=k - 1)
    x = tempered(a)
    e = _numerics.computed_once(jnp.exp(x - jax.lax.stop_gradient(_top_two(x)[0])))
    q = e / _total(e)
    return jnp.moveaxis(z + q, 0, -1), (draws, (a, q))


@jax.jit
def _chain_back(draws, temperature, g):
    """The cotangents of y and temperature.

    With x = a / temperature, d log(1 - q_i) = q_i / (1 - q_i) (<q, dx> - dx_i); at the lead that is
    q (<shares, dx> - dx), which does not divide by a 1 - q of 0.
    """
    g, temperature = _items_first(g), _items_first(temperature)
    draws, (a, q) = draws

    def through(a, dx):
        """dx in terms of a, and in terms of 1 / temperature item by item."""
        return dx / temperature, jnp.where(a == -jnp.inf, 0, a) * dx

    def back(carry, draw):
        da, dt = carry
        a, shares, odds, lead = draw
        first, left = _numerics.computed_once((jax.nn.sigmoid(-odds), jax.nn.sigmoid(odds)))
        others = shares * left
        q = jnp.where(lead, first, others)
        v = jnp.where(lead, 0, others / (1 - others) * da)
        lead_v = first * _total(jnp.where(lead, da, 0))
        dx = q * (g - _total(q * g - v)) - v + jnp.where(lead, -lead_v, lead_v * shares)
        da_x, dt_x = through(a, dx)
        return (da + da_x, dt + dt_x), None

    last = through(a, q * (g - _total(q * g)))
    (da, dt), _ = jax.lax.scan(back, last, draws, reverse=True)
    dt = -_total(dt) / temperature**2
    return jnp.moveaxis(da, 0, -1), jnp.moveaxis(dt, 0, -1) if temperature.ndim else jnp.sum(dt)


def _items_first(x):
    return jnp.moveaxis(x, -1, 0) if x.ndim else x


def _total(x):
    one = jnp.ones((1, x.shape[0]), x.dtype)
    return jnp.tensordot(one, x, 1, precision="highest")


def _top_two(x):
    """The largest and the second largest entry, which are the same where two are the largest."""
    if x.shape[0] > _numerics.SHORT:
        top = jnp.max(x, axis=0, keepdims=True)
        lead = x == top
        second = jnp.max(jnp.where(lead, -jnp.inf, x), axis=0, keepdims=True)
        return top, jnp.where(_total(lead.astype(x.dtype)) == 1, second, top)
    top, second = x[:1], jnp.full_like(x[:1], -jnp.inf)
    for i in range(1, len(x)):
        one = x[i : i + 1]
        top, second = jnp.maximum(top, one), jnp.maximum(second, jnp.minimum(top, one))
    return _numerics.computed_once((top, second))


def _shares(x):
    """The softmax with 0 at its largest entry, log((1 - q) / q) of that one, and where it is.

    Where the largest entry is not alone no q is above 1/2, and none is left out.
    """
    top, second = _top_two(x)
    second = jax.lax.stop_gradient(second)
    alone = second < top
    lead = alone & (x == top)
    e = _numerics.computed_once(jnp.where(lead, 0, jnp.exp(x - second)))
    total = _total(e)
    odds = second + jnp.log(total) - top
    return (
        e * _numerics.computed_once(1 / total),
        _numerics.computed_once(jnp.where(alone, odds, jnp.inf)),
        lead,
    )


# -------------------------------------------------------------------------------- the arguments


def _parameters(logits, k, shape):
    """logits wide and NaN in rows without a distribution, the dtype to return, and k."""
    wide, dtype = _arguments.parameters("logits", logits, shape, event_ndim=1)
    k = _arguments.subset_size(k, wide.shape[-1])
    return _arguments.nan_rows(wide, k), dtype, k
