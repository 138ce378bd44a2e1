// PGlite in this process, behind the driver protocol of ../README.md.
//
// DORMOUSE_TEST_TOOLS names the folder with node_modules/; the argument is the data directory.

import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { pathToFileURL } from 'node:url'

const dataDir = process.argv[2]
const home = `${process.env.DORMOUSE_TEST_TOOLS}/node_modules/@electric-sql/pglite`
const { PGlite } = await import(pathToFileURL(`${home}/dist/index.js`))
const { version } = JSON.parse(readFileSync(`${home}/package.json`, 'utf8'))

const say = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`)
const us = (since) => (performance.now() - since) * 1000

const beforeOpen = performance.now()
const db = await PGlite.create(dataDir)
await db.query('select 1')
say({ ready: true, open_us: us(beforeOpen), version: `PGlite ${version}, Node.js ${process.version}` })

// Databases made by `create`, kept open until `release`.
let others = []

async function repeat({ warmup, iterations, limit_ms }, once) {
  for (let i = 0; i < warmup; i++) await once(i)
  const samples_us = []
  const start = performance.now()
  for (let i = 0; i < iterations; i++) {
    const before = performance.now()
    await once(warmup + i)
    samples_us.push(us(before))
    if (performance.now() - start >= limit_ms) break
  }
  return { samples_us }
}

const operations = {
  simple: (ask) => repeat(ask, () => db.exec(ask.sql)),

  // PGlite has no prepared statements of its own: `query` parses each time.
  prepared: (ask) =>
    repeat(ask, (i) => db.query(ask.sql, ask.params[i % ask.params.length])),

  async transaction({ sql, params }) {
    const start = performance.now()
    await db.transaction(async (tx) => {
      for (const row of params) await tx.query(sql, row)
    })
    return { us: us(start) }
  },

  async create({ name }) {
    const start = performance.now()
    const other = await PGlite.create(`${dataDir}-${name}`)
    const created = us(start)
    await other.query('select 1')
    others.push(other)
    return { us: created, first_us: us(start) }
  },

  async release() {
    for (const other of others) await other.close()
    others = []
    return {}
  },
}

for await (const line of createInterface({ input: process.stdin })) {
  try {
    const ask = JSON.parse(line)
    say(await operations[ask.op](ask))
  } catch (error) {
    say({ error: String(error?.message ?? error) })
  }
}
await db.close()
process.exit(0)
