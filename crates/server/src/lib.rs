//! Listeners for pgwire and HTTP: routing a request to a database, limits, errors.
