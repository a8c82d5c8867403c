"""What both benchmarks need: where a figure came from, and where it goes."""

import importlib.metadata
import json
import os
import pathlib
import platform
import sys

import jax

RESULTS = pathlib.Path(__file__).resolve().parent / "results"


def environment():
    """Versions and machine, without names or paths of it."""
    versions = {}
    for package in ("jax", "jaxlib", "numpy", "optax", "tfp-nightly", "tensorflow-probability"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "python": platform.python_version(),
        **versions,
        "system": platform.system(),
        "processor": _processor(),
        "devices": [device.device_kind for device in jax.devices()],
        "cores": jax.local_device_count() if jax.default_backend() != "cpu" else _cores(),
    }


def _cores():
    """Those that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count()


def _processor():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")


def write(name, results):
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"environment": environment(), **results}, indent=2) + "\n")
    print(f"wrote benchmarks/results/{path.name}", file=sys.stderr)
