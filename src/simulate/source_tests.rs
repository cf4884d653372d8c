//! Limits per source: each source address carries its part.

use super::*;
use crate::config::{LimitsPer, Source, sample, sources};

#[test]
fn each_source_carries_its_part_by_weight() {
    let source = [(1, 1), (2, 3), (3, 2)].map(|(n, weight)| Source { weight, ..Source::new([192, 0, 2, n].into()) });
    let provider = Provider { source: source.into(), ..sample::provider("p") };
    assert_eq!(sites::by_source(&Arc::new(provider.clone()), 1001).len(), 1);
    let parts = sites::by_source(&Arc::new(Provider { limits_per: LimitsPer::Source, ..provider }), 1001);
    assert_eq!(parts.iter().map(|(_, part)| *part).collect::<Vec<_>>(), [166, 501, 334]);
    assert!(parts.iter().all(|(p, _)| sources::only(p).is_some()));
}
