// Prisma's client for a schema, as `prisma generate` makes it: by its generator, whose packages have all that it needs. The
// command line itself is left out, because it downloads an engine that nobody here uses.
//
// node generate.mjs SCHEMA FOLDER

import { copyFile, mkdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'

const [schemaPath, folder] = process.argv.slice(2)
const near = createRequire(import.meta.url)
const COMPILER = 'query_compiler_fast_bg.postgresql'

// The generator takes the compiler of queries from beside itself, where the command line would have put it.
const place = join(folder, 'generator')
await mkdir(place, { recursive: true })
await copyFile(near.resolve('@prisma/client-generator-ts'), join(place, 'index.cjs'))
await symlink(join(import.meta.dirname, 'node_modules'), join(place, 'node_modules'))
const runtime = join(dirname(near.resolve('@prisma/client/package.json')), 'runtime')
const { wasm } = await import(join(runtime, `${COMPILER}.wasm-base64.mjs`))
await writeFile(join(place, `${COMPILER}.wasm`), Buffer.from(wasm, 'base64'))
await copyFile(join(runtime, `${COMPILER}.mjs`), join(place, `${COMPILER}.mjs`))

const { getConfig, getDMMF } = near('@prisma/internals')
const { PrismaClientTsGenerator } = near(join(place, 'index.cjs'))
const datamodel = await readFile(schemaPath, 'utf8')
const schema = { datamodel: [[schemaPath, datamodel]] }
const { generators, datasources } = await getConfig({ ...schema, ignoreEnvVarErrors: true })
const generator = { ...generators[0], output: { value: join(folder, 'generated'), fromEnvVar: null } }
await new PrismaClientTsGenerator().generate({
  generator,
  datasources,
  datamodel,
  schemaPath,
  dmmf: await getDMMF(schema),
  version: 'none',
  binaryPaths: {},
  otherGenerators: [],
  allowedErrorCodes: [],
})
