import postgres from 'postgres'
import { newDatabase } from '../server.mjs'

/** A pool for a new database, closed when the test ends. */
export function connect(t, options = {}, address = newDatabase()) {
  const sql = postgres(address, { max: 1, onnotice: () => {}, ...options })
  t.after(() => sql.end({ timeout: 1 }))
  return sql
}
