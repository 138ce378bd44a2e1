// The backend of the platform's page about Postgres bindings, as it is printed there: bundled, deployed, and asked.

import assert from 'node:assert/strict'
import { writeFile } from 'node:fs/promises'
import { get } from 'node:http'
import { join } from 'node:path'
import { test } from 'node:test'
import { build } from 'esbuild'
import { newFolder, serve } from '../program.mjs'
import { packages, workerd } from './workerd.mjs'
import { zip } from './zip.mjs'

const BACKEND = `import postgres from "postgres";
type Env = {
DB: {
connectionString: string;
};
};
export default {
async fetch(_request: Request, env: Env) {
const sql = postgres(env.DB.connectionString);
const rows = await sql\`select now() as now\`;
return Response.json({
now: rows[0]?.now
});
}
};
`
const FLAGS = `{
"compatibility_flags": ["nodejs_compat_v2"]
}`
const manifest = (id) => `{
"bindings": {
"hyperdrive": [
{
"binding": "DB",
"id": "${id}"
}
]
}
}`

/** What esbuild makes of a backend, as its authors have it do. */
async function bundled(after, source) {
  const folder = await newFolder(after)
  await writeFile(join(folder, 'index.ts'), source)
  const options = { bundle: true, format: 'esm', write: false, nodePaths: [packages], conditions: ['workerd', 'worker'] }
  const { outputFiles } = await build({ ...options, entryPoints: [join(folder, 'index.ts')], external: ['node:*', 'cloudflare:*'] })
  return outputFiles[0].text
}

function ask(server, host, path) {
  const [address, port] = server.http.split(':')
  return new Promise((resolve, reject) => {
    const request = get({ host: address, port, path, headers: { host: `${host}:${port}` } }, async (response) => {
      let text = ''
      for await (const part of response.setEncoding('utf8')) text += part
      resolve({ status: response.statusCode, text })
    })
    request.on('error', reject)
  })
}

async function send(server, method, path, headers, body) {
  const answer = await fetch(`http://${server.http}${path}`, { method, headers, body })
  return { status: answer.status, body: answer.status === 204 ? null : await answer.json() }
}

const JSON_BODY = { 'content-type': 'application/json' }

test('the documented backend answers from the database of its application', async (t) => {
  const after = (end) => t.after(end)
  const server = await serve(after, { DORMOUSE_WORKERS__WORKERD: await workerd(), DORMOUSE_WORKERS__START_MS_MAX: '60000' })
  const wanted = JSON.stringify({ name: 'postgres', databasePerApp: {} })
  const made = await send(server, 'POST', '/v1/bindings', JSON_BODY, wanted)
  assert.equal(made.status, 201, JSON.stringify(made.body))
  const code = await bundled(after, BACKEND)
  const deploy = (repository, id) => {
    const files = { 'w7s.json': manifest(id), 'dist/server/index.js': code, 'dist/server/wrangler.json': FLAGS }
    const headers = { 'x-github-repository': repository, 'x-github-branch': 'main', 'x-github-sha': 'abc', 'content-type': 'application/zip' }
    return send(server, 'POST', '/api/v1/deploy', headers, zip(files))
  }
  const unknown = await deploy('acme/shop', 'postgres-binding-id')
  assert.equal(unknown.status, 400)
  assert.match(unknown.body.error, /DB.*'postgres-binding-id'/)
  const deployed = await deploy('acme/shop', made.body.id)
  assert.equal(deployed.status, 200, JSON.stringify(deployed.body))
  assert.deepEqual(deployed.body.data.deployment.bindings.hyperdrive, [{ binding: 'DB', id: made.body.id }])
  for (let round = 0; round < 3; round += 1) {
    const { status, text } = await ask(server, 'acme.apps.localhost', '/shop/')
    assert.equal(status, 200, text + server.log())
    const minutes = (Date.now() - new Date(JSON.parse(text).now)) / 60_000
    assert.ok(Math.abs(minutes) < 10, text)
  }
  // A binding that something deployed binds is not deleted.
  const held = await send(server, 'DELETE', `/v1/bindings/${made.body.id}`)
  assert.equal(held.status, 409)
  assert.match(JSON.stringify(held.body), /acme\/shop/)
  assert.equal((await send(server, 'DELETE', '/api/v1/deployments/acme/shop')).status, 200)
  assert.equal((await send(server, 'DELETE', `/v1/bindings/${made.body.id}`)).status, 204)
})
