"""Every test runs under the settings of a strict user; RELAXJAX_X64=0 turns float64 off."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # A worker a core, and a thread a worker: XLA would start as many threads as there are cores.
    os.environ.setdefault("NPROC", "1")

import jax  # noqa: E402  (after what it reads)

jax.config.update("jax_enable_x64", os.environ.get("RELAXJAX_X64", "1") != "0")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
