// A browser, pages of two origins, and a server that lets pages of the first one in.

import { after, before } from 'node:test'
import { join } from 'node:path'
import { command, newFolder, serve } from '../program.mjs'
import { startChromium } from './chromium.mjs'
import { servePages } from './pages.mjs'

/** The administrator's password. */
export const PASSWORD = 'the admin\'s own'

/** What the tests of a file share: `browser`, `server`, `origin`, `foreign`, `token`. */
export const suite = {}

const ends = []
const later = (end) => ends.unshift(end)
after(async () => {
  for (const end of ends) await end()
})

before(async () => {
  suite.browser = await startChromium(later)
  suite.origin = await servePages(later)
  suite.foreign = await servePages(later)
  const tokens = { DORMOUSE_AUTH__TOKENS_FILE: join(await newFolder(later), 'tokens') }
  suite.token = command(['token', 'create', '--name', 'page', '--scope', 'write'], tokens)
  suite.server = await serve(later, {
    ...tokens,
    DORMOUSE_AUTH__METHOD: 'scram',
    DORMOUSE_ADMIN_PASSWORD: PASSWORD,
    DORMOUSE_HTTP__CORS__ORIGINS: suite.origin,
    DORMOUSE_WEBSOCKET__ORIGINS: suite.origin,
  })
})

let count = 0

/** A page that the server knows, or of another origin; and `at`, whom it asks: a database of its own. */
export async function openPage(t, origin = suite.origin) {
  const context = await suite.browser.newContext()
  t.after(() => context.close())
  const page = await context.newPage()
  await page.goto(origin)
  await page.waitForFunction(() => window.isReady)
  count += 1
  return { page, at: { http: suite.server.http, token: suite.token, database: `page${process.pid}_${count}` } }
}

/** What the browser says of its requests in the network, preflights included: `{ method, status, headers }` of each answer. */
export async function watchNetwork(page) {
  const protocol = await page.context().newCDPSession(page)
  const [methods, answers] = [new Map(), []]
  protocol.on('Network.requestWillBeSent', ({ requestId, request }) => methods.set(requestId, request.method))
  protocol.on('Network.responseReceived', ({ requestId, type, response }) => {
    const headers = Object.fromEntries(Object.entries(response.headers).map(([name, value]) => [name.toLowerCase(), value]))
    answers.push({ method: type === 'Preflight' ? 'OPTIONS' : methods.get(requestId), status: response.status, headers })
  })
  await protocol.send('Network.enable')
  return { protocol, answers }
}
