import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Kysely, Migrator, PostgresDialect, sql } from 'kysely'
import { jsonArrayFrom } from 'kysely/helpers/postgres'
import pg from 'pg'
import Cursor from 'pg-cursor'
import { newDatabase, ODD_TEXT, retrying, sqlstate } from '../server.mjs'

const MIGRATIONS = {
  '2026_01_animals': {
    async up(db) {
      await db.schema.createType('mood').asEnum(['asleep', 'awake']).execute()
      await db.schema.createTable('animal')
        .addColumn('id', 'integer', (column) => column.primaryKey().generatedAlwaysAsIdentity())
        .addColumn('name', 'varchar(40)', (column) => column.notNull().unique())
        .addColumn('mood', sql`mood`, (column) => column.notNull().defaultTo('asleep'))
        .addColumn('traits', 'jsonb')
        .addColumn('born', 'timestamptz', (column) => column.defaultTo(sql`now()`))
        .addColumn('weight', 'numeric(8, 2)')
        .execute()
    },
    async down(db) {
      await db.schema.dropTable('animal').execute()
      await db.schema.dropType('mood').execute()
    },
  },
  '2026_02_stock': {
    async up(db) {
      await db.schema.createTable('stock')
        .addColumn('animal', 'integer', (column) => column.references('animal.id').onDelete('cascade').notNull())
        .addColumn('food', 'text', (column) => column.notNull())
        .addColumn('count', 'integer', (column) => column.notNull().defaultTo(0))
        .addPrimaryKeyConstraint('stock_key', ['animal', 'food'])
        .execute()
      await db.schema.createIndex('stock_food').on('stock').column('food').execute()
    },
    async down(db) {
      await db.schema.dropTable('stock').execute()
    },
  },
}

function open(t, max = 2) {
  const db = new Kysely({ dialect: new PostgresDialect({ pool: new pg.Pool({ connectionString: newDatabase(), max }), cursor: Cursor }) })
  t.after(() => db.destroy())
  return db
}

const migrator = (db) => new Migrator({ db, provider: { getMigrations: async () => MIGRATIONS } })

async function migrated(t, max) {
  const db = open(t, max)
  const { error } = await migrator(db).migrateToLatest()
  if (error) throw error
  return db
}

test('migrations, up and down, and the tables that they make', async (t) => {
  const db = open(t)
  // Two at once: the second waits for the first's lock.
  const runs = await Promise.all([migrator(db).migrateToLatest(), migrator(db).migrateToLatest()])
  assert.deepEqual(runs.flatMap(({ error, results }) => error ?? results.map(({ status }) => status)), ['Success', 'Success'])
  const tables = await db.introspection.getTables()
  assert.deepEqual(tables.map(({ name }) => name), ['animal', 'stock'])
  assert.deepEqual(tables[0].columns.map(({ name, dataType, isNullable, hasDefaultValue }) => [name, dataType, isNullable, hasDefaultValue]), [
    ['id', 'int4', false, false], ['name', 'varchar', false, false], ['mood', 'mood', false, true],
    ['traits', 'jsonb', true, false], ['born', 'timestamptz', true, true], ['weight', 'numeric', true, false],
  ])
  assert.equal((await migrator(db).migrateDown()).results[0].direction, 'Down')
  assert.deepEqual((await db.introspection.getTables()).map(({ name }) => name), ['animal'])
  assert.equal((await migrator(db).migrateToLatest()).results.length, 1)
})

test('values both ways', async (t) => {
  const db = await migrated(t)
  const animal = { name: 'Bilch', mood: 'awake', traits: { odd: ODD_TEXT }, born: new Date('2026-02-28T23:59:59.987Z'), weight: '120.50' }
  const made = await db.insertInto('animal').values(animal).returningAll().executeTakeFirstOrThrow()
  assert.deepEqual(made, { id: 1, ...animal })
  assert.deepEqual(await db.selectFrom('animal').selectAll().where('name', '=', 'Bilch').execute(), [made])
  const { numUpdatedRows } = await db.updateTable('animal').set({ traits: null }).where('id', 'in', [1, 2]).executeTakeFirst()
  assert.equal(numUpdatedRows, 1n)
  assert.equal((await sql`select traits is null as none from animal where name = ${'Bilch'}`.execute(db)).rows[0].none, true)
})

test('joins, upserts, JSON of other tables, common table expressions', async (t) => {
  const db = await migrated(t)
  await db.insertInto('animal').values([{ name: 'a' }, { name: 'b' }]).execute()
  const add = (animal, food, count) => db.insertInto('stock').values({ animal, food, count })
    .onConflict((conflict) => conflict.columns(['animal', 'food']).doUpdateSet({ count: sql`stock.count + excluded.count` })).execute()
  for (const [animal, food, count] of [[1, 'nut', 3], [1, 'nut', 4], [1, 'fig', 1], [2, 'nut', 5]]) await add(animal, food, count)
  const found = await db.with('nuts', (db) => db.selectFrom('stock').where('food', '=', 'nut').select(['animal', 'count']))
    .selectFrom('animal').innerJoin('nuts', 'nuts.animal', 'animal.id').orderBy('name')
    .select((eb) => ['name', 'nuts.count', jsonArrayFrom(
      eb.selectFrom('stock').whereRef('stock.animal', '=', 'animal.id').select('food').orderBy('food')).as('foods')])
    .execute()
  assert.deepEqual(found, [
    { name: 'a', count: 7, foods: [{ food: 'fig' }, { food: 'nut' }] }, { name: 'b', count: 5, foods: [{ food: 'nut' }] },
  ])
})

test('transactions, with savepoints and without', async (t) => {
  const db = await migrated(t)
  await assert.rejects(db.transaction().execute(async (trx) => {
    await trx.insertInto('animal').values({ name: 'no' }).execute()
    throw new Error('no')
  }), /^Error: no$/)
  const trx = await db.startTransaction().setIsolationLevel('serializable').execute()
  await trx.insertInto('animal').values({ name: 'a' }).execute()
  const inner = await trx.savepoint('inner').execute()
  await sqlstate(inner.insertInto('animal').values({ name: 'a' }).execute(), '23505')
  await inner.rollbackToSavepoint('inner').execute()
  await trx.insertInto('animal').values({ name: 'b' }).execute()
  await trx.commit().execute()
  assert.deepEqual(await db.selectFrom('animal').select('name').orderBy('name').execute(), [{ name: 'a' }, { name: 'b' }])
})

test('a stream of 100,000 rows, and one that is left', async (t) => {
  const db = open(t)
  const numbers = () => db.selectFrom(sql`generate_series(1, 100000)`.as('n')).select('n')
  let sum = 0
  for await (const { n } of numbers().stream(1000)) sum += n
  assert.equal(sum, 5_000_050_000)
  for await (const { n } of numbers().stream(10)) if (n === 15) break
  assert.equal((await sql`select 1 as one`.execute(db)).rows[0].one, 1)
})

test('eight at a time count, and none is lost', async (t) => {
  const db = await migrated(t, 8)
  await db.insertInto('animal').values({ name: 'a' }).execute()
  await db.insertInto('stock').values({ animal: 1, food: 'nut' }).execute()
  await Promise.all(Array.from({ length: 80 }, () => retrying(() => db.transaction().setIsolationLevel('repeatable read').execute(async (trx) => {
    const { count } = await trx.selectFrom('stock').select('count').forUpdate().executeTakeFirstOrThrow()
    await trx.updateTable('stock').set({ count: count + 1 }).execute()
  }))))
  assert.deepEqual(await db.selectFrom('stock').select('count').execute(), [{ count: 80 }])
})
