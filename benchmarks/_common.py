"""What all benchmarks need: where a figure came from, the code that it measured, where it goes."""

import ast
import functools
import hashlib
import importlib.metadata
import io
import json
import os
import pathlib
import platform
import sys
import tokenize

import jax

import relaxjax
from relaxjax import control_variates
from relaxjax.catalog import ESTIMATORS

RESULTS = pathlib.Path(__file__).resolve().parent / "results"
SOURCES = pathlib.Path(relaxjax.__file__).parent
PEERS = "numpyro", "tfp-nightly", "tensorflow-probability"


def environment():
    """Versions and machine, without names or paths of it."""
    versions = {}
    for package in ("jax", "jaxlib", "numpy", "optax", *PEERS):
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
        "cores": jax.local_device_count() if jax.default_backend() != "cpu" else cores(),
    }


def cores():
    """Those that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count()


def _processor():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")


def modules(estimator):
    """The modules of relaxjax whose functions a row of the catalog calls."""
    law, method = estimator.split("/")
    if ESTIMATORS[estimator].kind == "pathwise":
        return [law]
    return [law, "control_variates" if hasattr(control_variates, method) else "score"]


def digest(names):
    """Of the code of these modules and of those that they import, without comments, docstrings and
    white space.

    A result keeps that of what it measured: where the code has changed since, it is stale.
    """
    total = hashlib.sha256()
    for name in sorted(_with_imports(names)):
        total.update(f"{name}:{_code(name)}".encode())
    return total.hexdigest()[:16]


def _with_imports(names):
    found, new = set(), set(names)
    while new:
        found |= new
        new = set().union(*map(_imports, new)) - found
    return found


@functools.cache
def _imports(name):
    """The modules of relaxjax, but not of its subpackages, that one of them imports."""
    found = set()
    for node in ast.walk(ast.parse((SOURCES / f"{name}.py").read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "relaxjax":
            found.update(node.module.split(".")[1:] or [alias.name for alias in node.names])
    return {module for module in found if (SOURCES / f"{module}.py").exists()}


@functools.cache
def _code(name):
    return _bare((SOURCES / f"{name}.py").read_text())


def _bare(source):
    lines = source.splitlines(keepends=True)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row = token.start[0] - 1
            lines[row] = lines[row][: token.start[1]] + "\n"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(
            node
        ):
            text = node.body[0]
            for row in range(text.lineno - 1, text.end_lineno or text.lineno):
                lines[row] = ""
    return "".join("".join(lines).split())


def read(name):
    """What is there from an earlier run in this environment, else {}."""
    path = RESULTS / f"{name}.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    same = json.loads(json.dumps(environment())) == results.pop("environment", None)
    return results if same else {}


def write(name, results):
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"environment": environment(), **results}, indent=1) + "\n")
    print(f"wrote benchmarks/results/{path.name}", file=sys.stderr)
