// A server of a suite's own, for suites whose server must be told of what they have started before it.

import { spawn, spawnSync } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

const program = process.env.DORMOUSE_TEST_PROGRAM
if (!program) throw new Error('DORMOUSE_TEST_PROGRAM is not set: `cargo xtask test clients` runs this')

/** The environment with these settings, and none of the suite's own. */
function environment(settings) {
  const own = Object.entries(process.env).filter(([name]) => !name.startsWith('DORMOUSE_') || name === 'DORMOUSE_CACHE')
  return { ...Object.fromEntries(own), ...settings }
}

/** What a command says; it must work. */
export function command(args, settings = {}) {
  const { status, stdout, stderr } = spawnSync(program, args, { env: environment(settings), encoding: 'utf8' })
  if (status !== 0) throw new Error(`dormouse ${args.join(' ')}: ${stderr}`)
  return stdout.trim()
}

/** A folder that goes when the suite has ended, once what uses it has. */
export async function newFolder(after, usersEnd = () => {}) {
  const folder = await mkdtemp(join(tmpdir(), 'dormouse-clients-'))
  after(async () => {
    await usersEnd()
    await rm(folder, { recursive: true, force: true })
  })
  return folder
}

/** Starts a server with settings, variables of the environment: its HTTP and PostgreSQL addresses. It ends with the suite. */
export async function serve(after, settings) {
  let end
  const folder = await newFolder(after, () => end())
  const args = ['serve', '--pg', '127.0.0.1:0', '--http', '127.0.0.1:0', '--data', join(folder, 'data')]
  const child = spawn(program, args, { cwd: folder, env: environment(settings), stdio: ['ignore', 'pipe', 'pipe'] })
  let log = ''
  child.stderr.setEncoding('utf8').on('data', (text) => { log += text })
  const ended = new Promise((resolve) => child.on('close', resolve))
  end = () => {
    child.kill('SIGTERM')
    return ended
  }
  const addresses = {}
  for await (const line of createInterface(child.stdout)) {
    const [, protocol, address] = /^(PostgreSQL|HTTP): .*:\/\/(?:postgres@)?([^/]+)/.exec(line) ?? []
    addresses[protocol] = address
    if (protocol === 'HTTP') break
  }
  if (!addresses.HTTP) throw new Error(`the server did not start: ${log}`)
  child.stdout.resume()
  return { http: addresses.HTTP, pg: addresses.PostgreSQL, log: () => log }
}
