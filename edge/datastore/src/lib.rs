//! Client of the datastore: typed access, compare-and-swap, IPAM.
