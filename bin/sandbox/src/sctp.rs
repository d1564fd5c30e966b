//! Just enough SCTP (RFC 9260) on raw sockets to ask "does an association start": INIT, INIT-ACK.
//! The kernel here has no SCTP sockets.

use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Result;
use socket2::Socket;

use crate::responder::raw;

/// Protocol number of SCTP.
const SCTP: i32 = 132;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;

/// CRC32c, reflected, bit by bit: packets here are tens of bytes (RFC 9260, appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
        }
    }
    !crc
}

/// A packet with one INIT or INIT-ACK chunk.
fn packet(source: u16, destination: u16, verification: u32, chunk: u8) -> Vec<u8> {
    let cookie: &[u8] = if chunk == INIT_ACK { b"cook" } else { b"" };
    let mut p = Vec::with_capacity(48);
    p.extend(source.to_be_bytes());
    p.extend(destination.to_be_bytes());
    p.extend(verification.to_be_bytes());
    p.extend([0; 4]); // checksum, below
    let parameters = if cookie.is_empty() { 0 } else { 4 + cookie.len() };
    p.extend([chunk, 0]);
    p.extend((20 + parameters as u16).to_be_bytes());
    p.extend(0x1234_5678_u32.to_be_bytes()); // initiate tag
    p.extend(65_535_u32.to_be_bytes()); // window
    p.extend(1_u16.to_be_bytes()); // outbound streams
    p.extend(1_u16.to_be_bytes()); // inbound streams
    p.extend(1_u32.to_be_bytes()); // first TSN
    if !cookie.is_empty() {
        p.extend(7_u16.to_be_bytes()); // state cookie
        p.extend((4 + cookie.len() as u16).to_be_bytes());
        p.extend(cookie);
    }
    // The checksum travels least significant byte first.
    let crc = crc32c(&p).to_le_bytes();
    p[8..12].copy_from_slice(&crc);
    p
}

/// What matters of a packet: ports, chunk type, initiate tag.
struct Seen {
    source: u16,
    destination: u16,
    chunk: u8,
    tag: u32,
}

fn parse(bytes: &[u8]) -> Option<Seen> {
    let word = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let long = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    Some(Seen { source: word(0)?, destination: word(2)?, chunk: *bytes.get(12)?, tag: long(16)? })
}

/// Raw IPv4 sockets give the IP header as well.
pub(crate) fn payload(v4: bool, bytes: &[u8]) -> &[u8] {
    let header = if v4 { bytes.first().map_or(0, |b| usize::from(b & 0x0f) * 4) } else { 0 };
    bytes.get(header..).unwrap_or_default()
}

pub(crate) fn receive(
    socket: &Socket,
    buffer: &mut [MaybeUninit<u8>],
) -> io::Result<(Vec<u8>, SocketAddr)> {
    let (n, from) = socket.recv_from(buffer)?;
    // The first n bytes have been written; copied out one by one without trusting more than that.
    let bytes = buffer[..n].iter().map(|byte| initialised(*byte)).collect();
    let from = from.as_socket().ok_or_else(|| io::Error::other("not an IP address"))?;
    Ok((bytes, from))
}

#[expect(unsafe_code, reason = "socket2 receives into uninitialised memory")]
fn initialised(byte: MaybeUninit<u8>) -> u8 {
    // SAFETY: only called for the bytes that recv_from says it has written.
    unsafe { byte.assume_init() }
}

/// Answers INIT on these ports, for ever, on threads of its own.
pub(crate) fn answer(ports: &[u16]) -> Result<()> {
    for v4 in [true, false] {
        let socket = raw(v4, SCTP)?;
        let ports = ports.to_vec();
        std::thread::spawn(move || {
            let mut buffer = [MaybeUninit::uninit(); 2048];
            while let Ok((bytes, from)) = receive(&socket, &mut buffer) {
                let Some(seen) = parse(payload(v4, &bytes)) else { continue };
                if seen.chunk == INIT && ports.contains(&seen.destination) {
                    let reply = packet(seen.destination, seen.source, seen.tag, INIT_ACK);
                    drop(socket.send_to(&reply, &SocketAddr::new(from.ip(), 0).into()));
                }
            }
        });
    }
    Ok(())
}

/// Sends INIT and waits for INIT-ACK.
pub(crate) fn probe(to: IpAddr, port: u16, source: u16, limit: Duration) -> Result<()> {
    let v4 = to.is_ipv4();
    let socket = raw(v4, SCTP)?;
    let end = Instant::now() + limit;
    socket.send_to(&packet(source, port, 0, INIT), &SocketAddr::new(to, 0).into())?;
    let mut buffer = [MaybeUninit::uninit(); 2048];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        anyhow::ensure!(!left.is_zero(), "no INIT-ACK within {limit:?}");
        socket.set_read_timeout(Some(left))?;
        let Ok((bytes, from)) = receive(&socket, &mut buffer) else { continue };
        let ours = |s: &Seen| s.chunk == INIT_ACK && s.source == port && s.destination == source;
        if from.ip() == to && parse(payload(v4, &bytes)).is_some_and(|s| ours(&s)) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_of_a_known_string() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283, "the check value of CRC-32C");
    }

    #[test]
    fn a_packet_can_be_read_back() {
        let bytes = packet(40_000, 9000, 0, INIT);
        assert_eq!(bytes.len(), 32);
        let seen = parse(&bytes).expect("it is whole");
        assert_eq!((seen.source, seen.destination, seen.chunk), (40_000, 9000, INIT));
        assert!(parse(&bytes[..15]).is_none(), "cut off");
    }
}
