//! Small tables by hand: what the random tests in a kernel do not reach.

use super::*;

const OUT: Hook = Hook::Output;

fn rule(handle: u64, expressions: Vec<Expression>) -> Rule {
    Rule { handle, comment: None, expressions }
}

/// Name, hook and priority, rules.
type Sketch = (&'static str, Option<(Hook, i32)>, Vec<Rule>);

fn table(chains: &[Sketch]) -> Table {
    let one = |(name, base, rules): &Sketch| {
        let base = base.map(|(hook, priority)| Base {
            hook: Some(hook),
            priority,
            kind: "filter".into(),
            drops: false,
        });
        ((*name).to_owned(), Chain { base, comment: None, rules: rules.clone() })
    };
    Table { chains: chains.iter().map(one).collect(), ..Table::default() }
}

fn packet() -> Packet {
    Packet {
        source: [10, 0, 0, 1].into(),
        destination: [10, 0, 0, 2].into(),
        protocol: 6,
        source_port: 40_000,
        destination_port: 80,
        icmp: None,
        original: None,
    }
}

fn way() -> Way {
    Way { output: Some("eth0".into()), ..Way::default() }
}

fn verdict(table: &Table) -> Verdict {
    run(table, &packet(), &way()).verdict
}

fn port(port: u16) -> Vec<Expression> {
    let load = Load::Payload { base: 2, offset: 2, length: 2 };
    let equal = Expression::Compare(0, Comparison::Equal, port.to_be_bytes().to_vec());
    vec![Expression::Load(load, 0), equal]
}

fn with(mut expressions: Vec<Expression>, last: Jump) -> Vec<Expression> {
    expressions.push(Expression::Verdict(last));
    expressions
}

#[test]
fn chains_run_by_priority_and_come_back() {
    let base = |priority, jump: Jump| (Some((OUT, priority)), vec![rule(1, with(port(80), jump))]);
    let ((late, drop), (early, accept)) = (base(5, Jump::Drop), base(-5, Jump::Accept));
    let both = table(&[("a", late, drop), ("b", early, accept)]);
    // Accepting ends one base chain only.
    assert_eq!(verdict(&both), Verdict::Drop);
    let met = run(&both, &packet(), &way()).met;
    assert_eq!(met.iter().map(|m| m.chain.as_str()).collect::<Vec<_>>(), ["b", "a"]);

    let jumps = |first: Jump| {
        table(&[
            ("a", Some((OUT, 0)), vec![rule(1, vec![Expression::Verdict(first)]), drops(2)]),
            ("b", None, vec![rule(3, vec![Expression::Verdict(Jump::Return)])]),
        ])
    };
    assert_eq!(verdict(&jumps(Jump::Jump("b".into()))), Verdict::Drop, "comes back");
    assert_eq!(verdict(&jumps(Jump::Goto("b".into()))), Verdict::Accept, "does not come back");
    assert!(matches!(verdict(&jumps(Jump::Jump("c".into()))), Verdict::Unknown(_)));
}

fn drops(handle: u64) -> Rule {
    rule(handle, vec![Expression::Verdict(Jump::Drop)])
}

#[test]
fn what_is_not_known_is_said_only_where_it_matters() {
    let one = |expressions| verdict(&table(&[("a", Some((OUT, 0)), vec![rule(7, expressions)])]));
    let limited = |rest: Vec<Expression>| one([vec![Expression::Limit], rest].concat());
    assert_eq!(limited(vec![Expression::Log("x".into())]), Verdict::Accept, "only a log line");
    let Verdict::Unknown(why) = limited(vec![Expression::Verdict(Jump::Drop)]) else { panic!() };
    assert!(why.contains("handle 7") && why.contains("rate"), "{why}");
    assert_eq!(limited(with(port(81), Jump::Drop)), Verdict::Accept, "another port anyway");

    let length = vec![
        Expression::Load(Load::Meta(0), 0),
        Expression::Compare(0, Comparison::Greater, vec![0, 0, 0, 9]),
    ];
    assert!(matches!(one(with(length, Jump::Drop)), Verdict::Unknown(_)));
    let strange = |mut before: Vec<Expression>| {
        before.push(Expression::Other("tproxy".into()));
        one(before)
    };
    assert!(matches!(strange(port(80)), Verdict::Unknown(_)));
    assert_eq!(strange(port(81)), Verdict::Accept, "not reached");
    let missing =
        Expression::Lookup { set: "x".into(), register: 0, to: None, decides: false, not: false };
    assert!(matches!(one(vec![missing]), Verdict::Unknown(_)));
}

#[test]
fn marks_of_packets_and_flows_stay() {
    let four = |n: u32| n.to_ne_bytes().to_vec();
    for (load, store) in [(Load::Meta(3), Store::Meta(3)), (Load::Ct(3), Store::Ct(3))] {
        let set = vec![
            Expression::Load(load, 0),
            Expression::Bitwise { from: 0, to: 0, mask: four(!6), xor: four(6) },
            Expression::Store(store, 0),
        ];
        let test = vec![
            Expression::Load(load, 16),
            Expression::Bitwise { from: 16, to: 16, mask: four(4), xor: four(0) },
            Expression::Compare(16, Comparison::NotEqual, four(0)),
            Expression::Reject,
        ];
        let both = table(&[
            ("a", Some((OUT, 0)), vec![rule(1, set)]),
            ("b", Some((Hook::Postrouting, 0)), vec![rule(2, test.clone())]),
        ]);
        assert_eq!(verdict(&both), Verdict::Drop);
        let only = table(&[("b", Some((Hook::Postrouting, 0)), vec![rule(2, test)])]);
        assert_eq!(verdict(&only), Verdict::Accept);
    }
}

#[test]
fn connection_tracking_begins_where_it_begins() {
    let state = |bit: u32| {
        vec![
            Expression::Load(Load::Ct(0), 0),
            Expression::Compare(0, Comparison::Equal, bit.to_ne_bytes().to_vec()),
            Expression::Verdict(Jump::Drop),
        ]
    };
    let at = |priority, rules| verdict(&table(&[("a", Some((OUT, priority)), rules)]));
    assert_eq!(at(-300, vec![rule(1, state(1))]), Verdict::Drop, "invalid before");
    assert_eq!(at(0, vec![rule(1, state(8))]), Verdict::Drop, "new behind");
    let notrack = table(&[
        ("a", Some((OUT, -300)), vec![rule(1, vec![Expression::Notrack])]),
        ("b", Some((OUT, 0)), vec![rule(2, state(64))]),
    ]);
    assert_eq!(verdict(&notrack), Verdict::Drop, "untracked");
}

#[test]
fn before_translation_the_destination_is_the_original() {
    let drop80 = vec![rule(1, with(port(80), Jump::Drop))];
    let translated = Packet { original: Some(([10, 96, 0, 1].into(), 443)), ..packet() };
    for (priority, want) in [(-150, Verdict::Accept), (0, Verdict::Drop)] {
        let table = table(&[("a", Some((OUT, priority)), drop80.clone())]);
        assert_eq!(run(&table, &translated, &way()).verdict, want, "{priority}");
    }
}

#[test]
fn a_policy_of_a_chain_is_a_rule_without_a_number() {
    let mut dropping = table(&[("a", Some((OUT, 0)), Vec::new())]);
    dropping.chains.get_mut("a").unwrap().base.as_mut().unwrap().drops = true;
    let run = run(&dropping, &packet(), &way());
    assert_eq!(run.verdict, Verdict::Drop);
    assert_eq!(run.decided().map(|m| (m.chain.as_str(), m.handle)), Some(("a", None)));
}

#[test]
fn chains_that_lead_to_themselves_are_no_endless_way() {
    let to = |name: &str| Jump::Jump(name.into());
    let by = |jump: Jump| vec![rule(1, vec![Expression::Verdict(jump)])];
    for (first, second) in
        [(to("b"), to("a")), (to("b"), Jump::Goto("b".into())), (Jump::Goto("b".into()), to("a"))]
    {
        let table = table(&[("a", Some((OUT, 0)), by(first)), ("b", None, by(second))]);
        let run = run(&table, &packet(), &way());
        assert!(matches!(&run.verdict, Verdict::Unknown(why) if why.contains("leads to itself")));
        assert!(run.met.len() < 3);
    }
    // The same chain twice, one time after the other, is none.
    let twice = [by(to("b")), by(to("b")), by(Jump::Drop)].concat();
    let empty = table(&[("a", Some((OUT, 0)), twice), ("b", None, Vec::new())]);
    assert_eq!(verdict(&empty), Verdict::Drop);
}

/// A key may begin with a constant: a mark of which no bit is kept, with other bits put in.
#[test]
fn a_constant_is_part_of_a_key() {
    let tagged = |tag: u32, last: u8| [&tag.to_ne_bytes()[..], &[10, 0, 0, last]].concat();
    let mut set = Set::new(8, Vec::new(), false);
    for (tag, last) in [(7, 1), (8, 2)] {
        set.add(Element { key: tagged(tag, last), ..Element::default() });
    }
    let asks = |tag: u32| {
        vec![
            Expression::Load(Load::Meta(3), 0),
            Expression::Bitwise {
                from: 0,
                to: 0,
                mask: vec![0; 4],
                xor: tag.to_ne_bytes().to_vec(),
            },
            Expression::Load(Load::Payload { base: 1, offset: 12, length: 4 }, 4),
            Expression::Lookup {
                set: "members".into(),
                register: 0,
                to: None,
                decides: false,
                not: false,
            },
        ]
    };
    let run_with = |tag: u32| {
        let rules = vec![rule(1, with(asks(tag), Jump::Drop))];
        let mut table = table(&[("a", Some((OUT, 0)), rules)]);
        table.sets.insert("members".into(), set.clone());
        run(&table, &packet(), &way())
    };
    assert_eq!(run_with(7).verdict, Verdict::Drop, "10.0.0.1 is there under that tag");
    let run = run_with(8);
    assert_eq!(run.verdict, Verdict::Accept, "and not under another");
    let why = run.met[0].failed.as_deref().unwrap();
    assert_eq!(why, "tag is 0x8, source address is 10.0.0.1, which is not in members");
}
