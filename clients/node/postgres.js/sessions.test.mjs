import assert from 'node:assert/strict'
import { test } from 'node:test'
import pg from 'pg'
import { newDatabase, promised, sqlstate, until } from '../server.mjs'
import { connect } from './client.mjs'

test('options of the address and of the client', async (t) => {
  const options = { connection: { application_name: 'dormice', search_path: 'nest', statement_timeout: 1234 } }
  const sql = connect(t, options, `${newDatabase()}?sslmode=disable&geqo=off`)
  const names = ['application_name', 'search_path', 'statement_timeout', 'geqo']
  const values = await Promise.all(names.map(async (name) => (await sql`select current_setting(${name}) as value`)[0].value))
  assert.deepEqual(values, ['dormice', 'nest', '1234ms', 'off'])
  assert.deepEqual([sql.parameters.application_name, sql.parameters.server_version.slice(0, 2)], ['dormice', '18'])
})

test('errors have the fields of the server', async (t) => {
  const sql = connect(t)
  await sql`create table t (name text constraint named unique)`
  await sql`insert into t values ('a')`
  const error = await sqlstate(sql`insert into t values (${'a'})`, '23505')
  assert.deepEqual([error.severity, error.table_name, error.constraint_name, error.detail],
    ['ERROR', 't', 'named', 'Key (name)=(a) already exists.'])
  assert.equal((await sqlstate(sql`selec 1`, '42601')).position, '1')
})

test('a statement is cancelled', async (t) => {
  const sql = connect(t)
  await sql`select 1`
  const sleeping = sql`select pg_sleep(60)`
  const ended = sqlstate(sleeping, '57014').then(() => true)
  // A request that comes before the statement has begun cancels nothing.
  const stop = setInterval(() => sleeping.cancel(), 50)
  await ended
  clearInterval(stop)
  assert.ok(await until(() => sql`select 1 as one`.catch(() => null)))
})

test('statement_timeout', async (t) => {
  const sql = connect(t, { connection: { statement_timeout: 100 } })
  await sqlstate(sql`select pg_sleep(60)`, '57014')
  assert.equal((await sql`select 1 as one`)[0].one, 1)
})

test('a connection that the server ended is made again', async (t) => {
  const address = newDatabase()
  const sql = connect(t, {}, address)
  await sql`create table t as select 1 as n`
  const [{ pid }] = await sql`select pg_backend_pid() as pid`
  const other = new pg.Client(address)
  await other.connect()
  await other.query('select pg_terminate_backend($1)', [pid])
  await other.end()
  assert.deepEqual([...(await until(() => sql`select n from t`.catch(() => null)))], [{ n: 1 }])
})

test('connections that are closed when idle, or old', async (t) => {
  const sql = connect(t, { idle_timeout: 0.05, max_lifetime: 0.1 })
  for (let n = 0; n < 5; n++) {
    assert.equal((await sql`select ${n}::int as n`)[0].n, n)
    await new Promise((resolve) => setTimeout(resolve, 60))
  }
})

test('a reserved connection has its own session', async (t) => {
  const sql = connect(t, { max: 2 })
  const one = await sql.reserve()
  await one`create temp table t as select 7 as n`
  assert.equal((await one`select n from t`)[0].n, 7)
  await sqlstate(sql`select n from t`, '42P01')
  one.release()
})

test('listen', async (t) => {
  const sql = connect(t, { max: 2 })
  const heard = promised()
  await sql.listen('nest', heard.resolve)
  await sql.notify('nest', 'eggs')
  assert.equal(await heard.promise, 'eggs')
})

test('a subscription to changes is refused', async (t) => {
  const sql = connect(t, { publications: 'alltables' })
  await sqlstate(sql.subscribe('*', () => {}), '0A000')
})

test('thirty databases, one after the other', async (t) => {
  const admin = connect(t)
  for (let n = 0; n < 30; n++) {
    const address = newDatabase()
    const name = new URL(address).pathname.slice(1)
    await admin`create database ${admin(name)}`
    const sql = connect(t, {}, address)
    await sql`create table t as select ${n}::int as n`
    assert.deepEqual([...(await sql`select n, current_database() as name from t`)], [{ n, name }])
    await sql.end()
    await admin`drop database ${admin(name)} with (force)`
  }
})
