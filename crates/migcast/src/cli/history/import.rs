//! `migcast history import`: dirty rates that other tools measured, as a rate series.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use migcast_history::format::{Block, Manifest, WrittenMeans};
use migcast_history::import::{self, Asked, Built, Imported, RateUnit, SeriesBuilder};
use migcast_history::rates::{RateSeries, SPAN_MAX};
use migcast_history::sample::Sample;
use migcast_model::quantity::{self, show_duration};
use migcast_model::units::ByteCount;

/// How long a rate is believed without a new one: what Prometheus does with a value.
const HOLD: &str = "5m";

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    migcast history import --format csv rates.csv --memory 4GiB --out web.rates\n  \
    migcast history import --format qemu replies.jsonl --memory 4GiB --out web.rates\n  \
    migcast history import --format virsh domstats.txt --domain web --memory 4GiB --out web.rates\n  \
    migcast history import --format kubevirt answer.json --vmi shop/web --memory 4GiB --out web.rates")]
pub(crate) struct ImportArgs {
    /// Files in the order of time; - is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Whose they are
    #[arg(long, value_enum)]
    format: Format,
    /// Directory of the new history, which must not exist or be empty
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// The guest's memory; only virsh's text may say it, with --balloon
    #[arg(long, value_name = "SIZE", value_parser = quantity::parse_bytes)]
    memory: Option<ByteCount>,
    /// Size of its pages
    #[arg(long, value_name = "SIZE", default_value = "4KiB", value_parser = quantity::parse_bytes)]
    page_size: ByteCount,
    /// How long each rate was measured, where the file does not say (csv, kubevirt, qemu) [default: 1s, not for qemu]
    #[arg(long, value_name = "TIME", value_parser = parse_span)]
    span: Option<Duration>,
    /// How long a rate stays in force when no new one comes
    #[arg(long, value_name = "TIME", default_value = HOLD, value_parser = quantity::parse_duration)]
    hold: Duration,
    /// When the guest's host booted, from which QEMU before 8.2 counts its times (qemu, virsh)
    #[arg(long, value_name = "TIMESTAMP", value_parser = parse_timestamp)]
    boot: Option<jiff::Timestamp>,
    /// A time when the guest was migrating: what was measured then depends on the link and is left out. May be repeated
    #[arg(long, value_name = "FROM..TO", value_parser = parse_range)]
    migrating: Vec<Range<i64>>,
    /// Which of several domains (virsh)
    #[arg(long, value_name = "NAME")]
    domain: Option<String>,
    /// Which of several VM instances (kubevirt)
    #[arg(long, value_name = "[NAMESPACE/]NAME")]
    vmi: Option<String>,
    /// Column of times: RFC 3339, or seconds since 1970 (csv) [default: the one named time, timestamp, …]
    #[arg(long, value_name = "COLUMN")]
    time_column: Option<String>,
    /// Column of rates (csv) [default: the one with rate or a unit in its name]
    #[arg(long, value_name = "COLUMN")]
    rate_column: Option<String>,
    /// Unit of rates: pages/s, B/s, KiB/s, MiB/s, GiB/s, MB/s, GB/s (csv) [default: the one in the column's name]
    #[arg(long, value_name = "UNIT", value_parser = parse_unit)]
    unit: Option<RateUnit>,
    /// Name of the guest [default: what the file says, or the file's name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// UUID of the guest [default: a new one]
    #[arg(long, value_name = "UUID", value_parser = parse_uuid)]
    guest_id: Option<uuid::Uuid>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A header line, a column of times and one of rates
    Csv,
    /// Replies to query-dirty-rate, one JSON object a line
    Qemu,
    /// Text of `virsh domstats --dirtyrate`
    Virsh,
    /// Prometheus's answer to a range query for kubevirt_vmi_dirty_rate_bytes_per_second
    Kubevirt,
}

impl Format {
    fn of_library(self) -> import::Format {
        match self {
            Format::Csv => import::Format::Csv,
            Format::Qemu => import::Format::Qemu,
            Format::Virsh => import::Format::Virsh,
            Format::Kubevirt => import::Format::Kubevirt,
        }
    }
}

fn parse_span(text: &str) -> Result<Duration, String> {
    let span = quantity::parse_duration(text).map_err(|error| error.to_string())?;
    let known = !span.is_zero() && span <= SPAN_MAX;
    known.then_some(span).ok_or_else(|| format!("`{text}` is not allowed: more than 0, at most 24h"))
}

fn parse_timestamp(text: &str) -> Result<jiff::Timestamp, String> {
    text.parse().map_err(|_| format!("`{text}` is not a time such as 2026-01-31T12:00:00Z"))
}

fn parse_range(text: &str) -> Result<Range<i64>, String> {
    let unix_ns = |text: &str| i64::try_from(parse_timestamp(text).ok()?.as_nanosecond()).ok();
    let ends = text.split_once("..").and_then(|(from, to)| Some((unix_ns(from)?, unix_ns(to)?)));
    ends.filter(|(from, to)| from < to).map(|(from, to)| from..to).ok_or_else(|| {
        format!("`{text}` is not FROM..TO, such as 2026-01-31T12:00:00Z..2026-01-31T12:05:00Z, with TO after FROM")
    })
}

fn parse_unit(text: &str) -> Result<RateUnit, String> {
    text.parse().map_err(|error: import::UnitError| error.to_string())
}

fn parse_uuid(text: &str) -> Result<uuid::Uuid, String> {
    text.parse().map_err(|_| format!("`{text}` is not a UUID such as 67e55044-10b1-426f-9247-bb680e5fe0c8"))
}

pub(super) fn import(args: &ImportArgs) -> anyhow::Result<()> {
    refuse_idle(args)?;
    let page_size = args.page_size.get();
    // Before anything divides by it; the manifest's own rules come with the rest.
    ensure!(
        page_size.is_power_of_two(),
        "--page-size: {page_size} bytes are not allowed: a power of two, such as 4KiB"
    );
    let asked = asked(args);
    let mut read: Vec<(&Path, Imported)> = Vec::new();
    for path in &args.files {
        read.push((path, read_file(args.format, path, &asked)?));
    }
    let memory = memory(args, &read)?;
    let mut builder = SeriesBuilder::new(memory / page_size, args.hold, args.migrating.clone());
    for (path, imported) in &read {
        builder.add(path, &imported.measured)?;
    }
    let last = args.files.last().context("a file is needed")?;
    let built = builder.finish(last)?;
    let unfinished: usize = read.iter().map(|(_, imported)| imported.unfinished).sum();
    let manifest = manifest(args, memory, &read, &built)?;
    let (left_out, repeated) = (built.left_out, built.repeated);
    let series = RateSeries::create(&args.out, manifest, built.rates)?;
    let counts =
        [(left_out, "left out (the guest was migrating)"), (repeated, "told twice"), (unfinished, "not finished")];
    let mut line =
        format!("{}: {} rates, {}", args.out.display(), series.rates().len(), show_duration(series.duration()));
    for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
        line += &format!("; {count} {what}");
    }
    Ok(writeln!(io::stdout(), "{line}")?)
}

/// An option that changes nothing is a misunderstanding.
fn refuse_idle(args: &ImportArgs) -> anyhow::Result<()> {
    use Format::{Csv, Kubevirt, Qemu, Virsh};
    let options: [(&str, bool, &[Format]); 7] = [
        ("--span", args.span.is_some(), &[Csv, Kubevirt, Qemu]),
        ("--boot", args.boot.is_some(), &[Qemu, Virsh]),
        ("--domain", args.domain.is_some(), &[Virsh]),
        ("--vmi", args.vmi.is_some(), &[Kubevirt]),
        ("--time-column", args.time_column.is_some(), &[Csv]),
        ("--rate-column", args.rate_column.is_some(), &[Csv]),
        ("--unit", args.unit.is_some(), &[Csv]),
    ];
    for (option, is_given, formats) in options {
        let names: Vec<String> = formats
            .iter()
            .filter_map(ValueEnum::to_possible_value)
            .map(|format| format!("--format {}", format.get_name()))
            .collect();
        ensure!(!is_given || formats.contains(&args.format), "{option} belongs to {}", names.join(" and "));
    }
    Ok(())
}

fn asked(args: &ImportArgs) -> Asked {
    Asked {
        page_size_bytes: args.page_size.get(),
        span: args.span,
        boot: args.boot,
        guest: args.domain.clone().or_else(|| args.vmi.clone()),
        time_column: args.time_column.clone(),
        rate_column: args.rate_column.clone(),
        unit: args.unit,
    }
}

fn read_file(format: Format, path: &Path, asked: &Asked) -> anyhow::Result<Imported> {
    let mut input: Box<dyn BufRead> = if path == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(path).with_context(|| format!("cannot read {}", path.display()))?))
    };
    Ok(import::read(format.of_library(), &mut input, path, asked)?)
}

/// The guest's memory in bytes: what is given, or else what a file says.
fn memory(args: &ImportArgs, read: &[(&Path, Imported)]) -> anyhow::Result<u64> {
    let said = || read.iter().find_map(|(_, imported)| imported.memory_bytes);
    let memory = args.memory.map(ByteCount::get).or_else(said).with_context(|| {
        format!(
            "--memory is missing: {} does not say how large the guest is; give it, such as 4GiB",
            args.files[0].display()
        )
    })?;
    let page = args.page_size.get();
    ensure!(
        memory >= page && memory.is_multiple_of(page),
        "--memory: {memory} bytes are not allowed: whole pages of {page} bytes, one or more"
    );
    Ok(memory)
}

fn manifest(args: &ImportArgs, memory: u64, read: &[(&Path, Imported)], built: &Built) -> anyhow::Result<Manifest> {
    let first = built.rates.first().context("a series has a rate")?;
    let said = read.iter().find_map(|(_, imported)| imported.guest.clone());
    let file =
        || args.files[0].file_stem().map_or_else(|| "a guest".to_owned(), |stem| stem.to_string_lossy().into_owned());
    Ok(Manifest {
        format: Manifest::format_of_rates(),
        created: jiff::Timestamp::from_nanosecond(first.start_unix_ns.into())?,
        recorder: concat!("migcast ", env!("CARGO_PKG_VERSION")).to_owned(),
        method: "import".to_owned(),
        written_means: WrittenMeans::Rate,
        resource: "ram".to_owned(),
        guest_name: args.name.clone().or(said).unwrap_or_else(file),
        guest_id: args.guest_id.unwrap_or_else(uuid::Uuid::new_v4),
        hypervisor: "unknown".to_owned(),
        hypervisor_version: String::new(),
        accelerator: "unknown".to_owned(),
        page_size_bytes: args.page_size.get(),
        blocks: vec![Block { name: "memory".to_owned(), length_bytes: memory, guest_physical_address: None }],
        window_seconds: first.span.as_secs_f64(),
        sample: Sample::full(),
        keep_pages_seconds: None,
        keep_index_seconds: None,
    })
}
