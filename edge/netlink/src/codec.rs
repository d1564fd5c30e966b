//! Netlink messages as bytes: building requests, walking attributes.
//!
//! Host byte order throughout, 4-byte alignment; see `include/uapi/linux/netlink.h`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const HEADER_LEN: usize = 16;
const NESTED: u16 = 1 << 15;
const TYPE_MASK: u16 = 0x3fff;

/// One request, ready to send but for its sequence number.
#[derive(Clone, Debug)]
pub struct Request {
    what: &'static str,
    bytes: Vec<u8>,
}

impl Request {
    /// A message of type `kind` with `flags` (beyond `NLM_F_REQUEST`) and a family header.
    /// `what` names it in errors.
    pub fn new(what: &'static str, kind: u16, flags: i32, family_header: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend(0u32.to_ne_bytes()); // length: set when sealed
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(((flags | libc::NLM_F_REQUEST) as u16).to_ne_bytes());
        bytes.extend([0; 8]); // sequence, port
        bytes.extend(family_header);
        pad(&mut bytes);
        Self { what, bytes }
    }

    /// What it is about, for errors.
    pub fn what(&self) -> &'static str {
        self.what
    }

    /// Appends an attribute.
    pub fn attr(mut self, kind: u16, value: &[u8]) -> Self {
        put(&mut self.bytes, kind, value);
        self
    }

    /// Appends an attribute of one byte.
    pub fn attr_u8(self, kind: u16, value: u8) -> Self {
        self.attr(kind, &[value])
    }

    /// Appends a 16-bit attribute in network order.
    pub fn attr_be16(self, kind: u16, value: u16) -> Self {
        self.attr(kind, &value.to_be_bytes())
    }

    /// Appends a 32-bit attribute in host order.
    pub fn attr_u32(self, kind: u16, value: u32) -> Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// Appends a text with its final NUL.
    pub fn attr_str(self, kind: u16, value: &str) -> Self {
        let mut text = value.as_bytes().to_vec();
        text.push(0);
        self.attr(kind, &text)
    }

    /// Appends an address.
    pub fn attr_ip(self, kind: u16, value: IpAddr) -> Self {
        match value {
            IpAddr::V4(a) => self.attr(kind, &a.octets()),
            IpAddr::V6(a) => self.attr(kind, &a.octets()),
        }
    }

    /// Appends an attribute that holds what `fill` appends.
    pub fn nest(self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        self.nest_after(kind, &[], fill)
    }

    /// Like [`Request::nest`], with a fixed header before the nested attributes.
    pub fn nest_after(mut self, kind: u16, header: &[u8], fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        put(&mut self.bytes, kind | NESTED, header);
        let mut filled = fill(self);
        let len = (filled.bytes.len() - start) as u16;
        filled.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        filled
    }

    /// Appends the finished message, with `seq` and `extra` flags, to `out`.
    pub(crate) fn seal_into(&self, out: &mut Vec<u8>, seq: u32, extra: i32) {
        let start = out.len();
        out.extend(&self.bytes);
        let len = self.bytes.len() as u32;
        out[start..start + 4].copy_from_slice(&len.to_ne_bytes());
        let flags = u16::from_ne_bytes([self.bytes[6], self.bytes[7]]) | extra as u16;
        out[start + 6..start + 8].copy_from_slice(&flags.to_ne_bytes());
        out[start + 8..start + 12].copy_from_slice(&seq.to_ne_bytes());
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }
}

fn put(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let len = (value.len() + 4) as u16;
    bytes.extend(len.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    pad(bytes);
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// One received message.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Type: `RTM_...`, `NLMSG_...`.
    pub kind: u16,
    /// Flags.
    pub flags: u16,
    /// Sequence number of the request it answers, 0 for notifications.
    pub seq: u32,
    /// Port of the socket that caused it, 0 for the kernel itself.
    pub port: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

/// Walks the messages of one datagram; ends at the first that is cut off.
#[derive(Clone, Debug)]
pub struct Messages<'a>(pub &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;
    fn next(&mut self) -> Option<Message<'a>> {
        let len = u32_at(self.0, 0)? as usize;
        if len < HEADER_LEN || len > self.0.len() {
            return None;
        }
        let message = Message {
            kind: u16_at(self.0, 4)?,
            flags: u16_at(self.0, 6)?,
            seq: u32_at(self.0, 8)?,
            port: u32_at(self.0, 12)?,
            payload: &self.0[HEADER_LEN..len],
        };
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some(message)
    }
}

/// Walks attributes: type without flags, and value; ends at the first that is cut off.
#[derive(Clone, Debug)]
pub struct Attrs<'a>(pub &'a [u8]);

impl<'a> Attrs<'a> {
    /// The attributes behind a family header of `header` bytes.
    pub fn after(payload: &'a [u8], header: usize) -> Self {
        Self(payload.get(header..).unwrap_or(&[]))
    }

    /// The first attribute of that type.
    pub fn get(mut self, kind: u16) -> Option<&'a [u8]> {
        self.find(|(k, _)| *k == kind).map(|(_, value)| value)
    }
}

impl<'a> Iterator for Attrs<'a> {
    type Item = (u16, &'a [u8]);
    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let len = usize::from(u16_at(self.0, 0)?);
        if len < 4 || len > self.0.len() {
            return None;
        }
        let (kind, value) = (u16_at(self.0, 2)? & TYPE_MASK, &self.0[4..len]);
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    }
}

/// A byte at an offset.
pub fn u8_at(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

/// A 16-bit number in host order at an offset.
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// A 32-bit number in host order at an offset.
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// An address, its family told by its length.
pub fn ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(octets).into());
    }
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into())
}

/// A text up to its NUL; `None` if it is not UTF-8.
pub fn text(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    std::str::from_utf8(&bytes[..end]).ok()
}

/// `AF_INET` or `AF_INET6`.
pub fn family(ip: IpAddr) -> u8 {
    family_of(model::IpVersion::of(ip))
}

/// `AF_INET` or `AF_INET6`.
pub fn family_of(version: model::IpVersion) -> u8 {
    match version {
        model::IpVersion::V4 => libc::AF_INET as u8,
        model::IpVersion::V6 => libc::AF_INET6 as u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_nested_attribute_covers_what_it_holds() {
        let request = Request::new("test", 16, 0, &[0; 16])
            .nest(18, |r| r.attr_str(1, "veth").nest(2, |r| r.attr_u32(7, 9)))
            .attr_u8(3, 5);
        let mut bytes = Vec::new();
        request.seal_into(&mut bytes, 77, libc::NLM_F_ACK);
        let message = Messages(&bytes).next().unwrap();
        assert_eq!((message.kind, message.seq), (16, 77));
        let attrs = Attrs::after(message.payload, 16);
        let info = attrs.clone().get(18).unwrap();
        assert_eq!(text(Attrs(info).get(1).unwrap()), Some("veth"));
        let data = Attrs(info).get(2).unwrap();
        assert_eq!(u32_at(Attrs(data).get(7).unwrap(), 0), Some(9));
        assert_eq!(attrs.get(3), Some(&[5][..]));
    }

    proptest! {
        /// Whatever arrives, decoding ends and nothing panics.
        #[test]
        fn decoding_is_total(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            for message in Messages(&bytes) {
                for (_, value) in Attrs::after(message.payload, 12) {
                    let _ = (ip(value), text(value), Attrs(value).count());
                }
                let _ = crate::Link::parse(message.payload);
                let _ = crate::Route::parse(message.payload);
                let _ = crate::Address::parse(message.payload);
                let _ = crate::neighbour::Neighbour::parse(message.payload);
                let _ = crate::conntrack::Entry::parse(message.payload);
            }
        }
    }
}
