import assert from 'node:assert/strict'
import { test } from 'node:test'
import { sqlstate } from '../server.mjs'
import { connect } from './client.mjs'

const SCHEMA = `
  create table parent (id int primary key, name text not null constraint named unique, age int check (age > 0));
  create table child (parent int references parent);
  insert into parent values (1, 'first', 10)`

/** Statement, parameters, SQLSTATE, and fields of the error. */
const ERRORS = [
  ['insert into parent values ($1, $2)', [2, 'first'], '23505', { schema: 'public', table: 'parent', constraint: 'named', detail: 'Key (name)=(first) already exists.' }],
  ['insert into parent values ($1, $2)', [2, null], '23502', { table: 'parent', column: 'name' }],
  ['insert into parent values ($1, $2, $3)', [2, 'b', -1], '23514', { table: 'parent', constraint: 'parent_age_check' }],
  ['insert into child values ($1)', [9], '23503', { table: 'child', constraint: 'child_parent_fkey' }],
  ['selec 1', [], '42601', { position: '1' }],
  ['select * from nowhere where a = $1', [1], '42P01', { position: '15' }],
  ['select nothing from parent', [], '42703', { position: '8' }],
  ['select nothing()', [], '42883', { hint: /function/ }],
  ['select 1 / $1::int', [0], '22012', {}],
  ['create table parent ()', [], '42P07', {}],
  ["do $$ begin raise exception 'own' using errcode = 'U0001', detail = 'd', hint = 'h', column = 'c', constraint = 'k', datatype = 't', table = 'b', schema = 's'; end $$", [], 'U0001',
    { message: 'own', detail: 'd', hint: 'h', column: 'c', constraint: 'k', dataType: 't', table: 'b', schema: 's', severity: 'ERROR', where: /^PL\/pgSQL function inline_code_block/ }],
]

for (const [sql, values, code, fields] of ERRORS) {
  test(`${code}: ${sql.slice(0, 40)}`, async (t) => {
    const client = await connect(t)
    await client.query(SCHEMA)
    const error = await sqlstate(client.query(sql, values), code)
    for (const [name, value] of Object.entries(fields)) {
      if (value instanceof RegExp) assert.match(error[name], value)
      else assert.equal(error[name], value, name)
    }
    assert.equal((await client.query('select age from parent where id = $1', [1])).rows[0].age, 10)
  })
}

test('an error between statements that are sent together is that statement\'s alone', async (t) => {
  const client = await connect(t, { pipeline: true })
  const outcomes = await Promise.allSettled([1, 0, 2, 0, 5].map((n) => client.query('select 10 / $1::int as n', [n])))
  assert.deepEqual(outcomes.map((outcome) => outcome.value?.rows[0].n ?? outcome.reason.code), [10, '22012', 5, '22012', 2])
})

test('notices come in order, and with their fields', async (t) => {
  const client = await connect(t)
  const notices = []
  client.on('notice', (notice) => notices.push([notice.severity, notice.code, notice.message]))
  await client.query("drop table if exists never; do $$ begin raise warning 'one'; raise notice 'two'; raise debug 'three'; end $$")
  assert.deepEqual(notices, [
    ['NOTICE', '00000', 'table "never" does not exist, skipping'], ['WARNING', '01000', 'one'], ['NOTICE', '00000', 'two'],
  ])
})
