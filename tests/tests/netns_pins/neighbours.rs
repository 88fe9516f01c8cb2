//! What a look at a device finds: programs that are gone, exchanged or hidden, and neighbours that
//! can hide a packet from ours or write over our tag.

use np_agent::dataplane::Checked;
use np_tests::matrix;

use super::*;

#[test]
fn a_program_that_is_gone_or_exchanged_is_put_back_and_reported() {
    let row = matrix::row("Life", "a program taken off a device, or exchanged for another");
    by_each_mechanism(|pin_dir, mechanism| {
        let rig = Rig::new(pin_dir, mechanism)?;
        let mut opened = rig.open()?;
        rig.enforce(&mut opened)?;
        let device = rig.b.ifindex;
        let nothing = opened.attacher.check(device, Side::Pod)?;
        ensure!(nothing == Checked::default(), "{nothing:?}");

        match mechanism {
            Mechanism::Tcx => {
                let pin = format!("links/{}-egress", device.0);
                std::fs::remove_file(version(pin_dir).join(pin))?;
            }
            Mechanism::Clsact => {
                command("tc filter delete dev b-host egress prio 1 handle 0x6e70 bpf").map(drop)?;
            }
        }
        // The kernel frees a link behind a grace period.
        let deadline = Instant::now() + Duration::from_secs(10);
        while !rig.reaches(CLOSED)? {
            ensure!(Instant::now() < deadline, "it still filters");
        }
        let Checked { repaired, .. } = opened.attacher.check(device, Side::Pod)?;
        ensure!(repaired == ["egress: to_pod was not there any more"], "{repaired:?}");
        rig.expect_policy()?;

        // A second build of the programs, as another agent with the same pins would bring.
        let mut other = rig.open()?;
        other.attacher.attach(device, Side::Pod)?;
        let Checked { repaired, .. } = opened.attacher.check(device, Side::Pod)?;
        ensure!(repaired.len() == 2, "{repaired:?}");
        ensure!(repaired.iter().all(|text| text.contains("in the place of")), "{repaired:?}");
        rig.expect_policy()
    });
    row.holds();
}

#[test]
fn a_program_in_front_of_ours_makes_way() {
    by_links(|pin_dir| {
        let rig = Rig::new(pin_dir, Mechanism::Tcx)?;
        let mut opened = rig.open()?;
        rig.enforce(&mut opened)?;
        let device = rig.b.ifindex;
        let accepts = bpf::load("accepts", &bpf::returns(0))?;
        let id = bpf::program_id(&accepts)?;
        let _link = bpf::attach(&accepts, device.0, TestSide::Egress, Place::First)?;
        ensure!(rig.reaches(CLOSED)?, "its OK hides packets");
        let Checked { repaired, findings } = opened.attacher.check(device, Side::Pod)?;
        let [repaired] = repaired.as_slice() else { anyhow::bail!("{repaired:?}") };
        for part in ["egress", &format!("program {id}"), "accepts", "in front of to_pod"] {
            ensure!(repaired.contains(part), "{part}: {repaired}");
        }
        ensure!(findings.is_empty(), "behind ours on the way out it harms nothing: {findings:?}");
        ensure!(opened.attacher.order(device)?[1].ours == Some(0));
        rig.expect_policy()?;
        // The link that has gone in front is pinned like the one before it.
        drop(opened);
        rig.expect_policy()
    });
}

/// On the way in, a program that ends with OK behind ours writes over the tag.
#[test]
fn a_filter_behind_ours_counts_only_where_it_can_write_over_the_tag() {
    by_each_mechanism(|pin_dir, mechanism| {
        let rig = Rig::new(pin_dir, mechanism)?;
        let mut opened = rig.open()?;
        rig.enforce(&mut opened)?;
        let device = rig.b.ifindex;
        if mechanism == Mechanism::Tcx {
            command("tc qdisc add dev b-host clsact")?;
        }
        let accepts = bpf::load("accepts", &bpf::returns(0))?;
        let pin = pin_dir.with_file_name("accepts");
        bpf::pin(&accepts, &pin)?;
        let program = format!("bpf da object-pinned {}", pin.display());
        let any = "protocol all u32 match u32 0 0";
        for (side, filter, harms) in [
            ("ingress", program.clone(), true),
            ("egress", program, false),
            ("ingress", format!("{any} flowid :7"), true),
            ("ingress", format!("{any} action mirred egress mirror dev a-host"), false),
            ("ingress", format!("{any} action mirred egress redirect dev a-host"), false),
        ] {
            command(&format!("tc filter add dev b-host {side} pref 5 {filter}"))?;
            let Checked { repaired, findings } = opened.attacher.check(device, Side::Pod)?;
            ensure!(repaired.is_empty(), "{filter}: {repaired:?}");
            ensure!(findings.iter().any(|found| found.blocking) == harms, "{filter}: {findings:?}");
            for found in findings {
                for part in ["ingress", "pref 5", "tc_index", "tc filter del"] {
                    ensure!(found.text.contains(part), "{part}: {}", found.text);
                }
            }
            command(&format!("tc filter delete dev b-host {side} pref 5"))?;
        }
        Ok(())
    });
}

#[test]
fn a_program_behind_ours_is_worth_a_look_and_no_more() {
    by_links(|pin_dir| {
        let rig = Rig::new(pin_dir, Mechanism::Tcx)?;
        let mut opened = rig.open()?;
        rig.enforce(&mut opened)?;
        let device = rig.b.ifindex;
        let other = bpf::load("other", &bpf::returns(0))?;
        let _link = bpf::attach(&other, device.0, TestSide::Ingress, Place::Last)?;
        let Checked { repaired, findings } = opened.attacher.check(device, Side::Pod)?;
        ensure!(repaired.is_empty(), "{repaired:?}");
        let [found] = findings.as_slice() else { anyhow::bail!("{findings:?}") };
        ensure!(!found.blocking && found.text.contains("(other)"), "{found:?}");
        Ok(())
    });
}

#[test]
fn a_filter_of_the_first_priority_in_front_of_ours_is_named() {
    sandbox(|pin_dir| {
        let rig = Rig::new(pin_dir, Mechanism::Clsact)?;
        let mut opened = rig.open()?;
        rig.enforce(&mut opened)?;
        let accepts = bpf::load("accepts", &bpf::returns(0))?;
        let pin = pin_dir.with_file_name("accepts");
        bpf::pin(&accepts, &pin)?;
        let object = pin.display();
        command(&format!("tc filter add dev b-host egress pref 1 bpf da object-pinned {object}"))?;
        ensure!(rig.reaches(CLOSED)?, "its OK hides packets");
        let checked = opened.attacher.check(rig.b.ifindex, Side::Pod)?;
        let [found] = checked.findings.as_slice() else { anyhow::bail!("{checked:?}") };
        ensure!(found.blocking, "{found:?}");
        for part in ["egress", "pref 1", "in front of", "higher pref"] {
            ensure!(found.text.contains(part), "{part}: {}", found.text);
        }
        Ok(())
    });
}

/// Two agents' programs would write over each other's tags.
#[test]
fn an_agent_refuses_to_run_next_to_anothers_programs() {
    let row = matrix::row("Life", "a second agent next to the first one's programs");
    by_links(|pin_dir| {
        let rig = Rig::new(pin_dir, Mechanism::Tcx)?;
        let mut first = rig.open()?;
        rig.enforce(&mut first)?;
        drop(first);
        let beside = pin_dir.with_file_name("np-agent-2");
        let options = Options { pin_dir: beside.clone(), mechanism: None };
        let error = dataplane::open(&options).expect_err("the first one's programs are there");
        ensure!(matches!(error, DataplaneError::Rival { .. }), "{error}");
        let error = error.to_string();
        let pin = format!("{}/v", pin_dir.display());
        for part in ["a-host", "pod (program", &pin, "np-agent cleanup", "--pin-dir"] {
            ensure!(error.contains(part), "{part}: {error}");
        }
        ensure!(!beside.exists(), "it leaves no pins");
        rig.expect_policy()?;
        dataplane::cleanup(pin_dir)?;
        drop(dataplane::open(&options).context("the remedy works")?);
        Ok(())
    });
    row.holds();
}

#[test]
fn one_agent_at_a_time_holds_a_network_namespace() {
    sandbox(|_| {
        let held = NamespaceLock::take()?;
        let error = NamespaceLock::take().expect_err("it is held");
        let own = std::process::id() as i32;
        ensure!(matches!(error, DataplaneError::Running { pid } if pid == own), "{error}");
        let elsewhere = Netns::new()?.run(|| Ok(NamespaceLock::take()?));
        drop(elsewhere.context("another namespace is another's")?);
        drop(held);
        drop(NamespaceLock::take().context("it was let go")?);
        Ok(())
    });
}
