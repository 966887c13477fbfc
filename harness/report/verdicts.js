// The tables of ratios: all cells at a glance, and one cell with intervals and sentences.
const kMarks = { faster: '\u25b2', slower: '\u25bc', equivalent: '=', 'no verdict': '\u00b7' };

// The baseline first, its second copy last: that one shows what means nothing.
function columns(report) {
  const rank = (variant) => (variant.name === report.baseline ? 0 : variant.copy ? 2 : 1);
  return [...report.variants].sort((a, b) => rank(a) - rank(b));
}
const resultOf = (cell, name) => cell.results.find((result) => result.variant === name);
// Those of a cell in the order of the columns; `shown`: only these.
function resultsOf(report, cell, shown) {
  return columns(report).filter(({ name }) => !shown || shown.has(name)).map(({ name }) => resultOf(cell, name)).filter(Boolean);
}
const intervalText = (one) => (one?.interval ? `${one.interval[0].toFixed(2)}\u2013${one.interval[1].toFixed(2)}` : '');

// How far from the best of its row, from 0 (the best) to 1 (three times as bad and more).
const kWorst = 3;
function heat(one, metric) {
  const worse = metric.less_is_better ? one.to_best : 1 / one.to_best;
  return Math.min(1, Math.max(0, Math.log(worse) / Math.log(kWorst)));
}
const told = (one) => one.verdict === 'faster' || one.verdict === 'slower';

function verdictWords(one) {
  if (!one?.verdict) return '';
  return one.verdict === 'no verdict' && one.why ? `no verdict: ${one.why}` : one.verdict;
}

function ratioCell(report, metric, result, name) {
  if (!result) return element('td', { class: 'absent' }, '-', spoken(' not measured'));
  if (result.error) return element('td', { class: 'failed', title: result.error }, 'failed');
  const one = result.against[metric.name];
  const absolute = result.figures[metric.figure];
  if (name === report.baseline) {
    const at = one ? heat(one, metric) : 0;
    return element('td', { class: 'baseline', style: `--heat:${at.toFixed(3)}` },
      figure(absolute), element('small', {}, metric.unit));
  }
  if (!one) return element('td', { class: 'absent', title: result.no_verdict }, '-', spoken(` no ratio ${result.no_verdict ?? ''}`));
  const copy = report.variants.some((variant) => variant.name === name && variant.copy);
  // A run without verdicts cannot say which differences are noise: its ratios keep their colour.
  const shows = !copy && !result.no_verdict && (one.verdict ? told(one) : !report.has_verdicts);
  const words = verdictWords(one);
  return element('td', {
    class: shows ? one.verdict ?? 'plain' : 'noise',
    style: `--heat:${shows ? heat(one, metric).toFixed(3) : 0}`,
    title: [words, one.interval && `95 % interval ${intervalText(one)}`, absolute && `${figure(absolute)} ${metric.unit}`]
      .filter(Boolean).join('; '),
  },
  one.ratio.toFixed(2),
  element('span', { class: 'mark', 'aria-hidden': 'true' }, copy ? '' : kMarks[one.verdict] ?? ''),
  spoken(copy ? ' the second copy of the baseline' : ` ${words}`),
  element('small', {}, intervalText(one)));
}

// Every cell against the baseline, for one metric.
function overview(report, metric, selected, select) {
  // A control is compared with its own backend, further below.
  const variants = columns(report).filter(({ control }) => !control);
  const caption = `${metric.title}: ratio to ${report.baseline}${report.has_verdicts ? ', with its 95 % interval' : ''}`;
  return scrolling(caption, element('table', { class: 'overview' },
    captionOf(caption, metric.less_is_better ? '; less is better' : '; more is better'),
    element('thead', {}, element('tr', {}, element('th', { scope: 'col' }, 'cell'),
      variants.map(({ name, unavailable }) => element('th', { scope: 'col', title: unavailable || null }, name)))),
    element('tbody', {}, report.cells.map((cell, index) => element('tr', {
      class: index === selected ? 'selected' : null,
    },
    element('th', { scope: 'row' }, element('button', {
      type: 'button', 'aria-pressed': index === selected ? 'true' : 'false', title: cell.title,
      onclick: () => select(index),
    }, shortTitle(cell).map((part) => element('span', {}, part)))),
    variants.map(({ name }) => ratioCell(report, metric, resultOf(cell, name), name)))))));
}
// In two parts, which are two lines where room is short.
function shortTitle(cell) {
  const load = cell.rate_per_s > 0 ? `${compact(cell.rate_per_s)}/s` : `depth ${cell.depth}`;
  return [`${cell.connections} conn, `, `${cell.size}, ${load}`];
}

function legend(report, metric) {
  const item = (kind, mark, text) => element('li', {},
    element('span', { class: `key ${kind}`, 'aria-hidden': 'true' }, mark), text);
  const delta = `\u00b1${(metric.delta * 100).toFixed(0)} %`;
  return element('ul', { class: 'legend' },
    element('li', {}, element('span', { class: 'scale', 'aria-hidden': 'true' }), 'from the best of the row to three times as bad'),
    report.has_verdicts ? [
      item('faster', kMarks.faster, `better: all of the interval beyond ${delta}, or beyond the noise of the A/A copy`),
      item('slower', kMarks.slower, 'worse, likewise'),
      item('noise', kMarks.equivalent, `equivalent: all within ${delta}`),
      item('noise', kMarks['no verdict'], 'no verdict: grey is not told apart from noise'),
    ] : element('li', {}, 'no intervals in this run, so that any of these may be noise'));
}

// ---- one cell

// A dot with its interval on an axis that all rows share.
const kForest = { width: 160, height: 20, margin: 8 };
function forestScale(cell, metric) {
  const ends = cell.results.flatMap(({ against: { [metric.name]: one } }) =>
    (one ? [one.ratio, ...(one.interval ?? [])] : []));
  const low = Math.min(0.95, ...ends), high = Math.max(1.05, ...ends);
  const span = Math.log(high / low);
  return {
    low, high,
    x: (value) => kForest.margin + (Math.log(value / low) / span) * (kForest.width - 2 * kForest.margin),
  };
}
function forest(one, metric, scale) {
  const middle = kForest.height / 2;
  const delta = one?.delta ?? metric.delta;
  const band = [Math.max(scale.low, 1 - delta), Math.min(scale.high, 1 + delta)].map(scale.x);
  return svg('svg', { class: 'forest', viewBox: `0 0 ${kForest.width} ${kForest.height}`, width: kForest.width, height: kForest.height, 'aria-hidden': 'true' },
    svg('rect', { class: 'band', x: band[0], width: band[1] - band[0], y: 0, height: kForest.height }),
    svg('line', { class: 'one', x1: scale.x(1), x2: scale.x(1), y1: 0, y2: kForest.height }),
    one?.interval ? svg('line', { class: 'interval', x1: scale.x(one.interval[0]), x2: scale.x(one.interval[1]), y1: middle, y2: middle }) : null,
    one ? svg('circle', { class: one.interval ? 'dot' : 'dot hollow', cx: scale.x(one.ratio), cy: middle, r: 3.5 }) : null);
}

function comparedCells(report, metric, result) {
  const one = result.against[metric.name];
  const absolute = result.figures[metric.figure];
  const value = element('td', { class: 'number' }, metric.name === 'throughput' && absolute ? compact(absolute) : figure(absolute));
  if (result.variant === report.baseline) {
    return [value, element('td', { class: 'noise' }, ratio(1), spoken(' the baseline'))];
  }
  if (!one) return [value, element('td', { class: 'noise' }, '-')];
  const words = verdictWords(one);
  const kind = told(one) ? one.verdict : 'noise';
  return [value, element('td', { class: `judged ${kind}` },
    element('b', {}, ratio(one.ratio)), ' ', element('small', {}, intervalText(one)),
    words ? element('span', { class: 'words' }, `${kMarks[one.verdict]} ${words}`) : null)];
}

function cellTable(report, cell, metric, look) {
  const scale = forestScale(cell, metric);
  const metrics = report.metrics;
  const caption = `${cell.title}: every variant against ${report.baseline}`;
  const wide = 2 + 2 * metrics.length;
  const rows = resultsOf(report, cell).map((result) => {
    const heading = element('th', { scope: 'rowgroup' }, swatch(look.get(result.variant)), result.variant);
    if (result.error) {
      return element('tbody', {}, element('tr', {}, heading, element('td', { colspan: wide - 1, class: 'failed' }, `failed: ${result.error}`)));
    }
    return element('tbody', {},
      element('tr', {}, heading,
        element('td', { class: 'plot' }, forest(result.variant === report.baseline ? null : result.against[metric.name], metric, scale)),
        metrics.map((each) => comparedCells(report, each, result))),
      result.explanation ? element('tr', { class: 'why' }, element('td', { colspan: wide }, element('p', {}, result.explanation))) : null);
  });
  return scrolling(caption, element('table', { class: 'cell' },
    captionOf(caption),
    element('thead', {}, element('tr', {}, element('th', { scope: 'col' }, 'variant'),
      element('th', { scope: 'col', class: 'plot' }, `${metric.title} `, element('small', {}, `${scale.low.toFixed(2)}\u00d7 to ${scale.high.toFixed(2)}\u00d7`)),
      metrics.map((each) => [
        element('th', { scope: 'col', class: 'number' }, `${each.title}${each.unit === '/s' ? '' : `, ${each.unit}`}`),
        element('th', { scope: 'col' }, 'ratio'),
      ]))),
    rows));
}
function swatch(look) {
  return svg('svg', { class: 'swatch', viewBox: '0 0 22 8', width: 22, height: 8, 'aria-hidden': 'true' },
    svg('line', { x1: 0, x2: 22, y1: 4, y2: 4, style: `stroke:var(${look?.hue ?? '--muted'})`, 'stroke-dasharray': look?.dash.join(' ') || null }));
}
