//! Deletions that the agent was not there to do. One file each, beside the agent's socket.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::protocol::Request;

/// The folder for an agent's socket.
pub fn folder(socket: &Path) -> PathBuf {
    socket.parent().unwrap_or(Path::new("/")).join("cni-deleted")
}

/// Leaves a deletion for later. The file is whole or absent, never half.
///
/// # Errors
/// The file system's.
pub fn leave(socket: &Path, request: &Request) -> io::Result<()> {
    let folder = folder(socket);
    fs::create_dir_all(&folder)?;
    let name = format!("{}-{}", request.container_id, request.ifname);
    let draft = folder.join(format!(".{name}-{}", std::process::id()));
    let mut file = fs::File::create(&draft)?;
    file.write_all(&serde_json::to_vec(request)?)?;
    file.sync_all()?;
    fs::rename(&draft, folder.join(format!("{name}.json")))
}

/// The deletions that wait, with the file to remove once each is done. Files that cannot be read
/// are passed over.
pub fn waiting(socket: &Path) -> Vec<(PathBuf, Request)> {
    let Ok(entries) = fs::read_dir(folder(socket)) else { return Vec::new() };
    let paths = entries.flatten().map(|e| e.path());
    let json = paths.filter(|p| p.extension().is_some_and(|e| e == "json"));
    json.filter_map(|p| Some((p.clone(), serde_json::from_slice(&fs::read(&p).ok()?).ok()?)))
        .collect()
}
