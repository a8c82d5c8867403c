"""Every test runs under the settings of a strict user; RELAXJAX_X64=0 turns float64 off.

Programs here are many and small, and take less time to run than to compile: XLA does not optimize
them. RELAXJAX_OPTIMIZED=1 compiles as users do, for the tests marked optimized, and for a few more.
"""

import importlib.metadata
import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # A worker a core, and a thread a worker: XLA would start as many threads as there are cores.
    os.environ.setdefault("NPROC", "1")

if os.environ.get("RELAXJAX_OPTIMIZED") != "1":
    flags = ["--xla_backend_optimization_level=0", "--xla_cpu_parallel_codegen_split_count=1"]
    jaxlib = importlib.metadata.version("jaxlib").split(".")
    if tuple(map(int, jaxlib[:2])) < (0, 11):
        # The older way to compile a fusion takes half the time; later ones have only the newer,
        # and XLA ends a process that names a flag it does not know.
        flags.append("--xla_cpu_use_fusion_emitters=false")
    # The last of two that contradict each other counts: the caller's.
    os.environ["XLA_FLAGS"] = " ".join([*flags, os.environ.get("XLA_FLAGS", "")])

import jax  # noqa: E402  (after what it reads)

jax.config.update("jax_traceback_filtering", "off")  # to filter one of them takes milliseconds
jax.config.update("jax_enable_x64", os.environ.get("RELAXJAX_X64", "1") != "0")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_collection_modifyitems(items):
    """The contract's tests row by row, as those of one row share its compiled programs: a worker of
    pytest-xdist is given neighbors."""
    of_contract = [i for i, item in enumerate(items) if item.path.name == "test_contract.py"]
    row = lambda item: item.callspec.params.get("name", "") if hasattr(item, "callspec") else ""
    # Into the same places: what else there is keeps its own.
    for i, item in zip(of_contract, sorted((items[i] for i in of_contract), key=row), strict=True):
        items[i] = item
