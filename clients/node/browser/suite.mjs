// A browser, pages of two origins, and a server that lets pages of the first one in.

import assert from 'node:assert/strict'
import { after, before } from 'node:test'
import { join } from 'node:path'
import { command, newFolder, serve } from '../program.mjs'
import { workerd } from '../deploy/workerd.mjs'
import { startChromium } from './chromium.mjs'
import { keepRecord } from './operations.mjs'
import { servePages } from './pages.mjs'

/** The administrator's password. */
export const PASSWORD = 'the admin\'s own'

/** What the tests of a file share: `browser`, `server`, `origin`, `foreign`, and tokens, `token` that may write and `admin`. */
export const suite = {}

// Hooks know no time of their own: without one they may wait for ever, and nobody would know for what.
const timeout = 120_000

const ends = []
const later = (end) => ends.unshift(end)
after(async () => {
  const failures = []
  for (const end of ends) await Promise.resolve().then(end).catch((error) => failures.push(error))
  if (failures.length > 0) throw new AggregateError(failures, 'not all has ended')
}, { timeout })

before(async () => {
  suite.browser = await startChromium(later)
  suite.origin = await servePages(later)
  suite.foreign = await servePages(later)
  const tokens = { DORMOUSE_AUTH__TOKENS_FILE: join(await newFolder(later), 'tokens') }
  suite.token = command(['token', 'create', '--name', 'page', '--scope', 'write'], tokens)
  suite.admin = command(['token', 'create', '--name', 'admin', '--scope', 'admin'], tokens)
  suite.server = await serve(later, {
    ...tokens,
    DORMOUSE_AUTH__METHOD: 'scram',
    DORMOUSE_ADMIN_PASSWORD: PASSWORD,
    DORMOUSE_HTTP__CORS__ORIGINS: suite.origin,
    DORMOUSE_WEBSOCKET__ORIGINS: suite.origin,
    DORMOUSE_WORKERS__WORKERD: await workerd(),
    DORMOUSE_WORKERS__START_MS_MAX: '60000',
  })
}, { timeout })

let count = 0

/** A page that the server knows, or of another origin; and `at`, whom it asks: a database of its own. */
export async function openPage(t, origin = suite.origin) {
  const context = await suite.browser.newContext()
  t.after(() => context.close())
  const page = await context.newPage()
  if (origin === suite.origin) keepRecord(page, suite.server.http)
  await page.goto(origin)
  await page.waitForFunction(() => window.isReady)
  count += 1
  return { page, at: { http: suite.server.http, token: suite.token, database: `page${process.pid}_${count}` } }
}

/** A page with a token, an administrator's unless another is told: `asks` tells all that it sees of an answer. */
export async function openAdmin(t, token = suite.admin) {
  const { page, at } = await openPage(t)
  const asks = async (method, path, body, more = {}) => {
    const request = { at: { ...at, token }, path, body, more: { ...more, method } }
    const seen = await page.evaluate(({ at, path, body, more }) => see(ask(at, path, body, more)), request)
    assert.match(seen.headers['x-request-id'], /./, `${method} ${path}`)
    return seen
  }
  return { page, at: { ...at, token }, asks }
}

/**
 * What the browser says of its requests in the network, preflights included: `{ method, status, headers }` of each answer.
 * It may say so a moment after the page has its answer: `known(n)` waits for the first n.
 */
export async function watchNetwork(page) {
  const protocol = await page.context().newCDPSession(page)
  const [methods, answers] = [new Map(), []]
  let waiting = []
  protocol.on('Network.requestWillBeSent', ({ requestId, request }) => methods.set(requestId, request.method))
  protocol.on('Network.responseReceived', ({ requestId, type, response }) => {
    const headers = Object.fromEntries(Object.entries(response.headers).map(([name, value]) => [name.toLowerCase(), value]))
    answers.push({ method: type === 'Preflight' ? 'OPTIONS' : methods.get(requestId), status: response.status, headers })
    waiting = waiting.filter((isEnough) => !isEnough())
  })
  const known = (count) => new Promise((resolve) => {
    const isEnough = () => answers.length >= count && (resolve(answers), true)
    if (!isEnough()) waiting.push(isEnough)
  })
  await protocol.send('Network.enable')
  return { protocol, known }
}
