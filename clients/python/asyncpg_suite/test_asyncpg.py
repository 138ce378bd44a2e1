import asyncio
import io
import json
import unittest
import uuid
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from ipaddress import ip_address, ip_network

import asyncpg
from server import ODD_TEXT, new_database

AT = datetime(2026, 2, 28, 23, 59, 59, 987654, timezone.utc)

# Type, value both ways. The driver sends and reads everything in binary.
VALUES = [
    ("int2", -32768),
    ("int8", -(2**63)),
    ("numeric", Decimal("-12345678901234567890.000000000123456789")),
    ("float4", 1.5),
    ("float8", float("-inf")),
    ("bool", True),
    ("text", ODD_TEXT),
    ("varchar(5)", "short"),
    ("bytea", bytes(range(256))),
    ("json", json.dumps({"a": ODD_TEXT})),
    ("jsonb", '{"a": [1, null]}'),
    ("int4[]", [1, None, 3]),
    ("int4[]", [[1, 2], [3, 4]]),
    ("text[]", [ODD_TEXT, "", "NULL", None, "{}"]),
    ("timestamptz", AT),
    ("timestamp", AT.replace(tzinfo=None)),
    ("timestamptz[]", [AT]),
    ("date", date(2026, 2, 28)),
    ("time", time(23, 59, 59, 987654)),
    ("interval", timedelta(days=3, microseconds=7)),
    ("uuid", uuid.UUID("3f333df6-90a4-4fda-8dd3-9485d27cee36")),
    ("inet", ip_address("::1")),
    ("cidr", ip_network("192.168.0.0/16")),
    ("int4range", asyncpg.Range(1, 5)),
    ("tstzrange", asyncpg.Range(AT, None)),
    ("int8multirange", [asyncpg.Range(1, 3), asyncpg.Range(5, 8)]),
    ("point", asyncpg.Point(1.5, -2)),
    ("bit(4)", asyncpg.BitString("1010")),
    ("xml", "<a/>"),
]


class Suite(unittest.IsolatedAsyncioTestCase):
    def setUp(self):
        self.address = new_database()

    async def connect(self, **options):
        connection = await asyncpg.connect(self.address, **options)
        self.addAsyncCleanup(connection.close, timeout=10)
        return connection


class Values(Suite):
    async def test_both_ways(self):
        connection = await self.connect()
        # A table for each: what is prepared for one would not fit the next of its name.
        for number, (type_, value) in enumerate(VALUES):
            kept = f"kept{number}"
            with self.subTest(type=type_, value=value):
                self.assertEqual(await connection.fetchval(f"select $1::{type_}", value), value)
                await connection.execute(f"create table {kept} (value {type_})")
                await connection.executemany(f"insert into {kept} values ($1)", [(value,), (None,)])
                rows = await connection.fetch(f"select value from {kept}")
                self.assertEqual([row["value"] for row in rows], [value, None])

    async def test_types_of_ones_own(self):
        connection = await self.connect()
        await connection.execute(
            "create type mood as enum ('sad', 'it''s ok'); create type animal as (name text, moods mood[], n int8);"
            "create domain age as int check (value >= 0)"
        )
        # The driver asks the server what these types are made of.
        row = await connection.fetchrow(
            "select $1::mood as mood, $2::mood[] as moods, $3::animal as animal, $4::age as age, $5::animal[] as animals",
            "it's ok", ["sad", None], (ODD_TEXT, ["sad"], 2**40), 7, [("a", [], 1)],
        )
        self.assertEqual(row["moods"], ["sad", None])
        self.assertEqual((row["mood"], row["age"], tuple(row["animal"])), ("it's ok", 7, (ODD_TEXT, ["sad"], 2**40)))
        self.assertEqual([tuple(animal) for animal in row["animals"]], [("a", [], 1)])
        with self.assertRaises(asyncpg.InvalidTextRepresentationError):
            await connection.fetchval("select $1::mood", "angry")
        await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")
        self.assertEqual(await connection.fetchval("select $1::jsonb", {"a": [ODD_TEXT]}), {"a": [ODD_TEXT]})
        await connection.execute("create extension hstore")
        await connection.set_builtin_type_codec("hstore", codec_name="pg_contrib.hstore")
        self.assertEqual(await connection.fetchval("select $1::hstore", {"a": ODD_TEXT, "b": None}), {"a": ODD_TEXT, "b": None})

    async def test_five_megabytes(self):
        connection = await self.connect()
        text, data = "ä0123456789" * 436_907, bytes(range(256)) * 20_480
        row = await connection.fetchrow("select $1::text, $2::bytea", text, data)
        self.assertTrue(tuple(row) == (text, data))


class Queries(Suite):
    async def test_the_cache_of_statements(self):
        for size in (0, 3, 100):
            connection = await self.connect(statement_cache_size=size)
            for n in range(40):
                self.assertEqual(await connection.fetchval(f"select $1 + {n % 10}", n), n + n % 10)
            kept = await connection.fetchval("select count(*) from pg_prepared_statements where statement like '%$1 +%'")
            self.assertLessEqual(kept, size)

    async def test_a_statement_whose_table_has_changed(self):
        connection = await self.connect()
        other = await self.connect()
        await connection.execute("create table t as select 1 as a")
        self.assertEqual(tuple(await connection.fetchrow("select * from t")), (1,))
        await other.execute("alter table t add b int default 2")
        self.assertEqual(tuple(await connection.fetchrow("select * from t")), (1, 2))
        statement = await connection.prepare("select * from t")
        self.assertEqual([a.name for a in statement.get_attributes()], ["a", "b"])

    async def test_cursors(self):
        connection = await self.connect()
        async with connection.transaction():
            cursor = await connection.cursor("select n from generate_series(1, $1::int) n", 1_000_000)
            self.assertEqual([row[0] for row in await cursor.fetch(2)], [1, 2])
            self.assertEqual(await cursor.forward(100), 100)
            self.assertEqual((await cursor.fetchrow())[0], 103)
            total = 0
            async for row in connection.cursor("select n from generate_series(1, 20000) n", prefetch=500):
                total += row[0]
            self.assertEqual(total, 200_010_000)

    async def test_a_hundred_thousand_rows(self):
        connection = await self.connect()
        rows = await connection.fetch("select n, 'row ' || n as s from generate_series(1, 100000) n")
        self.assertTrue([tuple(row) for row in rows] == [(n, f"row {n}") for n in range(1, 100_001)])

    async def test_copy(self):
        connection = await self.connect()
        await connection.execute("create table t (n int, s text, at timestamptz)")
        records = [(n, f"row\t{n}" if n % 2 else None, AT) for n in range(100_000)]
        self.assertEqual(await connection.copy_records_to_table("t", records=records), "COPY 100000")
        out = io.BytesIO()
        await connection.copy_from_query("select n, s from t where n < $1 order by n", 3, output=out, format="csv")
        self.assertEqual(out.getvalue(), b"0,\n1,row\t1\n2,\n")
        out = io.BytesIO()
        await connection.copy_from_table("t", output=out, format="binary")
        out.seek(0)
        await connection.execute("create table u (like t)")
        self.assertEqual(await connection.copy_to_table("u", source=out, format="binary"), "COPY 100000")
        self.assertEqual(await connection.fetch("(table t except all table u) union all (table u except all table t)"), [])
        with self.assertRaises(asyncpg.BadCopyFileFormatError):
            await connection.copy_to_table("t", source=io.BytesIO(b"1\n"), format="text")
        self.assertEqual(await connection.fetchval("select count(*) from t"), 100_000)

    async def test_executemany_is_one_transaction(self):
        connection = await self.connect()
        await connection.execute("create table t (n int primary key)")
        await connection.executemany("insert into t values ($1)", [(n,) for n in range(10_000)])
        with self.assertRaises(asyncpg.UniqueViolationError):
            await connection.executemany("insert into t values ($1)", [(n,) for n in range(10_100, 9_900, -1)])
        self.assertEqual(await connection.fetchval("select count(*) from t"), 10_000)


class Sessions(Suite):
    async def test_options(self):
        self.address += "?application_name=dormice&sslmode=prefer"
        settings = {"search_path": "nest", "geqo": "off"}
        connection = await self.connect(server_settings=settings)
        for name, value in {**settings, "application_name": "dormice"}.items():
            self.assertEqual(await connection.fetchval("select current_setting($1)", name), value)
        self.assertEqual(connection.get_server_version().major, 18)
        with self.assertRaises(asyncpg.UndefinedObjectError):
            await asyncpg.connect(self.address, server_settings={"nonsense": "1"})

    async def test_errors(self):
        connection = await self.connect()
        await connection.execute("create table t (name text constraint named unique); insert into t values ('a')")
        with self.assertRaises(asyncpg.UniqueViolationError) as caught:
            await connection.execute("insert into t values ($1)", "a")
        error = caught.exception
        self.assertEqual((error.sqlstate, error.table_name, error.constraint_name), ("23505", "t", "named"))
        with self.assertRaises(asyncpg.PostgresSyntaxError):
            await connection.fetch("selec 1")
        heard = []
        connection.add_log_listener(lambda _, message: heard.append(message.message))
        await connection.execute("do $$ begin raise warning 'careful'; end $$")
        await connection.fetchval("select 1")
        self.assertEqual(heard, ["careful"])

    async def test_transactions(self):
        connection = await self.connect()
        await connection.execute("create table t (n int)")
        async with connection.transaction(isolation="serializable"):
            await connection.execute("insert into t values (1)")
            with self.assertRaises(asyncpg.DivisionByZeroError):
                async with connection.transaction():
                    await connection.execute("insert into t values (2)")
                    await connection.fetchval("select 1 / 0")
            await connection.execute("insert into t values (3)")
        with self.assertRaises(asyncpg.ReadOnlySQLTransactionError):
            async with connection.transaction(readonly=True):
                await connection.execute("insert into t values (4)")
        self.assertEqual([row[0] for row in await connection.fetch("select n from t order by n")], [1, 3])

    async def test_cancel_and_timeouts(self):
        connection = await self.connect()
        with self.assertRaises(asyncio.TimeoutError):
            await connection.execute("select pg_sleep(60)", timeout=0.2)
        task = asyncio.ensure_future(connection.fetchval("select count(*) from generate_series(1, 1000000000000)"))
        await asyncio.sleep(0.2)
        task.cancel()
        with self.assertRaises(asyncio.CancelledError):
            await task
        await connection.execute("set statement_timeout = 50")
        with self.assertRaises(asyncpg.QueryCanceledError):
            await connection.execute("select pg_sleep(60)")
        self.assertEqual(await connection.fetchval("select 1"), 1)

    async def test_notifications(self):
        a, b = await self.connect(), await self.connect()
        heard = []
        arrived = asyncio.Event()

        def hear(_, pid, channel, payload):
            heard.append((channel, payload))
            arrived.set()

        await a.add_listener("nest", hear)
        await b.execute("select pg_notify('nest', $1)", "ä" * 3000)
        await asyncio.wait_for(arrived.wait(), 30)
        self.assertEqual(heard, [("nest", "ä" * 3000)])

    async def test_a_pool_of_eight_counts(self):
        async with asyncpg.create_pool(self.address, min_size=8, max_size=8) as pool:
            await pool.execute("create table counter as select 0 as n")

            async def count():
                async with pool.acquire() as connection, connection.transaction():
                    n = await connection.fetchval("select n from counter for update")
                    await connection.execute("update counter set n = $1", n + 1)

            await asyncio.gather(*(count() for _ in range(160)))
            self.assertEqual(await pool.fetchval("select n from counter"), 160)

    async def ended_by_the_server(self, size):
        async with asyncpg.create_pool(self.address, min_size=size, max_size=size) as pool:
            await pool.execute("create table t as select 1 as n")
            with self.assertRaises((asyncpg.AdminShutdownError, asyncpg.ConnectionDoesNotExistError)):
                await pool.execute("select pg_terminate_backend(pg_backend_pid())")
            await pool.expire_connections()
            self.assertEqual(await asyncio.wait_for(pool.fetchval("select n from t"), 20), 1)

    async def test_a_pool_goes_on_after_the_server_ended_its_connection(self):
        await self.ended_by_the_server(1)

    async def test_a_pool_goes_on_after_the_server_ended_its_connections(self):
        await self.ended_by_the_server(8)

    async def test_reset_leaves_nothing_of_a_session(self):
        async with asyncpg.create_pool(self.address, min_size=1, max_size=1) as pool:
            async with pool.acquire() as connection:
                await connection.execute("select pg_advisory_lock(7); set search_path = nest; listen x; declare c cursor with hold for select 1")
            async with pool.acquire() as connection:
                query = "select current_setting('search_path'), (select count(*) from pg_locks where locktype = 'advisory'), (select count(*) from pg_cursors)"
                self.assertEqual(tuple(await connection.fetchrow(query))[:2], ('"$user", public', 0))
                self.assertEqual(await connection.fetch("select * from pg_listening_channels()"), [])

    async def test_introspection(self):
        connection = await self.connect()
        statement = await connection.prepare("select $1::int8 as n, $2::text[] as s, now()")
        self.assertEqual([t.name for t in statement.get_parameters()], ["int8", "text[]"])
        self.assertEqual([a.type.name for a in statement.get_attributes()], ["int8", "text[]", "timestamptz"])
        self.assertEqual((await statement.explain(1, []))[0]["Plan"]["Node Type"], "Result")

    async def test_thirty_databases(self):
        admin = await self.connect()
        for n in range(30):
            address = new_database()
            name = address.rsplit("/", 1)[1]
            await admin.execute(f"create database {name}")
            connection = await asyncpg.connect(address)
            await connection.execute(f"create table t as select {n} as n")
            self.assertEqual(tuple(await connection.fetchrow("select n, current_database()::text from t")), (n, name))
            await connection.close()
            await admin.execute(f"drop database {name} with (force)")
