//! SQLite storage for the API server: the embedded, single-file datastore.
