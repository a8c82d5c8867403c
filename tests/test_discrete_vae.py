"""The example as its users run it: a short training, its files, and every wrong argument."""

import json
import sys

import numpy as np
import pytest

pytest.importorskip("tensorboardX", reason="needs the extra examples")

from vae_fixtures import (  # noqa: E402, F401
    digits,
    main_fixture,
    plain_jax_fixture,
    same,
    task,
    tfds_folder_fixture,
    thorough,
)

from relaxjax.catalog import ESTIMATORS  # noqa: E402
from vae import log, options, train  # noqa: E402

pytestmark = pytest.mark.usefixtures("plain_jax")

PICTURES = {"reconstructions.png", "samples.png", "curves.png"}
FILES = PICTURES | {"metrics.json", "config.json", "checkpoints", "logs", ".lock"}


def names(folder):
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    "argv",
    [pytest.param([], id="classes"), thorough(["--latent", "12"], id="bits")],
)
def test_a_run(argv, main, tmp_path, capsys):
    """Oracle for the score: the best model without a latent, independent pixels of the data's own
    means, which a few epochs have to leave behind."""
    folder = tmp_path / "run"
    assert main(*argv, "--epochs", 30, "--run-dir", folder) == 0
    assert names(folder) == FILES
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in PICTURES)
    out, err = capsys.readouterr()
    assert str(folder) in out.splitlines()[-1] and err == ""  # no bar without a terminal
    metrics = json.loads((folder / "metrics.json").read_text())
    from sklearn.datasets import load_digits

    images = (load_digits().images >= 8).reshape(-1, 64)
    pixels = images[:1500].mean(0)
    for split, rows in (("train", images[:1500]), ("test", images[1500:])):
        used = np.where(rows, pixels, 1 - pixels)
        without_latent = -np.log(np.maximum(used, 1 / 1500)).sum(1).mean()
        exact = metrics[f"exact_negative_elbo_{split}"]
        assert exact < without_latent - 1.5
        # 100 draws an image: the sampled score is the exact one to a tenth of a nat.
        assert metrics[f"negative_elbo_{split}"] == pytest.approx(exact, abs=0.1)
        assert metrics[f"negative_iwae_{split}"] < exact
    assert metrics["estimator"] == ("bernoulli/zgr" if argv else "categorical/reinmax")
    assert metrics["hyperparameters"] == dict(ESTIMATORS[metrics["estimator"]].hyperparameters)
    assert (metrics["seed"], metrics["epochs"]) == (0, 30) and metrics["seconds"] > 0
    assert metrics["evaluations"] == 30 * 1440  # 15 batches of 96


@pytest.mark.once
@pytest.mark.thorough
def test_the_config_file_reruns(main, tmp_path):
    """Oracle: the first run's metrics and checkpoint digests, but for the seconds."""
    argv = ["--epochs", 2, "--estimator", "bernoulli/concrete", "--set", "temperature=0.7"]
    argv += ["--schedule", "temperature=linear:0.7:0.3", "--binarize", "dynamic", "--seed", 5]
    assert main(*argv, "--run-dir", tmp_path / "a") == 0
    assert main("--config", tmp_path / "a" / "config.json", "--run-dir", tmp_path / "b") == 0
    for name in ("config.json", "curves.png", "samples.png", "reconstructions.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    a, b = (json.loads((tmp_path / run / "metrics.json").read_text()) for run in "ab")
    assert a.pop("seconds") > 0 and b.pop("seconds") > 0 and a == b
    # --plot-only draws the same pictures from the checkpoint, and nothing else.
    before = (tmp_path / "a" / "metrics.json").read_bytes()
    (tmp_path / "a" / "samples.png").unlink()
    assert main("--plot-only", "--run-dir", tmp_path / "a") == 0
    for name in ("curves.png", "samples.png", "reconstructions.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert (tmp_path / "a" / "metrics.json").read_bytes() == before


@pytest.mark.once
def test_a_seed_repeats_a_run():
    """And another differs."""
    ends = [
        train.train(small, train.start(small))
        for small in (task("bernoulli/zgr", "4", seeds=(s,), epochs=2) for s in (3, 3, 4))
    ]
    assert same(ends[0], ends[1]) and not np.array_equal(ends[0].losses, ends[2].losses)


WRONG = {
    "--estimator categorical/reinmx": (
        "--estimator",
        "'categorical/reinmx'",
        "categorical/reinmax",
    ),
    "--estimator gumbel-sigmoid": ("--estimator", "'gumbel-sigmoid'", "bernoulli/concrete"),
    "--estimator bernoulli/zgr --latent 8x4": ("--latent", "8x4", "12"),
    "--estimator categorical/zgr --latent 12": ("--latent", "12", "8x4"),
    "--latent 8by4": ("--latent", "'8by4'", "8x4"),
    "--latent 0": ("--latent", "'0'", "12"),
    "--latent 1x4": ("--latent", "'1x4'", "8x4"),
    "--latent 3choose4": ("--latent", "'3choose4'", "10choose3"),
    "--estimator top_k/relaxed --latent 40choose20": ("--latent", "40choose20", "65536 sets"),
    "--set temperature": ("--set", "'temperature'", "name=value"),
    "--set temperature=warm": ("--set temperature", "'warm'", "number"),
    "--set temperature=0": ("temperature", "0", "positive"),
    "--set temprature=1": ("temprature", "categorical/reinmax", "temperature"),
    "--estimator bernoulli/gumbel_rao --set num_noise=1.5": ("num_noise", "1.5", "integer"),
    "--schedule temperature=0.5": ("--schedule", "'temperature=0.5'", "NAME=KIND:START:END"),
    "--schedule temperature=sine:1:2": ("--schedule temperature", "'sine'", "cosine"),
    "--schedule temperature=linear:1:0": ("temperature", "0", "positive"),
    "--sweep gap=0.1:1:4": ("--sweep", "gap", "temperature"),
    "--sweep temperature=0.1:1:1": ("--sweep temperature", "0.1:1:1", "two values"),
    "--sweep temperature=0:1:4": ("temperature", "0", "positive"),
    "--iwae 1": ("--iwae", "'1'", "at least 2"),
    "--iwae 4 --estimator bernoulli/zgr": ("--iwae", "--estimator", "VIMCO"),
    "--compare bernouli": ("--compare", "'bernouli'", "bernoulli/"),
    "--compare bernoulli --latent 8x4": ("--compare", "bernoulli", "8x4"),
    "--compare bernoulli --sweep temperature=1:2:3": ("--compare", "--sweep", "none"),
    "--dataset digts": ("--dataset", "'digts'", "digits"),
    "--binarize half": ("--binarize", "'half'", "static"),
    "--epochs 0": ("--epochs", "'0'", "positive integer"),
    "--learning-rate -1": ("--learning-rate", "'-1'", "positive number"),
    "--batch-size 9999": ("--batch-size", "9999", "1500"),
    "--seed one": ("--seed", "'one'", "int"),
    "--epoch 3": ("--epoch", "unknown", "--epochs"),
    "--resume": ("--run-dir", "none", "the run"),
    "--plot-only --run-dir here": ("--plot-only", "here", "a run"),
    "--config here.json": ("--config", "here.json", "config.json"),
    "--process-id 1": ("--process-id", "some", "all"),
}


@pytest.mark.once
@pytest.mark.parametrize("argv", WRONG)
def test_a_wrong_argument_is_one_line(argv, main, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(*argv.split()) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("discrete_vae.py: error: ")
    for part in WRONG[argv]:
        assert part in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.once
def test_an_unusable_run_folder_is_one_line(main, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file" / "below", tmp_path / "file", tmp_path):
        for resume in ([], ["--resume"]):
            assert main("--epochs", 1, "--run-dir", folder, *resume) == 2
            err = capsys.readouterr().err
            assert "--run-dir" in err and str(folder) in err and err.count("\n") == 1
    assert names(tmp_path) == {"file"}


@pytest.mark.once
def test_another_runs_arguments(main, tmp_path, capsys):
    """A run is not resumed as another, nor begun in its folder."""
    folder = tmp_path / "run"
    (folder).mkdir()
    (folder / "config.json").write_text('{"epochs": 3, "latent": "4"}')
    assert main("--epochs", 3, "--run-dir", folder) == 2
    assert "new or empty" in capsys.readouterr().err
    assert main("--epochs", 5, "--run-dir", folder, "--resume") == 2
    assert "--epochs: got 5, need 3" in capsys.readouterr().err
    assert names(folder) == {"config.json"}


@pytest.mark.once
def test_help_is_grouped_and_complete(main, capsys):
    """Every option has a line, in a group of its own kind."""
    with pytest.raises(SystemExit, match="0"):
        main("--help")
    text = capsys.readouterr().out
    for title in ("method:", "data:", "training:", "several trainings:", "results:"):
        assert f"\n{title}\n" in text
    for action in options.parser()._actions:
        assert all(flag in text for flag in action.option_strings)
        assert (
            action.dest in ("epochs", "seed", "help", "num_processes", "process_id") or action.help
        )


@pytest.mark.once
def test_the_bar_of_a_terminal(capsys, plain_jax, monkeypatch):
    """Loss, ELBO, steps a second and the time left."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    small = task("bernoulli/zgr", "4", epochs=2)
    train.train(small, train.start(small))
    line = capsys.readouterr().err.split("\r")[-1]
    for part in ("training: 100%", "20/20", "loss=", "ELBO=-", "step"):
        assert part in line


@pytest.mark.once
def test_logs_are_tensorboards(plain_jax, tmp_path):
    """Oracle: the losses, read back by tensorboardX's own record format and protocol buffer."""
    from tensorboardX.proto.event_pb2 import Event

    small = task("bernoulli/zgr", "4", epochs=2)
    with log.Log(tmp_path, small, train.start(small)) as logs:
        end = train.train(small, train.start(small), logs.add)
    raw, found = next((tmp_path / "logs").iterdir()).read_bytes(), {}
    while raw:
        length = int.from_bytes(raw[:8], "little")
        event = Event.FromString(raw[12 : 12 + length])
        for value in event.summary.value:
            found[value.tag, event.step] = value.simple_value
        raw = raw[16 + length :]
    for epoch, (loss, held_out) in enumerate(np.asarray(end.losses), 1):
        assert found["loss/train", 10 * epoch] == pytest.approx(float(loss))
        assert found["elbo/test", 10 * epoch] == pytest.approx(-float(held_out))
