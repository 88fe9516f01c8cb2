//! Two pods behind one node, under programs and maps of their own.

use super::*;

/// Where this version's pins lie.
pub(crate) fn version(pin_dir: &Path) -> PathBuf {
    pin_dir.join(format!("v{}", np_common::ABI_VERSION))
}

/// Two pods behind one node, which routes between them.
pub(crate) struct Rig {
    pub(crate) mechanism: Mechanism,
    pub(crate) pin_dir: PathBuf,
    pub(crate) a: Pod,
    pub(crate) b: Pod,
}

pub(crate) struct Pod {
    pub(crate) netns: Netns,
    pub(crate) id: EndpointId,
    pub(crate) ifindex: IfIndex,
    pub(crate) address: String,
    pub(crate) open: UdpSocket,
    pub(crate) closed: UdpSocket,
}

/// A test of what holds however programs get to devices: once for each way this kernel has.
pub(crate) fn by_each_mechanism(test: fn(&Path, Mechanism) -> anyhow::Result<()>) {
    for mechanism in mechanisms() {
        println!("by {}", mechanism.name());
        sandbox(move |pin_dir| test(pin_dir, mechanism));
    }
}

/// A test of links. A kernel without them has nothing to test, and must be one from before 6.6.
pub(crate) fn by_links(test: fn(&Path) -> anyhow::Result<()>) {
    if mechanisms().contains(&Mechanism::Tcx) {
        return sandbox(test);
    }
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    let mut numbers = release.split('.').map_while(|number| number.parse::<u32>().ok());
    assert!((numbers.next(), numbers.next()) < (Some(6), Some(6)), "{release} lacks TCX");
    println!("Linux {} has no TCX: nothing to test", release.trim());
}

pub(crate) fn mechanisms() -> Vec<Mechanism> {
    match Mechanism::of_kernel().expect("the kernel can be asked") {
        Mechanism::Tcx => vec![Mechanism::Tcx, Mechanism::Clsact],
        Mechanism::Clsact => vec![Mechanism::Clsact],
    }
}

impl Rig {
    pub(crate) fn new(pin_dir: &Path, mechanism: Mechanism) -> anyhow::Result<Self> {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
        let (a, b) = (Pod::new("a", 1)?, Pod::new("b", 2)?);
        let rig = Self { mechanism, pin_dir: pin_dir.to_owned(), a, b };
        ensure!(rig.reaches(OPEN)? && rig.reaches(CLOSED)?, "the network works without policy");
        Ok(rig)
    }

    pub(crate) fn open(&self) -> anyhow::Result<Opened> {
        let mechanism = Some(self.mechanism);
        Ok(dataplane::open(&Options { pin_dir: self.pin_dir.clone(), mechanism })?)
    }

    /// As an agent of another version.
    pub(crate) fn open_version(&self, abi: u32) -> anyhow::Result<Opened> {
        let mechanism = Some(self.mechanism);
        let options = Options { pin_dir: self.pin_dir.clone(), mechanism };
        Ok(dataplane::open_version(&options, abi)?)
    }

    /// Pod b is isolated for ingress but for UDP port OPEN. Returns what the maps then hold.
    pub(crate) fn enforce(&self, opened: &mut Opened) -> anyhow::Result<Tables> {
        let tables = self.plan(opened, 1)?;
        self.attach(opened)?;
        ensure!(opened.maps.tables()? == tables);
        Ok(tables)
    }

    /// Writes the policy, under a generation.
    pub(crate) fn plan(&self, opened: &mut Opened, generation: u32) -> anyhow::Result<Tables> {
        let rule_set = RuleSetId::new(1);
        let ports = PortPrefix::ports(UDP, OPEN, 16);
        let mut ops = vec![
            Op::SetConfig(Config::new(generation, false)),
            Op::SetRule(RulePrefix { rule_set, class: ClassId::NONE, ports }),
        ];
        for pod in [&self.a, &self.b] {
            let addr = Addr::from(pod.addr(0).ip());
            ops.push(Op::Bind(pod.id, [addr, Addr::UNSPECIFIED], 0));
            let isolated = (pod.id == self.b.id).then_some(rule_set);
            ops.push(Op::SetPolicy(pod.id, PolicyWord::new(isolated, None)));
            ops.push(Op::SetLocal(addr, pod.id));
            ops.push(Op::SetIface(Iface::new(pod.ifindex.0, Role::Pod, pod.id)));
        }
        let mut tables = opened.tables.clone();
        for op in ops {
            opened.maps.apply(&op)?;
            op.apply(&mut tables);
        }
        Ok(tables)
    }

    pub(crate) fn attach(&self, opened: &mut Opened) -> anyhow::Result<()> {
        for pod in [&self.a, &self.b] {
            opened.attacher.attach(pod.ifindex, Side::Pod)?;
        }
        Ok(())
    }

    /// Whether a datagram of pod a, from a new port each time, comes to a port of pod b.
    pub(crate) fn reaches(&self, port: u16) -> anyhow::Result<bool> {
        let to = if port == OPEN { &self.b.open } else { &self.b.closed };
        self.b.received(to)?;
        self.a.socket(0)?.send_to(b"hello", self.b.addr(port))?;
        Ok(self.b.received(to)? == 1)
    }

    pub(crate) fn expect_policy(&self) -> anyhow::Result<()> {
        ensure!(self.reaches(OPEN)?, "the open port is closed");
        ensure!(!self.reaches(CLOSED)?, "the closed port is open");
        Ok(())
    }

    /// The ids of the pinned links, in order; filters have none.
    pub(crate) fn pins(&self) -> anyhow::Result<Vec<u32>> {
        let mut ids = Vec::new();
        if self.mechanism == Mechanism::Clsact {
            return Ok(ids);
        }
        for pod in [&self.a, &self.b] {
            for side in ["ingress", "egress"] {
                let name = format!("{}-{side}", pod.ifindex.0);
                let link = bpf::open_pin(&version(&self.pin_dir).join("links").join(name))?;
                ids.push(bpf::link_ids(&link)?.0);
            }
        }
        Ok(ids)
    }

    /// The ids of our programs at the pods' devices, in order.
    pub(crate) fn program_ids(&self, opened: &Opened) -> anyhow::Result<Vec<u32>> {
        let mut ids = Vec::new();
        for pod in [&self.a, &self.b] {
            for chain in opened.attacher.order(pod.ifindex)? {
                let ours = chain.ours.with_context(|| format!("{chain:?}"))?;
                ids.push(chain.programs[ours]);
            }
        }
        Ok(ids)
    }
}

impl Pod {
    pub(crate) fn new(name: &str, number: u16) -> anyhow::Result<Self> {
        let netns = Netns::new()?;
        let (host, path) = (format!("{name}-host"), netns.path());
        let path = path.display();
        ip(&format!("link add {host} type veth peer name eth0 netns {path}"))?;
        ip(&format!("address add 10.0.{number}.1/24 dev {host}"))?;
        ip(&format!("link set {host} up"))?;
        let address = format!("10.0.{number}.2");
        let inside = address.clone();
        let (open, closed) = netns.run(move || {
            ip(&format!("address add {inside}/24 dev eth0"))?;
            ip("link set eth0 up")?;
            ip(&format!("route add default via 10.0.{number}.1"))?;
            Ok((bind(&inside, OPEN)?, bind(&inside, CLOSED)?))
        })?;
        let (id, ifindex) = (EndpointId::new(number), ifindex(&host)?);
        Ok(Self { netns, id, ifindex, address, open, closed })
    }

    pub(crate) fn addr(&self, port: u16) -> SocketAddr {
        format!("{}:{port}", self.address).parse().expect("a valid address")
    }

    pub(crate) fn socket(&self, port: u16) -> anyhow::Result<UdpSocket> {
        let address = self.address.clone();
        self.netns.run(move || bind(&address, port))
    }

    /// How many datagrams a socket has got, waiting a little for the first.
    pub(crate) fn received(&self, socket: &UdpSocket) -> anyhow::Result<u64> {
        let mut received = 0;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        loop {
            match socket.recv(&mut [0; 64]) {
                Ok(_) => received += 1,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                // The machine was stopped and went on.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
            socket.set_read_timeout(Some(Duration::from_millis(1)))?;
        }
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok(received)
    }
}

pub(crate) fn bind(address: &str, port: u16) -> anyhow::Result<UdpSocket> {
    let socket = np_tests::sockets::udp((address, port))?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    Ok(socket)
}
