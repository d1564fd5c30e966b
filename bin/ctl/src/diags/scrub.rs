//! Takes secrets out of what is written into an archive.
//!
//! Nothing here should hold any: the agent logs none, and Secrets are never asked for. But logs and objects are also
//! written by others.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

/// What stands where something was.
const GONE: &str = "<removed>";

/// A pattern that is known to be one.
#[expect(clippy::expect_used, reason = "patterns are constants, and a test compiles them")]
fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a pattern")
}

/// What any secret goes with: most lines have none of it.
static ANY: LazyLock<Regex> =
    LazyLock::new(|| pattern("(?i)pass|secret|token|credential|key|bearer|basic|eyj|://"));
/// `password=x`, `"token": "x"`, `--etcd-key x`, and the like; the value is the last group.
static NAMED: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r#"(?i)([a-z0-9_.-]*(?:passw(?:or)?d|passphrase|secret|token|credential|private[-_]?key|preshared[-_]?key|api[-_]?key|authkey)[a-z0-9_-]*["']?\s*(?:[:=]|\s)\s*["']?)([^\s"',;}\]]+)"#,
    )
});
/// HTTP's way of saying who one is.
static BEARER: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?i)\b((?:bearer|basic)\s+)[a-z0-9._~+/-]{8,}=*"));
/// Tokens as service accounts have them.
static JWT: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]*"));
/// `https://user:password@host`.
static URL: LazyLock<Regex> = LazyLock::new(|| pattern(r"(\w+://[^\s/:@]*:)[^\s/@]+@"));
/// A key in one line, as JSON writes it.
static INLINE_KEY: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----")
});

/// A text whose lines come one after the other.
#[derive(Default)]
pub(super) struct Scrubber {
    /// Inside a key, which goes over many lines.
    key: bool,
}

impl Scrubber {
    /// The line without secrets; nothing if all of it is one.
    pub(super) fn line(&mut self, line: &str) -> Option<String> {
        if !self.key && !ANY.is_match(line) {
            return Some(line.to_owned());
        }
        let line = INLINE_KEY.replace_all(line, GONE);
        if self.key {
            self.key = !line.contains("PRIVATE KEY-----");
            return None;
        }
        if line.contains("-----BEGIN") && line.contains("PRIVATE KEY-----") {
            self.key = true;
            return Some(GONE.to_owned());
        }
        let line = BEARER.replace_all(&line, format!("${{1}}{GONE}"));
        let line = JWT.replace_all(&line, GONE);
        let line = URL.replace_all(&line, format!("${{1}}{GONE}@"));
        Some(NAMED.replace_all(&line, format!("${{1}}{GONE}")).into_owned())
    }
}

/// A whole text without secrets.
pub(super) fn text(text: &str) -> String {
    let mut scrubber = Scrubber::default();
    let lines = text.split('\n').filter_map(|line| scrubber.line(line));
    lines.collect::<Vec<_>>().join("\n")
}

/// Whether a name says that its value is a secret.
fn secret_name(name: &str) -> bool {
    NAMED.is_match(&format!("{name}=x"))
}

/// Takes secrets out of an object: values of variables with such names, and the copy of all of it that kubectl keeps.
pub(super) fn object(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.shift_remove("kubectl.kubernetes.io/last-applied-configuration");
            map.shift_remove("managedFields");
            let named = map.get("name").and_then(Value::as_str).is_some_and(secret_name);
            if named && map.get("value").is_some_and(Value::is_string) {
                map.insert("value".into(), GONE.into());
            }
            for (key, inner) in map.iter_mut() {
                match inner {
                    Value::String(secret) if secret_name(key) && !is_reference(key) => {
                        GONE.clone_into(secret);
                    }
                    Value::String(other) => *other = text(other),
                    inner => object(inner),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(object),
        Value::String(other) => *other = text(other),
        _ => {}
    }
}

/// Says where a secret is, and not what it is.
fn is_reference(key: &str) -> bool {
    let key = key.to_lowercase();
    ["name", "namespace", "ref", "file", "path"].iter().any(|end| key.ends_with(end))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines() {
        for (line, want) in [
            ("password=hunter2 rest", "password=<removed> rest"),
            ("ETCD_PASSWORD: \"hunter2\"", "ETCD_PASSWORD: \"<removed>\""),
            ("{\"token\":\"abc\",\"a\":1}", "{\"token\":\"<removed>\",\"a\":1}"),
            ("Authorization: Bearer abcdefgh.ijk", "Authorization: Bearer <removed>"),
            ("got eyJhbGciOi.eyJpc3MiOi.c2ln from", "got <removed> from"),
            (
                "etcd https://root:hunter2@10.0.0.1:2379/x",
                "etcd https://root:<removed>@10.0.0.1:2379/x",
            ),
            ("private-key: abcdef", "private-key: <removed>"),
            ("policy default/web is in force", "policy default/web is in force"),
            ("key: value", "key: value"),
        ] {
            assert_eq!(text(line), want);
        }
        let key = "a\n-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n-----END EC PRIVATE KEY-----\nb";
        assert_eq!(text(key), "a\n<removed>\nb");
        assert_eq!(
            text("x: -----BEGIN PRIVATE KEY-----\\nMHc\\n-----END PRIVATE KEY-----\\n"),
            "x: <removed>\\n"
        );
        let certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----";
        assert_eq!(text(certificate), certificate);
    }

    #[test]
    fn objects() {
        let mut pod = json!({
            "metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "x": "y"}, "managedFields": []},
            "spec": {"env": [
                {"name": "ETCD_PASSWORD", "value": "hunter2"},
                {"name": "NODENAME", "value": "n"},
                {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            ], "secretName": "calico-certs", "wireguardPrivateKey": "abc"},
        });
        object(&mut pod);
        assert_eq!(
            pod,
            json!({
                "metadata": {"annotations": {"x": "y"}},
                "spec": {"env": [
                    {"name": "ETCD_PASSWORD", "value": "<removed>"},
                    {"name": "NODENAME", "value": "n"},
                    {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                ], "secretName": "calico-certs", "wireguardPrivateKey": "<removed>"},
            })
        );
    }
}
