"""Write the catalog between the markers of README.md (by law) and docs/estimators.md (by row)."""

import pathlib
import re

from relaxjax.catalog import ESTIMATORS

ROOT = pathlib.Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- table: begin (docs/table.py writes it) -->", "<!-- table: end -->"


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shown(value):
    if isinstance(value, float):
        return f"{value:.4g}"
    return value.__name__.strip("_") if callable(value) else str(value)


def rows():
    """A line an estimator."""
    head = [
        "estimator",
        "f sees",
        "gradient",
        "calls of f",
        "hyperparameters",
        "also known as",
        "source",
    ]
    cells = [
        [
            f"`{name}`",
            "exact samples" if row.discrete_forward else "relaxed samples",
            "unbiased" if row.unbiased else "biased",
            str(row.evaluations((3,), row.hyperparameters)),
            ", ".join(f"{key}={shown(value)}" for key, value in row.hyperparameters.items()) or "-",
            ", ".join(row.aliases) or "-",
            row.reference,
        ]
        for name, row in ESTIMATORS.items()
    ]
    return table(head, cells)


def laws():
    """A line a law."""
    names = {}
    for name, row in ESTIMATORS.items():
        law, estimator = name.split("/")
        names.setdefault(law, {"pathwise": [], "score": []})[row.kind].append(f"`{estimator}`")
    cells = [
        [f"`{law}`", *(", ".join(kinds[k]) or "-" for k in ("pathwise", "score"))]
        for law, kinds in names.items()
    ]
    return table(["law", "the sample carries the gradient", "the loss carries it: unbiased"], cells)


PAGES = {ROOT / "README.md": laws, ROOT / "docs" / "estimators.md": rows}


def written(page):
    """The page with today's table."""
    between = f"{BEGIN}\n{PAGES[page]()}\n{END}"
    pattern = f"{re.escape(BEGIN)}.*?{re.escape(END)}"
    return re.sub(pattern, lambda _: between, page.read_text(), flags=re.S)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(written(page))
