"""Other libraries' versions of our laws, those that are installed; `make bench-peers` brings more.

JAX libraries are called in this process. PyTorch and the original library run in a process of their
own, under the interpreter of `.venv-peers`, and take their turns in the same race.
"""

import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp

from laws import LAWS

HERE = pathlib.Path(__file__).resolve().parent
INTERPRETER = HERE.parent / ".venv-peers" / "bin" / "python"
# Laws that the original has, as original.py names them.
ORIGINAL = ("gates/gaussian", "bernoulli/straight_through", "gates/hard_concrete")


def of(name):
    """The peers of a row that run here, and why the others do not."""
    present, absent = {}, {}
    args = jax.random.key(0), jnp.zeros((2, 2)), jnp.float32(1)
    for peer, sampler in LAWS[name].peers.items():
        try:
            jax.eval_shape(sampler, *args)
            present[peer] = sampler
        except Exception as error:
            absent[f"{peer} absent"] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return present, absent


def torch():
    """(name, entries) -> a turn of the original for _race, and its versions; or None, and why."""
    if not INTERPRETER.exists():
        return None, "no .venv-peers: make bench-peers"
    program = (
        "import importlib.metadata as m, relaxit, torch;"
        "print('torch', torch.__version__, 'relaxit', m.version('relaxit'))"
    )
    check = subprocess.run([INTERPRETER, "-c", program], capture_output=True, text=True)
    if check.returncode:
        return None, check.stderr.strip().splitlines()[-1]

    def start(name, entries):
        # One thread a core, as XLA has it; the script prints the seconds of a turn for every line.
        process = subprocess.Popen(
            [INTERPRETER, HERE / "original.py", name, str(entries)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=sys.stderr,
            text=True,
        )

        def turn():
            process.stdin.write("\n")
            process.stdin.flush()
            return float(process.stdout.readline())

        return turn

    return start, check.stdout.strip()
