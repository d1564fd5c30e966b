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
    /// Who did it.
    by: BTreeSet<Author>,
    /// Of the transaction whose messages are coming in, some are about our table.
    open: bool,
}

/// A process that changed our tables.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Author {
    /// Its name, as the kernel has it.
    pub process: String,
    /// Its number.
    pub pid: u32,
}

impl Drift {
    pub(crate) fn everything() -> Self {
        Self { all: true, ..Self::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.all && !self.headers && self.sets.is_empty()
    }

    /// Events told of it: it is not only that nothing was known.
    pub(crate) fn is_by_others(&self) -> bool {
        self.headers || !self.sets.is_empty()
    }

    /// Whether the elements of a set must be read.
    pub(crate) fn touches(&self, version: IpVersion, set: &str) -> bool {
        self.all || self.sets.contains(&(version, set.to_owned()))
    }

    /// Who changed our tables, as far as the kernel says.
    pub(crate) fn authors(&self) -> impl Iterator<Item = &Author> {
        self.by.iter()
    }

    /// Takes one event; true if it is about somebody else's table. Each transaction ends with one
    /// that says whose it was.
    pub(crate) fn note(&mut self, message: &Message<'_>) -> bool {
        let Some(number) = message.number() else { return false };
        if number == msg::NEW_GENERATION {
            let all = message.attributes();
            if let (true, Some(pid)) = (self.open, all.be32(2)) {
                let process = all.text(3).unwrap_or_default().to_owned();
                self.by.insert(Author { process, pid });
            }
            self.open = false;
            return false;
        }
        let of = |v: &IpVersion| Some(family(*v)) == message.family();
        let Some(version) = IpVersion::ALL.into_iter().find(of) else { return true };
        let all = message.attributes();
        if all.text(1) != Some(TABLE) {
            return true;
        }
        self.open = true;
        match all.text(2).filter(|_| is_element(number)) {
            Some(set) => drop(self.sets.insert((version, set.to_owned()))),
            None => self.headers = true,
        }
        false
    }
}

/// Hears of every transaction in the namespace.
#[derive(Debug)]
pub(crate) struct Monitor {
    socket: Socket,
    own: u32,
    others: bool,
}

impl Monitor {
    /// `own` is the port of the socket whose changes are ours.
    pub(crate) fn open(own: u32) -> io::Result<Self> {
        Ok(Self { socket: Socket::listen()?, own, others: true })
    }

    /// Notes what others did. Lost messages mean that anything may have happened.
    pub(crate) fn drain(&mut self, drift: &mut Drift) -> io::Result<()> {
        let Self { socket, own, others } = self;
        let whole = socket.drain(|message| {
            if message.port != *own {
                *others |= drift.note(&message);
            }
        })?;
        drift.all |= !whole;
        *others |= !whole;
        Ok(())
    }

    /// Whether other tables changed since the last call.
    pub(crate) fn others_changed(&mut self) -> bool {
        std::mem::take(&mut self.others)
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
