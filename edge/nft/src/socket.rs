//! A netlink socket for nf_tables.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::wire::{Buffer, Message, Messages, flag, msg, u32_at};

const NETLINK_ERROR: u16 = 2;
const NETLINK_DONE: u16 = 3;
/// Multicast group of nf_tables.
const GROUP: libc::c_int = 7;
/// Multicast group of traced packets.
const TRACES: libc::c_int = 9;
const RECEIVE: usize = 1 << 16;

/// A message of a batch that the kernel refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) seq: u32,
    pub(crate) error: io::Error,
}

#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    port: u32,
    sendable: usize,
    seq: u32,
}

impl Socket {
    /// In the network namespace of the calling thread.
    pub(crate) fn open() -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: no pointers; the result is checked before it is used.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_NETFILTER) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` is a new descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let mut socket = Self { fd, port: 0, sendable: 0, seq: 0 };
        socket.port = socket.bind()?;
        // Errors come without a copy of the refused message.
        socket.option(libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, 1)?;
        socket.option(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 8 << 20)?;
        Ok(socket)
    }

    /// Hears of every change in this namespace; never waits.
    pub(crate) fn listen() -> io::Result<Self> {
        let socket = Self::open()?;
        socket.hear(true)?;
        Ok(socket)
    }

    /// Begins or ends to hear of changes.
    pub(crate) fn hear(&self, wanted: bool) -> io::Result<()> {
        let name =
            if wanted { libc::NETLINK_ADD_MEMBERSHIP } else { libc::NETLINK_DROP_MEMBERSHIP };
        self.option(libc::SOL_NETLINK, name, GROUP)
    }

    /// Hears what happens to packets that are traced; never waits.
    pub(crate) fn traces() -> io::Result<Self> {
        let socket = Self::open()?;
        socket.option(libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, TRACES)?;
        Ok(socket)
    }

    pub(crate) fn port(&self) -> u32 {
        self.port
    }

    fn bind(&self) -> io::Result<u32> {
        // SAFETY: sockaddr_nl is plain data, for which zeros are valid.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as u16;
        let mut length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
        let pointer = (&raw mut address).cast::<libc::sockaddr>();
        // SAFETY: `pointer` and `length` describe `address`, which lives beyond both calls.
        let done = unsafe {
            libc::bind(self.fd.as_raw_fd(), pointer, length) == 0
                && libc::getsockname(self.fd.as_raw_fd(), pointer, &raw mut length) == 0
        };
        if done { Ok(address.nl_pid) } else { Err(io::Error::last_os_error()) }
    }

    fn option(&self, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
        let length = size_of::<libc::c_int>() as libc::socklen_t;
        let pointer = (&raw const value).cast();
        // SAFETY: `pointer` and `length` describe `value`, which lives beyond the call.
        let done = unsafe { libc::setsockopt(self.fd.as_raw_fd(), level, name, pointer, length) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// A number that the last ones were not.
    pub(crate) fn next_seq(&mut self) -> u32 {
        self.seq = self.seq.wrapping_add(1);
        self.seq
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() > self.sendable {
            let room = (bytes.len() + 4_096).max(1 << 18);
            self.option(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, room as libc::c_int)?;
            self.sendable = bytes.len().max((1 << 18) - 4_096);
        }
        // SAFETY: pointer and length describe `bytes`.
        let sent = unsafe {
            libc::send(self.fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL)
        };
        match usize::try_from(sent) {
            Ok(n) if n == bytes.len() => Ok(()),
            Ok(n) => Err(io::Error::other(format!("sent {n} of {} bytes", bytes.len()))),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }

    /// `None` if nothing is there (only without waiting). Fills the capacity of `into`: zeroing 64 KB
    /// for an answer of a few bytes was four fifths of what a changed set member cost us.
    fn receive<'a>(&self, into: &'a mut Vec<u8>, wait: bool) -> io::Result<Option<&'a [u8]>> {
        let flags = if wait { 0 } else { libc::MSG_DONTWAIT };
        into.clear();
        let room = into.spare_capacity_mut();
        // SAFETY: pointer and length describe `room`, which the kernel may fill but does not read.
        let got =
            unsafe { libc::recv(self.fd.as_raw_fd(), room.as_mut_ptr().cast(), room.len(), flags) };
        match usize::try_from(got) {
            Ok(n) => {
                // SAFETY: the kernel wrote the first `n` bytes, and no more than there was room for.
                unsafe { into.set_len(n) };
                Ok(Some(into))
            }
            Err(_) => match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
                e => Err(e),
            },
        }
    }

    /// Sends a transaction. The kernel works on it within the call, so its answers are there
    /// afterwards; none means that all was done.
    pub(crate) fn transact(&mut self, bytes: &[u8]) -> io::Result<Vec<Refusal>> {
        self.send(bytes)?;
        let mut refusals = Vec::new();
        let mut room = Vec::with_capacity(RECEIVE);
        loop {
            match self.receive(&mut room, false) {
                Ok(None) => return Ok(refusals),
                Ok(Some(datagram)) => refusals.extend(Messages(datagram).filter_map(refusal)),
                // More refusals than fit: those that did are worked on first.
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) && !refusals.is_empty() => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Sends a dump request and hands over each message of the answer; false if the answer is not
    /// of one moment. An object that does not exist is an empty answer.
    pub(crate) fn dump(
        &mut self,
        number: u8,
        family: u8,
        fill: impl FnOnce(&mut Buffer),
        each: impl FnMut(Message<'_>),
    ) -> io::Result<bool> {
        self.ask((number, flag::DUMP), family, fill, each)
    }

    /// The number of the last transaction that anybody made in this namespace.
    pub(crate) fn generation(&mut self) -> io::Result<Option<u32>> {
        let mut generation = None;
        self.ask(
            (msg::GET_GENERATION, flag::ACK),
            0,
            |_| {},
            |message| {
                generation = generation.or(message.attributes().be32(1));
            },
        )?;
        Ok(generation)
    }

    fn ask(
        &mut self,
        (number, flags): (u8, u16),
        family: u8,
        fill: impl FnOnce(&mut Buffer),
        mut each: impl FnMut(Message<'_>),
    ) -> io::Result<bool> {
        let mut request = Buffer::default();
        let seq = self.next_seq();
        request.begin(number, flags, family, seq);
        fill(&mut request);
        request.end();
        self.send(&request.bytes)?;
        let (mut room, mut whole) = (Vec::with_capacity(RECEIVE), true);
        loop {
            let datagram = self.receive(&mut room, true)?.unwrap_or_default();
            for message in Messages(datagram).filter(|m| m.seq == seq) {
                whole &= message.flags & flag::DUMP_INTERRUPTED == 0;
                match message.kind {
                    NETLINK_DONE => return Ok(whole),
                    NETLINK_ERROR => match refusal(message) {
                        Some(r) if r.error.raw_os_error() == Some(libc::ENOENT) => {
                            return Ok(whole);
                        }
                        Some(r) => return Err(r.error),
                        None => return Ok(whole),
                    },
                    _ => each(message),
                }
            }
        }
    }

    /// Hands over every message that is waiting; false if some were lost.
    pub(crate) fn drain(&self, mut each: impl FnMut(Message<'_>)) -> io::Result<bool> {
        let (mut room, mut whole) = (Vec::with_capacity(RECEIVE), true);
        loop {
            match self.receive(&mut room, false) {
                Ok(None) => return Ok(whole),
                Ok(Some(datagram)) => Messages(datagram).for_each(&mut each),
                Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => whole = false,
                Err(e) => return Err(e),
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn refusal(message: Message<'_>) -> Option<Refusal> {
    if message.kind != NETLINK_ERROR {
        return None;
    }
    let code = u32_at(message.body, 0)? as i32;
    let error = io::Error::from_raw_os_error(-code);
    (code != 0).then_some(Refusal { seq: message.seq, error })
}

/// Numbers of the messages that tell of changed elements.
pub(crate) fn is_element(number: u8) -> bool {
    matches!(number, msg::NEW_ELEMENT | msg::DEL_ELEMENT)
}
