"""Score-function estimators that subtract a control variate, whose mean is known, from f.

Start with `quadratic` where a small network can learn its coefficients: it costs no call of f and
has the least variance of all at two calls. `muprop` and `rebar` need nothing learned, but call f
between its samples. The hyperparameters that say so get the gradient of ||g||^2, where g is the
gradient in params: E[g] does not depend on them, so that it estimates the gradient of the total
variance without bias, and one jax.grad and one optimizer train the model and the control variate
together, by descent. Every error is raised at trace time.
"""

import jax
import jax.numpy as jnp

from relaxjax import _arguments, _surrogate
from relaxjax._surrogate import attach, attach_variance, constants
from relaxjax.score import leave_one_out


def muprop(key, f, params, *, family):
    """Estimate E[f(x)] with REINFORCE, corrected by f's first-order expansion at the mean.

    Value: f(x) at one sample x.
    Gradient: (f(x) - f(mu) - <f'(mu), delta>) s(x) + Sigma f'(mu) for params, where mu = E[x],
      delta = x - mu, Sigma v is the pullback of mu at v and s(x) the gradient of log_prob in
      params, which is delta for bits, categoricals and k-subsets.
    Bias: none, for any distribution with a mean. The variance is 0 for linear f.
    Cost: 2 calls of f, one of them with its gradient, at mu, which is not a sample.

    Args:
      key: PRNG key.
      f: function of one whole sample, shaped as `family.sample` makes it, to a float scalar,
        differentiable at mu; it may close over anything, tracers included.
      params: parameters of the family, its logits or any pytree that it takes; leading axes are
        independent variables of one joint sample.
      family: a `Family` with mean, whose samples are floats.

    Returns:
      A scalar to minimize, in the dtype of f; arithmetic is in float32 or wider. Its gradient in
      params is the one above, in their dtype; in what f closes over it is the ordinary one at x.
      Second derivatives are NaN: see `score.dice`.

    Raises:
      TypeError: samples are integers, or f returns no float.
      ValueError: the family has no mean, or f returns an array that is no scalar.

    Source: Gu et al. 2016, arXiv:1511.05176.
    """
    _surrogate.require(family, "muprop", "mean")
    (x,) = _surrogate.draw(key, params, family, 1)
    return _muprop(x, f, params, family)


def _muprop(x, f, params, family):
    value = _arguments.scalar(f(x))
    l, F, X = constants(params, value, x)
    mu, pull = _surrogate.mean_and_pullback(family, l)
    expansion = _surrogate.evaluate_with_slopes(f, mu.astype(x.dtype)[None])
    f_mu, slope = jax.tree.map(lambda y: y[0].astype(F.dtype), constants(*expansion))
    a = F - f_mu - _surrogate.inner_product(slope, X - mu)
    g = _surrogate.score(family, a[None], X[None], l)
    return attach(value, params, _surrogate.add(g, pull(slope)))


def quadratic(key, f, params, *, family, linear, factors=None, num_samples=2):
    """Estimate E[f(x)] with RLOO on f less a learned quadratic, whose mean is exact.

    Value: the mean of f(x_k) over K = num_samples samples x_k.
    Gradient: g = 1/(K - 1) sum_k (t_k - tbar) s(x_k) + grad H for params, where
      t_k = f(x_k) - h(x_k), tbar is their mean, h(x) = <a, x> + sum_r <u_r, x>^2 with a = linear
      and u_r = factors[r], H = E[h] = <a, mu> + sum_r (<u_r, mu>^2 + Var <u_r, x>), mu = E[x], and
      s(x) is the gradient of log_prob in params, which is x - mu for bits, categoricals and
      k-subsets. For linear and factors it is the gradient of ||g||^2, which estimates the gradient
      of the total variance without bias.
    Bias: none as long as linear and factors depend on neither samples nor f at them; they may
      depend on the data and on stop_gradient(params), as a network's output. For f in the span of h
      the variance is 0; with linear 0 and no factors it is rloo.
    Cost: K calls of f, without its gradients.

    Args:
      key: PRNG key.
      f: function of one whole sample, shaped as params, to a float scalar; it may close over
        anything, tracers included.
      params: parameters of the family, one array of floats; leading axes are independent variables
        of one joint sample.
      family: a `Family` with mean, of the shape of params, and with variance where there are
        factors.
      linear: floats shaped as params.
      factors: floats (R, *params.shape), or None for none.
      num_samples: static integer >= 2, K.

    Returns:
      A scalar to minimize, in the dtype of f; arithmetic is in float32 or wider. Its gradients in
      params, linear and factors are those above, in their dtypes; in what f closes over it is the
      ordinary one, averaged over the samples. Second derivatives are NaN: see `score.dice`.

    Raises:
      TypeError: linear or factors are not floats, f returns no float, or num_samples is no static
        integer.
      ValueError: the family has no mean, or no variance where there are factors, linear or factors
        have another shape, f returns an array that is no scalar, or num_samples is below 2.

    Source: of this library; no published form is known to us.
    """
    num_samples = _arguments.count("num_samples", num_samples, 2)
    needed = ("mean",) if factors is None else ("mean", "variance")
    _surrogate.require(family, "quadratic", *needed)
    shape = jnp.shape(params)
    linear = _arguments.floats("linear", linear)
    if linear.shape != shape:
        raise ValueError(
            f"linear: got {_arguments.describe(linear)}, need the shape of params {shape}"
        )
    if factors is not None:
        factors = _arguments.floats("factors", factors)
        if factors.shape[1:] != shape or factors.ndim == 0:
            need = f"(R, {', '.join(map(str, shape))}), a row for each factor"
            raise ValueError(f"factors: got {_arguments.describe(factors)}, need shape {need}")
    mean_shape = jax.eval_shape(family.mean, jnp.asarray(params)).shape
    if mean_shape != shape:
        need = f"one with a mean of the shape of params {shape}"
        raise ValueError(
            f"family: got {family.name}, whose mean has shape {mean_shape}, need {need}"
        )
    x = _surrogate.draw(key, params, family, num_samples)
    return _quadratic(x, f, params, family, linear, factors)


def _quadratic(x, f, params, family, linear, factors):
    values = _surrogate.evaluate(f, x)
    l, F, X = constants(params, values, x)
    axes = tuple(range(-l.ndim, 0))

    def mean_of_h(l, linear, factors):
        mu = family.mean(l)
        total = _surrogate.inner_product(linear, mu)
        if factors is not None:
            spread = jnp.sum(jax.vmap(family.variance, (0, None))(factors, l))
            total += jnp.sum(jnp.sum(factors * mu[None], axis=axes) ** 2) + spread
        return total

    def gradient(phi):
        linear, factors = jax.tree.map(lambda p: p.astype(F.dtype), phi)
        x = X.astype(F.dtype)
        h = jax.vmap(lambda x: jnp.sum(linear * x))(x)
        if factors is not None:
            projections = jax.vmap(lambda u: jax.vmap(lambda x: jnp.sum(u * x))(x))(factors)
            h += jnp.sum(projections**2, axis=0)
        g = _surrogate.score(family, leave_one_out(F - h), X, l)
        return g + jax.grad(mean_of_h)(l, linear, factors)

    phi = linear, factors
    return attach_variance(_surrogate.mean_value(values), params, phi, gradient)


# ------------------------------------------------------------------ relaxed control variates


def rebar(key, f, params, *, family, temperature=0.5, scale=1.0):
    """Estimate E[f(b)] with REINFORCE, corrected by f at relaxed samples that share the noise.

    Value: f(b) at one hard sample b.
    Gradient: g = (f(b) - c(z')) s(b) + grad c(z) - grad c(z') for params, where z = params + noise,
      b is the hard sample of z and relax(z) the relaxed one, sigmoid(z / temperature) or
      softmax(z / temperature), c(z) = scale f(relax(z)), z' has the distribution of z given b, with
      fresh noise, s(b) is the gradient of log_prob in params, and the last two gradients are in
      params with noise and b held fixed. For temperature and scale it is the gradient of ||g||^2,
      which estimates the gradient of the total variance without bias.
    Bias: none at any temperature and scale. At scale 0 it is reinforce.
    Cost: 3 calls of f, two of them with gradients, at relaxed samples.

    Args:
      key: PRNG key.
      f: function of one whole sample, shaped as params, to a float scalar, differentiable between
        the samples; it may close over anything, tracers included.
      params: parameters of the family, one array of floats; leading axes are independent variables
        of one joint sample.
      family: a `Family` with event_ndim and relaxation, such as those of `bernoulli` and
        `categorical`.
      temperature: positive scalar, or an array of the batch shape of params; may be traced.
      scale: any real scalar; may be traced.

    Returns:
      A scalar to minimize, in the dtype of f; arithmetic is in float32 or wider. Its gradients in
      params, temperature and scale are those above, in their dtypes; in what f closes over it is
      the ordinary one at b. Second derivatives are NaN: see `score.dice`.

    Raises:
      TypeError: params are not floats, f returns no float, or temperature or scale is no number.
      ValueError: the family has no event_ndim or no relaxation, params have too few axes, f returns
        an array that is no scalar, temperature does not fit the batch shape, scale is no scalar, or
        a Python or NumPy temperature is not positive, or such a scale not finite.

    Source: Tucker et al. 2017, arXiv:1703.07370, eq. 8; their lambda, eta are temperature, scale.
    """
    noise, fresh = _two_noises(key, params, family, "rebar")
    return _rebar(noise, fresh, f, params, family, temperature, scale)


def _rebar(noise, fresh, f, params, family, temperature, scale):
    scale = _arguments.hyperparameter("scale", scale, noise.ravel()[0], interval=_arguments.ANY)
    c = lambda scale, y: scale * _arguments.scalar(f(y)).astype(scale.dtype)
    return _relax(noise, fresh, f, params, family, c, scale, temperature)


def relax(key, f, params, *, family, critic, critic_params, temperature=0.5):
    """Estimate E[f(b)] as `rebar` does, with any critic in place of f: a free-form control variate.

    Value: f(b) at one hard sample b.
    Gradient: g = (f(b) - c(z')) s(b) + grad c(z) - grad c(z') for params, where z = params + noise,
      b is the hard sample of z and relax(z) the relaxed one, sigmoid(z / temperature) or
      softmax(z / temperature), c(z) = critic(critic_params, relax(z)), z' has the distribution of z
      given b, with fresh noise, s(b) is the gradient of log_prob in params, and the last two
      gradients are in params with noise and b held fixed. For critic_params and temperature it is
      the gradient of ||g||^2, which estimates the gradient of the total variance without bias.
    Bias: none for any critic. One that is far from f has a large variance: start it near 0 or f.
    Cost: 1 call of f, and what critic calls.

    Args:
      key: PRNG key.
      f: function of one whole sample, shaped as params, to a float scalar; it may close over
        anything, tracers included.
      params: parameters of the family, one array of floats; leading axes are independent variables
        of one joint sample.
      family: a `Family` with event_ndim and relaxation, such as those of `bernoulli` and
        `categorical`.
      critic: differentiable function (critic_params, y) -> float scalar, where y is a relaxed
        sample shaped as params. It takes whatever learns as critic_params and closes over none of
        it.
      critic_params: a pytree of floats.
      temperature: positive scalar, or an array of the batch shape of params; may be traced.

    Returns:
      A scalar to minimize, in the dtype of f; arithmetic is in float32 or wider. Its gradients in
      params, critic_params and temperature are those above, in their dtypes; in what f closes over
      it is the ordinary one at b. Second derivatives are NaN: see `score.dice`.

    Raises:
      TypeError: critic is not callable, params are not floats, f or critic returns no float, or
        temperature is no number.
      ValueError: the family has no event_ndim or no relaxation, params have too few axes, f or
        critic returns an array that is no scalar, temperature does not fit the batch shape, or a
        Python or NumPy temperature is not positive.

    Source: Grathwohl et al. 2018, arXiv:1711.00123, eq. 8; their c_phi is critic.
    """
    if not callable(critic):
        raise TypeError(f"critic: got {critic!r}, need a function (critic_params, y) -> scalar")
    noise, fresh = _two_noises(key, params, family, "relax")
    return _relax(noise, fresh, f, params, family, critic, critic_params, temperature)


def _two_noises(key, params, family, estimator):
    _surrogate.require(family, estimator, "event_ndim", "relaxation")
    wide, _ = _arguments.parameters("params", params, None, family.event_ndim)
    return [family.relaxation.noise(k, wide) for k in jax.random.split(key)]


def _relax(noise, fresh, f, params, family, critic, critic_params, temperature):
    law, event_ndim = family.relaxation, family.event_ndim
    wide, dtype = _arguments.parameters("params", params, None, event_ndim)
    temperature = _arguments.hyperparameter("temperature", temperature, wide, event_ndim)
    b = law.hard(noise, jax.lax.stop_gradient(wide))
    value = _arguments.scalar(f(b.astype(dtype)))
    l, F, b, noise, fresh = constants(wide, value, b, noise, fresh)

    def gradient(phi):
        critic_params, temperature = phi
        temperature = temperature.astype(l.dtype)

        def c(z):
            y = law.relax(z, temperature).astype(dtype)
            return _arguments.scalar(critic(critic_params, y), "critic")

        both = lambda l: jnp.stack([law.free(noise, l), law.given(fresh, b, l)])
        C, pull = jax.vjp(lambda l: jax.vmap(c)(both(l)), l)
        (difference,) = pull(jnp.asarray([1, -1], C.dtype))
        a = F - C[1].astype(F.dtype)
        return _surrogate.score(family, a[None], b[None], l) + difference

    return attach_variance(value, params, (critic_params, temperature), gradient)


# ------------------------------------------------------------------------- Stein's operator


def rodeo(key, f, params, *, family, num_samples=3, scale=1.0, critic=None, critic_params=None):
    """Estimate E[f(x)] with RLOO and control variates made by a discrete Stein operator.

    Value: the mean of f(x_k) over K = num_samples samples x_k.
    Gradient: g = 1/K sum_k ([f_k - mean_{j != k} (f_j + (A h_j)(x_j))] s(x_k) + (A h'_k s)(x_k))
      for params, where f_k = f(x_k), s(x) is the gradient of log_prob in params, and A is the Stein
      operator, (A h)(x) = sum_i (E[h(x with variable i drawn anew)] - h(x)), whose mean is 0 for
      every h. h_k and h'_k are the means over j != k of H and H' at (f_j, <grad f_j, y - mu>), a
      function of y, with mu = E[x]. For scale, or for critic_params where there is a critic, it is
      the gradient of ||g||^2, which estimates the gradient of the total variance without bias.
    Bias: none for any H, H'; num_samples 2 and scale 0 is rloo.
    Cost: K calls of f with their gradients; critic is called once, on arrays.

    Args:
      key: PRNG key.
      f: function of one whole sample, shaped as `family.sample` makes it, to a float scalar,
        differentiable at the samples; it may close over anything, tracers included.
      params: parameters of the family, its logits or any pytree that it takes; leading axes are
        independent variables of one joint sample.
      family: a `Family` with mean, event_ndim and neighbors, such as those of `bernoulli` and
        `categorical`.
      num_samples: static integer >= 2, K.
      scale: any real scalar; may be traced. It is not used, and gets gradient 0, beside a critic.
      critic: function (critic_params, value, increment) -> (H, H'), elementwise on two arrays of
        one shape; None is (scale increment, scale increment / 2), in closed form.
      critic_params: a pytree of floats, for critic alone.

    Returns:
      A scalar to minimize, in the dtype of f; arithmetic is in float32 or wider. Its gradients in
      params, scale and critic_params are those above, in their dtypes; in what f closes over it is
      the ordinary one, averaged over the samples. Second derivatives are NaN: see `score.dice`.

    Raises:
      TypeError: samples are integers, critic is not callable, f returns no float, num_samples is no
        static integer, or scale is no number.
      ValueError: the family has no mean, event_ndim or neighbors, f returns an array that is no
        scalar, num_samples is below 2, scale is no scalar, or a Python or NumPy scale is not
        finite.

    Source: Shi, Zhou, Hwang, Titsias, Mackey 2022, arXiv:2202.09497, with the sum over variables
      for their mean, and the increment from mu for theirs from x_j.
    """
    num_samples = _arguments.count("num_samples", num_samples, 2)
    _surrogate.require(family, "rodeo", "mean", "event_ndim", "neighbors")
    if critic is not None and not callable(critic):
        need = "a function (critic_params, value, increment) -> (H, H')"
        raise TypeError(f"critic: got {critic!r}, need {need}")
    x = _surrogate.draw(key, params, family, num_samples)
    return _rodeo(x, f, params, family, scale, critic, critic_params)


def _rodeo(x, f, params, family, scale, critic, critic_params):
    values, slopes = _surrogate.evaluate_with_slopes(f, x)
    l, F, V, X = constants(params, values, slopes, x)
    scale = _arguments.hyperparameter("scale", scale, F[0], interval=_arguments.ANY)
    if critic is None:
        phi, gradient = scale, _stein_linear(F, V, X, l, family)
    else:
        phi, gradient = critic_params, _stein(F, V, X, l, family, critic)
    return attach_variance(_surrogate.mean_value(values), params, phi, gradient)


def _stein_linear(F, V, X, l, family):
    """scale -> g for H = scale increment and H' = H / 2, without visiting neighbors."""
    event = tuple(range(-family.event_ndim, 0))
    mu, pull = _surrogate.mean_and_pullback(family, l)
    delta, v = X - mu[None], _surrogate.mean_of_others(V)
    c_i = jnp.sum(jnp.where(delta == 0, 0, v * delta), axis=event)
    c = jnp.sum(c_i.reshape(len(c_i), -1), axis=1)
    slopes = jax.vmap(lambda c_i, c: (c_i - 2 * c) / 2)(c_i, c)
    correction = pull(jnp.mean(v, axis=0))

    def gradient(scale):
        a = F - _surrogate.mean_of_others(F - scale * c)
        weights = jax.vmap(jnp.add)(scale * slopes, a) / len(F)
        g = _surrogate.score_by_variable(family, weights, X, l)
        return _surrogate.add(g, correction, scale / 2)

    return gradient


def _stein(F, V, X, l, family, critic):
    """critic_params -> g for any critic, over all neighbors of all samples."""
    K, event = len(F), tuple(range(-family.event_ndim, 0))
    delta = X - family.mean(l)[None]
    steps, q = jax.vmap(lambda x: family.neighbors(x, l))(X)
    here = jax.vmap(lambda d: jax.vmap(lambda v: _surrogate.inner_product(v, d))(V))(delta)
    # The increment by grad f_j at a neighbor of x_k is that at x_k plus a step of one variable.
    moved = jax.vmap(lambda s: jax.vmap(lambda v: jnp.sum(v[None] * s, axis=event))(V))(steps)
    increments = jnp.concatenate([here[..., None], here[..., None] + moved.reshape(K, K, -1)], -1)
    value = jnp.broadcast_to(F[None, :, None], increments.shape)
    own = jnp.eye(K, dtype=bool)[:, :, None]
    # The scores of x_k and of its neighbors differ in one variable.
    values = jnp.concatenate([X[:, None], X[:, None] + steps], axis=1)

    def gradient(critic_params):
        both = critic(critic_params, value, increments)
        shapes = [jnp.shape(h) for h in both] if isinstance(both, tuple) else jnp.shape(both)
        if shapes != [increments.shape] * 2:
            need = f"a pair (H, H') of arrays of shape {increments.shape}"
            raise ValueError(f"critic: got a value of shape {shapes}, need it to return {need}")
        H, H_score = (jnp.sum(jnp.where(own, 0, h), axis=1) / (K - 1) for h in both)

        def rise(h):
            there = h[:, 1:].reshape(q.shape)
            base = jax.vmap(lambda h, q: jnp.broadcast_to(h, q.shape))(h[:, 0], q)
            return jnp.where(q == 0, 0, q * (there - base)), jnp.where(q == 0, 0, q * there)

        total = lambda x: jnp.sum(x.reshape(K, -1), axis=1)
        a = F - _surrogate.mean_of_others(F + total(rise(H)[0]))
        rises, there = rise(H_score)
        here = jax.vmap(jnp.subtract)(a + total(rises), jnp.sum(there, axis=1))
        weights = jnp.concatenate([here[:, None], there], axis=1) / K
        flat = lambda x: x.reshape(-1, *x.shape[2:])
        return _surrogate.score_by_variable(family, flat(weights), flat(values), l)

    return gradient
