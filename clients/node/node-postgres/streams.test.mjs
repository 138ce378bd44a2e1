import assert from 'node:assert/strict'
import { Readable, Writable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { test } from 'node:test'
import { from, to } from 'pg-copy-streams'
import Cursor from 'pg-cursor'
import QueryStream from 'pg-query-stream'
import { ODD_TEXT, sqlstate } from '../server.mjs'
import { connect } from './client.mjs'

/** All that a stream of bytes has. */
async function read(stream) {
  const chunks = []
  for await (const chunk of stream) chunks.push(chunk)
  return Buffer.concat(chunks)
}

test('COPY in and out: 100,000 rows', async (t) => {
  const client = await connect(t)
  await client.query('create table t (n int, s text)')
  const lines = function* () {
    for (let n = 0; n < 100_000; n++) yield `${n}\trow ${n}\n`
  }
  const copy = client.query(from('copy t from stdin'))
  await pipeline(Readable.from(lines()), copy)
  assert.equal(copy.rowCount, 100_000)
  const { rows } = await client.query('select count(*)::int as count, sum(n)::bigint as sum from t')
  assert.deepEqual(rows, [{ count: 100_000, sum: '4999950000' }])
  const out = await read(client.query(to('copy (select * from t order by n) to stdout')))
  assert.ok(out.equals(Buffer.from([...lines()].join(''))))
})

test('COPY in CSV and in binary, through two tables', async (t) => {
  const client = await connect(t)
  await client.query('create table a (s text, b bytea, n numeric); create table b (like a)')
  await client.query('insert into a values ($1, $2, $3), (null, null, null)', [ODD_TEXT, Buffer.from([0, 255, 10]), '1.50'])
  for (const format of ['csv, header', 'binary', 'text']) {
    const bytes = await read(client.query(to(`copy a to stdout (format ${format})`)))
    await pipeline(Readable.from([bytes]), client.query(from(`copy b from stdin (format ${format})`)))
    const { rows } = await client.query('(table a except all table b) union all (table b except all table a)')
    assert.deepEqual(rows, [], format)
    await client.query('truncate b')
  }
})

test('a COPY that fails, and one that the client gives up', async (t) => {
  const client = await connect(t)
  await client.query('create table t (n int)')
  await sqlstate(pipeline(Readable.from(['1\n', 'x\n', '3\n']), client.query(from('copy t from stdin'))), '22P02')
  const copy = client.query(from('copy t from stdin'))
  copy.write('4\n')
  const closed = new Promise((resolve) => copy.once('error', resolve).once('close', resolve))
  copy.destroy()
  await closed
  assert.equal((await client.query('select count(*)::int as n from t')).rows[0].n, 0)
})

test('a cursor gives some rows at a time, and may be left', async (t) => {
  const client = await connect(t)
  const cursor = client.query(new Cursor('select n from generate_series(1, $1::int) n', [1_000_000]))
  assert.deepEqual((await cursor.read(3)).map(({ n }) => n), [1, 2, 3])
  assert.deepEqual((await cursor.read(2)).map(({ n }) => n), [4, 5])
  await cursor.close()
  const whole = client.query(new Cursor('select n from generate_series(1, 5) n'))
  assert.deepEqual([(await whole.read(4)).length, (await whole.read(4)).length, (await whole.read(4)).length], [4, 1, 0])
  const failing = client.query(new Cursor('select 1 / (3 - n) from generate_series(1, 5) n'))
  assert.equal((await failing.read(2)).length, 2)
  await sqlstate(failing.read(2), '22012')
  assert.equal((await client.query('select 1 as one')).rows[0].one, 1)
})

test('a stream of 100,000 rows', async (t) => {
  const client = await connect(t)
  let sum = 0
  const add = new Writable({
    objectMode: true,
    write({ n }, _, done) {
      sum += n
      done()
    },
  })
  await pipeline(client.query(new QueryStream('select n from generate_series(1, $1::int) n', [100_000], { batchSize: 1000 })), add)
  assert.equal(sum, 5_000_050_000)
})

test('a cursor of SQL, held beyond its transaction', async (t) => {
  const client = await connect(t)
  await client.query('begin; declare c scroll cursor with hold for select n from generate_series(1, 10) n; commit')
  const ask = async (sql) => (await client.query(sql)).rows.map(({ n }) => n)
  assert.deepEqual(await ask('fetch 3 from c'), [1, 2, 3])
  assert.deepEqual(await ask('fetch last from c'), [10])
  assert.deepEqual(await ask('fetch backward 2 from c'), [9, 8])
  await client.query('close c')
  await sqlstate(client.query('fetch c'), '34000')
})
