//! Who else decides about packets here: reported, never touched.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hooks::{Finding, Modules, look_again};

use crate::kernel::blocking;
use crate::status::Shared;

/// What no event tells of (legacy iptables, tc, BPF) is looked for this often.
const EVERY: Duration = Duration::from_secs(10);
/// Other programs' tables are read this often at most, whatever they do to them,
const PAUSE: Duration = Duration::from_millis(100);
/// and for no more than one part in so many of the time.
const SHARE: u32 = 20;

/// Looks now, when other tables change, and every ten seconds, for ever.
pub(crate) async fn watch(shared: Arc<Shared>) {
    let mut known: Option<BTreeSet<Finding>> = None;
    let (mut unseen, mut modules) = (Vec::new(), Modules::default());
    loop {
        let began = Instant::now();
        if let Ok(look) = blocking(move || Ok(look_again(modules))).await {
            let mut found = BTreeSet::from_iter(look.found);
            if !look.unseen.is_empty() {
                // What could not be looked at has not gone for that.
                found.extend(known.iter().flatten().cloned());
            }
            if known.as_ref() != Some(&found) {
                tell(&known.unwrap_or_default(), &found);
                shared.foreign(&found);
            }
            for part in look.unseen.iter().filter(|part| !unseen.contains(*part)) {
                tracing::warn!(part, "who else decides about packets cannot be found out here");
            }
            (known, unseen, modules) = (Some(found), look.unseen, look.modules);
        }
        tokio::time::sleep(PAUSE.max(began.elapsed() * SHARE)).await;
        // An end of the wait is as good as an event.
        let _ = tokio::time::timeout(EVERY, shared.others_changed.notified()).await;
    }
}

fn tell(known: &BTreeSet<Finding>, found: &BTreeSet<Finding>) {
    let say = |finding: &Finding, message: &'static str| {
        let Finding { kind, when, hook, priority, name, effects, .. } = finding;
        let effects: Vec<&str> = effects.iter().map(|e| e.as_str()).collect();
        let (kind, when, may) = (kind.as_str(), when.as_str(), effects.join(" "));
        tracing::info!(kind, when, hook, priority, name, may, "{message}");
    };
    for finding in found.difference(known) {
        say(finding, "another program decides about packets");
    }
    for finding in known.difference(found) {
        say(finding, "another program decides about packets no longer");
    }
}
