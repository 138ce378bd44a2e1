create type mood as enum ('asleep', 'awake');
create table animal (
    id int generated always as identity primary key,
    name text not null unique,
    mood mood not null default 'asleep',
    weight numeric(8, 2),
    born timestamptz not null default now(),
    traits jsonb,
    colours text[] not null default '{}'
);
