// A browser: the Chromium that @sparticuz/chromium brings, driven by playwright-core. Neither downloads anything.
// On machines that the package is not for, DORMOUSE_TEST_BROWSER is the path of another one.

import { newFolder } from '../program.mjs'

/** Starts it; it ends with the suite. */
export async function startChromium(after) {
  let browser
  const folder = await newFolder(after, () => browser?.close())
  const { executablePath, env } = await installed(folder)
  const { chromium } = await import('playwright-core')
  // The flags that the package recommends are not taken: with them Chromium asks nobody for CORS.
  browser = await chromium.launch({
    executablePath,
    env,
    args: ['--no-sandbox', '--disable-gpu', '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost, EXCLUDE *.localhost'],
  })
  return browser
}

async function installed(folder) {
  const executablePath = process.env.DORMOUSE_TEST_BROWSER
  if (executablePath) return { executablePath, env: process.env }
  if (process.platform === 'linux' && process.arch === 'x64') return unpacked(folder)
  throw new Error(`npm has no Chromium for ${process.platform} on ${process.arch}: set DORMOUSE_TEST_BROWSER to the path of one`)
}

/** The program, unpacked into a folder, and its environment. */
async function unpacked(folder) {
  const before = { ...process.env }
  // The package reads these when it is loaded: where to unpack to, and that it should bring libraries and fonts too, so
  // that the machine needs none.
  Object.assign(process.env, { TMPDIR: folder, AWS_LAMBDA_JS_RUNTIME: 'nodejs20.x' })
  try {
    const { default: packed } = await import('@sparticuz/chromium')
    return { executablePath: await packed.executablePath(), env: { ...process.env } }
  } finally {
    for (const name of Object.keys(process.env)) if (!(name in before)) delete process.env[name]
    Object.assign(process.env, before)
  }
}
