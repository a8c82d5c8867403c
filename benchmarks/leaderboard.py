"""The digits boards: exact -ELBO in nats after training with each estimator.

scikit-learn's 1,797 digits, binarized at 8 of 16; the networks of the example, 64 -> 64 ReLU ->
logits and back; four categoricals of eight classes, or twelve bits; uniform prior, KL in closed
form; Adam 2e-3, 600 epochs of 17 batches of 100. Every state is summed for the score; all seeds
train in one program, on one core, and as many rows at once as there are cores.
"""

import functools
import importlib.metadata
import json
import math
import os
import threading
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

from _harness import RESULTS, Job, asked, cores, descend, measure, modules
from _harness import row as estimator
from relaxjax.catalog import ESTIMATORS
from vae import evaluate, latent
from vae.model import VAE, Quadratic

# One core per row: the products are too small for several.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"
if importlib.metadata.version("jaxlib") == "0.10.2":
    # There a fusion of XLA's CPU code for products ends the process with a segmentation fault, in
    # the gradient of `quadratic` with factors from a network, over several seeds at once.
    os.environ["XLA_FLAGS"] += " --xla_cpu_experimental_ynn_fusion_type="

BOARDS = {"8x4": ("categorical",), "12 bits": ("bernoulli", "correlated")}
LATENTS = {board: latent.parse(board.removesuffix(" bits")) for board in BOARDS}
BATCH, PIXELS = 100, 64
TRACING = threading.Lock()  # what JAX keeps of a function is not safe from another thread


class Row(NamedTuple):
    """A row of a board.

    Fields:
      keys: averaged over.
      network: factors, hidden units and learning rate of the network behind what a control variate
        learns: `quadratic`'s coefficients, or the critic_params of `relax`.
    """

    board: str
    estimator: str
    hyperparameters: dict
    keys: int = 1
    seeds: int = 5
    network: tuple[int, int, float] | None = None

    def __str__(self):
        parts = [self.estimator, *(f"{k} {v}" for k, v in self.hyperparameters.items())]
        parts += [f"{self.keys} draws"] * (self.keys > 1)
        if self.network:
            parts.append(f"{self.network[0]} factors" if self.network[0] else "linear part")
        return ", ".join(parts)

    @property
    def evaluations(self):
        estimate = estimator(self.estimator, **self.hyperparameters)
        return self.keys * estimate.evaluations(LATENTS[self.board].shape)


# Mean and standard error that another implementation, written apart, reached with the same rows.
REFERENCE = json.loads((RESULTS / "reference.json").read_text())
# The numbers of samples, of 1, 2 and 4, that a row takes, where they are not 2 and 4.
NUM_SAMPLES = {"reinforce": (1, 2, 4), "arms": (4,)}
_LINEAR, _FACTORS = (0, 128, 4e-3), (8, 256, 2e-3)


def rows(board):
    """Every row of the catalog that serves its latent: pathwise ones at 1, 2 and 4 keys, score ones
    at 1, 2 and 4 samples where those are allowed, else at their own cost."""
    for name, entry in ESTIMATORS.items():
        law, method = entry.law, entry.method
        row = Row(board, name, {})
        if law not in BOARDS[board] or method == "unordered_set":  # that one takes one variable
            continue
        if method in ("straight_through_gumbel_softmax", "straight_through_concrete"):
            yield row._replace(hyperparameters={"temperature": 1.0})
            row = row._replace(hyperparameters={"temperature": 0.5})
        if entry.kind == "pathwise":
            yield from (row._replace(keys=keys) for keys in (1, 2, 4))
        elif "num_samples" in entry.hyperparameters:
            learned = {"quadratic": _FACTORS}.get(method)
            if learned:
                yield row._replace(hyperparameters={"num_samples": 2}, network=_LINEAR)
            for n in NUM_SAMPLES.get(method, (2, 4)):
                yield row._replace(hyperparameters={"num_samples": n}, network=learned)
        elif method == "relax":
            yield row._replace(network=_LINEAR)
        else:
            yield row._replace(seeds=2) if method == "exact" else row


def networks(row, key):
    """Those that learn, and their optimizers."""
    shape = LATENTS[row.board]
    found = {"vae": VAE(PIXELS, shape, rngs=nnx.Rngs(key))}
    optimizers = {"vae": optax.adam(2e-3)}
    if row.network:
        factors, hidden, learning_rate = row.network
        rngs = nnx.Rngs(jax.random.fold_in(key, 1))
        found["control"] = Quadratic(PIXELS, shape, factors, hidden=hidden, rngs=rngs)
        optimizers["control"] = optax.adam(learning_rate)
    return found, optax.multi_transform(optimizers, {name: name for name in found})


def loss(key, x, row, law, vae, control=None):
    """Of one image, whose gradient in the encoder is the estimator's."""
    logits = vae.encode(x)

    def f(z):
        pixels = vae.decode(z)
        # The first sum does not depend on x: of all states it is one for the whole batch.
        return jnp.sum(jax.nn.softplus(pixels)) - x @ pixels

    learned = {}
    if control:
        # Not a function of logits: the mean of the control variate is differentiated in them alone.
        learned = control(x, law.family.mean(jax.lax.stop_gradient(logits)))
        if row.estimator.endswith("/relax"):
            learned = {"critic_params": learned["linear"]}
    estimate = estimator(row.estimator, **row.hyperparameters, **learned)
    values = jax.vmap(lambda key: estimate(key, f, logits))(jax.random.split(key, row.keys))
    return jnp.mean(values) + law.divergence(logits)


def train(seed, images, row, epochs):
    """The exact -ELBO at the end."""
    init_key, order_key, key = jax.random.split(jax.random.key(seed), 3)
    found, optimizer = networks(row, init_key)
    graphs, params = ({name: nnx.split(n)[i] for name, n in found.items()} for i in (0, 1))
    merge = lambda params: {name: nnx.merge(graphs[name], params[name]) for name in params}
    law = latent.build(LATENTS[row.board], {})

    def objective(params, keys, index):
        each = lambda key, x: loss(key, x, row, law, **merge(params))
        return jnp.mean(jax.vmap(each)(keys, images[index]))

    used = len(images) // BATCH * BATCH  # in an epoch
    order = lambda key: jax.random.permutation(key, len(images))[:used]
    orders = jax.vmap(order)(jax.random.split(order_key, epochs)).reshape(-1, BATCH)
    keys = jax.random.split(key, orders.shape)
    params = descend(objective, params, optimizer, keys, orders)
    return evaluate.exact_negative_elbo(merge(params)["vae"], law, images)


def run(row, epochs):
    start, images = time.perf_counter(), load_digits().images.reshape(-1, PIXELS) >= 8
    args = np.arange(row.seeds), images.astype(np.float32)
    program = jax.jit(jax.vmap(functools.partial(train, row=row, epochs=epochs), (0, None)))
    with TRACING:
        lowered = program.lower(*args)
    scores = np.asarray(lowered.compile()(*args), float)
    mean, error = scores.mean(), scores.std(ddof=1) / math.sqrt(row.seeds)
    found = {
        "calls of f": row.evaluations,
        "-ELBO": [round(mean, 4), round(error, 4)],
        "scores": [round(score, 4) for score in scores],
        "seconds": round(time.perf_counter() - start, 1),
    }
    if str(row) in REFERENCE:
        found["reference"] = their_mean, their_error = REFERENCE[str(row)]
        found["z"] = round((mean - their_mean) / math.hypot(error, their_error), 1)
    return found


def jobs(board, epochs):
    """The costly ones first, so that no core waits at the end."""
    return {
        str(row): Job(
            functools.partial(run, row, epochs),
            modules(row.estimator),
            {**row._asdict(), "epochs": epochs},
        )
        for row in sorted(rows(board), key=lambda row: -row.evaluations)
    }


if __name__ == "__main__":
    args = asked(__doc__, epochs=600)
    table = {board: jobs(board, args.epochs) for board in BOARDS}
    measure("leaderboard", table, args, cores() if jax.default_backend() == "cpu" else 1)
