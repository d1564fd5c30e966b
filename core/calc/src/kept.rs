//! Policies as they are kept: nearly all policies of a large cluster select nothing on this node,
//! and still must be there when an endpoint comes.
//!
//! Three things make them small. Texts, tiers and selectors that several policies have are one. A
//! selector is its text until somebody evaluates it. A rule has room for what most rules say; the
//! rest of it, if there is any, is in an allocation of its own.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use model::policy::{EntityMatch, HttpMatch, Icmp, IpVersion, Stage};
use model::{Action, Policy, PolicyId, Protocol, Rule, TierName};
use selector::Selector;

/// A [`Policy`], with everything that it says.
#[derive(Debug, PartialEq)]
pub(crate) struct KeptPolicy {
    pub(crate) id: PolicyId,
    pub(crate) tier: TierName,
    pub(crate) order: Option<f64>,
    pub(crate) selector: Selector,
    pub(crate) ingress: Box<[KeptRule]>,
    pub(crate) egress: Box<[KeptRule]>,
    pub(crate) applies_ingress: bool,
    pub(crate) applies_egress: bool,
    pub(crate) stage: Stage,
    pub(crate) apply_on_forward: bool,
    pub(crate) staged: bool,
    pub(crate) everywhere: bool,
}

/// A [`Rule`], with everything that it says.
#[derive(Debug, PartialEq)]
pub(crate) struct KeptRule {
    action: Action,
    ip_version: Option<IpVersion>,
    protocol: Option<Protocol>,
    not_protocol: Option<Protocol>,
    icmp: Option<Icmp>,
    not_icmp: Option<Icmp>,
    source: Side,
    destination: Side,
    http: Option<Box<HttpMatch>>,
    origin: u32,
}

/// One side of a rule: its selector, and what it says beyond it.
#[derive(Debug, PartialEq)]
struct Side {
    selector: Option<Selector>,
    rest: Option<Box<EntityMatch>>,
}

impl Side {
    fn of(entity: &EntityMatch, pool: &mut Pool) -> Self {
        let mut share = |s: &Option<Selector>| s.as_ref().map(|s| pool.selectors.hold(s));
        let selector = share(&entity.selector);
        let not_selector = share(&entity.not_selector);
        let rest = EntityMatch { selector: None, not_selector, ..entity.clone() };
        let rest = (rest != EntityMatch::default()).then(|| Box::new(rest));
        Self { selector, rest }
    }

    fn selectors(&self) -> impl Iterator<Item = &Selector> {
        let negative = self.rest.as_ref().and_then(|rest| rest.not_selector.as_ref());
        self.selector.iter().chain(negative)
    }

    fn entity(&self) -> EntityMatch {
        let rest = self.rest.as_deref().cloned().unwrap_or_default();
        EntityMatch { selector: self.selector.clone(), ..rest }
    }
}

impl KeptRule {
    fn of(rule: &Rule, pool: &mut Pool) -> Self {
        Self {
            action: rule.action,
            ip_version: rule.ip_version,
            protocol: rule.protocol,
            not_protocol: rule.not_protocol,
            icmp: rule.icmp,
            not_icmp: rule.not_icmp,
            source: Side::of(&rule.source, pool),
            destination: Side::of(&rule.destination, pool),
            http: rule.http.clone().map(Box::new),
            origin: rule.origin,
        }
    }

    /// The rule as it came.
    pub(crate) fn rule(&self) -> Rule {
        Rule {
            action: self.action,
            ip_version: self.ip_version,
            protocol: self.protocol,
            not_protocol: self.not_protocol,
            icmp: self.icmp,
            not_icmp: self.not_icmp,
            source: self.source.entity(),
            destination: self.destination.entity(),
            http: self.http.as_deref().cloned(),
            origin: self.origin,
        }
    }
}

/// What kept policies have in common.
#[derive(Default)]
pub(crate) struct Pool {
    texts: Shared<Arc<str>>,
    tiers: Shared<TierName>,
    selectors: Shared<Selector>,
}

impl Pool {
    /// Keeps a policy: to be given back with [`Pool::drop_policy`].
    pub(crate) fn keep(&mut self, policy: &Policy) -> KeptPolicy {
        let id = &policy.id;
        let mut rules = |rules: &[Rule]| rules.iter().map(|r| KeptRule::of(r, self)).collect();
        let (ingress, egress) = (rules(&policy.ingress), rules(&policy.egress));
        KeptPolicy {
            id: PolicyId {
                name: self.texts.hold(&id.name),
                namespace: self.texts.hold(&id.namespace),
                kind: id.kind,
            },
            tier: self.tiers.hold(&policy.tier),
            order: policy.order,
            selector: self.selectors.hold(&policy.selector),
            ingress,
            egress,
            applies_ingress: policy.applies_ingress,
            applies_egress: policy.applies_egress,
            stage: policy.stage,
            apply_on_forward: policy.apply_on_forward,
            staged: policy.staged,
            everywhere: policy.everywhere,
        }
    }

    /// Gives up what [`Pool::keep`] held.
    pub(crate) fn drop_policy(&mut self, policy: &KeptPolicy) {
        self.texts.release(&policy.id.name);
        self.texts.release(&policy.id.namespace);
        self.tiers.release(&policy.tier);
        self.selectors.release(&policy.selector);
        for rule in policy.ingress.iter().chain(&policy.egress) {
            for selector in rule.source.selectors().chain(rule.destination.selectors()) {
                self.selectors.release(selector);
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.texts.0.is_empty() && self.tiers.0.is_empty() && self.selectors.0.is_empty()
    }
}

/// One copy of each value, counted, so that what nobody holds leaves nothing behind (law 7).
struct Shared<T>(HashMap<T, (T, u32)>);

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Keep> Shared<T> {
    fn hold(&mut self, value: &T) -> T {
        if let Some((kept, users)) = self.0.get_mut(value) {
            *users += 1;
            return kept.clone();
        }
        let kept = value.keep();
        self.0.insert(kept.clone(), (kept.clone(), 1));
        kept
    }

    fn release(&mut self, value: &T) {
        let Some((_, users)) = self.0.get_mut(value) else { return };
        *users -= 1;
        if *users == 0 {
            self.0.remove(value);
        }
    }
}

/// A value that is cheap to share, in the form to keep it in.
trait Keep: Clone + Eq + Hash {
    fn keep(&self) -> Self {
        self.clone()
    }
}

impl Keep for Arc<str> {}
impl Keep for TierName {}
impl Keep for Selector {
    fn keep(&self) -> Self {
        self.compact()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Port;
    use model::policy::{PolicyKind, ServiceId};

    fn selector(text: &str) -> Selector {
        Selector::parse(text).unwrap()
    }

    /// A rule that says something in every field.
    fn full() -> Rule {
        let side = |n: u16| EntityMatch {
            nets: vec!["10.0.0.0/8".parse().unwrap()],
            not_nets: vec!["10.1.0.0/16".parse().unwrap()],
            selector: Some(selector("a == 'b' && !has(c)")),
            not_selector: Some(selector("d in {'e', 'f'}")),
            ports: vec![Port::Range(n, 9)],
            not_ports: vec![Port::Named("http".into())],
            service: Some(ServiceId { namespace: "ns".into(), name: "svc".into() }),
        };
        Rule {
            action: Action::Deny,
            ip_version: Some(IpVersion::V6),
            protocol: Some(Protocol::TCP),
            not_protocol: Some(Protocol::UDP),
            icmp: Some(Icmp { kind: 8, code: Some(0) }),
            not_icmp: Some(Icmp { kind: 3, code: None }),
            source: side(1),
            destination: side(2),
            http: Some(HttpMatch { methods: vec!["GET".into()], paths: vec![(true, "/".into())] }),
            origin: 7,
        }
    }

    /// What comes out is what went in, and nothing is left of it.
    #[test]
    fn keeps_everything_and_leaves_nothing() {
        let simple = Rule {
            source: EntityMatch { selector: Some(selector("a == 'b'")), ..EntityMatch::default() },
            ..Rule::any(Action::Allow)
        };
        let policy = Policy {
            id: PolicyId {
                name: "p".into(),
                namespace: "ns".into(),
                kind: PolicyKind::NetworkPolicy,
            },
            tier: "default".into(),
            order: Some(1.5),
            selector: Selector::all(),
            applies_ingress: true,
            applies_egress: false,
            ingress: vec![full(), Rule::any(Action::Pass)],
            egress: vec![simple],
            stage: Stage::PreDnat,
            apply_on_forward: true,
            staged: true,
            everywhere: true,
        };
        let mut pool = Pool::default();
        let kept = pool.keep(&policy);
        let rules = |rules: &[KeptRule]| rules.iter().map(KeptRule::rule).collect();
        let back = Policy {
            id: kept.id.clone(),
            tier: kept.tier.clone(),
            order: kept.order,
            selector: kept.selector.clone(),
            applies_ingress: kept.applies_ingress,
            applies_egress: kept.applies_egress,
            ingress: rules(&kept.ingress),
            egress: rules(&kept.egress),
            stage: kept.stage,
            apply_on_forward: kept.apply_on_forward,
            staged: kept.staged,
            everywhere: kept.everywhere,
        };
        assert_eq!(back, policy);
        let again = pool.keep(&policy);
        assert_eq!(kept, again);
        pool.drop_policy(&again);
        assert!(!pool.is_empty(), "the first is still kept");
        pool.drop_policy(&kept);
        assert!(pool.is_empty());
    }
}
