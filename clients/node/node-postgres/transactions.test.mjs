import assert from 'node:assert/strict'
import { test } from 'node:test'
import { retrying, sqlstate } from '../server.mjs'
import { connect, pool as plainPool, sessions as plainSessions } from './client.mjs'

// Deadlocks are looked for at once: a second for each is most of the test otherwise.
const SOON = { options: '-c deadlock_timeout=10ms' }
const pool = (t) => plainPool(t, SOON)
const sessions = (t, count) => plainSessions(t, count, SOON)

test('commit, rollback, and an error in between', async (t) => {
  const client = await connect(t)
  await client.query('create table t (n int primary key)')
  await client.query('begin')
  await client.query('insert into t values (1)')
  await client.query('commit')
  await client.query('begin')
  await client.query('insert into t values (2)')
  await sqlstate(client.query('insert into t values ($1)', [1]), '23505')
  await sqlstate(client.query('select 1'), '25P02')
  assert.equal((await client.query('commit')).command, 'ROLLBACK')
  assert.deepEqual((await client.query('select n from t')).rows, [{ n: 1 }])
})

test('savepoints', async (t) => {
  const client = await connect(t)
  await client.query('create table t (n int); begin; insert into t values (1); savepoint a; insert into t values (2)')
  await sqlstate(client.query('select 1 / $1::int', [0]), '22012')
  await client.query('rollback to a')
  await client.query('insert into t values (3); savepoint b; insert into t values (4); release b; commit')
  assert.deepEqual((await client.query('select n from t order by n')).rows.map(({ n }) => n), [1, 3, 4])
})

test('what others see', async (t) => {
  const [a, b] = await sessions(t, 2)
  const count = async (client) => (await client.query('select count(*)::int as n from t')).rows[0].n
  await a.query('create table t (n int)')
  await a.query('begin')
  await a.query('insert into t values (1)')
  assert.deepEqual([await count(a), await count(b)], [1, 0])
  await b.query('begin isolation level repeatable read')
  assert.equal(await count(b), 0)
  await a.query('commit')
  assert.equal(await count(b), 0)
  await b.query('commit')
  assert.equal(await count(b), 1)
})

test('a snapshot keeps its rows, however often others change them', async (t) => {
  const clients = await sessions(t, 3)
  await clients[0].query('create table t (id int primary key, n int); insert into t select id, 0 from generate_series(0, 9) id')
  // Enough versions for pages to be full, and to be cleared of those that nobody sees.
  const change = "do $$ begin for i in 1..500 loop update t set n = n + 1 where id = i % 10; commit; end loop; end $$"
  for (const [reader, writer] of [[0, 1], [1, 0], [1, 2], [2, 1]]) {
    await clients[reader].query('begin isolation level repeatable read')
    const { rows } = await clients[reader].query('select * from t order by id')
    await clients[writer].query(change)
    assert.deepEqual((await clients[reader].query('select * from t order by id')).rows, rows)
    await clients[reader].query('commit')
  }
})

test('a table that another reads is not altered', async (t) => {
  const clients = await sessions(t, 3)
  await clients[0].query('create table t (n int)')
  for (const [reader, writer] of [[0, 1], [1, 0], [1, 2], [2, 1]]) {
    await clients[reader].query('begin; select * from t')
    await clients[writer].query("set lock_timeout = '20ms'")
    await sqlstate(clients[writer].query('alter table t add m int'), '55P03')
    await clients[reader].query('commit')
  }
})

test('a row that another changed is refused to a serializable transaction, which may try again', async (t) => {
  const [a, b] = await sessions(t, 2)
  await a.query('create table t (n int); insert into t values (0)')
  for (const client of [a, b]) {
    await client.query('begin isolation level serializable')
    await client.query('select n from t')
  }
  await a.query('update t set n = n + 1')
  await a.query('commit')
  await sqlstate(b.query('update t set n = n + 10'), '40001')
  await b.query('rollback')
  await b.query('update t set n = n + 10')
  assert.equal((await a.query('select n from t')).rows[0].n, 11)
})

test('of a deadlock one is told, and the other goes on', async (t) => {
  const [a, b] = await sessions(t, 2)
  await a.query('create table t (id int primary key, n int); insert into t values (1, 0), (2, 0)')
  for (const [client, id] of [[a, 1], [b, 2]]) {
    await client.query('begin')
    await client.query('update t set n = n + 1 where id = $1', [id])
  }
  const outcomes = await Promise.allSettled([
    a.query('update t set n = n + 1 where id = 2'),
    b.query('update t set n = n + 1 where id = 1').finally(() => b.query('rollback')),
  ])
  const failed = outcomes.filter(({ status }) => status === 'rejected')
  assert.deepEqual(failed.map(({ reason }) => reason.code), ['40P01'])
})

test('a lock that is not given in time', async (t) => {
  const [a, b] = await sessions(t, 2)
  await a.query('create table t (n int); insert into t values (1)')
  await a.query('begin; update t set n = 2')
  await sqlstate(b.query('select * from t for update nowait'), '55P03')
  await b.query("set lock_timeout = '50ms'")
  await sqlstate(b.query('update t set n = 3'), '55P03')
  assert.deepEqual((await b.query('select n from t for update skip locked')).rows, [])
  await a.query('commit')
  assert.equal((await b.query('update t set n = n + 1 returning n')).rows[0].n, 3)
})

test('eight clients move money, and none is lost', async (t) => {
  const p = pool(t)
  await p.query('create table account (id int primary key, amount int); insert into account select id, 1000 from generate_series(0, 9) id')
  const move = async (from, to) => {
    const client = await p.connect()
    try {
      await client.query('begin isolation level repeatable read')
      await client.query('update account set amount = amount - 1 where id = $1', [from])
      await client.query('update account set amount = amount + 1 where id = $1', [to])
      await client.query('commit')
    } catch (error) {
      await client.query('rollback')
      throw error
    } finally {
      client.release()
    }
  }
  const work = Array.from({ length: 8 }, async (_, worker) => {
    for (let n = 0; n < 25; n++) await retrying(() => move((worker + n) % 10, (worker * 3 + n * 7 + 1) % 10))
  })
  await Promise.all(work)
  assert.equal(p.totalCount, 8)
  const { rows } = await p.query('select sum(amount)::int as sum, count(*)::int as count from account')
  assert.deepEqual(rows, [{ sum: 10_000, count: 10 }])
})

test('a pool of eight counts to 400', async (t) => {
  const p = pool(t)
  await p.query('create table counter (n int); insert into counter values (0)')
  await Promise.all(Array.from({ length: 400 }, () => p.query('update counter set n = n + $1', [1])))
  assert.equal((await p.query('select n from counter')).rows[0].n, 400)
})
