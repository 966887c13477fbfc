// The charts: uPlot draws axes, curves and the cursor. Each is a function of the host element that it
// fills, and comes with a table of the same figures for whoever cannot see or read it.
const kLineWidth = 1.75; // px
const kPointSize = 5; // px

function axis(label, extra) {
  return {
    label, labelSize: 18, labelGap: 0, size: 34, font: '12px system-ui, sans-serif', labelFont: '12px system-ui, sans-serif',
    stroke: () => colour('--muted'), grid: { stroke: () => colour('--line'), width: 1 }, ticks: { stroke: () => colour('--line'), width: 1, size: 4 },
    filter: (u, splits) => splits, // all that are asked for, on logarithmic axes too
    ...extra,
  };
}

// A chart that is as wide as its host. `said`: what it shows, in a sentence.
function chart(host, said, height, options, data) {
  const frame = element('div', { class: 'chart', role: 'img', 'aria-label': said });
  host.append(frame);
  const width = () => Math.max(200, Math.floor(frame.clientWidth));
  const plot = new uPlot({ width: width(), height, legend: { show: false }, ...options }, data, frame);
  new ResizeObserver(() => {
    if (frame.isConnected && width() !== plot.width) plot.setSize({ width: width(), height });
  }).observe(frame);
  return plot;
}
const asTable = (...arguments_) => element('details', {}, element('summary', {}, 'The same as a table'), table(...arguments_));

// Shows beside the cursor what `lines(index)` says: [{ look, text }].
function readout(lines) {
  let box;
  return {
    hooks: {
      init: [(u) => {
        box = element('div', { class: 'readout', hidden: true });
        u.over.append(box);
      }],
      setCursor: [(u) => {
        const { left, idx } = u.cursor;
        const said = idx === null || idx === undefined || left < 0 ? [] : lines(idx);
        box.hidden = said.length === 0;
        box.replaceChildren(...said.map(({ look, text }) => element('div', {}, look ? swatch(look) : null, text)));
        const right = left > u.over.clientWidth / 2;
        box.style.left = right ? '' : `${left + 12}px`;
        box.style.right = right ? `${u.over.clientWidth - left + 12}px` : '';
      }],
    },
  };
}

// From 1, 2, 5, 10 ... those between the ends.
function roundNumbers(low, high, per = [1, 2, 5]) {
  const out = [];
  for (let decade = Math.floor(Math.log10(low)); decade <= Math.ceil(Math.log10(high)); ++decade) {
    for (const digit of per) out.push(digit * 10 ** decade);
  }
  return out.filter((value) => value >= low * 0.999 && value <= high * 1.001);
}
function logTicks(low, high) {
  const few = roundNumbers(low, high, [1]);
  if (few.length >= 4) return few;
  const some = roundNumbers(low, high);
  if (some.length >= 3) return some;
  // Less than a decade: even steps, between five and ten of them.
  const decade = 10 ** Math.floor(Math.log10((high - low) / 5));
  const step = decade * [1, 2, 5, 10].find((digit) => (high - low) / (digit * decade) <= 10);
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, i) => (first + i) * step);
}
const logRange = (u, low, high) => (low === null ? [1, 10] : [low / 1.06, high * 1.06]);

// ---- latency percentiles

const percentileText = (beyond) => (beyond === 1 ? '0 %' : `${(100 * (1 - 1 / beyond)).toFixed(Math.max(0, Math.round(Math.log10(beyond)) - 2))} %`);

function percentiles(host, report, cell, shown, look) {
  const results = resultsOf(report, cell, shown);
  const curves = results.flatMap((result) => [
    { name: result.variant, look: look.get(result.variant), values: result.curve },
    ...(result.raw_curve ? [{ name: `${result.variant}, from the send`, look: look.get(result.variant), values: result.raw_curve, raw: true }] : []),
  ]).filter(({ values }) => values.length > 1);
  if (curves.length === 0) {
    host.append(note('No latencies to show: too few samples, or no variant is chosen.'));
    return;
  }
  const length = Math.max(...curves.map(({ values }) => values.length));
  const beyond = Array.from({ length }, (_, i) => 10 ** (i / report.curve_per_decade));
  const hasRaw = curves.some(({ raw }) => raw);
  const widest = beyond.at(-1);
  const data = [beyond, ...curves.map(({ values }) => Array.from({ length }, (_, i) => values[i] ?? null))];
  chart(host, `Latency percentiles at ${cell.title}, a curve for each variant; the table below has the figures`, 320, {
    scales: { x: { time: false, distr: 3, range: [1, widest] }, y: { distr: 3, range: logRange } },
    axes: [
      axis('percentile', { splits: (u) => (u.width > 600 ? [2] : []).concat(roundNumbers(1, widest, [1])).sort((a, b) => a - b), values: (u, splits) => splits.map(percentileText) }),
      axis('latency', { size: 64, splits: (u, i, low, high) => logTicks(low, high), values: (u, splits) => splits.map(duration) }),
    ],
    series: [{}, ...curves.map(({ look: own, raw }) => ({
      stroke: () => colour(own.hue), width: raw ? 1 : kLineWidth, dash: raw ? [1, 2] : own.dash, points: { show: false },
    }))],
    cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
    plugins: [readout((index) => [
      { text: percentileText(beyond[index]) },
      ...curves.filter(({ values }) => values[index] !== undefined)
        .map(({ name, look: own, values }) => ({ look: own, text: `${name}: ${duration(values[index])}` })),
    ])],
  }, data);
  host.append(note(
    'A curve ends where fewer than 100 samples lie beyond it. ',
    hasRaw ? 'Dotted: counted from the actual send, which hides what a stall did to the requests behind it; the other curve counts from when the request was due.'
      : 'In a closed loop a server that stalls is asked less, so that stalls count once; rates (open loop) show them in full.'));
  const figures = ['p50_us', 'p90_us', 'p99_us', 'p999_us', 'max_us'];
  host.append(asTable(`Latency at ${cell.title}, \u00b5s`, ['variant', 'p50', 'p90', 'p99', 'p99.9', 'max'],
    results.flatMap(({ variant, figures: own, raw_curve }) => [
      [variant, ...figures.map((name) => figure(own[name]))],
      ...(raw_curve ? [[`${variant}, from the send`, ...figures.map((name) => figure(own[`raw_${name}`]))]] : []),
    ])));
}

// ---- throughput and latency over rates

// The open-loop cells that differ from this one in their rate only, by rate.
function rateCells(report, cell) {
  return report.cells.filter((other) => other.rate_per_s > 0 && other.connections === cell.connections && other.size_bytes === cell.size_bytes)
    .sort((a, b) => a.rate_per_s - b.rate_per_s);
}

// In percent, as sweeps name them.
const kPercentiles = { 50: ['p50', 'p50_us'], 90: ['p90', 'p90_us'], 99: ['p99', 'p99_us'], 99.9: ['p99.9', 'p999_us'] };

function throughputLatency(host, report, cell, shown, look) {
  const cells = rateCells(report, cell);
  const sweep = report.sweeps.find((one) => one.connections === cell.connections && one.size_bytes === cell.size_bytes && kPercentiles[one.percentile]);
  const [title, field] = kPercentiles[sweep?.percentile ?? 99];
  const names = columns(report).map(({ name }) => name).filter((name) => shown.has(name));
  const lines = names.flatMap((name) => [field, `raw_${field}`].map((which) => ({
    name, which, look: look.get(name),
    points: cells.map((one) => resultOf(one, name)?.figures).filter((own) => own?.requests_per_s)
      .map((own) => [own.requests_per_s, own[which] ?? null]).sort((a, b) => a[0] - b[0]),
  }))).filter(({ points }) => points.some(([, y]) => y !== null));
  if (lines.length === 0) {
    host.append(note(`No ${title} to show here.`));
    return;
  }
  const limit = sweep?.limit_us;
  const highest = new Map(Object.entries(sweep?.highest_rate_per_s ?? {}));
  chart(host, `${title} latency over achieved requests per second; the table below has the figures`, 300, {
    scales: {
      x: { time: false, range: (u, low, high) => [0, high * 1.04] },
      y: { distr: 3, range: (u, low, high) => logRange(u, limit ? Math.min(low, limit) : low, limit ? Math.max(high, limit) : high) },
    },
    axes: [
      axis('requests/s achieved', { values: (u, splits) => splits.map(compact) }),
      axis(title, { size: 64, splits: (u, i, low, high) => logTicks(low, high), values: (u, splits) => splits.map(duration) }),
    ],
    series: [{}, ...lines.map(({ look: own, which }) => ({
      stroke: () => colour(own.hue), width: which === field ? kLineWidth : 1, dash: which === field ? own.dash : [1, 2],
      points: { show: which === field, size: kPointSize, fill: () => colour(own.hue) },
    }))],
    cursor: { y: false, drag: { x: false, y: false } },
    hooks: { draw: [(u) => drawLimits(u, limit, names.map((name) => [look.get(name), highest.get(name)]))] },
  }, // Where only others have a point, a curve goes on; where it has one without a value, it is broken.
  uPlot.join(lines.map(({ points }) => [points.map(([x]) => x), points.map(([, y]) => y)])));
  host.append(note(`Dotted: ${title} counted from the actual send. `,
    limit ? `The horizontal line is the limit, ${duration(limit)}; an upright line the highest rate at which a variant still met it.` : ''));
  if (sweep) host.append(element('p', {}, sweep.title), element('ul', {}, sweep.lines.map((line) => element('li', {}, line))));
  host.append(asTable(`${title} by offered rate, \u00b5s`, ['variant', ...cells.map((one) => `${compact(one.rate_per_s)}/s`), ...(sweep ? ['highest rate within the limit'] : [])],
    names.map((name) => [name, ...cells.map((one) => figure(resultOf(one, name)?.figures[field])),
      ...(sweep ? [highest.get(name) ? `${compact(highest.get(name))}/s` : '-'] : [])])));
}
function drawLimits(u, limit, rates) {
  const { ctx, bbox } = u;
  const line = (stroke, x1, y1, x2, y2) => {
    ctx.strokeStyle = stroke;
    ctx.beginPath();
    ctx.moveTo(x1, y1);
    ctx.lineTo(x2, y2);
    ctx.stroke();
  };
  ctx.save();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.lineWidth = devicePixelRatio;
  ctx.setLineDash([4 * devicePixelRatio, 3 * devicePixelRatio]);
  if (limit) {
    const y = u.valToPos(limit, 'y', true);
    line(colour('--slower'), bbox.left, y, bbox.left + bbox.width, y);
  }
  for (const [own, rate] of rates) {
    if (!rate) continue;
    const x = u.valToPos(rate, 'x', true);
    line(colour(own.hue), x, bbox.top, x, bbox.top + bbox.height);
  }
  ctx.restore();
}

// ---- every slice

// [value, how many] runs, one value a slice.
const expanded = (runs) => runs.flatMap(([value, count]) => Array(count).fill(value));
function slicesOf(report, result, metric) {
  const column = result.slices[metric.name];
  if (!column) return [];
  const blocks = expanded(result.slices.blocks), gates = expanded(result.slices.gates);
  // A number for each block in the order in which they ran, so that neighbours can be told apart.
  let turn = 0;
  return gates.map((gate, i) => {
    if (i > 0 && blocks[i] !== blocks[i - 1]) ++turn;
    const [high, low] = [0, 1].map((k) => report.digits.indexOf(column.steps[2 * i + k]));
    const value = high < 0 ? null : column.center * Math.exp((64 * high + low - 2048) / column.steps_per_e);
    return { value, block: turn, gate, at: (i + 0.5) / gates.length };
  })
    .filter(({ value }) => value !== null);
}

const kStripHeight = 34; // px a variant
function strips(host, report, cell, metric, shown, look) {
  const rows = resultsOf(report, cell, shown)
    .map((result) => ({ name: result.variant, look: look.get(result.variant), slices: slicesOf(report, result, metric) }))
    .filter(({ slices }) => slices.length > 0);
  if (rows.length === 0) {
    host.append(note('No slices to show.'));
    return;
  }
  const [least, most] = ends(rows.flatMap(({ slices }) => slices.map(({ value }) => value)));
  // uPlot lays out the axes; the points are drawn below.
  chart(host, `${metric.title} of every slice at ${cell.title}, one row for each variant; the table below says how many were dropped`,
    rows.length * kStripHeight + 60, {
      scales: {
        x: { time: false, distr: 3, range: [least / 1.03, most * 1.03] },
        y: { range: [0, rows.length], dir: -1 },
      },
      axes: [
        axis(`${metric.title}${metric.unit === '/s' ? '' : `, ${metric.unit}`}`, {
          splits: (u, i, low, high) => fitting(logTicks(low, high), u), values: (u, splits) => splits.map((value) => (value === null ? '' : compactOrFigure(value))),
        }),
        axis('', {
          size: nameWidth(rows), labelSize: 0, stroke: () => colour('--fg'), grid: { show: false }, ticks: { show: false },
          splits: () => rows.map((_, i) => i + 0.5), values: () => rows.map(({ name }) => shortName(name)),
        }),
      ],
      series: [{}, { paths: () => null, points: { show: false } }],
      cursor: { show: false },
      hooks: { draw: [(u) => drawStrips(u, rows)] },
    }, [[least, most], [0, rows.length]]);
  host.append(note('Each point is a slice, in the order of time from the top of its row to the bottom; every other block (a fresh process) is lighter. ',
    element('span', { class: 'slower' }, '\u00d7'), ' was dropped by a gate and repeated.'));
  host.append(asTable(`Slices at ${cell.title}`, ['variant', 'kept', 'dropped', `${metric.title} from`, 'to'], rows.map(({ name, slices }) => {
    const kept = slices.filter(({ gate }) => gate === 0).map(({ value }) => value);
    return [name, String(kept.length), droppedText(report, resultOf(cell, name)), ...ends(kept).map(figure)];
  })));
}
// The least and the greatest, of any number of them.
function ends(values) {
  return values.reduce(([low, high], value) => [Math.min(low ?? value, value), Math.max(high ?? value, value)], [null, null]);
}
const compactOrFigure = (value) => (value >= 1e5 ? compact(value) : String(Number(value.toPrecision(5))));
const kLongestName = 18; // characters; foreign servers have names of any length
const shortName = (name) => (name.length > kLongestName ? `${name.slice(0, kLongestName - 1)}\u2026` : name);
const nameWidth = (rows) => 16 + 6.6 * Math.max(...rows.map(({ name }) => shortName(name).length));
// As many ticks as have room for their text.
function fitting(ticks, u) {
  const every = Math.ceil(ticks.length / Math.max(2, Math.floor(u.width / 90)));
  return ticks.filter((_, i) => i % every === 0);
}
function droppedText(report, result) {
  const counts = new Map();
  for (const [gate, count] of result.slices.gates) {
    if (gate !== 0) counts.set(gate, (counts.get(gate) ?? 0) + count);
  }
  return counts.size === 0 ? 'none' : [...counts].map(([gate, count]) => `${report.gates[gate]} ${count}`).join(', ');
}
function drawStrips(u, rows) {
  const { ctx } = u;
  const scale = devicePixelRatio;
  ctx.save();
  rows.forEach(({ look, slices }, row) => {
    ctx.fillStyle = colour(look.hue);
    ctx.strokeStyle = colour('--slower');
    ctx.lineWidth = 1.5 * scale;
    for (const { value, at, block, gate } of slices) {
      const x = u.valToPos(value, 'x', true), y = u.valToPos(row + 0.1 + 0.8 * at, 'y', true);
      ctx.beginPath();
      if (gate === 0) {
        ctx.globalAlpha = block % 2 === 0 ? 0.85 : 0.4;
        ctx.arc(x, y, 1.7 * scale, 0, 2 * Math.PI);
        ctx.fill();
      } else {
        ctx.globalAlpha = 1;
        const arm = 2.5 * scale;
        ctx.moveTo(x - arm, y - arm);
        ctx.lineTo(x + arm, y + arm);
        ctx.moveTo(x - arm, y + arm);
        ctx.lineTo(x + arm, y - arm);
        ctx.stroke();
      }
    }
  });
  ctx.restore();
}
