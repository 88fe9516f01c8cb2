//! A node to look at: namespaces made and ended, and what the watcher says of their devices.

use super::*;

pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct Node {
    pub(crate) monitor: Monitor,
    pub(crate) devices: BTreeMap<IfIndex, Device>,
    pub(crate) log: Vec<DeviceChange>,
}

pub(crate) type Find<'a> = dyn Fn(&str) -> Option<&'a Device> + 'a;

/// Runs a test in a namespace of its own, which ends with it.
pub(crate) fn node(test: impl AsyncFnOnce(&mut Node) + Send + 'static) {
    in_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("needs root");
        in_runtime(test);
    });
}

pub(crate) fn in_thread(action: impl FnOnce() + Send + 'static) {
    thread::spawn(action).join().unwrap_or_else(|cause| panic::resume_unwind(cause));
}

pub(crate) fn in_runtime(test: impl AsyncFnOnce(&mut Node)) {
    runtime().block_on(async {
        let mut monitor = Monitor::open().expect("a monitor");
        let devices = monitor.devices().expect("devices");
        let devices = devices.into_iter().map(|device| (device.index, device)).collect();
        test(&mut Node { monitor, devices, log: Vec::new() }).await;
    });
}

pub(crate) fn runtime() -> runtime::Runtime {
    runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

impl Node {
    pub(crate) fn ip(&self, arguments: &str) {
        run("ip", arguments);
    }

    /// A device with a carrier and without a pod.
    pub(crate) fn uplink(&self, name: &str) {
        self.ip(&format!("link add {name} type veth peer name x-{name}"));
        self.ip(&format!("link set {name} addrgenmode none"));
        self.ip(&format!("link set {name} up"));
        self.ip(&format!("link set x-{name} up"));
    }

    /// The namespace, for `ip link set … netns`.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/task/{}/ns/net", process::id(), gettid())
    }

    pub(crate) fn device(&self, name: &str) -> &Device {
        find(&self.devices, name).unwrap_or_else(|| panic!("{name} in {:#?}", self.devices))
    }

    /// What is reported next; nothing when all is quiet for a moment.
    pub(crate) async fn take(&mut self) -> Vec<DeviceChange> {
        let next = time::timeout(Duration::from_millis(50), self.monitor.next()).await;
        let Ok(changes) = next else { return Vec::new() };
        let changes = changes.expect("no error");
        assert!(!changes.is_empty());
        for change in &changes {
            match change {
                DeviceChange::Gone(index) => {
                    assert!(self.devices.remove(index).is_some(), "{index:?} was never seen");
                }
                DeviceChange::Seen(device) => {
                    let before = self.devices.insert(device.index, device.clone());
                    assert_ne!(before.as_ref(), Some(device), "reported without a difference");
                }
            }
        }
        self.log.extend(changes.clone());
        changes
    }

    /// Waits out what the kernel tells late, carriers above all. Such an event would make up for
    /// one that was missed.
    pub(crate) async fn settle(&mut self) {
        let end = Instant::now() + Duration::from_millis(1500);
        while Instant::now() < end {
            self.take().await;
        }
    }

    pub(crate) async fn quiet(&mut self) {
        assert_eq!(self.take().await, []);
    }

    pub(crate) async fn until<T>(
        &mut self,
        what: &str,
        wanted: impl Fn(&Find<'_>) -> Option<T>,
    ) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = wanted(&|name: &str| find(&self.devices, name)) {
                return found;
            }
            assert!(Instant::now() < end, "no {what} in {:#?}", self.devices);
            self.take().await;
        }
    }

    pub(crate) async fn until_absent(&mut self, name: &str) {
        let absent = |d: &Find<'_>| d(name).is_none().then_some(());
        self.until(&format!("end of {name}"), absent).await;
    }

    pub(crate) async fn until_claims(&mut self, name: &str, wanted: &[&str]) {
        let what = format!("{name} with claims {wanted:?}");
        self.until(&what, |d| {
            let device = d(name).filter(|device| device.peer.is_some())?;
            (claims(device) == wanted).then_some(())
        })
        .await;
    }

    pub(crate) async fn until_host_routes(&mut self, name: &str, wanted: &[&str]) {
        let what = format!("{name} with host routes {wanted:?}");
        self.until(&what, |d| (hosts(d(name)?) == wanted).then_some(())).await;
    }

    pub(crate) async fn until_gateways(&mut self, wanted: &[&str]) {
        self.until(&format!("gateways behind {wanted:?} only"), |d| {
            let (up0, up1) = (d("up0")?, d("up1")?);
            let found = [up0, up1].into_iter().filter(|device| device.gateway);
            found.map(|device| device.name.as_str()).eq(wanted.iter().copied()).then_some(())
        })
        .await;
    }
}

pub(crate) fn find<'a>(devices: &'a BTreeMap<IfIndex, Device>, name: &str) -> Option<&'a Device> {
    devices.values().find(|device| device.name == name)
}

pub(crate) fn unpaired(device: &Device) -> bool {
    device.peer.is_none()
}

pub(crate) fn claims(device: &Device) -> Vec<String> {
    texts(&device.peer.as_ref().expect("a peer").claims)
}

pub(crate) fn hosts(device: &Device) -> Vec<String> {
    device.host_routes.iter().map(|route| route.to.to_string()).collect()
}

pub(crate) fn texts(addresses: &[IpAddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

// === Pods: namespaces held by a file descriptor ===

pub(crate) struct Pod(File);

impl Pod {
    pub(crate) fn new() -> Self {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).expect("needs root");
            File::open("/proc/thread-self/ns/net").expect("the new namespace")
        };
        Self(thread::spawn(make).join().expect("a namespace"))
    }

    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", process::id(), self.0.as_raw_fd())
    }

    pub(crate) fn ip(&self, arguments: &str) {
        self.within(|| run("ip", arguments));
    }

    pub(crate) fn index(&self, name: &str) -> u32 {
        self.within(|| nix::net::if_::if_nametoindex(name).expect("a device"))
    }

    pub(crate) fn within<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).expect("needs root");
                action()
            });
            inside.join().unwrap_or_else(|cause| panic::resume_unwind(cause))
        })
    }
}

/// Arguments of `ip` for a veth whose peer is eth0 in the pod.
pub(crate) fn veth(name: &str, pod: &Pod) -> String {
    format!("link add {name} type veth peer name eth0 netns {}", pod.path())
}

/// Makes pods for three seconds, keeping the last few, and says how many.
pub(crate) fn churn(node: String, first: u32, step: u32) -> JoinHandle<u32> {
    thread::spawn(move || {
        let node = File::open(node).expect("the node's namespace");
        setns(&node, CloneFlags::CLONE_NEWNET).expect("needs root");
        let end = Instant::now() + Duration::from_secs(3);
        let mut alive: VecDeque<(Pod, IpAddr)> = VecDeque::new();
        let mut made = 0;
        while Instant::now() < end {
            let number = first + made * step;
            let pod = Pod::new();
            run("ip", &veth(&format!("veth{number}"), &pod));
            let address = churn_address(number);
            pod.ip(&format!("addr add {address}/32 dev eth0"));
            alive.push_back((pod, address));
            if alive.len() > 2
                && let Some((old, address)) = alive.pop_front()
            {
                // An event in its last moment, so that it is read while it dies.
                old.ip(&format!("addr del {address}/32 dev eth0"));
            }
            made += 1;
        }
        made
    })
}

pub(crate) fn churn_address(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + number).into()
}

pub(crate) fn run(program: &str, arguments: &str) {
    let output = Command::new(program)
        .args(arguments.split(' '))
        .output()
        .expect("the program is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {said}");
}

pub(crate) fn ip_batch(lines: &str) {
    let mut child =
        Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().expect("ip starts");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(lines.as_bytes()).expect("ip reads");
    drop(input);
    assert!(child.wait().expect("ip ends").success(), "ip -batch: {lines:.200}");
}

/// Takes one of the first 32 capabilities from the calling thread.
pub(crate) fn drop_capability(capability: u32) {
    // Version 3 and the calling thread.
    let mut header = [0x2008_0522_u32, 0];
    // Effective, permitted, inheritable; then the same for capabilities from 32 on.
    let mut sets = [0u32; 6];
    // SAFETY: both arrays have the size and layout that version 3 means.
    let got = unsafe { libc::syscall(libc::SYS_capget, header.as_mut_ptr(), sets.as_mut_ptr()) };
    assert_eq!(got, 0);
    sets[0] &= !(1 << capability);
    // SAFETY: as above.
    let set = unsafe { libc::syscall(libc::SYS_capset, header.as_mut_ptr(), sets.as_ptr()) };
    assert_eq!(set, 0);
}
