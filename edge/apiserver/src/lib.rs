//! The Kubernetes wire contract over a storage trait.
