//! What a collector of flows is told about a packet: which rule decided, in upstream's spelling (3.3).
//!
//! A text of at most 63 bytes: the action (allow, deny, pass), whose rule it is (policy or profile), the
//! direction, then the rule's index and the name of what it is in. Ingress goes to group 1, egress to 2.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use model::{Action, PolicyId, PolicyKind};
use sha2::{Digest, Sha256};

use crate::config::RulesConfig;
use crate::name::Direction;
use crate::object::Statement;

/// The kernel takes 64 with the zero at the end; texts as long as that are replaced, too, so that nobody
/// can name a policy such that it looks like a replaced one.
const LONGEST: usize = 63;
/// Bytes of a long text that are kept at each end.
const KEPT: usize = 10;
/// What stands in between.
const HASHED: usize = LONGEST - 2 * KEPT - 2;

/// Whose rule it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner<'a> {
    Policy(&'a PolicyId),
    Profile(&'a str),
}

/// Tells of a rule; none where nobody wants to know, or the action decides nothing.
pub(crate) fn of_rule(
    config: &RulesConfig,
    direction: Direction,
    (owner, index): (Owner<'_>, u32),
    action: Action,
) -> Option<Statement> {
    if !config.flow_logs {
        return None;
    }
    let (whose, name) = match owner {
        Owner::Policy(id) => ('P', policy(id)),
        Owner::Profile(name) => ('R', name.to_owned()),
    };
    let way = letter(direction);
    show(config, direction, &format!("{}{whose}{way}{index}|{name}", action_letter(action)?))
}

/// Tells of a tier whose policies decided nothing.
pub(crate) fn of_tier(
    config: &RulesConfig,
    direction: Direction,
    tier: &str,
    action: Action,
) -> Option<Statement> {
    let way = letter(direction);
    show(config, direction, &format!("{}P{way}|{tier}", action_letter(action)?))
}

/// Tells that no profile allowed it.
pub(crate) fn of_nobody(config: &RulesConfig, direction: Direction) -> Option<Statement> {
    show(config, direction, &format!("DR{}", letter(direction)))
}

fn show(config: &RulesConfig, direction: Direction, text: &str) -> Option<Statement> {
    let group = direction.choose(1, 2);
    config.flow_logs.then(|| Statement::Show { group, prefix: short(text) })
}

fn letter(direction: Direction) -> char {
    direction.choose('I', 'E')
}

fn action_letter(action: Action) -> Option<char> {
    match action {
        Action::Allow => Some('A'),
        Action::Deny => Some('D'),
        Action::Pass => Some('P'),
        Action::Log => None,
    }
}

fn policy(id: &PolicyId) -> String {
    let kind = match id.kind {
        PolicyKind::ClusterNetworkPolicy => "kcnp",
        PolicyKind::GlobalNetworkPolicy => "gnp",
        PolicyKind::KubernetesNetworkPolicy => "knp",
        PolicyKind::NetworkPolicy => "np",
        PolicyKind::StagedGlobalNetworkPolicy => "sgnp",
        PolicyKind::StagedKubernetesNetworkPolicy => "sknp",
        PolicyKind::StagedNetworkPolicy => "snp",
    };
    if id.namespace.is_empty() {
        format!("{kind}/{}", id.name)
    } else {
        format!("{kind}/{}/{}", id.namespace, id.name)
    }
}

fn short(text: &str) -> Arc<str> {
    if text.len() < LONGEST {
        return text.into();
    }
    let part = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (first, last) = (&text.as_bytes()[..KEPT], &text.as_bytes()[text.len() - KEPT..]);
    let hash = URL_SAFE_NO_PAD.encode(Sha256::digest(text.as_bytes()));
    format!("{}_{}_{}", part(first), &hash[..HASHED], part(last)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(kind: PolicyKind, namespace: &str, name: &str) -> PolicyId {
        PolicyId { kind, namespace: namespace.into(), name: name.into() }
    }

    fn told(of: Option<Statement>) -> (u16, String) {
        match of {
            Some(Statement::Show { group, prefix }) => (group, prefix.to_string()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_packet_is_told_by_the_rule_that_decided() {
        let config = RulesConfig { flow_logs: true, ..RulesConfig::default() };
        let np = id(PolicyKind::NetworkPolicy, "ns", "web");
        let gnp = id(PolicyKind::GlobalNetworkPolicy, "", "all");
        let rule = |direction, owner, action| told(of_rule(&config, direction, owner, action));
        let policy = |id| (Owner::Policy(id), 3);
        assert_eq!(
            rule(Direction::Ingress, policy(&np), Action::Allow),
            (1, "API3|np/ns/web".into())
        );
        assert_eq!(rule(Direction::Egress, policy(&gnp), Action::Pass), (2, "PPE3|gnp/all".into()));
        let profile = (Owner::Profile("kns.ns"), 0);
        assert_eq!(rule(Direction::Egress, profile, Action::Deny), (2, "DRE0|kns.ns".into()));
        let tier = of_tier(&config, Direction::Ingress, "default", Action::Deny);
        assert_eq!(told(tier), (1, "DPI|default".into()));
        assert_eq!(told(of_nobody(&config, Direction::Egress)), (2, "DRE".into()));
        let log = of_rule(&config, Direction::Egress, (Owner::Policy(&np), 3), Action::Log);
        assert_eq!(log, None, "it goes on");
        let silent = RulesConfig::default();
        assert_eq!(of_nobody(&silent, Direction::Egress), None);
    }

    #[test]
    fn long_texts_keep_their_ends() {
        assert_eq!(&*short(&"x".repeat(62)), "x".repeat(62));
        // The hash as openssl has it.
        let text = format!("API0|np/{}/last", "n".repeat(50));
        assert_eq!(
            &*short(&text),
            "API0|np/nn_Kg2HgzYMhKKbRRJd0MKXN47zitvOaYWrnazXXj_Iu_nnnnn/last"
        );
        assert_ne!(short(&text), short(&format!("API0|np/n{}/last", "n".repeat(50))));
        for length in 60..70 {
            assert!(short(&"é".repeat(length)).len() <= 2 * LONGEST, "no panic between letters");
        }
    }
}
