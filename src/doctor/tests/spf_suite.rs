//! The test suite of the SPF project for RFC 7208, which is not a part of this repository: its YAML as JSON (a list of
//! scenarios), in the file that `MAILWEIR_SPF_SUITE` names. `cargo test --lib spf_suite -- --ignored`.

use serde_json::Value;

use super::super::spf::check::{Client, check};
use super::{Zone, asker};

/// The data of a record as the suite has it: a text, or a list.
fn text(data: &Value) -> String {
    match data {
        Value::Array(all) => {
            all.iter().map(text).collect::<Vec<_>>().join(if all.iter().all(Value::is_string) { "" } else { " " })
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn zone(data: &Value) -> Zone {
    let mut zone = Zone::default();
    for (name, records) in data.as_object().into_iter().flatten() {
        let records = records.as_array().cloned().unwrap_or_default();
        let fails = records.iter().any(|record| record == "TIMEOUT");
        let has_txt = records.iter().any(|record| record.get("TXT").is_some());
        for record in records.iter().filter_map(Value::as_object).flatten() {
            let (kind, data) = (record.0.as_str(), text(record.1));
            match kind {
                // Its data may be a name alone, and followed by whoever asks.
                "CNAME" => zone.add(name, kind, &data),
                "SPF" if data == "TIMEOUT" => {}
                // Older than RFC 7208: the suite means TXT by it, unless there is one.
                "SPF" if !has_txt => zone.add(name, "TXT", &data),
                "TXT" if data == "NONE" => {}
                "TXT" | "A" | "AAAA" | "MX" | "PTR" => {
                    zone.add(name, kind, if data == "TIMEOUT" { "!" } else { &data });
                }
                _ => {}
            }
        }
        // Of the kinds that have no record of their own.
        let has = |kind: &str| records.iter().any(|record| record.get(kind).is_some_and(|data| data != "NONE"));
        for kind in ["TXT", "A", "AAAA", "MX", "PTR"].into_iter().filter(|kind| fails && !has(kind)) {
            zone.add(name, kind, "!");
        }
    }
    zone
}

#[tokio::test]
#[ignore = "needs the test suite of the SPF project as JSON"]
async fn the_suite_of_the_spf_project() {
    let path = std::env::var("MAILWEIR_SPF_SUITE").expect("MAILWEIR_SPF_SUITE names the suite");
    let suite: Value = serde_json::from_slice(&std::fs::read(path).expect("the suite")).expect("JSON");
    let (mut all, mut wrong) = (0, Vec::new());
    for scenario in suite.as_array().into_iter().flatten() {
        let zone = zone(&scenario["zonedata"]);
        for (name, case) in scenario["tests"].as_object().into_iter().flatten() {
            // `p` is not looked up (RFC 7208 §7.3 asks not to use it).
            if name.starts_with("p-macro") {
                continue;
            }
            all += 1;
            let of = |key: &str| case[key].as_str().unwrap_or_default().to_owned();
            let (helo, from) = (of("helo"), of("mailfrom"));
            let from = from.trim_matches(['<', '>']).to_owned();
            let sender = match from.rsplit_once('@') {
                _ if from.is_empty() => format!("postmaster@{helo}"),
                Some(("", domain)) => format!("postmaster@{domain}"),
                Some(_) => from.clone(),
                None => format!("postmaster@{from}"),
            };
            let domain = sender.rsplit('@').next().unwrap_or_default().to_owned();
            let ip: std::net::IpAddr = of("host").parse().expect("an address");
            let client = Client { ip: ip.to_canonical(), sender: &sender, helo: &helo };
            let judged = check(&asker(&zone), &client, &domain).await;
            let expected = match &case["result"] {
                Value::Array(all) => all.iter().map(text).collect(),
                one => vec![text(one)],
            };
            if !expected.iter().any(|one| one == judged.verdict.name()) {
                wrong.push(format!("{name}: expected {expected:?}, found {:?}", judged));
            }
        }
    }
    println!("{} of {all} as the suite says", all - wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
