"""Training: one epoch is one lax.scan under jit."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tqdm import tqdm

from vae import evaluate
from vae.model import VAE, negative_elbo

LEARNING_RATE = 2e-3


class Curves(NamedTuple):
    """-ELBO in nats an image after each epoch, by samples."""

    train: np.ndarray
    test: np.ndarray


def train(data, latent, law, estimate, *, epochs, batch_size, seed):
    """A trained VAE and its curves."""
    init_key, key = jax.random.split(jax.random.key(seed))
    model = VAE(data.train.shape[-1], latent, rngs=nnx.Rngs(init_key))
    graph, params = nnx.split(model, nnx.Param)
    optimizer = optax.adam(LEARNING_RATE)
    state = params, optimizer.init(params)
    epoch = _epoch(graph, law, estimate, optimizer, batch_size)
    images = jnp.asarray(data.train), jnp.asarray(data.test)
    history = []
    with tqdm(range(epochs), desc="training", unit="epoch", disable=None) as bar:
        for i in bar:
            state, losses = epoch(state, jax.random.fold_in(key, i), *images)
            history.append([float(loss) for loss in losses])
            bar.set_postfix(loss=f"{history[-1][0]:.2f}", test=f"{history[-1][1]:.2f}")
    return nnx.merge(graph, state[0]), Curves(*np.transpose(history))


def _epoch(graph, law, estimate, optimizer, batch_size):
    def loss(params, key, batch):
        model = nnx.merge(graph, params)
        keys = jax.random.split(key, len(batch))
        one = lambda key, x: negative_elbo(model, law, estimate, key, x)
        return jnp.mean(jax.vmap(one)(keys, batch))

    def step(state, keyed_batch):
        params, optimizer_state = state
        value, grads = jax.value_and_grad(loss)(params, *keyed_batch)
        updates, optimizer_state = optimizer.update(grads, optimizer_state, params)
        return (optax.apply_updates(params, updates), optimizer_state), value

    @jax.jit
    def epoch(state, key, train_images, test_images):
        order_key, step_key, test_key = jax.random.split(key, 3)
        batches = len(train_images) // batch_size
        order = jax.random.permutation(order_key, len(train_images))[: batches * batch_size]
        shuffled = train_images[order].reshape(batches, batch_size, -1)
        state, losses = jax.lax.scan(step, state, (jax.random.split(step_key, batches), shuffled))
        model = nnx.merge(graph, state[0])
        test = evaluate.sampled_negative_elbo(model, law, test_key, test_images)
        return state, (jnp.mean(losses), test)

    return epoch
