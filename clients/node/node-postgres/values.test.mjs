import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ODD_TEXT, sqlstate } from '../server.mjs'
import { connect } from './client.mjs'

const at = new Date('2026-02-28T23:59:59.987Z')
const bytes = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte))
const id = '3f333df6-90a4-4fda-8dd3-9485d27cee36'

/** Type, value that is sent, value that comes back if that is another. */
const VALUES = [
  ['int2', -32768],
  ['int4', 2147483647],
  ['int8', 9223372036854775807n, '9223372036854775807'],
  ['numeric', '-12345678901234567890.000000000123456789'],
  ['numeric', 'NaN'],
  ['float4', 1.5],
  ['float8', 0.1],
  ['float8', -Infinity],
  ['float8', Number.NaN],
  ['bool', true],
  ['bool', false],
  ['text', ODD_TEXT],
  ['text', ''],
  ['varchar(5)', 'short'],
  ['char(4)', 'ab', 'ab  '],
  ['bytea', bytes],
  ['bytea', Buffer.alloc(0)],
  ['json', { a: [1, 'zwei', null, { b: ODD_TEXT }] }],
  ['jsonb', { a: [1, 'zwei', null, { b: ODD_TEXT }] }],
  ['int4[]', [1, null, 3]],
  ['int4[]', []],
  ['int4[]', [[1, 2], [3, 4]]],
  ['text[]', [ODD_TEXT, '', 'NULL', null, '{}']],
  ['bytea[]', [bytes, Buffer.from('x')]],
  ['timestamptz', at],
  ['timestamptz[]', [at, null]],
  ['date', '2026-02-28', new Date(2026, 1, 28)],
  ['time', '23:59:59.987654'],
  ['uuid', id],
  ['inet', '192.168.0.0/24'],
  ['int4range', '[1,5)'],
  ['tstzrange', 'empty'],
  ['int4multirange', '{[1,3),[5,8)}'],
  ['point', '(1.5,-2)', { x: 1.5, y: -2 }],
  ['xml', '<a b="c"/>'],
  ['tsvector', "'mouse':1"],
  ['bit(4)', '1010'],
  ['money', '$1,234.50'],
]

for (const [type, sent, expected = sent] of VALUES) {
  test(`${type}: ${type === 'bytea' ? sent.length : String(sent)}`, async (t) => {
    const client = await connect(t)
    const { rows } = await client.query(`select $1::${type} as value`, [sent])
    assert.deepEqual(rows[0].value, expected)
    // Stored, and read by a query without parameters, which has the simple protocol.
    await client.query(`create table kept (value ${type})`)
    await client.query('insert into kept values ($1)', [sent])
    const kept = await client.query('select value from kept')
    assert.deepEqual(kept.rows[0].value, expected)
  })
}

test('interval', async (t) => {
  const client = await connect(t)
  const { rows } = await client.query("select $1::interval as value", ['1 year 2 days 03:04:05.678'])
  assert.deepEqual(
    { ...rows[0].value },
    { years: 1, days: 2, hours: 3, minutes: 4, seconds: 5, milliseconds: 678 },
  )
})

test('null of every type', async (t) => {
  const client = await connect(t)
  const types = VALUES.map(([type]) => type)
  const columns = types.map((type, i) => `$${i + 1}::${type} as c${i}`)
  const { rows } = await client.query(`select ${columns.join()}`, types.map(() => null))
  assert.deepEqual(new Set(Object.values(rows[0])), new Set([null]))
})

test('an enum, a domain, a composite type and their arrays', async (t) => {
  const client = await connect(t)
  await client.query(`
    create type mood as enum ('sad', 'it''s ok', 'happy');
    create domain age as int check (value >= 0);
    create type animal as (name text, age age, mood mood);
    create table animals (mood mood, moods mood[], age age, animal animal)`)
  await client.query('insert into animals values ($1, $2, $3, $4)', ["it's ok", ['sad', 'happy'], 7, '(Bilch,7,sad)'])
  const { rows } = await client.query('select mood, moods::text[], age, animal, (animal).name from animals')
  assert.deepEqual(rows, [{ mood: "it's ok", moods: ['sad', 'happy'], age: 7, animal: '(Bilch,7,sad)', name: 'Bilch' }])
  await sqlstate(client.query('insert into animals (mood) values ($1)', ['angry']), '22P02')
  await sqlstate(client.query('insert into animals (age) values ($1)', [-1]), '23514')
})

test('results in binary', async (t) => {
  const client = await connect(t, { binary: true })
  const text = 'select $1::int4 as a, $2::text as b, $3::bool as c, $4::int8 as d'
  const { rows, fields } = await client.query({ text, values: [7, ODD_TEXT, true, '8'] })
  assert.deepEqual(fields.map((field) => field.format), ['binary', 'binary', 'binary', 'binary'])
  assert.deepEqual(rows, [{ a: 7, b: ODD_TEXT, c: true, d: '8' }])
})

test('values that a type does not have', async (t) => {
  const client = await connect(t)
  await sqlstate(client.query('select $1::int4', ['2147483648']), '22003')
  await sqlstate(client.query('select $1::uuid', ['no']), '22P02')
  await sqlstate(client.query('select $1::text', ['a\0b']), '22021')
  await sqlstate(client.query('select $1::timestamptz', ['2026-02-30']), '22008')
  await sqlstate(client.query('select $1::int + $2::int', [1]), '08P01')
  assert.equal((await client.query('select 1 as one')).rows[0].one, 1)
})
