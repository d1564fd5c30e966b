//! A blocking netlink socket: single requests, batches, dumps.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use netlink_sys::SocketAddr;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

use crate::codec::{Attrs, Message, Messages, Request, text, u32_at};
use crate::{Error, Refusal, Result};

/// A datagram of a dump is at most 32 KiB.
const RECEIVE_LEN: usize = 64 * 1024;
/// Requests per `sendmsg`; their answers must fit the receive queue.
const BATCH_REQUESTS: usize = 512;
const BATCH_BYTES: usize = 256 * 1024;
const QUEUE_BYTES: usize = 4 * 1024 * 1024;
const DUMP_TRIES: u32 = 10;
const ANSWER_TIMEOUT_SECS: i64 = 20;

const NLMSGERR_ATTR_MSG: u16 = 1;

/// Answers of a batch, in the order of its requests.
pub type Answers = Vec<std::result::Result<(), Refusal>>;

/// A connection to one subsystem of the kernel, in the network namespace of the thread that
/// opened it.
#[derive(Debug)]
pub struct Socket {
    inner: netlink_sys::Socket,
    port: u32,
    seq: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens an rtnetlink socket in the namespace of the calling thread.
    pub fn open() -> Result<Self> {
        Self::open_protocol(libc::NETLINK_ROUTE)
    }

    /// Opens a socket of another netlink family in the namespace of the calling thread.
    pub fn open_protocol(protocol: i32) -> Result<Self> {
        let mut inner =
            netlink_sys::Socket::new(protocol as isize).map_err(|e| Error::socket("socket", e))?;
        tune(&inner)?;
        let address = inner.bind_auto().map_err(|e| Error::socket("bind", e))?;
        let wait = TimeVal::new(ANSWER_TIMEOUT_SECS, 0);
        setsockopt(&inner, sockopt::ReceiveTimeout, &wait).map_err(|e| option(e.into()))?;
        let buffer = Vec::with_capacity(RECEIVE_LEN);
        Ok(Self { inner, port: address.port_number(), seq: 0, buffer })
    }

    /// Its port number: notifications of its own changes carry it.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// One request, one answer.
    pub fn call(&mut self, request: &Request) -> Result<()> {
        let answer = self.batch(std::slice::from_ref(request))?.remove(0);
        answer.map_err(|refusal| Error::Refused { what: request.what(), refusal })
    }

    /// Many requests, one answer each. A refused request does not stop the ones behind it.
    pub fn batch(&mut self, requests: &[Request]) -> Result<Answers> {
        let mut answers = Vec::with_capacity(requests.len());
        let mut rest = requests;
        let mut bytes = Vec::new();
        while !rest.is_empty() {
            let first = self.seq.wrapping_add(1);
            let mut taken = 0;
            bytes.clear();
            for request in rest.iter().take(BATCH_REQUESTS) {
                if taken > 0 && bytes.len() + request.len() > BATCH_BYTES {
                    break;
                }
                self.seq = self.seq.wrapping_add(1);
                request.seal_into(&mut bytes, self.seq, libc::NLM_F_ACK);
                taken += 1;
            }
            self.send(&bytes)?;
            self.collect(first, taken, &mut answers)?;
            rest = &rest[taken..];
        }
        Ok(answers)
    }

    /// One request that is answered by one message, read by `parse`.
    pub fn get<T>(
        &mut self,
        request: &Request,
        parse: impl Fn(&Message<'_>) -> Option<T>,
    ) -> Result<T> {
        let seq = self.start(request, 0)?;
        loop {
            self.receive()?;
            let Some(message) = Messages(&self.buffer).find(|m| m.seq == seq) else { continue };
            let refusal =
                (i32::from(message.kind) == libc::NLMSG_ERROR).then(|| refusal(&message)).flatten();
            if let Some(refusal) = refusal {
                return Err(Error::Refused { what: request.what(), refusal });
            }
            let len = message.payload.len();
            return parse(&message).ok_or(Error::Malformed { what: request.what(), len });
        }
    }

    /// Everything that the kernel holds of a kind; taken again if it changed meanwhile. What
    /// `parse` does not want is left out.
    pub fn dump<T>(
        &mut self,
        request: &Request,
        mut parse: impl FnMut(&Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>> {
        for _ in 0..DUMP_TRIES {
            if let Some(found) = self.dump_once(request, &mut parse)? {
                return Ok(found);
            }
        }
        Err(Error::Disturbed { what: request.what(), tries: DUMP_TRIES })
    }

    fn dump_once<T>(
        &mut self,
        request: &Request,
        parse: &mut impl FnMut(&Message<'_>) -> Option<T>,
    ) -> Result<Option<Vec<T>>> {
        let seq = self.start(request, libc::NLM_F_DUMP)?;
        let mut found = Vec::new();
        let mut disturbed = false;
        loop {
            self.receive()?;
            for message in Messages(&self.buffer).filter(|m| m.seq == seq) {
                disturbed |= i32::from(message.flags) & libc::NLM_F_DUMP_INTR != 0;
                match i32::from(message.kind) {
                    libc::NLMSG_DONE => return Ok((!disturbed).then_some(found)),
                    libc::NLMSG_ERROR => match refusal(&message) {
                        Some(refusal) => {
                            return Err(Error::Refused { what: request.what(), refusal });
                        }
                        None => return Ok((!disturbed).then_some(found)),
                    },
                    _ => found.extend(parse(&message)),
                }
            }
        }
    }

    fn start(&mut self, request: &Request, flags: i32) -> Result<u32> {
        self.seq = self.seq.wrapping_add(1);
        let mut bytes = Vec::with_capacity(request.len());
        request.seal_into(&mut bytes, self.seq, flags);
        self.send(&bytes)?;
        Ok(self.seq)
    }

    fn send(&self, bytes: &[u8]) -> Result<()> {
        loop {
            match self.inner.send_to(bytes, &SocketAddr::new(0, 0), 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::socket("sendmsg", error)),
            }
        }
    }

    fn receive(&mut self) -> Result<()> {
        loop {
            self.buffer.clear();
            match self.inner.recv(&mut self.buffer, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::socket("recvmsg", error)),
            }
        }
    }

    /// Reads until each of `count` requests from `first` on has its answer. Requests are handled
    /// in order, so answers come in order; older sequence numbers are of an abandoned call.
    fn collect(&mut self, first: u32, count: usize, answers: &mut Answers) -> Result<()> {
        let end = answers.len() + count;
        let mut next = first;
        while answers.len() < end {
            self.receive()?;
            for message in Messages(&self.buffer) {
                if message.seq != next || i32::from(message.kind) != libc::NLMSG_ERROR {
                    continue;
                }
                next = next.wrapping_add(1);
                answers.push(refusal(&message).map_or(Ok(()), Err));
            }
        }
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> i32 {
        self.inner.as_raw_fd()
    }
}

/// Queues that hold a whole batch of answers, explanations with errors, and strict checking, so
/// that the kernel filters dumps for us.
pub(crate) fn tune(socket: &netlink_sys::Socket) -> Result<()> {
    // Without CAP_NET_ADMIN the default size remains; nothing else would work either.
    let _ = setsockopt(socket, sockopt::RcvBufForce, &QUEUE_BYTES);
    let _ = setsockopt(socket, sockopt::SndBufForce, &QUEUE_BYTES);
    socket.set_cap_ack(true).map_err(option)?;
    socket.set_ext_ack(true).map_err(option)?;
    socket.set_netlink_get_strict_chk(true).map_err(option)
}

fn option(error: io::Error) -> Error {
    Error::socket("setsockopt", error)
}

/// The error in an `NLMSG_ERROR` message; none in an acknowledgement. With `NETLINK_CAP_ACK` the
/// request is cut to its header, so attributes start at byte 20.
fn refusal(message: &Message<'_>) -> Option<Refusal> {
    let errno = u32_at(message.payload, 0)? as i32;
    if errno == 0 {
        return None;
    }
    let explanation = Attrs::after(message.payload, 20).get(NLMSGERR_ATTR_MSG);
    let message = explanation.and_then(text).unwrap_or_default().to_owned();
    Some(Refusal { errno: -errno, message })
}
