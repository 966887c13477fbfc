// The page: reads the data, keeps what is chosen, and builds the sections anew when that changes.
// The data of this very page, compressed by the harness.
async function read() {
  const bytes = Uint8Array.from(atob(document.getElementById('data').textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
  return JSON.parse(await new Response(stream).text());
}

// ---- CPU per request

function cpuBars(report, cell, shown, look) {
  const rows = resultsOf(report, cell, shown).filter(({ figures }) => figures.server_cpu_us_per_request);
  if (rows.length === 0) return note('CPU time was not measured here.');
  const most = Math.max(...rows.map(({ figures }) => figures.server_cpu_us_per_request));
  const workers = rows.some(({ figures }) => figures.workers_us_per_request > 0);
  const whole = rows.some(({ figures }) => !figures.user_us_per_request && !figures.system_us_per_request);
  const caption = `Server CPU per request at ${cell.title}, \u00b5s`;
  const kinds = [['user', 'user'], ['system', 'system'], ...(workers ? [['workers', 'kernel workers']] : []), ...(whole ? [['whole', 'not told apart']] : [])];
  const key = element('span', { class: 'keys' }, kinds.map(([kind, text]) => element('span', {}, element('span', { class: `key ${kind}` }), text)));
  return table(caption, ['variant', key, 'total', 'user', 'system', ...(workers ? ['kernel workers'] : []), 'client'], rows.map((result) => {
    const { server_cpu_us_per_request: total, user_us_per_request: user, system_us_per_request: system,
            workers_us_per_request: worker = 0, client_cpu_us_per_request: client } = result.figures;
    // The total is exact, the split is sampled: the bar has the length of the one, cut by the other.
    const sampled = user + system;
    const parts = sampled > 0 ? [['user', user / sampled], ['system', Math.max(0, system - worker) / sampled], ['workers', Math.min(worker, system) / sampled]]
      : [['whole', 1]];
    return [element('span', {}, swatch(look.get(result.variant)), result.variant),
      element('span', { class: 'bar', 'aria-hidden': 'true', style: `width:${(100 * total / most).toFixed(2)}%` },
        parts.map(([kind, share]) => element('span', { class: kind, style: `width:${(100 * share).toFixed(2)}%` }))),
      figure(total), figure(user), figure(system), ...(workers ? [figure(worker)] : []), figure(client)];
  }));
}

// ---- why columns, gates, seam, circumstances

function whyColumns(report, cell, shown) {
  const rows = resultsOf(report, cell, shown).filter(({ error }) => !error);
  return table(`Per request at ${cell.title}`,
    ['variant', 'system calls', 'by kind', 'wake-ups', 'events/wake-up', 'switches: voluntary', 'involuntary', 'waiting, \u00b5s', 'KiB/connection'],
    rows.map(({ variant, figures, syscalls_by_kind: kinds }) => [variant,
      figure(figures.syscalls_per_request),
      Object.entries(kinds).map(([kind, calls]) => `${kind} ${figure(calls)}`).join(', ') || '-',
      ...['wakeups_per_request', 'events_per_wakeup', 'voluntary_switches_per_request', 'involuntary_switches_per_request',
        'run_delay_us_per_request', 'kib_per_connection'].map((name) => figure(figures[name]))]));
}

function gatesTable(report, cell) {
  const names = [...new Set(cell.results.flatMap(({ gates }) => gates.map(({ gate }) => gate)))];
  return table(`Gates at ${cell.title}: the worst value against its limit, and slices dropped`, ['variant', ...names, 'slices dropped'],
    resultsOf(report, cell).map((result) => [result.variant, ...names.map((name) => {
      const gate = result.gates.find((one) => one.gate === name);
      if (!gate) return '-';
      return element('span', { class: gate.passed ? null : 'slower' },
        `${figure(gate.worst)} / ${figure(gate.limit)}${gate.passed ? '' : ' failed'}${gate.dropped ? `, ${gate.dropped} dropped` : ''}`);
    }), droppedText(report, result)]));
}

function seamTable(report) {
  const rows = report.cells.flatMap((cell) => cell.seam.map((one) => [cell.title, one.backend, one.control, ratio(one.ratio), intervalText(one) || one.why || '-']));
  if (rows.length === 0) return null;
  return section('seam', 'What the seam costs',
    note('CPU per request of a backend against the control of the same model that has no interface at all.'),
    table('The seam, CPU per request', ['cell', 'backend', 'control', 'ratio', '95 % interval'], rows));
}

// Nested objects as lines of a path and a value.
function facts(value, path = '') {
  if (value === null) return [[path, 'unknown']];
  if (Array.isArray(value)) return [[path, value.join(', ') || 'none']];
  if (typeof value !== 'object') return [[path, String(value)]];
  return Object.entries(value).flatMap(([key, inner]) => facts(inner, path ? `${path} / ${key}` : key));
}
function circumstances(report) {
  return section('environment', 'Environment',
    element('ul', {}, [...report.facts, ...report.absences].map((text) => element('li', {}, text))),
    element('p', {}, 'Command: ', element('code', {}, report.command)),
    Object.entries(report.environment).map(([group, value]) => {
      const rows = facts(value);
      return rows.length === 0 ? null : element('details', {}, element('summary', {}, group.replaceAll('_', ' ')), table(group, ['fact', 'value'], rows));
    }));
}

// ---- what is chosen

class Page {
  constructor(report, host) {
    this.report = report;
    this.host = host;
    this.look = looks(report.variants);
    this.metric = report.metrics[0];
    this.selected = 0;
    this.shown = new Set(report.variants.filter(({ copy, unavailable }) => !copy && !unavailable).map(({ name }) => name));
    this.choices = element('div', { class: 'choices', role: 'group', 'aria-label': 'What is shown' });
    this.overview = element('div');
    this.chooser = element('div');
    this.details = element('div');
    const sources = element('div');
    host.replaceChildren(this.choices,
      section('verdicts', 'Verdicts', this.overview,
        report.overall.length ? element('details', {}, element('summary', {}, 'Over all closed-loop cells (geometric means)'),
          element('ul', {}, report.overall.map((text) => element('li', {}, text)))) : null),
      this.chooser, this.details, seamTable(report) ?? '',
      section('sources', 'The backends side by side', sources), circumstances(report));
    this.sources = sourcesView(sources, report.sources);
    this.buildChooser();
    this.build();
  }

  get cell() { return this.report.cells[this.selected]; }

  // The cell with this value that agrees most with the one that is chosen.
  choose(name, value) {
    const weights = { connections: 8, size_bytes: 4, rate: 2, depth: 1 };
    const is = (cell) => ({ ...cell, rate: this.rateIndex(cell) });
    const now = is(this.cell);
    const score = (cell) => Object.entries(weights).reduce((sum, [key, weight]) => sum + (is(cell)[key] === now[key] ? weight : 0), 0);
    const fitting = this.report.cells.map((cell, index) => ({ cell, index })).filter(({ cell }) => is(cell)[name] === value);
    fitting.sort((a, b) => score(b.cell) - score(a.cell));
    this.select(fitting[0].index);
  }
  select(index) {
    this.selected = index;
    this.update();
  }
  // 0: the closed loop; n: the n-th of the rates at these connections and this size, which may be
  // shares of a peak and so differ from one to the other.
  rateIndex(cell) {
    return cell.rate_per_s === 0 ? 0 : 1 + rateCells(this.report, cell).indexOf(cell);
  }

  buildChoices() {
    const { cell, report } = this;
    const distinct = (name) => [...new Set(report.cells.map((one) => one[name]))].sort((a, b) => a - b);
    const same = report.cells.filter((one) => one.connections === cell.connections && one.size_bytes === cell.size_bytes);
    const rates = [...new Map(same.map((one) => [this.rateIndex(one), one])).entries()].sort((a, b) => a[0] - b[0]);
    const depths = [...new Set(same.filter((one) => one.rate_per_s === 0).map((one) => one.depth))].sort((a, b) => a - b);
    const sizes = new Map(report.cells.map((one) => [one.size_bytes, one.size]));
    this.choices.replaceChildren(
      choice('metric', 'Metric', report.metrics.map((one) => ({ value: one.name, text: one.title })), this.metric.name, (value) => {
        this.metric = report.metrics.find((one) => one.name === value);
        this.update();
      }),
      choice('connections', 'Connections', distinct('connections').map((value) => ({ value, text: String(value) })), cell.connections, (value) => this.choose('connections', value)),
      choice('size', 'Size', distinct('size_bytes').map((value) => ({ value, text: sizes.get(value) })), cell.size_bytes, (value) => this.choose('size_bytes', value)),
      choice('rate', 'Rate', rates.map(([value, one]) => ({ value, text: value === 0 ? 'closed loop' : `${compact(one.rate_per_s)}/s` })), this.rateIndex(cell), (value) => this.choose('rate', value)),
      cell.rate_per_s === 0 ? choice('depth', 'Depth', depths.map((value) => ({ value, text: String(value) })), cell.depth, (value) => this.choose('depth', value)) : '');
  }

  buildChooser() {
    this.chooser.replaceChildren(element('fieldset', { class: 'variants', id: 'variants' }, element('legend', {}, 'Variants in the charts'),
      columns(this.report).filter(({ unavailable }) => !unavailable).map(({ name }) => element('label', {},
        element('input', { type: 'checkbox', value: name, checked: this.shown.has(name), onchange: ({ target }) => {
          if (target.checked) this.shown.add(name);
          else this.shown.delete(name);
          this.buildDetails();
        } }), swatch(this.look.get(name)), name))));
  }

  buildDetails() {
    const { cell, report, metric, shown, look } = this;
    const plots = element('div', { class: 'plots' });
    const latency = section('latency', 'Latency');
    plots.append(latency);
    const rates = rateCells(report, cell).length >= 2 ? section('rates', 'Throughput and latency') : null;
    if (rates) plots.append(rates);
    const slices = section('slices', `Every slice: ${metric.title}`);
    this.details.replaceChildren(plots,
      section('cpu', 'CPU per request', cpuBars(report, cell, shown, look), note('The total is exact; the split is sampled by the kernel\u2019s clock tick.')),
      slices, section('why', 'Why', whyColumns(report, cell, shown)),
      section('gates', 'Gates', cell.notes.length ? element('ul', {}, cell.notes.map((text) => element('li', {}, text))) : note('No slice was dropped, and nothing failed.'),
        gatesTable(report, cell)));
    percentiles(latency, report, cell, shown, look);
    if (rates) throughputLatency(rates, report, cell, shown, look);
    strips(slices, report, cell, metric, shown, look);
    this.sources.update(cell.section_costs);
  }

  build() {
    this.buildChoices();
    this.overview.replaceChildren(overview(this.report, this.metric, this.selected, (index) => this.select(index)), legend(this.report, this.metric),
      element('h3', {}, this.cell.title), cellTable(this.report, this.cell, this.metric, this.look));
    this.buildDetails();
    document.getElementById('status').textContent = `${this.metric.title} at ${this.cell.title}`;
  }

  // Building takes the focus away: it goes back to where it was, by what is chosen there. The section
  // that is being looked at stays where it is.
  update() {
    const top = (section) => section.getBoundingClientRect().top;
    const seen = [...this.host.querySelectorAll('section[id]')].find((one) => one.getBoundingClientRect().bottom > innerHeight / 2);
    const before = seen && top(seen);
    const active = document.activeElement;
    const radio = active?.type === 'radio' ? active.name : null;
    const pressed = active?.getAttribute('aria-pressed') !== null && active?.tagName === 'BUTTON';
    this.build();
    const focused = radio ? this.choices.querySelector(`input[name="${radio}"]:checked`)
      : pressed ? this.overview.querySelector('button[aria-pressed="true"]') : null;
    focused?.focus({ preventScroll: true });
    const after = seen && document.getElementById(seen.id);
    if (after) scrollBy(0, top(after) - before);
  }
}

async function start() {
  const host = document.getElementById('report');
  const report = await read();
  if (report.cells.length === 0) {
    host.replaceChildren(note('There is nothing to show: no cell was measured.'), circumstances(report));
  } else {
    const page = new Page(report, host);
    // Canvases do not follow the style sheet.
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => page.buildDetails());
  }
  host.setAttribute('aria-busy', 'false');
}
start().catch((error) => {
  const host = document.getElementById('report');
  host.textContent = `This page could not be shown (${error.message}). It needs a browser of 2023 or newer; table.md has the figures as well.`;
  host.setAttribute('aria-busy', 'false');
  throw error;
});
