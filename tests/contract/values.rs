//! Small named values: kept, and changed by several without a loss.

use std::sync::Arc;

use bytes::Bytes;
use mailweir::queue::{Memory, QueueError, Swap};

use super::Rig;

fn value(text: &str) -> Option<Bytes> {
    Some(Bytes::copy_from_slice(text.as_bytes()))
}

fn swap(name: &str, expected: Option<&str>, to: Option<&str>) -> Swap {
    Swap { name: name.into(), expected: expected.and_then(value), value: to.and_then(value) }
}

/// `name=value` of all.
async fn all(memory: &dyn Memory, prefix: &str) -> Vec<String> {
    let found = memory.recall(prefix).await.unwrap();
    found.into_iter().map(|(name, text)| format!("{name}={}", String::from_utf8_lossy(&text))).collect()
}

pub async fn named_values_are_kept_replaced_and_removed(mut rig: Rig) {
    let entries = [("quota/a", "1"), ("quota/b", "2"), ("state/a", "3"), ("quota", "4")];
    rig.queue.remember(entries.map(|(name, text)| (name.to_owned(), value(text))).to_vec()).await.unwrap();
    rig.queue.remember(vec![("quota/b".into(), value("5")), ("quota/a".into(), None)]).await.unwrap();
    rig.drop_and_reopen().await;
    assert_eq!(all(&*rig.queue, "quota/").await, ["quota/b=5"]);
    assert_eq!(all(&*rig.queue, "").await, ["quota=4", "quota/b=5", "state/a=3"]);
    assert_eq!(all(&*rig.queue, "none").await, [""; 0]);
}

pub async fn a_value_that_others_change_is_not_written_over_blindly(mut rig: Rig) {
    let queue = rig.queue.clone();
    // Made once: whoever comes second finds it there.
    assert!(queue.swap(vec![swap("a", None, Some("1"))]).await.unwrap());
    assert!(!queue.swap(vec![swap("a", None, Some("2"))]).await.unwrap());
    // Changed by who knows it, and not by who knows an older one.
    assert!(queue.swap(vec![swap("a", Some("1"), Some("2"))]).await.unwrap());
    assert!(!queue.swap(vec![swap("a", Some("1"), Some("3"))]).await.unwrap());
    assert!(!queue.swap(vec![swap("a", Some("1"), None)]).await.unwrap());
    // Of several all, or none: whichever it is that differs.
    assert!(queue.swap(vec![swap("b", None, Some(""))]).await.unwrap(), "an empty value is one");
    for stale in [
        [swap("a", Some("2"), Some("9")), swap("b", None, Some("9"))],
        [swap("b", Some("9"), Some("9")), swap("a", Some("2"), Some("9"))],
    ] {
        assert!(!queue.swap(stale.to_vec()).await.unwrap());
        assert_eq!(all(&*queue, "").await, ["a=2", "b="]);
    }
    let twice = vec![swap("a", Some("2"), Some("7")), swap("a", Some("2"), Some("8"))];
    assert!(matches!(queue.swap(twice).await, Err(QueueError::Invalid(_))));
    assert!(queue.swap(vec![swap("a", Some("2"), None), swap("b", Some(""), Some("3"))]).await.unwrap());
    drop(queue);
    rig.drop_and_reopen().await;
    assert_eq!(all(&*rig.queue, "").await, ["b=3"]);
}

/// Whoever reserves a part of something reads, adds and swaps; together they have exactly what there is.
pub async fn what_several_reserve_is_never_more_than_there_is(rig: Rig) {
    const ALL: u32 = 60;
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let queue = Arc::clone(&rig.queue);
        tasks.push(tokio::spawn(async move {
            let (mut mine, mut lost) = (0u32, 0u32);
            loop {
                let found = queue.recall("reserved").await.unwrap().pop().map(|(_, used)| used);
                let used: u32 = found.as_deref().map_or(0, |used| String::from_utf8_lossy(used).parse().unwrap());
                if used == ALL {
                    return (mine, lost);
                }
                // Others have a turn between what was read and what is written.
                tokio::task::yield_now().await;
                let change = Swap { name: "reserved".into(), expected: found, value: value(&(used + 1).to_string()) };
                match queue.swap(vec![change]).await.unwrap() {
                    true => mine += 1,
                    false => lost += 1,
                }
            }
        }));
    }
    let (mut reserved, mut lost) = (0, 0);
    for task in tasks {
        let (of_task, lost_by_task) = task.await.unwrap();
        reserved += of_task;
        lost += lost_by_task;
    }
    assert_eq!(reserved, ALL);
    assert!(lost > 0, "nobody ever came second: this shows nothing");
    assert_eq!(all(&*rig.queue, "").await, [format!("reserved={ALL}")]);
}
