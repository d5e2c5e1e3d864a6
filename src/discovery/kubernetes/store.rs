//! What is known of a cluster.

use std::collections::BTreeMap;

use prometheus::IntCounterVec;

use super::objects::{
    EndpointSlice, Endpoints, Ingress, Kind, Meta, Node, Object, Pod, Reference, Service,
};
use super::watch::{Change, Resource};

/// Namespace and name.
type Key = (String, String);

/// The objects of all lists that are followed.
pub(super) struct Store {
    resources: Vec<Resource>,
    /// Whether each of them has been listed.
    listed: Vec<bool>,
    objects: BTreeMap<Kind, BTreeMap<Key, Object>>,
    events: IntCounterVec,
}

impl Store {
    pub(super) fn new(resources: Vec<Resource>, events: IntCounterVec) -> Self {
        let listed = vec![false; resources.len()];
        Self { resources, listed, objects: BTreeMap::new(), events }
    }

    /// Whether everything has been listed at least once.
    pub(super) fn is_complete(&self) -> bool {
        self.listed.iter().all(|listed| *listed)
    }

    /// Takes `objects` as everything there is of the list `at`; tells whether anything changed.
    pub(super) fn list(&mut self, at: usize, objects: Vec<Object>) -> bool {
        let Some(Resource { kind, namespace, .. }) = self.resources.get(at).cloned() else {
            return false;
        };
        let mut now: BTreeMap<Key, Object> =
            objects.into_iter().map(|object| (key(&object), object)).collect();
        let events = |event: &str| count(&self.events, kind, event);
        let known = self.objects.entry(kind).or_default();
        let mut is_new = !std::mem::replace(&mut self.listed[at], true);
        known.retain(|key, object| {
            // Another list's.
            if !namespace.is_empty() && key.0 != namespace {
                return true;
            }
            let Some(listed) = now.remove(key) else {
                events("delete");
                is_new = true;
                return false;
            };
            if listed != *object {
                events("update");
                is_new = true;
                *object = listed;
            }
            true
        });
        for (key, object) in now {
            events("add");
            is_new = true;
            known.insert(key, object);
        }
        is_new
    }

    /// Takes what changed in the list `at`; tells whether that makes a difference.
    pub(super) fn change(&mut self, at: usize, changes: Vec<Change>) -> bool {
        let Some(kind) = self.resources.get(at).map(|resource| resource.kind) else {
            return false;
        };
        let known = self.objects.entry(kind).or_default();
        let mut is_new = false;
        for change in changes {
            match change {
                Change::There(object) => {
                    let before = known.insert(key(&object), object.clone());
                    count(&self.events, kind, if before.is_some() { "update" } else { "add" });
                    is_new |= before.as_ref() != Some(&object);
                }
                Change::Gone(object) => {
                    count(&self.events, kind, "delete");
                    is_new |= known.remove(&key(&object)).is_some();
                }
            }
        }
        is_new
    }

    fn all(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        self.objects.get(&kind).into_iter().flat_map(BTreeMap::values)
    }

    fn get(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Object> {
        self.objects.get(&kind)?.get(&(namespace.to_owned(), name.to_owned()))
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.all(Kind::Node).filter_map(|object| match object {
            Object::Node(node) => Some(node),
            _ => None,
        })
    }

    pub(super) fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.all(Kind::Pod).filter_map(|object| match object {
            Object::Pod(pod) => Some(pod),
            _ => None,
        })
    }

    pub(super) fn services(&self) -> impl Iterator<Item = &Service> {
        self.all(Kind::Service).filter_map(|object| match object {
            Object::Service(service) => Some(service),
            _ => None,
        })
    }

    pub(super) fn endpoints(&self) -> impl Iterator<Item = &Endpoints> {
        self.all(Kind::Endpoints).filter_map(|object| match object {
            Object::Endpoints(endpoints) => Some(endpoints),
            _ => None,
        })
    }

    pub(super) fn slices(&self) -> impl Iterator<Item = &EndpointSlice> {
        self.all(Kind::EndpointSlice).filter_map(|object| match object {
            Object::EndpointSlice(slice) => Some(slice),
            _ => None,
        })
    }

    pub(super) fn ingresses(&self) -> impl Iterator<Item = &Ingress> {
        self.all(Kind::Ingress).filter_map(|object| match object {
            Object::Ingress(ingress) => Some(ingress),
            _ => None,
        })
    }

    pub(super) fn service(&self, namespace: &str, name: &str) -> Option<&Service> {
        match self.get(Kind::Service, namespace, name)? {
            Object::Service(service) => Some(service),
            _ => None,
        }
    }

    /// The pod that `reference` names.
    pub(super) fn pod(&self, reference: Option<&Reference>) -> Option<&Pod> {
        let reference = reference.filter(|reference| reference.kind == "Pod")?;
        match self.get(Kind::Pod, &reference.namespace, &reference.name)? {
            Object::Pod(pod) => Some(pod),
            _ => None,
        }
    }

    /// The metadata of an object of any kind.
    pub(super) fn meta(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Meta> {
        self.get(kind, namespace, name).map(Object::meta)
    }
}

fn key(object: &Object) -> Key {
    let meta = object.meta();
    (meta.namespace.clone(), meta.name.clone())
}

fn count(events: &IntCounterVec, kind: Kind, event: &str) {
    if let Some(role) = kind.role() {
        events.with_label_values(&[role.name(), event]).inc();
    }
}
