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
        self.headers |= !is_element(number);
        // A set that is made anew has other elements, too.
        let about_set = is_element(number) || matches!(number, msg::NEW_SET | msg::DEL_SET);
        if let Some(set) = all.text(2).filter(|_| about_set) {
            self.sets.insert((version, set.to_owned()));
        }
        false
    }
}

/// The number of the transaction after this one.
pub(crate) fn following(generation: u32) -> u32 {
    generation.checked_add(1).unwrap_or(1)
}

/// Hears of every transaction in the namespace.
#[derive(Debug)]
pub(crate) struct Monitor {
    socket: Socket,
    own: u32,
    others: bool,
    /// Number of the last transaction that it has heard everything about.
    generation: Option<u32>,
}

impl Monitor {
    /// Changes by `ours` are ours.
    pub(crate) fn open(ours: &mut Socket) -> io::Result<Self> {
        let socket = Socket::listen()?;
        // From here on every transaction is heard of.
        let generation = ours.generation()?;
        Ok(Self { socket, own: ours.port(), others: true, generation })
    }

    /// Notes what others did. Lost messages mean that anything may have happened.
    pub(crate) fn drain(&mut self, drift: &mut Drift) -> io::Result<()> {
        let Self { socket, own, others, generation } = self;
        let whole = socket.drain(|message| {
            if message.number() == Some(msg::NEW_GENERATION) {
                *generation = message.attributes().be32(1);
            }
            if message.port != *own {
                *others |= drift.note(&message);
            }
        })?;
        if !whole {
            *generation = None;
        }
        drift.all |= !whole;
        *others |= !whole;
        Ok(())
    }

    /// Sends a large transaction without hearing of it: for each object and each element in it the
    /// kernel would make a message, which costs several times what the transaction does. That nobody
    /// else changed anything meanwhile is seen from the number of the last transaction.
    pub(crate) fn without<T>(
        &mut self,
        drift: &mut Drift,
        ours: &mut Socket,
        transact: impl FnOnce(&mut Socket) -> io::Result<(T, bool)>,
    ) -> io::Result<T> {
        self.drain(drift)?;
        self.socket.hear(false)?;
        let sent = transact(ours);
        self.socket.hear(true)?;
        let now = ours.generation()?;
        let (result, done) = sent?;
        // What came between the first two steps.
        self.drain(drift)?;
        let wanted = self.generation.map(|last| if done { following(last) } else { last });
        if wanted.is_none() || now != wanted {
            drift.all = true;
            self.others = true;
        }
        self.generation = now;
        Ok(result)
    }

    /// Number of the last transaction that it has heard everything about, if that is known.
    pub(crate) fn generation(&self) -> Option<u32> {
        self.generation
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
