// memjs, which speaks the binary protocol, goes once through what it offers. Argument: host:port. Prints "ok".
const assert = require("node:assert");
const memjs = require("memjs");

async function main() {
  const client = memjs.Client.create(process.argv[2]);
  assert(await client.set("k", "v", {}));
  assert.equal((await client.get("k")).value.toString(), "v");
  assert.equal((await client.get("missing")).value, null);
  assert.equal(await client.add("k", "x", {}), false);
  assert(await client.replace("k", "w", {}));
  assert(await client.append("k", "2"));
  assert(await client.prepend("k", "0")); // which memjs 1.3 sends as an append
  assert.equal((await client.get("k")).value.toString(), "w20");
  assert.equal((await client.increment("n", 5, { initial: 10 })).value, 10);
  assert.equal((await client.increment("n", 5, {})).value, 15);
  assert.equal((await client.decrement("n", 20, {})).value, 0);
  assert(await client.delete("n")); // the next run creates it again
  await Promise.all([...Array(300).keys()].map((i) => client.set(`many${i}`, `value ${i}`, {})));
  const many = await Promise.all([...Array(300).keys()].map((i) => client.get(`many${i}`)));
  many.forEach((found, i) => assert.equal(found.value.toString(), `value ${i}`));
  const big = Buffer.alloc(1000000, "0123456789");
  assert(await client.set("big", big, {}));
  assert((await client.get("big")).value.equals(big));
  assert(await client.touch("k", 100));
  assert(await client.delete("k"));
  assert.equal(await client.delete("k"), false);
  client.close();
  console.log("ok");
}

main();
