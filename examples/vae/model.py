"""The networks of a discrete VAE, and what they minimize."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

import relaxjax
from relaxjax import score
from relaxjax.catalog import ESTIMATORS, REQUIRED
from vae import latent as latents
from vae.latent import Latent

# What the decoder takes is a bit or a one-hot, also of a row whose sample is its logarithm.
LOG_FORMS = {"bernoulli/logit_concrete": jax.nn.sigmoid, "categorical/log_gumbel_softmax": jnp.exp}


# Uniform in +-1 / sqrt(fan_in).
UNIFORM = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def _layers(inputs, hidden, outputs, rngs, last=UNIFORM):
    return nnx.Sequential(
        nnx.Linear(inputs, hidden, kernel_init=UNIFORM, rngs=rngs),
        nnx.relu,
        nnx.Linear(hidden, outputs, kernel_init=last, rngs=rngs),
    )


class VAE(nnx.Module):
    """One hidden layer each way, pixels -> parameters of the latent, sample -> logits of pixels."""

    def __init__(self, pixels, latent, *, hidden=64, rngs):
        self.latent = latent
        self.encoder = _layers(pixels, hidden, math.prod(latent.shape), rngs)
        self.decoder = _layers(math.prod(latent.event), hidden, pixels, rngs)

    def encode(self, x):
        return self.encoder(x).reshape(*x.shape[:-1], *self.latent.shape)

    def decode(self, z):
        return self.decoder(z.reshape(*z.shape[: z.ndim - len(self.latent.event)], -1))


class Quadratic(nnx.Module):
    """An image and its E[z] -> the coefficients of `control_variates.quadratic`."""

    def __init__(self, pixels, latent, factors, *, hidden=128, rngs):
        self.shape = (1 + factors, *latent.shape)
        size = math.prod(latent.shape)
        self.layers = _layers(pixels + size, hidden, (1 + factors) * size, rngs)

    def __call__(self, x, mean):
        linear, *factors = self.layers(jnp.concatenate([x, mean.ravel()])).reshape(self.shape)
        return {"linear": linear, "factors": jnp.stack(factors) if factors else None}


class Critic(nnx.Module):
    """An image and a relaxed sample -> the critic of `control_variates.relax`."""

    def __init__(self, pixels, latent, *, hidden=128, rngs):
        # From 0: a critic far from f is worse than none.
        zeros = nnx.initializers.zeros
        self.layers = _layers(pixels + math.prod(latent.shape), hidden, 1, rngs, last=zeros)

    def __call__(self, x, z):
        return self.layers(jnp.concatenate([x, z.ravel()]))[0]


class Method(NamedTuple):
    """Where a gradient comes from.

    Fields:
      latent: the latent.
      estimator: a row of the catalog; None trains on VIMCO's bound.
      static: the row's hyperparameters that are no real numbers; factors is how many of them.
      num_samples: of VIMCO.
    """

    latent: Latent
    estimator: str | None
    static: Mapping[str, Any]
    num_samples: int = 1

    def row(self):
        """The estimator, with what is static of it."""
        static = {k: x for k, x in self.static.items() if k != "factors"}
        return relaxjax.estimator(self.estimator, **static)

    def networks(self, pixels, hidden, key):
        """The VAE, and the control variate that learns or None."""
        vae_key, key = jax.random.split(key)
        vae = VAE(pixels, self.latent, hidden=hidden, rngs=nnx.Rngs(vae_key))
        if learns_quadratic(self.estimator):
            factors = self.static["factors"] or 0
            return vae, Quadratic(pixels, self.latent, factors, rngs=nnx.Rngs(key))
        if learns_critic(self.estimator):
            return vae, Critic(pixels, self.latent, rngs=nnx.Rngs(key))
        return vae, None

    def law(self, reals):
        return latents.build(self.latent, {**self.static, **reals})

    def loss(self, vae, control, reals, key, x):
        """Of one image x: its value estimates -ELBO, or -IWAE's bound, its gradient is the
        estimator's."""
        logits, law = vae.encode(x), self.law(reals)
        squash = LOG_FORMS.get(self.estimator, lambda z: z)
        f = lambda z: reconstruction_loss(vae.decode(squash(z)), x)
        if self.estimator is None:
            log_weight = lambda z: log_weights(law, f(z), logits, z)
            options = {"family": law.family, "num_samples": self.num_samples}
            return score.vimco(key, log_weight, logits, **options)
        hyperparameters = {**self.static, **reals}
        if learns_critic(self.estimator):
            graph, params = nnx.split(control)
            hyperparameters["critic"] = lambda params, z: nnx.merge(graph, params)(x, z)
            hyperparameters["critic_params"] = params
        if learns_quadratic(self.estimator):
            # The coefficients may depend on the probabilities, and not on what is learned of them.
            hyperparameters |= control(x, law.family.mean(jax.lax.stop_gradient(logits)))
        estimate = self.row().replace(**hyperparameters)
        return estimate(key, f, logits) + law.divergence(logits)


def learns_quadratic(estimator):
    return estimator is not None and "linear" in ESTIMATORS[estimator].real


def learns_critic(estimator):
    return estimator is not None and ESTIMATORS[estimator].static.get("critic") is REQUIRED


def reconstruction_loss(pixel_logits, x):
    """-log p(x | z) in nats, summed over the last axis."""
    # jax.nn.softplus minds infinite logits too, and costs twice as much.
    softplus = jnp.maximum(pixel_logits, 0) + jnp.log1p(jnp.exp(-jnp.abs(pixel_logits)))
    return jnp.sum(softplus - x * pixel_logits, axis=-1)


def log_weights(law, loss, logits, z):
    """log p(x, z) / q(z | x) of one sample z whose reconstruction loss is given."""
    return law.family.log_prob(z, law.prior) - law.family.log_prob(z, logits) - loss
