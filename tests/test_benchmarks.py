"""The committed results are those of the code, and the page those of the results."""

import importlib.util
import json
import math
import pathlib
import sys

import numpy as np
import pytest

from relaxjax.catalog import ESTIMATORS

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
pytestmark = pytest.mark.once


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def script(name):
    path = ROOT / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def results(name):
    return json.loads((RESULTS / f"{name}.json").read_text())


def test_page_is_of_the_committed_results():
    render = script("render")
    assert render.PAGE.read_text() == render.rendered(), "stale: run benchmarks/render.py"


def test_speed_is_of_this_code():
    common, parts = script("_common"), script("speed").PARTS
    found = {part: rows for part, rows in results("speed").items() if part != "environment"}
    assert set(found) == set(parts), "run benchmarks/speed.py"
    stale = [
        f"{part} {row}"
        for part, (_, modules) in parts.items()
        for row in {**modules, **found[part]}
        if found[part].get(row, {}).get("code") != common.digest(modules.get(row, []))
    ]
    assert not stale, f"stale: run benchmarks/speed.py again, for {', '.join(stale)}"


def test_rows_that_lose_are_explained():
    render = script("render")
    unknown = [row for row in render.losses(results("speed")) if row not in render.EXPLANATIONS]
    assert not unknown, f"explain in benchmarks/render.py: {', '.join(unknown)}"


@pytest.mark.parametrize("name", ["ideas", "toys", "training"])
def test_others_are_of_this_code(name):
    found = results(name)
    digest = script("_common").digest(found["modules"])
    assert found["code"] == digest, f"stale: run benchmarks/{name}.py"


# The MNIST boards run where MNIST can be had.
OF_ROWS = {"leaderboard", "variance", "mnist"} & {path.stem for path in RESULTS.glob("*.json")}


@pytest.mark.parametrize("name", sorted(OF_ROWS))
def test_rows_are_of_this_code(name):
    common, rows = script("_common"), results(name)["rows"]
    if isinstance(rows, dict):
        rows = [{"estimator": estimator, **row} for estimator, row in rows.items()]
    extra = ["audit"] if name == "variance" else []
    code = {e: common.digest([*common.modules(e), *extra]) for e in ESTIMATORS}
    stale = sorted({row["estimator"] for row in rows if row["code"] != code[row["estimator"]]})
    assert rows and not stale, f"stale: run benchmarks/{name}.py again, for {stale}"


def test_digest_sees_code_and_nothing_else():
    bare = script("_common")._bare
    plain = "def f(x):\n    return x + 1\n"
    documented = 'def f(x):\n    """Adds 1."""\n\n    # why\n    return x +  1  # too\n'
    assert bare(plain) == bare(documented) != bare(plain.replace("1", "2"))


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX", reason="needs the extra examples")
    from vae_fixtures import plain

    common, module = script("_common"), script("mnist")
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    monkeypatch.setattr(module, "RUNS", tmp_path / "runs")
    with plain():
        yield module


def test_mnist_rows_are_of_the_example(mnist):
    for board in mnist.BOARDS.values():
        for estimator, settings in board.rows:
            sets = [part for setting in settings for part in ("--set", setting)]
            argv = [*board.options, "--latent", board.latent, "--estimator", estimator, *sets]
            mnist.options.resolve(mnist.options.parse(argv))


def test_an_mnist_board(mnist, tmp_path, monkeypatch):
    """One row for 16 steps on small digits in MNIST's files; oracle: pixels by a fair coin, which
    costs log 2 each."""
    from sklearn.datasets import load_digits

    digits = (load_digits().images * 15).astype(np.uint8)
    for name, images in ("train", digits[:200]), ("t10k", digits[200:250]):
        head = np.array([0x803, *images.shape], ">u4").tobytes()
        (tmp_path / f"{name}-images-idx3-ubyte").write_bytes(head + images.tobytes())
    board = mnist.BOARDS["64x8"]
    monkeypatch.setattr(mnist, "BOARDS", {"64x8": board._replace(rows=board.rows[:1])})
    monkeypatch.setattr("vae.report.draw", lambda *args: None)  # pictures have their own tests
    argv = f"--data-dir {tmp_path} --epochs 8 --seeds 2".split()
    mnist.main(argv)
    monkeypatch.delattr(mnist, "run")
    mnist.main(argv)  # which finds the row
    found = json.loads((tmp_path / "mnist.json").read_text())
    (row,) = found["rows"]
    assert row["images"] == 200 and 0 < row["negative_elbo_test"][0] < 64 * math.log(2)
    page = script("render").mnist_page(found)
    assert "`categorical/straight_through` | - | 1 | 8 of 200" in page[-1]


def test_the_fit_of_normal_noise():
    """The best error has one size and alternating signs at 13 points: Chebyshev's theorem."""
    fitted = script("normal_noise")
    error = fitted.errors(fitted.fit())
    runs = np.split(error, np.flatnonzero(np.diff(np.sign(error))) + 1)
    sizes = [np.max(np.abs(run)) for run in runs]
    assert len(sizes) == 13 and np.max(sizes) < 1e-8
    np.testing.assert_allclose(sizes, np.max(sizes), rtol=1e-4)
