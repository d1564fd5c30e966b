//! Links, addresses, routes, neighbours and forwarding entries over rtnetlink; connection tracking
//! entries over ctnetlink.
//!
//! What goes in: typed requests. What comes out: what the kernel holds, its answer to each request,
//! and its notifications.
//!
//! Invariants: blocking, one thread; a request is bytes once built ([`codec::Request`]), so any
//! number of them travel in one `sendmsg` and every one gets its own answer; a dump that the kernel
//! says was disturbed is taken again; an overrun of the notification queue is an event of its own
//! ([`monitor::Event::Overrun`]), never a silent gap. No command is executed.
//!
//! Deliberately absent: what *should* be there (that is `route`), nf_tables (that is `nft`), async.
//!
//! Start reading at [`socket`], then [`link`] and [`route`] for the typed requests, [`monitor`] for
//! notifications and [`wire`] for how a pod gets its interface.

pub mod address;
pub mod codec;
pub mod conntrack;
mod error;
pub mod link;
pub mod monitor;
pub mod neighbour;
pub mod netns;
pub mod route;
pub mod socket;
pub mod sysctl;
pub mod wire;

pub use address::Address;
pub use codec::Request;
pub use error::{Error, Refusal, Result};
pub use link::Link;
pub use monitor::{Event, Monitor};
pub use netns::Netns;
pub use route::Route;
pub use socket::Socket;
pub use sysctl::Settings;
pub use wire::{
    Alias, Wire, Wired, make_pod, raise_host, raise_pod, remembered_pods, unwire_pod, wire_pod,
    wired_pods,
};

/// A hardware address.
pub type Mac = [u8; 6];
