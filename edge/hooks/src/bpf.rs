//! BPF programs by links, over bpf(2). Layouts: `union bpf_attr` and `struct bpf_link_info` in
//! `include/uapi/linux/bpf.h`.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use nft::Effect;

use crate::{Finding, Kind, When};

/// `enum bpf_attach_type`.
pub(crate) const TCX_INGRESS: u32 = 46;
pub(crate) const TCX_EGRESS: u32 = 47;

const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const PROG_QUERY: libc::c_long = 16;
const LINK_GET_FD_BY_ID: libc::c_long = 30;
const LINK_GET_NEXT_ID: libc::c_long = 31;
const LINK_TYPE_NETFILTER: u32 = 10;
/// Long enough for every command here.
const ATTR: usize = 64;
const INFO: usize = 64;

#[repr(C, align(8))]
struct Attr([u8; ATTR]);

impl Attr {
    fn of(numbers: &[u32]) -> Self {
        let mut bytes = [0; ATTR];
        for (place, number) in bytes.chunks_exact_mut(4).zip(numbers) {
            place.copy_from_slice(&number.to_ne_bytes());
        }
        Self(bytes)
    }

    /// Calls the kernel, which may write its answers into it.
    fn call(&mut self, command: libc::c_long) -> io::Result<libc::c_long> {
        // SAFETY: the kernel reads and writes at most ATTR bytes here; pointers in it are null or to memory of this
        // module's callers that outlives the call.
        let done = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut self.0, ATTR) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done) }
    }

    fn number(&self, index: usize) -> u32 {
        netlink::codec::u32_at(&self.0, 4 * index).unwrap_or(0)
    }
}

/// How many programs are attached to a device; 0 where the kernel does not know of such, or the device is gone.
pub(crate) fn attached(index: u32, attach: u32) -> io::Result<u32> {
    let mut attr = Attr::of(&[index, attach]);
    match attr.call(PROG_QUERY) {
        Ok(_) => Ok(attr.number(6)),
        Err(error) if is_absent(&error) => Ok(0),
        Err(error) => Err(error),
    }
}

fn is_absent(error: &io::Error) -> bool {
    let absent = [libc::EINVAL, libc::ENODEV, libc::ENOENT, libc::ENOSYS, libc::EOPNOTSUPP];
    error.raw_os_error().is_some_and(|e| absent.contains(&e))
}

/// Programs that are linked to netfilter, in any network namespace: the kernel does not say in which.
pub(crate) fn netfilter_links() -> io::Result<Vec<Finding>> {
    let (mut found, mut id) = (Vec::new(), 0);
    loop {
        let mut attr = Attr::of(&[id]);
        match attr.call(LINK_GET_NEXT_ID) {
            Ok(_) => id = attr.number(1),
            Err(error) if is_absent(&error) => return Ok(found),
            Err(error) => return Err(error),
        }
        let fd = match Attr::of(&[id]).call(LINK_GET_FD_BY_ID) {
            // SAFETY: the kernel has just made this descriptor for us.
            Ok(fd) => unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) },
            Err(error) if is_absent(&error) => continue,
            Err(error) => return Err(error),
        };
        found.extend(netfilter_link(&fd)?);
    }
}

fn netfilter_link(fd: &OwnedFd) -> io::Result<Option<Finding>> {
    let mut info = Attr([0; INFO]);
    let mut attr = Attr::of(&[fd.as_raw_fd().cast_unsigned(), INFO as u32]);
    attr.0[8..16].copy_from_slice(&(&raw mut info.0 as u64).to_ne_bytes());
    attr.call(OBJ_GET_INFO_BY_FD)?;
    if info.number(0) != LINK_TYPE_NETFILTER {
        return Ok(None);
    }
    let (id, family, hook) = (info.number(1), info.number(4), info.number(5));
    let priority = info.number(6).cast_signed();
    let hooks = ["prerouting", "input", "forward", "output", "postrouting"];
    let Some(hook) = hooks.get(hook as usize) else { return Ok(None) };
    let before = matches!(*hook, "prerouting") || *hook != "postrouting" && priority < 0;
    let family = if family == libc::NFPROTO_IPV6 as u32 { "ip6" } else { "ip" };
    Ok(Some(Finding {
        kind: Kind::Bpf,
        when: if before { When::Before } else { When::After },
        hook,
        priority: Some(priority),
        name: format!("{family} link {id}"),
        effects: BTreeSet::from([Effect::Drop]),
        advice: "the program may drop packets: `bpftool link` says which it is; it may belong to another network namespace",
    }))
}
