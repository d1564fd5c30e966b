//! `/proc/sys/net` of the calling thread's namespace.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::OnceLock;

use model::IpVersion;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{self, FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::{Error, Result};

const ROOT: &str = "/proc/sys/net";

/// Writes one setting; `key` is its path below `/proc/sys/net`, for example `ipv4/ip_forward`.
///
/// Where `/proc/sys` is mounted read-only and the setting has the value already, that is success.
pub fn set(key: &str, value: &str) -> Result<()> {
    write(&format!("{ROOT}/{key}"), value)
}

/// Reads one setting, without the line end.
pub fn get(key: &str) -> Result<String> {
    read(&format!("{ROOT}/{key}"))
}

fn write(path: &str, value: &str) -> Result<()> {
    match std::fs::write(path, value) {
        Ok(()) => Ok(()),
        Err(error) if read_only(&error) && read(path).is_ok_and(|now| now == value) => Ok(()),
        Err(source) => Err(Error::File { path: path.to_owned(), source }),
    }
}

fn read(path: &str) -> Result<String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim_end().to_owned()),
        Err(source) => Err(Error::File { path: path.to_owned(), source }),
    }
}

/// Interface settings of one network namespace, kept open.
///
/// Every namespace has its own `/proc/sys/net/ipv4`, and the kernel's name cache keeps all of them
/// in one place: on a host with 1,000 pods it takes 0.7 ms to find the right one.
#[derive(Debug)]
pub struct Settings {
    folders: BTreeMap<IpVersion, OwnedFd>,
}

impl Settings {
    /// Those of the calling thread's namespace, of every family that the kernel has.
    pub fn open() -> Result<Self> {
        Self::below(None, IpVersion::ALL.into_iter().filter(|v| has(*v)))
    }

    /// As [`Settings::open`], of one family, for a namespace that is entered for a moment: through a
    /// proc file system of its own, in which no other namespace has left its names. 0.1 ms, however
    /// many namespaces there are. Where the kernel does not allow that, through the common one.
    pub fn open_apart(version: IpVersion) -> Result<Self> {
        let apart = proc_apart().ok();
        Self::below(apart.as_ref(), std::iter::once(version))
    }

    fn below(proc: Option<&OwnedFd>, versions: impl Iterator<Item = IpVersion>) -> Result<Self> {
        let open = |version| {
            let path = format!("{ROOT}/{}/conf", folder(version));
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let opened = match proc {
                Some(proc) => openat(proc, &path["/proc/".len()..], flags, Mode::empty()),
                None => openat(CWD, &path, flags, Mode::empty()),
            };
            match opened {
                Ok(folder) => Ok((version, folder)),
                Err(error) => Err(Error::File { path, source: error.into() }),
            }
        };
        Ok(Self { folders: versions.map(open).collect::<Result<_>>()? })
    }

    /// Whether the kernel has the family.
    pub fn has(&self, version: IpVersion) -> bool {
        self.folders.contains_key(&version)
    }

    /// Writes a setting of an interface (or of `all`, or `default`).
    pub fn set(&self, version: IpVersion, iface: &str, key: &str, value: &str) -> Result<()> {
        self.with(version, &format!("{iface}/{key}"), |path| write(path, value))
    }

    /// Reads a setting, without the line end.
    pub fn get(&self, version: IpVersion, iface: &str, key: &str) -> Result<String> {
        self.with(version, &format!("{iface}/{key}"), read)
    }

    /// Errors name the file as people know it.
    fn with<T>(
        &self,
        version: IpVersion,
        file: &str,
        act: impl FnOnce(&str) -> Result<T>,
    ) -> Result<T> {
        let path = format!("{ROOT}/{}/conf/{file}", folder(version));
        let Some(folder) = self.folders.get(&version) else {
            return Err(Error::File { path, source: ErrorKind::NotFound.into() });
        };
        act(&format!("/proc/self/fd/{}/{file}", folder.as_raw_fd())).map_err(|error| match error {
            Error::File { source, .. } => Error::File { path, source },
            other => other,
        })
    }
}

/// A proc file system that is mounted nowhere; it ends with the last file that is open in it.
fn proc_apart() -> rustix::io::Result<OwnedFd> {
    let context = mount::fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    mount::fsconfig_create(&context)?;
    mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// Whether the kernel has the family at all. Looked up once: it is decided when the kernel starts.
pub fn has(version: IpVersion) -> bool {
    static KNOWN: [OnceLock<bool>; 2] = [OnceLock::new(), OnceLock::new()];
    let known = &KNOWN[usize::from(version == IpVersion::V6)];
    *known.get_or_init(|| std::path::Path::new(ROOT).join(folder(version)).join("conf").exists())
}

/// `ipv4` or `ipv6`.
pub fn folder(version: IpVersion) -> &'static str {
    match version {
        IpVersion::V4 => "ipv4",
        IpVersion::V6 => "ipv6",
    }
}

fn read_only(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied)
}
