import { drizzle } from 'drizzle-orm/postgres-js'
import { migrate } from 'drizzle-orm/postgres-js/migrator'
import postgres from 'postgres'
import { cases } from './cases.mjs'

cases((t, address, schema, max) => {
  const sql = postgres(address, { max, onnotice: () => {} })
  t.after(() => sql.end({ timeout: 1 }))
  return drizzle(sql, { schema })
}, migrate)
