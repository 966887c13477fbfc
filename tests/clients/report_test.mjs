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
const kPhone = { width: 360, height: 740 };

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
    await pick(tab, 'depth', '16');
    await says(tab, '#verdicts h3', /^64 connections, 4 KiB, depth 16/);
    await says(tab, '.overview tr.selected', /^64 conn, 4 KiB, depth 16/);
    await pick(tab, 'metric', 'p99');
    await says(tab, '.overview caption', /^p99: ratio to epoll/);
    await says(tab, '#slices h2', /p99$/);
    await says(tab, '#status', /^p99 at 64 connections, 4 KiB, depth 16/);

    await pick(tab, 'size', '64 B');
    await pick(tab, 'rate', '40.0k');
    await says(tab, '#verdicts h3', /^64 connections, 64 B, open loop at 40000 requests/);
    assert.equal(await tab.locator('#choice-depth').count(), 0);
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
