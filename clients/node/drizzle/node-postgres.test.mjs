import { drizzle } from 'drizzle-orm/node-postgres'
import { migrate } from 'drizzle-orm/node-postgres/migrator'
import pg from 'pg'
import { cases } from './cases.mjs'

cases((t, connectionString, schema, max) => {
  const pool = new pg.Pool({ connectionString, max })
  t.after(() => pool.end())
  return drizzle(pool, { schema })
}, migrate)
