"""-ELBO in nats an image under the discrete law itself, whatever the estimator trained with."""

import jax
import jax.numpy as jnp

from vae.model import kl_to_uniform, reconstruction_loss

MAX_STATES = 2**16


def sampled_negative_elbo(model, latent, key, images, num_draws=1):
    """The mean over images, by num_draws hard samples of each."""
    logits = model.encode(images)

    def reconstruction(key):
        return reconstruction_loss(model.decode(latent.family.sample(key, logits)), images)

    losses = jax.lax.map(reconstruction, jax.random.split(key, num_draws))
    kl = jax.vmap(lambda logits: kl_to_uniform(logits, latent))(logits)
    return jnp.mean(losses) + jnp.mean(kl)


def exact_negative_elbo(model, latent, images):
    """The mean over images, summed over every state of the latent."""
    support = latent.family.support(jnp.zeros(latent.shape, jnp.float32))
    pixel_logits = model.decode(support)

    def one(x):
        logits = model.encode(x)
        log_q = jax.vmap(lambda z: latent.family.log_prob(z, logits))(support)
        losses = jax.nn.softplus(pixel_logits).sum(axis=-1) - pixel_logits @ x
        return jnp.sum(jnp.exp(log_q) * losses) + kl_to_uniform(logits, latent)

    return jnp.mean(jax.lax.map(one, images, batch_size=8))
