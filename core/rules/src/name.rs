//! Names that people recognise and can type after `nft list chain ip calico`.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use model::output::{SetId, SetKind};
use model::{IfaceName, PolicyId, PolicyKind, ProfileName};
use sha2::{Digest, Sha256};

use crate::object::Name;

/// The kernel allows 255 bytes; more than this is no help to anybody.
const LONGEST: usize = 96;

/// Rules for traffic to endpoints, or from them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Direction {
    /// To the endpoint.
    Ingress,
    /// From the endpoint.
    Egress,
}

impl Direction {
    pub(crate) const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    pub(crate) fn choose<T>(self, ingress: T, egress: T) -> T {
        match self {
            Self::Ingress => ingress,
            Self::Egress => egress,
        }
    }

    pub(crate) fn word(self) -> &'static str {
        self.choose("ingress", "egress")
    }
}

/// `prefix` and `text`; replaced or cut text is told apart by a hash of the original.
fn readable(prefix: &str, text: &str) -> Name {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.len() <= LONGEST && text.chars().all(good) {
        return format!("{prefix}{text}").into();
    }
    let hash = short_hash(text);
    let safe = text.chars().map(|c| if good(c) { c } else { '_' });
    let safe: String = safe.take(LONGEST - hash.len()).collect();
    // `/` cannot be in a readable name that was kept as it is, so this name is nobody else's.
    format!("{prefix}{safe}/{hash}").into()
}

fn short_hash(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(&Sha256::digest(text.as_bytes())[..9])
}

/// Chain of a policy's rules.
pub(crate) fn policy(direction: Direction, id: &PolicyId) -> Name {
    let kind = match id.kind {
        PolicyKind::ClusterNetworkPolicy => "cnp",
        PolicyKind::GlobalNetworkPolicy => "gnp",
        PolicyKind::KubernetesNetworkPolicy => "knp",
        PolicyKind::NetworkPolicy => "np",
        PolicyKind::StagedGlobalNetworkPolicy => "sgnp",
        PolicyKind::StagedKubernetesNetworkPolicy => "sknp",
        PolicyKind::StagedNetworkPolicy => "snp",
    };
    let text = if id.namespace.is_empty() {
        format!("{kind}.{}", id.name)
    } else {
        format!("{kind}.{}.{}", id.namespace, id.name)
    };
    readable(direction.choose("pi-", "po-"), &text)
}

/// Chain of a profile's rules.
pub(crate) fn profile(direction: Direction, name: &ProfileName) -> Name {
    readable(direction.choose("pri-", "pro-"), name.as_str())
}

/// Chain of the tiers of pods: to them, or from them. `content` is everything that decides about
/// their packets; `hint` is what a person may know them by.
pub(crate) fn workloads(direction: Direction, hint: &str, content: &str) -> Name {
    let hash = short_hash(content);
    readable(direction.choose("tw-", "fw-"), &format!("{hint}.{hash}"))
}

/// Chain of a pod's extra source prefixes.
pub(crate) fn extra_sources(iface: &IfaceName) -> Name {
    readable("src-", iface.as_str())
}

/// Chain of a host endpoint's policy; `prefix` says where.
pub(crate) fn host(prefix: &str, name: &Arc<str>) -> Name {
    readable(prefix, name)
}

/// A calculated set in a form: `form` tells hash sets, interval sets and their capacities apart, so
/// that a set that changes its form is a new set.
pub(crate) fn set(id: &SetId, form: &str) -> Name {
    let text: String = id.replace(':', "-");
    readable("", &format!("{}.{form}", text.get(..36).unwrap_or(&text)))
}

/// A set that many calculated sets share.
pub(crate) fn shared(kind: SetKind, shard: u8) -> Name {
    let what = match kind {
        SetKind::Net => "members",
        SetKind::IpPort => "port-members",
    };
    format!("{what}-{shard:02x}").into()
}
