"""Every test runs under the settings of a strict user; RELAXJAX_X64=0 turns float64 off."""

import os

import jax

jax.config.update("jax_enable_x64", os.environ.get("RELAXJAX_X64", "1") != "0")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
