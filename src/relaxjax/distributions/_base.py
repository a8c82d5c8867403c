"""What the classes share."""

import contextlib
from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np
from tensorflow_probability.substrates.jax import distributions as tfd

from relaxjax import _arguments, _numerics

# What tree_flatten keeps out of the leaves, and the hyperparameters that need not be positive.
_STATIC = ("estimator", "k", "num_noise")
_RANGES = {
    "gap": _arguments.NONNEGATIVE,
    "values": _arguments.ANY,
    "stretch_low": _arguments.LOW_END,
    "stretch_high": _arguments.HIGH_END,
}


def _argument(name):
    return name.removesuffix("_low").removesuffix("_high")


class Law(distrax.Distribution):
    """The base of all classes: the arrays of a law, in one batch shape.

    A class adds `_draw` and `log_prob`, which are one call of a function each.
    """

    _parameter = "logits"  # the first one's name; results have its dtype
    _event_ndim = 0  # how many of its axes are not batch axes
    _least = 1  # how long these have to be at least
    _by_entry: tuple[str, ...] = ()  # hyperparameters with a number for each entry of an event
    _shared: tuple[str, ...] = ()  # leaves without batch axes
    has_enumerate_support = False

    # What the classes store: arrays, which a type checker would refuse for a default of 0.5.
    logits: Any
    log_probs: Any
    loc: Any
    values: Any
    correlation_tril: Any
    temperature: Any
    forward_temperature: Any
    scale: Any
    offset: Any
    stretch_low: Any
    stretch_high: Any
    estimator: str
    k: int

    def _store(self, first, /, **reals):
        """Store the arguments as attributes, arrays in one batch shape."""
        with self._named():
            first = _arguments.floats(self._parameter, first, self._event_ndim, self._least)
            split = first.ndim - self._event_ndim
            batch, event = first.shape[:split], first.shape[split:]
            # By rank, as the functions decide: one number per entry of the event, or one per row.
            entries = {
                name: name == "values" or (name in self._by_entry and np.ndim(x) >= first.ndim)
                for name, x in reals.items()
            }
            for name, x in reals.items():
                shape = np.shape(x)
                try:
                    batch = jnp.broadcast_shapes(batch, shape[: len(shape) - entries[name]])
                except ValueError:
                    raise ValueError(
                        f"{_argument(name)}: got shape {shape}, need one that broadcasts with the "
                        f"batch shape {batch}"
                    ) from None
            vars(self)[self._attribute] = jnp.broadcast_to(first, batch + event)
            dtype = _numerics.widen(first).dtype
            for name, x in reals.items():
                by_entry = name in self._by_entry
                like = jax.ShapeDtypeStruct(batch + event * by_entry, dtype)
                interval = _RANGES.get(name, _arguments.POSITIVE)
                rows = by_entry and not entries[name]
                x = _arguments.hyperparameter(_argument(name), x, like, rows, interval=interval)
                vars(self)[name] = jnp.broadcast_to(x, like.shape)

    @contextlib.contextmanager
    def _named(self):
        """Put the name of the class in front of errors."""
        try:
            yield
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{type(self).__name__}: {error}") from None

    # Jittable's own takes a number in place of an array, such as an axis of vmap, for structure.
    def tree_flatten(self):  # pyright: ignore[reportIncompatibleMethodOverride]
        leaves = {name: x for name, x in vars(self).items() if name not in _STATIC}
        static = tuple((name, x) for name, x in vars(self).items() if name in _STATIC)
        return list(leaves.values()), (tuple(leaves), static)

    @classmethod
    def tree_unflatten(cls, aux_data, children):
        names, static = aux_data
        law = object.__new__(cls)
        vars(law).update(zip(names, children, strict=True))
        vars(law).update(static)
        return law

    @property
    def _attribute(self):
        return "loc" if self._parameter == "mean" else self._parameter  # mean is a method

    @property
    def _first(self):
        return getattr(self, self._attribute)

    @property
    def batch_shape(self):
        return self._first.shape[: self._first.ndim - self._event_ndim]

    @property
    def event_shape(self):
        return self._first.shape[self._first.ndim - self._event_ndim :]

    @property
    def dtype(self):
        return self._first.dtype

    def __getitem__(self, index):
        at = tuple(axis[index] for axis in np.indices(self.batch_shape))
        leaves, (names, static) = self.tree_flatten()
        pairs = zip(names, leaves, strict=True)
        sliced = [x if name in self._shared else x[at] for name, x in pairs]
        return self.tree_unflatten((names, static), sliced)

    def _draw(self, key, shape):
        raise NotImplementedError

    def _draw_and_log_prob(self, key, shape):
        z = self._draw(key, shape)
        return z, self.log_prob(z)

    def _sample_n(self, key, n):
        return self._draw(key, (n, *self.batch_shape))

    def _sample_n_and_log_prob(self, key, n):
        # Noise is wide whatever the dtype, so this is the draw of `sample` before it is rounded.
        wide = jax.tree.map(_numerics.widen, self)
        z, log_prob = wide._draw_and_log_prob(key, (n, *self.batch_shape))
        return z.astype(self.dtype), log_prob.astype(self._first.dtype)

    def enumerate_support(self):
        """List every value of one variable of a discrete distribution.

        Returns:
          An array (S, *batch_shape, *event_shape) in the dtype of samples.

        Raises:
          NotImplementedError: the distribution is not discrete.
          ValueError: there are more than 2^20 values.
        """
        if not self.has_enumerate_support:
            raise NotImplementedError(f"{type(self).__name__}: the law is not discrete")
        points = self._points()
        lead = (len(points), *(1,) * len(self.batch_shape), *self.event_shape)
        shape = (len(points), *self.batch_shape, *self.event_shape)
        return jnp.broadcast_to(jnp.asarray(points, self.dtype).reshape(lead), shape)

    def _points(self):
        raise NotImplementedError


class HardLaw(Law):
    """A finite law whose samples carry the gradient of the function that `estimator` names."""

    _module: Any
    _estimators: dict[str, Any]
    has_enumerate_support = True

    def _store_estimator(self, logits, estimator, hyperparameters):
        with self._named():
            if not isinstance(estimator, str) or estimator not in self._estimators:
                error = ValueError if isinstance(estimator, str) else TypeError
                known = ", ".join(self._estimators)
                raise error(f"estimator: got {estimator!r}, need one of {known}")
            defaults = self._hyperparameters(estimator)
            for name in hyperparameters:
                if name not in defaults:
                    known = ", ".join(defaults) or "no hyperparameter"
                    raise TypeError(f"{name}: estimator {estimator!r} takes {known}")
            reals = defaults | hyperparameters
            if "num_noise" in reals:
                self.num_noise = _arguments.count("num_noise", reals.pop("num_noise"), 1)
        self.estimator = estimator
        self._store(logits, **reals)

    def _hyperparameters(self, estimator):
        defaults = self._estimators[estimator].__kwdefaults__
        return {name: value for name, value in defaults.items() if name != "shape"}

    def _draw(self, key, shape):
        names = self._hyperparameters(self.estimator)
        hyperparameters = {name: getattr(self, name) for name in names}
        return self._estimators[self.estimator](key, self.logits, shape=shape, **hyperparameters)

    @property
    def _law_logits(self):
        return self.logits

    def log_prob(self, value):
        return self._module.log_prob(value, self._law_logits)

    def mean(self):
        return self._module.mean(self._law_logits)

    def entropy(self):
        return self._module.entropy(self._law_logits)


class ChoiceLaw(Law):
    """A law of k of n items."""

    _event_ndim = 1

    def _store_choice(self, logits, k, **reals):
        self._store(logits, **reals)
        with self._named():
            self.k = _arguments.subset_size(k, self.logits.shape[-1])


def agree(*pairs):
    """Where the arrays of all pairs agree, to the precision of the narrower one of each pair."""
    agree = np.True_
    for a, b in pairs:
        a, b = jnp.asarray(a), jnp.asarray(b)
        shape = jnp.broadcast_shapes(a.shape, b.shape)
        dtype = min(a.dtype, b.dtype, key=lambda dtype: jnp.finfo(dtype).bits)
        a, b = (jnp.broadcast_to(x.astype(dtype), shape) for x in (a, b))
        agree &= a == b
    return agree


def register_kl(*pairs):
    """Register a function of (q, p) as the KL divergence of these pairs of classes."""

    def register(kl):
        for q, p in pairs:
            tfd.RegisterKL(q, p)(lambda q, p, *_, **__: kl(q, p))
        return kl

    return register


def both_ways(law, *twins):
    """The pairs of law with itself and, both ways round, with each of its twins."""
    return (law, law), *((law, twin) for twin in twins), *((twin, law) for twin in twins)


def logits_of(law):
    """The logits of a distribution of ours, of distrax or of TFP."""
    if hasattr(law, "_law_logits"):
        return law._law_logits
    return jnp.asarray(law.logits_parameter() if hasattr(law, "logits_parameter") else law.logits)
