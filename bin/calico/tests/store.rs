//! `calico store serve` as a process: what it writes, how it ends, why it does not start.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod serving;

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use serving::{calico, ctl};

/// The embedded store as a process.
struct Serving;

impl Serving {
    /// A store on a folder.
    fn start(data: &Path, listen: &str, more: &[&str]) -> serving::Serving {
        let mut command = calico();
        command.args(["store", "serve", "--listen", listen, "--data-dir"]).arg(data).args(more);
        serving::Serving::start(command)
    }
}

#[test]
fn serves_keeps_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("not/yet/there");
    let policy = folder.path().join("p.yaml");
    std::fs::write(
        &policy,
        "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: kept}\nspec: {order: 3}\n",
    )
    .unwrap();
    let server = Serving::start(&data, "127.0.0.1:0", &[]);
    let kubeconfig = data.join("kubeconfig");
    ctl(&kubeconfig, &["apply", "-f", policy.to_str().unwrap()]);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(&kubeconfig).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    // A second one on the same folder.
    Serving::start(&data, "127.0.0.1:0", &["--kubeconfig-out", "/dev/null"])
        .refused(&["in use by another process"]);
    let output = server.end(Signal::SIGTERM);
    assert_eq!(output.status.code(), Some(0), "{output:?}");

    // Again, elsewhere: the same identity, the same objects.
    let elsewhere = folder.path().join("admin.conf");
    let server =
        Serving::start(&data, "[::1]:0", &["--kubeconfig-out", elsewhere.to_str().unwrap()]);
    assert!(ctl(&elsewhere, &["get", "tier", "kept", "-o", "yaml"]).contains("order: 3"));
    assert!(std::fs::read_to_string(&elsewhere).unwrap().contains("https://[::1]:"));
    assert_eq!(server.end(Signal::SIGINT).status.code(), Some(0));
}

#[test]
fn says_why_it_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().to_string();
    let here = folder.path().join("data");
    Serving::start(&here, &port, &[]).refused(&["cannot listen on 127.0.0.1:", "in use"]);
    assert!(!here.exists(), "nothing is written before everything is there");
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    Serving::start(&file.join("sub"), "127.0.0.1:0", &[])
        .refused(&["cannot prepare store file", "Not a directory"]);
    std::fs::create_dir(&here).unwrap();
    let junk = b"this is no database at all, and longer than a header of one hundred bytes would be, to be sure of it".repeat(50);
    std::fs::write(here.join("store.db"), &junk).unwrap();
    Serving::start(&here, "127.0.0.1:0", &[]).refused(&["store.db is corrupt", "left untouched"]);
    assert_eq!(std::fs::read(here.join("store.db")).unwrap(), junk);
    let usage = calico().args(["store", "serve", "--listen", "127.0.0.1:0"]).output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
    let usage =
        calico().args(["store", "serve", "--data-dir", "x", "--listen", "here"]).output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn backs_up_restores_checks_and_says_how_it_went() {
    let folder = tempfile::tempdir().unwrap();
    let (data, backup) = (folder.path().join("data"), folder.path().join("backup"));
    let store = |args: &[&dyn AsRef<std::ffi::OsStr>]| {
        let mut command = calico();
        command.arg("store").args(args.iter().map(AsRef::as_ref));
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap())
    };
    let (code, told) = store(&[&"backup", &"--data-dir", &data, &"--to", &backup]);
    assert!(code == 1 && told.contains("is this the folder of a store?"), "{code} {told}");
    let server = Serving::start(&data, "127.0.0.1:0", &[]);
    let kubeconfig = data.join("kubeconfig");
    let tier = folder.path().join("t.yaml");
    std::fs::write(
        &tier,
        "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: kept}\nspec: {order: 3}\n",
    )
    .unwrap();
    ctl(&kubeconfig, &["apply", "-f", tier.to_str().unwrap()]);
    let (code, told) = store(&[&"backup", &"--data-dir", &data, &"--to", &backup]);
    assert!(code == 0 && told.contains(" objects, revision "), "{code} {told}");
    let (code, told) = store(&[&"check", &"--data-dir", &data]);
    assert!(code == 0 && told.ends_with("0 errors, 0 warnings\n"), "{code} {told}");
    let (code, told) = store(&[&"check", &"--backup", &backup]);
    assert!(code == 0 && told.ends_with("0 errors, 0 warnings\n"), "{code} {told}");
    ctl(&kubeconfig, &["delete", "tier", "kept"]);

    let restore: &[&dyn AsRef<std::ffi::OsStr>] =
        &[&"restore", &"--data-dir", &data, &"--from", &backup, &"--replace"];
    let (code, told) = store(restore);
    assert!(code == 1 && told.contains("in use by another process"), "{code} {told}");
    assert_eq!(server.end(Signal::SIGKILL).status.code(), None);
    let (code, told) = store(&restore[..5]);
    assert!(code == 1 && told.contains("is there already; nothing was changed"), "{code} {told}");
    let (code, told) = store(restore);
    assert!(code == 0 && told.contains("the store that was there is now"), "{code} {told}");
    let server = Serving::start(&data, "127.0.0.1:0", &["--kubeconfig-out", "/dev/null"]);
    drop(server);
    let server = Serving::start(&data, "127.0.0.1:0", &[]);
    assert!(ctl(&kubeconfig, &["get", "tier", "kept", "-o", "yaml"]).contains("order: 3"));
    assert_eq!(server.end(Signal::SIGTERM).status.code(), Some(0));

    let whole = std::fs::read(&backup).unwrap();
    std::fs::write(&backup, &whole[..whole.len() / 2]).unwrap();
    let (code, told) = store(&[&"check", &"--backup", &backup]);
    assert!(code == 2 && told.contains("its manifest says"), "{code} {told}");
    let (code, told) = store(restore);
    assert!(code == 1 && told.contains("cannot be used"), "{code} {told}");
    assert_eq!(store(&[&"check"]).0, 2, "of what?");
    let (code, told) = store(&[
        &"user",
        &"eve",
        &"--data-dir",
        &folder.path(),
        &"--server",
        &"https://x:1",
        &"--kubeconfig-out",
        &tier,
    ]);
    assert!(code == 1 && told.contains("is this the folder of a store?"), "{code} {told}");
}

/// A file system of one size; unmounted when the test is over, whatever its end.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(at: &Path, options: &str) {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at);
        assert!(mount.status().unwrap().success(), "{mount:?}");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}

/// A set of a hundred kilobytes.
fn large(name: &str) -> String {
    let nets: Vec<String> =
        (0..5_000).map(|n| format!("10.{}.{}.0/24", n / 250, n % 250)).collect();
    serde_json::json!({"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkSet",
        "metadata": {"name": name}, "spec": {"nets": nets}})
    .to_string()
}

/// The `Status` with which a client of the API is refused an object.
fn create_refused(kubeconfig: &Path, object: &str) -> kube::core::Status {
    use kube::config::{KubeConfigOptions, Kubeconfig};
    use kube::core::{DynamicObject, GroupVersionKind};
    let object: DynamicObject = serde_json::from_str(object).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
        let kind = GroupVersionKind::gvk("projectcalico.org", "v3", "GlobalNetworkSet");
        let resource = kube::core::ApiResource::from_gvk_with_plural(&kind, "globalnetworksets");
        let client = kube::Client::try_from(config).unwrap();
        let sets: kube::Api<DynamicObject> = kube::Api::all_with(client, &resource);
        match sets.create(&kube::api::PostParams::default(), &object).await {
            Err(kube::Error::Api(status)) => *status,
            other => panic!("wanted a refusal, got {other:?}"),
        }
    })
}

#[test]
fn a_full_disk_stops_writes_only_and_only_until_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("small");
    std::fs::create_dir(&data).unwrap();
    Small::mount(&data, "size=2500k");
    let _small = Small(data.clone());
    let kubeconfig = data.join("kubeconfig");
    let server = Serving::start(&data, "127.0.0.1:0", &[]);
    ctl(&kubeconfig, &["get", "tiers"]);

    let write = |name: &str| {
        let file = folder.path().join(format!("{name}.json"));
        std::fs::write(&file, large(name)).unwrap();
        let mut create = calico();
        create.args(["ctl", "--kubeconfig"]).arg(&kubeconfig).args(["create", "-f"]).arg(&file);
        create.output().unwrap()
    };
    let mut kept = Vec::new();
    let refused = loop {
        let name = format!("set-{:03}", kept.len());
        let output = write(&name);
        if !output.status.success() {
            break output;
        }
        kept.push(name);
        assert!(kept.len() < 100, "the disk does not fill");
    };
    assert!(kept.len() > 3, "{kept:?}");
    let told = String::from_utf8_lossy(&refused.stderr).into_owned()
        + &String::from_utf8_lossy(&refused.stdout);
    assert!(told.contains("the disk is full, nothing was written"), "{told}");

    // Everything that was acknowledged is there, and nothing else.
    let names = || {
        let listed = ctl(&kubeconfig, &["get", "globalnetworksets", "-o", "name"]);
        let name = |line: &str| line.rsplit('/').next().unwrap().trim().to_owned();
        listed.lines().map(name).collect::<Vec<_>>()
    };
    assert_eq!(names(), kept);
    let status = create_refused(&kubeconfig, &large("again"));
    assert_eq!(status.code, 507, "{status:?}");
    assert!(status.message.contains("the disk is full, nothing was written"), "{status:?}");
    assert_eq!(write("again").status.code(), Some(1), "the disk is still full");

    // Room again: the same process goes on.
    Small::mount(&data, "remount,size=20m");
    let next = format!("set-{:03}", kept.len());
    let output = write(&next);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    kept.push(next);
    assert_eq!(names(), kept);

    // And a process that comes after a sudden death.
    server.end(Signal::SIGKILL);
    let server = Serving::start(&data, "127.0.0.1:0", &[]);
    assert_eq!(names(), kept);
    drop(server);
}
