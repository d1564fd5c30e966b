//! Answers on ports with a name: what stands in for a pod's containers.
//!
//! TCP: the name and a line feed on connect, then an echo of whatever comes, so that a connection can
//! be kept and tested. UDP: the name for every datagram. SCTP: INIT-ACK for INIT, on raw sockets.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use socket2::{Domain, Protocol, Socket, Type};

use crate::sctp;

#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// What to answer with.
    #[arg(long)]
    name_to_tell: String,
    /// `tcp/80`, `udp/53`, `sctp/9000`; repeatable.
    #[arg(long = "port")]
    ports: Vec<PortSpec>,
}

/// A port of a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PortSpec {
    pub(crate) protocol: Transport,
    pub(crate) port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Udp,
    Sctp,
}

impl FromStr for PortSpec {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (protocol, port) = text.split_once('/').context("want PROTOCOL/PORT")?;
        let protocol = match protocol {
            "tcp" => Transport::Tcp,
            "udp" => Transport::Udp,
            "sctp" => Transport::Sctp,
            other => bail!("{other:?} is no protocol, want tcp, udp or sctp"),
        };
        Ok(Self { protocol, port: port.parse().context("want a port from 1 to 65535")? })
    }
}

impl std::fmt::Display for PortSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let protocol = match self.protocol {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
            Transport::Sctp => "sctp",
        };
        write!(f, "{protocol}/{}", self.port)
    }
}

/// Answers until it is killed.
pub(crate) fn run(options: &Options) -> Result<()> {
    let name = options.name_to_tell.clone();
    let mut sctp_ports = Vec::new();
    for spec in &options.ports {
        match spec.protocol {
            Transport::Tcp => tcp(spec.port, name.clone())?,
            Transport::Udp => udp(spec.port, name.clone())?,
            Transport::Sctp => sctp_ports.push(spec.port),
        }
    }
    if !sctp_ports.is_empty() {
        sctp::answer(&sctp_ports)?;
    }
    loop {
        std::thread::park();
    }
}

/// Both families on one socket.
fn any(domain_type: Type, port: u16) -> Result<Socket> {
    let socket = Socket::new(Domain::IPV6, domain_type, None)?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    let address = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port);
    socket.bind(&address.into()).with_context(|| format!("cannot bind port {port}"))?;
    Ok(socket)
}

fn tcp(port: u16, name: String) -> Result<()> {
    let socket = any(Type::STREAM, port)?;
    socket.listen(1024)?;
    let listener: std::net::TcpListener = socket.into();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let name = name.clone();
            std::thread::spawn(move || drop(converse(stream, &name)));
        }
    });
    Ok(())
}

fn converse(mut stream: std::net::TcpStream, name: &str) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_mins(10)))?;
    stream.write_all(format!("{name}\n").as_bytes())?;
    let mut buffer = [0; 4096];
    loop {
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..n])?;
    }
}

fn udp(port: u16, name: String) -> Result<()> {
    let socket = any(Type::DGRAM, port)?;
    let socket: std::net::UdpSocket = socket.into();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            drop(socket.send_to(name.as_bytes(), from));
        }
    });
    Ok(())
}

/// A raw socket of a protocol in a family.
pub(crate) fn raw(v4: bool, protocol: i32) -> Result<Socket> {
    let domain = if v4 { Domain::IPV4 } else { Domain::IPV6 };
    Ok(Socket::new(domain, Type::RAW, Some(Protocol::from(protocol)))?)
}
