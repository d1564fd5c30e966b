//! Notices when others touch our tables.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use model::IpVersion;

use crate::encode::{TABLE, family};
use crate::socket::{Socket, is_element};
use crate::wire::{Message, msg};

/// What may differ from what we believe.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drift {
    /// Nothing is known.
    all: bool,
    /// Tables, chains, rules or headers of sets.
    headers: bool,
    /// Elements of these sets.
    sets: BTreeSet<(IpVersion, String)>,
}

impl Drift {
    pub(crate) fn everything() -> Self {
        Self { all: true, ..Self::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.all && !self.headers && self.sets.is_empty()
    }

    /// Whether the elements of a set must be read.
    pub(crate) fn touches(&self, version: IpVersion, set: &str) -> bool {
        self.all || self.sets.contains(&(version, set.to_owned()))
    }

    /// Takes one event.
    pub(crate) fn note(&mut self, message: &Message<'_>) {
        let Some(number) = message.number().filter(|n| *n != msg::NEW_GENERATION) else { return };
        let of = |v: &IpVersion| Some(family(*v)) == message.family();
        let Some(version) = IpVersion::ALL.into_iter().find(of) else { return };
        let all = message.attributes();
        if all.text(1) != Some(TABLE) {
            return;
        }
        match all.text(2).filter(|_| is_element(number)) {
            Some(set) => drop(self.sets.insert((version, set.to_owned()))),
            None => self.headers = true,
        }
    }
}

/// Hears of every transaction in the namespace.
#[derive(Debug)]
pub(crate) struct Monitor {
    socket: Socket,
    own: u32,
}

impl Monitor {
    /// `own` is the port of the socket whose changes are ours.
    pub(crate) fn open(own: u32) -> io::Result<Self> {
        Ok(Self { socket: Socket::listen()?, own })
    }

    /// Notes what others did. Lost messages mean that anything may have happened.
    pub(crate) fn drain(&self, drift: &mut Drift) -> io::Result<()> {
        let own = self.own;
        let whole = self.socket.drain(|message| {
            if message.port != own {
                drift.note(&message);
            }
        })?;
        drift.all |= !whole;
        Ok(())
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
