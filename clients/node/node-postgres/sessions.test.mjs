import assert from 'node:assert/strict'
import { once } from 'node:events'
import { test } from 'node:test'
import pg from 'pg'
import { newDatabase, promised, sqlstate, until } from '../server.mjs'
import { as, connect, pool, sessions } from './client.mjs'

const setting = async (client, name) => (await client.query('select current_setting($1) as value', [name])).rows[0].value

test('options of the address', async (t) => {
  const address = `${newDatabase()}?application_name=dormice&options=-c%20search_path%3Dnest%2Cpublic%20-c%20geqo%3Doff&sslmode=disable`
  const client = await connect(t, { connectionString: address })
  assert.equal(await setting(client, 'application_name'), 'dormice')
  assert.equal(await setting(client, 'search_path'), 'nest,public')
  assert.equal(await setting(client, 'geqo'), 'off')
})

test('options of the client', async (t) => {
  const client = await connect(t, {
    application_name: 'mouse', statement_timeout: 1234, lock_timeout: 2345, idle_in_transaction_session_timeout: 3456, keepAlive: true,
  })
  assert.equal(await setting(client, 'application_name'), 'mouse')
  assert.equal(await setting(client, 'statement_timeout'), '1234ms')
  assert.equal(await setting(client, 'lock_timeout'), '2345ms')
  assert.equal(await setting(client, 'idle_in_transaction_session_timeout'), '3456ms')
})

test('a setting that is none refuses the connection', async (t) => {
  const client = new pg.Client({ connectionString: `${newDatabase()}?options=-c%20nonsense%3D1` })
  await sqlstate(client.connect(), '42704')
  await client.end()
})

test('a role that is none refuses the connection', async (t) => {
  const client = new pg.Client({ connectionString: as('nobody', newDatabase()) })
  await sqlstate(client.connect(), '28000')
  await client.end()
})

test('a role of one\'s own', async (t) => {
  const connectionString = newDatabase()
  const owner = await connect(t, { connectionString })
  await owner.query("create role reader login; create table t (n int); grant select on t to reader")
  const reader = await connect(t, { connectionString: as('reader', connectionString) })
  assert.deepEqual((await reader.query('select current_user::text as me, session_user::text as session')).rows, [{ me: 'reader', session: 'reader' }])
  assert.deepEqual((await reader.query('select * from t')).rows, [])
  await sqlstate(reader.query('insert into t values (1)'), '42501')
})

test('statement_timeout', async (t) => {
  const client = await connect(t, { statement_timeout: 100 })
  await sqlstate(client.query('select pg_sleep(60)'), '57014')
  await sqlstate(client.query('select count(*) from generate_series(1, 1000000000000)'), '57014')
  assert.equal((await client.query('select 1 as one')).rows[0].one, 1)
})

test('query_timeout, of the driver', async (t) => {
  const client = await connect(t)
  await assert.rejects(client.query({ text: 'select pg_sleep(1)', query_timeout: 50 }), /Query read timeout/)
  assert.equal((await client.query('select 1 as one')).rows[0].one, 1)
})

test('a statement is cancelled by the driver', async (t) => {
  const connectionString = newDatabase()
  const client = await connect(t, { connectionString })
  const query = new pg.Query('select pg_sleep(60)')
  const failed = once(query, 'error')
  client.query(query)
  // A request that comes before the statement has begun cancels nothing.
  const stop = setInterval(() => new pg.Client({ connectionString }).cancel(client, query), 50)
  const [error] = await failed
  clearInterval(stop)
  assert.equal(error.code, '57014')
  assert.equal(await until(async () => (await client.query('select 1 as one').catch(() => null))?.rows[0].one), 1)
})

test('pg_cancel_backend from another session', async (t) => {
  const [a, b] = await sessions(t, 2)
  const { rows } = await a.query('select pg_backend_pid() as pid')
  const sleeping = sqlstate(a.query('select pg_sleep(60)'), '57014')
  await until(async () => (await b.query("select state = 'active' and query ~ 'sleep' as busy from pg_stat_activity where pid = $1", [rows[0].pid])).rows[0].busy)
  assert.equal((await b.query('select pg_cancel_backend($1) as done', [rows[0].pid])).rows[0].done, true)
  await sleeping
})

test('notifications of one\'s own, and of others', async (t) => {
  const [a, b] = await sessions(t, 2)
  const heard = []
  a.on('notification', ({ channel, payload }) => heard.push([channel, payload]))
  await a.query('listen nest; listen "Odd name"')
  await a.query('notify nest')
  assert.deepEqual(heard, [['nest', '']])
  await b.query('begin')
  await b.query('select pg_notify($1, $2)', ['Odd name', 'ä'.repeat(3000)])
  await b.query("notify nest, 'two'")
  await a.query('select 1')
  assert.equal(heard.length, 1)
  await b.query('commit')
  await until(async () => (await a.query('select 1')) && heard.length === 3)
  assert.deepEqual(heard.slice(1), [['Odd name', 'ä'.repeat(3000)], ['nest', 'two']])
  await a.query('unlisten *')
  await b.query('notify nest')
  await a.query('select 1')
  assert.equal(heard.length, 3)
})

test('what belongs to a session is not seen by others', async (t) => {
  const [a, b] = await sessions(t, 2)
  await a.query("create temp table t (n int); set search_path = nest; prepare p as select 1; select pg_advisory_lock(7)")
  await sqlstate(b.query('select * from t'), '42P01')
  await sqlstate(b.query('execute p'), '26000')
  assert.equal(await setting(b, 'search_path'), '"$user", public')
  assert.equal((await b.query('select pg_try_advisory_lock(7) as locked')).rows[0].locked, false)
  await a.query('discard all')
  assert.equal((await b.query('select pg_try_advisory_lock(7) as locked')).rows[0].locked, true)
  assert.equal(await setting(a, 'search_path'), '"$user", public')
})

test('a pool goes on after the server ended a connection', async (t) => {
  const p = pool(t, { max: 1 })
  const lost = promised()
  p.on('error', lost.resolve)
  await p.query('create table t (n int); insert into t values (1)')
  await sqlstate(p.query('select pg_terminate_backend(pg_backend_pid())'), '57P01')
  const { rows } = await until(() => p.query('select n from t').catch(() => null))
  assert.deepEqual(rows, [{ n: 1 }])
})

test('a client that goes in the middle of a transaction leaves nothing', async (t) => {
  const connectionString = newDatabase()
  const a = new pg.Client({ connectionString })
  await a.connect()
  a.on('error', () => {})
  await a.query('create table t (n int); insert into t values (1)')
  await a.query('begin; lock table t; insert into t values (2)')
  a.connection.stream.destroy()
  const b = await connect(t, { connectionString })
  assert.deepEqual((await b.query('select n from t')).rows, [{ n: 1 }])
})

test('thirty databases, one after the other', async (t) => {
  const admin = await connect(t)
  for (let n = 0; n < 30; n++) {
    const connectionString = newDatabase()
    const name = new URL(connectionString).pathname.slice(1)
    await admin.query(`create database ${name}`)
    const client = new pg.Client({ connectionString })
    await client.connect()
    await client.query('create table t (n int)')
    await client.query('insert into t values ($1)', [n])
    assert.deepEqual((await client.query('select n, current_database()::text as name from t')).rows, [{ n, name }])
    await client.end()
    await admin.query(`drop database ${name} with (force)`)
  }
})
