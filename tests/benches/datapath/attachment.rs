//! How long it takes to put programs on a device and to put others in their place.

use std::time::Instant;

use np_agent::dataplane::{self, Options, Side};
use np_tests::sandbox::{ifindex, ip, sandbox};

use crate::{Figure, median, quantile};

const PODS: usize = 30;

pub fn measure() -> anyhow::Result<()> {
    println!("\nboth programs on a pod's device, in milliseconds");
    sandbox(|pin_dir| {
        let options = Options { pin_dir: pin_dir.to_owned(), mechanism: None };
        for pod in 0..PODS {
            ip(&format!("link add name d{pod} type veth peer name p{pod}"))?;
        }
        let devices: Vec<_> =
            (0..PODS).map(|pod| ifindex(&format!("d{pod}"))).collect::<Result<_, _>>()?;
        let mut opened = dataplane::open(&options)?;
        let burst = Instant::now();
        let mut each = Vec::new();
        for device in &devices {
            let start = Instant::now();
            opened.attacher.attach(*device, Side::Pod)?;
            each.push(start.elapsed().as_secs_f64() * 1e3);
        }
        let burst = burst.elapsed().as_secs_f64() * 1e3;
        // A new agent puts its programs in the place of these, by one update of each link.
        drop(opened);
        let start = Instant::now();
        let mut opened = dataplane::open(&options)?;
        for device in &devices {
            opened.attacher.attach(*device, Side::Pod)?;
        }
        let swap = start.elapsed().as_secs_f64() * 1e3;
        let (p50, p99) = (median(&mut each.clone()), quantile(&mut each, 0.99));
        println!("  one device: p50 {p50:.1}, p99 {p99:.1}; a burst of {PODS}: {burst:.1}");
        println!("  programs of {PODS} devices replaced, maps adopted: {swap:.1}");
        for (variant, value) in
            [("one device, p50", p50), ("one device, p99", p99), ("burst", burst), ("swap", swap)]
        {
            let (measure, variant) = ("attachment".to_owned(), variant.to_owned());
            Figure { measure, variant, rules: PODS, value, unit: "ms" }.tell();
        }
        Ok(())
    });
    Ok(())
}
