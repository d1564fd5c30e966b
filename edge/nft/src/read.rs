//! Whole tables as the kernel has them, for `core/machine`.

use std::io;

use machine::{Base, Chain, Data, Element, Hook, Jump, Rule, Set, Table};
use model::IpVersion;

use crate::driver::NftError;
use crate::read_expression::expression;
use crate::socket::Socket;
use crate::wire::{Attributes, Message, msg};

/// Times that a table is read again because it changed meanwhile.
const ATTEMPTS: u32 = 16;
/// The one flag of elements: see [`Element::ends`].
const ELEMENT_ENDS: u32 = 1;
/// The other: see [`Element::rest`].
const ELEMENT_REST: u32 = 2;
const SET_INTERVAL: u32 = 4;
const PREROUTING: u32 = 0;
const DROP: u32 = 0;

/// Reads tables back, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Reader(Socket);

impl Reader {
    /// Reads nothing yet.
    pub fn open() -> Result<Self, NftError> {
        Ok(Self(Socket::open()?))
    }

    /// A table with everything in it, as of one moment; nothing if there is none of that name.
    ///
    /// # Errors
    /// When the kernel cannot be asked, or others change tables faster than they can be read.
    pub fn table(&mut self, version: IpVersion, name: &str) -> Result<Option<Table>, NftError> {
        for _ in 0..ATTEMPTS {
            let before = self.0.generation()?;
            let read = self.read(version, name)?;
            if let Some(table) = read
                && before == self.0.generation()?
            {
                return Ok(table);
            }
        }
        Err(NftError::DumpInterrupted(ATTEMPTS))
    }

    /// `None` if it changed meanwhile.
    #[expect(clippy::option_option, reason = "outer: of one moment; inner: the table exists")]
    fn read(&mut self, version: IpVersion, name: &str) -> io::Result<Option<Option<Table>>> {
        let family = match version {
            IpVersion::V4 => 2,
            IpVersion::V6 => 10,
        };
        let (mut table, mut exists, mut whole) = (Table::default(), false, true);
        for number in [msg::GET_TABLE, msg::GET_CHAIN, msg::GET_RULE, msg::GET_SET] {
            whole &= self.0.dump(
                number,
                family,
                |out| {
                    if number != msg::GET_TABLE {
                        out.text(1, name);
                    }
                },
                |message| exists |= take(&mut table, name, &message),
            )?;
        }
        for (set_name, set) in &mut table.sets {
            whole &= self.0.dump(
                msg::GET_ELEMENT,
                family,
                |out| {
                    out.text(1, name);
                    out.text(2, set_name);
                },
                |message| {
                    let list = message.attributes().nested(3);
                    list.filter_map(|(_, bytes)| element(&Attributes(bytes)))
                        .for_each(|element| set.add(element));
                },
            )?;
        }
        Ok(whole.then_some(exists.then_some(table)))
    }
}

/// Takes one message of a dump of tables, chains, rules or sets; whether it is about the table.
pub(crate) fn take(table: &mut Table, name: &str, message: &Message<'_>) -> bool {
    let all = message.attributes();
    if all.text(1) != Some(name) {
        return false;
    }
    match message.number() {
        Some(msg::NEW_CHAIN) => {
            if let Some(name) = all.text(3) {
                let chain = table.chains.entry(name.to_owned()).or_default();
                chain.base = base(&all);
                chain.comment = comment(all.get(12), 0);
            }
        }
        Some(msg::NEW_RULE) => {
            if let Some(chain) = all.text(2) {
                let chain: &mut Chain = table.chains.entry(chain.to_owned()).or_default();
                chain.rules.push(rule(&all));
            }
        }
        Some(msg::NEW_SET) => {
            if let Some((name, set)) = set(&all) {
                table.sets.insert(name, set);
            }
        }
        _ => {}
    }
    true
}

fn base(all: &Attributes<'_>) -> Option<Base> {
    all.get(4)?;
    let hook = all.nested(4);
    let hooks = [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting];
    let number = hook.be32(1).unwrap_or(PREROUTING) as usize;
    Some(Base {
        hook: hooks.get(number).copied(),
        priority: hook.be32(2).unwrap_or(0) as i32,
        kind: all.text(7).unwrap_or_default().to_owned(),
        drops: all.be32(5) == Some(DROP),
    })
}

pub(crate) fn rule(all: &Attributes<'_>) -> Rule {
    Rule {
        handle: all.be64(3).unwrap_or(0),
        comment: comment(all.get(7), 0),
        expressions: all.nested(4).map(|(_, bytes)| expression(&Attributes(bytes))).collect(),
    }
}

/// The text of a kind in user data, where people leave their comments.
fn comment(data: Option<&[u8]>, wanted: u8) -> Option<String> {
    let mut data = data?;
    while let [kind, length, rest @ ..] = data {
        let value = rest.get(..usize::from(*length))?;
        if *kind == wanted {
            let value = value.strip_suffix(&[0]).unwrap_or(value);
            return Some(String::from_utf8_lossy(value).into_owned());
        }
        data = &rest[usize::from(*length)..];
    }
    None
}

fn set(all: &Attributes<'_>) -> Option<(String, Set)> {
    let fields = all.nested(9).nested(2);
    let length = |(_, field): (u16, &[u8])| Attributes(field).be32(1).map(|l| l as usize);
    let interval = all.be32(3).unwrap_or(0) & SET_INTERVAL != 0;
    let set = Set::new(all.be32(5)? as usize, fields.filter_map(length).collect(), interval);
    Some((all.text(2)?.to_owned(), set))
}

pub(crate) fn element(all: &Attributes<'_>) -> Option<Element> {
    let flags = all.be32(3).unwrap_or(0);
    let rest = flags & ELEMENT_REST != 0;
    let key = all.nested(1).get(1).map(<[u8]>::to_vec);
    let data = all.nested(2);
    let data = match (data.get(1), data.get(2)) {
        (Some(value), _) => Some(Data::Value(value.to_vec())),
        (None, Some(verdict)) => Some(Data::Verdict(jump(&Attributes(verdict)))),
        (None, None) => all.get(9).map(|_| Data::Other("an object".to_owned())),
    };
    Some(Element {
        key: if rest { key.unwrap_or_default() } else { key? },
        last: all.nested(10).get(1).map(<[u8]>::to_vec),
        ends: flags & ELEMENT_ENDS != 0,
        rest,
        data,
    })
}

/// A verdict: its number, and the chain.
pub(crate) fn jump(all: &Attributes<'_>) -> Jump {
    let chain = || all.text(2).unwrap_or_default().to_owned();
    match all.be32(1).unwrap_or(0) as i32 {
        0 => Jump::Drop,
        1 => Jump::Accept,
        -1 => Jump::Continue,
        -3 => Jump::Jump(chain()),
        -4 => Jump::Goto(chain()),
        -5 => Jump::Return,
        other => Jump::Other(other),
    }
}
