import unittest

import psycopg
from psycopg import errors, rows, sql
from server import new_database


class Queries(unittest.TestCase):
    def setUp(self):
        self.connection = self.enterContext(psycopg.connect(new_database(), autocommit=True))

    def prepared(self):
        query = "select count(*) from pg_prepared_statements where name like '\\_pg3\\_%'"
        return self.connection.execute(query, prepare=False).fetchone()[0]

    def test_statements_are_prepared_after_some_uses(self):
        for n in range(10):
            row = self.connection.execute("select %s::int + 1", [n]).fetchone()
            self.assertEqual(row, (n + 1,))
            self.assertEqual(self.prepared(), int(n >= self.connection.prepare_threshold))

    def test_prepared_statements_give_way_to_others(self):
        self.connection.prepared_max = 5
        for n in range(40):
            row = self.connection.execute(f"select {n} + %s", [1], prepare=True).fetchone()
            self.assertEqual(row, (n + 1,))
        self.assertLessEqual(self.prepared(), 6)

    def test_a_prepared_statement_whose_table_has_changed(self):
        self.connection.execute("create table t as select 1 as a")
        self.connection.execute("select * from t", prepare=True)
        self.connection.execute("alter table t add b int")
        # The driver knows what an ALTER means for what it has prepared; the server knows of others'.
        self.assertEqual(self.connection.execute("select * from t", prepare=True).fetchall(), [(1, None)])
        self.connection.execute("do $$ begin alter table t drop a; end $$")
        with self.assertRaises(errors.FeatureNotSupported):
            self.connection.execute("select * from t")
        self.connection.execute("alter table t add a int default 1")
        self.assertEqual(self.connection.execute("select * from t").fetchall(), [(None, 1)])

    def test_several_statements(self):
        cursor = self.connection.execute("create table t (n int); insert into t values (1), (2); select n from t")
        self.assertTrue(cursor.nextset() and cursor.nextset())
        self.assertEqual(cursor.fetchall(), [(1,), (2,)])
        self.assertIsNone(cursor.nextset())

    def test_names_and_rows(self):
        name = 'Odd "name'
        self.connection.execute(sql.SQL("create table {} (id int, {} text)").format(*map(sql.Identifier, (name, name))))
        with self.connection.cursor(row_factory=rows.dict_row) as cursor:
            cursor.execute(sql.SQL("insert into {} values (1, {}) returning *").format(sql.Identifier(name), sql.Literal("it's")))
            self.assertEqual(cursor.fetchone(), {"id": 1, name: "it's"})
            self.assertEqual([(column.name, column.type_code) for column in cursor.description], [("id", 23), (name, 25)])

    def test_executemany_goes_in_one_pipeline(self):
        self.connection.execute("create table t (n int primary key)")
        with self.connection.cursor() as cursor:
            cursor.executemany("insert into t values (%s) returning n", [(n,) for n in range(5000)], returning=True)
            self.assertEqual(sum(result.fetchone()[0] for result in cursor.results()), 5000 * 4999 // 2)
            with self.assertRaises(errors.UniqueViolation):
                cursor.executemany("insert into t values (%s)", [(n,) for n in range(5100, 4900, -1)])
        self.assertEqual(self.connection.execute("select count(*) from t").fetchone(), (5000,))

    def test_a_hundred_thousand_rows(self):
        query = "select n, 'row ' || n from generate_series(1, %s) n"
        for binary in (False, True):
            with self.connection.cursor(binary=binary) as cursor:
                found = cursor.execute(query, [100_000]).fetchall()
            self.assertTrue(found == [(n, f"row {n}") for n in range(1, 100_001)])
        with self.connection.cursor() as cursor:
            self.assertEqual(sum(row[0] for row in cursor.stream(query, [100_000], size=100)), 5_000_050_000)

    def test_a_stream_that_is_left(self):
        with self.connection.cursor() as cursor:
            stream = cursor.stream("select n from generate_series(1, 100000000) n")
            self.assertEqual([next(stream), next(stream)], [(1,), (2,)])
            stream.close()
        self.assertEqual(self.connection.execute("select 1").fetchone(), (1,))

    def test_cursors_of_the_server(self):
        with self.connection.transaction(), self.connection.cursor("c", scrollable=True) as cursor:
            cursor.execute("select n from generate_series(1, 1000) n")
            self.assertEqual(cursor.fetchmany(2), [(1,), (2,)])
            cursor.scroll(500)
            self.assertEqual(cursor.fetchone(), (503,))
            cursor.itersize = 100
            self.assertEqual(sum(1 for _ in cursor), 497)
        with self.connection.cursor("held", withhold=True) as cursor:
            self.assertEqual(cursor.execute("select 7").fetchall(), [(7,)])

    def test_copy(self):
        self.connection.execute("create table t (n int, s text)")
        with self.connection.cursor() as cursor:
            with cursor.copy("copy t from stdin") as copy:
                for n in range(100_000):
                    copy.write_row((n, f"row\t{n}" if n % 2 else None))
            self.assertEqual(cursor.rowcount, 100_000)
            with cursor.copy("copy (select n, s from t order by n) to stdout") as copy:
                copy.set_types(["int4", "text"])
                for n, row in enumerate(copy.rows()):
                    self.assertEqual(row, (n, f"row\t{n}" if n % 2 else None))
            with self.assertRaises(errors.InvalidTextRepresentation), cursor.copy("copy t from stdin") as copy:
                copy.write(b"1\tx\nno\tx\n")
            with self.assertRaises(ZeroDivisionError), cursor.copy("copy t from stdin") as copy:
                copy.write(b"1\tx\n")
                raise ZeroDivisionError
        self.assertEqual(self.connection.execute("select count(*) from t").fetchone(), (100_000,))


class Pipelines(unittest.TestCase):
    def setUp(self):
        self.connection = self.enterContext(psycopg.connect(new_database(), autocommit=True))
        self.connection.execute("create table t (n int primary key)")

    def test_answers_in_order(self):
        with self.connection.pipeline():
            cursors = [self.connection.execute("select %s::int", [n]) for n in range(1000)]
            self.assertEqual([cursor.fetchone()[0] for cursor in cursors], list(range(1000)))

    def test_a_block_is_one_transaction(self):
        with self.assertRaises(errors.UniqueViolation), self.connection.pipeline():
            for n in (1, 2, 1, 3):
                self.connection.execute("insert into t values (%s)", [n])
        self.assertEqual(self.connection.execute("select count(*) from t").fetchone(), (0,))

    def test_what_was_synchronized_stays(self):
        # The driver raises the error where it reads it: at once if the server was quick, or else at the end.
        with self.assertRaises(errors.DivisionByZero), self.connection.pipeline() as pipeline:
            self.connection.execute("insert into t values (1)")
            pipeline.sync()
            self.connection.execute("insert into t values (2)")
            self.connection.execute("select 1 / 0")
            self.connection.execute("insert into t values (3)")
            pipeline.sync()
        self.assertEqual(self.connection.execute("select n from t").fetchall(), [(1,)])

    def test_transactions_inside(self):
        with self.connection.pipeline():
            with self.connection.transaction():
                self.connection.execute("insert into t values (1)")
                with self.assertRaises(errors.UniqueViolation), self.connection.transaction():
                    self.connection.execute("insert into t values (1)")
                self.connection.execute("insert into t values (2)")
        self.assertEqual(self.connection.execute("select n from t").fetchall(), [(1,), (2,)])
