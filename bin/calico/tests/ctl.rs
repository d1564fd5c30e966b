//! calicoctl against the embedded API, and against etcd.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod embedded;
mod settings;

use embedded::Cluster;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

/// The words of a line of a table.
fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[test]
fn the_examples_are_applied_and_deleted() {
    let cluster = Cluster::start();
    cluster.namespace("my-namespace");
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
    let out = cluster.ctl(&format!("apply -f {examples}")).good();
    assert_eq!(lines(&out).last(), Some(&"Successfully applied 11 resource(s)"), "{out}");
    assert!(out.contains("GlobalNetworkPolicy default-deny-all created"), "{out}");
    let again = cluster.ctl(&format!("apply -f {examples}")).good();
    for line in lines(&again).iter().filter(|l| !l.starts_with("Node ")) {
        assert!(line.ends_with(" unchanged") || line.starts_with("Successfully"), "{again}");
    }
    // What a file says can be asked for, and given back.
    for form in ["yaml", "json"] {
        let shown = cluster.ctl(&format!("get -f {examples} -o {form}")).good();
        let out = cluster.feed("replace -f -", &shown).good();
        assert!(out.contains("Successfully replaced 11 resource(s)"), "{out}");
    }
    // A Node stays with its owner; that does not keep the others.
    cluster
        .ctl(&format!("delete -f {examples}"))
        .bad(1, &["a Node follows from other objects", "deleted 10 out of 11 resource(s)"]);
    for kind in ["gnp", "networkpolicy", "hep", "ippool", "bgppeer"] {
        assert_eq!(
            lines(&cluster.ctl(&format!("get {kind} -A -o name")).good()),
            [""; 0],
            "{kind}"
        );
    }
}

/// An object of every kind that is stored, and every word for the kind.
fn every_kind() -> Vec<(&'static str, Value, Vec<&'static str>)> {
    let rule =
        json!({"action": "Allow", "protocol": "TCP", "destination": {"ports": [80, "90:99"]}});
    vec![
        (
            "NetworkPolicy",
            json!({"selector": "all()", "ingress": [rule]}),
            vec!["networkpolicy", "networkpolicies", "policy", "np", "policies", "pol", "pols"],
        ),
        (
            "GlobalNetworkPolicy",
            json!({"order": 1.5, "egress": [rule]}),
            vec!["globalnetworkpolicy", "globalnetworkpolicies", "gnp", "gnps"],
        ),
        ("StagedNetworkPolicy", json!({"selector": "all()"}), vec!["stagednetworkpolicy", "snp"]),
        ("StagedGlobalNetworkPolicy", json!({"selector": "all()"}), vec!["sgnp"]),
        ("StagedKubernetesNetworkPolicy", json!({"podSelector": {}}), vec!["sknp"]),
        ("Tier", json!({"order": 10}), vec!["tier", "tiers"]),
        (
            "NetworkSet",
            json!({"nets": ["10.0.0.0/8", "fd00::/8"]}),
            vec!["networkset", "networksets", "netsets"],
        ),
        ("GlobalNetworkSet", json!({"nets": ["192.0.2.1/32"]}), vec!["globalnetworkset", "gns"]),
        (
            "HostEndpoint",
            json!({"node": "n", "interfaceName": "eth0", "expectedIPs": ["10.0.0.1"]}),
            vec!["hostendpoint", "hostendpoints", "hep", "heps"],
        ),
        (
            "IPPool",
            json!({"cidr": "10.9.0.0/16", "natOutgoing": true, "vxlanMode": "Always"}),
            vec!["ippool", "ippools", "ipp", "ipps", "pool", "pools"],
        ),
        (
            "IPReservation",
            json!({"reservedCIDRs": ["10.9.0.0/30"]}),
            vec!["ipreservation", "ipreservations", "reservation", "reservations"],
        ),
        (
            "BGPConfiguration",
            json!({"asNumber": 64_512}),
            vec!["bgpconfiguration", "bgpconfigurations", "bgpconfig", "bgpconfigs"],
        ),
        (
            "BGPPeer",
            json!({"peerIP": "192.0.2.3", "asNumber": 64_513}),
            vec!["bgppeer", "bgppeers", "bgpp", "bgpps", "bp", "bps"],
        ),
        (
            "BGPFilter",
            json!({"importV4": [{"cidr": "10.0.0.0/8", "matchOperator": "In", "action": "Accept"}]}),
            vec!["bgpfilter", "bgpfilters"],
        ),
        (
            "CalicoNodeStatus",
            json!({"node": "n", "classes": ["BGP"], "updatePeriodSeconds": 10}),
            vec!["caliconodestatus", "caliconodestatuses"],
        ),
        (
            "ClusterNetworkPolicy",
            json!({"tier": "Admin", "priority": 5, "subject": {"namespaces": {}},
                "ingress": [{"action": "Pass", "from": [{"namespaces": {}}]}]}),
            vec!["clusternetworkpolicy", "clusternetworkpolicies"],
        ),
        (
            "FelixConfiguration",
            json!({"logSeverityScreen": "Debug"}),
            vec!["felixconfiguration", "felixconfigurations", "felixconfig", "felixconfigs"],
        ),
        (
            "ClusterInformation",
            json!({"clusterType": "k8s", "datastoreReady": true}),
            vec!["clusterinformation", "clusterinformations", "clusterinfo", "clusterinfos"],
        ),
        (
            "IPAMConfiguration",
            json!({"strictAffinity": true, "autoAllocateBlocks": true}),
            vec!["ipamconfiguration", "ipamconfigurations", "ipamconfig"],
        ),
        (
            "IPAMBlock",
            json!({"cidr": "10.9.0.0/30", "affinity": "host:n", "allocations": [0, null, null, null],
            "unallocated": [1, 2, 3], "strictAffinity": false, "deleted": false,
            "attributes": [{"handle_id": "h", "secondary": {"node": "n"}}]}),
            vec!["ipamblock"],
        ),
        (
            "IPAMHandle",
            json!({"handleID": "h", "block": {"10.9.0.0/30": 1}, "deleted": false}),
            vec!["ipamhandle"],
        ),
        (
            "BlockAffinity",
            json!({"state": "confirmed", "node": "n", "cidr": "10.9.0.0/30", "deleted": false}),
            vec!["blockaffinity", "blockaffinities", "affinity", "affinities"],
        ),
    ]
}

#[test]
fn every_kind_is_written_shown_by_every_word_and_taken_back() {
    Cluster::each().iter().for_each(every_kind_on);
}

fn every_kind_on(cluster: &Cluster) {
    // etcd has nothing of Kubernetes', and names these by their fields.
    let other = ["ClusterNetworkPolicy", "IPAMBlock", "IPAMHandle", "BlockAffinity"];
    for (kind, spec, known) in every_kind() {
        if cluster.on_its_own() && other.contains(&kind) {
            continue;
        }
        let single = ["ClusterInformation", "IPAMConfiguration"].contains(&kind);
        let name = if single { "default" } else { "an-object" };
        let group = match kind {
            "ClusterNetworkPolicy" => "policy.networking.k8s.io",
            _ => "projectcalico.org",
        };
        let version = if group == "projectcalico.org" { "v3" } else { "v1alpha2" };
        let object = json!({
            "apiVersion": format!("{group}/{version}"), "kind": kind, "metadata": {"name": name}, "spec": spec,
        });
        let out = cluster.feed("apply -f -", &object.to_string()).good();
        assert!(out.ends_with(&format!("Successfully applied 1 '{kind}' resource(s)\n")), "{out}");
        for word in known {
            let out = cluster.ctl(&format!("get {word} {name} -o name")).good();
            let singular = kind.to_lowercase();
            assert_eq!(out, format!("{singular}.{group}/{name}\n"), "{word}");
        }
        let word = kind.to_lowercase();
        for form in ["yaml", "json"] {
            let shown = cluster.ctl(&format!("get {word} {name} -o {form}")).good();
            assert!(!shown.contains("managedFields"), "{shown}");
            let out = cluster.feed("replace -f -", &shown).good();
            assert!(out.contains("unchanged"), "{kind} {form}: {out}");
            let list = cluster.ctl(&format!("get {word} -A -o {form}")).good();
            assert!(list.contains(&format!("{kind}List")), "{list}");
            cluster.feed("apply -f -", &list).good();
            // What another cluster may take.
            let exported = cluster.ctl(&format!("get {word} {name} --export -o {form}")).good();
            assert!(
                !exported.contains("uid") && !exported.contains("resourceVersion"),
                "{exported}"
            );
            cluster.feed("apply -f -", &exported).good();
        }
        for form in ["ps", "wide"] {
            let table = cluster.ctl(&format!("get {word} -o {form}")).good();
            assert!(table.starts_with("NAME"), "{table}");
            assert!(lines(&table).iter().any(|l| words(l)[0] == name), "{table}");
        }
        let out = cluster.ctl(&format!("delete {word} {name}")).good();
        assert!(out.ends_with(&format!("Successfully deleted 1 '{kind}' resource(s)\n")), "{out}");
        cluster
            .ctl(&format!("get {word} {name}"))
            .bad(1, &[&format!("{kind} {name}: does not exist")]);
    }
}

fn policy(name: &str, order: u32) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: {name}}}\nspec: {{order: {order}, selector: all()}}\n"
    )
}

#[test]
fn files_of_every_form() {
    Cluster::each().iter().for_each(files_on);
}

fn files_on(cluster: &Cluster) {
    cluster.file(
        "several.yaml",
        format!("---\n{}---\n# nothing\n---\n{}", policy("a", 1), policy("b", 2)),
    );
    let out = cluster.ctl("apply -f several.yaml").good();
    assert_eq!(
        lines(&out),
        [
            "GlobalNetworkPolicy a created",
            "GlobalNetworkPolicy b created",
            "Successfully applied 2 'GlobalNetworkPolicy' resource(s)"
        ]
    );
    let one = |name: &str| {
        json!({"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
            "metadata": {"name": name}, "spec": {"order": 3}})
    };
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [one("c"), one("d")]});
    cluster.file("dir/list.json", list.to_string());
    cluster.file("dir/more/stream.json", format!("{}\n{}\n", one("e"), one("f")));
    cluster.file("dir/README.md", "no object");
    assert!(cluster.ctl("apply -f dir").good().contains("applied 2 "));
    let deep = cluster.ctl("apply -R -f dir").good();
    assert!(
        deep.contains("applied 4 ") && deep.contains("GlobalNetworkPolicy c unchanged"),
        "{deep}"
    );
    let both = cluster.feed("apply -f several.yaml -f -", &policy("b", 9)).good();
    assert!(both.contains("GlobalNetworkPolicy b configured"), "{both}");
    let table = cluster.ctl("get gnp -o wide").good();
    let b = lines(&table).into_iter().find(|l| l.starts_with("b ")).unwrap();
    assert_eq!(words(b), ["b", "default", "9", "all()"]);
    let names = cluster.ctl("get gnp -o name").good();
    let wanted: Vec<_> =
        "abcdef".chars().map(|c| format!("globalnetworkpolicy.projectcalico.org/{c}")).collect();
    assert_eq!(lines(&names), wanted);
    cluster.ctl("delete -f several.yaml").good();
    cluster.ctl("delete gnp c d").good();
    assert_eq!(lines(&cluster.ctl("get gnp -o name").good()).len(), 2);
}

#[test]
fn what_may_and_must_exist() {
    Cluster::each().iter().for_each(existence_on);
}

fn existence_on(cluster: &Cluster) {
    cluster.file("a.yaml", policy("a", 1));
    cluster.file("ab.yaml", format!("{}---\n{}", policy("a", 7), policy("b", 7)));
    let shown = || cluster.ctl("get gnp -o wide").good();
    cluster
        .ctl("replace -f a.yaml")
        .bad(1, &["a.yaml: document 1", "does not exist", "replaced 0 out of 1"]);
    let out = cluster.ctl("create -f a.yaml").good();
    assert!(out.ends_with("Successfully created 1 'GlobalNetworkPolicy' resource(s)\n"), "{out}");
    // What can be done is done; each that cannot is named.
    cluster
        .ctl("replace -f ab.yaml")
        .bad(1, &["ab.yaml: document 2", "does not exist", "replaced 1 out of 2"]);
    assert!(shown().contains("a      default   7"), "{}", shown());
    cluster
        .ctl("create -f ab.yaml")
        .bad(1, &["ab.yaml: document 1", "exists already", "created 1 out of 2"]);
    assert!(shown().contains("b      default   7"), "{}", shown());
    cluster.ctl("delete gnp b").good();
    cluster.feed("apply -f -", &policy("a", 1)).good();
    cluster.ctl("create -f ab.yaml --skip-exists").good();
    assert!(shown().contains("b      default   7"), "{}", shown());
    assert!(lines(&shown())[1].starts_with("a      default   1"), "{}", shown());
    cluster
        .feed("create -f -", &format!("{}---\n{}", policy("c", 1), policy("c", 2)))
        .bad(1, &["standard input: document 2", "409", "created 1 out of 2"]);
    // The last word counts where both are welcome.
    cluster.feed("apply -f -", &format!("{}---\n{}", policy("c", 1), policy("c", 2))).good();
    assert!(shown().contains("c      default   2"), "{}", shown());

    cluster
        .ctl("delete gnp b none")
        .bad(1, &["GlobalNetworkPolicy none: does not exist", "deleted 1 out of 2"]);
    cluster.ctl("delete gnp b --skip-not-exists").good();
    // A stale copy does not overwrite what somebody else wrote meanwhile.
    let old = cluster.ctl("get gnp a -o yaml").good();
    cluster.feed("apply -f -", &policy("a", 5)).good();
    cluster.feed("replace -f -", &old).bad(1, &["409"]);
    assert!(lines(&shown())[1].starts_with("a      default   5"), "{}", shown());
}

#[test]
fn namespaces() {
    let cluster = Cluster::start();
    cluster.namespace("one");
    cluster.namespace("two");
    let policy = "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: p}\n";
    cluster.file("p.yaml", policy);
    cluster.ctl("apply -f p.yaml").good();
    let out = cluster.ctl("apply -f p.yaml -n one").good();
    assert!(out.starts_with("NetworkPolicy one/p created"), "{out}");
    cluster
        .feed("apply -f - -n one", &policy.replace("{name: p}", "{name: q, namespace: two}"))
        .good();
    assert_eq!(lines(&cluster.ctl("get np -n one -o name").good()).len(), 1);
    let all = cluster.ctl("get np -A").good();
    let rows: Vec<_> = lines(&all).into_iter().map(words).collect();
    assert_eq!(rows[0], ["NAMESPACE", "NAME", "TIER"]);
    assert_eq!(
        rows[1..],
        [["default", "p", "default"], ["one", "p", "default"], ["two", "q", "default"]]
    );
    cluster.ctl("get np q -n one").bad(1, &["NetworkPolicy q: does not exist"]);
    cluster.ctl("get np -A -n one").bad(2, &["cannot be used with"]);
    cluster.ctl("apply -f p.yaml -n three").bad(1, &["p.yaml", "namespaces \"three\" not found"]);
    cluster.ctl("delete np p -n one").good();
    assert_eq!(lines(&cluster.ctl("get np -A -o name").good()).len(), 2);
}

#[test]
fn bad_input_names_its_place_and_changes_nothing() {
    Cluster::each().iter().for_each(bad_input_on);
}

fn bad_input_on(cluster: &Cluster) {
    let good = policy("good", 1);
    let bad = |field: &str| format!("{good}---\n{}", policy("bad", 1).replace("order: 1", field));
    let rows: &[(&str, String, &[&str])] = &[
        (
            "unknown.yaml",
            bad("ordr: 1"),
            &[
                "document 2: GlobalNetworkPolicy bad: spec.ordr: unknown field (did you mean order?)",
            ],
        ),
        ("type.yaml", bad("order: first"), &["document 2", "spec.order: want a number"]),
        ("twice.yaml", bad("order: 1, order: 2"), &["document 2: line 9, column", "order"]),
        ("selector.yaml", bad("namespaceSelector: 'a =='"), &["spec.namespaceSelector"]),
        (
            "rule.yaml",
            bad("ingress: [{action: Allow, protocol: TCP, destination: {ports: [70000]}}]"),
            &["document 2", "spec.ingress[0].destination.ports[0]", "out of range"],
        ),
        (
            "net.yaml",
            bad("ingress: [{action: Allow, source: {nets: [10.0.0.0/33]}}]"),
            &["spec.ingress[0].source.nets[0]"],
        ),
        ("open.yaml", bad("order: [1"), &["document 2: line"]),
        (
            "kind.yaml",
            good.clone() + "---\n" + &policy("x", 1).replace("GlobalNetworkPolicy", "GlobalPolicy"),
            &["document 2", "kind: projectcalico.org/v3 has no \"GlobalPolicy\""],
        ),
        (
            "version.yaml",
            good.clone() + "---\n" + &policy("x", 1).replace("/v3", "/v9"),
            &[
                "apiVersion: \"projectcalico.org/v9\" has no GlobalNetworkPolicy (want projectcalico.org/v3)",
            ],
        ),
        (
            "name.yaml",
            good.clone() + "---\n" + &policy(&"x".repeat(254), 1),
            &["metadata.name", "at most 253"],
        ),
        (
            "number.yaml",
            good.clone() + "---\n" + &policy("5", 1),
            &["metadata.name: want text, got 5"],
        ),
        ("text.yaml", good.clone() + "---\njust text\n", &["document 2: want an object"]),
        ("deep.yaml", good.clone() + "---\n" + &"[".repeat(50_000), &["document 2: line"]),
        (
            "nested.json",
            format!("{}1{}", "{\"a\":".repeat(20_000), "}".repeat(20_000)),
            &["document 1: line"],
        ),
        (
            "broken.json",
            "{\"apiVersion\": \"v1\",\n \"kind\": \"x\" \"y\"}".into(),
            &["document 1: line 2, column"],
        ),
        (
            "namespaced.yaml",
            good.replace("{name: good}", "{name: good, namespace: a}"),
            &["metadata.namespace: GlobalNetworkPolicy is cluster-wide"],
        ),
    ];
    for (file, text, parts) in rows {
        cluster.file(file, text);
        for verb in ["apply", "create"] {
            let said = cluster.ctl(&format!("{verb} -f {file}"));
            let named = format!("{file}: ");
            said.bad(1, &[parts, &[&*named, "nothing was changed"][..]].concat());
        }
        cluster.ctl(&format!("validate -f {file}")).bad(1, parts);
    }
    cluster.file("binary.yaml", [b"a: 1\n".as_slice(), &[0xff, 0xfe, 0, 1]].concat());
    cluster
        .ctl("apply -f binary.yaml")
        .bad(1, &["binary.yaml: document 1: line 2: byte 5 is no UTF-8"]);
    cluster.file("empty.yaml", "---\n# nothing\n---\n");
    cluster.ctl("apply -f empty.yaml").bad(1, &["empty.yaml: holds no object"]);
    cluster.ctl("apply -f missing.yaml").bad(1, &["missing.yaml", "No such file"]);
    cluster.file("dir/a-good.yaml", &good);
    cluster.file("dir/b-bad.yaml", bad("ordr: 1"));
    cluster.ctl("apply -f dir").bad(1, &["dir/b-bad.yaml: document 2", "nothing was changed"]);
    assert_eq!(cluster.ctl("get gnp -o name").good(), "");
    if cluster.on_its_own() {
        return; // any word is a namespace
    }
    // What only the cluster knows stops one object, not the others.
    let elsewhere = "apiVersion: projectcalico.org/v3\nkind: NetworkSet\nmetadata: {name: x, namespace: nowhere}\n";
    cluster.feed("apply -f -", &format!("{elsewhere}---\n{good}")).bad(
        1,
        &[
            "standard input: document 1: NetworkSet nowhere/x",
            "\"nowhere\" not found",
            "applied 1 out of 2",
        ],
    );
    assert!(cluster.ctl("get gnp -o name").good().ends_with("/good\n"));
    for (args, part) in [
        ("apply", "no file given"),
        ("delete", "no file given"),
        ("delete gnp", "want the name"),
        ("delete gnp x -f dir", "not both"),
        ("get", "Usage"),
        ("get gnp -o xml", "xml"),
        ("apply -f dir --force", "--force"),
    ] {
        cluster.ctl(args).bad(2, &[part]);
    }
}

#[test]
fn derived_kinds() {
    let cluster = Cluster::start();
    let pod = json!({
        "metadata": {"name": "web", "annotations": {"cni.projectcalico.org/podIPs": "10.9.0.1/32"}},
        "spec": {"nodeName": "node-1", "containers": [{"name": "c", "image": "web"}]},
    });
    cluster.create::<Pod>(Some("default"), pod);
    let table = cluster.ctl("get wep").good();
    let rows: Vec<_> = lines(&table).into_iter().map(words).collect();
    assert_eq!(rows[0], ["WORKLOAD", "NODE", "NETWORKS", "INTERFACE"]);
    assert_eq!(rows[1][..3], ["web", "node-1", "10.9.0.1/32"]);
    assert!(rows[1][3].starts_with("cali") && rows[1][3].len() == 15, "{table}");
    let name = cluster.ctl("get weps -A -o name").good();
    let name = name.trim().rsplit('/').next().unwrap().to_owned();
    let one = cluster.ctl(&format!("get workloadendpoint {name} -o json")).good();
    let one: Value = serde_json::from_str(&one).unwrap();
    assert_eq!((&one["kind"], &one["spec"]["pod"]), (&json!("WorkloadEndpoint"), &json!("web")));
    let profiles = cluster.ctl("get profile -o name").good();
    for wanted in ["projectcalico-default-allow", "kns.default", "ksa.default.default"] {
        let line = format!("profile.projectcalico.org/{wanted}");
        assert!(lines(&profiles).contains(&&*line), "{profiles}");
    }
    cluster.ctl("get profile kns.none").bad(1, &["Profile kns.none: does not exist"]);
    cluster.ctl("delete profile kns.default").bad(1, &["follows from other objects"]);
}

#[test]
fn addresses() {
    Cluster::each().iter().for_each(addresses_on);
}

fn addresses_on(cluster: &Cluster) {
    cluster.feed("apply -f -", "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: p}\nspec: {cidr: 10.9.0.0/24, blockSize: 30}\n").good();
    let block = every_kind().into_iter().find(|k| k.0 == "IPAMBlock").unwrap().1;
    let object = json!({"apiVersion": "projectcalico.org/v3", "kind": "IPAMBlock",
        "metadata": {"name": "10-9-0-0-30"}, "spec": block});
    cluster.feed("apply -f -", &object.to_string()).good();
    let shown = cluster.ctl("ipam show --show-blocks").good();
    let rows: Vec<Vec<&str>> = lines(&shown)
        .into_iter()
        .filter(|l| l.starts_with("| "))
        .map(|l| l.split('|').map(str::trim).filter(|c| !c.is_empty()).collect())
        .collect();
    assert_eq!(
        rows[0],
        ["GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "RESERVED", "IPS FREE"],
        "{shown}"
    );
    assert_eq!(rows[1][..4], ["IP Pool", "10.9.0.0/24", "256", "1 (0%)"], "{shown}");
    assert_eq!(rows[2][..4], ["Block", "10.9.0.0/30", "4", "1 (25%)"], "{shown}");
    assert_eq!(cluster.ctl("ipam show").good().lines().filter(|l| l.contains("Block")).count(), 0);
    let of = cluster.ctl("ipam show --ip 10.9.0.0").good();
    assert!(of.contains("IP 10.9.0.0 is in use") && of.contains("Handle: h"), "{of}");
    assert!(cluster.ctl("ipam show --ip 10.9.0.1").good().contains("is not currently assigned"));
    assert!(cluster.ctl("ipam show --show-configuration").good().contains("StrictAffinity"));
    cluster.ctl("ipam show --ip 10.9.0").bad(2, &["10.9.0"]);
}

#[test]
fn versions_and_a_server_that_is_not_there() {
    let cluster = Cluster::start();
    cluster.feed("apply -f -", "apiVersion: projectcalico.org/v3\nkind: ClusterInformation\nmetadata: {name: default}\nspec: {calicoVersion: v9.8.7, clusterType: \"k8s,bgp\"}\n").good();
    let shown = cluster.ctl("version").good();
    assert!(shown.contains("Cluster Version:   v9.8.7\nCluster Type:      k8s,bgp"), "{shown}");
    let client = cluster.ctl("version --client").good();
    assert_eq!(lines(&client).len(), 1);
    let home = cluster.home;
    let embedded::Datastore::Embedded(server) = cluster.datastore else { unreachable!() };
    let kubeconfig = server.kubeconfig_file.clone();
    server.stop();
    let mut command = embedded::calico(home.path());
    command.args(["ctl", "get", "gnp"]).env("KUBECONFIG", kubeconfig);
    embedded::run(command, "").bad(1, &["cannot reach the cluster"]);
}

const POOL: &str = r#"{"apiVersion": "projectcalico.org/v3", "kind": "IPPool", "metadata": {"name": "p"},
    "spec": {"cidr": "10.9.0.0/16", "vxlanMode": "Always"}}"#;

#[test]
fn objects_are_patched() {
    Cluster::each().iter().for_each(patches_on);
}

fn patches_on(cluster: &Cluster) {
    cluster.feed("apply -f -", POOL).good();
    let spec = |path: &str| {
        let shown = cluster.ctl("get ippool p -o json").good();
        let value: Value = serde_json::from_str(&shown).unwrap();
        value.pointer(path).cloned().unwrap_or_default()
    };
    let out = cluster.ctl(r#"patch ippool p -p {"spec":{"natOutgoing":true}}"#).good();
    assert_eq!(lines(&out), ["IPPool p patched", "Successfully patched 1 'IPPool' resource"]);
    assert_eq!(spec("/spec/natOutgoing"), true);
    let text = "patch pool p --type merge --patch spec:{natOutgoing:null}";
    cluster.ctl(text).bad(2, &["want an object"]); // YAML has a space there
    for (words, path, want) in [
        (r#"-t merge -p {"spec":{"disabled":true}}"#, "/spec/disabled", json!(true)),
        (r#"-p {"spec":{"natOutgoing":null}}"#, "/spec/natOutgoing", Value::Null),
        (
            r#"-t json -p [{"op":"add","path":"/metadata/labels","value":{"a":"b"}}]"#,
            "/metadata/labels/a",
            json!("b"),
        ),
    ] {
        cluster.ctl(&format!("patch ippool p {words}")).good();
        assert_eq!(spec(path), want, "{words}");
    }
    let taken = "--allow-version-mismatch -l debug"; // what scripts for upstream's tool give
    let again =
        cluster.ctl(&format!(r#"patch ippool p -p {{"spec":{{"disabled":true}}}} {taken}"#)).good();
    assert_eq!(lines(&again)[0], "IPPool p unchanged");
    let endpoint =
        if cluster.on_its_own() { "does not exist" } else { "follows from other objects" };
    for (words, code, said) in [
        (r#"ippool p -p {"spec":{"cidr":"10.8.0.0/16"}}"#, 1, "spec.cidr: cannot be changed"),
        (r#"ippool p -p {"spec":{"natOutgoin":true}}"#, 1, "spec.natOutgoin"),
        (r#"ippool p -p {"metadata":{"name":"q"}}"#, 1, "metadata.name cannot be changed"),
        (r#"ippool q -p {"spec":{}}"#, 1, "IPPool q: does not exist"),
        (r#"wep p -p {"spec":{}}"#, 1, endpoint),
        ("ippool p -p [1]", 2, "want an object"),
        (r#"ippool p -t json -p {"spec":{}}"#, 2, "a list of operations"),
        ("ippool p -p {", 2, "neither JSON nor YAML"),
        (r#"ippool p -t json -p [{"op":"remove","path":"/spec/none"}]"#, 1, "IPPool p"),
    ] {
        cluster.ctl(&format!("patch {words}")).bad(code, &[said]);
    }
    // A Node is kept in the core Node's annotations.
    cluster
        .feed(
            "apply -f -",
            r#"{"apiVersion": "projectcalico.org/v3", "kind": "Node", "metadata": {"name": "n"},
        "spec": {"bgp": {"ipv4Address": "10.0.0.1/24", "asNumber": 64512}}}"#,
        )
        .good();
    let cluster_id = r#"{"spec":{"bgp":{"routeReflectorClusterID":"244.0.0.1","asNumber":null}}}"#;
    cluster.ctl(&format!("patch node n -p {cluster_id}")).good();
    let node: Value = serde_json::from_str(&cluster.ctl("get node n -o json").good()).unwrap();
    assert_eq!(node["spec"]["bgp"]["routeReflectorClusterID"], "244.0.0.1", "{node}");
    assert_eq!(node["spec"]["bgp"]["ipv4Address"], "10.0.0.1/24", "{node}");
    assert!(node["spec"]["bgp"].get("asNumber").is_none(), "{node}");
}

#[test]
fn labels_come_and_go() {
    Cluster::each().iter().for_each(labels_on);
}

fn labels_on(cluster: &Cluster) {
    cluster.feed("apply -f -", POOL).good();
    cluster
        .feed(
            "apply -f -",
            r#"{"apiVersion": "projectcalico.org/v3", "kind": "Node", "metadata": {"name": "n"}}"#,
        )
        .good();
    for (kind, name) in [("ippool", "p"), ("node", "n")] {
        let label = |words: &str| cluster.ctl(&format!("label {kind} {name} {words}"));
        let labels = || {
            let shown = cluster.ctl(&format!("get {kind} {name} -o json")).good();
            let value: Value = serde_json::from_str(&shown).unwrap();
            value["metadata"]["labels"]["rack"].clone()
        };
        assert!(label("rack=r1").good().starts_with("Successfully set label rack on "));
        assert!(label("rack=r1").good().starts_with("Successfully kept label"));
        label("rack=r2").bad(1, &["has label rack=r1 already", "--overwrite"]);
        assert!(label("rack=r2 --overwrite").good().starts_with("Successfully updated label"));
        assert_eq!(labels(), "r2");
        assert!(label("rack --remove").good().starts_with("Successfully removed label rack from"));
        assert_eq!(labels(), Value::Null);
        label("rack --remove").bad(1, &["has no label rack"]);
        label("rack").bad(2, &["KEY=VALUE"]);
        label("rack=r1 --remove").bad(2, &["without a value"]);
    }
    cluster.ctl("label ippool q a=b").bad(1, &["IPPool q: does not exist"]);
}

#[test]
fn columns_are_chosen() {
    Cluster::each().iter().for_each(columns_on);
}

fn columns_on(cluster: &Cluster) {
    cluster.feed("apply -f -", POOL).good();
    let out = cluster.ctl("get ippools -o custom-columns=name,CIDR,MODE:.spec.vxlanMode").good();
    let rows: Vec<_> = lines(&out).into_iter().map(words).collect();
    assert_eq!(rows, [["NAME", "CIDR", "MODE"], ["p", "10.9.0.0/16", "Always"]]);
    cluster.ctl("get ippools -o custom-columns=nothing").bad(2, &["no column \"nothing\"", "CIDR"]);
    cluster.ctl("get ippools -o go-templat={{.}}").bad(2, &["custom-columns", "go-template"]);
}

#[test]
fn a_datastore_is_taken_to_another_cluster() {
    let (old, new) = (Cluster::start(), Cluster::start());
    let mut kinds = every_kind();
    // That is Kubernetes' own, and goes with Kubernetes' own tools.
    kinds.retain(|(kind, ..)| *kind != "ClusterNetworkPolicy");
    for (kind, spec, _) in &kinds {
        let name = if ["IPAMConfiguration", "KubeControllersConfiguration", "ClusterInformation"]
            .contains(kind)
        {
            "default"
        } else {
            "one"
        };
        let object = json!({"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": {"name": name, "labels": {"a": "b"}}, "spec": spec});
        old.feed("apply -f -", &object.to_string()).good();
    }
    old.feed(
        "apply -f -",
        r#"{"apiVersion": "projectcalico.org/v3", "kind": "Node", "metadata": {"name": "n"},
        "spec": {"bgp": {"ipv4Address": "10.0.0.1/24", "asNumber": 64512}}}"#,
    )
    .good();
    let info = r#"{"apiVersion": "projectcalico.org/v3", "kind": "ClusterInformation", "metadata": {"name": "default"}, "spec": {"datastoreReady": true}}"#;
    old.feed("apply -f -", info).good();
    old.ctl("datastore migrate export").bad(1, &["is not locked", "migrate lock"]);
    assert!(old.ctl("datastore migrate lock").good().starts_with("Datastore locked"));
    let exported = old.ctl("datastore migrate export").good();
    assert!(!exported.contains("resourceVersion") && !exported.contains("uid:"), "{exported}");
    new.ctl("datastore migrate lock").bad(1, &["ClusterInformation default"]);
    new.feed("datastore migrate import -f -", &exported).good();
    for words in ["-A", "-A -o wide"] {
        for (kind, ..) in &kinds {
            let get = format!("get {kind} {words}");
            assert_eq!(new.ctl(&get).good(), old.ctl(&get).good(), "{kind}");
        }
    }
    let again = new.ctl("datastore migrate export").good();
    assert_eq!(again, exported);
    assert!(new.ctl("datastore migrate unlock").good().starts_with("Datastore unlocked"));
    new.ctl("datastore migrate export").bad(1, &["is not locked"]);
    let broken = exported.replacen("cidr: ", "cidr: x", 1);
    new.feed("datastore migrate import -f -", &broken).bad(1, &["cidr", "nothing was changed"]);
}

#[test]
fn shells_complete() {
    for shell in ["bash", "zsh", "fish"] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_calico"));
        let output = command.args(["ctl", "completion", shell]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains("preflight"), "{shell}: {text}");
    }
}
