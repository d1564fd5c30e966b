//! Calculated state to drivers: the managers and the one apply loop.
//!
//! What goes in: the calculation's [`Output`](model::output::Output)s and the host's interfaces.
//! What comes out: a kernel that does what they say, by way of three drivers behind traits.
//!
//! Invariants: [`Dataplane::feed`] touches memory only, [`Dataplane::apply`] touches the kernel and
//! nothing else does (law 2); a pod's route, and with it its first packet, follows its policy into
//! the kernel (laws 5 and 10); what failed stays dirty and is tried again after a growing pause;
//! one refused object does not stop the rest and is reported (law 6); work is proportional to the
//! change (law 8).
//!
//! Deliberately absent: the drivers (`bin/node` fills them in), timers (the caller sleeps as
//! [`Applied::retry_after`] says), policy semantics (that is `rules`), threads.
//!
//! Start reading at [`Dataplane`], then [`drivers`]. The managers are pure: [`hosts`] finds the
//! interfaces of host endpoints, [`routes`] chooses one next hop per prefix, [`tunnels`] the VXLAN
//! devices and their far ends, [`mtu`] the sizes.

mod apply;
pub mod drivers;
pub mod hosts;
pub mod metrics;
pub mod mtu;
pub mod routes;
pub mod tunnels;

pub use apply::{Applied, Config, Dataplane, Failure};
pub use drivers::{Connections, DriverError, Network, Outcome, Policies, Refused};
pub use metrics::Metrics;
