//! Before TCX the programs need a clsact qdisc, and an ingress qdisc can be in its place.

use np_tests::matrix;

use super::*;

/// What the CNI plugin `bandwidth` makes for a pod whose traffic it limits.
const INGRESS: &str = "tc qdisc add dev b-host ingress";

/// An ingress qdisc takes both filters into its one block, where one replaces the other.
#[test]
fn an_ingress_qdisc_in_the_place_of_clsact_is_refused_and_gets_no_program() {
    sandbox(|pin_dir| {
        let rig = Rig::new(pin_dir, Mechanism::Clsact)?;
        command(INGRESS)?;
        let mut opened = rig.open()?;
        rig.plan(&mut opened, 1)?;
        let error = opened.attacher.attach(rig.b.ifindex, Side::Pod).expect_err("no clsact");
        ensure!(matches!(&error, AttachError::Qdisc { kind, .. } if kind == "ingress"), "{error}");
        let error = error.to_string();
        for part in ["ingress qdisc", "needs clsact", "`bandwidth`", "Linux 6.6"] {
            ensure!(error.contains(part), "{part}: {error}");
        }
        let filters = command("tc filter show dev b-host ingress")?;
        ensure!(!filters.contains("np-agent"), "{filters}");
        ensure!(opened.attacher.check(rig.b.ifindex, Side::Pod).is_err());

        command("tc qdisc delete dev b-host ingress")?;
        rig.attach(&mut opened)?;
        rig.expect_policy()
    });
}

#[test]
fn a_deleted_qdisc_is_made_again_and_one_that_was_exchanged_is_named() {
    let row = matrix::row("Life", "the clsact qdisc deleted, or exchanged for ingress");
    sandbox(|pin_dir| {
        let rig = Rig::new(pin_dir, Mechanism::Clsact)?;
        let mut opened = rig.open()?;
        rig.enforce(&mut opened)?;
        let device = rig.b.ifindex;
        let checked = opened.attacher.check(device, Side::Pod)?;
        ensure!(checked == Default::default(), "{checked:?}");

        command("tc qdisc delete dev b-host clsact")?;
        ensure!(rig.reaches(CLOSED)?, "without the qdisc there is no policy");
        let checked = opened.attacher.check(device, Side::Pod)?;
        ensure!(checked.repaired.len() == 2, "{checked:?}");
        rig.expect_policy()?;

        command("tc qdisc delete dev b-host clsact")?;
        command(INGRESS)?;
        let error = opened.attacher.check(device, Side::Pod).expect_err("no clsact");
        ensure!(matches!(error, AttachError::Qdisc { .. }), "{error}");
        Ok(())
    });
    row.holds();
}

/// Where there are links, a pod whose traffic is limited is policed as any other.
#[test]
fn with_links_an_ingress_qdisc_is_no_obstacle() {
    by_links(|pin_dir| {
        let rig = Rig::new(pin_dir, Mechanism::Tcx)?;
        command(INGRESS)?;
        let mut opened = rig.open()?;
        rig.enforce(&mut opened)?;
        rig.expect_policy()?;
        let redirect = "action mirred egress redirect dev a-host";
        let limit = "protocol all prio 1 u32 match u32 0 0";
        command(&format!("tc filter add dev b-host parent ffff: {limit} {redirect}"))?;
        let checked = opened.attacher.check(rig.b.ifindex, Side::Pod)?;
        ensure!(checked == Default::default(), "{checked:?}");
        Ok(())
    });
}
