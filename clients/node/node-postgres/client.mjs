import pg from 'pg'
import { newDatabase } from '../server.mjs'

/** A connection to a new database, or to the one of `options`, closed when the test ends. */
export async function connect(t, options = {}) {
  const client = new pg.Client({ connectionString: newDatabase(), ...options })
  await client.connect()
  t.after(() => client.end())
  return client
}

/** The address, for another user. */
export function as(user, address) {
  const url = new URL(address)
  url.username = user
  return url.href
}

/** So many connections to one new database. */
export async function sessions(t, count, options = {}) {
  const connectionString = newDatabase()
  const clients = []
  for (let n = 0; n < count; n++) clients.push(await connect(t, { connectionString, ...options }))
  return clients
}

/** A pool for a new database, closed when the test ends. */
export function pool(t, options = {}) {
  const pool = new pg.Pool({ connectionString: newDatabase(), max: 8, ...options })
  t.after(() => pool.end())
  return pool
}
