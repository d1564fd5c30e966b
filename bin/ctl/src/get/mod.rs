//! `get`: objects page by page, so that a large cluster is shown at once and in little memory.
//!
//! While one page is turned into text by a thread of its own, the next one is asked for.

mod fetch;
mod show;

use anyhow::Result;
use api::Kind;

use crate::apply::kind;
use crate::args::{Access, GetArgs};
use crate::cluster::Cluster;
use crate::files::load;
use crate::{Outcome, check, print, wait};

use fetch::Supply;
pub(crate) use fetch::{all, strip};
use show::{Form, Frame, Sink};

/// Objects of one kind, as asked for.
struct Ask {
    kind: &'static Kind,
    namespace: Option<String>,
    names: Vec<String>,
}

pub(crate) fn get(access: &Access, args: &GetArgs) -> Result<Outcome> {
    let Some(asks) = asks(args)? else { return Ok(Outcome::Failed) };
    // What is wrong with the form is told before anybody is asked.
    let kinds: Vec<_> = asks.iter().map(|ask| ask.kind).collect();
    let form = Form::new(args, &kinds)?;
    wait(async {
        let cluster = Cluster::connect(access).await?;
        let mut sink = Sink::new(form, asks.len());
        let mut missing = Vec::new();
        for mut ask in asks {
            if ask.namespace.is_none() && ask.kind.namespaced && !args.all_namespaces {
                ask.namespace = Some(cluster.namespace.clone());
            }
            missing.extend(one(&cluster, &ask, &mut sink).await?);
        }
        sink.finish()?;
        // After the output: who reads both sees them in an order that makes sense.
        for text in &missing {
            print::complain(text);
        }
        Ok(if missing.is_empty() { Outcome::Done } else { Outcome::Failed })
    })
}

/// Shows what one question brings. Tells what does not exist.
async fn one(cluster: &Cluster, ask: &Ask, sink: &mut Sink) -> Result<Vec<String>> {
    let mut supply = Supply::new(cluster, ask).await?;
    let frame = Frame { kind: ask.kind, single: ask.names.len() == 1 };
    sink.begin(&frame)?;
    let mut page = supply.next(cluster).await?;
    while let Some(objects) = page {
        if supply.ended() {
            sink.take(sink.form.render(ask.kind, objects)?)?;
            break;
        }
        let (form, kind) = (sink.form.clone(), ask.kind);
        let rendered = tokio::task::spawn_blocking(move || form.render(kind, objects));
        let (rendered, next) = tokio::join!(rendered, supply.next(cluster));
        sink.take(rendered??)?;
        page = next?;
    }
    sink.end(&frame)?;
    let told = |name| format!("{} {name}: does not exist", ask.kind.kind);
    Ok(supply.missing().map(told).collect())
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
