import { neon, neonConfig } from '@neondatabase/serverless'
import WebSocket from 'ws'
import { httpAddress, newDatabase } from '../server.mjs'

// All that the driver must be told: where the server is, and that there is no TLS in these tests.
neonConfig.fetchEndpoint = `http://${httpAddress}/sql`
neonConfig.wsProxy = (host, port) => `${httpAddress}/v2?address=${host}:${port}`
neonConfig.useSecureWebSocket = false
neonConfig.webSocketConstructor = WebSocket

/** Queries over HTTP in a new database. */
export function newNeon(options) {
  return neon(newDatabase(), options)
}
