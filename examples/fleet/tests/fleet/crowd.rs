//! Many clients, and nodes that are killed at random.

use super::client::Source;
use super::processes::{try_post, Fleet, Node, MACHINE, TIMEOUT};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// The number of clients.
const CLIENTS: usize = 300;

/// The number of threads that publish.
const PUBLISHERS: usize = 3;

/// The pause of a publisher between two events, in milliseconds. All publishers together publish about 60 events per
/// second, so the nodes send about 18,000 events per second.
const PAUSE: std::ops::Range<u64> = 20..80;

/// Returns the time for which nodes are killed and restarted. `FLEET_SECONDS` is this time in seconds. The default is
/// 30 s.
fn duration() -> Duration {
    let seconds = std::env::var("FLEET_SECONDS").map(|seconds| seconds.parse().unwrap());
    Duration::from_secs(seconds.unwrap_or(30))
}

/// A generator of random numbers (xorshift64).
struct Random(u64);

impl Random {
    fn new(seed: usize) -> Random {
        Random((seed as u64 + 1).wrapping_mul(0x2545_f491_4f6c_dd1d))
    }

    fn pick(&mut self, range: std::ops::Range<u64>) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        range.start + self.0 % (range.end - range.start)
    }

    fn sleep(&mut self, milliseconds: std::ops::Range<u64>) {
        thread::sleep(Duration::from_millis(self.pick(milliseconds)));
    }
}

/// The events that one client has received, and the number of its gaps and reconnections.
struct Heard {
    /// The id and the data of each event, in the order of arrival.
    events: Vec<(String, String)>,
    gaps: usize,
    reconnections: usize,
}

/// Listens until an event arrives whose data begins with `end`. Increments `connected` after the first connection, and
/// `started` after the first event. Panics if no such event arrives in time, so that a failing test ends.
fn listen(port: u16, number: usize, connected: &AtomicUsize, started: &AtomicUsize) -> Heard {
    let (mut random, mut last) = (Random::new(number), String::new());
    let mut heard = Heard { events: Vec::new(), gaps: 0, reconnections: 0 };
    let deadline = Instant::now() + duration() + 6 * TIMEOUT;
    for attempt in 0.. {
        assert!(Instant::now() < deadline, "no event `end` after {:?}", heard.events.last());
        heard.reconnections = attempt;
        let Ok(mut source) = Source::try_connect(port, &last) else {
            random.sleep(10..500);
            continue;
        };
        if attempt == 0 {
            connected.fetch_add(1, Ordering::SeqCst);
        }
        while let Ok(Some(event)) = source.read() {
            let is_end = event.data.starts_with("end");
            match &*event.kind {
                "gap" => heard.gaps += 1,
                _ => heard.events.push((event.id, event.data)),
            }
            if heard.events.len() == 1 {
                started.fetch_add(1, Ordering::SeqCst);
            }
            if is_end {
                return heard;
            }
        }
        last = source.last_event_id;
        random.sleep(10..500);
    }
    unreachable!()
}

/// The events of one publisher.
struct Said {
    /// The data of each acknowledged event, by the id of the event.
    acknowledged: HashMap<String, String>,
    /// The number of events that were not acknowledged. Clients may or may not receive these events.
    unknown: usize,
}

/// Publishes consecutive numbers, each only once, until `ended` is set.
fn speak(port: u16, number: usize, ended: &AtomicBool) -> Said {
    let mut random = Random::new(CLIENTS + number);
    let mut said = Said { acknowledged: HashMap::new(), unknown: 0 };
    for n in 0.. {
        if ended.load(Ordering::SeqCst) {
            break;
        }
        let text = format!("{number}/{n}");
        match try_post(port, "/publish", &text) {
            Ok(answer) if answer.status == 200 => {
                said.acknowledged.insert(answer.body.trim_end().to_owned(), text);
            }
            _ => said.unknown += 1,
        }
        random.sleep(PAUSE);
    }
    said
}

/// Repeats until the deadline: kills one or two nodes, and restarts the killed nodes. Returns the number of kills.
fn kill_at_random(nodes: &mut [Node; 3], until: Instant) -> usize {
    let (mut random, mut kills) = (Random::new(std::process::id() as usize), 0);
    while Instant::now() < until {
        let first = random.pick(0..3) as usize;
        let count = 1 + random.pick(0..3) as usize / 2;
        let dead: Vec<_> = (first..first + count).map(|index| index % 3).collect();
        dead.iter().for_each(|index| nodes[*index].process.kill());
        kills += count;
        random.sleep(0..1_000);
        dead.iter().for_each(|index| nodes[*index].restart());
        random.sleep(0..1_500);
    }
    kills
}

#[test]
fn events_are_not_lost_repeated_or_reordered_while_nodes_are_killed() {
    let _machine = MACHINE.write().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut fleet = Fleet::start_alone("");
    let port = fleet.nginx.port;
    let (connected, started, ended) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let all_have = |count: &AtomicUsize| {
        let deadline = Instant::now() + 3 * TIMEOUT;
        while count.load(Ordering::SeqCst) < CLIENTS {
            assert!(Instant::now() < deadline, "{count:?} of {CLIENTS}");
            thread::sleep(Duration::from_millis(10));
        }
    };
    let (heard, said, kills) = thread::scope(|scope| {
        let (connected, started, ended) = (&connected, &started, &ended);
        let small = || thread::Builder::new().stack_size(128 * 1024);
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| small().spawn_scoped(scope, move || listen(port, number, connected, started)).unwrap())
            .collect();
        // A client can only resume if it has the id of an event.
        all_have(connected);
        assert_eq!(try_post(port, "/publish", "start").unwrap().status, 200);
        all_have(started);
        let publishers: Vec<_> =
            (0..PUBLISHERS).map(|number| scope.spawn(move || speak(port, number, ended))).collect();
        let kills = kill_at_random(&mut fleet.nodes, Instant::now() + duration());
        ended.store(true, Ordering::SeqCst);
        let said: Vec<_> = publishers.into_iter().map(|publisher| publisher.join().unwrap()).collect();
        let is_said =
            (0..10).any(|n| try_post(port, "/publish", &format!("end {n}")).is_ok_and(|answer| answer.status == 200));
        assert!(is_said, "the last event is acknowledged after all nodes have restarted");
        let heard: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
        (heard, said, kills)
    });

    let events = &heard[0].events;
    let acknowledged: usize = said.iter().map(|said| said.acknowledged.len()).sum();
    println!(
        "{} events, {acknowledged} acknowledged and {} not; {} deliveries; {kills} kills; {} reconnections",
        events.len(),
        said.iter().map(|said| said.unknown).sum::<usize>(),
        heard.iter().map(|heard| heard.events.len()).sum::<usize>(),
        heard.iter().map(|heard| heard.reconnections).sum::<usize>(),
    );
    assert_eq!(heard.iter().map(|heard| heard.gaps).sum::<usize>(), 0, "gaps");
    for other in &heard {
        assert!(
            other.events == *events,
            "all clients receive the same events in the same order: {:?}",
            differences(events, &other.events)
        );
    }
    let id = |text: &str| {
        text.split_once('-')
            .map(|(ms, n)| (ms.parse::<u64>().unwrap(), n.parse::<u64>().unwrap()))
    };
    assert!(events.windows(2).all(|pair| id(&pair[0].0) < id(&pair[1].0)), "ids rise");
    let texts: HashSet<_> = events.iter().map(|(_, text)| text).collect();
    assert_eq!(texts.len(), events.len(), "no event has two ids");
    let by_id: HashMap<_, _> = events.iter().map(|(id, text)| (id, text)).collect();
    for (id, text) in said.iter().flat_map(|said| &said.acknowledged) {
        assert_eq!(by_id.get(id), Some(&text), "an acknowledged event is received");
    }
    assert!(kills > 0 && acknowledged > 0);
}

/// Returns the events that only one of the clients has received.
fn differences<'a>(a: &'a [(String, String)], b: &'a [(String, String)]) -> Vec<&'a (String, String)> {
    let missing = a.iter().filter(|event| !b.contains(event));
    missing.chain(b.iter().filter(|event| !a.contains(event))).collect()
}
