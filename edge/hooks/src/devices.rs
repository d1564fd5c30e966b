//! What hangs at devices: XDP programs, tc filters, BPF programs by tcx.

use std::collections::BTreeSet;

use netlink::Socket;
use netlink::codec::{Attrs, Request, text, u8_at, u32_at};
use nft::Effect;

use crate::{Error, Finding, Kind, When, bpf};

const IFLA_IFNAME: u16 = 3;
const IFLA_XDP: u16 = 43;
const IFLA_EXT_MASK: u16 = 29;
/// `RTEXT_FILTER_SKIP_STATS`.
const SKIP_STATS: u32 = 1 << 3;
const IFLA_XDP_ATTACHED: u16 = 2;
const TCA_KIND: u16 = 1;
const LINK_HEADER: usize = 16;
const TC_HEADER: usize = 20;
/// Where filters of a `clsact` queue hang: what comes in, what goes out.
const SIDES: [(u32, &str); 2] = [(0xffff_fff2, "ingress"), (0xffff_fff3, "egress")];
/// And those of an `ingress` queue.
const INGRESS_QUEUE: u32 = 0xffff_0000;

/// XDP programs and tc filters.
pub(crate) fn look(socket: &mut Socket, links: &[Link]) -> Result<Vec<Finding>, Error> {
    let advice = "the program may take packets before anything else sees them";
    let with_xdp = links.iter().filter(|link| link.xdp);
    let mut found: Vec<_> =
        with_xdp.map(|link| of(Kind::Xdp, "device", link.name.clone(), advice)).collect();
    found.extend(filters(socket, links)?);
    Ok(found)
}

/// BPF programs by tcx.
pub(crate) fn tcx(links: &[Link]) -> Result<Vec<Finding>, Error> {
    let mut found = Vec::new();
    for Link { index, name, .. } in links {
        for (attach, side) in [(bpf::TCX_INGRESS, "ingress"), (bpf::TCX_EGRESS, "egress")] {
            let count = bpf::attached(*index, attach).map_err(Error::Bpf)?;
            if count > 0 {
                let advice =
                    "the program may take packets past policy: `bpftool net` says which it is";
                let programs = if count == 1 { "program" } else { "programs" };
                found.push(of(Kind::Tcx, side, format!("{name}: {count} {programs}"), advice));
            }
        }
    }
    Ok(found)
}

pub(crate) struct Link {
    index: u32,
    pub(crate) name: String,
    /// Whether an XDP program is attached.
    xdp: bool,
}

/// All devices, without their counters, which would be most of the answer.
pub(crate) fn links(socket: &mut Socket) -> netlink::Result<Vec<Link>> {
    let request = Request::new("list links", libc::RTM_GETLINK, 0, &[0; LINK_HEADER]);
    let request = request.attr_u32(IFLA_EXT_MASK, SKIP_STATS);
    socket.dump(&request, |m| {
        let all = Attrs::after(m.payload, LINK_HEADER);
        let xdp = all.clone().get(IFLA_XDP).map(Attrs);
        let attached = xdp.and_then(|xdp| xdp.get(IFLA_XDP_ATTACHED)).and_then(|v| u8_at(v, 0));
        Some(Link {
            index: u32_at(m.payload, 4)?,
            name: all.get(IFLA_IFNAME).and_then(text).unwrap_or("?").to_owned(),
            xdp: attached.is_some_and(|how| how != 0),
        })
    })
}

fn of(kind: Kind, side: &'static str, name: String, advice: &'static str) -> Finding {
    Finding {
        kind,
        when: if side == "egress" { When::After } else { When::Before },
        hook: side,
        priority: None,
        name,
        effects: BTreeSet::from([Effect::Drop, Effect::Redirect]),
        advice,
    }
}

fn filters(socket: &mut Socket, links: &[Link]) -> Result<Vec<Finding>, Error> {
    let header = |index: u32, parent: u32| {
        let mut header = [0; TC_HEADER];
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        header[12..16].copy_from_slice(&parent.to_ne_bytes());
        header
    };
    let request = Request::new("list queues", libc::RTM_GETQDISC, 0, &header(0, 0));
    let queues = socket.dump(&request, |m| {
        let sides = match Attrs::after(m.payload, TC_HEADER).get(TCA_KIND).and_then(text)? {
            "clsact" => &SIDES[..],
            "ingress" => &[(INGRESS_QUEUE, "ingress")],
            _ => return None,
        };
        Some((u32_at(m.payload, 4)?, sides))
    })?;
    let mut found = Vec::new();
    for (index, sides) in queues {
        let name = links.iter().find(|l| l.index == index).map_or("?", |l| l.name.as_str());
        for (parent, side) in sides {
            let request =
                Request::new("list filters", libc::RTM_GETTFILTER, 0, &header(index, *parent));
            let kinds = socket.dump(&request, |m| {
                let kind = Attrs::after(m.payload, TC_HEADER).get(TCA_KIND).and_then(text)?;
                Some(kind.to_owned())
            })?;
            if kinds.is_empty() {
                continue;
            }
            let kinds: Vec<String> = BTreeSet::from_iter(kinds).into_iter().collect();
            let advice = "the filters may drop packets or send them elsewhere, past policy";
            found.push(of(Kind::Tc, side, format!("{name}: {}", kinds.join(", ")), advice));
        }
    }
    Ok(found)
}
