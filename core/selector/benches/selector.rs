//! Parsing and matching a selector of the usual size.

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use selector::Selector;

const TEXT: &str = "(projectcalico.org/orchestrator == 'k8s' && app in {'web', 'api', 'db'}) \
                    && !has(quarantine) && projectcalico.org/namespace == 'shop'";

fn benches(c: &mut Criterion) {
    c.bench_function("selector/parse", |b| b.iter(|| Selector::parse(black_box(TEXT))));
    c.bench_function("selector/parse_and_id", |b| {
        b.iter(|| Selector::parse(black_box(TEXT)).map(|s| s.id().len()));
    });
    let selector = Selector::parse(TEXT).expect("the text above is well formed");
    let labels = BTreeMap::from([
        ("app", "db"),
        ("projectcalico.org/namespace", "shop"),
        ("projectcalico.org/orchestrator", "k8s"),
        ("tier", "backend"),
    ]);
    assert!(selector.matches(&labels));
    c.bench_function("selector/match", |b| b.iter(|| black_box(&selector).matches(&labels)));
    c.bench_function("selector/restrictions", |b| b.iter(|| black_box(&selector).restrictions()));
}

criterion_group!(selectors, benches);
criterion_main!(selectors);
