//! A real migration over a shaped link, watched from both ends, alone or beside others.
//!
//! ```text
//!  Prepared (the target listens) ─ begin ─► Underway ─ finish ─► Migrated
//! ```

use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, bail, ensure};
use migcast_history::observed::{Known, Observed, ThrottleStep};
use migcast_model::quantity::write_rate;
use migcast_model::units::BytesPerSec;
use serde_json::{Value, json};

use crate::connection::{self, PORT, Route};
use crate::features::Features;
use crate::interrupt::Interrupt;
use crate::link::{End, ShapedLink};
use crate::load::{CpuTime, Thread};
use crate::machine::{Images, Machine, Spec};
use crate::qmp::Qmp;
use crate::throttle::ThrottleLog;

/// How often the source's monitor is asked how it is getting on; its events arrive by themselves.
const LOOK: Duration = Duration::from_millis(100);
/// How often events are looked through: the sender's buffer has to be seen before it drains.
const EVENT_LOOK: Duration = Duration::from_millis(4);
/// How long the target may take to run after the source has finished.
const RESUME_MAX: Duration = Duration::from_secs(60);
/// A cap that never binds, in bytes per second: the link is what limits.
pub const NO_CAP: u64 = 1 << 40;

/// How a guest is migrated.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Line rate of the link.
    pub link: BytesPerSec,
    /// `downtime-limit`.
    pub downtime_limit: Duration,
    /// `max-bandwidth`; [`NO_CAP`] for none.
    pub max_bandwidth: BytesPerSec,
    /// A migration that still copies then is cancelled, as not converging.
    pub give_up: Duration,
    /// Capabilities.
    pub features: Features,
}

impl Terms {
    /// What differs from QEMU's defaults, as `migcast predict --set` takes it.
    pub fn settings(&self) -> Vec<String> {
        let cap = if self.max_bandwidth.get() >= NO_CAP { "none".to_owned() } else { write_rate(self.max_bandwidth) };
        let limits = [format!("max-bandwidth={cap}"), format!("downtime-limit={}ms", self.downtime_limit.as_millis())];
        limits.into_iter().chain(self.features.settings()).collect()
    }
}

/// What a migration left.
#[derive(Debug)]
pub struct Migrated {
    /// What happened.
    pub observed: Observed,
    /// The source's last answer to `query-migrate`.
    pub reply: Value,
    /// The machine the guest runs on now: the source, where the migration was given up.
    pub machine: Machine,
    /// Its end of the link.
    pub at: End,
    /// The other machine, on which nothing runs any more.
    pub left: Machine,
}

/// Migrates the guest of `source`, which runs at `from`, to a new machine at the other end.
///
/// # Errors
/// A monitor refuses, the migration fails (which is not the same as giving up), or we are interrupted.
pub fn migrate(
    source: Machine,
    from: End,
    link: &ShapedLink,
    spec: &Spec,
    images: &Images,
    terms: Terms,
    interrupt: &Interrupt,
) -> Result<Migrated> {
    link.shape(terms.link)?;
    let route = Route { link, from, port: PORT };
    let prepared = Prepared::new(source, route, spec, images, terms, interrupt)?;
    let ends = prepared.pids();
    prepared.begin(&ends)?.finish(interrupt)
}

/// A source, and a target that awaits its guest.
#[derive(Debug)]
pub struct Prepared<'a> {
    source: Machine,
    target: Machine,
    route: Route<'a>,
    spec: Spec,
    terms: Terms,
}

impl<'a> Prepared<'a> {
    /// Starts a target for the guest of `source`. The link stays as it is shaped.
    ///
    /// # Errors
    /// The target does not start, or a monitor refuses.
    pub fn new(
        source: Machine,
        route: Route<'a>,
        spec: &Spec,
        images: &Images,
        terms: Terms,
        interrupt: &Interrupt,
    ) -> Result<Prepared<'a>> {
        let namespace = route.link.namespace(route.from.other());
        let incoming = Spec { incoming: Some("defer".to_owned()), namespace, qmp: None, ..spec.clone() };
        let mut target = Machine::start(images, &incoming, interrupt)?;
        // Some capabilities have to be known before the target listens.
        target.monitor().execute("migrate-set-capabilities", &terms.features.capabilities())?;
        target.monitor().execute("migrate-incoming", &json!({ "uri": route.uri() }))?;
        Ok(Prepared { source, target, route, spec: spec.clone(), terms })
    }

    /// The guest that is to be migrated; until then it is its user's.
    pub fn source(&self) -> &Machine {
        &self.source
    }

    /// The processes of both ends.
    pub fn pids(&self) -> [u32; 2] {
        [self.source.pid(), self.target.pid()]
    }

    /// Tells the source its settings and requests the migration. The CPU time of all processes but `ours` counts as that of others.
    ///
    /// # Errors
    /// The source refuses.
    pub fn begin(mut self, ours: &[u32]) -> Result<Underway<'a>> {
        let parameters = json!({
            "max-bandwidth": self.terms.max_bandwidth.get(),
            "downtime-limit": u64::try_from(self.terms.downtime_limit.as_millis())?,
        });
        let capabilities = self.terms.features.capabilities();
        self.source.monitor().execute("migrate-set-capabilities", &capabilities)?;
        self.source.monitor().execute("migrate-set-parameters", &parameters)?;
        let (vcpu, load_average) = (self.source.vcpu(), load_average());
        let cpu = CpuTime::now(ours);
        let requested = SystemTime::now();
        self.source.monitor().execute("migrate", &json!({ "uri": self.route.uri() }))?;
        Ok(Underway { prepared: self, ours: ours.to_owned(), vcpu, load_average, cpu, requested })
    }
}

/// A migration that has been requested.
#[derive(Debug)]
pub struct Underway<'a> {
    prepared: Prepared<'a>,
    ours: Vec<u32>,
    vcpu: Option<Thread>,
    load_average: Option<f64>,
    cpu: Option<CpuTime>,
    requested: SystemTime,
}

impl Underway<'_> {
    /// When it was requested.
    pub fn requested(&self) -> SystemTime {
        self.requested
    }

    /// Watches it to its end, which any thread may do: neither machine was started by it.
    ///
    /// # Errors
    /// As for [`migrate`].
    pub fn finish(self, interrupt: &Interrupt) -> Result<Migrated> {
        let Underway { prepared, ours, vcpu, load_average, cpu, requested } = self;
        let Prepared { mut source, mut target, route, spec, terms } = prepared;
        let watched = watch(source.monitor(), vcpu, route, terms, interrupt)?;
        let resumed = if watched.completed { Some(await_resume(target.monitor(), interrupt)?) } else { None };
        let others = cpu.zip(CpuTime::now(&ours)).map(|(before, after)| after.of_others_since(before));
        let other_cpu_cores = others.map(|seconds| seconds / since(SystemTime::now(), requested));
        let reply = watched.status.clone();
        let observed = Observation { requested, watched, resumed, load_average, other_cpu_cores };
        let observed = observed.write(&source, &spec, terms);
        let from = route.from;
        let (machine, at, left) =
            if resumed.is_some() { (target, from.other(), source) } else { (source, from, target) };
        Ok(Migrated { observed, reply, machine, at, left })
    }
}

/// What was seen at the source.
#[derive(Debug)]
pub(crate) struct Watched {
    /// Not given up.
    pub(crate) completed: bool,
    /// The last answer to `query-migrate`.
    pub(crate) status: Value,
    ended: SystemTime,
    throttle: Vec<ThrottleStep>,
    send_queue_at_stop: Option<u64>,
}

/// Watches a source, whose vCPU may be known, from the request until it has finished, or is cancelled when `give_up` has passed.
pub(crate) fn watch(
    monitor: &mut Qmp,
    vcpu: Option<Thread>,
    route: Route,
    terms: Terms,
    interrupt: &Interrupt,
) -> Result<Watched> {
    let mut throttle = ThrottleLog::begin(vcpu, SystemTime::now());
    let end = Instant::now() + terms.give_up;
    let (began, mut postcopy_after) = (SystemTime::now(), terms.features.postcopy_after_passes);
    let mut send_queue_at_stop = None;
    // A cancelled migration no longer says how far it had come.
    let mut ram = Value::Null;
    let mut next_look = Instant::now();
    loop {
        if send_queue_at_stop.is_none() && monitor.events().iter().any(|event| event.name == "STOP") {
            send_queue_at_stop = connection::send_queue(route);
            throttle.stop();
            next_look = Instant::now();
        }
        let passes =
            monitor.events().iter().filter(|event| event.name == "MIGRATION_PASS" && event.at >= began).count();
        // The first pass begins with an event of its own.
        if postcopy_after.is_some_and(|after| passes as u64 > after) {
            monitor.execute("migrate-start-postcopy", &json!({}))?;
            postcopy_after = None;
        }
        if Instant::now() < next_look {
            thread::sleep(EVENT_LOOK);
            continue;
        }
        next_look += LOOK;
        let mut status = monitor.execute("query-migrate", &json!({}))?;
        throttle.look(&status);
        if status["ram"].is_object() {
            ram = status["ram"].clone();
        }
        let completed = status["status"] == "completed";
        if completed || status["status"] == "cancelled" {
            let events = monitor.events();
            status["ram"] = ram;
            let last = events.iter().rfind(|event| event.name == "MIGRATION").map(|event| event.at);
            let (ended, throttle) = (last.unwrap_or_else(SystemTime::now), throttle.finish());
            return Ok(Watched { completed, status, ended, throttle, send_queue_at_stop });
        }
        if status["status"] == "failed" {
            bail!("the migration failed: {}", status["error-desc"].as_str().unwrap_or("QEMU does not say why"));
        }
        if Instant::now() >= end && status["status"] == "active" {
            monitor.execute("migrate_cancel", &json!({}))?;
        }
        ensure!(!interrupt.came(), "interrupted");
    }
}

fn await_resume(monitor: &mut Qmp, interrupt: &Interrupt) -> Result<SystemTime> {
    let end = Instant::now() + RESUME_MAX;
    loop {
        if let Some(event) = monitor.events().iter().find(|event| event.name == "RESUME") {
            return Ok(event.at);
        }
        ensure!(Instant::now() < end, "the target did not resume within 60 s");
        ensure!(!interrupt.wait(Duration::from_millis(20)), "interrupted");
    }
}

fn load_average() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

/// Everything seen of one migration.
#[derive(Debug)]
struct Observation {
    requested: SystemTime,
    watched: Watched,
    resumed: Option<SystemTime>,
    load_average: Option<f64>,
    other_cpu_cores: Option<f64>,
}

impl Observation {
    fn write(self, source: &Machine, spec: &Spec, terms: Terms) -> Observed {
        let Watched { completed, status, ended, throttle, send_queue_at_stop } = self.watched;
        let events = source.events();
        let at = |name: &str| events.iter().rfind(|event| event.name == name).map(|event| event.at);
        let millis = |key: &str| status[key].as_u64().map(|millis| millis as f64 / 1e3);
        let ram = |key: &str| status["ram"][key].as_u64().unwrap_or_default();
        let since_request = |at: SystemTime| since(at, self.requested);
        // The target may run before the source has noticed that it is done.
        let end = self.resumed.map_or(ended, |resumed| resumed.max(ended));
        let stopped = at("STOP").filter(|_| completed);
        let readings = source.readings();
        let active = events.iter().rfind(|event| event.name == "MIGRATION" && event.data["status"] == "active");
        let requested = jiff::Timestamp::try_from(self.requested).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let known = Known {
            guest: spec.guest.name.to_owned(),
            history: None,
            version: source.version().to_owned(),
            accelerator: spec.accel.to_string(),
            link_bits_per_second: terms.link.bits(),
            settings: terms.settings(),
        };
        Observed {
            completed,
            migration_time_seconds: Some(since_request(end)),
            migration_time_reported_seconds: millis("total-time"),
            downtime_seconds: stopped.zip(self.resumed).map(|(stopped, resumed)| since(resumed, stopped)),
            downtime_reported_seconds: millis("downtime"),
            active_seconds: active.map(|event| since_request(event.at)),
            stopped_seconds: stopped.map(since_request),
            source_done_seconds: completed.then(|| since_request(ended)),
            setup_seconds: millis("setup-time"),
            sent_bytes: Some(ram("transferred")),
            data_pages: Some(ram("normal")),
            zero_pages: Some(ram("duplicate")),
            iterations: Some(ram("dirty-sync-count")),
            send_queue_at_stop_bytes: send_queue_at_stop,
            iteration_starts_seconds: events
                .iter()
                .filter(|event| event.name == "MIGRATION_PASS" && event.at >= self.requested)
                .map(|event| since_request(event.at))
                .collect(),
            pending_bytes: readings
                .iter()
                .filter(|reading| reading.at >= self.requested)
                .map(|reading| reading.pending_bytes)
                .collect(),
            throttle,
            give_up_seconds: Some(terms.give_up.as_secs_f64()),
            tcp_send_buffer_max_bytes: connection::send_buffer_max(),
            load_average: self.load_average,
            other_cpu_cores: self.other_cpu_cores,
            ..Observed::unseen("qemu", &known, requested)
        }
    }
}

fn since(later: SystemTime, earlier: SystemTime) -> f64 {
    later.duration_since(earlier).unwrap_or_default().as_secs_f64()
}

/// A summary of one observed migration for a person.
pub fn describe(observed: &Observed) -> String {
    let gist = if observed.completed { "completed" } else { "was given up" };
    let seconds = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3} s"));
    let sent = observed.sent_bytes.unwrap_or_default() as f64 / 1e6;
    format!(
        "{} over {} Mbit/s {gist} after {:.2} s (QEMU: {}), down {} (QEMU: {}), {sent:.1} MB, {} syncs",
        observed.guest,
        observed.link_bits_per_second / 1_000_000,
        observed.seconds(),
        seconds(observed.migration_time_reported_seconds),
        seconds(observed.downtime_seconds),
        seconds(observed.downtime_reported_seconds),
        observed.iterations.unwrap_or_default(),
    )
}
