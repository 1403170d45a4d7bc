//! A timed run, and the CPU time that each program took meanwhile: what a rate was spent on.

use std::{
    collections::BTreeMap,
    fs,
    ops::{AddAssign, Sub},
    path::Path,
    time::Duration,
};

use tokio::time::Instant;

/// Linux shows CPU times in hundredths of a second, whatever its own clock (proc(5), `USER_HZ`).
const TICK: Duration = Duration::from_millis(10);

/// What one run of a step took.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    /// Messages or records that went through in the time.
    pub(crate) items: u64,
    pub(crate) took: Duration,
    pub(crate) cpu: Cpu,
}

/// CPU times since the machine started, or of a run. Servers are found by the name of their program, so that another one
/// of that name on the machine counts too.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cpu {
    /// This process: bridge or registry, or what they are held against.
    pub(crate) own: Duration,
    pub(crate) mosquitto: Duration,
    pub(crate) kafka: Duration,
    pub(crate) postgres: Duration,
    /// Docker's proxies, through which ports of containers are reached on loopback.
    pub(crate) proxies: Duration,
    /// Everything on the machine.
    pub(crate) all: Duration,
    /// Given by the host to other machines while this one had work.
    pub(crate) stolen: Duration,
    /// By name, those of this process and of Kafka: whose work it was.
    pub(crate) threads: BTreeMap<String, Duration>,
}

/// A run that goes on.
pub(crate) struct Stopwatch {
    cpu: Cpu,
    began: Instant,
}

impl Run {
    pub(crate) fn per_s(&self) -> f64 {
        self.items as f64 / self.took.as_secs_f64()
    }
}

impl Stopwatch {
    pub(crate) fn start() -> Stopwatch {
        let cpu = Cpu::so_far();
        Stopwatch { cpu, began: Instant::now() }
    }

    pub(crate) fn stop(self, items: u64) -> Run {
        let took = self.began.elapsed();
        Run { items, took, cpu: Cpu::so_far() - self.cpu }
    }
}

impl Cpu {
    fn so_far() -> Cpu {
        let own = std::process::id().to_string();
        let (all, stolen) = of_the_machine();
        let mut cpu = Cpu { all, stolen, ..Cpu::default() };
        for entry in fs::read_dir("/proc").expect("proc(5) is mounted").flatten() {
            // One that is no process, or has ended since, counts nothing.
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
            let Some((program, took)) = of_process(&stat) else { continue };
            match program {
                _ if entry.file_name() == *own => {
                    cpu.own += took;
                    cpu.add_threads("bench", &entry.path());
                }
                "mosquitto" => cpu.mosquitto += took,
                "java" => {
                    cpu.kafka += took;
                    cpu.add_threads("Kafka", &entry.path());
                }
                "postgres" => cpu.postgres += took,
                "docker-proxy" => cpu.proxies += took,
                _ => {}
            }
        }
        cpu
    }

    fn add_threads(&mut self, part: &str, process: &Path) {
        for thread in fs::read_dir(process.join("task")).into_iter().flatten().flatten() {
            let Ok(stat) = fs::read_to_string(thread.path().join("stat")) else { continue };
            let Some((name, took)) = of_process(&stat) else { continue };
            // The first thread has the program's name, and the id of the process.
            let name = if process.ends_with(thread.file_name()) { "main" } else { name };
            *self.threads.entry(format!("{part}: {name}")).or_default() += took;
        }
    }

    /// What none of the parts took.
    pub(crate) fn others(&self) -> Duration {
        let parts = self.own + self.mosquitto + self.kafka + self.postgres + self.proxies;
        self.all.saturating_sub(parts)
    }
}

/// Name and CPU time of a process or thread: `PID (NAME) STATE ...`, the times being fields 14 and 15 (proc(5)).
fn of_process(stat: &str) -> Option<(&str, Duration)> {
    let (_, rest) = stat.split_once('(')?;
    let (program, rest) = rest.rsplit_once(") ")?;
    let ticks: u32 = rest.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
    Some((program, TICK * ticks))
}

/// Busy and stolen: `cpu USER NICE SYSTEM IDLE IOWAIT IRQ SOFTIRQ STEAL ...` (proc(5)).
fn of_the_machine() -> (Duration, Duration) {
    let stat = fs::read_to_string("/proc/stat").expect("proc(5) is mounted");
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<u64> = fields.map(|field| field.parse().unwrap_or_default()).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, stolen, ..] = ticks[..] else {
        panic!("/proc/stat is not as proc(5) has it: {stat}");
    };
    let time = |ticks: u64| Duration::from_secs_f64(TICK.as_secs_f64() * ticks as f64);
    (time(user + nice + system + irq + softirq), time(stolen))
}

impl Sub for Cpu {
    type Output = Cpu;

    fn sub(self, before: Cpu) -> Cpu {
        let since = |(name, took): (String, Duration)| {
            let took = took.saturating_sub(before.threads.get(&name).copied().unwrap_or_default());
            (name, took)
        };
        Cpu {
            own: self.own.saturating_sub(before.own),
            mosquitto: self.mosquitto.saturating_sub(before.mosquitto),
            kafka: self.kafka.saturating_sub(before.kafka),
            postgres: self.postgres.saturating_sub(before.postgres),
            proxies: self.proxies.saturating_sub(before.proxies),
            all: self.all.saturating_sub(before.all),
            stolen: self.stolen.saturating_sub(before.stolen),
            threads: self.threads.into_iter().map(since).collect(),
        }
    }
}

impl AddAssign for Cpu {
    fn add_assign(&mut self, more: Cpu) {
        self.own += more.own;
        self.mosquitto += more.mosquitto;
        self.kafka += more.kafka;
        self.postgres += more.postgres;
        self.proxies += more.proxies;
        self.all += more.all;
        self.stolen += more.stolen;
        for (name, took) in more.threads {
            *self.threads.entry(name).or_default() += took;
        }
    }
}
