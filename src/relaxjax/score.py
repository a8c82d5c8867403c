"""Score-function estimators: the law is sampled; the loss, not the sample, carries the gradient.

Start with `rloo`: any law, two calls of f, no hyperparameter. `disarm` is better for bits at the
same cost, and `control_variates.quadratic` where its coefficients can be learned.

Throughout: `key` is a PRNG key; `f` takes one whole sample x, shaped as `params` (whose leading
axes are independent variables of one joint sample), and returns a float scalar; it may close over
anything, tracers included; batch over data with jax.vmap. `params` are those of the law (its
logits; any pytree for `families.from_distribution`), and `family` is the law. All samples of one
call go through one vmapped f. The result is a scalar to minimize, in the dtype of f: its value
estimates E[f]; its gradient in params is the estimator, in their dtype; its gradient in what f
closes over is the ordinary one, averaged over the samples. Where f itself closes over params (an
entropy term), its own derivative adds to the estimator, as it should. Second derivatives in params
are 0 (but for `exact`). Arithmetic is in float32 or wider. In the formulas x_k are the samples,
f_k = f(x_k), K is num_samples, a bar the mean over samples, s(x) the gradient of log_prob in
params, which is x - p for bits and categoricals. Errors, all at trace time: TypeError where f does
not return a float scalar; ValueError where num_samples is too small or the family lacks what the
estimator needs.
"""

import jax
import jax.numpy as jnp
import numpy as np

from relaxjax import _arguments, _noise, _numerics, _surrogate, bernoulli
from relaxjax._surrogate import attach, constants

# ------------------------------------------------------------------------------------ any law


def reinforce(key, f, params, *, family, num_samples=1, baseline=0.0):
    """REINFORCE, the score-function estimator, with a constant baseline.

    Gradient: 1/K sum_k (f_k - baseline) s(x_k); 0 in baseline.
    Bias: none, as long as baseline does not depend on the samples.
    Cost: K calls of f. The variance grows with (f - baseline)^2.
    Args: num_samples: static integer >= 1; baseline: any real scalar, traced.
    Source: Williams 1992, "Simple statistical gradient-following algorithms for connectionist
      reinforcement learning".
    """
    num_samples = _arguments.count("num_samples", num_samples, 1)
    x = _surrogate.draw(key, params, family, num_samples)
    return _reinforce(x, f, params, family, baseline)


def _reinforce(x, f, params, family, baseline):
    values = _surrogate.evaluate(f, x)
    l, F, X = constants(params, values, x)
    baseline = _arguments.hyperparameter("baseline", baseline, F[0], interval=_arguments.ANY)
    a = (F - jax.lax.stop_gradient(baseline)) / len(F)
    return attach(_surrogate.mean_value(values), params, _surrogate.score(family, a, X, l))


def rloo(key, f, params, *, family, num_samples=2):
    """REINFORCE with the mean of the other samples as each one's baseline (leave-one-out).

    Gradient: 1/(K - 1) sum_k (f_k - fbar) s(x_k).
    Bias: none.
    Cost: K calls of f.
    Args: num_samples: static integer >= 2.
    Source: Salimans and Knowles 2014, arXiv:1401.1022; Kool, van Hoof, Welling 2019, "Buy 4
      REINFORCE samples, get a baseline for free!".
    """
    num_samples = _arguments.count("num_samples", num_samples, 2)
    return _rloo(_surrogate.draw(key, params, family, num_samples), f, params, family)


def _rloo(x, f, params, family):
    values = _surrogate.evaluate(f, x)
    l, F, X = constants(params, values, x)
    g = _surrogate.score(family, leave_one_out(F), X, l)
    return attach(_surrogate.mean_value(values), params, g)


def leave_one_out(t):
    """The weight of each score: (t_k - the mean of the others) / K."""
    return (t - jnp.mean(t)) / (len(t) - 1)


def double_cv(key, f, params, *, family, num_samples=2, scale=0.5):
    """RLOO with a second control variate, linear in each sample, from f's own gradients.

    Gradient: 1/(K - 1) sum_k (t_k - tbar) s(x_k) + scale Sigma vbar, with
      t_k = f_k - scale <v_k, x_k - mu>, v_k the mean of grad f(x_j) over j != k, vbar that of all,
      mu = E[x], Sigma v the pullback of mu at v. In scale it is the gradient of the squared norm
      of that in params, which estimates the total variance's without bias.
    Bias: none at any scale that does not depend on the samples, for any law with a mean. For linear
      f at scale 1 the variance is 0 too; scale 0 is rloo.
    Cost: K calls of f with their gradients; f must be differentiable between the samples.
    Args: num_samples: static integer >= 2; scale: any real scalar, traced; learn it by descent.
    Errors: TypeError where samples are integers.
    Source: Titsias and Shi 2022, arXiv:2111.05300; their alpha is -scale.
    """
    num_samples = _arguments.count("num_samples", num_samples, 2)
    _surrogate.require(family, "double_cv", "mean")
    x = _surrogate.draw(key, params, family, num_samples)
    return _double_cv(x, f, params, family, scale)


def _double_cv(x, f, params, family, scale):
    values, slopes = _surrogate.evaluate_with_slopes(f, x)
    l, F, V, X = constants(params, values, slopes, x)
    scale = _arguments.hyperparameter("scale", scale, F[0], interval=_arguments.ANY)
    mu, pull = _surrogate.mean_and_pullback(family, l)
    t = jax.vmap(_surrogate.inner_product)(_surrogate.mean_of_others(V), X - mu[None])
    correction = pull(jnp.mean(V, axis=0))

    def gradient(scale):
        g = _surrogate.score(family, leave_one_out(F - scale * t), X, l)
        return jax.tree.map(lambda g, c: g + scale * c, g, correction)

    return _surrogate.attach_variance(_surrogate.mean_value(values), params, scale, gradient)


def vimco(key, log_weight, params, *, family, num_samples=2):
    """The importance-weighted bound of K samples, with leave-one-out baselines.

    Value: L = log mean_k exp(f_k), with f = log_weight, log p(x, z) - log q(z) of one sample: a
      lower bound of the log evidence in expectation, to MAXIMIZE (the loss is its negative).
    Gradient: sum_k (L - L_k) s(x_k), where L_k has f_k replaced by the mean of the other f_j; what
      f closes over, params too, gets sum_k softmax(f)_k grad f_k.
    Bias: none for the gradient of E[L].
    Cost: K calls of log_weight.
    Args: num_samples: static integer >= 2.
    Source: Mnih and Rezende 2016, arXiv:1602.06725, eq. 7 to 10.
    """
    num_samples = _arguments.count("num_samples", num_samples, 2)
    return _vimco(_surrogate.draw(key, params, family, num_samples), log_weight, params, family)


def _vimco(x, log_weight, params, family):
    values = _surrogate.evaluate(log_weight, x)
    l, F, X = constants(params, values, x)
    bound = lambda f: jax.nn.logsumexp(f, axis=-1) - np.log(len(F)).astype(f.dtype)
    without = jnp.where(
        np.eye(len(F), dtype=bool), _surrogate.mean_of_others(F)[:, None], F[None, :]
    )
    g = _surrogate.score(family, bound(F) - bound(without), X, l)
    return attach(bound(_numerics.widen(values)).astype(values.dtype), params, g)


def exact(f, params, *, family):
    """E[f] by the sum over the support: no key, no variance, all derivatives true.

    Value: sum_x p(x) f(x); a state of probability 0 contributes 0, whatever f is there.
    Gradient: exact, to any order, by ordinary autodiff in params and in what f closes over.
    Bias: none.
    Cost: a call of f for each state, all in one vmapped call, whose memory grows with them.
    Errors: ValueError where the family has no support, or one of more than 2^20 states.
    """
    _surrogate.require(family, "exact", "support")
    support, log_p = _surrogate.support_and_log_probs(family, params)
    values = _surrogate.evaluate(f, support)
    dtype = _numerics.widest(values, log_p)
    p = jnp.exp(log_p.astype(dtype))
    return jnp.sum(p * jnp.where(p == 0, 0, values.astype(dtype))).astype(values.dtype)


# ---------------------------------------------------------------------- independent variables


def indecater(key, f, params, *, family):
    """The exact sum over each variable's values, the others held at one sample.

    Gradient: for variable i and class c, p_ic (F_ic - sum_c' p_ic' F_ic'), F_ic = f(x with variable
      i set to c).
    Bias: none. The variance is 0 for one variable, and for f that is a sum over variables.
    Cost: N (C - 1) + 1 calls of f for N categoricals of C classes, D + 1 for D bits; f(x) alone
      carries the gradient of what f closes over.
    Errors: ValueError for a family other than bernoulli and categorical.
    Source: De Smet, Sansone, Zuidberg Dos Martires 2023, arXiv:2311.12569 (IndeCateR), with one
      sample for all variables.
    """
    _surrogate.require(family, "indecater", "event_ndim", "neighbors")
    (x,) = _surrogate.draw(key, params, family, 1)
    return _indecater(x, f, params, family)


def _indecater(x, f, params, family):
    value = _arguments.scalar(f(x))
    l, F, X = constants(params, value, x)
    steps, q = family.neighbors(X, l)
    event = (1,) * family.event_ndim
    one = np.eye(q[0].size, dtype=x.dtype).reshape(-1, *q.shape[1:], *event)
    moved = x[None, None] + one[None] * steps[:, None].astype(x.dtype)
    (G,) = constants(_surrogate.evaluate(f, moved.reshape(-1, *x.shape)))
    # In differences, which cancel in f(x); a value of probability 0 may have any f.
    gain = jnp.where(q == 0, 0, q * (G.astype(F.dtype).reshape(q.shape) - F))
    g = _surrogate.score_by_variable(family, gain, X[None] + steps, l)
    return attach(value, params, g)


# ------------------------------------------------------------------------------------ bits only


def arm(key, f, logits):
    """Augment-REINFORCE-merge: a pair of antithetic bits.

    Gradient: (f(b) - f(b')) (u - 1/2), b = 1[u > 1 - p], b' = 1[u < p], u ~ U(0, 1) an entry; 0
      at infinite logits.
    Value: (f(b) + f(b')) / 2.
    Bias: none.
    Cost: 2 calls of f. `disarm` has the same cost and never more variance.
    Source: Yin and Zhou 2019, arXiv:1807.11143, theorem 1.
    """
    wide, _ = _arguments.parameters("logits", logits, None)
    noise = _noise.logistic(key, wide.shape, wide.dtype)
    return _arm(noise, f, jnp.asarray(logits))


def _arm(noise, f, logits):
    values, l, F, _ = _antithetic(noise[None], f, logits)
    # u - 1/2 = tanh(noise / 2) / 2, and no noise where the bit is sure.
    u = jnp.where(jnp.isinf(l), 0, jnp.tanh(noise / 2) / 2)
    return attach(_surrogate.mean_value(values), logits, (F[0, 0] - F[1, 0]) * u)


def disarm(key, f, logits, *, num_samples=2):
    """ARM given its bits: the noise integrated out (also found as U2G).

    Gradient: the mean over num_samples / 2 pairs of (f(b) - f(b')) (b - b') s(|logits|) / 2, the
      pairs b, b' as in `arm`, s the sigmoid.
    Value: the mean over all samples.
    Bias: none.
    Cost: num_samples calls of f.
    Args: num_samples: static even integer >= 2.
    Source: Dong, Mnih, Tucker 2020, arXiv:2006.10680; Yin et al. 2020.
    """
    num_samples = _arguments.count("num_samples", num_samples, 2)
    if num_samples % 2:
        raise ValueError(f"num_samples: got {num_samples}, need an even integer: bits are in pairs")
    wide, _ = _arguments.parameters("logits", logits, None)
    noise = _noise.logistic(key, (num_samples // 2, *wide.shape), wide.dtype)
    return _disarm(noise, f, jnp.asarray(logits))


def _disarm(noise, f, logits):
    values, l, F, B = _antithetic(noise, f, logits)
    pairs = _surrogate.weighted(F[0] - F[1], B[0] - B[1]) / (2 * len(noise))
    return attach(_surrogate.mean_value(values), logits, pairs * jax.nn.sigmoid(jnp.abs(l)))


def _antithetic(noise, f, logits):
    """f at the bits of pairs of mirrored noise, and the constants logits, f, bits of (2, pairs)."""
    wide = jax.lax.stop_gradient(_numerics.widen(logits))
    b = _numerics.indicator(jnp.stack([wide[None] + noise, wide[None] - noise]))
    values = jax.vmap(lambda b: _surrogate.evaluate(f, b))(b.astype(logits.dtype))
    return values, *constants(wide, values, b)


def arms(key, f, logits, *, num_samples=4):
    """RLOO over bits that push one another apart, by a Dirichlet copula in each entry.

    Gradient: rho / (K - 1) sum_k (f_k - fbar) (b_k - p), rho = q (1 - q) / (q - J(q)) an entry,
      with q = min(p, 1 - p) and J(q) = max(0, 2 q^(1/(K - 1)) - 1)^(K - 1) = P(two bits both rare).
    Bias: none. K = 2 is disarm with one pair, in law; rho = 1 would be independent bits.
    Cost: K calls of f.
    Args: num_samples: static integer >= 2.
    Source: Dimitriev and Zhou 2021, arXiv:2105.14141 (ARMS-D), without their constant in the
      denominator, which is a bias.
    """
    num_samples = _arguments.count("num_samples", num_samples, 2)
    wide, _ = _arguments.parameters("logits", logits, None)
    noise = _noise.exponential(key, (num_samples, *wide.shape), wide.dtype)
    return _arms(noise, f, jnp.asarray(logits))


def _arms(noise, f, logits):
    K = len(noise)
    wide = jax.lax.stop_gradient(_numerics.widen(logits))
    log_q = jax.nn.log_sigmoid(-jnp.abs(wide))
    # u_k = (1 - d_k)^(K - 1) is uniform, d = noise / sum(noise); below q the bit is the rare one.
    log_rest = jnp.log(_surrogate.mean_of_others(noise)) + np.log(K - 1).astype(wide.dtype)
    log_u = (K - 1) * (log_rest - jnp.log(jnp.sum(noise, axis=0, keepdims=True)))
    rare = _numerics.indicator(log_q[None] - log_u)
    b = jnp.where(wide[None] < 0, rare, 1 - rare)
    values = _surrogate.evaluate(f, b.astype(logits.dtype))
    l, F, B = constants(wide, values, b)
    both = jnp.maximum(0, 2 - jnp.exp(-log_q.astype(F.dtype) / (K - 1))) ** (K - 1)
    rho = jax.nn.sigmoid(jnp.abs(l)) / (1 - both)
    g = rho * _surrogate.score(bernoulli.family, leave_one_out(F), B, l)
    return attach(_surrogate.mean_value(values), logits, g)


# -------------------------------------------------------------------------------- one categorical


def unordered_set(key, f, logits, *, num_samples=4):
    """The classes of a Gumbel top-k draw without replacement, each weighted by its exact
    conditional probability of having been drawn first.

    Value: sum_S w_s f_s, w_s = P(s first | the set S).
    Gradient: sum_S w_s (f_s - B_s) (e_s - p), B_s the estimate of E[f] from S given that s came
      first.
    Bias: none in value and gradient. With as many samples as classes both are exact.
    Cost: min(num_samples, C) calls of f, and 2^num_samples numbers.
    Args: logits: (C,), one variable; num_samples: static integer from 2 to 10.
    Source: Kool, van Hoof, Welling 2020, arXiv:2002.06043, eq. 9 and 15.
    """
    num_samples = _arguments.count("num_samples", num_samples, 2)
    if num_samples > 10:
        raise ValueError(f"num_samples: got {num_samples}, need at most 10: its cost is 2^samples")
    wide, dtype = _arguments.parameters("logits", logits, None, event_ndim=1)
    if wide.ndim != 1:
        raise ValueError(
            f"logits: got {_arguments.describe(wide)}, need shape (C,), one categorical; "
            "indecater and rloo serve several"
        )
    noise = _noise.gumbel(key, wide.shape, wide.dtype)
    _, chosen = jax.lax.top_k(jax.lax.stop_gradient(wide) + noise, min(num_samples, len(wide)))
    return _unordered_set(chosen, f, jnp.asarray(logits))


def _unordered_set(chosen, f, logits):
    e = jax.nn.one_hot(chosen, len(logits), dtype=logits.dtype)
    values = _surrogate.evaluate(f, e)
    l, F, e = constants(logits, values, e)
    log_p = jax.nn.log_softmax(l)
    log_first, log_completed = _completions(log_p, chosen)
    p = jnp.exp(log_p[chosen])
    w = p * jnp.exp(log_first)
    F = jnp.where(p == 0, 0, F)
    a = w * (F - _surrogate.weighted(jnp.exp(log_completed), p * F))
    value = jnp.sum(w * jnp.where(p == 0, 0, values.astype(w.dtype))).astype(values.dtype)
    return attach(value, logits, _surrogate.weighted(a, e - jnp.exp(log_p)[None]))


def _completions(log_p, chosen):
    """log H({s}) / H({}) for each s, and log H({s, t}) / H({s}) for each pair (0 where s = t).

    H(T) is the probability that the draws after T complete the set: H(S) = 1 and
    H(T) = sum_{t in S - T} p_t / (1 - p(T)) H(T + t), over the bit masks of T, large ones first.
    """
    # In H alone a masked class is merely rare: fewer live classes than samples then work.
    log_p = jnp.maximum(log_p, -1e3)
    k = len(chosen)
    inside, outside = log_p[chosen], jax.nn.logsumexp(log_p.at[chosen].set(-jnp.inf))
    masks = np.arange(2**k)
    member = (masks[:, None] >> np.arange(k)) & 1
    log_h = jnp.zeros(2**k, log_p.dtype)
    for size in range(k - 1, -1, -1):
        level = masks[member.sum(axis=1) == size]
        missing = np.array([np.flatnonzero(1 - member[mask]) for mask in level])
        rest = inside[missing]
        log_left = jnp.logaddexp(jax.nn.logsumexp(rest, axis=1), outside)
        after = log_h[level[:, None] | 1 << missing]
        log_h = log_h.at[level].set(jax.nn.logsumexp(rest + after, axis=1) - log_left)
    single = 1 << np.arange(k)
    pairs = log_h[single[:, None] | single] - log_h[single][:, None]
    return log_h[single] - log_h[0], pairs
