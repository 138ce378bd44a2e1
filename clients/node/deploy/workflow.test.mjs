// Workflows of GitHub Actions deploy by the tokens that they get of their issuer.

import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { createHmac } from 'node:crypto'
import { join } from 'node:path'
import { test } from 'node:test'
import { newFolder, serve } from '../program.mjs'
import { issue, newKey, published, token } from './issuer.mjs'
import { zip } from './zip.mjs'

const SITE = zip({ 'out/index.html': '<h1>it is there</h1>' })
const UNAUTHORIZED = 'Bearer token is not authorized for this GitHub repository.'

async function begin(t, settings = {}) {
  const after = (end) => t.after(end)
  const issuer = await issue(after)
  const server = await serve(after, {
    DORMOUSE_WORKERS__REPOSITORIES: 'acme/*,other/one',
    DORMOUSE_WORKERS__OIDC__ISSUER: issuer.url,
    DORMOUSE_AUTH__JWT__REFETCH_MS_MIN: '1',
    ...settings,
  })
  return { issuer, server }
}

async function deploy(server, repository, shown, branch = 'main', query = '') {
  const headers = {
    'x-github-repository': repository,
    'x-github-branch': branch,
    'x-github-sha': 'abc',
    'content-type': 'application/zip',
    ...(shown && { authorization: `Bearer ${shown}` }),
  }
  const answer = await fetch(`http://${server.http}/api/v1/deploy${query}`, { method: 'POST', headers, body: SITE })
  return { status: answer.status, body: await answer.json() }
}

async function isRefused(server, repository, shown, why) {
  const { status, body } = await deploy(server, repository, shown)
  assert.deepEqual([status, body.status, body.error], [401, 'error', UNAUTHORIZED], JSON.stringify(body))
  if (why) assert.match(body.details.lines[0], why)
  assert.ok(!server.log().includes(shown.split('.').at(-1) || 'no signature'))
}

test('a workflow deploys the repository that it runs in', async (t) => {
  const { issuer, server } = await begin(t)
  const { status, body } = await deploy(server, 'Acme/Shop', issuer.token('acme/shop'))
  assert.equal(status, 200, JSON.stringify(body))
  assert.equal(body.data.deployment.repository, 'Acme/Shop')
  assert.equal((await deploy(server, 'acme/shop', issuer.token('ACME/Shop'))).status, 200)
  assert.equal((await deploy(server, 'other/one', issuer.token('other/one', { aud: ['x', 'https://w7s.cloud'] }))).status, 200)
  // It sees its own, and no others.
  const shown = { headers: { authorization: `Bearer ${issuer.token('acme/shop')}` } }
  const at = (path) => fetch(`http://${server.http}${path}`, shown)
  assert.equal((await at('/api/v1/usage/acme/shop')).status, 200)
  assert.equal((await at('/api/v1/logs/other/one')).status, 401)
  const listed = await (await at('/api/v1/deployments')).json()
  assert.deepEqual(listed.data.deployments.map((one) => one.repository), ['acme/shop'])
})

test('production is for workflows of its branches, other environments for all', async (t) => {
  const { issuer, server } = await begin(t, { DORMOUSE_WORKERS__PRODUCTION_REFS: 'refs/heads/main,refs/tags/v*' })
  const on = (ref) => issuer.token('acme/shop', { ref })
  const isBarred = ({ status, body }) => {
    assert.deepEqual([status, body.status], [403, 'error'], JSON.stringify(body))
    assert.match(body.error, /workers\.production_refs/)
  }
  for (const ref of ['refs/heads/dev', 'refs/tags/main', 'refs/pull/1/merge', 'refs/heads/master', undefined]) {
    isBarred(await deploy(server, 'acme/shop', on(ref)))
    isBarred(await deploy(server, 'acme/shop', on(ref), 'dev', '?environment=Production'))
  }
  for (const ref of ['refs/heads/main', 'refs/tags/v1']) {
    assert.equal((await deploy(server, 'acme/shop', on(ref))).status, 200)
  }
  const dev = on('refs/heads/dev')
  const preview = await deploy(server, 'acme/shop', dev, 'dev')
  assert.deepEqual([preview.status, preview.body.data?.deployment.environment], [200, 'dev'])
  assert.equal((await deploy(server, 'acme/shop', on('refs/heads/main'), 'main', '?environment=dev')).status, 200)
  // What is in production is not theirs to see, to roll back or to take away either.
  const ask = async (method, path) => {
    const answer = await fetch(`http://${server.http}${path}`, { method, headers: { authorization: `Bearer ${dev}` } })
    return { status: answer.status, body: await answer.json() }
  }
  isBarred(await ask('GET', '/api/v1/logs/acme/shop'))
  isBarred(await ask('POST', '/api/v1/deployments/acme/shop/rollback'))
  isBarred(await ask('DELETE', '/api/v1/deployments/acme/shop'))
  assert.equal((await ask('GET', '/api/v1/usage/acme/shop?environment=dev')).status, 200)
  assert.equal((await ask('DELETE', '/api/v1/deployments/acme/shop?environment=dev')).status, 200)
})

test('who shows nothing, where workflows may deploy and nobody else is asked', async (t) => {
  const { server } = await begin(t)
  const { status, body } = await deploy(server, 'acme/shop')
  assert.deepEqual([status, body.error], [401, 'Missing bearer token.'])
})

test('tokens that are for others, over, early, or of another repository', async (t) => {
  const { issuer, server } = await begin(t)
  const now = Math.floor(Date.now() / 1000)
  await isRefused(server, 'acme/shop', issuer.token('acme/other'))
  await isRefused(server, 'acme/shop', issuer.token('acme/shopx'))
  await isRefused(server, 'evil/shop', issuer.token('evil/shop'), /workers\.repositories does not name/)
  await isRefused(server, 'acme/shop', issuer.token('acme/shop', { exp: now - 120 }), /expired/)
  await isRefused(server, 'acme/shop', issuer.token('acme/shop', { nbf: now + 600 }), /not valid yet/)
  await isRefused(server, 'acme/shop', issuer.token('acme/shop', { aud: 'https://github.com/acme' }), /another audience/)
  await isRefused(server, 'acme/shop', issuer.token('acme/shop', { aud: undefined }), /another audience/)
  await isRefused(server, 'acme/shop', issuer.token('acme/shop', { exp: undefined }), /no time/)
  await isRefused(server, 'acme/shop', issuer.token(undefined), /does not say/)
  await isRefused(server, 'acme/shop', issuer.token('../shop'), /owner\/repo form/)
  await isRefused(server, 'acme/shop', issuer.token('acme/shop', { iss: 'https://elsewhere.example' }))
  // Of a minute clocks may differ.
  assert.equal((await deploy(server, 'acme/shop', issuer.token('acme/shop', { exp: now - 5 }))).status, 200)
})

test('an audience of one\'s own, and tokens that are for the platform', async (t) => {
  const { issuer, server } = await begin(t, { DORMOUSE_WORKERS__OIDC__AUDIENCE: 'https://db.example.com' })
  const own = issuer.token('acme/shop', { aud: 'https://db.example.com' })
  assert.equal((await deploy(server, 'acme/shop', own)).status, 200)
  for (const aud of ['w7s.cloud', 'https://w7s.cloud', 'https://db.example.com/']) {
    await isRefused(server, 'acme/shop', issuer.token('acme/shop', { aud }), /another audience/)
  }
})

test('forged tokens', async (t) => {
  const { issuer, server } = await begin(t)
  const claims = issuer.claims('acme/shop')
  const [header, payload, signature] = issuer.token('acme/shop').split('.')
  const altered = Buffer.from(JSON.stringify(issuer.claims('acme/other'))).toString('base64url')
  const key = issuer.keys[0]
  for (const forged of [
    token({ ...newKey(), id: key.id }, claims),
    token(newKey(), claims),
    `${header}.${altered}.${signature}`,
    `${header}.${payload}.`,
    `${Buffer.from('{"alg":"none"}').toString('base64url')}.${payload}.`,
  ]) {
    await isRefused(server, 'acme/shop', forged)
    await isRefused(server, 'acme/other', forged)
  }
  // The public key, which everybody knows, as a secret.
  const text = `${Buffer.from(JSON.stringify({ alg: 'HS256', kid: key.id })).toString('base64url')}.${payload}`
  const known = key.publicKey.export({ type: 'spki', format: 'pem' })
  await isRefused(server, 'acme/shop', `${text}.${createHmac('sha256', known).update(text).digest('base64url')}`)
  assert.equal((await deploy(server, 'acme/shop', issuer.token('acme/shop'))).status, 200)
})

test('keys that rotate, and an issuer that is away', async (t) => {
  const { issuer, server } = await begin(t)
  const before = issuer.token('acme/shop')
  assert.equal((await deploy(server, 'acme/shop', before)).status, 200)
  issuer.keys = [newKey()]
  assert.equal((await deploy(server, 'acme/shop', issuer.token('acme/shop'))).status, 200)
  await isRefused(server, 'acme/shop', before)
  await issuer.end()
  assert.equal((await deploy(server, 'acme/shop', issuer.token('acme/shop'))).status, 200, 'the keys are known')
})

test('where the issuer never answered nobody comes in', async (t) => {
  const { issuer, server } = await begin(t)
  await issuer.end()
  const { status, body } = await deploy(server, 'acme/shop', issuer.token('acme/shop'))
  assert.deepEqual([status, body.status], [503, 'error'])
})

test('keys in a file, where nothing outside is reached', async (t) => {
  const folder = await newFolder((end) => t.after(end))
  const file = join(folder, 'keys.json')
  const key = newKey()
  await writeFile(file, JSON.stringify(published([key])))
  const { issuer, server } = await begin(t, { DORMOUSE_WORKERS__OIDC__JWKS: file })
  assert.equal((await deploy(server, 'acme/shop', token(key, issuer.claims('acme/shop')))).status, 200)
  await isRefused(server, 'acme/shop', issuer.token('acme/shop'))
  assert.equal(issuer.asked, 0)
})
