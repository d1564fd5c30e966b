//! All policies in the order in which they are asked, and those of them that an endpoint's labels leave.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use model::Policy;
use model::policy::Tier;

use crate::view::{Inherited, View};

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Standing<'v> {
    /// Tiers in order, policies in order; staged ones do not count.
    all: Vec<(&'v Tier, &'v Policy)>,
    /// Those that any labels may satisfy, by place in `all`.
    open: Vec<usize>,
    /// Those that need one label to have one of some values: by label, by value.
    bound: HashMap<Arc<str>, HashMap<Arc<str>, Vec<usize>>>,
}

impl<'v> Standing<'v> {
    pub(crate) fn new(view: &'v View) -> Self {
        let mut all = Vec::new();
        let mut tiers: Vec<&Tier> = view.tiers.values().collect();
        tiers.sort_by(|a, b| by_order(a.order, b.order).then_with(|| a.name.cmp(&b.name)));
        let mut enforced: HashMap<_, Vec<&Policy>> = HashMap::new();
        for policy in view.policies.values().filter(|policy| !policy.staged) {
            enforced.entry(&policy.tier).or_default().push(policy);
        }
        for tier in tiers {
            let mut policies = enforced.remove(&tier.name).unwrap_or_default();
            policies.sort_by(|a, b| by_order(a.order, b.order).then_with(|| a.id.cmp(&b.id)));
            all.extend(policies.into_iter().map(|policy| (tier, policy)));
        }
        let wants: Vec<_> = all.iter().map(|(_, p)| p.selector.restrictions()).collect();
        // How many values of a label policies ask for: the more, the fewer remain of each.
        let mut values: HashMap<&Arc<str>, BTreeSet<&Arc<str>>> = HashMap::new();
        for (key, want) in wants.iter().flatten() {
            values.entry(key).or_default().extend(want.values.iter().flatten());
        }
        let (mut open, mut bound) = (Vec::new(), HashMap::<_, HashMap<_, Vec<usize>>>::new());
        for (at, want) in wants.iter().enumerate() {
            // A label that may be absent binds nothing.
            let listed = want.iter().filter(|(_, w)| w.must_be_present);
            let listed = listed.filter_map(|(key, w)| Some((key, w.values.as_ref()?)));
            match listed.max_by_key(|(key, _)| values.get(key).map_or(0, BTreeSet::len)) {
                None => open.push(at),
                Some((key, listed)) => {
                    let of_label = bound.entry(key.clone()).or_default();
                    for value in listed {
                        of_label.entry(value.clone()).or_default().push(at);
                    }
                }
            }
        }
        Self { all, open, bound }
    }

    /// The policies that `labels` may satisfy, in order, each with its tier: all that they do, and some
    /// others.
    pub(crate) fn candidates(
        &self,
        labels: &Inherited<'_>,
    ) -> impl Iterator<Item = (&'v Tier, &'v Policy)> {
        let mut found = self.open.clone();
        for (key, of_label) in &self.bound {
            found.extend(
                labels.look(key).and_then(|value| of_label.get(value)).into_iter().flatten(),
            );
        }
        found.sort_unstable();
        found.dedup();
        found.into_iter().map(|at| self.all[at])
    }
}

/// Ascending; without an order last.
fn by_order(a: Option<f64>, b: Option<f64>) -> Ordering {
    let key = |o: Option<f64>| o.unwrap_or(f64::INFINITY);
    key(a).total_cmp(&key(b)).then_with(|| a.is_none().cmp(&b.is_none()))
}
