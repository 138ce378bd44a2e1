//! The commands of this repository that are more than one cargo call.

fn main() {}
