"""What the tests of the example share: JAX as the program's users have it, and small trainings."""

import contextlib
import functools
import os
import pathlib
import subprocess
import sys
import tempfile

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits

import discrete_vae
from relaxjax.catalog import ESTIMATORS, REQUIRED
from vae import latent, runtime, train
from vae import options as options_of_program
from vae.model import Method

COMPILED = tempfile.TemporaryDirectory(prefix="relaxjax-")
thorough = functools.partial(pytest.param, marks=pytest.mark.thorough)


@contextlib.contextmanager
def plain():
    """JAX as it comes, as the program's users have it; optax is not made for strict promotion."""
    settings = {
        "jax_enable_x64": False,
        "jax_numpy_dtype_promotion": "standard",
        "jax_numpy_rank_promotion": "allow",
        # Tests run many of the same programs.
        "jax_compilation_cache_dir": COMPILED.name,
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


# Each has a name of its own beside that of its fixture, to be imported where it is an argument.
@pytest.fixture(name="plain_jax")
def plain_jax_fixture():
    with plain():
        yield


@pytest.fixture(name="tfds_folder", scope="session")
def tfds_folder_fixture(tmp_path_factory):
    """The prepared digits, apart from the user's own."""
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture(name="main")
def main_fixture(plain_jax, tfds_folder, monkeypatch):
    """The program, in this process."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tfds_folder))
    return lambda *argv: discrete_vae.main([str(argument) for argument in argv])


@pytest.fixture(name="launch")
def launch_fixture(tfds_folder, tmp_path_factory):
    """The program, in a process of its own."""
    cache = tmp_path_factory.getbasetemp() / "compiled"

    def launch(*argv, devices=1):
        # Beside the flags of conftest.py, since these programs, too, take longer to compile.
        flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
        environment = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PLATFORMS": "cpu",
            "TFDS_DATA_DIR": str(tfds_folder),
            "XLA_FLAGS": flags,
        }
        return subprocess.Popen(
            [sys.executable, pathlib.Path(discrete_vae.__file__), *map(str, argv)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return launch


@functools.cache
def digits():
    images = (load_digits().images >= 8).reshape(-1, 64).astype(np.uint8)
    return images[:200], images[200:250]


def task(estimator, shape=None, *, static=None, **options):
    """A small training by a row of the catalog with its defaults, or some static ones set."""
    law = latent.parse(shape or latent.default(estimator), latent.law_of(estimator))
    needed = {"k": law.k, **options_of_program.needed(law)}
    row = {
        name: needed.get(name, x) if x is REQUIRED else x
        for name, x in ESTIMATORS[estimator].hyperparameters.items()
    }
    reals = {name: row[name] for name in options_of_program.numbers(estimator)}
    static = {name: x for name, x in row.items() if name not in reals} | (static or {})
    mesh = runtime.mesh()
    rows = [runtime.shard(mesh, lambda i, j, x=x: x[i:j], len(x)) for x in digits()]
    defaults = dict(epochs=4, batch_size=20, hidden=16, reals=reals)
    method = Method(law, estimator, static)
    return train.Task(method, mesh, *rows, (200, 50), **(defaults | options))


def same(a, b):
    """Whether two trees are equal to the bit, NaN included."""
    equal = lambda x, y: np.asarray(x).tobytes() == np.asarray(y).tobytes()
    return jax.tree.all(jax.tree.map(equal, a, b))
