// A server that believes an issuer, and who asks it.

import { serve } from '../program.mjs'
import { ASKER } from './provider.mjs'

/** A server for tokens of this issuer, signed ones and opaque ones; what it remembers is asked again at once. */
export function serveFor(after, issuer, settings = {}) {
  return serve(after, {
    DORMOUSE_AUTH__JWT__ISSUER: issuer.url,
    DORMOUSE_AUTH__JWT__AUDIENCE: 'db',
    DORMOUSE_AUTH__JWT__CLOCK_SKEW_MS: '0',
    DORMOUSE_AUTH__JWT__REFETCH_MS_MIN: '0',
    DORMOUSE_AUTH__INTROSPECTION__URL: `${issuer.url}/token/introspection`,
    DORMOUSE_AUTH__INTROSPECTION__AUDIENCE: 'db',
    DORMOUSE_AUTH__INTROSPECTION__CLIENT_ID: ASKER.client_id,
    DORMOUSE_INTROSPECTION_SECRET: ASKER.client_secret,
    DORMOUSE_AUTH__CACHE_MS_MAX: '0',
    DORMOUSE_LOG: 'debug',
    ...settings,
  })
}

/** What a statement gives whoever shows this token: status, challenge, document. */
export async function ask(server, token, sql, path = '/query') {
  const response = await fetch(`http://${server.http}${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...(token === undefined ? {} : { authorization: `Bearer ${token}` }) },
    body: JSON.stringify({ sql }),
  })
  const document = await response.json()
  return { status: response.status, challenge: response.headers.get('www-authenticate'), retryAfter: response.headers.get('retry-after'), rows: document.rows, document }
}
