//! Which of a provider's local addresses belongs to a sender domain. Pure.
//!
//! Weighted rendezvous hashing: every sender domain has its own order of the addresses, the same on
//! every machine and after every restart. When an address is added or removed, only the domains
//! that it wins or had move.

use std::net::IpAddr;
use std::sync::Arc;

use super::{LimitsPer, Provider, Source};

/// The provider as it is seen from each of its sources, in the order of the file: with that source
/// alone, and its warm-up. Empty where limits hold for all sources together.
pub fn each(provider: &Provider) -> Vec<Arc<Provider>> {
    if provider.limits_per == LimitsPer::Provider {
        return Vec::new();
    }
    let from = |source: &Source| {
        let warmup = source.warmup.clone().or_else(|| provider.warmup.clone());
        Arc::new(Provider { source: vec![source.clone()], warmup, ..provider.clone() })
    };
    provider.source.iter().map(from).collect()
}

/// The source of a provider from [`each`]; `None` for others.
pub fn only(provider: &Provider) -> Option<IpAddr> {
    match (provider.limits_per, provider.source.as_slice()) {
        (LimitsPer::Source, [only]) => Some(only.address),
        _ => None,
    }
}

/// The sources in the order of this sender domain (case does not matter).
pub fn order<'s>(sources: &'s [Source], sender_domain: &str) -> Vec<&'s Source> {
    let domain = sender_domain.to_ascii_lowercase();
    let mut scored: Vec<(f64, &Source)> = sources.iter().map(|source| (score(source, &domain), source)).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().map(|(_, source)| source).collect()
}

/// The addresses that mail of this sender domain prefers, as text: mail with the same text may share
/// a connection. Empty with less than two sources.
pub fn affinity(sources: &[Source], sender_domain: &str) -> String {
    if sources.len() < 2 {
        return String::new();
    }
    let order = order(sources, sender_domain);
    let first = |v4: bool| order.iter().find(|s| s.address.is_ipv4() == v4).map(|s| s.address.to_string());
    [first(true), first(false)].into_iter().flatten().collect::<Vec<_>>().join("/")
}

/// −weight / ln(u), with u the hash as a number in (0, 1): the greatest wins with a probability in
/// proportion to its weight.
fn score(source: &Source, domain: &str) -> f64 {
    let key = format!("{} {domain}", source.address);
    // 53 bits are what an f64 holds exactly; never 0 and never 1.
    let unit = ((hash(key.as_bytes()) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -f64::from(source.weight) / unit.ln()
}

/// FNV-1a and the finish of MurmurHash3: the same in every version of this program, which the hash
/// of the standard library does not promise.
fn hash(bytes: &[u8]) -> u64 {
    let mut h = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        h = (h ^ (h >> 33)).wrapping_mul(factor);
    }
    h ^ (h >> 33)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn sources(weights: &[u32]) -> Vec<Source> {
        let address = |n: u8| IpAddr::from([192, 0, 2, n]);
        (1..).zip(weights).map(|(n, weight)| Source { weight: *weight, ..Source::new(address(n)) }).collect()
    }

    fn first(sources: &[Source], domain: &str) -> IpAddr {
        order(sources, domain)[0].address
    }

    #[test]
    fn domains_are_shared_out_by_weight() {
        let sources = sources(&[1, 3, 6]);
        let mut counts = [0u32; 3];
        for n in 0..10_000 {
            let won = first(&sources, &format!("d{n}.example"));
            counts[sources.iter().position(|s| s.address == won).unwrap()] += 1;
        }
        for (count, share) in counts.into_iter().zip([1000, 3000, 6000]) {
            assert!(count.abs_diff(share) < 250, "{counts:?}");
        }
    }

    #[test]
    fn a_domain_moves_only_when_its_own_address_goes() {
        let all = sources(&[1, 1, 2, 1]);
        let fewer: Vec<Source> = all.iter().skip(1).cloned().collect();
        let mut moved = 0;
        for n in 0..2000 {
            let domain = format!("d{n}.example");
            let (before, after) = (first(&all, &domain), first(&fewer, &domain));
            if before == all[0].address {
                moved += 1;
            } else {
                assert_eq!(before, after, "{domain}");
            }
        }
        assert!((250..600).contains(&moved), "{moved}");
        assert_eq!(first(&all, "A.Example"), first(&all, "a.example"));
    }

    #[test]
    fn the_choice_is_the_same_in_every_version() {
        let chosen: Vec<String> =
            ["a.example", "b.example", "c.example", ""].map(|d| first(&sources(&[1, 1, 1]), d).to_string()).into();
        assert_eq!(chosen, PINNED);
    }

    const PINNED: [&str; 4] = ["192.0.2.2", "192.0.2.1", "192.0.2.3", "192.0.2.2"];
}
