// Runs for report_test.mjs, made from a committed one of version 1: what a page must be able to show.
import { readFileSync } from 'node:fs';

const kVariants = ['threads', 'epoll', 'io_uring', 'libuv', 'epoll:lt', 'libuv:inline', 'io_uring:plain'];
const kCopy = 'epoll (A/A)';
const kBlocks = 8;

const reference = () => JSON.parse(readFileSync('results/reference-2026-11-25/run.json', 'utf8'));

function verdict(ratio, delta) {
  const low = ratio * 0.97, high = ratio * 1.03;
  const apart = low > 1 + delta ? 'slower' : high < 1 - delta ? 'faster' : 'no verdict';
  return { verdict: apart, blocks: kBlocks, ratio, low, high, delta, p: 0.01, p_holm: 0.04, smallest_effect: 0.05, why: apart === 'no verdict' ? 'could have seen 5.0 %' : '' };
}

function asVersion2(result, variant, open) {
  const { ratio_cpu: cpu, ratio_throughput: throughput, ratio_p99: p99 } = result.summary;
  result = structuredClone(result);
  result.variant = variant;
  for (const column of Object.values(result.slices)) column.push(column.at(-1));
  const { length } = result.slices.gate;
  result.slices.gate[length - 1] = 4; // dropped
  result.slices.block = Array.from({ length }, (_, i) => Math.floor((i * kBlocks) / length));
  result.verdicts = variant === 'epoll' ? { cpu: null, throughput: null, p99: null }
    : { cpu: verdict(cpu, 0.02), throughput: open ? null : verdict(1 / throughput, 0.05), p99: verdict(p99, 0.1) };
  if (open) {
    result.raw = structuredClone(result.latency);
    for (const name of ['p50_us', 'p90_us', 'p99_us', 'p999_us', 'max_us']) result.summary[`raw_${name}`] = result.summary[name] && result.summary[name] / 2;
    result.slices.due = result.slices.requests;
    result.slices.skipped = result.slices.requests.map(() => 0);
  }
  return result;
}

// Twelve closed cells, three rates at two of them, eight variants, verdicts.
export function whole() {
  const run = reference();
  run.version = 2;
  Object.assign(run.plan, { blocks: kBlocks, most_blocks: 24, cap_ns: 0, rate_shares: [], peaks: [], rates_per_s: [0, 20000, 40000, 60000], contenders: [...kVariants, kCopy] });
  run.variants.push({ name: kCopy, command: '', unavailable: '', features: [] });
  const closed = run.cells;
  const rows = (cell, open) => [...cell.results.map((result) => asVersion2(result, result.variant, open)),
    asVersion2(cell.results.find(({ variant }) => variant === 'epoll'), kCopy, open)];
  run.cells = closed.map((cell) => ({ ...cell, results: rows(cell, false) }));
  for (const rate of [20000, 40000, 60000]) {
    for (const cell of closed.filter(({ depth, size_bytes: size, connections }) => depth === 1 && size === 64 && connections > 1)) {
      const results = rows(cell, true);
      for (const { summary } of results) {
        summary.requests_per_s = rate;
        summary.p99_us *= rate / 20000;
      }
      run.cells.push({ ...cell, depth: 1024, rate_per_s: rate, results });
    }
  }
  run.sweeps = [{
    connections: 64, size_bytes: 64, percentile: 99, limit_ns: 1_000_000, steps: [],
    results: kVariants.map((variant, i) => ({ variant, highest_rate_per_s: i === 0 ? null : 20000 * i, lowest_missed_rate_per_s: null, why: '' })),
  }];
  return run;
}
// Its rates without a sweep and so without limits in the chart; then with a rate at which samples lacked.
export function rates() {
  return { ...whole(), sweeps: [] };
}
export function gap() {
  const run = rates();
  for (const cell of run.cells.filter((one) => one.rate_per_s === 40000)) {
    for (const { summary } of cell.results) summary.p99_us = summary.raw_p99_us = null;
  }
  return run;
}
// More slices than a call can have arguments.
export function huge() {
  const run = rates();
  run.cells.length = 1;
  for (const { slices } of run.cells[0].results) {
    for (const column of Object.values(slices)) while (column.length < 20_000) column.push(column.at(-1));
  }
  return run;
}
export function version1() {
  const run = reference();
  run.cells.length = 2;
  return run;
}
export function partial() {
  const run = reference();
  run.partial = true;
  run.cells.length = 2;
  Object.assign(run.cells[1].results[0], { error: 'the server died: exit status 1' });
  return run;
}
export function empty() {
  const run = reference();
  run.partial = true;
  run.cells = [];
  return run;
}
export function quick() {
  const run = whole();
  run.cells.length = 2;
  run.plan.quick = true;
  for (const cell of run.cells) for (const result of cell.results) result.verdicts = { cpu: null, throughput: null, p99: null };
  return run;
}
// A server whose name is an attack, and a row in which hardly anything is known.
export const kNasty = '</script><img src=x onerror=alert(1)> "\'&\u65e5\u672c';
export function nasty() {
  const run = reference();
  run.cells.length = 1;
  const text = JSON.stringify(run).replaceAll('"libuv:inline"', JSON.stringify(kNasty));
  const named = JSON.parse(text);
  named.variants.find(({ name }) => name === kNasty).command = 'server {port}';
  const [cell] = named.cells;
  const row = cell.results[0];
  row.summary = Object.fromEntries(Object.keys(row.summary).map((key) => [key, key === 'syscalls_by_kind' ? {} : null]));
  row.latency = { count: 0, min_ns: 0, max_ns: 0, sum_ns: 0, buckets: [] };
  for (const key of Object.keys(row.slices)) row.slices[key] = [];
  return named;
}
