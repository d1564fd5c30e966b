//! An etcd of a test's own.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::authority::Authority;
use crate::control_plane::kube_program;
use crate::supervisor::{Supervisor, free_ports};

const READY: Duration = Duration::from_mins(1);
/// Certificates outlive every test.
const LIFE: Duration = Duration::from_hours(24);

/// A running etcd with one member. When it is dropped it is killed and its data are removed.
#[derive(Debug)]
pub struct Etcd {
    supervisor: Supervisor,
    flags: Vec<String>,
    url: String,
    port: u16,
    /// Where its data are if not with the rest; removed after it has ended.
    data: Option<tempfile::TempDir>,
}

impl Etcd {
    /// Starts one that everybody on this machine may use.
    ///
    /// # Panics
    /// If the program is not built or does not start; with the end of its log.
    #[must_use]
    pub fn start() -> Self {
        Self::launch("http", vec!["--unsafe-no-fsync".into()])
    }

    /// Starts one whose data are in a folder below `dir`, and on its disk before a write is answered.
    ///
    /// # Panics
    /// As [`Self::start`].
    #[must_use]
    pub fn start_on_disk(dir: &Path) -> Self {
        let data = tempfile::Builder::new().prefix("etcd-").tempdir_in(dir).expect("a folder");
        let flag = format!("--data-dir={}", data.path().display());
        let mut etcd = Self::launch("http", vec![flag]);
        etcd.data = Some(data);
        etcd
    }

    /// Starts one that asks for certificates of an authority of its own: see [`Self::file`].
    ///
    /// # Panics
    /// As [`Self::start`].
    #[must_use]
    pub fn start_with_tls() -> Self {
        let flags =
            ["--unsafe-no-fsync", "--client-cert-auth=true", "--trusted-ca-file={at}/ca.crt"];
        let own = ["--cert-file={at}/server.crt", "--key-file={at}/server.key"];
        Self::launch("https", flags.iter().chain(&own).map(|f| (*f).to_owned()).collect())
    }

    fn launch(scheme: &str, more: Vec<String>) -> Self {
        let supervisor = Supervisor::start("etcd-");
        let at = supervisor.folder().display().to_string();
        if scheme == "https" {
            write_identity(supervisor.folder());
        }
        let [port, peer] = free_ports();
        let url = format!("{scheme}://127.0.0.1:{port}");
        let mut flags = flags(&at, &url, peer);
        flags.extend(more.into_iter().map(|flag| flag.replace("{at}", &at)));
        let mut etcd = Self { supervisor, flags, url, port, data: None };
        etcd.run();
        etcd
    }

    fn run(&mut self) {
        let program = kube_program("cluster").display().to_string();
        let words = [program.as_str(), "etcd"];
        let words: Vec<&str> =
            words.into_iter().chain(self.flags.iter().map(String::as_str)).collect();
        self.supervisor.run_until_the_end("etcd", &words);
        let until = Instant::now() + READY;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let dead = !self.supervisor.lives("etcd") || Instant::now() > until;
            assert!(!dead, "etcd does not start\n{}", self.supervisor.logs());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A file of its identity: `ca.crt`, the authorities of its clients; `server.crt`, `server.key`; and for a client
    /// `client.crt`, `client.key`. It reads them when it starts.
    pub fn file(&self, name: &str) -> PathBuf {
        self.supervisor.folder().join(name)
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.supervisor.pid("etcd")
    }

    /// Starts it again, with its data, after its process was ended.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn restart(&mut self) {
        let until = Instant::now() + READY;
        while self.supervisor.lives("etcd") {
            assert!(Instant::now() < until, "etcd does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
        // The new process writes its own.
        fs::remove_file(self.file("etcd.pid")).expect("it was there");
        self.run();
    }
}

/// The flags of an etcd with one member.
pub(crate) fn flags(at: &str, client: &str, peer: u16) -> Vec<String> {
    vec![
        "--name=only".into(),
        format!("--data-dir={at}/etcd"),
        "--log-level=warn".into(),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
        format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
        format!("--initial-cluster=only=http://127.0.0.1:{peer}"),
    ]
}

/// An authority, and certificates of the server and of a client.
fn write_identity(folder: &Path) {
    let authority = Authority::new("etcd-ca");
    fs::write(folder.join("ca.crt"), authority.pem()).expect("the folder takes files");
    authority.write(folder, "server", LIFE);
    authority.write(folder, "client", LIFE);
}
