//! Random changes of a cluster.

use std::sync::Arc;

use model::policy::{NetworkSetId, Stage, Tier};
use model::{Action, Policy, Update};
use policy::View;

use crate::dice::Dice;
use crate::generate::{backends, host, network_set, policy, profile, workload};
use crate::layout::PODS;
use crate::rules::{labels, service};

/// A few random changes of `view`, which has them when this returns.
pub fn changes(view: &mut View, d: &mut Dice) -> Vec<Update> {
    let count = 1 + d.roll(4);
    let next = |_| {
        let update = change(view, d);
        view.update(update.clone());
        update
    };
    (0..count).map(next).collect()
}

fn change(view: &View, d: &mut Dice) -> Update {
    match d.roll(11) {
        0 | 1 => put(policy_with_old_kind(view, d)),
        2 | 3 => edit_policy(view, d),
        4 => {
            let pod = d.roll(PODS.into()) as u16;
            let pod = workload(d, pod);
            Update::Workload(pod.id.clone(), Some(pod))
        }
        5 => relabel(view, d),
        6 => {
            let name = d.pick(&["kns.a", "kns.b", "ksa.a", "missing"]);
            Update::Profile(name.into(), or_gone(d, profile))
        }
        7 => {
            let name = d.pick(&["s0", "s1", "s2"]).into();
            Update::NetworkSet(NetworkSetId { namespace: "".into(), name }, or_gone(d, network_set))
        }
        8 => {
            let n = d.roll(4);
            let host = host(d, n);
            Update::Host(host.name.clone(), or_gone(d, |_| host))
        }
        9 => {
            let slice = d.pick(&["slice0", "slice1", "slice2"]).into();
            Update::ServiceSlice(slice, service(), or_gone(d, backends))
        }
        _ => retier(d),
    }
}

fn or_gone<T>(d: &mut Dice, make: impl FnOnce(&mut Dice) -> T) -> Option<T> {
    (!d.one_in(3)).then(|| make(d))
}

fn put(policy: Arc<Policy>) -> Update {
    Update::Policy(policy.id.clone(), Some(policy))
}

fn policy_with_old_kind(view: &View, d: &mut Dice) -> Arc<Policy> {
    let n = d.roll(8);
    let mut new = policy(d, n);
    if let Some(old) = view.policies.keys().find(|id| id.name == new.id.name) {
        Arc::make_mut(&mut new).id = old.clone();
    }
    new
}

/// Removes a policy, or takes a rule away, or moves it.
fn edit_policy(view: &View, d: &mut Dice) -> Update {
    let all: Vec<_> = view.policies.keys().cloned().collect();
    if all.is_empty() {
        return put(policy_with_old_kind(view, d));
    }
    let id = d.pick(&all);
    let mut edited = (*view.policies[&id]).clone();
    match d.roll(6) {
        0 => return Update::Policy(id, None),
        1 => drop(edited.ingress.pop()),
        2 => drop(edited.egress.pop()),
        3 => edited.tier = d.pick(&["first", "default", "last"]).into(),
        4 => edited.order = Some(d.roll(3) as f64),
        _ => {
            edited.applies_ingress = !edited.applies_ingress;
            edited.apply_on_forward = !edited.apply_on_forward || edited.stage != Stage::Normal;
        }
    }
    put(Arc::new(edited))
}

/// Other labels for a pod, or no pod at all.
fn relabel(view: &View, d: &mut Dice) -> Update {
    let all: Vec<_> = view.workloads.keys().cloned().collect();
    if all.is_empty() {
        return retier(d);
    }
    let id = d.pick(&all);
    if d.one_in(4) {
        return Update::Workload(id, None);
    }
    let mut edited = (*view.workloads[&id]).clone();
    edited.labels = labels(d, &["app", "role"]);
    Update::Workload(id, Some(Arc::new(edited)))
}

fn retier(d: &mut Dice) -> Update {
    let name = d.pick(&["first", "default", "last"]);
    let (order, default_action) = (Some(d.roll(3) as f64), d.pick(&[Action::Pass, Action::Deny]));
    let tier = Tier { name: name.into(), order, default_action };
    Update::Tier(name.into(), Some(tier))
}
