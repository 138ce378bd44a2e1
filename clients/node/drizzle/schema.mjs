import { relations, sql } from 'drizzle-orm'
import {
  bigint, check, index, integer, jsonb, numeric, pgEnum, pgTable, primaryKey, text, timestamp, uuid, varchar,
} from 'drizzle-orm/pg-core'

export const mood = pgEnum('mood', ['asleep', 'awake'])

export const animals = pgTable('animals', {
  id: integer().primaryKey().generatedAlwaysAsIdentity(),
  name: varchar({ length: 40 }).notNull().unique(),
  mood: mood().notNull().default('asleep'),
  weight: numeric({ precision: 8, scale: 2 }),
  born: timestamp({ withTimezone: true }).notNull().defaultNow(),
  tag: uuid().notNull().defaultRandom(),
  traits: jsonb().notNull().default({}),
  colours: text().array(),
  steps: bigint({ mode: 'bigint' }),
})

export const stock = pgTable('stock', {
  animalId: integer('animal_id').notNull().references(() => animals.id, { onDelete: 'cascade' }),
  food: text().notNull(),
  count: integer().notNull().default(0),
}, (table) => [
  primaryKey({ columns: [table.animalId, table.food] }),
  index().on(table.food),
  check('stock_count_check', sql`${table.count} >= 0`),
])

export const animalsRelations = relations(animals, ({ many }) => ({ stock: many(stock) }))
export const stockRelations = relations(stock, ({ one }) => ({
  animal: one(animals, { fields: [stock.animalId], references: [animals.id] }),
}))
