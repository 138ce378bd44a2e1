// A page whose user logs in at an OpenID provider, by the code flow with PKCE.

import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { serveFor } from '../oidc/client.mjs'
import { APP, Issuer, RESOURCE } from '../oidc/provider.mjs'
import { command } from '../program.mjs'
import { openPage, suite } from './suite.mjs'

const resource = `${RESOURCE}EdDSA`

/** Fills in the form of a page, and sends it. */
const submit = (page, values) => page.evaluate((values) => {
  const [form] = document.forms
  for (const [name, value] of Object.entries(values)) form.elements[name].value = value
  form.requestSubmit()
}, values)

/** Goes through the provider's own forms: the page is where it was, with a code. */
async function logIn(page, issuer, user, challenge) {
  const query = {
    client_id: APP, response_type: 'code', scope: 'openid read write', redirect_uri: `${suite.origin}/back`, resource,
    code_challenge: challenge, code_challenge_method: 'S256',
  }
  await page.goto(`${issuer.url}/auth?${new URLSearchParams(query)}`)
  await page.waitForSelector('input[name=login]')
  await submit(page, { login: user, password: 'any will do' })
  await page.waitForSelector('input[name=prompt][value=consent]', { state: 'attached' })
  await submit(page, {})
  await page.waitForFunction(() => window.isReady)
  return new URL(page.url()).searchParams.get('code')
}

test('a user logs in and reaches its own database', async (t) => {
  const after = (end) => t.after(end)
  const issuer = await Issuer.start(after)
  const server = await serveFor(after, issuer, { DORMOUSE_HTTP__CORS__ORIGINS: suite.origin })
  const { page } = await openPage(t)
  const verifier = randomBytes(32).toString('base64url')
  const code = await logIn(page, issuer, 'clara', createHash('sha256').update(verifier).digest('base64url'))
  const form = { grant_type: 'authorization_code', client_id: APP, code, code_verifier: verifier, redirect_uri: `${suite.origin}/back`, resource }
  const { tokens, answer, byIdToken } = await page.evaluate(async ({ http, url, form }) => {
    const response = await fetch(`${url}/token`, { method: 'POST', body: new URLSearchParams(form) })
    const tokens = await response.json()
    const sql = "select current_database() as name, current_setting('request.jwt.claims')::jsonb ->> 'sub' as subject"
    const asked = async (token) => {
      const response = await ask({ http, token }, '/query', { sql })
      return { status: response.status, challenge: response.headers.get('www-authenticate'), ...await response.json() }
    }
    return { tokens, answer: await asked(tokens.access_token), byIdToken: await asked(tokens.id_token) }
  }, { http: server.http, url: issuer.url, form })
  assert.ok(tokens.access_token, JSON.stringify(tokens))
  const name = command(['token', 'database', 'clara', '--issuer', issuer.url])
  assert.deepEqual(answer.rows, [{ name, subject: 'clara' }])
  // That says who somebody is to the page, and lets nobody in.
  assert.equal(byIdToken.status, 401)
  assert.match(byIdToken.challenge, /another audience/)
})
