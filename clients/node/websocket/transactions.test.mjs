// Interactive transactions.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { sqlstate } from '../server.mjs'
import { converse, newName } from './client.mjs'

async function begin(client, modes = {}) {
  const { transaction } = await client.ask({ begin: modes })
  return transaction
}

test('a transaction is committed or rolled back', async (t) => {
  const client = await converse(t)
  await client.sql('create table t (id int primary key)')
  for (const [end, count] of [['commit', 1], ['rollback', 1]]) {
    const transaction = await begin(client)
    await client.sql('insert into t values ($1)', [end.length], { transaction })
    assert.deepEqual(await client.rows('select count(*)::int as n from t', [], { transaction }), [{ n: count + (end === 'rollback' ? 1 : 0) }])
    await client.ask({ transaction, [end]: true })
    await sqlstate(client.sql('select 1', [], { transaction }), '25P01')
  }
  assert.deepEqual(await client.rows('select id from t'), [{ id: 6 }])
})

test('a whole transaction is sent at once', async (t) => {
  const client = await converse(t)
  await client.sql('create table t (id int)')
  const asked = [client.ask({ id: 100, begin: { isolation: 'serializable' } })]
  for (let n = 0; n < 10; n++) asked.push(client.sql('insert into t values ($1)', [n], { transaction: 100 }))
  asked.push(client.ask({ transaction: 100, commit: true }))
  await Promise.all(asked)
  assert.deepEqual(await client.rows('select count(*)::int as n from t'), [{ n: 10 }])
})

test('several transactions beside each other, and requests in none', async (t) => {
  const client = await converse(t)
  await client.sql('create table t (id int)')
  const open = await Promise.all([begin(client), begin(client), begin(client)])
  assert.equal(new Set(open).size, 3)
  await Promise.all(open.map((transaction) => client.sql('insert into t values ($1)', [transaction], { transaction })))
  assert.deepEqual(await client.rows('select count(*)::int as n from t'), [{ n: 0 }])
  await client.ask({ transaction: open[0], commit: true })
  await client.ask({ transaction: open[1], rollback: true })
  assert.deepEqual(await client.rows('select id from t'), [{ id: open[0] }])
  await client.ask({ transaction: open[2], commit: true })
})

test('modes hold', async (t) => {
  const client = await converse(t)
  const transaction = await begin(client, { isolation: 'repeatable read', readOnly: true })
  assert.deepEqual(await client.rows("select current_setting('transaction_isolation') as level", [], { transaction }), [{ level: 'repeatable read' }])
  await sqlstate(client.sql('create table t ()', [], { transaction }), '25006')
  await sqlstate(client.sql('select 1', [], { transaction }), '25P02')
  await sqlstate(client.ask({ transaction, commit: true }), '25P02')
  await sqlstate(client.ask({ transaction, commit: true }), '25P01')
})

test('a statement that ends its transaction itself ends it', async (t) => {
  const client = await converse(t)
  const transaction = await begin(client)
  await client.sql('create table t ()', [], { transaction })
  assert.equal((await client.sql('commit', [], { transaction })).command, 'COMMIT')
  await sqlstate(client.sql('select 1', [], { transaction }), '25P01')
  assert.deepEqual(await client.rows('select count(*)::int as n from t'), [{ n: 0 }])
})

test('a transaction that a statement begins outside of one is none', async (t) => {
  const client = await converse(t)
  await sqlstate(client.sql('begin'), '25001')
  assert.deepEqual(await client.rows('select 1 as one'), [{ one: 1 }])
})

test('who leaves rolls back', async (t) => {
  const name = newName()
  const [client, other] = [await converse(t, name), await converse(t, name)]
  await client.sql('create table t (id int)')
  const transaction = await begin(client)
  await client.sql('insert into t values (1)', [], { transaction })
  await client.sql('lock table t in access exclusive mode', [], { transaction })
  const waits = other.rows('select count(*)::int as n from t')
  assert.equal((await client.close()).code, 1000)
  assert.deepEqual(await waits, [{ n: 0 }])
})

test('there are not too many of them', async (t) => {
  const client = await converse(t)
  const begun = await Promise.allSettled(Array.from({ length: 17 }, (_, n) => client.ask({ id: 100 + n, begin: {} })))
  const refused = begun.filter(({ status }) => status === 'rejected')
  assert.deepEqual(refused.map(({ reason }) => reason.code), ['53400'])
  assert.match(refused[0].reason.message, /websocket.transactions_max/)
  await sqlstate(client.ask({ id: 100, begin: {} }), '25001')
})
