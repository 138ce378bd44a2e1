// Pages that administer managed bindings. The Postgres that these lead to is the server itself.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { openAdmin, PASSWORD, suite } from './suite.mjs'

/** A page, and the parts of an address that leads to its database. */
async function openBinder(t) {
  const { page, at, asks } = await openAdmin(t)
  const { status } = await page.evaluate((at) => query(at, 'select 1'), at)
  assert.equal(status, 200)
  const [host, port] = suite.server.pg.split(':')
  return { at, asks, origin: { host, port: Number(port), database: at.database, user: 'postgres', password: PASSWORD } }
}

test('bindings are made, tried, changed and deleted', async (t) => {
  const { at, asks, origin } = await openBinder(t)
  const name = `binding ${at.database}`
  const refused = await asks('POST', '/v1/bindings', { name, origin: { ...origin, password: 'guessed' } })
  assert.deepEqual([refused.status, refused.document.failure], [400, { kind: 'credentials', code: 2013 }])
  const made = await asks('POST', '/v1/bindings', { name, origin })
  assert.equal(made.status, 201, made.text)
  const { id } = made.document
  const one = `/v1/bindings/${id}`
  assert.equal(made.headers.location, one)
  assert.deepEqual([made.document.origin.hosts, made.text.includes(PASSWORD)], [[suite.server.pg], false])
  const taken = await asks('POST', '/v1/bindings', { name, database: at.database })
  assert.deepEqual([taken.status, taken.document.error.code], [409, '42710'])

  const listed = await asks('GET', '/v1/bindings')
  assert.deepEqual([listed.status, listed.document.bindings.map((found) => found.id)], [200, [id]])
  const named = await asks('GET', `/v1/bindings/${encodeURIComponent(name)}`)
  assert.deepEqual([named.status, named.document], [200, made.document])
  const changed = await asks('PATCH', one, { limits: { connectionsMax: 3, pinnedMax: 2 } })
  assert.deepEqual([changed.status, changed.document.limits.connectionsMax, changed.document.limits.pinnedMax], [200, 3, 2])
  const wrong = await asks('PATCH', one, { limits: { connectionsMax: 0 } })
  assert.deepEqual([wrong.status, wrong.document.field], [400, 'connectionsMax'])
  const tried = await asks('POST', `${one}/check`)
  assert.equal(tried.status, 200)
  assert.match(tried.document.serverVersion, /^18\./)
  assert.equal((await asks('POST', `${one}/restart`)).status, 204)

  const drawn = await asks('POST', `${one}/credentials`, { name: 'reports' })
  const { user, password, connectionString } = drawn.document
  assert.deepEqual([drawn.status, drawn.headers['cache-control']], [201, 'no-store'])
  assert.equal(connectionString, `postgresql://${user}:${password}@${suite.server.pg}/${at.database}`)
  const again = await asks('POST', `${one}/credentials`, { name: 'reports' })
  assert.deepEqual([again.status, again.document.error.code], [409, '42710'])
  const holding = await asks('GET', one)
  assert.deepEqual(holding.document.credentials.map((found) => [found.user, found.name]), [[user, 'reports']])
  assert.equal((await asks('DELETE', `${one}/credentials/${user}`)).status, 204)
  assert.deepEqual((await asks('GET', one)).document.credentials, [])

  assert.equal((await asks('DELETE', one)).status, 204)
  const gone = await asks('GET', one)
  assert.deepEqual([gone.status, gone.document.error.code], [404, '42704'])
})

test('bindings by the paths and documents of Hyperdrive', async (t) => {
  const { at, asks, origin } = await openBinder(t)
  const configs = '/client/v4/accounts/0123/hyperdrive/configs'
  const theirs = { name: `config ${at.database}`, origin: { ...origin, scheme: 'postgres' } }
  const refused = await asks('POST', configs, { ...theirs, origin: { ...theirs.origin, password: 'guessed' } })
  assert.deepEqual([refused.status, refused.document.success, refused.document.errors[0].code], [400, false, 2013])
  const made = await asks('POST', configs, theirs)
  assert.deepEqual([made.status, made.document.success], [200, true], made.text)
  const { id } = made.document.result
  assert.deepEqual(made.document.result.origin, { scheme: 'postgresql', host: origin.host, port: origin.port, database: at.database, user: 'postgres' })
  const listed = await asks('GET', configs)
  assert.deepEqual([listed.status, listed.document.result.map((one) => one.id)], [200, [id]])
  const changed = await asks('PATCH', `${configs}/${id}`, { caching: { disabled: true } })
  assert.deepEqual([changed.status, changed.document.result.caching], [200, { disabled: true }])
  const renamed = `other ${at.database}`
  const replaced = await asks('PUT', `${configs}/${id}`, { ...theirs, name: renamed, origin_connection_limit: 7 })
  assert.deepEqual([replaced.status, replaced.document.result.name, replaced.document.result.caching.disabled], [200, renamed, false])
  const shown = await asks('GET', `${configs}/${id}`)
  assert.deepEqual([shown.status, shown.document.result], [200, replaced.document.result])
  assert.equal(shown.document.result.origin_connection_limit, 7)
  const deleted = await asks('DELETE', `${configs}/${id}`)
  assert.deepEqual([deleted.status, deleted.document], [200, { success: true, errors: [], messages: [], result: null }])
  const gone = await asks('GET', `${configs}/${id}`)
  assert.deepEqual([gone.status, gone.document.success], [404, false])
})
