//! Where upstream keeps each kind in etcd, and in which form.
//!
//! Resources are kept as they are shown, at `/calico/resources/v3/projectcalico.org/<plural>/[<namespace>/]<name>`.
//! What address management writes is kept below `/calico/ipam/v2/` in an older form without metadata; the `/`
//! of a prefix is written `-` there, and names are made anew from the fields.

use ipam::{affinity_name, block_name, handle_name};
use ipnet::IpNet;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

const RESOURCES: &str = "/calico/resources/v3/projectcalico.org/";
const BLOCKS: &str = "/calico/ipam/v2/assignment/";
const CONFIG: &str = "/calico/ipam/v2/config";
const HANDLES: &str = "/calico/ipam/v2/handle/";
const HOSTS: &str = "/calico/ipam/v2/host/";
const VIRTUAL: &str = "/calico/ipam/v2/virtual/";

/// Kinds of policy carry their name in an annotation as well, as upstream writes and expects it.
const NAMED: [&str; 4] = [
    "networkpolicies",
    "globalnetworkpolicies",
    "stagednetworkpolicies",
    "stagedglobalnetworkpolicies",
];
const NAME_ANNOTATION: &str = "projectcalico.org/metadata";

/// Fields of the address management's configuration: as shown, and as kept.
const CONFIG_FIELDS: [(&str, &str); 2] =
    [("strictAffinity", "strict_affinity"), ("autoAllocateBlocks", "auto_allocate_blocks")];

/// A kind, as far as its place matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Resource,
    Block,
    Affinity,
    Handle,
    Config,
}

fn form(plural: &str) -> Form {
    match plural {
        "ipamblocks" => Form::Block,
        "blockaffinities" => Form::Affinity,
        "ipamhandles" => Form::Handle,
        "ipamconfigurations" => Form::Config,
        _ => Form::Resource,
    }
}

/// The kind of this name in URLs, if etcd keeps it.
pub(super) fn kind(plural: &str) -> Option<&'static api::Kind> {
    let ours = |kind: &&api::Kind| kind.group == "projectcalico.org" && kind.plural == plural;
    api::kinds().iter().find(ours)
}

/// The keys of a kind: from the first on, up to but without the second.
pub(super) fn range(plural: &str) -> (String, String) {
    range_in(plural, None)
}

/// The same, of one namespace if one is given; only resources are in namespaces.
pub(super) fn range_in(plural: &str, namespace: Option<&str>) -> (String, String) {
    let below = |prefix: &str| {
        let mut end = prefix.as_bytes().to_vec();
        // A slash, which is followed by a zero in ASCII.
        *end.last_mut().expect("prefixes are not empty") = b'0';
        (prefix.to_owned(), String::from_utf8(end).expect("ASCII"))
    };
    match form(plural) {
        Form::Resource => {
            let slash = namespace.map(|n| format!("{n}/")).unwrap_or_default();
            below(&format!("{RESOURCES}{plural}/{slash}"))
        }
        Form::Block => below(BLOCKS),
        Form::Handle => below(HANDLES),
        Form::Config => (CONFIG.into(), format!("{CONFIG}\0")),
        // Between them there are only affinities of hosts and of virtual nodes.
        Form::Affinity => (HOSTS.into(), below(VIRTUAL).1),
    }
}

/// Where the object is kept whose key in the API server is `projectcalico.org/<plural>/[<namespace>/]<name>`.
///
/// # Errors
/// If fields say another name, or none: what is kept without a name gets it from them.
pub(super) fn place(plural: &str, key: &str, value: &Value) -> Result<String, String> {
    let name = key.splitn(3, '/').nth(2).unwrap_or_default();
    let text = |field: &str| {
        let found = value["spec"][field].as_str().filter(|t| !t.is_empty() && !t.contains('/'));
        found.ok_or_else(|| format!("spec.{field}: a word is wanted"))
    };
    let block = || -> Result<IpNet, String> {
        let found = value["spec"]["cidr"].as_str().and_then(|text| text.parse().ok());
        found.ok_or_else(|| "spec.cidr: an address and a prefix length are wanted".to_owned())
    };
    let (raw, wanted) = match form(plural) {
        Form::Resource => return Ok(format!("{RESOURCES}{plural}/{name}")),
        Form::Block => {
            let cidr = block()?;
            (format!("{BLOCKS}{}", family_block(cidr)), block_name(cidr))
        }
        Form::Affinity => {
            let (node, cidr) = (text("node")?, block()?);
            let root = if value["spec"]["type"] == "virtual" { VIRTUAL } else { HOSTS };
            (format!("{root}{node}/{}", family_block(cidr)), affinity_name(node, cidr))
        }
        Form::Handle => {
            let id = text("handleID")?;
            (format!("{HANDLES}{id}"), handle_name(id))
        }
        Form::Config => (CONFIG.into(), "default".into()),
    };
    if name == wanted {
        return Ok(raw);
    }
    Err(format!("metadata.name: {name:?} is not what the fields say, which is {wanted:?}"))
}

/// From this length on a name of an affinity may have been cut.
const LONG: usize = 250;

/// Where the object may be that has this key in the API server; none if its name does not tell.
pub(super) fn places(plural: &str, key: &str) -> Option<Vec<String>> {
    let name = key.splitn(3, '/').nth(2).unwrap_or_default();
    match form(plural) {
        Form::Resource => Some(vec![format!("{RESOURCES}{plural}/{name}")]),
        Form::Block => Some(vec![format!("{BLOCKS}{}", family_block(parse_block_name(name)?))]),
        Form::Handle => Some(vec![format!("{HANDLES}{name}")]),
        Form::Config => Some(vec![CONFIG.into()]),
        // A long name of a node is cut, with a part of a digest instead.
        Form::Affinity if name.len() >= LONG => None,
        Form::Affinity => {
            let dashes = name.match_indices('-').map(|(at, _)| name.split_at(at));
            let blocks = dashes.filter_map(|(node, block)| {
                Some((node, family_block(parse_block_name(&block[1..])?)))
            });
            let both = |(node, block): (&str, String)| {
                [HOSTS, VIRTUAL].map(|root| format!("{root}{node}/{block}"))
            };
            Some(blocks.flat_map(both).collect())
        }
    }
}

/// `10-0-0-0-26` or `fd00--122`.
fn parse_block_name(name: &str) -> Option<IpNet> {
    let (address, length) = name.rsplit_once('-')?;
    let four = address.split('-').count() == 4 && !address.contains("--");
    let address = address.replace('-', if four { "." } else { ":" });
    format!("{address}/{length}").parse().ok()
}

/// `ipv4/block/10.0.0.0-26`.
fn family_block(cidr: IpNet) -> String {
    let family = if cidr.addr().is_ipv4() { "ipv4" } else { "ipv6" };
    format!("{family}/block/{}", cidr.to_string().replace('/', "-"))
}

fn parse_family_block(text: &str) -> Option<IpNet> {
    let (_, block) = text.split_once("/block/")?;
    block.replace('-', "/").parse().ok()
}

/// The bytes that are kept of an object.
pub(super) fn encode(plural: &str, value: &Value) -> Vec<u8> {
    let kept = match form(plural) {
        Form::Resource => {
            let mut kept = value.clone();
            if let Some(metadata) = kept["metadata"].as_object_mut() {
                metadata.shift_remove("resourceVersion");
                if NAMED.contains(&plural) {
                    let name = json!({"name": metadata["name"]}).to_string();
                    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
                    annotations[NAME_ANNOTATION] = name.into();
                }
            }
            kept
        }
        Form::Block => value["spec"].clone(),
        Form::Affinity => {
            json!({"state": value["spec"]["state"], "deleted": value["spec"]["deleted"] == true})
        }
        Form::Handle => {
            let spec = &value["spec"];
            json!({"block": spec["block"], "deleted": spec["deleted"] == true})
        }
        Form::Config => {
            let mut kept = value["spec"].clone();
            rename(&mut kept, CONFIG_FIELDS.iter().copied());
            kept
        }
    };
    kept.to_string().into_bytes()
}

fn rename<'a>(object: &mut Value, names: impl Iterator<Item = (&'a str, &'a str)>) {
    let Some(fields) = object.as_object_mut() else { return };
    for (from, to) in names {
        if let Some(value) = fields.shift_remove(from) {
            fields.insert(to.into(), value);
        }
    }
}

/// An object as the API server sees it: its key there, and itself. `created` is the revision that made it.
///
/// # Errors
/// What is wrong with the key or the value.
pub(super) fn decode(
    plural: &str,
    raw: &str,
    created: u64,
    bytes: &[u8],
) -> Result<(String, Value), String> {
    let value: Value = serde_json::from_slice(bytes).map_err(|e| format!("no JSON: {e}"))?;
    if !value.is_object() {
        return Err("wanted an object".into());
    }
    let kind = kind(plural).ok_or("no such kind")?;
    let stray = || "the key is not one of this kind".to_owned();
    let (name, value) = match form(plural) {
        Form::Resource => {
            let name = raw.strip_prefix(RESOURCES).and_then(|r| r.strip_prefix(plural));
            let name = name.and_then(|n| n.strip_prefix('/')).ok_or_else(stray)?;
            let name = shown_name(plural, name, &value);
            let value = resource(kind, &name, value).ok_or_else(stray)?;
            (name, value)
        }
        Form::Block => {
            let cidr = raw.strip_prefix(BLOCKS).and_then(parse_family_block).ok_or_else(stray)?;
            made(kind, block_name(cidr), raw, created, value)
        }
        Form::Affinity => {
            let (node_type, rest) = match (raw.strip_prefix(HOSTS), raw.strip_prefix(VIRTUAL)) {
                (Some(rest), _) => ("host", rest),
                (None, Some(rest)) => ("virtual", rest),
                (None, None) => return Err(stray()),
            };
            let (node, block) = rest.split_once('/').ok_or_else(stray)?;
            let cidr = parse_family_block(block).ok_or_else(stray)?;
            let spec = json!({"state": value["state"], "node": node, "type": node_type,
                "cidr": cidr.to_string(), "deleted": value["deleted"] == true});
            made(kind, affinity_name(node, cidr), raw, created, spec)
        }
        Form::Handle => {
            let id = raw.strip_prefix(HANDLES).filter(|id| !id.is_empty()).ok_or_else(stray)?;
            let spec = json!({"handleID": id, "block": value["block"],
                "deleted": value["deleted"] == true});
            made(kind, handle_name(id), raw, created, spec)
        }
        Form::Config => {
            let mut spec = value;
            rename(&mut spec, CONFIG_FIELDS.iter().map(|(shown, kept)| (*kept, *shown)));
            // A flag that is off is left out there.
            for (shown, _) in CONFIG_FIELDS {
                if spec.get(shown).is_none() {
                    spec[shown] = false.into();
                }
            }
            made(kind, "default".into(), raw, created, spec)
        }
    };
    Ok((format!("projectcalico.org/{plural}/{name}"), value))
}

/// A policy that is kept under another name than it is shown by: where it belongs, and its bytes there.
pub(super) fn renamed(plural: &str, raw: &str, bytes: &[u8]) -> Option<(String, Vec<u8>)> {
    let kind = kind(plural).filter(|_| NAMED.contains(&plural))?;
    let kept = raw.strip_prefix(RESOURCES)?.strip_prefix(plural)?.strip_prefix('/')?;
    let value: Value = serde_json::from_slice(bytes).ok().filter(Value::is_object)?;
    let shown = shown_name(plural, kept, &value);
    if shown == kept {
        return None;
    }
    let value = resource(kind, &shown, value)?;
    Some((format!("{RESOURCES}{plural}/{shown}"), encode(plural, &value)))
}

/// The kinds whose objects [`renamed`] looks at.
pub(super) fn named_kinds() -> [&'static str; 4] {
    NAMED
}

/// `[<namespace>/]<name>` as it is shown. Releases before v3.32 kept policies of the tier `default` with that tier's
/// name in front, and only there: an annotation says the name, or nothing does.
fn shown_name(plural: &str, kept: &str, value: &Value) -> String {
    let (namespace, name) = match kept.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, kept),
    };
    let tier = value["spec"]["tier"].as_str().unwrap_or_default();
    let plain = name.strip_prefix("default.").filter(|rest| !rest.is_empty());
    let Some(plain) = plain.filter(|_| NAMED.contains(&plural) && matches!(tier, "" | "default"))
    else {
        return kept.to_owned();
    };
    let note = value["metadata"]["annotations"][NAME_ANNOTATION].as_str();
    let note = note.and_then(|text| serde_json::from_str::<Value>(text).ok());
    let said = note.as_ref().and_then(|note| note["name"].as_str()).filter(|said| !said.is_empty());
    // What says something else is not about this prefix.
    let shown = said.filter(|said| *said == name || *said == plain).unwrap_or(plain);
    namespace.map_or_else(|| shown.to_owned(), |namespace| format!("{namespace}/{shown}"))
}

/// A resource, named by its key.
fn resource(kind: &api::Kind, name: &str, mut value: Value) -> Option<Value> {
    let (namespace, name) = match (kind.namespaced, name.split_once('/')) {
        (true, Some((namespace, name))) => (Some(namespace), name),
        (false, None) => (None, name),
        _ => return None,
    };
    if name.is_empty() || name.contains('/') {
        return None;
    }
    let fields = value.as_object_mut()?;
    fields.insert("apiVersion".into(), kind.api_version().into());
    fields.insert("kind".into(), kind.kind.into());
    let metadata = fields.entry("metadata").or_insert_with(|| json!({})).as_object_mut()?;
    metadata.insert("name".into(), name.into());
    if let Some(namespace) = namespace {
        metadata.insert("namespace".into(), namespace.into());
    }
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.shift_remove(NAME_ANNOTATION);
        if annotations.is_empty() {
            metadata.shift_remove("annotations");
        }
    }
    Some(value)
}

/// An object that is kept without metadata. It is the same one as long as nobody deletes it.
fn made(kind: &api::Kind, name: String, raw: &str, created: u64, spec: Value) -> (String, Value) {
    let digest = Sha256::new().chain_update(raw).chain_update(created.to_be_bytes()).finalize();
    let number = digest.iter().take(16).fold(0_u128, |n, byte| n << 8 | u128::from(*byte));
    let hex = format!("{number:032x}");
    let uid = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
    let mut metadata = Map::new();
    metadata.insert("name".into(), name.as_str().into());
    metadata.insert("uid".into(), uid.into());
    metadata.insert("creationTimestamp".into(), Value::Null);
    let value = json!({"apiVersion": kind.api_version(), "kind": kind.kind,
        "metadata": metadata, "spec": spec});
    (name, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kept where, as what, and back.
    fn there_and_back(plural: &str, name: &str, value: &Value, raw: &str, kept: &Value) -> Value {
        let key = format!("projectcalico.org/{plural}/{name}");
        assert_eq!(place(plural, &key, value).as_deref(), Ok(raw));
        let (from, to) = range(plural);
        assert!(*from <= *raw && *raw < *to, "{from} {raw} {to}");
        let places = places(plural, &key).unwrap();
        assert!(places.iter().any(|place| place.eq_ignore_ascii_case(raw)), "{places:?} {raw}");
        let bytes = encode(plural, value);
        assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), *kept);
        let (found, back) = decode(plural, raw, 7, &bytes).unwrap();
        assert_eq!(found, key);
        assert_eq!(back["spec"], value["spec"]);
        back
    }

    #[test]
    fn resources_are_kept_as_they_are() {
        let value = json!({"apiVersion": "projectcalico.org/v3", "kind": "NetworkSet",
            "metadata": {"name": "n", "namespace": "a", "uid": "u", "resourceVersion": "4"},
            "spec": {"nets": ["10.0.0.0/8"]}});
        let mut kept = value.clone();
        kept["metadata"].as_object_mut().unwrap().shift_remove("resourceVersion");
        let raw = "/calico/resources/v3/projectcalico.org/networksets/a/n";
        let back = there_and_back("networksets", "a/n", &value, raw, &kept);
        assert_eq!(back, kept);
    }

    #[test]
    fn policies_carry_their_name_for_upstream() {
        let value = json!({"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
            "metadata": {"name": "p"}, "spec": {"selector": "all()"}});
        let mut kept = value.clone();
        kept["metadata"]["annotations"] = json!({"projectcalico.org/metadata": "{\"name\":\"p\"}"});
        let raw = "/calico/resources/v3/projectcalico.org/globalnetworkpolicies/p";
        assert_eq!(there_and_back("globalnetworkpolicies", "p", &value, raw, &kept), value);
    }

    #[test]
    fn policies_lose_the_prefix_of_their_tier() {
        let root = "/calico/resources/v3/projectcalico.org";
        let note = |name: &str| json!({NAME_ANNOTATION: json!({"name": name}).to_string()});
        for (plural, kept, tier, annotations, shown) in [
            ("networkpolicies", "a/default.p", json!(null), json!({}), "a/p"),
            ("globalnetworkpolicies", "default.p", json!("default"), json!({}), "p"),
            ("globalnetworkpolicies", "default.p", json!("default"), note("p"), "p"),
            (
                "globalnetworkpolicies",
                "default.p",
                json!("default"),
                note("default.p"),
                "default.p",
            ),
            ("globalnetworkpolicies", "default.p", json!("net"), json!({}), "default.p"),
            ("globalnetworkpolicies", "net.p", json!("net"), json!({}), "net.p"),
            ("globalnetworkpolicies", "p", json!(null), json!({}), "p"),
            ("globalnetworksets", "default.p", json!(null), json!({}), "default.p"),
        ] {
            let raw = format!("{root}/{plural}/{kept}");
            let value = json!({"metadata": {"name": "x", "annotations": annotations}, "spec": {"tier": tier}});
            let bytes = value.to_string().into_bytes();
            let (key, read) = decode(plural, &raw, 1, &bytes).unwrap();
            assert_eq!(key, format!("projectcalico.org/{plural}/{shown}"), "{kept}");
            assert_eq!(read["metadata"]["name"], *shown.rsplit('/').next().unwrap());
            match renamed(plural, &raw, &bytes) {
                None => assert_eq!(kept, shown),
                Some((to, bytes)) => {
                    assert_eq!(to, format!("{root}/{plural}/{shown}"));
                    assert_eq!(decode(plural, &to, 1, &bytes).unwrap(), (key, read));
                    assert_eq!(renamed(plural, &to, &bytes), None, "once is enough");
                }
            }
        }
    }

    #[test]
    fn addresses_are_kept_in_the_older_form() {
        let spec = json!({"cidr": "10.65.0.64/26", "affinity": "host:n", "allocations": [null],
            "unallocated": [0], "attributes": [], "deleted": false});
        there_and_back(
            "ipamblocks",
            "10-65-0-64-26",
            &json!({"spec": spec}),
            "/calico/ipam/v2/assignment/ipv4/block/10.65.0.64-26",
            &spec,
        );
        for (node_type, root) in [("host", "host"), ("virtual", "virtual")] {
            let spec = json!({"state": "confirmed", "node": "n.x", "type": node_type,
                "cidr": "fd00:1::40/122", "deleted": false});
            there_and_back(
                "blockaffinities",
                "n.x-fd00-1--40-122",
                &json!({"spec": spec}),
                &format!("/calico/ipam/v2/{root}/n.x/ipv6/block/fd00:1::40-122"),
                &json!({"state": "confirmed", "deleted": false}),
            );
        }
        let spec = json!({"handleID": "k8s-pod-network.AB", "block": {"10.65.0.64/26": 1},
            "deleted": false});
        let back = there_and_back(
            "ipamhandles",
            "k8s-pod-network.ab",
            &json!({"spec": spec}),
            "/calico/ipam/v2/handle/k8s-pod-network.AB",
            &json!({"block": {"10.65.0.64/26": 1}, "deleted": false}),
        );
        assert_eq!(back["metadata"]["uid"].as_str().unwrap().len(), 36);
        let spec =
            json!({"maxBlocksPerHost": 3, "strictAffinity": true, "autoAllocateBlocks": true});
        there_and_back(
            "ipamconfigurations",
            "default",
            &json!({"spec": spec}),
            "/calico/ipam/v2/config",
            &json!({"maxBlocksPerHost": 3, "strict_affinity": true, "auto_allocate_blocks": true}),
        );
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        let root = "/calico/resources/v3/projectcalico.org";
        for (plural, raw, bytes) in [
            ("networksets", format!("{root}/networksets/n"), "{}"),
            ("networksets", format!("{root}/networksets/a/b/c"), "{}"),
            ("networksets", format!("{root}/networksets/a/"), "{}"),
            ("tiers", format!("{root}/tiers/a/b"), "{}"),
            ("tiers", format!("{root}/tiers/a"), "[]"),
            ("tiers", format!("{root}/tiers/a"), "{"),
            ("tiers", format!("{root}/tiers/a"), r#"{"metadata": 3}"#),
            ("ipamblocks", "/calico/ipam/v2/assignment/ipv4/block/x".into(), "{}"),
            ("ipamblocks", "/calico/ipam/v2/assignment/ipv4".into(), "{}"),
            ("blockaffinities", "/calico/ipam/v2/host/n".into(), "{}"),
            ("ipamhandles", "/calico/ipam/v2/handle/".into(), "{}"),
        ] {
            assert!(decode(plural, &raw, 1, bytes.as_bytes()).is_err(), "{raw} {bytes}");
        }
        let key = "projectcalico.org/ipamblocks/x";
        for (cidr, field) in [("x", "spec.cidr"), ("10.0.0.0/26", "metadata.name")] {
            let refused = place("ipamblocks", key, &json!({"spec": {"cidr": cidr}})).unwrap_err();
            assert!(refused.starts_with(field), "{refused}");
        }
    }

    #[test]
    fn ranges_do_not_overlap() {
        let ours = api::kinds().iter().filter(|kind| kind.group == "projectcalico.org");
        let mut ranges: Vec<_> = ours.map(|kind| range(kind.plural)).collect();
        ranges.sort();
        assert!(ranges.iter().all(|(from, to)| from < to));
        assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0));
    }
}
