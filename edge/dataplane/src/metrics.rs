//! Metrics of the apply loop, under the names that dashboards know.
//!
//! What only grows is a gauge here, because the exposition format appends `_total` to the names of
//! counters, and the known names do not have it.

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// What the apply loop counts.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Seconds an apply took.
    pub apply_seconds: Histogram,
    /// Applies after which something was left to do.
    pub failures: Gauge,
    /// Outputs of the calculation taken in.
    pub messages: Gauge,
    /// Size of the batches they came in.
    pub batch_size: Histogram,
    /// Objects that are refused now.
    pub refused: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            apply_seconds: Histogram::new(exponential_buckets(0.0001, 2.0, 16)),
            failures: Gauge::default(),
            messages: Gauge::default(),
            batch_size: Histogram::new(exponential_buckets(1.0, 4.0, 9)),
            refused: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Makes them part of what the agent exports.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "felix_int_dataplane_apply_time_seconds",
            "Time taken to apply an update to the dataplane",
            self.apply_seconds.clone(),
        );
        registry.register(
            "felix_int_dataplane_failures",
            "Number of times that an update of the dataplane failed and is retried",
            self.failures.clone(),
        );
        registry.register(
            "felix_int_dataplane_messages",
            "Number of messages taken in from the calculation",
            self.messages.clone(),
        );
        registry.register(
            "felix_int_dataplane_msg_batch_size",
            "Number of messages taken in at once",
            self.batch_size.clone(),
        );
        registry.register(
            "felix_int_dataplane_refused_objects",
            "Number of objects that the kernel refuses and that are in their fail-closed form",
            self.refused.clone(),
        );
    }
}
