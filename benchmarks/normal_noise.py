"""Fits the rational function of float32 normal noise, and prints it as it stands in the code.

With w = -log(4 h (1 - h)), a polynomial of degree 6 over one of degree 5 stands for
m(w) = -Phi^-1(h) / (1 - 2 h) at every h that a 32-bit word makes, in [2^-33, 1/2]. The best one has
the smallest largest relative error; by Chebyshev's theorem that error then has one size and
alternating signs at 6 + 5 + 2 points, which Remez's exchange finds.
"""

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial
from numpy.polynomial.chebyshev import chebvander
from scipy import special

DEGREES = 6, 5
END = -np.log(2.0**-31 * (1 - 2.0**-33))  # w at h = 2^-33
# Its thirteenths are near enough to the points for the exchange to start there.
W = END * np.sin(np.linspace(0, np.pi / 2, 200_001)) ** 4
X = np.sqrt(-np.expm1(-W))  # 1 - 2 h
H = np.exp(-W) / (2 * (1 + X))  # (1 - X) / 2, without cancellation
# Each where it keeps its digits, and the limit at w = 0.
M = np.where(X < 0.5, np.sqrt(2) * special.erfinv(X), -special.ndtri(H))
M = np.divide(M, X, out=np.full_like(W, np.sqrt(np.pi / 2)), where=X > 0)


def errors(coefficients, step=1):
    """Relative to M, at every step-th of W."""
    above, below = (np.polyval(c, W[::step]) for c in coefficients)
    return above / (M[::step] * below) - 1


def fit(exchanges=7):
    """The coefficients of both polynomials in w, the highest power first."""
    # In powers of w the linear system would be hundreds of times worse conditioned.
    p, q = (chebvander(2 * W / END - 1, degree) for degree in DEGREES)
    points = np.linspace(0, len(W) - 1, sum(DEGREES) + 2).astype(int)
    signs, last = (-1.0) ** np.arange(len(points)), np.ones(len(W))
    for _ in range(exchanges):
        m = M[points, None]
        # P - m Q = +-e m Q at the points, for P, e and Q = 1 + ...; it is linear with the last Q
        # beside e, which is so small that a few turns are enough.
        for _ in range(4):
            system = [p[points], -m * q[points, 1:], -m * (signs * last[points])[:, None]]
            solution = np.linalg.solve(np.hstack(system), m[:, 0])
            above, below = solution[: DEGREES[0] + 1], np.append(1, solution[DEGREES[0] + 1 : -1])
            last = q @ below
        error = p @ above / (M * last) - 1
        # The extremum of each run of one sign.
        runs = np.split(np.arange(len(W)), np.flatnonzero(np.diff(np.sign(error))) + 1)
        points = np.array([run[np.argmax(np.abs(error[run]))] for run in runs])
    powers = [Chebyshev(c, [0, END]).convert(kind=Polynomial).coef[::-1] for c in (above, below)]
    return [c / powers[1][-1] for c in powers]


def main():
    largest = lambda coefficients, step=1: np.max(np.abs(errors(coefficients, step)))
    best = fit()
    print(f"# The largest relative error is {largest(best):.4e},")
    # One factor changes nothing but how both round: of many, the one that rounds best.
    scaled = ([np.float32(c * s).astype(float) for c in best] for s in np.geomspace(1, 2, 16_001))
    rounded = min(scaled, key=lambda coefficients: largest(coefficients, step=100))
    print(f"# and {largest(rounded):.4e} as these float32 numbers:")
    for coefficients in rounded:
        print(f"({', '.join(f'{c:.9g}' for c in coefficients)}),")


if __name__ == "__main__":
    main()
