#!/usr/bin/env python3
"""Usage: aa_counts_test.py

The arithmetic of scripts/aa_counts.py on runs made by hand.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

PROGRAM = pathlib.Path(__file__).resolve().parent.parent / "scripts" / "aa_counts.py"


def verdict(name, ratio=1.0):
    return {"verdict": name, "ratio": ratio, "low": ratio - 0.01, "high": ratio + 0.01, "delta": 0.02,
            "why": "noise" if name == "no verdict" else ""}


def store(folder, name, cpu, p99=None, partial=False):
    path = folder / name
    path.mkdir()
    judged = {"cpu": cpu, "throughput": verdict("equivalent"), "p99": p99}
    results = [{"variant": "base", "summary": {"server_cpu_us_per_request": 5.0}},
               {"variant": "second", "verdicts": judged}]
    (path / "run.json").write_text(json.dumps({"partial": partial, "cells": [{"results": results}]}), encoding="utf-8")


def counted(false, found, more, aa=40, p99=None, equals="equivalent"):
    """Exit status and text for so many false verdicts, +5 % found, +1 % called slower."""
    with tempfile.TemporaryDirectory() as text:
        folder = pathlib.Path(text)
        for i in range(aa):
            store(folder, f"aa-{i:02}", verdict("slower" if i < false else equals), p99)
        for i in range(20):
            store(folder, f"plus5-{i:02}", verdict("slower" if i < found else "no verdict", 1.05))
            store(folder, f"plus1-{i:02}", verdict("slower" if i < more else "equivalent", 1.01))
        return run(str(folder))


def run(*words):
    done = subprocess.run([sys.executable, str(PROGRAM), *words], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def check(what, result, status, *parts):
    if result[0] != status or any(part not in result[1] for part in parts):
        print(f"{what}: exit status {result[0]}, expected {status} and {parts}:\n{result[1]}")
        sys.exit(1)


def main():
    check("all right", counted(2, 18, 0), 0, "A/A, cpu: 2 false of 40 (at most 2): ok; 38 equivalent",
          "+5 %, cpu: 18 slower of 20 (at least 18): ok", "+1 %, cpu: 0 slower or faster of 20 (none): ok",
          "A/A, p99: 0 false")
    check("3 false", counted(3, 20, 0), 1, "3 false of 40 (at most 2): WRONG")
    check("nothing said", counted(0, 20, 0, equals="no verdict"), 1, "A/A, cpu: 0 false of 40 (at most 2): WRONG")
    check("17 found", counted(0, 17, 0), 1, "17 slower of 20 (at least 18): WRONG")
    check("1 % called more", counted(0, 20, 1), 1, "1 slower or faster of 20 (none): WRONG")
    check("false p99", counted(0, 20, 0, p99=verdict("faster")), 1, "A/A, p99: 40 false")
    check("runs missing", counted(0, 20, 0, aa=39), 1, "aa: only 39 of 40 runs")
    with tempfile.TemporaryDirectory() as text:
        store(pathlib.Path(text), "aa-01", verdict("slower"), partial=True)
        check("an interrupted run", run(text), 1, "aa: only 0 of 40 runs", "A/A, cpu: 0 false of 0")
    with tempfile.TemporaryDirectory() as text:
        folder = pathlib.Path(text)
        store(folder, "base", verdict("equivalent"))
        check("spins", run("--spins", text), 0, "0.2500us 0.0500us")
        (folder / "base" / "run.json").write_text("{", encoding="utf-8")
        check("a damaged run", run("--spins", text), 2, "aa_counts.py: ")
    check("no folder", run(), 2, "Usage")
    return 0


if __name__ == "__main__":
    sys.exit(main())
