//! Tells silent ends of a TCP connection that it is cut.
//!
//! A reset must carry the right sequence number, and only the ends know it. Each gets a packet that
//! looks like the beginning of the connection that it has; it answers with an acknowledgement (RFC 5961,
//! section 4), as of any other packet of the flow, and the rules answer that with a reset which fits.
//! Connection tracking takes no notice of such packets but translates their addresses.

use std::net::{IpAddr, SocketAddr};

use netlink::conntrack::{Entry, Tuple};
use socket2::{Domain, Protocol, Socket, Type};

const IPPROTO_RAW: i32 = 255;
const TCP: u8 = 6;
const SYN: u8 = 2;
const SYN_ACK: u8 = 18;
/// Established, and closing by either side.
const ESTABLISHED: std::ops::RangeInclusive<u8> = 3..=5;

/// Sends; opens its sockets when they are first needed.
pub(crate) struct Poker {
    bit: u32,
    sockets: [Option<Socket>; 2],
}

impl Poker {
    /// What it sends carries the bit in its mark, so that the rules let it pass.
    pub(crate) fn new(bit: u32) -> Self {
        Self { bit, sockets: [None, None] }
    }

    /// Best effort: without it an end learns of the cut with the next packet that it sends.
    pub(crate) fn poke(&mut self, entry: &Entry) {
        if !entry.tcp_state.is_some_and(|state| ESTABLISHED.contains(&state)) {
            return;
        }
        for (tuple, flags) in [(&entry.original, SYN), (&entry.reply, SYN_ACK)] {
            if let Err(error) = self.send(tuple, flags) {
                tracing::debug!(?tuple, %error, "an end of a cut connection could not be told");
            }
        }
    }

    fn send(&mut self, tuple: &Tuple, flags: u8) -> std::io::Result<()> {
        let v6 = tuple.source.is_ipv6();
        let socket = &mut self.sockets[usize::from(v6)];
        if socket.is_none() {
            let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
            let raw =
                Socket::new(domain, Type::RAW.nonblocking(), Some(Protocol::from(IPPROTO_RAW)))?;
            raw.set_mark(self.bit)?;
            *socket = Some(raw);
        }
        let Some(socket) = socket else { return Ok(()) };
        socket.send_to(&packet(tuple, flags), &SocketAddr::new(tuple.destination, 0).into())?;
        Ok(())
    }
}

/// From the IP header on. The kernel fills in the length and the checksum of an IPv4 header.
fn packet(tuple: &Tuple, flags: u8) -> Vec<u8> {
    let mut tcp = [tuple.source_port.to_be_bytes(), tuple.destination_port.to_be_bytes()].concat();
    tcp.extend([0; 8]); // sequence numbers that fit by accident only
    tcp.extend([0x50, flags, 0x20, 0, 0, 0, 0, 0]);
    let octets = |address: IpAddr| match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    };
    let addresses = [octets(tuple.source), octets(tuple.destination)].concat();
    let length = tcp.len() as u32;
    let sum = sum(&addresses) + sum(&tcp) + u32::from(TCP) + length;
    tcp[16..18].copy_from_slice(&fold(sum).to_be_bytes());
    let header = if tuple.source.is_ipv4() {
        [0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, TCP, 0, 0].to_vec()
    } else {
        vec![0x60, 0, 0, 0, 0, length as u8, TCP, 64]
    };
    [header, addresses, tcp].concat()
}

fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks_exact(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]]))).sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
