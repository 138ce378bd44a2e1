// Who issues tokens of workflows, as GitHub does: RS256, keys found by OpenID discovery.

import { createServer } from 'node:http'
import { generateKeyPairSync, sign } from 'node:crypto'

const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url')

let count = 0

/** A key pair with an id. */
export function newKey() {
  count += 1
  return { id: `key-${count}`, ...generateKeyPairSync('rsa', { modulusLength: 2048 }) }
}

/** A token with these claims, signed with this key. */
export function token(key, claims, header = {}) {
  const text = `${encode({ alg: 'RS256', typ: 'JWT', kid: key.id, ...header })}.${encode(claims)}`
  return `${text}.${sign('sha256', Buffer.from(text), key.privateKey).toString('base64url')}`
}

/** What an issuer publishes of its keys. */
export const published = (keys) => ({
  keys: keys.map(({ id, publicKey }) => ({ ...publicKey.export({ format: 'jwk' }), kid: id, use: 'sig', alg: 'RS256' })),
})

/** Starts an issuer; it ends with the suite. */
export async function issue(after) {
  const issuer = { keys: [newKey()], asked: 0 }
  const server = createServer((request, response) => {
    issuer.asked += 1
    const documents = {
      '/.well-known/openid-configuration': () => ({ issuer: issuer.url, jwks_uri: `${issuer.url}/keys` }),
      '/keys': () => published(issuer.keys),
    }
    const document = documents[request.url]
    response.writeHead(document ? 200 : 404, { 'content-type': 'application/json' })
    response.end(JSON.stringify(document ? document() : {}))
  })
  await new Promise((begun) => server.listen(0, '127.0.0.1', begun))
  issuer.url = `http://127.0.0.1:${server.address().port}`
  issuer.end = () => new Promise((ended) => server.close(ended) && server.closeAllConnections())
  after(issuer.end)
  issuer.claims = (repository, more = {}) => {
    const now = Math.floor(Date.now() / 1000)
    const ref = 'refs/heads/main'
    return { iss: issuer.url, aud: 'w7s.cloud', sub: `repo:${repository}:ref:${ref}`, repository, ref, iat: now, exp: now + 300, ...more }
  }
  issuer.token = (repository, more) => token(issuer.keys.at(-1), issuer.claims(repository, more))
  return issuer
}
