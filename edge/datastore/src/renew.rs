//! A client whose credentials are read again when the server does not know them any more: tokens and
//! certificates are replaced while programs run.

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode};
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::error::Error;

/// Credentials that are wrong are not read again before this has passed.
const PAUSE: Duration = Duration::from_secs(1);

/// How a server is reached that a kubeconfig names; without one, as the environment says.
pub(crate) async fn config(kubeconfig: Option<&Path>) -> Result<kube::Config, Error> {
    let Some(path) = kubeconfig else {
        return kube::Config::infer().await.map_err(|e| Error::Config(e.to_string()));
    };
    let wrong = |e: &dyn std::fmt::Display| Error::Config(format!("{}: {e}", path.display()));
    let file = Kubeconfig::read_from(path).map_err(|e| wrong(&e))?;
    let options = KubeConfigOptions::default();
    kube::Config::from_custom_kubeconfig(file, &options).await.map_err(|e| wrong(&e))
}

/// A client that reads the same again when it must.
pub(crate) async fn client(kubeconfig: Option<&Path>) -> Result<kube::Client, Error> {
    let config = config(kubeconfig).await?;
    let namespace = config.default_namespace.clone();
    let client = kube::Client::try_from(config).map_err(|e| Error::Config(e.to_string()))?;
    let connection = Arc::new(Connection {
        kubeconfig: kubeconfig.map(Path::to_owned),
        current: Mutex::new((0, client)),
        read: tokio::sync::Mutex::new(None),
    });
    let service = tower::service_fn(move |request| {
        let connection = connection.clone();
        async move { connection.send(request).await }
    });
    Ok(kube::Client::new(service, namespace))
}

struct Connection {
    kubeconfig: Option<PathBuf>,
    /// How often it was made anew, and what it is now.
    current: Mutex<(u64, kube::Client)>,
    /// When the credentials were read the last time.
    read: tokio::sync::Mutex<Option<Instant>>,
}

impl Connection {
    fn current(&self) -> (u64, kube::Client) {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, kube::Error> {
        let (head, body) = request.into_parts();
        let request = Request::from_parts(head, body.collect_bytes().await?);
        let (made, client) = self.current();
        let outcome = client.send(request.clone().map(Body::from)).await;
        // Who is not known has had nothing done.
        if !is_unknown(&outcome) || !self.renew(made).await {
            return outcome;
        }
        self.current().1.send(request.map(Body::from)).await
    }

    /// Reads the credentials again, unless somebody has since they were those of `made`. Says whether they may be
    /// others now.
    async fn renew(&self, made: u64) -> bool {
        let mut read = self.read.lock().await;
        if self.current().0 != made {
            return true;
        }
        if read.is_some_and(|at| at.elapsed() < PAUSE) {
            return false;
        }
        *read = Some(Instant::now());
        let made_anew = config(self.kubeconfig.as_deref()).await.and_then(|config| {
            kube::Client::try_from(config).map_err(|e| Error::Config(e.to_string()))
        });
        match made_anew {
            Ok(client) => {
                let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
                *current = (made + 1, client);
                true
            }
            Err(error) => {
                tracing::warn!(%error, "the server does not know us, and there are no other credentials");
                false
            }
        }
    }
}

/// Whether an outcome says that the server does not know us, or that we do not know it.
fn is_unknown(outcome: &Result<Response<Body>, kube::Error>) -> bool {
    let error = match outcome {
        Ok(response) => return response.status() == StatusCode::UNAUTHORIZED,
        Err(error) => error,
    };
    let mut next: Option<&dyn std::error::Error> = error.source();
    while let Some(cause) = next {
        if cause.to_string().contains("certificate") {
            return true;
        }
        next = cause.source();
    }
    false
}
