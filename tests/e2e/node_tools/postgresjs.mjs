// postgres.js against the transaction-mode port, as it is used: it prepares every statement, and no option says that there is a pooler.
import assert from "node:assert/strict";
import test from "node:test";

import postgres from "postgres";

const { url } = JSON.parse(process.env.DUALPOOL_TOOL);

function connect(t, options = {}) {
  const sql = postgres(url, { onnotice: () => {}, ...options });
  t.after(() => sql.end({ timeout: 5 }));
  return sql;
}

test("many queries at once over many connections", async (t) => {
  const sql = connect(t);
  const found = await Promise.all(Array.from({ length: 300 }, (_, n) => sql`SELECT ${n}::int + ${n % 7} AS n`));
  assert.deepEqual(found.map(([row]) => row.n), Array.from({ length: 300 }, (_, n) => n + (n % 7)));
});

test("types, rows of objects, errors and transactions", async (t) => {
  const sql = connect(t, { max: 4 });
  await sql`CREATE TABLE js_items (id serial PRIMARY KEY, name text, data jsonb, raw bytea, tags text[])`;
  const rows = Array.from({ length: 20 }, (_, n) => ({ name: `name ${n} ☃`, data: { n }, raw: Buffer.from([0, n, 255]) }));
  await sql`INSERT INTO js_items ${sql(rows)}`;
  await sql`UPDATE js_items SET tags = ${["a", 'b"c']} WHERE id = 8`;
  const [row] = await sql`SELECT * FROM js_items WHERE id = ${8}`;
  assert.deepEqual({ ...row }, { id: 8, name: "name 7 ☃", data: { n: 7 }, raw: Buffer.from([0, 7, 255]), tags: ["a", 'b"c'] });
  await assert.rejects(sql.begin(async (tx) => {
    await tx`DELETE FROM js_items`;
    await tx.savepoint((inner) => inner`SELECT 1 / ${0}::int`).catch((error) => assert.equal(error.code, "22012"));
    assert.equal((await tx`SELECT count(*)::int AS n FROM js_items`)[0].n, 0);
    await Promise.all([tx`SELECT 1`, tx`SELECT * FROM no_such_table`, tx`SELECT 2`]);
  }), { code: "42P01" });
  assert.equal((await sql`SELECT count(*)::int AS n FROM js_items`)[0].n, 20);
  assert.equal((await sql.unsafe("SELECT 1 AS a; SELECT 2 AS a").simple())[1][0].a, 2);
  await sql`DROP TABLE js_items`;
});

test("cursors, copies and cancels", async (t) => {
  const sql = connect(t, { max: 2 });
  let sum = 0;
  for await (const rows of sql`SELECT n FROM generate_series(1, 1000) AS n`.cursor(130)) sum += rows.reduce((total, row) => total + row.n, 0);
  assert.equal(sum, 500_500);
  for await (const [row] of sql`SELECT n FROM generate_series(1, 100000) AS n`.cursor()) if (row.n === 5) break;
  await sql`CREATE TABLE js_copied (id int, name text)`;
  const writable = await sql`COPY js_copied FROM STDIN`.writable();
  await new Promise((resolve, reject) => {
    writable.on("finish", resolve).on("error", reject);
    for (let n = 0; n < 1000; n++) writable.write(`${n}\tname ${n}\n`);
    writable.end();
  });
  let copied = "";
  for await (const part of await sql`COPY (SELECT id FROM js_copied ORDER BY id) TO STDOUT`.readable()) copied += part;
  assert.equal(copied, Array.from({ length: 1000 }, (_, n) => `${n}\n`).join(""));
  await sql`DROP TABLE js_copied`;
  const query = sql`SELECT pg_sleep(60), 'js'`;
  const ended = assert.rejects(query, { code: "57014" });
  const running = () => sql`SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(60), ''js''%' AND state = 'active'`;
  while (!(await running()).length);
  query.cancel();
  await ended;
});

test("listen and notify", async (t) => {
  const sql = connect(t, { max: 1 });
  const heard = [];
  let wake;
  const { unlisten } = await sql.listen("js_news", (text) => { heard.push(text); wake?.(); });
  await sql.notify("js_news", "one");
  await sql`SELECT pg_notify('js_news', 'two')`;
  while (heard.length < 2) await new Promise((resolve) => { wake = resolve; });
  assert.deepEqual(heard, ["one", "two"]);
  await unlisten();
});

test("a reserved connection with a lock and a temporary table; settings from the start", async (t) => {
  const sql = connect(t, { max: 3, connection: { search_path: "alpha,beta", statement_timeout: 4321, application_name: "mine" } });
  const one = await sql.reserve();
  await one`SELECT pg_advisory_lock(4712)`;
  await one`CREATE TEMPORARY TABLE js_items AS SELECT 1 AS a`;
  for (let round = 0; round < 5; round++) {
    await sql.begin((tx) => tx`SELECT 1`);
    assert.equal((await one`SELECT a FROM js_items`)[0].a, 1);
    await assert.rejects(sql`SELECT a FROM js_items`, { code: "42P01" });
    assert.equal((await sql`SELECT pg_try_advisory_lock(4712) AS got`)[0].got, false);
    const [shown] = await sql`SELECT current_setting('search_path') AS path, current_setting('statement_timeout') AS timeout`;
    assert.deepEqual({ ...shown }, { path: "alpha,beta", timeout: "4321ms" });
  }
  await one`DROP TABLE js_items`;
  assert.equal((await one`SELECT pg_advisory_unlock(4712) AS done`)[0].done, true);
  one.release();
  assert.equal((await sql.begin((tx) => tx`SELECT pg_try_advisory_xact_lock(4712) AS got`))[0].got, true);
});
