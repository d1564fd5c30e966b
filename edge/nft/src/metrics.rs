//! What the driver counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Repairs of what others did to our tables.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// How many.
    pub repairs: Counter,
    /// Seconds from when we heard of it until it was undone.
    pub repair_seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            repairs: Counter::default(),
            repair_seconds: Histogram::new(exponential_buckets(0.0005, 2.0, 14)),
        }
    }
}

impl Metrics {
    /// Makes them part of what the agent exports.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "felix_nft_repairs",
            "Times that changes of our nf_tables tables by other programs were undone",
            self.repairs.clone(),
        );
        registry.register(
            "felix_nft_repair_seconds",
            "Seconds from the kernel's word that another program changed our tables to the repair",
            self.repair_seconds.clone(),
        );
    }
}
