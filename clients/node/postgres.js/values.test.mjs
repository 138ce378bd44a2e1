import assert from 'node:assert/strict'
import { test } from 'node:test'
import postgres from 'postgres'
import { ODD_TEXT, sqlstate } from '../server.mjs'
import { connect } from './client.mjs'

const at = new Date('2026-02-28T23:59:59.987Z')
const bytes = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte))

/** Type, value that is sent, value that comes back if that is another. */
const VALUES = [
  ['int4', -2147483648],
  ['int8', '9223372036854775807'],
  ['numeric', '-12345678901234567890.000000000123456789'],
  ['float8', 0.1],
  ['bool', true],
  ['text', ODD_TEXT],
  ['bytea', bytes],
  ['json', { a: [1, 'zwei', null, { b: ODD_TEXT }] }],
  ['jsonb', { a: [1, 'zwei', null, { b: ODD_TEXT }] }],
  ['int4[]', [1, -2, 3]],
  ['text[]', [ODD_TEXT, '', '{}']],
  ['timestamptz', at],
  ['date', new Date('2026-02-28')],
  ['interval', '1 year 2 days 03:04:05.678', '1 year 2 days 03:04:05.678'],
  ['uuid', '3f333df6-90a4-4fda-8dd3-9485d27cee36'],
  ['int4range', '[1,5)'],
  ['inet', '::1'],
]

for (const [type, sent, expected = sent] of VALUES) {
  test(`${type}: ${type === 'bytea' ? sent.length : String(sent)}`, async (t) => {
    const sql = connect(t)
    const [{ value }] = await sql`select ${sent}::${sql.unsafe(type)} as value`
    assert.deepEqual(value, expected)
    await sql.unsafe(`create table kept (value ${type})`)
    // Here the driver asks the server for the type of the parameter.
    await sql`insert into kept values (${sent})`
    const [kept] = await sql`select value, value is null as none from kept`.simple()
    assert.deepEqual(kept, { value: expected, none: false })
    await sql`update kept set value = ${null}`
    assert.deepEqual([...(await sql`select value from kept`)], [{ value: null }])
  })
}

test('bigint, by its own type', async (t) => {
  const sql = connect(t, { types: { bigint: postgres.BigInt } })
  assert.deepEqual([...(await sql`select ${2n ** 62n}::int8 as value`)], [{ value: 2n ** 62n }])
})

test('an enum and its arrays', async (t) => {
  const sql = connect(t)
  await sql`create type mood as enum ('sad', 'it''s ok', 'happy')`
  await sql`create table animals (mood mood, moods mood[])`
  await sql`insert into animals values (${"it's ok"}, ${'{sad,happy}'})`
  assert.deepEqual([...(await sql`select mood, moods::text[] from animals`)], [{ mood: "it's ok", moods: ['sad', 'happy'] }])
  await sqlstate(sql`insert into animals values (${'angry'})`, '22P02')
})

test('helpers for rows, columns and names', async (t) => {
  const sql = connect(t, { transform: postgres.camel })
  await sql`create table ${sql('Odd "table')} (user_id int, "full name" text)`
  const rows = [{ userId: 1, 'full name': ODD_TEXT }, { userId: 2, 'full name': null }]
  await sql`insert into ${sql('Odd "table')} ${sql(rows)}`
  await sql`update ${sql('Odd "table')} set ${sql({ 'full name': 'x' })} where user_id in ${sql([2, 3])}`
  const found = await sql`select ${sql(['userId', 'full name'])} from ${sql('Odd "table')} order by user_id`
  assert.deepEqual([...found], [rows[0], { userId: 2, 'full name': 'x' }])
})
