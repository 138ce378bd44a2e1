// Pages that may not administer: of other origins, and with tokens that are not for it.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { serve } from '../program.mjs'
import { filled, operationsOf } from './operations.mjs'
import { openAdmin, openPage, suite, watchNetwork } from './suite.mjs'

const OF_A_DATABASE = /^(\/v1\/databases\/\{name\})?\/(query|batch|transaction|transactions|transactions\/\{id\}\/\w+|schema|ping|health|config|liveness|readiness|ws)$/
const FOR_WRITERS = ['GET /openapi.json', 'POST /sql', 'GET /v2', 'GET /v1/databases/{name}', 'GET /v1/databases/{name}/figures', 'POST /v1/databases/{name}/flush']
const FOR_ITS_ADMIN = ['DELETE /v1/databases/{name}', 'PUT /v1/databases/{name}/settings']

/** Those that are not for who may only write: all but those that are known to be. */
const ofAdmins = (operations) => operations.filter(({ method, path }) => !OF_A_DATABASE.test(path) && !FOR_WRITERS.includes(`${method} ${path}`))

/** What there is: that it stays so is what the tests want. */
async function everything(asks) {
  const names = { databases: 'name', tokens: 'id', bindings: 'id' }
  const there = {}
  for (const [what, name] of Object.entries(names)) {
    const { status, text, document } = await asks('GET', `/v1/${what}`)
    assert.equal(status, 200, text)
    there[what] = document[what].map((one) => one[name])
  }
  return there
}

/** Asks for each operation, as pages may only of servers that know them: which of them the page was allowed. */
const allowed = (page, at, wanted) => page.evaluate(async ({ at, wanted }) => {
  const allowed = []
  for (const { method, path } of wanted) {
    const body = method === 'GET' ? undefined : {}
    for (const token of [at.token, undefined]) {
      if (!await isForbidden(ask({ ...at, token }, path, body, { method }))) allowed.push(`${method} ${path}`)
    }
  }
  return allowed
}, { at, wanted })

/** Those that need no preflight. */
const simple = (wanted) => wanted.filter(({ method }) => ['GET', 'POST'].includes(method))

/** Sends these, whose answers no page sees. */
const send = (page, at, wanted) => page.evaluate(async ({ at, wanted }) => {
  for (const { method, path } of wanted) {
    const body = method === 'POST' ? '{"name":"made_by_a_page","sql":"select 1","scope":"admin"}' : undefined
    await fetch(`http://${at.http}${path}`, { method, mode: 'no-cors', credentials: 'include', body })
  }
}, { at, wanted })

test('pages of other origins read nothing and change nothing, whatever token they have', async (t) => {
  const { page, at, asks } = await openAdmin(t)
  assert.equal((await page.evaluate((at) => query(at, 'select 1'), at)).status, 200)
  const bound = await asks('POST', '/v1/bindings', { name: at.database, databasePerApp: {} })
  assert.equal(bound.status, 201)
  const made = await asks('POST', '/v1/tokens', { name: at.database, scope: 'read' })
  assert.equal(made.status, 201)
  const operations = operationsOf((await asks('GET', '/openapi.json')).document)
  const wanted = operations.map((one) => ({ method: one.method, path: filled(one, { name: at.database, id: one.path.includes('tokens') ? made.document.id : bound.document.id }) }))
  const before = await everything(asks)
  assert.ok(before.bindings.includes(bound.document.id) && before.databases.includes(at.database))
  const { page: foreign } = await openPage(t, suite.foreign)
  assert.deepEqual(await allowed(foreign, at, wanted), [])
  await send(foreign, at, simple(wanted))
  assert.deepEqual(await everything(asks), before)
  assert.equal((await asks('DELETE', made.headers.location)).status, 204)
  assert.equal((await asks('DELETE', bound.headers.location)).status, 204)
})

test('nor where nobody is asked who they are', async (t) => {
  const server = await serve((end) => t.after(end), { DORMOUSE_HTTP__CORS__ORIGINS: suite.origin })
  const { page } = await openPage(t)
  const at = { http: server.http }
  const own = (path, body) => page.evaluate(({ at, path, body }) => see(ask(at, path, body)), { at, path, body })
  assert.equal((await own('/v1/databases', { name: 'kept' })).status, 201)
  const operations = operationsOf((await own('/openapi.json')).document)
  const wanted = operations.map((one) => ({ method: one.method, path: filled(one, { name: 'kept' }) }))
  const { page: foreign } = await openPage(t, suite.foreign)
  assert.deepEqual(await allowed(foreign, at, wanted), [])
  const { known } = await watchNetwork(foreign)
  await send(foreign, at, simple(wanted))
  const answers = await known(simple(wanted).length)
  const changing = answers.filter(({ method }) => method === 'POST')
  assert.ok(changing.length > 20, JSON.stringify(answers))
  assert.deepEqual([...new Set(changing.map(({ status }) => status))], [403])
  assert.deepEqual((await own('/v1/databases')).document.databases.map(({ name }) => name), ['kept'])
})

test('a token of another scope is told that it is not enough', async (t) => {
  const { at, asks } = await openAdmin(t)
  const operations = operationsOf((await asks('GET', '/openapi.json')).document)
  const made = await asks('POST', '/v1/tokens', { name: at.database, scope: 'admin', database: at.database })
  const before = await everything(asks)
  for (const [token, except] of [[suite.token, []], [made.document.token, FOR_ITS_ADMIN]]) {
    const { asks } = await openAdmin(t, token)
    const refused = ofAdmins(operations).filter(({ method, path }) => !except.includes(`${method} ${path}`))
    assert.ok(refused.length > 20, JSON.stringify(refused))
    for (const one of refused) {
      const { method } = one
      const path = filled(one, { name: at.database })
      const { status, text, headers, document } = await asks(method, path, method === 'GET' ? undefined : {})
      if (path.startsWith('/api/')) {
        // In the words of the platform whose endpoints these are.
        assert.deepEqual([status, document.status], [401, 'error'], `${method} ${path}: ${text}`)
        continue
      }
      assert.equal(status, 403, `${method} ${path}: ${text}`)
      if (path.startsWith('/client/')) assert.equal(document.success, false)
      else assert.match(headers['www-authenticate'], /insufficient_scope/, path)
    }
  }
  assert.deepEqual(await everything(asks), before)
  assert.equal((await asks('DELETE', made.headers.location)).status, 204)
})
