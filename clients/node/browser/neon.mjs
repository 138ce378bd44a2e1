// Pages that use Neon's driver, unmodified.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { openPage, PASSWORD, suite } from './suite.mjs'

/** A page with the driver set up as docs/neon.md says. */
async function openNeon(t, origin) {
  const { page, at } = await openPage(t, origin)
  await page.evaluate(async ({ http }) => {
    window.driver = await import('/neon.mjs')
    Object.assign(window.driver.neonConfig, {
      fetchEndpoint: `http://${http}/sql`, wsProxy: (host, port) => `${http}/v2?address=${host}:${port}`, useSecureWebSocket: false, disableWarningInBrowsers: true,
    })
  }, at)
  const address = (password) => `postgresql://postgres:${encodeURIComponent(password)}@127.0.0.1/${at.database}`
  return { page, address: address(PASSWORD), wrong: address('guessed') }
}

test('queries and batches by fetch', async (t) => {
  const { page, address } = await openNeon(t)
  const { rows, arrays, batch, error } = await page.evaluate(async (address) => {
    const sql = window.driver.neon(address)
    await sql`create table t (id int primary key, name text)`
    const rows = await sql`insert into t values (${1}, ${'Siebenschl\u00e4fer'}) returning *`
    const arrays = await sql.query('select id, name from t', [], { arrayMode: true })
    const batch = await sql.transaction([sql`insert into t values (2)`, sql`select count(*)::int as n from t`], { isolationLevel: 'Serializable', readOnly: false, deferrable: false })
    const error = await sql`insert into t values (1)`.catch(({ code, constraint }) => ({ code, constraint }))
    return { rows, arrays, batch, error }
  }, address)
  assert.deepEqual([rows, arrays], [[{ id: 1, name: 'Siebenschl\u00e4fer' }], [[1, 'Siebenschl\u00e4fer']]])
  assert.deepEqual(batch[1], [{ n: 2 }])
  assert.deepEqual(error, { code: '23505', constraint: 't_pkey' })
})

test('a transaction through its WebSocket', async (t) => {
  const { page, address } = await openNeon(t)
  const { inside, outside, after } = await page.evaluate(async (address) => {
    const pool = new window.driver.Pool({ connectionString: address })
    const count = async (client) => (await client.query('select count(*)::int as n from t')).rows[0].n
    await pool.query('create table t (id int)')
    const client = await pool.connect()
    await client.query('begin isolation level serializable')
    await client.query('insert into t values ($1)', [1])
    const [inside, outside] = [await count(client), await count(pool)]
    await client.query('commit')
    client.release()
    const after = await count(pool)
    await pool.end()
    return { inside, outside, after }
  }, address)
  assert.deepEqual([inside, outside, after], [1, 0, 1])
})

test('a wrong password, and pages of other origins', async (t) => {
  const { page, wrong } = await openNeon(t)
  const refused = (page, address) => page.evaluate(async (address) => {
    const { neon, Client } = window.driver
    const byFetch = await neon(address)`select 1`.then(() => 'done', ({ code, message }) => code ?? message)
    const client = new Client(address)
    // The driver does not wait to be let in before it says that it is connected.
    const bySocket = await client.connect().then(() => client.query('select 1')).then(() => 'done', (error) => error.code ?? 'refused')
    return [byFetch, bySocket]
  }, address)
  assert.deepEqual(await refused(page, wrong), ['28P01', '28P01'])
  const { page: foreign, address } = await openNeon(t, suite.foreign)
  const [byFetch, bySocket] = await refused(foreign, address)
  assert.match(byFetch, /Failed to fetch/)
  assert.equal(bySocket, 'refused')
})
