//! A datastore as it was: lists in a file, and a client that reads from them.
//!
//! It answers lists and single objects, lets watches wait for ever, and refuses to write. An
//! agent that is cut off from the API by the policy it is to go back from works with it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::{BufReader, BufWriter, Write as _};
use std::path::Path;
use std::sync::Arc;

use http::{Method, Request, Response};
use kube::client::Body;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Datastore, Error, Item, Resource};

/// Objects to a page, when they are read for a snapshot.
const PAGE: u32 = 200;

#[derive(Default, Serialize, Deserialize)]
struct Lists(BTreeMap<String, Vec<Value>>);

/// Reads all objects of some kinds and keeps them in a file, which replaces the one before at
/// once and is on the disk when this returns.
///
/// # Errors
/// [`Error`]; [`Error::Config`] when the file cannot be written.
pub async fn save(datastore: &Datastore, kinds: &[Resource], file: &Path) -> Result<(), Error> {
    let mut lists = Lists::default();
    for kind in kinds {
        if let Some(items) = read(datastore, kind).await? {
            lists.0.insert(kind.path(None), items);
        }
    }
    let path = file.to_owned();
    let written = tokio::task::spawn_blocking(move || {
        replace(&path, |out| serde_json::to_writer(out, &lists).map_err(std::io::Error::from))
    });
    let written = written.await.map_err(|e| Error::Config(e.to_string()))?;
    written.map_err(|e| Error::Config(format!("{}: {e}", file.display())))
}

/// Writes a file beside the one that is to be replaced, then puts it in its place; both are on
/// the disk when this returns.
///
/// # Errors
/// What the kernel says.
pub fn replace(
    file: &Path,
    write: impl FnOnce(&mut BufWriter<std::fs::File>) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let beside = file.with_extension("new");
    let mut out = BufWriter::new(std::fs::File::create(&beside)?);
    write(&mut out)?;
    out.flush()?;
    out.get_ref().sync_all()?;
    std::fs::rename(&beside, file)?;
    std::fs::File::open(folder)?.sync_all()
}

/// Whether all objects of some kinds can be read now; none of them is kept.
///
/// # Errors
/// [`Error`], at the first kind that cannot be read whole. A kind that the server does not know has no objects.
pub async fn read_through(datastore: &Datastore, kinds: &[Resource]) -> Result<(), Error> {
    for kind in kinds {
        let mut more = None;
        loop {
            let page = match datastore.list(kind, PAGE, more.as_deref()).await {
                Err(Error::NotFound(_)) => break,
                other => other?,
            };
            more = page.more;
            if more.is_none() {
                break;
            }
        }
    }
    Ok(())
}

/// All objects of a kind; none if the server does not know it.
async fn read(datastore: &Datastore, kind: &Resource) -> Result<Option<Vec<Value>>, Error> {
    let (mut all, mut more) = (Vec::new(), None);
    loop {
        let page = match datastore.list(kind, PAGE, more.as_deref()).await {
            Err(Error::NotFound(_)) => return Ok(None),
            other => other?,
        };
        for item in page.items {
            let mut object: Value = match item {
                Item::Value(object) => object,
                Item::Text(text) => serde_json::from_str(text.get())
                    .map_err(|e| Error::Decode("a list".into(), e))?,
            };
            if let Some(metadata) = object["metadata"].as_object_mut() {
                metadata.remove("managedFields");
            }
            all.push(object);
        }
        more = page.more;
        if more.is_none() {
            return Ok(Some(all));
        }
    }
}

/// A datastore that knows what the file says.
///
/// # Errors
/// [`Error::Config`]: there is no such file, or it is damaged.
pub fn open(file: &Path) -> Result<Datastore, Error> {
    let bad = |e: String| Error::Config(format!("{}: {e}", file.display()));
    let opened = std::fs::File::open(file).map_err(|e| bad(e.to_string()))?;
    let lists: Lists =
        serde_json::from_reader(BufReader::new(opened)).map_err(|e| bad(e.to_string()))?;
    let lists = Arc::new(lists);
    let service = tower::service_fn(move |request: Request<Body>| {
        let lists = lists.clone();
        async move {
            if request.uri().query().is_some_and(|q| q.contains("watch=")) {
                std::future::pending::<()>().await; // whoever asks has a limit
            }
            Ok::<_, Infallible>(answer(&lists, request.method(), request.uri().path()))
        }
    });
    Ok(Datastore::over(kube::Client::new(service, "default")))
}

fn answer(lists: &Lists, method: &Method, path: &str) -> Response<Body> {
    let refused = |code: u16, reason: &str| {
        let status = json!({"apiVersion": "v1", "kind": "Status", "status": "Failure",
            "code": code, "reason": reason, "message": "cut off: this is what was known before"});
        (code, status)
    };
    let (code, body) = if method != Method::GET {
        refused(503, "ServiceUnavailable")
    } else if let Some(items) = lists.0.get(path) {
        (200, json!({"kind": "List", "metadata": {"resourceVersion": "1"}, "items": items}))
    } else {
        one(lists, path).map_or_else(|| refused(404, "NotFound"), |object| (200, object.clone()))
    };
    let mut response = Response::new(Body::from(body.to_string().into_bytes()));
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

/// `ROOT[/namespaces/NAMESPACE]/PLURAL/NAME`.
fn one<'a>(lists: &'a Lists, path: &str) -> Option<&'a Value> {
    let (list, name) = path.rsplit_once('/')?;
    let (root, plural) = list.rsplit_once('/')?;
    let (root, namespace) = match root.split_once("/namespaces/") {
        Some((root, namespace)) => (root, Some(namespace)),
        None => (root, None),
    };
    let items = lists.0.get(&format!("{root}/{plural}"))?;
    let is = |o: &&Value| {
        o["metadata"]["name"] == name && o["metadata"]["namespace"].as_str() == namespace
    };
    items.iter().find(is)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reads_and_refuses() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("deep/snapshot.json");
        let nodes = Resource::core("nodes", "Node");
        let pods = Resource::core("pods", "Pod");
        let mut lists = Lists::default();
        lists.0.insert(nodes.path(None), vec![json!({"metadata": {"name": "n"}})]);
        let pod = json!({"metadata": {"name": "p", "namespace": "a"}});
        lists.0.insert(pods.path(None), vec![pod.clone()]);
        replace(&file, |out| Ok(serde_json::to_writer(out, &lists)?)).unwrap();
        let it = open(&file).unwrap();
        let all = it.list_all::<Value>(&pods).await.unwrap();
        assert_eq!(all, std::slice::from_ref(&pod));
        assert_eq!(it.get(&pods, Some("a"), "p").await.unwrap(), Some(pod));
        assert_eq!(it.get::<Value>(&pods, Some("b"), "p").await.unwrap(), None);
        assert!(it.get::<Value>(&nodes, None, "n").await.unwrap().is_some());
        let error = it.patch(&nodes, (None, "n"), None, &json!({})).await.unwrap_err();
        assert_eq!(error.next(), crate::Next::Retry, "{error}");
        std::fs::write(&file, "{").unwrap();
        assert!(open(&file).is_err());
    }
}
