//! Smaller clusters.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{Policy, Rule};
use policy::View;

/// Views with one thing less each, the biggest steps first. Shrinking ends where none of them shows
/// the same fault.
pub fn smaller(view: &View) -> Vec<View> {
    let mut all = Vec::new();
    let mut less = |change: &dyn Fn(&mut View)| {
        let mut v = view.clone();
        change(&mut v);
        all.push(v);
    };
    for id in view.policies.keys() {
        less(&|v| drop(v.policies.remove(id)));
    }
    for id in view.hosts.keys() {
        less(&|v| drop(v.hosts.remove(id)));
    }
    for id in view.network_sets.keys() {
        less(&|v| drop(v.network_sets.remove(id)));
    }
    for id in view.workloads.keys() {
        less(&|v| drop(v.workloads.remove(id)));
    }
    for id in view.services.keys().filter(|id| !view.services[*id].is_empty()) {
        less(&|v| drop(v.services.insert(id.clone(), BTreeMap::new())));
    }
    for (id, policy) in &view.policies {
        for edited in edits(policy) {
            less(&|v| drop(v.policies.insert(id.clone(), Arc::new(edited.clone()))));
        }
    }
    for (id, w) in view.workloads.iter().filter(|(_, w)| !w.ports.is_empty()) {
        let mut edited = (**w).clone();
        edited.ports.pop();
        less(&|v| drop(v.workloads.insert(id.clone(), Arc::new(edited.clone()))));
    }
    for i in 0..view.failsafe_inbound.len() {
        less(&|v| v.failsafe_inbound.truncate(i));
    }
    for i in 0..view.failsafe_outbound.len() {
        less(&|v| v.failsafe_outbound.truncate(i));
    }
    all
}

/// The policy with one rule, or one part of a rule, less.
fn edits(policy: &Policy) -> Vec<Policy> {
    let mut all = Vec::new();
    for ingress in [true, false] {
        let list = if ingress { &policy.ingress } else { &policy.egress };
        for i in 0..list.len() {
            let mut with = |rules: Vec<Rule>| {
                let mut edited = policy.clone();
                *(if ingress { &mut edited.ingress } else { &mut edited.egress }) = rules;
                all.push(edited);
            };
            let mut without = list.clone();
            without.remove(i);
            with(without);
            for simpler in simpler_rules(&list[i]) {
                let mut rules = list.clone();
                rules[i] = simpler;
                with(rules);
            }
        }
    }
    all
}

fn simpler_rules(rule: &Rule) -> Vec<Rule> {
    type Edit = fn(&mut Rule);
    let edits: [Edit; 16] = [
        |r| r.ip_version = None,
        |r| r.icmp = None,
        |r| r.not_icmp = None,
        |r| r.not_protocol = None,
        |r| r.source.nets.truncate(r.source.nets.len().saturating_sub(1)),
        |r| r.source.not_nets.truncate(r.source.not_nets.len().saturating_sub(1)),
        |r| drop(r.source.ports.pop()),
        |r| drop(r.source.not_ports.pop()),
        |r| r.source.selector = None,
        |r| r.source.not_selector = None,
        |r| r.destination.nets.truncate(r.destination.nets.len().saturating_sub(1)),
        |r| r.destination.not_nets.truncate(r.destination.not_nets.len().saturating_sub(1)),
        |r| drop(r.destination.ports.pop()),
        |r| drop(r.destination.not_ports.pop()),
        |r| r.destination.selector = None,
        |r| r.destination.not_selector = None,
    ];
    let edit = |edit: &Edit| {
        let mut r = rule.clone();
        edit(&mut r);
        (r != *rule).then_some(r)
    };
    edits.iter().filter_map(edit).collect()
}
