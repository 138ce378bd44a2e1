//! Diesel, over libpq.

mod schema;

use std::ops::Bound;
use std::thread;

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use diesel::connection::LoadConnection;
use diesel::data_types::PgInterval;
use diesel::pg::{CopyFormat, PgRowByRowLoadingMode};
use diesel::prelude::*;
use diesel::r2d2::{ConnectionManager, Pool};
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sql_types::{
    Array, BigInt, Bool, Bytea, Date, Double, Int4range, Integer, Interval, Jsonb, Nullable, Text,
    Time, Timestamptz, Uuid as SqlUuid,
};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness as _, embed_migrations};
use dormouse_clients::{ODD_TEXT, new_database};
use schema::{Mood, animal, stock};
use serde_json::{Value, json};
use uuid::Uuid;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/diesel");

#[derive(Debug, Queryable, Identifiable, Selectable)]
#[diesel(table_name = animal, check_for_backend(diesel::pg::Pg))]
struct Animal {
    id: i32,
    name: String,
    mood: Mood,
    traits: Option<Value>,
    colours: Vec<Option<String>>,
}

#[derive(Debug, Queryable, Identifiable, Selectable, Associations, PartialEq)]
#[diesel(table_name = stock, primary_key(animal, food), belongs_to(Animal, foreign_key = animal))]
struct Stock {
    animal: i32,
    food: String,
    count: i32,
}

fn migrated() -> PgConnection {
    let mut connection = PgConnection::establish(&new_database()).unwrap();
    connection.run_pending_migrations(MIGRATIONS).unwrap();
    connection
}

fn insert(connection: &mut PgConnection, name: &str) -> QueryResult<i32> {
    let insert = diesel::insert_into(animal::table).values(animal::name.eq(name));
    insert.returning(animal::id).get_result(connection)
}

#[test]
fn migrations_up_and_down() {
    let mut connection = migrated();
    assert_eq!(connection.applied_migrations().unwrap().len(), 2);
    assert!(!connection.has_pending_migration(MIGRATIONS).unwrap());
    connection.revert_last_migration(MIGRATIONS).unwrap();
    assert!(
        stock::table
            .count()
            .get_result::<i64>(&mut connection)
            .is_err()
    );
    connection.revert_all_migrations(MIGRATIONS).unwrap();
    assert_eq!(
        connection.run_pending_migrations(MIGRATIONS).unwrap().len(),
        2
    );
    assert_eq!(stock::table.count().get_result(&mut connection), Ok(0_i64));
}

#[test]
fn rows_as_structs() {
    let connection = &mut migrated();
    let made: Animal = diesel::insert_into(animal::table)
        .values((
            animal::name.eq("Bilch"),
            animal::mood.eq(Mood::Awake),
            animal::traits.eq(json!({"odd": ODD_TEXT})),
            animal::colours.eq(vec!["grey", ODD_TEXT]),
        ))
        .returning(Animal::as_returning())
        .get_result(connection)
        .unwrap();
    assert_eq!(
        (made.id, made.name.as_str(), &made.mood),
        (1, "Bilch", &Mood::Awake)
    );
    assert_eq!(made.traits, Some(json!({"odd": ODD_TEXT})));
    assert_eq!(
        made.colours,
        [Some("grey".to_owned()), Some(ODD_TEXT.to_owned())]
    );
    for count in [3, 4] {
        diesel::insert_into(stock::table)
            .values((
                stock::animal.eq(made.id),
                stock::food.eq("nut"),
                stock::count.eq(count),
            ))
            .on_conflict((stock::animal, stock::food))
            .do_update()
            .set(stock::count.eq(stock::count + diesel::upsert::excluded(stock::count)))
            .execute(connection)
            .unwrap();
    }
    let kept = Stock::belonging_to(&made)
        .select(Stock::as_select())
        .load(connection)
        .unwrap();
    assert_eq!(
        kept,
        [Stock {
            animal: 1,
            food: "nut".to_owned(),
            count: 7
        }]
    );
    let joined = animal::table
        .inner_join(stock::table)
        .filter(stock::food.eq_any(["nut", "fig"]));
    let joined = joined
        .select((animal::name, stock::count))
        .load::<(String, i32)>(connection);
    assert_eq!(joined, Ok(vec![("Bilch".to_owned(), 7)]));
    assert_eq!(
        diesel::delete(animal::table.find(1)).execute(connection),
        Ok(1)
    );
    assert_eq!(stock::table.count().get_result(connection), Ok(0_i64));
}

/// The type of the server, the type of Rust, and a value: the bounds of a function would be a page.
macro_rules! both_ways {
    ($connection:expr, $sql:ty, $rust:ty, $value:expr) => {
        let value: $rust = $value;
        let select = diesel::select(value.clone().into_sql::<$sql>());
        assert_eq!(select.get_result::<$rust>($connection).unwrap(), value);
    };
}

#[test]
fn values_both_ways() {
    let connection = &mut PgConnection::establish(&new_database()).unwrap();
    let at: DateTime<Utc> = "2026-02-28T23:59:59.987654Z".parse().unwrap();
    both_ways!(connection, Integer, i32, i32::MIN);
    both_ways!(connection, BigInt, i64, i64::MAX);
    both_ways!(connection, Double, f64, 0.1);
    both_ways!(connection, Bool, bool, true);
    both_ways!(connection, Text, String, ODD_TEXT.to_owned());
    both_ways!(connection, Nullable<Text>, Option<String>, None);
    both_ways!(connection, Bytea, Vec<u8>, (0..=255).collect());
    both_ways!(connection, Jsonb, Value, json!({"a": [1, null, ODD_TEXT]}));
    both_ways!(
        connection,
        Array<Nullable<Integer>>,
        Vec<Option<i32>>,
        vec![Some(1), None]
    );
    both_ways!(connection, SqlUuid, Uuid, Uuid::new_v4());
    both_ways!(connection, Timestamptz, DateTime<Utc>, at);
    both_ways!(
        connection,
        Date,
        NaiveDate,
        NaiveDate::from_ymd_opt(2026, 2, 28).unwrap()
    );
    both_ways!(
        connection,
        Time,
        NaiveTime,
        NaiveTime::from_hms_micro_opt(23, 59, 59, 987_654).unwrap()
    );
    both_ways!(connection, Interval, PgInterval, PgInterval::new(3, -2, 1));
    both_ways!(
        connection,
        Int4range,
        (Bound<i32>, Bound<i32>),
        (Bound::Included(1), Bound::Excluded(5))
    );
    both_ways!(connection, Text, String, "ä0123456789".repeat(436_907));
}

#[test]
fn errors_and_savepoints() {
    let connection = &mut migrated();
    let done = connection
        .build_transaction()
        .serializable()
        .run(|connection| {
            insert(connection, "a")?;
            let inner = connection.transaction(|connection| {
                insert(connection, "b")?;
                insert(connection, "a")
            });
            let Err(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, information)) = inner
            else {
                panic!("{inner:?}");
            };
            assert_eq!(information.constraint_name(), Some("animal_name_key"));
            assert_eq!(
                information.details(),
                Some("Key (name)=(a) already exists.")
            );
            insert(connection, "c")
        });
    done.unwrap();
    let undone = connection.transaction(|connection| {
        insert(connection, "d")?;
        Err::<(), _>(Error::RollbackTransaction)
    });
    assert_eq!(undone, Err(Error::RollbackTransaction));
    let names = animal::table
        .select(animal::name)
        .order(animal::name)
        .load::<String>(connection);
    assert_eq!(names, Ok(vec!["a".to_owned(), "c".to_owned()]));
    let read_only = connection
        .build_transaction()
        .read_only()
        .run(|connection| insert(connection, "e"));
    assert!(matches!(
        read_only,
        Err(Error::DatabaseError(
            DatabaseErrorKind::ReadOnlyTransaction,
            _
        ))
    ));
}

#[test]
fn rows_one_by_one() {
    let connection = &mut PgConnection::establish(&new_database()).unwrap();
    let numbers = diesel::dsl::sql::<BigInt>("select n::int8 from generate_series(1, 100000) n");
    let rows = LoadConnection::<PgRowByRowLoadingMode>::load(connection, numbers).unwrap();
    assert_eq!(rows.count(), 100_000);
    let numbers = diesel::dsl::sql::<BigInt>("select n::int8 from generate_series(1, 100000) n");
    assert_eq!(
        numbers.load::<i64>(connection).unwrap().iter().sum::<i64>(),
        5_000_050_000
    );
}

#[test]
fn copy() {
    let connection = &mut migrated();
    insert(connection, "a").unwrap();
    let rows: Vec<_> = (0..10_000)
        .map(|n| {
            (
                stock::animal.eq(1),
                stock::food.eq(format!("food\t{n}")),
                stock::count.eq(n),
            )
        })
        .collect();
    let copied = diesel::copy_from(stock::table)
        .from_insertable(rows)
        .execute(connection);
    assert_eq!(copied, Ok(10_000));
    let sum = stock::table
        .select(diesel::dsl::sum(stock::count))
        .first::<Option<i64>>(connection);
    assert_eq!(sum, Ok(Some(49_995_000)));
    let mut out = diesel::copy_to(stock::table)
        .with_format(CopyFormat::Csv)
        .load_raw(connection)
        .unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut out, &mut text).unwrap();
    assert_eq!(text.lines().count(), 10_000);
}

#[test]
fn a_pool_of_eight_counts_and_goes_on_without_a_connection() {
    let manager = ConnectionManager::<PgConnection>::new(new_database());
    let pool = Pool::builder()
        .max_size(8)
        .test_on_check_out(true)
        .build(manager)
        .unwrap();
    let mut connection = pool.get().unwrap();
    connection.run_pending_migrations(MIGRATIONS).unwrap();
    insert(&mut connection, "a").unwrap();
    let nuts = (stock::animal.eq(1), stock::food.eq("nut"));
    diesel::insert_into(stock::table)
        .values(nuts)
        .execute(&mut connection)
        .unwrap();
    drop(connection);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut connection = pool.get().unwrap();
                for _ in 0..20 {
                    let counted = connection.transaction(|connection| {
                        let locked = stock::table.select(stock::count).for_update();
                        let count: i32 = locked.first(connection)?;
                        let more = stock::count.eq(count + 1);
                        diesel::update(stock::table).set(more).execute(connection)
                    });
                    assert_eq!(counted, Ok(1));
                }
            });
        }
    });
    let count = stock::table
        .select(stock::count)
        .first::<i32>(&mut pool.get().unwrap());
    assert_eq!(count, Ok(160));
}

#[test]
fn a_connection_that_the_server_ended() {
    let address = new_database();
    let mut connection = PgConnection::establish(&address).unwrap();
    connection.run_pending_migrations(MIGRATIONS).unwrap();
    let ended =
        diesel::sql_query("select pg_terminate_backend(pg_backend_pid())").execute(&mut connection);
    assert!(ended.is_err());
    drop(connection);
    let mut connection = PgConnection::establish(&address).unwrap();
    assert_eq!(animal::table.count().get_result(&mut connection), Ok(0_i64));
}
