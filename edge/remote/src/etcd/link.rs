//! The connection to etcd, whose credentials may be replaced while it is used.
//!
//! Files are looked at every few seconds. A client under what they say now is tried before it replaces the one in use:
//! half-written files, a certificate without its key, and credentials that etcd does not know yet change nothing. What is
//! asked from then on goes over the new client, changes that are being followed go on there from where they were, and
//! the old connection is closed once nothing uses it.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, GetOptions};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::options::{Credentials, EtcdOptions};
use super::{in_time, layout};
use crate::backend::RemoteError;

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// A connection. Clones share it.
#[derive(Clone)]
pub(crate) struct Etcd {
    link: Arc<Link>,
}

struct Link {
    client: watch::Sender<Arc<Client>>,
    /// Who looks at the files, if there are any.
    looking: Option<JoinHandle<()>>,
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(looking) = &self.looking {
            looking.abort();
        }
    }
}

impl Etcd {
    pub(crate) async fn connect(options: &EtcdOptions) -> Result<Self, RemoteError> {
        if options.endpoints.is_empty() {
            return Err(RemoteError::Config("no etcd endpoint: want a URL".into()));
        }
        // The client would take anything, and try for ever.
        let known = |url: &&String| url.starts_with("http://") || url.starts_with("https://");
        if let Some(url) = options.endpoints.iter().find(|url| !known(url)) {
            let text = format!("etcd endpoint {url:?}: want http://HOST:PORT or https://HOST:PORT");
            return Err(RemoteError::Config(text));
        }
        let credentials = options.read()?;
        let client = watch::Sender::new(Arc::new(connect(options, &credentials).await?));
        let look = || tokio::spawn(look(options.clone(), credentials, client.clone()));
        let looking = options.may_change().then(look);
        Ok(Self { link: Arc::new(Link { client, looking }) })
    }

    /// Whose credentials are the last that etcd has accepted.
    pub(super) fn client(&self) -> Arc<Client> {
        self.link.client.borrow().clone()
    }

    /// The same, and when it is replaced.
    pub(super) fn clients(&self) -> watch::Receiver<Arc<Client>> {
        self.link.client.subscribe()
    }
}

async fn connect(options: &EtcdOptions, with: &Credentials) -> Result<Client, RemoteError> {
    in_time(Client::connect(&options.endpoints, Some(with.connect_options()))).await
}

/// A client that etcd has answered.
async fn tried(options: &EtcdOptions, with: &Credentials) -> Result<Client, RemoteError> {
    let client = connect(options, with).await?;
    // Whoever may not even read this could do nothing else.
    let (from, _) = layout::range("clusterinformations");
    let one = GetOptions::new().with_keys_only();
    in_time(client.kv_client().get(from, Some(one))).await?;
    Ok(client)
}

async fn look(options: EtcdOptions, mut used: Credentials, to: watch::Sender<Arc<Client>>) {
    let mut said = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let files = options.clone();
        // It may be a network's file system.
        let read = tokio::task::spawn_blocking(move || files.read()).await;
        let Ok(read) = read else { continue };
        let replaced = match read {
            Ok(now) if now == used => Ok(None),
            Ok(now) => tried(&options, &now).await.map(|client| Some((client, now))),
            Err(error) => Err(error),
        };
        match replaced {
            Ok(None) => said = None,
            Ok(Some((client, now))) => {
                to.send_replace(Arc::new(client));
                (used, said) = (now, None);
                tracing::info!("new credentials for etcd are in use");
            }
            // Once: it is tried again and again.
            Err(error) => {
                let error = error.to_string();
                if said.as_ref() != Some(&error) {
                    tracing::warn!(
                        error,
                        "new credentials for etcd do not work, the old ones stay"
                    );
                    said = Some(error);
                }
            }
        }
    }
}
