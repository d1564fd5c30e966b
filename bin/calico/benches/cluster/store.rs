//! The embedded store: durable writes of many clients against the disk's own rate, and one change to
//! many watchers. The server is a process; so are its clients, all in this one.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use apiserver::storage::{Expect, Storage as _, Write};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;

use crate::report::{self, note};

const CLIENTS: usize = 16;
const ROUNDS: usize = 10;
const ROUND: Duration = Duration::from_secs(1);
const WATCHERS: usize = 1_000;
const CHANGES: usize = 50;

pub(crate) fn run() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(writes());
    runtime.block_on(watchers());
}

/// A server of its own.
struct Serving {
    child: Child,
    folder: tempfile::TempDir,
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Serving {
    fn start(durability: &str) -> Self {
        // On a disk: where the build is, not where the machine may keep its memory files.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_calico"));
        command.args(["store", "serve", "--listen", "127.0.0.1:0", "--durability", durability]);
        command.arg("--data-dir").arg(folder.path()).stdout(Stdio::null()).stderr(Stdio::null());
        Self { child: command.spawn().unwrap(), folder }
    }

    /// A client with connections of its own, as soon as the server answers.
    async fn maps(&self) -> Api<ConfigMap> {
        let path = self.folder.path().join("kubeconfig");
        loop {
            if let Ok(kubeconfig) = Kubeconfig::read_from(&path) {
                let options = KubeConfigOptions::default();
                let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await;
                let client = kube::Client::try_from(config.unwrap()).unwrap();
                if client.apiserver_version().await.is_ok() {
                    return Api::namespaced(client, "default");
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// How often a second a small write reaches the disk by itself.
fn fsync_rate(dir: &Path) -> f64 {
    let path = dir.join("fsync");
    let mut file: File = OpenOptions::new().create(true).append(true).open(&path).unwrap();
    let (begun, mut count) = (Instant::now(), 0);
    while begun.elapsed() < ROUND {
        file.write_all(&[7; 4_096]).unwrap();
        file.sync_data().unwrap();
        count += 1;
    }
    let rate = f64::from(count) / begun.elapsed().as_secs_f64();
    std::fs::remove_file(path).unwrap();
    rate
}

async fn writes() {
    let server = Serving::start("power");
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(server.maps().await);
    }
    let (mut ratios, mut rates, mut disk) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let alone = fsync_rate(server.folder.path());
        let until = Instant::now() + ROUND;
        let work = clients.iter().cloned().enumerate().map(|(client, maps)| {
            tokio::spawn(async move {
                let mut written = 0_u32;
                while Instant::now() < until {
                    let name = format!("r{round}-c{client}-{written}");
                    let map = json!({"metadata": {"name": name}, "data": {"k": "v"}});
                    let map: ConfigMap = serde_json::from_value(map).unwrap();
                    maps.create(&PostParams::default(), &map).await.unwrap();
                    written += 1;
                }
                written
            })
        });
        let (begun, mut written) = (Instant::now(), 0);
        for task in work.collect::<Vec<_>>() {
            written += task.await.unwrap();
        }
        let rate = f64::from(written) / begun.elapsed().as_secs_f64();
        ratios.push(rate / alone);
        rates.push(rate);
        disk.push(alone);
    }
    let (mut inside, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let alone = fsync_rate(server.folder.path());
        let rate = without_wire(server.folder.path()).await;
        inside.push(rate / alone);
        plain.push(rate);
    }
    let what = format!("durable writes, {CLIENTS} tasks, no network, against one fsync's rate");
    report::numbers(&what, ">= 5x", inside, |v| format!("{v:.1}x"));
    report::numbers("of that, writes a second", "none", plain, |v| format!("{v:.0}"));
    let what = format!("durable writes, {CLIENTS} clients, against one fsync's rate");
    report::numbers(&what, ">= 5x", ratios, |v| format!("{v:.1}x"));
    report::numbers("of that, writes a second", "none", rates, |v| format!("{v:.0}"));
    report::numbers("of that, fsyncs a second, one at a time", "none", disk, |v| format!("{v:.0}"));
}

/// How many writes a second the store takes by itself: what is left when requests cost nothing.
async fn without_wire(dir: &Path) -> f64 {
    let path = dir.join("alone.db");
    let store = Arc::new(store::Store::open(&store::Options::new(&path)).unwrap());
    let until = Instant::now() + ROUND;
    let work = (0..CLIENTS).map(|task| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut written = 0_u32;
            while Instant::now() < until {
                let name = format!("t{task}-{written}");
                let value = json!({"metadata": {"name": name}, "data": {"k": "v"}});
                let key = format!("core/configmaps/default/{name}").into();
                let write = Write { key, expect: Expect::Absent, value: Some(value) };
                store.commit(vec![write]).await.unwrap();
                written += 1;
            }
            written
        })
    });
    let (begun, mut written) = (Instant::now(), 0);
    for task in work.collect::<Vec<_>>() {
        written += task.await.unwrap();
    }
    let rate = f64::from(written) / begun.elapsed().as_secs_f64();
    drop(store);
    std::fs::remove_file(path).unwrap();
    rate
}

async fn watchers() {
    let server = Serving::start("process");
    let maps = server.maps().await;
    let map = json!({"metadata": {"name": "seen"}, "data": {"k": ""}});
    let map: ConfigMap = serde_json::from_value(map).unwrap();
    maps.create(&PostParams::default(), &map).await.unwrap();
    note(&format!("{WATCHERS} watchers connect"));
    let (seen, mut events) = mpsc::unbounded_channel();
    let request = Arc::new(Request::new(server.folder.path()));
    let mut watching = Vec::new();
    for _ in 0..WATCHERS {
        watching.push(tokio::spawn(watch(request.clone(), seen.clone())));
    }
    for _ in 0..WATCHERS {
        events.recv().await.unwrap();
    }
    let mut last = Vec::new();
    for change in 0..CHANGES {
        let patch = Patch::Merge(json!({"data": {"k": change.to_string()}}));
        let begun = Instant::now();
        maps.patch("seen", &PatchParams::default(), &patch).await.unwrap();
        let mut end = begun;
        for _ in 0..WATCHERS {
            end = end.max(events.recv().await.unwrap());
        }
        last.push(end - begun);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let what = format!("one change, from before its write to the last of {WATCHERS} watchers");
    report::times(&what, "<= 20 ms", last);
    for task in watching {
        task.abort();
    }
}

/// What every watcher asks for, and how.
struct Request {
    address: SocketAddr,
    tls: TlsConnector,
    text: String,
}

impl Request {
    fn new(dir: &Path) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(dir.join("pki/ca.crt")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let kubeconfig = std::fs::read_to_string(dir.join("kubeconfig")).unwrap();
        let address = kubeconfig.split("https://").nth(1).unwrap().lines().next().unwrap();
        let token = std::fs::read_to_string(dir.join("pki/token")).unwrap();
        let path =
            "/api/v1/namespaces/default/configmaps?watch=true&fieldSelector=metadata.name%3Dseen";
        Self {
            address: address.parse().unwrap(),
            tls: TlsConnector::from(Arc::new(config)),
            text: format!(
                "GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
            ),
        }
    }
}

/// Tells when each event has come whole: the first shows what there is.
async fn watch(request: Arc<Request>, seen: mpsc::UnboundedSender<Instant>) {
    let stream = TcpStream::connect(request.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = request.tls.connect(name, stream).await.unwrap();
    stream.write_all(request.text.as_bytes()).await.unwrap();
    let (mut buffer, mut end) = ([0; 4_096], Vec::new());
    loop {
        let read = stream.read(&mut buffer).await.unwrap();
        assert!(read > 0, "the watch has ended");
        end.extend_from_slice(&buffer[..read]);
        // A line, and the end of its chunk.
        if end.ends_with(b"}\n\r\n") {
            end.clear();
            let _ = seen.send(Instant::now());
        }
    }
}
