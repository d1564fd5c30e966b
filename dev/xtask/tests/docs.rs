//! The documents hang together: every link leads somewhere, and every page of `docs/` is in the book.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// What a page offers to others, and what it wants of them.
#[derive(Debug, Default, PartialEq)]
struct Page {
    /// The headings, as anchors, in order.
    anchors: Vec<String>,
    /// Targets of links, with the line each stands in.
    links: Vec<(usize, String)>,
}

/// Reads the Markdown that we write: fenced code, code in lines, `[text](target)`, `[text]: target`, `# headings`.
fn read(text: &str) -> Page {
    let mut page = Page::default();
    let mut fence: Option<&str> = None;
    let mut in_code = false;
    for (n, line) in text.lines().enumerate() {
        let start = line.trim_start();
        let mark = ["```", "~~~"].into_iter().find(|mark| start.starts_with(mark));
        match (fence, mark) {
            (None, Some(mark)) => fence = Some(mark),
            (Some(open), Some(mark)) if open == mark => fence = None,
            (None, None) => {
                let hashes = line.bytes().take_while(|b| *b == b'#').count();
                if (1..=6).contains(&hashes) && line[hashes..].starts_with(' ') {
                    page.anchors.push(anchor(&line[hashes..]));
                }
                in_code &= !line.is_empty(); // a paragraph that has ended
                let plain = without_code(line, &mut in_code);
                page.links.extend(targets(&plain).into_iter().map(|target| (n + 1, target)));
            }
            _ => (),
        }
    }
    page
}

/// As GitHub and mdBook both name the place of a heading.
fn anchor(heading: &str) -> String {
    let kept = |c: char| match c {
        ' ' => Some('-'),
        c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c.to_ascii_lowercase()),
        _ => None,
    };
    heading.trim().chars().filter_map(kept).collect()
}

/// The line without what stands between backticks, which may have been opened in a line before it.
fn without_code(line: &str, in_code: &mut bool) -> String {
    let mut plain = String::new();
    for (n, part) in line.split('`').enumerate() {
        *in_code ^= n > 0;
        if !*in_code {
            plain += part;
        }
    }
    plain
}

fn targets(line: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let defined = line.strip_prefix('[').and_then(|rest| rest.split_once("]: "));
    found.extend(defined.map(|(_, target)| target.trim().to_owned()));
    let inline = line.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    found.extend(inline.map(|(target, _)| target.split(' ').next().unwrap_or("").to_owned()));
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Every document, by its path below the root.
fn pages() -> BTreeMap<PathBuf, Page> {
    fn walk(folder: &Path, found: &mut BTreeMap<PathBuf, Page>) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let (path, name) = (entry.path(), entry.file_name());
            let skip = ["target", ".git", ".cache"].contains(&name.to_string_lossy().as_ref());
            if path.is_dir() && !skip {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "md") {
                let page = read(&fs::read_to_string(&path).unwrap());
                found.insert(path.strip_prefix(root()).unwrap().to_owned(), page);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(&root(), &mut found);
    found
}

/// `target` as seen from the file `from`, without `.` and `..`; none above the root.
fn resolve(from: &Path, target: &str) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for part in from.parent().unwrap_or(Path::new("")).join(target).components() {
        match part {
            Component::CurDir => (),
            Component::ParentDir => {
                if !path.pop() {
                    return None;
                }
            }
            part => path.push(part),
        }
    }
    Some(path)
}

/// What is wrong with a link in the file `from`.
fn fault(from: &Path, link: &str, pages: &BTreeMap<PathBuf, Page>) -> Option<String> {
    if ["https://", "http://", "mailto:"].iter().any(|scheme| link.starts_with(scheme)) {
        return None;
    }
    let (target, anchor) = match link.split_once('#') {
        Some((target, anchor)) => (target, Some(anchor)),
        None => (link, None),
    };
    let path = if target.is_empty() { Some(from.to_owned()) } else { resolve(from, target) };
    let Some(path) = path.filter(|path| root().join(path).exists()) else {
        return Some(format!("{link:?}: there is no such file"));
    };
    if link.is_empty() || from.starts_with("docs") && !path.starts_with("docs") {
        return Some(format!("{link:?}: the book has nothing outside of docs/"));
    }
    let anchors = pages.get(&path).map(|page| page.anchors.as_slice()).unwrap_or_default();
    match anchor {
        Some(anchor) if !anchors.iter().any(|a| a == anchor) => {
            Some(format!("{link:?}: {} has no such heading", path.display()))
        }
        _ => None,
    }
}

#[test]
fn every_link_leads_somewhere() {
    let pages = pages();
    assert!(pages.contains_key(Path::new("README.md")), "found no documents");
    let mut broken = Vec::new();
    for (path, page) in &pages {
        for (line, link) in &page.links {
            let fault = fault(path, link, &pages);
            broken.extend(fault.map(|fault| format!("{}:{line}: {fault}", path.display())));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_book_has_every_page_once() {
    let pages = pages();
    let summary = Path::new("docs/SUMMARY.md");
    let entries: Vec<PathBuf> =
        pages[summary].links.iter().filter_map(|(_, link)| resolve(summary, link)).collect();
    let listed: BTreeSet<&PathBuf> = entries.iter().collect();
    assert_eq!(listed.len(), entries.len(), "docs/SUMMARY.md lists a page twice");
    let there = pages.keys().filter(|path| path.starts_with("docs") && *path != summary);
    assert_eq!(listed, there.collect(), "docs/SUMMARY.md lists (left) what docs/ has (right)");
}

/// Otherwise an anchor would mean two places, and GitHub and mdBook would choose differently.
#[test]
fn headings_of_a_page_differ() {
    for (path, page) in pages().iter().filter(|(path, _)| path.starts_with("docs")) {
        let distinct: BTreeSet<&String> = page.anchors.iter().collect();
        assert_eq!(distinct.len(), page.anchors.len(), "{}: {:?}", path.display(), page.anchors);
    }
}

#[test]
fn what_is_read_of_a_page() {
    let text = "\
# Pools: what `blockSize` does
See [one](a.md#x) and ![two](b.png \"title\"), not `[code](c.md)`, nor `code
of [two lines](d.md)`, but [four](f.md).
```
# no heading, [no link](e.md)
```
[three]: ../g.md
#no heading
";
    let anchors = vec!["pools-what-blocksize-does".to_owned()];
    let links = [(2, "a.md#x"), (2, "b.png"), (3, "f.md"), (7, "../g.md")];
    let links = links.map(|(line, link)| (line, link.to_owned())).to_vec();
    assert_eq!(read(text), Page { anchors, links });
}

#[test]
fn which_links_are_faulty() {
    let pages = BTreeMap::from([(PathBuf::from("README.md"), read("# Here\n"))]);
    for (from, link, want) in [
        ("README.md", "#here", None),
        ("README.md", "https://example.org/nowhere", None),
        ("docs/README.md", "SUMMARY.md", None),
        ("README.md", "#there", Some("no such heading")),
        ("README.md", "nowhere.md", Some("no such file")),
        ("README.md", "../outside.md", Some("no such file")),
        ("docs/x.md", "../README.md", Some("outside of docs/")),
        ("docs/x.md", "../README.md#here", Some("outside of docs/")),
        ("README.md", "", Some("outside of docs/")),
    ] {
        let found = fault(Path::new(from), link, &pages);
        let same = match (&found, want) {
            (None, None) => true,
            (Some(found), Some(want)) => found.contains(want),
            _ => false,
        };
        assert!(same, "{from}: {link:?}: {found:?}, want {want:?}");
    }
}
