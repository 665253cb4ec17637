// node-postgres (pg, pg-cursor) against the transaction-mode port, as it is used: no option for a pooler's sake.
import assert from "node:assert/strict";
import test from "node:test";

import pg from "pg";
import Cursor from "pg-cursor";

const { url } = JSON.parse(process.env.DUALPOOL_TOOL);

async function connect(t, options = {}) {
  const client = new pg.Client({ connectionString: url, ...options });
  await client.connect();
  t.after(() => client.end());
  return client;
}

async function value(client, text, values) {
  const { rows } = await client.query({ text, values, rowMode: "array" });
  return rows[0][0];
}

// Others at work, so that the server connections change hands.
async function shuffle(clients) {
  await Promise.all(clients.map((client) => client.query("BEGIN")));
  await Promise.all(clients.map((client) => client.query("COMMIT")));
}

test("queries with types, errors and transactions", async (t) => {
  const client = await connect(t);
  await client.query("CREATE TABLE node_items (id serial PRIMARY KEY, name text, data jsonb, raw bytea, at timestamptz, tags text[])");
  const at = new Date("2026-01-02T03:04:05.678Z");
  for (let number = 0; number < 20; number++) {
    const values = [`name ${number} ☃`, { number }, Buffer.from([0, number, 255]), at, ["a", `b"${number}`]];
    await client.query("INSERT INTO node_items (name, data, raw, at, tags) VALUES ($1, $2, $3, $4, $5)", values);
  }
  const { rows } = await client.query("SELECT * FROM node_items WHERE id = $1", [8]);
  assert.deepEqual(rows, [{ id: 8, name: "name 7 ☃", data: { number: 7 }, raw: Buffer.from([0, 7, 255]), at, tags: ["a", 'b"7'] }]);
  await client.query("BEGIN");
  await client.query("DELETE FROM node_items");
  await assert.rejects(client.query("SELECT 1 / $1::int", [0]), { code: "22012" });
  await assert.rejects(client.query("SELECT 1"), { code: "25P02" });
  await client.query("ROLLBACK");
  assert.equal(await value(client, "SELECT count(*)::int FROM node_items"), 20);
  const several = await client.query("SELECT 1 AS one; SELECT 2 AS two; DROP TABLE node_items");
  assert.deepEqual(several.map((result) => result.command), ["SELECT", "SELECT", "DROP"]);
});

test("a named statement is prepared once for its client, whatever server connection it comes to", async (t) => {
  const clients = await Promise.all([1, 2, 3].map(() => connect(t)));
  for (let round = 0; round < 10; round++) {
    // The same name is another statement for each of them.
    const asked = clients.map((client, n) => client.query({ name: "s0", text: `SELECT ${n} AS n, $1::int * 2 AS double`, values: [round] }));
    const found = await Promise.all(asked);
    assert.deepEqual(found.map((result) => result.rows[0]), clients.map((_, n) => ({ n, double: round * 2 })));
    await shuffle(clients);
  }
  await assert.rejects(clients[0].query({ name: "s0", text: "SELECT 'another text'", values: [] }), /unique/);
});

test("DEALLOCATE ALL is its client's own", async (t) => {
  const [one, two, three] = await Promise.all([1, 2, 3].map(() => connect(t)));
  for (let round = 0; round < 20; round++) {
    const [first, second] = await Promise.all([
      one.query({ name: "s0", text: "SELECT 'first' || $1 AS a", values: [round] }),
      two.query({ name: "s0", text: "SELECT 'second' || $1 AS a", values: [round] }),
      three.query("DEALLOCATE ALL"),
    ]);
    assert.deepEqual([first.rows[0].a, second.rows[0].a], [`first${round}`, `second${round}`]);
    await shuffle([one, two, three]);
  }
});

test("a pool with more clients than there are server connections", async () => {
  const pool = new pg.Pool({ connectionString: url, max: 10 });
  const asked = Array.from({ length: 300 }, (_, n) => pool.query({ name: `q${n % 7}`, text: `SELECT $1::int + ${n % 7} AS n`, values: [n] }));
  const found = await Promise.all(asked);
  assert.deepEqual(found.map((result) => result.rows[0].n), Array.from({ length: 300 }, (_, n) => n + (n % 7)));
  const client = await pool.connect();
  await client.query("BEGIN");
  await client.query("SET LOCAL app.tenant = '7'");
  assert.equal(await value(pool, "SELECT coalesce(current_setting('app.tenant', true), '')"), "");
  assert.equal(await value(client, "SHOW app.tenant"), "7");
  await client.query("COMMIT");
  client.release();
  await pool.end();
});

test("LISTEN, NOTIFY and UNLISTEN", async (t) => {
  const [listener, sender] = [await connect(t), await connect(t)];
  const heard = [];
  let wake;
  listener.on("notification", (message) => { heard.push([message.channel, message.payload]); wake?.(); });
  const wait = async (count) => { while (heard.length < count) await new Promise((resolve) => { wake = resolve; }); };
  await listener.query("LISTEN news");
  await sender.query("NOTIFY news, 'one'");
  await sender.query("SELECT pg_notify($1, $2)", ["news", "two"]);
  await wait(2);
  assert.deepEqual(heard, [["news", "one"], ["news", "two"]]);
  assert.equal(await value(sender, "SELECT count(*)::int FROM pg_listening_channels()"), 0);
  await listener.query("UNLISTEN news");
  await sender.query("NOTIFY news, 'three'");
  assert.equal(await value(listener, "SELECT 1"), 1);
  assert.equal(heard.length, 2);
});

test("cursors, read in parts, inside and outside of transactions", async (t) => {
  const [client, other] = [await connect(t), await connect(t)];
  for (const transaction of [true, false]) {
    if (transaction) await client.query("BEGIN");
    const cursor = client.query(new Cursor("SELECT n FROM generate_series(1, $1) AS n", [1000]));
    let sum = 0;
    for (let part = await cursor.read(130); part.length; part = await cursor.read(130)) {
      sum += part.reduce((total, row) => total + row.n, 0);
      assert.equal(await value(other, "SELECT 'meanwhile'"), "meanwhile");
    }
    assert.equal(sum, 500_500);
    const left = client.query(new Cursor("SELECT n FROM generate_series(1, 100000) AS n"));
    assert.equal((await left.read(10)).length, 10);
    await left.close();
    const wrong = client.query(new Cursor("SELECT 1 / (3 - n) FROM generate_series(1, 5) AS n"));
    await assert.rejects(async () => { while ((await wrong.read(1)).length); }, { code: "22012" });
    await wrong.close();
    if (transaction) await client.query("ROLLBACK");
    assert.equal(await value(client, "SELECT 'goes on'"), "goes on");
  }
});

test("a query that is cancelled", async (t) => {
  const client = await connect(t);
  const query = new pg.Query("SELECT pg_sleep(60)");
  const ended = new Promise((resolve) => query.on("error", resolve));
  client.query(query);
  const observer = await connect(t);
  while (!(await value(observer, "SELECT count(*)::int FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'")));
  new pg.Client({ connectionString: url }).cancel(client, query);
  assert.equal((await ended).code, "57014");
  assert.equal(await value(client, "SELECT 'goes on'"), "goes on");
  const limited = await connect(t, { statement_timeout: 50 });
  await assert.rejects(limited.query("SELECT pg_sleep(60)"), { code: "57014" });
});

test("settings, from the start and later, are their client's own", async (t) => {
  const options = { statement_timeout: 4321, lock_timeout: 1234, idle_in_transaction_session_timeout: 9876, application_name: "mine" };
  const [client, other] = [await connect(t, { ...options, options: "-c search_path=alpha,beta -c work_mem=5MB" }), await connect(t)];
  await client.query("SET TIME ZONE 'Asia/Tokyo'");
  await client.query("SELECT set_config($1, $2, false)", ["app.tenant", "it's"]);
  const show = async (one) => {
    const names = ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "application_name", "search_path", "work_mem", "TimeZone"];
    const { rows } = await one.query("SELECT current_setting(name) AS v FROM unnest($1::text[]) WITH ORDINALITY AS u (name, n) ORDER BY n", [names]);
    return [...rows.map((row) => row.v), (await value(one, "SELECT current_setting('app.tenant', true)")) || ""];
  };
  const usual = await show(other);
  for (let round = 0; round < 5; round++) {
    assert.deepEqual(await show(client), ["4321ms", "1234ms", "9876ms", "mine", "alpha,beta", "5MB", "Asia/Tokyo", "it's"]);
    assert.deepEqual(await show(other), usual);
    await shuffle([client, other]);
  }
});

test("temporary tables and locks are their client's own and end", async (t) => {
  const [client, other] = [await connect(t), await connect(t)];
  await client.query("CREATE TEMPORARY TABLE node_items AS SELECT 1 AS a");
  await client.query("SELECT pg_advisory_lock($1)", [4711]);
  for (let round = 0; round < 5; round++) {
    await shuffle([client, other]);
    assert.equal(await value(client, "SELECT a FROM node_items"), 1);
    await assert.rejects(other.query("SELECT a FROM node_items"), { code: "42P01" });
    assert.equal(await value(other, "SELECT pg_try_advisory_lock($1)", [4711]), false);
  }
  await client.query("DROP TABLE node_items");
  assert.equal(await value(client, "SELECT pg_advisory_unlock($1)", [4711]), true);
  assert.equal(await value(other, "SELECT pg_try_advisory_lock($1)", [4711]), true);
  assert.equal(await value(other, "SELECT pg_advisory_unlock($1)", [4711]), true);
});

test("queries sent ahead (pipeline mode)", async (t) => {
  const client = await connect(t, { pipeline: true });
  const asked = Array.from({ length: 50 }, (_, n) => client.query({ name: `p${n % 3}`, text: `SELECT $1::int * ${n % 3} AS n`, values: [n] }));
  const wrong = assert.rejects(client.query("SELECT 1 / $1::int", [0]), { code: "22012" });
  const last = client.query("SELECT 'last' AS n");
  assert.deepEqual((await Promise.all(asked)).map((result) => result.rows[0].n), Array.from({ length: 50 }, (_, n) => n * (n % 3)));
  await wrong;
  assert.equal((await last).rows[0].n, "last");
});
