"""Dirichlet distributions and the Gaussians nearest to them in logit space, in closed form.

Start with `to_gaussian`; `to_dirichlet` is the way back, and undoes it exactly. The Gaussian is
Laplace's approximation of the Dirichlet in the basis of the softmax, where the mode of the
Dirichlet is at softmax(mean) = concentration / sum(concentration).

Classes are the last axis, and the axes before it are a batch. Every function is differentiable to
any order.
"""

import math

import jax
import jax.numpy as jnp

from relaxjax import _arguments, _numerics


def to_gaussian(concentration):
    """Compute the mean and the variances of the logits of a Dirichlet distribution.

    Value: mean = log a - average(log a), which sums to 0, and variance_k =
      (1 - 2/C) / a_k + S / C^2, the diagonal of `covariance`, where a is concentration and
      S = sum_k 1 / a_k.

    Args:
      concentration: (..., C) floats, C >= 2, positive and finite.

    Returns:
      (mean, variance), each of the shape and dtype of concentration; a variance is the square of a
      scale. Arithmetic is in float32 or wider.

    Raises:
      TypeError: concentration is not floats.
      ValueError: concentration has no last axis of 2 or more, or one in Python or NumPy is not
        positive and finite (a jax.Array gives NaN throughout the row).

    Source: MacKay 1998; Hobbhahn, Kristiadi, Hennig 2022, arXiv:2003.01227; their alpha is
      concentration here.
    """
    a, dtype = _concentration(concentration)
    mean, variance = _project(jnp.log(a), 1 / a)
    return mean.astype(dtype), variance.astype(dtype)


def covariance(concentration):
    """Compute the full covariance of the logits of a Dirichlet distribution.

    Value: P diag(1 / a) P, where a is concentration and P = I - 11^T / C. Its entries are
      delta_kl / a_k - (1/a_k + 1/a_l - S/C) / C, S = sum_k 1 / a_k. Its rows sum to 0 and its rank
      is C - 1, so that it has no Cholesky factor; to sample, project independent Gaussians of
      variances 1/a.

    Args:
      concentration: (..., C) floats, C >= 2, positive and finite.

    Returns:
      The covariance, of shape (..., C, C), in the dtype of concentration; arithmetic is in float32
      or wider.

    Raises:
      TypeError: concentration is not floats.
      ValueError: concentration has no last axis of 2 or more, or one in Python or NumPy is not
        positive and finite (a jax.Array gives NaN throughout the matrix).

    Source: MacKay 1998; Hobbhahn, Kristiadi, Hennig 2022, arXiv:2003.01227; their alpha is
      concentration here.

    To sample logits that have it:

    >>> import jax, jax.numpy as jnp
    >>> from relaxjax import laplace_bridge
    >>> a = jnp.array([2.0, 0.5, 4.0])
    >>> x = jax.random.normal(jax.random.key(0), (100_000, 3)) / jnp.sqrt(a)[None]
    >>> x -= jnp.mean(x, axis=-1, keepdims=True)
    >>> bool(jnp.allclose(jnp.cov(x.T), laplace_bridge.covariance(a), atol=0.02))
    True
    """
    a, dtype = _concentration(concentration)
    classes, inverse = a.shape[-1], 1 / a
    average = jnp.mean(inverse, axis=-1)[..., None, None]
    eye = jnp.broadcast_to(jnp.eye(classes, dtype=a.dtype), (*a.shape, classes))
    shared = inverse[..., :, None] + inverse[..., None, :] - average
    return (eye * inverse[..., None] - shared / classes).astype(dtype)


def to_dirichlet(mean, variance):
    """Compute the concentration of the Dirichlet whose logits have this mean and these variances.

    Value: a_k = (1 - 2/C + exp(mean_k + lse(-mean)) / C^2) / variance_k, lse the log-sum-exp, which
      is positive and the same for a shifted mean. It is the inverse of `to_gaussian`. A Gaussian
      from elsewhere, free in all C directions, should pass `project` first.

    Args:
      mean: (..., C) floats, C >= 2.
      variance: floats, positive and finite, the diagonal of the covariance; broadcast with mean.

    Returns:
      The concentration a, in the shape that both broadcast to and in the dtype of mean; arithmetic
      is in float32 or wider.

    Raises:
      TypeError: mean or variance is not floats.
      ValueError: mean has no last axis of 2 or more, a Python or NumPy variance is not positive and
        finite (a jax.Array gives NaN in that entry), or the shapes do not broadcast together.

    Source: MacKay 1998; Hobbhahn, Kristiadi, Hennig 2022, arXiv:2003.01227; their alpha is
      concentration here.
    """
    mean, variance, dtype = _moments(mean, variance)
    classes = mean.shape[-1]
    lse = jax.nn.logsumexp(-mean, axis=-1, keepdims=True)
    odds = jnp.exp(mean + lse - 2 * math.log(classes))
    return ((1 - 2 / classes + odds) / variance).astype(dtype)


def project(mean, variance):
    """Project a Gaussian of independent logits onto the logits that sum to 0.

    Value: mean - average(mean), and (1 - 2/C) variance_k + sum(variance) / C^2, the diagonal of
      P diag(variance) P, P = I - 11^T / C. The whole projected Gaussian has the softmax of the
      given one. Its diagonal alone does not, and a second projection changes it again.

    Args:
      mean: (..., C) floats, C >= 2.
      variance: floats, positive and finite, the diagonal of the covariance; broadcast with mean.

    Returns:
      (mean, variance), each in the shape that both broadcast to and in the dtype of mean;
      arithmetic is in float32 or wider.

    Raises:
      TypeError: mean or variance is not floats.
      ValueError: mean has no last axis of 2 or more, a Python or NumPy variance is not positive and
        finite (a jax.Array gives NaN variances in that row), or the shapes do not broadcast
        together.
    """
    mean, variance, dtype = _moments(mean, variance)
    mean, variance = _project(mean, variance)
    return mean.astype(dtype), variance.astype(dtype)


def _project(mean, variance):
    classes = mean.shape[-1]
    mean = mean - jnp.mean(mean, axis=-1, keepdims=True)
    total = jnp.sum(variance, axis=-1, keepdims=True)
    return mean, (1 - 2 / classes) * variance + total / classes**2


def _concentration(concentration):
    a = _arguments.floats("concentration", concentration, 1, 2)
    return _arguments.hyperparameter("concentration", concentration, _numerics.widen(a)), a.dtype


def _moments(mean, variance):
    """Return mean and variance in one wide dtype and one shape, and the dtype to return."""
    _arguments.floats("mean", mean, 1, 2)
    _arguments.floats("variance", variance)
    wide, other, dtype = _arguments.broadcast_together(variance, mean, 1, "variance", "mean")
    positive = _arguments.hyperparameter("variance", variance, wide)
    return other, jnp.broadcast_to(positive, wide.shape), dtype
