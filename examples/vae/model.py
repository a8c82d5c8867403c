"""The networks and the objective of a discrete VAE."""

import math

import jax
import jax.numpy as jnp
from flax import nnx


class VAE(nnx.Module):
    """One hidden layer each way, pixels -> parameters of the latent, sample -> logits of pixels."""

    def __init__(self, pixels, latent, *, hidden=64, rngs):
        # Uniform in +-1 / sqrt(fan_in).
        init = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        layers = lambda inputs, outputs: nnx.Sequential(
            nnx.Linear(inputs, hidden, kernel_init=init, rngs=rngs),
            nnx.relu,
            nnx.Linear(hidden, outputs, kernel_init=init, rngs=rngs),
        )
        self.latent = latent
        self.encoder = layers(pixels, math.prod(latent.shape))
        self.decoder = layers(math.prod(latent.event), pixels)

    def encode(self, x):
        return self.encoder(x).reshape(*x.shape[:-1], *self.latent.shape)

    def decode(self, z):
        return self.decoder(z.reshape(*z.shape[: z.ndim - len(self.latent.event)], -1))


def reconstruction_loss(pixel_logits, x):
    """-log p(x | z) in nats, summed over the last axis."""
    return jnp.sum(jax.nn.softplus(pixel_logits) - x * pixel_logits, axis=-1)


def negative_elbo(model, law, estimate, key, x):
    """The loss of one image: its value estimates -ELBO, its gradient is the estimator's."""
    logits = model.encode(x)
    f = lambda z: reconstruction_loss(model.decode(z), x)
    return estimate(key, f, logits) + law.divergence(logits)
