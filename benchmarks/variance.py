"""Bias, variance and cost of every estimator's gradient, on a small and a large problem per law.

f is a random network with a quadratic term; logits are standard normal. Small problems have an
exact reference by enumeration where the law is finite; large ones, and laws of continuous samples,
that of RLOO under the same law. Rows of relaxed samples are judged against the discrete law that
they stand for.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from _harness import asked, jobs, measure, row
from laws import geometric_logits, poisson_logits
from relaxjax import audit, bernoulli, categorical, distributions, families, subsets
from relaxjax.catalog import ESTIMATORS

KEY = jax.random.key(0)
TRUNCATION = 8  # of counts
rounded = lambda x: round(float(x), 4)
problem_of = lambda name, problems: problems.get(name, problems.get(name.split("/")[0]))


def counts(logits, shape, values):
    """The discrete law of so many counts whose logits these are."""
    points = np.arange(values, dtype=np.float32)
    return families.from_distribution(
        lambda params: distributions.GeneralizedGumbelSoftmax(logits(params, points), points),
        support=lambda params: families.joint_support(points, shape, jnp.float32),
    )


truncated = lambda law: ((5,), counts(law, (5,), TRUNCATION + 1), {"truncation": TRUNCATION})
subset = lambda n, k: ((n,), subsets.family(k), {"k": k})
continuous = lambda shape, law: (shape, families.from_distribution(law), {})
BITS, CLASSES = (bernoulli.family, {}), (categorical.family, {})
SETS = families.from_distribution(
    lambda logits: distributions.GumbelSoftmaxTopK(logits, 2), support=subsets.family(2).support
)
# Shape of the parameters, the law, and hyperparameters that are not the catalog's: by the name of
# the row, or else of its module.
SMALL = {
    "bernoulli": ((5,), *BITS),
    "correlated": ((5,), *BITS),
    "categorical": ((3, 4), *CLASSES),
    "categorical/unordered_set": ((6,), *CLASSES),
    "gates/gaussian": continuous((5,), distributions.GaussianRelaxedBernoulli),
    "gates/hard_concrete": continuous((5,), distributions.HardConcrete),
    "simplex/invertible_gaussian": continuous((3, 3), distributions.InvertibleGaussian),
    "simplex/logistic_normal": continuous((3, 4), distributions.LogisticNormal),
    "top_k": ((5,), SETS, {"k": 2}),
    "subsets": subset(5, 2),
    "counts/generalized_gumbel_softmax": ((3, 4), counts(lambda l, values: l, (3,), 4), {}),
    "counts/poisson": truncated(poisson_logits),
    "counts/geometric": truncated(geometric_logits),
}
LARGE = {
    "bernoulli": ((200,), *BITS),
    "correlated": ((200,), *BITS),
    "categorical": ((50, 8), *CLASSES),
    "subsets": subset(50, 10),
    # One variable alone, or more states than can be summed over.
    **dict.fromkeys(("categorical/unordered_set", *(n for n in ESTIMATORS if "/exact" in n))),
}


def network(rng, n):
    w, v = rng.normal(size=(16, n)) / math.sqrt(n), rng.normal(size=16)
    a = rng.normal(size=n) / math.sqrt(n)
    w, v, a = (jnp.asarray(x, jnp.float32) for x in (w, v, a))

    def f(z):
        z = z.reshape(-1)
        return v @ jnp.tanh(w @ z) + (a @ z - 0.5) ** 2

    return f


def audited(name, problems, draws):
    """Norms over the coordinates, as shares of the reference gradient's: what of the bias exceeds
    the draws' resolution, and that; the standard deviation of one draw."""
    shape, family, given = problem_of(name, problems)
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=shape), jnp.float32)
    f = network(rng, jax.eval_shape(family.sample, KEY, logits).size)
    reference = "exact" if problems is SMALL and family.support is not None else "monte_carlo"
    estimate, options = row(name, shape[-1], **given), dict(num_draws=draws, reference=reference)
    found = audit.measure(KEY, estimate, f, logits, family=family, **options)
    norm = np.linalg.norm(found.reference_gradient)
    bias, error = np.linalg.norm(found.bias), np.linalg.norm(found.standard_error)
    std = np.linalg.norm(found.std) / norm
    return {
        "bias": [rounded(math.sqrt(max(0, bias**2 - error**2)) / norm), rounded(error / norm)],
        "std": rounded(std),
        "calls of f": found.evaluations,
        "std x sqrt(calls)": rounded(std * found.evaluations**0.5),
        "reference": reference,
    }


if __name__ == "__main__":
    args, table = asked(__doc__, draws=20_000), {}
    for size, problems in {"small": SMALL, "large": LARGE}.items():
        names = [name for name in ESTIMATORS if problem_of(name, problems)]
        run = functools.partial(audited, problems=problems)
        table[size] = jobs(run, names, also=["audit"], draws=args.draws)
    measure("variance", table, args)
