//! The language as users write it: meaning, canonical text, ids and errors.

use std::collections::BTreeMap;

use selector::{MAX_DEPTH, NamespaceSelector, Selector};

fn parse(text: &str) -> Selector {
    Selector::parse(text).unwrap_or_else(|e| panic!("{text:?}: {e}"))
}

#[test]
fn canonical_text() {
    for (what, given, want) in [
        ("empty", "", "all()"),
        ("blank", " \t ", "all()"),
        ("all", "all( )", "all()"),
        ("quotes", "a == 'b'", r#"a == "b""#),
        ("value with a double quote", r#"a == 'say "x"'"#, r#"a == 'say "x"'"#),
        ("value with a single quote", r#"a == "it's""#, r#"a == "it's""#),
        ("and", r#"a=="b"&&has( c )"#, r#"(a == "b" && has(c))"#),
        ("one pair of parentheses too many", "((has(a)))", "has(a)"),
        ("precedence", "has(a) || has(b) && !has(c)", "(has(a) || (has(b) && !has(c)))"),
        ("grouping is kept", "(has(a) && has(b)) && has(c)", "((has(a) && has(b)) && has(c))"),
        ("chains are one node", "has(a) && has(b) && has(c)", "(has(a) && has(b) && has(c))"),
        ("sets are sorted", r#"a in {"y", 'x', "y"}"#, r#"a in {"x", "y"}"#),
        ("empty set", "a in {}", "a in {}"),
        ("trailing comma", "a in {'x',}", r#"a in {"x"}"#),
        ("not in", "a not  in {'x'}", r#"a not in {"x"}"#),
        ("notin", "a notin{'x'}", r#"a not in {"x"}"#),
        ("set quoting", r#"a in {'"', "b"}"#, r#"a in {'"', "b"}"#),
        ("contains", "a contains 'x'", r#"a contains "x""#),
        ("starts with", "a starts  with'x'", r#"a starts with "x""#),
        ("ends with", "a endswith 'x'", r#"a ends with "x""#),
        ("not equal", "a!='b'", r#"a != "b""#),
        ("even negations vanish", "!! has(a)", "has(a)"),
        ("odd negations are one", "! ! !has(a)", "!has(a)"),
        ("negated group", "!(has(a) || has(b))", "!(has(a) || has(b))"),
        ("negated group of one", "!(!has(a))", "!!has(a)"),
        ("key alphabet", "x_Y.z/1-2 == ''", r#"x_Y.z/1-2 == """#),
        ("keys that look like words", "in in {'x'}", r#"in in {"x"}"#),
        ("key all", "all == 'x'", r#"all == "x""#),
        ("key has", "has != 'x'", r#"has != "x""#),
        ("values of any script", "a == 'größe'", r#"a == "größe""#),
    ] {
        assert_eq!(parse(given).canonical(), want, "{what}: {given:?}");
    }
}

#[test]
fn ids_are_the_hash_of_the_canonical_text() {
    // Computed with coreutils: printf 's:all()' | sha224sum, then URL-safe base64.
    for (given, id) in [
        ("all()", "s:5y5I3VdRZfDU01O--xXAPx2yxCQQqMf0M6IWug"),
        ("a == 'b'", "s:flMh0m0X_BowkAK_W3j3MgH8oQOsj3WxGDoXCQ"),
    ] {
        assert_eq!(parse(given).id(), id, "{given}");
    }
    assert_eq!(parse("a in {'x','y'}").id(), parse("(a in {\"y\", \"x\"})").id());
}

#[test]
fn meaning() {
    let labels: BTreeMap<&str, &str> = [("a", "apple"), ("b", ""), ("n/s", "x")].into();
    for (text, want) in [
        ("", true),
        ("all()", true),
        ("!all()", false),
        ("a == 'apple'", true),
        ("a == 'Apple'", false),
        ("z == ''", false),
        ("b == ''", true),
        ("a != 'apple'", false),
        ("a != 'pear'", true),
        ("z != 'pear'", true),
        ("a in {'pear', 'apple'}", true),
        ("a in {}", false),
        ("z in {'x'}", false),
        ("a not in {'apple'}", false),
        ("a not in {}", true),
        ("z not in {'x'}", true),
        ("a contains 'ppl'", true),
        ("a contains ''", true),
        ("z contains ''", false),
        ("a starts with 'app'", true),
        ("a starts with 'pp'", false),
        ("z starts with ''", false),
        ("a ends with 'ple'", true),
        ("a ends with 'app'", false),
        ("has(b)", true),
        ("has(z)", false),
        ("!has(z)", true),
        ("!(z == 'x')", true),
        ("has(n/s) && has(a)", true),
        ("has(z) && has(a)", false),
        ("has(z) || has(a)", true),
        ("has(z) || has(z) && has(a) || a == 'apple'", true),
        ("!has(z) && has(a)", true),
        ("!(has(z) || has(a))", false),
    ] {
        assert_eq!(parse(text).matches(&labels), want, "{text}");
    }
}

#[test]
fn bad_input_is_told_where_and_what() {
    let long_key = "k".repeat(513);
    for (what, given, at, part) in [
        ("no operator", "a", 1, "after label key \"a\", found the end"),
        ("single equals", "a = 'b'", 2, "equality is written '=='"),
        ("no value", "a ==", 4, "a quoted string after '==', found the end"),
        ("bare value", "a == b", 5, "a quoted string after '==', found 'b'"),
        ("unterminated", "a == 'b", 5, "string without its closing '"),
        ("single ampersand", "has(a) & has(b)", 7, "expected '&&'"),
        ("single bar", "has(a) | has(b)", 7, "'||'"),
        ("nothing after and", "has(a) &&", 9, "a label key"),
        ("nothing before and", "&& has(a)", 0, "found '&'"),
        ("nothing after not", "!", 1, "found the end"),
        ("unclosed group", "has(b) && (has(a)", 17, "for the '(' at byte 10"),
        ("group never opened", "has(a))", 6, "')' without a '('"),
        ("empty group", "()", 1, "found ')'"),
        ("has without key", "has()", 4, "a label key after 'has('"),
        ("has unclosed", "has(a", 5, "')' after the label key"),
        ("has with space", "has (a)", 4, "after label key \"has\", found '('"),
        ("all with content", "all(x)", 4, "')' after 'all('"),
        ("set unopened", "a in 'x'", 5, "'{' after 'in'"),
        ("set unclosed", "a in {'x'", 9, "',' or '}', found the end"),
        ("set without commas", "a in {'x' 'y'}", 10, "',' or '}'"),
        ("set with bare word", "a in {x}", 6, "a quoted string or '}'"),
        ("not alone", "a not {'x'}", 2, "'not in'"),
        ("starts alone", "a starts 'x'", 2, "'starts with'"),
        ("two terms", "has(a) has(b)", 7, "the end, found 'h'"),
        ("line break", "has(a) &&\nhas(b)", 9, "found '\\n'"),
        ("foreign script", "größe == 'x'", 2, "found 'ö'"),
        ("global", "global()", 0, "namespace selector only"),
        ("global inside", "has(a) && global()", 10, "namespace selector only"),
        ("long key", &format!("has({long_key})"), 4, "513 bytes"),
    ] {
        let err = Selector::parse(given).expect_err(what);
        assert_eq!(err.at, at, "{what}: {given:?}: {err}");
        assert!(err.message.contains(part), "{what}: {given:?}: {err}");
    }
}

#[test]
fn namespace_selectors() {
    assert_eq!(NamespaceSelector::parse(" global( ) "), Ok(NamespaceSelector::Global));
    assert_eq!(
        NamespaceSelector::parse("has(a)"),
        Ok(NamespaceSelector::Matching(Selector::has("a")))
    );
    for combined in ["global() && has(a)", "!global()", "(global())", "global() global()"] {
        assert!(NamespaceSelector::parse(combined).is_err(), "{combined}");
    }
}

#[test]
fn deep_nesting_is_an_error_and_not_a_crash() {
    let nested = |n: usize| format!("{}has(a){}", "!(".repeat(n), ")".repeat(n));
    let deepest = parse(&nested(MAX_DEPTH));
    assert!(deepest.matches(&BTreeMap::from([("a", "")])) == MAX_DEPTH.is_multiple_of(2));
    assert!(deepest.restrictions().is_empty());
    let err = Selector::parse(&nested(MAX_DEPTH + 1)).unwrap_err();
    assert_eq!(err.at, 2 * MAX_DEPTH + 1, "{err}");
    assert!(Selector::parse(&nested(1_000_000)).is_err());
    assert!(Selector::parse(&"(".repeat(1_000_000)).is_err());
    assert!(parse(&format!("{}has(a)", "!".repeat(1_000_000))).canonical() == "has(a)");
}

#[test]
fn constructors_equal_the_parsed_text() {
    for (built, text) in [
        (Selector::all(), "all()"),
        (Selector::has("a"), "has(a)"),
        (Selector::not_has("a"), "!has(a)"),
        (Selector::equals("a", "b"), "a == 'b'"),
        (Selector::not_equals("a", "b"), "a != 'b'"),
        (Selector::is_in("a", ["y", "x", "y"]), "a in {'x','y'}"),
        (Selector::not_in("a", ["x"]), "a not in {'x'}"),
        (Selector::has("a").and(&Selector::has("b")), "has(a) && has(b)"),
        (Selector::has("a").or(&Selector::has("b")), "has(a) || has(b)"),
        (parse("has(a) && has(b)").and(&Selector::has("c")), "(has(a) && has(b)) && has(c)"),
        (Selector::and_all(&[]), "all()"),
        (Selector::and_all(&[Selector::has("a")]), "has(a)"),
        (
            Selector::and_all(&[Selector::has("a"), Selector::has("b"), Selector::has("c")]),
            "has(a) && has(b) && has(c)",
        ),
        (
            parse("has(a) && !(b == 'x' || c in {'y'})").with_key_prefix("pcns."),
            "has(pcns.a) && !(pcns.b == 'x' || pcns.c in {'y'})",
        ),
    ] {
        assert_eq!(built, parse(text), "{text}");
    }
}

#[test]
fn restrictions() {
    for (text, want) in [
        ("all()", ""),
        ("a == 'x'", "a+[x]"),
        ("a != 'x'", ""),
        ("has(a)", "a+"),
        ("!has(a)", "a-"),
        ("!(a == 'x')", ""),
        ("a contains 'x'", "a+"),
        ("a in {'x','y'}", "a+[x,y]"),
        ("a not in {'x'}", ""),
        ("a == 'x' && has(b)", "a+[x] b+"),
        ("a in {'x','y'} && a in {'y','z'}", "a+[y]"),
        ("a == 'x' && a == 'y'", "a+[]"),
        ("has(a) && !has(a)", "a+-"),
        ("a == 'x' || a == 'y'", "a+[x,y]"),
        ("a == 'x' || has(a)", "a+"),
        ("a == 'x' || has(b)", ""),
        ("!has(a) || !has(a) && has(b)", "a-"),
        ("has(a) || !has(a)", ""),
        ("a == 'x' && (b == 'p' || b == 'q')", "a+[x] b+[p,q]"),
    ] {
        let got: Vec<String> = parse(text)
            .restrictions()
            .into_iter()
            .map(|(key, r)| {
                let values = r.values.map(|v| format!("[{}]", v.join(","))).unwrap_or_default();
                let sign = |on: bool, s| if on { s } else { "" };
                let (p, m) = (sign(r.must_be_present, "+"), sign(r.must_be_absent, "-"));
                format!("{key}{p}{m}{values}")
            })
            .collect();
        assert_eq!(got.join(" "), want, "{text}");
    }
}

/// A text that cannot be read again is not all that is kept of a selector.
#[test]
fn compact_keeps_what_has_no_text() {
    let labels = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    for (what, key, value) in [
        ("both kinds of quotes", "a", "b\"c'd"),
        ("no label key", "a b", "c"),
        ("an empty key", "", "c"),
        ("a key that is too long", &"k".repeat(selector::MAX_KEY_LEN + 1), "c"),
    ] {
        let selector = Selector::equals(key, value).compact();
        assert!(selector.matches(&labels(key, value)), "{what}");
        assert!(!selector.matches(&labels(key, "other")), "{what}");
    }
    let mut deep = Selector::equals("a", "b");
    for _ in 0..=selector::MAX_DEPTH {
        deep = deep.and(&Selector::all());
    }
    assert!(deep.compact().matches(&labels("a", "b")));
}
