//! The policy calculation: cluster state in, what this node must program out, incrementally.
