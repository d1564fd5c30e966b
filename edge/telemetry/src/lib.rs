//! Logs, metrics registry, health and readiness server.
