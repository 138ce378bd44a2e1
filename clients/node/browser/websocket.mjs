// Pages that speak `dormouse.v1`.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { layWire } from './pages.mjs'
import { openAdmin, openPage, suite } from './suite.mjs'

test('requests in a row, and a transaction, with the token as a subprotocol', async (t) => {
  const { page, at } = await openPage(t)
  const { protocol, answers, closed } = await page.evaluate(async (at) => {
    const conversation = new Conversation(at)
    await conversation.hello()
    conversation.send(
      { id: 1, sql: 'create table t (id int)' }, { id: 2, sql: 'insert into t values ($1)', params: [1] }, { id: 3, sql: 'selec' }, { id: 4, sql: 'select * from t' },
    )
    await conversation.answer(4)
    conversation.send(
      { id: 5, begin: { isolation: 'serializable' } }, { id: 6, transaction: 5, sql: 'insert into t values (2)' }, { id: 7, transaction: 5, commit: true },
    )
    await conversation.answer(7)
    conversation.send({ id: 8, sql: "select count(*)::int as n, repeat('mouse', 100000) as text from t" })
    await conversation.answer(8)
    conversation.socket.close(1000)
    return { protocol: conversation.socket.protocol, answers: conversation.messages, closed: await conversation.closed }
  }, at)
  const answer = (id) => answers.find((message) => message.id === id)
  assert.equal(protocol, 'dormouse.v1')
  assert.equal(answer(3).error.code, '42601')
  assert.deepEqual(answer(4).rows, [{ id: 1 }])
  assert.deepEqual([answer(5).transaction, answer(7).ok], [5, true])
  assert.deepEqual([answer(8).rows[0].n, answer(8).rows[0].text.length], [2, 500_000])
  assert.deepEqual([closed.code, closed.wasClean], [1000, true])
})

test('a token that is for one database names it', async (t) => {
  const { page, at, asks } = await openAdmin(t)
  await page.evaluate((at) => query(at, 'select 1'), at)
  const made = await asks('POST', '/v1/tokens', { name: `for ${at.database}`, scope: 'read', database: at.database })
  const rows = await page.evaluate(async (at) => {
    const conversation = new Conversation(at)
    await conversation.hello()
    conversation.send({ id: 1, sql: 'select current_database() as name' })
    return (await conversation.answer(1)).rows
  }, { http: at.http, token: made.document.token, path: '/ws' })
  assert.deepEqual(rows, [{ name: at.database }])
})

test('a statement is cancelled', async (t) => {
  const { page, at } = await openPage(t)
  const code = await page.evaluate(async (at) => {
    const conversation = new Conversation(at)
    await conversation.hello()
    conversation.send({ id: 1, sql: 'select pg_sleep(60)' }, { cancel: 1 })
    return (await conversation.answer(1)).error.code
  }, at)
  assert.equal(code, '57014')
})

test('a conversation goes on after the connection was cut', async (t) => {
  const { page, at } = await openPage(t)
  const wire = await layWire((end) => t.after(end), suite.server.http)
  await page.evaluate(async ({ at, wired }) => {
    await query(at, 'create table t (id int)')
    // The last answer cannot be made before the page gives this lock back.
    const lock = await ask(at, `/v1/databases/${at.database}/transactions`, {})
    window.lock = lock.headers.get('location')
    await ask(at, `${window.lock}/query`, { sql: 'select pg_advisory_xact_lock(1)' })
    const conversation = window.conversation = new Conversation(wired)
    window.hello = await conversation.hello()
    conversation.send(
      { id: 2, begin: {} }, { id: 3, transaction: 2, sql: 'insert into t values (1)' },
      { id: 4, transaction: 2, sql: 'select id, pg_advisory_xact_lock(1)::text as waited from t' },
    )
    const waiting = "select 1 from pg_stat_activity where state = 'active' and query like '%as waited from t' and pid <> pg_backend_pid()"
    while ((await query(at, waiting)).document.rows.length === 0);
  }, { at, wired: { ...at, http: wire.address } })
  wire.cut()
  const { cut, early, resumed, rows, committed } = await page.evaluate(async (at) => {
    const { conversation, hello } = window
    const cut = await conversation.closed
    const early = conversation.messages.some(({ id }) => id === 4)
    const again = new Conversation(at)
    await again.hello()
    again.send({ resume: { session: hello.session, secret: hello.secret, received: conversation.received } })
    const { resumed } = await again.until((message) => message.resumed)
    await ask(at, `${window.lock}/commit`, {})
    const { rows } = await again.answer(4)
    again.send({ id: 5, transaction: 2, commit: true })
    await again.answer(5)
    again.send({ id: 6, sql: 'select * from t' })
    return { cut, early, resumed: resumed.session === hello.session, rows, committed: (await again.answer(6)).rows }
  }, at)
  assert.deepEqual([cut.code, cut.wasClean], [1006, false])
  assert.deepEqual([early, resumed], [false, true])
  assert.deepEqual([rows, committed], [[{ id: 1, waited: '' }], [{ id: 1 }]])
})

test('another tab takes a conversation over', async (t) => {
  const { page, at } = await openPage(t)
  const [closed, wrong] = await page.evaluate(async (at) => {
    const first = new Conversation(at)
    const { session, secret } = await first.hello()
    const second = new Conversation(at)
    await second.hello()
    second.send({ resume: { session, secret, received: 0 } })
    await second.until((message) => message.resumed)
    const stranger = new Conversation(at)
    await stranger.hello()
    stranger.send({ resume: { session, secret: 'guessed', received: 0 } })
    return [await first.closed, await stranger.closed]
  }, at)
  assert.deepEqual([closed.code, wrong.code], [4409, 4404])
})

test('pages of other origins, and those without a good token, are refused', async (t) => {
  const { page: own, at } = await openPage(t)
  const { page: foreign } = await openPage(t, suite.foreign)
  const refused = async (page, token) => (await page.evaluate((at) => new Conversation(at).closed, { ...at, token })).code
  assert.deepEqual([await refused(own, undefined), await refused(own, 'dm_nothing'), await refused(foreign, at.token)], [1006, 1006, 1006])
  const hello = await own.evaluate((at) => new Conversation(at).hello(), at)
  assert.equal(hello.protocol, 'dormouse.v1')
})
