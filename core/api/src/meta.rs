//! The shape that every kind shares: type, metadata, spec, status.

use std::collections::BTreeMap;
use std::fmt::Debug;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What makes a spec a kind: its names on the wire.
pub trait Spec:
    Clone + Debug + Default + PartialEq + Serialize + DeserializeOwned + JsonSchema + 'static
{
    /// API group.
    const GROUP: &'static str;
    /// API version within the group.
    const VERSION: &'static str;
    /// `group/version`.
    const API_VERSION: &'static str;
    /// Kind.
    const KIND: &'static str;
    /// Name in URLs.
    const PLURAL: &'static str;
    /// Namespaced or cluster-wide.
    type Scope: k8s_openapi::ResourceScope;
    /// Type of `status`; [`NoStatus`] for most.
    type Status: Clone
        + Debug
        + Default
        + PartialEq
        + Serialize
        + DeserializeOwned
        + JsonSchema
        + 'static;
}

/// An object of one kind. Works with `kube::Api` as it stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object<S: Spec> {
    /// Name, namespace, labels, annotations and what the API server adds.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: S,
    /// What is.
    pub status: Option<S::Status>,
}

impl<S: Spec> Object<S> {
    /// A cluster-wide object.
    pub fn new(name: &str, spec: S) -> Self {
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        Self { metadata, spec, status: None }
    }

    /// An object in a namespace.
    pub fn namespaced(namespace: &str, name: &str, spec: S) -> Self {
        let mut object = Self::new(name, spec);
        object.metadata.namespace = Some(namespace.to_owned());
        object
    }

    /// The name; empty if there is none yet.
    pub fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// The namespace; empty for cluster-wide objects.
    pub fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    /// The labels.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.metadata.labels.as_ref().unwrap_or(&NONE)
    }
}

impl<S: Spec> k8s_openapi::Resource for Object<S> {
    const API_VERSION: &'static str = S::API_VERSION;
    const GROUP: &'static str = S::GROUP;
    const KIND: &'static str = S::KIND;
    const VERSION: &'static str = S::VERSION;
    const URL_PATH_SEGMENT: &'static str = S::PLURAL;
    type Scope = S::Scope;
}

impl<S: Spec> k8s_openapi::Metadata for Object<S> {
    type Ty = ObjectMeta;
    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a, S: Spec> {
    api_version: &'static str,
    kind: &'static str,
    metadata: &'a ObjectMeta,
    spec: &'a S,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a S::Status>,
}

#[derive(Deserialize)]
#[serde(bound = "S: Spec")]
struct Read<S: Spec> {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Option<S>,
    #[serde(default)]
    status: Option<S::Status>,
}

impl<S: Spec> Serialize for Object<S> {
    fn serialize<W: Serializer>(&self, to: W) -> Result<W::Ok, W::Error> {
        Written {
            api_version: S::API_VERSION,
            kind: S::KIND,
            metadata: &self.metadata,
            spec: &self.spec,
            status: self.status.as_ref(),
        }
        .serialize(to)
    }
}

impl<'de, S: Spec> Deserialize<'de> for Object<S> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let read = Read::<S>::deserialize(from)?;
        Ok(Self {
            metadata: read.metadata,
            spec: read.spec.unwrap_or_default(),
            status: read.status,
        })
    }
}

/// For kinds without a status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NoStatus {}

/// Marks cluster-wide kinds.
pub type Cluster = ClusterResourceScope;
/// Marks namespaced kinds.
pub type Namespaced = NamespaceResourceScope;

/// Whether a field need not be written.
pub(crate) trait Absent {
    fn absent(&self) -> bool;
}

impl<T> Absent for Option<T> {
    fn absent(&self) -> bool {
        self.is_none()
    }
}

impl<T> Absent for Vec<T> {
    fn absent(&self) -> bool {
        self.is_empty()
    }
}

impl<K, V> Absent for BTreeMap<K, V> {
    fn absent(&self) -> bool {
        self.is_empty()
    }
}

impl Absent for String {
    fn absent(&self) -> bool {
        self.is_empty()
    }
}

impl Absent for bool {
    fn absent(&self) -> bool {
        !self
    }
}

pub(crate) fn absent<T: Absent>(value: &T) -> bool {
    value.absent()
}

/// A part of a spec: every field may be missing and is left out when it holds nothing.
macro_rules! part {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $type:ty,)* }) => {
        #[derive(
            Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize,
            schemars::JsonSchema,
        )]
        #[serde(rename_all = "camelCase", default)]
        $(#[$meta])*
        pub struct $name {
            $($(#[$field_meta])* #[serde(skip_serializing_if = "crate::meta::absent")] pub $field: $type,)*
        }
        impl crate::meta::Absent for $name {
            fn absent(&self) -> bool {
                *self == Self::default()
            }
        }
    };
}
pub(crate) use part;

/// A choice of words; the first is the default.
macro_rules! choice {
    ($(#[$meta:meta])* $name:ident { $first:ident $(,)? $($other:ident),* $(,)? }) => {
        $(#[$meta])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord,
            serde::Serialize, serde::Deserialize, schemars::JsonSchema,
        )]
        pub enum $name {
            #[doc = concat!("`", stringify!($first), "`.")]
            #[default]
            $first,
            $(#[doc = concat!("`", stringify!($other), "`.")] $other,)*
        }
        impl crate::meta::Absent for $name {
            fn absent(&self) -> bool {
                false
            }
        }
    };
}
pub(crate) use choice;

/// Declares that a spec is a kind, and names the object type.
macro_rules! kind {
    ($spec:ident, $object:ident, $plural:literal, $scope:ty) => {
        crate::meta::kind!($spec, $object, $plural, $scope, crate::meta::NoStatus);
    };
    ($spec:ident, $object:ident, $plural:literal, $scope:ty, $status:ty) => {
        #[doc = concat!("The `", stringify!($object), "` kind of `projectcalico.org/v3`.")]
        pub type $object = crate::meta::Object<$spec>;
        impl crate::meta::Spec for $spec {
            const GROUP: &'static str = "projectcalico.org";
            const VERSION: &'static str = "v3";
            const API_VERSION: &'static str = "projectcalico.org/v3";
            const KIND: &'static str = stringify!($object);
            const PLURAL: &'static str = $plural;
            type Scope = $scope;
            type Status = $status;
        }
    };
}
pub(crate) use kind;
