//! How each verb is used, for `--help`.

pub(super) const ALL: &str = "Examples:\n\
\x20 calicoctl get policies -A\n\
\x20 calicoctl apply -f policy.yaml\n\
\x20 calicoctl why shop/client shop/web:80\n\
\x20 calicoctl COMMAND --help";
pub(super) const APPLY: &str = "Examples:\n\
\x20 calicoctl apply -f policy.yaml\n\
\x20 calicoctl apply -R -f manifests/\n\
\x20 calicoctl apply -f - < policy.yaml";
pub(super) const CREATE: &str = "Examples:\n\
\x20 calicoctl create -f policy.yaml\n\
\x20 calicoctl create -f manifests/ --skip-exists";
pub(super) const REPLACE: &str = "Examples:\n\
\x20 calicoctl replace -f policy.yaml";
pub(super) const DELETE: &str = "Examples:\n\
\x20 calicoctl delete networkpolicy web -n shop\n\
\x20 calicoctl delete -f manifests/ --skip-not-exists";
pub(super) const GET: &str = "Examples:\n\
\x20 calicoctl get policies -A\n\
\x20 calicoctl get ippool pool-1 -o yaml --export\n\
\x20 calicoctl get nodes -o custom-columns=NAME,ASN,RACK:.metadata.labels.rack\n\
\x20 calicoctl get gnp -o go-template='{{range .items}}{{.metadata.name}} {{.spec.order}}{{\"\\n\"}}{{end}}'";
pub(super) const VALIDATE: &str = "Examples:\n\
\x20 calicoctl validate -R -f manifests/\n\
\x20 calicoctl validate -f policy.yaml -o json";
pub(super) const CONVERT: &str = "Examples:\n\
\x20 calicoctl convert -f kubernetes-policy.yaml";
pub(super) const WHY: &str = "Examples:\n\
\x20 calicoctl why shop/client shop/web:80\n\
\x20 calicoctl why 192.0.2.7 service:shop/web:80 -f manifests/\n\
\x20 calicoctl why shop/client shop/web:80 --live";
pub(super) const VERSION: &str = "Examples:\n\
\x20 calicoctl version\n\
\x20 calicoctl version --client\n\
\x20 calicoctl version --poll 10s";
pub(super) const IPAM_SHOW: &str = "Examples:\n\
\x20 calicoctl ipam show --show-blocks\n\
\x20 calicoctl ipam show --ip 10.65.0.7";
pub(super) const EVAL: &str = "Examples:\n\
\x20 calicoctl policy eval --packets packets.ndjson -f manifests/";
pub(super) const MATRIX: &str = "Examples:\n\
\x20 calicoctl policy matrix --port 80\n\
\x20 calicoctl policy matrix --staged -f manifests/ -o json";
pub(super) const TEST: &str = "Examples:\n\
\x20 calicoctl policy test expectations.yaml -f manifests/";
pub(super) const SELECTOR_CHECK: &str = "Examples:\n\
\x20 calicoctl selector check \"app in { 'a', 'b' }\"";
pub(super) const SELECTOR_MATCH: &str = "Examples:\n\
\x20 calicoctl selector match \"app == 'web'\" app=web tier=front";
pub(super) const LOCK: &str = "Examples:\n\
\x20 calicoctl datastore migrate lock";
pub(super) const UNLOCK: &str = "Examples:\n\
\x20 calicoctl datastore migrate unlock";
pub(super) const EXPORT: &str = "Examples:\n\
\x20 calicoctl datastore migrate export > all.yaml";
pub(super) const IMPORT: &str = "Examples:\n\
\x20 calicoctl datastore migrate import -f all.yaml";
pub(super) const POLICY_NAMES: &str = "Examples:\n\
\x20 calicoctl datastore migrate-policy-names";
pub(super) const NODE_STATUS: &str = "Examples:\n\
\x20 calicoctl node status\n\
\x20 calicoctl node status -o json";
pub(super) const NODE_PREFLIGHT: &str = "Examples:\n\
\x20 calicoctl node preflight";
pub(super) const NODE_CHECKSYSTEM: &str = "Examples:\n\
\x20 calicoctl node checksystem\n\
\x20 calicoctl node checksystem -f /boot/config-6.1.0";
pub(super) const NODE_DIAGS: &str = "Examples:\n\
\x20 calicoctl node diags\n\
\x20 calicoctl node diags --log-dir /var/log/calico --output-dir .";
pub(super) const NODE_RUN: &str = "Examples:\n\
\x20 calicoctl node run --dryrun\n\
\x20 calicoctl node run --ip autodetect --ip-autodetection-method interface=eth.*\n\
\x20 calicoctl node run --init-system --dryrun";
pub(super) const CLUSTER_DIAGS: &str = "Examples:\n\
\x20 calicoctl cluster diags\n\
\x20 calicoctl cluster diags --since 1h --max-logs 2 --focus-nodes node-1,node-2";

pub(super) const CONFIRM: &str = "\
Examples:
  calicoctl confirm
  calicoctl confirm 5be1c07a";

pub(super) const REVERT: &str = "\
Examples:
  calicoctl revert
  calicoctl revert 5be1c07a";
