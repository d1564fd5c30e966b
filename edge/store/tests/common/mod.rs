//! A server in the test's own process, and clients of it.

use std::net::TcpListener;
use std::sync::Arc;

use kube::config::{KubeConfigOptions, Kubeconfig};
use store::{Durability, Options, Store};
use tokio::sync::oneshot;

/// A running server. Dropping it stops it; [`Running::stop`] waits until its file is closed.
pub(crate) struct Running {
    /// How to reach it.
    pub(crate) kubeconfig: String,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    /// Starts a server over `dir`.
    pub(crate) fn start(dir: &std::path::Path) -> Self {
        let mut options = Options::new(dir.join("store.db"));
        options.durability = Durability::Process;
        Self::with(options, dir)
    }

    /// Starts a server over a store with these options.
    pub(crate) fn with(options: Options, dir: &std::path::Path) -> Self {
        let store = Arc::new(Store::open(&options).unwrap());
        let server =
            apiserver::Server::new(store, apiserver::Options::new(dir.join("pki"))).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let kubeconfig = server.kubeconfig(&format!("https://{address}"));
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let stopped = async move { drop(stopped.await) };
            server.serve(vec![listener], stopped).await.unwrap();
        });
        Self { kubeconfig, stop: Some(stop), task }
    }

    /// A client with the administrator's token.
    pub(crate) async fn client(&self) -> kube::Client {
        let kubeconfig = Kubeconfig::from_yaml(&self.kubeconfig).unwrap();
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
        kube::Client::try_from(config).unwrap()
    }

    /// Stops the server and waits for it.
    pub(crate) async fn stop(mut self) {
        drop(self.stop.take());
        (&mut self.task).await.unwrap();
    }
}
