// The driver's queries over HTTP.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { inspect } from 'node:util'
import { neon, NeonDbError } from '@neondatabase/serverless'
import pg from 'pg'
import { newDatabase, ODD_TEXT, sqlstate } from '../server.mjs'
import { newNeon } from './client.mjs'

/** Types, each with a value in PostgreSQL's text. */
const VALUES = {
  bool: 'true', int2: '-32768', int4: '2147483647', int8: '9223372036854775807', oid: '4294967295',
  float4: '1.5', float8: '-0.1', numeric: '-12345678901234567890.0000000001', money: '$1,234.50',
  text: ODD_TEXT, varchar: 'short', 'char(4)': 'ab', name: 'a name', bytea: '\\x00ff10', uuid: '3f333df6-90a4-4fda-8dd3-9485d27cee36',
  json: '{"a":[1,null,"zwei"]}', jsonb: '{"a": 1}', xml: '<a b="c"/>', date: '2026-02-28', time: '23:59:59.987654', timetz: '23:59:59+02',
  timestamp: '2026-02-28 23:59:59.987', timestamptz: '2026-02-28 23:59:59.987+00', interval: '1 year 2 mons -3 days 04:05:06.7',
  inet: '192.168.0.0/24', cidr: '10.0.0.0/8', macaddr: '08:00:2b:01:02:03', 'bit(4)': '1010', varbit: '101', point: '(1.5,-2)', box: '(3,4),(1,2)',
  circle: '<(1,2),3>', int4range: '[1,5)', tstzrange: 'empty', int4multirange: '{[1,3),[5,8)}', tsvector: "'mouse':1", tsquery: "'a' & 'b'",
  'int4[]': '{1,NULL,3}', 'int8[]': '{1,2}', 'text[]': '{a,NULL,"b,c","NULL"}', 'bool[]': '{t,f}', 'numeric[]': '{1.50,2}', 'float8[]': '{1.5,NaN}',
  'timestamptz[]': '{"2026-02-28 23:59:59+00"}', 'date[]': '{2026-02-28}', 'json[]': '{"{\\"a\\":1}"}', 'jsonb[]': '{"{\\"a\\": 1}"}', 'bytea[]': '{"\\\\x00ff"}',
  'uuid[]': '{3f333df6-90a4-4fda-8dd3-9485d27cee36}', 'int4[][]': '{{1,2},{3,4}}', 'point[]': '{"(1,2)"}', 'interval[]': '{"1 day"}',
}

/** The same values; the driver brings its own copies of some classes. */
function same(ours, theirs) {
  const shown = (value) => inspect(value, { depth: null, maxStringLength: null, maxArrayLength: null })
  assert.equal(shown(ours), shown(theirs))
}

async function beside(t, address) {
  const client = new pg.Client({ connectionString: address })
  await client.connect()
  t.after(() => client.end())
  return client
}

test('values of all common types are those of node-postgres', async (t) => {
  const address = newDatabase()
  const [sql, client] = [neon(address), await beside(t, address)]
  const columns = Object.keys(VALUES).map((type, n) => `$${n + 1}::${type} as "${type}", null::${type} as "no ${type}"`)
  const query = `select ${columns.join(', ')}`
  const params = Object.values(VALUES)
  const theirs = await client.query(query, params)
  const ours = await sql.query(query, params, { fullResults: true })
  same(ours.rows, theirs.rows)
  assert.deepEqual(ours.rows[0].bytea, Buffer.from([0, 255, 16]))
  const named = ({ name, dataTypeID, tableID, columnID, dataTypeSize, dataTypeModifier, format }) => ({ name, dataTypeID, tableID, columnID, dataTypeSize, dataTypeModifier, format })
  assert.deepEqual(ours.fields, theirs.fields.map(named))
  assert.deepEqual([ours.command, ours.rowCount, ours.rowAsArray, ours.viaNeonFetch], ['SELECT', 1, false, true])
  const arrays = await sql.query(query, params, { arrayMode: true })
  same(arrays, (await client.query({ text: query, values: params, rowMode: 'array' })).rows)
})

test('parameters as the driver sends them are those of node-postgres', async (t) => {
  const address = newDatabase()
  const [sql, client] = [neon(address), await beside(t, address)]
  const at = new Date('2026-02-28T23:59:59.987Z')
  const cases = [
    ['int4', 7], ['int8', 2n ** 62n], ['float8', 0.1], ['bool', true], ['bool', false], ['text', ODD_TEXT], ['text', ''], ['text', null], ['text', undefined],
    ['text', 5], ['jsonb', { a: [1, ODD_TEXT] }], ['int4[]', [1, null, 3]], ['int4[]', []], ['int4[]', [[1, 2], [3, 4]]],
    ['text[]', [ODD_TEXT, '', 'NULL', null, '{}']], ['timestamptz', at], ['timestamptz[]', [at, null]],
    ['bytea', Buffer.from([0, 1, 255])], ['bytea', Buffer.alloc(0)], ['jsonb', JSON.stringify('a string')],
  ]
  for (const [type, value] of cases) {
    const query = `select $1::${type} as value`
    const [theirs] = (await client.query(query, [value])).rows
    assert.deepEqual(await sql.query(query, [value]), [theirs], type)
  }
  const bytes = Buffer.from([0, 1, 255])
  assert.deepEqual(await sql`select ${bytes} as b, length(${bytes}) as n`, [{ b: bytes, n: 3 }])
})

test('results of commands are those of node-postgres', async (t) => {
  const address = newDatabase()
  const other = newDatabase()
  const [sql, client] = [neon(address, { fullResults: true }), await beside(t, other)]
  for (const query of [
    'create table t (id int primary key, x text)', "insert into t values (1, 'a'), (2, 'b')", "insert into t values (3, 'c') returning id, x as \"X\"",
    "update t set x = 'd' where id > 1", 'delete from t where id = 1 returning *', 'select * from t where false', 'select 1 as a, 2 as a', 'truncate t', 'vacuum t', '', '-- nothing', 'explain select 1',
  ]) {
    const theirs = await client.query(query)
    const ours = await sql.query(query)
    assert.deepEqual([ours.command, ours.rowCount, ours.rows], [theirs.command, theirs.rowCount, theirs.rows], query)
  }
})

test('types of one\'s own are parsed', async () => {
  const sql = newNeon()
  const types = { getTypeParser: (oid) => (text) => `${oid}:${text}` }
  assert.deepEqual(await sql.query('select 1 as a, true as b', [], { types }), [{ a: '23:1', b: '16:t' }])
})

test('templates are composed', async () => {
  const sql = newNeon()
  await sql`create table animals (id int, name text)`
  await sql`insert into animals values (${1}, ${ODD_TEXT}), (${2}, ${null})`
  const where = sql`where id = ${1} or name is ${sql.unsafe('null')}`
  assert.deepEqual(await sql`select * from ${sql.unsafe('animals')} ${where} order by id`, [{ id: 1, name: ODD_TEXT }, { id: 2, name: null }])
})

test('errors have their fields', async () => {
  const sql = newNeon()
  await sql`create table t (id int primary key, n int check (n > 0))`
  await sql`insert into t values (1, 1)`
  const error = await sqlstate(sql`insert into t values (1, 2)`, '23505')
  assert.ok(error instanceof NeonDbError)
  assert.equal(error.message, 'duplicate key value violates unique constraint "t_pkey"')
  assert.deepEqual([error.severity, error.detail, error.schema, error.table, error.constraint], ['ERROR', 'Key (id)=(1) already exists.', 'public', 't', 't_pkey'])
  const syntax = await sqlstate(sql`select 1 frim x y`, '42601')
  assert.equal(syntax.position, '15')
  assert.equal((await sqlstate(sql`select missing from t`, '42703')).hint, undefined)
  assert.match((await sqlstate(sql`select lenght('x')`, '42883')).hint, /argument types/)
  await sqlstate(sql.query('select $1::int', ['x']), '22P02')
  await sqlstate(sql.query('select $1::int, $2::int', [1]), '08P01')
  await sqlstate(sql.query('select 1; select 2'), '42601')
  await sqlstate(sql`copy t from stdin`, '0A000')
  const raised = await sqlstate(sql.query("do $$ begin raise exception 'no' using errcode = 'DM001', hint = 'h', detail = 'd', column = 'c', datatype = 't' ; end $$"), 'DM001')
  assert.deepEqual([raised.hint, raised.detail, raised.column, raised.dataType], ['h', 'd', 'c', 't'])
  assert.match(raised.where, /PL\/pgSQL/)
})

test('a batch is one transaction', async () => {
  const sql = newNeon()
  const [, , rows, [{ now }]] = await sql.transaction([
    sql`create table t (id int primary key)`, sql`insert into t values (1), (2)`, sql`select * from t order by id`, sql`select now()`,
  ])
  assert.deepEqual(rows, [{ id: 1 }, { id: 2 }])
  assert.ok(now instanceof Date)
  const error = await sqlstate(sql.transaction([sql`insert into t values (3)`, sql`insert into t values (1)`, sql`insert into t values (4)`]), '23505')
  assert.equal(error.constraint, 't_pkey')
  assert.deepEqual(await sql`select count(*)::int as n from t`, [{ n: 2 }])
  const same = await sql.transaction((tx) => [tx`select txid_current() as id`, tx`select txid_current() as id`])
  assert.deepEqual(same[0], same[1])
  assert.deepEqual(await sql.transaction([]), [])
})

test('batches have isolation levels and modes', async () => {
  const sql = newNeon()
  const modes = (options) => sql.transaction([
    sql`select current_setting('transaction_isolation') as level, current_setting('transaction_read_only') as "only", current_setting('transaction_deferrable') as "deferrable"`,
  ], options).then(([[modes]]) => Object.values(modes).join(' '))
  assert.equal(await modes(), 'read committed off off')
  assert.equal(await modes({ isolationLevel: 'ReadUncommitted' }), 'read uncommitted off off')
  assert.equal(await modes({ isolationLevel: 'RepeatableRead' }), 'repeatable read off off')
  assert.equal(await modes({ isolationLevel: 'Serializable', readOnly: true, deferrable: true }), 'serializable on on')
  assert.equal(await modes({ readOnly: false, deferrable: false }), 'read committed off off')
  await sqlstate(sql.transaction([sql`create table t ()`], { readOnly: true }), '25006')
  await assert.rejects(sql.transaction([sql`select 1`], { isolationLevel: 'Sloppy' }), { code: '22023' })
})

test('each query of a batch has its own modes', async () => {
  const sql = newNeon()
  const [arrays, full] = await sql.transaction([
    sql.query('select 1 as a, 2 as b', [], { arrayMode: true }), sql.query('select 1 as a', [], { fullResults: true }),
  ])
  assert.deepEqual(arrays, [[1, 2]])
  assert.deepEqual([full.command, full.rowCount, full.rows], ['SELECT', 1, [{ a: 1 }]])
})

test('settings of the address hold', async () => {
  const address = new URL(newDatabase())
  address.searchParams.set('options', '-c work_mem=2MB')
  address.searchParams.set('sslmode', 'require')
  address.searchParams.set('channel_binding', 'require')
  const [row] = await neon(address.href)`select current_setting('work_mem') as mem, current_setting('application_name') as name, current_database() as db`
  assert.equal(row.mem, '2MB')
  assert.match(row.name, /neondatabase/)
  assert.equal(row.db, address.pathname.slice(1))
})

test('who is not let in', async () => {
  const address = new URL(newDatabase())
  await neon(address.href)`select 1`
  address.username = 'nobody'
  await sqlstate(neon(address.href)`select 1`, '28000')
  address.username = 'postgres'
  address.pathname = '/No%20name%2F'
  await sqlstate(neon(address.href)`select 1`, '3D000')
})

test('many at once', async () => {
  const sql = newNeon()
  await sql`create table t (id int)`
  await Promise.all(Array.from({ length: 100 }, (_, n) => sql`insert into t values (${n})`))
  assert.deepEqual(await sql`select count(distinct id)::int as n from t`, [{ n: 100 }])
})

test('a query is given up with its request', async () => {
  const sql = newNeon()
  const controller = new AbortController()
  const query = sql.query("select pg_sleep(60), 'mark'", [], { fetchOptions: { signal: controller.signal } })
  const rejected = assert.rejects(query.then((rows) => rows))
  const running = "select count(*)::int as n from pg_stat_activity where query like 'select pg_sleep%mark%' and state = 'active'"
  setTimeout(() => controller.abort(), 300)
  await rejected
  for (;;) if ((await sql.query(running))[0].n === 0) break
})
