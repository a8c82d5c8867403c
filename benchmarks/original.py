"""Forward + backward of the PyTorch original, one turn for every line of the standard input.

Run by `_peers.py` under an interpreter of its own; prints the seconds of each turn.
"""

import sys
import time

import torch
from relaxit.distributions import (
    GaussianRelaxedBernoulli,
    HardConcrete,
    StraightThroughBernoulli,
)

ONE = torch.ones(1)
LAWS = {
    # A scalar scale would draw one number for the whole batch.
    "gates/gaussian": lambda x: GaussianRelaxedBernoulli(loc=x, scale=torch.full_like(x, 0.5)),
    "bernoulli/straight_through": lambda x: StraightThroughBernoulli(logits=x),
    "gates/hard_concrete": lambda x: HardConcrete(
        alpha=x, beta=ONE * 2 / 3, xi=ONE * 1.1, gamma=ONE * -0.1
    ),
}


def main(name, entries):
    law = LAWS[name]
    torch.manual_seed(0)
    x, g = torch.randn(2, int(entries)).unbind()
    if name == "gates/hard_concrete":
        x = x.exp()  # its alpha is positive
    x.requires_grad_()
    for _ in sys.stdin:
        start = time.perf_counter()
        x.grad = None
        law(x).rsample().backward(g)
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
