//! The API without a network: for a program that has the store itself.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Body;
use hyper::{Request, Response};

use crate::api::Api;
use crate::auth::{Tokens, User};
use crate::connections::{Admitted, Connections};
use crate::http::{self, Peer};
use crate::storage::Storage;
use crate::trust::Certificates;
use crate::{Options, Surface};

/// Answers requests of its own process, in the name of the administrator. Cheap to clone.
#[derive(Clone)]
pub struct Local {
    api: Arc<Api>,
    peer: Arc<Peer>,
    /// Keeps the place in the table of connections.
    _admitted: Arc<Admitted>,
}

impl Local {
    /// The API over `storage`. Nothing runs in the background.
    ///
    /// # Panics
    /// Never: the table of connections is empty.
    pub fn new(storage: Arc<dyn Storage>, surface: Surface) -> Self {
        let mut options = Options::new("");
        options.surface = surface;
        // There is one writer, and others read what it writes.
        options.ownership = false;
        let table = Arc::new(Connections::new(&options.limits));
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let admitted = table.admit(address).expect("an empty table has room");
        let peer = Peer {
            tracker: admitted.tracker.clone(),
            address,
            certificates: Certificates::verified(Some(User::administrator())),
        };
        let api = Arc::new(Api::new(storage, options, Tokens::default(), None));
        Self { api, peer: Arc::new(peer), _admitted: Arc::new(admitted) }
    }

    /// Answers a request, always.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<UnsyncBoxBody<Bytes, Infallible>>
    where
        B: Body<Data = Bytes, Error: std::fmt::Display> + Send + Unpin,
    {
        let response = http::answer(self.api.clone(), &self.peer, request).await;
        response.map(BodyExt::boxed_unsync)
    }
}
