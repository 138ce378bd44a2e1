// Pages that deploy.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { until } from '../server.mjs'
import { zip } from '../deploy/zip.mjs'
import { openAdmin } from './suite.mjs'

const BACKEND = `export default {
  fetch(request, env) {
    console.log('asked of', env.NAME)
    return new Response(\`\${env.NAME} and \${env.SECRET}\`)
  },
}`

const inHeader = (values) => Buffer.from(JSON.stringify(values)).toString('base64url')

test('a backend is deployed, seen, watched, rolled back and taken away', async (t) => {
  const { page, at, asks } = await openAdmin(t)
  const repository = `acme/${at.database.replaceAll('_', '-')}`
  const bytes = [...zip({ 'backend/index.js': BACKEND })]
  const deploy = (version, headers = {}) => page.evaluate(({ at, bytes, headers }) => {
    const body = new Blob([new Uint8Array(bytes)], { type: 'application/zip' })
    return see(ask(at, '/api/v1/deploy?environment=preview', undefined, { method: 'POST', body, headers }))
  }, {
    at,
    bytes,
    headers: {
      'x-github-repository': repository,
      'x-github-branch': 'main',
      'x-github-sha': `commit${version}`,
      'x-w7s-vars': inHeader({ NAME: `version ${version}` }),
      'x-w7s-secrets': inHeader({ SECRET: 'secret' }),
      ...headers,
    },
  })
  const nameless = await deploy(0, { 'x-github-repository': 'nobody' })
  assert.deepEqual([nameless.status, nameless.document.status], [400, 'error'])
  let url
  for (const version of [1, 2]) {
    const { status, text, headers, document } = await deploy(version)
    assert.deepEqual([status, document.status, document.data?.deployment.version], [200, 'success', version], text)
    assert.match(headers['x-request-id'], /./)
    assert.equal(document.data.deployment.commitSha, `commit${version}`)
    url = document.data.url
  }

  // The app is at a host of its own, which is another page.
  const app = await page.context().newPage()
  const visit = async () => {
    await app.goto(url)
    return app.evaluate(() => document.body.textContent)
  }
  assert.equal(await visit(), 'version 2 and secret')

  const of = (what) => `/api/v1/${what}/${repository}`
  const preview = '?environment=preview'
  const listed = await asks('GET', '/api/v1/deployments')
  assert.equal(listed.status, 200)
  const [own] = listed.document.data.deployments.filter((one) => one.repository === repository)
  assert.deepEqual([own.version, own.environment, own.url, own.backend.running], [2, 'preview', url, true])
  const history = await asks('GET', of('deployments') + preview)
  assert.deepEqual([history.status, history.document.data.deployments.map((one) => [one.version, one.current])], [200, [[2, true], [1, false]]])
  const logged = await until(async () => {
    const { status, text, document } = await asks('GET', `${of('logs')}${preview}&kind=console`)
    assert.equal(status, 200, text)
    return document.data.logs.records.length > 0 && document.data.logs.records
  })
  const [{ version, level, text }] = logged
  assert.deepEqual([version, level, text], [2, 'log', 'asked of version 2'])
  const used = await asks('GET', of('usage') + preview)
  assert.deepEqual([used.status, used.document.status], [200, 'success'], used.text)

  const back = await asks('POST', `${of('deployments')}/rollback${preview}`, { version: 1 })
  assert.deepEqual([back.status, back.document.data?.deployment.version], [200, 1], back.text)
  assert.equal(await visit(), 'version 1 and secret')
  const none = await asks('POST', `${of('deployments')}/rollback${preview}`)
  assert.deepEqual([none.status, none.document.status], [409, 'error'])
  const taken = await asks('DELETE', of('deployments') + preview)
  assert.deepEqual([taken.status, taken.document.data], [200, { repository, environment: 'preview' }])
  const gone = await asks('GET', of('deployments') + preview)
  assert.deepEqual([gone.status, gone.document.status], [404, 'error'])
})
