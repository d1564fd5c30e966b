//! Legacy iptables: what its tables may do, hook by hook, read as `iptables-legacy-save` reads them.
//!
//! Layouts: `include/uapi/linux/netfilter_ipv4/ip_tables.h`, `netfilter_ipv6/ip6_tables.h`,
//! `netfilter/x_tables.h`; numbers in host order.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsRawFd as _;

use netlink::codec::{text, u16_at, u32_at};
use nft::Effect;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{Error, Finding, Kind, When, advice};

const HOOKS: [&str; 5] = ["prerouting", "input", "forward", "output", "postrouting"];
/// `IPT_SO_GET_INFO`, `IPT_SO_GET_ENTRIES`; the same for IPv6.
const GET_INFO: libc::c_int = 64;
const GET_ENTRIES: libc::c_int = 65;
const NAME: usize = 32;
/// Name, mask of hooks, where they begin, where their policies are, number of entries, bytes of entries.
const INFO: usize = NAME + 4 + 20 + 20 + 4 + 4;
/// Name and bytes, before the entries, which are aligned to 8.
const ENTRIES_HEAD: usize = NAME + 8;
/// Entries that are looked at for one hook, at most: no table is that large.
const STEPS: usize = 10_000_000;

/// One of the two families.
struct Family {
    file: &'static str,
    tool: &'static str,
    domain: Domain,
    level: libc::c_int,
    /// Where an entry says how far its target and the next entry are.
    target_offset: usize,
}

const FAMILIES: [Family; 2] = [
    Family {
        file: "/proc/thread-self/net/ip_tables_names",
        tool: "iptables-legacy",
        domain: Domain::IPV4,
        level: libc::SOL_IP,
        target_offset: 88,
    },
    Family {
        file: "/proc/thread-self/net/ip6_tables_names",
        tool: "ip6tables-legacy",
        domain: Domain::IPV6,
        level: libc::SOL_IPV6,
        target_offset: 140,
    },
];

/// Only tables that are there: asking for another would load it.
pub(crate) fn look() -> Result<Vec<Finding>, Error> {
    let mut found = Vec::new();
    for family in &FAMILIES {
        // Not there where the kernel does not have them.
        let names = std::fs::read_to_string(family.file).unwrap_or_default();
        for table in names.lines() {
            let failed =
                |source| Error::Iptables { table: format!("{} {table}", family.tool), source };
            let read = Table::read(family, table).map_err(failed)?;
            found.extend((0..HOOKS.len()).filter_map(|hook| finding(family, table, &read, hook)));
        }
    }
    Ok(found)
}

fn finding(family: &Family, table: &str, read: &Table, hook: usize) -> Option<Finding> {
    let effects = read.effects(hook, family);
    if effects.is_empty() {
        return None;
    }
    let priority = priority(table, hook);
    // Ours are filters at the place of the filter table; what is registered earlier or later there is not known.
    let when = match hook {
        0 => When::Before,
        4 => When::After,
        _ if priority < 0 => When::Before,
        _ => When::After,
    };
    Some(Finding {
        kind: Kind::Iptables,
        when,
        hook: HOOKS[hook],
        priority: Some(priority),
        name: format!("{} table {table} chain {}", family.tool, HOOKS[hook].to_uppercase()),
        advice: advice(when, &effects),
        effects,
    })
}

/// `NF_IP_PRI_*` of the built-in tables.
fn priority(table: &str, hook: usize) -> i32 {
    match (table, hook) {
        ("raw", _) => -300,
        ("mangle", _) => -150,
        ("nat", 1 | 4) => 100,
        ("nat", _) => -100,
        ("security", _) => 50,
        _ => 0,
    }
}

/// What the kernel holds of one table.
#[derive(Debug, Default)]
struct Table {
    /// Where each hook begins, and where its policy is; none for hooks that the table does not have.
    hooks: [Option<(u32, u32)>; 5],
    entries: Vec<u8>,
}

impl Table {
    fn read(family: &Family, table: &str) -> io::Result<Self> {
        let socket =
            Socket::new(family.domain, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
        let mut info = vec![0; INFO];
        put_name(&mut info, table)?;
        get(&socket, (family.level, GET_INFO), &mut info)?;
        let number = |at: usize| u32_at(&info, at).unwrap_or(0);
        let hook = |i: usize| {
            let there = number(NAME) & (1 << i) != 0;
            there.then(|| (number(NAME + 4 + 4 * i), number(NAME + 24 + 4 * i)))
        };
        let size = number(INFO - 4);
        let mut entries = vec![0; ENTRIES_HEAD + size as usize];
        put_name(&mut entries, table)?;
        entries[NAME..NAME + 4].copy_from_slice(&size.to_ne_bytes());
        get(&socket, (family.level, GET_ENTRIES), &mut entries)?;
        Ok(Self { hooks: [0, 1, 2, 3, 4].map(hook), entries: entries.split_off(ENTRIES_HEAD) })
    }

    /// What packets of a hook may meet: its rules, the chains they lead to, its policy.
    fn effects(&self, hook: usize, family: &Family) -> BTreeSet<Effect> {
        let (mut effects, mut seen) = (BTreeSet::new(), BTreeSet::new());
        let Some((first, policy)) = self.hooks[hook] else { return effects };
        let mut open = vec![first];
        for _ in 0..STEPS {
            let Some(at) = open.pop() else { break };
            let Some(Entry { next, end }) = self.entry(at, family) else { continue };
            if !seen.insert(at) {
                continue;
            }
            match end {
                End::Effect(effect) => drop(effects.insert(effect)),
                End::Chain(to) => open.push(to),
                End::Nothing => {}
                End::Of => continue,
            }
            if at != policy {
                open.push(at + next);
            }
        }
        effects
    }

    fn entry(&self, at: u32, family: &Family) -> Option<Entry> {
        let bytes = self.entries.get(at as usize..)?;
        let target = u16_at(bytes, family.target_offset)?;
        let next = u16_at(bytes, family.target_offset + 2).filter(|n| *n > 0)?;
        let target = bytes.get(usize::from(target)..usize::from(next))?;
        Some(Entry { next: next.into(), end: end(text(target.get(2..31)?)?, target) })
    }
}

/// One rule.
struct Entry {
    /// How far the one behind it is.
    next: u32,
    end: End,
}

/// What becomes of a packet that a rule matches.
enum End {
    Effect(Effect),
    /// It goes on at this entry.
    Chain(u32),
    Nothing,
    /// Not a rule: the end of a chain.
    Of,
}

/// `data` is the target with its head of 32 bytes.
fn end(target: &str, data: &[u8]) -> End {
    let effect = match target {
        // A verdict: an entry to go on at; or -1 for drop, -2 for accept, -4 for queue, -5 for return.
        "" => match u32_at(data, 32).map(u32::cast_signed) {
            Some(to) if to >= 0 => return End::Chain(to.cast_unsigned()),
            Some(-1) => Effect::Drop,
            Some(-4) => Effect::Queue,
            Some(-2 | -5) => return End::Nothing,
            _ => Effect::Unknown,
        },
        "ERROR" => return End::Of,
        name => match nft::effect_of_target(name) {
            Some(effect) => effect,
            None => return End::Nothing,
        },
    };
    End::Effect(effect)
}

fn put_name(to: &mut [u8], table: &str) -> io::Result<()> {
    let name = table.as_bytes();
    if name.len() >= NAME {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    to[..name.len()].copy_from_slice(name);
    Ok(())
}

fn get(
    socket: &Socket,
    (level, option): (libc::c_int, libc::c_int),
    buffer: &mut [u8],
) -> io::Result<()> {
    let mut length = buffer.len() as libc::socklen_t;
    // SAFETY: the kernel reads and writes at most `length` bytes of `buffer`, which is that long and outlives the call.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            buffer.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
