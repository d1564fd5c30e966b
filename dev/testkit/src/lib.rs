//! Test kit: network namespaces, topologies, probes.
