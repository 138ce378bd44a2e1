// What the server says that it answers, and which of that was asked by a page.

import assert from 'node:assert/strict'

/** `GET /v1/databases` of all that pages of the server's own origin asked, and that was answered well. */
const asked = new Set()

/** Keeps a record of what a page asks of a server. */
export function keepRecord(page, address) {
  const keep = (method, url) => {
    const { host, pathname } = new URL(url)
    if (host === address) asked.add(`${method} ${pathname}`)
  }
  page.on('response', (response) => response.ok() && keep(response.request().method(), response.url()))
  // It is open when something comes.
  page.on('websocket', (socket) => socket.once('framereceived', () => keep('GET', socket.url())))
}

/** All operations of an OpenAPI document: `method`, `path` with `{names}`, `headers` that may be sent. */
export function operationsOf({ paths, components }) {
  const found = (one) => (one.$ref ? components.parameters[one.$ref.split('/').at(-1)] : one)
  const operations = Object.entries(paths).flatMap(([path, { parameters: common = [], ...methods }]) =>
    Object.entries(methods).map(([method, { parameters = [] }]) => ({
      method: method.toUpperCase(),
      path,
      headers: [...common, ...parameters].map(found).filter((one) => one.in === 'header').map(({ name }) => name),
    })),
  )
  assert.ok(operations.length > 50, JSON.stringify(operations))
  return operations
}

/** Its path with these values in the place of names; `x` where none is told. */
export const filled = ({ path }, values = {}) => path.replaceAll(/\{(\w+)\}/g, (_, name) => values[name] ?? 'x')

/** Operations that no page asked, and what pages asked that is none of them. */
export function compared(operations) {
  const patterns = operations.map(({ method, path }) => new RegExp(`^${method} ${path.replaceAll('.', '\\.').replaceAll(/\{\w+\}/g, '[^/]+')}$`))
  const all = [...asked]
  return {
    left: operations.filter((_, index) => !all.some((one) => patterns[index].test(one))).map(({ method, path }) => `${method} ${path}`),
    unknown: all.filter((one) => !patterns.some((pattern) => pattern.test(one))),
  }
}
