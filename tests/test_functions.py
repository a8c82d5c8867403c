"""What all public functions of the law modules promise, over the table of functions.py.

What a function computes stands in the tests of its module; what an estimator of the catalog
promises beside this, in test_contract.py. Compilation is what these tests cost, so that the
promises of one row stand together and share its programs.
"""

import functools
import inspect
import re

import functions
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from functions import BATCH, INF, NAN
from oracles import close

from relaxjax.catalog import ESTIMATORS

KEY = jax.random.key(0)
ROWS = {row.name: row for row in functions.ROWS}
# Those of the catalog meet test_contract.py too: vmap over keys, hyperparameters that are outside.
IN_CATALOG = {name for name, row in ESTIMATORS.items() if row.kind == "pathwise"}
# What a perturbed parameter is called; the other inputs are values of a density, and the like.
PARAMETERS = ("logits", "logits_q", "logits_p", "mean", "mean_q", "mean_p", "log_probs", "log_rate")
LOGARITHMIC = ("bernoulli/logit_concrete", "categorical/log_gumbel_softmax")


# ------------------------------------------------------------------------------------ the promises

PROMISES = []


def promise(of=lambda row: True, *marks):
    """Register a check of a row, to which the rows that `of` takes are held."""

    def register(check):
        PROMISES.append((check, of, marks))
        return check

    return register


def pytest_generate_tests(metafunc):
    if "check" in metafunc.fixturenames:
        metafunc.parametrize(
            "row, check",
            [
                pytest.param(row, check, marks=marks, id=f"{name}-{check.__name__}")
                for name, row in ROWS.items()
                for check, of, marks in PROMISES
                if of(row)
            ],
        )


def test_promise(row, check):
    check(row)


def test_every_function_has_a_row():
    """All but what makes a family, and the truncations: integers, found outside of a trace."""
    apart = {"family", "set_family", "generalized_family", "truncated_poisson_family"}
    apart |= {"truncated_geometric_family", "poisson_truncation", "geometric_truncation"}
    public = {
        f"{module.__name__.split('.')[-1]}/{name}"
        for module in functions.MODULES
        for name, f in vars(module).items()
        if inspect.isfunction(f) and f.__module__ == module.__name__ and name[0] != "_"
        if name not in apart
    }
    assert public == set(ROWS) and IN_CATALOG <= public


# ------------------------------------------------------------------------------------ the programs
# Few, since each takes a fifth of a second to compile. A row has a wide one: of samplers in
# float32, as users call them; of what has no noise in float64, an oracle for what is narrow, and
# with hyperparameters of the batch shape. And one in bfloat16, which computes as float32 does.


def is_float(x):
    return jnp.issubdtype(x.dtype, jnp.floating)


def cast(arrays, dtype):
    """Floats in that dtype, integers as they are."""
    arrays = {name: np.asarray(x) for name, x in arrays.items()}
    return {k: jnp.asarray(x, dtype if is_float(x) else x.dtype) for k, x in arrays.items()}


def run(row, key, inputs, hyper, g, **rest):
    """The value, and the cotangents of the floats among the inputs and of the hyperparameters."""
    floats = {k: x for k, x in inputs.items() if is_float(x)}
    call = lambda floats, hyper: row({**inputs, **floats}, hyper, key, **rest)
    if g is None:
        return call(floats, hyper), {}, {}
    value, back = jax.vjp(call, floats, hyper)
    return value, *back(g)


@functools.cache
def program(name, **rest):
    return jax.jit(functools.partial(run, ROWS[name], **rest))


def cotangents(row, inputs, hyper, **rest):
    """1, 2, 3, ... in the shape and dtype of the result; None where that is of integers."""
    value = jax.eval_shape(lambda i, h: row(i, h, KEY, **rest), inputs, hyper)
    if not all(jnp.issubdtype(x.dtype, jnp.floating) for x in jax.tree.leaves(value)):
        return None
    count = lambda x: jnp.asarray((np.arange(x.size) % 200 + 1).reshape(x.shape), x.dtype)
    return jax.tree.map(count, value)


def wide(row):
    return "float32" if row.takes_key else "float64"


def call(row, dtype, changes={}, **hyper):  # noqa: B006
    """The value and the cotangents in that dtype, as NumPy arrays."""
    hyper = row.hyper | hyper
    if dtype == "float64" and not row.takes_key:
        hyper = {h: np.full(BATCH, x) for h, x in hyper.items()}
    inputs, hyper = cast(row.inputs | row.shared | changes, dtype), cast(hyper, dtype)
    results = program(row.name)(KEY, inputs, hyper, cotangents(row, inputs, hyper))
    value, gradients, slopes = jax.tree.map(np.asarray, results)
    return value, gradients, {h: np.sum(x) for h, x in slopes.items()}


def vary(row, factors):
    """The hyperparameters times factors, which leaves every one in its interval."""
    of = lambda name, x: 1 + (x - 1) * factors if name == "high" else x * factors
    return {name: of(name, x) for name, x in row.hyper.items()}


def leaves(tree):
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


def floats(tree):
    return [np.asarray(x, np.float64) for x in jax.tree.leaves(tree)]


def by_variable(x):
    """(2, 3, everything of one variable)."""
    return np.asarray(x, np.float64).reshape(*BATCH, -1)


# ---------------------------------------------------------------------------------------- arguments


def raises(call, error, words):
    with pytest.raises(error, match=rf"(?s)^{words}.*need") as caught:
        jax.eval_shape(call)
    return str(caught.value)


@promise()
def wrong_arguments_say_so(row):
    """The error names the argument, what it got and what it needs: TypeError for a wrong type,
    ValueError for a wrong value or shape."""
    given = {**row.inputs, **row.shared}
    of = lambda changes={}, **rest: lambda: row(given | changes, row.hyper, KEY, **rest)  # noqa: B006
    one_of = f"({'|'.join(given)}): got"
    for name, x in given.items():
        if name == "indices":
            raises(of({name: x.astype(float)}), TypeError, "indices: got float")
        elif name not in row.ints:
            raises(of({name: np.ones(x.shape, int)}), TypeError, f"{name}: got int")
        if name in row.inputs and x.ndim > 2 and name not in (*row.ints, *row.scalars):
            raises(of({name: x.flat[0]}), ValueError, f"{name}: got")
            if not row.name.startswith("simplex/invertible"):  # whose mean of nothing is one class
                raises(of({name: x[..., :0]}), ValueError, one_of)
        if len(row.inputs) > 1:
            raises(of({name: np.stack([x] * 4, axis=2)}), ValueError, one_of)
        if len(given) > 1 and (row.name, name) != ("top_k/log_prob", "logits"):
            raises(of({name: x[..., :1].repeat(7, axis=-1)}), ValueError, one_of)
    if row.takes_key:
        for bad in ((2,), (3, 2), (2, 3, 4)):
            raises(of(shape=bad), ValueError, "shape: got")
        for bad in (3.0, 3, "23", (2.0, 3)):
            raises(of(shape=bad), TypeError, "shape: got")


@promise(lambda row: row.hyper)
def wrong_hyperparameters_say_so(row):
    of = lambda h, x: lambda: row({**row.inputs, **row.shared}, row.hyper | {h: x}, KEY)
    for h, value in row.hyper.items():
        name = "stretch" if h in ("low", "high") else h
        far = {"low": 0.1, "high": 0.9}.get(h, -1.0)
        array = np.array([[value, far, value], [value] * 3])
        at_the_end = {"low": 0.0, "high": 1.0, "gap": -0.5}.get(h, 0.0)
        for bad in (at_the_end, np.float32(at_the_end), far, INF, -INF, NAN, array):
            raises(of(h, bad), ValueError, f"{name}: got")
        for bad in (np.full(7, value), np.full((3, 2), value), np.full((*BATCH, 9), value)):
            raises(of(h, bad), ValueError, f"{name}: got shape")
            raises(of(h, jnp.asarray(bad)), ValueError, f"{name}: got shape")
        for bad in ("warm", 1j, jnp.ones((), complex), jnp.ones((), bool)):
            raises(of(h, bad), TypeError, f"{name}: got")


def test_a_negative_shape_is_a_wrong_value():
    raises(
        lambda: ROWS["bernoulli/zgr"].function(KEY, np.ones(3), shape=(-1, 3)), ValueError, "shape"
    )


def test_none_is_a_wrong_type():
    row = ROWS["bernoulli/concrete"]
    raises(lambda: row(row.inputs, dict(temperature=None), KEY), TypeError, "temperature: got None")


class Held:
    """A container that JAX can convert, as flax has for what is learned."""

    def __init__(self, x):
        self.x = jnp.asarray(x)

    def __jax_array__(self):
        return self.x


@promise()
def a_container_is_what_it_holds(row):
    """The same program; integers and bits are no parameters."""
    given = {**row.inputs, **row.shared}
    plain = lambda wrap: (
        lambda inputs, hyper: row(
            {k: wrap(x) if is_float(x) else x for k, x in inputs.items()},
            {h: wrap(x) for h, x in hyper.items()},
            KEY,
        )
    )
    inputs, hyper = cast(given, "float32"), cast(row.hyper, "float32")
    shown = [str(jax.make_jaxpr(plain(wrap))(inputs, hyper)) for wrap in (lambda x: x, Held)]
    first, second = (re.sub("0x[0-9a-f]+", "", text) for text in shown)
    assert first == second


@promise(lambda row: row.hyper)
def defaults_are_of_samplers_alone(row):
    """So that a density's temperature cannot disagree silently with the sampler's."""
    parameters = inspect.signature(row.function).parameters
    for h in {"stretch" if h in ("low", "high") else h for h in row.hyper}:
        given = (row.hyper["low"], row.hyper["high"]) if h == "stretch" else row.hyper[h]
        assert parameters[h].default == (given if row.takes_key else inspect.Parameter.empty)


@promise(lambda row: row.static)
def counts_are_static_integers(row):
    (name,) = row.static
    of = lambda n: lambda: row._replace(static={name: n})(row.inputs, row.hyper, KEY)
    too_large = [6] if name == "k" else []
    for bad in (0, -1, *too_large):
        raises(of(bad), ValueError, f"{name}: got {bad}")
    for bad in (2.0, "2", None, True, np.ones(2, int)):
        raises(of(bad), TypeError, f"{name}: got")
    raises(lambda: jax.jit(lambda n: of(n)())(2), TypeError, f"{name}: got")
    jax.eval_shape(of(np.int64(2)))


# ------------------------------------------------------------------------------------------- dtypes


@promise()
def one_rounding_at_the_end(row):
    """Oracle: the wide call, rounded; the cotangents too. Beside float64 the arithmetic in float32
    may move what is halfway between two numbers."""
    hyper = {h: float(jnp.asarray(x, "bfloat16")) for h, x in row.hyper.items()}
    actual, expected = call(row, "bfloat16"), call(row, wide(row), **hyper)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert not is_float(b) or (a.dtype == "bfloat16" and b.dtype == wide(row))
        rounding = 0 if row.takes_key else 1e-5 * np.abs(b) + 1e-6 * np.max(np.abs(b))
        low, high = ((b + r).astype(a.dtype) for r in (-rounding, rounding))
        assert np.all((low <= a) & (a <= high))


@promise(lambda row: True, pytest.mark.thorough, pytest.mark.optimized)
def one_rounding_in_every_dtype(row):
    """To the bit, as users compile it: the narrow dtypes share all but that rounding."""

    def of(dtype):
        inputs, hyper = cast(row.inputs | row.shared, dtype), cast(row.hyper, dtype)
        return inputs, hyper, cotangents(row, inputs, hyper)

    exact = jax.tree.map(lambda x: x.astype("float32") if is_float(x) else x, of("bfloat16"))
    actual, expected = program(row.name)(KEY, *of("bfloat16")), program(row.name)(KEY, *exact)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert np.array_equal(a, np.asarray(b).astype(a.dtype))
    for dtype in ("bfloat16", "float16", "float32", "float64"):
        for x in jax.tree.leaves(jax.eval_shape(program(row.name), KEY, *of(dtype))):
            assert not is_float(x) or x.dtype == dtype


# -------------------------------------------------------------------------- NaN, masks and extremes


def check_harm(row, actual, clean, harmed):
    """NaN for the harmed variables, in all entries of a discrete one, or -1 for indices; all others
    have the value and the cotangents of the clean call."""
    for x in jax.tree.leaves(actual[0]):
        bad = by_variable(x)[harmed]
        bad = np.isnan(bad) if is_float(x) else bad == -1
        assert np.all(bad if row.discrete else bad.any(-1))
    for a, b in zip(leaves(actual[:2]), leaves(clean[:2]), strict=True):
        if a.shape[:2] == BATCH:
            assert np.array_equal(a[~harmed], b[~harmed])


# A value that is not the one asked for; of two results, the one that does not depend on it.
NO_NAN = {
    "counts/log_prob_of_value": ("values",),
    "laplace_bridge/project": ("mean", "variance"),
}


@promise()
def nan_in_is_nan_out(row):
    """In its own variable alone, and for a discrete variable in all of it."""
    clean, harmed = call(row, wide(row)), np.arange(6).reshape(BATCH) == 0
    assert all(np.all(np.isfinite(x)) for x in floats(clean))
    for name, x in row.inputs.items():
        if is_float(x) and name not in NO_NAN.get(row.name, ()):
            bad = functions.at(x, (0, 0) + (0,) * (x.ndim - 2), NAN)
            check_harm(row, call(row, wide(row), {name: bad}), clean, harmed)


@promise(lambda row: row.lawless)
def without_a_law_it_is_nan(row):
    """A row that is masked throughout, has +inf, or fewer items than are drawn."""
    clean = call(row, wide(row))
    for four in filter(None, (row.lawless[:4], row.lawless[4:])):
        inputs = {name: x.copy() for name, x in row.inputs.items()}
        for variable, place in zip(four, np.ndindex(BATCH), strict=False):
            for name, x in variable.items():
                inputs[name][place] = x
        harmed = np.arange(6).reshape(BATCH) < len(four)
        check_harm(row, call(row, wide(row), inputs), clean, harmed)


@promise(lambda row: row.masked is not None)
def a_mask_has_no_gradient(row):
    """Exactly 0 where the input is infinite, and all else is finite."""
    infinite = {name: np.isinf(x) for name, x in row.masked.items()}
    # A logarithm of the draw is infinite where the law makes it so.
    allowed = infinite["logits"] if row.name in LOGARITHMIC else False
    for dtype in (wide(row), "bfloat16"):
        value, gradients, slopes = call(row, dtype, row.masked)
        assert all(np.all(np.isfinite(x) | allowed) for x in floats(value))
        assert all(np.all(np.isfinite(x)) for x in floats((gradients, slopes)))
        for name, where in infinite.items():
            assert np.all(np.asarray(gradients.get(name, 0 * where))[where] == 0)


def far(row):
    """Inputs with parameters from -1e4 to 1e4, those of q and p apart."""
    inputs = row.inputs | row.far
    for i, (name, x) in enumerate(row.inputs.items()):
        if name in PARAMETERS and name not in row.far:
            values = np.array([1e4, -1e4, 0, 30, -30, 5, -5e3])
            inputs[name] = values[(np.arange(x.size) * (1 + i) + i) % 7].reshape(x.shape)
    return inputs


def check_extremes(row, dtype):
    """Finite, wherever the wide result fits."""
    largest = float(jnp.finfo(dtype).max)
    for t in (1e-3, 1.0, 1e3):
        hyper = {h: t for h in row.hyper if h not in ("low", "high")}
        exact, actual = (call(row, d, far(row), **hyper) for d in (wide(row), dtype))
        for x, y in zip(floats(actual), floats(exact), strict=True):
            assert np.all(np.isfinite(y)), t
            assert np.all(np.isfinite(x) | (np.abs(y) > largest)), t


@promise()
def extremes_are_finite(row):
    check_extremes(row, "bfloat16")


@promise(lambda row: True, pytest.mark.thorough)
def extremes_are_finite_in_every_dtype(row):
    check_extremes(row, "float16")
    check_extremes(row, "float64" if row.takes_key else "float32")


# ------------------------------------------------------------------------- batches, vmap and shapes

FACTORS = np.array([[0.5, 1.5, 0.75], [2.0, 1.25, 1.0]])


@promise(lambda row: not row.takes_key)
def a_batch_is_a_loop(row):
    """vmap over everything; with a hyperparameter of the batch shape, one a variable, and with one
    that all variables share, which gets the sum of what each gets."""
    inputs, hyper = cast(row.inputs, "float64"), cast(vary(row, FACTORS), "float64")
    shared = cast(row.shared, "float64")
    g = cotangents(row, inputs | shared, hyper)
    one = lambda inputs, hyper, g: run(row, KEY, inputs | shared, hyper, g)
    swept = jax.jit(jax.vmap(jax.vmap(one)))
    loop, batch = swept(inputs, hyper, g), program(row.name)(KEY, inputs | shared, hyper, g)
    for name in row.shared:
        loop[1][name] = np.sum(loop[1][name], axis=(0, 1))
    for a, b in zip(leaves(batch), leaves(loop), strict=True):
        assert a.dtype == b.dtype == "float64"
        close(a, b, rtol=1e-11, atol=1e-13)


@promise(lambda row: row.takes_key)
def more_draws_than_parameters(row):
    """Oracle: the call with as many parameters, and with scalar hyperparameters one at a time; the
    cotangents sum over the draws."""
    shared, factors = cast(row.shared, "float32"), FACTORS[0]
    inputs = cast({k: x[0] for k, x in row.inputs.items()}, "float32")
    hyper = cast(vary(row, factors), "float32")
    tiled = {k: jnp.broadcast_to(x, (2, *x.shape)) for k, x in inputs.items()} | shared
    g = cotangents(row, tiled, hyper)
    few = program(row.name, shape=BATCH)
    value, gradients, slopes = few(KEY, inputs | shared, hyper, g)
    for j in range(3):
        only = lambda x, j=j: jnp.where((jnp.arange(3) == j).reshape(3, *(1,) * (x.ndim - 2)), x, 0)
        scalars = {k: x[j] for k, x in hyper.items()}
        of_j = program(row.name)(KEY, tiled, scalars, g if g is None else jax.tree.map(only, g))
        for a, b in zip(leaves(value), leaves(of_j[0]), strict=True):
            close(a[:, j], b[:, j], rtol=1e-5, atol=1e-6)
        for name in row.inputs if g is not None else ():
            total = np.sum(np.asarray(of_j[1][name], np.float64), axis=0)
            close(gradients[name][j], total[j], rtol=1e-4, atol=1e-5 * np.max(np.abs(total)))
            assert np.all(np.delete(total, j, axis=0) == 0)
        for h, slope in of_j[2].items():
            close(slopes[h][j], slope, rtol=1e-3, atol=1e-4)
    variable = {k: x[0] for k, x in inputs.items()}
    for start, shape in ((variable, ()), (variable, (7,)), (inputs, (4, 2, 3)), (inputs, None)):
        draw = lambda i, shape=shape: row(i | shared, row.hyper, KEY, shape=shape)
        drawn = jax.eval_shape(draw, start)
        for x, y in zip(jax.tree.leaves(drawn), jax.tree.leaves(value), strict=True):
            assert x.shape == ((3,) if shape is None else shape) + y.shape[2:]


@promise(lambda row: row.takes_key and (row.name not in IN_CATALOG or "low" in row.hyper))
def vmap_over_everything_is_a_loop(row):
    """The batch has old keys, the loop new ones."""
    scaled = lambda s, t: ({k: x * s for k, x in row.inputs.items()}, vary(row, t))
    sets = [scaled(1.0, 1.0), scaled(0.5, 2.0), scaled(-1.0, 0.5)]
    sets = [tuple(cast(x, "float32") for x in pair) for pair in sets]
    shared, stack = cast(row.shared, "float32"), lambda *x: jnp.stack(x)
    g = cotangents(row, sets[0][0] | shared, sets[0][1])
    old = jnp.stack([jax.random.PRNGKey(i) for i in range(3)])
    sweep = jax.vmap(lambda key, i, h: run(row, key, i | shared, h, g))
    batch = jax.jit(sweep)(old, *jax.tree.map(stack, *sets))
    loop = [program(row.name)(jax.random.key(i), s | shared, h, g) for i, (s, h) in enumerate(sets)]
    for a, b in zip(leaves(batch), leaves(jax.tree.map(stack, *loop)), strict=True):
        close(a, b, rtol=1e-4, atol=1e-5)


@promise(lambda row: row.hyper)
def a_bad_traced_hyperparameter_is_nan(row):
    """In its own variable alone: in the value, or in the gradient where no draw depends on it."""
    batch, rest = (3,) if row.takes_key else BATCH, dict(shape=BATCH) if row.takes_key else {}
    inputs = {k: x[0] if row.takes_key else x for k, x in row.inputs.items()}
    inputs = cast(inputs | row.shared, wide(row))
    hyper = vary(row, FACTORS[0] if row.takes_key else FACTORS)
    for h, good in hyper.items():
        out = {"low": (0.1, 0.0), "high": (0.9, 1.0), "gap": (-1.0, -0.5)}.get(h, (-1.0, 0.0))
        for bad in (out, (INF, NAN)):
            x = functions.at(good, (..., slice(1, None)), bad)
            of_h = cast(hyper | {h: x}, wide(row))
            g = cotangents(row, inputs, of_h, **rest)
            value, gradients, _ = program(row.name, **rest)(KEY, inputs, of_h, g)
            values = [np.isnan(by_variable(x)) for x in jax.tree.leaves(value)]
            of_inputs = [gradients[name] for name in row.inputs if name in gradients]
            slopes = [np.isnan(np.asarray(x)).reshape(*batch, -1) for x in of_inputs]
            assert not any(np.any(x[..., 0, :]) for x in values + slopes)
            nan = functools.reduce(np.logical_or, [x.all(-1) for x in values])
            nan = functools.reduce(np.logical_or, [x.any(-1) for x in slopes], nan)
            assert np.all(nan[..., 1:])


# -------------------------------------------------------------------------------------------- draws


def check_independence(row, n):
    """Correlations of entries, variables and successive draws of one call, but for the parts of
    one variable, within 5 standard errors of 0."""
    level = {k: np.zeros((3, *x.shape[2:])) for k, x in row.inputs.items()}
    if "mean" in level:
        level["mean"] += 0.375  # a gate that is open as often as closed
    if "values" in level:
        level["values"] += [0, 1, 3, -2]
    inputs = cast(level | row.shared, "float32")
    draw = jax.jit(lambda key: jax.tree.leaves(row(inputs, row.hyper, key, shape=(n, 3)))[0])
    x = np.asarray(draw(jax.random.key(5)), np.float64).reshape(n, 3, -1)
    parts = x.shape[-1]
    x = ((x - x.mean(0)) / x.std(0)).reshape(n, -1)
    other = ~np.kron(np.eye(3, dtype=bool), np.ones((parts, parts), bool))
    assert np.abs(x.T @ x / n)[other].max() < 5 / np.sqrt(n)
    assert np.abs(x[1:].T @ x[:-1] / n).max() < 5 / np.sqrt(n)


@promise(lambda row: row.takes_key)
def noise_is_independent(row):
    check_independence(row, 10_000)


@promise(lambda row: row.takes_key, pytest.mark.thorough)
def noise_is_independent_at_many_draws(row):
    check_independence(row, 200_000)


def check_own_draws(row, dtype):
    """Finite, also where a draw has rounded to a border, and so are the gradients but that in the
    draw, which none there has."""
    log_prob = next(r for r in functions.ROWS if r.function is row.log_prob)
    (x,) = row.inputs.values()
    event = x.shape[2:]
    (x,) = row.draws.values() if row.draws else (x.reshape(-1, *event),)
    inputs = {name: jnp.asarray(np.stack([x] * 50), dtype) for name in row.inputs}
    batch = (50, *np.shape(x)[: np.ndim(x) - len(event)])
    shared, taken = cast(row.shared, dtype), next(iter(log_prob.inputs))

    @jax.jit
    def both(hyper):
        z = row(inputs | shared, hyper, KEY)
        own = {h: x for h, x in hyper.items() if h in log_prob.hyper}
        of = lambda inputs, shared, own: log_prob({taken: z} | inputs | shared, own)
        value, back = jax.vjp(of, inputs, shared, own)
        gradients, _, slopes = back(jnp.ones_like(value))
        return z, value, gradients, slopes

    # A shared factor's sum over all these draws may be too large.
    for t in (1e-3, 0.01, 0.1, 0.5, 2.0) if row.hyper else (1.0,):
        kept = {h: x for h, x in row.hyper.items() if h not in ("temperature", "scale")}
        kept |= dict.fromkeys(row.hyper.keys() - kept, t)
        if len(row.hyper) > 1 and "scale" in kept:
            kept["scale"] = 1.0
        # Of the batch shape, so that no sum of gradients rounds to infinity.
        z, value, *slopes = both({h: jnp.full(batch, x, dtype) for h, x in kept.items()})
        assert value.shape == batch
        if t == 1e-3 and row.name not in LOGARITHMIC:
            assert np.any(z == 0)
        for x in jax.tree.leaves((value, slopes)):
            assert x.dtype == dtype and bool(jnp.all(jnp.isfinite(x)))


@promise(lambda row: row.log_prob)
def own_draws_have_a_finite_density(row):
    for dtype in ("float32", "bfloat16")[: 1 if row.discrete else 2]:
        check_own_draws(row, dtype)


@promise(lambda row: row.log_prob, pytest.mark.thorough)
def own_draws_have_a_finite_density_in_every_dtype(row):
    for dtype in ("float16", "float64", "bfloat16"):
        check_own_draws(row, dtype)
