//! A Postgres for every tenant, asleep until asked: the binary and the embeddable library.
