"""Seeded faults, and which test sees each of them: `make mutants`.

A mutant of mutants.toml is one edit of a copy of src. The quick tests that it names run first, and
the whole suite only if these pass. A fault that nothing sees needs a test, or in the table the line
that says why it is none. The exit status is 1 where a mutant survives without such a line, where
its text no longer occurs exactly once, and where the copy does not import or a quick test is gone:
these prove nothing. A test that never ends counts as one that fails.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import tomllib
from typing import NamedTuple

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = HERE.parent / "src"
SUITE = [str(HERE)]
QUICK_SECONDS, SUITE_SECONDS = 300, 3600


class Mutant(NamedTuple):
    name: str
    file: str
    old: str
    new: str
    tests: str  # "test_x.py test_y.py: expression of pytest's -k"
    why: str | None  # why it may survive

    def selection(self):
        files, expression = self.tests.split(": ", 1)
        return files.split(), expression


def read(path=HERE / "mutants.toml"):
    mutants = []
    for file, section in tomllib.loads(path.read_text()).items():
        home = section.pop("tests")
        for name, (old, new, tests, *why) in section.items():
            tests = tests if ": " in tests else f"{home}: {tests}"
            mutants.append(Mutant(name, file, old, new, tests, *(why or [None])))
    names = [mutant.name for mutant in mutants]
    assert len(set(names)) == len(names), "two mutants of one name"
    return mutants


def edited(mutant):
    """The text of the mutant's file after the edit; None where it does not apply."""
    path = SOURCE / "relaxjax" / mutant.file
    text = path.read_text() if path.exists() else ""
    return text.replace(mutant.old, mutant.new) if text.count(mutant.old) == 1 else None


def test(arguments, seconds, mutant=None):
    """Run pytest on a copy of src: what became of the mutant, and the line that says so."""
    with tempfile.TemporaryDirectory() as folder:
        # Without the bytecode, which would hide an edit made in the second of its file's last one.
        source = shutil.copytree(
            SOURCE, pathlib.Path(folder, "src"), ignore=shutil.ignore_patterns("__pycache__")
        )
        if mutant:
            (source / "relaxjax" / mutant.file).write_text(edited(mutant))
        # Several run at once: a thread each.
        environment = {**os.environ, "PYTHONPATH": str(source), "NPROC": "1", "COLUMNS": "250"}
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-rfE", "-p", "no:cacheprovider"]
        output = pathlib.Path(folder, "output")
        try:
            with output.open("w") as stdout:
                run = subprocess.run(
                    [*command, *arguments],
                    stdout=stdout,
                    stderr=subprocess.STDOUT,
                    cwd=HERE.parent,
                    env=environment,
                    timeout=seconds,
                )
        except subprocess.TimeoutExpired:
            return "killed", f"by the timeout of {seconds} s"
        lines = output.read_text(errors="replace").splitlines()
    if run.returncode == 0:
        return "survived", lines[-1]
    failures = [line for line in lines if line.startswith(("FAILED ", "ERROR "))]
    # 1: a test failed. All else: nothing was collected, or the copy does not import.
    if run.returncode == 1 and failures:
        return "killed", failures[0].split(" ", 1)[1]
    return "broken", " | ".join(failures or lines[-3:])


def quick(mutant):
    files, expression = mutant.selection()
    paths = [str(HERE / file) for file in files]
    return test([*paths, "-p", "no:xdist", "-k", expression], QUICK_SECONDS, mutant)


def check_unmodified(mutants, jobs):
    """Every quick test on an unmodified copy, once."""
    files = sorted({str(HERE / file) for m in mutants for file in m.selection()[0]})
    ways = [f"(({' or '.join(f)}) and ({e}))" for f, e in (m.selection() for m in mutants)]
    arguments = [*files, "-n", str(jobs), "-k", " or ".join(dict.fromkeys(ways))]
    return test(arguments, SUITE_SECONDS)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="parts of names; none is all mutants")
    parser.add_argument("--quick", action="store_true", help="without the suite for survivors")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="mutants at once")
    parser.add_argument("--json", metavar="FILE", help="write the outcomes")
    parser.add_argument("--before", metavar="FILE", help="outcomes whose kills must still be kills")
    options = parser.parse_args()
    wanted = lambda m: not options.names or any(part in m.name for part in options.names)
    mutants = list(filter(wanted, read()))

    outcomes = {m.name: ("broken", f"does not apply to {m.file}") for m in mutants if not edited(m)}
    rest = [m for m in mutants if m.name not in outcomes]
    outcome, line = check_unmodified(rest, options.jobs)
    print(f"unmodified: {line}", flush=True)
    if outcome != "survived":
        return 1

    def report(mutant, outcome, line, stage):
        outcomes[mutant.name] = outcome, f"{stage}: {line}"
        print(f"{outcome:9}{mutant.name:45}{outcomes[mutant.name][1][:150]}", flush=True)

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        running = {pool.submit(quick, m): m for m in rest}
        try:
            for future in concurrent.futures.as_completed(running):
                report(running[future], *future.result(), "quick")
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
    alive = [m for m in rest if outcomes[m.name][0] == "survived"]
    for mutant in [] if options.quick else [m for m in alive if not m.why]:
        report(mutant, *test([*SUITE, "-n", str(options.jobs)], SUITE_SECONDS, mutant), "suite")

    kinds = {
        "killed by quick tests": ("killed", "quick"),
        "killed by the suite": ("killed", "suite"),
        "survivors": ("survived", ""),
        "broken": ("broken", ""),
    }
    reasons = {m.name: m.why for m in mutants}
    bad = False
    print()
    for kind, (outcome, stage) in kinds.items():
        names = [n for n, (o, by) in outcomes.items() if o == outcome and by.startswith(stage)]
        print(f"{kind}: {len(names)}")
        for name in names if outcome != "killed" else ():
            excused = outcome == "survived" and reasons[name]
            bad |= not excused
            print(f"  {name}: {reasons[name] if excused else outcomes[name][1]}")
    for name, why in reasons.items():
        if why and outcomes[name][0] == "killed":
            print(f"killed, so that its line in the table is wrong: {name}")
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(outcomes, indent=1) + "\n")
    if options.before:
        for name, (outcome, by) in json.loads(pathlib.Path(options.before).read_text()).items():
            if outcome == "killed" and name in outcomes and outcomes[name][0] != "killed":
                print(f"no longer killed: {name}, once {by}")
                bad = True
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
