"""Several trainings: sweeps and seeds in one program, schedules, and comparisons."""

import json
import os
import signal

import numpy as np
import pytest

pytest.importorskip("tensorboardX", reason="needs the extra examples")

from vae_fixtures import (  # noqa: E402, F401
    main_fixture,
    plain_jax_fixture,
    task,
    tfds_folder_fixture,
)

from vae import log, options, plots, report, train  # noqa: E402  (after the skip)

pytestmark = pytest.mark.usefixtures("plain_jax")


@pytest.fixture
def programs(monkeypatch):
    """What train compiles, to ask how often."""
    found, make = [], train.epoch_program

    def keep(task):
        found.append(make(task))
        return found[-1]

    monkeypatch.setattr(train, "epoch_program", keep)
    return found


VALUES = np.array([0.3, 0.5, 1.0], np.float32)


@pytest.mark.thorough
@pytest.mark.parametrize("seeds", [(3,), (3, 8)])
def test_members_are_single_runs(seeds, programs):
    """Oracle: each alone. All of them are compiled once."""
    single = lambda seed, value: task(
        "bernoulli/concrete", "4", epochs=3, seeds=(seed,), reals={"temperature": value}
    )
    sweep = task("bernoulli/concrete", "4", epochs=3, seeds=seeds, reals={"temperature": VALUES})
    end = train.train(sweep, train.start(sweep))
    assert [program._cache_size() for program in programs] == [1]
    scores = train.scores(sweep, end, 10)
    indices = list(np.ndindex(train.member_shape(sweep)))
    assert len(indices) == 3 * len(seeds)
    for index in indices[:: len(indices) - 1]:
        settings = train.member(sweep, index)
        alone = single(settings["seed"], settings["temperature"])
        state = train.train(alone, train.start(alone))
        np.testing.assert_allclose(end.losses[index], state.losses, rtol=1e-5)
        for name, value in train.scores(alone, state, 10).items():
            np.testing.assert_allclose(scores[name][index], value, rtol=1e-5)
    assert len(np.unique(np.asarray(end.losses)[..., -1, 0])) == len(indices)


@pytest.mark.once
def test_a_loss_of_a_member_that_is_not_finite():
    sweep = task("bernoulli/concrete", "4", seeds=(3, 8), reals={"temperature": VALUES})
    losses = np.ones((2, 3, sweep.batches))
    losses[1, 2, 4], losses[0, 0, 6] = np.inf, np.nan
    with pytest.raises(train.RunError, match="step 25: the loss of seed=8, temperature=1 is inf"):
        train.check_finite(sweep, 2, losses)


@pytest.mark.parametrize("kind", options.SCHEDULES)
def test_schedules(kind, programs):
    """Oracle: their formulas. A schedule that stays is no schedule; none compiles anew."""
    steps = np.array([0, 10, 25, 40])
    t = steps / 40
    expected = {
        "linear": 1 - 0.8 * t,
        "cosine": 0.2 + 0.8 * (1 + np.cos(np.pi * t)) / 2,
        "exponential": 0.2**t,
    }[kind]
    falling = options.schedule(kind, 1.0, 0.2, 40)
    np.testing.assert_allclose([falling(step) for step in steps], expected, rtol=1e-6)
    if kind != "linear":
        return
    ends = []
    for schedule in (
        {},
        {"temperature": options.schedule(kind, 0.5, 0.5, 40)},
        {"temperature": falling},
    ):
        small = task("bernoulli/concrete", "4", epochs=4, schedules=schedule)
        ends.append(train.train(small, train.start(small)).losses)
    assert np.array_equal(ends[0], ends[1]) and not np.allclose(ends[0], ends[2], rtol=1e-3)
    assert [program._cache_size() for program in programs] == [1, 1, 1]


@pytest.mark.once
def test_a_sweep(main, tmp_path, capsys):
    argv = ["--epochs", 2, "--latent", 4, "--estimator", "bernoulli/concrete"]
    argv += ["--sweep", "temperature=0.25:1:3", "--seeds", 2]
    folder = tmp_path / "run"
    assert main(*argv, "--run-dir", folder) == 0
    assert (folder / "sweep.png").read_bytes().startswith(b"\x89PNG")
    metrics = json.loads((folder / "metrics.json").read_text())
    settings = [(member["seed"], member["temperature"]) for member in metrics["members"]]
    assert settings == [(seed, t) for seed in (0, 1) for t in (0.25, 0.5, 1.0)]
    out = capsys.readouterr().out
    for member in metrics["members"]:
        score = member["exact_negative_elbo_test"]
        assert 10 < score < 60 and f"{score:8.3f} nats" in out


@pytest.mark.once
@pytest.mark.thorough
def test_a_comparison(main, tmp_path, capsys):
    """A row each, and what is drawn of both."""
    names, folder = ["bernoulli/concrete", "bernoulli/zgr"], tmp_path / "all"
    argv = ["--compare", ",".join(names), "--epochs", 1, "--latent", 2, "--hidden", 8]
    assert main(*argv, "--run-dir", folder) == 0
    rows = json.loads((folder / "table.json").read_text())
    assert [row["estimator"] for row in rows] == names
    table = (folder / "table.md").read_text()
    assert table in capsys.readouterr().out and table.count("\n") == 4
    for name in ("curves.png", "estimators.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.once
@pytest.mark.thorough
def test_a_stopped_comparison(main, tmp_path, monkeypatch, capsys):
    """Stopped in its second run and resumed; oracle: the run of each estimator alone."""
    names = ["bernoulli/concrete", "bernoulli/zgr"]
    argv = ["--epochs", 2, "--latent", 4, "--set", "temperature=0.7"]
    folder, add, seen = tmp_path / "all", log.Log.add, []

    def interrupt(self, state):
        add(self, state)
        seen.append(int(state.epoch))
        if seen == [1, 2, 1]:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(log.Log, "add", interrupt)
        assert main("--compare", ",".join(names), *argv, "--run-dir", folder) == 130
    assert f"go on with --run-dir {folder} --resume" in capsys.readouterr().err
    assert not (folder / "table.md").exists()
    assert main("--run-dir", folder, "--resume") == 0
    out = capsys.readouterr().out
    assert "epochs 2 to 2" in out
    rows = json.loads((folder / "table.json").read_text())
    assert [row["estimator"] for row in rows] == names
    for name, row, own in zip(names, rows, (argv, argv[:4]), strict=True):
        alone = tmp_path / name.replace("/", "-")
        assert main("--estimator", name, *own, "--run-dir", alone) == 0
        metrics = json.loads((alone / "metrics.json").read_text())
        assert metrics.pop("seconds") > 0 and row.pop("seconds") > 0 and metrics == row
    table = (folder / "table.md").read_text()
    assert table in out and table.count("\n") == 4
    for row in rows:
        (line,) = (line for line in table.splitlines() if f"`{row['estimator']}`" in line)
        for part in (f"{row['exact_negative_elbo_test']:.3f}", "exact -ELBO", "2,880"):
            assert part in line
    for name in ("curves.png", "estimators.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.once
@pytest.mark.thorough
def test_the_settings_of_every_row_are_json():
    """A comparison writes them all, and all compute something."""
    from relaxjax.catalog import ESTIMATORS

    for name, row in ESTIMATORS.items():
        method, reals, _ = options.resolve(options.parse(["--estimator", name]))
        settings = report.hyperparameters(method, reals)
        assert json.loads(json.dumps(settings)) == settings and set(settings) <= set(
            row.hyperparameters
        )


@pytest.mark.once
@pytest.mark.thorough
def test_pictures_of_every_row(tmp_path):
    """Have room for all: matplotlib warns where not."""
    from relaxjax.catalog import ESTIMATORS

    lines = {name: np.arange(3.0) + i for i, name in enumerate(ESTIMATORS)}
    plots.curves(tmp_path / "curves.png", lines, "title")
    images = np.ones((30, 64))
    pictures = report.Pictures(images, images, images, (8, 8, 1))
    plots.estimators(tmp_path / "estimators.png", dict.fromkeys(ESTIMATORS, pictures))
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.once
def test_what_is_compared():
    """A law, those of it that take the latent, or all."""
    compared = lambda *argv: options.compared(options.parse(["--compare", *argv]))
    from relaxjax.catalog import ESTIMATORS

    assert compared("all") == list(ESTIMATORS)
    assert compared("gates") == ["gates/gaussian", "gates/hard_concrete"]
    correlated = compared("correlated")
    assert correlated == ["correlated/concrete", "correlated/straight_through"]
    bits = compared("all", "--latent", "4")
    assert {*compared("bernoulli"), *correlated} < set(bits) and "categorical/reinmax" not in bits
    assert compared("bernoulli/zgr,gates/gaussian") == ["bernoulli/zgr", "gates/gaussian"]
