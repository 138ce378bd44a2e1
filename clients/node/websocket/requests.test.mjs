// Queries, pipelines, settings and what is refused.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import WebSocket from 'ws'
import { httpAddress, ODD_TEXT, sqlstate } from '../server.mjs'
import { converse, newName } from './client.mjs'

test('a query and its result', async (t) => {
  const client = await converse(t)
  assert.equal(client.socket.protocol, 'dormouse.v1')
  assert.equal(client.hello.protocol, 'dormouse.v1')
  const result = await client.sql('select $1::int as n, $2::text as x, $3::jsonb as j', [1, ODD_TEXT, { a: [1] }])
  assert.deepEqual(result.rows, [{ n: 1, x: ODD_TEXT, j: { a: [1] } }])
  assert.deepEqual([result.command, result.rowCount, result.fields.map((field) => field.name)], ['SELECT', 1, ['n', 'x', 'j']])
  assert.deepEqual(await client.rows('select 1 as a, 2 as a', [], { rowMode: 'array' }), [[1, 2]])
  assert.deepEqual((await client.sql('create table t ()')).command, 'CREATE TABLE')
  assert.equal((await client.sql('')).command, null)
})

test('errors have their fields, and the next request goes on', async (t) => {
  const client = await converse(t)
  const error = await sqlstate(client.sql('select 1 frim x y'), '42601')
  assert.equal(error.position, 15)
  await sqlstate(client.sql('select $1::int', ['x']), '22P02')
  await sqlstate(client.sql('select $1::int'), '08P01')
  await sqlstate(client.sql('select 1; select 2'), '42601')
  await sqlstate(client.sql('copy (select 1) to stdout'), '0A000')
  await sqlstate(client.sql('create temporary table t (id int); copy t from stdin'), '42601')
  await sqlstate(client.sql('select 1', [], { timeoutMs: 0 }), '22023')
  assert.deepEqual(await client.rows('select 1 as one'), [{ one: 1 }])
})

test('a pipeline is answered in its order', async (t) => {
  const client = await converse(t)
  await client.sql('create table t (id int primary key)')
  const asked = []
  for (let n = 0; n < 200; n++) asked.push(client.sql(n % 50 === 49 ? 'insert into t values (0)' : 'insert into t values ($1) returning id', n % 50 === 49 ? [] : [n]))
  const answers = await Promise.allSettled(asked)
  assert.equal(answers.filter(({ status, reason }) => status === 'rejected' && reason.code === '23505').length, 4)
  assert.deepEqual(answers.filter(({ value }) => value).map(({ value }) => value.rows[0].id), Array.from({ length: 200 }, (_, n) => n).filter((n) => n % 50 !== 49))
  const order = client.answers.map(({ id }) => id)
  assert.deepEqual(order, [...order].sort((a, b) => a - b))
})

test('conversations are beside each other', async (t) => {
  const name = newName()
  const clients = await Promise.all(Array.from({ length: 20 }, () => converse(t, name)))
  await clients[0].sql('create table t (id int)')
  await Promise.all(clients.map((client, n) => client.sql('insert into t values ($1)', [n])))
  assert.deepEqual(await clients[5].rows('select count(distinct id)::int as n from t'), [{ n: 20 }])
})

test('settings and the role hold for what comes behind them', async (t) => {
  const client = await converse(t)
  await client.sql('create role reader')
  const show = "select current_setting('work_mem') as mem, current_user as role"
  const before = client.rows(show)
  client.ask({ set: { role: 'reader', settings: { work_mem: '2MB' } } })
  const between = client.rows(show)
  client.ask({ set: { role: null, settings: { work_mem: null } } })
  const after = client.rows(show)
  assert.deepEqual(await Promise.all([before, between, after]), [
    [{ mem: '4MB', role: 'postgres' }], [{ mem: '2MB', role: 'reader' }], [{ mem: '4MB', role: 'postgres' }],
  ])
  await client.ask({ set: { settings: { work_mem: 'much' } } })
  await sqlstate(client.sql(show), '22023')
  await client.ask({ set: { settings: { work_mem: null } } })
  assert.equal((await client.rows(show))[0].mem, '4MB')
  await sqlstate(client.ask({ set: { settings: { search_path: 'x'.repeat(100_000) } } }), '53400')
})

test('prepared statements are kept', async (t) => {
  const client = await converse(t)
  await client.ask({ prepare: 'twice', sql: 'select 2 * $1::int as n' })
  assert.deepEqual((await client.ask({ execute: 'twice', params: [21] })).rows, [{ n: 42 }])
  await client.ask({ forget: 'twice' })
  await sqlstate(client.ask({ execute: 'twice', params: [21] }), '26000')
})

test('large results come in parts', async (t) => {
  const client = await converse(t)
  const result = await client.sql("select n, repeat('x', 100) as x from generate_series(1, 30000) as n")
  assert.equal(result.rows.length, 30_000)
  assert.equal(result.rows[29_999].n, 30_000)
  assert.equal(result.rowCount, 30_000)
  assert.ok(result.parts > 100, `${result.parts} parts`)
  const [row] = await client.rows("select repeat('y', 3000000) as y")
  assert.equal(row.y.length, 3_000_000)
})

test('requests are cancelled, running or waiting', async (t) => {
  const client = await converse(t)
  const [slow, next, last] = [client.sql('select pg_sleep(60)'), client.sql('select 1 as one'), client.sql('select 2 as two')]
  const waiting = client.last - 1
  client.send({ cancel: waiting })
  setTimeout(() => client.send({ cancel: waiting - 1 }), 300)
  await sqlstate(slow, '57014')
  await sqlstate(next, '57014')
  assert.deepEqual((await last).rows, [{ two: 2 }])
  client.send({ cancel: 12345 })
  const error = await sqlstate(client.sql('select pg_sleep(60)', [], { timeoutMs: 100 }), '57014')
  assert.match(error.message, /100 ms/)
})

test('what is no request closes the socket', async (t) => {
  const wrong = async (message, code, reason) => {
    const client = await converse(t)
    client.socket.send(message, () => {})
    const closed = await client.closed
    assert.equal(closed.code, code)
    assert.match(closed.reason, reason)
  }
  await wrong('{', 4400, /EOF/)
  await wrong('[1]', 4400, /object/)
  await wrong('{"id":1,"sq":"x"}', 4400, /unknown field/)
  await wrong('{"id":1}', 4400, /"sql" is missing/)
  await wrong(Buffer.from('{}'), 1003, /binary/)
  await wrong(`{"id":1,"sql":"${'x'.repeat((16 << 20) + 1)}"}`, 1009, /websocket.message_bytes_max/)
  // A server that was told so much nonsense goes on.
  assert.deepEqual(await (await converse(t)).rows('select 1 as one'), [{ one: 1 }])
})

test('a client may ask whether anybody is there', async (t) => {
  const client = await converse(t)
  client.send({ ping: { at: 5 } })
  assert.deepEqual(await client.other(), { pong: { at: 5 } })
})

/** The status of the answer to a wish for a WebSocket. */
function status(path, protocols, options) {
  return new Promise((resolve) => {
    const socket = new WebSocket(`ws://${httpAddress}${path}`, protocols, options)
    const done = (code) => {
      socket.terminate()
      resolve(code)
    }
    socket.on('unexpected-response', (_, response) => {
      response.destroy()
      done(response.statusCode)
    })
    socket.on('open', () => done(101))
    socket.on('error', () => {})
  })
}

test('foreign pages and protocols are turned away', async () => {
  const ws = `/v1/databases/${newName()}/ws`
  assert.equal(await status(ws, ['graphql-ws']), 400)
  assert.equal(await status(ws, []), 101)
  assert.equal(await status(ws, ['graphql-ws', 'dormouse.v1']), 101)
  assert.equal(await status(ws, ['dormouse.v1'], { origin: 'https://evil.example' }), 403)
  assert.equal(await status(ws, ['dormouse.v1'], { origin: `http://${httpAddress}` }), 101)
  assert.equal(await status('/v2?address=example.com:5432', [], { origin: 'https://evil.example' }), 403)
  assert.equal(await status('/v2?address=example.com:5432', []), 101)
})
