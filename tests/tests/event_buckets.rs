//! How much the programs tell: never more than an endpoint's share, and never less because of another.

use std::collections::BTreeMap;

use np_common::endpoint::EndpointId;
use np_common::event::{BURST, Bucket, RATE, bucket_of};
use np_tests::property::runner;
use proptest::collection::vec;
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;

/// Packets: who sends to whom, and the nanoseconds since the one before.
type Packets = Vec<(u16, u16, u64)>;

/// The buckets as the programs keep them.
#[derive(Default)]
struct Buckets(BTreeMap<u32, u64>);

impl Buckets {
    fn take(&mut self, source: u16, destination: u16, now: u64) -> bool {
        let bucket = bucket_of(EndpointId::new(source), EndpointId::new(destination));
        let full = self.0.entry(bucket).or_default();
        let next = Bucket::take(*full, now);
        *full = next.unwrap_or(*full);
        next.is_some()
    }
}

fn packets() -> impl Strategy<Value = Packets> {
    let pause = prop_oneof![
        8 => 0..1000u64,
        4 => 0..SECOND / RATE * 2,
        1 => 0..SECOND * 5,
    ];
    vec((0..4u16, 0..4u16, pause), 1..400)
}

/// For each bucket, the times at which it gave a token.
fn taken(packets: &Packets) -> BTreeMap<u32, Vec<u64>> {
    let (mut buckets, mut now) = (Buckets::default(), 7 * SECOND);
    let mut taken: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for (source, destination, pause) in packets {
        now += pause;
        let bucket = bucket_of(EndpointId::new(*source), EndpointId::new(*destination));
        let times = taken.entry(bucket).or_default();
        if buckets.take(*source, *destination, now) {
            times.push(now);
        }
    }
    taken
}

#[test]
fn in_any_stretch_of_time_a_bucket_gives_at_most_its_burst_and_its_rate() {
    let property = |packets: Packets| {
        for (bucket, times) in taken(&packets) {
            for (first, start) in times.iter().enumerate() {
                for (last, end) in times.iter().enumerate().skip(first) {
                    let events = (last - first + 1) as u64;
                    let most = BURST + (end - start) * RATE / SECOND;
                    prop_assert!(events <= most, "bucket {bucket}: {events} of {most}");
                }
            }
        }
        Ok(())
    };
    runner("burst and rate", 300).run(&packets(), property).unwrap();
}

#[test]
fn what_one_endpoint_gets_does_not_depend_on_the_others() {
    let property = |packets: Packets| {
        let all = taken(&packets);
        for (bucket, times) in &all {
            // The same packets at the same times, without anybody else's.
            let (mut buckets, mut now, mut alone) = (Buckets::default(), 7 * SECOND, Vec::new());
            for (source, destination, pause) in &packets {
                now += pause;
                let id = EndpointId::new;
                if bucket_of(id(*source), id(*destination)) == *bucket
                    && buckets.take(*source, *destination, now)
                {
                    alone.push(now);
                }
            }
            prop_assert_eq!(times, &alone);
        }
        Ok(())
    };
    runner("fair", 300).run(&packets(), property).unwrap();
}

/// A flood from one pod, or from outside to one pod, and one packet of another pod.
#[test]
fn a_flood_silences_nobody_else() {
    for (source, destination) in [(1, 2), (1, 0), (0, 2), (0, 0)] {
        let (mut buckets, now) = (Buckets::default(), 7 * SECOND);
        let told = (0..10_000).filter(|_| buckets.take(source, destination, now)).count() as u64;
        assert_eq!(told, BURST);
        assert!(buckets.take(3, 2, now), "what 3 sends, while {source} floods {destination}");
        assert!(buckets.take(2, 1, now), "what 2 sends, while {source} floods {destination}");
        assert!(buckets.take(0, 3, now), "what 3 gets, while {source} floods {destination}");
    }
}
