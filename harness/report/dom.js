// Small things that every part of the page uses. Texts of the record reach the page as text nodes
// and attribute values only, never as markup.
'use strict';

// element('td', { class: 'x', onclick }, 'text', node, null): null children are left out.
function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}
function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);
}
function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === 'function') node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}
const spoken = (text) => element('span', { class: 'spoken' }, text);

// Three digits that matter, as the harness prints them; '-' if absent, which is not zero.
function figure(value) {
  if (value === null || value === undefined) return '-';
  const size = Math.abs(value);
  if (size === 0) return '0';
  if (size < 0.00005) return '<0.0001';
  // By what it is rounded to: 0.9999 is 1.00.
  const digits = size < 0.00995 ? 4 : size < 0.9995 ? 3 : size < 9.995 ? 2 : size < 99.95 ? 1 : 0;
  return size < 10000 ? value.toFixed(digits) : compact(value);
}
// 950, 12.3k, 1.23M
function compact(value) {
  for (const [unit, letter] of [[1e9, 'G'], [1e6, 'M'], [1e3, 'k']]) {
    if (Math.abs(value) < unit) continue;
    const scaled = value / unit;
    return scaled.toFixed(Math.abs(scaled) < 10 ? 2 : Math.abs(scaled) < 100 ? 1 : 0) + letter;
  }
  return String(Math.round(value * 1000) / 1000);
}
// Microseconds as people say them.
function duration(us) {
  if (us >= 1e6) return `${figure(us / 1e6)} s`;
  return us >= 1e3 ? `${figure(us / 1e3)} ms` : `${figure(us)} \u00b5s`;
}
const ratio = (value) => (value === undefined ? '-' : `${value.toFixed(value < 10 ? 2 : 1)}\u00d7`);
const percent = (share) => `${(share * 100).toFixed(1)} %`;

// rows: lists of texts or nodes; the first of each row is its heading. Wide ones scroll on their own,
// by keyboard too.
function table(caption, headings, rows) {
  return scrolling(caption, element('table', {},
    captionOf(caption),
    element('thead', {}, element('tr', {}, headings.map((text) => element('th', { scope: 'col' }, text)))),
    element('tbody', {}, rows.map(([first, ...rest]) => element('tr', {},
      element('th', { scope: 'row' }, first), rest.map((cell) => element('td', {}, cell)))))));
}
// Stays in sight while its table scrolls.
const captionOf = (...texts) => element('caption', {}, element('span', {}, texts));
function scrolling(label, ...children) {
  return element('div', { class: 'scrolling', role: 'region', 'aria-label': label, tabindex: 0 }, ...children);
}
function section(id, title, ...children) {
  return element('section', { id, 'aria-labelledby': `${id}-title` },
    element('h2', { id: `${id}-title` }, title), ...children);
}
const note = (...children) => element('p', { class: 'note' }, ...children);

// One of several: a fieldset of radio buttons, so that arrow keys and screen readers know what it is.
// options: [{ value, text }]
function choice(name, title, options, chosen, changed) {
  return element('fieldset', { class: 'choice', id: `choice-${name}`, disabled: options.length === 0 },
    element('legend', {}, title),
    options.map(({ value, text }) => element('label', {},
      element('input', { type: 'radio', name, value, checked: value === chosen, onchange: () => changed(value) }),
      element('span', {}, text))));
}

// A variant's colour and dashes: one hue for each model, dashes for its variants, and grey for the
// baseline's second copy.
const kModels = ['threads', 'epoll', 'io_uring', 'libuv'];
const kOtherHues = ['--other-1', '--other-2', '--other-3'];
const kDashes = [[], [6, 3], [2, 3], [9, 3, 2, 3]];
function looks(variants) {
  const used = new Map();
  const others = [];
  return new Map(variants.map(({ name, copy, command }) => {
    const model = command ? name : name.replace(/^raw-/, '').split(':')[0];
    if (copy) return [name, { hue: '--muted', dash: [1, 3] }];
    const known = kModels.includes(model);
    if (!known && !others.includes(model)) others.push(model);
    const hue = known ? `--${model}` : kOtherHues[others.indexOf(model) % kOtherHues.length];
    const before = used.get(hue) ?? 0;
    used.set(hue, before + 1);
    return [name, { hue, dash: kDashes[before % kDashes.length] }];
  }));
}
const colour = (variable) => getComputedStyle(document.documentElement).getPropertyValue(variable).trim();
