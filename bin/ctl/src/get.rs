//! `get`.

use std::collections::HashSet;

use anyhow::{Result, bail};
use api::{Kind, Source, convert};
use http::Method;
use serde_json::{Value, json};

use crate::apply::kind;
use crate::args::{Access, GetArgs, GetOutput};
use crate::cluster::{Cluster, escape};
use crate::files::load;
use crate::print::{self, Out, Table, cell};
use crate::{Outcome, check, usage, wait};

/// Objects of one kind, as asked for.
struct Ask {
    kind: &'static Kind,
    namespace: Option<String>,
    names: Vec<String>,
}

pub(crate) fn get(access: &Access, args: &GetArgs) -> Result<Outcome> {
    let Some(asks) = asks(args)? else { return Ok(Outcome::Failed) };
    wait(async {
        let cluster = Cluster::connect(access).await?;
        let mut out = Out::new();
        let mut failed = false;
        let several = asks.len() > 1;
        let whole = matches!(args.output, GetOutput::Yaml | GetOutput::Json);
        let mut all = Vec::new();
        for (i, mut ask) in asks.into_iter().enumerate() {
            if ask.namespace.is_none() && ask.kind.namespaced && !args.all_namespaces {
                ask.namespace = Some(cluster.namespace.clone());
            }
            let (mut found, missing) = fetch(&cluster, &ask).await?;
            for name in &missing {
                failed = true;
                print::complain(&format!("{} {name}: does not exist", ask.kind.kind));
            }
            if args.export {
                found.iter_mut().for_each(strip);
            }
            if several && whole {
                all.append(&mut found);
                continue;
            }
            if i > 0 && !whole && args.output != GetOutput::Name {
                out.line("")?;
            }
            let single = ask.names.len() == 1;
            show(&mut out, ask.kind, found, single, args)?;
        }
        if several && whole {
            // One document, whatever is in it: it can be given to `replace` again.
            let list = json!({ "apiVersion": "v1", "kind": "List", "metadata": {}, "items": all });
            write(&mut out, &list, &args.output)?;
        }
        out.finish()?;
        Ok(if failed { Outcome::Failed } else { Outcome::Done })
    })
}

fn asks(args: &GetArgs) -> Result<Option<Vec<Ask>>> {
    let Some(words) = &args.kind else {
        let mut asks = Vec::new();
        for loaded in load(&args.files)? {
            let (Some(kind), Some(name)) = (loaded.kind, loaded.name()) else {
                check::tell(&[loaded]);
                return Ok(None);
            };
            let namespace = loaded.namespace().map(str::to_owned);
            asks.push(Ask {
                kind,
                namespace: namespace.or_else(|| args.namespace.clone()),
                names: vec![name.to_owned()],
            });
        }
        return Ok(Some(asks));
    };
    let ask = |word: &str| {
        Ok(Ask { kind: kind(word)?, namespace: args.namespace.clone(), names: args.names.clone() })
    };
    words.split(',').map(ask).collect::<Result<Vec<_>>>().map(Some)
}

/// Every object of a kind, of all namespaces; none where the server does not serve it.
pub(crate) async fn all(cluster: &Cluster, kind: &'static Kind) -> Result<Vec<Value>> {
    if matches!(cluster.source(kind), Source::Stored | Source::Kubernetes)
        && cluster
            .send(Method::GET, &format!("{}?limit=1", cluster.path(kind, None, None)), None)
            .await?
            .is_none()
    {
        return Ok(Vec::new());
    }
    Ok(fetch(cluster, &Ask { kind, namespace: None, names: Vec::new() }).await?.0)
}

/// The objects, and the names of those that do not exist.
async fn fetch(cluster: &Cluster, ask: &Ask) -> Result<(Vec<Value>, Vec<String>)> {
    let Ask { kind, namespace, names } = ask;
    let namespace = namespace.as_deref();
    if !names.is_empty() && matches!(cluster.source(kind), Source::Stored | Source::Kubernetes) {
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for name in names {
            match cluster
                .send(Method::GET, &cluster.path(kind, namespace, Some(name)), None)
                .await?
            {
                Some(mut object) => {
                    hide(&mut object);
                    found.push(object);
                }
                None => missing.push(name.clone()),
            }
        }
        return Ok((found, missing));
    }
    let mut all = match cluster.source(kind) {
        Source::Stored | Source::Kubernetes => {
            match cluster.list(&cluster.path(kind, namespace, None)).await? {
                Some(mut all) => {
                    // No store has it, and every cluster.
                    if kind.plural == "profiles" {
                        let (name, profile) = convert::default_allow_profile();
                        let view = serde_json::to_value(convert::profile_view(&name, &profile))?;
                        all.retain(|object| cell(object, ".metadata.name") != name.as_str());
                        all.push(view);
                    }
                    all
                }
                None => bail!("the server does not serve {}", kind.plural),
            }
        }
        Source::Node => nodes(cluster).await?,
        Source::Pod => workloads(cluster, namespace).await?,
        Source::Namespace => {
            // Some servers also store profiles, or derive them as we do.
            let stored =
                cluster.list(&cluster.path(kind, namespace, None)).await?.unwrap_or_default();
            let mut all = profiles(cluster).await?;
            let name_of = |object: &Value| cell(object, ".metadata.name");
            let derived: HashSet<String> = all.iter().map(name_of).collect();
            all.extend(stored.into_iter().filter(|o| !derived.contains(&name_of(o))));
            all
        }
    };
    for object in &mut all {
        hide(object);
        object["apiVersion"] = kind.api_version().into(); // items of lists lack them
        object["kind"] = kind.kind.into();
    }
    let name_of = |object: &Value| cell(object, ".metadata.name");
    let missing = names.iter().filter(|n| !all.iter().any(|o| name_of(o) == **n)).cloned();
    let missing = missing.collect();
    if !names.is_empty() {
        all.retain(|object| names.contains(&name_of(object)));
    }
    Ok((all, missing))
}

async fn core<T: serde::de::DeserializeOwned>(cluster: &Cluster, path: &str) -> Result<Vec<T>> {
    let all = cluster.list(path).await?.unwrap_or_default();
    all.into_iter().map(|o| Ok(serde_json::from_value(o)?)).collect()
}

async fn nodes(cluster: &Cluster) -> Result<Vec<Value>> {
    let nodes = core::<k8s_openapi::api::core::v1::Node>(cluster, "/api/v1/nodes").await?;
    nodes.iter().map(|n| Ok(serde_json::to_value(convert::node_view(n))?)).collect()
}

async fn workloads(cluster: &Cluster, namespace: Option<&str>) -> Result<Vec<Value>> {
    let path = match namespace {
        Some(namespace) => format!("/api/v1/namespaces/{}/pods", escape(namespace)),
        None => "/api/v1/pods".to_owned(),
    };
    let felix = "/apis/projectcalico.org/v3/felixconfigurations/default";
    let felix = cluster.send(Method::GET, felix, None).await?.unwrap_or_default();
    let prefix = convert::interface_prefix(&felix);
    let mut all = Vec::new();
    for pod in core::<k8s_openapi::api::core::v1::Pod>(cluster, &path).await? {
        match convert::workload_view(&pod, prefix) {
            Ok(Some(view)) => all.push(serde_json::to_value(view)?),
            Ok(None) => (),
            Err(e) => {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                print::complain(&format!("Pod {name}: {e}"));
            }
        }
    }
    Ok(all)
}

async fn profiles(cluster: &Cluster) -> Result<Vec<Value>> {
    use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
    let mut all = vec![convert::default_allow_profile()];
    let namespaces = core::<Namespace>(cluster, "/api/v1/namespaces").await?;
    all.extend(namespaces.iter().map(convert::namespace_profile));
    let accounts = core::<ServiceAccount>(cluster, "/api/v1/serviceaccounts").await?;
    all.extend(accounts.iter().map(convert::service_account_profile));
    let view =
        |(name, profile): &(_, _)| Ok(serde_json::to_value(convert::profile_view(name, profile))?);
    all.iter().map(view).collect()
}

/// Takes away what only the server's own bookkeeping needs.
fn hide(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}

/// Takes away what only this cluster knows.
pub(crate) fn strip(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for key in [
            "uid",
            "resourceVersion",
            "creationTimestamp",
            "generation",
            "managedFields",
            "selfLink",
        ] {
            metadata.remove(key);
        }
    }
    if let Some(object) = object.as_object_mut() {
        object.remove("status");
    }
}

fn show(
    out: &mut Out,
    kind: &Kind,
    mut found: Vec<Value>,
    single: bool,
    args: &GetArgs,
) -> Result<()> {
    match &args.output {
        GetOutput::Ps | GetOutput::Wide => out.table(&table(kind, &found, args)),
        GetOutput::Columns(columns) => out.table(&chosen(kind, &found, columns)?),
        GetOutput::Name => {
            for object in &found {
                let name = cell(object, ".metadata.name");
                out.line(&format!("{}.{}/{name}", kind.singular, kind.group))?;
            }
            Ok(())
        }
        GetOutput::Yaml | GetOutput::Json => {
            let value = if single {
                match found.pop() {
                    Some(one) => one,
                    None => return Ok(()), // it has been told that it does not exist
                }
            } else {
                json!({
                    "apiVersion": kind.api_version(),
                    "kind": format!("{}List", kind.kind),
                    "metadata": {},
                    "items": found,
                })
            };
            write(out, &value, &args.output)
        }
    }
}

fn write(out: &mut Out, value: &Value, form: &GetOutput) -> Result<()> {
    if *form == GetOutput::Yaml { out.yaml(value) } else { out.json(value) }
}

fn table(kind: &Kind, found: &[Value], args: &GetArgs) -> Table {
    let wide = args.output == GetOutput::Wide;
    let columns: Vec<_> = kind.columns.iter().filter(|c| wide || !c.wide).collect();
    let namespaced = kind.namespaced && args.all_namespaces;
    let mut headings = Vec::new();
    if namespaced {
        headings.push("NAMESPACE".to_owned());
    }
    // A workload is known by its pod; its own name is made up.
    let own_name = kind.source != Source::Pod || wide;
    if own_name {
        headings.push("NAME".to_owned());
    }
    headings.extend(columns.iter().map(|c| c.name.to_uppercase()));
    let mut table = Table::new(headings);
    for object in found {
        let mut row = Vec::new();
        if namespaced {
            row.push(cell(object, ".metadata.namespace"));
        }
        if own_name {
            row.push(cell(object, ".metadata.name"));
        }
        row.extend(columns.iter().map(|c| cell(object, c.path)));
        table.row(row);
    }
    table
}

/// A table of the columns that were asked for.
fn chosen(kind: &Kind, found: &[Value], columns: &[String]) -> Result<Table> {
    let own = [("NAME", ".metadata.name"), ("NAMESPACE", ".metadata.namespace")];
    let known = || own.into_iter().chain(kind.columns.iter().map(|c| (c.name, c.path)));
    let path = |column: &String| {
        if let Some((heading, path)) = column.split_once(':') {
            return Ok((heading.to_owned(), path.to_owned()));
        }
        let found = known().find(|(name, _)| name.eq_ignore_ascii_case(column));
        let (_, path) = found.ok_or_else(|| {
            let names: Vec<_> = known().map(|(name, _)| name.to_uppercase()).collect();
            let names = names.join(", ");
            usage(format!(
                "{} has no column {column:?} (want {names}, or HEADING:.path)",
                kind.kind
            ))
        })?;
        Ok((column.to_uppercase(), path.to_owned()))
    };
    let paths = columns.iter().map(path).collect::<Result<Vec<_>>>()?;
    let mut table = Table::new(paths.iter().map(|(heading, _)| heading.as_str()));
    for object in found {
        table.row(paths.iter().map(|(_, path)| cell(object, path)));
    }
    Ok(table)
}
