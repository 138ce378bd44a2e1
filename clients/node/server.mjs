// The server that the suites talk to, and databases of it.

const server = process.env.DORMOUSE_TEST_URL

/** Where the server speaks HTTP: host and port. */
export const httpAddress = process.env.DORMOUSE_TEST_HTTP

let count = 0

/** The address of a database that nobody has used before. */
export function newDatabase() {
  if (!server) throw new Error('DORMOUSE_TEST_URL is not set: `cargo xtask test clients` runs this')
  count += 1
  return `${server}/t${process.pid}_${count}`
}

/** Text that breaks whoever quotes, counts or encodes wrongly. */
export const ODD_TEXT = 'Siebenschl\u00e4fer \u{1F42D} \u4E2D\u6587 \'single\' "double" \\back $1 %s {a,b} \r\n\t end'

/** Whether a promise is rejected with this SQLSTATE; gives the error. */
export async function sqlstate(promise, code) {
  const error = await promise.then(
    () => {
      throw new Error(`no ${code}: it succeeded`)
    },
    (error) => error,
  )
  // Drizzle wraps the driver's error.
  const found = error.code ?? error.cause?.code
  if (found !== code) throw new Error(`no ${code} but ${found}`, { cause: error })
  return error.code ? error : error.cause
}

/** Does it again for as long as it fails as concurrent transactions may. */
export async function retrying(work) {
  for (;;) {
    try {
      return await work()
    } catch (error) {
      if (!['40001', '40P01'].includes(error.code ?? error.cause?.code)) throw error
    }
  }
}

/** A promise, and how to fulfil it from elsewhere. */
export function promised() {
  let resolve, reject
  const promise = new Promise((yes, no) => ([resolve, reject] = [yes, no]))
  return { promise, resolve, reject }
}

/** Asks again until the answer is right. A test that waits for ever is ended by the runner. */
export async function until(ask) {
  for (;;) {
    const answer = await ask()
    if (answer) return answer
  }
}
