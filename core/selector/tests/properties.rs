//! Random expressions against an evaluator that knows nothing of the implementation.

use std::collections::BTreeMap;

use proptest::prelude::*;
use selector::Selector;

/// An expression as the test thinks of it.
#[derive(Clone, Debug)]
enum Expr {
    All,
    Has(String),
    Compare(String, &'static str, String),
    Member(String, &'static str, Vec<String>),
    Not(Box<Expr>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
}

impl Expr {
    fn text(&self, tight: bool) -> String {
        let gap = if tight { "" } else { " \t" };
        match self {
            Self::All => format!("all({gap})"),
            Self::Has(k) => format!("has({gap}{k}{gap})"),
            Self::Compare(k, op, v) => format!("{k} {op}{gap}{}", quoted(v)),
            Self::Member(k, op, vs) => {
                let list: Vec<String> = vs.iter().map(|v| quoted(v)).collect();
                format!("{k} {op}{gap}{{{gap}{}{gap}}}", list.join(","))
            }
            Self::Not(e) => format!("!{gap}({})", e.text(tight)),
            Self::And(es) => join(es, "&&", tight),
            Self::Or(es) => join(es, "||", tight),
        }
    }

    fn eval(&self, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Self::All => true,
            Self::Has(k) => labels.contains_key(k),
            Self::Compare(k, op, v) => match (*op, labels.get(k)) {
                ("!=", None) => true,
                (_, None) => false,
                ("==", Some(l)) => l == v,
                ("!=", Some(l)) => l != v,
                ("contains", Some(l)) => l.contains(v.as_str()),
                ("starts with", Some(l)) => l.starts_with(v.as_str()),
                (_, Some(l)) => l.ends_with(v.as_str()),
            },
            Self::Member(k, op, vs) => {
                let member = labels.get(k).is_some_and(|l| vs.contains(l));
                member == (*op == "in")
            }
            Self::Not(e) => !e.eval(labels),
            Self::And(es) => es.iter().all(|e| e.eval(labels)),
            Self::Or(es) => es.iter().any(|e| e.eval(labels)),
        }
    }
}

fn quoted(v: &str) -> String {
    if v.contains('"') { format!("'{v}'") } else { format!("\"{v}\"") }
}

fn join(es: &[Expr], op: &str, tight: bool) -> String {
    let parts: Vec<String> = es.iter().map(|e| format!("({})", e.text(tight))).collect();
    parts.join(op)
}

fn key() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c", "x.y/z", "in", "all"]).prop_map(String::from)
}

fn value() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["", "p", "q", "pq", "it's", "say \"q\"", "é"]).prop_map(String::from)
}

fn expr() -> impl Strategy<Value = Expr> {
    let compare = prop::sample::select(vec!["==", "!=", "contains", "starts with", "ends with"]);
    let member = prop::sample::select(vec!["in", "not in"]);
    let leaf = prop_oneof![
        Just(Expr::All),
        key().prop_map(Expr::Has),
        (key(), compare, value()).prop_map(|(k, o, v)| Expr::Compare(k, o, v)),
        (key(), member, prop::collection::vec(value(), 0..4))
            .prop_map(|(k, o, v)| Expr::Member(k, o, v)),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        let many = prop::collection::vec(inner.clone(), 2..4);
        prop_oneof![
            inner.prop_map(|e| Expr::Not(Box::new(e))),
            many.clone().prop_map(Expr::And),
            many.prop_map(Expr::Or),
        ]
    })
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map(key(), value(), 0..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn evaluation_agrees(e in expr(), l in labels()) {
        let s = Selector::parse(&e.text(false)).unwrap();
        prop_assert_eq!(s.matches(&l), e.eval(&l), "{}", s);
        // The canonical text means the same.
        prop_assert_eq!(Selector::parse(s.canonical()).unwrap().matches(&l), e.eval(&l), "{}", s);
    }

    #[test]
    fn writing_does_not_matter(e in expr()) {
        let (wide, tight) = (e.text(false), e.text(true));
        let s = Selector::parse(&wide).unwrap();
        prop_assert_eq!(&s, &Selector::parse(&tight).unwrap());
        let other = Selector::parse(&tight).unwrap();
        prop_assert_eq!(s.id(), other.id());
        prop_assert_eq!(s.id().len(), 40);
        // The canonical text is a fixed point, but for a group in a negated group: `!(!a)` is
        // written `!!a`, which reads as `a`.
        let again = Selector::parse(s.canonical()).unwrap();
        if !s.canonical().contains("!!") {
            prop_assert_eq!(&again, &s);
        }
        prop_assert_eq!(&Selector::parse(again.canonical()).unwrap(), &again);
    }

    #[test]
    fn restrictions_are_sound(e in expr(), l in labels()) {
        let s = Selector::parse(&e.text(true)).unwrap();
        for (key, r) in s.restrictions() {
            prop_assert!(r.must_be_present || r.must_be_absent, "{s}: empty restriction on {key}");
            if s.matches(&l) {
                prop_assert!(r.allows(l.get(&*key).map(String::as_str)), "{s}: {key} {r:?} {l:?}");
                prop_assert!(!r.is_impossible());
            }
        }
    }

    #[test]
    fn compact_ones_say_the_same(e in expr(), l in labels()) {
        let s = Selector::parse(&e.text(true)).unwrap();
        let compact = s.compact();
        prop_assert_eq!(&compact, &s);
        prop_assert_eq!(compact.id(), s.id());
        prop_assert_eq!(compact.matches(&l), s.matches(&l));
        prop_assert_eq!(compact.is_all(), s.is_all());
    }

    #[test]
    fn prefixing_keys_prefixes_labels(e in expr(), l in labels()) {
        let s = Selector::parse(&e.text(true)).unwrap();
        let moved: BTreeMap<String, String> =
            l.iter().map(|(k, v)| (format!("pcns.{k}"), v.clone())).collect();
        prop_assert_eq!(s.with_key_prefix("pcns.").matches(&moved), s.matches(&l));
    }

    #[test]
    fn any_text_gives_a_selector_or_a_position_in_it(text in "[a-c!&|()='\"{}, \tinhasotl]{0,40}") {
        match Selector::parse(&text) {
            Ok(s) => prop_assert!(Selector::parse(s.canonical()).is_ok(), "{}", s),
            Err(e) => prop_assert!(text.is_char_boundary(e.at), "{e}"),
        }
    }
}
