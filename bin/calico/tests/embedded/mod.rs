//! The binary as a user calls it, and a datastore for it to talk to.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use apikit::Running;
use kube::api::PostParams;
use serde::Serialize;
use serde::de::DeserializeOwned;
use testkit::Etcd;

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// Standard output; the command must have succeeded.
    #[track_caller]
    pub(crate) fn good(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    /// It failed with this exit code and named all of these.
    #[track_caller]
    pub(crate) fn bad(self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        for part in parts {
            assert!(self.err.contains(part), "{part:?} is missing in:\n{}", self.err);
        }
    }
}

/// A command with nothing of the caller's environment but where programs are.
pub(crate) fn calico(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_calico"));
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home)
        .current_dir(home)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs a command, feeding it a text.
pub(crate) fn run(mut command: Command, input: &str) -> Said {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // A command that reads nothing is no failure.
    let feeder = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    Said {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A server, or an etcd, and a home with files for calicoctl.
pub(crate) struct Cluster {
    pub(crate) home: tempfile::TempDir,
    pub(crate) datastore: Datastore,
}

pub(crate) enum Datastore {
    Embedded(Running),
    Etcd(Etcd),
}

impl Cluster {
    /// Over the embedded store.
    pub(crate) fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let datastore = Datastore::Embedded(Running::start(home.path()));
        Self { home, datastore }
    }

    /// Over etcd.
    pub(crate) fn on_etcd() -> Self {
        Self { home: tempfile::tempdir().unwrap(), datastore: Datastore::Etcd(Etcd::start()) }
    }

    /// Over each of them.
    pub(crate) fn each() -> [Self; 2] {
        [Self::start(), Self::on_etcd()]
    }

    /// Whether there is no Kubernetes beside it.
    pub(crate) fn on_its_own(&self) -> bool {
        matches!(self.datastore, Datastore::Etcd(_))
    }

    fn server(&self) -> &Running {
        match &self.datastore {
            Datastore::Embedded(server) => server,
            Datastore::Etcd(_) => panic!("only the embedded store has a server"),
        }
    }

    /// Puts a file into the home.
    pub(crate) fn file(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.home.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// `calicoctl ARGS`, the words separated by spaces.
    pub(crate) fn ctl(&self, args: &str) -> Said {
        self.feed(args, "")
    }

    /// The same with a text on standard input.
    pub(crate) fn feed(&self, args: &str, input: &str) -> Said {
        let mut command = calico(self.home.path());
        command.arg("ctl").args(args.split_whitespace());
        match &self.datastore {
            Datastore::Embedded(server) => command.env("KUBECONFIG", &server.kubeconfig_file),
            Datastore::Etcd(etcd) => {
                command.env("DATASTORE_TYPE", "etcdv3").env("ETCD_ENDPOINTS", etcd.url())
            }
        };
        run(command, input)
    }

    /// Makes an object of Kubernetes itself, which calicoctl does not write.
    pub(crate) fn create<K>(&self, namespace: Option<&str>, object: serde_json::Value)
    where
        K: kube::Resource<DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + Serialize
            + DeserializeOwned,
        K: Placed,
    {
        let object: K = serde_json::from_value(object).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let api = K::api(self.server().client().await, namespace);
            api.create(&PostParams::default(), &object).await.unwrap();
        });
    }

    pub(crate) fn namespace(&self, name: &str) {
        let object = serde_json::json!({"metadata": {"name": name}});
        self.create::<k8s_openapi::api::core::v1::Namespace>(None, object);
    }
}

/// Where objects of a type stand.
pub(crate) trait Placed: Sized {
    fn api(client: kube::Client, namespace: Option<&str>) -> kube::Api<Self>;
}

impl Placed for k8s_openapi::api::core::v1::Namespace {
    fn api(client: kube::Client, _: Option<&str>) -> kube::Api<Self> {
        kube::Api::all(client)
    }
}

impl Placed for k8s_openapi::api::core::v1::Pod {
    fn api(client: kube::Client, namespace: Option<&str>) -> kube::Api<Self> {
        kube::Api::namespaced(client, namespace.unwrap_or("default"))
    }
}
