//! Who listens to a netfilter log group: the kernel's own words, read without the product's code.
#![allow(unsafe_code, reason = "a netlink socket; each call has a SAFETY sentence")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

const SUBSYS_ULOG: u16 = 4;
const PACKET: u16 = SUBSYS_ULOG << 8;
const CONFIG: u16 = SUBSYS_ULOG << 8 | 1;

/// Listens to a group in the namespace of the thread that opened it.
pub(crate) struct Listener(OwnedFd);

impl Listener {
    pub(crate) fn open(group: u16) -> Self {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no pointers; the result is checked.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_NETFILTER) };
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        // SAFETY: a new descriptor that nobody else owns.
        let it = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        // Bind; then whole packets, at once (after one of them, or a hundredth of a second).
        it.configure(group, &attribute(1, &[1]));
        let copy = attribute(2, &[0, 0, 0xff, 0xff, 2, 0]);
        let now = [attribute(4, &1_u32.to_be_bytes()), attribute(5, &1_u32.to_be_bytes())];
        it.configure(group, &[copy, now.concat()].concat());
        it
    }

    fn configure(&self, group: u16, attributes: &[u8]) {
        let family = [&[0, 0][..], &group.to_be_bytes()].concat();
        let length = (16 + family.len() + attributes.len()) as u32;
        let head =
            [&length.to_ne_bytes()[..], &CONFIG.to_ne_bytes(), &5_u16.to_ne_bytes(), &[0; 8]];
        let message = [&head.concat()[..], &family, attributes].concat();
        // SAFETY: pointer and length describe `message`.
        let sent =
            unsafe { libc::send(self.0.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) };
        assert_eq!(sent, message.len() as isize, "{}", io::Error::last_os_error());
        let answer =
            self.until(Duration::from_secs(1), |kind, body| (kind == 2).then(|| body.to_vec()));
        assert_eq!(answer.expect("an answer")[..4], [0; 4], "refused");
    }

    /// What is said about the packets that come in time, and their payloads' lengths.
    pub(crate) fn told(&self, wait: Duration) -> Vec<(String, usize)> {
        let mut all = Vec::new();
        let _: Option<()> = self.until(wait, |kind, body| {
            if kind == PACKET {
                let text = find(&body[4..], 10).unwrap_or_default();
                let text = text.strip_suffix(&[0]).unwrap_or(text);
                let length = find(&body[4..], 9).map_or(0, <[u8]>::len);
                all.push((String::from_utf8_lossy(text).into_owned(), length));
            }
            None
        });
        all
    }

    /// Hands over each message until one gives something, or time is up.
    fn until<T>(&self, wait: Duration, mut each: impl FnMut(u16, &[u8]) -> Option<T>) -> Option<T> {
        let end = Instant::now() + wait;
        let mut room = vec![0_u8; 1 << 16];
        while Instant::now() < end {
            // SAFETY: pointer and length describe `room`.
            let got =
                unsafe { libc::recv(self.0.as_raw_fd(), room.as_mut_ptr().cast(), room.len(), 0) };
            let Ok(got) = usize::try_from(got) else {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            };
            let mut rest = &room[..got];
            while rest.len() >= 16 {
                let length = u32::from_ne_bytes(rest[..4].try_into().unwrap()) as usize;
                let kind = u16::from_ne_bytes(rest[4..6].try_into().unwrap());
                if let Some(found) = each(kind, &rest[16..length]) {
                    return Some(found);
                }
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
        None
    }
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = value.len() as u16 + 4;
    let mut all = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
    all.resize(all.len().next_multiple_of(4), 0);
    all
}

fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    while attributes.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([attributes[0], attributes[1]]));
        let kind = u16::from_ne_bytes([attributes[2], attributes[3]]) & 0x3fff;
        if kind == wanted {
            return attributes.get(4..length);
        }
        attributes = attributes.get(length.max(4).next_multiple_of(4)..).unwrap_or_default();
    }
    None
}
