// Drizzle over HTTP, which has no interactive transactions.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { neon } from '@neondatabase/serverless'
import { eq, gt, sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/neon-http'
import { migrate } from 'drizzle-orm/neon-http/migrator'
import * as schema from '../drizzle/schema.mjs'
import { newDatabase, ODD_TEXT, sqlstate } from '../server.mjs'
import './client.mjs'

const { animals, stock } = schema
const migrationsFolder = fileURLToPath(new URL('../drizzle/migrations', import.meta.url))

async function migrated() {
  const db = drizzle(neon(newDatabase()), { schema })
  await migrate(db, { migrationsFolder })
  return db
}

test('migrations, values and relations', async () => {
  const db = await migrated()
  const animal = {
    name: 'Bilch', mood: 'awake', weight: '120.50', born: new Date('2026-02-28T23:59:59.987Z'),
    tag: '3f333df6-90a4-4fda-8dd3-9485d27cee36', traits: { odd: ODD_TEXT, list: [1, null] }, colours: ['grey', ODD_TEXT], steps: 2n ** 62n,
  }
  const [made] = await db.insert(animals).values(animal).returning()
  assert.deepEqual(made, { id: 1, ...animal })
  await db.insert(stock).values([{ animalId: 1, food: 'nut', count: 3 }, { animalId: 1, food: 'fig', count: 4 }])
  const found = await db.query.animals.findMany({ columns: { name: true }, with: { stock: { columns: { food: true }, where: gt(stock.count, 3) } } })
  assert.deepEqual(found, [{ name: 'Bilch', stock: [{ food: 'fig' }] }])
  assert.deepEqual((await db.execute(sql`select ${animals.name} from ${animals}`)).rows, [{ name: 'Bilch' }])
  await sqlstate(db.insert(animals).values({ id: 1, name: 'again' }), '428C9')
})

test('a batch is all or none', async () => {
  const db = await migrated()
  const [, rows] = await db.batch([db.insert(animals).values({ name: 'a' }), db.select({ name: animals.name }).from(animals)])
  assert.deepEqual(rows, [{ name: 'a' }])
  await assert.rejects(db.batch([db.update(animals).set({ name: 'b' }).where(eq(animals.id, 1)), db.insert(animals).values({ id: 1, name: 'c' })]))
  assert.deepEqual(await db.select({ name: animals.name }).from(animals), [{ name: 'a' }])
})
