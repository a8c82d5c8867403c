"""Write the catalog between the markers of README.md (by law) and docs/estimators.md (by row)."""

import pathlib
import re

from relaxjax.catalog import ESTIMATORS, REQUIRED

ROOT = pathlib.Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- table: begin (docs/table.py writes it) -->", "<!-- table: end -->"


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shown(name, value):
    if value is REQUIRED:
        return f"{name} (required)"
    return f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"


def calls(row):
    """Of f at three variables, in words where it depends on more."""
    return (
        str(row.evaluations((3,))) if row.law != "subsets" or row.method != "exact" else "C(3, k)"
    )


def rows():
    """A line an estimator."""
    head = [
        "estimator",
        "f sees",
        "bias",
        "calls of f",
        "hyperparameters",
        "also known as",
        "source",
    ]
    cells = [
        [
            f"`{name}`",
            "exact samples" if row.discrete_forward else "relaxed samples",
            row.bias if row.bias != "none" or row.target == "discrete" else "none for its own E[f]",
            calls(row),
            ", ".join(shown(*item) for item in row.hyperparameters.items()) or "-",
            ", ".join(row.aliases) or "-",
            row.reference,
        ]
        for name, row in ESTIMATORS.items()
    ]
    return table(head, cells)


def laws():
    """A line a law."""
    names = {}
    for row in ESTIMATORS.values():
        names.setdefault(row.law, {"pathwise": [], "score": []})[row.kind].append(f"`{row.method}`")
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
