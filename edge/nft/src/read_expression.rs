//! The kernel's small instructions, as it lists them.

use machine::{Comparison, Counters, Expression, Load, Store};

use crate::read::jump;
use crate::wire::Attributes;

/// The register of verdicts.
const VERDICT: u32 = 0;
/// Registers of 16 bytes are numbered from one; those of 4 bytes from here, over the same bytes.
const SMALL: u32 = 8;

/// One instruction: its name, and its data. What cannot be read becomes [`Expression::Other`].
pub(crate) fn expression(all: &Attributes<'_>) -> Expression {
    let name = all.text(1).unwrap_or_default();
    known(name, &all.nested(2)).unwrap_or_else(|| Expression::Other(name.to_owned()))
}

fn known(name: &str, data: &Attributes<'_>) -> Option<Expression> {
    match name {
        "payload" => payload(data),
        "meta" => load_or_store(data, (3, Store::Meta), Load::Meta),
        "ct" => load_or_store(data, (4, Store::Ct), Load::Ct),
        "fib" => {
            let (result, flags) = (data.be32(2)?, data.be32(3)?);
            Some(Expression::Load(Load::Fib { result, flags }, register(data, 1)?))
        }
        "cmp" => {
            let how = match data.be32(2)? {
                0 => Comparison::Equal,
                1 => Comparison::NotEqual,
                2 => Comparison::Less,
                3 => Comparison::LessOrEqual,
                4 => Comparison::Greater,
                5 => Comparison::GreaterOrEqual,
                _ => return None,
            };
            Some(Expression::Compare(register(data, 1)?, how, value(data, 3)?))
        }
        "range" => {
            let not = match data.be32(2)? {
                0 => false,
                1 => true,
                _ => return None,
            };
            let (from, to) = (value(data, 3)?, value(data, 4)?);
            Some(Expression::Range { register: register(data, 1)?, not, from, to })
        }
        "bitwise" if data.be32(6).unwrap_or(0) == 0 => {
            let (from, to) = (register(data, 1)?, register(data, 2)?);
            Some(Expression::Bitwise { from, to, mask: value(data, 4)?, xor: value(data, 5)? })
        }
        "byteorder" => Some(Expression::ByteOrder {
            from: register(data, 1)?,
            to: register(data, 2)?,
            length: data.be32(4)? as usize,
            size: data.be32(5)? as usize,
        }),
        "lookup" => Some(Expression::Lookup {
            set: data.text(1)?.to_owned(),
            register: register(data, 2)?,
            to: register(data, 3),
            decides: data.be32(3) == Some(VERDICT),
            not: data.be32(5).unwrap_or(0) & 1 != 0,
        }),
        "immediate" => match data.be32(1)? {
            VERDICT => Some(Expression::Verdict(jump(&Attributes(data.nested(2).get(2)?)))),
            _ => Some(Expression::Constant(register(data, 1)?, value(data, 2)?)),
        },
        "counter" => Some(Expression::Counter(Counters {
            bytes: data.be64(1).unwrap_or(0),
            packets: data.be64(2).unwrap_or(0),
        })),
        "log" => Some(Expression::Log(data.text(2).unwrap_or_default().to_owned())),
        "limit" => Some(Expression::Limit),
        "notrack" => Some(Expression::Notrack),
        "reject" => Some(Expression::Reject),
        "masq" => Some(Expression::Nat("masquerade".to_owned())),
        "redir" => Some(Expression::Nat("redirect".to_owned())),
        "nat" => {
            let what = if data.be32(1) == Some(0) { "snat" } else { "dnat" };
            Some(Expression::Nat(what.to_owned()))
        }
        _ => None,
    }
}

fn payload(data: &Attributes<'_>) -> Option<Expression> {
    // One that writes into the packet has no such register.
    let to = register(data, 1)?;
    let (offset, length) = (data.be32(3)? as usize, data.be32(4)? as usize);
    if offset > 256 || length > 16 {
        return None;
    }
    Some(Expression::Load(Load::Payload { base: data.be32(2)?, offset, length }, to))
}

fn load_or_store(
    data: &Attributes<'_>,
    (source, store): (u16, fn(u32) -> Store),
    load: fn(u32) -> Load,
) -> Option<Expression> {
    let key = data.be32(2)?;
    match register(data, source) {
        Some(from) => Some(Expression::Store(store(key), from)),
        None => Some(Expression::Load(load(key), register(data, 1)?)),
    }
}

/// The first byte of the register that an attribute names.
fn register(data: &Attributes<'_>, attribute: u16) -> Option<usize> {
    let first = match data.be32(attribute)? {
        VERDICT => return None,
        large @ 1..=4 => (large - 1) * 16,
        small @ SMALL..24 => (small - SMALL) * 4,
        _ => return None,
    };
    Some(first as usize)
}

fn value(data: &Attributes<'_>, attribute: u16) -> Option<Vec<u8>> {
    let bytes = data.nested(attribute).get(1)?;
    (bytes.len() <= 64).then(|| bytes.to_vec())
}
