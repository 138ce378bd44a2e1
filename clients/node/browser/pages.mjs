// Origins of pages, and a wire that can be cut.

import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { connect, createServer as createTcpServer } from 'node:net'
import { fileURLToPath } from 'node:url'

const FILES = {
  '/': ['text/html', '<!doctype html><html lang="en"><title>A page</title><script type="module" src="/page.mjs"></script></html>'],
  '/page.mjs': ['text/javascript', new URL('page.mjs', import.meta.url)],
  '/neon.mjs': ['text/javascript', new URL(import.meta.resolve('@neondatabase/serverless'))],
}

async function listening(server, after) {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  after(() => server.close())
  return server.address().port
}

/** Serves pages; gives their origin. */
export async function servePages(after) {
  const server = createServer(async (request, response) => {
    const [type, content] = FILES[new URL(request.url, 'http://x').pathname] ?? FILES['/']
    const body = typeof content === 'string' ? content : await readFile(fileURLToPath(content))
    response.writeHead(200, { 'content-type': type }).end(body)
  })
  const port = await listening(server, after)
  after(() => server.closeAllConnections())
  return `http://127.0.0.1:${port}`
}

/** Carries bytes to an address until it is cut. */
export async function layWire(after, address) {
  const [host, port] = address.split(':')
  const sockets = new Set()
  const server = createTcpServer((near) => {
    const far = connect(Number(port), host)
    for (const [socket, other] of [[near, far], [far, near]]) {
      sockets.add(socket)
      socket.on('error', () => {}).on('close', () => {
        sockets.delete(socket)
        other.destroy()
      })
      socket.pipe(other)
    }
  })
  const cut = () => sockets.forEach((socket) => socket.resetAndDestroy())
  const own = await listening(server, after)
  after(cut)
  return { address: `127.0.0.1:${own}`, cut }
}
