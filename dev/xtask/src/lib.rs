//! Chores: tidy test, schema generation.
