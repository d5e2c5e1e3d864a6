//! The labels of a data point's series: from its own attributes, its resource and its scope.

use std::borrow::Cow;

use stint_model::labels::METRIC_NAME;

use super::attributes::Attribute;
use super::names::{EmptyName, LabelStyle, label_name};
use super::{Options, Promotion};

const NAMESPACE: &str = "service.namespace";
const SERVICE: &str = "service.name";
const INSTANCE: &str = "service.instance.id";

/// Labels in order of names, each name once.
pub(super) type Pairs<'a> = Vec<(Cow<'a, str>, Cow<'a, str>)>;

/// What every series of a resource has.
#[derive(Debug, Default)]
pub(super) struct ResourceLabels<'a> {
    /// `job` and `instance`, as far as the resource tells them.
    pub(super) identity: Pairs<'a>,
    /// Promoted attributes: only where a point has no such label itself.
    pub(super) promoted: Pairs<'a>,
    /// Of `target_info`; empty where there is nothing to tell.
    pub(super) info: Pairs<'a>,
}

/// What happened on the way that the operator may want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Collided(pub(super) bool);

fn style(options: &Options) -> LabelStyle {
    LabelStyle {
        escapes: options.strategy.escapes(),
        keeps_runs: options.label_name_preserve_multiple_underscores,
        prefixes: options.label_name_underscore_sanitization,
    }
}

/// Sets a label, over one that is there.
fn set<'a>(pairs: &mut Pairs<'a>, name: Cow<'a, str>, value: Cow<'a, str>) {
    match pairs.binary_search_by(|(present, _)| present.cmp(&name)) {
        Ok(at) => {
            if let Some((_, old)) = pairs.get_mut(at) {
                *old = value;
            }
        }
        Err(at) => pairs.insert(at, (name, value)),
    }
}

/// Labels out of attributes. Values of keys that become the same name are joined.
fn from_attributes<'a>(
    attributes: &mut [Attribute<'a>],
    style: LabelStyle,
    out: &mut Pairs<'a>,
) -> Result<Collided, EmptyName> {
    out.clear();
    attributes.sort_by_key(|(key, _)| *key);
    let mut collided = false;
    for (key, value) in attributes.iter() {
        if *key == METRIC_NAME {
            continue;
        }
        let name = label_name(key, style)?;
        match out.binary_search_by(|(present, _)| present.cmp(&name)) {
            Ok(at) => {
                collided = true;
                if let Some((_, old)) = out.get_mut(at) {
                    let joined = old.to_mut();
                    joined.push(';');
                    joined.push_str(value);
                }
            }
            Err(at) => out.insert(at, (name, value.clone())),
        }
    }
    Ok(Collided(collided))
}

impl<'a> ResourceLabels<'a> {
    /// Of a resource with these attributes.
    ///
    /// # Errors
    /// A name of which nothing is left; nothing of the resource can be stored then.
    pub(super) fn new(
        attributes: &mut Vec<Attribute<'a>>,
        options: &'a Options,
    ) -> Result<Self, EmptyName> {
        for (key, value) in &options.resource_attributes {
            let value = Cow::Borrowed(value.as_str());
            match attributes.iter_mut().find(|(present, _)| present == key) {
                Some((_, old)) => *old = value,
                None => attributes.push((key, value)),
            }
        }
        let value_of = |wanted: &str| {
            let found = attributes.iter().find(|(key, _)| *key == wanted);
            found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
        };
        let mut identity = Pairs::new();
        if let Some(service) = value_of(SERVICE) {
            let job = match value_of(NAMESPACE) {
                Some(namespace) => Cow::Owned(format!("{namespace}/{service}")),
                None => service,
            };
            set(&mut identity, "job".into(), job);
        }
        if let Some(instance) = value_of(INSTANCE) {
            set(&mut identity, "instance".into(), instance);
        }

        let mut promoted = Pairs::new();
        let mut chosen: Vec<Attribute<'_>> =
            attributes.iter().filter(|(key, _)| options.promotion.takes(key)).cloned().collect();
        from_attributes(&mut chosen, style(options), &mut promoted)?;

        let mut info = Pairs::new();
        let identifying = |key: &str| [NAMESPACE, SERVICE, INSTANCE].contains(&key);
        let tells_more = attributes.iter().any(|(key, _)| !identifying(key));
        if tells_more && !identity.is_empty() {
            let keeps = options.keep_identifying_resource_attributes;
            attributes.retain(|(key, _)| keeps || !identifying(key));
            from_attributes(attributes, style(options), &mut info)?;
            for (name, value) in &identity {
                set(&mut info, name.clone(), value.clone());
            }
            set(&mut info, METRIC_NAME.into(), "target_info".into());
        }
        Ok(Self { identity, promoted, info })
    }
}

impl Promotion {
    fn takes(&self, key: &str) -> bool {
        match self {
            Self::Only(keys) => keys.iter().any(|listed| listed == key),
            Self::AllBut(keys) => !keys.iter().any(|listed| listed == key),
        }
    }
}

/// The labels of a scope, where they are wanted.
///
/// # Errors
/// A name of which nothing is left.
pub(super) fn of_scope<'a>(
    name: &'a str,
    version: &'a str,
    schema_url: &'a str,
    attributes: &mut [Attribute<'a>],
    options: &Options,
) -> Result<Pairs<'a>, EmptyName> {
    let mut pairs = Pairs::new();
    if name.is_empty() || !options.promote_scope_metadata {
        return Ok(pairs);
    }
    let mut own = Pairs::new();
    let mut prefixed = style(options);
    prefixed.prefixes = false;
    from_attributes(attributes, prefixed, &mut own)?;
    for (key, value) in own {
        set(&mut pairs, format!("otel_scope_{key}").into(), value);
    }
    set(&mut pairs, "otel_scope_name".into(), name.into());
    set(&mut pairs, "otel_scope_version".into(), version.into());
    set(&mut pairs, "otel_scope_schema_url".into(), schema_url.into());
    Ok(pairs)
}

/// Replaces the contents of `out` by the labels of a data point, without the metric's name.
///
/// # Errors
/// A name of which nothing is left.
pub(super) fn of_point<'a>(
    attributes: &mut [Attribute<'a>],
    resource: &ResourceLabels<'a>,
    scope: &Pairs<'a>,
    options: &Options,
    out: &mut Pairs<'a>,
) -> Result<Collided, EmptyName> {
    let collided = from_attributes(attributes, style(options), out)?;
    for (name, value) in &resource.promoted {
        if out.binary_search_by(|(present, _)| present.cmp(name)).is_err() {
            set(out, name.clone(), value.clone());
        }
    }
    for (name, value) in resource.identity.iter().chain(scope) {
        set(out, name.clone(), value.clone());
    }
    // A label without a value is none.
    out.retain(|(_, value)| !value.is_empty());
    Ok(collided)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otlp::Strategy;

    fn attributes<'a>(pairs: &[(&'a str, &'a str)]) -> Vec<Attribute<'a>> {
        pairs.iter().map(|(key, value)| (*key, Cow::Borrowed(*value))).collect()
    }

    fn shown(pairs: &Pairs<'_>) -> String {
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join(" ")
    }

    fn point(own: &[(&str, &str)], resource: &[(&str, &str)], options: &Options) -> String {
        let mut out = Pairs::new();
        let resource = ResourceLabels::new(&mut attributes(resource), options).unwrap();
        let mut own = attributes(own);
        of_point(&mut own, &resource, &Pairs::new(), options, &mut out).unwrap();
        shown(&out)
    }

    #[test]
    fn a_service_becomes_job_and_instance() {
        let resource = [(NAMESPACE, "shop"), (SERVICE, "api"), (INSTANCE, "7"), ("host.name", "a")];
        let options = Options::default();
        assert_eq!(
            point(&[("job", "mine"), ("x", "1")], &resource, &options),
            "instance=7 job=shop/api x=1"
        );
        let labels = ResourceLabels::new(&mut attributes(&resource), &options).unwrap();
        assert_eq!(shown(&labels.info), "__name__=target_info host_name=a instance=7 job=shop/api");
        let keeps = Options { keep_identifying_resource_attributes: true, ..Options::default() };
        let labels = ResourceLabels::new(&mut attributes(&resource), &keeps).unwrap();
        assert!(shown(&labels.info).contains("service_name=api"));
        let bare = ResourceLabels::new(&mut attributes(&resource[..3]), &options).unwrap();
        assert_eq!(shown(&bare.info), "", "nothing beside the identity");
    }

    #[test]
    fn promoted_attributes_never_replace_those_of_a_point() {
        let options =
            Options { promotion: Promotion::AllBut(vec!["secret".into()]), ..Options::default() };
        let resource = [("host.name", "a"), ("zone", "b"), ("secret", "c")];
        assert_eq!(point(&[("zone", "own")], &resource, &options), "host_name=a zone=own");
        let some =
            Options { promotion: Promotion::Only(vec!["zone".into()]), ..Options::default() };
        assert_eq!(point(&[], &resource, &some), "zone=b");
    }

    #[test]
    fn keys_that_become_one_name_are_joined_in_order() {
        let options = Options::default();
        assert_eq!(
            point(&[("a_b", "2"), ("a.b", "1"), ("__name__", "x")], &[], &options),
            "a_b=1;2"
        );
        let utf8 = Options { strategy: Strategy::None, ..Options::default() };
        assert_eq!(point(&[("a_b", "2"), ("a.b", "1")], &[], &utf8), "a.b=1 a_b=2");
        assert_eq!(point(&[("gone", "")], &[], &options), "");
    }

    #[test]
    fn configured_attributes_replace_what_a_resource_says() {
        let options = Options {
            promotion: Promotion::AllBut(Vec::new()),
            resource_attributes: vec![("deployment.environment".into(), "prod".into())],
            ..Options::default()
        };
        let resource = [("deployment.environment", "local")];
        assert_eq!(point(&[], &resource, &options), "deployment_environment=prod");
        assert_eq!(point(&[], &[], &options), "deployment_environment=prod");
    }

    #[test]
    fn a_scope_is_told_where_it_is_wanted() {
        let wanted = Options { promote_scope_metadata: true, ..Options::default() };
        let scope = |name, options| {
            shown(&of_scope(name, "1", "", &mut attributes(&[("k.x", "v")]), options).unwrap())
        };
        assert_eq!(
            scope("lib", &wanted),
            "otel_scope_k_x=v otel_scope_name=lib otel_scope_schema_url= otel_scope_version=1"
        );
        assert_eq!(scope("", &wanted), "");
        assert_eq!(scope("lib", &Options::default()), "");
    }
}
