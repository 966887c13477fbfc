#!/usr/bin/env python3
"""Usage: aa_counts.py [--spins] FOLDER

Counts the verdicts of the runs that scripts/aa has left in FOLDER (aa-*, plus5-*, plus1-*), and says
whether they are what they must be: at most 2 false ones of 40 comparisons of equals; 5 % more CPU is
called slower in at least 18 of 20; 1 % more is never called slower than it is, which means by more
than delta. A run without a verdict counts as measured. Exit status 1 if a count is wrong, or runs are
missing. --spins prints what 5 % and 1 % of a request's CPU are, for --spin, from FOLDER/base.
"""
import json
import pathlib
import sys

METRICS = ("cpu", "throughput", "p99")
# Kind of run, and how many there must be.
KINDS = {"aa": 40, "plus5": 20, "plus1": 20}
MOST_FALSE = 2
LEAST_FOUND = 18


def rows(path):
    """The results of a run with one cell, by the server's name; None if it was interrupted."""
    with open(path / "run.json", encoding="utf-8") as file:
        document = json.load(file)
    if document.get("partial"):
        return None
    return {result["variant"]: result for result in document["cells"][0]["results"]}


def verdicts(path):
    """Metric -> verdict of the second server; unjudged metrics are left out. None: interrupted."""
    of_run = rows(path)
    if of_run is None:
        return None
    judged = of_run["second"]["verdicts"]
    return {name: judged[name] for name in METRICS if judged[name] is not None}


def says(verdict):
    if verdict is None:
        return "not judged"
    text = f"{verdict['verdict']} {verdict['ratio']:.4f}"
    if verdict["low"] is not None:
        text += f" [{verdict['low']:.4f}, {verdict['high']:.4f}]"
    return text + f" delta {verdict['delta']:.4f}" + (f" ({verdict['why']})" if verdict["why"] else "")


def count(folder):
    right = True
    of = {}
    for kind, wanted in KINDS.items():
        found = [(path.name, verdicts(path)) for path in sorted(folder.glob(kind + "-*"))
                 if (path / "run.json").is_file()]
        found = [(name, judged) for name, judged in found if judged is not None]
        for name, judged in found:
            print(f"{name}: cpu {says(judged.get('cpu'))}")
        of[kind] = [judged for _, judged in found]
        if len(found) < wanted:
            print(f"{kind}: only {len(found)} of {wanted} runs are there")
            right = False

    def number(kind, metric, *names):
        return sum(judged.get(metric, {}).get("verdict") in names for judged in of[kind])

    for metric in METRICS:
        wrong = number("aa", metric, "faster", "slower")
        decided = number("aa", metric, "faster", "slower", "equivalent")
        # Who never says anything is never wrong; of the steadiest figure something must be said.
        ok = wrong <= MOST_FALSE and (decided > 0 or metric != "cpu")
        right = right and ok
        print(f"A/A, {metric}: {wrong} false of {len(of['aa'])} (at most {MOST_FALSE}): "
              f"{'ok' if ok else 'WRONG'}; {number('aa', metric, 'equivalent')} equivalent, "
              f"{number('aa', metric, 'no verdict')} no verdict")
    found = number("plus5", "cpu", "slower")
    ok = found >= LEAST_FOUND
    right = right and ok
    print(f"+5 %, cpu: {found} slower of {len(of['plus5'])} (at least {LEAST_FOUND}): "
          f"{'ok' if ok else 'WRONG'}; {number('plus5', 'cpu', 'faster', 'equivalent')} faster or equivalent")
    more = number("plus1", "cpu", "slower", "faster")
    ok = more == 0
    right = right and ok
    print(f"+1 %, cpu: {more} slower or faster of {len(of['plus1'])} (none): {'ok' if ok else 'WRONG'}; "
          f"{number('plus1', 'cpu', 'equivalent')} equivalent")
    return 0 if right else 1


def main(words):
    spins = "--spins" in words
    folders = [word for word in words if word != "--spins"]
    if len(folders) != 1 or folders[0].startswith("-"):
        print(__doc__.split("\n", 1)[0], file=sys.stderr)
        return 2
    folder = pathlib.Path(folders[0])
    try:
        if not spins:
            return count(folder)
        base = rows(folder / "base")
        if base is None:
            print("aa_counts.py: the base run was interrupted", file=sys.stderr)
            return 1
        cost = base["base"]["summary"]["server_cpu_us_per_request"]
        if cost is None:
            print("aa_counts.py: the base run has no kept slice: the machine is too busy", file=sys.stderr)
            return 1
        print(f"{cost * 0.05:.4f}us {cost * 0.01:.4f}us")
        return 0
    except (OSError, ValueError, KeyError, IndexError) as error:
        print(f"aa_counts.py: {folder}: {error!r}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
