"""Write the tables of docs/benchmarks.md from benchmarks/results, and draw its pictures.

A table stands between `<!-- SCRIPT PART -->` and `<!-- end -->`, whatever results there are; the
words around it are the page's own. Two more parts are made here: machine and slower.
"""

import json
import re

from _harness import HERE, RESULTS, digest, results

PAGE = HERE.parent / "docs" / "benchmarks.md"
BLOCK = re.compile(r"(<!-- (\w+) ([\w ]+) -->\n).*?(<!-- end -->)", flags=re.S)
OLDER = "Older than the code:"  # begins a line that goes by today's code, not by results alone
HIDDEN = "scores", "seconds"  # of seeds one by one, and of several rows at once


def load(script):
    path = RESULTS / f"{script}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def cell(value):
    """Of a median and quartiles, or of a number and the like of it that it is judged by."""
    if isinstance(value, list):
        form = "{:.2f} ({:.2f}-{:.2f})" if len(value) == 3 else "{:.5g} ({:.3g})"
        return form.format(*value)
    return "-" if value is None else value


def figures(rows):
    """A line per row and a column per figure, of whatever figures there are, and boards best first;
    one row alone stands upright."""
    if len(rows) == 1:
        ((name, row),) = rows.items()
        return table(["", name], [(figure, cell(value)) for figure, value in row.items()])
    columns = dict.fromkeys(key for row in rows.values() for key in row if key not in HIDDEN)
    score = next((c for c in columns if c.startswith("-ELBO")), None)
    names = sorted(rows, key=lambda name: rows[name][score]) if score else rows
    lines = [[f"`{name}`", *(cell(rows[name].get(c)) for c in columns)] for name in names]
    return table(["row", *columns], lines)


def older(records):
    """A line on the rows whose code has changed since; none where there are no such rows."""
    found = [row for row, of in records.items() if digest(of.get("modules", [])) != of.get("code")]
    rows = "all rows" if len(found) == len(records) else ", ".join(f"`{row}`" for row in found)
    return f"{OLDER} {rows}.\n\n" if found else ""


def machine(found):
    e = found["environment"]
    peers = [f"{name} {e[name]}" for name in ("tfp-nightly", "numpyro") if e.get(name)]
    return (
        f"Python {e['python']}, jax {e['jax']}, jaxlib {e['jaxlib']}, "
        f"{', '.join(peers) or 'no peers'}, {e['system']}, {e['processor']}, "
        f"{e['cores']} core{'s' * (e['cores'] > 1)}, device {', '.join(sorted(set(e['devices'])))}."
    )


def losses(speed):
    """{row: {peer: ratio}} where our time is more than 1.05 of a peer's, and of its lower quartile
    more than 1."""
    over = {
        name: {
            key.removeprefix("over "): value
            for key, value in row.items()
            if key.startswith("over ") and not key.startswith(("over noise", "over copy"))
        }
        for name, row in results(speed.get("laws", {})).items()
    }
    for key, row in results(speed.get("original", {})).items():
        if "times as fast" in row:
            name, entries = key.split(", ")
            median, low, high = row["times as fast"]
            over.setdefault(name, {})[f"the original, {entries}"] = [1 / median, 1 / high, 1 / low]
    lost = {
        name: {peer: v for peer, v in row.items() if v[0] > 1.05 and v[1] > 1}
        for name, row in over.items()
    }
    return {name: row for name, row in lost.items() if row}


def slower(speed):
    over = lambda row: "; ".join(f"{peer} {cell(v)}" for peer, v in row.items())
    lost = [(f"`{name}`", over(row)) for name, row in losses(speed).items()]
    return table(["row", "over"], lost) if lost else "None."


def block(script, part):
    found = load(script)
    if part in ("machine", "slower") and found:
        return {"machine": machine, "slower": slower}[part](found)
    records = found.get(part)
    return older(records) + figures(results(records)) if records else "Not measured."


def rendered():
    """The page with today's tables."""
    fill = lambda match: f"{match[1]}{block(match[2], match[3])}\n{match[4]}"
    return BLOCK.sub(fill, PAGE.read_text())


if __name__ == "__main__":
    import _plots  # not above: the page needs no matplotlib

    PAGE.write_text(rendered())
    for draw, part in _plots.PICTURES.items():
        found = load(draw.__name__)
        if part in found:
            draw(found)
