//! The settings of every program: which there are, and how each is named where.

mod bgp;
mod controllers;
mod node;
mod typha;

use api::v3::felix::{PARAMETERS, Parameter};

/// A program of Calico that has settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Component {
    /// The parameters of the agent: FelixConfiguration, `FELIX_` variables, the configuration file.
    Felix,
    /// Variables of the agent's process, and of the other programs of the node's image.
    Node,
    /// What writes the configuration of BGP.
    Bgp,
    /// The fan-out between datastore and nodes: `TYPHA_` variables and its configuration file.
    Typha,
    /// The controllers: KubeControllersConfiguration, and variables.
    Controllers,
}

/// Rows that belong together, as the reference has them.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// A heading.
    pub title: &'static str,
    /// The rows.
    pub rows: &'static [Parameter],
}

/// A setting of a program.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The program.
    pub component: Component,
    /// The setting. Where names are not derived (see [`Row::environment`]) it is called as its variable, or
    /// as its field if no variable stands for it.
    pub parameter: &'static Parameter,
}

impl Component {
    /// All.
    pub const ALL: [Self; 5] = [Self::Felix, Self::Node, Self::Bgp, Self::Typha, Self::Controllers];

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Felix => "agent",
            Self::Node => "node",
            Self::Bgp => "bgp",
            Self::Typha => "typha",
            Self::Controllers => "controllers",
        }
    }

    /// What it is.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Felix => "calico-node, the agent of a node",
            Self::Node => "calico-node and what starts with it, by its process",
            Self::Bgp => "what writes the configuration of BGP (not there yet)",
            Self::Typha => "Typha (not there yet)",
            Self::Controllers => "the controllers (not there yet)",
        }
    }

    /// Its settings, in groups.
    pub fn groups(self) -> &'static [Group] {
        match self {
            Self::Felix => &[Group { title: "FelixConfiguration", rows: PARAMETERS }],
            Self::Node => node::GROUPS,
            Self::Bgp => bgp::GROUPS,
            Self::Typha => typha::GROUPS,
            Self::Controllers => controllers::GROUPS,
        }
    }

    /// Its settings.
    pub fn rows(self) -> impl Iterator<Item = Row> {
        let parameters = self.groups().iter().flat_map(|group| group.rows);
        parameters.map(move |parameter| Row { component: self, parameter })
    }

    /// What its variables begin with, in capitals, if they all begin so.
    pub fn prefix(self) -> Option<&'static str> {
        match self {
            Self::Felix => Some("FELIX_"),
            Self::Typha => Some("TYPHA_"),
            Self::Node | Self::Bgp | Self::Controllers => None,
        }
    }

    /// The kind of object that has its fields, if one has.
    pub fn resource(self) -> Option<&'static str> {
        match self {
            Self::Felix => Some("FelixConfiguration"),
            Self::Controllers => Some("KubeControllersConfiguration"),
            Self::Node | Self::Bgp | Self::Typha => None,
        }
    }
}

impl Row {
    /// The variable of the environment that stands for it, if one does.
    pub fn environment(&self) -> Option<String> {
        let name = self.parameter.name;
        match self.component.prefix() {
            Some(prefix) => Some(format!("{prefix}{}", name.to_uppercase())),
            None => (name == name.to_uppercase()).then(|| name.to_owned()),
        }
    }

    /// Whether `word` is one of its names, in any case: its own, another that it goes by, its field, its
    /// variable.
    pub fn is(&self, word: &str) -> bool {
        let Parameter { name, aliases, field, .. } = self.parameter;
        let is = |name: &str| !name.is_empty() && name.eq_ignore_ascii_case(word);
        is(name)
            || is(field)
            || self.environment().is_some_and(|name| is(&name))
            || aliases.iter().any(|alias| is(alias))
    }
}
