"""The committed results are those of the code, and the page those of the results."""

import importlib.util
import json
import pathlib
import sys

import pytest

from relaxjax.catalog import ESTIMATORS

ROOT = pathlib.Path(__file__).resolve().parents[1]
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
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


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


@pytest.mark.parametrize("name", ["toys", "training"])
def test_others_are_of_this_code(name):
    found = results(name)
    digest = script("_common").digest(found["modules"])
    assert found["code"] == digest, f"stale: run benchmarks/{name}.py"


@pytest.mark.parametrize("name", ["leaderboard", "variance"])
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
