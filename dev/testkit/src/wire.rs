//! Frames and packets, byte by byte: for tests that must send what no ordinary socket sends.
#![allow(unsafe_code, reason = "the address of a packet socket")]

use std::io::{ErrorKind, Read};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::time::Duration;

use nix::libc;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

const BUFFER: usize = 8 << 20;
const ETH_P_ALL: u16 = 3;

/// The end of an interface, as a machine without a network stack has it.
#[derive(Debug)]
pub struct Wire(Socket);

impl Wire {
    /// On an interface of the calling thread's namespace.
    ///
    /// # Panics
    /// Without the interface, and without root.
    pub fn open(interface: &str) -> Self {
        let protocol = Protocol::from(i32::from(ETH_P_ALL.to_be()));
        let index = nix::net::if_::if_nametoindex(interface).expect("the interface is there");
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking(), Some(protocol))
            .expect("packet socket (root?)");
        socket.set_recv_buffer_size(BUFFER).expect("a socket has a buffer");
        // SAFETY: the storage is large enough for and aligned as any address; what is written is a
        // whole `sockaddr_ll`, and its length is told.
        let ((), address) = unsafe {
            SockAddr::try_init(|storage, length| {
                let address = storage.cast::<libc::sockaddr_ll>();
                (*address).sll_family = libc::AF_PACKET as u16;
                (*address).sll_protocol = ETH_P_ALL.to_be();
                (*address).sll_ifindex = index as i32;
                *length = size_of::<libc::sockaddr_ll>() as u32;
                Ok(())
            })
        }
        .expect("nothing in it fails");
        socket.bind(&address).expect("a packet socket can be bound");
        Self(socket)
    }

    /// Sends a frame, Ethernet header first.
    ///
    /// # Panics
    /// If the interface is down.
    pub fn send(&self, frame: &[u8]) {
        self.0.send(frame).expect("a frame can be sent");
    }

    /// The next frame that came in, if there is one.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
        read(&self.0, buffer)
    }

    /// Waits for a frame; false if none comes.
    ///
    /// # Panics
    /// If the interface goes away.
    pub fn wait(&self, most: Duration) -> bool {
        self.0.set_nonblocking(false).expect("a socket can block");
        self.0.set_read_timeout(Some(most)).expect("a socket has timeouts");
        let there = self.0.peek(&mut [MaybeUninit::uninit(); 1]).is_ok();
        self.0.set_nonblocking(true).expect("a socket can poll");
        there
    }
}

/// IP packets of one protocol to and from this machine.
#[derive(Debug)]
pub struct RawIp(Socket);

impl RawIp {
    /// Receives the packets of a protocol that are delivered in the calling thread's namespace:
    /// with the header for IPv4, without for IPv6.
    ///
    /// # Panics
    /// Without root.
    pub fn receiver(v6: bool, protocol: u8) -> Self {
        Self::open(v6, i32::from(protocol))
    }

    /// Sends packets that bring their header; by that interface, if one is given.
    ///
    /// # Panics
    /// Without root.
    pub fn sender(v6: bool, interface: Option<&str>) -> Self {
        let made = Self::open(v6, libc::IPPROTO_RAW);
        made.0.bind_device(interface.map(str::as_bytes)).expect("the interface is there");
        made
    }

    fn open(v6: bool, protocol: i32) -> Self {
        let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
        let socket = Socket::new(domain, Type::RAW.nonblocking(), Some(Protocol::from(protocol)));
        let socket = socket.expect("raw socket (root?)");
        socket.set_recv_buffer_size(BUFFER).expect("a socket has a buffer");
        Self(socket)
    }

    /// Sends a packet; false if a filter refused it.
    ///
    /// # Panics
    /// If it cannot be sent for another reason.
    pub fn send(&self, to: std::net::IpAddr, packet: &[u8]) -> bool {
        match self.0.send_to(packet, &SocketAddr::new(to, 0).into()) {
            Ok(_) => true,
            Err(error) if error.kind() == ErrorKind::PermissionDenied => false,
            Err(error) => panic!("to {to}: {error}"),
        }
    }

    /// The next packet that came in, if there is one.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
        read(&self.0, buffer)
    }
}

fn read<'a>(mut socket: &Socket, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    match socket.read(buffer) {
        Ok(length) => Some(&buffer[..length]),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("reading from a raw socket: {error}"),
    }
}
