//! The arguments of `cluster`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::examples;

#[derive(Debug, Subcommand)]
pub(crate) enum ClusterVerb {
    /// Writes an archive of what helps to find out what is wrong with a cluster. It holds no secrets.
    #[command(after_help = examples::CLUSTER_DIAGS)]
    Diags(ClusterDiagsArgs),
}

#[derive(Debug, Args)]
pub(crate) struct ClusterDiagsArgs {
    /// Only what pods have logged since then: 30s, 10m, 2h; 0 for all.
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = crate::version::duration)]
    pub(crate) since: Duration,
    /// Pods of each component whose logs are taken.
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    pub(crate) max_logs: usize,
    /// Requests at the same time.
    #[arg(long, value_name = "COUNT", default_value_t = 10,
        value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) max_parallelism: u16,
    /// Nodes whose pods come first, separated by commas.
    #[arg(long, value_name = "NODES", value_delimiter = ',')]
    pub(crate) focus_nodes: Vec<String>,
    /// Leaves the files beside the archive.
    #[arg(long)]
    pub(crate) skip_temp_dir_cleanup: bool,
    /// Where the archive is put; else where this is run.
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) output_dir: Option<PathBuf>,
}
