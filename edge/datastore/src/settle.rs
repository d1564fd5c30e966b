//! The end of an unconfirmed change, in the store. The protocol is `confirm`'s.

use confirm::{Decision, Guarded, Mark, Object};
use serde_json::Value;

use crate::{Datastore, Error, Resource};

/// So often somebody else may come in between, for one object.
const ATTEMPTS: usize = 20;

/// What [`settle`] did.
#[derive(Debug, Default)]
pub struct Settled {
    /// How the transaction ended: as was wanted, or as somebody else had decided before.
    pub decision: Option<Decision>,
    /// The objects that were brought to that end now; others may have done the rest.
    pub objects: Vec<Object>,
}

/// A kind, as a place in the API.
fn resource(kind: &'static Guarded) -> Resource {
    Resource { group: kind.group, version: kind.version, plural: kind.plural, kind: kind.kind }
}

/// Every object that carries a mark, and the mark. Kinds that the server does not know have none.
///
/// # Errors
/// [`Error`]. Marks that cannot be understood are passed over.
pub async fn unconfirmed(datastore: &Datastore) -> Result<Vec<(Object, Mark)>, Error> {
    let mut found = Vec::new();
    for kind in confirm::KINDS {
        let resource = resource(kind);
        let all: Vec<Value> = match datastore.list_all(&resource).await {
            Err(Error::NotFound(_)) => continue,
            other => other?,
        };
        for mut object in all {
            // Objects in a list may come without it.
            object["apiVersion"] = resource.api_version().into();
            object["kind"] = kind.kind.into();
            if let (Some(at), Ok(Some(mark))) = (Object::of(&object), Mark::of(&object)) {
                found.push((at, mark));
            }
        }
    }
    Ok(found)
}

/// Decides how a transaction ends, unless that is decided already, and carries it out.
///
/// # Errors
/// [`Error`]. To be tried again: what is done stays done.
pub async fn settle(
    datastore: &Datastore,
    transaction: &str,
    lead: &Object,
    wanted: Decision,
) -> Result<Settled, Error> {
    // Without a lead (somebody replaced or deleted it) each object stands for itself.
    let decision = decide(datastore, transaction, lead, wanted).await?;
    let objects = unconfirmed(datastore).await?.into_iter();
    let ours = objects.filter(|(_, mark)| &*mark.transaction == transaction);
    let mut objects: Vec<_> = ours.map(|(object, _)| object).collect();
    objects.sort_by_key(|object| object == lead); // last
    let mut settled = Settled { decision, ..Settled::default() };
    for object in objects {
        if carry_out(datastore, transaction, &object, decision.unwrap_or(wanted)).await? {
            settled.objects.push(object);
        }
    }
    Ok(settled)
}

/// Compare-and-swap of the lead's mark. `None`: there is no lead any more.
async fn decide(
    datastore: &Datastore,
    transaction: &str,
    lead: &Object,
    wanted: Decision,
) -> Result<Option<Decision>, Error> {
    for _ in 0..ATTEMPTS {
        let Some((mut object, mut mark)) = marked(datastore, transaction, lead).await? else {
            return Ok(None);
        };
        if mark.decision.is_some() {
            return Ok(mark.decision);
        }
        mark.decision = Some(wanted);
        mark.put_on(&mut object);
        if swap(datastore, lead, &object).await? {
            return Ok(Some(wanted));
        }
    }
    Err(Error::Conflict(lead.to_string()))
}

/// Brings one object to its end. Says whether there was something to do.
async fn carry_out(
    datastore: &Datastore,
    transaction: &str,
    at: &Object,
    decision: Decision,
) -> Result<bool, Error> {
    for _ in 0..ATTEMPTS {
        let Some((live, mark)) = marked(datastore, transaction, at).await? else {
            return Ok(false);
        };
        let done = match mark.ended(decision, &live) {
            Some(object) => swap(datastore, at, &object).await?,
            None => remove(datastore, at, &live).await?,
        };
        if done {
            return Ok(true);
        }
    }
    Err(Error::Conflict(at.to_string()))
}

/// The object, if it carries a mark of the transaction.
async fn marked(
    datastore: &Datastore,
    transaction: &str,
    at: &Object,
) -> Result<Option<(Value, Mark)>, Error> {
    let Some((resource, namespace)) = place(at) else { return Ok(None) };
    let found: Option<Value> = datastore.get(&resource, namespace, &at.name).await?;
    let Some(object) = found else { return Ok(None) };
    let mark = Mark::of(&object).ok().flatten();
    Ok(mark.filter(|m| &*m.transaction == transaction).map(|mark| (object, mark)))
}

/// Writes an object over the version that was read. Says whether that was still the current one.
async fn swap(datastore: &Datastore, at: &Object, object: &Value) -> Result<bool, Error> {
    let Some((resource, namespace)) = place(at) else { return Ok(false) };
    match datastore.replace::<Value>(&resource, namespace, &at.name, object).await {
        Ok(_) => Ok(true),
        Err(Error::Conflict(_) | Error::NotFound(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Deletes the version that was read.
async fn remove(datastore: &Datastore, at: &Object, live: &Value) -> Result<bool, Error> {
    let Some((resource, namespace)) = place(at) else { return Ok(false) };
    let text = |key: &str| live["metadata"][key].as_str().unwrap_or_default();
    let version = (text("uid"), text("resourceVersion"));
    match datastore.delete_in(&resource, (namespace, &at.name), version).await {
        Ok(()) => Ok(true),
        Err(Error::Conflict(_) | Error::NotFound(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

fn place(at: &Object) -> Option<(Resource, Option<&str>)> {
    let namespace = Some(at.namespace.as_str()).filter(|n| !n.is_empty());
    Some((resource(at.guarded()?), namespace))
}
