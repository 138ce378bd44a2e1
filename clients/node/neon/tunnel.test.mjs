// The driver's WebSockets.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Client, neonConfig, Pool } from '@neondatabase/serverless'
import { newDatabase, ODD_TEXT, promised, sqlstate, until } from '../server.mjs'
import './client.mjs'

async function connect(t, config = {}, settings = {}) {
  const client = new Client({ connectionString: newDatabase(), ...config })
  Object.assign(client.neonConfig, settings)
  await client.connect()
  t.after(() => client.end())
  return client
}

test('queries in one session', async (t) => {
  const client = await connect(t)
  await client.query('create temporary table t (id int, x text)')
  await client.query('insert into t values ($1, $2)', [1, ODD_TEXT])
  const { rows, command, rowCount } = await client.query({ name: 'one', text: 'select * from t where id = $1', values: [1] })
  assert.deepEqual([rows, command, rowCount], [[{ id: 1, x: ODD_TEXT }], 'SELECT', 1])
  const error = await sqlstate(client.query('selec 1'), '42601')
  assert.equal(error.position, '1')
})

test('however the driver connects', async (t) => {
  for (const pipelineConnect of ['password', false]) {
    for (const coalesceWrites of [true, false]) {
      for (const password of ['x', undefined]) {
        if (pipelineConnect && password === undefined) continue
        const client = await connect(t, { password }, { pipelineConnect, coalesceWrites })
        assert.deepEqual((await client.query('select 1 as one')).rows, [{ one: 1 }])
      }
    }
  }
})

test('large messages in both directions', async (t) => {
  const client = await connect(t)
  const text = ODD_TEXT.repeat(40_000)
  const { rows } = await client.query('select $1::text as text, length($1) as n', [text])
  assert.equal(rows[0].text, text)
  const many = await client.query("select n, repeat('x', 100) as x from generate_series(1, 50000) as n")
  assert.equal(many.rows.length, 50_000)
  assert.equal(many.rows[49_999].n, 50_000)
})

test('transactions', async (t) => {
  const pool = new Pool({ connectionString: newDatabase(), max: 4 })
  t.after(() => pool.end())
  await pool.query('create table t (id int primary key)')
  const client = await pool.connect()
  await client.query('begin isolation level serializable')
  await client.query('insert into t values (1)')
  assert.equal((await pool.query('select * from t')).rowCount, 0)
  await sqlstate(client.query('insert into t values (1)'), '23505')
  await sqlstate(client.query('select 1'), '25P02')
  await client.query('rollback')
  client.release()
  assert.equal((await pool.query('select * from t')).rowCount, 0)
  await Promise.all(Array.from({ length: 40 }, (_, n) => pool.query('insert into t values ($1)', [n])))
  assert.equal((await pool.query('select * from t')).rowCount, 40)
})

test('notifications', async (t) => {
  const connectionString = newDatabase()
  const [listener, other] = [await connect(t, { connectionString }), await connect(t, { connectionString })]
  const { promise, resolve } = promised()
  listener.on('notification', resolve)
  await listener.query('listen news')
  await other.query("select pg_notify('news', $1)", [ODD_TEXT])
  const { channel, payload } = await promise
  assert.deepEqual([channel, payload], ['news', ODD_TEXT])
})

test('a statement is cancelled', async (t) => {
  const connectionString = newDatabase()
  const [client, other] = [await connect(t, { connectionString }), await connect(t, { connectionString })]
  const { rows: [{ pid }] } = await client.query('select pg_backend_pid() as pid')
  const cancelled = sqlstate(client.query('select pg_sleep(60)'), '57014')
  await until(async () => (await other.query('select pg_cancel_backend($1) as done', [pid])).rows[0].done
    && (await other.query("select state from pg_stat_activity where pid = $1 and state = 'idle'", [pid])).rowCount)
  await cancelled
  assert.equal((await client.query('select 1')).rowCount, 1)
})

test('who leaves in the midst leaves nothing', async (t) => {
  const connectionString = newDatabase()
  const other = await connect(t, { connectionString })
  await other.query('create table t (id int)')
  const client = new Client({ connectionString })
  client.on('error', () => {})
  await client.connect()
  await client.query('begin')
  await client.query('insert into t values (1)')
  const { rows: [{ pid }] } = await client.query('select pg_backend_pid() as pid')
  client.connection.stream.ws.terminate()
  await until(async () => (await other.query("select 1 from pg_stat_activity where pid = $1 and state like '%transaction%'", [pid])).rowCount === 0)
  assert.equal((await other.query('select * from t')).rowCount, 0)
})

test('the pool over HTTP', async (t) => {
  neonConfig.poolQueryViaFetch = true
  t.after(() => { neonConfig.poolQueryViaFetch = false })
  const pool = new Pool({ connectionString: newDatabase() })
  t.after(() => pool.end())
  const { rows, viaNeonFetch } = await pool.query('select $1::int as n', [5])
  assert.deepEqual([rows, viaNeonFetch], [[{ n: 5 }], true])
})
