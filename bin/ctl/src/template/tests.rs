//! Templates, what Go makes of them, and what is refused.

use serde_json::{Value, json};

use super::Template;

fn results() -> Value {
    json!([{"kind": "TierList", "items": [
        {"kind": "Tier", "metadata": {"name": "a", "labels": {"x": "1", "b": "2"}}, "spec": {"order": 10, "ipipMode": "Always"}},
        {"kind": "Tier", "metadata": {"name": "b"}, "spec": {"order": 2.5, "nets": ["1.2.3.4/32", "::/0"], "on": true}},
    ]}])
}

fn make(text: &str) -> Result<String, String> {
    let template = Template::parse(text).map_err(|e| e.to_string())?;
    template.execute(&results()).map_err(|(_, e)| e.to_string())
}

#[track_caller]
fn check(rows: &[(&str, &str)]) {
    for (text, want) in rows {
        assert_eq!(make(text).as_deref(), Ok(*want), "{text}");
    }
}

#[test]
fn blocks() {
    check(&[
        ("plain", "plain"),
        ("{{range .items}}{{.metadata.name}} {{end}}", "a b "),
        // As upstream's tool has it: a list of results, and Go's names.
        (
            "{{range .}}{{range .Items}}{{.ObjectMeta.Name}}={{.Spec.IPIPMode}};{{end}}{{end}}",
            "a=Always;b=<no value>;",
        ),
        ("{{range .Items}}{{.Name}}{{end}}", "ab"),
        ("{{range $i, $e := .items}}{{if $i}},{{end}}{{$i}}:{{$e.kind}}{{end}}", "0:Tier,1:Tier"),
        ("{{range $k, $v := (index .items 0).metadata.labels}}{{$k}}={{$v}} {{end}}", "b=2 x=1 "),
        ("{{range .none}}x{{else}}none{{end}}", "none"),
        ("{{range 3}}{{.}}{{end}}", "012"),
        (
            "{{range $i, $e := .items}}{{if eq $i 1}}{{break}}{{end}}{{$e.metadata.name}}{{end}}",
            "a",
        ),
        (
            "{{range .items}}{{if eq .metadata.name \"a\"}}{{continue}}{{end}}{{.metadata.name}}{{end}}",
            "b",
        ),
        ("{{if .none}}a{{else if .kind}}b{{else}}c{{end}}", "b"),
        ("{{if .none}}a{{else}}c{{end}}", "c"),
        ("{{with .kind}}{{.}}{{$.kind}}{{end}}", "TierListTierList"),
        ("{{with .none}}a{{else with .kind}}{{.}}{{else}}b{{end}}", "TierList"),
        ("{{$n := 0}}{{range .items}}{{$n = len .metadata.name}}{{end}}{{$n}}", "1"),
        ("{{$x := 1}}{{with .kind}}{{$x := 2}}{{$x}}{{end}}{{$x}}", "21"),
        (
            "{{define \"row\"}}<{{.metadata.name}}>{{end}}{{range .items}}{{template \"row\" .}}{{end}}",
            "<a><b>",
        ),
        ("{{block \"b\" .kind}}[{{.}}]{{end}}", "[TierList]"),
        ("a {{- /* gone */ -}} b", "ab"),
        ("a {{/* stays */}} b", "a  b"),
        ("x\n{{- range .items }}\n  {{ .metadata.name }}\n{{- end }}\n", "x\n  a\n  b\n"),
        ("{{\"}}\"}}{{`{{`}}", "}}{{"),
        ("{{- 3 -}}", "3"),
        ("{{-3}}", "-3"),
    ]);
}

#[test]
fn values_and_functions() {
    check(&[
        ("{{range .items}}{{.spec.order}} {{end}}", "10 2.5 "),
        ("{{1e21}} {{0.00001}} {{0x1F}} {{0b11}} {{1_000}} {{'a'}}", "1e+21 1e-05 31 3 1000 97"),
        (
            "{{(index .items 0).metadata.labels}} {{(index .items 1).spec.nets}}",
            "map[b:2 x:1] [1.2.3.4/32 ::/0]",
        ),
        ("{{.none}} {{.none.deeper}} {{nil | print}}", "<no value> <no value> <nil>"),
        ("{{and 1 \"\" 2}}|{{or \"\" 0 \"x\"}}|{{not .none}}|{{or .none 5}}", "|x|true|5"),
        ("{{and false (index .items 9)}}", "false"),
        (
            "{{eq 1 2 1}} {{ne \"a\" \"b\"}} {{lt 1 2}} {{le 2 2}} {{gt 1.5 1}} {{ge \"a\" \"b\"}}",
            "true true true true true false",
        ),
        ("{{len .items}} {{len .kind}} {{len (index .items 0).metadata.labels}}", "2 8 2"),
        (
            "{{index .items 1 \"metadata\" \"name\"}} {{slice .kind 1 3}} {{slice .items 2}}",
            "b ie []",
        ),
        ("{{print 1 2 \"a\" \"b\" 3 true}}|{{println 1 \"a\"}}|", "1 2ab3 true|1 a\n|"),
        (
            "{{printf \"%s-%d-%v-%q-%5d|%-5s|%05d|%+d\" \"a\" 7 .none \"x\\\"y\" 42 \"l\" 42 3}}",
            "a-7-<nil>-\"x\\\"y\"-   42|l    |00042|+3",
        ),
        (
            "{{printf \"%.2f %e %g %6.1f %t %x %X %o %b %c %%\" 3.14159 1500.0 0.5 2.25 true 255 255 8 5 65}}",
            "3.14 1.500000e+03 0.5    2.2 true ff FF 10 101 A %",
        ),
        (
            "{{printf \"%d %s\" \"a\" 1}} {{printf \"%s\"}} {{printf \"x\" 1}} {{printf \"%\"}}",
            "%!d(string=a) %!s(int=1) %!s(MISSING) x%!(EXTRA int=1) %!(NOVERB)",
        ),
        (
            "{{printf \"%*d|%.2s|%v\" 4 7 \"héllo\" (index .items 1).spec.nets}}",
            "   7|hé|[1.2.3.4/32 ::/0]",
        ),
        (
            "{{\"<a>&'\" | html}} {{\"a b/ü\" | urlquery}} {{\"it's\" | js}}",
            "&lt;a&gt;&amp;&#39; a+b%2F%C3%BC it\\'s",
        ),
        (
            "{{join (index .items 1).spec.nets \",\"}} {{join (index .items 0).metadata.labels \",\"}}",
            "1.2.3.4/32,::/0 b=2,x=1",
        ),
        ("{{joinAndTruncate (index .items 1).spec.nets \",\" 8}}", "1.2.3..."),
        ("{{\"a\" | printf \"%s%s\" \"b\"}} {{\"x\" | len | printf \"%03d\"}}", "ba 001"),
        ("{{\"\\u00e9\\x41\\t\\\\\"}}", "éA\t\\"),
    ]);
}

#[test]
fn what_is_refused_names_its_line() {
    for (text, parts) in [
        ("a\nb {{range .items}}", &["line 2", "{{end}}"][..]),
        ("{{end}}", &["{{end}} without"]),
        ("{{else}}", &["{{else}} without"]),
        ("{{if}}x{{end}}", &["a value is missing"]),
        ("\n{{.a", &["line 2", "not closed"]),
        ("{{\"a}}", &["not closed"]),
        ("{{/* a", &["comment"]),
        ("{{nosuch .a}}", &["no function \"nosuch\"", "printf"]),
        ("{{$x}}", &["no variable $x"]),
        ("{{$x = 1}}", &["no variable $x"]),
        ("{{if true}}{{$x := 1}}{{end}}{{$x}}", &["no variable $x"]),
        ("{{.a | .b}}", &["only a function"]),
        ("{{(.a}}", &["parenthesis"]),
        ("{{break}}", &["outside of a range"]),
        ("{{1x}}", &["no number"]),
        ("{{template \"none\"}}", &["no template \"none\""]),
        ("{{define \"r\"}}{{template \"r\"}}{{end}}{{template \"r\"}}", &["without end"]),
        ("{{index .items 7}}", &["index: 7 is out of range"]),
        ("{{.kind.x}}", &[".x: string has no fields"]),
        ("{{lt 1 \"a\"}}", &["int and string cannot be compared"]),
        ("{{range .kind}}{{end}}", &["a range cannot go over string"]),
        ("{{len 3}}", &["len: int has no length"]),
        ("{{printf \"%99999d\" 1}}", &["width"]),
    ] {
        let error = make(text).unwrap_err();
        assert!(parts.iter().all(|part| error.contains(part)), "{text}: {error}");
    }
    let deep = "{{if 1}}".repeat(5_000);
    assert!(make(&deep).unwrap_err().contains("nested deeper"));
    let deep = format!("{{{{{}1}}}}", "(".repeat(5_000));
    assert!(make(&deep).unwrap_err().contains("nested deeper"));
}

#[test]
fn several_results_have_no_fields() {
    let template = Template::parse("{{range .}}{{.kind}} {{end}}").unwrap();
    let several = json!([{"kind": "A"}, {"kind": "B"}]);
    assert_eq!(template.execute(&several).as_deref(), Ok("A B "));
    let template = Template::parse("x{{.kind}}").unwrap();
    let (made, error) = template.execute(&several).unwrap_err();
    assert_eq!((made.as_str(), error.to_string().contains("want a range")), ("x", true));
}
