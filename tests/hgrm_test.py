#!/usr/bin/env python3
"""A reader of .hgrm files and of run.json that shares no code with the harness: what one says of a
distribution, the other says too. Run from the source root with ECHOLAB_BIN_DIR naming the folder of
the built programs.

The format is that of HdrHistogram's percentile output, for its plotter (plotFiles.html): a heading, lines
of value, percentile, total count and 1/(1-percentile), the last one without the fourth, and a footer of
'#[' lines. The plotter takes every line that has four numbers.
"""
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HEADING = re.compile(r" +Value +Percentile +TotalCount +1/\(1-Percentile\)")
LINE = re.compile(r" *(\d+\.\d{3}) +(\d\.\d{12}) +(\d+)(?: +(\d+\.\d\d))?")
FOOTER = [re.compile(rf"#\[{a} *= *(\d+(?:\.\d{{3}})?), {b} *= *(\d+(?:\.\d{{3}})?)\]")
          for a, b in [("Mean", "StdDeviation"), ("Max", "Total count"), ("Buckets", "SubBuckets")]]


def fail(message):
    sys.exit(f"FAILED: {message}")


def check(condition, message):
    if not condition:
        fail(message)


def read_hgrm(path):
    """Lines as (value, percentile, count, inverse or None), and the footer's numbers by name."""
    lines = path.read_text(encoding="ascii").split("\n")
    check(HEADING.fullmatch(lines[0]) and lines[1] == "", f"{path}: the heading")
    check(lines[-1] == "" and len(lines) > 6, f"{path}: the end")
    footer = {}
    for pattern, text in zip(FOOTER, lines[-4:-1]):
        match = pattern.fullmatch(text)
        check(match, f"{path}: '{text}' does not match {pattern.pattern}")
        footer.update(zip(re.findall(r"[A-Z]\w*(?: count)?(?= *=)", text), map(float, match.groups())))
    points = []
    for text in lines[2:-4]:
        match = LINE.fullmatch(text)
        check(match, f"{path}: '{text}' is no line of values")
        value, percentile, count, inverse = match.groups()
        points.append((float(value), float(percentile), int(count), inverse and float(inverse)))
    return points, footer


def plotted(path):
    """What the plotter draws: (x, y) of every line of four numbers."""
    points = []
    for text in path.read_text(encoding="ascii").split("\n"):
        fields = text.split()
        if len(fields) == 4 and not text.strip().startswith("#"):
            try:
                points.append((float(fields[3]), float(fields[0])))
            except ValueError:
                pass
    return points


def buckets_of(histogram):
    """(highest value in ns, count) of every bucket that is not empty, by results/README.md."""
    index, out = 0, []
    for number in histogram["buckets"]:
        if number < 0:
            index -= number
            continue
        shift = max(0, index // 1024 - 1)
        low = (index - shift * 1024) << shift
        out.append((min(low + (1 << shift) - 1, histogram["max_ns"]), number))
        index += 1
    check(sum(count for _, count in out) == histogram["count"], "a histogram's count")
    return out


def compare(path, histogram):
    points, footer = read_hgrm(path)
    buckets = buckets_of(histogram)
    total = histogram["count"]
    upto, seen = {}, 0  # by value as printed: samples at or below it
    for value, count in buckets:
        seen += count
        upto[f"{value / 1000:.3f}"] = seen
    last = (-1.0, -1.0, 0)
    for value, percentile, count, inverse in points:
        check((value, percentile, count) > last and count > last[2], f"{path}: out of order at {value}")
        last = (value, percentile, count)
        check(upto.get(f"{value:.3f}") == count, f"{path}: {count} samples up to {value}")
        check(abs(percentile - count / total) < 1e-11, f"{path}: the percentile at {value}")
        check((inverse is None) == (count == total), f"{path}: the inverse at {value}")
        if inverse is not None:
            check(abs(inverse - 1 / (1 - count / total)) <= 0.006, f"{path}: 1/(1-p) at {value}")
    check(last[1:] == (1.0, total), f"{path}: does not end at 100 %")
    check(abs(last[0] - histogram["max_ns"] / 1000) <= 0.0006, f"{path}: the maximum")
    # A line wherever half of what is left, or a fifth of that, has been passed.
    for halvings in range(int(math.log2(total)) if total > 1 else 0):
        check(any(p >= 1 - 0.5**halvings for _, p, _, _ in points), f"{path}: too few lines")
    check(footer["Total count"] == total, f"{path}: the total count")
    check(abs(footer["Max"] - histogram["max_ns"] / 1000) <= 0.0006, f"{path}: Max")
    mean = histogram["sum_ns"] / total / 1000
    check(abs(footer["Mean"] - mean) <= 0.0006 + mean * 1e-5, f"{path}: Mean")
    drawn = plotted(path)
    check(drawn == [(i, v) for v, _, _, i in points if i is not None], f"{path}: what is plotted")


def file_of(folder, variant, cell, raw):
    load = f"r{cell['rate_per_s']:g}" if cell["rate_per_s"] > 0 else f"d{cell['depth']}"
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", variant)
    return folder / "hgrm" / f"{name}-c{cell['connections']}-s{cell['size_bytes']}-{load}{raw}.hgrm"


def check_run(folder):
    run = json.loads((folder / "run.json").read_text())
    wanted = set()
    for cell in run["cells"]:
        for result in cell["results"]:
            for field, raw in [("latency", ""), ("raw", "-raw")]:
                if not result[field] or result[field]["count"] == 0:
                    continue
                path = file_of(folder, result["variant"], cell, raw)
                compare(path, result[field])
                wanted.add(path)
    check(wanted == set((folder / "hgrm").iterdir()), f"{folder}: other files than rows")
    print(f"{folder}: {len(wanted)} distributions agree")
    return len(wanted)


SKIPPED = 77  # exit status, as tests/skip.hpp has it

check(check_run(pathlib.Path("results/reference-2026-11-25")) == 84, "distributions are missing")
OMISSION = pathlib.Path("results/coordinated-omission-2026-11-27")
check(check_run(OMISSION) == 3, "distributions are missing")
with tempfile.TemporaryDirectory() as scratch:
    # The figure in results/README.md, and the table under it, are what the stored run shows.
    copy = pathlib.Path(shutil.copytree(OMISSION, scratch + "/omission"))
    (copy / "latency.svg").unlink()
    table = subprocess.run([sys.executable, "scripts/omission_figure.py", copy],
                           check=True, stdout=subprocess.PIPE, encoding="utf-8", timeout=100).stdout
    check((copy / "latency.svg").read_bytes() == (OMISSION / "latency.svg").read_bytes(), "the figure")
    check(table in pathlib.Path("results/README.md").read_text(encoding="utf-8"), "the table of the figure")
    subprocess.run([os.environ["ECHOLAB_BIN_DIR"] + "/harness", "bench", "--backends", "epoll,epoll:lt",
                    "--connections", "2", "--sizes", "64", "--depths", "1", "--rates", "none,5000",
                    "--slices", "5", "--slice", "20ms", "--blocks", "1", "--place", "same",
                    "-o", scratch + "/run"],
                   check=True, stdout=subprocess.DEVNULL, timeout=100)
    if check_run(pathlib.Path(scratch, "run")) == 0:
        print("SKIPPED: the machine was so busy that no slice was kept")
        sys.exit(SKIPPED)
