//! Test kit: the embedded API in the test's own process.
//!
//! Goes in: a folder. Comes out: a server over the store in that folder, on a port of its own, and
//! what a client needs to reach it.
//!
//! Invariants: the server has threads of its own, so that tests may block or be asynchronous as they
//! like; when [`Running::stop`] returns or a [`Running`] is gone, its file is closed and its port free.
//!
//! Deliberately absent: nodes, pods that run (`bin/sandbox`), network namespaces (`dev/testkit`).
//!
//! Start reading at [`Running`].

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kube::config::{KubeConfigOptions, Kubeconfig};
use store::{Durability, Options, Store};
use tokio::sync::oneshot;

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub struct Running {
    /// How to reach it, as the administrator: the text of a kubeconfig.
    pub kubeconfig: String,
    /// The same in a file, in the server's folder.
    pub kubeconfig_file: PathBuf,
    /// Where it listens.
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What a store in `dir` needs in tests: it survives processes, not power cuts.
#[must_use]
pub fn options(dir: &Path) -> Options {
    let mut options = Options::new(dir.join("store.db"));
    options.durability = Durability::Process;
    options
}

impl Running {
    /// Starts a server over `dir`, on a free port.
    #[must_use]
    pub fn start(dir: &Path) -> Self {
        Self::with(&options(dir), dir)
    }

    /// Starts a server over a store with these options; certificates and kubeconfig are in `dir`.
    #[must_use]
    pub fn with(options: &Options, dir: &Path) -> Self {
        Self::at("127.0.0.1:0", options, dir)
    }

    /// Starts a server over `dir` that lets clients use up only so much.
    #[must_use]
    pub fn limited(dir: &Path, limits: apiserver::Limits) -> Self {
        Self::configured(dir, |settings| settings.limits = limits)
    }

    /// Starts a server over `dir` with changed settings.
    #[must_use]
    pub fn configured(dir: &Path, change: impl FnOnce(&mut apiserver::Options)) -> Self {
        Self::launch("127.0.0.1:0", &options(dir), dir, change)
    }

    /// The same on a given address, as soon as that is free.
    ///
    /// # Panics
    /// If the server cannot start.
    #[must_use]
    pub fn at(address: &str, options: &Options, dir: &Path) -> Self {
        Self::launch(address, options, dir, |_| {})
    }

    fn launch(
        address: &str,
        options: &Options,
        dir: &Path,
        change: impl FnOnce(&mut apiserver::Options),
    ) -> Self {
        let listener = bind(address);
        let address = listener.local_addr().expect("a bound socket has an address");
        let store = Arc::new(Store::open(options).unwrap_or_else(|e| panic!("{e}")));
        let mut settings = apiserver::Options::new(dir.join("pki"));
        change(&mut settings);
        let server = apiserver::Server::new(store, settings).unwrap_or_else(|e| panic!("{e}"));
        let kubeconfig = server.kubeconfig(&format!("https://{address}"));
        let kubeconfig_file = dir.join(format!("kubeconfig-{}", address.port()));
        std::fs::write(&kubeconfig_file, &kubeconfig).expect("the folder takes files");
        let (stop, stopped) = oneshot::channel::<()>();
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().build().expect("a runtime starts");
        let thread = std::thread::spawn(move || {
            let until = async { drop(stopped.await) };
            let served = runtime.block_on(server.serve(vec![listener], until));
            served.unwrap_or_else(|e| panic!("the server: {e}"));
        });
        let (stop, thread) = (Some(stop), Some(thread));
        Self { kubeconfig, kubeconfig_file, address, stop, thread }
    }

    /// A client with the administrator's token.
    ///
    /// # Panics
    /// If the kubeconfig is not what a client wants.
    pub async fn client(&self) -> kube::Client {
        let kubeconfig = Kubeconfig::from_yaml(&self.kubeconfig).expect("a kubeconfig");
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await;
        kube::Client::try_from(config.expect("a configuration")).expect("a client")
    }

    /// Stops the server and waits until its file is closed.
    ///
    /// # Panics
    /// If the server did.
    pub fn stop(mut self) {
        drop(self.stop.take());
        let thread = self.thread.take().expect("only this function takes it");
        assert!(thread.join().is_ok(), "the server panicked");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// The port may still be in use by the server that has just ended.
fn bind(address: &str) -> TcpListener {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        match TcpListener::bind(address) {
            Ok(listener) => return listener,
            Err(e) => assert!(Instant::now() < until, "{address}: {e}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
