"""Oracles in NumPy's float64, which share no code with the library."""

import jax
import numpy as np

SIGNIFICANCE = 1e-6


def J(q):
    return np.diag(q) - np.outer(q, q)


def central(f, x, step=1e-6):
    """The gradient of a scalar NumPy function by central differences."""
    x = np.asarray(x, np.float64)
    gradient = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += step
        down[i] -= step
        gradient[i] = (f(up) - f(down)) / (2 * step)
    return gradient


def pullback(f, *args):
    """(g) -> the cotangents of args, by the rule under test."""
    return jax.vjp(f, *args)[1]


def close(actual, expected, rtol=1e-7, atol=1e-12):
    """For figures that are printed to nine digits, the default; exact ones ask for less."""
    np.testing.assert_allclose(np.asarray(actual, np.float64), expected, rtol=rtol, atol=atol)
