"""Training: one epoch is one lax.scan under jit, of one member or, by vmap, of many."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tqdm import tqdm

from vae import data, evaluate, runtime
from vae.errors import RunError
from vae.model import Method


class Task(NamedTuple):
    """What is trained, on what and how.

    Fields:
      method: what is minimized.
      train, test: rows of uint8 over the mesh, of which the first sizes are images.
      binarize: as data.pixels takes it.
      reals: the method's real hyperparameters; an array has a member for each of its values.
      schedules: step -> value, of those that change.
      seeds: a member each, too.
    """

    method: Method
    mesh: Mesh
    train: jax.Array
    test: jax.Array
    sizes: tuple[int, int]
    binarize: str = "static"
    reals: Mapping[str, Any] = {}
    schedules: Mapping[str, Callable] = {}
    seeds: tuple[int, ...] = (0,)
    epochs: int = 400
    batch_size: int = 96
    hidden: int = 64
    learning_rate: float = 2e-3

    @property
    def batches(self):
        return self.sizes[0] // self.batch_size

    @property
    def swept(self):
        """The name of the hyperparameter that has members, or None."""
        return next((name for name, value in self.reals.items() if np.ndim(value)), None)

    def reals_at(self, reals, step):
        return {**reals, **{name: value(step) for name, value in self.schedules.items()}}

    def networks(self, params):
        """The VAE, and the control variate or None, with the parameters of one member."""
        new = lambda: self.method.networks(self.train.shape[1], self.hidden, jax.random.key(0))
        return nnx.merge(nnx.split(nnx.eval_shape(new))[0], params)


class State(NamedTuple):
    """All that changes; a checkpoint of it is the run.

    Fields:
      params: of the VAE and of the control variate.
      optimizer: optax's.
      key: raw; with the epoch's number it makes every epoch's order, binarization and noise.
      epoch: how many are done.
      losses: (epochs, 2), the mean training loss and the held-out -ELBO by samples; NaN where still
        to come.
      seconds: of training before this process took it up.
    """

    params: Any
    optimizer: Any
    key: jax.Array
    epoch: jax.Array
    losses: jax.Array
    seconds: jax.Array


# Members of one seed differ in a hyperparameter alone: they share the order and the noise.
OVER_VALUES = State(0, 0, key=None, epoch=None, losses=0, seconds=None)
OVER_SEEDS = OVER_VALUES._replace(key=0)


def start(task):
    """The State before the first epoch, of all members."""

    def one(key):
        init_key, key = jax.random.split(key)
        networks = task.method.networks(task.train.shape[1], task.hidden, init_key)
        params = nnx.split(networks)[1]
        return State(
            params=params,
            optimizer=_optimizer(task).init(params),
            key=jax.random.key_data(key),
            epoch=jnp.int32(0),
            losses=jnp.full((task.epochs, 2), jnp.nan, jnp.float32),
            seconds=jnp.float32(0),
        )

    if task.swept:
        one = jax.vmap(one, None, OVER_VALUES, axis_size=len(task.reals[task.swept]))
    seeds = jnp.asarray(task.seeds)
    keys = jax.vmap(jax.random.key)(seeds)
    if len(seeds) > 1:
        return jax.jit(jax.vmap(one, 0, OVER_SEEDS))(keys)
    return jax.jit(one)(keys[0])


def epoch_program(task):
    """(state, reals, train, test) -> state and the loss of every step, compiled once for all."""
    optimizer = _optimizer(task)
    rows = NamedSharding(task.mesh, runtime.ROWS)
    train_size, test_size = task.sizes

    def loss(params, reals, keys, batch):
        vae, control = task.networks(params)
        one = lambda key, x: task.method.loss(vae, control, reals, key, x)
        return jnp.mean(jax.vmap(one)(keys, batch))

    def epoch(state, reals, train, test):
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.epoch)
        order_key, pixel_key, noise_key, test_key = jax.random.split(key, 4)
        shape = task.batches, task.batch_size
        order = jax.random.permutation(order_key, train_size)[: math.prod(shape)].reshape(shape)

        def step(carry, inputs):
            params, optimizer_state = carry
            i, keys, index = inputs
            batch = jax.lax.with_sharding_constraint(train[index], rows)
            batch = data.pixels(jax.random.fold_in(pixel_key, i), batch, task.binarize)
            now = task.reals_at(reals, state.epoch * task.batches + i)
            value, grads = jax.value_and_grad(loss)(params, now, keys, batch)
            updates, optimizer_state = optimizer.update(grads, optimizer_state, params)
            return (optax.apply_updates(params, updates), optimizer_state), value

        inputs = jnp.arange(task.batches), jax.random.split(noise_key, shape), order
        (params, optimizer_state), losses = jax.lax.scan(step, state[:2], inputs)
        vae, _ = task.networks(params)
        law = task.method.law(task.reals_at(reals, (state.epoch + 1) * task.batches))
        images = data.pixels(jax.random.key(0), test[:test_size], task.binarize)
        held_out, _ = evaluate.sampled_scores(vae, law, test_key, images)
        line = jnp.stack([jnp.mean(losses), held_out])
        state = state._replace(
            params=params,
            optimizer=optimizer_state,
            epoch=state.epoch + 1,
            losses=state.losses.at[state.epoch].set(line),
        )
        return state, losses

    if task.swept:
        reals_axes = {name: 0 if name == task.swept else None for name in task.reals}
        epoch = jax.vmap(epoch, (OVER_VALUES, reals_axes, None, None), (OVER_VALUES, 0))
    if len(task.seeds) > 1:
        epoch = jax.vmap(epoch, (OVER_SEEDS, None, None, None), (OVER_SEEDS, 0))
    return jax.jit(epoch, out_shardings=NamedSharding(task.mesh, PartitionSpec()))


def _optimizer(task):
    return optax.adam(task.learning_rate)


def train(task, state, after_epoch=lambda state: None):
    """The State after the last epoch. after_epoch sees every State whose losses are finite; what
    it raises ends the training."""
    program = epoch_program(task)
    reals = {name: np.asarray(value, np.float32) for name, value in task.reals.items()}
    # As the program returns it: another placement would compile it a second time.
    state, done = runtime.replicate(task.mesh, state), int(state.epoch)
    bar = tqdm(
        total=task.epochs * task.batches,
        initial=done * task.batches,
        desc="training",
        unit="step",
        disable=None if runtime.is_writer() else True,
    )
    with bar:
        for epoch in range(done, task.epochs):
            state, losses = program(state, reals, task.train, task.test)
            losses = np.asarray(losses)
            check_finite(task, epoch, losses)
            held_out = np.asarray(state.losses)[..., epoch, 1].mean()
            bar.set_postfix(loss=f"{losses.mean():.2f}", ELBO=f"{-held_out:.2f}", refresh=False)
            bar.update(task.batches)
            after_epoch(state)
    return state


def check_finite(task, epoch, losses):
    """RunError that names the first step, counted from 1, and the member whose loss is not."""
    bad = np.argwhere(~np.isfinite(losses))
    if len(bad):
        *member, step = bad[np.argmin(bad[:, -1])]
        which = f" of {describe(task, tuple(member))}" if member else ""
        value = losses[(*member, step)]
        raise RunError(f"step {epoch * task.batches + step + 1}: the loss{which} is {value}")


def member_shape(task):
    """The axes of members: seeds, then values, each where there are several."""
    seeds = (len(task.seeds),) if len(task.seeds) > 1 else ()
    return seeds + ((len(task.reals[task.swept]),) if task.swept else ())


def member(task, index):
    """{"seed": ..., and the swept hyperparameter} of the member with that index."""
    index = list(index)
    settings = {"seed": task.seeds[index.pop(0) if len(task.seeds) > 1 else 0]}
    if task.swept:
        settings[task.swept] = float(task.reals[task.swept][index.pop(0)])
    return settings


def describe(task, index):
    return ", ".join(f"{name}={value:g}" for name, value in member(task, index).items())


def last_reals(task, index):
    """The real hyperparameters of a member when training is over."""
    settings = member(task, index)
    reals = {name: np.float32(settings.get(name, value)) for name, value in task.reals.items()}
    return task.reals_at(reals, task.epochs * task.batches)


def member_params(state, index):
    return jax.tree.map(lambda x: np.asarray(x)[index], state.params)


def scores(task, state, num_draws):
    """{score: array}, each with the axes of members."""

    @functools.partial(jax.jit, static_argnames="size")
    def one(params, reals, key, rows, size):
        vae, _ = task.networks(params)
        law = task.method.law(reals)
        images = data.pixels(jax.random.key(0), rows[:size], task.binarize)
        elbo, iwae = evaluate.sampled_scores(vae, law, key, images, num_draws)
        result = {"negative_elbo": elbo, "negative_iwae": iwae}
        if law.states <= evaluate.MAX_STATES:
            result["exact_negative_elbo"] = evaluate.exact_negative_elbo(vae, law, images)
        return result

    result = {}
    for index in np.ndindex(member_shape(task)):
        params, reals = member_params(state, index), last_reals(task, index)
        key = jax.random.key(member(task, index)["seed"])
        for split, rows, size in zip(
            ("train", "test"), (task.train, task.test), task.sizes, strict=True
        ):
            for name, value in one(params, reals, key, rows, size).items():
                array = result.setdefault(f"{name}_{split}", np.zeros(member_shape(task)))
                array[index] = value
    return dict(sorted(result.items(), key=lambda item: item[0].startswith("exact")))
