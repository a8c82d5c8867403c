"""What a training of the discrete VAE costs, as ratios inside one run.

An epoch is one pass over 60,000 images of 784 pixels in batches of 128 through 784-400-20-400-784;
it scores no held-out images. Contestants take turns (`_race`), and a ratio of epochs is [median,
quartile, quartile] over them. PyTorch is a peer in an interpreter of its own, that of
`make bench-peers`.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np
import optax

from _common import digest, write
from _peers import INTERPRETER
from _race import median, race, ratio

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "examples"))
from vae import latent, runtime, train  # noqa: E402
from vae.checkpoint import Checkpoints  # noqa: E402
from vae.model import Method, reconstruction_loss  # noqa: E402

IMAGES, PIXELS, HIDDEN, BITS, BATCH = 60_000, 784, 400, 20, 128
STEPS = IMAGES // BATCH
ESTIMATOR = "bernoulli/straight_through"  # that of the peers
MODULES = ["bernoulli"]


class Deterministic(Method):
    """A step without a draw: the decoder takes the probabilities."""

    def loss(self, vae, control, reals, key, x):
        logits = vae.encode(x)
        z = jax.nn.sigmoid(logits)
        return reconstruction_loss(vae.decode(z), x) + self.law(reals).divergence(logits)


def task(estimator, images, kind=Method, bits=BITS, **options):
    method = kind(latent.parse(str(bits), "bernoulli"), estimator, {})
    mesh = runtime.mesh()
    rows = [runtime.shard(mesh, lambda i, j, x=x: x[i:j], len(x)) for x in (images, images[:BATCH])]
    return train.Task(method, mesh, *rows, (len(images), BATCH), **options)


def mnist_like():
    rng = np.random.default_rng(0)
    return (rng.random((IMAGES, PIXELS), np.float32) < 0.13).astype(np.uint8)


def big(estimator, images, kind=Method):
    return task(estimator, images, kind, hidden=HIDDEN, batch_size=BATCH)


def one_epoch(task):
    program, state = train.epoch_program(task), train.start(task)
    return lambda: jax.block_until_ready(program(state, dict(task.reals), task.train, task.test))


def matrix_products(optimizer=None):
    """The eleven of a step, forward and backward, and no other arithmetic than the optimizer's."""
    optimizer = optimizer or optax.identity()

    def products(x, weights):
        w1, w2, w3, w4 = weights
        h1 = x @ w1
        l = h1 @ w2
        h2 = l @ w3
        y = h2 @ w4
        g2 = y @ w4.T
        gl = g2 @ w3.T
        g1 = gl @ w2.T
        return x.T @ g1, h1.T @ gl, l.T @ g2, h2.T @ y

    shapes = (PIXELS, HIDDEN), (HIDDEN, BITS), (BITS, HIDDEN), (HIDDEN, PIXELS)
    keys = jax.random.split(jax.random.key(0), 5)
    draw = lambda key, shape: jax.random.normal(key, shape) / shape[0] ** 0.5
    weights = [draw(*each) for each in zip(keys, shapes, strict=False)]
    batches = jax.random.normal(keys[4], (STEPS, BATCH, PIXELS))

    @jax.jit
    def epoch(batches, weights):
        # What the optimizer makes of them is carried, not kept: all is computed, and none costs
        # memory. The weights stay.
        def step(carry, x):
            updates, state = optimizer.update(products(x, weights), carry[1])
            return (optax.apply_updates(carry[0], updates), state), None

        return jax.lax.scan(step, (weights, optimizer.init(weights)), batches)[0]

    return lambda: jax.block_until_ready(epoch(batches, tuple(weights)))


class Peer:
    """The loops of _torch_vae.py in their interpreter."""

    def __init__(self, images):
        self.file = tempfile.NamedTemporaryFile(suffix=".npy")
        np.save(self.file, images)
        self.file.flush()
        argv = [INTERPRETER, ROOT / "benchmarks" / "_torch_vae.py", self.file.name]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(argv, **pipes)
        self.version = self.process.stdout.readline().strip()
        if not self.version:
            raise SystemExit(".venv-peers: got no answer, need torch, torchvision and relaxit")

    def epoch(self, name):
        print(name, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())


def seconds(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def epochs(rounds, images):
    ours = {
        "epoch": one_epoch(big(ESTIMATOR, images)),
        "epoch, bernoulli/zgr": one_epoch(big("bernoulli/zgr", images)),
        "epoch, deterministic": one_epoch(big(None, images, Deterministic)),
        "matrix products alone": matrix_products(),
        "matrix products and Adam": matrix_products(optax.adam(2e-3)),
    }
    contestants = {name: lambda run=run: seconds(run) for name, run in ours.items()}
    peer = Peer(images) if INTERPRETER.exists() else None
    if peer:
        for name in ("demo", "memory"):
            contestants[f"PyTorch, {name}"] = lambda name=name: peer.epoch(name)
    else:
        print(f"  PyTorch: not measured, {INTERPRETER.relative_to(ROOT)} is absent")
    times = race(contestants, rounds, seconds=3600)
    return {
        "seconds": {name: round(median(times, name) / 1e3, 3) for name in times},
        "ratios": {
            "PyTorch demo / ours": ratio(times, "PyTorch, demo", "epoch") if peer else None,
            "PyTorch in memory / ours": ratio(times, "PyTorch, memory", "epoch") if peer else None,
            "matrix products / ours": ratio(times, "matrix products alone", "epoch"),
            "matrix products and Adam / ours": ratio(times, "matrix products and Adam", "epoch"),
            "one sample / deterministic": ratio(times, "epoch", "epoch, deterministic"),
            "one sample of zgr / deterministic": ratio(
                times, "epoch, bernoulli/zgr", "epoch, deterministic"
            ),
        },
        "torch": peer and peer.version,
    }


def sweep(num_epochs, members=16):
    """Digits, 12 bits, bernoulli/concrete; compilation is part of each."""
    from sklearn.datasets import load_digits

    digits = (load_digits().images[:1500] >= 8).reshape(-1, 64).astype(np.uint8)
    temperatures = np.geomspace(0.1, 2, members).astype(np.float32)
    of = lambda t: task("bernoulli/concrete", digits, bits=12, reals={"temperature": t})

    def fit(program, state, task, temperature):
        for _ in range(num_epochs):
            state, losses = program(state, {"temperature": temperature}, task.train, task.test)
            np.asarray(losses)  # the program looks at them, too
        return state

    def together():
        own = of(temperatures)
        fit(train.epoch_program(own), train.start(own), own, temperatures)

    def separately():
        for t in temperatures:
            own = of(t)
            fit(train.epoch_program(own), train.start(own), own, t)

    def calls_of_one():
        own = of(temperatures[0])
        program, state = train.epoch_program(own), train.start(own)
        for t in temperatures:
            fit(program, state, own, t)

    contestants = {"one program": together, "separate": separately, "calls of one": calls_of_one}
    times = {name: seconds(run) for name, run in contestants.items()}
    return {
        "epochs": num_epochs,
        "seconds": {name: round(took, 2) for name, took in times.items()},
        "ratios": {
            f"one program / {name}": round(times["one program"] / times[name], 3)
            for name in ("separate", "calls of one")
        },
    }


def checkpoints(num_epochs, images):
    """The share of saves in a training, as often as the program makes them."""
    own = big(ESTIMATOR, images)._replace(epochs=num_epochs)
    took = []
    with tempfile.TemporaryDirectory() as folder:
        saver = Checkpoints(pathlib.Path(folder), every=10.0)

        def after_epoch(state):
            if saver.due():
                took.append(seconds(lambda: saver.save(state)))

        state = train.start(own)
        total = seconds(lambda: train.train(own, state, after_epoch))
    spent = sum(took)
    return {
        "seconds": round(total, 2),
        "saves": len(took),
        "seconds of a save": round(float(np.median(took)), 4),
        "saves / training without": round(spent / (total - spent), 4),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    images = mnist_like()
    parts = {
        "epoch": lambda: epochs(args.rounds, images),
        "sweep": lambda: sweep(100),
        "checkpoints": lambda: checkpoints(8, images),
    }
    results = {"modules": MODULES, "code": digest(MODULES)}
    for name, part in parts.items():
        print(name)
        results[name] = part()
        print(f"  {results[name]}")
    write("training", results)


if __name__ == "__main__":
    main()
