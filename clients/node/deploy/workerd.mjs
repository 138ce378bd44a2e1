// workerd, which npm brings: a package for each kind of machine.

import { readdir, realpath } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The folder that all packages are in. */
export const packages = await realpath(fileURLToPath(new URL('../node_modules', import.meta.url)))

/** The path of the program. */
export async function workerd() {
  const all = await readdir(join(packages, '@cloudflare'))
  return join(packages, '@cloudflare', all.find((name) => name.startsWith('workerd-')), 'bin/workerd')
}
