//! The CNI plugin: a thin client of the node agent.
