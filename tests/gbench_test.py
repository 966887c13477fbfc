#!/usr/bin/env python3
"""Usage: gbench_test.py format | compare

What `harness bench --export gbench` writes, from tests/data, which a test in verdicts_test.cpp keeps
equal to what the harness writes of a sample run. B costs 10 % more CPU in one row.

  format   it is Google Benchmark's format, read strictly
  compare  Google's compare.py (Debian: libbenchmark-tools) reads two of them and finds the 10 %; exit
           status 77 where it or SciPy, which it needs, is missing
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import gbench_format

DATA = pathlib.Path(__file__).resolve().parent / "data"
A, B = DATA / "gbench-a.json", DATA / "gbench-b.json"
PLACES = ["/usr/share/benchmark/compare.py", "/usr/share/doc/google-benchmark/tools/compare.py",
          "/usr/share/googlebenchmark/tools/compare.py"]
PYTHONS = [sys.executable, "/usr/bin/python3"]  # the second has the distribution's packages
SKIP = 77


def check_format():
    names = [b["name"] for b in gbench_format.read(A.read_text(encoding="utf-8"))]
    assert len(set(names)) == 4 and len(names) == 4 * 7, names
    # The checker can fail.
    for broken in [('"cpu_time": 2000.0', '"cpu_time": NaN'), ('"time_unit": "ns"', '"time_unit": "m"'),
                   ('"iterations"', '"repeats"'), ('"repetition_index": 1', '"repetition_index": 0')]:
        source = A.read_text(encoding="utf-8")
        assert broken[0] in source, broken
        try:
            gbench_format.read(source.replace(*broken))
        except AssertionError:
            continue
        raise AssertionError(f"this test is broken: {broken} passes")


def has_scipy(python):
    if not pathlib.Path(python).is_file():
        return False
    return subprocess.run([python, "-c", "import scipy.stats"], capture_output=True).returncode == 0


def check_compare():
    program = next((p for p in PLACES if pathlib.Path(p).is_file()), None)
    if program is None:
        print("skipped: Google's compare.py is not installed (Debian: libbenchmark-tools)")
        return SKIP
    python = next((p for p in PYTHONS if has_scipy(p)), None)
    if python is None:
        print("skipped: compare.py needs SciPy (Debian: python3-scipy)")
        return SKIP
    with tempfile.TemporaryDirectory() as folder:
        dump = pathlib.Path(folder) / "dump.json"
        run = subprocess.run([python, program, "--no-color", "-d", dump, "benchmarks", A, B],
                             capture_output=True, text=True, timeout=100)
        assert run.returncode == 0, run.stderr
        compared = {row["name"]: row for row in json.loads(dump.read_text(encoding="utf-8"))}
    for name in ("epoll/c64/s64/d1", "other/c64/s64/d1"):
        assert name in run.stdout, run.stdout
        assert len(compared[name]["measurements"]) == 7
    changes = [m["cpu"] for m in compared["other/c64/s64/d1"]["measurements"]]
    assert all(abs(change - 0.1) < 1e-3 for change in changes), changes
    assert compared["other/c64/s64/d1"]["utest"]["cpu_pvalue"] < 0.05
    assert compared["epoll/c64/s64/d1"]["utest"]["cpu_pvalue"] > 0.05
    return 0


if __name__ == "__main__":
    if sys.argv[1:] == ["format"]:
        sys.exit(check_format())
    if sys.argv[1:] == ["compare"]:
        sys.exit(check_compare())
    print(__doc__.splitlines()[0])
    sys.exit(2)
