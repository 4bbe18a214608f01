//! The publisher: sends readings of its stations at random, at a steady rate.

use std::time::{Duration, Instant};

use clap::Args;
use futures::future::select_all;
use indicatif::{HumanCount, ProgressBar};
use sinew::{Closed, Endpoint, PubSocket, SlowSubscriber};
use tokio::time::MissedTickBehavior;

use crate::update::{Update, ZIP_LENGTH, Zip};
use crate::{ENDPOINT, Failure, rate, style};

/// How often the publisher looks at the clock, and sends what is due.
const TICK: Duration = Duration::from_millis(2);

/// So many updates are sent between two looks at the terminal.
const BATCH: u64 = 1_000;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Listen here; may be repeated. [default: tcp://127.0.0.1:5556, unless --connect is given]
    #[arg(long, value_name = "ENDPOINT")]
    bind: Vec<Endpoint>,
    /// Connect to this, like a proxy; may be repeated.
    #[arg(long, value_name = "ENDPOINT")]
    connect: Vec<Endpoint>,
    /// How many stations there are.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    stations: u64,
    /// What their zip codes begin with, so that several publishers can share the land.
    #[arg(long, value_name = "DIGITS", default_value = "", value_parser = zip)]
    zip: String,
    /// Updates a second of all stations together; 0 means as many as possible.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    rate: u64,
    /// End after so many updates.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// The same seed makes the same weather.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Begin when some station has so many subscribers.
    #[arg(long, value_name = "N", default_value_t = 0)]
    subscribers: usize,
    /// Wait for slow subscribers; without this they lose what they have no room for.
    #[arg(long)]
    wait: bool,
}

fn zip(text: &str) -> Result<String, String> {
    if text.len() < ZIP_LENGTH && text.bytes().all(|digit| digit.is_ascii_digit()) {
        return Ok(text.to_owned());
    }
    Err(format!("must be fewer than {ZIP_LENGTH} digits"))
}

pub(crate) async fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut stations = Stations::new(arguments)?;
    let slow = if arguments.wait { SlowSubscriber::Wait } else { SlowSubscriber::DropNewest };
    let socket = PubSocket::builder().slow_subscriber(slow).build()?;
    let by_default = arguments.bind.is_empty() && arguments.connect.is_empty();
    for endpoint in arguments.bind.iter().cloned().chain(by_default.then(|| ENDPOINT.parse()).transpose()?) {
        eprintln!("Listening on {}", socket.bind(endpoint).await?);
    }
    for endpoint in &arguments.connect {
        socket.connect(endpoint)?;
    }

    let mut progress = Progress::new(arguments.count);
    tokio::select! {
        result = publish(&socket, &mut stations, arguments, &mut progress) => result?,
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    progress.bar.finish_and_clear();
    let closed = socket.close().await?;
    progress.print(&stations, &socket, closed);
    Ok(())
}

/// Ready when everything has been sent.
async fn publish(
    socket: &PubSocket,
    stations: &mut Stations,
    arguments: &Arguments,
    progress: &mut Progress,
) -> Result<(), Failure> {
    if arguments.subscribers > 0 {
        let zips = stations.all.iter().map(|station| station.zip);
        let wanted = zips.map(|zip| Box::pin(socket.wait_subscribed(zip, arguments.subscribers)));
        select_all(wanted).await.0?;
    }
    progress.begin = Instant::now();
    let count = arguments.count.unwrap_or(u64::MAX);
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while progress.sent < count {
        ticks.tick().await;
        loop {
            let due = match arguments.rate {
                0 => count,
                rate => count.min(due(rate, progress.begin.elapsed())),
            };
            let batch = due.saturating_sub(progress.sent).min(BATCH);
            if batch == 0 {
                break;
            }
            for _ in 0..batch {
                socket.send(stations.measure()).await?;
                progress.sent += 1;
            }
            progress.bar.set_position(progress.sent);
        }
    }
    Ok(())
}

/// How many updates should have been sent by now.
fn due(rate: u64, elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_micros() * u128::from(rate) / 1_000_000).unwrap_or(u64::MAX)
}

/// A place, and its weather at present.
#[derive(Debug)]
struct Station {
    zip: Zip,
    updates: u64,
    celsius: f64,
    humidity: f64,
}

/// The land, and chance.
#[derive(Debug)]
struct Stations {
    all: Vec<Station>,
    chance: fastrand::Rng,
}

impl Stations {
    fn new(arguments: &Arguments) -> Result<Self, Failure> {
        // Each part of the land has its own weather.
        let seed = arguments.zip.bytes().fold(arguments.seed, |seed, digit| seed.wrapping_mul(256) ^ u64::from(digit));
        let mut chance = fastrand::Rng::with_seed(seed);
        let digits = ZIP_LENGTH - arguments.zip.len();
        let room = (0..digits).fold(1, |room, _| room * 10);
        if arguments.stations > room {
            return Err(format!("there are only {room} zip codes that begin with '{}'", arguments.zip).into());
        }
        let mut numbers = chance.choose_multiple(0..room, usize::try_from(arguments.stations)?);
        numbers.sort_unstable();
        let zips =
            numbers.iter().filter_map(|number| Zip::new(format!("{}{number:0digits$}", arguments.zip).as_bytes()));
        let all = zips
            .map(|zip| Station { zip, updates: 0, celsius: 30.0 * chance.f64() - 5.0, humidity: 100.0 * chance.f64() })
            .collect();
        Ok(Self { all, chance })
    }

    /// Some station's next update: the weather there has changed a little.
    fn measure(&mut self) -> Update {
        let station = self.chance.usize(..self.all.len());
        let station = &mut self.all[station];
        station.updates += 1;
        station.celsius = (station.celsius + self.chance.f64() - 0.5).clamp(-30.0, 50.0);
        station.humidity = (station.humidity + 4.0 * self.chance.f64() - 2.0).clamp(0.0, 100.0);
        Update { zip: station.zip, number: station.updates, celsius: station.celsius, humidity: station.humidity }
    }
}

/// What has been done so far.
#[derive(Debug)]
struct Progress {
    sent: u64,
    begin: Instant,
    /// Hidden if standard error is no terminal.
    bar: ProgressBar,
}

impl Progress {
    fn new(count: Option<u64>) -> Self {
        let template = match count {
            Some(_) => "{bar:40} {human_pos} of {human_len} updates, {rate}, {eta} left",
            None => "{spinner} {human_pos} updates, {rate}",
        };
        let bar = ProgressBar::no_length().with_style(style(template));
        if let Some(count) = count {
            bar.set_length(count);
        }
        Self { sent: 0, begin: Instant::now(), bar }
    }

    fn print(&self, stations: &Stations, socket: &PubSocket, closed: Closed) {
        let (elapsed, stats) = (self.begin.elapsed(), socket.stats());
        let heard = stations.all.iter().filter(|station| station.updates > 0).count() as u64;
        println!(
            "sent      {} updates of {} stations, {}/s",
            HumanCount(self.sent),
            HumanCount(heard),
            rate(self.sent, elapsed)
        );
        println!("unwanted  {}: nobody had subscribed to them", HumanCount(stats.messages_unmatched));
        println!("dropped   {}: their subscribers were too slow, or went", HumanCount(stats.messages_dropped));
        if closed.unsent > 0 {
            println!("unsent    {}: time was over", HumanCount(closed.unsent));
        }
    }
}
