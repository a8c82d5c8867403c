"""The digits boards: exact -ELBO in nats after training with each estimator.

scikit-learn's 1,797 digits, binarized at 8 of 16; 64 -> 64 ReLU -> logits and back; four
categoricals of eight classes, or twelve bits; uniform prior, KL in closed form; Adam 2e-3, 600
epochs of 17 batches of 100. Every state is summed for the score; all seeds train in one program.
"""

import argparse
import functools
import json
import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import relaxjax
from _common import RESULTS, write
from relaxjax.catalog import ESTIMATORS

SHAPES = {"8x4": (4, 8), "12 bits": (12,)}
# Board, row, hyperparameters, keys averaged over, and the reference's mean and standard error.
ROWS = [
    ("8x4", "categorical/straight_through", {}, 1, (19.573, 0.021)),
    (
        "8x4",
        "categorical/straight_through_gumbel_softmax",
        {"temperature": 1.0},
        1,
        (18.161, 0.022),
    ),
    (
        "8x4",
        "categorical/straight_through_gumbel_softmax",
        {"temperature": 0.5},
        1,
        (17.502, 0.075),
    ),
    ("8x4", "categorical/reinmax", {}, 1, (16.847, 0.064)),
    ("8x4", "categorical/reinmax", {}, 2, (16.502, 0.043)),
    ("12 bits", "bernoulli/straight_through", {}, 1, (19.608, 0.020)),
    ("12 bits", "bernoulli/straight_through_concrete", {"temperature": 1.0}, 1, (18.571, 0.060)),
    ("12 bits", "bernoulli/straight_through_concrete", {"temperature": 0.5}, 1, (17.931, 0.024)),
    ("12 bits", "bernoulli/zgr", {}, 1, (17.345, 0.068)),
]
BATCH = 100


def initialize(key, latent):
    sizes = ((64, 64), (64, latent), (latent, 64), (64, 64))
    keys = jax.random.split(key, len(sizes))
    bound = lambda n: 1 / math.sqrt(n)
    return [
        (
            jax.random.uniform(k, size, minval=-bound(size[0]), maxval=bound(size[0])),
            jnp.zeros(size[1]),
        )
        for k, size in zip(keys, sizes, strict=True)
    ]


def layers(params, x):
    (w, b), (w_out, b_out) = params
    return jax.nn.relu(x @ w + b) @ w_out + b_out


def kl(logits, shape):
    if len(shape) == 1:
        logits = jnp.stack([logits, jnp.zeros_like(logits)], axis=-1)
    log_q = jax.nn.log_softmax(logits)
    return jnp.sum(jnp.exp(log_q) * (log_q + math.log(logits.shape[-1])))


def loss(params, key, x, estimate, shape, num_keys):
    logits = layers(params[:2], x).reshape(shape)

    def f(z):
        pixels = layers(params[2:], z.reshape(-1))
        return jnp.sum(jax.nn.softplus(pixels) - x * pixels)

    values = jax.vmap(lambda key: estimate(key, f, logits))(jax.random.split(key, num_keys))
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


def train(seed, images, epochs, estimate, family, shape, num_keys):
    init_key, key = jax.random.split(jax.random.key(seed))
    params = initialize(init_key, math.prod(shape))
    optimizer = optax.adam(2e-3)
    batches = len(images) // BATCH

    def objective(params, key, batch):
        each = lambda key, x: loss(params, key, x, estimate, shape, num_keys)
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
    return exact(params, images, family, shape)


def run(board, name, hyperparameters, num_keys, reference, *, seeds, epochs):
    row, shape = ESTIMATORS[name], SHAPES[board]
    images = jnp.asarray(load_digits().images.reshape(-1, 64) >= 8, jnp.float32)
    program = functools.partial(
        train,
        epochs=epochs,
        estimate=relaxjax.estimator(name, **hyperparameters),
        family=row.family,
        shape=shape,
        num_keys=num_keys,
    )
    start = time.perf_counter()
    scores = np.asarray(jax.jit(jax.vmap(program, (0, None)))(jnp.arange(seeds), images), float)
    mean, error = scores.mean(), scores.std(ddof=1) / math.sqrt(seeds)
    return {
        "board": board,
        "estimator": name,
        "hyperparameters": hyperparameters,
        "keys": num_keys,
        "seeds": seeds,
        "epochs": epochs,
        "negative_elbo": round(mean, 4),
        "standard_error": round(error, 4),
        "scores": [round(score, 4) for score in scores],
        "reference": reference,
        "z": round((mean - reference[0]) / math.hypot(error, reference[1]), 2),
        "seconds": round(time.perf_counter() - start, 1),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=600)
    parser.add_argument("--force", action="store_true", help="run again what has a result")
    args = parser.parse_args()
    path = RESULTS / "leaderboard.json"
    done = json.loads(path.read_text())["rows"] if path.exists() and not args.force else []
    rows = []
    for board, name, hyperparameters, keys, reference in ROWS:
        same = {
            "board": board,
            "estimator": name,
            "hyperparameters": hyperparameters,
            "keys": keys,
            "seeds": args.seeds,
            "epochs": args.epochs,
        }
        row = next((row for row in done if same.items() <= row.items()), None)
        row = row or run(
            board, name, hyperparameters, keys, reference, seeds=args.seeds, epochs=args.epochs
        )
        rows.append(row)
        settings = ", ".join(f"{k}={v}" for k, v in hyperparameters.items())
        print(
            f"{board:8} {name:44} {settings:16} keys {keys}  {row['negative_elbo']:.3f} "
            f"+- {row['standard_error']:.3f}   reference {reference[0]:.3f}   z {row['z']:+.1f}",
            flush=True,
        )
        write("leaderboard", {"rows": rows})


if __name__ == "__main__":
    main()
