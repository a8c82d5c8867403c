"""Races two installed versions of relaxjax, row by row of the catalog: did a change cost speed?

OLD and NEW are the interpreters of two environments, which take turns at the same arguments. Shown
are the old milliseconds, and median and quartiles of new over old, of the value and the gradient.
"""

import argparse
import fnmatch
import json
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

import relaxjax

SHAPES = {"pathwise": (65_536, 10), "score": (4_096, 10)}
FEW = {"exact": (10,), "unordered_set": (10,), "indecater": (64, 10)}


def step(name):
    """A compiled step of that row, and its arguments."""
    row = relaxjax.catalog.ESTIMATORS[name]
    logits = np.random.default_rng(0).normal(size=FEW.get(name.split("/")[1], SHAPES[row.kind]))
    # What some of them require; an older version has defaults for all.
    required = {"k": 2, "truncation": 20, "values": np.arange(10, dtype=np.float32)}
    required |= {"critic": lambda c, z: jnp.sum(c * jnp.tanh(z)), "critic_params": 0.1}
    own = {h: required[h] for h, x in row.hyperparameters.items() if str(x) == "required"}
    estimate, f = relaxjax.estimator(name, **own), lambda z: jnp.sum(jnp.tanh(z * 0.7))
    run = jax.jit(jax.value_and_grad(lambda l, key: estimate(key, f, l)))
    return run, (jnp.asarray(logits, jnp.float32), jax.random.key(0))


def serve():
    """Names of rows come in, one a line; an empty line is a turn at the last one."""
    print(json.dumps(sorted(relaxjax.catalog.ESTIMATORS)), flush=True)
    run = args = None
    for line in sys.stdin:
        if line.strip():
            run, args = step(line.strip())
            jax.block_until_ready(run(*args))
        start = time.perf_counter()
        for _ in range(5):
            jax.block_until_ready(run(*args))
        print((time.perf_counter() - start) / 5, flush=True)


def version(python):
    """relaxjax in that interpreter: its rows, and (row or nothing) -> the seconds of a turn."""
    pipe = subprocess.PIPE
    process = subprocess.Popen([python, __file__, "--serve"], stdin=pipe, stdout=pipe, text=True)

    def turn(row=""):
        print(row, file=process.stdin, flush=True)
        return float(process.stdout.readline())

    return json.loads(process.stdout.readline()), turn


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--only", default="*")
    parser.add_argument("--renamed", nargs="*", default=[], metavar="NEW=OLD")
    args = parser.parse_args()
    (known, old), (rows, new) = version(args.old), version(args.new)
    before = dict(pair.split("=") for pair in args.renamed)
    for row in fnmatch.filter(rows, args.only):
        name = before.get(row, row)
        if name in known:
            old(name), new(row)
            times = np.array([(old(), new()) for _ in range(15)])
            quartiles = np.percentile(times[:, 1] / times[:, 0], (50, 25, 75))
            print(
                f"{row:45} {1e3 * np.median(times[:, 0]):9.3f} ms ", *quartiles.round(3), flush=True
            )


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["--serve"] else main()
