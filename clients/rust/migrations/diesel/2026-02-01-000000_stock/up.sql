create table stock (
    animal int not null references animal on delete cascade,
    food text not null,
    count int not null default 0 check (count >= 0),
    primary key (animal, food)
);
