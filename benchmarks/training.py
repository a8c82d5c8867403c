"""What a training of the discrete VAE costs, as ratios inside one run.

An epoch is one pass over 60,000 images of 784 pixels in batches of 128 through 784-400-20-400-784;
it scores no held-out images. A ratio of epochs is [median, quartile, quartile] over turns
(`_harness.race`). PyTorch is a peer in an interpreter of its own (`_torch.py`).
"""

import functools
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

from _harness import Job, asked, measure, median, original, race, ratio, timed
from vae import latent, runtime, train
from vae.checkpoint import Checkpoints
from vae.model import Method, reconstruction_loss

IMAGES, PIXELS, HIDDEN, BITS, BATCH = 60_000, 784, 400, 20, 128
ESTIMATOR = "bernoulli/straight_through"  # that of the peers
# Of the seconds of two contestants.
RATIOS = {
    "PyTorch demo / ours": ("PyTorch, demo", "epoch"),
    "PyTorch in memory / ours": ("PyTorch, memory", "epoch"),
    "matrix products / ours": ("matrix products alone", "epoch"),
    "matrix products and Adam / ours": ("matrix products and Adam", "epoch"),
    "one sample / deterministic": ("epoch", "epoch, deterministic"),
    "one sample of zgr / deterministic": ("epoch, bernoulli/zgr", "epoch, deterministic"),
}


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


big = functools.partial(task, hidden=HIDDEN, batch_size=BATCH)


def one_epoch(task):
    program, state = train.epoch_program(task), train.start(task)
    return lambda: jax.block_until_ready(program(state, dict(task.reals), task.train, task.test))


def matrix_products(optimizer):
    """The eleven of a step, forward and backward, and no other arithmetic than the optimizer's."""
    shapes = (PIXELS, HIDDEN), (HIDDEN, BITS), (BITS, HIDDEN), (HIDDEN, PIXELS)
    keys = jax.random.split(jax.random.key(0), 5)
    draw = lambda key, shape: jax.random.normal(key, shape) / shape[0] ** 0.5
    weights = tuple(draw(*each) for each in zip(keys, shapes, strict=False))
    batches = jax.random.normal(keys[4], (IMAGES // BATCH, BATCH, PIXELS))

    def products(weights, x):
        y, back = jax.vjp(lambda weights: functools.reduce(jnp.matmul, weights, x), weights)
        return back(y)[0]

    @jax.jit
    def epoch(batches, weights):
        # What the optimizer makes of them is carried, not kept: all is computed, and none costs
        # memory. The weights stay.
        def step(carry, x):
            updates, state = optimizer.update(products(weights, x), carry[1])
            return (optax.apply_updates(carry[0], updates), state), None

        return jax.lax.scan(step, (weights, optimizer.init(weights)), batches)[0]

    return lambda: jax.block_until_ready(epoch(batches, weights))


def epochs(rounds):
    """Seconds of each contestant, and ratios of two."""
    images = mnist_like()
    ours = {
        "epoch": one_epoch(big(ESTIMATOR, images)),
        "epoch, bernoulli/zgr": one_epoch(big("bernoulli/zgr", images)),
        "epoch, deterministic": one_epoch(big(None, images, Deterministic)),
        "matrix products alone": matrix_products(optax.identity()),
        "matrix products and Adam": matrix_products(optax.adam(2e-3)),
    }
    contestants = {name: timed(run) for name, run in ours.items()}
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file, images)
        file.flush()
        for name in ("demo", "memory"):
            contestant, torch = original(name, file.name)
            contestants |= {f"PyTorch, {name}": contestant} if contestant else {}
    times = race(contestants, rounds, seconds=3600)
    seconds = {name: round(median(times, name) / 1e3, 3) for name in times}
    ratios = {name: ratio(times, a, b) for name, (a, b) in RATIOS.items() if a in times}
    return seconds | ratios | {"PyTorch": torch}


def sweep(num_epochs, members=16):
    """Digits, 12 bits, bernoulli/concrete; compilation is part of each."""
    digits = (load_digits().images[:1500] >= 8).reshape(-1, 64).astype(np.uint8)
    temperatures = np.geomspace(0.1, 2, members).astype(np.float32)
    of = lambda t: task("bernoulli/concrete", digits, bits=12, reals={"temperature": t})

    def fit(own, values):
        program, start = train.epoch_program(own), train.start(own)
        for value in values:
            state = start
            for _ in range(num_epochs):
                reals = {"temperature": value}
                state, losses = program(state, reals, own.train, own.test)
                np.asarray(losses)  # the program looks at them, too

    contestants = {
        "one program": lambda: fit(of(temperatures), [temperatures]),
        "separate": lambda: [fit(of(t), [t]) for t in temperatures],
        "calls of one": lambda: fit(of(temperatures[0]), temperatures),
    }
    times = {name: timed(run)() for name, run in contestants.items()}
    share = lambda other: round(times["one program"] / times[other], 3)
    return {
        "epochs": num_epochs,
        **{name: round(took, 2) for name, took in times.items()},
        "one program / separate": share("separate"),
        "one program / calls of one": share("calls of one"),
    }


def checkpoints(num_epochs):
    """The share of saves in a training, as often as the program makes them."""
    own, took = big(ESTIMATOR, mnist_like(), epochs=num_epochs), []
    with tempfile.TemporaryDirectory() as folder:
        saver = Checkpoints(pathlib.Path(folder), every=10.0)

        def after_epoch(state):
            if saver.due():
                took.append(timed(lambda: saver.save(state))())

        state = train.start(own)
        total = timed(lambda: train.train(own, state, after_epoch))()
    return {
        "seconds of training": round(total, 2),
        "saves": len(took),
        "seconds of a save": round(float(np.median(took)), 4),
        "saves / training without": round(sum(took) / (total - sum(took)), 4),
    }


if __name__ == "__main__":
    args = asked(__doc__, rounds=7, sweep_epochs=100, checkpoint_epochs=8)
    parts = {
        "epoch": functools.partial(epochs, args.rounds),
        "sweep": functools.partial(sweep, args.sweep_epochs),
        "checkpoints": functools.partial(checkpoints, args.checkpoint_epochs),
    }
    row = "seconds or a ratio"
    table = {name: {row: Job(part, ["bernoulli"])} for name, part in parts.items()}
    measure("training", table, args)
