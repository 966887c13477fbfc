#!/usr/bin/env python3
"""Usage: benchmark_test.py

echolab-benchmark from end to end. ECHOLAB_BIN_DIR names the folder of the built programs. Nothing
depends on how fast anything is; exit status 77 if this machine is too busy to measure even once.
"""
import json
import os
import pathlib
import subprocess
import sys

import gbench_format

FOLDER = pathlib.Path(os.environ["ECHOLAB_BIN_DIR"])
ROW = "epoll/c1/s64/d1"
DEAD = ["--server", "dead=false {port}"]
TRIES = 5  # of ten slices a row; beside other programs all of them may be dropped
SKIP = 77


def run(*arguments, **variables):
    return subprocess.run([FOLDER / "echolab-benchmark", *arguments], capture_output=True, text=True,
                          timeout=100, env={**os.environ, **variables})


def measure(*arguments):
    """Exit status and benchmarks, after a strict look at the JSON."""
    done = run("--benchmark_format=json", *arguments)
    return done.returncode, gbench_format.read(done.stdout)


def listed(*arguments, **variables):
    done = run("--benchmark_list_tests", *arguments, **variables)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    return done.stdout.splitlines()


def check_list():
    names = listed()
    assert len(names) == len(set(names))
    known = subprocess.run([FOLDER / "echo-server", "--list", "--json"], capture_output=True, check=True)
    for variant in json.loads(known.stdout)["variants"]:
        row = variant["name"].replace("=N", "=64") + "/c64/s64/d1"  # N workers for N connections
        assert row in names, row
    for name in ("raw-epoll/c1000/s4096/d16", "raw-io_uring/c1/s64/d1", "seam/io_uring/c64/s64/d1",
                 "histogram/merge", "websocket/parse/s64"):
        assert name in names, name
    assert not any(n.startswith("seam/threads") for n in names)  # it has no raw control
    only = listed("--benchmark_filter=^epoll/c64/")
    assert sorted(only) == [f"epoll/c64/s{s}/d{d}" for s in ("4096", "64") for d in ("1", "16")], only
    assert listed("--benchmark_filter=-c") == [n for n in names if "c" not in n]
    assert listed(BENCHMARK_FILTER="^http/encode$") == ["http/encode"]


def check_usage():
    for arguments, said in [(["--benchmark_filter=nothing"], "matches no benchmark"),
                            (["--benchmark_filter=("], "not a regular expression"),
                            (["--benchmark_min_time=9x"], "expected seconds"),
                            (["--benchmark_out=x", "--benchmark_out_format=csv"], "json or console"),
                            (["--no-such-flag"], "--no-such-flag"),
                            (["--server", "epoll=a {port}"], "given twice"),
                            (["--server", "mine"], "NAME="), (["--place", "moon"], "moon")]:
        done = run(*arguments)
        assert done.returncode == 2 and done.stdout == "", (arguments, done)
        assert said in done.stderr and done.stderr.count("\n") == 1, done.stderr


def check_trouble():
    status, rows = measure("--benchmark_filter=^dead/c1/s64/d1$", *DEAD)
    assert status == 1 and len(rows) == 1
    assert rows[0]["name"] == "dead/c1/s64/d1", rows
    assert "dead: the server ended before it listened" in rows[0]["error_message"]


def check_row(row):
    assert row["iterations"] > 1  # requests
    per_second = 1e9 / row["real_time"]  # iterations, which are requests
    assert abs(row["items_per_second"] / per_second - 1) < 1e-3, row
    assert abs(row["bytes_per_second"] / per_second / 64 - 1) < 1e-3, row
    assert row["client_cpu_ns"] > 0 and row["syscalls"] > 0
    assert not any(key.startswith("echolab") for key in row), row
    if row["name"].startswith("seam/"):
        assert row["seam_ratio"] > 0 and row["raw_cpu_ns"] > 0
    else:
        assert "seam_ratio" not in row


def check_server():
    """A row, twice in any order, and the seam beside it. False if not all of it could be measured."""
    measured = set()
    for _ in range(TRIES):
        out = run(f"--benchmark_filter=^(seam/)?{ROW}$", "--benchmark_min_time=0.1", "--seed=7", "--place=same",
                  "--benchmark_repetitions=2", "--benchmark_enable_random_interleaving", "--benchmark_format=json")
        rows = gbench_format.read(out.stdout)
        context = json.loads(out.stdout)["context"]
        assert context["seed"] == "7" and context["kernel"] and context["commit"]
        assert context["placement"].startswith("same: servers on CPU ")
        assert {row["run_name"] for row in rows} == {ROW, "seam/" + ROW}
        failed = [row for row in rows if row.get("error_occurred")]
        assert all("no slice counts" in row["error_message"] for row in failed), failed
        assert out.returncode == (1 if failed else 0), out
        single = [row for row in rows if row["run_type"] == "iteration" and row not in failed]
        for row in single:
            check_row(row)
        times = [row["cpu_time"] for row in single if row["name"] == ROW]
        if len(times) == 2:
            mean = next(row for row in rows if row["name"] == ROW + "_mean")
            assert abs(mean["cpu_time"] / (sum(times) / 2) - 1) < 1e-6, rows
        measured |= {row["name"] for row in single}
        if len(measured) == 2:
            return True
    return False


def check_parts():
    """Each part once, very shortly."""
    parts = "^(session|outbox|mailbox|timers|histogram|http|websocket)/"
    names = listed("--benchmark_filter=" + parts)
    status, rows = measure("--benchmark_filter=" + parts, "--benchmark_min_time=0.000001")
    assert status == 0 and [row["name"] for row in rows] == names
    assert not any("error_occurred" in row for row in rows), rows


def main():
    check_list()
    check_usage()
    check_trouble()
    check_parts()
    if not check_server():
        print("skipped: other programs leave this machine no slice that counts")
        return SKIP
    return 0


if __name__ == "__main__":
    sys.exit(main())
