"""The page shows the committed results, older ones too, and a board of MNIST is what it says."""

import importlib
import json
import math
import pathlib

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.once


@pytest.fixture
def render(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("render")


def lines(page, render):
    """Without what goes by today's code: that a result is older forbids no change."""
    return [line for line in page.splitlines() if line and not line.startswith(render.OLDER)]


def test_page_is_of_the_committed_results(render):
    page, rendered = render.PAGE.read_text(), render.rendered()
    assert lines(page, render) == lines(rendered, render), "stale: run benchmarks/render.py"


def test_every_part_is_on_the_page(render):
    shown = {match[1:3] for match in render.BLOCK.findall(render.PAGE.read_text())}
    scripts = {script for script, _ in shown}
    parts = {(script, part) for script in scripts for part in render.load(script)}
    assert parts <= shown | {(script, "environment") for script in scripts}


def test_rows_that_lose_are_explained(render):
    words = render.BLOCK.sub("", render.PAGE.read_text())
    unknown = [row for row in render.losses(render.load("speed")) if f"`{row}`" not in words]
    assert not unknown, f"say why in docs/benchmarks.md: {', '.join(unknown)}"


def test_older_renamed_and_missing_rows_render(render, tmp_path, monkeypatch):
    digest = importlib.import_module("_harness").digest
    old = {"modules": ["bernoulli"], "code": "of another day", "results": {"p": 0.25}}
    new = {"modules": ["bernoulli"], "code": digest(["bernoulli"]), "results": {"p": 0.5}}
    gone = {"modules": ["no_such_module"], "code": "of another day", "results": {"other": [1, 2]}}
    rows = {"bernoulli/old": old, "bernoulli/new": new, "gone/method": gone}
    environment = {"environment": render.load("toys")["environment"]}
    (tmp_path / "toys.json").write_text(json.dumps({**environment, "relax": rows}))
    monkeypatch.setattr(render, "RESULTS", tmp_path)
    table = [
        f"{render.OLDER} `bernoulli/old`, `gone/method`.",
        "",
        "| row | p | other |",
        "| --- | --- | --- |",
        "| `bernoulli/old` | 0.25 | - |",
        "| `bernoulli/new` | 0.5 | - |",
        "| `gone/method` | - | 1 (2) |",
    ]
    assert render.block("toys", "relax").splitlines() == table
    assert render.block("toys", "polynomial") == "Not measured."
    assert "\n".join(table) in render.rendered()
    (tmp_path / "toys.json").write_text(json.dumps({"relax": {"bernoulli/old": old}}))
    assert render.block("toys", "relax").startswith(f"{render.OLDER} all rows.")


def test_digest_sees_code_and_nothing_else(render, tmp_path, monkeypatch):
    harness = importlib.import_module("_harness")

    def digest(**sources):
        monkeypatch.setattr(harness, "SOURCES", tmp_path)
        harness._code.cache_clear()
        for name, source in sources.items():
            (tmp_path / f"{name}.py").write_text(source)
        return harness.digest(["law"])

    law = "from relaxjax import _core\n\n\ndef f(x):\n    return x + 1\n"
    plain = digest(law=law, _core="a = 1\n")
    documented = 'def f(x):\n    """Adds 1."""\n\n    # why\n    return x +  1  # too\n'
    assert digest(law=f"from relaxjax import _core\n{documented}") == plain
    assert digest(law=law.replace("+ 1", "+ 2")) != plain
    assert digest(law=law) == plain != digest(_core="a = 2\n")
    error = "from relaxjax import _core\n\n\ndef f(x):\n    raise ValueError({!r})\n"
    assert digest(law=error.format("got x")) == digest(law=error.format("got another"))
    harness._code.cache_clear()


@pytest.fixture
def mnist(render, tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX", reason="needs the extra examples")
    from vae_fixtures import plain

    module = importlib.import_module("mnist")
    monkeypatch.setattr(module, "RUNS", tmp_path / "runs")
    with plain():
        yield module


def test_mnist_rows_are_of_the_example(mnist):
    from vae import options

    args = mnist.asked(mnist.__doc__, [], seeds=2, epochs=0, dataset="mnist", data_dir="")
    for board, (*_, rows) in mnist.BOARDS.items():
        for row in rows:
            argv, _ = mnist.job(board, row, args).run.args
            options.resolve(options.parse(argv))


@pytest.mark.thorough
def test_an_mnist_board(mnist, render, tmp_path, monkeypatch):
    """One row for 16 steps on small digits in MNIST's files; oracle: pixels by a fair coin, which
    costs log 2 each."""
    from sklearn.datasets import load_digits

    digits = (load_digits().images * 15).astype(np.uint8)
    for name, images in ("train", digits[:200]), ("t10k", digits[200:250]):
        head = np.array([0x803, *images.shape], ">u4").tobytes()
        (tmp_path / f"{name}-images-idx3-ubyte").write_bytes(head + images.tobytes())
    *board, rows = mnist.BOARDS["64x8"]
    monkeypatch.setattr(mnist, "BOARDS", {"64x8": (*board, rows[:1])})
    monkeypatch.setattr("vae.report.draw", lambda *args: None)  # pictures have their own tests
    argv = f"--data-dir {tmp_path} --epochs 8 --seeds 2 --results {tmp_path}".split()
    mnist.main(argv)
    monkeypatch.delattr(mnist, "train")
    mnist.main(argv)  # which finds the row
    monkeypatch.setattr(render, "RESULTS", tmp_path)
    ((name, record),) = render.load("mnist")["64x8"].items()
    elbo, error = record["results"]["-ELBO, test"]
    assert name == "categorical/straight_through"
    assert record["results"]["epochs"] == "8 of 200"
    assert 0 < elbo < 64 * math.log(2) and error > 0
    assert f"| -ELBO, test | {elbo:.5g} ({error:.3g}) |" in render.block("mnist", "64x8")


def test_the_fit_of_normal_noise(render):
    """The best error has one size and alternating signs at 13 points: Chebyshev's theorem."""
    fitted = importlib.import_module("normal_noise")
    error = fitted.errors(fitted.fit())
    runs = np.split(error, np.flatnonzero(np.diff(np.sign(error))) + 1)
    sizes = [np.max(np.abs(run)) for run in runs]
    assert len(sizes) == 13 and np.max(sizes) < 1e-8
    np.testing.assert_allclose(sizes, np.max(sizes), rtol=1e-4)
