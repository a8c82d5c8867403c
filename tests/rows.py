"""The rows of the catalog that tests go through: all, or with RELAXJAX_ROWS=few one of each law and
kind, for another JAX: the others share its code."""

import os

from relaxjax.catalog import ESTIMATORS

FEW = os.environ.get("RELAXJAX_ROWS") == "few"
ROWS = sorted(ESTIMATORS)
if FEW:
    ROWS = list({(name.split("/")[0], ESTIMATORS[name].kind): name for name in ROWS}.values())
