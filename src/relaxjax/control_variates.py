"""Score-function estimators with a control variate: a function whose mean is known, subtracted.

Start with `quadratic` where a small network can learn its coefficients: it costs no call of f and
has the least variance of all at two. `muprop` and `rebar` need nothing learned, but call f between
its samples.

Throughout, as in `score`: (key, f, logits, *, family, ...) -> a scalar to minimize, whose value
estimates E[f], whose gradient in logits is the estimator g, and whose gradient in what f closes
over is the ordinary one at the samples. Its gradient in phi - temperature, scale, critic_params,
linear, factors, and nothing else - is that of ||g||^2, which estimates the gradient of the total
variance without bias, since E[g] does not depend on phi: one jax.grad and one optimizer train the
model and the control variate together, by descent. Second derivatives are 0. temperature is a
positive scalar or has the batch shape of logits, scale any real scalar; both may be traced. In the
formulas x is a sample, mu = E[x], delta = x - mu, Sigma v the pullback of mu at v, s(x) the
gradient of log_prob, which is delta for the library's own laws. Errors, all at trace time:
ValueError for a family that cannot serve, TypeError where f does not return a float scalar or
samples are integers.
"""

import jax
import jax.numpy as jnp

from relaxjax import _arguments, _surrogate
from relaxjax._surrogate import attach, attach_variance, constants
from relaxjax.score import leave_one_out


def muprop(key, f, logits, *, family):
    """REINFORCE with f's first-order expansion at the mean as its control variate.

    Gradient: (f(x) - f(mu) - <f'(mu), delta>) s(x) + Sigma f'(mu).
    Bias: none, for any law with a mean. The variance is 0 for linear f.
    Cost: 2 calls of f, one of them with its gradient, at mu: not a sample.
    Source: Gu et al. 2016, arXiv:1511.05176.
    """
    _surrogate.require(family, "muprop", "mean")
    (x,) = _surrogate.draw(key, logits, family, 1)
    return _muprop(x, f, logits, family)


def _muprop(x, f, logits, family):
    value = _arguments.scalar(f(x))
    l, F, X = constants(logits, value, x)
    mu, pull = _surrogate.mean_and_pullback(family, l)
    expansion = _surrogate.evaluate_with_slopes(f, mu.astype(x.dtype)[None])
    f_mu, slope = jax.tree.map(lambda y: y[0].astype(F.dtype), constants(*expansion))
    a = F - f_mu - _surrogate.inner_product(slope, X - mu)
    g = _surrogate.score(family, a[None], X[None], l)
    return attach(value, logits, jax.tree.map(jnp.add, g, pull(slope)))


def quadratic(key, f, logits, *, family, linear, factors=None, num_samples=2):
    """RLOO on what is left of f after a learned quadratic whose mean is exact.

    Gradient: 1/(K - 1) sum_k (t_k - tbar) s(x_k) + grad H, K = num_samples, t_k = f(x_k) - h(x_k),
      h(x) = <a, x> + sum_r <u_r, x>^2 and
      H = E[h] = <a, mu> + sum_r (<u_r, mu>^2 + Var <u_r, x>), a = linear, u_r = factors[r].
    Bias: none as long as linear and factors depend on neither samples nor f at them; they may
      depend on the data and on stop_gradient(logits), as a network's output. For f in the span of h
      the variance is 0; with linear 0 and no factors it is rloo.
    Cost: K calls of f, without its gradients.
    Args: linear: shaped as logits; factors: (R, *logits.shape) or None; num_samples: static
      integer >= 2. Any law with a mean that has the shape of logits.
    Source: of this library; no published form is known to us.
    """
    num_samples = _arguments.count("num_samples", num_samples, 2)
    needed = ("mean",) if factors is None else ("mean", "variance")
    _surrogate.require(family, "quadratic", *needed)
    shape = jnp.shape(logits)
    linear = _arguments.floats("linear", linear)
    if linear.shape != shape:
        raise ValueError(
            f"linear: got {_arguments.describe(linear)}, need the shape of logits {shape}"
        )
    if factors is not None:
        factors = _arguments.floats("factors", factors)
        if factors.shape[1:] != shape or factors.ndim == 0:
            need = f"(R, *{shape}), a row for each factor"
            raise ValueError(f"factors: got {_arguments.describe(factors)}, need shape {need}")
    x = _surrogate.draw(key, logits, family, num_samples)
    return _quadratic(x, f, logits, family, linear, factors)


def _quadratic(x, f, logits, family, linear, factors):
    values = _surrogate.evaluate(f, x)
    l, F, X = constants(logits, values, x)
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
        h = jax.vmap(lambda x: jnp.sum(linear * x))(X)
        if factors is not None:
            projections = jax.vmap(lambda u: jax.vmap(lambda x: jnp.sum(u * x))(X))(factors)
            h += jnp.sum(projections**2, axis=0)
        g = _surrogate.score(family, leave_one_out(F - h), X, l)
        return g + jax.grad(mean_of_h)(l, linear, factors)

    phi = linear, factors
    return attach_variance(_surrogate.mean_value(values), logits, phi, gradient)


# ------------------------------------------------------------------ relaxed control variates


def rebar(key, f, logits, *, family, temperature=0.5, scale=1.0):
    """REINFORCE with f at a relaxed sample as its control variate, correlated through the noise.

    Gradient: (f(b) - c(z')) s(b) + grad c(z) - grad c(z'), c(z) = scale f(relax(z)), the last two
      in logits: z = logits + noise and b its hard sample; z' has the law of z given b, with fresh
      noise; relax(z) is sigmoid(z / temperature) or softmax(z / temperature).
    Bias: none at any temperature and scale. scale 0 is reinforce.
    Cost: 3 calls of f, two of them with gradients, at relaxed samples.
    Source: Tucker et al. 2017, arXiv:1703.07370, eq. 8; their lambda, eta are temperature, scale.
    """
    noise, fresh = _two_noises(key, logits, family, "rebar")
    return _rebar(noise, fresh, f, logits, family, temperature, scale)


def _rebar(noise, fresh, f, logits, family, temperature, scale):
    scale = _arguments.hyperparameter("scale", scale, noise.ravel()[0], interval=_arguments.ANY)
    c = lambda scale, y: scale * _arguments.scalar(f(y)).astype(scale.dtype)
    return _relax(noise, fresh, f, logits, family, c, scale, temperature)


def relax(key, f, logits, *, family, critic, critic_params, temperature=0.5):
    """REBAR with any critic in place of f: a free-form control variate.

    Gradient: that of `rebar`, with c(z) = critic(critic_params, relax(z)).
    Bias: none for any critic. One that is far from f has a large variance: start it near 0 or f.
    Cost: 1 call of f, and what critic calls.
    Args: critic: (critic_params, y) -> a float scalar, y a relaxed sample shaped as logits. It
      takes whatever learns as critic_params, a pytree of floats, and closes over none of it.
    Source: Grathwohl et al. 2018, arXiv:1711.00123, eq. 8; their c_phi is critic.
    """
    if not callable(critic):
        raise TypeError(f"critic: got {critic!r}, need a function (critic_params, y) -> scalar")
    noise, fresh = _two_noises(key, logits, family, "relax")
    return _relax(noise, fresh, f, logits, family, critic, critic_params, temperature)


def _two_noises(key, logits, family, estimator):
    _surrogate.require(family, estimator, "event_ndim", "relaxation")
    wide, _ = _arguments.parameters("logits", logits, None, family.event_ndim)
    return [family.relaxation.noise(k, wide) for k in jax.random.split(key)]


def _relax(noise, fresh, f, logits, family, critic, critic_params, temperature):
    law, event_ndim = family.relaxation, family.event_ndim
    wide, dtype = _arguments.parameters("logits", logits, None, event_ndim)
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

    return attach_variance(value, logits, (critic_params, temperature), gradient)


# ------------------------------------------------------------------------- Stein's operator


def rodeo(key, f, logits, *, family, num_samples=3, scale=1.0, critic=None, critic_params=None):
    """RLOO with control variates from a discrete Stein operator A, whose mean is 0 for every h.

    Gradient: 1/K sum_k ([f_k - mean_{j != k} (f_j + (A h_j)(x_j))] s(x_k) + (A h'_k s)(x_k)),
      K = num_samples, (A h)(x) = sum_i (E[h(x with variable i drawn anew)] - h(x)); h_k and h'_k
      are the means over j != k of H and H' at (f_j, <grad f_j, y - mu>), a function of y.
    Bias: none for any H, H'; num_samples 2 and scale 0 is rloo.
    Cost: K calls of f with their gradients; critic is called once, on arrays.
    Args: num_samples: static integer >= 2; critic: (critic_params, value, increment) -> (H, H'),
      elementwise on two arrays of one shape; None is (scale increment, scale increment / 2), in
      closed form. scale is not used, and gets gradient 0, beside a critic.
    Source: Shi, Zhou, Hwang, Titsias, Mackey 2022, arXiv:2202.09497, with the sum over variables
      for their mean, and the increment from mu for theirs from x_j.
    """
    num_samples = _arguments.count("num_samples", num_samples, 2)
    _surrogate.require(family, "rodeo", "mean", "event_ndim", "neighbors")
    if critic is not None and not callable(critic):
        need = "a function (critic_params, value, increment) -> (H, H')"
        raise TypeError(f"critic: got {critic!r}, need {need}")
    x = _surrogate.draw(key, logits, family, num_samples)
    return _rodeo(x, f, logits, family, scale, critic, critic_params)


def _rodeo(x, f, logits, family, scale, critic, critic_params):
    values, slopes = _surrogate.evaluate_with_slopes(f, x)
    l, F, V, X = constants(logits, values, slopes, x)
    scale = _arguments.hyperparameter("scale", scale, F[0], interval=_arguments.ANY)
    if critic is None:
        phi, gradient = scale, _stein_linear(F, V, X, l, family)
    else:
        phi, gradient = critic_params, _stein(F, V, X, l, family, critic)
    return attach_variance(_surrogate.mean_value(values), logits, phi, gradient)


def _stein_linear(F, V, X, l, family):
    """scale -> g for H = scale increment, H' = H / 2, without visiting neighbors."""
    event = tuple(range(-family.event_ndim, 0))
    mu, pull = _surrogate.mean_and_pullback(family, l)
    delta, v = X - mu[None], _surrogate.mean_of_others(V)
    c_i = jnp.sum(jnp.where(delta == 0, 0, v * delta), axis=event)
    c = jnp.sum(c_i.reshape(len(c_i), -1), axis=1)
    weights = jax.vmap(lambda c_i, c: c_i - 2 * c)(c_i, c) / len(c)
    each = _surrogate.score_by_variable(family, weights, X, l)
    half = jax.tree.map(lambda a, b: (a + b) / 2, pull(jnp.mean(v, axis=0)), each)

    def gradient(scale):
        a = (F - _surrogate.mean_of_others(F - scale * c)) / len(F)
        g = _surrogate.score(family, a, X, l)
        return jax.tree.map(lambda g, half: g + scale * half, g, half)

    return gradient


def _stein(F, V, X, l, family, critic):
    """critic_params -> g for any critic, over all neighbors of all samples."""
    K, event = len(F), tuple(range(-family.event_ndim, 0))
    delta = X - family.mean(l)[None]
    steps, q = jax.vmap(lambda x: family.neighbors(x, l))(X)
    here = jax.vmap(lambda d: jax.vmap(lambda v: _surrogate.inner_product(v, d))(V))(delta)
    # The increment at a neighbor of x_k, by grad f_j: that at x_k and a step of one variable.
    moved = jax.vmap(lambda s: jax.vmap(lambda v: jnp.sum(v[None] * s, axis=event))(V))(steps)
    increments = jnp.concatenate([here[..., None], here[..., None] + moved.reshape(K, K, -1)], -1)
    value = jnp.broadcast_to(F[None, :, None], increments.shape)
    own = jnp.eye(K, dtype=bool)[:, :, None]
    # The scores of x_k and of its neighbors differ in one variable.
    values = jnp.concatenate([X[:, None], X[:, None] + steps], axis=1)

    def gradient(critic_params):
        H, H_score = (
            jnp.sum(jnp.where(own, 0, h), axis=1) / (K - 1)
            for h in critic(critic_params, value, increments)
        )

        def rise(h):
            there = h[:, 1:].reshape(q.shape)
            base = jax.vmap(lambda h, q: jnp.broadcast_to(h, q.shape))(h[:, 0], q)
            return jnp.where(q == 0, 0, q * (there - base)), jnp.where(q == 0, 0, q * there)

        total = lambda x: jnp.sum(x.reshape(K, -1), axis=1)
        a = F - _surrogate.mean_of_others(F + total(rise(H)[0]))
        rises, there = rise(H_score)
        weights = jnp.concatenate([-jnp.sum(there, axis=1, keepdims=True), there], axis=1)
        g = _surrogate.score(family, (a + total(rises)) / K, X, l)
        flat = lambda x: x.reshape(-1, *x.shape[2:])
        spread = _surrogate.score_by_variable(family, flat(weights) / K, flat(values), l)
        return jax.tree.map(jnp.add, g, spread)

    return gradient
