//! `node diags` and `cluster diags`: archives of what helps to find out what is wrong.
//!
//! Whatever cannot be had is named in the archive, and does not keep the rest out of it. Everything passes
//! through [`scrub`]: an archive is sent to others, so that it must not hold secrets.

mod bundle;
pub(crate) mod cluster;
pub(crate) mod node;
mod scrub;

pub(crate) use cluster::diags as cluster_diags;
pub(crate) use node::diags as node_diags;
