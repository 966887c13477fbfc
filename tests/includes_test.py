#!/usr/bin/env python3
"""Usage: includes_test.py [SOURCE-ROOT]

Reads every #include and checks the dependency direction: backends never see echo, patterns or
harness; echo and patterns see the seam only; the harness sees nothing of what it measures, but for
its folder of benchmarks. Before that, each rule is shown to fire on a small tree that breaks it.
"""
import pathlib
import re
import sys
import tempfile

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
PARTS = ("backends", "echo", "patterns", "harness", "tests")

# What each part may include of the others, its own files aside. Tests may include everything.
ALLOWED = {
    "backends": set(),
    "echo": {"backends/session.hpp"},
    "patterns": {"backends/session.hpp"},
    "harness": set(),
}
# A protocol's server program also chooses a backend, by headers that are made for programs.
PROGRAM = {"backends/backend.hpp", "backends/serve.hpp", "backends/stats.hpp"}
PROTOCOLS = ("echo", "patterns")

# A session holds no socket, clock call, thread or lock.
NOT_IN_PROTOCOLS = re.compile(
    r"^(sys/|netinet/|arpa/|unistd\.h|poll\.h|fcntl\.h|pthread\.h|time\.h|liburing|uv\.h"
    r"|thread$|mutex$|shared_mutex$|condition_variable$|future$|semaphore$|ctime$)"
)
LOCKS = re.compile(r"^(mutex|shared_mutex)$")
# What these files of patterns may include all the same, by name without suffix.
EXEMPT = {
    "hub": LOCKS,  # what all connections share
    "jobs": LOCKS,
    "sessions": LOCKS,
    "sqlite_store": re.compile(r"^(mutex|thread|condition_variable)$"),  # its worker
    "work": re.compile(r"^thread$"),  # sleeps, which is what it is for
}
# The benchmarks of single functions see what the rest of the harness must not.
BENCHMARKS = ("harness", "benchmarks")
NOT_IN_HARNESS = re.compile(r"^(liburing|uv\.h)")


def violations(root):
    found = []
    for part in PARTS:
        for path in sorted((root / part).rglob("*")):
            if path.suffix not in (".hpp", ".cpp", ".h") or not path.is_file():
                continue
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                match = INCLUDE.match(line)
                if not match:
                    continue
                reason = wrong(part, path.relative_to(root), match.group(1), match.group(2))
                if reason:
                    found.append(f"{path.relative_to(root)}:{number}: {match.group(2)}: {reason}")
    return found


def wrong(part, path, quote, target):
    """Why this include is not allowed; None if it is."""
    owner = target.split("/")[0]
    if ".." in pathlib.PurePath(target).parts:
        return "includes are written from the project root"
    if quote == '"' and owner not in PARTS:
        return "includes in quotes start with a part of the project"
    if part == "tests" or (path.parts[:2] == BENCHMARKS and owner != "tests"):
        return None
    if target.startswith("/".join(BENCHMARKS)):
        return "a program of its own, not a part of the harness"
    raw = part == "echo" and path.name.startswith("raw_")  # the controls: a mechanism and no seam
    if owner in PARTS:
        if owner == part and not raw:
            return None
        may = {"echo/raw_listener.hpp"} if raw else set(ALLOWED[part])
        if part in PROTOCOLS and path.name == "main.cpp":
            may |= PROGRAM
        return None if target in may else f"{part} must not see it"
    if part in PROTOCOLS and not raw and path.name != "main.cpp":
        if NOT_IN_PROTOCOLS.match(target):
            exempt = EXEMPT.get(path.stem) if part == "patterns" else None
            if exempt and exempt.match(target):
                return None
            return "a protocol holds no socket, clock call, thread or lock"
    if part == "harness" and NOT_IN_HARNESS.match(target):
        return "the instrument links no library that it measures"
    return None


# One broken include a line: the file, what it includes.
BROKEN = [
    ("backends/a.cpp", '"echo/echo.hpp"'),
    ("backends/a.cpp", '"patterns/hub.hpp"'),
    ("backends/a.hpp", '"harness/load.hpp"'),
    ("backends/a.hpp", "<harness/load.hpp>"),
    ("backends/deep/a.hpp", '"harness/load.hpp"'),
    ("backends/a.cpp", '"outbox.hpp"'),
    ("backends/a.cpp", '"../echo/echo.hpp"'),
    ("backends/a.cpp", '"tests/world.hpp"'),
    ("echo/echo.hpp", '"backends/backend.hpp"'),
    ("echo/echo.hpp", '"backends/outbox.hpp"'),
    ("echo/echo.hpp", "<sys/socket.h>"),
    ("echo/echo.hpp", "<thread>"),
    ("echo/main.cpp", '"backends/outbox.hpp"'),
    ("echo/main.cpp", '"harness/load.hpp"'),
    ("echo/raw_epoll.cpp", '"backends/session.hpp"'),
    ("echo/raw_epoll.cpp", '"echo/echo.hpp"'),
    ("patterns/push.cpp", '"echo/echo.hpp"'),
    ("patterns/push.cpp", '"backends/mailbox.hpp"'),
    ("patterns/push.cpp", "<mutex>"),
    ("patterns/hub.cpp", "<condition_variable>"),
    ("patterns/jobs.cpp", "<thread>"),
    ("patterns/sessions.cpp", "<condition_variable>"),
    ("patterns/sqlite_store.cpp", "<sys/socket.h>"),
    ("patterns/work.cpp", "<mutex>"),
    ("echo/work.hpp", "<thread>"),
    ("harness/load.cpp", '"backends/stats.hpp"'),
    ("harness/load.cpp", '"echo/echo.hpp"'),
    ("harness/load.cpp", '"patterns/hub.hpp"'),
    ("harness/load.cpp", "<liburing.h>"),
    ("harness/load.cpp", '"harness/benchmarks/entry.hpp"'),
    ("harness/deep/a.cpp", '"backends/outbox.hpp"'),
    ("harness/benchmarks/a.cpp", '"tests/world.hpp"'),
    ("harness/benchmarks/a.cpp", '"entry.hpp"'),
    ("tests/a.cpp", '"world.hpp"'),
]
# And what must pass.
SOUND = [
    ("backends/epoll.cpp", '"backends/outbox.hpp"'),
    ("backends/epoll.cpp", "<sys/epoll.h>"),
    ("echo/echo.hpp", '"backends/session.hpp"'),
    ("echo/echo.hpp", "<memory>"),
    ("echo/main.cpp", '"backends/backend.hpp"'),
    ("echo/main.cpp", '"echo/echo.hpp"'),
    ("echo/main.cpp", "<thread>"),
    ("echo/raw_epoll.cpp", "<sys/epoll.h>"),
    ("echo/raw_io_uring.cpp", "<liburing.h>"),
    ("echo/raw_io_uring.cpp", '"echo/raw_listener.hpp"'),
    ("patterns/hub.cpp", "<mutex>"),
    ("patterns/hub.cpp", '"patterns/hub.hpp"'),
    ("patterns/jobs.hpp", "<mutex>"),
    ("patterns/sessions.cpp", "<mutex>"),
    ("patterns/sqlite_store.cpp", "<condition_variable>"),
    ("patterns/sqlite_store.cpp", "<thread>"),
    ("patterns/work.cpp", "<thread>"),
    ("patterns/main.cpp", '"backends/serve.hpp"'),
    ("harness/load.cpp", '"harness/load.hpp"'),
    ("harness/load.cpp", "<sys/socket.h>"),
    ("harness/benchmarks/a.cpp", '"backends/outbox.hpp"'),
    ("harness/benchmarks/a.cpp", '"harness/benchmarks/entry.hpp"'),
    ("harness/benchmarks/a.cpp", '"patterns/http.hpp"'),
    ("tests/a.cpp", '"backends/outbox.hpp"'),
    ("tests/a.cpp", '"harness/load.hpp"'),
]


def found_in_tree(file, include):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / file
        path.parent.mkdir(parents=True)
        path.write_text(f"// a comment\n  #  include {include}\n", encoding="utf-8")
        return violations(pathlib.Path(folder))


def main():
    for file, include in BROKEN:
        if len(found_in_tree(file, include)) != 1:
            print(f"this test is broken: {file} may include {include}")
            return 1
    for file, include in SOUND:
        for line in found_in_tree(file, include):
            print(f"this test is broken: {line}")
            return 1
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    if not (root / "backends" / "session.hpp").is_file():
        print(f"{root}: not the source root")
        return 1
    found = violations(root)
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
