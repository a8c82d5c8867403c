"""Dirichlet laws and the Gaussians nearest to them in logit space, in closed form.

Start with `to_gaussian`, and with `to_dirichlet` for the way back, which undoes it exactly. The
Gaussian is Laplace's approximation of the Dirichlet in the basis of the softmax, where its mode is
at softmax(mean) = concentration / sum(concentration).

Throughout: parameters are (..., C) with C >= 2, leading axes a batch. A concentration or variance
is positive and finite: otherwise ValueError for a Python or NumPy array, NaN in a row of a
jax.Array. Results have the dtype of concentration or mean; arithmetic is in float32 or wider.
Integers or a scalar raise TypeError, shapes that do not agree ValueError. Everything is
differentiable to any order. In the formulas a is the concentration and S = sum_k 1 / a_k.
"""

import math

import jax
import jax.numpy as jnp

from relaxjax import _arguments, _numerics


def to_gaussian(concentration):
    """The mean and the variances of the logits.

    Value: mean = log a - average(log a), which sums to 0; variance_k = (1 - 2/C) / a_k + S / C^2,
      the diagonal of `covariance`.
    Returns (mean, variance), both (..., C); a variance is the square of a scale.
    Source: MacKay 1998; Hobbhahn, Kristiadi, Hennig 2022, arXiv:2003.01227; alpha is concentration.
    """
    a, dtype = _concentration(concentration)
    mean, variance = _project(jnp.log(a), 1 / a)
    return mean.astype(dtype), variance.astype(dtype)


def covariance(concentration):
    """The full covariance of the logits.

    Value: P diag(1 / a) P, P = I - 11^T / C: entries delta_kl / a_k - (1/a_k + 1/a_l - S/C) / C.
      Its rows sum to 0 and its rank is C - 1, so that it has no Cholesky factor; to sample, project
      independent Gaussians of variances 1 / a.
    Returns (..., C, C).
    Source: as `to_gaussian`.
    """
    a, dtype = _concentration(concentration)
    classes, inverse = a.shape[-1], 1 / a
    average = jnp.mean(inverse, axis=-1)[..., None, None]
    eye = jnp.broadcast_to(jnp.eye(classes, dtype=a.dtype), (*a.shape, classes))
    shared = inverse[..., :, None] + inverse[..., None, :] - average
    return (eye * inverse[..., None] - shared / classes).astype(dtype)


def to_dirichlet(mean, variance):
    """The concentration of the Dirichlet with this mean and these variances of the logits.

    Value: a_k = (1 - 2/C + exp(mean_k + lse(-mean)) / C^2) / variance_k, which is positive and the
      same for a shifted mean; the inverse of `to_gaussian`. A Gaussian from elsewhere, free in all
      C directions, should pass `project` first.
    Args: mean: (..., C); variance: (..., C), the diagonal of the covariance, broadcast with mean.
    Returns (..., C).
    Source: as `to_gaussian`.
    """
    mean, variance, dtype = _moments(mean, variance)
    classes = mean.shape[-1]
    lse = jax.nn.logsumexp(-mean, axis=-1, keepdims=True)
    odds = jnp.exp(mean + lse - 2 * math.log(classes))
    return ((1 - 2 / classes + odds) / variance).astype(dtype)


def project(mean, variance):
    """A Gaussian of independent logits, projected onto the logits that sum to 0.

    Value: mean - average(mean), and (1 - 2/C) variance_k + sum(variance) / C^2, the diagonal of
      P diag(variance) P, P = I - 11^T / C. The whole projected Gaussian has the softmax of the
      given one; its diagonal alone has not, and a second projection changes it again.
    Args: as `to_dirichlet`.
    Returns (mean, variance), both (..., C).
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
    """Both in one wide dtype and one shape, and the dtype to return."""
    _arguments.floats("mean", mean, 1, 2)
    _arguments.floats("variance", variance)
    wide, other, dtype = _arguments.broadcast_together(variance, mean, 1, "variance", "mean")
    positive = _arguments.hyperparameter("variance", variance, wide)
    return other, jnp.broadcast_to(positive, wide.shape), dtype
