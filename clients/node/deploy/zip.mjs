// A zip of files that are stored as they are.

/** CRC-32, bit by bit: the files are small. */
function crc32(bytes) {
  let crc = 0xffffffff
  for (const byte of bytes) {
    crc ^= byte
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0)
  }
  return (crc ^ 0xffffffff) >>> 0
}

const numbers = (...pairs) =>
  Buffer.concat(
    pairs.map(([size, value]) => {
      const bytes = Buffer.alloc(size)
      bytes.writeUIntLE(value, 0, size)
      return bytes
    }),
  )

/** The archive of an object of texts by path. */
export function zip(files) {
  const parts = []
  const directory = []
  let offset = 0
  for (const [path, text] of Object.entries(files)) {
    const [name, bytes] = [Buffer.from(path), Buffer.from(text)]
    // Method, time, date, checksum, sizes and lengths of names: the same in both places.
    const common = numbers([2, 0], [2, 0], [2, 33], [4, crc32(bytes)], [4, bytes.length], [4, bytes.length], [2, name.length], [2, 0])
    const local = Buffer.concat([numbers([4, 0x04034b50], [2, 20], [2, 0]), common, name, bytes])
    directory.push(Buffer.concat([numbers([4, 0x02014b50], [2, 20], [2, 20], [2, 0]), common, numbers([2, 0], [2, 0], [2, 0], [4, 0], [4, offset]), name]))
    parts.push(local)
    offset += local.length
  }
  const listed = Buffer.concat(directory)
  const count = directory.length
  const end = numbers([4, 0x06054b50], [2, 0], [2, 0], [2, count], [2, count], [4, listed.length], [4, offset], [2, 0])
  return Buffer.concat([...parts, listed, end])
}
