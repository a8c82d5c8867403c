"""The digits boards: exact -ELBO in nats after training with each estimator.

scikit-learn's 1,797 digits, binarized at 8 of 16; 64 -> 64 ReLU -> logits and back; four
categoricals of eight classes, or twelve bits; uniform prior, KL in closed form; Adam 2e-3, 600
epochs of 17 batches of 100. Every state is summed for the score; all seeds train in one program,
on one core, and as many rows at once as there are, the longest first, so that at the end no core
waits. A run that is stopped goes on where it was.
"""

import argparse
import functools
import importlib.metadata
import json
import math
import os
import time
from collections.abc import Callable
from concurrent import futures
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import relaxjax
from _common import cores, digest, modules, read, write
from relaxjax.catalog import ESTIMATORS

# One core a row: the products are too small for several.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"
if importlib.metadata.version("jaxlib") == "0.10.2":
    # There a fusion of XLA's CPU code for products ends the process with a segmentation fault, in
    # the gradient of `quadratic` with factors from a network, over several seeds at once.
    os.environ["XLA_FLAGS"] += " --xla_cpu_experimental_ynn_fusion_type="

SHAPES = {"8x4": (4, 8), "12 bits": (12,)}


class Row(NamedTuple):
    """A row of a board.

    Fields:
      keys: averaged over.
      network: factors, hidden units and learning rate of the network behind what a control variate
        learns: `quadratic`'s coefficients, `relax`'s critic_params.
    """

    board: str
    estimator: str
    hyperparameters: dict
    keys: int = 1
    seeds: int = 5
    network: tuple[int, int, float] | None = None


_LINEAR, _FACTORS = (0, 128, 4e-3), (8, 256, 2e-3)
_STGS = "categorical/straight_through_gumbel_softmax"
_STC = "bernoulli/straight_through_concrete"
# With the reference run's mean and standard error.
REFERENCE = [
    (Row("8x4", "categorical/straight_through", {}), (19.573, 0.021)),
    (Row("8x4", _STGS, {"temperature": 1.0}), (18.161, 0.022)),
    (Row("8x4", _STGS, {"temperature": 0.5}), (17.502, 0.075)),
    (Row("8x4", "categorical/reinmax", {}), (16.847, 0.064)),
    (Row("8x4", "categorical/reinmax", {}, keys=2), (16.502, 0.043)),
    (Row("8x4", "categorical/rloo", {"num_samples": 2}), (16.143, 0.074)),
    (Row("8x4", "categorical/rloo", {"num_samples": 4}), (15.775, 0.044)),
    (Row("8x4", "categorical/quadratic", {"num_samples": 2}, network=_LINEAR), (15.764, 0.025)),
    (Row("8x4", "categorical/quadratic", {"num_samples": 2}, network=_FACTORS), (15.627, 0.046)),
    (Row("12 bits", "bernoulli/straight_through", {}), (19.608, 0.020)),
    (Row("12 bits", _STC, {"temperature": 1.0}), (18.571, 0.060)),
    (Row("12 bits", _STC, {"temperature": 0.5}), (17.931, 0.024)),
    (Row("12 bits", "bernoulli/zgr", {}), (17.345, 0.068)),
    (Row("12 bits", "bernoulli/disarm", {"num_samples": 2}), (16.906, 0.048)),
    (Row("12 bits", "bernoulli/rloo", {"num_samples": 2}), (17.029, 0.027)),
    (Row("12 bits", "bernoulli/rloo", {"num_samples": 4}), (16.751, 0.068)),
    (Row("12 bits", "bernoulli/quadratic", {"num_samples": 2}, network=_LINEAR), (16.687, 0.024)),
    (Row("12 bits", "bernoulli/quadratic", {"num_samples": 2}, network=_FACTORS), (16.660, 0.028)),
    (Row("8x4", "categorical/exact", {}, seeds=2), (15.000, 0.093)),
    (Row("12 bits", "bernoulli/exact", {}, seeds=2), (16.317, 0.146)),
]
# Where the number of samples is free, those of 1, 2 and 4 that are allowed.
NUM_SAMPLES = {"reinforce": (1, 2, 4), "disarm": (2, 4), "arms": (4,), "rodeo": (2, 4)}


def _others():
    """Every other row of the catalog that serves these latents: pathwise ones at 1, 2 and 4 keys,
    score ones at 1, 2 and 4 samples where those are allowed, else at their own cost."""
    boards = {"categorical": "8x4", "bernoulli": "12 bits"}
    for name, entry in ESTIMATORS.items():
        law, method = name.split("/")
        if law not in boards or method == "unordered_set":  # that one takes one variable
            continue
        if entry.kind == "pathwise":
            for keys in (1, 2, 4):
                temperature = {h: v for h, v in entry.hyperparameters.items() if h == "temperature"}
                yield Row(boards[law], name, temperature if name in (_STGS, _STC) else {}, keys)
        elif "num_samples" in entry.hyperparameters:
            for num_samples in NUM_SAMPLES.get(method, (2, 4)):
                network = _FACTORS if method == "quadratic" else None
                yield Row(boards[law], name, {"num_samples": num_samples}, network=network)
        else:
            yield Row(boards[law], name, {}, network=_LINEAR if method == "relax" else None)


_KNOWN = [row for row, _ in REFERENCE]
ROWS = REFERENCE + [
    (row, None) for row in _others() if row not in _KNOWN and row._replace(seeds=2) not in _KNOWN
]
BATCH = 100


def initialize(key, sizes):
    bound = lambda n: 1 / math.sqrt(n)
    return [
        (
            jax.random.uniform(k, size, minval=-bound(size[0]), maxval=bound(size[0])),
            jnp.zeros(size[1]),
        )
        for k, size in zip(jax.random.split(key, len(sizes)), sizes, strict=True)
    ]


def layers(params, x):
    (w, b), (w_out, b_out) = params
    return jax.nn.relu(x @ w + b) @ w_out + b_out


def kl(logits, shape):
    if len(shape) == 1:
        logits = jnp.stack([logits, jnp.zeros_like(logits)], axis=-1)
    log_q = jax.nn.log_softmax(logits)
    return jnp.sum(jnp.exp(log_q) * (log_q + math.log(logits.shape[-1])))


class Network(NamedTuple):
    """Behind what a control variate learns.

    Fields:
      initialize: key -> parameters.
      learned: (parameters, pixels, probabilities of one data point) -> arguments of the estimator.
      optimizer: of the parameters.
    """

    initialize: Callable[[jax.Array], Any]
    learned: Callable[[Any, jax.Array, jax.Array], dict[str, jax.Array]]
    optimizer: optax.GradientTransformation


def network_of(row):
    """The one that the row names, or None."""
    if not row.network:
        return None
    factors, units, learning_rate = row.network
    shape = SHAPES[row.board]
    latent = math.prod(shape)
    sizes = (64 + latent, units), (units, (1 + factors) * latent)

    def learned(params, x, q):
        first, *rest = layers(params, jnp.concatenate([x, q.ravel()])).reshape(-1, *shape)
        name = "critic_params" if row.estimator.endswith("relax") else "linear"
        return {name: first, **({"factors": jnp.stack(rest)} if rest else {})}

    return Network(lambda key: initialize(key, sizes), learned, optax.adam(learning_rate))


def loss(params, key, x, estimate, row, network):
    shape = SHAPES[row.board]
    logits = layers(params["model"][:2], x).reshape(shape)

    def f(z):
        pixels = layers(params["model"][2:], z.reshape(-1))
        # The first sum does not depend on x: of all states it is one for the whole batch.
        return jnp.sum(jax.nn.softplus(pixels)) - x @ pixels

    learned = {}
    if network:
        # Not a function of logits: the mean of the control variate is differentiated in them alone.
        q = (jax.nn.sigmoid if logits.ndim == 1 else jax.nn.softmax)(jax.lax.stop_gradient(logits))
        learned = network.learned(params["network"], x, q)
    keys = jax.random.split(key, row.keys)
    values = jax.vmap(lambda key: estimate(key, f, logits, **learned))(keys)
    return jnp.mean(values) + kl(logits, shape)


def exact(params, images, family, shape):
    """The mean over images of -ELBO, summed over all states."""
    support = family.support(jnp.zeros(shape))
    pixels = layers(params[2:], support.reshape(len(support), -1))
    total = jnp.sum(jax.nn.softplus(pixels), axis=-1)

    def one(x):
        logits = layers(params[:2], x).reshape(shape)
        log_q = jax.vmap(family.log_prob, (0, None))(support, logits)
        return jnp.exp(log_q) @ (total - pixels @ x) + kl(logits, shape)

    return jnp.mean(jax.lax.map(one, images, batch_size=16))


def train(seed, images, row, epochs, estimate, network):
    shape = SHAPES[row.board]
    latent = math.prod(shape)
    init_key, key = jax.random.split(jax.random.key(seed))
    params = {"model": initialize(init_key, ((64, 64), (64, latent), (latent, 64), (64, 64)))}
    optimizers = {"model": optax.adam(2e-3)}
    if network:
        params["network"] = network.initialize(jax.random.fold_in(init_key, 1))
        optimizers["network"] = network.optimizer
    optimizer = optax.multi_transform(optimizers, {name: name for name in params})
    batches = len(images) // BATCH

    def objective(params, key, batch):
        each = lambda key, x: loss(params, key, x, estimate, row, network)
        return jnp.mean(jax.vmap(each)(jax.random.split(key, BATCH), batch))

    def step(state, keyed_batch):
        params, optimizer_state = state
        grads = jax.grad(objective)(params, *keyed_batch)
        updates, optimizer_state = optimizer.update(grads, optimizer_state)
        return (optax.apply_updates(params, updates), optimizer_state), None

    def epoch(state, key):
        order_key, step_key = jax.random.split(key)
        order = jax.random.permutation(order_key, len(images))[: batches * BATCH]
        keyed = jax.random.split(step_key, batches), images[order].reshape(batches, BATCH, 64)
        return jax.lax.scan(step, state, keyed)

    state = params, optimizer.init(params)
    (params, _), _ = jax.lax.scan(epoch, state, jax.random.split(key, epochs))
    return exact(params["model"], images, ESTIMATORS[row.estimator].family, shape)


def digits():
    return jnp.asarray(load_digits().images.reshape(-1, 64) >= 8, jnp.float32)


def run(row, epochs, estimate=None, network=None):
    images = digits()
    estimate = estimate or relaxjax.estimator(row.estimator, **row.hyperparameters)
    network = network or network_of(row)
    program = functools.partial(train, row=row, epochs=epochs, estimate=estimate, network=network)
    start = time.perf_counter()
    train_all = jax.jit(jax.vmap(program, (0, None)))
    scores = np.asarray(train_all(jnp.arange(row.seeds), images), float)
    mean, error = scores.mean(), scores.std(ddof=1) / math.sqrt(row.seeds)
    return {
        "evaluations": row.keys * evaluations(row),
        "negative_elbo": round(mean, 4),
        "standard_error": round(error, 4),
        "scores": [round(score, 4) for score in scores],
        "seconds": round(time.perf_counter() - start, 1),
    }


def evaluations(row):
    entry = ESTIMATORS[row.estimator]
    hyperparameters = {**entry.hyperparameters, **row.hyperparameters}
    return entry.evaluations(SHAPES[row.board], hyperparameters)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, help="for every row, instead of its own number")
    parser.add_argument("--epochs", type=int, default=600)
    parser.add_argument("--force", action="store_true", help="run again what has a result")
    parser.add_argument("--reference", action="store_true", help="only rows with a reference")
    args = parser.parse_args()
    done = [] if args.force else read("leaderboard").get("rows", [])
    results, waiting, calls = {}, {}, {}
    for i, (row, reference) in enumerate(REFERENCE if args.reference else ROWS):
        row = row._replace(seeds=args.seeds or row.seeds)
        asked = {**row._asdict(), "epochs": args.epochs, "code": digest(modules(row.estimator))}
        asked = json.loads(json.dumps(asked))  # as JSON has it, to be found again
        old = next((old for old in done if asked.items() <= old.items()), None)
        asked["reference"] = reference
        if old:
            results[i] = old | asked
            print(line(results[i]), flush=True)
        else:
            waiting[i] = lambda asked=asked, row=row: asked | run(row, args.epochs)
            calls[i] = row.keys * evaluations(row)
    longest_first = sorted(waiting, key=lambda i: -calls[i])
    for i, result in together({i: waiting[i] for i in longest_first}):
        results[i] = result
        new = [results[i] for i in sorted(results)]
        kept = [old for old in done if not any(same_row(old, row) for row in new)]
        write("leaderboard", {"rows": new + kept})
        print(line(result), flush=True)


def together(jobs):
    """Each job's name and result as it ends; on a CPU as many at once as there are cores."""
    with futures.ThreadPoolExecutor(cores() if jax.default_backend() == "cpu" else 1) as pool:
        names = {pool.submit(job): name for name, job in jobs.items()}
        for future in futures.as_completed(names):
            yield names[future], future.result()


def same_row(a, b):
    return all(a[field] == b[field] for field in (*Row._fields, "epochs"))


def z(result):
    """Distance from the reference in combined standard errors."""
    mean, error = result["reference"]
    return (result["negative_elbo"] - mean) / math.hypot(result["standard_error"], error)


def line(result):
    settings = ", ".join(f"{k}={v}" for k, v in result["hyperparameters"].items())
    text = (
        f"{result['board']:8} {result['estimator']:44} {settings:16} keys {result['keys']}  "
        f"{result['negative_elbo']:.3f} +- {result['standard_error']:.3f}  "
        f"{result['seconds']:4.0f} s"
    )
    reference = result["reference"]
    return text + (f"   reference {reference[0]:.3f}, z {z(result):+.1f}" if reference else "")


if __name__ == "__main__":
    main()
