//! Real connections, measured.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::Netns;

/// A responder on one port, TCP and UDP, both families: it answers with its name.
/// It stops when dropped.
#[derive(Debug)]
pub struct Server {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Starts answering `name` on `port` inside `netns`; listening when it returns.
    ///
    /// # Panics
    /// If the port is taken.
    pub fn start(netns: &Netns, port: u16, name: &str) -> Self {
        let any: SocketAddr = (IpAddr::from([0u16; 8]), port).into();
        let (tcp, udp) = netns.run(|| {
            let tcp = TcpListener::bind(any).expect("the TCP port is free");
            (tcp, UdpSocket::bind(any).expect("the UDP port is free"))
        });
        tcp.set_nonblocking(true).expect("a listener can poll");
        udp.set_read_timeout(Some(POLL)).expect("a socket has timeouts");
        let stop = Arc::new(AtomicBool::new(false));
        let (stop_tcp, stop_udp) = (stop.clone(), stop.clone());
        let (name_tcp, name_udp) = (name.to_owned(), name.to_owned());
        let threads = vec![
            std::thread::spawn(move || serve_tcp(&tcp, &stop_tcp, &name_tcp)),
            std::thread::spawn(move || serve_udp(&udp, &stop_udp, &name_udp)),
        ];
        Self { stop, threads }
    }
}

const POLL: Duration = Duration::from_millis(5);

fn serve_tcp(listener: &TcpListener, stop: &AtomicBool, name: &str) {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((mut peer, _)) => {
                // A client that has left already is its own affair.
                let _ = peer.write_all(name.as_bytes());
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(POLL),
            Err(_) => return,
        }
    }
}

fn serve_udp(socket: &UdpSocket, stop: &AtomicBool, name: &str) {
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(name.as_bytes(), peer);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Connects from inside `netns` and reads to the end: the answer, or nothing within `wait`.
pub fn tcp_reply(netns: &Netns, to: impl Into<SocketAddr>, wait: Duration) -> Option<String> {
    let to = to.into();
    netns.run(|| {
        let mut stream = TcpStream::connect_timeout(&to, wait).ok()?;
        stream.set_read_timeout(Some(wait)).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text)
    })
}

/// Sends a datagram from inside `netns`: the answer, or nothing within `wait`.
pub fn udp_reply(netns: &Netns, to: impl Into<SocketAddr>, wait: Duration) -> Option<String> {
    let to = to.into();
    netns.run(|| {
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(to).ok()?;
        socket.set_read_timeout(Some(wait)).ok()?;
        socket.send(b"?").ok()?;
        let mut buffer = [0; 2048];
        let n = socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..n]).into_owned())
    })
}

/// Whether a TCP connection from inside `netns` succeeds within a second.
pub fn can_connect(netns: &Netns, to: impl Into<SocketAddr>) -> bool {
    let to = to.into();
    netns.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(1)).is_ok())
}

/// The body that an HTTP server on a socket of the file system answers to `GET`.
///
/// # Panics
/// If it cannot be asked, or does not answer 200.
pub fn get(socket: &Path, path: &str) -> String {
    let mut stream = UnixStream::connect(socket).expect("somebody listens on the socket");
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).expect("it is asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    let (head, body) = answer.split_once("\r\n\r\n").expect("HTTP");
    assert_eq!(head.split(' ').nth(1), Some("200"), "{answer}");
    body.to_owned()
}
