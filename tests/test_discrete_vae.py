"""The example as its users run it: a short training, its files, and every wrong argument."""

import functools
import itertools
import json
import math

import jax
import numpy as np
import pytest
from flax import nnx
from scipy.special import expit, log_softmax

import relaxjax
from relaxjax.catalog import ESTIMATORS

discrete_vae = pytest.importorskip("discrete_vae", reason="needs the extra examples")
from vae import data, evaluate, model, train  # noqa: E402  (after the skip)
from vae import latent as latents  # noqa: E402

PICTURES = {"reconstructions.png", "samples.png", "curves.png"}


@pytest.fixture(autouse=True)
def plain_jax():
    """JAX as it comes, as the program's users have it; optax is not made for strict promotion."""
    settings = {"jax_enable_x64": False, "jax_numpy_dtype_promotion": "standard"}
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(autouse=True)
def tfds_folder(tmp_path_factory, monkeypatch):
    """The prepared digits, apart from the user's own."""
    folder = tmp_path_factory.getbasetemp() / "tfds"
    load = data.load
    monkeypatch.setattr(data, "load", lambda name: load(name, data_dir=folder))


def main(*argv):
    return discrete_vae.main([str(argument) for argument in argv])


def test_digits_are_scikit_learns():
    """Oracle: the array itself; a pixel is 1 from 8 of 16 on."""
    from sklearn.datasets import load_digits

    expected = load_digits().images.reshape(-1, 64) >= 8
    digits = data.load("digits")
    assert digits.shape == (8, 8)
    assert np.array_equal(np.concatenate([digits.train, digits.test]), expected)
    assert (len(digits.train), len(digits.test)) == (1500, 297)


@pytest.mark.parametrize("latent", ["3x2", "3"])
def test_exact_negative_elbo(latent):
    """Oracle: every state by itertools, in NumPy's float64, from the weights alone."""
    latent = latents.parse(latent)
    law = latents.build(latent, {})
    vae = model.VAE(5, latent, hidden=4, rngs=nnx.Rngs(0))
    images = np.random.default_rng(0).integers(0, 2, (7, 5)).astype(np.float32)

    def layers(sequential, x):
        first, _, last = sequential.layers
        hidden = np.maximum(x @ np.float64(first.kernel[...]) + np.float64(first.bias[...]), 0)
        return hidden @ np.float64(last.kernel[...]) + np.float64(last.bias[...])

    values = np.eye(3) if len(latent.shape) == 2 else [[0.0], [1.0]]
    expected = []
    for x in images:
        logits = layers(vae.encoder, x)
        if len(latent.shape) == 2:
            log_q = log_softmax(logits.reshape(latent.shape), axis=-1)
        else:
            log_q = np.log(np.stack([expit(-logits), expit(logits)], axis=-1))
        total = 0.0
        for state in itertools.product(range(log_q.shape[1]), repeat=len(log_q)):
            z = np.concatenate([values[i] for i in state])
            p = expit(layers(vae.decoder, z))
            log_lik = np.sum(np.log(np.where(x == 1, p, 1 - p)))
            log_qz = sum(log_q[v, i] for v, i in enumerate(state))
            log_prior = -len(log_q) * math.log(log_q.shape[1])
            total += math.exp(log_qz) * (log_qz - log_prior - log_lik)
        expected.append(total)
    exact = evaluate.exact_negative_elbo(vae, law, images)
    np.testing.assert_allclose(exact, np.mean(expected), rtol=1e-5)
    draws = evaluate.sampled_negative_elbo(vae, law, jax.random.key(1), images, 20_000)
    np.testing.assert_allclose(draws, np.mean(expected), rtol=5e-3)


@pytest.mark.parametrize("argv", [[], ["--latent", "12"]], ids=["classes", "bits"])
def test_a_run(argv, tmp_path, capsys):
    """Oracle for the score: the best model without a latent, independent pixels of the data's own
    means, which a few epochs have to leave behind."""
    folder = tmp_path / "run"
    assert main(*argv, "--epochs", 30, "--run-dir", folder) == 0
    assert {path.name for path in folder.iterdir()} == PICTURES | {"metrics.json"}
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in PICTURES)
    assert str(folder) in capsys.readouterr().out.splitlines()[-1]
    metrics = json.loads((folder / "metrics.json").read_text())
    digits = data.load("digits")
    pixels = digits.train.mean(0, dtype=np.float64)
    for split in ("train", "test"):
        images = getattr(digits, split)
        used = np.where(images == 1, pixels, 1 - pixels)
        without_latent = -np.log(np.maximum(used, 1 / 1500)).sum(1).mean()
        exact = metrics[f"exact_negative_elbo_{split}"]
        assert exact < without_latent - 1.5
        # 100 draws an image: the sampled score is the exact one to a tenth of a nat.
        assert metrics[f"negative_elbo_{split}"] == pytest.approx(exact, abs=0.1)
    assert metrics["estimator"] == ("bernoulli/zgr" if argv else "categorical/reinmax")
    assert metrics["hyperparameters"] == dict(ESTIMATORS[metrics["estimator"]].hyperparameters)
    assert (metrics["seed"], metrics["epochs"]) == (0, 30) and metrics["seconds"] > 0


def test_the_exact_negative_elbo_falls():
    """On the held-out digits, from one epoch to sixteen."""
    digits, latent = data.load("digits"), latents.parse("3x2")
    law, estimate = latents.build(latent, {}), relaxjax.estimator("categorical/reinmax")
    exact = jax.jit(lambda vae, images: evaluate.exact_negative_elbo(vae, law, images))
    scores = []
    for epochs in (1, 16):
        vae, _ = train.train(digits, latent, law, estimate, epochs=epochs, batch_size=100, seed=0)
        scores.append(float(exact(vae, jax.numpy.asarray(digits.test))))
    assert scores[1] < scores[0] - 4


def test_a_seed_repeats_a_run():
    digits = data.load("digits")
    small = digits._replace(train=digits.train[:200], test=digits.test[:10])
    latent, estimate = latents.parse("4"), relaxjax.estimator("bernoulli/zgr")
    run = functools.partial(train.train, small, latent, latents.build(latent, {}), estimate)
    curves = [run(epochs=2, batch_size=20, seed=seed)[1] for seed in (3, 3, 4)]
    assert np.array_equal(curves[0], curves[1]) and not np.array_equal(curves[0], curves[2])


@pytest.mark.once
@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_row_trains(name):
    digits = data.load("digits")
    small = digits._replace(train=digits.train[:200], test=digits.test[:10])
    default = latents.default(name)
    text = {"8x4": "3x2", "12": "4", "10choose3": "5choose2", "64x1": "9x1"}.get(default, default)
    latent = latents.parse(text, latents.law_of(name))
    given = {"k": latent.k} if latent.k else {}
    law = latents.build(latent, {**ESTIMATORS[name].hyperparameters, **given})
    estimate = relaxjax.estimator(name, **given)
    _, curves = train.train(small, latent, law, estimate, epochs=8, batch_size=20, seed=0)
    assert curves.train[-1] < curves.train[0] - 5


WRONG = {
    "--estimator categorical/reinmx": (
        "--estimator",
        "'categorical/reinmx'",
        "categorical/reinmax",
    ),
    "--estimator gumbel-sigmoid": ("--estimator", "'gumbel-sigmoid'", "bernoulli/concrete"),
    "--estimator bernoulli/zgr --latent 8x4": ("--latent", "8x4", "12"),
    "--estimator categorical/zgr --latent 12": ("--latent", "12", "8x4"),
    "--estimator subsets/zgr --latent 12": ("--latent", "12", "10choose3"),
    "--estimator subsets/zgr --set k=3": ("--set k", "3", "--latent"),
    "--latent 3choose5": ("--latent", "'3choose5'", "10choose3"),
    "--latent 8by4": ("--latent", "'8by4'", "8x4"),
    "--latent 0": ("--latent", "'0'", "12"),
    "--latent 1x4": ("--latent", "'1x4'", "8x4"),
    "--set temperature": ("--set", "'temperature'", "name=value"),
    "--set temperature=warm": ("--set temperature", "'warm'", "number"),
    "--set temperature=0": ("temperature", "0", "positive"),
    "--set temprature=1": ("temprature", "categorical/reinmax", "temperature"),
    "--estimator bernoulli/gumbel_rao --set num_noise=1.5": ("num_noise", "1.5", "integer"),
    "--dataset digts": ("--dataset", "'digts'", "digits"),
    "--epochs 0": ("--epochs", "'0'", "positive integer"),
    "--batch-size 9999": ("--batch-size", "9999", "1500"),
    "--seed one": ("--seed", "'one'", "int"),
    "--epoch 3": ("--epoch", "unknown", "--epochs"),
}


@pytest.mark.parametrize("argv", WRONG)
def test_a_wrong_argument_is_one_line(argv, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(*argv.split()) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("discrete_vae.py: error: ")
    for part in WRONG[argv]:
        assert part in err
    assert list(tmp_path.iterdir()) == []


def test_an_unusable_run_folder_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file" / "below", tmp_path / "file", tmp_path):
        assert main("--epochs", 1, "--run-dir", folder) == 2
        err = capsys.readouterr().err
        assert "--run-dir" in err and str(folder) in err and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch, capsys):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(discrete_vae.plots, "curves", interrupt)  # the last file of a run
    assert main("--epochs", 1, "--run-dir", tmp_path / "run") == 130
    assert "nothing was written" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
