//! Notifications of the kernel about links, addresses, routes and neighbours.

use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};

use model::IfaceName;
use netlink_sys::SocketAddr;

use crate::codec::{Message, Messages};
use crate::neighbour::Neighbour;
use crate::socket::tune;
use crate::{Address, Error, Link, Result, Route};

/// What to be told about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Interfaces.
    Links,
    /// Their addresses.
    Addresses,
    /// Routes of both families.
    Routes,
    /// Neighbours and forwarding entries.
    Neighbours,
}

impl Topic {
    /// Group bits (`RTMGRP_...`).
    fn groups(self) -> u32 {
        (match self {
            Self::Links => libc::RTMGRP_LINK,
            Self::Addresses => libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR,
            Self::Routes => libc::RTMGRP_IPV4_ROUTE | libc::RTMGRP_IPV6_ROUTE,
            Self::Neighbours => libc::RTMGRP_NEIGH,
        }) as u32
    }
}

/// One change of the kernel's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An interface is new or changed.
    Link(Link),
    /// An interface is gone.
    LinkGone(u32, IfaceName),
    /// An address is there.
    Address(Address),
    /// An address is gone.
    AddressGone(Address),
    /// A route is there; `by` is the port of the socket that put it.
    Route {
        /// The route.
        route: Route,
        /// Port of the socket that put it.
        by: u32,
    },
    /// A route is gone.
    RouteGone {
        /// The route.
        route: Route,
        /// Port of the socket that removed it.
        by: u32,
    },
    /// A neighbour or forwarding entry is new or changed.
    Neighbour(Neighbour),
    /// A neighbour or forwarding entry is gone.
    NeighbourGone(Neighbour),
    /// Notifications were lost: read everything back.
    Overrun,
}

/// A subscription. Its file descriptor is readable when there are events.
#[derive(Debug)]
pub struct Monitor {
    socket: netlink_sys::Socket,
    buffer: Vec<u8>,
}

impl Monitor {
    /// Subscribes in the namespace of the calling thread.
    pub fn open(topics: &[Topic]) -> Result<Self> {
        let mut socket = netlink_sys::Socket::new(libc::NETLINK_ROUTE as isize)
            .map_err(|e| Error::socket("socket", e))?;
        tune(&socket)?;
        let groups = topics.iter().fold(0, |bits, topic| bits | topic.groups());
        socket.bind(&SocketAddr::new(0, groups)).map_err(|e| Error::socket("bind", e))?;
        socket.set_non_blocking(true).map_err(|e| Error::socket("fcntl", e))?;
        Ok(Self { socket, buffer: Vec::with_capacity(64 * 1024) })
    }

    /// Everything that has happened since the last call; never waits.
    pub fn drain(&mut self) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Ok(_) => events.extend(Messages(&self.buffer).filter_map(|m| parse(&m))),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(events),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    events.push(Event::Overrun);
                }
                Err(error) => return Err(Error::socket("recvmsg", error)),
            }
        }
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn parse(message: &Message<'_>) -> Option<Event> {
    let (payload, by) = (message.payload, message.port);
    Some(match message.kind {
        libc::RTM_NEWLINK => Event::Link(own_link(payload)?),
        libc::RTM_DELLINK => {
            let link = own_link(payload)?;
            Event::LinkGone(link.index, link.name)
        }
        libc::RTM_NEWADDR => Event::Address(Address::parse(payload)?),
        libc::RTM_DELADDR => Event::AddressGone(Address::parse(payload)?),
        libc::RTM_NEWROUTE => Event::Route { route: Route::parse(payload)?, by },
        libc::RTM_DELROUTE => Event::RouteGone { route: Route::parse(payload)?, by },
        libc::RTM_NEWNEIGH => Event::Neighbour(Neighbour::parse(payload)?),
        libc::RTM_DELNEIGH => Event::NeighbourGone(Neighbour::parse(payload)?),
        _ => return None,
    })
}

/// A bridge reports its ports a second time under its own family; a port that leaves a bridge is
/// not an interface that is gone.
fn own_link(payload: &[u8]) -> Option<Link> {
    if i32::from(*payload.first()?) == libc::AF_BRIDGE {
        return None;
    }
    Link::parse(payload)
}
