use std::path::Path;

use super::*;
use crate::quote::quoted;

fn asked() -> Asked {
    Asked {
        page_size_bytes: 4_096,
        span: None,
        boot: Some("2026-01-01T00:00:00Z".parse().unwrap()),
        guest: None,
        time_column: None,
        rate_column: None,
        unit: None,
    }
}

fn read_as(format: Format, text: &str, asked: &Asked) -> Result<Imported, ImportError> {
    read(format, &mut text.as_bytes(), Path::new("f"), asked)
}

/// Start in seconds since 2026, span in seconds, pages.
fn plain(imported: &Imported) -> Vec<(i64, f64, u64)> {
    let seconds = |unix_ns: i64| (unix_ns - 1_767_225_600_000_000_000) / 1_000_000_000;
    imported.measured.iter().map(|m| (seconds(m.start_unix_ns), m.span.as_secs_f64(), m.written)).collect()
}

/// An error and its causes on one line, as the program shows it.
fn refusal(format: Format, text: &str, asked: &Asked) -> String {
    let error = read_as(format, text, asked).unwrap_err();
    let mut line = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        line = format!("{line}: {cause}");
        source = cause.source();
    }
    assert!(!line.contains('\n') && line == quoted(&line).trim_end_matches('…') || line.len() > 200, "{line:?}");
    line
}

#[test]
fn csv_is_read_whatever_its_columns_are_called() {
    let expected = [(0, 1.0, 256), (60, 1.0, 512)];
    let texts = [
        "time,dirty_rate_mib_per_s\n2026-01-01T00:00:00Z,1\n2026-01-01T01:01:00+01:00,2\n",
        "\u{feff}Timestamp,host,rate (pages/s)\r\n1767225600,a,256\r\n\r\n1767225660.0,a,512\r\n",
        "# made by hand\ndirty_rate_bytes_per_second,\"time\"\n1048576,1767225600\n\"2097152\",1767225660",
    ];
    for text in texts {
        assert_eq!(plain(&read_as(Format::Csv, text, &asked()).unwrap()), expected, "{text}");
    }
    let told = Asked {
        time_column: Some("when".into()),
        rate_column: Some("x".into()),
        unit: Some("MB/s".parse().unwrap()),
        ..asked()
    };
    let read = read_as(Format::Csv, "when,x\n1767225600,4.096\n", &told).unwrap();
    assert_eq!(plain(&read), [(0, 1.0, 1_000)]);
}

#[test]
fn a_state_leaves_lines_of_csv_out() {
    let text = "time,rate_pages_per_s,state\n1767225600,5,recorded\n1767225601,,migrating\n1767225602,7,\n";
    let read = read_as(Format::Csv, text, &asked()).unwrap();
    assert_eq!(read.measured.iter().map(|m| m.left_out).collect::<Vec<_>>(), [false, true, false]);
}

#[test]
fn what_is_wrong_with_a_line_of_csv_is_told_with_its_number() {
    let head = "time,rate_pages_per_s\n";
    let time = "allowed: a time such as 2026-01-31T12:00:00Z, or seconds since 1970 up to the year 2200";
    let rate = "allowed: a number of 0 or more, and less than 2^48 pages in the span that was measured";
    let cases = [
        ("1767225600,-1\n", format!("f, line 2: rate_pages_per_s is -1, {rate}")),
        ("\n\n1767225600,NaN\n", format!("f, line 4: rate_pages_per_s is NaN, {rate}")),
        ("1767225600,inf\n", format!("f, line 2: rate_pages_per_s is inf, {rate}")),
        ("1767225600,1e30\n", format!("f, line 2: rate_pages_per_s is 1e30, {rate}")),
        ("1767225600,\n", format!("f, line 2: rate_pages_per_s is , {rate}")),
        ("2026-01-01 12:00,1\n", format!("f, line 2: time is 2026-01-01 12:00, {time}")),
        ("1767225600000,1\n", format!("f, line 2: time is 1767225600000, {time}")),
        ("-5,1\n", format!("f, line 2: time is -5, {time}")),
        ("1,2,3\n", "f, line 2: the number of columns is 3, allowed: 2, as the header line has".into()),
        ("\"1,2\n", "f, line 2: the line is \"1,2, allowed: up to 1024 columns, quotation marks that end in it".into()),
    ];
    for (text, expected) in cases {
        assert_eq!(refusal(Format::Csv, &format!("{head}{text}"), &asked()), expected);
    }
}

#[test]
fn a_header_that_does_not_tell_is_asked_about() {
    let cases = [
        ("a,b\n", "f: no column is known as the time, name one with --time-column; there are a, b"),
        ("time,b\n", "f: no column is known as the rate, name one with --rate-column; there are time, b"),
        ("time,rate_a,rate_b\n", "f: 2 columns could be the rate, name one with --rate-column: time, rate_a, rate_b"),
        ("time,rate_mb_s\n", "f: the column `rate_mb_s` does not say its unit: give --unit, such as pages/s or MiB/s"),
    ];
    for (text, expected) in cases {
        assert_eq!(refusal(Format::Csv, text, &asked()), expected);
    }
    let many = (0..300).map(|column| format!("{column}{}", "\u{7}".repeat(50))).collect::<Vec<_>>().join(",");
    let line = refusal(Format::Csv, &many, &asked());
    assert!(line.len() < 4_000 && line.ends_with("\\u{7}… and 292 more"), "{line}");
    let told = Asked { rate_column: Some("y".into()), ..asked() };
    let line = refusal(Format::Csv, "time,x\n", &told);
    assert_eq!(line, "f: --rate-column: no column `y`, the header line has time, x");
}

#[test]
fn a_line_without_an_end_is_not_held_in_memory() {
    let mut endless = std::io::BufReader::new(std::io::repeat(b'x'));
    let error = read(Format::Csv, &mut endless, Path::new("f"), &asked()).unwrap_err();
    assert_eq!(error.to_string(), "f, line 1: longer than 65536 bytes, allowed: lines of text");
    let longest = format!("time,rate_pages_per_s,{}\n", "x".repeat(LINE_BYTES_MAX - 23));
    assert!(read_as(Format::Csv, &longest, &asked()).is_ok());
}

#[test]
fn qemu_is_read_out_of_a_log_of_its_monitor() {
    let text = r#"{"QMP": {"version": {}}}
{"return": {}}
{"return": {"status": "measuring", "sample-pages": 512, "mode": "page-sampling", "start-time": 60, "calc-time": 1}}
{"return": {"status": "measured", "sample-pages": 512, "dirty-rate": 3, "mode": "page-sampling", "start-time": 60, "calc-time": 2}, "id": "libvirt-17"}
{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "RESUME"}
{"status": "measured", "dirty-rate": 8, "mode": "dirty-ring", "start-time": 90, "calc-time": 500, "calc-time-unit": "millisecond", "vcpu-dirty-rate": [{"id": 0, "dirty-rate": 8}]}
{"status": "unstarted", "dirty-rate": -1, "start-time": 0, "calc-time": 0}
"#;
    let read = read_as(Format::Qemu, text, &asked()).unwrap();
    assert_eq!(plain(&read), [(60, 2.0, 3 * 2 * 256), (90, 0.5, 8 * 128)]);
    assert_eq!(read.unfinished, 2);
}

#[test]
fn what_is_wrong_with_a_reply_is_told_with_its_line() {
    let reply = |fields: &str| format!("{{\"status\": \"measured\", \"start-time\": 5, {fields}}}\n");
    let cases = [
        ("{\n".to_owned(), "f, line 1, column 1: EOF while parsing an object"),
        ("[]\n".to_owned(), "f, line 1: invalid length 0, expected struct DirtyRateInfo with 5 elements"),
        (reply("\"dirty-rate\": 5"), "f, line 1: missing field `calc-time`"),
        (
            reply("\"calc-time\": 0, \"dirty-rate\": 5"),
            "f, line 1: calc-time is 0, allowed: more than 0; where it was rounded down from less than a second, say with --span \
             how long it was",
        ),
        (
            reply("\"calc-time\": 1, \"dirty-rate\": -7"),
            "f, line 1: dirty-rate is -7, allowed: a number of 0 or more, and less than 2^48 pages in the span that was \
             measured",
        ),
        (
            "{\"status\": \"done\", \"start-time\": 5, \"calc-time\": 1}".to_owned(),
            "f, line 1: unknown variant `done`, expected one of `unstarted`, `measuring`, `measured`",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(refusal(Format::Qemu, &text, &asked()), expected);
    }
    let asleep = Asked { boot: None, ..asked() };
    let line = refusal(Format::Qemu, &reply("\"calc-time\": 1, \"dirty-rate\": 7"), &asleep);
    assert!(
        line.starts_with("f: start-time 5 counts from the boot of the guest's host, as QEMU before 8.2 does"),
        "{line}"
    );
}

#[test]
fn newer_versions_of_qemu_state_the_time_of_day() {
    // As QEMU 10.0.2 answers; the second was asked for with 500 ms.
    let text = r#"{"return": {"status": "measured", "sample-pages": 512, "dirty-rate": 2, "mode": "page-sampling", "calc-time-unit": "second", "start-time": 1767225600, "calc-time": 1}}
{"return": {"status": "measured", "sample-pages": 512, "dirty-rate": 2, "mode": "page-sampling", "calc-time-unit": "second", "start-time": 1767225602, "calc-time": 0}}
"#;
    let asked = Asked { boot: None, span: Some(Duration::from_millis(500)), ..asked() };
    assert_eq!(plain(&read_as(Format::Qemu, text, &asked).unwrap()), [(0, 1.0, 512), (2, 0.5, 256)]);
}

const DOMSTATS: &str = "Domain: 'web'
  dirtyrate.calc_status=2
  dirtyrate.calc_start_time=60
  dirtyrate.calc_period=1
  dirtyrate.megabytes_per_second=4
  dirtyrate.calc_mode=dirty-ring
  dirtyrate.vcpu.0.megabytes_per_second=4
  balloon.maximum=2097152

Domain: 'db'
  dirtyrate.calc_status=1

Domain: 'web'
  dirtyrate.calc_status=2
  dirtyrate.calc_start_time=90
  dirtyrate.calc_period=2
  dirtyrate.megabytes_per_second=1
";

#[test]
fn virsh_is_read_for_the_domain_that_is_asked_for() {
    let of = |guest: &str| read_as(Format::Virsh, DOMSTATS, &Asked { guest: Some(guest.into()), ..asked() });
    let web = of("web").unwrap();
    assert_eq!(plain(&web), [(60, 1.0, 1_024), (90, 2.0, 512)]);
    assert_eq!((web.guest.as_deref(), web.memory_bytes), (Some("web"), Some(2 << 30)));
    let db = of("db").unwrap();
    assert_eq!((db.measured.len(), db.unfinished), (0, 1));
    assert_eq!(of("x").unwrap_err().to_string(), "f: no domain named x, there are: web, db");
    let line = refusal(Format::Virsh, DOMSTATS, &asked());
    assert_eq!(line, "f: 2 domains, choose with --domain: web, db");
    let crlf = DOMSTATS.replace('\n', "\r\n");
    assert_eq!(read_as(Format::Virsh, &crlf, &Asked { guest: Some("web".into()), ..asked() }).unwrap(), web);
}

#[test]
fn what_is_wrong_with_domstats_is_told_with_its_line() {
    let cases = [
        ("", "f: no domain in it, allowed: one or more"),
        ("error: no\n", "f, line 1: the line is error: no, allowed: Domain: 'NAME', and under it lines of KEY=VALUE"),
        (
            "Domain: 'a'\n dirtyrate.calc_status=9\n",
            "f, line 2: dirtyrate.calc_status is 9, allowed: 0 (unstarted), 1 (measuring) or 2 (measured)",
        ),
        ("Domain: 'a'\n dirtyrate.calc_status=x\n", "f, line 2: dirtyrate.calc_status is x, allowed: a whole number"),
        (
            "Domain: 'a'\n dirtyrate.calc_status=2\n dirtyrate.calc_period=1\n dirtyrate.calc_period=1\n",
            "f, line 4: dirtyrate.calc_period is 1, allowed: once in a domain's block",
        ),
        (
            "Domain: 'a'\n dirtyrate.calc_status=2\n",
            "f, line 1: dirtyrate.calc_start_time is missing, allowed: a whole number in each block",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(refusal(Format::Virsh, text, &asked()), expected);
    }
}

fn answer(result: &str) -> String {
    format!("{{\"status\": \"success\", \"data\": {{\"resultType\": \"matrix\", \"result\": [{result}]}}}}")
}

fn result(namespace: &str, node: &str, values: &str) -> String {
    format!(
        "{{\"metric\": {{\"__name__\": \"kubevirt_vmi_dirty_rate_bytes_per_second\", \"name\": \"vm\", \
         \"namespace\": \"{namespace}\", \"node\": \"{node}\"}}, \"values\": [{values}]}}"
    )
}

#[test]
fn kubevirt_is_read_over_all_nodes_of_a_guest() {
    let b = result("shop", "b", "[1767225661, \"4096\"], [1767225691, \"8192\"]");
    let a = result("shop", "a", "[1767225601.0, \"40960\"]");
    let read = read_as(Format::Kubevirt, &answer(&format!("{b}, {a}")), &asked()).unwrap();
    assert_eq!(plain(&read), [(0, 1.0, 10), (60, 1.0, 1), (90, 1.0, 2)]);
    assert_eq!(read.guest.as_deref(), Some("shop/vm"));
    let two = answer(&format!("{a}, {}", result("test", "a", "[1767225601, \"0\"]")));
    let of = |guest: &str| Asked { guest: Some(guest.into()), ..asked() };
    assert_eq!(plain(&read_as(Format::Kubevirt, &two, &of("test/vm")).unwrap()), [(0, 1.0, 0)]);
    assert_eq!(refusal(Format::Kubevirt, &two, &asked()), "f: 2 VM instances, choose with --vmi: shop/vm, test/vm");
    let line = refusal(Format::Kubevirt, &two, &of("vm"));
    assert_eq!(line, "f: 2 namespaces have a vm, say which with --vmi NAMESPACE/NAME");
    let line = refusal(Format::Kubevirt, &two, &of("x"));
    assert_eq!(line, "f: no VM instance named x, there are: shop/vm, test/vm");
}

#[test]
fn what_is_wrong_with_an_answer_is_told_with_its_place() {
    let cases = [
        (String::new(), "f: EOF while parsing a value at line 1 column 0"),
        (
            "{\"status\": \"error\", \"errorType\": \"bad_data\", \"error\": \"end\\nbefore start\"}".to_owned(),
            "f: status is error (end\\nbefore start), allowed: success, with data",
        ),
        (
            answer("").replace("matrix", "vector"),
            "f: data.resultType is vector, allowed: matrix, which a range query gives",
        ),
        (answer(""), "f: no VM instance in it, allowed: one or more"),
        (answer("{\"metric\": {}, \"values\": []}"), "f: result 1 has no label `name`, which names the guest"),
        (
            answer("{\"metric\": {\"__name__\": \"up\"}, \"values\": []}"),
            "f: result 1 is of up, allowed: kubevirt_vmi_dirty_rate_bytes_per_second",
        ),
        (
            answer(&result("s", "a", "[1, \"5\"], [2, \"NaN\"]")),
            "f, result 1, value 2: the rate is NaN, allowed: a number of 0 or more, and less than 2^48 pages in the span \
             that was measured",
        ),
        (
            answer(&result("s", "a", "[1e12, \"5\"]")),
            "f, result 1, value 1: the time is 1000000000000, allowed: seconds since 1970 up to the year 2200, as \
             Prometheus writes them",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(refusal(Format::Kubevirt, &text, &asked()), expected);
    }
}

fn measured(seconds: f64, written: u64) -> Measured {
    let start_unix_ns = (seconds * 1e9) as i64;
    Measured { place: Place::Line(7), start_unix_ns, span: Duration::from_secs(1), written, left_out: false }
}

/// Start, end and pages of a rate; seconds.
type InForce = (f64, f64, u64);

fn build(measured: &[Measured], migrating: &[std::ops::Range<i64>]) -> Result<(Vec<InForce>, Built), ImportError> {
    let migrating = migrating.iter().map(|range| range.start * 1_000_000_000..range.end * 1_000_000_000).collect();
    let mut builder = SeriesBuilder::new(1_000, Duration::from_secs(60), migrating);
    builder.add(Path::new("f"), measured)?;
    let built = builder.finish(Path::new("f"))?;
    let seconds = |unix_ns: i64| unix_ns as f64 / 1e9;
    let rates = built.rates.iter().map(|r| (seconds(r.start_unix_ns), seconds(r.end_unix_ns), r.written)).collect();
    Ok((rates, built))
}

#[test]
fn a_rate_is_in_force_until_the_next_one_or_until_it_is_too_old() {
    let (rates, _) = build(&[measured(0.0, 1), measured(30.0, 2), measured(100.0, 3)], &[]).unwrap();
    assert_eq!(rates, [(0.0, 30.0, 1), (30.0, 90.0, 2), (100.0, 101.0, 3)]);
    let (rates, _) = build(&[measured(0.0, 1), measured(0.25, 2)], &[]).unwrap();
    assert_eq!(rates, [(0.0, 0.25, 1), (0.25, 1.25, 2)]);
}

#[test]
fn what_a_migration_overlaps_is_left_out_and_nothing_is_held_into_it() {
    let all = [measured(0.0, 1), measured(30.0, 2), measured(50.0, 3), measured(60.0, 4)];
    let (rates, built) = build(&all, &[20..31, 45..50]).unwrap();
    assert_eq!(rates, [(0.0, 20.0, 1), (50.0, 60.0, 3), (60.0, 61.0, 4)]);
    assert_eq!(built.left_out, 1);
    let said = Measured { left_out: true, written: 0, ..measured(30.0, 0) };
    let (rates, built) = build(&[all[0], said, all[3]], &[]).unwrap();
    assert_eq!(rates, [(0.0, 30.0, 1), (60.0, 61.0, 4)]);
    assert_eq!(built.left_out, 1);
    let error = build(&all[..1], &[0..1, 5..6]).unwrap_err();
    assert_eq!(error.to_string(), "f: all 1 measurements are left out, as the guest was migrating");
}

#[test]
fn an_answer_given_twice_counts_once() {
    let again = Measured { place: Place::Line(8), ..measured(0.0, 1) };
    let (rates, built) = build(&[measured(0.0, 1), again, measured(5.0, 1)], &[]).unwrap();
    assert_eq!((rates.len(), built.repeated), (2, 1));
}

#[test]
fn measurements_that_cannot_be_are_refused() {
    let line = |measured: &[Measured]| build(measured, &[]).unwrap_err().to_string();
    assert_eq!(
        line(&[measured(5.0, 1), measured(5.0, 2)]),
        "f, line 7: the start is 1970-01-01T00:00:05Z, allowed: later than 1970-01-01T00:00:05Z, the one before"
    );
    assert_eq!(
        line(&[measured(5.0, 1_001)]),
        "f, line 7: pages written is 1001 within 1 s, allowed: up to the guest's 1000"
    );
    assert_eq!(line(&[]), "f: no finished measurement in it, allowed: one or more");
}
