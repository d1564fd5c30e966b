//! Connections and datagrams that go on until they are ended.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use testkit::Netns;

const POLL: Duration = Duration::from_millis(5);

fn until(most: Duration, done: impl Fn() -> bool) -> bool {
    let started = Instant::now();
    while !done() {
        if started.elapsed() >= most {
            return false;
        }
        std::thread::sleep(POLL);
    }
    true
}

/// One end of a connection: reads until it is reset.
struct End {
    stream: TcpStream,
    bytes: Arc<AtomicU64>,
    reset: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl End {
    fn new(stream: TcpStream) -> Self {
        let (bytes, reset) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (mut reads, count, seen) = (stream.try_clone().unwrap(), bytes.clone(), reset.clone());
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                match reads.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(n) => drop(count.fetch_add(n as u64, Ordering::Relaxed)),
                    Err(error) => {
                        seen.fetch_or(
                            error.kind() == ErrorKind::ConnectionReset,
                            Ordering::Relaxed,
                        );
                        return;
                    }
                }
            }
        });
        Self { stream, bytes, reset, thread: Some(thread) }
    }
}

/// A TCP connection with both ends in hand.
pub(crate) struct Stream {
    client: End,
    server: End,
    stop: Arc<AtomicBool>,
    sender: std::cell::RefCell<Option<JoinHandle<()>>>,
}

impl Stream {
    pub(crate) fn open(client: &Netns, server: &Netns, to: SocketAddr, listen: SocketAddr) -> Self {
        let opened = Self::try_open(client, server, to, listen, 0);
        opened.unwrap_or_else(|| panic!("no connection to {to}"))
    }

    /// From that port of the client's.
    pub(crate) fn try_open(
        client: &Netns,
        server: &Netns,
        to: SocketAddr,
        listen: SocketAddr,
        port: u16,
    ) -> Option<Self> {
        use socket2::{Domain, Socket, Type};
        let listener = server.run(|| {
            let socket = Socket::new(Domain::for_address(listen), Type::STREAM, None).unwrap();
            socket.set_reuse_address(true).unwrap();
            socket.bind(&listen.into()).unwrap();
            socket.listen(4).unwrap();
            TcpListener::from(socket)
        });
        let stream = client.run(|| {
            let domain = Domain::for_address(to);
            let socket = Socket::new(domain, Type::STREAM, None).unwrap();
            socket.set_reuse_address(true).unwrap();
            let any = if to.is_ipv4() { "0.0.0.0" } else { "::" };
            let from = SocketAddr::new(any.parse().unwrap(), port);
            socket.bind(&from.into()).unwrap();
            socket.connect_timeout(&to.into(), Duration::from_millis(800)).ok()?;
            Some(TcpStream::from(socket))
        })?;
        let (accepted, _) = listener.accept().unwrap();
        Some(Self {
            client: End::new(stream),
            server: End::new(accepted),
            stop: Arc::default(),
            sender: None.into(),
        })
    }

    pub(crate) fn client_port(&self) -> u16 {
        self.client.stream.local_addr().unwrap().port()
    }

    /// From now on, until it fails.
    pub(crate) fn server_keeps_sending(&self) {
        let (mut stream, stop) = (self.server.stream.try_clone().unwrap(), self.stop.clone());
        let reset = self.server.reset.clone();
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                // Only one of who reads and who writes is told.
                if let Err(error) = stream.write_all(&[7; 1_000]) {
                    reset.fetch_or(error.kind() == ErrorKind::ConnectionReset, Ordering::Relaxed);
                    return;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        *self.sender.borrow_mut() = Some(thread);
    }

    /// The client gets so many more.
    pub(crate) fn wait_for_bytes(&self, count: u64) {
        let bytes = &self.client.bytes;
        let wanted = bytes.load(Ordering::Relaxed) + count;
        let got = until(Duration::from_secs(5), || bytes.load(Ordering::Relaxed) >= wanted);
        assert!(got, "the client gets nothing");
    }

    /// Whether client and server are reset within a time.
    pub(crate) fn ends(&self, most: Duration) -> [bool; 2] {
        let reset = || [&self.client, &self.server].map(|e| e.reset.load(Ordering::Relaxed));
        until(most, || reset() == [true, true]);
        reset()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for end in [&mut self.client, &mut self.server] {
            let _ = end.stream.shutdown(std::net::Shutdown::Both);
            let _ = end.thread.take().map(JoinHandle::join);
        }
        let _ = self.sender.borrow_mut().take().map(JoinHandle::join);
    }
}

/// Datagrams there and back. Each end sends by itself, whatever it gets; the client's are answered, too.
pub(crate) struct Datagrams {
    stop: Arc<AtomicBool>,
    /// At the server, and at the client.
    got: [Arc<AtomicU64>; 2],
    sent: Arc<AtomicU64>,
    answered: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

const ANSWER: u8 = 1;

impl Datagrams {
    pub(crate) fn open(client: &Netns, server: &Netns, to: SocketAddr, listen: SocketAddr) -> Self {
        let there = server.run(|| UdpSocket::bind(listen).unwrap());
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let here = client.run(|| {
            let socket = UdpSocket::bind(any).unwrap();
            socket.connect(to).unwrap();
            socket
        });
        for socket in [&there, &here] {
            socket.set_read_timeout(Some(POLL)).unwrap();
        }
        let new = || Arc::new(AtomicU64::new(0));
        let (stop, got) = (Arc::new(AtomicBool::new(false)), [new(), new()]);
        let (sent, answered) = (new(), new());
        let serve = {
            let (stop, got) = (stop.clone(), got[0].clone());
            std::thread::spawn(move || serve(&there, &stop, &got))
        };
        let ask = {
            let (stop, got) = (stop.clone(), got[1].clone());
            let (sent, answered) = (sent.clone(), answered.clone());
            std::thread::spawn(move || ask(&here, &stop, (&got, &sent, &answered)))
        };
        Self { stop, got, sent, answered, threads: vec![serve, ask] }
    }

    fn counts(&self) -> [u64; 2] {
        [0, 1].map(|i| self.got[i].load(Ordering::Relaxed))
    }

    /// Both ends get so many more.
    pub(crate) fn wait_for_more(&self, count: u64) {
        let before = self.counts();
        let enough = || self.counts().iter().zip(before).all(|(now, then)| *now >= then + count);
        assert!(
            until(Duration::from_secs(5), enough),
            "no datagrams: {before:?} {:?}",
            self.counts()
        );
    }

    /// After a moment neither end gets anything more.
    pub(crate) fn must_be_silent(&self, time: Duration) {
        std::thread::sleep(Duration::from_millis(100));
        let before = self.counts();
        std::thread::sleep(time);
        assert_eq!(before, self.counts(), "to the server, to the client");
    }

    /// How many were sent by the client, and how many of them were answered.
    pub(crate) fn stop(mut self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
        (self.sent.load(Ordering::Relaxed), self.answered.load(Ordering::Relaxed))
    }
}

impl Drop for Datagrams {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve(socket: &UdpSocket, stop: &AtomicBool, got: &AtomicU64) {
    let (mut peer, mut buffer) = (None, [0; 64]);
    while !stop.load(Ordering::Relaxed) {
        if let Ok((n, from)) = socket.recv_from(&mut buffer) {
            got.fetch_add(1, Ordering::Relaxed);
            peer = Some(from);
            buffer[0] = ANSWER;
            let _ = socket.send_to(&buffer[..n], from);
        }
        if let Some(peer) = peer {
            let _ = socket.send_to(&[0; 9], peer);
        }
    }
    // Whoever asked last is answered.
    while let Ok((n, from)) = socket.recv_from(&mut buffer) {
        buffer[0] = ANSWER;
        let _ = socket.send_to(&buffer[..n], from);
    }
}

/// One question after the other, every few milliseconds, without waiting for answers.
fn ask(socket: &UdpSocket, stop: &AtomicBool, counts: (&AtomicU64, &AtomicU64, &AtomicU64)) {
    let (got, sent, answered) = counts;
    let mut buffer = [0; 64];
    let mut hear = |wait: Duration| {
        let end = Instant::now() + wait;
        while Instant::now() < end {
            if let Ok(n) = socket.recv(&mut buffer) {
                got.fetch_add(1, Ordering::Relaxed);
                if n > 0 && buffer[0] == ANSWER {
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    };
    while !stop.load(Ordering::Relaxed) {
        let number = sent.load(Ordering::Relaxed);
        let packet = [&[0][..], &number.to_be_bytes()].concat();
        if socket.send(&packet).is_ok() {
            sent.fetch_add(1, Ordering::Relaxed);
        }
        hear(Duration::from_millis(3));
    }
    hear(Duration::from_millis(300));
}
