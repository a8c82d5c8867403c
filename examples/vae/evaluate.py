"""-ELBO in nats an image under the law itself, whatever the estimator trained with."""

import jax
import jax.numpy as jnp

from vae.model import reconstruction_loss

MAX_STATES = 2**16


def sampled_negative_elbo(model, law, key, images, num_draws=1):
    """The mean over images, by num_draws samples of each."""
    logits = model.encode(images)

    def reconstruction(key):
        return reconstruction_loss(model.decode(law.family.sample(key, logits)), images)

    losses = jax.lax.map(reconstruction, jax.random.split(key, num_draws))
    return jnp.mean(losses) + jnp.mean(jax.vmap(law.divergence)(logits))


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
