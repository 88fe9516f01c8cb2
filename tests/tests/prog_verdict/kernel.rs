//! The side that is tested.

use super::*;

/// The side that is tested: the agent's maps and programs.
pub(crate) struct Kernel {
    pub(crate) maps: Maps,
    pub(crate) tables: Tables,
    pub(crate) counters: Counters,
    pub(crate) told: Told,
    pub(crate) flows: HashMap<MapData, FlowKey, Flow>,
    pub(crate) caller: OwnedFd,
    /// What the caller calls; the kernel empties it when nobody holds it open.
    pub(crate) _programs: OwnedFd,
    pub(crate) hz: u32,
    pub(crate) start: Instant,
    /// The kernel's time at `start`.
    pub(crate) ticks: u32,
}

impl Kernel {
    pub(crate) fn new(pin_dir: &Path) -> anyhow::Result<Self> {
        let opened = dataplane::open(&Options { pin_dir: pin_dir.to_owned(), mechanism: None })?;
        let Opened { maps, attacher, tables, events, reporting, .. } = opened;
        ensure!(tables == Tables::default(), "a fresh pin directory is empty");
        let programs = Hook::ALL.map(|hook| attacher.program(hook));
        let programs: Vec<&dyn AsFd> = programs.iter().map(|fd| fd as &dyn AsFd).collect();
        let programs = bpf::program_array(&programs)?;
        let caller = bpf::load("caller", &caller(&programs))?;

        let flows = MapData::from_pin(pin_dir.join(format!("v{ABI_VERSION}/maps/FLOWS")))?;
        let flows = HashMap::try_from(Map::LruHashMap(flows))?;
        let counters = maps.counters()?;
        let (start, ticks, hz) = (Instant::now(), 0, bpf::ticks_per_second()?);
        let told = Told::new(events);
        let _programs = programs;
        let mut kernel =
            Self { maps, tables, counters, told, flows, caller, _programs, hz, start, ticks };
        kernel.set_clock()?;
        ensure!(kernel.told.events.take().is_none(), "nothing was asked for");
        reporting.set(Report::All);
        Ok(kernel)
    }

    /// Reads the kernel's clock off a flow that a program records.
    pub(crate) fn set_clock(&mut self) -> anyhow::Result<()> {
        let mut tables = Tables::default();
        let id = EndpointId::new(1);
        tables.ifaces.insert(5, Iface::new(5, Role::Pod, id));
        let addrs = [addr("10.0.0.2").into(), Addr::UNSPECIFIED];
        tables.endpoints.insert(id, Endpoint::new(addrs, PolicyWord::OPEN, 0));
        self.change(&tables)?;
        let [a, b] = [addr("10.0.0.1"), addr("10.0.0.2")];
        let frame = Ip::new(a, b, UDP, wire::udp(1, 2)).frame();
        let tag = Tag::ENTERED;
        let case = Case { hook: Hook::ToPod, ifindex: 5, ingress_ifindex: 6, tag, frame };
        self.judge(&case, Pass::Verdict, &Verdict { reason: Reason::NotIsolated, tag })?;
        self.start = Instant::now();
        let keys: Vec<FlowKey> = self.flows.keys().collect::<Result<_, _>>()?;
        let [key] = keys[..] else { anyhow::bail!("one flow, not {keys:?}") };
        self.ticks = self.flows.get(&key, 0)?.seen;
        self.flows.remove(&key)?;
        Ok(())
    }

    pub(crate) fn now(&self) -> Time {
        let elapsed = self.start.elapsed().as_millis() as u64 * u64::from(self.hz) / 1000;
        let Time { now, hz } = Time::new(elapsed, self.hz);
        Time { now: self.ticks.wrapping_add(now), hz }
    }

    /// Brings the maps from what they hold to other tables, as the agent does.
    pub(crate) fn change(&mut self, desired: &Tables) -> anyhow::Result<()> {
        for op in diff(&self.tables, desired, &Scope::everything()) {
            self.maps.apply(&op)?;
            op.apply(&mut self.tables);
        }
        let actual = self.maps.tables()?;
        ensure!(actual == self.tables, "the maps hold\n{actual:#?}\nnot\n{:#?}", self.tables);
        Ok(())
    }

    /// Makes some flows look idle for about as long as they may be.
    pub(crate) fn plant(
        &mut self,
        random: &mut Random,
        flows: &mut BTreeMap<FlowKey, Flow>,
    ) -> anyhow::Result<()> {
        let Time { now, hz } = self.now();
        for (key, flow) in flows.iter_mut() {
            if !random.one_in(4) {
                continue;
            }
            let (state, timeout) = random.pick([
                (State::Opening, 120_u32),
                (State::Established, 5 * 24 * 3600),
                (State::Closing, 120),
                (State::Reset, 120),
                (State::Answered, 120),
                (State::Datagram, 180),
            ]);
            let idle = timeout + random.pick([0, 60]) - 30;
            let idle = Time::new(u64::from(idle) * u64::from(hz), hz).now;
            let then = Time { now: now.wrapping_sub(idle), hz };
            *flow = Flow::new(flow.generation, then, flow.source(), flow.destination(), state);
            self.flows.insert(key, *flow, 0)?;
        }
        Ok(())
    }

    pub(crate) fn judge(
        &mut self,
        case: &Case,
        pass: Pass,
        expected: &Verdict,
    ) -> anyhow::Result<()> {
        let cb = [u32::from(case.tag.bits()), case.hook as u32, 0, 0, 0];
        let Case { ifindex, ingress_ifindex, .. } = *case;
        let skb = SkBuff::new(ifindex, ingress_ifindex, cb);
        let repeat = if pass == Pass::Tag { 2 } else { 1 };
        let run = bpf::test_run(&self.caller, &case.frame, &skb, repeat).context("test run")?;

        let counters = self.maps.counters()?;
        let counted: Vec<_> =
            counters.since(&self.counters).iter().filter(|(_, _, packets)| *packets != 0).collect();
        self.counters = counters;
        ensure!(
            counted == [(case.hook, expected.reason, 1)],
            "the kernel counts {counted:?}, the host says {expected:?}"
        );
        match pass {
            Pass::Verdict => {
                let verdict = match expected.action() {
                    Action::Pass => TC_ACT_UNSPEC,
                    Action::Drop => TC_ACT_SHOT,
                };
                ensure!(run.verdict == verdict, "{:#x} for {expected:?}", run.verdict);
            }
            Pass::Tag => {
                let tag = run.skb.cb[3];
                ensure!(tag == u32::from(expected.tag.bits()), "tag {tag:#x}, not {expected:x?}");
            }
        }
        Ok(())
    }

    /// Both sides know the same flows; the ticks when they were seen may differ by a few.
    pub(crate) fn compare_flows(&self, expected: &BTreeMap<FlowKey, Flow>) -> anyhow::Result<()> {
        let actual: BTreeMap<FlowKey, Flow> = self.flows.iter().collect::<Result<_, _>>()?;
        for (key, flow) in expected {
            let found = actual.get(key).with_context(|| format!("{key:?} is not in the kernel"))?;
            let mut same = *flow;
            same.seen = found.seen;
            ensure!(
                same == *found && flow.seen.abs_diff(found.seen) < 3,
                "{key:?} is {found:?} in the kernel, {flow:?} on the host"
            );
        }
        ensure!(actual.len() == expected.len(), "the kernel knows more flows than the host");
        Ok(())
    }
}

pub(crate) fn caller(programs: &OwnedFd) -> Vec<u64> {
    const CB: i16 = 48;
    const TC_INDEX: i16 = 44;
    const LOAD: u8 = 0x61;
    const STORE: u8 = 0x63;
    const MOVE: u8 = 0xbf;
    const SET: u8 = 0xb7;
    const CALL: u8 = 0x85;
    const EXIT: u8 = 0x95;
    const TAIL_CALL: i32 = 12;
    vec![
        insn(MOVE, 6, 1, 0, 0),
        insn(LOAD, 2, 6, CB + 8, 0),
        insn(0x55, 2, 0, 11, 0), // if it is not 0: the second pass
        insn(SET, 2, 0, 0, 1),
        insn(STORE, 6, 2, CB + 8, 0),
        insn(LOAD, 2, 6, CB, 0),
        insn(STORE, 6, 2, TC_INDEX, 0),
        insn(LOAD, 3, 6, CB + 4, 0),
        insn(MOVE, 1, 6, 0, 0),
        insn(0x18, 2, 1, 0, programs.as_raw_fd()), // the map, in two instructions
        0,
        insn(CALL, 0, 0, 0, TAIL_CALL),
        insn(SET, 0, 0, 0, 0x7e), // no such program
        insn(EXIT, 0, 0, 0, 0),
        insn(LOAD, 2, 6, TC_INDEX, 0),
        insn(STORE, 6, 2, CB + 12, 0),
        insn(SET, 0, 0, 0, 0),
        insn(EXIT, 0, 0, 0, 0),
    ]
}
