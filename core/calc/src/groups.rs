//! The policies that share a selector, in order. Most selectors have one policy.

use crate::book::PolicyNumber;
use crate::index::SelectorId;

#[derive(Default)]
pub(crate) struct Groups {
    groups: Vec<Group>, // by selector
}

#[derive(Default)]
enum Group {
    #[default]
    None,
    One(PolicyNumber),
    #[expect(clippy::box_collection, reason = "a vector would make every group larger")]
    Many(Box<Vec<PolicyNumber>>), // until the last goes
}

impl Groups {
    pub(crate) fn of(&self, selector: SelectorId) -> &[PolicyNumber] {
        match self.groups.get(selector as usize) {
            None | Some(Group::None) => &[],
            Some(Group::One(one)) => std::slice::from_ref(one),
            Some(Group::Many(many)) => many,
        }
    }

    /// Puts a policy where `at` others of its selector come before it.
    pub(crate) fn insert(&mut self, selector: SelectorId, at: usize, policy: PolicyNumber) {
        let selector = selector as usize;
        if selector >= self.groups.len() {
            self.groups.resize_with(selector + 1, Group::default);
        }
        let group = &mut self.groups[selector];
        match group {
            Group::None => *group = Group::One(policy),
            Group::One(one) => {
                let mut many = vec![*one];
                many.insert(at, policy);
                *group = Group::Many(Box::new(many));
            }
            Group::Many(many) => many.insert(at, policy),
        }
    }

    /// Takes the policy at `at` from a selector that has so many.
    pub(crate) fn remove(&mut self, selector: SelectorId, at: usize) {
        let Some(group) = self.groups.get_mut(selector as usize) else { return };
        match group {
            Group::Many(many) if many.len() > 1 => drop(many.remove(at)),
            _ => *group = Group::None,
        }
    }

    /// The lists that have an order.
    pub(crate) fn lists(&mut self) -> impl Iterator<Item = &mut [PolicyNumber]> {
        self.groups.iter_mut().filter_map(|group| match group {
            Group::Many(many) => Some(&mut many[..]),
            Group::None | Group::One(_) => None,
        })
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.groups.iter().all(|group| matches!(group, Group::None))
    }
}
