//! Monitors that misbehave: silent, gone, cut at every message, dripping, talking nonsense.
#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use migcast_record::{Monitor, MonitorError, QmpSocket, qemu};

const GREETING: &str =
    r#"{"QMP":{"version":{"qemu":{"micro":2,"minor":0,"major":10},"package":""},"capabilities":["oob"]}}"#;
const EMPTY: &str = r#"{"return":{}}"#;
const RUNNING: &str = r#"{"return":{"status":"running","running":true}}"#;
const EVENT: &str = r#"{"event":"OF_A_LATER_TIME","data":{},"timestamp":{"seconds":1,"microseconds":2}}"#;
const ASK: &str = r#"{"execute":"query-status"}"#;

/// What the peer does, step by step, with its one client.
#[derive(Clone)]
enum Step {
    /// Sends this.
    Say(String),
    /// Waits for one line.
    Hear,
    /// Sends this byte by byte, this far apart.
    Drip(String, Duration),
    /// Keeps the connection open without a word until the client hangs up.
    Hang,
}

fn say(line: &str) -> Step {
    Step::Say(format!("{line}\n"))
}

/// A peer that plays its steps for one client, then hangs up.
struct Peer {
    path: PathBuf,
    _dir: tempfile::TempDir,
    thread: JoinHandle<()>,
}

impl Peer {
    fn play(steps: Vec<Step>) -> Peer {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("qmp");
        let listener = UnixListener::bind(&path).unwrap();
        let thread = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut input = BufReader::new(stream.try_clone().unwrap());
            // A client that has seen enough hangs up: that ends the play.
            let _ = steps.into_iter().try_for_each(|step| act(step, &stream, &mut input));
        });
        Peer { path, _dir: dir, thread }
    }

    fn ask(self) -> Result<serde_json::Value, MonitorError> {
        let mut socket = QmpSocket::with_timeouts(&self.path, Duration::from_millis(300), Duration::from_millis(300));
        let answer = socket.exchange(ASK);
        drop(socket);
        self.thread.join().unwrap();
        answer
    }
}

fn act(step: Step, mut stream: &UnixStream, input: &mut BufReader<UnixStream>) -> std::io::Result<()> {
    match step {
        Step::Say(text) => stream.write_all(text.as_bytes()),
        Step::Hear => input.read_line(&mut String::new()).map(|_| ()),
        Step::Drip(text, pause) => {
            // The pause is kept by waiting for the client, which says nothing.
            stream.set_read_timeout(Some(pause))?;
            text.bytes().try_for_each(|byte| {
                let _ = input.fill_buf();
                stream.write_all(&[byte])
            })
        }
        Step::Hang => {
            stream.set_read_timeout(None)?;
            input.read_line(&mut String::new()).map(|_| ())
        }
    }
}

#[test]
fn a_monitor_that_behaves_is_asked_past_events_of_a_later_time() {
    let steps =
        vec![say(GREETING), Step::Hear, say(EVENT), say(EMPTY), Step::Hear, say(EVENT), say(RUNNING), Step::Hang];
    let answer = Peer::play(steps).ask().unwrap();
    assert_eq!(answer["return"]["status"], "running");
}

#[test]
fn silence_means_that_another_client_holds_it() {
    let error = Peer::play(vec![Step::Hang]).ask().unwrap_err();
    assert!(matches!(error, MonitorError::Busy { .. }), "{error:?}");
    assert!(error.to_string().contains("use --libvirt DOMAIN, or give QEMU a second -qmp socket"), "{error}");
}

#[test]
fn a_cut_at_any_byte_is_an_error_never_a_panic() {
    let whole = [GREETING, EMPTY, RUNNING];
    for message in 0..whole.len() {
        let line = format!("{}\n", whole[message]);
        for cut in [0, 1, line.len() / 2, line.len() - 1] {
            let mut steps = Vec::new();
            for before in &whole[..message] {
                steps.push(say(before));
                steps.push(Step::Hear);
            }
            steps.push(Step::Say(line[..cut].to_owned()));
            let error = Peer::play(steps).ask().unwrap_err();
            assert!(!error.to_string().contains('\n'), "{error}");
            let right = match message {
                0 => matches!(error, MonitorError::NotQmp { .. } | MonitorError::Gone { .. }),
                _ => matches!(error, MonitorError::Io { .. }),
            };
            assert!(right, "message {message} cut at {cut}: {error:?}");
        }
    }
}

#[test]
fn bytes_that_drip_do_not_stretch_the_deadline() {
    let drip = Step::Drip(format!("{GREETING}\n"), Duration::from_millis(40));
    let error = Peer::play(vec![drip]).ask().unwrap_err();
    assert!(matches!(error, MonitorError::Busy { .. }), "{error:?}");
    let flood =
        vec![say(GREETING), Step::Hear, say(EMPTY), Step::Hear, Step::Drip(EVENT.repeat(50), Duration::from_millis(5))];
    let error = Peer::play(flood).ask().unwrap_err();
    assert!(matches!(error, MonitorError::Io { .. }), "{error:?}");
}

#[test]
fn what_is_not_qmp_is_named() {
    for nonsense in ["SSH-2.0-OpenSSH_9.2", "{\"hello\":1}", "[]", "\u{1}\u{2}", "{\"QMP\":"] {
        let error = Peer::play(vec![say(nonsense), Step::Hang]).ask().unwrap_err();
        assert!(matches!(error, MonitorError::NotQmp { .. }), "{nonsense}: {error:?}");
        assert!(!error.to_string().chars().any(char::is_control), "{error:?}");
    }
    let refused = r#"{"error":{"class":"GenericError","desc":"no"}}"#;
    let error = Peer::play(vec![say(GREETING), Step::Hear, say(refused), Step::Hang]).ask().unwrap_err();
    assert!(matches!(error, MonitorError::NotQmp { .. }), "{error:?}");
}

#[test]
fn an_answer_that_is_not_json_is_an_error_of_this_look() {
    let steps = vec![say(GREETING), Step::Hear, say(EMPTY), Step::Hear, say("<html>"), Step::Hang];
    let error = Peer::play(steps).ask().unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(source, "not JSON: \"<html>\"");
}

#[test]
fn a_wrong_answer_names_the_command() {
    let wrong = vec![say(GREETING), Step::Hear, say(EMPTY), Step::Hear, say(r#"{"return":{"status":7}}"#), Step::Hang];
    let peer = Peer::play(wrong);
    let error = qemu::open(&peer.path).err().unwrap();
    assert!(error.to_string().contains("query-status"), "{error}");
    peer.thread.join().unwrap();
}

#[test]
fn nobody_there_a_file_a_closed_socket() {
    let dir = tempfile::tempdir().unwrap();
    let missing = qemu::open(&dir.path().join("missing")).err().unwrap();
    assert!(missing.to_string().contains("no such socket; is the guest running?"), "{missing}");
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let error = qemu::open(&file).err().unwrap();
    assert!(error.to_string().contains("not a socket"), "{error}");
    let closed = dir.path().join("closed");
    drop(UnixListener::bind(&closed).unwrap());
    let error = qemu::open(&closed).err().unwrap();
    assert!(error.to_string().contains("nobody listens there"), "{error}");
}

/// What a guest answers to the questions of its opening, up to that for its vCPUs.
fn answers(table: &str) -> Vec<String> {
    vec![
        EMPTY.to_owned(),
        RUNNING.to_owned(),
        r#"{"return":{"qemu":{"micro":2,"minor":0,"major":10},"package":""}}"#.to_owned(),
        r#"{"return":{}}"#.to_owned(),
        r#"{"return":{"UUID":"00000000-0000-0000-0000-000000000000"}}"#.to_owned(),
        r#"{"return":{"enabled":false,"present":true}}"#.to_owned(),
        format!(r#"{{"return":{{"human-readable-text":"{table}"}}}}"#),
        r#"{"return":"no tree here"}"#.to_owned(),
    ]
}

fn answering(answers: &[String]) -> Vec<Step> {
    std::iter::once(say(GREETING)).chain(answers.iter().flat_map(|answer| [Step::Hear, say(answer)])).collect()
}

#[test]
fn a_peer_that_is_no_guest_is_refused() {
    // It speaks QMP well, but the memory it tells of is not in its process.
    let table = "Block Name PSize Offset Used Total HVA RO\\n pc.ram 4 KiB 0x0 0x200000 0x200000 0x1000 rw\\n";
    let peer = Peer::play(answering(&answers(table)));
    let error = qemu::open(&peer.path).err().unwrap().to_string();
    assert!(error.contains("2 of 2 MiB of guest memory cannot be found"), "{error}");
    peer.thread.join().unwrap();
}

#[test]
fn a_guest_is_recorded_whatever_it_says_of_its_vcpus() {
    // Its memory, and its vCPU's thread, are this very process's.
    let memory = vec![1u8; 4 * 4096];
    let address = (memory.as_ptr() as u64).next_multiple_of(4096);
    let table =
        format!("Block Name PSize Offset Used Total HVA RO\\n pc.ram 4 KiB 0x0 0x2000 0x2000 {address:#x} rw\\n");
    let open = |last: &[Step]| {
        let mut steps = answering(&answers(&table));
        steps.push(Step::Hear);
        steps.extend(last.iter().cloned());
        let peer = Peer::play(steps);
        let mut guest = qemu::open(&peer.path).unwrap();
        peer.thread.join().unwrap();
        guest.watch.vcpus()
    };
    let thread = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
    let told = format!(r#"{{"return":[{{"cpu-index":0,"thread-id":{thread},"target":"x86_64"}}]}}"#);
    let clocks = open(&[say(&told)]).unwrap();
    assert_eq!(clocks.iter().map(|clock| clock.thread).collect::<Vec<_>>(), [thread]);
    let stranger = r#"{"return":[{"cpu-index":0,"thread-id":1,"target":"x86_64"}]}"#;
    let refused = r#"{"error":{"class":"CommandNotFound","desc":"no"}}"#;
    for last in [stranger, refused, r#"{"return":[{"thread-id":-5}]}"#, r#"{"return":7}"#, "<html>"] {
        assert_eq!(open(&[say(last)]), None, "{last}");
    }
    assert_eq!(open(&[]), None, "it hangs up");
}
