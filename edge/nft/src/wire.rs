//! Netlink messages as bytes: a builder, and a reader that believes nothing.

const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;
const SUBSYS_NFTABLES: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

/// Request flags of netlink.
pub(crate) mod flag {
    pub(crate) const REQUEST: u16 = 0x1;
    /// An answer is wanted even if there is nothing to say.
    pub(crate) const ACK: u16 = 0x4;
    pub(crate) const DUMP: u16 = 0x300;
    pub(crate) const CREATE: u16 = 0x400;
    pub(crate) const APPEND: u16 = 0x800;
    /// On an answer: the dump is not of one moment.
    pub(crate) const DUMP_INTERRUPTED: u16 = 0x10;
}

/// Message numbers of nf_tables.
pub(crate) mod msg {
    pub(crate) const NEW_TABLE: u8 = 0;
    pub(crate) const GET_TABLE: u8 = 1;
    pub(crate) const DEL_TABLE: u8 = 2;
    pub(crate) const NEW_CHAIN: u8 = 3;
    pub(crate) const GET_CHAIN: u8 = 4;
    pub(crate) const DEL_CHAIN: u8 = 5;
    pub(crate) const NEW_RULE: u8 = 6;
    pub(crate) const GET_RULE: u8 = 7;
    pub(crate) const DEL_RULE: u8 = 8;
    pub(crate) const NEW_SET: u8 = 9;
    pub(crate) const GET_SET: u8 = 10;
    pub(crate) const DEL_SET: u8 = 11;
    pub(crate) const NEW_ELEMENT: u8 = 12;
    pub(crate) const GET_ELEMENT: u8 = 13;
    pub(crate) const DEL_ELEMENT: u8 = 14;
    pub(crate) const NEW_GENERATION: u8 = 15;
    pub(crate) const GET_GENERATION: u8 = 16;
    pub(crate) const TRACE: u8 = 17;
}

/// Messages one after the other.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    pub(crate) bytes: Vec<u8>,
    start: usize,
}

/// A nested attribute that is being written.
#[must_use]
pub(crate) struct Nest(usize);

impl Buffer {
    /// Begins an nf_tables message.
    pub(crate) fn begin(&mut self, number: u8, flags: u16, family: u8, seq: u32) {
        self.raw(SUBSYS_NFTABLES << 8 | u16::from(number), flags, family, 0, seq);
    }

    /// The frame of a transaction.
    pub(crate) fn frame(&mut self, begins: bool, seq: u32) {
        let kind = if begins { BATCH_BEGIN } else { BATCH_END };
        self.raw(kind, flag::REQUEST, 0, SUBSYS_NFTABLES, seq);
        self.end();
    }

    /// Begins a transaction that is refused unless the last one of all had this number.
    pub(crate) fn frame_after(&mut self, generation: u32, seq: u32) {
        self.raw(BATCH_BEGIN, flag::REQUEST, 0, SUBSYS_NFTABLES, seq);
        self.be32(1, generation);
        self.end();
    }

    fn raw(&mut self, kind: u16, flags: u16, family: u8, res_id: u16, seq: u32) {
        self.start = self.bytes.len();
        self.bytes.extend(0u32.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | flag::REQUEST).to_ne_bytes());
        self.bytes.extend(seq.to_ne_bytes());
        self.bytes.extend(0u32.to_ne_bytes());
        self.bytes.extend([family, 0]);
        self.bytes.extend(res_id.to_be_bytes());
    }

    /// Ends the message.
    pub(crate) fn end(&mut self) {
        let length = (self.bytes.len() - self.start) as u32;
        self.bytes[self.start..self.start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.bytes.extend((value.len() as u16 + 4).to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    pub(crate) fn text(&mut self, kind: u16, value: &str) {
        self.bytes.extend((value.len() as u16 + 5).to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value.as_bytes());
        self.bytes.resize((self.bytes.len() + 1).next_multiple_of(4), 0);
    }

    pub(crate) fn be32(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub(crate) fn be64(&mut self, kind: u16, value: u64) {
        self.bytes(kind, &value.to_be_bytes());
    }

    pub(crate) fn nest(&mut self, kind: u16) -> Nest {
        let at = self.bytes.len();
        self.bytes.extend(0u16.to_ne_bytes());
        self.bytes.extend((kind | NESTED).to_ne_bytes());
        Nest(at)
    }

    /// Bytes in the nest so far.
    pub(crate) fn nested(&self, nest: &Nest) -> usize {
        self.bytes.len() - nest.0
    }

    pub(crate) fn close(&mut self, nest: Nest) {
        let length = (self.bytes.len() - nest.0) as u16;
        self.bytes[nest.0..nest.0 + 2].copy_from_slice(&length.to_ne_bytes());
    }
}

/// One received message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) seq: u32,
    pub(crate) port: u32,
    pub(crate) body: &'a [u8],
}

impl<'a> Message<'a> {
    /// Its number, if it is one of nf_tables.
    pub(crate) fn number(&self) -> Option<u8> {
        (self.kind >> 8 == SUBSYS_NFTABLES).then_some(self.kind as u8)
    }

    /// Family of an nf_tables message.
    pub(crate) fn family(&self) -> Option<u8> {
        self.body.first().copied()
    }

    /// Attributes of an nf_tables message.
    pub(crate) fn attributes(&self) -> Attributes<'a> {
        Attributes(self.body.get(4..).unwrap_or_default())
    }
}

/// Messages of a datagram; ends at the first that makes no sense.
#[derive(Clone, Debug)]
pub(crate) struct Messages<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;
    fn next(&mut self) -> Option<Message<'a>> {
        let length = u32_at(self.0, 0)? as usize;
        if length < 16 {
            return None;
        }
        let all = self.0.get(..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        let u16_at = |at: usize| u16::from_ne_bytes([all[at], all[at + 1]]);
        Some(Message {
            kind: u16_at(4),
            flags: u16_at(6),
            seq: u32_at(all, 8)?,
            port: u32_at(all, 12)?,
            body: &all[16..],
        })
    }
}

/// Attributes, one after the other; ends at the first that makes no sense.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attributes<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);
    fn next(&mut self) -> Option<Self::Item> {
        let head = self.0.get(..4)?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let kind = u16::from_ne_bytes([head[2], head[3]]) & TYPE_MASK;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

impl<'a> Attributes<'a> {
    /// The first attribute of a kind.
    pub(crate) fn get(&self, kind: u16) -> Option<&'a [u8]> {
        self.clone().find(|(k, _)| *k == kind).map(|(_, v)| v)
    }

    pub(crate) fn nested(&self, kind: u16) -> Attributes<'a> {
        Attributes(self.get(kind).unwrap_or_default())
    }

    pub(crate) fn text(&self, kind: u16) -> Option<&'a str> {
        let bytes = self.get(kind)?;
        let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
        std::str::from_utf8(bytes).ok()
    }

    pub(crate) fn be32(&self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.get(kind)?.try_into().ok()?))
    }

    pub(crate) fn be64(&self, kind: u16) -> Option<u64> {
        Some(u64::from_be_bytes(self.get(kind)?.try_into().ok()?))
    }
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
