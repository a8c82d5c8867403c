"""The latent, the networks and the objective of a discrete VAE with a uniform prior."""

import math
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from relaxjax import Family, bernoulli, categorical
from vae.errors import UsageError


class Latent(NamedTuple):
    """A law and the shape of its logits."""

    name: str
    family: Family
    shape: tuple[int, ...]

    @property
    def states(self):
        classes, variables = (2, *self.shape) if len(self.shape) == 1 else reversed(self.shape)
        return classes**variables


def parse_latent(text):
    """ "8x4" is four categoricals of eight classes, "12" twelve bits."""
    match = re.fullmatch(r"([1-9]\d{0,5})(?:x([1-9]\d{0,5}))?", text)
    if match is None or match[2] and match[1] == "1":
        raise UsageError(
            f"--latent: got {text!r}, need CLASSESxVARIABLES, such as 8x4, or a number of bits, "
            "such as 12"
        )
    if match[2]:
        return Latent(text, categorical.family, (int(match[2]), int(match[1])))
    return Latent(text, bernoulli.family, (int(match[1]),))


class VAE(nnx.Module):
    """One hidden layer each way, pixels -> logits of the latent, latent -> logits of the pixels."""

    def __init__(self, pixels, latent, *, hidden=64, rngs):
        # Uniform in +-1 / sqrt(fan_in).
        init = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        size = math.prod(latent.shape)
        layers = lambda inputs, outputs: nnx.Sequential(
            nnx.Linear(inputs, hidden, kernel_init=init, rngs=rngs),
            nnx.relu,
            nnx.Linear(hidden, outputs, kernel_init=init, rngs=rngs),
        )
        self.shape = latent.shape
        self.encoder = layers(pixels, size)
        self.decoder = layers(size, pixels)

    def encode(self, x):
        return self.encoder(x).reshape(*x.shape[:-1], *self.shape)

    def decode(self, z):
        return self.decoder(z.reshape(*z.shape[: z.ndim - len(self.shape)], -1))


def reconstruction_loss(pixel_logits, x):
    """-log p(x | z) in nats, summed over the last axis."""
    return jnp.sum(jax.nn.softplus(pixel_logits) - x * pixel_logits, axis=-1)


def kl_to_uniform(logits, latent):
    """KL(q || uniform) in nats of one joint sample, in closed form."""
    if latent.family is bernoulli.family:
        logits = jnp.stack([logits, jnp.zeros_like(logits)], axis=-1)  # a bit is one of two classes
    log_q = jax.nn.log_softmax(logits)
    return jnp.sum(jnp.exp(log_q) * (log_q + math.log(logits.shape[-1])))


def negative_elbo(model, latent, estimate, key, x):
    """The loss of one image: its value estimates -ELBO, its gradient is the estimator's."""
    logits = model.encode(x)
    f = lambda z: reconstruction_loss(model.decode(z), x)
    return estimate(key, f, logits) + kl_to_uniform(logits, latent)
