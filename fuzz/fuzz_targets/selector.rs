//! Selector text: never a crash, errors point into the text, and the canonical text reads back as
//! an equivalent selector.
#![no_main]

use libfuzzer_sys::fuzz_target;
use selector::Selector;

fuzz_target!(|text: &str| {
    match Selector::parse(text) {
        Err(error) => assert!(text.is_char_boundary(error.at), "{error}"),
        Ok(selector) => {
            let again = Selector::parse(selector.canonical()).expect("canonical text parses");
            let labels = [("a", "b"), ("c", "")];
            assert_eq!(again.matches(&labels[..]), selector.matches(&labels[..]), "{selector}");
            let broken = selector.restrictions().iter().any(|(key, r)| {
                let value = labels.iter().find(|(k, _)| *k == &**key).map(|(_, v)| *v);
                !r.allows(value)
            });
            assert!(!(broken && selector.matches(&labels[..])), "{selector}");
        }
    }
});
