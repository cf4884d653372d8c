//! `mailweir simulate` as a program: the same seed gives the same bytes, and the picture is one.

use std::process::Command;

use serde_json::Value;

const CONFIG: &str = "
[default]
connections = 3
rate = \"5/s\"
[provider.gmail]
match = { mx = [\"*.google.com\"] }
rate = [\"30/s\", \"900/m\"]
connections = 8
";

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
    picture: String,
}

fn simulate(args: &[&str]) -> Ran {
    let dir = tempfile::tempdir().expect("a directory");
    let (config, svg) = (dir.path().join("config.toml"), dir.path().join("day.svg"));
    std::fs::write(&config, CONFIG).expect("written");
    let out = Command::new(env!("CARGO_BIN_EXE_mailweir"))
        .arg("--config")
        .arg(&config)
        .args(["simulate", "--svg"])
        .arg(&svg)
        .args(args)
        .output()
        .expect("it starts");
    Ran {
        code: out.status.code(),
        out: String::from_utf8(out.stdout).expect("UTF-8"),
        err: String::from_utf8(out.stderr).expect("UTF-8"),
        picture: std::fs::read_to_string(&svg).unwrap_or_default(),
    }
}

const BUSY: &[&str] = &[
    "--messages",
    "20000",
    "--mix",
    "gmail=60,microsoft=25,other=15",
    "--arrive",
    "10m",
    "--domains",
    "20",
    "--hidden",
    "gmail=rate:12/s,fail:1%",
    "--hidden",
    "microsoft=greylist:5m",
    "--change",
    "gmail=20m rate:25/s",
];

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_one_does_not() {
    let run = |seed: &str| simulate(&[BUSY, &["--json", "--seed", seed]].concat());
    let (first, second, other) = (run("7"), run("7"), run("8"));
    assert_eq!(first.code, Some(0), "{}", first.err);
    assert_eq!(first.out, second.out);
    assert_eq!(first.picture, second.picture);
    assert_ne!(first.out, other.out);

    let report: Value = serde_json::from_str(&first.out).expect("JSON");
    let groups = report["groups"].as_array().expect("groups");
    let of = |name: &str| groups.iter().find(|g| g["name"] == name).expect("a group");
    assert_eq!(report["complete"], true);
    assert_eq!((of("gmail")["messages"].as_u64(), of("other")["messages"].as_u64()), (Some(12_000), Some(3000)));
    for g in groups {
        let fates = g["delivered"].as_u64().expect("a number") + g["failed"].as_u64().expect("a number");
        assert_eq!(Some(fates), g["messages"].as_u64(), "{g}");
    }
    assert!(of("gmail")["throttled"].as_u64() > Some(100));
    assert!(of("microsoft")["limits"].as_str().is_some_and(|l| l.contains("5/s") && l.contains("[default]")));
    assert!(of("gmail")["limits"].as_str().is_some_and(|l| l.contains("900/m") && l.contains("[provider.gmail]")));
}

#[test]
fn people_get_a_table_and_a_picture() {
    let ran = simulate(BUSY);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    for part in [
        "PROVIDER",
        "IT ENFORCES",
        "Waiting (and since the row before: delivered, !throttled)",
        "20000 messages: done after",
    ] {
        assert!(ran.out.contains(part), "no {part:?} in {}", ran.out);
    }
    for part in
        ["<svg xmlns", "Messages waiting", "Delivered per hour", "microsoft: 5,000", "Time since the start (", "</svg>"]
    {
        assert!(ran.picture.contains(part), "no {part:?} in the picture");
    }
    assert_eq!(ran.picture.matches("<polyline").count(), 3);
    assert!(!ran.picture.contains("NaN") && !ran.picture.contains("inf"));
}

#[test]
fn nonsense_is_refused_with_what_was_expected() {
    for (args, expected) in [
        (&["--mix", "gmail"][..], "expected name=share"),
        (&["--mix", "gmail=0"], "above 0"),
        (&["--mix", "gmail=1,gmail=2"], "stands twice"),
        (&["--hidden", "gmial=rate:1/s"], "`gmial` is not in the mix"),
        (&["--hidden", "gmail=speed:1"], "is not a cap"),
        (&["--mix", "a b=1"], "cannot stand in a mix"),
        (&["--messages", "0"], "0 is not in"),
    ] {
        let ran = simulate(args);
        assert!(ran.code == Some(64) && ran.err.contains(expected), "{args:?}: {:?} {}", ran.code, ran.err);
    }
}
