//! Nodes that run containers: kubelet and containerd, in the network namespace of a test's node.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{ControlPlane, Node, kube_program, unique};

/// What is on a node beside kubelet and containerd.
#[derive(Debug)]
pub struct Furniture<'a> {
    /// Programs of `/opt/cni/bin`, by name.
    pub plugins: &'a [(&'a str, &'a Path)],
    /// The file in `/etc/cni/net.d`.
    pub network: &'a str,
    /// Shell commands that the node runs when its kubelet has been started; they must not wait.
    pub commands: &'a str,
}

/// Where a node writes: `kubelet.log`, `containerd.log`, and what its commands write to `$FOLDER`.
pub type NodeFolder = PathBuf;

impl ControlPlane {
    /// Makes `node` a node of this cluster, called `name`. It ends with the control plane.
    ///
    /// Needs containerd, runc, tar and a static busybox on the machine. Images that its pods can use, without pulling:
    /// `test.local/busybox:1`.
    ///
    /// # Panics
    /// If a file cannot be written.
    pub fn join(&mut self, node: &Node, name: &str, furniture: &Furniture<'_>) -> NodeFolder {
        let folder = self.folder().join(name);
        let images = self.folder().join("images");
        if !images.exists() {
            let made = Command::new("sh")
                .args(["-c", include_str!("images.sh"), "sh"])
                .arg(&images)
                .output()
                .expect("sh starts");
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        }
        let group = unique("kube-node-");
        for part in ["cni-bin", "cni-conf"] {
            fs::create_dir_all(folder.join(part)).expect("a folder can be made");
        }
        for (plugin, program) in furniture.plugins {
            symlink(program, folder.join("cni-bin").join(plugin)).expect("a link can be made");
        }
        let write = |file: &str, text: &str| {
            fs::write(folder.join(file), text).unwrap_or_else(|e| panic!("{file}: {e}"));
        };
        write("cni-conf/10-test.conflist", furniture.network);
        write("etc.sh", furniture.commands);
        write("node.sh", include_str!("node.sh"));
        let settings = [
            ("NAME", name.to_owned()),
            ("ADDRESS", node.v4.to_string()),
            ("FOLDER", folder.display().to_string()),
            ("PROGRAM", kube_program("cluster").display().to_string()),
            ("KUBECONFIG", self.kubeconfig().display().to_string()),
            ("IMAGES", images.display().to_string()),
            ("CGROUP", group.clone()),
        ];
        let settings = settings.map(|(key, value)| format!("{key}={value}"));
        let (netns, script) =
            (format!("--net={}", node.netns.path().display()), folder.join("node.sh"));
        let script = script.display().to_string();
        let mut words = vec!["env"];
        words.extend(settings.iter().map(String::as_str));
        words.extend(["nsenter", &netns]);
        // It dies of no polite signal; its child dies with it, and with that all processes of the node.
        words.extend([
            "unshare",
            "--mount",
            "--uts",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ]);
        words.extend(["sh", &script]);
        self.run_until_the_end(name, &words);
        let path = format!("*/{group}*");
        self.run_at_the_end(&[
            "find",
            "/sys/fs/cgroup/",
            "-depth",
            "-type",
            "d",
            "-path",
            &path,
            "-exec",
            "rmdir",
            "{}",
            "+",
        ]);
        folder
    }
}
