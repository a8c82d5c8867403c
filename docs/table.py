"""Write the catalog's table between its markers in README.md and docs/estimators.md."""

import pathlib
import re
import sys

from relaxjax.catalog import ESTIMATORS

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", ROOT / "docs" / "estimators.md")
BEGIN, END = "<!-- table: begin (docs/table.py writes it) -->", "<!-- table: end -->"


def table():
    lines = [
        "| estimator | f sees | gradient | calls of f | hyperparameters | also known as | source |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in ESTIMATORS.items():
        cells = (
            f"`{name}`",
            "exact samples" if row.discrete_forward else "relaxed samples",
            "unbiased" if row.unbiased else "biased",
            str(row.evaluations((3,), row.hyperparameters)),
            ", ".join(f"{key}={value}" for key, value in row.hyperparameters.items()) or "-",
            ", ".join(row.aliases) or "-",
            row.reference,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def written(text):
    """The page with today's table."""
    return re.sub(
        f"{re.escape(BEGIN)}.*?{re.escape(END)}", f"{BEGIN}\n{table()}\n{END}", text, flags=re.S
    )


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(written(page.read_text()))
    sys.exit()
