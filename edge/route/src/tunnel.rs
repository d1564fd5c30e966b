//! A VXLAN device, and who is behind it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use model::{IfaceName, InSync, IpVersion, Tunnel, TunnelEnd};
use netlink::link::{self, Vxlan};
use netlink::neighbour::{self, Neighbour, Table};
use netlink::{Address, Error, Link, Mac, Request, Result, Socket, address};

use crate::ledger::{Ledger, Plan};

/// Whether an interface of that name is a VXLAN device of ours.
pub fn is_tunnel(name: &IfaceName) -> bool {
    IpVersion::ALL.into_iter().any(|version| device(version) == name.as_str())
}

fn device(version: IpVersion) -> &'static str {
    match version {
        IpVersion::V4 => "vxlan.calico",
        IpVersion::V6 => "vxlan-v6.calico",
    }
}

/// The VXLAN device of one family with its neighbours (tunnel address to hardware address) and
/// forwarding entries (hardware address to underlay address).
#[derive(Debug)]
pub struct TunnelTable {
    name: IfaceName,
    wanted: Option<Tunnel>,
    /// It was wanted during this run, so it may be removed without the witness.
    ours: bool,
    /// The device must be looked at.
    dirty: bool,
    index: Option<u32>,
    ends: BTreeMap<IpAddr, TunnelEnd>,
    /// Underlay addresses by hardware address and tunnel address: a node that changes its tunnel
    /// address is behind two of them for a moment.
    parents: BTreeMap<Mac, BTreeMap<IpAddr, IpAddr>>,
    neighbours: Ledger<IpAddr, Mac>,
    forwarding: Ledger<Mac, IpAddr>,
}

impl TunnelTable {
    /// The table of the device of that family.
    ///
    /// # Panics
    /// Never: the names are legal.
    pub fn new(version: IpVersion) -> Self {
        Self {
            name: device(version).parse().expect("both names are legal"),
            wanted: None,
            ours: false,
            dirty: true,
            index: None,
            ends: BTreeMap::new(),
            parents: BTreeMap::new(),
            neighbours: Ledger::default(),
            forwarding: Ledger::default(),
        }
    }

    /// Says what the device should be; memory only.
    pub fn want(&mut self, tunnel: Option<Tunnel>) {
        if self.wanted != tunnel {
            self.ours |= self.wanted.is_some();
            self.wanted = tunnel;
            self.dirty = true;
        }
    }

    /// Says who is behind an address of the tunnel; memory only.
    pub fn want_end(&mut self, address: IpAddr, end: Option<TunnelEnd>) {
        let old = match end {
            Some(end) => self.ends.insert(address, end),
            None => self.ends.remove(&address),
        };
        if let Some(end) = end {
            self.parents.entry(end.mac).or_default().insert(address, end.parent);
            self.want_forwarding(end.mac);
        }
        if let Some(old) = old.filter(|old| end.is_none_or(|end| end.mac != old.mac)) {
            self.parents.entry(old.mac).or_default().remove(&address);
            self.want_forwarding(old.mac);
        }
        self.neighbours.want(address, end.map(|end| end.mac));
    }

    fn want_forwarding(&mut self, mac: Mac) {
        let parent = self.parents.get(&mac).and_then(|all| all.values().next().copied());
        if parent.is_none() {
            self.parents.remove(&mac);
        }
        self.forwarding.want(mac, parent);
    }

    /// Somebody changed the device, or it is gone.
    pub fn noticed_link(&mut self, name: &IfaceName, link: Option<&Link>) {
        let right = |link: &Link| {
            let wanted = self.wanted.as_ref();
            link.up
                && self.index == Some(link.index)
                && wanted.is_some_and(|w| link.mtu == w.mtu && link.mac == Some(w.mac))
        };
        if *name == self.name && !link.is_some_and(right) {
            self.dirty = true;
        }
    }

    /// Somebody changed an address.
    pub fn noticed_address(&mut self, address: &Address, there: bool) {
        if self.index != Some(address.index) {
            return;
        }
        let wanted = self.wanted.as_ref().map(|w| w.address);
        if there != (wanted == Some(address.net.addr())) && address.global {
            self.dirty = true;
        }
    }

    /// Somebody changed a neighbour or forwarding entry (or we did).
    pub fn noticed_neighbour(&mut self, entry: &Neighbour, there: bool) {
        if self.index != Some(entry.index) {
            return;
        }
        // A removal is first announced as a change to an entry that is not permanent any more.
        let there = there && entry.permanent;
        match (entry.table, entry.address, entry.mac) {
            (Table::Neighbour, Some(address), mac) => {
                self.neighbours.observed_one(address, mac.filter(|_| there));
            }
            (Table::Forwarding, Some(remote), Some(mac)) => {
                self.forwarding.observed_one(mac, there.then_some(remote));
            }
            _ => {}
        }
    }

    /// Makes device and entries; what is to be removed stays. Comes before the routes.
    pub fn apply_puts(&mut self, socket: &mut Socket) -> Result<bool> {
        let mut changed = false;
        if self.dirty && self.wanted.is_some() {
            changed |= self.make(socket)?;
            self.dirty = false;
        }
        let Some(index) = self.index else { return Ok(changed) };
        let near = self.neighbours.plan(None).puts;
        let far = self.forwarding.plan(None).puts;
        // Where frames go comes before who is asked for.
        let requests: Vec<Request> = far
            .iter()
            .map(|(mac, remote)| neighbour::put_forwarding(index, *mac, *remote))
            .chain(near.iter().map(|(address, mac)| neighbour::put(index, *address, *mac)))
            .collect();
        changed |= !requests.is_empty();
        send(socket, &requests)?;
        for (mac, remote) in far {
            self.forwarding.did_put(mac, remote);
        }
        for (address, mac) in near {
            self.neighbours.did_put(address, mac);
        }
        Ok(changed)
    }

    /// Removes entries and the device if they are not wanted. Comes after the routes.
    pub fn apply_removals(
        &mut self,
        socket: &mut Socket,
        in_sync: Option<&InSync>,
    ) -> Result<bool> {
        if self.wanted.is_none() {
            return self.remove(socket, in_sync);
        }
        let Some(index) = self.index else { return Ok(false) };
        let Plan { removals: near, .. } = self.neighbours.plan(in_sync);
        let Plan { removals: far, .. } = self.forwarding.plan(in_sync);
        let requests: Vec<Request> = near
            .iter()
            .map(|(address, _)| neighbour::delete(index, *address))
            .chain(far.iter().map(|(mac, to)| neighbour::delete_forwarding(index, *mac, *to)))
            .collect();
        send(socket, &requests)?;
        for (address, _) in near {
            self.neighbours.did_remove(address);
        }
        for (mac, _) in far {
            self.forwarding.did_remove(mac);
        }
        Ok(!requests.is_empty())
    }

    fn remove(&mut self, socket: &mut Socket, in_sync: Option<&InSync>) -> Result<bool> {
        if !self.dirty || (in_sync.is_none() && !self.ours) {
            return Ok(false);
        }
        let found = link::get(socket, &self.name)?;
        if let Some(link) = &found {
            send(socket, &[link::delete(link.index)])?;
        }
        self.forget_kernel();
        self.index = None;
        self.dirty = false;
        Ok(found.is_some())
    }

    /// Makes the device as wanted: adopts it if it is right, corrects what can be corrected, and
    /// makes it anew if not.
    fn make(&mut self, socket: &mut Socket) -> Result<bool> {
        let Some(want) = self.wanted.clone() else { return Ok(false) };
        let vxlan =
            Vxlan { vni: want.vni, port: want.port, local: Some(want.local), learning: false };
        let mut found = link::get(socket, &want.iface)?;
        let mut changed = false;
        if let Some(other) = found.take_if(|link| link.vxlan.as_ref() != Some(&vxlan)) {
            socket.call(&link::delete(other.index))?;
        }
        let link = if let Some(link) = found {
            link
        } else {
            socket.call(&link::add_vxlan(&want.iface, want.mac, want.mtu, &vxlan))?;
            changed = true;
            link::require(socket, &want.iface)?
        };
        self.index = Some(link.index);
        changed |= correct(socket, &link, &want)?;
        self.read_back(socket, link.index)?;
        Ok(changed)
    }

    fn read_back(&mut self, socket: &mut Socket, index: u32) -> Result<()> {
        let near = neighbour::list(socket, index, Table::Neighbour)?;
        let far = neighbour::list(socket, index, Table::Forwarding)?;
        let permanent = |n: &Neighbour| n.permanent;
        let near = near.into_iter().filter(permanent).filter_map(|n| Some((n.address?, n.mac?)));
        let far = far.into_iter().filter(permanent).filter_map(|n| Some((n.mac?, n.address?)));
        self.neighbours.observed(near.collect());
        self.forwarding.observed(far.collect());
        Ok(())
    }

    /// Must be looked at again: notifications were lost.
    pub fn resync(&mut self) {
        self.dirty = true;
    }

    fn forget_kernel(&mut self) {
        self.neighbours.observed(BTreeMap::new());
        self.forwarding.observed(BTreeMap::new());
    }
}

/// Size, hardware address, address, up.
fn correct(socket: &mut Socket, link: &Link, want: &Tunnel) -> Result<bool> {
    let mut requests = Vec::new();
    let mut settings = link::set_up(link.index);
    if link.mtu != want.mtu {
        settings = settings.mtu(want.mtu);
    }
    if link.mac != Some(want.mac) {
        settings = settings.mac(want.mac);
    }
    if !link.up || link.mtu != want.mtu || link.mac != Some(want.mac) {
        requests.push(settings);
    }
    let net = IpNet::from(want.address);
    let own = |a: &Address| a.index == link.index && a.global;
    let has: Vec<_> = address::list(socket)?.into_iter().filter(own).map(|a| a.net).collect();
    if !has.contains(&net) {
        requests.push(address::add(link.index, net));
    }
    let others = has.iter().filter(|a| **a != net);
    requests.extend(others.map(|other| address::delete(link.index, *other)));
    send(socket, &requests)?;
    Ok(!requests.is_empty())
}

/// All or an error; what is missing already need not be removed.
fn send(socket: &mut Socket, requests: &[Request]) -> Result<()> {
    for (request, answer) in requests.iter().zip(socket.batch(requests)?) {
        match answer {
            Err(refusal) if !(request.what().starts_with("delete") && refusal.is_missing()) => {
                return Err(Error::Refused { what: request.what(), refusal });
            }
            _ => {}
        }
    }
    Ok(())
}
