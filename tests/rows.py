"""The rows of the catalog that tests go through: all, or with RELAXJAX_ROWS=few one of each law and
kind, for another JAX: the others share its code."""

import os

import jax.numpy as jnp
import numpy as np
import pytest

from relaxjax import estimator
from relaxjax.catalog import ESTIMATORS, REQUIRED

FEW = os.environ.get("RELAXJAX_ROWS") == "few"


ONE_OF_EACH = sorted(
    {(row.law, row.kind): name for name, row in sorted(ESTIMATORS.items())}.values()
)
ROWS = ONE_OF_EACH if FEW else sorted(ESTIMATORS)


def tanh_critic(critic_params, z):
    return jnp.sum(jnp.asarray(critic_params, z.dtype) * jnp.tanh(z))


def row(name, classes=3, **hyperparameters):
    """The row with what it requires, and as given."""
    required = {"k": 2, "truncation": 20, "critic": tanh_critic, "critic_params": 0.1}
    required["values"] = np.arange(classes, dtype=np.float32)
    own = {h: x for h, x in required.items() if ESTIMATORS[name].hyperparameters.get(h) is REQUIRED}
    return estimator(name, **(own | hyperparameters))


def mostly_thorough(values, default):
    """Parameters of a test, those that are not among the default ones marked thorough."""
    return [v if v in default else pytest.param(v, marks=pytest.mark.thorough) for v in values]
