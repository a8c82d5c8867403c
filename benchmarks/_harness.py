"""What all benchmarks share: which rows are measured, where results go, and races.

A script is a table {part: {row: Job}}, a part for each table of docs/benchmarks.md. `measure` runs
the rows that have no result of today's code, settings and environment, and writes
results/SCRIPT.json after each: {"environment": ..., part: {row: record}}, where a record has
modules, code (their digest), settings and results.
"""

import argparse
import ast
import fnmatch
import functools
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import relaxjax
from relaxjax.catalog import ESTIMATORS, REQUIRED

HERE = pathlib.Path(__file__).resolve().parent
RESULTS = HERE / "results"
sys.path.insert(0, str(HERE.parent / "examples"))  # for the scripts that train what it trains
SOURCES = pathlib.Path(relaxjax.__file__).parent
INTERPRETER = HERE.parent / ".venv-peers" / "bin" / "python"  # make bench-peers
PACKAGES = "jax", "jaxlib", "numpy", "optax", "numpyro", "tfp-nightly"
CPUINFO = pathlib.Path("/proc/cpuinfo")
results = lambda records: {row: record["results"] for row, record in records.items()}


class Job(NamedTuple):
    """What measures one row.

    Fields:
      run: () -> the results, as JSON has them.
      modules: those of relaxjax whose code it measures.
      settings: what else the results depend on.
    """

    run: Callable[[], Any]
    modules: Sequence[str]
    settings: Mapping[str, Any] = {}


def asked(description, argv=None, **options):
    """The command line: what every script takes, and options by their defaults."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=["*"], help="parts or rows: 'categorical/*'")
    parser.add_argument("--force", action="store_true", help="measure again what has a result")
    parser.add_argument("--results", type=pathlib.Path, default=RESULTS, help="their folder")
    for name, default in options.items():
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=type(default), default=default, help=f"default: {default}")
    return parser.parse_args(argv)


def measure(script, table, args, at_once=1):
    """Run the rows of the table that args ask for, so many at once, and keep their results."""
    args.results.mkdir(parents=True, exist_ok=True)
    path, here = args.results / f"{script}.json", environment()
    kept = json.loads(path.read_text()) if path.exists() else {}
    if kept.pop("environment", here) != here:
        if args.only != ["*"]:
            raise SystemExit(f"{path.name} is of another environment: measure all, or --results")
        kept = {}
    records, waiting = {}, {}
    for part, jobs in table.items():
        for row, job in jobs.items():
            record = {"modules": job.modules, "code": digest(job.modules), "settings": job.settings}
            record = json.loads(json.dumps(record))  # to be found again
            named = any(fnmatch.fnmatch(name, only) for name in (part, row) for only in args.only)
            has = record.items() <= kept.get(part, {}).get(row, {}).items()
            if named and (args.force or not has):
                records[part, row], waiting[part, row] = record, job
    for (part, row), found in together(waiting, at_once):
        print(f"{part}: {row}: {json.dumps(found)}", flush=True)
        kept.setdefault(part, {})[row] = records[part, row] | {"results": found}
        # In the table's order, and without what it no longer has.
        kept = {
            part: {row: kept[part][row] for row in jobs if row in kept[part]}
            for part, jobs in table.items()
            if part in kept
        }
        path.write_text(json.dumps({"environment": here, **kept}, indent=1) + "\n")


def together(jobs, at_once):
    """Each job's name and results as it ends."""
    if at_once == 1:
        yield from ((name, job.run()) for name, job in jobs.items())
        return
    with futures.ThreadPoolExecutor(at_once) as pool:
        names = {pool.submit(job.run): name for name, job in jobs.items()}
        for future in futures.as_completed(names):
            yield names[future], future.result()


def environment():
    """Versions and machine, without names or paths of it."""
    installed = {each.name: each.version for each in importlib.metadata.distributions()}
    model = re.search(r"model name\s*: (.*)", CPUINFO.read_text() if CPUINFO.exists() else "")
    return {
        "python": platform.python_version(),
        **{package: installed.get(package) for package in PACKAGES},
        "system": platform.system(),
        "processor": model[1] if model else platform.processor(),
        "devices": [device.device_kind for device in jax.devices()],
        "cores": cores() if jax.default_backend() == "cpu" else jax.local_device_count(),
    }


def cores():
    """Those that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count()


def modules(estimator):
    """The modules of relaxjax whose functions a row of the catalog calls."""
    row = ESTIMATORS[estimator]
    return list(dict.fromkeys([row.law, row.function.__module__.split(".")[-1]]))


def row(name, classes=10, **given):
    """The row with what it requires, where a benchmark does not vary that, and as given."""
    required = {"k": 2, "truncation": 20, "values": np.arange(classes, dtype=np.float32)}
    required |= {"critic": lambda c, z: jnp.sum(c * jnp.tanh(z)), "critic_params": 0.1}
    own = {h: required[h] for h, x in ESTIMATORS[name].hyperparameters.items() if x is REQUIRED}
    return ESTIMATORS[name].replace(**(own | given))


def jobs(run, names, also=(), **settings):
    """One for each of these rows of the catalog, run(name, **settings); also more modules."""
    return {
        name: Job(functools.partial(run, name, **settings), [*modules(name), *also], settings)
        for name in names
    }


def digest(names):
    """Of the code of these modules and of those that they import, without comments, docstrings and
    the words of errors: a result with another is older than the code."""
    found, new = set(), set(names)
    while new:
        found |= new
        new = set().union(*(_code(name)[1] for name in new)) - found
    code = "\n".join(f"{name}:\n{_code(name)[0]}" for name in sorted(found))
    return hashlib.sha256(code.encode()).hexdigest()[:16]


@functools.cache
def _code(name):
    """Of a module, and the modules of relaxjax that it imports; none where there is no such."""
    path = SOURCES / f"{name}.py"
    tree = _Bare().visit(ast.parse(path.read_text() if path.exists() else ""))
    imports = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "relaxjax":
            imports.update(node.module.split(".")[1:] or [alias.name for alias in node.names])
    return ast.unparse(tree), {name for name in imports if (SOURCES / f"{name}.py").exists()}


class _Bare(ast.NodeTransformer):
    def visit_Expr(self, node):
        return None if isinstance(node.value, ast.Constant) else node

    def visit_Raise(self, node):
        return ast.Raise()


def race(contestants, rounds=25, seconds=20.0):
    """Milliseconds of each contestant, an array with one per turn of at most `rounds`. They take
    turns, so that a drift of the machine hits all alike.

    Args:
      contestants: name -> (function, arguments), jitted if it is not compiled, warmed up and
        blocked on here; or name -> a function that runs once and returns its own seconds.
      seconds: after which no further round starts; three rounds are run in any case.
    """
    turns = {name: _turn(contestant) for name, contestant in contestants.items()}
    times = {name: [] for name in turns}
    for turn in turns.values():
        turn()
    start = time.perf_counter()
    for i in range(rounds + 1):
        for name, turn in turns.items():
            elapsed = 1e3 * turn()
            if i:  # the first round fills caches
                times[name].append(elapsed)
        if i >= 3 and time.perf_counter() - start > seconds:
            break
    return {name: np.array(t) for name, t in times.items()}


def _turn(contestant):
    if callable(contestant):
        return contestant
    f, args = contestant
    compiled = f if isinstance(f, jax.stages.Compiled) else jax.jit(f)
    return timed(lambda: jax.block_until_ready(compiled(*args)))


def timed(run):
    """() -> the seconds of run()."""

    def turn():
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    return turn


def warm(f, *args):
    """A contestant whose arguments a call before brings back into the caches, from another's."""
    turn = _turn((f, args))
    return lambda: (turn(), turn())[1]


def original(name, argument):
    """(a contestant of _torch.py, its versions), or (None, why there is none)."""
    if not INTERPRETER.exists():
        return None, "no .venv-peers: make bench-peers"
    argv = [INTERPRETER, HERE / "_torch.py", name, str(argument)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    versions = process.stdout.readline().strip()

    def turn():
        print(file=process.stdin, flush=True)
        return float(process.stdout.readline())

    return (turn, versions) if versions else (None, f"_torch.py ended with {process.wait()}")


def descend(loss, params, optimizer, *inputs):
    """The parameters after a step for each of inputs, arguments of loss(params, ...)."""

    def step(carry, inputs):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params, *inputs), state)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, optimizer.init(params)), inputs)[0][0]


def ratio(times, a, b):
    """Median and quartiles of a's time over b's, each of one turn: neighbors, so drift cancels."""
    return [float(f"{q:.3g}") for q in np.percentile(times[a] / times[b], (50, 25, 75))]


def median(times, name):
    return float(f"{np.median(times[name]):.3g}")
