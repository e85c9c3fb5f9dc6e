// A program that goes once through what the npm package memcached offers.
'use strict';

const assert = require('assert');
const { promisify } = require('util');
const Memcached = require('memcached');

const client = new Memcached(process.argv[2], { retries: 0, timeout: 20000 });
const call = (name, ...given) => promisify(client[name].bind(client))(...given);

async function main() {
  await call('flush');
  assert.strictEqual(await call('set', 'k', 'v', 100), true);
  assert.strictEqual(await call('get', 'k'), 'v');
  assert.strictEqual(await call('get', 'missing'), undefined);
  assert.deepStrictEqual(await call('set', 'object', { a: [1, 2] }, 0), true);
  assert.deepStrictEqual(await call('get', 'object'), { a: [1, 2] });
  await assert.rejects(call('add', 'k', 'x', 0));
  assert.strictEqual(await call('replace', 'k', 'mid', 0), true);
  assert.strictEqual(await call('append', 'k', ' end'), true);
  assert.strictEqual(await call('prepend', 'k', 'start '), true);
  const { k, cas } = await call('gets', 'k');
  assert.strictEqual(k, 'start mid end');
  assert.strictEqual(await call('cas', 'k', 'new', cas, 0), true);
  assert.strictEqual(await call('cas', 'k', 'newer', cas, 0), false);
  assert.strictEqual(await call('set', 'n', 10, 0), true);
  assert.strictEqual(await call('incr', 'n', 5), 15);
  assert.strictEqual(await call('decr', 'n', 1), 14);
  assert.strictEqual(await call('touch', 'n', 100), true);
  assert.strictEqual(await call('del', 'n'), true);
  assert.strictEqual(await call('del', 'n'), false);
  const keys = Array.from({ length: 100 }, (_, i) => `many${i}`);
  await Promise.all(keys.map((key, i) => call('set', key, 'x'.repeat(i * 100), 0)));
  const values = await call('getMulti', keys);
  keys.forEach((key, i) => assert.strictEqual(values[key], 'x'.repeat(i * 100)));
  const big = Buffer.alloc(900000, 7);
  assert.strictEqual(await call('set', 'big', big, 0), true);
  assert.ok(big.equals(await call('get', 'big')));
  const [stats] = await call('stats');
  assert.strictEqual(stats.version, '1.6.45');
  const [settings] = await call('settings');
  assert.ok('maxconns' in settings);
  await call('slabs');
  await call('items');
}

main().then(
  () => {
    client.end();
    console.log('ok');
  },
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
