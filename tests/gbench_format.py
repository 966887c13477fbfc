"""Reads Google Benchmark JSON as strictly as its description has it (docs/user_guide.md of Google
Benchmark, "Output Formats") and as continuous-benchmark services need it: of each benchmark,
github-action-benchmark (tool "googlecpp") takes name, real_time, time_unit, iterations, cpu_time
and threads as they stand."""
import collections
import datetime
import json
import math

UNITS = {"ns", "us", "ms", "s"}


def unique(pairs):
    keys = [key for key, _ in pairs]
    assert len(keys) == len(set(keys)), f"a key is there twice: {keys}"
    return dict(pairs)


def no_constant(text):
    raise AssertionError(f"{text} is not JSON")


def whole(value, least):
    return type(value) is int and value >= least


def number(value):
    return type(value) in (int, float) and math.isfinite(value)


def text(value):
    return isinstance(value, str) and value != ""


def check_context(context):
    # fromisoformat knows no Z before Python 3.11.
    datetime.datetime.fromisoformat(context["date"].replace("Z", "+00:00"))
    assert text(context["executable"])
    assert whole(context["num_cpus"], 1)
    assert context["library_build_type"] in ("release", "debug")


def check_benchmark(b):
    assert text(b["name"]) and b["name"].startswith(b["run_name"])
    assert whole(b["family_index"], 0) and whole(b["per_family_instance_index"], 0)
    assert b["run_type"] in ("iteration", "aggregate")
    assert whole(b["repetitions"], 1) and whole(b["threads"], 1)
    assert b["time_unit"] in UNITS
    assert number(b["real_time"]) and number(b["cpu_time"])
    if b.get("error_occurred"):
        assert text(b["error_message"])
        return
    assert whole(b["iterations"], 1)
    if b["run_type"] == "iteration":
        assert 0 <= b["repetition_index"] < b["repetitions"]
        assert b["real_time"] > 0 and b["cpu_time"] > 0
        assert b.get("items_per_second", 1) > 0


def read(source):
    """The benchmarks of a document, which is right: else AssertionError or another exception."""
    document = json.loads(source, parse_constant=no_constant, object_pairs_hook=unique)
    check_context(document["context"])
    seen = collections.Counter()
    for benchmark in document["benchmarks"]:
        try:
            check_benchmark(benchmark)
        except (AssertionError, KeyError, TypeError) as error:
            raise AssertionError(f"{error!r} in {benchmark}") from error
        if benchmark["run_type"] == "iteration":
            seen[benchmark["name"], benchmark["repetition_index"]] += 1
    assert all(count == 1 for count in seen.values()), f"a repetition is there twice: {seen}"
    for name, _ in seen:
        wanted = next(b["repetitions"] for b in document["benchmarks"] if b["name"] == name)
        assert sum(n == name for n, _ in seen) == wanted, f"repetitions of {name} are missing"
    return document["benchmarks"]
