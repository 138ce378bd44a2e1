import asyncio
import enum
import os
import tempfile
import threading
import unittest
import uuid
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

import sqlalchemy as sa
from alembic import autogenerate, command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from server import ODD_TEXT, new_database
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload

AT = datetime(2026, 2, 28, 23, 59, 59, 987654, timezone.utc)


class Mood(enum.Enum):
    ASLEEP = "asleep"
    AWAKE = "awake"


class Base(DeclarativeBase):
    pass


class Animal(Base):
    __tablename__ = "animals"
    id: Mapped[int] = mapped_column(sa.BigInteger, sa.Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(40), unique=True)
    mood: Mapped[Mood] = mapped_column(default=Mood.ASLEEP)
    weight: Mapped[Decimal | None] = mapped_column(sa.Numeric(8, 2))
    born: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True), server_default=sa.func.now())
    day: Mapped[date | None]
    nap: Mapped[timedelta | None]
    tag: Mapped[uuid.UUID | None] = mapped_column(default=uuid.uuid4)
    traits: Mapped[dict | None] = mapped_column(pg.JSONB)
    colours: Mapped[list[str] | None] = mapped_column(pg.ARRAY(sa.Text))
    data: Mapped[bytes | None]
    awake: Mapped[pg.Range[datetime] | None] = mapped_column(pg.TSTZRANGE)
    stock: Mapped[list["Stock"]] = relationship(back_populates="animal", cascade="all, delete-orphan", order_by="Stock.food")


class Stock(Base):
    __tablename__ = "stock"
    __table_args__ = (sa.CheckConstraint("count >= 0", name="stock_count_check"), sa.Index("stock_food", "food"))
    animal_id: Mapped[int] = mapped_column(sa.ForeignKey(Animal.id, ondelete="cascade"), primary_key=True)
    food: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(default=0)
    animal: Mapped[Animal] = relationship(back_populates="stock")


def full_animal():
    return dict(
        name="Bilch", mood=Mood.AWAKE, weight=Decimal("120.50"), born=AT, day=date(2026, 2, 28), nap=timedelta(days=1, microseconds=5),
        tag=uuid.UUID("3f333df6-90a4-4fda-8dd3-9485d27cee36"), traits={"odd": ODD_TEXT, "list": [1, None]}, colours=["grey", ODD_TEXT],
        data=bytes(range(256)), awake=pg.Range(AT, AT + timedelta(hours=1)),
    )


class Psycopg(unittest.TestCase):
    driver = "postgresql+psycopg"

    def setUp(self):
        self.engine = sa.create_engine(new_database(self.driver), pool_size=8, max_overflow=0)
        self.addCleanup(self.engine.dispose)
        Base.metadata.create_all(self.engine)

    def test_values_both_ways(self):
        with Session(self.engine) as session:
            session.add(Animal(**full_animal()))
            session.add(Animal(name=ODD_TEXT[:30], born=None))
            session.commit()
            session.expire_all()
            one, two = session.scalars(sa.select(Animal).order_by(Animal.id))
            self.assertEqual({name: getattr(one, name) for name in full_animal()}, full_animal())
            self.assertEqual((two.name, two.mood, two.weight, two.traits, two.awake), (ODD_TEXT[:30], Mood.ASLEEP, None, None, None))
            found = session.scalar(sa.select(Animal.name).where(Animal.colours.contains(["grey"]), Animal.traits["list"][0].as_integer() == 1))
            self.assertEqual(found, "Bilch")

    def test_relations(self):
        with Session(self.engine) as session:
            session.add_all([Animal(name="a", stock=[Stock(food="nut", count=3), Stock(food="fig", count=4)]), Animal(name="b")])
            session.commit()
            query = sa.select(Animal).options(selectinload(Animal.stock)).order_by(Animal.name)
            self.assertEqual([[s.food for s in a.stock] for a in session.scalars(query)], [["fig", "nut"], []])
            sums = sa.select(Animal.name, sa.func.sum(Stock.count)).outerjoin(Animal.stock).group_by(Animal.name).order_by(Animal.name)
            self.assertEqual([tuple(row) for row in session.execute(sums)], [("a", 7), ("b", None)])
            upsert = pg.insert(Stock).values(animal_id=1, food="nut", count=10)
            upsert = upsert.on_conflict_do_update(index_elements=["animal_id", "food"], set_={"count": Stock.count + upsert.excluded.count})
            self.assertEqual(session.scalar(upsert.returning(Stock.count)), 13)
            session.delete(session.get(Animal, 1))
            session.commit()
            self.assertEqual(session.scalar(sa.select(sa.func.count()).select_from(Stock)), 0)

    def test_errors_and_savepoints(self):
        with Session(self.engine) as session:
            session.add(Animal(name="a"))
            session.flush()
            with self.assertRaises(sa.exc.IntegrityError) as caught, session.begin_nested():
                session.add(Animal(name="a"))
            self.assertEqual(caught.exception.orig.sqlstate, "23505")
            with session.begin_nested():
                session.add(Animal(name="b"))
            session.commit()
        with self.assertRaises(sa.exc.ProgrammingError), self.engine.connect() as connection:
            connection.execute(sa.text("selec 1"))
        with self.engine.connect() as connection:
            self.assertEqual(connection.scalars(sa.select(Animal.name).order_by(Animal.name)).all(), ["a", "b"])

    def test_many_rows(self):
        with Session(self.engine) as session:
            ids = session.scalars(sa.insert(Animal).returning(Animal.id, sort_by_parameter_order=True), [{"name": f"row {n}"} for n in range(10_000)])
            self.assertEqual(ids.all(), list(range(1, 10_001)))
            session.commit()
        with self.engine.connect() as connection:
            numbers = sa.select(sa.func.generate_series(1, 100_000).column_valued("n"))
            rows = connection.execution_options(yield_per=1000).scalars(numbers)
            self.assertEqual(sum(rows), 5_000_050_000)

    def test_isolation_levels(self):
        serializable = self.engine.execution_options(isolation_level="SERIALIZABLE")
        with serializable.connect() as a, serializable.connect() as b:
            for connection in (a, b):
                self.assertEqual(connection.scalar(sa.text("show transaction_isolation")), "serializable")
                connection.execute(sa.select(Animal))
            a.execute(sa.insert(Animal).values(name="a"))
            b.execute(sa.insert(Animal).values(name="b"))
            a.commit()
            with self.assertRaises(sa.exc.OperationalError) as caught:
                b.commit()
            self.assertEqual(caught.exception.orig.sqlstate, "40001")

    def test_the_pool_of_eight(self):
        with Session(self.engine) as session:
            session.add(Animal(name="a", stock=[Stock(food="nut")]))
            session.commit()

        def work():
            for _ in range(20):
                with Session(self.engine) as session, session.begin():
                    session.scalars(sa.select(Stock).with_for_update()).one().count += 1

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with self.engine.connect() as connection:
            self.assertEqual(connection.scalar(sa.select(Stock.count)), 160)

    def test_a_connection_that_the_server_ended(self):
        engine = sa.create_engine(self.engine.url, pool_size=1, pool_pre_ping=True)
        self.addCleanup(engine.dispose)
        self.engine.dispose()
        with self.assertRaises(sa.exc.DBAPIError) as caught, engine.connect() as connection:
            connection.execute(sa.text("select pg_terminate_backend(pg_backend_pid())"))
        self.assertTrue(caught.exception.connection_invalidated)
        with engine.connect() as connection:
            self.assertEqual(connection.scalar(sa.select(sa.func.count()).select_from(Animal)), 0)

    def test_introspection(self):
        inspector = sa.inspect(self.engine)
        self.assertEqual(sorted(inspector.get_table_names()), ["animals", "stock"])
        self.assertEqual(inspector.get_enums()[0]["labels"], ["ASLEEP", "AWAKE"])
        self.assertEqual([key["referred_table"] for key in inspector.get_foreign_keys("stock")], ["animals"])
        self.assertEqual([index["name"] for index in inspector.get_indexes("stock")], ["stock_food"])
        reflected = sa.MetaData()
        reflected.reflect(self.engine)
        for table in Base.metadata.sorted_tables:
            found = reflected.tables[table.name]
            types = lambda table: [(c.name, c.type.compile(self.engine.dialect), c.nullable) for c in table.columns]
            self.assertEqual(types(found), types(table))

    def test_alembic_finds_what_has_changed(self):
        with self.engine.begin() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
            self.assertEqual(autogenerate.compare_metadata(context, Base.metadata), [])
            operations = Operations(context)
            operations.add_column("animals", sa.Column("extra", sa.Integer))
            operations.alter_column("animals", "name", type_=sa.String(50))
            changes = autogenerate.compare_metadata(context, Base.metadata)
            self.assertEqual(sorted(str(change[0][0] if isinstance(change, list) else change[0]) for change in changes), ["modify_type", "remove_column"])

    def test_alembic_migrates_up_and_down(self):
        Base.metadata.drop_all(self.engine)
        with tempfile.TemporaryDirectory() as folder:
            config = Config()
            config.set_main_option("script_location", folder)
            os.mkdir(f"{folder}/versions")
            with open(f"{folder}/script.py.mako", "w") as file:
                file.write(
                    'from alembic import op\nimport sqlalchemy as sa\n${imports if imports else ""}\n'
                    "revision = ${repr(up_revision)}\ndown_revision = ${repr(down_revision)}\nbranch_labels = None\ndepends_on = None\n\n"
                    "def upgrade():\n    ${upgrades}\n\ndef downgrade():\n    ${downgrades}\n"
                )
            with open(f"{folder}/env.py", "w") as file:
                file.write(
                    "from alembic import context\nconfig = context.config.attributes\n"
                    "context.configure(connection=config['connection'], target_metadata=config['metadata'])\n"
                    "with context.begin_transaction():\n    context.run_migrations()\n"
                )
            with self.engine.connect() as connection:
                config.attributes.update(connection=connection, metadata=Base.metadata)
                command.revision(config, "first", autogenerate=True)
                command.upgrade(config, "head")
                self.assertEqual(sorted(sa.inspect(connection).get_table_names()), ["alembic_version", "animals", "stock"])
                command.downgrade(config, "base")
                self.assertEqual(sa.inspect(connection).get_table_names(), ["alembic_version"])


class Asyncpg(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.engine = create_async_engine(new_database("postgresql+asyncpg"), pool_size=8, max_overflow=0)
        self.addAsyncCleanup(self.engine.dispose)
        async with self.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        self.session = async_sessionmaker(self.engine, expire_on_commit=False)

    async def test_values_both_ways(self):
        async with self.session() as session:
            session.add(Animal(**full_animal()))
            await session.commit()
        async with self.session() as session:
            one = (await session.scalars(sa.select(Animal))).one()
            self.assertEqual({name: getattr(one, name) for name in full_animal()}, full_animal())

    async def test_errors_and_savepoints(self):
        async with self.session() as session:
            session.add(Animal(name="a"))
            await session.flush()
            with self.assertRaises(sa.exc.IntegrityError) as caught:
                async with session.begin_nested():
                    session.add(Animal(name="a"))
            self.assertEqual(caught.exception.orig.sqlstate, "23505")
            await session.commit()
            self.assertEqual((await session.scalars(sa.select(Animal.name))).all(), ["a"])

    async def test_a_stream_of_rows(self):
        async with self.engine.connect() as connection:
            rows = await connection.stream_scalars(sa.select(sa.func.generate_series(1, 100_000).column_valued("n")))
            self.assertEqual(sum([n async for n in rows]), 5_000_050_000)

    async def test_the_pool_of_eight(self):
        async with self.session() as session:
            session.add(Animal(name="a", stock=[Stock(food="nut")]))
            await session.commit()

        async def work():
            async with self.session() as session, session.begin():
                (await session.scalars(sa.select(Stock).with_for_update())).one().count += 1

        await asyncio.gather(*(work() for _ in range(100)))
        async with self.engine.connect() as connection:
            self.assertEqual(await connection.scalar(sa.select(Stock.count)), 100)
