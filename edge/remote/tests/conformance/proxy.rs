//! A network that can be cut.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Open,
    /// Connections end, new ones at once.
    Cut,
    /// Nothing gets through, and nobody is told.
    Silent,
}

/// In between of a client and a server.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    line: watch::Sender<Line>,
}

impl Proxy {
    /// To a server at `target`.
    pub(crate) async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (line, state) = watch::channel(Line::Open);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let open = *state.borrow() != Line::Cut;
                if let (true, Ok(server)) = (open, TcpStream::connect(target).await) {
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    tokio::spawn(carry(from_client, to_server, state.clone()));
                    tokio::spawn(carry(from_server, to_client, state.clone()));
                }
            }
        });
        Self { address, line }
    }

    pub(crate) fn cut(&self) {
        self.line.send_replace(Line::Cut);
    }

    pub(crate) fn silence(&self) {
        self.line.send_replace(Line::Silent);
    }

    pub(crate) fn open(&self) {
        self.line.send_replace(Line::Open);
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut line: watch::Receiver<Line>) {
    let mut part = vec![0; 64 << 10];
    loop {
        let state = *line.borrow_and_update();
        tokio::select! {
            read = from.read(&mut part), if state == Line::Open => match read {
                Ok(length) if length > 0 && to.write_all(&part[..length]).await.is_ok() => {}
                _ => return,
            },
            changed = line.changed() => if changed.is_err() || *line.borrow() == Line::Cut {
                return;
            },
        }
    }
}
