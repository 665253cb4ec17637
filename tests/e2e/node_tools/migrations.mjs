// The migrations of Knex, Sequelize and Drizzle, and their queries, against the transaction-mode port of either engine.
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";

import { drizzle as drizzleMySQL } from "drizzle-orm/mysql2";
import { migrate as migrateMySQL } from "drizzle-orm/mysql2/migrator";
import { drizzle as drizzlePostgres } from "drizzle-orm/node-postgres";
import { migrate as migratePostgres } from "drizzle-orm/node-postgres/migrator";
import knexFactory from "knex";
import mysql from "mysql2/promise";
import pg from "pg";
import { DataTypes, Sequelize, UniqueConstraintError } from "sequelize";

const { url } = JSON.parse(process.env.DUALPOOL_TOOL);
const isMySQL = url.startsWith("mysql:");

test("knex", async (t) => {
  const knex = knexFactory({ client: isMySQL ? "mysql2" : "pg", connection: url, pool: { min: 0, max: 5 } });
  t.after(() => knex.destroy());
  const steps = {
    one: { up: (k) => k.schema.createTable("knex_author", (table) => { table.increments(); table.string("name", 50).unique(); }), down: (k) => k.schema.dropTable("knex_author") },
    two: {
      up: async (k) => {
        await k.schema.createTable("knex_book", (table) => { table.increments(); table.integer("author_id").unsigned().references("knex_author.id"); table.json("data"); });
        await k("knex_author").insert([{ name: "a" }, { name: "b" }]);
      },
      down: (k) => k.schema.dropTable("knex_book"),
    },
  };
  const migrationSource = { getMigrations: async () => Object.keys(steps), getMigrationName: (name) => name, getMigration: async (name) => steps[name] };
  assert.deepEqual((await knex.migrate.latest({ migrationSource }))[1], ["one", "two"]);
  // Two at once: one of them has the lock, and the other is told so, or finds nothing left to do.
  await knex.migrate.rollback({ migrationSource });
  const both = await Promise.allSettled([knex.migrate.latest({ migrationSource }), knex.migrate.latest({ migrationSource })]);
  assert.ok(both.some((one) => one.status === "fulfilled"), JSON.stringify(both));
  await assert.rejects(knex.transaction(async (tx) => {
    await tx("knex_author").insert({ name: "c" });
    await tx("knex_author").insert({ name: "a" });
  }), /uplicate/);
  await Promise.all(Array.from({ length: 50 }, (_, n) => knex("knex_book").insert({ author_id: 1 + (n % 2), data: JSON.stringify({ n }) })));
  const counts = await knex("knex_book").join("knex_author", "knex_author.id", "author_id").groupBy("name").orderBy("name").select("name").count({ n: "*" });
  assert.deepEqual(counts.map((row) => [row.name, Number(row.n)]), [["a", 25], ["b", 25]]);
  assert.equal((await knex.migrate.rollback({ migrationSource }, true))[1].length, 2);
});

test("sequelize", async (t) => {
  const sequelize = new Sequelize(url, { logging: false, pool: { max: 5 } });
  t.after(() => sequelize.close());
  const Author = sequelize.define("author", { name: { type: DataTypes.STRING(50), unique: true } }, { tableName: "sequelize_author" });
  const Book = sequelize.define("book", { title: DataTypes.STRING, data: DataTypes.JSON }, { tableName: "sequelize_book" });
  Author.hasMany(Book);
  Book.belongsTo(Author);
  await sequelize.authenticate();
  await sequelize.sync({ force: true });
  await sequelize.sync({ alter: true });
  await Promise.all(Array.from({ length: 20 }, (_, n) => Author.create({ name: `author ${n} ☃`, books: [{ title: `book ${n}`, data: { n } }] }, { include: Book })));
  const found = await Author.findOne({ where: { name: "author 7 ☃" }, include: Book });
  assert.deepEqual(found.books.map((book) => book.title), ["book 7"]);
  await assert.rejects(sequelize.transaction({ isolationLevel: "SERIALIZABLE" }, async (transaction) => {
    await Book.destroy({ where: {}, transaction });
    await Author.create({ name: "author 7 ☃" }, { transaction });
  }), UniqueConstraintError);
  assert.equal(await Book.count(), 20);
  const columns = await sequelize.getQueryInterface().describeTable("sequelize_author");
  assert.deepEqual(Object.keys(columns).sort(), ["createdAt", "id", "name", "updatedAt"]);
  await sequelize.drop();
});

test("drizzle", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "drizzle-"));
  t.after(() => rmSync(folder, { recursive: true }));
  mkdirSync(join(folder, "meta"));
  const entries = ["0000_one", "0001_two"].map((tag, idx) => ({ idx, version: "7", when: 1700000000000 + idx, tag, breakpoints: true }));
  writeFileSync(join(folder, "meta", "_journal.json"), JSON.stringify({ version: "7", dialect: isMySQL ? "mysql" : "postgresql", entries }));
  writeFileSync(join(folder, "0000_one.sql"), "CREATE TABLE drizzle_a (id int PRIMARY KEY);\n--> statement-breakpoint\nCREATE INDEX drizzle_i ON drizzle_a (id);");
  writeFileSync(join(folder, "0001_two.sql"), "INSERT INTO drizzle_a VALUES (1), (2);\n--> statement-breakpoint\nALTER TABLE drizzle_a ADD b int;");
  const pool = isMySQL ? mysql.createPool(url) : new pg.Pool({ connectionString: url });
  t.after(() => pool.end());
  const database = isMySQL ? drizzleMySQL({ client: pool }) : drizzlePostgres({ client: pool });
  const migrate = isMySQL ? migrateMySQL : migratePostgres;
  await migrate(database, { migrationsFolder: folder });
  await migrate(database, { migrationsFolder: folder });
  const found = await database.transaction((tx) => tx.execute("SELECT count(b) + count(*) AS n FROM drizzle_a"));
  assert.equal(Number((isMySQL ? found[0][0] : found.rows[0]).n), 2);
});
