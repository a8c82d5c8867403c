"""Bias, variance and cost of any estimator, the library's own or a user's.

>>> import jax, jax.numpy as jnp, relaxjax
>>> estimate = relaxjax.estimator("bernoulli/rloo")
>>> f = lambda x: (jnp.sum(x) - 0.4) ** 2
>>> audit = relaxjax.audit.measure(
...     jax.random.key(0), estimate, f, jnp.zeros(3), family=estimate.family, num_draws=1_000
... )
>>> audit.evaluations, bool(jnp.all(jnp.abs(audit.z) < 5.5))
(2, True)
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from relaxjax import _arguments, _noise, score
from relaxjax.families import Family

# Draws per compiled call. jaxlib 0.10.2 on CPU returns wrong numbers, silently, from a loop over
# larger chunks of a k-subset estimator: 8,000 draws are wrong, 5,000 right.
MAX_CHUNK = 1000
# Numbers in the gradients of one chunk, so that large params do not fill the memory.
MAX_NUMBERS = 2**24


class Audit(NamedTuple):
    """What `measure` found; its `str` is a table.

    The fields other than plain numbers have the form, shapes and dtypes of params, in NumPy.

    Fields:
      value: the mean of the estimator's values, a float.
      gradient: the mean of its gradients.
      reference_gradient: the gradient of E[f] under the family, exact or by Monte Carlo.
      bias: gradient - reference_gradient.
      standard_error: the standard error of the bias.
      std: the standard deviation of the gradient of one draw.
      signal_to_noise: |gradient| / sqrt(the sum of all variances), a float; inf without variance.
      evaluations: calls of f per draw, an int, counted while one draw ran.
    """

    value: float
    gradient: Any
    reference_gradient: Any
    bias: Any
    standard_error: Any
    std: Any
    signal_to_noise: float
    evaluations: int

    @property
    def z(self):
        """Compute bias / standard_error, or 0 where bias and std are but rounding error.

        Returns:
          NumPy arrays in the form and shapes of params.
        """

        def z(bias, error, std, reference):
            scale = max(abs(self.value), np.max(np.abs(reference), initial=0.0))
            floor = max(1e-12, 256 * float(jnp.finfo(bias.dtype).eps) * float(scale))
            rounding = (np.abs(bias) <= floor) & (std <= floor)
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.where(rounding, 0, bias / error)

        return jax.tree.map(z, self.bias, self.standard_error, self.std, self.reference_gradient)

    def __str__(self):
        columns = "reference_gradient", "gradient", "bias", "standard_error", "z", "std"
        trees = [jax.tree.leaves(getattr(self, column)) for column in columns]
        paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(self.bias)[0]]
        lines = [f"{'':14}" + "".join(f"{column.replace('_', ' '):>20}" for column in columns)]
        for path, *leaves in zip(paths, *trees, strict=True):
            for index in np.ndindex(np.shape(leaves[0])):
                name = jax.tree_util.keystr(path) + (str(list(index)) if index else "")
                cells = (f"{float(np.asarray(leaf)[index]):20.6g}" for leaf in leaves)
                lines.append(f"{name:14}" + "".join(cells))
        lines.append(
            f"value {self.value:.6g}, signal to noise {self.signal_to_noise:.4g}, "
            f"evaluations of f {self.evaluations} per draw"
        )
        return "\n".join(lines)


def measure(
    key,
    estimator,
    f,
    params,
    *,
    family: Family,
    num_draws,
    reference="exact",
    progress=None,
):
    """Measure the bias, standard deviation and cost of an estimator of the gradient of E[f(x)].

    Args:
      key: PRNG key of the draws.
      estimator: (key, f, params) -> scalar, such as `relaxjax.estimator(...)` returns, or one of
        your own; its gradient in params is audited, pathwise or score, unbiased or not.
      f: function of one whole sample to a float scalar.
      params: parameters of the family, any pytree of floats.
      family: the discrete `Family` under which E[f] is taken, whatever the estimator draws; with
        support for an exact reference.
      num_draws: static integer >= 2; the draws run in chunks of at most 1,000, all from
        jax.random.split(key, num_draws).
      reference: "exact" enumerates the family's support, up to 2^20 states; "monte_carlo" averages
        RLOO of two samples over num_draws fresh keys, for which sample and log_prob are enough.
      progress: function of the chunks, an iterable, to an iterable over the same, such as
        tqdm.tqdm; None shows a bar on a terminal where tqdm is installed and the draws take long.

    Returns:
      An `Audit`. Sums over draws are in float64; one draw is as exact as the dtype of params.

    Raises:
      TypeError: num_draws is no static integer.
      ValueError: reference is another string, num_draws is below 2, or the reference is exact and
        the family has no support or one that is too large.
    """
    num_draws = _arguments.count("num_draws", num_draws, 2)
    params = jax.tree.map(jnp.asarray, params)
    if reference not in ("exact", "monte_carlo"):
        raise ValueError(f"reference: got {reference!r}, need 'exact' or 'monte_carlo'")
    evaluations = _count_evaluations(estimator, f, params, key)
    moments = functools.partial(_moments, f, params, num_draws, progress or _progress)
    value, gradient, variance = moments(estimator, key)
    squared_error = jax.tree.map(lambda v: v / num_draws, variance)
    if reference == "exact":
        exact = jax.jit(jax.grad(lambda params: score.exact(key, f, params, family=family)))(params)
        target = jax.tree.map(lambda x: np.asarray(x, np.float64), exact)
    else:
        unbiased = functools.partial(score.rloo, family=family)
        fresh = _noise.noise_key(key)
        _, target, spread = moments(unbiased, fresh)
        squared_error = jax.tree.map(lambda a, b: a + b / num_draws, squared_error, spread)
    total_variance = sum(float(np.sum(v)) for v in jax.tree.leaves(variance))
    norm = np.sqrt(sum(float(np.sum(g**2)) for g in jax.tree.leaves(gradient)))
    like = lambda tree: jax.tree.map(lambda x, p: np.asarray(x, p.dtype), tree, params)
    return Audit(
        value=value,
        gradient=like(gradient),
        reference_gradient=like(target),
        bias=like(jax.tree.map(np.subtract, gradient, target)),
        standard_error=like(jax.tree.map(np.sqrt, squared_error)),
        std=like(jax.tree.map(np.sqrt, variance)),
        signal_to_noise=float(norm / np.sqrt(total_variance)) if total_variance else float("inf"),
        evaluations=evaluations,
    )


def _moments(f, params, num_draws, progress, estimator, key):
    """The mean value, and the mean and variance of the gradient, over num_draws keys."""
    leaves, tree = jax.tree.flatten(params)
    size = max(1, sum(leaf.size for leaf in leaves))
    chunk = max(1, min(MAX_CHUNK, num_draws, MAX_NUMBERS // size))
    one = jax.value_and_grad(lambda params, key: estimator(key, f, params))
    # params are an argument: were they constants, XLA would fold what depends on them, for minutes.
    run = jax.jit(jax.vmap(one, (None, 0)))
    keys = jax.random.split(key, num_draws)
    total, mean, deviation = 0.0, [0.0] * len(leaves), [0.0] * len(leaves)
    for start in progress(range(0, num_draws, chunk)):
        # Draws already counted fill up the last chunk, so that nothing is compiled twice.
        first = min(start, num_draws - chunk)
        values, grads = run(params, keys[first : first + chunk])
        total += float(np.sum(np.asarray(values, np.float64)[start - first :]))
        for i, leaf in enumerate(jax.tree.leaves(grads)):
            draws = np.asarray(leaf, np.float64)[start - first :]
            # Chan's update, which takes no difference of large sums.
            shift, seen = draws.mean(axis=0) - mean[i], start + len(draws)
            deviation[i] = deviation[i] + ((draws - draws.mean(axis=0)) ** 2).sum(axis=0)
            deviation[i] = deviation[i] + shift**2 * (start * len(draws) / seen)
            mean[i] = mean[i] + shift * (len(draws) / seen)
    variance = [d / (num_draws - 1) for d in deviation]
    return total / num_draws, jax.tree.unflatten(tree, mean), jax.tree.unflatten(tree, variance)


def _progress(chunks):
    try:
        from tqdm import tqdm
    except ImportError:
        return chunks
    # Only on a terminal, and only when it runs long.
    return tqdm(chunks, unit="chunk", disable=None, delay=2, leave=False)


def _count_evaluations(estimator, f, params, key):
    """The calls of f in one draw and its gradient, where each element of a vmap is one call."""
    calls = []

    def counted(x):
        # The callback takes x, batched by a vmap: without it, it would run once for all.
        jax.debug.callback(lambda _: calls.append(1), x)
        return f(x)

    loss = lambda params: estimator(key, counted, params)
    jax.block_until_ready(jax.jit(jax.value_and_grad(loss))(params))
    jax.effects_barrier()
    return len(calls)
