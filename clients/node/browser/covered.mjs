// All that the server says that it answers was asked by a page. This comes last.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { compared, operationsOf } from './operations.mjs'
import { openAdmin } from './suite.mjs'

test('every endpoint was asked by a page, and answered', async (t) => {
  const { asks } = await openAdmin(t)
  const { status, document } = await asks('GET', '/openapi.json')
  assert.equal(status, 200)
  assert.deepEqual(compared(operationsOf(document)), { left: [], unknown: [] })
})

test('every header that an endpoint reads may be sent', async (t) => {
  const { page, at, asks } = await openAdmin(t)
  const operations = operationsOf((await asks('GET', '/openapi.json')).document)
  // Browsers send those of WebSockets by themselves.
  const names = new Set(operations.flatMap(({ headers }) => headers).filter((name) => !name.startsWith('Sec-')))
  assert.ok(names.size > 10, [...names].join())
  const forbidden = await page.evaluate(async ({ at, names }) => {
    const forbidden = []
    for (const name of names) {
      if (await isForbidden(ask(at, '/v1/databases', undefined, { headers: { [name]: 'x' } }))) forbidden.push(name)
    }
    return forbidden
  }, { at, names: [...names] })
  assert.deepEqual(forbidden, [])
})
