// Clients that are cut off and come back, and clients that do not read.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { sqlstate } from '../server.mjs'
import { Conversation, converse, newName } from './client.mjs'

const keys = ({ hello: { session, secret }, received }) => ({ session, secret, received })

test('what a client missed is sent again', async (t) => {
  const client = await converse(t)
  await client.sql('create table t (id int)')
  await client.ask({ prepare: 'p', sql: "select current_setting('work_mem') as mem" })
  await client.ask({ set: { settings: { work_mem: '3MB' } } })
  const { transaction } = await client.ask({ id: 50, begin: {} })
  await client.sql('insert into t values (1)', [], { transaction })
  // Cut off in the midst of this.
  client.send({ id: 60, sql: "select n from generate_series(1, 20000) as n, pg_sleep(0.3)" })
  client.send({ id: 61, sql: 'select 61 as n' })
  const cut = keys(client)
  await new Promise((resolve) => setTimeout(resolve, 100))
  client.socket.terminate()
  await client.closed

  const back = new Conversation()
  t.after(() => back.socket.terminate())
  const [many, last] = [back.expect(60), back.expect(61)]
  await back.connect(client.name, cut)
  assert.equal((await many).rows.length, 20_000)
  assert.deepEqual((await last).rows, [{ n: 61 }])
  back.last = 100
  assert.deepEqual((await back.ask({ execute: 'p' })).rows, [{ mem: '3MB' }])
  await back.ask({ transaction, commit: true })
  assert.deepEqual(await back.rows('select id from t'), [{ id: 1 }])
})

test('answers that were sent and not received are sent again', async (t) => {
  const client = await converse(t)
  await client.sql('select 1 as n')
  const answers = [await client.sql('select 2 as n'), await client.sql('select 3 as n')]
  assert.equal(answers.length, 2)
  const cut = { ...keys(client), received: 1 }
  client.socket.terminate()
  const back = new Conversation()
  t.after(() => back.socket.terminate())
  const [second, third] = [back.expect(2), back.expect(3)]
  await back.connect(client.name, cut)
  assert.equal(back.resumed.answers, 2)
  assert.deepEqual([(await second).rows, (await third).rows], [[{ n: 2 }], [{ n: 3 }]])
})

test('a conversation goes on elsewhere', async (t) => {
  const client = await converse(t)
  await client.ask({ set: { settings: { work_mem: '3MB' } } })
  const back = await converse(t, client.name, keys(client))
  assert.deepEqual(await client.closed, { code: 4409, reason: 'the conversation goes on elsewhere' })
  back.last = 10
  assert.deepEqual(await back.rows("select current_setting('work_mem') as mem"), [{ mem: '3MB' }])
  // And once more.
  await converse(t, client.name, { ...keys(client), received: 2 })
})

test('nobody else goes on with it', async (t) => {
  const client = await converse(t)
  await client.sql('select 1')
  const right = keys(client)
  const refused = (resume, name = client.name) => assert.rejects(Conversation.open(name, resume), { code: 4404 })
  await refused({ ...right, secret: right.secret.replace(/./, (digit) => (digit === '0' ? '1' : '0')) })
  await refused({ ...right, session: '0000000000000000' })
  await refused({ ...right, session: 'x' })
  await refused({ ...right, received: 7 })
  await refused(right, newName())
  assert.deepEqual(await client.rows('select 1 as one'), [{ one: 1 }])
  // Who says goodbye is not waited for.
  await client.close()
  await refused(right)
  const late = await converse(t)
  await late.sql('select 1')
  late.send({ resume: keys(late) })
  assert.equal((await late.closed).code, 4400)
})

test('a client that does not read stops its statement', async (t) => {
  const client = await converse(t)
  const other = await converse(t, client.name)
  // From then on there is room beside a statement.
  const { transaction } = await client.ask({ begin: {} })
  await other.sql('create sequence s')
  await client.ask({ transaction, rollback: true })
  const sent = () => other.rows('select last_value::int as n from s').then(([{ n }]) => n)
  client.socket.pause()
  const asked = client.sql("select nextval('s'), repeat('x', 1000) from generate_series(1, 100000)")
  let [before, now] = [-1, 0]
  // It stands still at the same row for a while, far from the end.
  for (let still = 0; still < 10; before = now) {
    now = await sent()
    still = now === before && now > 1 ? still + 1 : 0
    await new Promise((resolve) => setTimeout(resolve, 30))
  }
  assert.ok(now < 50_000, `${now} of 100000 rows`)
  client.socket.resume()
  assert.equal((await asked).rows.length, 100_000)
})

test('a statement that waits for its client is cancelled', async (t) => {
  const client = await converse(t)
  client.socket.pause()
  const asked = client.sql("select repeat('x', 1000) from generate_series(1, 100000)")
  const error = sqlstate(asked, '57014')
  setTimeout(() => client.send({ cancel: client.last }), 500)
  setTimeout(() => client.socket.resume(), 1000)
  await error
  assert.deepEqual(await client.rows('select 1 as one'), [{ one: 1 }])
})

test('cut off again and again, each request is done and answered once', async (t) => {
  const name = newName()
  let client = await converse(t, name)
  await client.sql('create table t (id int primary key, text text)')
  const [count, answered] = [400, []]
  let [next, cuts] = [10, 0]
  const promises = []
  const watch = (id) => promises.push(client.expect(id).then((answer) => answered.push([id, answer.rows[0].id])))
  for (; next < 10 + count; next++) {
    watch(next)
    client.send({ id: next, sql: "insert into t values ($1, repeat('x', 2000)) returning *", params: [next] })
    if (next % 40 !== 0) continue
    // The kernel may have taken requests that the server never gets: those must have gone first.
    await client.ask({ id: 0, sql: 'select 1' })
    watch(next + 1_000_000)
    client.send({ id: next + 1_000_000, sql: "insert into t values ($1, 'late') returning *", params: [next + 1_000_000] })
    await new Promise((resolve) => setTimeout(resolve, (next % 7) * 3))
    const old = client
    old.socket.terminate()
    await old.closed
    client = new Conversation()
    client.inherit(old)
    await client.connect(name, keys(old))
    cuts += 1
    // Whether the last one arrived is known by now: what was not answered was lost with the socket.
    await client.ask({ id: 0, sql: 'select 1' })
    if (!answered.some(([id]) => id === next + 1_000_000)) {
      client.send({ id: next + 1_000_000, sql: "insert into t values ($1, 'late') returning *", params: [next + 1_000_000] })
    }
  }
  await Promise.all(promises)
  t.after(() => client.socket.terminate())
  assert.ok(cuts >= 10)
  assert.equal(answered.length, new Set(answered.map(([id]) => id)).size)
  assert.ok(answered.every(([id, row]) => id === row))
  client.last = 5
  assert.deepEqual(await client.rows('select count(*)::int as n from t'), [{ n: answered.length }])
})
