//! A directory that becomes an archive.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, BufWriter, Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::scrub::{self, Scrubber};
use crate::print;

/// The longest line that is looked at as one, in bytes.
const LONGEST_LINE: u64 = 1 << 20;

/// What has been collected.
pub(super) struct Bundle {
    folder: tempfile::TempDir,
    /// The name of the archive, without its ending.
    name: String,
    /// What could not be had.
    problems: Mutex<Vec<String>>,
}

impl Bundle {
    /// Begins one; nobody else can read it.
    pub(super) fn new(prefix: &str) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix(prefix).tempdir();
        let folder = folder.context("cannot make a directory for temporary files")?;
        let name = format!("{prefix}{}", jiff::Timestamp::now().strftime("%Y%m%d_%H%M%S"));
        fs::create_dir(folder.path().join(&name))?;
        Ok(Self { folder, name, problems: Mutex::default() })
    }

    /// A file of it, in which directories are made as needed.
    fn create(&self, path: &str) -> Result<File> {
        let path = self.folder.path().join(&self.name).join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let options =
            File::options().write(true).create(true).truncate(true).mode(0o600).open(&path);
        options.with_context(|| format!("cannot write {}", path.display()))
    }

    /// Writes a text, without its secrets. What fails is noted.
    pub(super) fn text(&self, path: &str, text: &str) {
        self.noted(path, || Ok(self.create(path)?.write_all(scrub::text(text).as_bytes())?));
    }

    /// Writes objects, without their secrets.
    pub(super) fn objects(&self, path: &str, mut objects: Vec<Value>) {
        self.noted(path, || {
            objects.iter_mut().for_each(scrub::object);
            let mut file = BufWriter::new(self.create(path)?);
            for object in &objects {
                writeln!(file, "---\n{}", serde_saphyr::to_string(object)?.trim_end())?;
            }
            Ok(file.flush()?)
        });
    }

    /// Copies text line by line, without its secrets.
    pub(super) fn copy(&self, path: &str, from: impl Read) {
        self.noted(path, || {
            let mut to = BufWriter::new(self.create(path)?);
            let mut from = BufReader::new(from);
            let mut scrubber = Scrubber::default();
            let mut line = Vec::new();
            loop {
                line.clear();
                if from.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)? == 0 {
                    return Ok(to.flush()?);
                }
                let text = String::from_utf8_lossy(&line);
                let end = if text.ends_with('\n') { "\n" } else { "" };
                if let Some(text) = scrubber.line(text.trim_end_matches('\n')) {
                    to.write_all(text.as_bytes())?;
                    to.write_all(end.as_bytes())?;
                }
            }
        });
    }

    fn noted(&self, path: &str, work: impl FnOnce() -> Result<()>) {
        if let Err(error) = work() {
            self.problem(&format!("{path}: {error:#}"));
        }
    }

    /// Something could not be had.
    pub(super) fn problem(&self, text: &str) {
        let mut problems = self.problems.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        problems.push(scrub::text(text));
    }

    /// Makes the archive in `to`, and tells where it is and what is not in it.
    pub(super) fn finish(self, to: Option<&Path>, keep: bool) -> Result<PathBuf> {
        let problems = std::mem::take(
            &mut *self.problems.lock().unwrap_or_else(std::sync::PoisonError::into_inner),
        );
        if !problems.is_empty() {
            self.text("not-collected.txt", &(problems.join("\n") + "\n"));
        }
        let folder = match to {
            Some(folder) => folder.to_owned(),
            // What others cannot read, and what stays when the temporary directory goes.
            None => tempfile::Builder::new().prefix("calico-").tempdir()?.keep(),
        };
        let archive = folder.join(format!("{}.tar.gz", self.name));
        self.pack(&archive).with_context(|| format!("cannot write {}", archive.display()))?;
        if keep {
            print::complain(&format!("the files are in {}", self.folder.keep().display()));
        }
        if !problems.is_empty() {
            print::complain(&format!(
                "{} could not be collected: see not-collected.txt in the archive",
                print::count(problems.len(), "part")
            ));
        }
        Ok(archive)
    }

    fn pack(&self, archive: &Path) -> io::Result<()> {
        let file = File::options().write(true).create_new(true).mode(0o600).open(archive)?;
        let gzip =
            flate2::write::GzEncoder::new(BufWriter::new(file), flate2::Compression::default());
        let mut tar = tar::Builder::new(gzip);
        tar.follow_symlinks(false);
        tar.append_dir_all(&self.name, self.folder.path().join(&self.name))?;
        tar.into_inner()?.finish()?.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_hold_what_was_written_but_no_secrets() {
        let bundle = Bundle::new("test-").unwrap();
        bundle.text("a/b.txt", "one\npassword: two\n");
        bundle.copy("log", &b"x\ntoken=y\n\xff\nlast"[..]);
        bundle.objects(
            "o.yaml",
            vec![serde_json::json!({"a": 1}), serde_json::json!({"secret": "z"})],
        );
        bundle.problem("nft: not installed");
        let folder = tempfile::tempdir().unwrap();
        let archive = bundle.finish(Some(folder.path()), false).unwrap();
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(File::open(archive).unwrap()));
        let mut found = std::collections::BTreeMap::new();
        for entry in tar.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            if !text.is_empty() {
                found.insert(path.split_once('/').unwrap().1.to_owned(), text);
            }
        }
        let of = |path: &str| found.get(path).map_or("", String::as_str);
        assert_eq!(of("a/b.txt"), "one\npassword: <removed>\n");
        assert_eq!(of("log"), "x\ntoken=<removed>\n\u{fffd}\nlast");
        assert_eq!(of("o.yaml"), "---\na: 1\n---\nsecret: <removed>\n");
        assert_eq!(of("not-collected.txt"), "nft: not installed\n");
    }
}
