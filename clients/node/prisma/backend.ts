// A backend that does by Prisma what those of other drivers do by theirs.

import { PrismaPg } from '@prisma/adapter-pg'
import { PrismaClient } from './generated/client'

type Env = { DB: { connectionString: string } }

const same = (found: unknown, wanted: unknown) => {
  const [a, b] = [JSON.stringify(found), JSON.stringify(wanted)]
  if (a !== b) throw new Error(`${a} is not ${b}`)
}

async function run(prisma: PrismaClient) {
  for (const sql of [
    'drop table if exists tag, fruit',
    'create table fruit (id int primary key, name text not null)',
    'create table tag (id serial primary key, text text not null, fruit_id int not null references fruit)',
  ]) {
    await prisma.$executeRawUnsafe(sql)
  }
  await prisma.fruit.createMany({ data: [{ id: 1, name: 'fig' }, { id: 2, name: 'kiwi' }] })
  same(await prisma.fruit.findUnique({ where: { id: 2 } }), { id: 2, name: 'kiwi' })
  await prisma.$transaction(async (tx) => {
    await tx.fruit.update({ where: { id: 1 }, data: { name: 'pear', Tag: { create: { text: 'green' } } } })
  })
  const failed = await prisma.$transaction(async (tx) => {
    await tx.fruit.deleteMany({ where: { id: 2 } })
    throw new Error('back')
  }).catch((error: Error) => error.message)
  same(failed, 'back')
  same(await prisma.fruit.findMany({ orderBy: { id: 'asc' }, include: { Tag: { select: { text: true } } } }), [
    { id: 1, name: 'pear', Tag: [{ text: 'green' }] },
    { id: 2, name: 'kiwi', Tag: [] },
  ])
  const [count, first] = await prisma.$transaction([prisma.fruit.count(), prisma.tag.findFirst()])
  same([count, first?.fruitId], [2, 1])
  const code = await prisma.fruit.create({ data: { id: 1, name: 'again' } }).catch((error: { code: string }) => error.code)
  same(code, 'P2002')
  same(await prisma.$queryRaw`select name from fruit where id = ${2}`, [{ name: 'kiwi' }])
}

export default {
  async fetch(_request: Request, env: Env) {
    const prisma = new PrismaClient({ adapter: new PrismaPg({ connectionString: env.DB.connectionString }) })
    try {
      await run(prisma)
      return Response.json('passed')
    } catch (error) {
      return Response.json(String((error as Error)?.stack ?? error), { status: 500 })
    }
  },
}
