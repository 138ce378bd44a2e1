import assert from 'node:assert/strict'
import { test } from 'node:test'
import { sqlstate } from '../server.mjs'
import { connect } from './client.mjs'

test('several statements in one query', async (t) => {
  const client = await connect(t)
  const results = await client.query(`
    create table t (n int); insert into t values (1), (2); select n from t order by n; delete from t where n = 1`)
  assert.deepEqual(results.map((result) => [result.command, result.rowCount]), [
    ['CREATE', null], ['INSERT', 2], ['SELECT', 2], ['DELETE', 1],
  ])
  await sqlstate(client.query('insert into t values (3); select 1 / 0; insert into t values (4)'), '22012')
  // The query was one transaction.
  assert.equal((await client.query('select count(*)::int as n from t')).rows[0].n, 1)
})

test('nothing at all', async (t) => {
  const client = await connect(t)
  for (const text of ['', ' -- nothing', ';']) {
    assert.deepEqual((await client.query(text)).rows, [])
    assert.deepEqual((await client.query({ text, values: [] })).rows, [])
  }
})

test('queries that nobody waits for are answered in their order', async (t) => {
  const client = await connect(t, { pipeline: true })
  const asked = Array.from({ length: 200 }, (_, n) => client.query('select $1::int as n', [n]))
  const answers = await Promise.all(asked)
  assert.deepEqual(answers.map(({ rows }) => rows[0].n), answers.map((_, n) => n))
})

test('fields say where they come from', async (t) => {
  const client = await connect(t)
  await client.query('create table t (a int, b varchar(10), c numeric(8, 2))')
  const { rows, fields } = await client.query({ text: "select b, c, a, 'x' as b from t", rowMode: 'array' })
  assert.deepEqual(rows, [])
  const table = (await client.query("select 't'::regclass::oid as oid")).rows[0].oid
  assert.deepEqual(fields.map((field) => [field.name, field.tableID, field.columnID, field.dataTypeID, field.dataTypeModifier]), [
    ['b', table, 2, 1043, 14], ['c', table, 3, 1700, (8 << 16) + 2 + 4], ['a', table, 1, 23, -1], ['b', 0, 0, 25, -1],
  ])
})

test('a named statement is parsed once', async (t) => {
  const client = await connect(t)
  for (let n = 0; n < 20; n++) {
    const { rows } = await client.query({ name: 'add', text: 'select $1::int + 1 as sum', values: [n] })
    assert.equal(rows[0].sum, n + 1)
  }
  const { rows } = await client.query('select name, (generic_plans + custom_plans)::int as plans from pg_prepared_statements')
  assert.deepEqual(rows, [{ name: 'add', plans: 20 }])
})

test('many named statements, used in turn', async (t) => {
  const client = await connect(t)
  for (let round = 0; round < 3; round++) {
    for (let n = 0; n < 150; n++) {
      const { rows } = await client.query({ name: `s${n}`, text: `select ${n} + $1::int as sum`, values: [round] })
      assert.equal(rows[0].sum, n + round)
    }
  }
})

test('a named statement whose table has changed', async (t) => {
  const client = await connect(t)
  await client.query('create table t (a int); insert into t values (1)')
  const query = { name: 'all', text: 'select * from t' }
  assert.deepEqual((await client.query(query)).rows, [{ a: 1 }])
  await client.query('alter table t add b int default 2')
  await sqlstate(client.query(query), '0A000')
  assert.deepEqual((await client.query('select * from t')).rows, [{ a: 1, b: 2 }])
})

test('100,000 rows', async (t) => {
  const client = await connect(t)
  const { rows } = await client.query("select n, 'row ' || n as s from generate_series(1, 100000) n")
  assert.equal(rows.length, 100_000)
  assert.ok(rows.every(({ n, s }, i) => n === i + 1 && s === `row ${n}`))
})

test('20,000 parameters', async (t) => {
  const client = await connect(t)
  await client.query('create table t (n int)')
  const values = Array.from({ length: 20_000 }, (_, n) => n)
  await client.query(`insert into t values ${values.map((n) => `($${n + 1})`).join()}`, values)
  const { rows } = await client.query('select count(*)::int as count, sum(n)::int as sum from t')
  assert.deepEqual(rows, [{ count: 20_000, sum: 199_990_000 }])
})

test('values of 5 MB', async (t) => {
  const client = await connect(t)
  await client.query('create table t (s text, b bytea)')
  const s = 'ä0123456789'.repeat(436_907)
  const b = Buffer.alloc(5 << 20, (Math.PI * 1e15).toString(16), 'hex')
  await client.query('insert into t values ($1, $2)', [s, b])
  const { rows } = await client.query('select s, b, length(s) as length from t')
  assert.equal(rows[0].length, s.length)
  assert.ok(rows[0].s === s && rows[0].b.equals(b))
})

test('1,600 columns', async (t) => {
  const client = await connect(t)
  const { rows } = await client.query(`select ${Array.from({ length: 1600 }, (_, n) => `${n} as c${n}`).join()}`)
  assert.deepEqual(Object.values(rows[0]), Array.from({ length: 1600 }, (_, n) => n))
})
