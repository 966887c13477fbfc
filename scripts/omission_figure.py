#!/usr/bin/env python3
"""Usage: omission_figure.py FOLDER

Draws FOLDER/latency.svg from the .hgrm files of a run of scripts/coordinated-omission, and prints the
percentiles in it beside the textbook's.
"""
import math
import pathlib
import sys

PERIOD_MS, STALL_MS = 1000, 100  # as in stalling_server.py
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 420, 60, 40, 20, 110  # pixels
MOST_MS, MOST_INVERSE = 120, 10_000  # the ends of the axes
SERIES = [  # file, label, class
    ("r200", "open loop, from the intended send time", "due"),
    ("r200-raw", "open loop, from the actual send time", "sent"),
    ("d1", "closed loop", "closed"),
]
STYLE = """
  text { font: 13px sans-serif; fill: #333 } .axis { stroke: #bbb; stroke-width: 1 }
  path { fill: none; stroke-width: 2 } .textbook { stroke: #777; stroke-dasharray: 6 4 }
  .due { stroke: #0b62a8 } .sent { stroke: #d17a00 } .closed { stroke: #b3261e }
  @media (prefers-color-scheme: dark) {
    text { fill: #ddd } .axis { stroke: #555 } .textbook { stroke: #aaa }
    .due { stroke: #6db6f2 } .sent { stroke: #f2b04e } .closed { stroke: #f28b82 }
  }
"""


def textbook(inverse):
    """Milliseconds at the percentile p with inverse = 1 / (1 - p): P(wait > x) = (S - x) / P."""
    return max(0, STALL_MS - PERIOD_MS / inverse)


def read_hgrm(path):
    """(1 / (1 - percentile), milliseconds) of every line but the last, which has no inverse."""
    if not path.exists():
        sys.exit(f"{path} is missing: no slice was kept; is the machine busy? (see table.md)")
    points = []
    for line in path.read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        if len(fields) == 4 and not line.startswith("#"):
            points.append((float(fields[3]), float(fields[0]) / 1000))
    return points


def at(points, inverse):
    """The value at that percentile, between two lines along the straight one; None beyond the last."""
    before = points[0]
    for x, ms in points:
        if x >= inverse:
            step = 1 / before[0] - 1 / x
            return ms if step == 0 else before[1] + (ms - before[1]) * (1 / before[0] - 1 / inverse) / step
        before = (x, ms)
    return None


def x_of(inverse):
    return LEFT + (WIDTH - LEFT - RIGHT) * math.log(inverse) / math.log(MOST_INVERSE)


def y_of(ms):
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(ms, MOST_MS) / MOST_MS


def curve(points, kind):
    inside = [(x, ms) for x, ms in points if x <= MOST_INVERSE]
    steps = " L".join(f"{x_of(x):.1f},{y_of(ms):.1f}" for x, ms in inside)
    return f'<path class="{kind}" d="M{steps}"/>'


def draw(curves):
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
           "<title>Latency by percentile of a server that stalls 100 ms in every second</title>",
           f"<style>{STYLE}</style>"]
    for ms in range(0, MOST_MS + 1, 20):
        out.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y_of(ms)}" y2="{y_of(ms)}"/>')
        out.append(f'<text x="{LEFT - 8}" y="{y_of(ms) + 4}" text-anchor="end">{ms}</text>')
    for inverse, name in [(1, "0"), (2, "50"), (10, "90"), (100, "99"), (1000, "99.9"), (10_000, "99.99")]:
        x = x_of(inverse)
        out.append(f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{y_of(0)}"/>')
        out.append(f'<text x="{x:.1f}" y="{y_of(0) + 18}" text-anchor="middle">{name} %</text>')
    out.append(f'<text x="{LEFT}" y="{TOP - 6}">ms</text>')
    for row, (points, label, kind) in enumerate(curves):
        y = y_of(0) + 42 + 18 * row
        out.append(curve(points, kind))
        out.append(f'<path class="{kind}" d="M{LEFT},{y - 4} h30"/>')
        out.append(f'<text x="{LEFT + 38}" y="{y}">{label}</text>')
    return "\n".join(out + ["</svg>", ""])


def main(folder):
    curves = [([(x, textbook(x)) for x in [10 ** (i / 100) for i in range(401)]],
               "the textbook: S − P (1 − p)", "textbook")]
    for name, label, kind in SERIES:
        points = read_hgrm(folder / "hgrm" / f"stalling-c1-s1048576-{name}.hgrm")
        curves.append((points, label, kind))
    (folder / "latency.svg").write_text(draw(curves), encoding="utf-8")
    print("| ms | p90 | p95 | p99 | p99.9 |\n|:--|--:|--:|--:|--:|")
    for points, label, _ in curves:
        values = [at(points, inverse) for inverse in (10, 20, 100, 1000)]
        print(f"| {label} | " + " | ".join("-" if v is None else f"{v:.1f}" for v in values) + " |")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print(__doc__.split("\n", 1)[0], file=sys.stderr)
        sys.exit(2)
    main(pathlib.Path(sys.argv[1]))
