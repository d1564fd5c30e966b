//! A Kubernetes control plane of a test's own: etcd, kube-apiserver, and controllers where asked for. And nodes that run
//! containers.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use crate::Netns;
use crate::etcd;
use crate::supervisor::{Supervisor, free_ports};

/// How long the parts may take to come up; some seconds on a machine with nothing else to do.
const READY: Duration = Duration::from_mins(2);
/// A port that was free may be taken by another before the part has bound it.
const ATTEMPTS: usize = 3;

/// Whether kube-controller-manager runs, too: it deletes namespaces, collects garbage, makes service accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controllers {
    /// Only etcd and the API server; pods need no service account.
    Absent,
    /// All of them, at a cost of a second and 160 MB.
    Running,
    /// And kube-scheduler, for pods that are to run.
    Scheduling,
}

/// What a control plane can do beyond the usual.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extras {
    /// It serves parts of its API by others (APIService) and calls webhooks: at the addresses of their EndpointSlices, since
    /// nothing carries out the addresses of services. Client certificates of [`ControlPlane::client_certificate`] are good.
    pub aggregation: bool,
    /// It knows MutatingAdmissionPolicy, which this version of Kubernetes has, but not switched on.
    pub mutating_policies: bool,
}

/// A running control plane. When it is dropped, or its process ends in whatever way, its parts are killed and its folder
/// is removed.
#[derive(Debug)]
pub struct ControlPlane {
    /// Where it runs; nothing for the namespace of the test.
    netns: Option<Netns>,
    server: String,
    kubectl: PathBuf,
    /// What was started, with its arguments.
    parts: Vec<(String, Vec<String>)>,
    supervisor: Supervisor,
}

/// A built program of `dev/kube`: `cluster` or `kubectl`.
///
/// # Panics
/// If it is not built; with what builds it.
#[must_use]
pub fn kube_program(name: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kube/build.sh");
    let found = Command::new(&script).args(["--find", name]).output();
    let found = found.unwrap_or_else(|e| panic!("{}: {e}", script.display()));
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    PathBuf::from(String::from_utf8_lossy(&found.stdout).trim())
}

impl ControlPlane {
    /// Starts one and waits until it answers and the namespace `default` is there.
    ///
    /// # Panics
    /// If the programs are not built or do not start; with the end of their logs.
    #[must_use]
    pub fn start(controllers: Controllers) -> Self {
        Self::start_at(controllers, None, Ipv4Addr::LOCALHOST, Extras::default())
    }

    /// Like [`Self::start`], in another network namespace, and at an address that is there.
    ///
    /// # Panics
    /// As there.
    #[must_use]
    pub fn start_in(netns: &Netns, address: Ipv4Addr, controllers: Controllers) -> Self {
        Self::start_at(controllers, Some(netns), address, Extras::default())
    }

    /// Like [`Self::start_in`], with more.
    ///
    /// # Panics
    /// As there.
    #[must_use]
    pub fn start_with(
        netns: &Netns,
        address: Ipv4Addr,
        controllers: Controllers,
        extras: Extras,
    ) -> Self {
        Self::start_at(controllers, Some(netns), address, extras)
    }

    fn start_at(
        controllers: Controllers,
        netns: Option<&Netns>,
        address: Ipv4Addr,
        extras: Extras,
    ) -> Self {
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            let plane = Self::launch(controllers, netns.map(Netns::again), address, extras);
            match plane.until_ready() {
                Ok(()) => return plane,
                Err(error) if error.contains("address already in use") => last = error,
                Err(error) => panic!("{error}"),
            }
        }
        panic!("{last}");
    }

    fn launch(
        controllers: Controllers,
        netns: Option<Netns>,
        address: Ipv4Addr,
        extras: Extras,
    ) -> Self {
        let (program, kubectl) = (kube_program("cluster"), kube_program("kubectl"));
        let inside = || (Supervisor::start("kube-"), free_ports());
        let (supervisor, [etcd, peer, api, manager, scheduler]) = within(netns.as_ref(), inside);
        let server = format!("https://{address}:{api}");
        write_identity(supervisor.folder(), &server, address);
        let mut plane = Self { netns, server, kubectl, parts: Vec::new(), supervisor };
        let program = program.display().to_string();
        let at = plane.folder().display().to_string();
        let url = format!("http://127.0.0.1:{etcd}");
        let mut flags = etcd::flags(&at, &url, peer);
        // Its data need not survive the machine.
        flags.push("--unsafe-no-fsync".into());
        plane.part("etcd", &program, &flags);
        let mut flags = apiserver_flags(&at, etcd, (address, api), controllers);
        flags.extend(extra_flags(&at, extras));
        plane.part("kube-apiserver", &program, &flags);
        if controllers != Controllers::Absent {
            // They give up when they find no server within ten seconds of their own start.
            if let Err(error) = plane.until_ready() {
                assert!(error.contains("address already in use"), "{error}");
            }
            plane.part("kube-controller-manager", &program, &manager_flags(&at, manager));
        }
        if controllers == Controllers::Scheduling {
            plane.part("kube-scheduler", &program, &scheduler_flags(&at, scheduler));
        }
        plane
    }

    fn part(&mut self, part: &str, program: &str, flags: &[String]) {
        let words: Vec<&str> =
            [program, part].into_iter().chain(flags.iter().map(String::as_str)).collect();
        self.run_until_the_end(part, &words);
        self.parts.push((part.into(), words.iter().map(|word| (*word).to_owned()).collect()));
    }

    /// Kills a part, such as `kube-apiserver`, starts it again and waits until everything answers.
    ///
    /// # Panics
    /// If that part does not run, or does not start again; with the end of the logs.
    pub fn restart(&mut self, part: &str) {
        let found = self.parts.iter().find(|(name, _)| name == part).cloned();
        let (_, words) = found.unwrap_or_else(|| panic!("{part} was not started"));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut outcome = Ok(());
        for _ in 0..ATTEMPTS {
            self.supervisor.kill(part);
            self.run_until_the_end(part, &words);
            outcome = self.until_ready();
            // What is left of the old one may hold the port for a moment.
            if !outcome.as_ref().is_err_and(|error| error.contains("address already in use")) {
                break;
            }
        }
        outcome.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Starts a command that is killed at the end; its log is with the others. `name` is its own, and a word.
    pub(crate) fn run_until_the_end(&mut self, name: &str, words: &[&str]) {
        self.supervisor.run_until_the_end(name, words);
    }

    /// Runs a command at the very end, when everything is killed.
    pub(crate) fn run_at_the_end(&mut self, words: &[&str]) {
        self.supervisor.run_at_the_end(words);
    }

    fn until_ready(&self) -> Result<(), String> {
        let until = Instant::now() + READY;
        let asked = [vec!["get", "--raw=/readyz"], vec!["get", "namespace", "default"]];
        loop {
            let answers = |words: &Vec<&str>| self.kubectl(words).is_ok();
            if asked.iter().all(answers) {
                return Ok(());
            }
            let dead =
                ["etcd", "kube-apiserver"].into_iter().find(|part| !self.supervisor.lives(part));
            if dead.is_some() || Instant::now() > until {
                return Err(format!("the control plane does not start\n{}", self.logs()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Where the API server is.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// A kubeconfig of the administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder().join("kubeconfig")
    }

    /// A certificate for a client of this name in these groups, and its key, in PEM.
    ///
    /// # Panics
    /// If the folder of the control plane is gone.
    pub fn client_certificate(&self, name: &str, groups: &[&str]) -> (String, String) {
        let key = fs::read_to_string(self.folder().join("ca.key")).expect("it was written");
        let key = KeyPair::from_pem(&key).expect("it is a key");
        sign_client(&authority("test-ca"), &key, name, groups)
    }

    /// The process of a part, such as `kube-apiserver`.
    ///
    /// # Panics
    /// If that part does not run.
    pub fn pid(&self, part: &str) -> i32 {
        self.supervisor.pid(part)
    }

    /// Where everything of it lies.
    pub(crate) fn folder(&self) -> &Path {
        self.supervisor.folder()
    }

    /// Runs kubectl as the administrator: what it printed, or why it failed.
    pub fn kubectl(&self, words: &[&str]) -> Result<String, String> {
        self.kubectl_with(words, "")
    }

    /// The same with something on its standard input.
    ///
    /// # Panics
    /// Never: standard input is piped.
    pub fn kubectl_with(&self, words: &[&str], input: &str) -> Result<String, String> {
        let mut command = Command::new(&self.kubectl);
        command.args(words).env("KUBECONFIG", self.kubeconfig()).env("HOME", self.folder());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let failed = |error: std::io::Error| format!("kubectl: {error}");
        let mut child = within(self.netns.as_ref(), || command.spawn()).map_err(failed)?;
        // A command that does not read to the end is its own affair.
        let _ = child.stdin.take().expect("it is piped").write_all(input.as_bytes());
        let done = child.wait_with_output().map_err(failed)?;
        if done.status.success() {
            return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
        }
        Err(String::from_utf8_lossy(&done.stderr).into_owned())
    }

    /// Makes it serve Calico's kinds: applies the CustomResourceDefinitions in `manifests/crds/LAYOUT` (`v3` or `v1`) and
    /// waits until they are served.
    ///
    /// # Panics
    /// If the server refuses one.
    pub fn define(&self, layout: &str) {
        let folder =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/crds").join(layout);
        let folder = folder.display().to_string();
        let apply = ["apply", "--server-side", "-f", &folder];
        self.kubectl(&apply).unwrap_or_else(|e| panic!("{apply:?}: {e}"));
        let wait = ["wait", "--for=condition=Established", "--timeout=60s", "-f", &folder];
        self.kubectl(&wait).unwrap_or_else(|e| panic!("{wait:?}: {e}"));
    }

    /// The end of every part's log.
    pub fn logs(&self) -> String {
        self.supervisor.logs()
    }
}

/// Runs on a thread inside, or right here.
fn within<T: Send>(netns: Option<&Netns>, work: impl FnOnce() -> T + Send) -> T {
    match netns {
        Some(netns) => netns.run(work),
        None => work(),
    }
}

fn apiserver_flags(
    at: &str,
    etcd: u16,
    (address, port): (Ipv4Addr, u16),
    controllers: Controllers,
) -> Vec<String> {
    let mut flags = vec![
        format!("--bind-address={address}"),
        format!("--advertise-address={address}"),
        // No endpoints for the service `kubernetes`: they may not be loopback addresses.
        "--endpoint-reconciler-type=none".into(),
        format!("--secure-port={port}"),
        format!("--etcd-servers=http://127.0.0.1:{etcd}"),
        format!("--tls-cert-file={at}/server.crt"),
        format!("--tls-private-key-file={at}/server.key"),
        format!("--token-auth-file={at}/tokens"),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        format!("--service-account-key-file={at}/accounts.pub"),
        format!("--service-account-signing-key-file={at}/accounts.key"),
        "--service-cluster-ip-range=10.96.0.0/16".into(),
        "--authorization-mode=RBAC".into(),
        "--allow-privileged=true".into(),
        "--kubelet-preferred-address-types=InternalIP".into(),
        "--profiling=false".into(),
    ];
    if controllers == Controllers::Absent {
        flags.push("--disable-admission-plugins=ServiceAccount".into());
    }
    flags
}

fn extra_flags(at: &str, extras: Extras) -> Vec<String> {
    let mut flags = Vec::new();
    if extras.aggregation {
        flags.extend([
            format!("--client-ca-file={at}/ca.crt"),
            format!("--requestheader-client-ca-file={at}/proxy-ca.crt"),
            "--requestheader-allowed-names=front-proxy".into(),
            "--requestheader-username-headers=X-Remote-User".into(),
            "--requestheader-group-headers=X-Remote-Group".into(),
            "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
            format!("--proxy-client-cert-file={at}/proxy.crt"),
            format!("--proxy-client-key-file={at}/proxy.key"),
            "--enable-aggregator-routing=true".into(),
        ]);
    }
    if extras.mutating_policies {
        flags.push("--feature-gates=MutatingAdmissionPolicy=true".into());
        flags.push("--runtime-config=admissionregistration.k8s.io/v1beta1=true".into());
    }
    flags
}

fn manager_flags(at: &str, port: u16) -> Vec<String> {
    vec![
        format!("--kubeconfig={at}/kubeconfig"),
        format!("--authentication-kubeconfig={at}/kubeconfig"),
        format!("--authorization-kubeconfig={at}/kubeconfig"),
        "--bind-address=127.0.0.1".into(),
        format!("--secure-port={port}"),
        format!("--service-account-private-key-file={at}/accounts.key"),
        format!("--root-ca-file={at}/ca.crt"),
        "--leader-elect=false".into(),
    ]
}

fn scheduler_flags(at: &str, port: u16) -> Vec<String> {
    vec![
        format!("--kubeconfig={at}/kubeconfig"),
        format!("--authentication-kubeconfig={at}/kubeconfig"),
        format!("--authorization-kubeconfig={at}/kubeconfig"),
        "--bind-address=127.0.0.1".into(),
        format!("--secure-port={port}"),
        "--leader-elect=false".into(),
    ]
}

/// The parameters of an authority, the same each time.
fn authority(name: &str) -> CertificateParams {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    authority.distinguished_name.push(DnType::CommonName, name);
    authority
}

/// A client's certificate and key.
fn sign_client(
    authority: &CertificateParams,
    key: &KeyPair,
    name: &str,
    groups: &[&str],
) -> (String, String) {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    for group in groups {
        params.distinguished_name.push(DnType::OrganizationName, *group);
    }
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let own = KeyPair::generate().expect("keys can be made");
    let certificate = params.signed_by(&own, &Issuer::from_params(authority, key));
    (certificate.expect("an authority signs").pem(), own.serialize_pem())
}

/// An authority, the server's certificate, the key of service accounts, the administrator's token and kubeconfig.
fn write_identity(folder: &Path, server: &str, address: Ipv4Addr) {
    let key = || KeyPair::generate().expect("keys can be made");
    let (ca_key, server_key, accounts_key, proxy_key) = (key(), key(), key(), key());
    let proxies = authority("test-proxy-ca");
    let proxy_ca = proxies.self_signed(&proxy_key).expect("an authority signs itself").pem();
    let (proxy, proxy_own) = sign_client(&proxies, &proxy_key, "front-proxy", &[]);
    let authority = authority("test-ca");
    let ca = authority.self_signed(&ca_key).expect("an authority signs itself").pem();
    let address = address.to_string();
    let names = [address.as_str(), "localhost", "kubernetes.default.svc"].map(str::to_owned);
    let mut params = CertificateParams::new(names.to_vec()).expect("names of a server");
    params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let issuer = Issuer::from_params(&authority, &ca_key);
    let certificate = params.signed_by(&server_key, &issuer).expect("an authority signs").pem();
    let token: String = ca_key.public_key_raw()[1..17].iter().fold(String::new(), |mut text, b| {
        write!(text, "{b:02x}").expect("a string takes it");
        text
    });
    let kubeconfig = format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: c\n  cluster:\n    server: {server}\n    \
         certificate-authority-data: {}\nusers:\n- name: u\n  user:\n    token: {token}\ncontexts:\n\
         - name: x\n  context:\n    cluster: c\n    user: u\ncurrent-context: x\n",
        STANDARD.encode(&ca),
    );
    for (name, text) in [
        ("ca.crt", ca),
        ("ca.key", ca_key.serialize_pem()),
        ("proxy-ca.crt", proxy_ca),
        ("proxy.crt", proxy),
        ("proxy.key", proxy_own),
        ("server.crt", certificate),
        ("server.key", server_key.serialize_pem()),
        ("accounts.key", accounts_key.serialize_pem()),
        ("accounts.pub", accounts_key.public_key_pem()),
        ("tokens", format!("{token},admin,admin,\"system:masters\"\n")),
        ("kubeconfig", kubeconfig),
    ] {
        fs::write(folder.join(name), text).expect("the folder takes files");
    }
}
