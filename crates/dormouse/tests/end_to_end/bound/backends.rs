//! Backends, bundled as their users bundle them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

/// The backend of the platform's document, as it is printed there.
pub(super) const DOCUMENTED: &str = r#"import postgres from "postgres";
type Env = {
DB: {
connectionString: string;
};
};
export default {
async fetch(_request: Request, env: Env) {
const sql = postgres(env.DB.connectionString);
const rows = await sql`select now() as now`;
return Response.json({
now: rows[0]?.now
});
}
};
"#;

/// The flags of the document.
pub(super) const FLAGS: &str = "{\n\"compatibility_flags\": [\"nodejs_compat_v2\"]\n}";

/// The manifest of the document, with this id.
pub(super) fn manifest(id: &str) -> String {
    let manifest = r#"{
"bindings": {
"hyperdrive": [
{
"binding": "DB",
"id": "postgres-binding-id"
}
]
}
}"#;
    manifest.replace("postgres-binding-id", id)
}

/// One case a path: the same small things by each driver.
pub(super) const SUITE: &str = r#"
import postgres from "postgres";
import pg from "pg";
import { drizzle as drizzlePostgres } from "drizzle-orm/postgres-js";
import { drizzle as drizzleNode } from "drizzle-orm/node-postgres";
import { integer, pgTable, text } from "drizzle-orm/pg-core";
import { eq } from "drizzle-orm";
import { Kysely, PostgresDialect } from "kysely";
import Cursor from "pg-cursor";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";

type Env = { DB: { connectionString: string, host: string, ip: string, port: number, user: string, password: string,
                   database: string, connect(): { readable: unknown, writable: unknown } } };

const same = (found: unknown, wanted: unknown) => {
  const [a, b] = [JSON.stringify(found), JSON.stringify(wanted)];
  if (a !== b) throw new Error(`${a} is not ${b}`);
};

const fruit = pgTable("fruit", { id: integer("id").primaryKey(), name: text("name") });
const make = "create table if not exists fruit (id int primary key, name text)";
const wipe = "truncate fruit";

const byPostgres = async (sql: any) => {
  await sql.unsafe(make);
  await sql.unsafe(wipe);
  await sql`insert into fruit ${sql([{ id: 1, name: "fig" }, { id: 2, name: "kiwi" }])}`;
  same(await sql`select name from fruit where id = ${2}`, [{ name: "kiwi" }]);
  const failed = await sql.begin(async (sql: any) => {
    await sql`update fruit set name = 'pear' where id = 1`;
    throw new Error("back");
  }).catch((error: Error) => error.message);
  same(failed, "back");
  same(await sql`select name from fruit order by id`, [{ name: "fig" }, { name: "kiwi" }]);
  await sql.begin(async (sql: any) => {
    await sql`set local search_path to pg_catalog`;
    same(await sql`show search_path`, [{ search_path: "pg_catalog" }]);
  });
  const code = await sql`select 1 / 0`.catch((error: { code: string }) => error.code);
  same(code, "22012");
};

const byNode = async (client: any) => {
  await client.query(make);
  await client.query(wipe);
  await client.query("insert into fruit values ($1, $2), ($3, $4)", [1, "fig", 2, "kiwi"]);
  const named = { name: "one", text: "select name from fruit where id = $1" };
  for (const [id, name] of [[1, "fig"], [2, "kiwi"]]) {
    same((await client.query({ ...named, values: [id] })).rows, [{ name }]);
  }
  const code = await client.query("select 1 / 0").catch((error: { code: string }) => error.code);
  same(code, "22012");
};

const byDrizzle = async (db: any) => {
  await db.execute(make);
  await db.execute(wipe);
  await db.insert(fruit).values([{ id: 1, name: "fig" }, { id: 2, name: "kiwi" }]);
  await db.transaction(async (tx: any) => {
    await tx.update(fruit).set({ name: "pear" }).where(eq(fruit.id, 1));
  });
  same(await db.select().from(fruit).orderBy(fruit.id), [{ id: 1, name: "pear" }, { id: 2, name: "kiwi" }]);
};

const cases: Record<string, (env: Env) => Promise<void>> = {
  "members": async ({ DB }) => {
    const wanted = ["connectionString", "host", "ip", "port", "user", "password", "database"];
    for (const name of wanted) {
      if (!(DB as any)[name]) throw new Error(`no ${name}`);
    }
    if (!/^[A-Za-z0-9.~_-]+$/.test(DB.user + DB.password)) throw new Error("not for a URL");
    const socket = DB.connect();
    if (!socket.readable || !socket.writable) throw new Error("no socket");
  },
  "postgres.js": async (env) => byPostgres(postgres(env.DB.connectionString)),
  "postgres.js-unprepared": async (env) => byPostgres(postgres(env.DB.connectionString, { prepare: false })),
  "postgres.js-untyped": async (env) => byPostgres(postgres(env.DB.connectionString, { fetch_types: false })),
  "pg-client": async (env) => {
    const client = new pg.Client({ connectionString: env.DB.connectionString });
    await client.connect();
    await byNode(client);
    await client.end();
  },
  "pg-pool": async (env) => {
    const pool = new pg.Pool({ connectionString: env.DB.connectionString, max: 3 });
    await byNode(pool);
    await Promise.all([1, 2, 3, 4, 5].map((n) => pool.query("select $1::int", [n])));
    await pool.end();
  },
  "drizzle-postgres.js": async (env) => byDrizzle(drizzlePostgres(postgres(env.DB.connectionString))),
  "drizzle-node-postgres": async (env) => {
    const pool = new pg.Pool({ connectionString: env.DB.connectionString, max: 2 });
    await byDrizzle(drizzleNode(pool));
    await pool.end();
  },
  "kysely": async (env) => {
    const pool = new pg.Pool({ connectionString: env.DB.connectionString, max: 2 });
    const db = new Kysely<any>({ dialect: new PostgresDialect({ pool }) });
    await pool.query(make);
    await pool.query(wipe);
    await db.insertInto("fruit").values({ id: 7, name: "lime" }).execute();
    same(await db.selectFrom("fruit").select("name").where("id", "=", 7).execute(), [{ name: "lime" }]);
    await db.destroy();
  },
  // In alone, by postgres.js: its other way out, and pg-copy-streams, want a socket of Node.js.
  "copy": async (env) => {
    const sql = postgres(env.DB.connectionString, { max: 1 });
    await sql.unsafe(make);
    await sql.unsafe(wipe);
    const lines = Array.from({ length: 5000 }, (_, n) => `${n}\tfruit ${n}\n`);
    await pipeline(Readable.from(lines), await sql`copy fruit from stdin`.writable());
    same(await sql`select count(*)::int as n from fruit`, [{ n: 5000 }]);
  },
  "cursor": async (env) => {
    const client = new pg.Client({ connectionString: env.DB.connectionString });
    await client.connect();
    const cursor = client.query(new Cursor("select n, repeat('x', 10000) as text from generate_series(1, 1000) n"));
    let [rows, bytes] = [0, 0];
    for (;;) {
      const some = await cursor.read(64);
      if (!some.length) break;
      rows += some.length;
      bytes += some.reduce((sum: number, row: { text: string }) => sum + row.text.length, 0);
    }
    same([rows, bytes], [1000, 10000000]);
    await cursor.close();
    same((await client.query("select 1 as one")).rows, [{ one: 1 }]);
    await client.end();
  },
  // The request ends amid a transaction, and nobody closes anything.
  "abandoned": async (env) => {
    const sql = postgres(env.DB.connectionString);
    const reserved = await sql.reserve();
    await reserved`begin`;
    await reserved`select 1`;
  },
};

export default {
  async fetch(request: Request, env: Env) {
    const name = new URL(request.url).pathname.slice(1);
    if (name === "env") return Response.json(Object.entries(env).map(([key, value]) => [key, String(value)]));
    const run = cases[name];
    if (!run) return new Response("no such case", { status: 404 });
    try {
      await run(env);
      return Response.json("passed");
    } catch (error) {
      return Response.json(String((error as Error)?.stack ?? error), { status: 500 });
    }
  },
};
"#;

/// What esbuild makes of a source and of the packages that it imports.
pub(crate) fn bundled(source: &str, options: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let clients = std::env::var_os("DORMOUSE_TEST_CLIENTS").expect("who asks has a runtime");
    let packages = PathBuf::from(clients).join("node_modules");
    symlink(&packages, folder.path().join("node_modules")).unwrap();
    fs::write(folder.path().join("index.ts"), source).unwrap();
    let mut builds = fs::read_dir(packages.join("@esbuild")).unwrap();
    let esbuild = builds.next().unwrap().unwrap().path().join("bin/esbuild");
    let output = Command::new(esbuild)
        .args(["index.ts", "--bundle", "--format=esm"])
        .args(["--external:cloudflare:*", "--external:pg-native"])
        .args(options)
        .current_dir(folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout).unwrap()
}
