// Pages that administer a server: its databases, its tokens, and the node itself.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { until } from '../server.mjs'
import { openAdmin, suite, watchNetwork } from './suite.mjs'

test('databases are made, forked, listed, set, counted and deleted', async (t) => {
  const { page, at, asks } = await openAdmin(t)
  const [name, fork] = [`admin_${at.database}`, `admin_${at.database}_fork`]
  const one = `/v1/databases/${name}`
  const made = await asks('POST', '/v1/databases', { name })
  assert.deepEqual([made.status, made.headers.location, made.document.name, made.document.parent], [201, one, name, null])
  const again = await asks('POST', '/v1/databases', { name })
  assert.deepEqual([again.status, again.headers['content-type'], again.document.error.code], [409, 'application/problem+json', '42P04'])
  await page.evaluate((at) => query(at, 'create table t as select generate_series(1, 7) as n'), { ...at, database: name })
  const forked = await asks('POST', '/v1/databases', { name: fork, from: { database: name } })
  assert.deepEqual([forked.status, forked.headers.location, forked.document.parent], [201, `/v1/databases/${fork}`, name])

  const first = await asks('GET', `/v1/databases?limit=1&after=${name}`)
  assert.deepEqual([first.status, first.document.databases.map((found) => found.name), first.document.next], [200, [fork], fork])
  const all = await asks('GET', '/v1/databases')
  assert.deepEqual([all.status, all.document.next], [200, undefined])
  for (const wanted of [name, fork]) assert.ok(all.document.databases.some((found) => found.name === wanted), wanted)

  const settings = { durability: 'relaxed', maintenance: false, bytesMax: 1_000_000_000 }
  const set = await asks('PUT', `${one}/settings`, settings)
  assert.deepEqual([set.status, set.document.durability, set.document.maintenance], [200, 'relaxed', false])
  const shown = await asks('GET', one)
  assert.equal(shown.status, 200)
  for (const [field, value] of Object.entries(settings)) assert.equal(shown.document.settings[field], value, field)
  const flushed = await asks('POST', `${one}/flush`)
  assert.deepEqual([flushed.status, flushed.text], [204, ''])

  // A statement may be counted after it was answered.
  const figures = await until(async () => {
    const { status, text, document } = await asks('GET', `${one}/figures`)
    assert.equal(status, 200, text)
    return document.statements > 0 && document
  })
  assert.deepEqual([figures.name, figures.statements, figures.rows], [name, 1, 7])
  const node = await asks('GET', '/v1/figures?top=1000&by=rows')
  assert.equal(node.status, 200)
  assert.ok(node.document.total.rows >= 7)
  assert.equal(node.document.databases.find((found) => found.name === name).rows, 7)
  const wrong = await asks('GET', '/v1/figures?top=1001')
  assert.deepEqual([wrong.status, wrong.document.error.code], [400, '08P01'])

  assert.equal((await asks('DELETE', `/v1/databases/${fork}`)).status, 204)
  // Somebody is in it.
  const begun = await asks('POST', `${one}/transactions`, {})
  assert.equal(begun.status, 201)
  const held = await asks('DELETE', one)
  assert.deepEqual([held.status, held.document.error.code], [409, '55006'])
  assert.equal((await asks('DELETE', `${one}?force=true`)).status, 204)
  for (const method of ['GET', 'DELETE']) {
    const gone = await asks(method, one)
    assert.deepEqual([gone.status, gone.document.error.code], [404, '3D000'])
  }
})

test('tokens are made, used, listed and revoked', async (t) => {
  const { page, at, asks } = await openAdmin(t)
  const name = `made for ${at.database}`
  const made = await asks('POST', '/v1/tokens', { name, scope: 'write', database: at.database, expiresSeconds: 3600 })
  const { token, id } = made.document
  assert.deepEqual([made.status, made.headers.location, made.headers['cache-control']], [201, `/v1/tokens/${id}`, 'no-store'])
  assert.match(token, /^dm_[0-9A-Za-z]{49}$/)
  const taken = await asks('POST', '/v1/tokens', { name, scope: 'read' })
  assert.deepEqual([taken.status, taken.document.error.code], [409, '42710'])
  const ofIt = () => page.evaluate((at) => query(at, 'select 1 as n'), { ...at, token })
  assert.deepEqual((await ofIt()).document.rows, [{ n: 1 }])
  const listed = await asks('GET', '/v1/tokens')
  assert.deepEqual([listed.status, listed.text.includes(token)], [200, false])
  const found = listed.document.tokens.find((one) => one.id === id)
  assert.deepEqual([found.name, found.scope, found.database], [name, 'write', at.database])
  assert.equal((await asks('DELETE', made.headers.location)).status, 204)
  const refused = await ofIt()
  assert.equal(refused.status, 401)
  assert.match(refused.headers['www-authenticate'], /invalid_token/)
  assert.equal((await asks('DELETE', made.headers.location)).status, 404)
  const left = await asks('GET', '/v1/tokens')
  assert.ok(!left.document.tokens.some((one) => one.id === id))
})

test('what is counted, and the configuration, which is read again', async (t) => {
  const { asks } = await openAdmin(t)
  const metrics = await asks('GET', '/metrics')
  assert.deepEqual([metrics.status, metrics.headers['content-type']], [200, 'text/plain; version=0.0.4; charset=utf-8'])
  assert.match(metrics.text, /^dormouse_\w+(\{.*\})? \d/m)
  const read = await asks('POST', '/v1/reload')
  assert.deepEqual([read.status, read.document], [200, { applied: [], needRestart: [] }])
})

test('preflights of every method are answered, and errors of all of these can be read', async (t) => {
  const { page, at, asks } = await openAdmin(t)
  const { known } = await watchNetwork(page)
  const none = `nobody_${at.database}`
  for (const [method, path, body, status] of [
    ['GET', `/v1/databases/${none}/figures`, undefined, 404],
    ['POST', `/v1/databases/${none}/flush`, undefined, 404],
    ['PUT', `/v1/databases/${none}/settings`, {}, 404],
    ['PATCH', `/v1/bindings/${none}`, {}, 404],
    ['DELETE', `/v1/databases/${none}`, undefined, 404],
  ]) {
    const seen = await asks(method, path, body)
    assert.deepEqual([seen.status, seen.headers['content-type']], [status, 'application/problem+json'], `${method} ${seen.text}`)
    const [preflight, answer] = (await known(2)).splice(0)
    assert.deepEqual([preflight.method, preflight.status, preflight.headers['access-control-allow-origin']], ['OPTIONS', 200, suite.origin])
    assert.ok(preflight.headers['access-control-allow-methods'].split(',').includes(method), method)
    assert.deepEqual([answer.method, answer.status], [method, status])
  }
  const wrong = await asks('PATCH', '/v1/tokens', {})
  assert.equal(wrong.status, 405)
  assert.deepEqual(wrong.headers.allow.split(',').sort(), ['GET', 'HEAD', 'POST'])
})
