import WebSocket from 'ws'
import { httpAddress, newDatabase } from '../server.mjs'

/** The name of a database that nobody has used before. */
export const newName = () => new URL(newDatabase()).pathname.slice(1)

/** A conversation over a WebSocket, as a client of `dormouse.v1` sees it. */
export class Conversation {
  answers = []
  received = 0
  #waiting = new Map()
  #others = []

  static async open(name = newName(), resume) {
    const conversation = new Conversation()
    await conversation.connect(name, resume)
    return conversation
  }

  async connect(name, resume) {
    this.name = name
    this.socket = new WebSocket(`ws://${httpAddress}/v1/databases/${name}/ws`, ['dormouse.v1'])
    this.closed = new Promise((resolve) => this.socket.on('close', (code, reason) => resolve({ code, reason: reason.toString() })))
    this.socket.on('error', () => {})
    const hello = this.other()
    this.socket.on('message', (data) => this.#take(JSON.parse(data)))
    this.hello = (await hello).hello
    if (resume) {
      const resumed = this.other()
      this.send({ resume })
      const told = await Promise.race([resumed, this.closed])
      if (told.code) throw Object.assign(new Error(told.reason), { code: told.code })
      this.hello = { ...this.hello, ...resume }
      this.resumed = told.resumed
    }
    return this
  }

  #take(message) {
    if (!message.hello && !message.resumed) this.received += 1
    if (message.id === undefined) return this.#others.shift()?.(message)
    const request = this.#waiting.get(message.id)
    if (!request) return this.answers.push(message)
    if (message.fields) request.result = message
    else if (message.rows) request.result.rows.push(...message.rows)
    request.parts += 1
    if (message.more) return undefined
    this.#waiting.delete(message.id)
    this.answers.push({ id: message.id })
    if (message.error) return request.reject(Object.assign(new Error(message.error.message), message.error))
    const { id, more, ...result } = { ...request.result, ...message, rows: request.result?.rows ?? message.rows }
    return request.resolve({ ...result, parts: request.parts })
  }

  /** Goes on where another one was cut off: with the requests that wait, and the count of messages. */
  inherit(other) {
    this.#waiting = other.#waiting
    this.received = other.received
  }

  /** The next message that answers no request. */
  other() {
    return new Promise((resolve) => this.#others.push(resolve))
  }

  send(message) {
    this.socket.send(JSON.stringify(message))
  }

  /** Sends a request; gives its answer. */
  ask(message) {
    this.last = message.id ?? (this.last ?? 0) + 1
    this.expect(this.last).catch(() => {})
    this.send({ id: this.last, ...message })
    return this.#waiting.get(this.last).promise
  }

  /** The answer to a request that was sent already. */
  expect(id) {
    const request = { parts: 0 }
    request.promise = new Promise((resolve, reject) => Object.assign(request, { resolve, reject }))
    request.promise.catch(() => {})
    this.#waiting.set(id, request)
    return request.promise
  }

  sql(sql, params, more) {
    return this.ask({ sql, params, ...more })
  }

  async rows(sql, params, more) {
    return (await this.sql(sql, params, more)).rows
  }

  close() {
    this.socket.close(1000)
    return this.closed
  }
}

/** A conversation that ends with its test. */
export async function converse(t, name, resume) {
  const conversation = await Conversation.open(name, resume)
  t.after(() => conversation.socket.terminate())
  return conversation
}
