"""Functions of the normal distribution, for the Gaussian copula and the gates."""

import functools
import math

import jax
import jax.numpy as jnp

from relaxjax._numerics import computed_once


def _mills(r):
    """Compute y Phi(-y) / phi(y) = 1 - r + 3 r^2 - 15 r^3 + ... at a large y, where r = 1 / y^2."""
    return functools.reduce(lambda acc, n: 1 - (2 * n - 1) * acc * r, range(7, 0, -1), 1.0)


def log_ndtr(x):
    """Compute log Phi(x), with a slope that is exact in the far tail too.

    In that tail the value that jax gives is a series of three terms, and its rule takes the
    exponential of a difference of two numbers as large as x^2 / 2.
    """
    far = x < {32: -10, 64: -20}[jnp.finfo(x.dtype).bits]
    y = jnp.where(far, x, -30)
    tail = -y * y / 2 - jnp.log(-y) - math.log(2 * math.pi) / 2 + jnp.log(_mills(1 / (y * y)))
    return jnp.where(far, tail, jax.scipy.special.log_ndtr(jnp.where(far, 0, x)))


def _upper_tail(y):
    """Return a, m and Phi(y) at y >= 0, where Phi(-y) = exp(a) m."""
    far = y > {32: 10, 64: 30}[jnp.finfo(y.dtype).bits]
    # There erfc underflows. rsqrt is not used, because XLA's CPU code is slow with it.
    large = jnp.where(far, y, 30)
    near = computed_once(jax.lax.erfc(y / math.sqrt(2)) / 2)
    m = jnp.where(far, _mills(1 / (large * large)) / (math.sqrt(2 * math.pi) * large), near)
    return jnp.where(far, -y * y / 2, 0), m, jnp.where(far, 1, 1 - near)


@jax.custom_jvp
def normal_logit(v):
    """Compute log Phi(v) - log Phi(-v) at any v: the log-odds of the uniform Phi(v)."""
    a, m, rest = _upper_tail(jnp.abs(v))
    odds = a + jnp.log(m / rest)
    return jnp.where(v > 0, -odds, odds)


@normal_logit.defjvp
def _normal_logit_jvp(primals, tangents):
    (v,), (dv,) = primals, tangents
    return normal_logit(v), normal_rate(v) * dv


@jax.custom_jvp
def normal_rate(v):
    """Compute d normal_logit / dv = phi(v) / (Phi(v) Phi(-v)), which is as large as |v|."""
    a, m, rest = _upper_tail(jnp.abs(v))
    return jnp.exp(-v * v / 2 - a) / (math.sqrt(2 * math.pi) * m * rest)


@normal_rate.defjvp
def _normal_rate_jvp(primals, tangents):
    # The derivative takes the rate from its own function and has no |v|, whose derivative at 0
    # would be wrong.
    (v,), (dv,) = primals, tangents
    rate = normal_rate(v)
    return rate, rate * (rate * jnp.tanh(normal_logit(v) / 2) - v) * dv


@jax.custom_jvp
def normal_score(x):
    """Compute the v with normal_logit(v) = x, at any finite x, by Newton steps."""
    tail = -jax.nn.softplus(jnp.abs(x))
    # Below -5 the start is the asymptote of log Phi, which nearer to 0 is so coarse that three
    # steps are too few.
    low, high = jnp.minimum(tail, -5), jnp.maximum(tail, -5)
    far = -jnp.sqrt(-2 * low - math.log(2 * math.pi) - jnp.log(-2 * low))
    start = jnp.where(tail < -5, far, jax.scipy.special.ndtri(jnp.exp(high)))
    start = jnp.where(x > 0, -start, start)
    return jax.lax.fori_loop(0, 3, lambda _, v: v - (normal_logit(v) - x) / normal_rate(v), start)


@normal_score.defjvp
def _normal_score_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    v = normal_score(x)
    return v, dx / normal_rate(v)
