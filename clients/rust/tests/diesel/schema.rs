//! What Diesel is told of the tables of `migrations/diesel`.

use std::io::Write as _;

use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::pg::{Pg, PgValue};
use diesel::query_builder::QueryId;
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types::SqlType;

#[derive(SqlType, QueryId)]
#[diesel(postgres_type(name = "mood"))]
pub struct MoodType;

#[derive(Debug, Clone, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = MoodType)]
pub enum Mood {
    Asleep,
    Awake,
}

impl ToSql<MoodType, Pg> for Mood {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        let name: &[u8] = match self {
            Self::Asleep => b"asleep",
            Self::Awake => b"awake",
        };
        out.write_all(name)?;
        Ok(IsNull::No)
    }
}

impl FromSql<MoodType, Pg> for Mood {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        match value.as_bytes() {
            b"asleep" => Ok(Self::Asleep),
            b"awake" => Ok(Self::Awake),
            other => Err(format!("no mood: {other:?}").into()),
        }
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::MoodType;

    animal (id) {
        id -> Integer,
        name -> Text,
        mood -> MoodType,
        weight -> Nullable<Numeric>,
        born -> Timestamptz,
        traits -> Nullable<Jsonb>,
        colours -> Array<Nullable<Text>>,
    }
}

diesel::table! {
    stock (animal, food) {
        animal -> Integer,
        food -> Text,
        count -> Integer,
    }
}

diesel::joinable!(stock -> animal (animal));
diesel::allow_tables_to_appear_in_same_query!(animal, stock);
