//! The public face: one shared, immutable, parsed selector.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha224};

use crate::Labels;
use crate::ast::{Expr, Test};
use crate::parse::{self, MAX_DEPTH, ParseError};
use crate::restrict::{self, Restrictions};

/// A parsed selector. Clones share one allocation; equality, order and hash are those of the
/// canonical text.
#[derive(Clone)]
pub struct Selector(Arc<Inner>);

struct Inner {
    root: OnceLock<Box<Expr>>, // parsed when asked for, of a compact selector
    canonical: Box<str>,
    id: OnceLock<Box<str>>, // most selectors never become a set, so the hash waits until asked for
}

/// What a `namespaceSelector` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamespaceSelector {
    /// `global()`: only objects that are in no namespace.
    Global,
    /// Objects in the namespaces whose labels match.
    Matching(Selector),
}

impl NamespaceSelector {
    /// Parses a `namespaceSelector`: a selector, or `global()` standing alone.
    ///
    /// # Errors
    /// As for [`Selector::parse`], and when `global()` is a part of a larger expression.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        if parse::is_global(text) {
            return Ok(Self::Global);
        }
        Selector::parse(text).map(Self::Matching)
    }
}

impl Selector {
    /// Parses a selector. Empty text means `all()`.
    ///
    /// # Errors
    /// [`ParseError`] with the byte offset at which the text stops making sense.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        parse::selector(text).map(Self::new)
    }

    /// `all()`: matches everything.
    pub fn all() -> Self {
        Self::new(Expr::All)
    }

    /// `has(key)`.
    ///
    /// For this and the other constructors: `key` must be a label key. They do not check it, since
    /// their callers fold constants and already validated names.
    pub fn has(key: &str) -> Self {
        Self::new(Expr::Label(key.into(), Test::Has))
    }

    /// `!has(key)`.
    pub fn not_has(key: &str) -> Self {
        Self::has(key).negated()
    }

    /// `key == "value"`. The value must not hold both kinds of quotes, else the canonical text
    /// could not be parsed again (label values hold neither).
    pub fn equals(key: &str, value: &str) -> Self {
        Self::new(Expr::Label(key.into(), Test::Eq(value.into())))
    }

    /// `key != "value"`.
    pub fn not_equals(key: &str, value: &str) -> Self {
        Self::new(Expr::Label(key.into(), Test::Ne(value.into())))
    }

    /// `key in {"a", "b"}`.
    pub fn is_in<'a>(key: &str, values: impl IntoIterator<Item = &'a str>) -> Self {
        Self::new(Expr::Label(key.into(), Test::In(sorted(values))))
    }

    /// `key not in {"a", "b"}`.
    pub fn not_in<'a>(key: &str, values: impl IntoIterator<Item = &'a str>) -> Self {
        Self::new(Expr::Label(key.into(), Test::NotIn(sorted(values))))
    }

    /// `!self`.
    pub fn negated(&self) -> Self {
        Self::new(Expr::Not(Box::new(self.root().clone())))
    }

    /// `(self && other)`, as parsing that text gives it.
    pub fn and(&self, other: &Self) -> Self {
        Self::new(Expr::And(vec![self.root().clone(), other.root().clone()]))
    }

    /// `(a && b && ..)`; `all()` for none, the operand itself for one.
    pub fn and_all<'a>(operands: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut operands: Vec<&Self> = operands.into_iter().collect();
        match operands.len() {
            0 => Self::all(),
            1 => operands.remove(0).clone(),
            _ => Self::new(Expr::And(operands.iter().map(|s| s.root().clone()).collect())),
        }
    }

    /// `(self || other)`, as parsing that text gives it.
    pub fn or(&self, other: &Self) -> Self {
        Self::new(Expr::Or(vec![self.root().clone(), other.root().clone()]))
    }

    /// The same expression with `prefix` before every label key: how a selector over namespace
    /// labels (`pcns.`) or service-account labels (`pcsa.`) becomes one over endpoints.
    pub fn with_key_prefix(&self, prefix: &str) -> Self {
        Self::new(self.root().map_keys(&|key| format!("{prefix}{key}").into()))
    }

    /// The canonical text. Parsing it gives an equivalent selector.
    pub fn canonical(&self) -> &str {
        &self.0.canonical
    }

    /// The stable id: `s:` and the unpadded URL-safe base64 of the SHA-224 of `s:` and the
    /// canonical text. 40 bytes.
    pub fn id(&self) -> &str {
        self.0.id.get_or_init(|| {
            let digest = Sha224::new().chain_update("s:").chain_update(self.canonical()).finalize();
            format!("s:{}", URL_SAFE_NO_PAD.encode(digest)).into()
        })
    }

    /// Whether `labels` satisfy the selector.
    pub fn matches(&self, labels: &(impl Labels + ?Sized)) -> bool {
        self.root().matches(labels)
    }

    /// The same selector in as little memory as possible: its text, parsed again when it is evaluated.
    /// For those who keep many and evaluate few. (One whose text cannot be parsed again stays as it
    /// is: see [`Selector::equals`].)
    #[must_use]
    pub fn compact(&self) -> Self {
        if !self.root().is_readable(MAX_DEPTH) {
            return self.clone();
        }
        Self(Arc::new(Inner {
            root: OnceLock::new(),
            canonical: self.0.canonical.clone(),
            id: OnceLock::new(),
        }))
    }

    /// Whether this is `all()`.
    pub fn is_all(&self) -> bool {
        self.canonical() == "all()"
    }

    /// The expression, for those who compile it into a form of their own.
    pub fn expr(&self) -> &Expr {
        self.root()
    }

    /// The label keys that it looks at, sorted.
    pub fn keys(&self) -> BTreeSet<Arc<str>> {
        let mut keys = BTreeSet::new();
        self.expr().each_key(&mut |key| {
            keys.insert(key.clone());
        });
        keys
    }

    /// What the labels of every match have in common; for indexing.
    pub fn restrictions(&self) -> Restrictions {
        restrict::of(self.root())
    }

    fn new(root: Expr) -> Self {
        let mut canonical = String::new();
        root.write(&mut canonical);
        Self(Arc::new(Inner {
            root: OnceLock::from(Box::new(root)),
            canonical: canonical.into(),
            id: OnceLock::new(),
        }))
    }

    fn root(&self) -> &Expr {
        self.0.root.get_or_init(|| {
            let root = parse::selector(self.canonical());
            Box::new(root.expect("only a text that can be parsed stands alone"))
        })
    }
}

pub(crate) fn sorted<'a>(values: impl IntoIterator<Item = &'a str>) -> Box<[Arc<str>]> {
    let mut values: Vec<&str> = values.into_iter().collect();
    values.sort_unstable();
    values.dedup();
    values.into_iter().map(Arc::from).collect()
}

impl FromStr for Selector {
    type Err = ParseError;
    fn from_str(s: &str) -> Result<Self, ParseError> {
        Self::parse(s)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.canonical())
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Selector").field(&self.canonical()).finish()
    }
}

impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.canonical() == other.canonical()
    }
}

impl Eq for Selector {}

impl Hash for Selector {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.canonical().hash(state);
    }
}

impl PartialOrd for Selector {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Selector {
    fn cmp(&self, other: &Self) -> Ordering {
        self.canonical().cmp(other.canonical())
    }
}
