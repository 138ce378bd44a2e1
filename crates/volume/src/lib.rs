//! Durable pages of one database: a tree of files in 8 KiB pages over a shared template. Knows no SQL.
