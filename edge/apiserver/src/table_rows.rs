//! The cells of Kubernetes' own kinds, and how cells are read from objects.

use serde_json::{Value, json};

/// Name, type, priority, and how the cell is made.
type Row = (&'static str, &'static str, i64, fn(&Value) -> Value);

const NONE: &str = "<none>";
const UNSET: &str = "<unset>";

#[rustfmt::skip]
const PODS: &[Row] = &[
    ("Ready", "string", 0, pod_ready), ("Status", "string", 0, pod_state),
    ("Restarts", "string", 0, pod_restarts), ("Age", "string", 0, created),
    ("IP", "string", 1, |p| text_or(&p["status"]["podIP"], NONE)),
    ("Node", "string", 1, |p| text_or(&p["spec"]["nodeName"], NONE)),
    ("Nominated Node", "string", 1, |p| text_or(&p["status"]["nominatedNodeName"], NONE)),
    ("Readiness Gates", "string", 1, |_| NONE.into()),
];
#[rustfmt::skip]
const NODES: &[Row] = &[
    ("Status", "string", 0, node_state), ("Roles", "string", 0, node_roles), ("Age", "string", 0, created),
    ("Version", "string", 0, |n| text_or(&n["status"]["nodeInfo"]["kubeletVersion"], "")),
    ("Internal-IP", "string", 1, |n| node_address(n, "InternalIP")),
    ("External-IP", "string", 1, |n| node_address(n, "ExternalIP")),
    ("OS-Image", "string", 1, |n| text_or(&n["status"]["nodeInfo"]["osImage"], "<unknown>")),
    ("Kernel-Version", "string", 1, |n| text_or(&n["status"]["nodeInfo"]["kernelVersion"], "<unknown>")),
    ("Container-Runtime", "string", 1, |n| text_or(&n["status"]["nodeInfo"]["containerRuntimeVersion"], "<unknown>")),
];
#[rustfmt::skip]
const NAMESPACES: &[Row] =
    &[("Status", "string", 0, |n| text_or(&n["status"]["phase"], "")), ("Age", "string", 0, created)];
#[rustfmt::skip]
const SERVICES: &[Row] = &[
    ("Type", "string", 0, |s| text_or(&s["spec"]["type"], "")),
    ("Cluster-IP", "string", 0, |s| text_or(&s["spec"]["clusterIP"], NONE)),
    ("External-IP", "string", 0, |s| joined(&s["spec"]["externalIPs"], NONE)),
    ("Port(s)", "string", 0, service_ports), ("Age", "string", 0, created),
    ("Selector", "string", 1, |s| pairs(&s["spec"]["selector"])),
];
#[rustfmt::skip]
const SLICES: &[Row] = &[
    ("AddressType", "string", 0, |s| text_or(&s["addressType"], "")),
    ("Ports", "string", 0, |s| several(&s["ports"], UNSET, |p| p["port"].to_string())),
    ("Endpoints", "string", 0, |s| several(&s["endpoints"], UNSET, |e| plain(&e["addresses"][0]))),
    ("Age", "string", 0, created),
];
#[rustfmt::skip]
const EVENTS: &[Row] = &[
    ("Last Seen", "string", 0, event_seen), ("Type", "string", 0, |e| text_or(&e["type"], "")),
    ("Reason", "string", 0, |e| text_or(&e["reason"], "")), ("Object", "string", 0, event_object),
    ("Subobject", "string", 1, |e| text_or(&e["involvedObject"]["fieldPath"], "")),
    ("Source", "string", 1, |e| text_or(&e["source"]["component"], "")),
    ("Message", "string", 0, event_message),
    ("First Seen", "string", 1, |e| time_or(&e["firstTimestamp"], "<unknown>")),
    ("Count", "string", 1, |e| e["count"].as_i64().unwrap_or(1).to_string().into()),
];
#[rustfmt::skip]
const POLICIES: &[Row] = &[
    ("Pod-Selector", "string", 0, |p| pod_selector(&p["spec"]["podSelector"])), ("Age", "string", 0, created),
];
#[rustfmt::skip]
const ACCOUNTS: &[Row] = &[
    ("Secrets", "string", 0, |a| a["secrets"].as_array().map_or(0, Vec::len).into()), ("Age", "string", 0, created),
];
#[rustfmt::skip]
const CONFIGMAPS: &[Row] = &[
    ("Data", "string", 0, |c| (size(&c["data"]) + size(&c["binaryData"])).into()), ("Age", "string", 0, created),
];
#[rustfmt::skip]
const SECRETS: &[Row] = &[
    ("Type", "string", 0, |s| text_or(&s["type"], "")),
    ("Data", "string", 0, |s| size(&s["data"]).into()), ("Age", "string", 0, created),
];
#[rustfmt::skip]
const ENDPOINTS: &[Row] = &[("Endpoints", "string", 0, endpoints), ("Age", "string", 0, created)];
#[rustfmt::skip]
const LEASES: &[Row] = &[
    ("Holder", "string", 0, |l| text_or(&l["spec"]["holderIdentity"], "")), ("Age", "string", 0, created),
];
#[rustfmt::skip]
const DEFINITIONS: &[Row] = &[
    ("Created At", "date", 0, |d| d["metadata"]["creationTimestamp"].clone()),
];

/// The columns of a built-in resource after its name.
pub(crate) fn builtin(group: &str, plural: &str) -> Option<&'static [Row]> {
    match (group, plural) {
        ("", "pods") => Some(PODS),
        ("", "nodes") => Some(NODES),
        ("", "namespaces") => Some(NAMESPACES),
        ("", "services") => Some(SERVICES),
        ("", "serviceaccounts") => Some(ACCOUNTS),
        ("", "configmaps") => Some(CONFIGMAPS),
        ("", "secrets") => Some(SECRETS),
        ("", "endpoints") => Some(ENDPOINTS),
        ("", "events") => Some(EVENTS),
        ("discovery.k8s.io", "endpointslices") => Some(SLICES),
        ("networking.k8s.io", "networkpolicies") => Some(POLICIES),
        ("coordination.k8s.io", "leases") => Some(LEASES),
        ("apiextensions.k8s.io", "customresourcedefinitions") => Some(DEFINITIONS),
        _ => None,
    }
}

fn text_or(value: &Value, other: &str) -> Value {
    value.as_str().filter(|text| !text.is_empty()).unwrap_or(other).into()
}

fn time_or(value: &Value, other: &str) -> Value {
    value.as_str().map_or_else(|| other.to_owned(), age).into()
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn size(value: &Value) -> usize {
    value.as_object().map_or(0, serde_json::Map::len)
}

fn created(object: &Value) -> Value {
    time_or(&object["metadata"]["creationTimestamp"], "<unknown>")
}

fn joined(values: &Value, none: &str) -> Value {
    let texts: Vec<_> = list(values).map(plain).collect();
    if texts.is_empty() { none.into() } else { texts.join(",").into() }
}

/// The first three, and how many more there are.
fn several(values: &Value, none: &str, text: impl Fn(&Value) -> String) -> Value {
    let texts: Vec<_> = list(values).map(text).collect();
    match texts.len() {
        0 => none.into(),
        1..=3 => texts.join(",").into(),
        more => format!("{} + {} more...", texts[..3].join(","), more - 3).into(),
    }
}

fn pairs(map: &Value) -> Value {
    let pairs = map.as_object().into_iter().flatten();
    let mut texts: Vec<_> = pairs.map(|(k, v)| format!("{k}={}", plain(v))).collect();
    texts.sort();
    if texts.is_empty() { NONE.into() } else { texts.join(",").into() }
}

fn pod_selector(selector: &Value) -> Value {
    let mut texts: Vec<String> = match pairs(&selector["matchLabels"]).as_str() {
        Some(NONE) | None => Vec::new(),
        Some(text) => vec![text.to_owned()],
    };
    for rule in list(&selector["matchExpressions"]) {
        let key = plain(&rule["key"]);
        let values: Vec<_> = list(&rule["values"]).map(plain).collect();
        let values = values.join(",");
        texts.push(match rule["operator"].as_str() {
            Some("In") => format!("{key} in ({values})"),
            Some("NotIn") => format!("{key} notin ({values})"),
            Some("DoesNotExist") => format!("!{key}"),
            _ => key,
        });
    }
    if texts.is_empty() { NONE.into() } else { texts.join(",").into() }
}

fn pod_ready(pod: &Value) -> Value {
    let ready = list(&pod["status"]["containerStatuses"]).filter(|c| c["ready"] == true).count();
    format!("{ready}/{}", list(&pod["spec"]["containers"]).count()).into()
}

fn pod_restarts(pod: &Value) -> Value {
    let restarts =
        list(&pod["status"]["containerStatuses"]).filter_map(|c| c["restartCount"].as_i64());
    restarts.sum::<i64>().to_string().into()
}

fn pod_state(pod: &Value) -> Value {
    let status = &pod["status"];
    if pod["metadata"].get("deletionTimestamp").is_some() {
        return "Terminating".into();
    }
    let reasons = list(&status["containerStatuses"]).filter_map(|c| {
        let state = &c["state"];
        state["waiting"]["reason"].as_str().or(state["terminated"]["reason"].as_str())
    });
    let phase = status["reason"].as_str().or(status["phase"].as_str()).unwrap_or("Unknown");
    reasons.last().unwrap_or(phase).into()
}

fn node_state(node: &Value) -> Value {
    let ready = list(&node["status"]["conditions"]).find(|c| c["type"] == "Ready");
    let mut state = match ready.and_then(|c| c["status"].as_str()) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if node["spec"]["unschedulable"] == true {
        state.push_str(",SchedulingDisabled");
    }
    state.into()
}

fn node_roles(node: &Value) -> Value {
    let labels = node["metadata"]["labels"].as_object().into_iter().flatten();
    let roles: Vec<_> =
        labels.filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/")).collect();
    if roles.is_empty() { NONE.into() } else { roles.join(",").into() }
}

fn node_address(node: &Value, kind: &str) -> Value {
    let address = list(&node["status"]["addresses"]).find(|a| a["type"] == kind);
    text_or(address.map_or(&Value::Null, |a| &a["address"]), NONE)
}

fn service_ports(service: &Value) -> Value {
    let port = |p: &Value| match p["nodePort"].as_i64() {
        Some(node) => format!("{}:{node}/{}", p["port"], plain(&p["protocol"])),
        None => format!("{}/{}", p["port"], plain(&p["protocol"])),
    };
    let texts: Vec<_> = list(&service["spec"]["ports"]).map(port).collect();
    if texts.is_empty() { NONE.into() } else { texts.join(",").into() }
}

fn endpoints(endpoints: &Value) -> Value {
    let mut all = Vec::new();
    for subset in list(&endpoints["subsets"]) {
        for address in list(&subset["addresses"]) {
            for port in list(&subset["ports"]) {
                all.push(format!("{}:{}", plain(&address["ip"]), port["port"]));
            }
        }
    }
    several(&json!(all), NONE, plain)
}

fn event_seen(event: &Value) -> Value {
    let last = [&event["lastTimestamp"], &event["series"]["lastObservedTime"], &event["eventTime"]];
    let seen = last.into_iter().find(|v| v.is_string());
    time_or(seen.unwrap_or(&event["metadata"]["creationTimestamp"]), "<unknown>")
}

fn event_object(event: &Value) -> Value {
    let about = if event["involvedObject"].is_object() {
        &event["involvedObject"]
    } else {
        &event["regarding"]
    };
    format!("{}/{}", plain(&about["kind"]).to_lowercase(), plain(&about["name"])).into()
}

fn event_message(event: &Value) -> Value {
    let text = event["message"].as_str().or(event["note"].as_str()).unwrap_or_default();
    text.trim().into()
}

/// How long ago `time` was, as `kubectl` writes it.
pub(crate) fn age(time: &str) -> String {
    match time.parse::<jiff::Timestamp>() {
        Ok(then) => duration((jiff::Timestamp::now().as_second() - then.as_second()).max(0)),
        Err(_) => "<unknown>".to_owned(),
    }
}

/// Two units at most, the second one only while it tells something.
fn duration(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |big: i64, unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{unit}"),
        small => format!("{big}{unit}{small}{small_unit}"),
    };
    match seconds {
        ..=119 => format!("{seconds}s"),
        120..=599 => two(minutes, "m", seconds % 60, "s"),
        600..=10_799 => format!("{minutes}m"),
        10_800..=28_799 => two(hours, "h", minutes % 60, "m"),
        28_800..=172_799 => format!("{hours}h"),
        172_800..=691_199 => two(days, "d", hours % 24, "h"),
        691_200..=63_071_999 => format!("{days}d"),
        63_072_000..=252_287_999 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

/// What a column's path finds: fields by dots, `[0]`, `[*]`, `[?(@.a=="b")]`, and `\.` in names.
pub(crate) fn lookup<'a>(object: &'a Value, path: &str) -> Vec<&'a Value> {
    let mut found = vec![object];
    for step in steps(path) {
        found = found.into_iter().flat_map(|value| follow(value, &step)).collect();
    }
    found
}

enum Step {
    Field(String),
    At(usize),
    All,
    Where(String, String),
}

fn steps(path: &str) -> Vec<Step> {
    let (mut steps, mut field, mut chars) = (Vec::new(), String::new(), path.chars());
    let flush = |field: &mut String, steps: &mut Vec<Step>| {
        if !field.is_empty() {
            steps.push(Step::Field(std::mem::take(field)));
        }
    };
    while let Some(c) = chars.next() {
        match c {
            '\\' => field.extend(chars.next()),
            '.' => flush(&mut field, &mut steps),
            '[' => {
                flush(&mut field, &mut steps);
                let inside: String = chars.by_ref().take_while(|c| *c != ']').collect();
                steps.push(bracket(&inside));
            }
            c => field.push(c),
        }
    }
    flush(&mut field, &mut steps);
    steps
}

fn bracket(inside: &str) -> Step {
    if inside == "*" {
        return Step::All;
    }
    if let Ok(at) = inside.parse() {
        return Step::At(at);
    }
    let quotes: &[char] = &['"', '\''];
    if let Some(rule) = inside.strip_prefix("?(").and_then(|r| r.strip_suffix(')'))
        && let Some((left, right)) = rule.split_once("==")
    {
        let key = left.trim().trim_start_matches('@').trim_start_matches('.');
        return Step::Where(key.to_owned(), right.trim().trim_matches(quotes).to_owned());
    }
    Step::Field(inside.trim_matches(quotes).to_owned())
}

fn follow<'a>(value: &'a Value, step: &Step) -> Vec<&'a Value> {
    match step {
        Step::Field(name) => value.get(name).into_iter().collect(),
        Step::At(at) => value.get(at).into_iter().collect(),
        Step::All => match value {
            Value::Object(map) => map.values().collect(),
            other => list(other).collect(),
        },
        Step::Where(key, wanted) => {
            list(value).filter(|item| plain(&item[key.as_str()]) == *wanted).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_kubectl_writes_them() {
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (130, "2m10s"),
            (600, "10m"),
            (10_800, "3h"),
            (11_000, "3h3m"),
            (30_000, "8h"),
            (172_800, "2d"),
            (180_000, "2d2h"),
            (864_000, "10d"),
            (63_072_000, "2y"),
            (70_000_000, "2y80d"),
        ] {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn paths() {
        let object = json!({"a": {"b.c": 1}, "l": [{"type": "X", "v": 2}, {"type": "Y", "v": 3}]});
        assert_eq!(lookup(&object, ".a.b\\.c"), [&json!(1)]);
        assert_eq!(lookup(&object, r#".l[?(@.type=="Y")].v"#), [&json!(3)]);
        assert_eq!(lookup(&object, ".l[*].v"), [&json!(2), &json!(3)]);
        assert_eq!(lookup(&object, ".l[0].v"), [&json!(2)]);
        assert!(lookup(&object, ".nothing.here").is_empty());
    }
}
