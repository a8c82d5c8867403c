"""Score-function estimators: the loss, not the sample, carries the gradient.

Start with `rloo`, which takes any distribution, calls f twice and has no hyperparameter. `disarm`
is better for bits at the same cost, and `control_variates.quadratic` where its coefficients can be
learned. All samples of one call go through one vmapped f; batch over data with jax.vmap. Where f
itself closes over params (an entropy term), its own derivative adds to the estimator, as it should.
Every error is raised at trace time.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from relaxjax import _arguments, _noise, _numerics, _surrogate, bernoulli
from relaxjax._surrogate import attach, constants

# ------------------------------------------------------------------------------------ any law


def reinforce(key, f, params, *, family, num_samples=1, baseline=0.0):
    """Estimate E[f(x)] with REINFORCE: the score function, weighted by f less a constant.

    Value: the mean of f(x_k) over K = num_samples samples x_k.
    Gradient: 1/K sum_k (f_k - baseline) s(x_k) for params and 0 for baseline, where f_k = f(x_k)
      and s(x) is the gradient of log_prob in params, which is x - p for bits and categoricals.
    Bias: none, as long as baseline does not depend on the samples.
    Cost: K calls of f. The variance grows with (f - baseline)^2.

    Args:
      key: PRNG key.
      f: function of one whole sample, shaped as `family.sample` makes it, to a float scalar; it may
        close over anything, tracers included.
      params: parameters of the family, its logits or any pytree that it takes; leading axes are
        independent variables of one joint sample.
      family: a `Family`; sample and log_prob are enough.
      num_samples: static integer >= 1, K.
      baseline: real scalar; may be traced.

    Returns:
      A scalar to minimize, in the dtype of f; arithmetic is in float32 or wider. Its gradient in
      params is the one above, in their dtype; in what f closes over it is the ordinary one,
      averaged over the samples. Second derivatives in params are NaN: see `dice`.

    Raises:
      TypeError: f returns no float, num_samples is no static integer, or baseline is no number.
      ValueError: f returns an array that is no scalar, num_samples is below 1, baseline is no
        scalar, or a Python or NumPy baseline is not finite.

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
    """Estimate E[f(x)] with REINFORCE, where each sample's baseline is the mean of f at the others.

    Value: the mean of f(x_k) over K = num_samples samples x_k.
    Gradient: 1/(K - 1) sum_k (f_k - fbar) s(x_k) for params, where f_k = f(x_k), fbar is their mean
      and s(x) is the gradient of log_prob in params, which is x - p for bits and categoricals.
    Bias: none.
    Cost: K calls of f.

    Args:
      key: PRNG key.
      f: function of one whole sample, shaped as `family.sample` makes it, to a float scalar; it may
        close over anything, tracers included.
      params: parameters of the family, its logits or any pytree that it takes; leading axes are
        independent variables of one joint sample.
      family: a `Family`; sample and log_prob are enough.
      num_samples: static integer >= 2, K.

    Returns:
      A scalar to minimize, in the dtype of f; arithmetic is in float32 or wider. Its gradient in
      params is the one above, in their dtype; in what f closes over it is the ordinary one,
      averaged over the samples. Second derivatives in params are NaN: see `dice`.

    Raises:
      TypeError: f returns no float, or num_samples is no static integer.
      ValueError: f returns an array that is no scalar, or num_samples is below 2.

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


def dice(key, f, params, *, family, num_samples=2):
    """Estimate E[f(x)] and its derivatives of every order, in params and in what f closes over.

    Value: the mean of f(x_k) over K = num_samples samples x_k.
    Gradient: that of `rloo`, 1/K sum_k (f_k - b_k) s(x_k) for params, where f_k = f(x_k), b_k is
      the mean of f at the other samples and s(x) is the gradient of log_prob in params: that of
      1/K sum_k (f_k + (box_k - 1) (f_k - b_k)), with box_k = exp(log_prob(x_k) - its own value),
      which is 1, and whose derivatives of all orders are those of the probability over it. The
      Hessian in params is 1/K sum_k (f_k - b_k) (s s' + the Hessian of log_prob) at x_k.
    Bias: none, in derivatives of any order, also mixed ones. Their variance grows with the order.
    Cost: K calls of f, and one of log_prob for each, also where the value alone is asked for; with
      first derivatives alone `rloo` costs less.

    Args:
      key: PRNG key.
      f: function of one whole sample, shaped as `family.sample` makes it, to a float scalar; it may
        close over anything, tracers included. An infinite value at a sample gives NaN.
      params: parameters of the family, its logits or any pytree that it takes; leading axes are
        independent variables of one joint sample.
      family: a `Family`; sample and log_prob are enough, log_prob as often differentiable as this.
      num_samples: static integer >= 2, K.

    Returns:
      A scalar to minimize, in the dtype of f; arithmetic is in float32 or wider.

    Raises:
      TypeError: f returns no float, or num_samples is no static integer.
      ValueError: f returns an array that is no scalar, or num_samples is below 2.

    Source: Foerster et al. 2018, arXiv:1802.05098, for box; Mao et al. 2019, arXiv:1906.00957, for
      its baselines.
    """
    num_samples = _arguments.count("num_samples", num_samples, 2)
    return _dice(_surrogate.draw(key, params, family, num_samples), f, params, family)


def _dice(x, f, params, family):
    values = _surrogate.evaluate(f, x)
    # A backward pass computes log_prob again, and keeps the samples alone.
    log_p = jax.checkpoint(functools.partial(_surrogate.log_probs, family))(x, params)
    dtype = _numerics.widest(values, log_p)
    F, log_p = values.astype(dtype), log_p.astype(dtype)
    # Plain arithmetic: a custom rule is lost in a scan under reverse over reverse.
    box = jnp.exp(log_p - jax.lax.stop_gradient(log_p))
    b = _surrogate.mean_of_others(F)  # not stopped: mixed derivatives have less variance
    return jnp.mean(F + (box - 1) * (F - b)).astype(values.dtype)


def leave_one_out(t):
    """Compute the weight of each sample's score: (t_k - the mean of the others) / K.

    Args:
      t: (K,) floats, K >= 2, such as f at the samples.

    Returns:
      The weights, (K,) in the dtype of t.
    """
    return (t - jnp.mean(t)) / (len(t) - 1)


def double_cv(key, f, params, *, family, num_samples=2, scale=0.5):
    """Estimate E[f(x)] with RLOO and a second control variate, made from f's own gradients.

    Value: the mean of f(x_k) over K = num_samples samples x_k.
    Gradient: g = 1/(K - 1) sum_k (t_k - tbar) s(x_k) + scale Sigma vbar for params, where
      t_k = f(x_k) - scale <v_k, x_k - mu>, tbar is their mean, mu = E[x], v_k is the mean of grad
      f(x_j) over j != k, vbar the mean of all grad f(x_k), Sigma v the pullback of mu at v and s(x)
      the gradient of log_prob in params, which is x - mu for bits, categoricals and k-subsets. For
      scale it is the gradient of ||g||^2, which estimates the gradient of the total variance
      without bias.
    Bias: none at any scale that does not depend on the samples, for any distribution with a mean.
      For linear f at scale 1 the variance is 0 too; scale 0 is rloo.
    Cost: K calls of f with their gradients; f must be differentiable between the samples.

    Args:
      key: PRNG key.
      f: function of one whole sample, shaped as `family.sample` makes it, to a float scalar; it may
        close over anything, tracers included.
      params: parameters of the family, its logits or any pytree that it takes; leading axes are
        independent variables of one joint sample.
      family: a `Family` with mean, whose samples are floats.
      num_samples: static integer >= 2, K.
      scale: any real scalar; may be traced. Learn it by descent.

    Returns:
      A scalar to minimize, in the dtype of f; arithmetic is in float32 or wider. Its gradients in
      params and in scale are those above, in their dtypes; in what f closes over it is the ordinary
      one, averaged over the samples. Second derivatives in params are NaN: see `dice`.

    Raises:
      TypeError: samples are integers, f returns no float, num_samples is no static integer, or
        scale is no number.
      ValueError: the family has no mean, f returns an array that is no scalar, num_samples is below
        2, scale is no scalar, or a Python or NumPy scale is not finite.

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
        return _surrogate.add(g, correction, scale)

    return _surrogate.attach_variance(_surrogate.mean_value(values), params, scale, gradient)


def vimco(key, log_weight, params, *, family, num_samples=2):
    """Estimate minus the importance-weighted bound of K samples, with leave-one-out baselines.

    Value: -L, L = log mean_k exp(f_k) over K = num_samples samples x_k, where f_k =
      log_weight(x_k), the log p(x, z) - log q(z) of one sample z. L is a lower bound of the log
      evidence in expectation; its negative is to be minimized, as every scalar here.
    Gradient: sum_k (L_k - L) s(x_k) for params, where L_k is L with f_k replaced by the mean of the
      other f_j and s(x) is the gradient of log_prob in params, which is x - p for bits and
      categoricals. What log_weight closes over, params too, gets -sum_k softmax(f)_k grad f_k.
    Bias: none for the gradient of E[L].
    Cost: K calls of log_weight.

    Args:
      key: PRNG key.
      log_weight: function of one whole sample, shaped as `family.sample` makes it, to a float
        scalar; it may close over anything, tracers included. A weight of 0 is a log_weight of -inf.
      params: parameters of the family q, its logits or any pytree that it takes; leading axes are
        independent variables of one joint sample.
      family: a `Family`; sample and log_prob are enough.
      num_samples: static integer >= 2, K.

    Returns:
      A scalar to minimize, in nats and in the dtype of log_weight; arithmetic is in float32 or
      wider. Its gradients are those above, in the dtype of what they are taken in. Second
      derivatives in params are 0.

    Raises:
      TypeError: log_weight returns no float, or num_samples is no static integer.
      ValueError: log_weight returns an array that is no scalar, or num_samples is below 2.

    Source: Mnih and Rezende 2016, arXiv:1602.06725, eq. 7 to 10.
    """
    num_samples = _arguments.count("num_samples", num_samples, 2)
    return _vimco(_surrogate.draw(key, params, family, num_samples), log_weight, params, family)


def _vimco(x, log_weight, params, family):
    values = _surrogate.evaluate(log_weight, x)
    l, F, X = constants(params, values, x)
    bound = lambda f: jax.nn.logsumexp(f, axis=-1) - np.log(len(F)).astype(f.dtype)
    own = np.eye(len(F), dtype=bool)
    # Not a product with weights: 0 times -inf, the logarithm of a weight 0, is NaN.
    others = jnp.sum(jnp.where(own, 0, F[None]), axis=1) / (len(F) - 1)
    without = jnp.where(own, others[:, None], F[None, :])
    g = _surrogate.score(family, bound(without) - bound(F), X, l)
    return attach(-bound(_numerics.widen(values)).astype(values.dtype), params, g)


def exact(key, f, params, *, family):
    """Compute E[f(x)] by summing over the support: no variance, every derivative exact.

    Value: sum_x p(x) f(x); a state of probability 0 contributes 0, whatever f is there.
    Gradient: exact, to any order, by ordinary autodiff in params and in what f closes over.
    Bias: none.
    Cost: one call of f for each state, all in one vmapped call, whose memory grows with their
      number.

    Args:
      key: ignored; there is nothing random.
      f: function of one whole sample, shaped as `family.sample` makes it, to a float scalar; it may
        close over anything, tracers included.
      params: parameters of the family, its logits or any pytree that it takes.
      family: a `Family` with support; faster where it has event_ndim.

    Returns:
      A scalar to minimize, in the dtype of f; arithmetic is in float32 or wider.

    Raises:
      TypeError: f returns no float.
      ValueError: the family has no support, its variables have more than 2^20 joint states, or f
        returns an array that is no scalar.
    """
    del key
    _surrogate.require(family, "exact", "support")
    support, log_p = _surrogate.support_and_log_probs(family, params)
    values = _surrogate.evaluate(f, support)
    dtype = _numerics.widest(values, log_p)
    p = jnp.exp(log_p.astype(dtype))
    return jnp.sum(p * jnp.where(p == 0, 0, values.astype(dtype))).astype(values.dtype)


# ---------------------------------------------------------------------- independent variables


def indecater(key, f, params, *, family):
    """Estimate E[f(x)] by summing over each variable's values, with the others held at one sample.

    Value: f(x) at the sample x.
    Gradient: for params the sum, over variables i and their other values y, of
      p_i(y) (f(x with variable i set to y) - f(x)) s_i(y), where s_i is the gradient of variable
      i's log_prob. For categoricals that is p_ic (F_ic - sum_c' p_ic' F_ic') at class c, where
      F_ic = f(x with variable i set to c).
    Bias: none. The variance is 0 for one variable, and for f that is a sum over variables.
    Cost: N (C - 1) + 1 calls of f for N categoricals of C classes, D + 1 for D bits; f(x) alone
      carries the gradient of what f closes over.

    Args:
      key: PRNG key.
      f: function of one whole sample, shaped as `family.sample` makes it, to a float scalar; it may
        close over anything, tracers included.
      params: parameters of the family, its logits or any pytree that it takes; leading axes are
        independent variables of one joint sample.
      family: a `Family` with event_ndim and neighbors, such as those of `bernoulli` and
        `categorical`.

    Returns:
      A scalar to minimize, in the dtype of f; arithmetic is in float32 or wider. Its gradient in
      params is the one above, in their dtype; in what f closes over it is the ordinary one at x.
      Second derivatives in params are NaN: see `dice`.

    Raises:
      TypeError: f returns no float.
      ValueError: the family has no event_ndim or no neighbors, or f returns an array that is no
        scalar.

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
    # As differences from f(x), so that rounding cancels; where q is 0, f may be anything.
    gain = jnp.where(q == 0, 0, q * (G.astype(F.dtype).reshape(q.shape) - F))
    g = _surrogate.score_by_variable(family, gain, X[None] + steps, l)
    return attach(value, params, g)


# ------------------------------------------------------------------------------------ bits only


def arm(key, f, params):
    """Estimate E[f(b)] from a pair of antithetic bits: augment-REINFORCE-merge.

    Value: (f(b) + f(b')) / 2, where b = 1[u > 1 - p] and b' = 1[u < p], p = sigmoid(params) and
      u ~ U(0, 1) per entry.
    Gradient: (f(b) - f(b')) (u - 1/2) for params; 0 at infinite params.
    Bias: none.
    Cost: 2 calls of f. `disarm` has the same cost and never more variance.

    Args:
      key: PRNG key.
      f: function of all bits, exactly 0.0 or 1.0 and shaped as params, to a float scalar; it may
        close over anything, tracers included.
      params: floats of any shape, the log-odds of independent bits of one joint sample; infinite
        ones are bits that never change.

    Returns:
      A scalar to minimize, in the dtype of f; arithmetic is in float32 or wider. Its gradient in
      params is the one above, in their dtype; in what f closes over it is the ordinary one,
      averaged over both samples. Second derivatives in params are NaN: see `dice`.

    Raises:
      TypeError: params are not floats, or f returns no float.
      ValueError: f returns an array that is no scalar.

    Source: Yin and Zhou 2019, arXiv:1807.11143, theorem 1.
    """
    wide, _ = _arguments.parameters("params", params, None)
    noise = _noise.logistic(key, wide.shape, wide.dtype)
    return _arm(noise, f, jnp.asarray(params))


def _arm(noise, f, params):
    values, l, F, _ = _antithetic(noise[None], f, params)
    # u - 1/2 = tanh(noise / 2) / 2, and 0 for a sure bit, which no noise changes.
    u = jnp.where(jnp.isinf(l), 0, jnp.tanh(noise / 2) / 2)
    return attach(_surrogate.mean_value(values), params, (F[0, 0] - F[1, 0]) * u)


def disarm(key, f, params, *, num_samples=2):
    """Estimate E[f(b)] from pairs of antithetic bits, as `arm` does with its noise integrated out.

    Value: the mean of f over all num_samples samples.
    Gradient: for params the mean over num_samples / 2 pairs of
      (f(b) - f(b')) (b - b') s(|params|) / 2, where b = 1[u > 1 - p] and b' = 1[u < p],
      p = s(params), s is the sigmoid and u ~ U(0, 1) per entry and pair.
    Bias: none.
    Cost: num_samples calls of f.

    Args:
      key: PRNG key.
      f: function of all bits, exactly 0.0 or 1.0 and shaped as params, to a float scalar; it may
        close over anything, tracers included.
      params: floats of any shape, the log-odds of independent bits of one joint sample; infinite
        ones are bits that never change.
      num_samples: static even integer >= 2.

    Returns:
      A scalar to minimize, in the dtype of f; arithmetic is in float32 or wider. Its gradient in
      params is the one above, in their dtype; in what f closes over it is the ordinary one,
      averaged over the samples. Second derivatives in params are NaN: see `dice`.

    Raises:
      TypeError: params are not floats, f returns no float, or num_samples is no static integer.
      ValueError: num_samples is odd or below 2, or f returns an array that is no scalar.

    Source: Dong, Mnih, Tucker 2020, arXiv:2006.10680; Yin et al. 2020 (U2G).
    """
    num_samples = _arguments.count("num_samples", num_samples, 2)
    if num_samples % 2:
        raise ValueError(f"num_samples: got {num_samples}, need an even integer: bits are in pairs")
    wide, _ = _arguments.parameters("params", params, None)
    noise = _noise.logistic(key, (num_samples // 2, *wide.shape), wide.dtype)
    return _disarm(noise, f, jnp.asarray(params))


def _disarm(noise, f, params):
    values, l, F, B = _antithetic(noise, f, params)
    pairs = _surrogate.weighted(F[0] - F[1], B[0] - B[1]) / (2 * len(noise))
    return attach(_surrogate.mean_value(values), params, pairs * jax.nn.sigmoid(jnp.abs(l)))


def _antithetic(noise, f, params):
    """f at pairs of bits of mirrored noise, and the constants params, f, bits; (2, pairs) lead."""
    wide = jax.lax.stop_gradient(_numerics.widen(params))
    b = _numerics.indicator(jnp.stack([wide[None] + noise, wide[None] - noise]))
    values = jax.vmap(lambda b: _surrogate.evaluate(f, b))(b.astype(params.dtype))
    return values, *constants(wide, values, b)


def arms(key, f, params, *, num_samples=4):
    """Estimate E[f(b)] with RLOO over bits that repel one another, by a Dirichlet copula per entry.

    Value: the mean of f(b_k) over K = num_samples samples b_k.
    Gradient: rho / (K - 1) sum_k (f_k - fbar) (b_k - p) for params, where f_k = f(b_k), fbar is
      their mean, p = sigmoid(params), and per entry rho = q (1 - q) / (q - J(q)), with
      q = min(p, 1 - p) and J(q) = max(0, 2 q^(1/(K - 1)) - 1)^(K - 1) = P(two bits both take their
      rarer value).
    Bias: none. K = 2 is disarm with one pair, in distribution; independent bits would have rho = 1.
    Cost: K calls of f.

    Args:
      key: PRNG key.
      f: function of all bits, exactly 0.0 or 1.0 and shaped as params, to a float scalar; it may
        close over anything, tracers included.
      params: floats of any shape, the log-odds of independent bits of one joint sample; infinite
        ones are bits that never change.
      num_samples: static integer >= 2, K.

    Returns:
      A scalar to minimize, in the dtype of f; arithmetic is in float32 or wider. Its gradient in
      params is the one above, in their dtype; in what f closes over it is the ordinary one,
      averaged over the samples. Second derivatives in params are NaN: see `dice`.

    Raises:
      TypeError: params are not floats, f returns no float, or num_samples is no static integer.
      ValueError: num_samples is below 2, or f returns an array that is no scalar.

    Source: Dimitriev and Zhou 2021, arXiv:2105.14141 (ARMS-D), without their constant in the
      denominator, which is a bias.
    """
    num_samples = _arguments.count("num_samples", num_samples, 2)
    wide, _ = _arguments.parameters("params", params, None)
    noise = _noise.exponential(key, (num_samples, *wide.shape), wide.dtype)
    return _arms(noise, f, jnp.asarray(params))


def _arms(noise, f, params):
    K = len(noise)
    wide = jax.lax.stop_gradient(_numerics.widen(params))
    log_q = jax.nn.log_sigmoid(-jnp.abs(wide))
    # u_k = (1 - d_k)^(K - 1) is uniform, d = noise / sum(noise); below q the bit is the rare one.
    log_rest = jnp.log(_surrogate.mean_of_others(noise)) + np.log(K - 1).astype(wide.dtype)
    log_u = (K - 1) * (log_rest - jnp.log(jnp.sum(noise, axis=0, keepdims=True)))
    rare = _numerics.indicator(log_q[None] - log_u)
    b = jnp.where(wide[None] < 0, rare, 1 - rare)
    values = _surrogate.evaluate(f, b.astype(params.dtype))
    l, F, B = constants(wide, values, b)
    both = jnp.maximum(0, 2 - jnp.exp(-log_q.astype(F.dtype) / (K - 1))) ** (K - 1)
    rho = jax.nn.sigmoid(jnp.abs(l)) / (1 - both)
    g = rho * _surrogate.score(bernoulli.family, leave_one_out(F), B, l)
    return attach(_surrogate.mean_value(values), params, g)


# -------------------------------------------------------------------------------- one categorical


def unordered_set(key, f, params, *, num_samples=4):
    """Estimate E[f(x)] of one categorical from a set of classes drawn without replacement.

    The set is that of a Gumbel top-k draw, and each of its classes is weighted by the exact
    conditional probability that it was drawn first.

    Value: sum_s w_s f_s over the classes s of the set S, where f_s = f(e_s), e_s is the one-hot of
      s and w_s = P(s was drawn first | the set is S).
    Gradient: sum_s w_s (f_s - B_s) (e_s - p) for params, where p = softmax(params) and B_s is the
      estimate of E[f] from S given that s came first.
    Bias: none in value and gradient. With as many samples as classes both are exact.
    Cost: min(num_samples, C) calls of f, and memory for 2^num_samples numbers.

    Args:
      key: PRNG key.
      f: function of a one-hot (C,), entries exactly 0.0 and 1.0, to a float scalar; it may close
        over anything, tracers included.
      params: (C,) floats, unnormalized log-probabilities of one variable; -inf masks a class, at
        which f may be anything.
      num_samples: static integer from 2 to 10.

    Returns:
      A scalar to minimize, in the dtype of f; arithmetic is in float32 or wider. Its gradient in
      params is the one above, in their dtype; in what f closes over it is sum_s w_s grad f_s.
      Second derivatives in params are NaN: see `dice`.

    Raises:
      TypeError: params are not floats, f returns no float, or num_samples is no static integer.
      ValueError: params do not have shape (C,), num_samples is not from 2 to 10, or f returns an
        array that is no scalar.

    Source: Kool, van Hoof, Welling 2020, arXiv:2002.06043, eq. 9 and 15.
    """
    num_samples = _arguments.count("num_samples", num_samples, 2)
    if num_samples > 10:
        raise ValueError(f"num_samples: got {num_samples}, need at most 10: its cost is 2^samples")
    wide, dtype = _arguments.parameters("params", params, None, event_ndim=1)
    if wide.ndim != 1:
        raise ValueError(
            f"params: got {_arguments.describe(wide)}, need shape (C,), one categorical; "
            "indecater and rloo serve several"
        )
    noise = _noise.gumbel(key, wide.shape, wide.dtype)
    _, chosen = jax.lax.top_k(jax.lax.stop_gradient(wide) + noise, min(num_samples, len(wide)))
    return _unordered_set(chosen, f, jnp.asarray(params))


def _unordered_set(chosen, f, params):
    e = jax.nn.one_hot(chosen, len(params), dtype=params.dtype)
    values = _surrogate.evaluate(f, e)
    l, F, e = constants(params, values, e)
    log_p = jax.nn.log_softmax(l)
    log_first, log_completed = _completions(log_p, chosen)
    p = jnp.exp(log_p[chosen])
    w = p * jnp.exp(log_first)
    F = jnp.where(p == 0, 0, F)
    a = w * (F - _surrogate.weighted(jnp.exp(log_completed), p * F))
    value = jnp.sum(w * jnp.where(p == 0, 0, values.astype(w.dtype))).astype(values.dtype)
    return attach(value, params, _surrogate.weighted(a, e - jnp.exp(log_p)[None]))


def _completions(log_p, chosen):
    """log H({s}) / H({}) for each s, and log H({s, t}) / H({s}) for each pair (0 where s = t).

    H(T) is the probability that the draws after T complete the set: H(S) = 1 and
    H(T) = sum_{t in S - T} p_t / (1 - p(T)) H(T + t), over the bit masks of T, large ones first.
    """
    # In H alone a masked class counts as rare, so that fewer live classes than samples work.
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
