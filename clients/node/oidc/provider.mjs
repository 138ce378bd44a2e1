// oidc-provider, an OpenID provider, on loopback.

import { createHash, generateKeyPairSync } from 'node:crypto'
import { once } from 'node:events'
import { createServer } from 'node:http'
import Provider from 'oidc-provider'

/** For whom tokens are, by the resource that a client names; what comes after it is the algorithm. */
export const RESOURCE = 'urn:dormouse:'
const ALGORITHMS = ['RS256', 'PS256', 'ES256', 'EdDSA']

/** A page as a client. */
export const APP = 'app'

/** Who may ask the provider about tokens. */
export const ASKER = { client_id: 'dormouse', client_secret: 'what dormouse says to the provider' }

function newKey(algorithm) {
  const kinds = {
    RS256: ['rsa', { modulusLength: 2048 }],
    PS256: ['rsa', { modulusLength: 2048 }],
    ES256: ['ec', { namedCurve: 'P-256' }],
    EdDSA: ['ed25519', {}],
  }
  const jwk = generateKeyPairSync(...kinds[algorithm]).privateKey.export({ format: 'jwk' })
  const kid = createHash('sha256').update(jwk.n ?? jwk.x).digest('base64url').slice(0, 8)
  return { ...jwk, alg: algorithm, use: 'sig', kid }
}

/** A private key of each algorithm. */
export const newKeys = () => ALGORITHMS.map(newKey)

function configuration(keys) {
  const machine = { grant_types: ['client_credentials'], redirect_uris: [], response_types: [] }
  const resourceServer = (resource) => {
    const [audience, algorithm] = resource.startsWith(RESOURCE) ? ['db', resource.slice(RESOURCE.length)] : [resource, 'ES256']
    const opaque = algorithm === 'opaque'
    return {
      audience,
      scope: 'read write',
      accessTokenTTL: algorithm === 'brief' ? 1 : 600,
      accessTokenFormat: opaque ? 'opaque' : 'jwt',
      jwt: opaque ? undefined : { sign: { alg: ALGORITHMS.includes(algorithm) ? algorithm : 'ES256' } },
    }
  }
  return {
    jwks: { keys },
    clients: [
      { ...machine, ...ASKER },
      { ...machine, client_id: 'anna', client_secret: 'a secret of anna' },
      { ...machine, client_id: 'berta', client_secret: 'a secret of berta' },
      {
        client_id: APP, token_endpoint_auth_method: 'none', application_type: 'native', redirect_uris: ['http://127.0.0.1/back'],
        grant_types: ['authorization_code'], response_types: ['code'],
      },
    ],
    clientBasedCORS: () => true,
    findAccount: (context, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    cookies: { keys: ['signs cookies of these tests'] },
    enabledJWA: { idTokenSigningAlgValues: ALGORITHMS },
    scopes: ['openid', 'read', 'write'],
    extraTokenClaims: () => ({ role_hint: 'keeper', db: 'shop' }),
    features: {
      clientCredentials: { enabled: true },
      introspection: { enabled: true },
      revocation: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (context, resource) => resourceServer(resource),
        useGrantedResource: () => true,
      },
    },
  }
}

/** An issuer whose address stays while its keys change. */
export class Issuer {
  static async start(after, keys = newKeys()) {
    const issuer = new Issuer()
    const server = createServer((request, response) => issuer.#answer(request, response))
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    after(() => {
      server.close()
      server.closeAllConnections()
    })
    issuer.url = `http://127.0.0.1:${server.address().port}`
    issuer.begin(keys)
    return issuer
  }

  /** Starts anew, with these keys. */
  begin(keys) {
    this.keys = keys
    this.isAway = false
    this.#answer = new Provider(this.url, configuration(keys)).callback()
  }

  /** Nobody answers any more. */
  end() {
    this.isAway = true
    this.#answer = (request) => request.socket.destroy()
  }

  #answer

  /** A token of `client` for `resource`. */
  async token(resource, { client = 'anna', scope = 'read write' } = {}) {
    const answer = await this.#ask('/token', client, { grant_type: 'client_credentials', resource, scope })
    if (!answer.ok) throw new Error(`the provider gives no token: ${await answer.text()}`)
    return (await answer.json()).access_token
  }

  async revoke(token, client = 'anna') {
    const answer = await this.#ask('/token/revocation', client, { token })
    if (!answer.ok) throw new Error(await answer.text())
  }

  #ask(path, client, form) {
    const secret = Buffer.from(`${client}:${encodeURIComponent(`a secret of ${client}`)}`).toString('base64')
    return fetch(this.url + path, { method: 'POST', headers: { authorization: `Basic ${secret}` }, body: new URLSearchParams(form) })
  }
}
