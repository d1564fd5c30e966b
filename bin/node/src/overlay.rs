//! Local pods as the CNI made them, over local pods as the API has them.
//!
//! The addresses and the interface of a container come from its ADD and hold until its DEL; labels,
//! ports and the rest come from the API as soon as it says anything. So the echo of our own writes
//! changes nothing, and a pod is protected before the API knows its address.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{NodeName, Update, WorkloadEndpoint, WorkloadId};

#[derive(Debug)]
struct Attached {
    container: String,
    endpoint: Arc<WorkloadEndpoint>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Overlay {
    node: NodeName,
    attached: BTreeMap<WorkloadId, Attached>,
    /// What the API says, for pods of this node.
    api: BTreeMap<WorkloadId, Arc<WorkloadEndpoint>>,
}

impl Overlay {
    pub(crate) fn new(node: NodeName) -> Self {
        Self { node, attached: BTreeMap::new(), api: BTreeMap::new() }
    }

    /// The API says something; what the calculation should hear instead.
    pub(crate) fn hear(&mut self, update: Update) -> Update {
        let Update::Workload(id, given) = update else { return update };
        match &given {
            Some(e) if e.node == self.node => drop(self.api.insert(id.clone(), e.clone())),
            _ => drop(self.api.remove(&id)),
        }
        if let Some(elsewhere) = given.filter(|e| e.node != self.node) {
            return Update::Workload(id, Some(elsewhere)); // same name, made anew on another node
        }
        self.effective(id)
    }

    /// A container got an interface.
    pub(crate) fn attach(&mut self, container: String, endpoint: Arc<WorkloadEndpoint>) -> Update {
        let id = endpoint.id.clone();
        self.attached.insert(id.clone(), Attached { container, endpoint });
        self.effective(id)
    }

    /// A container lost its interface. `None`: it has a successor already, nothing changes.
    pub(crate) fn detach(&mut self, id: &WorkloadId, container: &str) -> Option<Update> {
        if self.attached.get(id)?.container != container {
            return None;
        }
        self.attached.remove(id);
        // What the API still says about it are the addresses that were just taken away.
        self.api.remove(id);
        Some(Update::Workload(id.clone(), None))
    }

    /// Every endpoint of this node; some twice.
    pub(crate) fn local(&self) -> impl Iterator<Item = &WorkloadId> {
        self.attached.keys().chain(self.api.keys())
    }

    fn effective(&self, id: WorkloadId) -> Update {
        let endpoint = match (self.attached.get(&id), self.api.get(&id)) {
            (None, api) => api.cloned(),
            (Some(attached), None) => Some(attached.endpoint.clone()),
            (Some(_), Some(api)) if api.addresses.is_empty() => Some(api.clone()), // finished
            (Some(attached), Some(api)) => Some(Arc::new(WorkloadEndpoint {
                addresses: attached.endpoint.addresses.clone(),
                iface: attached.endpoint.iface.clone(),
                ..WorkloadEndpoint::clone(api)
            })),
        };
        Update::Workload(id, endpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> WorkloadId {
        WorkloadId { namespace: "a".into(), name: "x".into() }
    }

    fn endpoint(node: &str, address: &str, label: &str) -> Arc<WorkloadEndpoint> {
        let labels = Arc::new([("app".into(), label.into())].into_iter().collect());
        Arc::new(WorkloadEndpoint {
            id: id(),
            node: node.into(),
            iface: "cali1".parse().unwrap(),
            addresses: vec![address.parse().unwrap()],
            labels,
            profiles: Vec::new(),
            ports: Vec::new(),
            allowed_sources: Vec::new(),
        })
    }

    fn says(update: Update) -> Option<(String, String)> {
        let Update::Workload(_, endpoint) = update else { panic!("{update:?}") };
        endpoint.map(|e| (e.addresses[0].to_string(), e.labels["app"].to_string()))
    }

    fn api(endpoint: Option<Arc<WorkloadEndpoint>>) -> Update {
        Update::Workload(id(), endpoint)
    }

    #[test]
    fn the_echo_changes_nothing_and_labels_do() {
        let mut overlay = Overlay::new("n".into());
        let made = overlay.attach("c1".into(), endpoint("n", "10.0.0.1", "web"));
        let want = Some(("10.0.0.1".to_owned(), "web".to_owned()));
        assert_eq!(says(made), want);
        assert_eq!(says(overlay.hear(api(Some(endpoint("n", "10.0.0.1", "web"))))), want);
        let relabelled = overlay.hear(api(Some(endpoint("n", "10.0.0.1", "db"))));
        assert_eq!(says(relabelled).unwrap().1, "db");
        let stale = overlay.hear(api(Some(endpoint("n", "10.0.0.9", "db"))));
        assert_eq!(says(stale).unwrap().0, "10.0.0.1", "an old address in the API");
        assert_eq!(says(overlay.hear(api(None))), want, "the container is still there");
    }

    #[test]
    fn a_late_del_does_not_touch_the_successor() {
        let mut overlay = Overlay::new("n".into());
        overlay.attach("c1".into(), endpoint("n", "10.0.0.1", "web"));
        overlay.attach("c2".into(), endpoint("n", "10.0.0.2", "web"));
        assert_eq!(overlay.detach(&id(), "c1"), None);
        assert_eq!(overlay.detach(&id(), "c2").map(says), Some(None));
        assert_eq!(overlay.detach(&id(), "c2"), None);
    }

    #[test]
    fn a_pod_that_moved_is_no_longer_ours() {
        let mut overlay = Overlay::new("n".into());
        overlay.attach("c1".into(), endpoint("n", "10.0.0.1", "web"));
        let moved = overlay.hear(api(Some(endpoint("m", "10.0.0.7", "web"))));
        assert_eq!(says(moved).unwrap().0, "10.0.0.7");
    }
}
