// JWTs of a provider that the server finds by discovery.

import assert from 'node:assert/strict'
import { createHmac, createPublicKey, generateKeyPairSync, sign } from 'node:crypto'
import { test } from 'node:test'
import { command } from '../program.mjs'
import { until } from '../server.mjs'
import { ask, serveFor } from './client.mjs'
import { Issuer, newKeys, RESOURCE } from './provider.mjs'

async function begin(t, settings) {
  const after = (end) => t.after(end)
  const issuer = await Issuer.start(after)
  return { issuer, server: await serveFor(after, issuer, settings) }
}

const encode = (value) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url')

/** Header and claims of a token. */
const taken = (token) => token.split('.').slice(0, 2).map((part) => JSON.parse(Buffer.from(part, 'base64url')))

/** A token of someone's own making. */
function made(header, claims, signed) {
  const text = `${encode(header)}.${encode(claims)}`
  return `${text}.${signed(Buffer.from(text)).toString('base64url')}`
}

async function isRefused(server, token, why) {
  const { status, challenge } = await ask(server, token, 'select 1')
  assert.equal(status, 401, challenge)
  assert.match(challenge, /^Bearer realm="dormouse", error="invalid_token", error_description="/)
  assert.match(challenge, why)
  const signature = token.split('.').at(-1)
  assert.ok(signature === '' || !server.log().includes(signature))
}

test('tokens of every algorithm reach the database of their subject, with their claims', async (t) => {
  const { issuer, server } = await begin(t)
  const sql = "select current_database() as name, current_setting('request.jwt.claims')::jsonb as claims"
  for (const algorithm of ['RS256', 'PS256', 'ES256', 'EdDSA']) {
    for (const client of ['anna', 'berta']) {
      const token = await issuer.token(RESOURCE + algorithm, { client })
      assert.equal(taken(token)[0].alg, algorithm)
      const { status, rows, document } = await ask(server, token, sql)
      assert.equal(status, 200, JSON.stringify(document))
      const name = command(['token', 'database', client, '--issuer', issuer.url])
      assert.deepEqual([rows[0].name, rows[0].claims.sub, rows[0].claims.role_hint], [name, client, 'keeper'])
    }
  }
  const anna = await issuer.token(`${RESOURCE}ES256`)
  const bertas = command(['token', 'database', 'berta', '--issuer', issuer.url])
  for (const name of ['shop', bertas]) {
    assert.equal((await ask(server, anna, 'select 1', `/v1/databases/${name}/query`)).status, 403)
  }
})

test('scopes are what the provider granted', async (t) => {
  const { issuer, server } = await begin(t)
  const [write, read] = await Promise.all(['read write', 'read'].map((scope) => issuer.token(`${RESOURCE}ES256`, { scope })))
  assert.equal((await ask(server, write, 'create table t (id int)')).status, 200)
  assert.deepEqual((await ask(server, read, 'select * from t')).rows, [])
  const refused = await ask(server, read, 'insert into t values (1)')
  assert.deepEqual([refused.status, refused.document.error.code], [400, '25006'])
  assert.deepEqual((await ask(server, write, 'select * from t')).rows, [])
})

test('a claim names the database', async (t) => {
  const { issuer, server } = await begin(t, { DORMOUSE_AUTH__CLAIMS__DATABASE: 'claim', DORMOUSE_AUTH__CLAIMS__DATABASE_CLAIM: 'db' })
  for (const kind of ['ES256', 'opaque']) {
    const token = await issuer.token(RESOURCE + kind)
    assert.deepEqual((await ask(server, token, 'select current_database() as name')).rows, [{ name: 'shop' }])
    assert.equal((await ask(server, token, 'select 1', '/v1/databases/other/query')).status, 403)
  }
})

test('nothing shown', async (t) => {
  const { server } = await begin(t)
  const { status, challenge } = await ask(server, undefined, 'select 1', '/v1/databases/shop/query')
  assert.deepEqual([status, challenge], [401, 'Bearer realm="dormouse"'])
})

test('tokens that have expired, are for others or of others', async (t) => {
  const { issuer, server } = await begin(t)
  const brief = await issuer.token(`${RESOURCE}brief`)
  await until(async () => (await ask(server, brief, 'select 1')).status === 401)
  await isRefused(server, brief, /expired/)
  await isRefused(server, await issuer.token('https://another.example'), /audience/)

  // Another provider with the same keys, and one with keys of its own.
  const twin = await Issuer.start((end) => t.after(end), issuer.keys)
  await isRefused(server, await twin.token(`${RESOURCE}ES256`), /another issuer/)
  const stranger = await Issuer.start((end) => t.after(end))
  await isRefused(server, await stranger.token(`${RESOURCE}ES256`), /key that the issuer does not have/)
})

test('forged tokens', async (t) => {
  const { issuer, server } = await begin(t)
  for (const algorithm of ['RS256', 'PS256', 'ES256', 'EdDSA']) {
    const good = await issuer.token(RESOURCE + algorithm)
    assert.equal((await ask(server, good, 'select 1')).status, 200)
    const [header, claims] = taken(good)
    const [, , signature] = good.split('.')
    await isRefused(server, `${encode(header)}.${encode({ ...claims, sub: 'berta' })}.${signature}`, /signature is wrong/)
    await isRefused(server, `${encode({ ...header, kid: undefined })}.${encode(claims)}.${signature}`, /signature is wrong/)
    for (const alg of ['none', 'None', '']) {
      await isRefused(server, made({ ...header, alg }, claims, () => Buffer.alloc(0)), /algorithm/)
      await isRefused(server, made({ ...header, alg }, claims, () => Buffer.from(signature, 'base64url')), /algorithm/)
    }
    // What everybody knows, taken for a secret.
    const key = createPublicKey({ key: issuer.keys.find((one) => one.alg === algorithm), format: 'jwk' })
    const texts = [key.export({ format: 'pem', type: 'spki' }), key.export({ format: 'der', type: 'spki' }), JSON.stringify(key.export({ format: 'jwk' }))]
    for (const text of texts) {
      await isRefused(server, made({ ...header, alg: 'HS256' }, claims, (signed) => createHmac('sha256', text).update(signed).digest()), /algorithm/)
    }
    // A key of the forger's own, under the issuer's name and in the token.
    const own = generateKeyPairSync('ed25519')
    const jwk = own.publicKey.export({ format: 'jwk' })
    await isRefused(server, made({ ...header, alg: 'EdDSA', jwk }, claims, (signed) => sign(null, signed, own.privateKey)), algorithm === 'EdDSA' ? /signature is wrong/ : /key/)
  }
  // An algorithm that the key is for, but which is not its own.
  const [header, claims] = taken(await issuer.token(`${RESOURCE}RS256`))
  const key = { key: issuer.keys.find((one) => one.alg === 'RS256'), format: 'jwk', padding: 6, saltLength: 32 }
  await isRefused(server, made({ ...header, alg: 'PS256' }, claims, (signed) => sign('sha256', signed, key)), /key/)
})

test('keys rotate, are withdrawn, and the provider may be away', async (t) => {
  const { issuer, server } = await begin(t)
  const old = await issuer.token(`${RESOURCE}ES256`)
  assert.equal((await ask(server, old, 'select 1')).status, 200)

  // Both keys for a while.
  const [before, others] = [issuer.keys, newKeys()]
  issuer.begin([...others, ...before])
  const next = await issuer.token(`${RESOURCE}ES256`)
  assert.notEqual(taken(next)[0].kid, taken(old)[0].kid)
  for (const token of [next, old]) assert.equal((await ask(server, token, 'select 1')).status, 200)

  issuer.end()
  for (const token of [next, old]) assert.equal((await ask(server, token, 'select 1')).status, 200)

  // The old keys are gone; the server asks when it sees a token of the newest.
  issuer.begin(newKeys())
  const newest = await issuer.token(`${RESOURCE}ES256`)
  assert.equal((await ask(server, newest, 'select 1')).status, 200)
  for (const token of [next, old]) await isRefused(server, token, /key that the issuer does not have/)
})

test('a provider that has never answered lets nobody in', async (t) => {
  const { issuer, server } = await begin(t)
  const token = await issuer.token(`${RESOURCE}RS256`)
  const { keys } = issuer
  issuer.end()
  const { status, retryAfter } = await ask(server, token, 'select 1')
  assert.deepEqual([status, retryAfter], [503, '5'])
  issuer.begin(keys)
  assert.equal((await ask(server, token, 'select 1')).status, 200)
})
