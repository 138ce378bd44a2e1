import enum
import unittest
import uuid
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from ipaddress import ip_address, ip_network

import psycopg
from psycopg import errors
from psycopg.types.composite import CompositeInfo, register_composite
from psycopg.types.enum import EnumInfo, register_enum
from psycopg.types.json import Json, Jsonb
from psycopg.types.multirange import Multirange
from psycopg.types.range import Range
from server import ODD_TEXT, new_database

AT = datetime(2026, 2, 28, 23, 59, 59, 987654, timezone.utc)
DOCUMENT = {"a": [1, "zwei", None, {"b": ODD_TEXT}]}

# Type, value that is sent, value that comes back if that is another.
VALUES = [
    ("int2", -32768),
    ("int4", 2**31 - 1),
    ("int8", -(2**63)),
    ("numeric", Decimal("-12345678901234567890.000000000123456789")),
    ("numeric", Decimal("Infinity")),
    ("float4", 1.5),
    ("float8", 0.1),
    ("float8", float("-inf")),
    ("bool", True),
    ("text", ODD_TEXT),
    ("text", ""),
    ("bytea", bytes(range(256))),
    ("json", Json(DOCUMENT), DOCUMENT),
    ("jsonb", Jsonb(DOCUMENT), DOCUMENT),
    ("int4[]", [1, None, 3]),
    ("int8[]", [[1, 2], [3, 2**62]]),
    ("text[]", [ODD_TEXT, "", "NULL", None, "{}"]),
    ("numeric[]", [Decimal("1.50"), Decimal(0)]),
    ("timestamptz", AT),
    ("timestamp", AT.replace(tzinfo=None)),
    ("timestamptz[]", [AT, None]),
    ("date", date(2026, 2, 28)),
    ("time", time(23, 59, 59, 987654)),
    ("interval", timedelta(days=-3, microseconds=7)),
    ("uuid", uuid.UUID("3f333df6-90a4-4fda-8dd3-9485d27cee36")),
    ("inet", ip_address("::1")),
    ("cidr", ip_network("192.168.0.0/16")),
    ("int4range", Range(1, 5)),
    ("tstzrange", Range(AT, None)),
    ("int8multirange", Multirange([Range(1, 3), Range(5, 8)])),
]


class Values(unittest.TestCase):
    def setUp(self):
        self.connection = self.enterContext(psycopg.connect(new_database(), autocommit=True))
        self.connection.execute("set timezone = 'UTC'")

    def emptied(self):
        return self.connection.transaction(force_rollback=True)

    def test_both_ways(self):
        for binary in (False, True):
            mark = "%b" if binary else "%t"
            for type_, sent, *back in VALUES:
                with self.subTest(type=type_, sent=sent, binary=binary):
                    expected = back[0] if back else sent
                    with self.emptied(), self.connection.cursor(binary=binary) as cursor:
                        row = cursor.execute(f"select {mark}::{type_}", [sent]).fetchone()
                        self.assertEqual(row, (expected,))
                        cursor.execute(f"create table kept (value {type_})")
                        cursor.execute("insert into kept values (%s), (null)", [sent])
                        rows = cursor.execute("select value from kept").fetchall()
                        self.assertEqual(rows, [(expected,), (None,)])

    def test_copy_of_values_in_binary(self):
        for type_, sent, *back in VALUES:
            with self.subTest(type=type_, sent=sent), self.emptied(), self.connection.cursor() as cursor:
                cursor.execute(f"create table kept (value {type_})")
                with cursor.copy("copy kept from stdin (format binary)") as copy:
                    copy.set_types([type_])
                    copy.write_row([sent])
                with cursor.copy("copy kept to stdout (format binary)") as copy:
                    copy.set_types([type_])
                    self.assertEqual(list(copy.rows()), [(back[0] if back else sent,)])

    def test_enum_and_composite(self):
        class Mood(enum.Enum):
            SAD = "sad"
            OK = "it's ok"

        self.connection.execute("create type mood as enum ('sad', 'it''s ok')")
        self.connection.execute("create type animal as (name text, moods mood[], n int8)")
        register_enum(EnumInfo.fetch(self.connection, "mood"), self.connection, Mood, mapping={m: m.value for m in Mood})
        register_composite(CompositeInfo.fetch(self.connection, "animal"), self.connection)
        for mark in ("%t", "%b"):
            row = self.connection.execute(f"select {mark}::mood, {mark}::mood[]", [Mood.OK, list(Mood)]).fetchone()
            self.assertEqual(row, (Mood.OK, list(Mood)))
        row = self.connection.execute("select row(%s, %s::mood[], %s)::animal", [ODD_TEXT, list(Mood), 2**40]).fetchone()
        self.assertEqual(tuple(row[0]), (ODD_TEXT, list(Mood), 2**40))
        with self.assertRaises(errors.InvalidTextRepresentation):
            self.connection.execute("select %s::mood", ["angry"])

    def test_values_that_a_type_does_not_have(self):
        with self.assertRaises(errors.NumericValueOutOfRange):
            self.connection.execute("select %s::text::int4", [2**31])
        with self.assertRaises(errors.DatetimeFieldOverflow):
            self.connection.execute("select %s::text::date", ["2026-02-30"])
        with self.assertRaises(psycopg.DataError):
            self.connection.execute("select %s::text", ["a\0b"])

    def test_five_megabytes(self):
        text, data = "ä0123456789" * 436_907, bytes(range(256)) * 20_480
        for mark in ("%t", "%b"):
            row = self.connection.execute(f"select {mark}::text, {mark}::bytea", [text, data]).fetchone()
            self.assertTrue(row == (text, data))
