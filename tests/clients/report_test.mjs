// Usage: report_test.mjs [FOLDER]
//
// The page of `harness report` in a headless Chromium: charts are drawn, every toggle works, by keyboard
// too, nothing is asked of the network, nothing is out of sight on a phone. With FOLDER, screenshots
// are left there for people to look at. Needs ECHOLAB_BIN_DIR; `npm ci` in this folder (scripts/setup
// --tests does it) brings playwright-core.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import * as runs from './report_runs.mjs';

const kPatience = 30_000; // ms; far above what a loaded machine needs
const kSkipped = 77; // exit status of a test that cannot run here, as tests/skip.hpp has it
const kMostBytes = 400_000; // of a page
const kDesktop = { width: 1240, height: 900 };
const kLaptop = { width: 1100, height: 800 };
const kPhone = { width: 360, height: 740 };
const kReadable = 4.5; // contrast of text (WCAG 2.2, 1.4.3)

const skip = (why) => {
  console.log(`SKIPPED: ${why}`);
  process.exit(kSkipped);
};
const programs = process.env.ECHOLAB_BIN_DIR;
if (!programs) {
  console.error('usage: ECHOLAB_BIN_DIR=DIR report_test.mjs [FOLDER]');
  process.exit(2);
}
let chromium;
try {
  ({ chromium } = createRequire(import.meta.url)('playwright-core'));
} catch {
  skip('the npm package playwright-core is not installed: run scripts/setup --tests');
}
const executablePath = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/lib/chromium/chromium'].find(existsSync);
if (!executablePath) skip('chromium is not installed: run scripts/setup --tests');

const pictures = process.argv[2];
const folder = mkdtempSync(join(tmpdir(), 'echolab-report-'));
// A container has no namespaces for Chromium's own sandbox; the pages are ours.
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox'], timeout: kPatience });

// A run's page in the browser, and what went wrong there.
async function open(name, { width, height } = kDesktop, colorScheme = 'light') {
  const record = join(folder, `${name}.json`), page = join(folder, `${name}.html`);
  if (!existsSync(page)) {
    writeFileSync(record, JSON.stringify(runs[name]()));
    execFileSync(`${programs}/harness`, ['report', record, '-o', page], { timeout: kPatience });
  }
  assert.ok(statSync(page).size < kMostBytes, `${name}: ${statSync(page).size} bytes`);
  const context = await browser.newContext({ viewport: { width, height }, colorScheme, reducedMotion: 'reduce' });
  const tab = await context.newPage();
  tab.setDefaultTimeout(kPatience);
  tab.trouble = [];
  tab.on('console', (message) => tab.trouble.push(`console: ${message.text()}`));
  tab.on('pageerror', (error) => tab.trouble.push(`error: ${error.stack}`));
  tab.on('dialog', (dialog) => tab.trouble.push(`dialog: ${dialog.message()}`));
  tab.on('request', (request) => {
    if (!/^(file|data|blob):/.test(request.url())) tab.trouble.push(`request: ${request.url()}`);
  });
  await tab.goto(pathToFileURL(page).href);
  await tab.waitForSelector('main[aria-busy="false"]', { state: 'attached' });
  return tab;
}
async function close(tab, name) {
  if (pictures) await tab.screenshot({ path: join(pictures, `${name}.png`), fullPage: true });
  assert.deepEqual(tab.trouble, []);
  await tab.context().close();
}

// Of every canvas, how many pixels are not transparent.
const inked = (tab) => tab.$$eval('.uplot canvas', (all) => all.map(({ width, height }, which) => {
  const copy = new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true });
  copy.drawImage(all[which], 0, 0);
  return copy.getImageData(0, 0, width, height).data.filter((value, i) => i % 4 === 3 && value > 0).length;
}));
async function drawn(tab, charts) {
  // uPlot draws in a microtask after it was made.
  await tab.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
  const pixels = await inked(tab);
  assert.equal(pixels.length, charts);
  for (const count of pixels) assert.ok(count > 2000, `a chart with ${count} pixels`);
}
const text = (tab, selector) => tab.locator(selector).first().innerText();
const says = async (tab, selector, part) => assert.match(await text(tab, selector), part);
const pick = (tab, group, label) => tab.locator(`#choice-${group} label`, { hasText: label }).click();
const chosen = (tab, group) => tab.locator(`#choice-${group} input:checked + span`).innerText();

async function fits(tab) {
  assert.equal(await tab.evaluate(() => document.documentElement.scrollWidth - innerWidth), 0, 'wider than the window');
}

// What the page must show of a cell, from the record: it is compared with what stands there.
const record = runs.whole();
function rowOf(name, shape) {
  const cell = record.cells.find((one) => Object.entries(shape).every(([key, value]) => one[key] === value));
  return cell.results.find(({ variant }) => variant === name).summary;
}
async function showsFigures(tab, shape) {
  const summary = rowOf('epoll', shape);
  const shown = async (selector) => Number((await tab.locator(selector).first().textContent()).match(/[\d.]+/)[0]);
  const near = (value, expected) => assert.ok(Math.abs(value / expected - 1) < 0.01, `${value}, not ${expected}`);
  near(await shown('#cpu tbody td:nth-child(3)'), summary.server_cpu_us_per_request);
  near(await shown('#latency details tbody td'), summary.p50_us);
  near(await shown('.overview tr.selected td'), summary.server_cpu_us_per_request);
  near(await shown('.cell tbody td.number'), summary.server_cpu_us_per_request);
}

// Texts whose contrast with what is behind them is too low, each with that contrast.
const faint = (tab) => tab.evaluate((least) => {
  const parsed = (colour) => colour.match(/[\d.]+/g).map(Number);
  const over = ([r, g, b, alpha = 1], below) => [r, g, b].map((value, i) => value * alpha + below[i] * (1 - alpha));
  const behind = (node) => (node ? over(parsed(getComputedStyle(node).backgroundColor), behind(node.parentElement)) : [255, 255, 255]);
  const opacity = (node) => (node ? Number(getComputedStyle(node).opacity) * opacity(node.parentElement) : 1);
  const luminance = (colour) => colour.map((value) => value / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, value, i) => sum + value * [0.2126, 0.7152, 0.0722][i], 0);
  const found = new Map();
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = texts.nextNode(); node; node = texts.nextNode()) {
    const parent = node.parentElement;
    if (!node.data.trim() || !parent.checkVisibility() || parent.closest('.spoken')) continue;
    const below = behind(parent), [r, g, b] = parsed(getComputedStyle(parent).color);
    const [low, high] = [below, over([r, g, b, opacity(parent)], below)].map(luminance).sort((x, y) => x - y);
    const contrast = (high + 0.05) / (low + 0.05);
    if (contrast < least) found.set(`${parent.tagName}.${parent.className}`, `${node.data}: ${contrast.toFixed(2)}`);
  }
  return [...found];
}, kReadable);

// The colour of one pixel of the window.
async function pixel(tab, x, y) {
  const png = await tab.screenshot({ clip: { x, y, width: 1, height: 1 } });
  return tab.evaluate(async (bytes) => {
    const bitmap = await createImageBitmap(new Blob([Uint8Array.from(bytes)]));
    const copy = new OffscreenCanvas(1, 1).getContext('2d');
    copy.drawImage(bitmap, 0, 0);
    return [...copy.getImageData(0, 0, 1, 1).data].slice(0, 3);
  }, [...png]);
}

const tests = {
  async 'everything is drawn, and every toggle works'() {
    const tab = await open('whole');
    await says(tab, 'h1', /^echolab run of 25 November 2026/);
    assert.equal(await tab.locator('.overview tbody tr').count(), 18);
    await says(tab, '.overview thead', /cell\s+epoll\s+threads.*A\/A/s);
    await says(tab, '#verdicts h3', /^1 connection, 64 B, depth 1, closed loop$/);
    await drawn(tab, 2);

    await pick(tab, 'connections', '64');
    await says(tab, '#verdicts h3', /^64 connections, 64 B, depth 1/);
    await drawn(tab, 3); // and the one over rates
    await says(tab, '#rates', /the highest rate with p99 < 1 ms.*epoll/s);
    await pick(tab, 'size', '4 KiB');
    await says(tab, '#verdicts h3', /^64 connections, 4 KiB, depth 1/);
    await showsFigures(tab, { connections: 64, size_bytes: 4096, depth: 1, rate_per_s: 0 });
    await pick(tab, 'depth', '16');
    await says(tab, '#verdicts h3', /^64 connections, 4 KiB, depth 16/);
    await showsFigures(tab, { connections: 64, size_bytes: 4096, depth: 16, rate_per_s: 0 });
    await says(tab, '.overview tr.selected', /^64 conn, 4 KiB, depth 16/);
    await pick(tab, 'metric', 'p99');
    await says(tab, '.overview caption', /^p99: ratio to epoll/);
    await says(tab, '.overview tr.selected td:nth-child(4)', new RegExp(`^${rowOf('io_uring', { connections: 64, size_bytes: 4096, depth: 16 }).ratio_p99.toFixed(2)}`));
    await says(tab, '#slices h2', /p99$/);
    await says(tab, '#status', /^p99 at 64 connections, 4 KiB, depth 16/);

    await pick(tab, 'size', '64 B');
    await pick(tab, 'rate', '40.0k');
    await says(tab, '#verdicts h3', /^64 connections, 64 B, open loop at 40000 requests/);
    assert.equal(await tab.locator('#choice-depth').count(), 0);
    await pick(tab, 'metric', 'CPU');
    await showsFigures(tab, { connections: 64, size_bytes: 64, rate_per_s: 40000 });
    await says(tab, '#latency', /counted from the actual send/);
    await drawn(tab, 3);
    await pick(tab, 'connections', '1000'); // the rate stays
    await says(tab, '#verdicts h3', /^1000 connections, 64 B, open loop at 40000 requests/);

    await tab.locator('.overview tbody button').nth(1).click();
    await says(tab, '#verdicts h3', /^1 connection, 64 B, depth 16/);
    assert.equal(await chosen(tab, 'connections'), '1');
    assert.equal(await tab.locator('.overview button[aria-pressed="true"]').count(), 1);

    const before = await inked(tab);
    for (const name of ['threads', 'libuv']) await tab.locator(`#variants input[value="${name}"]`).uncheck();
    await drawn(tab, 2);
    assert.notDeepEqual(await inked(tab), before);
    assert.equal(await tab.locator('#cpu tbody tr').count(), 5);

    await tab.locator('.sources summary', { hasText: 'send' }).click();
    await says(tab, '.sources', /io_uring\.cpp/);
    await close(tab, 'desktop');
  },

  async 'what is looked at stays where it is, and the choices at hand'() {
    const tab = await open('whole');
    const top = (selector) => tab.evaluate((one) => Math.round(document.querySelector(one).getBoundingClientRect().top), selector);
    assert.equal(await tab.evaluate(() => scrollY), 0);
    await tab.evaluate(() => document.querySelector('#slices').scrollIntoView());
    const before = await top('#slices');
    for (const [group, label] of [['metric', 'p99'], ['connections', '64'], ['depth', '16'], ['connections', '1000']]) {
      // Not locator.click(), which scrolls.
      const { x, y } = await tab.locator(`#choice-${group} label`, { hasText: label }).boundingBox();
      await tab.mouse.click(x + 5, y + 5);
      await says(tab, '#status', group === 'metric' ? /^p99/ : new RegExp(label));
      assert.ok(Math.abs(await top('#slices') - before) <= 2, `${group}: ${await top('#slices')}, not ${before}`);
    }
    assert.ok(before > (await tab.locator('.choices').boundingBox()).height, 'hidden behind the choices');
    await close(tab, 'scrolled');
  },

  async 'wide tables show that there is more, and keep their headings'() {
    let tab = await open('whole', kLaptop);
    for (const table of ['.overview', '.cell', '#why table', '#gates table']) {
      assert.equal(await tab.locator(table).evaluate(({ parentElement: box }) => box.scrollWidth - box.clientWidth), 0, table);
    }
    await close(tab, 'laptop');
    for (const scheme of ['light', 'dark']) {
      tab = await open('whole', kPhone, scheme);
      for (const table of ['.overview', '.cell', '#cpu table']) {
        const region = tab.locator(table).locator('..');
        await region.focus();
        await tab.evaluate((one) => document.querySelector(one).scrollIntoView(), table);
        const { x, y, width } = await region.boundingBox();
        const edge = () => pixel(tab, x + width - 1, y + 2); // above all text
        const heading = region.locator('tbody th').first();
        const [paper, shaded, at] = [await pixel(tab, 2, y), await edge(), await heading.boundingBox()];
        assert.notDeepEqual(shaded, paper, `${scheme} ${table}: no shadow`);
        await tab.keyboard.press('ArrowRight');
        await tab.waitForFunction((one) => document.querySelector(one).parentElement.scrollLeft > 20, table);
        assert.equal((await heading.boundingBox()).x, at.x);
        assert.match(await heading.evaluate((one) => getComputedStyle(one).backgroundColor), /^rgb\(/); // opaque
        await region.evaluate((one) => { one.scrollLeft = one.scrollWidth; });
        assert.deepEqual(await edge(), paper, `${scheme} ${table}: a shadow at the end`);
      }
      await close(tab, `wide-${scheme}`);
    }
  },

  async 'all text can be read'() {
    for (const scheme of ['light', 'dark']) {
      const tab = await open('whole', kDesktop, scheme);
      await pick(tab, 'connections', '64');
      for (const metric of ['CPU', 'requests', 'p99']) {
        await pick(tab, 'metric', metric);
        await tab.$$eval('details', (all) => all.forEach((one) => { one.open = true; }));
        await tab.waitForSelector('.sources .line');
        assert.deepEqual(await faint(tab), [], `${scheme}, ${metric}`);
      }
      await close(tab, `text-${scheme}`);
    }
  },

  async 'the keyboard is enough'() {
    const tab = await open('whole');
    const focused = (expression) => tab.evaluate(`(() => { const e = document.activeElement; return ${expression}; })()`);
    await tab.keyboard.press('Tab');
    assert.equal(await focused('e.name'), 'metric');
    assert.notEqual(await focused('getComputedStyle(e.nextSibling).outlineStyle'), 'none');
    await tab.keyboard.press('ArrowRight');
    await says(tab, '.overview caption', /^requests\/s/);
    assert.equal(await focused('e.value'), 'throughput'); // it is still there, in the new group
    await tab.keyboard.press('Tab');
    await tab.keyboard.press('ArrowDown');
    await says(tab, '#verdicts h3', /^64 connections/);
    assert.equal(await focused('e.name + e.value'), 'connections64');
    for (let i = 0; i < 20 && !(await focused("e.closest('.overview') && e.tagName === 'BUTTON'")); ++i) await tab.keyboard.press('Tab');
    await tab.keyboard.press('Tab');
    await tab.keyboard.press('Enter');
    await says(tab, '#verdicts h3', /^1 connection, 64 B, depth 16/);
    assert.equal(await focused('e.textContent'), '1 conn, 64 B, depth 16');

    const reach = async (expression) => {
      for (let i = 0; i < 40 && !(await focused(expression)); ++i) await tab.keyboard.press('Tab');
      assert.ok(await focused(expression), `not reached: ${expression}`);
    };
    await reach("e.closest('#variants') && e.value === 'threads'");
    await tab.keyboard.press('Space');
    assert.equal(await tab.locator('#cpu tbody th', { hasText: /^threads$/ }).count(), 0);
    assert.equal(await focused('e.value'), 'threads');
    await reach("e.tagName === 'SUMMARY' && e.closest('#latency')");
    await tab.keyboard.press('Enter');
    await says(tab, '#latency details table', /p99\.9/);
    await reach("e.closest('.sources') && e.value === 'threads'");
    await tab.keyboard.press('Space');
    await says(tab, '.sources', /threads\.cpp/);
    await close(tab, 'keyboard');
  },

  async 'names and roles are there for who cannot see it'() {
    const tab = await open('whole');
    for (const group of ['Metric', 'Connections', 'Size', 'Rate', 'Depth', 'Variants in the charts', 'Side by side']) {
      assert.equal(await tab.getByRole('group', { name: group, exact: true }).count(), 1, group);
    }
    assert.equal(await tab.getByRole('img', { name: /Latency percentiles at 1 connection/ }).count(), 1);
    // A table for each chart, every table with a name and headings.
    assert.equal(await tab.locator('details summary', { hasText: 'The same as a table' }).count(), 2);
    assert.deepEqual(await tab.$$eval('table', (all) => all.filter((table) => !table.caption || !table.querySelector('th[scope=col]')).map((table) => table.className)), []);
    await says(tab, '.overview tbody tr:nth-child(3) td:nth-child(3)', /slower/); // in words, too
    assert.deepEqual(await tab.$$eval('.scrolling', (all) => all.filter((one) => one.role !== 'region' || !one.ariaLabel || one.tabIndex !== 0).length), 0);
    const levels = await tab.$$eval('h1, h2, h3, h4', (all) => all.map(({ tagName }) => Number(tagName[1])));
    levels.forEach((level, i) => assert.ok(i === 0 ? level === 1 : level <= levels[i - 1] + 1, `h${level} after h${levels[i - 1]}`));
    assert.deepEqual(await tab.$$eval('th', (all) => all.filter((th) => !th.scope || !th.textContent.trim()).length), 0);
    assert.equal(await tab.locator('[role=status][aria-live=polite]').count(), 1);
    assert.deepEqual(await tab.$$eval('input, button', (all) => all.filter((e) => !e.labels?.length && !e.innerText).length), 0);
    await close(tab, 'names');
  },

  async 'a phone in the dark shows all of it'() {
    const tab = await open('whole', kPhone, 'dark');
    await fits(tab);
    await drawn(tab, 2);
    await pick(tab, 'connections', '64');
    await drawn(tab, 3);
    await fits(tab);
    const [background, foreground] = await tab.evaluate(() => {
      const { backgroundColor, color } = getComputedStyle(document.body);
      return [backgroundColor, color].map((rgb) => rgb.match(/\d+/g).slice(0, 3).reduce((sum, value) => sum + Number(value), 0));
    });
    assert.ok(background < 150 && foreground > 600, 'not dark');
    await close(tab, 'phone');
  },

  async 'runs that lack something say so'() {
    const said = {
      version1: /No verdicts: this run has no blocks/,
      quick: /Quick run: numbers, never a verdict/,
      partial: /Partial run: it was interrupted.*threads failed at 1 connection, 64 B, depth 16, closed loop: the server died/s,
      empty: /Empty run: nothing was measured/,
    };
    for (const [name, part] of Object.entries(said)) {
      const tab = await open(name);
      await says(tab, '.warnings', part);
      if (name === 'empty') await says(tab, 'main', /no cell was measured.*Environment/s);
      else await drawn(tab, 2);
      if (name === 'partial') {
        await tab.locator('.overview tbody button').nth(1).click();
        await says(tab, '.cell', /failed: the server died/);
      }
      // No verdict is made up.
      if (name === 'version1' || name === 'quick') assert.equal(await tab.locator('.overview .slower, .overview .faster').count(), 0);
      await close(tab, name);
    }
  },

  async 'a curve does not go on over a rate at which it has no value'() {
    // Pixels of a curve between the points at 20k and 60k requests/s, of which only one is missing.
    const between = async (name) => {
      const tab = await open(name);
      await pick(tab, 'connections', '64');
      await drawn(tab, 3);
      const found = await tab.locator('#rates .u-wrap').evaluate((chart) => {
        const canvas = chart.querySelector('canvas'), all = canvas.getBoundingClientRect(), plot = chart.querySelector('.u-over').getBoundingClientRect();
        const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d');
        copy.drawImage(canvas, 0, 0);
        const x = plot.left - all.left + (30 / (60 * 1.04)) * plot.width;
        const { data } = copy.getImageData(x - 2, plot.top - all.top, 4, plot.height);
        return data.filter((value, i) => i % 4 === 0 && Math.max(value, data[i + 1], data[i + 2]) - Math.min(value, data[i + 1], data[i + 2]) > 60).length;
      });
      const cells = await tab.locator('#rates details tbody tr').first().locator('td').allTextContents();
      assert.deepEqual(cells.map((one) => one === '-'), [false, name === 'gap', false]);
      await close(tab, name);
      return found;
    };
    assert.ok(await between('rates') > 10);
    assert.equal(await between('gap'), 0);
  },

  async 'a run of very many slices is drawn'() {
    const tab = await open('huge');
    await drawn(tab, 2);
    await close(tab, 'huge');
  },

  async 'names are text, and gaps are gaps'() {
    const tab = await open('nasty', kPhone);
    await fits(tab);
    assert.equal(await tab.locator('img').count(), 0);
    assert.ok((await text(tab, '.overview thead')).includes(runs.kNasty));
    await says(tab, '.overview tbody tr td:nth-child(3)', /^-/);
    await drawn(tab, 2);
    await close(tab, 'nasty');
  },
};

let failed = 0;
try {
  for (const [name, test] of Object.entries(tests)) {
    const began = performance.now();
    try {
      await test();
      console.log(`ok: ${name} (${((performance.now() - began) / 1000).toFixed(1)} s)`);
    } catch (error) {
      ++failed;
      console.log(`FAILED: ${name}\n${error.stack}`);
    }
  }
} finally {
  await browser.close();
  rmSync(folder, { recursive: true });
}
process.exit(failed === 0 ? 0 : 1);
