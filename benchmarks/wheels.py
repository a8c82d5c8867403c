"""Races two installed versions of relaxjax, row by row of the catalog: did a change cost speed?

Each version runs in the interpreter of its own environment; they take turns on the same arguments,
so that a drift of the machine hits both, and a row's figure is the median and the quartiles of the
new one's time over the old one's. A step is the value and the gradient of the estimator's scalar in
its parameters, compiled, under f = sum(tanh(z w)).

    python benchmarks/wheels.py OLD_PYTHON NEW_PYTHON [--only 'subsets/*'] [--renamed NEW=OLD ...]
"""

import argparse
import fnmatch
import json
import subprocess
import sys
import time

SHAPES = {"pathwise": (65_536, 10), "score": (4_096, 10)}
# These see every state, or every neighbor of a sample.
FEW = {"exact": (10,), "unordered_set": (10,), "indecater": (64, 10)}


def step(name):
    """A compiled step of that row, and its arguments."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import relaxjax

    row = relaxjax.catalog.ESTIMATORS[name]
    random = np.random.default_rng(0)
    shape = FEW.get(name.split("/")[1], SHAPES[row.kind])
    logits = jnp.asarray(random.normal(size=shape), jnp.float32)
    estimate = relaxjax.estimator(name)
    f = lambda z: jnp.sum(jnp.tanh(z * 0.7))
    run = jax.jit(lambda key, l: jax.value_and_grad(lambda l: estimate(key, f, l))(l))
    return run, (jax.random.key(0), logits)


def serve():
    """Names of rows come in, one a line; an empty line is a turn at the last one."""
    import jax

    import relaxjax

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


class Version:
    """relaxjax in the interpreter that python names."""

    def __init__(self, python):
        argv = [python, __file__, "--serve"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True)
        self.rows = json.loads(self.process.stdout.readline())

    def turn(self, row=""):
        print(row, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--only", nargs="+", default=["*"])
    parser.add_argument("--renamed", nargs="*", default=[], metavar="NEW=OLD")
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    import numpy as np

    old, new = Version(args.old), Version(args.new)
    before = dict(pair.split("=") for pair in args.renamed)
    for row in new.rows:
        name = before.get(row, row)
        if name not in old.rows or not any(fnmatch.fnmatch(row, only) for only in args.only):
            continue
        old.turn(name), new.turn(row)
        times = np.array([(old.turn(), new.turn()) for _ in range(args.rounds)])
        quartiles = np.percentile(times[:, 1] / times[:, 0], (50, 25, 75))
        mark = " slower" if quartiles[0] > 1.05 else ""
        shown = f"{quartiles[0]:.3f} ({quartiles[1]:.3f} to {quartiles[2]:.3f})"
        print(f"{row:45} {1e3 * np.median(times[:, 0]):9.3f} ms  {shown}{mark}", flush=True)


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["--serve"] else main()
