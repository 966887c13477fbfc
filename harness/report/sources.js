// The backend sources side by side: a row that opens for each section, with what it cost beside its
// title. data: { backends, sections } of report_sources.hpp; costs: section_costs() of a cell.

// Fills `host`; returns { update(costs) }, for another cell.
function sourcesView(host, data) {
  const kFirstShown = ['epoll', 'io_uring'];
  const kFirstOpen = 'receive';
  const kMostIndent = 16; // characters, of what goes on below: the mechanism comments have 15
  const kKeywords = new Set(('alignas auto bool break case catch class const const_cast constexpr continue decltype default delete do double ' +
    'dynamic_cast else enum explicit false final float for friend if inline int long mutable namespace new noexcept nullptr operator override private ' +
    'protected public reinterpret_cast return short signed sizeof static static_cast struct switch template this throw true try typename unsigned using ' +
    'virtual void volatile while').split(' '));
  const kToken = /(?<comment>\/\/.*|\/\*[^]*?\*\/)|(?<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)+')|(?<directive>^[ \t]*#[ \t]*\w+)|(?<word>[A-Za-z_]\w*)|\d[\w']*/gm;

  // [kind or null, text] one after the other: the whole text.
  const tokens = (text) => {
    const out = [];
    let end = 0;
    for (const match of text.matchAll(kToken)) {
      const { comment, string, directive, word } = match.groups;
      const kind = comment ? 'comment' : string ? 'string' : directive || kKeywords.has(word) ? 'keyword' : null;
      if (!kind) continue;
      out.push([null, text.slice(end, match.index)], [kind, match[0]]);
      end = match.index + match[0].length;
    }
    out.push([null, text.slice(end)]);
    return out;
  };

  // A line is an element, so that it can be numbered without the number being text to copy.
  const code = ({ backend, first_line: first, text }, title) => {
    const lines = [];
    const begin = (indent) => {
      lines.push(element('span', { class: 'line' }));
      lines[lines.length - 1].style.setProperty('--indent', `${Math.min(indent, kMostIndent)}ch`);
    };
    const neat = text.replace(/\r/g, '').replace(/\n+$/, '').replace(/^( *\/\/ ---- .* ----)-+$/m, '$1');
    // What does not fit goes on below, beyond its beginning; in a comment that is its text.
    const indents = neat.split('\n').map((line) => line.match(/^ *(\/\/ *(\S+( \S+)? {2,})?|)/)[0].length);
    begin(indents[0]);
    for (const [kind, token] of tokens(neat)) {
      token.split('\n').forEach((part, index) => {
        if (index > 0) {
          lines[lines.length - 1].append('\n');
          begin(indents[lines.length]);
        }
        if (part) lines[lines.length - 1].append(kind ? element('span', { class: kind }, part) : part);
      });
    }
    const pre = element('pre', {}, element('code', {}, ...lines));
    pre.style.setProperty('counter-reset', `line ${first - 1}`);
    return element('section', { 'aria-label': `${backend}, ${title}` },
      element('h3', {}, `${backend}.cpp`, element('small', {}, ` lines ${first} to ${first + lines.length - 1}`)), pre);
  };

  let costs = {};
  const shown = new Set(data.backends.filter((name) => kFirstShown.includes(name)));
  if (shown.size === 0) data.backends.slice(0, 2).forEach((name) => shown.add(name));
  const visible = (section) => data.backends
    .map((backend, index) => ({ backend, cell: section.cells[index] }))
    .filter(({ backend }) => shown.has(backend));

  const costText = (backend, title) => {
    if (!costs[backend]) return 'not counted';
    const figures = costs[backend].sections[title] ?? [];
    return figures.map(({ what, count }) => `${what}\u00a0${count}`).join(', ') || 'nothing';
  };

  // One row of the list: its summary always, its code when it is open.
  const row = (section) => {
    const { title } = section;
    const cost = element('span', { class: 'costs' });
    const columns = element('div', { class: 'columns' });
    const details = element('details', {}, element('summary', {}, element('span', { class: 'title' }, title), cost), columns);
    const fill = () => {
      if (!details.open) return columns.replaceChildren();
      columns.replaceChildren(...visible(section).map(({ backend, cell }) =>
        cell ? code(cell, title) : element('p', { class: 'absent' }, `${backend} has no such section.`)));
    };
    const price = () => {
      const here = visible(section).filter(({ cell }) => cell).map(({ backend }) => backend);
      const any = here.some((backend) => costs[backend]?.sections[title]);
      cost.replaceChildren(...(any ? here : []).map((backend) =>
        element('span', {}, element('b', {}, costs[backend]?.variant ?? backend), ` ${costText(backend, title)} `)));
    };
    details.addEventListener('toggle', fill);
    details.open = title === kFirstOpen;
    return { details, fill, price };
  };

  const rows = data.sections.map(row);
  const chooser = element('fieldset', { class: 'chooser' }, element('legend', {}, 'Side by side'), ...data.backends.map((name) => {
    const box = element('input', { type: 'checkbox', value: name });
    box.checked = shown.has(name);
    box.addEventListener('change', () => {
      if (box.checked) shown.add(name);
      else shown.delete(name);
      rows.forEach(({ fill, price }) => { fill(); price(); });
    });
    return element('label', {}, box, ` ${name}`);
  }));
  const legend = element('p', { class: 'legend' });
  const price = () => {
    legend.textContent = Object.keys(costs).length === 0 ? 'No backend counted its system calls in this cell.'
      : 'Beside a title: what the section cost, per request. What all sections share stands at run.';
    rows.forEach((one) => one.price());
  };
  host.classList.add('sources');
  host.replaceChildren(chooser, legend, ...rows.map(({ details }) => details));
  price();
  return { update: (next) => { costs = next; price(); } };
}
