//! Other programs that write tables: ours are repaired at once, and theirs cost us little.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(unsafe_code, reason = "poll; it has a SAFETY sentence")]

mod listing;
mod scenario;

use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use listing::ours;
use model::InSync;
use nft::{NftDriver, Report};
use rules::{Rules, RulesConfig};
use scenario::Scenario;
use testkit::{in_netns, sh};

fn rules() -> Rules {
    let mut rules = Rules::new(RulesConfig::default());
    rules.apply(&Scenario::two_pods().outputs());
    rules
}

/// What an agent does with a driver: sleeps until told or until it is time.
struct Loop {
    driver: NftDriver,
    rules: Rules,
    applies: u64,
    repairs: Vec<Report>,
}

impl Loop {
    fn start() -> Self {
        let mut it = Self {
            driver: NftDriver::open().unwrap(),
            rules: rules(),
            applies: 0,
            repairs: Vec::new(),
        };
        it.apply();
        it.repairs.clear();
        it
    }

    fn apply(&mut self) -> Option<Duration> {
        self.applies += 1;
        let report = self.driver.apply(&mut self.rules, Some(&InSync::for_tests())).unwrap();
        let again = report.again_in;
        if report.repaired.is_some() {
            self.repairs.push(report);
        }
        again
    }

    fn run(&mut self, until: Instant) {
        let mut again = None;
        while Instant::now() < until {
            let rest = until.saturating_duration_since(Instant::now());
            let wait = again.unwrap_or(rest).min(rest).max(Duration::from_millis(1));
            let fd = self.driver.event_fd().as_raw_fd();
            let mut fds = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            // SAFETY: one descriptor that is open, in memory that outlives the call.
            unsafe { libc::poll(&raw mut fds, 1, i32::try_from(wait.as_millis()).unwrap()) };
            again = if self.driver.drain_events().unwrap() { self.apply() } else { None };
        }
    }
}

/// Commits a transaction every 10 ms. Ends on drop.
struct Busy {
    nft: Child,
    stop: Arc<AtomicBool>,
    commits: Arc<AtomicU64>,
    writer: Option<JoinHandle<()>>,
}

impl Busy {
    fn start(commands: [&'static str; 2]) -> Self {
        let mut nft = Command::new("nft")
            .arg("-i")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut input = nft.stdin.take().unwrap();
        let (stop, commits) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (stop.clone(), commits.clone());
        let writer = std::thread::spawn(move || {
            for command in commands.iter().cycle() {
                if stopped.load(Ordering::Relaxed) || writeln!(input, "{command}").is_err() {
                    return;
                }
                counted.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        Self { nft, stop, commits, writer: Some(writer) }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.writer.take().map(JoinHandle::join));
        drop(self.nft.kill());
        drop(self.nft.wait());
    }
}

/// What this thread has used of a processor.
fn own_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

const SPAN: Duration = Duration::from_secs(2);

#[test]
fn a_program_that_commits_all_the_time_costs_little_and_delays_no_repair() {
    in_netns(|| {
        let mut agent = Loop::start();
        let wanted = ours();
        sh("nft add table ip other");
        let busy = Busy::start(["add chain ip other x", "delete chain ip other x"]);
        let (before, started) = (own_time(), Instant::now());
        agent.run(started + SPAN);
        let share = own_time().saturating_sub(before).as_secs_f64() / SPAN.as_secs_f64();
        let commits = busy.commits.load(Ordering::Relaxed);
        assert!(commits > 50, "{commits} commits");
        assert_eq!(agent.applies, 1, "what others do with their tables is no reason to read ours");
        assert!(share < 0.05, "{commits} commits in {SPAN:?} took {share:.3} of a processor");

        let mut took = Vec::new();
        for _ in 0..5 {
            sh("nft flush chain ip calico to-pod");
            let started = Instant::now();
            let before = agent.repairs.len();
            while agent.repairs.len() == before {
                agent.run(Instant::now() + Duration::from_millis(5));
                assert!(started.elapsed() < Duration::from_secs(10), "never repaired");
            }
            took.push(started.elapsed());
            assert_eq!(ours(), wanted);
        }
        println!("{commits} commits: {share:.4} of a processor; repairs after {took:?}");
        took.sort_unstable();
        assert!(took[1] < Duration::from_millis(100), "repairs after {took:?}");
        assert_eq!(agent.driver.metrics().repairs.get(), 5);
        let by = agent.repairs[0].repaired.as_ref().unwrap();
        assert!(by.iter().any(|a| a.process == "nft" && a.pid != 0), "{by:?}");
    });
}

#[test]
fn a_program_that_edits_our_table_all_the_time_makes_us_read_a_bounded_share() {
    in_netns(|| {
        let mut agent = Loop::start();
        let wanted = ours();
        let busy = Busy::start(["add chain ip calico x", "add rule ip calico x counter"]);
        let before = own_time();
        agent.run(Instant::now() + SPAN);
        let share = own_time().saturating_sub(before).as_secs_f64() / SPAN.as_secs_f64();
        let repairs = agent.repairs.len();
        println!("{repairs} repairs in {SPAN:?}: {share:.4} of a processor");
        assert!(repairs > 3, "{repairs} repairs");
        assert!(share < 0.2, "{repairs} repairs took {share:.3} of a processor");
        drop(busy);
        agent.run(Instant::now() + Duration::from_millis(500));
        assert_eq!(ours(), wanted, "nothing is left of it");
    });
}
