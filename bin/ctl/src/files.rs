//! Reading objects from files, directories and standard input.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use api::FieldError;
use api::yaml::{Document, Part};
use serde_json::Value;

use crate::args::FileArgs;
use crate::usage;

/// One object, and where it stood.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// The file as the user named it.
    pub(crate) file: String,
    /// Number of the document, from 1.
    pub(crate) document: usize,
    /// The object as written; none if it could not be read.
    pub(crate) object: Option<Value>,
    /// Its kind, if it is one.
    pub(crate) kind: Option<&'static api::Kind>,
    /// What is wrong with it.
    pub(crate) errors: Vec<FieldError>,
}

impl Loaded {
    fn text(&self, pointer: &str) -> Option<&str> {
        self.object.as_ref()?.pointer(pointer)?.as_str()
    }

    /// The kind as written.
    pub(crate) fn kind_name(&self) -> Option<&str> {
        self.text("/kind")
    }

    /// The namespace as written.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.text("/metadata/namespace")
    }

    /// The name as written.
    pub(crate) fn name(&self) -> Option<&str> {
        self.text("/metadata/name")
    }

    /// `file: document 2: NetworkPolicy a/p`.
    pub(crate) fn place(&self) -> String {
        let mut place = format!("{}: document {}", self.file, self.document);
        if let Some(kind) = self.kind_name() {
            let name = self.name().unwrap_or("(no name)");
            let slash = self.namespace().map(|n| format!("{n}/")).unwrap_or_default();
            place = format!("{place}: {kind} {slash}{name}");
        }
        place
    }
}

/// Reads and checks everything; bad documents are in the list, with their errors.
pub(crate) fn load(args: &FileArgs) -> Result<Vec<Loaded>> {
    load_with(args, checked)
}

/// Reads everything; what an object is, and whether it is one of ours, is the caller's business.
pub(crate) fn load_unchecked(args: &FileArgs) -> Result<Vec<Loaded>> {
    load_with(args, |object| (None, Some(object), Vec::new()))
}

/// The kind, the object and its errors.
type Read = (Option<&'static api::Kind>, Option<Value>, Vec<FieldError>);

fn load_with(args: &FileArgs, check: fn(Value) -> Read) -> Result<Vec<Loaded>> {
    if args.filename.is_empty() {
        return Err(usage("no file given: want -f FILE, -f DIRECTORY or -f - for standard input"));
    }
    let mut all = Vec::new();
    for path in &args.filename {
        for file in expand(path, args.recursive)? {
            let (name, bytes) = read_bytes(&file)?;
            let before = all.len();
            match std::str::from_utf8(&bytes) {
                Ok(text) => all.extend(parse(&name, text, check)),
                Err(e) => all.push(no_text(name.clone(), &bytes, e.valid_up_to())),
            }
            if all.len() == before && !args.skip_empty {
                bail!("{name}: holds no object (--skip-empty lets that pass)");
            }
        }
    }
    Ok(all)
}

fn checked(object: Value) -> Read {
    match api::kind_of(&object) {
        Ok(kind) => {
            let errors = kind.validate(&object, None);
            (Some(kind), Some(object), errors)
        }
        Err(errors) => (None, Some(object), errors),
    }
}

fn is_object_file(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json")
}

/// A file is itself; a directory is its YAML and JSON files, sorted.
fn expand(path: &Path, recursive: bool) -> Result<Vec<PathBuf>> {
    if path == Path::new("-") || !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let read = || format!("cannot read directory {}", path.display());
    let mut entries: Vec<PathBuf> = std::fs::read_dir(path)
        .with_context(read)?
        .map(|entry| entry.map(|e| e.path()))
        .collect::<Result<_, _>>()
        .with_context(read)?;
    entries.sort();
    let mut files = Vec::new();
    for entry in entries {
        if entry.is_dir() {
            if recursive {
                files.extend(expand(&entry, true)?);
            }
        } else if is_object_file(&entry) {
            files.push(entry);
        }
    }
    Ok(files)
}

/// The name to tell and the text of a file, or of standard input for `-`.
pub(crate) fn read(path: &Path) -> Result<(String, String)> {
    let (name, bytes) = read_bytes(path)?;
    let text = String::from_utf8(bytes).map_err(|e| {
        anyhow::anyhow!("{name}: is no UTF-8 text at byte {}", e.utf8_error().valid_up_to())
    })?;
    Ok((name, text))
}

fn read_bytes(path: &Path) -> Result<(String, Vec<u8>)> {
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).context("cannot read standard input")?;
        return Ok(("standard input".to_owned(), bytes));
    }
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok((path.display().to_string(), bytes))
}

fn no_text(file: String, bytes: &[u8], good: usize) -> Loaded {
    let line = bytes[..good].split(|b| *b == b'\n').count();
    let message = format!("line {line}: byte {good} is no UTF-8 text (want YAML or JSON)");
    let errors = vec![FieldError::new("", message)];
    Loaded { file, document: 1, object: None, kind: None, errors }
}

/// From so many documents on, several threads read them.
const MANY: usize = 64;
/// More threads than this do not help.
const MOST_THREADS: usize = 8;

/// Reads and checks the documents of a file, which do not depend on each other.
fn parse(file: &str, text: &str, check: fn(Value) -> Read) -> Vec<Loaded> {
    let parts = api::yaml::parts(text);
    let each = |parts: &[Part<'_>]| -> Vec<Loaded> {
        let documents = parts.iter().copied().flat_map(Part::read);
        documents.map(|document| loaded(file, document, check)).collect()
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
    if parts.len() < MANY || threads == 1 {
        return each(&parts);
    }
    std::thread::scope(|scope| {
        let shares = parts.chunks(parts.len().div_ceil(threads));
        let running: Vec<_> = shares.map(|share| scope.spawn(move || each(share))).collect();
        let joined = running.into_iter().map(std::thread::ScopedJoinHandle::join);
        // A thread that panicked has said why.
        joined
            .flat_map(|share| share.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

fn loaded(file: &str, document: Document, check: fn(Value) -> Read) -> Loaded {
    let (kind, object, errors) = match document.object {
        Err(e) => (None, None, vec![FieldError::new("", e.to_string())]),
        Ok(object) => check(object),
    };
    Loaded { file: file.to_owned(), document: document.number, object, kind, errors }
}
