//! Clients that want to do harm, over real sockets: they are refused or cut off, and ordinary clients
//! are served meanwhile.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apikit::Running;
use apiserver::Limits;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A client that says exactly what it wants.
struct Raw {
    tls: TlsConnector,
    address: SocketAddr,
    token: String,
}

impl Raw {
    fn new(server: &Running, dir: &Path) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(dir.join("pki/ca.crt")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let token = std::fs::read_to_string(dir.join("pki/token")).unwrap();
        Self { tls: TlsConnector::from(Arc::new(config)), address: server.address, token }
    }

    async fn open(&self) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        self.tls.connect(name, stream).await.unwrap()
    }

    /// A request's line and headers, the empty line left out.
    fn head(&self, line: &str) -> String {
        format!("{line} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n", self.token)
    }

    /// Sends a whole request and reads code, headers and body of the answer.
    async fn send(&self, line: &str, media: &str, body: &str) -> (u16, String, Value) {
        let mut stream = self.open().await;
        let length = body.len();
        let head = self.head(line);
        let text = format!(
            "{head}Connection: close\r\nContent-Type: {media}\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer).await);
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        (code, head.to_lowercase(), serde_json::from_str(body).unwrap_or_default())
    }
}

/// Until the other side closes, which it has to within `limit`.
async fn closed(stream: &mut (impl AsyncReadExt + Unpin), limit: Duration) -> Vec<u8> {
    let mut read = Vec::new();
    let ended = tokio::time::timeout(limit, stream.read_to_end(&mut read)).await;
    assert!(ended.is_ok(), "still open after {limit:?}; read {:?}", String::from_utf8_lossy(&read));
    read
}

fn map(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"k": value}})).unwrap()
}

/// An ordinary client's day: it is served, and soon.
async fn ordinary(maps: &Api<ConfigMap>, name: &str) {
    let begun = Instant::now();
    maps.create(&PostParams::default(), &map(name, "1")).await.unwrap();
    let patch = Patch::Merge(json!({"data": {"k": "2"}}));
    maps.patch(name, &PatchParams::default(), &patch).await.unwrap();
    let found = maps.list(&ListParams::default()).await.unwrap();
    assert!(found.items.iter().any(|map| map.metadata.name.as_deref() == Some(name)));
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(3), "an ordinary client waited {took:?}");
}

fn short() -> Limits {
    Limits {
        first: Duration::from_secs(1),
        body: Duration::from_secs(1),
        idle: Duration::from_secs(2),
        stall: Duration::from_secs(1),
        handshake: Duration::from_secs(1),
        ..Limits::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_and_silent_clients_are_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::limited(dir.path(), short());
    let raw = Raw::new(&server, dir.path());
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client().await);
    let limit = Duration::from_secs(8);

    // Nothing at all; not even a handshake.
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    let mut shaken = raw.open().await;
    // A header, one letter at a time.
    let mut loris = raw.open().await;
    // An HTTP/2 preface and no more.
    let mut half = raw.open().await;
    half.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    // A body that does not come.
    let mut waiting = raw.open().await;
    let head = raw.head("POST /api/v1/namespaces/default/configmaps");
    let text = format!("{head}Content-Length: 1000000\r\n\r\n{{\"metadata\":");
    waiting.write_all(text.as_bytes()).await.unwrap();
    // A second request that does not come.
    let mut kept = raw.open().await;
    kept.write_all(format!("{}\r\n", raw.head("GET /api/v1/namespaces")).as_bytes()).await.unwrap();

    let slow = tokio::spawn(async move {
        for byte in b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Y: zzzzzzzzzzzzzzzzzzzzzz" {
            if loris.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        closed(&mut loris, Duration::from_secs(1)).await
    });
    ordinary(&maps, "during").await;
    closed(&mut silent, limit).await;
    drop(shaken.shutdown().await);
    closed(&mut half, limit).await;
    let told = String::from_utf8(closed(&mut waiting, limit).await).unwrap();
    assert!(told.contains(" 408 ") && told.contains("did not come within"), "{told}");
    let told = String::from_utf8(closed(&mut kept, limit).await).unwrap();
    assert!(told.contains(" 200 "), "{told}");
    let told = tokio::time::timeout(limit, slow).await.unwrap().unwrap();
    assert!(!String::from_utf8_lossy(&told).contains("200"), "{told:?}");
    ordinary(&maps, "after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_connections_push_out_those_that_do_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { connections_per_address: 40, ..Limits::default() };
    let server = Running::limited(dir.path(), limits);
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client().await);
    ordinary(&maps, "before").await;
    let mut idle = Vec::new();
    for at in 0..400 {
        idle.push(TcpStream::connect(server.address).await.unwrap());
        if at % 100 == 0 {
            ordinary(&maps, &format!("during-{at}")).await;
        }
    }
    ordinary(&maps, "after").await;
    let mut open = 0;
    for stream in &mut idle {
        let mut some = [0; 8];
        let read = stream.read(&mut some);
        open += usize::from(tokio::time::timeout(Duration::from_millis(20), read).await.is_err());
    }
    assert!(open <= 40, "{open} are open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_that_are_never_read_end() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::limited(dir.path(), short());
    let raw = Raw::new(&server, dir.path());
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client().await);
    let mut watchers = Vec::new();
    for _ in 0..20 {
        let mut stream = raw.open().await;
        let head = raw.head("GET /api/v1/namespaces/default/configmaps?watch=true");
        stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
        watchers.push(stream);
    }
    // More than the sockets between us take.
    maps.create(&PostParams::default(), &map("large", "")).await.unwrap();
    for at in 0..100 {
        let value = at.to_string().repeat(100_000);
        let patch = Patch::Merge(json!({"data": {"k": value}}));
        maps.patch("large", &PatchParams::default(), &patch).await.unwrap();
    }
    // Those that are slow, but read, stay: the reader below takes long between two reads.
    let mut reader = raw.open().await;
    let head = raw.head(
        "GET /api/v1/namespaces/default/configmaps?watch=true&fieldSelector=metadata.name%3Dsmall",
    );
    reader.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    maps.create(&PostParams::default(), &map("small", "1")).await.unwrap();
    let mut buffer = vec![0; 1 << 16];
    let mut seen = String::new();
    while !seen.contains("\"small\"") {
        let read = tokio::time::timeout(Duration::from_secs(5), reader.read(&mut buffer)).await;
        let read = read.unwrap().unwrap();
        assert!(read > 0, "the quiet watch was ended: {seen}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    for mut stream in watchers {
        let mut total = 0;
        let end = Instant::now() + Duration::from_secs(5);
        // What was on its way comes, then the end.
        while let Ok(read @ 1..) = stream.read(&mut buffer).await {
            total += read;
            assert!(Instant::now() < end, "the watch goes on");
        }
        assert!(total < 18_000_000, "all {total} bytes came: the watch had not ended");
    }
    ordinary(&maps, "after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_in_flight_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { watches: 8, reads: 8, uploads: 4 << 20, ..Limits::default() };
    let server = Running::limited(dir.path(), limits);
    let raw = Raw::new(&server, dir.path());
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client().await);
    let mut watches = Vec::new();
    for _ in 0..6 {
        let mut stream = raw.open().await;
        let head = raw.head("GET /api/v1/configmaps?watch=true");
        stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
        let mut some = [0; 15];
        stream.read_exact(&mut some).await.unwrap();
        assert_eq!(&some, b"HTTP/1.1 200 OK");
        watches.push(stream);
    }
    let (code, head, status) = raw.send("GET /api/v1/configmaps?watch=true", "", "").await;
    assert_eq!((code, status["reason"].as_str()), (429, Some("TooManyRequests")), "{status}");
    assert!(head.contains("retry-after: 1"), "{head}");
    ordinary(&maps, "meanwhile").await;
    watches.clear();
    let begun = Instant::now();
    while raw.send("GET /api/v1/configmaps?watch=true&timeoutSeconds=1", "", "").await.0 != 200 {
        assert!(begun.elapsed() < Duration::from_secs(10), "the places are not given back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Bodies: two that are half there leave no room for a third.
    let mut halves = Vec::new();
    for _ in 0..2 {
        let mut stream = raw.open().await;
        let head = raw.head("POST /api/v1/namespaces/default/configmaps");
        let text = format!("{head}Content-Length: 3000000\r\n\r\n{}", " ".repeat(1_900_000));
        stream.write_all(text.as_bytes()).await.unwrap();
        halves.push(stream);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let large =
        json!({"metadata": {"name": "l"}, "data": {"k": "x".repeat(1_000_000)}}).to_string();
    let line = "POST /api/v1/namespaces/default/configmaps";
    let (code, head, status) = raw.send(line, "application/json", &large).await;
    assert_eq!(code, 429, "{status}");
    assert!(head.contains("retry-after: 1"), "{head}");
    ordinary(&maps, "beside").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn small_requests_with_large_effects_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = Running::start(dir.path());
    let raw = Raw::new(&server, dir.path());
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client().await);
    maps.create(&PostParams::default(), &map("victim", "0123456789")).await.unwrap();
    let victim = "/api/v1/namespaces/default/configmaps/victim";
    let patch = |body: String| {
        let (raw, line) = (&raw, format!("PATCH {victim}"));
        async move { raw.send(&line, "application/json-patch+json", &body).await }
    };
    let many = format!("[{}]", vec!["{\"op\":\"test\",\"path\":\"\"}"; 110_000].join(","));
    let (code, _, status) = patch(many).await;
    assert_eq!((code, status["reason"].as_str()), (413, Some("RequestEntityTooLarge")));
    let double: Vec<_> = (0..60)
        .map(|at| json!({"op": "copy", "from": "/data", "path": format!("/data/n{at}")}))
        .collect();
    let (code, _, status) = patch(json!(double).to_string()).await;
    assert_eq!(code, 422, "{status}");
    assert!(status["message"].as_str().unwrap().contains("copy"), "{status}");

    // Piece by piece, what no single request may bring: size and depth.
    let crd = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.x.io"}, "spec": {"group": "x.io", "scope": "Cluster",
        "names": {"kind": "Thing", "listKind": "ThingList", "plural": "things", "singular": "thing"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
            {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}});
    let line = "POST /apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    assert_eq!(raw.send(line, "application/json", &crd.to_string()).await.0, 201);
    let thing =
        json!({"apiVersion": "x.io/v1", "kind": "Thing", "metadata": {"name": "t"}, "a": {}});
    assert_eq!(
        raw.send("POST /apis/x.io/v1/things", "application/json", &thing.to_string()).await.0,
        201
    );
    let mut code = 200;
    for level in 0..10 {
        let path = "/a".repeat(level * 30 + 2);
        let value = format!("{}1{}", "{\"a\":".repeat(30), "}".repeat(30));
        let body = format!("[{{\"op\":\"add\",\"path\":\"{path}\",\"value\":{value}}}]");
        let line = "PATCH /apis/x.io/v1/things/t";
        let (got, _, status) = raw.send(line, "application/json-patch+json", &body).await;
        code = got;
        if got != 200 {
            assert!(status["message"].as_str().unwrap().contains("nested deeper"), "{status}");
            break;
        }
    }
    assert_eq!(code, 400);
    for at in 0..4 {
        let body = json!({"data": {format!("k{at}"): "x".repeat(1_000_000)}}).to_string();
        let (got, ..) =
            raw.send(&format!("PATCH {victim}"), "application/merge-patch+json", &body).await;
        code = got;
    }
    assert_eq!(code, 413);

    // Documents and selectors.
    let line = "POST /api/v1/namespaces/default/configmaps";
    let deep = format!("{}{}", "[".repeat(500_000), "]".repeat(500_000));
    assert_eq!(raw.send(line, "application/json", &deep).await.0, 400);
    assert_eq!(raw.send(line, "application/yaml", &deep).await.0, 400);
    let level = |at: u32| {
        format!("a{at}: &a{at} [{}]\n", vec![format!("*a{}", at.wrapping_sub(1)); 10].join(","))
    };
    let levels: Vec<_> = (1..12).map(level).collect();
    let bomb = format!("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n{}", levels.concat());
    let begun = Instant::now();
    assert_eq!(raw.send(line, "application/yaml", &bomb).await.0, 400);
    assert!(begun.elapsed() < Duration::from_secs(3));
    let names: Vec<_> = (0..6_000).map(|at| format!("a{at}")).collect();
    let list = format!("GET /api/v1/configmaps?labelSelector={}", names.join(","));
    let (code, _, status) = raw.send(&list, "", "").await;
    assert_eq!(code, 400, "{status}");
    assert!(status["message"].as_str().unwrap().contains("too large"), "{status}");
    let values =
        format!("GET /api/v1/configmaps?labelSelector=a%20in%20({})", names[..2000].join(","));
    assert_eq!(raw.send(&values, "", "").await.0, 200);
    let headers: Vec<_> = (0..200).map(|at| format!("X-{at}: y\r\n")).collect();
    let headers = headers.concat();
    let mut stream = raw.open().await;
    stream
        .write_all(format!("{}{headers}\r\n", raw.head("GET /version")).as_bytes())
        .await
        .unwrap();
    let told = String::from_utf8(closed(&mut stream, Duration::from_secs(5)).await).unwrap();
    assert!(told.contains(" 431 "), "{told}");
    let mut stream = raw.open().await;
    let long = format!("GET /version?{}", "x".repeat(1 << 20));
    drop(stream.write_all(raw.head(&long).as_bytes()).await);
    closed(&mut stream, Duration::from_secs(5)).await;

    // The server lives, and what it kept can be read back.
    ordinary(&maps, "after").await;
    server.stop();
    let server = Running::start(dir.path());
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client().await);
    ordinary(&maps, "again").await;
}
