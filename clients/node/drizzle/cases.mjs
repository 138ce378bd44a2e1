// What Drizzle is asked over each of its drivers.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { and, asc, count, eq, gt, inArray, sql, sum } from 'drizzle-orm'
import { newDatabase, ODD_TEXT, retrying, sqlstate } from '../server.mjs'
import * as schema from './schema.mjs'

const { animals, stock } = schema
const migrationsFolder = fileURLToPath(new URL('./migrations', import.meta.url))

/**
 * Defines the tests. `open` gives a database for an address with so many connections at most, and closes it
 * with the test; `migrate` is the driver's.
 */
export function cases(open, migrate) {
  const migrated = async (t, max = 2) => {
    const db = open(t, newDatabase(), schema, max)
    await migrate(db, { migrationsFolder })
    return db
  }

  test('migrations are applied once', async (t) => {
    const address = newDatabase()
    for (let n = 0; n < 3; n++) {
      const db = open(t, address, schema, 1)
      await migrate(db, { migrationsFolder })
      const applied = await db.execute(sql`select count(*)::int as n from drizzle.__drizzle_migrations`)
      assert.equal((applied.rows ?? applied)[0].n, 2)
      assert.equal(await db.$count(animals), 0)
    }
  })

  test('values of many types', async (t) => {
    const db = await migrated(t)
    const animal = {
      name: 'Bilch', mood: 'awake', weight: '120.50', born: new Date('2026-02-28T23:59:59.987Z'),
      tag: '3f333df6-90a4-4fda-8dd3-9485d27cee36', traits: { odd: ODD_TEXT, list: [1, null] }, colours: ['grey', ODD_TEXT], steps: 2n ** 62n,
    }
    const [made] = await db.insert(animals).values(animal).returning()
    assert.deepEqual(made, { id: 1, ...animal })
    assert.deepEqual(await db.select().from(animals).where(eq(animals.tag, animal.tag)), [made])
    const [bare] = await db.insert(animals).values({ name: ODD_TEXT.slice(0, 30) }).returning()
    assert.deepEqual([bare.mood, bare.weight, bare.traits, bare.colours, bare.steps], ['asleep', null, {}, null, null])
    assert.ok(bare.born instanceof Date && bare.tag !== made.tag)
  })

  test('relations, joins and groups', async (t) => {
    const db = await migrated(t)
    const ids = await db.insert(animals).values([{ name: 'a' }, { name: 'b' }, { name: 'c' }]).returning({ id: animals.id })
    await db.insert(stock).values([
      { animalId: ids[0].id, food: 'nut', count: 3 }, { animalId: ids[0].id, food: 'fig', count: 4 }, { animalId: ids[1].id, food: 'nut', count: 5 },
    ])
    const found = await db.query.animals.findMany({
      columns: { name: true }, orderBy: asc(animals.name),
      with: { stock: { columns: { food: true, count: true }, where: gt(stock.count, 3) } },
    })
    assert.deepEqual(found, [
      { name: 'a', stock: [{ food: 'fig', count: 4 }] }, { name: 'b', stock: [{ food: 'nut', count: 5 }] }, { name: 'c', stock: [] },
    ])
    assert.equal((await db.query.stock.findFirst({ where: eq(stock.food, 'fig'), with: { animal: true } })).animal.name, 'a')
    const sums = await db.select({ name: animals.name, sum: sum(stock.count), kinds: count(stock.food) }).from(animals)
      .leftJoin(stock, eq(stock.animalId, animals.id)).groupBy(animals.name).orderBy(animals.name)
    assert.deepEqual(sums, [{ name: 'a', sum: '7', kinds: 2 }, { name: 'b', sum: '5', kinds: 1 }, { name: 'c', sum: null, kinds: 0 }])
    await db.delete(animals).where(inArray(animals.name, ['a', 'c']))
    assert.equal(await db.$count(stock), 1)
  })

  test('upserts and prepared queries', async (t) => {
    const db = await migrated(t)
    const [{ id }] = await db.insert(animals).values({ name: 'a' }).returning()
    for (let n = 1; n <= 3; n++) {
      await db.insert(stock).values({ animalId: id, food: 'nut', count: n })
        .onConflictDoUpdate({ target: [stock.animalId, stock.food], set: { count: sql`${stock.count} + excluded.count` } })
    }
    const query = db.select({ count: stock.count }).from(stock)
      .where(and(eq(stock.animalId, sql.placeholder('id')), eq(stock.food, sql.placeholder('food')))).prepare('of_animal')
    for (let n = 0; n < 3; n++) assert.deepEqual(await query.execute({ id, food: 'nut' }), [{ count: 6 }])
    assert.deepEqual(await query.execute({ id, food: 'fig' }), [])
  })

  test('errors', async (t) => {
    const db = await migrated(t)
    await db.insert(animals).values({ name: 'a' })
    await sqlstate(db.insert(animals).values({ name: 'a' }), '23505')
    await sqlstate(db.insert(stock).values({ animalId: 99, food: 'nut' }), '23503')
    await sqlstate(db.execute(sql`select * from nowhere`), '42P01')
    await sqlstate(db.execute(sql`insert into stock values (1, 'x', ${-1})`), '23514')
  })

  test('transactions in transactions', async (t) => {
    const db = await migrated(t)
    await db.transaction(async (tx) => {
      await tx.insert(animals).values({ name: 'a' })
      await assert.rejects(tx.transaction(async (inner) => {
        await inner.insert(animals).values({ name: 'b' })
        inner.rollback()
      }), /Rollback/)
      await tx.transaction((inner) => inner.insert(animals).values({ name: 'c' }))
    }, { isolationLevel: 'serializable', accessMode: 'read write' })
    await assert.rejects(db.transaction(async (tx) => {
      await tx.insert(animals).values({ name: 'd' })
      throw new Error('no')
    }), /^Error: no$/)
    assert.deepEqual(await db.select({ name: animals.name }).from(animals).orderBy(animals.name), [{ name: 'a' }, { name: 'c' }])
    await sqlstate(db.transaction((tx) => tx.insert(animals).values({ name: 'e' }), { accessMode: 'read only' }), '25006')
  })

  test('eight at a time count, and none is lost', async (t) => {
    const db = await migrated(t, 8)
    const [{ id }] = await db.insert(animals).values({ name: 'a' }).returning()
    await db.insert(stock).values({ animalId: id, food: 'nut' })
    await Promise.all(Array.from({ length: 80 }, () => retrying(() => db.transaction(async (tx) => {
      const [row] = await tx.select().from(stock).for('update')
      await tx.update(stock).set({ count: row.count + 1 })
    }))))
    assert.deepEqual(await db.select({ count: stock.count }).from(stock), [{ count: 80 }])
  })

  test('10,000 rows in one insert', async (t) => {
    const db = await migrated(t)
    await db.insert(animals).values(Array.from({ length: 10_000 }, (_, n) => ({ name: `row ${n}`, steps: BigInt(n) })))
    const rows = await db.select().from(animals).orderBy(animals.steps)
    assert.ok(rows.length === 10_000 && rows.every(({ name }, n) => name === `row ${n}`))
  })
}
