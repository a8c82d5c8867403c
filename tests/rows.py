"""The rows of the catalog that tests go through: all, or with RELAXJAX_ROWS=few one of each law and
kind, for another JAX: the others share its code."""

import os

import pytest

from relaxjax.catalog import ESTIMATORS

FEW = os.environ.get("RELAXJAX_ROWS") == "few"


def law(name):
    """The module of a sampler, and what its samples are: nothing else says it."""
    return name.split("/")[0]


ONE_OF_EACH = sorted(
    {(law(name), ESTIMATORS[name].kind): name for name in sorted(ESTIMATORS)}.values()
)
ROWS = ONE_OF_EACH if FEW else sorted(ESTIMATORS)


def family(name):
    """The row's family, with its k; None where it has none."""
    of_row, k = ESTIMATORS[name].family, ESTIMATORS[name].hyperparameters.get("k")
    return of_row if of_row is None or k is None else of_row(k)


def mostly_thorough(values, default):
    """Parameters of a test, those that are not among the default ones marked thorough."""
    return [v if v in default else pytest.param(v, marks=pytest.mark.thorough) for v in values]
