import assert from 'node:assert/strict'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { test } from 'node:test'
import { retrying, sqlstate } from '../server.mjs'
import { connect } from './client.mjs'

test('a thousand queries in the pipe of one connection', async (t) => {
  const sql = connect(t)
  const answers = await Promise.all(Array.from({ length: 1000 }, (_, n) => sql`select ${n}::int as n`))
  assert.deepEqual(answers.map(([{ n }]) => n), answers.map((_, n) => n))
})

test('an error in the pipe is one query\'s alone', async (t) => {
  const sql = connect(t)
  const outcomes = await Promise.allSettled([1, 0, 2, 0, 5].map((n) => sql`select 10 / ${n}::int as n`))
  assert.deepEqual(outcomes.map((outcome) => outcome.value?.[0].n ?? outcome.reason.code), [10, '22012', 5, '22012', 2])
})

test('statements are prepared once, or never', async (t) => {
  const kept = async (sql) => {
    for (let n = 0; n < 5; n++) assert.equal((await sql`select ${n}::int + 1 as sum`)[0].sum, n + 1)
    return (await sql`select count(*)::int as n from pg_prepared_statements where statement like '%as sum'`)[0].n
  }
  assert.equal(await kept(connect(t)), 1)
  assert.equal(await kept(connect(t, { prepare: false })), 0)
})

test('a statement is prepared again when its table has changed', async (t) => {
  const sql = connect(t)
  await sql`create table t as select 1 as a`
  const all = () => sql`select * from t`
  assert.deepEqual([...(await all())], [{ a: 1 }])
  await sql`alter table t add b int default 2`
  const second = await all().catch((error) => assert.equal(error.code, '0A000'))
  assert.deepEqual([...(second ?? (await all().catch(all)))], [{ a: 1, b: 2 }])
})

test('describe', async (t) => {
  const sql = connect(t)
  const { types, columns } = await sql`select ${1}::int8 as a, 'x'::text as b where ${true}`.describe()
  assert.deepEqual(types, [20, 16])
  assert.deepEqual(columns.map(({ name, type }) => [name, type]), [['a', 20], ['b', 25]])
})

test('several statements, as a file has them', async (t) => {
  const sql = connect(t)
  const results = await sql.unsafe('create table t (n int); insert into t values (1), (2); select n from t order by n')
  assert.deepEqual([...results.find((result) => result.length)], [{ n: 1 }, { n: 2 }])
  await sqlstate(sql.unsafe('select $1::int; select 2', [1]), '42601')
})

test('100,000 rows: at once, by a cursor, row by row', async (t) => {
  const sql = connect(t)
  const query = () => sql`select n, 'row ' || n as s from generate_series(1, ${100_000}::int) n`
  const rows = await query()
  assert.ok(rows.length === 100_000 && rows.every(({ n, s }, i) => n === i + 1 && s === `row ${n}`))
  let sum = 0
  for await (const some of query().cursor(5000)) for (const { n } of some) sum += n
  await query().forEach(({ n }) => (sum -= n))
  assert.equal(sum, 0)
})

test('a cursor that is left', async (t) => {
  const sql = connect(t)
  const seen = []
  for await (const [{ n }] of sql`select n from generate_series(1, 1000000) n`.cursor()) {
    seen.push(n)
    if (n === 3) break
  }
  assert.deepEqual(seen, [1, 2, 3])
  assert.deepEqual([...(await sql`select 1 as one`)], [{ one: 1 }])
})

test('values of 5 MB', async (t) => {
  const sql = connect(t)
  const text = 'ä0123456789'.repeat(436_907)
  const bytes = Buffer.alloc(5 << 20, 7)
  const [row] = await sql`select ${text}::text as text, ${bytes}::bytea as bytes`
  assert.ok(row.text === text && row.bytes.equals(bytes))
})

test('COPY in and out', async (t) => {
  const sql = connect(t)
  await sql`create table t (n int, s text)`
  const line = (n) => `${n}\trow ${n}\n`
  const lines = Array.from({ length: 100 }, (_, n) => Array.from({ length: 1000 }, (_, m) => line(1000 * n + m)).join(''))
  await pipeline(Readable.from(lines), await sql`copy t from stdin`.writable())
  assert.deepEqual([...(await sql`select count(*)::int as n from t`)], [{ n: 100_000 }])
  const chunks = []
  for await (const chunk of await sql`copy (select * from t order by n) to stdout`.readable()) chunks.push(chunk)
  assert.equal(Buffer.concat(chunks).toString(), lines.join(''))
})

test('a large object', async (t) => {
  const sql = connect(t)
  const object = await sql.largeObject()
  await object.write(Buffer.from('dormouse'))
  await object.seek(3)
  assert.equal((await object.read(5))[0].data.toString(), 'mouse')
  await object.close()
})

test('transactions and savepoints', async (t) => {
  const sql = connect(t, { max: 2 })
  await sql`create table t (n int primary key)`
  const kept = await sql.begin('isolation level serializable', async (sql) => {
    await sql`insert into t values (1)`
    await sqlstate(sql.savepoint(async (sql) => {
      await sql`insert into t values (2)`
      await sql`insert into t values (1)`
    }), '23505')
    await sql.savepoint((sql) => sql`insert into t values (3)`)
    return sql`select n from t order by n`
  })
  assert.deepEqual([...kept], [{ n: 1 }, { n: 3 }])
  await assert.rejects(sql.begin(async (sql) => {
    await sql`insert into t values (4)`
    throw new Error('no')
  }), /^Error: no$/)
  // All at once, without waiting in between.
  await sqlstate(sql.begin((sql) => [sql`insert into t values (5)`, sql`insert into t values (5)`]), '23505')
  assert.deepEqual([...(await sql`select n from t order by n`)], [{ n: 1 }, { n: 3 }])
})

test('eight connections move money, and none is lost', async (t) => {
  const sql = connect(t, { max: 8, connection: { options: '-c deadlock_timeout=10ms' } })
  await sql`create table account as select id, 1000 as amount from generate_series(0, 9) id`
  const move = (from, to) => sql.begin('isolation level serializable', async (sql) => {
    await sql`update account set amount = amount - 1 where id = ${from}`
    await sql`update account set amount = amount + 1 where id = ${to}`
  })
  await Promise.all(Array.from({ length: 120 }, (_, n) => retrying(() => move(n % 10, (n * 7 + 1) % 10))))
  assert.deepEqual([...(await sql`select sum(amount)::int as sum, count(*)::int as count from account`)], [{ sum: 10_000, count: 10 }])
})
