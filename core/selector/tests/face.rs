//! What a selector shows of itself, and the forms that labels may come in.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use selector::{Labels, Selector};

fn parse(text: &str) -> Selector {
    Selector::parse(text).unwrap_or_else(|e| panic!("{text:?}: {e}"))
}

/// What labels are kept in makes no difference.
#[test]
fn labels_in_every_form() {
    fn says(labels: &(impl Labels + ?Sized)) -> [bool; 5] {
        ["a == 'x'", "b == ''", "has(c)", "!has(c)", "a == ''"]
            .map(|text| parse(text).matches(labels))
    }
    let expected = [true, true, false, true, false];
    let pairs = [("a", "x"), ("b", "")];
    let sorted = BTreeMap::from(pairs);
    assert_eq!(says(&sorted), expected, "a sorted map");
    assert_eq!(says(&&sorted), expected, "a reference");
    assert_eq!(says(&Arc::new(sorted)), expected, "a shared one");
    assert_eq!(says(&HashMap::from(pairs)), expected, "a hashed map");
    assert_eq!(says(&pairs[..]), expected, "a list");
    assert_eq!(
        says(&[("a", "x"), ("b", ""), ("a", "y")][..]),
        expected,
        "the first of a key counts"
    );
}

/// Two selectors are one if their canonical texts are, and stand in the order of these.
#[test]
fn equal_and_ordered_by_canonical_text() {
    let (a, again, b) = (parse("a == 'x'"), parse("(a=='x')"), parse("has(b)"));
    assert!(a == again && a != b);
    assert_eq!(a.partial_cmp(&again), Some(Ordering::Equal));
    assert_eq!(a.partial_cmp(&b), Some(Ordering::Less));
    assert_eq!(HashSet::from([a.clone(), again, b.clone()]).len(), 2);
    assert_eq!(format!("{a}"), "a == \"x\"");
    assert_eq!("a == 'x'".parse(), Ok(a));
}

#[test]
fn only_all_is_all() {
    for (text, all) in [("", true), ("all()", true), ("!all()", false), ("has(a)", false)] {
        assert_eq!(parse(text).is_all(), all, "{text:?}");
    }
}

#[test]
fn keys_are_those_that_are_looked_at() {
    for (text, keys) in [
        ("all()", vec![]),
        ("has(b) && (a == 'x' || !(b in {'y'})) && c != 'z'", vec!["a", "b", "c"]),
    ] {
        let keys: BTreeSet<Arc<str>> = keys.into_iter().map(Arc::from).collect();
        assert_eq!(parse(text).keys(), keys, "{text:?}");
    }
}
