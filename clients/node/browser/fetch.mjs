// Pages that ask by fetch.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { openPage, suite, watchNetwork } from './suite.mjs'

test('a page of an allowed origin asks, and sees what it needs of the answer', async (t) => {
  const { page, at } = await openPage(t)
  const { known } = await watchNetwork(page)
  const { status, headers, document } = await page.evaluate(async (at) => {
    await query(at, 'create table t (id int)')
    return query(at, 'select count(*)::int as n from t where id < $1', { params: [5] })
  }, at)
  assert.deepEqual([status, document.rows], [200, [{ n: 0 }]])
  assert.match(headers.etag, /^W\/"/)
  assert.match(headers['x-request-id'], /./)
  assert.equal(headers['x-dormouse-cache'], 'miss')
  const answers = await known(3)
  const [preflight] = answers
  assert.deepEqual([preflight.method, preflight.status, preflight.headers['access-control-allow-origin']], ['OPTIONS', 200, suite.origin])
  // The browser remembers it, and does not ask again.
  assert.deepEqual(answers.map(({ method }) => method), ['OPTIONS', 'POST', 'POST'])
})

test('every header that the server reads may be sent', async (t) => {
  const { page, at } = await openPage(t)
  const { status, names, replayed } = await page.evaluate(async (at) => {
    const headers = {
      'x-dormouse-database': at.database, 'idempotency-key': 'once', traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01', tracestate: 'a=b',
    }
    const make = () => ask(at, '/query', { sql: 'create table t (id int)' }, { headers })
    const { status } = await make()
    const again = await make()
    return { status, replayed: again.headers.get('idempotency-replayed'), names: [...again.headers.keys()] }
  }, at)
  assert.deepEqual([status, replayed], [200, 'true'], names.join())
})

test('304 without running the query', async (t) => {
  const { page, at } = await openPage(t)
  const [first, second, third] = await page.evaluate(async (at) => {
    await query(at, 'create table t (id int)')
    const sql = 'select * from t'
    const first = await query(at, sql)
    const headers = { 'if-none-match': first.headers.etag }
    const second = await query(at, sql, { headers })
    await query(at, 'insert into t values (1)')
    return [first, second, await query(at, sql, { headers })]
  }, at)
  assert.deepEqual([second.status, second.document, second.headers.etag], [304, undefined, first.headers.etag])
  assert.deepEqual([third.status, third.document.rows], [200, [{ id: 1 }]])
  assert.notEqual(third.headers.etag, first.headers.etag)
})

test('rows arrive before the last is made', async (t) => {
  const { page, at } = await openPage(t)
  const { known } = await watchNetwork(page)
  const { early, lines } = await page.evaluate(async (at) => {
    // The last row waits for a lock, which the page gives back when it has the first.
    const path = `/v1/databases/${at.database}`
    const begun = await ask(at, `${path}/transactions`, {})
    const transaction = begun.headers.get('location')
    await ask(at, `${transaction}/query`, { sql: 'select pg_advisory_xact_lock(1)' })
    const sql = "select n, case when n = 500 then pg_advisory_xact_lock(1) end as waited, md5(n::text) || repeat('x', 500) as x from generate_series(1, 500) as n"
    const response = await ask(at, `${path}/query`, { sql, timeoutMs: 30_000 }, { headers: { accept: 'application/x-ndjson' } })
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
    let text = ''
    let early
    for (;;) {
      const { done, value } = await reader.read()
      if (done) break
      text += value
      if (early === undefined && text.split('\n').length > 2) {
        early = JSON.parse(text.split('\n')[1]).n
        await ask(at, `${transaction}/commit`, {})
      }
    }
    return { early, lines: text.trim().split('\n').map((line) => JSON.parse(line)) }
  }, at)
  assert.equal(early, 1)
  assert.equal(lines.length, 502)
  assert.deepEqual([lines[500].n, lines[501]], [500, { command: 'SELECT', rowCount: 500 }])
  // With the preflights of four addresses.
  const answers = await known(8)
  const streamed = answers.find(({ headers }) => headers['content-type']?.startsWith('application/x-ndjson'))
  t.diagnostic(`content-encoding: ${streamed.headers['content-encoding']}`)
})

test('answers are packed as the browser likes it', async (t) => {
  for (const encoding of ['br', 'gzip']) {
    const { page, at } = await openPage(t)
    const { protocol, known } = await watchNetwork(page)
    await protocol.send('Network.setAcceptedEncodings', { encodings: [encoding] })
    const { document } = await page.evaluate((at) => query(at, "select repeat('mouse ', 10000) as text"), at)
    assert.equal(document.rows[0].text, 'mouse '.repeat(10_000))
    const [, answer] = await known(2)
    assert.equal(answer.headers['content-encoding'], encoding)
  }
})

test('a request that is aborted cancels its statement', async (t) => {
  const { page, at } = await openPage(t)
  const { name, running } = await page.evaluate(async (at) => {
    const sleeping = "select count(*)::int as n from pg_stat_activity where state = 'active' and query like '%pg_sleep(61)%' and pid <> pg_backend_pid()"
    const running = async () => (await query(at, sleeping)).document.rows[0].n
    const controller = new AbortController()
    const request = query(at, 'select pg_sleep(61)', { signal: controller.signal })
    const ended = request.catch((error) => error.name)
    while (await running() === 0);
    controller.abort()
    const name = await ended
    while (await running() > 0);
    return { name, running: await running() }
  }, at)
  assert.deepEqual([name, running], ['AbortError', 0])
})

test('a problem can be read', async (t) => {
  const { page, at } = await openPage(t)
  const [wrong, nobody, stranger] = await page.evaluate(async (at) => [
    await query(at, 'select * from nope'),
    await query({ ...at, token: undefined }, 'select 1'),
    await query({ ...at, token: 'dm_nothing' }, 'select 1'),
  ], at)
  assert.deepEqual([wrong.status, wrong.headers['content-type']], [400, 'application/problem+json'])
  assert.deepEqual([wrong.document.error.code, wrong.document.error.position], ['42P01', 15])
  assert.deepEqual([nobody.status, nobody.headers['www-authenticate']], [401, 'Bearer realm="dormouse", Basic realm="dormouse", charset="UTF-8"'])
  assert.equal(stranger.status, 401)
  assert.match(stranger.headers['www-authenticate'], /invalid_token/)
})

test('batches, transactions, and transactions over several requests', async (t) => {
  const { page, at } = await openPage(t)
  const { batch, inside, outside, after } = await page.evaluate(async (at) => {
    const path = `/v1/databases/${at.database}`
    const json = async (path, body) => (await ask(at, path, body)).json()
    await query(at, 'create table t (id int)')
    const batch = await json(`${path}/batch`, { statements: [{ sql: 'select 1 as n' }, { sql: 'selec' }] })
    const begun = await ask(at, `${path}/transactions`, {})
    const transaction = begun.headers.get('location')
    await json(`${transaction}/query`, { sql: 'insert into t values (1)' })
    const inside = await json(`${transaction}/query`, { sql: 'select * from t' })
    const outside = await query(at, 'select * from t')
    await ask(at, `${transaction}/commit`, {})
    return { batch, inside: inside.rows, outside: outside.document.rows, after: (await query(at, 'select * from t')).document.rows }
  }, at)
  assert.deepEqual([inside, outside, after], [[{ id: 1 }], [], [{ id: 1 }]])
  assert.deepEqual([batch.results[0].rows, batch.results[1].error.code], [[{ n: 1 }], '42601'])
})

test('all or none, a rollback, and what is told of a database and of the server', async (t) => {
  const { page, at } = await openPage(t)
  const { none, all, rolledBack, left, told, ofNode } = await page.evaluate(async (at) => {
    const path = `/v1/databases/${at.database}`
    await query(at, 'create table t (id int)')
    const [insert, wrong] = [{ sql: 'insert into t values (1)' }, { sql: 'selec' }]
    const none = await ask(at, `${path}/transaction`, { statements: [insert, wrong] })
    const all = await ask(at, `${path}/transaction`, { statements: [insert, insert] })
    const begun = await ask(at, `${path}/transactions`, {})
    const transaction = begun.headers.get('location')
    await ask(at, `${transaction}/query`, insert)
    const rolledBack = await ask(at, `${transaction}/rollback`, {})
    const left = await query(at, 'select count(*)::int as n from t')
    const look = async (path) => {
      const response = await ask(at, path)
      const text = await response.text()
      return [response.status, response.headers.get('content-type')?.includes('json') ? JSON.parse(text) : text]
    }
    const lookAt = async (path, names) => Object.fromEntries(await Promise.all(names.map(async (name) => [name, await look(`${path}/${name}`)])))
    const both = ['ping', 'health', 'config', 'liveness', 'readiness']
    const told = await lookAt(path, ['schema', ...both])
    const ofNode = await lookAt('', both)
    return { none: none.status, all: all.status, rolledBack: rolledBack.status, left: left.document.rows, told, ofNode }
  }, at)
  assert.deepEqual([none, all, rolledBack, left], [400, 200, 204, [{ n: 2 }]])
  for (const [name, [status, document]] of [...Object.entries(told), ...Object.entries(ofNode)]) {
    assert.equal(status, 200, `${name}: ${JSON.stringify(document)}`)
  }
  assert.deepEqual(told.schema[1].tables.map(({ name }) => name), ['t'])
  assert.deepEqual([told.config[1].database, told.health[1].state], [at.database, 'awake'])
  assert.equal(ofNode.config[1].database, undefined)
})

test('the same where a header names the database', async (t) => {
  const { page, at } = await openPage(t)
  const { statuses, results, inside, tables } = await page.evaluate(async (at) => {
    const headers = { 'x-dormouse-database': at.database }
    const json = async (path, body) => (await ask(at, path, body, { headers })).json()
    const statements = [{ sql: 'create table t (id int)' }, { sql: 'insert into t values (1)' }]
    const statuses = [(await ask(at, '/transaction', { statements }, { headers })).status]
    const { results } = await json('/batch', { statements: [{ sql: 'select * from t' }, { sql: 'selec' }] })
    let inside
    for (const end of ['commit', 'rollback']) {
      const begun = await ask(at, '/transactions', {}, { headers })
      const transaction = begun.headers.get('location')
      inside = await json(`${transaction}/query`, { sql: 'insert into t values (2) returning id' })
      statuses.push(begun.status, (await ask(at, `${transaction}/${end}`, {}, { headers })).status)
    }
    return { statuses, results, inside: inside.rows, tables: (await json('/schema')).tables }
  }, at)
  assert.deepEqual(statuses, [200, 201, 204, 201, 204])
  assert.deepEqual([results[0].rows, results[1].error.code, inside], [[{ id: 1 }], '42601', [{ id: 2 }]])
  assert.deepEqual(tables.map(({ name }) => name), ['t'])
  const { document } = await page.evaluate((at) => query(at, 'select id from t order by id'), at)
  assert.deepEqual(document.rows, [{ id: 1 }, { id: 2 }])
})

test('pages of other origins are refused, and do nothing', async (t) => {
  const { page: own, at } = await openPage(t)
  await own.evaluate((at) => query(at, 'create table t (id int)'), at)
  const { page: foreign } = await openPage(t, suite.foreign)
  const isForbidden = await foreign.evaluate(async (at) => {
    const path = `/v1/databases/${at.database}/query`
    const url = `http://${at.http}${path}`
    const simple = { method: 'POST', mode: 'no-cors', body: '{"sql":"insert into t values (1)"}' }
    // What needs no preflight is sent, and not understood.
    await fetch(url, simple)
    await fetch(url, { ...simple, headers: { 'content-type': 'text/plain;application/json' } })
    const frame = document.body.appendChild(document.createElement('iframe'))
    frame.sandbox = 'allow-scripts'
    const told = new Promise((resolve) => addEventListener('message', ({ data }) => resolve(data), { once: true }))
    frame.srcdoc = `<script>fetch('http://${at.http}/ping').then(() => 'read', () => 'forbidden').then((told) => parent.postMessage(told, '*'))</script>`
    return [
      await window.isForbidden(ask(at, path, { sql: 'insert into t values (1)' })),
      await window.isForbidden(fetch(`http://${at.http}/ping`)),
      await told,
    ]
  }, at)
  assert.deepEqual(isForbidden, [true, true, 'forbidden'])
  assert.deepEqual(await own.evaluate(async (at) => (await query(at, 'select * from t')).document.rows, at), [])
})
