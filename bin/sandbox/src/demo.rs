//! The demo: the examples, applied one after the other to a real cluster; after each, what every
//! connection did beside what the specification says it should do.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::api::{DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use policy::{Packet, Verdict, evaluate};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use crate::cluster::Patience;
use crate::matrix::{Cell, table};
use crate::print::say;
use crate::probe::{Pair, Protocol, measure};
use crate::responder::{PortSpec, Transport};
use crate::state::{BASTION, Encap, STRANGER, Spec, State};
use crate::{client, cluster, pods, view};

/// How long the data plane may take to agree with the specification after a change.
const CONVERGE: Duration = Duration::from_secs(6);
/// How long a pod may take to run.
const START: Duration = Duration::from_secs(20);

/// What a file of the examples is expected to do here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// Validated and stored: takes effect with a part that is not there yet.
    Stored(&'static str),
    /// A new pod gets an address of the pool.
    Pool,
    /// At least one cell of the table changes.
    Cells,
}

/// The order of the demo: every policy meets a cluster in which it makes a difference.
const STEPS: [(&str, Effect); 11] = [
    ("installation.yaml", Effect::Stored("takes effect with the operator")),
    ("bgppeer-tor.yaml", Effect::Stored("takes effect with BGP")),
    ("node-route-reflector.yaml", Effect::Stored("takes effect with BGP")),
    ("ippool-frontend.yaml", Effect::Pool),
    ("default-deny-ingress.yaml", Effect::Cells),
    ("allow-frontend-to-backend.yaml", Effect::Cells),
    ("allow-monitoring.yaml", Effect::Cells),
    ("log-then-allow.yaml", Effect::Cells),
    ("hostendpoint.yaml", Effect::Cells),
    ("allow-ssh-from-bastion.yaml", Effect::Cells),
    ("global-default-deny.yaml", Effect::Cells),
];

/// Runs the demo; everything that it made is gone when it returns, also on Ctrl-C.
pub(crate) fn run(state: &State, examples: &Path) -> Result<()> {
    // A name of its own: a sandbox that is up stays as it is.
    let parent = state.dir().parent().context("the state folder has a parent")?;
    let state = State::new(parent, &format!("demo-{}", std::process::id()));
    check_files(examples)?;
    let runtime = client::runtime()?;
    let result = runtime.block_on(async {
        let (mut int, mut term) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            done = play(&state, examples) => done,
            _ = int.recv() => bail!("interrupted; everything has been removed"),
            _ = term.recv() => bail!("ended; everything has been removed"),
        }
    });
    // Blocking work under way (namespaces being made) ends before what it made is removed.
    runtime.shutdown_timeout(Duration::from_secs(15));
    let cleaned = cluster::clean(&state);
    result.and(cleaned)
}

/// Every file of the folder has a step, and every step a file: before anything is started.
fn check_files(examples: &Path) -> Result<()> {
    for (file, _) in STEPS {
        let path = examples.join(file);
        anyhow::ensure!(path.is_file(), "{} is not there", path.display());
    }
    let entries = std::fs::read_dir(examples).context("cannot list the examples")?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let known = STEPS.iter().any(|(file, _)| *file == name);
        anyhow::ensure!(
            known || path.extension() != Some("yaml".as_ref()),
            "the demo has no step for {name}"
        );
    }
    Ok(())
}

/// A row or column of the table.
#[derive(Clone, Debug)]
struct Place {
    label: String,
    netns: String,
    address: IpAddr,
}

struct Demo {
    state: State,
    spec: Spec,
    client: Client,
    rows: Vec<Place>,
    columns: Vec<(Place, u16)>,
    last: BTreeMap<(String, String), bool>,
    differences: usize,
}

async fn play(state: &State, examples: &Path) -> Result<()> {
    let begin = Instant::now();
    let spec =
        Spec { nodes: 3, dual_stack: false, encap: Encap::Vxlan, api_port: cluster::free_port()? };
    say("starting a cluster of three nodes");
    let (s, p) = (state.clone(), spec.clone());
    tokio::task::spawn_blocking(move || cluster::start(&s, &p, Patience::default())).await??;
    say(&format!("  ready in {:.2} s", begin.elapsed().as_secs_f64()));
    let client = client::connect(&state.kubeconfig()).await?;
    let mut demo = Demo {
        state: state.clone(),
        spec,
        client,
        rows: Vec::new(),
        columns: Vec::new(),
        last: BTreeMap::new(),
        differences: 0,
    };
    demo.furnish().await?;
    say("\nwithout any policy");
    demo.compare().await?;
    for (file, effect) in STEPS {
        demo.step(&examples.join(file), effect).await?;
    }
    if demo.differences > 0 {
        bail!("{} cells differ from what the policies say", demo.differences);
    }
    say(&format!(
        "\nevery connection did what the policies say ({:.0} s in all)",
        begin.elapsed().as_secs_f64()
    ));
    Ok(())
}

impl Demo {
    /// Namespaces, pods, and something that listens on the first node.
    async fn furnish(&mut self) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        for name in ["my-namespace", "monitoring"] {
            let object = json!({"metadata": {"name": name}});
            namespaces.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        }
        self.open_ssh_to_policy().await?;
        let nodes: Api<Node> = Api::all(self.client.clone());
        let rack = Patch::Merge(json!({"metadata": {"labels": {"rack": "frontend"}}}));
        nodes.patch("k8s-node-3", &PatchParams::default(), &rack).await?;
        for (namespace, name, app, node) in [
            ("my-namespace", "frontend", "frontend", "k8s-node-1"),
            ("my-namespace", "backend", "backend", "k8s-node-2"),
            ("my-namespace", "other", "other", "k8s-node-2"),
            ("monitoring", "prometheus", "prometheus", "k8s-node-3"),
        ] {
            self.create_pod(namespace, name, app, node, None).await?;
        }
        for (namespace, name) in [
            ("my-namespace", "frontend"),
            ("my-namespace", "backend"),
            ("my-namespace", "other"),
            ("monitoring", "prometheus"),
        ] {
            let place = self.running(namespace, name).await?;
            self.rows.push(place.clone());
            self.columns.push((place, 80));
        }
        let backend = self.rows[1].clone();
        self.columns.push((backend, 9100));
        for (label, address) in [("bastion", BASTION), ("stranger", STRANGER)] {
            let netns = self.state.netns(label);
            self.rows.push(Place { label: label.to_owned(), netns, address: address.into() });
        }
        let node = "k8s-node-1";
        let ports = [22, 8000].map(|port| PortSpec { protocol: Transport::Tcp, port });
        let pid = pods::respond(&self.state, &self.state.netns(node), node, &ports, "ssh")?;
        self.state.save_pid("ssh", pid)?;
        let place = Place {
            label: node.to_owned(),
            netns: self.state.netns(node),
            address: self.spec.node_addresses(0)[0],
        };
        self.columns.extend([(place.clone(), 22), (place, 8000)]);
        Ok(())
    }

    /// Takes SSH out of the ports that host policy never closes, as an administrator would who wants
    /// to say by policy who may log in.
    async fn open_ssh_to_policy(&self) -> Result<()> {
        let ports = [
            ("udp", 68),
            ("tcp", 179),
            ("tcp", 2379),
            ("tcp", 2380),
            ("tcp", 5473),
            ("tcp", 6443),
            ("tcp", 6666),
            ("tcp", 6667),
        ];
        let ports: Vec<_> = ports.map(|(p, n)| json!({"protocol": p, "port": n})).into();
        self.apply(&json!({
            "apiVersion": "projectcalico.org/v3", "kind": "FelixConfiguration",
            "metadata": {"name": "default"},
            "spec": {"failsafeInboundHostPorts": ports},
        }))
        .await
    }

    async fn create_pod(
        &self,
        namespace: &str,
        name: &str,
        app: &str,
        node: &str,
        pool: Option<&str>,
    ) -> Result<()> {
        let pools =
            pool.map(|p| json!({"cni.projectcalico.org/ipv4pools": json!([p]).to_string()}));
        let pod = json!({
            "metadata": {"name": name, "labels": {"app": app}, "annotations": pools},
            "spec": {
                "nodeName": node,
                "containers": [{
                    "name": app, "image": app,
                    "ports": [{"containerPort": 80}, {"containerPort": 9100, "name": "metrics"}],
                }],
            },
        });
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
        Ok(())
    }

    async fn running(&self, namespace: &str, name: &str) -> Result<Place> {
        let end = Instant::now() + START;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        while Instant::now() < end {
            let status = pods.get(name).await?.status.unwrap_or_default();
            let record =
                self.state.pods()?.into_iter().find(|p| p.namespace == namespace && p.name == name);
            if let (Some("Running"), Some(record)) = (status.phase.as_deref(), record)
                && let Some(address) = record.ips.first()
            {
                let label = format!("{namespace}/{name}");
                return Ok(Place { label, netns: record.netns, address: *address });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        bail!(
            "pod {namespace}/{name} does not run after {START:?} (logs in {})",
            self.state.dir().join("log").display()
        )
    }

    async fn step(&mut self, file: &PathBuf, effect: Effect) -> Result<()> {
        let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
        say(&format!("\napply {name}"));
        for document in api::yaml::documents(&text) {
            let object =
                document.object.with_context(|| format!("{name}, document {}", document.number))?;
            let errors = api::validate(&object, None);
            if let Some(error) = errors.first() {
                bail!("{name}, document {}: {error}", document.number);
            }
            self.apply(&object).await.with_context(|| format!("cannot apply {name}"))?;
        }
        match effect {
            Effect::Stored(later) => {
                say(&format!("  validated and stored; {later}"));
                Ok(())
            }
            Effect::Pool => self.pool_step().await,
            Effect::Cells => {
                let changed = self.compare().await?;
                if changed == 0 {
                    bail!("{name} has changed no cell");
                }
                say(&format!("  {changed} cells changed"));
                Ok(())
            }
        }
    }

    async fn pool_step(&mut self) -> Result<()> {
        self.create_pod("my-namespace", "pooled", "frontend", "k8s-node-3", Some("new-ippool"))
            .await?;
        let place = self.running("my-namespace", "pooled").await?;
        let pool: ipnet::IpNet = "10.20.0.0/16".parse()?;
        if !pool.contains(&place.address) {
            bail!(
                "pod my-namespace/pooled has {}, which is not of the new pool {pool}",
                place.address
            );
        }
        say(&format!("  a new pod on the rack's node has {}, of the new pool", place.address));
        self.rows.push(place);
        self.compare().await.map(|_| ())
    }

    async fn apply(&self, object: &Value) -> Result<()> {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let version = text(&object["apiVersion"]);
        let (group, version) = version.split_once('/').unwrap_or(("", &version));
        let gvk = GroupVersionKind::gvk(group, version, &text(&object["kind"]));
        let (resource, capabilities) = kube::discovery::pinned_kind(&self.client, &gvk).await?;
        let namespaced = capabilities.scope == kube::discovery::Scope::Namespaced;
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or("default");
        let api: Api<DynamicObject> = if namespaced {
            Api::namespaced_with(self.client.clone(), namespace, &resource)
        } else {
            Api::all_with(self.client.clone(), &resource)
        };
        let how = PatchParams::apply("calico-sandbox").force();
        api.patch(&text(&object["metadata"]["name"]), &how, &Patch::Apply(object)).await?;
        Ok(())
    }

    /// Measures every cell, asks the specification about every cell, prints both; how many cells
    /// have changed since the last time.
    async fn compare(&mut self) -> Result<usize> {
        let said = self.ask().await?;
        let begin = Instant::now();
        let mut measured = self.measure().await?;
        while measured != said && begin.elapsed() < CONVERGE {
            measured = self.measure().await?;
        }
        let cells: BTreeMap<_, _> = measured
            .iter()
            .map(|(k, m)| (k.clone(), Cell { measured: *m, said: said.get(k).copied() }))
            .collect();
        let rows: Vec<_> = self.rows.iter().map(|r| r.label.clone()).collect();
        let columns: Vec<_> = self.columns.iter().map(|(c, p)| column(c, *p)).collect();
        say(&table(&cells, &rows, &columns));
        let wrong = cells.values().filter(|c| c.said != Some(c.measured)).count();
        self.differences += wrong;
        say(&if wrong == 0 {
            format!("  all {} cells: measured = what the policies say", cells.len())
        } else {
            format!("  {wrong} cells DIFFER from what the policies say")
        });
        let changed =
            measured.iter().filter(|(k, v)| self.last.get(*k).is_some_and(|l| l != *v)).count();
        self.last = measured;
        Ok(changed)
    }

    /// The cells: every row to every column; hosts outside do not know where pods are.
    fn cells(&self) -> Vec<(&Place, &Place, u16)> {
        let mut cells = Vec::new();
        for row in &self.rows {
            for (target, port) in &self.columns {
                let outside = !row.label.contains('/');
                let to_pod = target.label.contains('/');
                if row.label != target.label && !(outside && to_pod) {
                    cells.push((row, target, *port));
                }
            }
        }
        cells
    }

    async fn measure(&self) -> Result<BTreeMap<(String, String), bool>> {
        let cells = self.cells();
        let pairs: Vec<Pair> = cells
            .iter()
            .map(|(from, to, port)| Pair {
                from: from.label.clone(),
                from_netns: from.netns.clone(),
                sources: vec![from.address],
                to: column(to, *port),
                addresses: vec![to.address],
                protocol: Protocol::Tcp,
                port: *port,
            })
            .collect();
        let outcomes = tokio::task::spawn_blocking(move || measure(&pairs)).await??;
        Ok(outcomes.into_iter().map(|o| ((o.from, o.to), o.reachable)).collect())
    }

    async fn ask(&self) -> Result<BTreeMap<(String, String), bool>> {
        let view = view::read(&self.client, &self.spec).await?;
        let answer = |(from, to, port): (&Place, &Place, u16)| {
            let packet = Packet::to_port(from.address, to.address, model::Protocol::TCP, port);
            let decision = evaluate(&view, &packet);
            ((from.label.clone(), column(to, port)), decision.verdict == Verdict::Allow)
        };
        Ok(self.cells().into_iter().map(answer).collect())
    }
}

fn column(place: &Place, port: u16) -> String {
    format!("{}:{port}", place.label)
}
