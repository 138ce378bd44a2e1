// Opaque tokens of a provider, which the server asks about each.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ask, serveFor } from './client.mjs'
import { ASKER, Issuer, RESOURCE } from './provider.mjs'

const BY_CLAIM = { DORMOUSE_AUTH__CLAIMS__DATABASE: 'claim', DORMOUSE_AUTH__CLAIMS__DATABASE_CLAIM: 'db' }

async function begin(t, settings) {
  const after = (end) => t.after(end)
  const issuer = await Issuer.start(after)
  return { issuer, server: await serveFor(after, issuer, { ...BY_CLAIM, ...settings }) }
}

test('a token that the provider knows, and what it may', async (t) => {
  const { issuer, server } = await begin(t)
  const [write, read] = await Promise.all(['read write', 'read'].map((scope) => issuer.token(`${RESOURCE}opaque`, { scope })))
  assert.equal((await ask(server, write, 'create table t (id int)')).status, 200)
  const claims = "select current_setting('request.jwt.claims')::jsonb ->> 'client_id' as client from t right join (values (1)) one on true"
  assert.deepEqual((await ask(server, read, claims)).rows, [{ client: 'anna' }])
  const refused = await ask(server, read, 'insert into t values (1)')
  assert.deepEqual([refused.status, refused.document.error.code], [400, '25006'])
  assert.ok(!server.log().includes(write) && !server.log().includes(ASKER.client_secret))
})

test('tokens that are unknown, revoked or for others', async (t) => {
  const { issuer, server } = await begin(t)
  const token = await issuer.token(`${RESOURCE}opaque`)
  assert.equal((await ask(server, token, 'select 1')).status, 200)
  await issuer.revoke(token)
  for (const bad of [token, `${token.slice(1)}x`]) {
    const { status, challenge } = await ask(server, bad, 'select 1')
    assert.equal(status, 401)
    assert.match(challenge, /error="invalid_token".*not active/)
  }
  const stranger = await Issuer.start((end) => t.after(end))
  assert.equal((await ask(server, await stranger.token(`${RESOURCE}opaque`), 'select 1')).status, 401)
})

test('a provider that is away lets nobody in', async (t) => {
  const { issuer, server } = await begin(t)
  const token = await issuer.token(`${RESOURCE}opaque`)
  issuer.end()
  assert.equal((await ask(server, token, 'select 1')).status, 503)
})

test('a provider that does not know us', async (t) => {
  const { issuer, server } = await begin(t, { DORMOUSE_INTROSPECTION_SECRET: 'wrong' })
  const { status } = await ask(server, await issuer.token(`${RESOURCE}opaque`), 'select 1')
  assert.equal(status, 503)
  assert.match(server.log(), /token introspection failed/)
})
