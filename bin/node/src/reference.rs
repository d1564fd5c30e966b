//! The reference page of the metrics is what the agent exports. `make reference` writes it anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use hooks::{Finding, Kind, When};
use prometheus_client::encoding::text::encode;
use telemetry::Registry;

use crate::status::Shared;

const HEAD: &str = "\
# Metrics

Made from the code. The agent serves them at `http://HOST:9091/metrics` in the text format of OpenMetrics, when
`prometheusMetricsEnabled` of its configuration says so; host and port are `prometheusMetricsHost` and
`prometheusMetricsPort` ([configuration.md](configuration.md)). `calico apiserver`, `calico webhooks` and `calico store`
export no metrics; they answer `/livez` and `/readyz`.

Names and units are those that dashboards for upstream's agent know, where upstream has the metric. What only grows
under such a name without `_total` is therefore of type gauge; use `rate()` with it as with a counter. A histogram NAME has
the series `NAME_bucket` (with the label `le`), `NAME_sum` and `NAME_count`.

| metric | type | labels | |
|---|---|---|---|
";

/// As if all parts of the agent were at work and had found something.
fn registry() -> Registry {
    let mut registry = Registry::default();
    let shared = Shared::new("a", &mut registry);
    let (hook, name) = ("forward", String::new());
    let (kind, when) = (Kind::Nft, When::Before);
    let finding =
        Finding { kind, when, hook, priority: None, name, effects: BTreeSet::new(), advice: "" };
    shared.foreign(&BTreeSet::from([finding]));
    route::Metrics::default().register(&mut registry);
    nft::Metrics::default().register(&mut registry);
    flows::Metrics::default().register(&mut registry);
    dataplane::Metrics::default().register(&mut registry);
    registry
}

#[derive(Default)]
struct Metric<'a> {
    kind: &'a str,
    help: &'a str,
    labels: BTreeSet<&'a str>,
}

fn page() -> String {
    let mut text = String::new();
    encode(&mut text, &registry()).unwrap();
    let mut metrics = BTreeMap::<&str, Metric<'_>>::new();
    for line in text.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "HELP", name, help] => metrics.entry(name).or_default().help = help,
            ["#", "TYPE", name, kind] => metrics.entry(name).or_default().kind = kind,
            ["#", ..] => (),
            _ => {
                let Some((series, rest)) = line.split_once('{') else { continue };
                let ours = metrics.iter_mut().filter(|(name, _)| series.starts_with(**name));
                let Some((_, metric)) = ours.max_by_key(|(name, _)| name.len()) else { continue };
                let labels = rest.split_once('}').map_or("", |(labels, _)| labels).split(',');
                let names = labels.filter_map(|label| Some(label.split_once('=')?.0));
                metric.labels.extend(names.filter(|name| *name != "le"));
            }
        }
    }
    let mut page = HEAD.to_owned();
    for (name, Metric { kind, help, labels }) in metrics {
        let name = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        writeln!(page, "| `{name}` | {kind} | {} | {help} |", labels.join(", ")).unwrap();
    }
    page
}

#[test]
fn the_reference_page_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/metrics.md");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page(), "docs/reference/metrics.md is old: run `make reference`");
}
