//! The driver of sets and rules.

use dataplane::{DriverError, Outcome, Policies};
use model::InSync;
use model::output::Output;

/// Refuses everything: no pod starts before the nf_tables driver is wired in.
#[derive(Debug)]
pub(crate) struct Nft;

impl Nft {
    pub(crate) fn open(_: &crate::settings::Settings) -> anyhow::Result<Self> {
        Ok(Self)
    }
}

impl Policies for Nft {
    fn feed(&mut self, _: &[Output]) {}
    fn apply(&mut self, _: Option<&InSync>) -> Result<Outcome, DriverError> {
        Err(DriverError("there is no driver of rules".into()))
    }
}
