//! `Simulation`: starts the nodes, performs the steps, and checks.

use crate::directory::Directory;
use crate::journal::Journal;
use crate::message::Rumor;
use crate::network::Network;
use crate::node::{self, Command, MAX_HELD, Running, Shared};
use crate::plan::{Outcome, Plan};
use crate::scenario::{Agenda, Step};
use crate::thief;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use fastrand::Rng;
use net_traits::{CertHash, NetCredential, NetTransport, TrustPolicy};
use net_traits_test::memory::LinkPlan;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread::{self, available_parallelism};
use std::time::Duration;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Runs the nodes, performs the steps, and checks. The caller supplies the runtime.
///
/// # Errors
///
/// The first violation.
pub async fn run<N: Network>(network: &N, plan: &Plan) -> Result<Outcome> {
    let mut simulation = Simulation::new(network, plan)?;
    simulation.start_all().await?;
    simulation.perform().await?;
    simulation.settle().await?;
    simulation.end_all().await?;
    let journal = &simulation.shared.journal;
    Ok(Outcome {
        counts: journal.counts(),
        steps: simulation.steps,
        digest: journal.digest(),
        slowest_rumor: simulation.slowest_rumor,
        connections: simulation.connections,
    })
}

struct Simulation<'a, N: Network> {
    network: &'a N,
    plan: &'a Plan,
    rng: Rng,
    agenda: Agenda,
    shared: Arc<Shared>,
    nodes: Vec<Node<N::Transport>>,
    thieves: Vec<thief::Running>,
    /// Keys that no node has used yet.
    spare: Vec<NetCredential>,
    steps: BTreeMap<&'static str, u64>,
    is_divided: bool,
    /// The rumors that some node may not know yet, with the node that has published each.
    spreading: Vec<Spreading>,
    slowest_rumor: Duration,
    connections: f64,
    /// When `progress` was called, by the real clock.
    told_at: std::time::Instant,
}

struct Spreading {
    rumor: u32,
    at: Duration,
    publisher: u32,
}

struct Node<T> {
    host: T,
    credential: NetCredential,
    /// `None` while it is down.
    running: Option<Running>,
}

impl<'a, N: Network> Simulation<'a, N> {
    fn new(network: &'a N, plan: &'a Plan) -> Result<Self> {
        ensure!(plan.peers >= 2, "{} peers have nothing to tell: use at least 2", plan.peers);
        let mut rng = Rng::with_seed(plan.seed);
        let periods = plan.duration.div_duration_f64(plan.period) as u32;
        let links = network.links();
        let agenda = Agenda::draw(&mut rng, plan.peers, plan.period, periods, links.is_some());
        if let Some(links) = links {
            links.set_links(normal());
        }
        let mut spare = credentials(plan.peers as usize + agenda.keys())?;
        rng.shuffle(&mut spare);
        let shared = Arc::new(Shared {
            journal: Journal::new(plan.settled),
            directory: Directory::default(),
            mutant: plan.mutant,
            tick: plan.period,
        });
        Ok(Self {
            network,
            plan,
            rng,
            agenda,
            shared,
            nodes: Vec::new(),
            thieves: Vec::new(),
            spare,
            steps: BTreeMap::new(),
            is_divided: false,
            spreading: Vec::new(),
            slowest_rumor: Duration::ZERO,
            connections: 0.0,
            told_at: std::time::Instant::now(),
        })
    }

    async fn start_all(&mut self) -> Result<()> {
        for number in 0..self.plan.peers {
            let (host, credential) = (self.network.add_host()?, self.key()?);
            self.nodes.push(Node { host, credential, running: None });
            self.start(number).await?;
        }
        Ok(())
    }

    async fn start(&mut self, number: u32) -> Result<()> {
        let (bind_addr, seed) = (self.network.bind_addr(), self.rng.u64(..));
        let node = &mut self.nodes[number as usize];
        let (host, credential) = (node.host.clone(), node.credential.clone());
        let running = node::start(number, &self.shared, host, bind_addr, credential, seed).await?;
        node.running = Some(running);
        Ok(())
    }

    fn key(&mut self) -> Result<NetCredential> {
        self.spare.pop().context("there are too few keys")
    }

    async fn perform(&mut self) -> Result<()> {
        let began = Instant::now();
        while let Some((at, step)) = self.agenda.next() {
            if at > self.plan.duration {
                break;
            }
            sleep_until(began + at).await;
            self.step(step, at).await?;
        }
        Ok(())
    }

    async fn step(&mut self, step: Step, at: Duration) -> Result<()> {
        let name = match step {
            Step::Publish => self.publish(None).map(|()| "rumors"),
            Step::Restart => self.restart(at).await?,
            Step::Crash => self.crash(at).await?,
            Step::Start(node) => {
                self.start(node).await?;
                None
            }
            Step::Partition => self.partition(at),
            Step::Heal => {
                self.heal();
                None
            }
            Step::Slow => self.slow(at),
            Step::Fast(one, other) => {
                self.network.links().into_iter().for_each(|it| it.set_link(one, other, normal()));
                None
            }
            Step::Reset => self.reset(),
            Step::Rotate => match self.choose() {
                Some(node) => self.rotate(node)?,
                None => None,
            },
            Step::Steal => self.steal(at)?,
            Step::Revoke(identity) => self.revoke(identity)?,
            Step::Check => {
                self.check()?;
                None
            }
        };
        if let Some(name) = name {
            *self.steps.entry(name).or_default() += 1;
        }
        Ok(())
    }

    /// Returns a node that is up, if one is found.
    fn choose(&mut self) -> Option<u32> {
        let rng = &mut self.rng;
        self.shared.directory.choose(u32::MAX, rng)
    }

    fn tell(&self, node: u32, command: Command) -> Option<()> {
        // A node that is busy for so long misses it.
        self.nodes[node as usize].running.as_ref()?.commands.try_send(command).ok()
    }

    fn publish(&mut self, revoked: Option<CertHash>) -> Option<()> {
        let publisher = self.choose()?;
        let body = Bytes::from(vec![7; self.rng.usize(0..LONGEST_BODY)]);
        let rumor = self.shared.journal.published();
        self.spreading.push(Spreading { rumor, at: self.shared.journal.now(), publisher });
        self.tell(publisher, Command::Publish(Rumor { number: rumor, revoked, body }))
    }

    /// Ends a process. The peers see that its connections are closed.
    async fn restart(&mut self, at: Duration) -> Result<Option<&'static str>> {
        let Some(node) = self.choose() else { return Ok(None) };
        self.end(node).await?;
        self.start_later(node, at);
        Ok(Some("restarts"))
    }

    /// Takes a host from the network. The peers see that it is silent.
    async fn crash(&mut self, at: Duration) -> Result<Option<&'static str>> {
        let (Some(node), Some(links)) = (self.choose(), self.network.links()) else {
            return Ok(None);
        };
        // What has reached the process is received: a message that its process had not received
        // would be lost with it.
        for _ in 0..ROUNDS {
            yield_now().await;
        }
        if let Some(ip) = self.ip(node) {
            links.fail_host(ip);
        }
        self.end(node).await?;
        self.nodes[node as usize].host = self.network.add_host()?;
        self.start_later(node, at);
        Ok(Some("failed hosts"))
    }

    fn start_later(&mut self, node: u32, at: Duration) {
        let pause = self.plan.period.mul_f64(3.0 * self.rng.f64());
        self.agenda.add(at + pause, Step::Start(node));
    }

    /// Ends a node, and waits until all its messages are delivered or reported.
    async fn end(&mut self, node: u32) -> Result<()> {
        self.shared.directory.remove(node);
        let Some(running) = self.nodes[node as usize].running.take() else { return Ok(()) };
        drop(running.commands);
        let ended = timeout(self.plan.settled, running.task).await;
        let ended = ended.with_context(|| format!("node {node} does not end: it is not woken"))?;
        ended.with_context(|| format!("node {node} has panicked"))
    }

    fn ip(&self, node: u32) -> Option<IpAddr> {
        Some(self.shared.directory.get(node)?.address.ip())
    }

    fn partition(&mut self, at: Duration) -> Option<&'static str> {
        let links = self.network.links().filter(|_| !self.is_divided)?;
        let mut hosts: Vec<_> = (0..self.plan.peers).filter_map(|node| self.ip(node)).collect();
        self.rng.shuffle(&mut hosts);
        let share = [100, 20, 2][self.rng.usize(0..3)];
        let (these, those) = hosts.split_at((hosts.len() / share).max(1));
        links.partition(these, those);
        self.is_divided = true;
        let seconds = self.rng.u64(2..=60);
        self.agenda.add(at + Duration::from_secs(seconds), Step::Heal);
        Some("partitions")
    }

    fn heal(&mut self) {
        self.network.links().into_iter().for_each(|links| links.heal());
        self.is_divided = false;
    }

    /// Returns the addresses of two neighbours.
    fn neighbours(&mut self) -> Option<(IpAddr, IpAddr)> {
        let node = self.choose()?;
        let running = self.nodes[node as usize].running.as_ref()?;
        let neighbours = running.neighbours.borrow().clone();
        let neighbour = self.rng.choice(neighbours)?;
        Some((self.ip(node)?, neighbour.address.ip()))
    }

    fn slow(&mut self, at: Duration) -> Option<&'static str> {
        let (one, other) = self.neighbours()?;
        let latency = Duration::from_millis(self.rng.u64(100..2000));
        let plan = normal().latency(latency).bandwidth(self.rng.u64(1000..20_000));
        self.network.links()?.set_link(one, other, plan);
        let seconds = self.rng.u64(5..=60);
        self.agenda.add(at + Duration::from_secs(seconds), Step::Fast(one, other));
        Some("slow links")
    }

    fn reset(&mut self) -> Option<&'static str> {
        let (one, other) = self.neighbours()?;
        self.network.links()?.reset(one, other);
        Some("resets")
    }

    /// Gives a node another key.
    fn rotate(&mut self, node: u32) -> Result<Option<&'static str>> {
        let credential = self.key()?;
        self.nodes[node as usize].credential = credential.clone();
        Ok(self.tell(node, Command::Rotate(credential)).map(|()| "rotated keys"))
    }

    /// Starts a thief with the key of a node.
    fn steal(&mut self, at: Duration) -> Result<Option<&'static str>> {
        let noticed = at + self.plan.period;
        let Some(node) = self.choose().filter(|_| noticed <= self.plan.duration) else {
            return Ok(None);
        };
        let (host, seed) = (self.network.add_host()?, self.rng.u64(..));
        let credential = &self.nodes[node as usize].credential;
        self.thieves.push(thief::start(&self.shared, host, node, credential, seed));
        self.agenda.add(noticed, Step::Revoke(credential.identity()));
        Ok(Some("stolen keys"))
    }

    fn revoke(&mut self, stolen: CertHash) -> Result<Option<&'static str>> {
        let owner = self.shared.directory.owner(stolen);
        let owner = owner.filter(|it| self.nodes[*it as usize].credential.identity() == stolen);
        if let Some(owner) = owner {
            self.rotate(owner)?;
        }
        self.shared.directory.revoke(stolen);
        Ok(self.publish(Some(stolen)).map(|()| "revocations"))
    }

    fn check(&mut self) -> Result<()> {
        self.shared.journal.check()?;
        let most = self.shared.journal.counts().most_held;
        ensure!(
            most <= MAX_HELD as u64,
            "the messages of a node hold {most} bytes, and its pool at most {MAX_HELD}"
        );
        let now = self.shared.journal.now();
        if self.told_at.elapsed() >= PROGRESS {
            self.told_at = std::time::Instant::now();
            (self.plan.progress)(now);
        }
        for it in std::mem::take(&mut self.spreading) {
            let Some(missing) = self.missing(&it) else { continue };
            let age = now.saturating_sub(it.at);
            match missing {
                None => self.slowest_rumor = self.slowest_rumor.max(age),
                Some(node) if age > self.plan.covered => {
                    let after = self.plan.covered.as_secs();
                    anyhow::bail!("node {node} does not know rumor {} after {after} s", it.rumor);
                }
                Some(_) => self.spreading.push(it),
            }
        }
        for (number, node) in self.nodes.iter().enumerate() {
            let has_ended = node.running.as_ref().is_some_and(|it| it.task.is_finished());
            ensure!(!has_ended, "node {number} has panicked");
        }
        Ok(())
    }

    /// Returns a node that was up all the time and does not know a rumor. `None` if the rumor may
    /// have been lost with the node that published it.
    fn missing(&self, it: &Spreading) -> Option<Option<u32>> {
        let Shared { directory, journal, .. } = &*self.shared;
        let was_up = |node| directory.get(node).is_some_and(|entry| entry.since <= it.at);
        let is_missing = |node: &u32| was_up(*node) && !journal.is_known_by(it.rumor, *node);
        was_up(it.publisher).then(|| (0..self.plan.peers).find(is_missing))
    }

    /// Ends the faults, and waits until each message is received or reported and each rumor is
    /// known.
    async fn settle(&mut self) -> Result<()> {
        self.heal();
        self.network.links().into_iter().for_each(|links| links.set_links(normal()));
        let began = Instant::now();
        loop {
            sleep(self.plan.period).await;
            self.check()?;
            if self.spreading.is_empty() && began.elapsed() >= self.plan.rest {
                break;
            }
        }
        self.connections = self.connections();
        ensure!(
            self.connections <= node::CONNECTIONS,
            "each node has {:.1} connections, and {:.1} are expected at most",
            self.connections,
            node::CONNECTIONS
        );
        Ok(())
    }

    /// Returns how many connections a node has, on average.
    fn connections(&self) -> f64 {
        let count: usize = self.nodes.iter().map(|node| node.host.connections().len()).sum();
        count as f64 / self.nodes.len() as f64
    }

    async fn end_all(&mut self) -> Result<()> {
        for thief in std::mem::take(&mut self.thieves) {
            drop(thief.stop);
            thief.task.await.context("a thief has panicked")?;
        }
        for node in 0..self.plan.peers {
            self.end(node).await?;
        }
        self.shared.journal.check()?;
        let open = self.shared.journal.open();
        ensure!(open == 0, "{open} messages are neither received nor reported at the end");
        Ok(())
    }
}

/// Generates keys, in the order of their identities. The pools compare identities: a seed must give
/// the same comparisons in each run.
fn credentials(count: usize) -> Result<Vec<NetCredential>> {
    let workers = available_parallelism().map_or(1, usize::from);
    let generate = |count| -> Result<Vec<_>> {
        (0..count).map(|_| Ok(NetCredential::self_signed(TrustPolicy::Any)?)).collect()
    };
    let mut all = Vec::new();
    thread::scope(|scope| {
        let parts: Vec<_> =
            (0..workers).map(|_| scope.spawn(|| generate(count.div_ceil(workers)))).collect();
        for part in parts {
            all.extend(part.join().ok().context("the generation of keys has panicked")??);
        }
        anyhow::Ok(())
    })?;
    all.truncate(count);
    all.sort_by_key(NetCredential::identity);
    Ok(all)
}

/// The links that have no fault.
fn normal() -> LinkPlan {
    LinkPlan::new().latency(Duration::from_millis(20)).jitter(Duration::from_millis(60))
}

/// The longest body of a rumor, in bytes.
const LONGEST_BODY: usize = 256;

/// How often the progress of a long run is told.
const PROGRESS: Duration = Duration::from_secs(10);

/// How often other tasks run before a host fails, so that what has arrived is received.
const ROUNDS: usize = 20;
