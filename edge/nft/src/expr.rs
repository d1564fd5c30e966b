//! Conditions and statements as the kernel's small instructions.

use model::IpVersion;
use rules::object::{Load, SetRef, Side};
use rules::{Match, Statement};

use crate::encode::{address_bytes, load_width, meta, payload, put_verdict, verdict_of};
use crate::wire::Buffer;

/// The first register of 4 bytes; four of them are the first register of 16 bytes.
const REGISTERS: u32 = 8;
const FIRST: u32 = 1;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
/// Bytes of a packet that are shown to listeners: enough for its headers.
const SHOWN: u32 = 80;
const META_MARK: u32 = 3;
const META_TRACE: u32 = 12;
/// `IPS_DST_NAT`.
const DESTINATION_TRANSLATED: u32 = 0x20;
/// `RTN_LOCAL`.
const LOCAL: u32 = 2;
const RANDOM_FULLY: u32 = 0x10;
const MAP_ADDRESSES: u32 = 0x1;
const PORTS_GIVEN: u32 = 0x2;

pub(crate) struct Expressions {
    version: IpVersion,
    out: Buffer,
}

impl Expressions {
    pub(crate) fn new(version: IpVersion) -> Self {
        Self { version, out: Buffer::default() }
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.out.bytes
    }

    fn add(&mut self, name: &str, fill: impl FnOnce(&mut Buffer)) {
        let list = self.out.nest(1);
        self.out.text(1, name);
        let data = self.out.nest(2);
        fill(&mut self.out);
        self.out.close(data);
        self.out.close(list);
    }

    /// `set_id` is the batch's number of the set, where the condition has a constant.
    pub(crate) fn condition(&mut self, m: &Match, set_id: u32) {
        let op = |not: bool| if not { NOT_EQUAL } else { EQUAL };
        match m {
            Match::Iface { way, name, not } => {
                self.load(Load::Iface(*way), FIRST);
                match name.strip_suffix('*') {
                    Some(prefix) => self.compare(op(*not), prefix.as_bytes()),
                    None => self.compare(op(*not), &crate::encode::iface_bytes(name)),
                }
            }
            Match::Proto { proto, not } => {
                self.load(Load::Proto, FIRST);
                self.compare(op(*not), &[proto.0]);
            }
            Match::Net { side, net, not } => {
                self.load(Load::Addr(*side), FIRST);
                if net.prefix_len() < net.max_prefix_len() {
                    let zeros = vec![0; address_bytes(net.addr()).len()];
                    self.bitwise(&address_bytes(net.netmask()), &zeros);
                }
                self.compare(op(*not), &address_bytes(net.network()));
            }
            Match::Ports { side, min, max, not } => {
                self.load(Load::Port(*side), FIRST);
                if min == max {
                    self.compare(op(*not), &min.to_be_bytes());
                } else {
                    self.range(op(*not), &min.to_be_bytes(), &max.to_be_bytes());
                }
            }
            Match::Icmp { kind, code: Some(code), not: true } => {
                self.payload(2, 0, 2);
                self.compare(NOT_EQUAL, &[*kind, *code]);
            }
            Match::Icmp { kind, code, not } => {
                self.payload(2, 0, 1);
                self.compare(op(*not), &[*kind]);
                if let Some(code) = code {
                    self.payload(2, 1, 1);
                    self.compare(EQUAL, &[*code]);
                }
            }
            Match::State(bits) => {
                self.add("ct", |out| {
                    out.be32(1, FIRST);
                    out.be32(2, 0); // state
                });
                self.bitwise(&bits.to_ne_bytes(), &[0; 4]);
                self.compare(NOT_EQUAL, &[0; 4]);
            }
            Match::Mark { mask, set } => {
                self.meta(META_MARK, FIRST);
                self.bitwise(&mask.to_ne_bytes(), &[0; 4]);
                self.compare(op(*set), &[0; 4]);
            }
            Match::Translated { not } => {
                self.add("ct", |out| {
                    out.be32(1, FIRST);
                    out.be32(2, 2); // status
                });
                self.bitwise(&DESTINATION_TRANSLATED.to_ne_bytes(), &[0; 4]);
                self.compare(op(!not), &[0; 4]);
            }
            Match::FlowMark(bits) => {
                self.add("ct", |out| {
                    out.be32(1, FIRST);
                    out.be32(2, 3); // mark
                });
                self.bitwise(&bits.to_ne_bytes(), &[0; 4]);
                self.compare(NOT_EQUAL, &[0; 4]);
            }
            Match::Local { side, on_out_iface, not } => {
                let whose = match side {
                    Side::Source => 1,
                    Side::Destination => 2,
                };
                self.add("fib", |out| {
                    out.be32(1, FIRST);
                    out.be32(2, 3); // type of address
                    out.be32(3, whose | if *on_out_iface { 0x10 } else { 0 });
                });
                self.compare(op(*not), &LOCAL.to_ne_bytes());
            }
            Match::InSet { what, set, not } => {
                let register = self.join(what);
                let name = match set {
                    SetRef::Named(name) => name,
                    SetRef::Constant(_) => "__set%d",
                };
                self.lookup(name, set_id, register, *not, false);
            }
        }
    }

    /// Marks the packet for tracing.
    pub(crate) fn trace(&mut self) {
        self.immediate(FIRST, &[1]);
        self.add("meta", |out| {
            out.be32(2, META_TRACE);
            out.be32(3, FIRST);
        });
    }

    pub(crate) fn statement(&mut self, s: &Statement) {
        match s {
            Statement::Counter => self.add("counter", |_| {}),
            Statement::Limit(limit) => self.add("limit", |out| {
                out.be64(1, limit.count);
                out.be64(2, limit.unit.seconds());
                out.be32(3, limit.burst);
                out.be32(4, 0); // packets
                out.be32(5, 0);
            }),
            Statement::Show { group, prefix } => self.add("log", |out| {
                out.bytes(1, &group.to_be_bytes());
                out.text(2, prefix);
                out.be32(3, SHOWN);
            }),
            Statement::Log(prefix) => self.add("log", |out| out.text(2, prefix)),
            Statement::Mark { clear, set } => {
                self.meta(META_MARK, FIRST);
                self.bitwise(&(!(clear | set)).to_ne_bytes(), &set.to_ne_bytes());
                self.add("meta", |out| {
                    out.be32(2, META_MARK);
                    out.be32(3, FIRST);
                });
            }
            Statement::Notrack => self.add("notrack", |_| {}),
            Statement::Masquerade { ports } => self.masquerade(*ports),
            Statement::Snat { to, ports } => self.snat(*to, *ports),
            Statement::Reject => {
                let code = match self.version {
                    IpVersion::V4 => 3,
                    IpVersion::V6 => 4,
                };
                self.add("reject", |out| {
                    out.be32(1, 0);
                    out.bytes(2, &[code]);
                });
            }
            Statement::Reset => self.add("reject", |out| out.be32(1, 1)),
            Statement::Verdict(_) => {
                let verdict = verdict_of(s).expect("it is a verdict");
                self.add("immediate", |out| {
                    out.be32(1, 0); // the register of verdicts
                    let data = out.nest(2);
                    put_verdict(out, verdict);
                    out.close(data);
                });
            }
            Statement::VerdictMap { what, map } => {
                let register = self.join(what);
                self.lookup(map, 0, register, false, true);
            }
        }
    }

    /// Source ports into registers; returns the registers of lowest and highest.
    fn ports(&mut self, (min, max): (u16, u16)) -> (u32, u32) {
        for (value, register) in [(min, REGISTERS + 4), (max, REGISTERS + 5)] {
            self.immediate(register, &value.to_be_bytes());
        }
        (REGISTERS + 4, REGISTERS + 5)
    }

    fn masquerade(&mut self, ports: Option<(u16, u16)>) {
        let registers = ports.map(|p| self.ports(p));
        self.add("masq", |out| {
            let given = if registers.is_some() { PORTS_GIVEN } else { 0 };
            out.be32(1, RANDOM_FULLY | given);
            if let Some((min, max)) = registers {
                out.be32(2, min);
                out.be32(3, max);
            }
        });
    }

    fn snat(&mut self, to: std::net::IpAddr, ports: Option<(u16, u16)>) {
        self.immediate(FIRST, &address_bytes(to));
        let registers = ports.map(|p| self.ports(p));
        let family = u32::from(crate::encode::family(self.version));
        self.add("nat", |out| {
            out.be32(1, 0); // source
            out.be32(2, family);
            out.be32(3, FIRST);
            out.be32(4, FIRST);
            if let Some((min, max)) = registers {
                out.be32(5, min);
                out.be32(6, max);
            }
            let given = if registers.is_some() { PORTS_GIVEN } else { 0 };
            out.be32(7, MAP_ADDRESSES | RANDOM_FULLY | given);
        });
    }

    /// Loads the parts of a key one behind the other; returns the register of the first.
    fn join(&mut self, what: &[Load]) -> u32 {
        if let [one] = what {
            self.load(*one, FIRST);
            return FIRST;
        }
        let mut register = REGISTERS;
        for load in what {
            self.load(*load, register);
            register += load_width(*load, self.version).div_ceil(4);
        }
        REGISTERS
    }

    fn load(&mut self, load: Load, register: u32) {
        if let Load::Tag(tag) = load {
            // A constant that `nft` can show as part of a key: of a mark no bit is kept.
            self.meta(META_MARK, register);
            self.bitwise_in(register, &[0; 4], &tag.to_ne_bytes());
        } else if let Some((base, offset, length)) = payload(load, self.version) {
            self.payload_to(register, base, offset, length);
        } else if let Some(key) = meta(load) {
            self.meta(key, register);
        }
    }

    fn meta(&mut self, key: u32, register: u32) {
        self.add("meta", |out| {
            out.be32(1, register);
            out.be32(2, key);
        });
    }

    fn payload(&mut self, base: u32, offset: u32, length: u32) {
        self.payload_to(FIRST, base, offset, length);
    }

    fn payload_to(&mut self, register: u32, base: u32, offset: u32, length: u32) {
        self.add("payload", |out| {
            out.be32(1, register);
            out.be32(2, base);
            out.be32(3, offset);
            out.be32(4, length);
        });
    }

    fn immediate(&mut self, register: u32, value: &[u8]) {
        self.add("immediate", |out| {
            out.be32(1, register);
            put_value(out, 2, value);
        });
    }

    fn compare(&mut self, op: u32, value: &[u8]) {
        self.add("cmp", |out| {
            out.be32(1, FIRST);
            out.be32(2, op);
            put_value(out, 3, value);
        });
    }

    fn range(&mut self, op: u32, from: &[u8], to: &[u8]) {
        self.add("range", |out| {
            out.be32(1, FIRST);
            out.be32(2, op);
            put_value(out, 3, from);
            put_value(out, 4, to);
        });
    }

    fn bitwise(&mut self, mask: &[u8], xor: &[u8]) {
        self.bitwise_in(FIRST, mask, xor);
    }

    /// `(register & mask) ^ xor`, in place.
    fn bitwise_in(&mut self, register: u32, mask: &[u8], xor: &[u8]) {
        self.add("bitwise", |out| {
            out.be32(1, register);
            out.be32(2, register);
            out.be32(3, mask.len() as u32);
            put_value(out, 4, mask);
            put_value(out, 5, xor);
        });
    }

    fn lookup(&mut self, set: &str, set_id: u32, register: u32, not: bool, verdict: bool) {
        self.add("lookup", |out| {
            out.text(1, set);
            out.be32(2, register);
            if verdict {
                out.be32(3, 0); // into the register of verdicts
            }
            if set_id != 0 {
                out.be32(4, set_id);
            }
            if not {
                out.be32(5, 1);
            }
        });
    }
}

fn put_value(out: &mut Buffer, kind: u16, value: &[u8]) {
    let nest = out.nest(kind);
    out.bytes(1, value);
    out.close(nest);
}
