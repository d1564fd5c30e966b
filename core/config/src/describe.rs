//! What there is to say of a parameter, of its value and of where that comes from.

use std::fmt::{self, Display};

use api::v3::felix::{Applied, Kind, Parameter};

use crate::{Component, ProtoPort, Row, Setting, Source};

/// The settings that go by this name, of all programs: their own, another one of theirs, their field, or
/// their environment variable, in any case.
pub fn find(word: &str) -> Vec<Row> {
    Component::ALL.into_iter().flat_map(Component::rows).filter(|row| row.is(word)).collect()
}

/// Settings whose name holds `word`, or begins as it does.
pub fn similar(word: &str) -> Vec<&'static str> {
    let word = word.to_lowercase();
    let start = word.get(..4).unwrap_or(&word);
    let like = |test: &dyn Fn(&str) -> bool| -> Vec<_> {
        let names = Component::ALL.into_iter().flat_map(Component::rows);
        let names = names.map(|row| row.parameter.name);
        let mut some: Vec<_> = names.filter(|name| test(&name.to_lowercase())).take(8).collect();
        some.dedup();
        some
    };
    match like(&|name| name.contains(&word)) {
        none if none.is_empty() => like(&|name| name.starts_with(start)),
        some => some,
    }
}

/// As the environment would have it: [`crate::parse`] gives the same setting again. Nothing is empty.
impl Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Bool(on) => on.fmt(f),
            Self::Int(n) => n.fmt(f),
            Self::Text(text) => text.fmt(f),
            Self::Secret(_) => f.write_str("(not shown)"),
            Self::Time(time) if time.subsec_nanos() > 0 => {
                write!(f, "{}ms", time.as_secs_f64() * 1e3)
            }
            Self::Time(time) => write!(f, "{}s", time.as_secs()),
            Self::Address(address) => address.fmt(f),
            Self::Texts(texts) => list(f, texts),
            Self::Nets(nets) => list(f, nets),
            Self::Ranges(ports) => list(f, ports.iter().map(|(a, b)| format!("{a}:{b}"))),
            Self::Tables(tables) => list(f, tables.iter().map(|(a, b)| format!("{a}-{b}"))),
            Self::Ports(ports) => list(f, ports),
            Self::Pairs(pairs) => {
                list(f, pairs.iter().map(|(key, value)| format!("{key}={value}")))
            }
            Self::Rate(count, per) => {
                let unit = match per.as_secs() {
                    1 => "second",
                    60 => "minute",
                    3_600 => "hour",
                    _ => "day",
                };
                write!(f, "{count}/{unit}")
            }
        }
    }
}

impl Display for ProtoPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = self.protocol.to_string().to_lowercase();
        match self.net {
            None => write!(f, "{protocol}:{}", self.port),
            Some(net) => write!(f, "{protocol}:[{net}]:{}", self.port),
        }
    }
}

fn list<T: Display>(f: &mut fmt::Formatter<'_>, items: impl IntoIterator<Item = T>) -> fmt::Result {
    let mut items = items.into_iter().peekable();
    while let Some(item) = items.next() {
        item.fmt(f)?;
        if items.peek().is_some() {
            f.write_str(",")?;
        }
    }
    Ok(())
}

impl Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Override => f.write_str("the agent"),
            Self::Environment => f.write_str("environment"),
            Self::File => f.write_str("file"),
            Self::Node => f.write_str("FelixConfiguration of this node"),
            Self::Selected(name) => write!(f, "FelixConfiguration {name}"),
            Self::Cluster => f.write_str("FelixConfiguration default"),
            Self::BuiltIn => f.write_str("built in"),
        }
    }
}

/// When a change takes effect.
pub fn applied(row: &Parameter) -> &'static str {
    match (row.applied, row.field) {
        (Applied::Live, _) => "at once",
        (Applied::Restart, "") => "when the agent starts",
        (Applied::Restart, _) => "the agent ends, to be started again",
        (Applied::Unused, _) => "never: nothing reads it",
    }
}

/// What may be written.
pub fn values(kind: Kind) -> String {
    match kind {
        Kind::Bool => "true or false".into(),
        Kind::OptBool => "true, false, or not given".into(),
        Kind::Int(least, i64::MAX) => format!("a whole number from {least} up"),
        Kind::Int(least, most) => format!("a whole number from {least} to {most}"),
        Kind::Flag => "true or false, on or off, enabled or disabled".into(),
        Kind::Text => "text".into(),
        Kind::Secret => "text, which is not shown".into(),
        Kind::Choice([rest @ .., last]) if !rest.is_empty() => {
            format!("{} or {last}", rest.join(", "))
        }
        Kind::Choice(words) => words.concat(),
        Kind::Duration => "a time such as 90s, 5m, 1h30m".into(),
        Kind::Seconds => "a number of seconds".into(),
        Kind::Mask => "a mask of mark bits, decimal or 0x".into(),
        Kind::Regex => "a regular expression".into(),
        Kind::Address => "an IP address".into(),
        Kind::Iface => "the name of an interface".into(),
        Kind::InterfacePrefixes => "prefixes of interface names, comma-separated".into(),
        Kind::Cidrs => "address ranges such as 10.0.0.0/8, comma-separated".into(),
        Kind::TextList => "texts, comma-separated".into(),
        Kind::PortRange => "a port, or ports as min:max".into(),
        Kind::PortRanges => "ports, or ranges min:max, comma-separated".into(),
        Kind::ProtoPorts => "ports such as tcp:22 or tcp:10.0.0.0/8:22, comma-separated".into(),
        Kind::TableRange => "routing tables as min-max".into(),
        Kind::TableRanges => "routing tables as min-max, comma-separated".into(),
        Kind::KeyValues => "key=value, comma-separated".into(),
        Kind::Map => "texts by key: key=value, comma-separated".into(),
        Kind::Timeouts => "times by name: name=90s, comma-separated".into(),
        Kind::RateLimit => "N/second, N/minute, N/hour or N/day".into(),
        Kind::ConntrackTimeouts => {
            "times by state of a connection: state=time, comma-separated".into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_written_as_they_are_read() {
        let others = [
            (Kind::Duration, "1.5s"),
            (Kind::Duration, "1h30m"),
            (Kind::TableRanges, "1-250,300-301"),
            (Kind::PortRange, "1024:2048"),
            (Kind::PortRanges, "80,90:100"),
            (Kind::ProtoPorts, "tcp:22,udp:10.0.0.0/8:53,sctp:[fd00::/8]:9"),
            (Kind::Cidrs, "10.0.0.0/8,fd00::/8"),
            (Kind::KeyValues, "a=b,c=d"),
            (Kind::RateLimit, "5/hour"),
            (Kind::Mask, "0xffff0000"),
        ];
        let rows = Component::ALL.into_iter().flat_map(Component::rows);
        let defaults = rows.map(|row| (row.parameter.kind, row.parameter.default));
        for (kind, text) in defaults.chain(others) {
            let setting = crate::parse(kind, text).unwrap();
            assert_eq!(crate::parse(kind, &setting.to_string()), Ok(setting), "{kind:?} {text:?}");
        }
    }

    #[test]
    fn settings_are_found_by_each_of_their_names() {
        for row in Component::ALL.into_iter().flat_map(Component::rows) {
            let Parameter { name, field, aliases, .. } = *row.parameter;
            let variable = row.environment().unwrap_or_default();
            for word in aliases.iter().copied().chain([name, field, &variable]) {
                let found = find(&word.to_lowercase());
                let same = |r: &&Row| r.component == row.component && r.parameter.name == name;
                assert_eq!(
                    found.iter().filter(same).count(),
                    usize::from(!word.is_empty()),
                    "{word}"
                );
            }
            assert!(!values(row.parameter.kind).is_empty() && !row.parameter.about.is_empty());
        }
        assert!(find("").is_empty() && find("FELIX_").is_empty());
        assert_eq!(find("NoDename")[0].component, Component::Node);
        assert_eq!(find("TYPHA_SERVERPORT")[0].parameter.name, "ServerPort");
        assert_eq!(find("FELIX_LOGFILEPATH").len(), 1);
        assert_eq!(find("LogFilePath").len(), 2, "two programs have it");
        assert_eq!(similar("vxlanpo"), ["VXLANPort"]);
        assert!(similar("VXLAMPort").contains(&"VXLANPort"));
        assert!(similar("zz").is_empty());
    }

    #[test]
    fn a_password_is_not_shown() {
        let secret = crate::parse(Kind::Secret, "geheim").unwrap();
        assert_eq!(secret, Setting::Secret("geheim".into()));
        assert!(!secret.to_string().contains("geheim"));
    }
}
