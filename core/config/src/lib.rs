//! Felix configuration: one row per parameter gives parser, default, environment name and field.
