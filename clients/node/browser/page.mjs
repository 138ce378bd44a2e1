// What the pages of these tests bring: functions for fetch and WebSocket, called by the tests.

/** Asks with a body of JSON. `at` is `{ http, token }`. */
window.ask = (at, path, body, { headers, ...more } = {}) =>
  fetch(`http://${at.http}${path}`, {
    method: body === undefined ? 'GET' : 'POST',
    headers: { ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...(at.token ? { authorization: `Bearer ${at.token}` } : {}), ...headers },
    body: body === undefined ? undefined : JSON.stringify(body),
    ...more,
  })

/** All that the page can see of an answer. */
window.see = async (promise) => {
  const response = await promise
  const text = await response.text()
  const isJson = response.headers.get('content-type')?.includes('json')
  const document = text && isJson ? JSON.parse(text) : undefined
  return { status: response.status, headers: Object.fromEntries(response.headers), text, document }
}

/** One statement in the database of `at`. */
window.query = (at, sql, { params, ...more } = {}) => window.see(window.ask(at, `/v1/databases/${at.database}/query`, { sql, params }, more))

/** Whether a promise is rejected as fetch rejects what the browser forbids. */
window.isForbidden = (promise) => promise.then(() => false, (error) => error instanceof TypeError)

/** A conversation in `dormouse.v1`, with the database of `at` unless it has another `path`. */
window.Conversation = class {
  received = 0
  messages = []
  #waiting = []

  constructor(at) {
    const protocols = at.token ? ['dormouse.v1', `dormouse.bearer.${at.token}`] : ['dormouse.v1']
    this.socket = new WebSocket(`ws://${at.http}${at.path ?? `/v1/databases/${at.database}/ws`}`, protocols)
    this.closed = new Promise((resolve) => { this.socket.onclose = ({ code, reason, wasClean }) => resolve({ code, reason, wasClean }) })
    this.socket.onmessage = ({ data }) => {
      const message = JSON.parse(data)
      if (!message.hello && !message.resumed) this.received += 1
      this.messages.push(message)
      this.#waiting = this.#waiting.filter((waiting) => !waiting(message))
    }
  }

  /** The first message that is so. */
  until(right) {
    const found = this.messages.find(right)
    if (found) return Promise.resolve(found)
    return new Promise((resolve) => this.#waiting.push((message) => right(message) && (resolve(message), true)))
  }

  hello() {
    return this.until((message) => message.hello).then((message) => message.hello)
  }

  send(...messages) {
    for (const message of messages) this.socket.send(JSON.stringify(message))
  }

  answer(id) {
    return this.until((message) => message.id === id && !message.more)
  }
}
window.isReady = true
