//! `node checksystem`: whether the kernel has what the agent needs.
//!
//! What the kernel was built with is told by its configuration, if that can be read, else by the modules that are loaded
//! or lie ready. Nothing is loaded, and nothing is tried.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;

use crate::Outcome;
use crate::args::{NodeChecksystemArgs, ResultOutput};
use crate::print::{Out, Table, complain};

/// The oldest kernel whose nf_tables knows sets that concatenate intervals, which rules are made of.
const OLDEST: (u64, u64) = (5, 10);
/// The largest configuration that is read, in bytes.
const LARGEST: u64 = 16 << 20;

/// Something that a kernel is built with, or not.
struct Feature {
    /// Its option, without `CONFIG_`.
    option: &'static str,
    /// Its module; empty for what is never one.
    module: &'static str,
    needed: Needed,
}

/// What for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needed {
    Always,
    For(&'static str),
}

const fn always(option: &'static str, module: &'static str) -> Feature {
    Feature { option, module, needed: Needed::Always }
}

const fn only(option: &'static str, module: &'static str, purpose: &'static str) -> Feature {
    Feature { option, module, needed: Needed::For(purpose) }
}

const FEATURES: [Feature; 26] = [
    always("NET_NS", ""),
    always("NETFILTER", ""),
    always("NETFILTER_NETLINK", "nfnetlink"),
    always("NF_TABLES", "nf_tables"),
    always("NF_TABLES_IPV4", ""),
    always("NFT_CT", "nft_ct"),
    always("NFT_FIB_IPV4", "nft_fib_ipv4"),
    always("NFT_LIMIT", "nft_limit"),
    always("NFT_LOG", "nft_log"),
    always("NFT_MASQ", "nft_masq"),
    always("NFT_NAT", "nft_nat"),
    always("NFT_REJECT", "nft_reject"),
    always("NFT_REJECT_IPV4", "nft_reject_ipv4"),
    always("NF_CONNTRACK", "nf_conntrack"),
    always("NF_CONNTRACK_MARK", ""),
    always("NF_CT_NETLINK", "nf_conntrack_netlink"),
    always("NF_NAT", "nf_nat"),
    always("VETH", "veth"),
    only("IPV6", "ipv6", "IPv6"),
    only("NF_TABLES_IPV6", "", "IPv6"),
    only("NFT_FIB_IPV6", "nft_fib_ipv6", "IPv6"),
    only("NFT_REJECT_IPV6", "nft_reject_ipv6", "IPv6"),
    only("VXLAN", "vxlan", "VXLAN between nodes"),
    only("NET_IPIP", "ipip", "IP-in-IP between nodes"),
    only("WIREGUARD", "wireguard", "encryption between nodes"),
    only("NF_CT_PROTO_SCTP", "", "SCTP policy"),
];

/// How a feature was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Found {
    BuiltIn,
    Module,
    /// By the configuration a module, but its file is not there.
    ModuleMissing,
    Absent,
    Unknown,
}

impl Found {
    fn text(self) -> &'static str {
        match self {
            Self::BuiltIn => "built in",
            Self::Module => "module",
            Self::ModuleMissing => "a module that is not installed",
            Self::Absent => "missing",
            Self::Unknown => "unknown",
        }
    }

    fn well(self) -> bool {
        matches!(self, Self::BuiltIn | Self::Module)
    }
}

pub(crate) fn checksystem(args: &NodeChecksystemArgs) -> Result<Outcome> {
    let kernel = Kernel::look(Path::new("/"), args.kernel_config.as_deref())?;
    let mut out = Out::new();
    let mut well = kernel.new_enough();
    let mut table = Table::new(["FEATURE", "NEEDED FOR", "FOUND"]);
    for feature in &FEATURES {
        let found = kernel.find(feature);
        let purpose = match feature.needed {
            Needed::Always => "every node",
            Needed::For(purpose) => purpose,
        };
        well &= found.well() || feature.needed != Needed::Always;
        if args.output == ResultOutput::Json {
            out.line(&line(feature, purpose, found).to_string())?;
        } else {
            table.row([feature.option, purpose, found.text()]);
        }
    }
    if args.output == ResultOutput::Text {
        let fits = if kernel.new_enough() { "new enough" } else { "too old" };
        out.line(&format!(
            "Kernel {} ({fits}: {}.{} or newer is needed), as told by {}",
            kernel.release,
            OLDEST.0,
            OLDEST.1,
            kernel.source()
        ))?;
        out.table(&table)?;
    }
    out.finish()?;
    if well {
        return Ok(Outcome::Done);
    }
    complain("this kernel does not have what every node needs");
    Ok(Outcome::Failed)
}

fn line(feature: &Feature, purpose: &str, found: Found) -> serde_json::Value {
    serde_json::json!({
        "feature": feature.option,
        "module": Some(feature.module).filter(|module| !module.is_empty()),
        "required": feature.needed == Needed::Always,
        "neededFor": purpose,
        "found": found,
    })
}

/// What can be read of a kernel.
struct Kernel {
    release: String,
    /// Where its configuration was found, and what it says.
    config: Option<(PathBuf, String)>,
    /// Names of modules that are loaded, or part of the kernel with parameters.
    loaded: BTreeSet<String>,
    /// Names of modules that can be loaded; nothing if that cannot be read.
    ready: Option<BTreeSet<String>>,
    /// Names of modules that are part of the kernel.
    builtin: BTreeSet<String>,
}

impl Kernel {
    /// Below `root`, which tests choose.
    fn look(root: &Path, config: Option<&Path>) -> Result<Self> {
        let release = std::fs::read_to_string(root.join("proc/sys/kernel/osrelease"))
            .context("cannot read the version of the kernel")?;
        let release = release.trim().to_owned();
        let config = match config {
            Some(path) => {
                let text = read_config(path);
                Some((
                    path.to_owned(),
                    text.with_context(|| format!("cannot read {}", path.display()))?,
                ))
            }
            None => places(root, &release)
                .into_iter()
                .find_map(|path| read_config(&path).ok().map(|text| (path, text))),
        };
        let modules = root.join("lib/modules").join(&release);
        let list = |name: &str| std::fs::read_to_string(modules.join(name)).ok();
        let loaded = std::fs::read_dir(root.join("sys/module")).into_iter().flatten();
        let loaded = loaded.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(Self {
            release,
            config,
            loaded: loaded.collect(),
            ready: list("modules.dep").map(|text| module_names(&text)),
            builtin: module_names(&list("modules.builtin").unwrap_or_default()),
        })
    }

    fn new_enough(&self) -> bool {
        let mut parts = self.release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= OLDEST
    }

    fn source(&self) -> String {
        match &self.config {
            Some((path, _)) => path.display().to_string(),
            None => "its modules (no configuration was found: see -f)".to_owned(),
        }
    }

    fn find(&self, feature: &Feature) -> Found {
        match &self.config {
            Some((_, text)) => match option(text, feature.option) {
                Some("y") => Found::BuiltIn,
                Some("m") => self.module(feature.module),
                _ => Found::Absent,
            },
            None if feature.module.is_empty() => Found::Unknown,
            None if self.builtin.contains(feature.module) => Found::BuiltIn,
            None if self.has(feature.module) => Found::Module,
            None if self.ready.is_some() => Found::Absent,
            None => Found::Unknown,
        }
    }

    /// Of what the configuration says to be a module. Where modules cannot be looked at, as in many containers, it is
    /// believed.
    fn module(&self, name: &str) -> Found {
        if self.has(name) || self.ready.is_none() { Found::Module } else { Found::ModuleMissing }
    }

    fn has(&self, module: &str) -> bool {
        self.loaded.contains(module) || self.ready.iter().any(|ready| ready.contains(module))
    }
}

/// Where distributions put the configuration.
fn places(root: &Path, release: &str) -> Vec<PathBuf> {
    [
        "proc/config.gz".to_owned(),
        format!("boot/config-{release}"),
        format!("lib/modules/{release}/config"),
        format!("lib/modules/{release}/build/.config"),
        format!("usr/src/linux-{release}/.config"),
        format!("usr/src/linux-headers-{release}/.config"),
        "usr/src/linux/.config".to_owned(),
    ]
    .iter()
    .map(|path| root.join(path))
    .collect()
}

fn read_config(path: &Path) -> Result<String> {
    let file = std::fs::File::open(path)?;
    let mut bytes = Vec::new();
    file.take(LARGEST).read_to_end(&mut bytes)?;
    let mut text = String::new();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        flate2::read::GzDecoder::new(&*bytes).take(LARGEST).read_to_string(&mut text)?;
    } else {
        text = String::from_utf8(bytes).context("is no text")?;
    }
    if !text.lines().any(|line| line.trim_start_matches("# ").starts_with("CONFIG_")) {
        bail!("is no configuration of a kernel: it has no CONFIG_ line");
    }
    Ok(text)
}

/// `y`, `m`, or whatever an option is set to.
fn option<'t>(config: &'t str, name: &str) -> Option<&'t str> {
    config
        .lines()
        .find_map(|line| line.strip_prefix("CONFIG_")?.strip_prefix(name)?.strip_prefix('='))
}

/// The names in a list of files: `kernel/net/netfilter/nf_tables.ko.xz: kernel/...`.
fn module_names(list: &str) -> BTreeSet<String> {
    let name = |line: &str| {
        let file = line.split(':').next()?.rsplit('/').next()?;
        Some(file.split_once(".ko")?.0.replace('-', "_"))
    };
    list.lines().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn machine(release: &str, files: &[(&str, String)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in
            files.iter().chain([&("proc/sys/kernel/osrelease", format!("{release}\n"))])
        {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn config(value: &str, without: &str) -> String {
        let line = |f: &Feature| {
            format!("CONFIG_{}={}\n", f.option, if f.module.is_empty() { "y" } else { value })
        };
        FEATURES.iter().filter(|f| f.option != without).map(line).collect()
    }

    /// Options that every node needs and that are not there.
    fn missing(root: &Path, file: Option<&Path>) -> Vec<(&'static str, Found)> {
        let kernel = Kernel::look(root, file).unwrap();
        let found = FEATURES.iter().map(|f| (f, kernel.find(f)));
        let bad = found.filter(|(f, found)| f.needed == Needed::Always && !found.well());
        bad.map(|(f, found)| (f.option, found)).collect()
    }

    #[test]
    fn what_the_configuration_says() {
        let boot = |text: String| machine("6.1.0-9-amd64", &[("boot/config-6.1.0-9-amd64", text)]);
        assert_eq!(missing(boot(config("y", "")).path(), None), []);
        assert_eq!(
            missing(boot(config("y", "NFT_NAT")).path(), None),
            [("NFT_NAT", Found::Absent)]
        );
        // VXLAN is not needed by everybody.
        assert_eq!(missing(boot(config("y", "VXLAN")).path(), None), []);
        // The names of options begin alike.
        let like = config("y", "NF_NAT") + "CONFIG_NF_NAT_SIP=y\n# CONFIG_NF_NAT is not set\n";
        assert_eq!(missing(boot(like).path(), None), [("NF_NAT", Found::Absent)]);
    }

    #[test]
    fn modules_must_be_there_if_one_can_see_it() {
        let all: Vec<_> = FEATURES.iter().filter(|f| !f.module.is_empty()).collect();
        let dep = |without: &str| -> String {
            let there = all.iter().filter(|f| f.module != without);
            let lines = there
                .map(|f| format!("kernel/net/{}.ko.zst: kernel/x.ko", f.module.replace('_', "-")));
            lines.collect::<Vec<_>>().join("\n")
        };
        let with = |dep: Option<String>| {
            let mut files = vec![("boot/config-6.1.0", config("m", ""))];
            files.extend(dep.map(|text| ("lib/modules/6.1.0/modules.dep", text)));
            machine("6.1.0", &files)
        };
        assert_eq!(missing(with(Some(dep(""))).path(), None), []);
        assert_eq!(missing(with(None).path(), None), [], "it cannot be seen");
        let gone = [("NFT_NAT", Found::ModuleMissing)];
        assert_eq!(missing(with(Some(dep("nft_nat"))).path(), None), gone);
        // Without a configuration, modules tell all that is one.
        let bare = machine("6.1.0", &[("lib/modules/6.1.0/modules.dep", dep("veth"))]);
        let told = missing(bare.path(), None);
        assert!(
            told.contains(&("VETH", Found::Absent)) && told.contains(&("NET_NS", Found::Unknown))
        );
    }

    #[test]
    fn another_file_and_compressed_ones() {
        use std::io::Write as _;
        let root = machine("6.1.0", &[("boot/config-6.1.0", config("y", "VETH"))]);
        let path = root.path().join("other.gz");
        let mut gz = flate2::write::GzEncoder::new(
            fs::File::create(&path).unwrap(),
            flate2::Compression::fast(),
        );
        gz.write_all(config("y", "NF_TABLES").as_bytes()).unwrap();
        gz.finish().unwrap();
        assert_eq!(missing(root.path(), Some(&path)), [("NF_TABLES", Found::Absent)]);
        let bad = root.path().join("bad");
        fs::write(&bad, "hello").unwrap();
        for path in [bad, root.path().join("none")] {
            assert!(Kernel::look(root.path(), Some(&path)).is_err());
        }
    }

    #[test]
    fn old_kernels() {
        for (release, fits) in
            [("5.10.0", true), ("6.18.44-fc", true), ("5.9.16", false), ("4.19", false)]
        {
            let kernel = Kernel::look(machine(release, &[]).path(), None).unwrap();
            assert_eq!(kernel.new_enough(), fits, "{release}");
        }
    }
}
