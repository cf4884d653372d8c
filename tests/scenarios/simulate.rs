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
[provider.slow]
match = { domains = [\"slow.example\"] }
quota = \"10/d\"
retry = { expire = \"1h\" }
[provider.warming]
match = { domains = [\"warming.example\"] }
warmup = { start = \"2026-12-01\", days = [10, 20, 40] }
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
    assert!(of("gmail")["throttled"].as_u64() > Some(0));
    assert!(of("other")["limits"].as_str().is_some_and(|l| l.contains("5/s") && l.contains("[default]")));
    assert!(of("microsoft365")["limits"].as_str().is_some_and(|l| l.contains("20/s")), "the limits of its profile");
    assert!(of("gmail")["limits"].as_str().is_some_and(|l| l.contains("900/m") && l.contains("[provider.gmail]")));
}

#[test]
fn people_get_a_table_and_a_picture() {
    let ran = simulate(BUSY);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    for part in [
        "PROVIDER",
        "IT ENFORCES",
        "; from 20m on 25/s, ",
        "greylisting for 5m",
        "Waiting (and since the row before: delivered, !throttled)",
        "20,000 messages: ",
        " expired, ",
        "done after",
        ", begun on 20",
    ] {
        assert!(ran.out.contains(part), "no {part:?} in {}", ran.out);
    }
    for part in [
        "<svg xmlns",
        "Messages waiting",
        "Delivered per hour",
        "microsoft365: 5,000",
        "Time since the start (",
        "</svg>",
    ] {
        assert!(ran.picture.contains(part), "no {part:?} in the picture");
    }
    assert_eq!(ran.picture.matches("<polyline").count(), 3);
    assert!(!ran.picture.contains("NaN") && !ran.picture.contains("inf"));
}

#[test]
fn what_expires_is_told_and_is_no_success() {
    let ran = simulate(&["--messages", "100", "--mix", "slow=1", "--json"]);
    assert_eq!((ran.code, ran.err.contains("90 messages expired")), (Some(69), true), "{}", ran.err);
    let report: Value = serde_json::from_str(&ran.out).expect("JSON");
    let of = |key: &str| report[key].as_u64().expect("a number");
    assert_eq!((of("delivered"), of("expired"), of("bounced"), of("waiting")), (10, 90, 0, 0));
    assert!(ran.picture.contains("100 messages: 10 delivered, 90 expired, 0 bounced, 0 waiting"), "{}", ran.picture);
    let table = simulate(&["--messages", "100", "--mix", "slow=1"]).out;
    assert!(table.contains("90.0 % expired"), "{table}");
    assert!(table.ends_with(&format!("begun on {}\n", report["begin"].as_str().expect("a day"))), "{table}");
}

#[test]
fn a_warm_up_grows_from_the_day_on_which_it_begins() {
    let delivered = |begin: &str| {
        let ran = simulate(&["--messages", "70", "--mix", "warming=1", "--begin", begin, "--until", "2d", "--json"]);
        assert_eq!(ran.code, Some(0), "{}", ran.err);
        serde_json::from_str::<Value>(&ran.out).expect("JSON")["delivered"].as_u64()
    };
    assert_eq!(delivered("2026-12-01"), Some(30), "day 1 and day 2");
    assert_eq!(delivered("2026-12-02"), Some(60), "day 2 and day 3");
    assert_eq!(delivered("2026-11-30"), Some(20), "the number of day 1, then day 1");
    assert_eq!(delivered("2027-01-01"), Some(70), "the plan is over");
}

#[test]
fn nonsense_is_refused_with_what_was_expected() {
    for (args, expected) in [
        (&["--mix", "gmail"][..], "expected name=share"),
        (&["--mix", "gmail=0"], "above 0"),
        (&["--mix", "gmail=1,gmail=2"], "stands twice"),
        (&["--hidden", "gmial=rate:1/s"], "`gmial` is not in the mix"),
        (&["--hidden", "gmail=speed:1"], "is not a cap"),
        (&["--mix", "a b=1"], "`a b` is no provider"),
        (&["--mix", "gmial=1"], "did you mean `gmail`?"),
        (&["--mix", "microsoft=1,microsoft365=1"], "`microsoft365` stands twice"),
        (&["--begin", "tomorrow"], "expected a day (UTC) such as 2026-12-01"),
        (&["--messages", "0"], "0 is not in"),
    ] {
        let ran = simulate(args);
        assert!(ran.code == Some(64) && ran.err.contains(expected), "{args:?}: {:?} {}", ran.code, ran.err);
    }
}
