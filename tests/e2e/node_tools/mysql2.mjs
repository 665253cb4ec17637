// mysql2 against the transaction-mode port, as it is used: no option for a pooler's sake.
import assert from "node:assert/strict";
import test from "node:test";
import { Readable } from "node:stream";

import mysql from "mysql2/promise";

const { url } = JSON.parse(process.env.DUALPOOL_TOOL);

async function connect(t, options = {}) {
  const client = await mysql.createConnection({ uri: url, ...options });
  t.after(() => client.end());
  return client;
}

async function value(client, text, values, how = "query") {
  const [rows] = await client[how]({ sql: text, values, rowsAsArray: true });
  return rows[0][0];
}

// Others at work, so that the server connections change hands.
async function shuffle(clients) {
  for (const text of ["BEGIN", "SELECT 1", "COMMIT"]) await Promise.all(clients.map((client) => client.query(text)));
}

test("text and binary queries with types, errors and transactions", async (t) => {
  const client = await connect(t);
  await client.query("CREATE TABLE node_items (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(50) CHARSET utf8mb4, data JSON, raw BLOB, at DATETIME(3), big BIGINT, price DECIMAL(10, 2)) ENGINE=InnoDB");
  const at = new Date("2026-01-02T03:04:05.678Z");
  for (let number = 0; number < 20; number++) {
    const how = number % 2 ? "execute" : "query";
    const [done] = await client[how](
      "INSERT INTO node_items (name, data, raw, at, big, price) VALUES (?, ?, ?, ?, ?, ?)",
      [`name ${number} ☃`, JSON.stringify({ number }), Buffer.from([0, number, 255]), at, number, number / 4],
    );
    assert.equal(done.insertId, number + 1);
  }
  for (const how of ["execute", "query"]) {
    const [[row]] = await client[how]("SELECT id, name, raw, at, big, price, CAST(data AS CHAR) AS data FROM node_items WHERE id = ?", [8]);
    assert.equal(JSON.parse(row.data).number, 7);
    assert.deepEqual({ ...row, data: 0 }, { id: 8, name: "name 7 ☃", data: 0, raw: Buffer.from([0, 7, 255]), at, big: 7, price: "1.75" });
  }
  await client.beginTransaction();
  await client.query("DELETE FROM node_items");
  await assert.rejects(client.execute("SELECT * FROM no_such_table WHERE id = ?", [1]), { code: "ER_NO_SUCH_TABLE" });
  await client.rollback();
  assert.equal(await value(client, "SELECT COUNT(*) FROM node_items"), 20);
  await client.query("DROP TABLE node_items");
});

test("statements are prepared for their client, whatever server connection it comes to", async (t) => {
  const clients = await Promise.all([1, 2, 3].map(() => connect(t)));
  const prepared = await Promise.all(clients.map((client, n) => client.prepare(`SELECT ? + ${n} AS n`)));
  for (let round = 0; round < 10; round++) {
    const found = await Promise.all(prepared.map((statement) => statement.execute([round])));
    assert.deepEqual(found.map(([rows]) => Number(rows[0].n)), clients.map((_, n) => n + round));
    const cached = await Promise.all(clients.map((client, n) => client.execute(`SELECT CONCAT(?, '-${n}') AS a`, [`${round}`])));
    assert.deepEqual(cached.map(([rows]) => rows[0].a), clients.map((_, n) => `${round}-${n}`));
    await shuffle(clients);
  }
  for (const statement of prepared) statement.close();
  clients[0].unprepare("SELECT CONCAT(?, '-0') AS a");
  assert.equal(await value(clients[0], "SELECT CONCAT(?, '-0') AS a", ["again"], "execute"), "again-0");
});

test("more statements than the driver keeps", async (t) => {
  const client = await connect(t, { maxPreparedStatements: 5 });
  for (let round = 0; round < 3; round++) {
    for (let n = 0; n < 12; n++) assert.equal(Number(await value(client, `SELECT ? * ${n}`, [3], "execute")), 3 * n);
  }
});

test("a pool with more clients than there are server connections", async () => {
  const pool = mysql.createPool({ uri: url, connectionLimit: 10 });
  const asked = Array.from({ length: 300 }, (_, n) => value(pool, `SELECT ? + ${n % 7} AS n`, [n], n % 2 ? "execute" : "query"));
  assert.deepEqual((await Promise.all(asked)).map(Number), Array.from({ length: 300 }, (_, n) => n + (n % 7)));
  const client = await pool.getConnection();
  await client.beginTransaction();
  await client.query("SET @tenant = 7");
  assert.equal(await value(pool, "SELECT @tenant"), null);
  assert.equal(await value(client, "SELECT @tenant"), 7);
  await client.commit();
  client.release();
  await pool.end();
});

test("settings, from the start and later, are their client's own", async (t) => {
  const [client, other] = [await connect(t, { timezone: "+09:00", charset: "latin1_german1_ci" }), await connect(t)];
  await client.query("SET time_zone = '+09:00', SESSION sql_mode = 'ANSI', @tenant = 'it''s'");
  await client.query("SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE");
  const ask = `SELECT CONCAT_WS('|', @@time_zone, @@sql_mode LIKE '%ANSI_QUOTES%', @@collation_connection, COALESCE(CONVERT(@tenant USING utf8mb4), 'none'))`;
  const usual = await value(other, ask);
  for (let round = 0; round < 5; round++) {
    assert.equal(await value(client, ask), "+09:00|1|latin1_german1_ci|it's");
    assert.equal(await value(other, ask), usual);
    await shuffle([client, other]);
  }
  await client.query("SET SESSION sql_mode = DEFAULT");
  assert.equal(await value(client, "SELECT ?", ["grüße"], "execute"), "grüße");
});

test("locks and temporary tables are their client's own and end", async (t) => {
  const [client, other] = [await connect(t), await connect(t)];
  const name = `node-${process.pid}`;
  assert.equal(await value(client, "SELECT GET_LOCK(?, 10)", [name]), 1);
  await client.query("CREATE TEMPORARY TABLE node_items AS SELECT 1 AS a");
  for (let round = 0; round < 5; round++) {
    await shuffle([client, other]);
    assert.equal(await value(client, "SELECT a FROM node_items"), 1);
    await assert.rejects(other.query("SELECT a FROM node_items"), { code: "ER_NO_SUCH_TABLE" });
    assert.equal(await value(other, "SELECT GET_LOCK(?, 0)", [name]), 0);
  }
  await client.query("DROP TEMPORARY TABLE node_items");
  assert.equal(await value(client, "SELECT RELEASE_LOCK(?)", [name]), 1);
  assert.equal(await value(other, "SELECT GET_LOCK(?, 0)", [name], "execute"), 1);
  assert.equal(await value(other, "SELECT RELEASE_ALL_LOCKS()", []), 1);
});

test("changeUser and reset leave nothing", async (t) => {
  const client = await connect(t);
  for (const fresh of [() => client.changeUser({ user: "app", password: "app", database: "app" }), () => client.reset()]) {
    await client.query("SET @tenant = 7, time_zone = '+05:00'");
    await client.query("CREATE TEMPORARY TABLE node_items (a INT)");
    assert.equal(Number(await value(client, "SELECT @tenant + ?", [1], "execute")), 8);
    await fresh();
    assert.equal(await value(client, "SELECT @tenant"), null);
    assert.notEqual(await value(client, "SELECT @@time_zone"), "+05:00");
    await assert.rejects(client.query("SELECT * FROM node_items"), { code: "ER_NO_SUCH_TABLE" });
    assert.equal(Number(await value(client, "SELECT ? + 1", [1], "execute")), 2);
  }
  await assert.rejects(client.changeUser({ user: "app", password: "wrong" }), { code: "ER_ACCESS_DENIED_ERROR" });
});

test("reset with a statement that was prepared before it", async (t) => {
  const client = await connect(t);
  for (let round = 0; round < 3; round++) {
    assert.equal(await value(client, "SELECT CONCAT('a', ?)", ["b"], "execute"), "ab");
    await client.reset();
  }
});

test("several statements, several results, warnings, procedures", async (t) => {
  const client = await connect(t, { multipleStatements: true });
  const [results] = await client.query("SELECT 1 AS a; SET @x = 5; SELECT @x AS b; DO 0");
  assert.deepEqual([results[0][0].a, results[2][0].b], [1, 5]);
  await client.query("CREATE PROCEDURE node_twice(n INT) BEGIN SELECT n; SELECT 2 * n AS double_n; END");
  for (const how of ["query", "execute"]) {
    const [found] = await client[how]("CALL node_twice(?)", [4]);
    assert.deepEqual([found[0][0].n, Number(found[1][0].double_n)], [4, 8]);
  }
  await client.query("DROP PROCEDURE node_twice");
  await client.query("DROP TABLE IF EXISTS no_such_table");
  const [warnings] = await client.query("SHOW WARNINGS");
  assert.equal(warnings[0].Code, 1051);
});

test("rows as a stream, and a file that the client sends", async (t) => {
  const client = await connect(t);
  const infileStreamFactory = () => Readable.from(Array.from({ length: 1000 }, (_, n) => Buffer.from(`${n}\tname ${n}\n`)));
  await client.query("CREATE TABLE node_items (id INT PRIMARY KEY, name VARCHAR(50)) ENGINE=InnoDB");
  const [loaded] = await client.query({ sql: "LOAD DATA LOCAL INFILE 'rows' INTO TABLE node_items", infileStreamFactory });
  assert.equal(loaded.affectedRows, 1000);
  let sum = 0;
  for await (const row of client.connection.query("SELECT id FROM node_items ORDER BY id").stream()) sum += row.id;
  assert.equal(sum, 499_500);
  await client.query("DROP TABLE node_items");
});

test("a query that is killed", async (t) => {
  const [client, other] = [await connect(t), await connect(t)];
  const ended = client.query("SELECT SLEEP(60), 'node'").then(([rows]) => rows, (error) => error.code);
  const running = "SELECT COUNT(*) FROM information_schema.processlist WHERE info = 'SELECT SLEEP(60), \\'node\\''";
  while (!(await value(other, running)));
  await other.query(`KILL QUERY ${client.threadId}`);
  const found = await ended;
  assert.ok(found === "ER_QUERY_INTERRUPTED" || Number(Object.values(found[0])[0]) === 1, JSON.stringify(found));
  assert.equal(await value(client, "SELECT 'goes on'"), "goes on");
});

test("a compressed connection", async (t) => {
  const client = await connect(t, { compress: true });
  const long = "x".repeat(200_000);
  assert.equal(await value(client, "SELECT ?", [long]), long);
  assert.equal(await value(client, "SELECT ?", [long], "execute"), long);
});
