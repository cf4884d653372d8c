use super::*;

fn descriptors(connections: usize, for_clients: usize, for_hosts: usize) -> Arc<Descriptors> {
    let shares = *Descriptors::without_end().shares();
    Descriptors::new(Shares { connections, for_clients, for_hosts, ..shares })
}

fn lane(name: &str) -> LaneName {
    LaneName::from(name)
}

/// One that is there now.
fn now(all: &Arc<Descriptors>, name: &str, standing: Standing) -> Option<Slot> {
    let mut state = all.state.lock();
    all.has_one_for(&state, &lane(name), standing).then(|| all.take_for_host(&mut state, lane(name), standing))
}

/// All that a lane gets without waiting.
fn as_many_as(all: &Arc<Descriptors>, name: &str, standing: Standing) -> Vec<Slot> {
    std::iter::from_fn(|| now(all, name, standing)).collect()
}

/// Starts to wait for one, and waits.
async fn waits(all: &Arc<Descriptors>, name: &str, standing: Standing) -> tokio::task::JoinHandle<Slot> {
    let before = all.waiting_of(&lane(name));
    let (all_too, of) = (all.clone(), lane(name));
    let task = tokio::spawn(async move { all_too.for_host(&of, standing).await });
    while all.waiting_of(&lane(name)) == before {
        assert!(!task.is_finished(), "{name} had not to wait");
        tokio::task::yield_now().await;
    }
    task
}

#[test]
fn neither_side_takes_the_part_of_the_other_and_what_nobody_needs_is_lent() {
    let all = descriptors(40, 20, 10);
    let lanes: Vec<String> = (0..100).map(|n| format!("lane{n}")).collect();
    let hosts: Vec<Slot> = lanes.iter().filter_map(|name| now(&all, name, Standing::Known)).collect();
    assert_eq!(hosts.len(), 20, "what is kept for clients stays");
    let clients: Vec<Slot> = std::iter::from_fn(|| all.for_client(1)).collect();
    assert_eq!(clients.len(), 20);
    drop(hosts);
    let more: Vec<Slot> = std::iter::from_fn(|| all.for_client(1)).collect();
    assert_eq!(more.len(), 10, "ten are kept for hosts");
    let hosts: Vec<Slot> = lanes.iter().filter_map(|name| now(&all, name, Standing::Known)).collect();
    assert_eq!(hosts.len(), 10);
    drop((clients, more, hosts));
    let state = all.state.lock();
    assert!(state.clients == 0 && state.to_hosts() == 0 && state.of_lane.is_empty(), "{state:?}");
}

#[test]
fn a_session_that_takes_several_counts_as_so_many() {
    let all = descriptors(40, 20, 10);
    assert_eq!(all.most_sessions(4), 7);
    assert_eq!(std::iter::from_fn(|| all.for_client(4)).take(20).collect::<Vec<_>>().len(), 7);
}

#[test]
fn there_is_one_for_the_lane_that_comes_next_and_for_domains_that_work() {
    let all = descriptors(80, 0, 0);
    let of_one = as_many_as(&all, "one", Standing::Known);
    let of_two = as_many_as(&all, "two", Standing::Known);
    assert_eq!((of_one.len(), of_two.len()), (40, 20), "half of what is free");
    assert!(now(&all, "one", Standing::Known).is_none() && now(&all, "three", Standing::Known).is_some());
    drop((of_one, of_two));
    let silent: Vec<Slot> = (0..80).filter_map(|n| now(&all, &format!("@{n}.test"), Standing::Unknown)).collect();
    assert_eq!(silent.len(), 40, "hosts that say nothing have half of all");
    assert!(now(&all, "@works.test", Standing::Known).is_some());
}

#[tokio::test]
async fn who_waits_gets_what_comes_back_in_order_and_takes_nothing_along_when_it_goes() {
    let all = descriptors(2, 0, 0);
    let one = now(&all, "one", Standing::Known).expect("free");
    let two = now(&all, "two", Standing::Known).expect("free");
    let first = waits(&all, "three", Standing::Known).await;
    let second = waits(&all, "four", Standing::Known).await;
    let third = waits(&all, "five", Standing::Known).await;
    first.abort();
    assert!(first.await.expect_err("it went away").is_cancelled());
    assert_eq!(all.waiting_of(&lane("three")), 0);
    drop(one);
    let four = second.await.expect("it has one");
    assert!(!third.is_finished());
    drop(two);
    drop((four, third.await.expect("it has one")));
    let state = all.state.lock();
    assert!(state.to_hosts() == 0 && state.of_lane.is_empty(), "{state:?}");
}

#[tokio::test]
async fn no_more_give_way_than_wait() {
    let all = descriptors(2, 0, 0);
    let one = now(&all, "one", Standing::Known).expect("free");
    let two = now(&all, "two", Standing::Known).expect("free");
    assert!(!all.is_wanted(), "nobody waits");
    let waiting = waits(&all, "three", Standing::Known).await;
    assert!(all.is_wanted() && !all.is_wanted());
    drop(one);
    let three = waiting.await.expect("it has one");
    let waiting = waits(&all, "four", Standing::Known).await;
    assert!(all.is_wanted() && !all.is_wanted());
    drop(two);
    drop((three, waiting.await.expect("it has one")));
}

#[tokio::test]
async fn a_client_that_leaves_makes_room_for_a_host() {
    let all = descriptors(4, 2, 1);
    let clients: Vec<Slot> = std::iter::from_fn(|| all.for_client(1)).collect();
    assert_eq!(clients.len(), 3);
    let one = now(&all, "one", Standing::Known).expect("one is kept for hosts");
    let waiting = waits(&all, "two", Standing::Known).await;
    drop(clients);
    drop((one, waiting.await.expect("it has one")));
}

#[tokio::test]
async fn domains_that_did_not_take_mail_are_not_kept_waiting_for_ever_by_those_that_do() {
    let all = descriptors(8, 0, 0);
    let mut known: Vec<Slot> = (0..8).filter_map(|n| now(&all, &format!("known{n}"), Standing::Known)).collect();
    let other = waits(&all, "other", Standing::Known).await;
    let unknown = waits(&all, "@new.test", Standing::Unknown).await;
    known.pop();
    drop(unknown.await.expect("before the others"));
    drop(other.await.expect("and these follow"));
}
