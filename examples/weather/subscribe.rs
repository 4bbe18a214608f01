//! The subscriber: counts what comes for each of its filters, and what does not come.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{HumanCount, MultiProgress, ProgressBar};
use sinew::{Endpoint, Message, SubSocket};
use tokio::time::MissedTickBehavior;

use crate::update::{Update, ZIP_LENGTH, Zip};
use crate::{ENDPOINT, Failure, rate, style};

/// So many updates are taken from the socket in one go.
const BATCH: usize = 256;

/// How often the terminal is painted.
const PAINT: Duration = Duration::from_millis(100);

/// So many of the stations that have missed something are named.
const NAMED: usize = 10;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Connect to this publisher, cache or proxy; may be repeated. [default: tcp://127.0.0.1:5556, unless --bind is given]
    #[arg(long, value_name = "ENDPOINT")]
    connect: Vec<Endpoint>,
    /// Listen here for publishers; may be repeated.
    #[arg(long, value_name = "ENDPOINT")]
    bind: Vec<Endpoint>,
    /// End after so many updates.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Read nothing for so long after the first update, to be a slow subscriber.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    stall: u64,
    /// Follow the stations whose zip codes begin with this. [default: all]
    #[arg(value_name = "FILTER", value_parser = filter)]
    filters: Vec<String>,
}

fn filter(text: &str) -> Result<String, String> {
    if text.len() <= ZIP_LENGTH && text.bytes().all(|digit| digit.is_ascii_digit()) {
        return Ok(text.to_owned());
    }
    Err(format!("must be at most {ZIP_LENGTH} digits"))
}

pub(crate) async fn run(arguments: &Arguments) -> Result<(), Failure> {
    let socket = SubSocket::new();
    let mut journal = Journal::new(&arguments.filters);
    for view in &journal.views {
        socket.subscribe(&view.filter);
    }
    for endpoint in &arguments.bind {
        eprintln!("Listening on {}", socket.bind(endpoint).await?);
    }
    let by_default = arguments.bind.is_empty() && arguments.connect.is_empty();
    for endpoint in arguments.connect.iter().cloned().chain(by_default.then(|| ENDPOINT.parse()).transpose()?) {
        socket.connect(endpoint)?;
    }

    tokio::select! {
        result = follow(&socket, arguments, &mut journal) => result?,
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    journal.clear();
    socket.close().await?;
    journal.print();
    Ok(())
}

/// Ready when enough has come.
async fn follow(socket: &SubSocket, arguments: &Arguments, journal: &mut Journal) -> Result<(), Failure> {
    let mut paint = tokio::time::interval(PAINT);
    paint.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut stall = (arguments.stall > 0).then(|| Duration::from_secs(arguments.stall));
    let mut left = arguments.count.unwrap_or(u64::MAX);
    let mut batch = Vec::with_capacity(BATCH);
    while left > 0 {
        let max = usize::try_from(left).map_or(BATCH, |left| left.min(BATCH));
        tokio::select! {
            received = socket.recv_many(&mut batch, max) => left -= received? as u64,
            _ = paint.tick() => journal.paint(),
        }
        for message in batch.drain(..) {
            journal.enter(&message);
            if let Some(stall) = stall.take() {
                tokio::time::sleep(stall).await;
            }
        }
    }
    Ok(())
}

/// What is known of one station.
#[derive(Debug, Default)]
struct Station {
    /// The number of its last update.
    last: u64,
    missed: u64,
}

/// What came for one filter. Filters may overlap: an update counts for each that it matches.
#[derive(Debug)]
struct View {
    filter: String,
    stations: u64,
    updates: u64,
    celsius: f64,
    humidity: f64,
    /// Hidden if standard error is no terminal.
    line: ProgressBar,
}

impl View {
    fn name(&self) -> &str {
        if self.filter.is_empty() { "all" } else { &self.filter }
    }

    fn text(&self) -> String {
        let counts = format!("{} updates of {} stations", HumanCount(self.updates), HumanCount(self.stations));
        if self.updates == 0 {
            return counts;
        }
        #[allow(clippy::cast_precision_loss)] // nobody counts that far
        let updates = self.updates as f64;
        format!("{counts}, on average {:.1} °C and {:.0} %", self.celsius / updates, self.humidity / updates)
    }
}

/// Everything that came.
#[derive(Debug)]
struct Journal {
    views: Vec<View>,
    stations: BTreeMap<Zip, Station>,
    updates: u64,
    /// How many updates had numbers that their stations had used before: there is a new publisher.
    begun_anew: u64,
    not_understood: u64,
    /// When the first update came, and the last one.
    span: Option<(Instant, Instant)>,
}

impl Journal {
    fn new(filters: &[String]) -> Self {
        let mut filters = filters.to_vec();
        filters.sort();
        filters.dedup();
        if filters.is_empty() {
            filters.push(String::new());
        }
        let lines = MultiProgress::new();
        let style = style("{prefix:5} {msg}, {rate}");
        let view = |filter| {
            let mut view =
                View { filter, stations: 0, updates: 0, celsius: 0.0, humidity: 0.0, line: ProgressBar::hidden() };
            view.line = lines.add(ProgressBar::no_length().with_style(style.clone()));
            view.line.set_prefix(view.name().to_owned());
            view
        };
        Self {
            views: filters.into_iter().map(view).collect(),
            stations: BTreeMap::new(),
            updates: 0,
            begun_anew: 0,
            not_understood: 0,
            span: None,
        }
    }

    fn enter(&mut self, message: &Message) {
        let now = Instant::now();
        self.span = Some((self.span.map_or(now, |(first, _)| first), now));
        self.updates += 1;
        let Some(update) = Update::read(message) else {
            self.not_understood += 1;
            return;
        };
        let is_new = !self.stations.contains_key(&update.zip);
        let station = self.stations.entry(update.zip).or_default();
        if update.number <= station.last {
            self.begun_anew += 1;
        } else if !is_new {
            station.missed += update.number - station.last - 1;
        }
        station.last = update.number;
        for view in self.views.iter_mut().filter(|view| update.zip.begins_with(&view.filter)) {
            view.stations += u64::from(is_new);
            view.updates += 1;
            view.celsius += update.celsius;
            view.humidity += update.humidity;
        }
    }

    fn paint(&self) {
        for view in &self.views {
            view.line.set_message(view.text());
            view.line.set_position(view.updates);
        }
    }

    fn clear(&self) {
        for view in &self.views {
            view.line.finish_and_clear();
        }
    }

    fn print(&self) {
        let elapsed = self.span.map_or(Duration::ZERO, |(first, last)| last - first);
        // The clock begins with the first one.
        let per_second = rate(self.updates.saturating_sub(1), elapsed);
        let stations = HumanCount(self.stations.len() as u64);
        println!("received  {} updates of {stations} stations, {per_second}/s", HumanCount(self.updates));
        for view in &self.views {
            println!("{:9} {}", view.name(), view.text());
        }
        self.print_missed();
        if self.begun_anew > 0 {
            println!("anew      {} times a station began anew to count", HumanCount(self.begun_anew));
        }
        if self.not_understood > 0 {
            println!("strange   {} of the messages are no updates", HumanCount(self.not_understood));
        }
    }

    /// What lies between the first and the last update of each station.
    fn print_missed(&self) {
        let mut missed: Vec<_> = self.stations.iter().filter(|(_, station)| station.missed > 0).collect();
        if missed.is_empty() {
            println!("missed    nothing");
            return;
        }
        missed.sort_by_key(|(zip, station)| (std::cmp::Reverse(station.missed), **zip));
        let total: u64 = missed.iter().map(|(_, station)| station.missed).sum();
        let stations = HumanCount(missed.len() as u64);
        println!("missed    {} updates of {stations} stations", HumanCount(total));
        for (zip, station) in missed.iter().take(NAMED) {
            println!("          {zip}: {}", HumanCount(station.missed));
        }
        if missed.len() > NAMED {
            println!("          ...");
        }
    }
}
