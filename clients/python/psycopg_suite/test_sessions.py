import threading
import time
import unittest

import psycopg
from psycopg import IsolationLevel, errors
from psycopg_pool import ConnectionPool
from server import new_database


class Sessions(unittest.TestCase):
    def setUp(self):
        self.address = new_database()

    def connect(self, **options):
        return self.enterContext(psycopg.connect(self.address, autocommit=True, **options))

    def test_options_of_the_address(self):
        self.address += "?application_name=dormice&connect_timeout=10&keepalives=1&sslmode=prefer&target_session_attrs=read-write"
        connection = self.connect(options="-c search_path=nest,public -c geqo=off")
        for name, value in (("application_name", "dormice"), ("search_path", "nest,public"), ("geqo", "off")):
            self.assertEqual(connection.execute("select current_setting(%s)", [name]).fetchone(), (value,))
        info = connection.info
        self.assertEqual((info.server_version // 10_000, info.encoding, info.user), (18, "utf-8", "postgres"))
        self.assertEqual(info.parameter_status("application_name"), "dormice")

    def test_errors_have_the_fields_of_the_server(self):
        connection = self.connect()
        connection.execute("create table t (name text constraint named unique)")
        connection.execute("insert into t values ('a')")
        with self.assertRaises(errors.UniqueViolation) as caught:
            connection.execute("insert into t values (%s)", ["a"])
        diag = caught.exception.diag
        self.assertEqual((diag.sqlstate, diag.table_name, diag.constraint_name), ("23505", "t", "named"))
        self.assertEqual(diag.message_detail, "Key (name)=(a) already exists.")
        with self.assertRaises(errors.SyntaxError) as caught:
            connection.execute("select\nselec 1")
        self.assertEqual(caught.exception.diag.statement_position, "14")
        notices = []
        connection.add_notice_handler(lambda notice: notices.append((notice.severity, notice.message_primary)))
        connection.execute("drop table if exists never")
        self.assertEqual(notices, [("NOTICE", 'table "never" does not exist, skipping')])

    def test_transactions_and_savepoints(self):
        connection = self.connect()
        connection.execute("create table t (n int primary key)")
        with connection.transaction():
            connection.execute("insert into t values (1)")
            with self.assertRaises(errors.UniqueViolation), connection.transaction():
                connection.execute("insert into t values (2), (1)")
            with connection.transaction(force_rollback=True):
                connection.execute("insert into t values (3)")
        with self.assertRaises(ZeroDivisionError), connection.transaction():
            connection.execute("insert into t values (4)")
            raise ZeroDivisionError
        self.assertEqual(connection.execute("select n from t").fetchall(), [(1,)])
        connection.autocommit = False
        connection.execute("insert into t values (5)")
        connection.rollback()
        connection.execute("insert into t values (6)")
        connection.commit()
        self.assertEqual(connection.execute("select n from t order by n").fetchall(), [(1,), (6,)])

    def test_serialization_failure_and_deadlock(self):
        a, b = self.connect(), self.connect(options="-c deadlock_timeout=10ms")
        a.execute("create table t as select id, 0 as n from generate_series(1, 2) id")
        for connection in (a, b):
            connection.autocommit = False
            connection.isolation_level = IsolationLevel.SERIALIZABLE
            connection.execute("select sum(n) from t")
        a.execute("update t set n = 1 where id = 1")
        b.execute("update t set n = 1 where id = 2")
        a.commit()
        with self.assertRaises(errors.SerializationFailure):
            b.commit()
        for connection, id_ in ((a, 1), (b, 2)):
            connection.rollback()
            connection.isolation_level = IsolationLevel.READ_COMMITTED
            connection.execute("update t set n = 2 where id = %s", [id_])
        # The one that waits first looks for a deadlock before there is one.
        waiting = threading.Thread(target=a.execute, args=["update t set n = 2 where id = 2"])
        waiting.start()
        while not b.execute("select 1 from pg_locks where not granted").fetchone():
            pass
        with self.assertRaises(errors.DeadlockDetected):
            b.execute("update t set n = 2 where id = 1")
        b.rollback()
        waiting.join()
        a.commit()

    def test_cancel_and_timeouts(self):
        connection = self.connect()
        done = threading.Event()

        def cancel():
            # A request that comes before the statement has begun cancels nothing.
            while not done.wait(0.05):
                connection.cancel_safe()

        thread = threading.Thread(target=cancel)
        thread.start()
        with self.assertRaises(errors.QueryCanceled):
            connection.execute("select pg_sleep(60)")
        done.set()
        thread.join()
        connection.execute("set statement_timeout = 50")
        with self.assertRaises(errors.QueryCanceled):
            connection.execute("select count(*) from generate_series(1, 1000000000000)")
        connection.execute("set statement_timeout = 0")
        self.assertEqual(connection.execute("select 1").fetchone(), (1,))

    def test_notifications(self):
        a, b = self.connect(), self.connect()
        a.execute("listen nest")
        a.execute("notify nest, 'own'")
        self.assertEqual([notify.payload for notify in a.notifies(timeout=5, stop_after=1)], ["own"])
        heard = []
        a.add_notify_handler(lambda notify: heard.append((notify.channel, notify.payload)))
        with b.transaction():
            b.execute("select pg_notify('nest', %s)", ["ä" * 3000])
        while not heard:
            a.execute("select 1")
        self.assertEqual(heard, [("nest", "ä" * 3000)])

    def test_notifications_of_others_while_idle(self):
        a, b = self.connect(), self.connect()
        a.execute("listen nest")
        b.execute("notify nest, 'eggs'")
        self.assertEqual([notify.payload for notify in a.notifies(timeout=5, stop_after=1)], ["eggs"])

    def test_two_phase_commit_is_refused(self):
        with psycopg.connect(self.address) as connection:
            connection.tpc_begin(connection.xid(1, "global", "branch"))
            connection.execute("select 1")
            with self.assertRaisesRegex(psycopg.NotSupportedError, "prepared transactions are disabled"):
                connection.tpc_prepare()
            connection.close()

    def test_a_pool_goes_on_after_the_server_ended_its_connections(self):
        with ConnectionPool(self.address, min_size=2, max_size=4, check=ConnectionPool.check_connection) as pool:
            with pool.connection() as connection:
                connection.execute("create table t as select 1 as n")
            with self.assertRaises(errors.AdminShutdown), pool.connection() as connection:
                connection.execute("select pg_terminate_backend(pg_backend_pid())")
            with pool.connection() as connection:
                self.assertEqual(connection.execute("select n from t").fetchall(), [(1,)])

    def test_eight_threads_move_money_and_none_is_lost(self):
        options = {"options": "-c deadlock_timeout=10ms"}
        with ConnectionPool(self.address, min_size=8, max_size=8, kwargs=options) as pool:
            pool.wait()
            with pool.connection() as connection:
                connection.execute("create table account as select id, 1000 as amount from generate_series(0, 9) id")

            def move(from_, to):
                while True:
                    try:
                        with pool.connection() as connection:
                            connection.isolation_level = IsolationLevel.REPEATABLE_READ
                            for id_, by in ((from_, -1), (to, 1)):
                                connection.execute("update account set amount = amount + %s where id = %s", [by, id_])
                        return
                    except (errors.SerializationFailure, errors.DeadlockDetected):
                        pass

            def work(worker):
                for n in range(20):
                    move((worker + n) % 10, (worker * 3 + n * 7 + 1) % 10)

            threads = [threading.Thread(target=work, args=[worker]) for worker in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            with pool.connection() as connection:
                self.assertEqual(connection.execute("select sum(amount), count(*) from account").fetchone(), (10_000, 10))

    def test_thirty_databases(self):
        admin = self.connect()
        for n in range(30):
            address = new_database()
            name = address.rsplit("/", 1)[1]
            admin.execute(f"create database {name}")
            with psycopg.connect(address) as connection:
                connection.execute("create table t as select %s::int as n", [n])
                self.assertEqual(connection.execute("select n, current_database() from t").fetchall(), [(n, name)])
            admin.execute(f"drop database {name} with (force)")


class Async(unittest.IsolatedAsyncioTestCase):
    async def test_a_query_that_is_given_up(self):
        import asyncio

        async with await psycopg.AsyncConnection.connect(new_database(), autocommit=True) as connection:
            started = time.monotonic()
            with self.assertRaises(asyncio.TimeoutError):
                await asyncio.wait_for(connection.execute("select pg_sleep(60)"), 0.1)
            self.assertLess(time.monotonic() - started, 30)
            self.assertEqual(await (await connection.execute("select 1")).fetchone(), (1,))
