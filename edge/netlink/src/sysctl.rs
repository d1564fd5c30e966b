//! `/proc/sys/net` of the calling thread's namespace.

use std::io::{self, ErrorKind};
use std::sync::OnceLock;

use model::{IfaceName, IpVersion};

use crate::{Error, Result};

const ROOT: &str = "/proc/sys/net";

/// Writes one setting; `key` is its path below `/proc/sys/net`, for example `ipv4/ip_forward`.
///
/// Where `/proc/sys` is mounted read-only and the setting has the value already, that is success.
pub fn set(key: &str, value: &str) -> Result<()> {
    let path = format!("{ROOT}/{key}");
    match std::fs::write(&path, value) {
        Ok(()) => Ok(()),
        Err(error) if read_only(&error) && get(key).is_ok_and(|now| now == value) => Ok(()),
        Err(source) => Err(Error::File { path, source }),
    }
}

/// Reads one setting, without the line end.
pub fn get(key: &str) -> Result<String> {
    let path = format!("{ROOT}/{key}");
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim_end().to_owned()),
        Err(source) => Err(Error::File { path, source }),
    }
}

/// Writes one setting of an interface: `net/<family>/conf/<interface>/<key>`. The dots in an
/// interface's name stay as they are.
pub fn set_conf(version: IpVersion, iface: &IfaceName, key: &str, value: &str) -> Result<()> {
    set(&format!("{}/conf/{iface}/{key}", folder(version)), value)
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
