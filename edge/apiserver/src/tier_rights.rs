//! Who may do what to the policies of a tier.
//!
//! To act on a policy in tier T takes, beside the verb on the policies' resource itself, the verb `get` on
//! the tier T and the request's verb on `tier.RESOURCE` under the name `T.*` or `T.POLICY`. No such
//! resource exists: roles name it. Lists, watches and deletions of many show what is in the tiers for which
//! that holds; who may do it in all tiers is not asked tier by tier.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::{join, join_all};
use serde_json::{Value, json};

use crate::api::Api;
use crate::auth::User;
use crate::rbac::Target;
use crate::request::Call;
use crate::rights::Rights;
use crate::selectors::Filter;
use crate::status::{ApiError, Result, qualified};
use crate::storage::Wanted;

pub(crate) const GROUP: &str = "projectcalico.org";
/// Where tiers are stored.
pub(crate) const PREFIX: &str = "projectcalico.org/tiers/";
/// The tier of policies that name none.
const DEFAULT: &str = "default";

/// Whether objects of a resource are in tiers.
pub(crate) fn tiered(group: &str, plural: &str) -> bool {
    group == GROUP && api::TIERED.contains(&plural)
}

/// The tier of a policy.
pub(crate) fn of(policy: &Value) -> &str {
    policy["spec"]["tier"].as_str().filter(|tier| !tier.is_empty()).unwrap_or(DEFAULT)
}

/// What somebody wants to do to a policy, or to policies if it has no name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Act<'a> {
    pub(crate) user: &'a User,
    pub(crate) verb: &'a str,
    pub(crate) plural: &'a str,
    pub(crate) subresource: Option<&'a str>,
    pub(crate) namespace: Option<&'a str>,
    pub(crate) name: &'a str,
}

/// Why it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// The tier is none of his business.
    Tier,
    /// Its policies are not.
    Policy,
}

impl<'a> Act<'a> {
    pub(crate) fn of(call: &'a Call) -> Self {
        Self {
            user: &call.user,
            verb: call.verb,
            plural: &call.resource.plural,
            subresource: call.subresource.as_deref(),
            namespace: call.namespace.as_deref(),
            name: call.name.as_deref().unwrap_or_default(),
        }
    }

    /// Names under which a role may give the right, the most usual first.
    fn names(&self, tier: &str) -> Vec<String> {
        let mut names = vec![format!("{tier}.*")];
        if self.name.is_empty() {
            return names;
        }
        let own = self.name.strip_prefix(tier).and_then(|rest| rest.strip_prefix('.'));
        names.push(format!("{tier}.{}", own.unwrap_or(self.name)));
        // Without a dot it cannot be taken for a policy of another tier.
        if !self.name.contains('.') {
            names.push(self.name.to_owned());
        }
        names
    }

    async fn may(&self, rights: &Rights, tier: &str) -> Result<Result<(), Refusal>> {
        let resource = match self.subresource {
            Some(subresource) => format!("tier.{}/{subresource}", self.plural),
            None => format!("tier.{}", self.plural),
        };
        let names = if tier.is_empty() { vec![String::new()] } else { self.names(tier) };
        let on = |name| Target::Resource {
            group: GROUP,
            resource: &resource,
            namespace: self.namespace,
            name,
        };
        let get = Target::Resource { group: GROUP, resource: "tiers", namespace: None, name: tier };
        let (get, first) = join(
            rights.allowed(self.user, "get", get),
            rights.allowed(self.user, self.verb, on(&names[0])),
        )
        .await;
        if get?.is_none() {
            return Ok(Err(Refusal::Tier));
        }
        if first?.is_some() {
            return Ok(Ok(()));
        }
        for name in &names[1..] {
            if rights.allowed(self.user, self.verb, on(name)).await?.is_some() {
                return Ok(Ok(()));
            }
        }
        Ok(Err(Refusal::Policy))
    }

    /// 403 in the words that upstream has for it.
    fn forbidden(&self, tier: &str, refusal: Refusal) -> ApiError {
        let what = qualified(self.plural, GROUP);
        let resource = match self.subresource {
            Some(subresource) => format!("{what}/{subresource}"),
            None => what.clone(),
        };
        let (user, verb) = (&self.user.name, self.verb);
        let mut why = match self.namespace {
            Some(namespace) => format!(
                "User {user:?} cannot {verb} {resource} in tier {tier:?} and namespace {namespace:?}"
            ),
            None => format!("User {user:?} cannot {verb} {resource} in tier {tier:?}"),
        };
        if refusal == Refusal::Tier {
            why.push_str(" (user cannot get tier)");
        }
        self.refuse(&why)
    }

    fn refuse(&self, why: &str) -> ApiError {
        let mut what = qualified(self.plural, GROUP);
        let mut details = json!({"group": GROUP, "kind": self.plural});
        if !self.name.is_empty() {
            what = format!("{what} {:?}", self.name);
            details["name"] = self.name.into();
        }
        ApiError::forbidden(format!("{what} is forbidden: {why}")).with_details(details)
    }
}

/// Refuses what the user may not do in `tier`.
pub(crate) async fn authorize(rights: &Rights, act: Act<'_>, tier: &str) -> Result<()> {
    if act.user.is_master() {
        return Ok(());
    }
    act.may(rights, tier).await?.map_err(|refusal| act.forbidden(tier, refusal))
}

/// The same for the policy that a call reads or writes, as it is stored.
pub(crate) async fn authorize_object(api: &Api, call: &Call, policy: &Value) -> Result<()> {
    if !tiered(&call.resource.group, &call.resource.plural) || call.tiers.is_some() {
        return Ok(());
    }
    let name = policy["metadata"]["name"].as_str().unwrap_or_default();
    authorize(&api.rights, Act { name, ..Act::of(call) }, of(policy)).await
}

/// The tiers that a list, a watch or a deletion of many is confined to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tiers {
    names: BTreeSet<String>,
    /// By what the user may see, of the tiers that there are; not by what he asked for.
    pub(crate) by_rights: bool,
}

impl Tiers {
    pub(crate) fn hold(&self, policy: &Value) -> bool {
        self.names.contains(of(policy))
    }
}

/// Confines a call to the tiers that it asks for, if the user may see all of them, or to those that he may
/// see. Nothing if he may see all.
pub(crate) async fn confine(api: &Api, call: &Call) -> Result<Option<Arc<Tiers>>> {
    if !tiered(&call.resource.group, &call.resource.plural) || call.user.is_master() {
        return Ok(None);
    }
    let filter = Filter::from_query(&call.query, &call.resource)?;
    let act = Act::of(call);
    if let Some(names) = filter.tiers() {
        for tier in &names {
            authorize(&api.rights, act, tier).await?;
        }
        return Ok(Some(Arc::new(Tiers { names, by_rights: false })));
    }
    if act.may(&api.rights, "").await?.is_ok() {
        return Ok(None);
    }
    api.storage.settle(PREFIX, Wanted::Latest).await?;
    let listing = api.storage.list(PREFIX, None)?;
    let tiers: Vec<_> =
        listing.objects.iter().filter_map(|o| o.value()["metadata"]["name"].as_str()).collect();
    let may = join_all(tiers.iter().map(|tier| act.may(&api.rights, tier))).await;
    let mut names = BTreeSet::new();
    for (tier, may) in tiers.iter().zip(may) {
        if may?.is_ok() {
            names.insert((*tier).to_owned());
        }
    }
    if names.is_empty() {
        let verb = act.verb;
        return Err(act.refuse(&format!(
            "User {:?} cannot {verb} them in any tier: it takes \"get\" on a tier T and {verb:?} on \"tier.{}\" named \"T.*\"",
            act.user.name, act.plural
        )));
    }
    Ok(Some(Arc::new(Tiers { names, by_rights: true })))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::rights::{Delegate, Namespace, Unanswered};
    use crate::trust::Trust;
    use futures_util::FutureExt as _;
    use futures_util::future::BoxFuture;

    /// Who may do what: verb, resource, name (a star for any).
    pub(crate) struct Table(pub(crate) &'static [(&'static str, &'static str, &'static str)]);

    impl Delegate for Table {
        fn user<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<User>, Unanswered>> {
            std::future::ready(Ok(None)).boxed()
        }

        fn allowed<'a>(
            &'a self,
            user: &'a User,
            verb: &'a str,
            target: Target<'a>,
        ) -> BoxFuture<'a, Result<Option<String>, Unanswered>> {
            let Target::Resource { resource, name, .. } = target else { panic!("{target:?}") };
            if verb == "break" || user.name == "nobody answers" {
                return std::future::ready(Err(Unanswered("away".into()))).boxed();
            }
            let row = |row: &&(&str, &str, &str)| {
                row.0 == verb && row.1 == resource && (row.2 == name || row.2 == "any")
            };
            let found = self.0.iter().find(row).map(|_| String::new());
            std::future::ready(Ok(found)).boxed()
        }

        fn namespace<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Namespace, Unanswered>> {
            std::future::ready(Ok(Namespace::Open)).boxed()
        }

        fn trust(&self) -> Option<Arc<Trust>> {
            None
        }
    }

    fn may(rows: &'static [(&str, &str, &str)], verb: &str, name: &str, tier: &str) -> Result<()> {
        let rights = Rights::Delegated(Arc::new(Table(rows)));
        let user = User::new("eve", &[]);
        let act = Act {
            user: &user,
            verb,
            plural: "networkpolicies",
            subresource: None,
            namespace: Some("shop"),
            name,
        };
        authorize(&rights, act, tier).now_or_never().unwrap()
    }

    #[test]
    fn a_tier_takes_get_on_it_and_the_verb_on_its_policies() {
        let rows = &[
            ("get", "tiers", "sec"),
            ("create", "tier.networkpolicies", "sec.*"),
            ("update", "tier.networkpolicies", "sec.one"),
            ("delete", "tier.networkpolicies", "two"),
            ("create", "tier.networkpolicies", "ops.*"),
        ];
        for (verb, name, tier) in [
            ("create", "p", "sec"),
            ("create", "", "sec"),
            ("update", "one", "sec"),
            ("update", "sec.one", "sec"),
            ("delete", "two", "sec"),
        ] {
            assert_eq!(may(rows, verb, name, tier), Ok(()), "{verb} {name} {tier}");
        }
        for (verb, name, tier, part) in [
            ("create", "p", "ops", "in tier \"ops\" and namespace \"shop\" (user cannot get tier)"),
            (
                "update",
                "two",
                "sec",
                "User \"eve\" cannot update networkpolicies.projectcalico.org",
            ),
            ("update", "", "sec", "networkpolicies.projectcalico.org is forbidden"),
            ("update", "ops.one", "sec", "\"ops.one\" is forbidden"),
            ("delete", "sec.two", "sec", "in tier \"sec\""),
        ] {
            let error = may(rows, verb, name, tier).expect_err(part);
            assert_eq!((error.code, error.reason), (403, "Forbidden"));
            assert!(error.message.contains(part), "{}", error.message);
        }
        // A policy's own name never stands for one of another tier.
        let rows = &[("get", "tiers", "any"), ("update", "tier.networkpolicies", "sec.one")];
        assert_eq!(may(rows, "update", "one", "sec"), Ok(()));
        assert!(may(rows, "update", "sec.one", "ops").is_err());
        assert_eq!(may(rows, "break", "one", "sec").expect_err("no answer").code, 503);
    }
}
