"""Scores in nats an image under the law itself, whatever the estimator trained with."""

import functools
import math

import jax
import jax.numpy as jnp

from vae.model import log_weights, reconstruction_loss

MAX_STATES = 2**16


def sampled_scores(model, law, key, images, num_draws=1):
    """(-ELBO, -IWAE bound of num_draws samples), each the mean over images."""
    logits = model.encode(images)

    def draw(keys):
        z = jax.vmap(law.family.sample)(keys, logits)
        losses = reconstruction_loss(model.decode(z), images)
        return losses, jax.vmap(functools.partial(log_weights, law))(losses, logits, z)

    losses, weights = jax.lax.map(draw, jax.random.split(key, (num_draws, len(images))))
    elbo = jnp.mean(losses) + jnp.mean(jax.vmap(law.divergence)(logits))
    return elbo, math.log(num_draws) - jnp.mean(jax.nn.logsumexp(weights, axis=0))


def exact_negative_elbo(model, law, images):
    """The mean over images, summed over every state of the latent."""
    support = law.family.support(law.prior)
    pixel_logits = model.decode(support)

    def one(x):
        logits = model.encode(x)
        log_q = jax.vmap(lambda z: law.family.log_prob(z, logits))(support)
        losses = jax.nn.softplus(pixel_logits).sum(axis=-1) - pixel_logits @ x
        return jnp.sum(jnp.exp(log_q) * losses) + law.divergence(logits)

    return jnp.mean(jax.lax.map(one, images, batch_size=8))
