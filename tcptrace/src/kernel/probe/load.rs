//! Loading the programs, and attaching what the kernel allows.

use std::fs;
use std::hash::RandomState;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::thread;

use aya::programs::{BtfTracePoint, Iter, ProgramError, TracePoint};
use aya::{Btf, Ebpf, EbpfLoader, include_bytes_aligned};
use tcptrace_common::RINGS_OF_CPU;

use super::accepts::{self, Accepts};
use super::cpus::Cpus;
use super::decode::Decoder;
use super::layout::{GRAFT, KILL, Layout, Need, SCHEDULE};
use super::programs::{HOLDERS, LISTENING, program};
use super::ring::Reader;
use super::rings::{self, Plan};
use super::stand_in::StandIns;
use super::symbols::Symbols;
use super::{Options, ProbeError, kernel, tracefs, twsk};
use crate::kernel::are_all_visible;
use crate::model::accepts::Accepts as When;
use crate::model::feature::{Feature, Service, Tier};

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("CARGO_MANIFEST_DIR"), "/bpf/tcptrace.bpf.o"));

pub(super) struct Loaded {
    pub(super) reader: Reader,
    pub(super) services: Vec<(Feature, Service)>,
    /// When accepts are seen.
    pub(super) accepts: When,
}

/// A program on a tracepoint, with access to its arguments by type.
struct Hook {
    feature: Feature,
    /// Name of the tracepoint, and of the program.
    name: &'static str,
    need: Need,
    /// The program that stands in for it while it is interrupted.
    stand_in: Option<&'static str>,
}

impl Hook {
    const fn new(feature: Feature, name: &'static str, need: Need) -> Self {
        Self { feature, name, need, stand_in: None }
    }

    const fn with_stand_in(self, name: &'static str) -> Self {
        Self { stand_in: Some(name), ..self }
    }
}

/// Transitions come last: what depends on them is attached by then.
const HOOKS: &[Hook] = &[
    Hook::new(Feature::MiniCreated, "timer_start", Need::Mini),
    Hook::new(Feature::MiniExpired, "timer_expire_entry", Need::Mini),
    Hook::new(Feature::MiniKilled, "timer_cancel", Need::Mini),
    Hook::new(Feature::MiniFin, "kfree_skb", Need::Packet),
    Hook::new(Feature::ResetSent, "tcp_send_reset", Need::Socket),
    Hook::new(Feature::ResetReceived, "tcp_receive_reset", Need::Socket),
    Hook::new(Feature::Destroy, "tcp_destroy_sock", Need::Socket).with_stand_in("tcp_destroy_sock_stand_in"),
    Hook::new(Feature::Transitions, "inet_sock_set_state", Need::Socket).with_stand_in("inet_sock_set_state_stand_in"),
];

/// The classic tracepoint, the name of the program for it, and what it serves.
const CLASSIC: &[(Feature, &str, &str, &str)] = &[
    (Feature::Destroy, "tcp", "tcp_destroy_sock", "classic_tcp_destroy_sock"),
    (Feature::Transitions, "sock", "inet_sock_set_state", "classic_inet_sock_set_state"),
];

/// The tracepoints of the system calls whose failures are told, and the programs for them.
const FAILED_CALLS: [(&str, &[&str]); 6] = [
    ("bind_called", &["sys_enter_bind"]),
    ("bind_returned", &["sys_exit_bind"]),
    ("listen_called", &["sys_enter_listen"]),
    ("listen_returned", &["sys_exit_listen"]),
    ("accept_called", &["sys_enter_accept", "sys_enter_accept4"]),
    ("accept_returned", &accepts::TRACEPOINTS),
];

/// What is known of the kernel before loading.
struct Surroundings {
    btf: Result<(Btf, Layout), String>,
    symbols: Result<Symbols, String>,
    /// What to go without.
    without: Vec<Feature>,
}

/// Gathers facts about the kernel, in parallel: each takes a large part of the time until the first event.
fn look_around(options: &Options) -> (Surroundings, EbpfLoader<'static>) {
    thread::scope(|scope| {
        let symbols = scope.spawn(Symbols::read);
        // It also reads the kernel's BTF, which cannot be passed in.
        let loader = scope.spawn(EbpfLoader::new);
        let btf = read_btf(options);
        let symbols = symbols.join().unwrap_or_else(|_| Err("reading the kernel's symbols has failed".into()));
        let without = options.without.clone();
        (Surroundings { btf, symbols, without }, loader.join().unwrap_or_default())
    })
}

impl Surroundings {
    fn layout(&self) -> Option<&Layout> {
        self.btf.as_ref().ok().map(|(_, layout)| layout)
    }

    /// Why a feature is switched off, if it is.
    fn switched_off(&self, feature: Feature) -> Option<String> {
        self.without.contains(&feature).then(|| "switched off by --without".into())
    }

    /// Why a hook cannot work, if that is known beforehand.
    fn objection(&self, hook: &Hook) -> Option<String> {
        if let Some(reason) = self.switched_off(hook.feature) {
            return Some(reason);
        }
        let layout = match &self.btf {
            Ok((_, layout)) => layout,
            Err(reason) => return Some(reason.clone()),
        };
        if let Some(lack) = layout.lacks(Need::Socket).or_else(|| layout.lacks(hook.need)) {
            return Some(lack);
        }
        match hook.feature {
            Feature::MiniCreated | Feature::MiniExpired | Feature::MiniKilled | Feature::MiniFin
                if kernel::is_realtime() =>
            {
                Some("this is a PREEMPT_RT kernel, where tcptrace cannot be sure that a mini-socket was made".into())
            }
            Feature::MiniCreated | Feature::MiniExpired | Feature::MiniKilled => self.symbols.as_ref().err().cloned(),
            Feature::MiniFin if layout.lacks(Need::Mini).is_some() => layout.lacks(Need::Mini),
            Feature::MiniFin if layout.arguments("kfree_skb") < 4 => Some(
                "kfree_skb does not name the socket on this kernel (6.11 and newer do); tcptrace finds out afterwards"
                    .into(),
            ),
            _ => None,
        }
    }
}

fn read_btf(options: &Options) -> Result<(Btf, Layout), String> {
    if options.no_btf {
        return Err("switched off by --no-btf".into());
    }
    let raw = kernel::btf()?;
    let btf = Btf::parse(&raw, aya::Endianness::default())
        .map_err(|error| format!("cannot read the kernel's BTF: {error}"))?;
    let layout = Layout::from_btf(&raw).map_err(|error| format!("cannot read the kernel's BTF: {error}"))?;
    Ok((btf, layout))
}

pub(super) fn load(options: &Options) -> Result<Loaded, ProbeError> {
    if let Some(missing) = kernel::missing_capabilities() {
        return Err(ProbeError::NoTransitions {
            reason: format!("needs {missing}; run as root"),
            services: Vec::new(),
        });
    }
    let (around, loader) = look_around(options);
    let cpus = Cpus::find().map_err(|error| ProbeError::Map { name: rings::MAP, reason: error.to_string() })?;
    let mut ebpf = open(loader, options, &around, &cpus)?;
    let mut plan = Plan::new(options.ring_size(), &cpus);
    let rings = plan.carry_out(&mut ebpf)?;
    let mut services = Vec::new();
    let mut programs = Vec::new();
    let mut stand_ins = StandIns::default();
    let by_functions = attach_minis(&around, &mut ebpf, &mut programs);
    let left = HOOKS.iter().filter(|hook| by_functions.iter().all(|(feature, _)| *feature != hook.feature));
    for hook in left {
        services.push((hook.feature, serve(hook, &around, &mut ebpf, &mut programs, &mut stand_ins)));
    }
    services.extend(by_functions);
    follow_minis_or_not(&mut services, &mut ebpf, &mut programs);
    let mut accepts = Accepts::default();
    let (when, service) = serve_accept(options, &around, &mut ebpf, &mut programs, &mut accepts);
    services.push((Feature::Accept, service));
    // Not even named otherwise: to find out would take loading them.
    if options.failed_calls {
        services.push((Feature::FailedCalls, serve_failed_calls(&around, &mut ebpf, &mut programs)));
    }
    services.push((Feature::Holders, serve_holders(&around, &mut ebpf)));
    for classic in CLASSIC {
        fall_back(classic, options, &mut services, &mut ebpf, &mut programs);
    }
    services.sort_by_key(|(feature, _)| *feature as u8);
    if let Some((_, Service::Unavailable { reason })) =
        services.iter().find(|(feature, _)| *feature == Feature::Transitions)
    {
        return Err(ProbeError::NoTransitions { reason: reason.clone(), services });
    }
    let decoder = Decoder {
        own_pids: [kernel::own_pid(), 0],
        tick_ns: kernel::tick_ns(),
        minis_watched: is_attached(&services, Feature::MiniCreated),
        reset_reasons: around.layout().map(|layout| layout.reset_reasons.clone()).unwrap_or_default(),
        reuse: around.layout().and_then(|layout| layout.reuse),
        symbols: around.symbols.unwrap_or_default(),
        scrambler: RandomState::new(),
    };
    let can_scan = is_attached(&services, Feature::Holders);
    let reader = Reader::new(ebpf, (plan, rings), programs, stand_ins, accepts, decoder, can_scan)?;
    Ok(Loaded { reader, services, accepts: when })
}

/// What shows mini-sockets. One alone would tell of a TIME_WAIT that nobody sees end, or end one that nobody saw begin.
const MINIS: [Feature; 3] = [Feature::MiniCreated, Feature::MiniExpired, Feature::MiniKilled];

/// What the kernel's own functions for mini-sockets show.
const OF_FUNCTIONS: [Feature; 3] = [Feature::MiniCreated, Feature::MiniKilled, Feature::MiniFin];

/// Takes those hooks away where one of them is missing.
fn follow_minis_or_not(services: &mut [(Feature, Service)], ebpf: &mut Ebpf, programs: &mut Vec<RawFd>) {
    let Some(missing) = MINIS.into_iter().find(|feature| !is_attached(services, *feature)) else { return };
    let unloaded = twsk::unload(ebpf);
    let is_by_functions = !unloaded.is_empty();
    programs.retain(|fd| !unloaded.contains(fd));
    for (feature, service) in services.iter_mut().filter(|(_, service)| service.is_attached()) {
        let is_mini = MINIS.contains(feature);
        let is_unloaded = is_by_functions && OF_FUNCTIONS.contains(feature);
        if !is_mini && !is_unloaded {
            continue;
        }
        if !is_unloaded && let Some(hook) = HOOKS.iter().find(|hook| hook.feature == *feature) {
            match unload(hook, ebpf) {
                Ok(fd) => programs.retain(|other| *other != fd),
                Err(error) => log::warn!("cannot detach {}: {}", hook.name, kernel::explain(&error)),
            }
        }
        *service = Service::Unavailable { reason: format!("it is of no use without {}", missing.as_str()) };
    }
}

/// Detaches a hook. Returns the number of the descriptor that it had.
fn unload(hook: &Hook, ebpf: &mut Ebpf) -> Result<RawFd, ProgramError> {
    let hook: &mut BtfTracePoint = program(ebpf, hook.name)?;
    let fd = hook.fd()?.as_fd().as_raw_fd();
    hook.unload()?;
    Ok(fd)
}

fn is_attached(services: &[(Feature, Service)], feature: Feature) -> bool {
    services.iter().any(|(served, service)| *served == feature && service.is_attached())
}

fn open(
    loader: EbpfLoader<'static>,
    options: &Options,
    around: &Surroundings,
    cpus: &Cpus,
) -> Result<Ebpf, ProbeError> {
    let handler = around.symbols.as_ref().map_or(0, |symbols| symbols.timer_handler);
    let has_reason = u8::from(has_reset_reason(around.layout()));
    let mut loader: EbpfLoader<'_> = loader;
    loader.btf(around.btf.as_ref().ok().map(|(btf, _)| btf));
    loader.map_max_entries(rings::MAP, cpus.numbers() * RINGS_OF_CPU);
    let offsets = around.layout().map(|layout| layout.offsets.as_slice()).unwrap_or_default();
    for (symbol, offset) in offsets {
        loader.override_global(symbol, offset, true);
    }
    let filter = zerocopy::IntoBytes::as_bytes(&options.filter);
    loader.override_global("TW_TIMER_HANDLER", &handler, true);
    loader.override_global("RESET_HAS_REASON", &has_reason, true);
    loader.override_global("FILTER", filter, true);
    let loaded = match &options.object {
        None => loader.load(OBJECT),
        Some(path) => match fs::read(path) {
            Ok(bytes) => loader.load(&bytes),
            Err(error) => return Err(object_error(options, error.to_string())),
        },
    };
    loaded.map_err(|error| object_error(options, kernel::explain(&error)))
}

/// Since 6.10 `tcp_send_reset` gives a reason, and fires for mini-sockets too.
fn has_reset_reason(layout: Option<&Layout>) -> bool {
    layout.is_some_and(|layout| layout.arguments("tcp_send_reset") >= 3)
}

fn object_error(options: &Options, reason: String) -> ProbeError {
    let object = options.object.as_ref().map_or_else(|| "(built in)".into(), |path| path.display().to_string());
    ProbeError::Object { object, reason }
}

fn serve(
    hook: &Hook,
    around: &Surroundings,
    ebpf: &mut Ebpf,
    programs: &mut Vec<RawFd>,
    stand_ins: &mut StandIns,
) -> Service {
    if let Some(reason) = around.objection(hook) {
        return Service::Unavailable { reason };
    }
    let Ok((btf, _)) = &around.btf else { return Service::Unavailable { reason: "no BTF".into() } };
    match attach(hook, ebpf, btf, stand_ins) {
        Ok(fd) => {
            // This program runs for every packet that a firewall drops. If it misses the FIN that a connection waits
            // for, tcptrace reports the connection as on kernels without this hook: it claims nothing that it did not
            // see.
            if hook.feature != Feature::MiniFin {
                programs.push(fd);
            }
            Service::Attached { by: Tier::Btf, hook: format!("tp_btf/{}", hook.name) }
        }
        Err(error) => Service::Unavailable { reason: kernel::explain(&error) },
    }
}

fn attach(hook: &Hook, ebpf: &mut Ebpf, btf: &Btf, stand_ins: &mut StandIns) -> Result<RawFd, ProgramError> {
    program::<BtfTracePoint>(ebpf, hook.name)?.load(hook.name, btf)?;
    // Loaded first, and attached right after the other: in between, the other misses the events that interrupt it.
    let stand_in = hook.stand_in.filter(|name| can_load(ebpf, name, hook.name, btf));
    let first: &mut BtfTracePoint = program(ebpf, hook.name)?;
    first.attach()?;
    let fd = first.fd()?.as_fd().as_raw_fd();
    if let Some(name) = stand_in {
        stand_ins.attach(name, ebpf);
    }
    Ok(fd)
}

/// Shows mini-sockets by the kernel's own functions, which serves several features: all of them, or none.
fn attach_minis(around: &Surroundings, ebpf: &mut Ebpf, programs: &mut Vec<RawFd>) -> Vec<(Feature, Service)> {
    let objects = |hook: &Hook| MINIS.contains(&hook.feature) && around.objection(hook).is_some();
    if HOOKS.iter().any(objects) || around.switched_off(Feature::MiniFin).is_some() {
        return Vec::new();
    }
    let Ok((btf, layout)) = &around.btf else { return Vec::new() };
    match twsk::attach(ebpf, btf, layout) {
        Ok(fds) => {
            programs.extend(fds);
            let by = |name| Service::Attached { by: Tier::Btf, hook: format!("fentry/{name}") };
            vec![
                (Feature::MiniCreated, by(SCHEDULE)),
                (Feature::MiniKilled, by(KILL)),
                (Feature::MiniFin, by(SCHEDULE)),
            ]
        }
        Err(reason) => {
            log::debug!("cannot attach to the functions of mini-sockets: {reason}");
            Vec::new()
        }
    }
}

/// Loads a program that stands in for another. Without it, the other only misses more, which is counted. Whatever the
/// stand-in itself misses, the other has seen.
fn can_load(ebpf: &mut Ebpf, program_name: &str, tracepoint: &str, btf: &Btf) -> bool {
    let load = |program: &mut BtfTracePoint| program.load(tracepoint, btf);
    program(ebpf, program_name)
        .and_then(load)
        .inspect_err(|error| log::warn!("cannot load {program_name}: {}", kernel::explain(error)))
        .is_ok()
}

/// Why a hook that looks up descriptors cannot work.
fn objection_to_files(around: &Surroundings, feature: Feature) -> Option<String> {
    if let Some(reason) = around.switched_off(feature) {
        return Some(reason);
    }
    match &around.btf {
        Ok((_, layout)) => layout.lacks(Need::Socket).or_else(|| layout.lacks(Need::Files)),
        Err(reason) => Some(reason.clone()),
    }
}

/// Loads what looks at listening sockets, where accepts are seen as needed. Where that is not possible, or does not show
/// all processes, nothing tells when they are needed: then they are seen always.
fn serve_listeners(when: When, around: &Surroundings, ebpf: &mut Ebpf) -> When {
    if when != When::Auto {
        return when;
    }
    let (Ok((btf, _)), None) = (&around.btf, objection_to_files(around, Feature::Accept)) else {
        return When::Always;
    };
    let load = |program: &mut Iter| program.load("task_file", btf);
    match program(ebpf, LISTENING).and_then(load) {
        Ok(()) if are_all_visible() => When::Auto,
        Ok(()) => When::Always,
        Err(error) => {
            log::debug!("cannot look at listening sockets: {}", kernel::explain(&error));
            When::Always
        }
    }
}

/// Returns when accepts are seen, and by what.
fn serve_accept(
    options: &Options,
    around: &Surroundings,
    ebpf: &mut Ebpf,
    programs: &mut Vec<RawFd>,
    accepts: &mut Accepts,
) -> (When, Service) {
    if options.accepts == When::Never {
        return (When::Never, Service::Declined { reason: "left out by --accept never".into() });
    }
    let when = serve_listeners(options.accepts, around, ebpf);
    let service = serve_accept_function(when, around, ebpf, programs, accepts);
    (when, service.unwrap_or_else(|| serve_accept_calls(when, around, ebpf, programs, accepts)))
}

/// Shows accepts by a function that is called for nothing else; `None` where that cannot be attached. The return of
/// `inet_csk_accept` would not do: a program on it misses every process that waits in the function while any program is
/// attached to it or detached.
fn serve_accept_function(
    when: When,
    around: &Surroundings,
    ebpf: &mut Ebpf,
    programs: &mut Vec<RawFd>,
    accepts: &mut Accepts,
) -> Option<Service> {
    let (btf, layout) = around.btf.as_ref().ok()?;
    if around.switched_off(Feature::Accept).is_some() || layout.lacks(Need::Socket).is_some() {
        return None;
    }
    match accepts.come_by_function(ebpf, btf, layout) {
        Ok(fd) => programs.push(fd),
        Err(reason) => {
            log::debug!("cannot attach to {GRAFT}: {reason}");
            return None;
        }
    }
    if when == When::Auto {
        accepts.go(ebpf);
    }
    Some(accepts_shown(when, Tier::Btf, &format!("fentry/{GRAFT}")))
}

fn serve_accept_calls(
    when: When,
    around: &Surroundings,
    ebpf: &mut Ebpf,
    programs: &mut Vec<RawFd>,
    accepts: &mut Accepts,
) -> Service {
    if let Some(reason) = objection_to_files(around, Feature::Accept) {
        return Service::Unavailable { reason };
    }
    let loaded = Accepts::load_calls(ebpf).and_then(|fd| {
        programs.push(fd);
        if when == When::Always { accepts.come(ebpf) } else { Ok(()) }
    });
    match loaded {
        Ok(()) => accepts_shown(when, Tier::Classic, "tracepoint/syscalls/sys_exit_accept, …accept4"),
        Err(error) => Service::Unavailable { reason: kernel::explain(&error) },
    }
}

fn accepts_shown(when: When, by: Tier, hook: &str) -> Service {
    let if_needed = if when == When::Auto { ", while needed (--accept auto)" } else { "" };
    Service::Attached { by, hook: format!("{hook}{if_needed}") }
}

fn serve_failed_calls(around: &Surroundings, ebpf: &mut Ebpf, programs: &mut Vec<RawFd>) -> Service {
    if let Some(reason) = objection_to_files(around, Feature::FailedCalls) {
        return Service::Unavailable { reason };
    }
    for (program, tracepoints) in FAILED_CALLS {
        match attach_classic(ebpf, "syscalls", tracepoints, program) {
            Ok(fd) => programs.push(fd),
            Err(error) => return Service::Unavailable { reason: kernel::explain(&error) },
        }
    }
    Service::Attached {
        by: Tier::Classic,
        hook: "tracepoint/syscalls/sys_exit_bind, …listen, …accept, …accept4".into(),
    }
}

fn serve_holders(around: &Surroundings, ebpf: &mut Ebpf) -> Service {
    if let Some(reason) = objection_to_files(around, Feature::Holders) {
        return Service::Unavailable { reason };
    }
    let Ok((btf, _)) = &around.btf else { return Service::Unavailable { reason: "no BTF".into() } };
    let load = |program: &mut Iter| program.load("task_file", btf);
    match program(ebpf, HOLDERS).and_then(load) {
        // It walks through the caller's pid namespace (`task_seq_get_next` in `kernel/bpf/task_iter.c`).
        Ok(()) if !are_all_visible() => Service::Partly {
            hook: "iter/task_file".into(),
            missing: "but not those outside this pid namespace: run in the host's (--pid=host)".into(),
        },
        Ok(()) => Service::Attached { by: Tier::Iterator, hook: "iter/task_file".into() },
        Err(error) => Service::Unavailable { reason: kernel::explain(&error) },
    }
}

/// Serves a feature by its classic tracepoint where the better hook could not be had.
fn fall_back(
    &(feature, category, name, program): &(Feature, &str, &str, &str),
    options: &Options,
    services: &mut [(Feature, Service)],
    ebpf: &mut Ebpf,
    programs: &mut Vec<RawFd>,
) {
    // Sockets have no cookies here, and cannot be matched with those of hooks that know cookies.
    let transitions_by_btf = is_attached(services, Feature::Transitions);
    let Some((_, service)) = services.iter_mut().find(|(served, _)| *served == feature) else { return };
    let Service::Unavailable { reason } = service else { return };
    if transitions_by_btf {
        return;
    }
    if options.filter.netns != 0 {
        *reason = format!("{reason}; the classic tracepoint does not show the namespace that --netns asks for");
        return;
    }
    *service = match attach_classic(ebpf, category, &[name], program) {
        Ok(fd) => {
            programs.push(fd);
            Service::Attached { by: Tier::Classic, hook: format!("tracepoint/{category}/{name} ({reason})") }
        }
        Err(error) => Service::Unavailable { reason: format!("{reason}; {}", kernel::explain(&error)) },
    };
}

fn attach_classic(ebpf: &mut Ebpf, category: &str, names: &[&str], program_name: &str) -> Result<RawFd, ProgramError> {
    let program: &mut TracePoint = program(ebpf, program_name)?;
    program.load()?;
    for name in names {
        tracefs::with(|| program.attach(category, name))?;
    }
    Ok(program.fd()?.as_fd().as_raw_fd())
}
