//! What only Calico's own programs write: ClusterInformation.

use crate::auth::User;
use crate::status::ApiError;

/// Service accounts of the programs that keep it.
const ACCOUNTS: [&str; 3] = ["calico-node", "calico-typha", "calico-kube-controllers"];

/// Refuses a write of ClusterInformation by anybody but those accounts in one of `namespaces`.
pub(crate) fn check_cluster_information(
    user: &User,
    namespaces: &[String],
) -> Result<(), ApiError> {
    let account = user.name.strip_prefix("system:serviceaccount:").and_then(|a| a.split_once(':'));
    let ours = account.is_some_and(|(namespace, name)| {
        namespaces.iter().any(|n| n == namespace) && ACCOUNTS.contains(&name)
    });
    if ours {
        return Ok(());
    }
    let message = format!(
        "ClusterInformation is a read-only resource (user: {}): Calico's own programs keep it",
        user.name
    );
    Err(ApiError::new(405, "MethodNotAllowed", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_programs_only() {
        let may = |name: &str| {
            check_cluster_information(&User::new(name, &["system:masters"]), &["calico".into()])
        };
        assert_eq!(may("system:serviceaccount:calico:calico-node"), Ok(()));
        for name in [
            "system:serviceaccount:default:calico-node",
            "system:serviceaccount:calico:calico-node2",
            "system:serviceaccount:calico",
            "calico:calico-node",
            "kubernetes-admin",
        ] {
            assert_eq!(may(name).expect_err(name).code, 405);
        }
    }
}
