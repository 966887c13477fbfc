// Usage: clients_test.mjs BACKEND
//
// Programs of other people against pattern-server over one backend: curl, npm's ws and eventsource,
// wrk. What they take for granted about HTTP, SSE and WebSocket is what is tested here. Needs
// ECHOLAB_BIN_DIR; `npm ci` in this folder (scripts/setup does it) brings the libraries.
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import net from 'node:net';
import { createRequire } from 'node:module';

const kPatience = 30_000; // ms; far above what a sanitizer on a loaded machine needs
const kSkipped = 77; // exit status of a test that cannot run here, as tests/skip.hpp has it

const backend = process.argv[2];
const programs = process.env.ECHOLAB_BIN_DIR;
if (!backend || !programs) {
  console.error('usage: ECHOLAB_BIN_DIR=DIR clients_test.mjs BACKEND');
  process.exit(2);
}
const require = createRequire(import.meta.url);
let WebSocket, EventSource;
try {
  WebSocket = require('ws');
  EventSource = require('eventsource');
} catch {
  console.log('SKIPPED: npm packages ws and eventsource are not installed: run scripts/setup');
  process.exit(kSkipped);
}

// Runs a program to its end. { code, out, err }
const run = (program, ...args) =>
  new Promise((resolve, reject) => {
    const child = execFile(program, args,
      { encoding: 'utf8', timeout: kPatience, maxBuffer: 1 << 28 },
      (error, out, err) => {
        if (error && error.code === 'ENOENT') return reject(new Error(`${program} is not installed: run scripts/setup`));
        resolve({ code: child.exitCode, out, err });
      });
  });
const curl = async (...args) => {
  const { code, out, err } = await run('curl', '-sS', '--max-time', '25', ...args);
  assert.equal(code, 0, `curl ${args.join(' ')}: ${err}`);
  return out;
};

// Resolves with what `attempt` calls back with; rejects when patience ends.
const promised = (what, attempt) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`${what}: nothing came`)), kPatience);
    attempt((value) => { clearTimeout(timer); resolve(value); },
            (error) => { clearTimeout(timer); reject(error); });
  });

// A server of ours on a port of its own choice.
async function serve(program, ...args) {
  const child = spawn(`${programs}/${program}`, ['--listen', '127.0.0.1:0', ...args],
                      { stdio: ['ignore', 'pipe', 'pipe'] });
  let err = '';
  child.stderr.on('data', (d) => (err += d));
  const port = await promised(program, (done, fail) => {
    let out = '';
    child.stdout.on('data', (d) => {
      out += d;
      if (out.includes('\n')) done(Number(out.split('\n')[0]));
    });
    child.once('exit', (code) => fail(Object.assign(new Error(`${program}: ${err}`), { code })));
  });
  const stop = async () => {
    child.kill('SIGTERM');
    if (child.exitCode === null) await once(child, 'exit');
    return { code: child.exitCode, err };
  };
  return { port, stop };
}

let upstream, server, base;

const tests = {
  async 'curl: a plain page, its head, and one connection for three requests'() {
    assert.match(await curl(`${base}/plaintext`), /^Hello, World!\n?$/);
    const head = await curl('-I', `${base}/plaintext`);
    assert.match(head, /^HTTP\/1\.1 200 OK\r\n/);
    assert.match(head, /\r\nDate: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n/i);
    const urls = Array(3).fill(['-o', '/dev/null', `${base}/plaintext`]).flat();
    assert.equal(await curl('-w', '%{num_connects} ', ...urls), '1 0 0 ');
  },

  async 'curl: bodies with a length, in chunks, and after 100 Continue'() {
    const body = 'echolab '.repeat(25_000);
    for (const header of ['Expect:', 'Transfer-Encoding: chunked', 'Expect: 100-continue']) {
      const child = promised('curl', (done, fail) => {
        const c = execFile('curl', ['-sS', '-v', '--max-time', '25', '-H', 'Content-Type: text/plain', '-H', header,
          '--data-binary', '@-', `${base}/echo`], { maxBuffer: 1 << 28 },
          (error, out, err) => (error ? fail(error) : done({ out, err })));
        c.stdin.end(body);
      });
      const { out, err } = await child;
      assert.equal(out, body, header);
      if (header.includes('100')) assert.match(err, /< HTTP\/1\.1 100 Continue/);
    }
  },

  async 'curl: errors have their status'() {
    const status = (...args) => curl('-o', '/dev/null', '-w', '%{http_code}', ...args);
    assert.equal(await status(`${base}/nothing-here`), '404');
    assert.equal(await status('-X', 'DELETE', `${base}/plaintext`), '405');
    assert.equal(await status('-H', 'Transfer-Encoding: xchunked', '-d', 'x', `${base}/echo`), '501');
    assert.equal(await status('-H', `X-Large: ${'x'.repeat(60_000)}`, `${base}/plaintext`), '431');
  },

  async 'pipelined requests are answered in order'() {
    const paths = ['/plaintext', '/nothing-here', '/work?cpu=1us', '/plaintext'];
    const requests = paths.map((p, i) =>
      `GET ${p} HTTP/1.1\r\nHost: x\r\n${i + 1 === paths.length ? 'Connection: close\r\n' : ''}\r\n`);
    const answer = await promised('pipelined answers', (done, fail) => {
      let text = '';
      const socket = net.connect(Number(new URL(base).port), '127.0.0.1', () => socket.write(requests.join('')));
      socket.on('data', (d) => (text += d));
      socket.on('end', () => done(text));
      socket.on('error', fail);
    });
    assert.deepEqual([...answer.matchAll(/HTTP\/1\.1 (\d{3})/g)].map((m) => m[1]), ['200', '404', '200', '200']);
  },

  async 'curl --no-buffer: server-sent events as they happen'() {
    const stream = spawn('curl', ['-sS', '--no-buffer', '--max-time', '25', `${base}/topics/curl/events`]);
    let text = '';
    const first = promised('the head of the stream', (done) => {
      stream.stdout.on('data', (d) => { text += d; done(); });
    });
    await first; // the retry: line: subscribed
    await curl('-X', 'POST', '--data-binary', 'one\ntwo', `${base}/topics/curl`);
    await promised('an event', (done) => {
      const look = () => (/id: ?\S+\n/.test(text) && /data: ?one\ndata: ?two\n/.test(text) ? done() : setTimeout(look, 5));
      look();
    });
    stream.kill();
  },

  async 'curl: a job is polled, waited for, and gone when cancelled'() {
    const head = await curl('-D', '-', '-o', '/dev/null', '-H', 'Content-Type: application/json', '-d', '{"duration_ms": 200}', `${base}/jobs`);
    assert.match(head, /^HTTP\/1\.1 202 /);
    const location = head.match(/\r\nLocation: (\S+)/i)[1];
    const url = new URL(location, base).href;
    assert.equal(JSON.parse(await curl(url)).state, 'running');
    assert.equal(JSON.parse(await curl('-H', 'Prefer: wait=20', url)).state, 'done');
    const etag = (await curl('-D', '-', '-o', '/dev/null', url)).match(/\r\nETag: (\S+)/i)[1];
    assert.equal(await curl('-o', '/dev/null', '-w', '%{http_code}', '-H', `If-None-Match: ${etag}`, url), '304');
  },

  async 'curl: a long poll gets what is published meanwhile'() {
    const waiting = curl(`${base}/topics/poll?cursor=earliest&max_wait=20s`);
    await curl('-X', 'POST', '--data-binary', 'news', `${base}/topics/poll`);
    const answer = JSON.parse(await waiting);
    assert.equal(answer.messages[0].data, 'news');
    assert.equal(await curl('-o', '/dev/null', '-w', '%{http_code}', `${base}/topics/poll?cursor=${answer.cursor}&max_wait=50ms`), '204');
  },

  async 'curl: the gateway asks its upstream'() {
    const before = Date.now();
    const answers = await Promise.all([1, 2, 3, 4].map(() => curl(`${base}/gateway`)));
    assert.ok(Date.now() - before >= 20, 'the upstream answers after 20 ms');
    for (const a of answers) assert.ok(JSON.parse(a).upstream_us >= 20_000);
  },

  async 'curl: a session counts'() {
    let session = JSON.parse(await curl('-X', 'POST', `${base}/session`));
    for (let n = 1; n <= 3; ++n) {
      session = JSON.parse(await curl('-X', 'POST', `${base}/session/${session.id}/increment`));
      assert.equal(session.count, n);
    }
  },

  async 'ws: messages come back whole, compressed or not'() {
    for (const perMessageDeflate of [false, true]) {
      const socket = new WebSocket(`${base.replace('http', 'ws')}/ws/echo`, { perMessageDeflate });
      await once(socket, 'open');
      assert.equal(socket.extensions.includes('permessage-deflate'), perMessageDeflate);
      for (const message of ['', 'hello', 'grüße ✓', 'x'.repeat(300_000), Buffer.from([0, 255, 1]), Buffer.alloc(70_000, 7)]) {
        socket.send(message);
        const [data, binary] = await once(socket, 'message');
        assert.equal(binary, Buffer.isBuffer(message));
        assert.ok(data.equals(Buffer.from(message)));
      }
      socket.send('in ', { fin: false });
      socket.send('two parts', { fin: true });
      assert.equal((await once(socket, 'message'))[0].toString(), 'in two parts');
      socket.ping('are you there');
      assert.equal((await once(socket, 'pong'))[0].toString(), 'are you there');
      socket.close(4001, 'enough');
      assert.equal((await once(socket, 'close'))[0], 4001);
    }
  },

  async 'ws: subscribers get what others publish, and what they missed'() {
    const connect = async () => {
      const socket = new WebSocket(`${base.replace('http', 'ws')}/ws`);
      const got = [];
      const waiting = [];
      socket.on('message', (d) => {
        got.push(JSON.parse(d));
        for (const look of waiting) look();
      });
      await once(socket, 'open');
      const next = (op) => promised(op, (done) => {
        const look = () => {
          const i = got.findIndex((m) => m.op === op);
          if (i < 0) return;
          waiting.splice(waiting.indexOf(look), 1);
          done(got.splice(i, 1)[0]);
        };
        waiting.push(look);
        look();
      });
      return { socket, next, tell: (m) => socket.send(JSON.stringify(m)) };
    };
    const reader = await connect();
    const writer = await connect();
    reader.tell({ op: 'subscribe', topic: 'ws' });
    await reader.next('subscribed');
    writer.tell({ op: 'publish', topic: 'ws', data: 'first', ref: 7 });
    assert.equal((await writer.next('published')).ref, 7);
    const first = await reader.next('message');
    assert.equal(first.data, 'first');
    reader.socket.terminate();
    writer.tell({ op: 'publish', topic: 'ws', data: 'second' });
    await writer.next('published');
    const again = await connect();
    again.tell({ op: 'subscribe', topic: 'ws', cursor: first.id });
    assert.equal((await again.next('message')).data, 'second');
    again.socket.close();
    writer.socket.close();
  },

  async 'ws: a foreign origin is refused'() {
    const socket = new WebSocket(`${base.replace('http', 'ws')}/ws`, { origin: 'http://elsewhere.example' });
    const [error] = await once(socket, 'error');
    assert.match(error.message, /403/);
  },

  async 'eventsource: events, and a resume that loses nothing'() {
    const url = `${base}/topics/es/events`;
    const open = (headers) => {
      const source = new EventSource(url, { headers });
      const got = [];
      source.onmessage = (e) => got.push(e);
      const many = (n) => promised(`${n} events`, (done) => {
        const look = () => (got.length >= n ? done(got) : setTimeout(look, 5));
        look();
      });
      return { source, many };
    };
    const publish = (text) => curl('-X', 'POST', '--data-binary', text, `${base}/topics/es`);
    const first = open({});
    await once(first.source, 'open');
    await publish('1');
    await publish('2');
    const got = await first.many(2);
    assert.deepEqual(got.map((e) => e.data), ['1', '2']);
    first.source.close();
    await publish('3');
    await publish('4');
    const second = open({ 'Last-Event-ID': got[1].lastEventId });
    assert.deepEqual((await second.many(2)).map((e) => e.data), ['3', '4']);
    second.source.close();
  },

  async 'wrk: a short load without an error'() {
    const { code, out, err } = await run('wrk', '-t1', '-c16', '-d1s', `${base}/plaintext`);
    assert.equal(code, 0, err);
    assert.doesNotMatch(out, /Non-2xx|Socket errors/, out);
    assert.ok(Number(out.match(/(\d+) requests in/)[1]) > 0, out);
  },
};

let failed = 0;
try {
  upstream = await serve('echo-server', '--delay', '20ms');
  server = await serve('pattern-server', '--backend', backend, '--upstream', `127.0.0.1:${upstream.port}`);
  base = `http://127.0.0.1:${server.port}`;
} catch (error) {
  if (error.code === 3) {
    console.log(`SKIPPED: ${error.message.trim()}`);
    process.exit(kSkipped);
  }
  throw error;
}
for (const [name, test] of Object.entries(tests)) {
  try {
    await test();
    console.log(`ok    ${name}`);
  } catch (error) {
    ++failed;
    console.log(`FAIL  ${name}: ${error.stack}`);
  }
}
const { code, err } = await server.stop();
if (code !== 0) {
  ++failed;
  console.log(`FAIL  pattern-server ended with ${code}: ${err}`);
}
await upstream.stop();
console.log(`${backend}: ${Object.keys(tests).length - failed} of ${Object.keys(tests).length} passed`);
process.exit(failed === 0 ? 0 : 1);
