import { Pool } from '@neondatabase/serverless'
import { drizzle } from 'drizzle-orm/neon-serverless'
import { migrate } from 'drizzle-orm/neon-serverless/migrator'
import { cases } from '../drizzle/cases.mjs'
import './client.mjs'

cases((t, connectionString, schema, max) => {
  const pool = new Pool({ connectionString, max })
  t.after(() => pool.end())
  return drizzle(pool, { schema })
}, migrate)
