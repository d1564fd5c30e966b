//! Address blocks, handles and affinities as functions.
