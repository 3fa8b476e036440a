//! A channel with a file: the contents of the file, the restored history, truncation, and files that are refused.

use super::channel::{eventually, feeding, subscribe};
use super::event_stream::{parse, Event};
use super::examples::{program, Example};
use super::machine::{run_if_installed, TemporaryDirectory};
use brooklet::sse::{Channel, ChannelConfig, Message, Newcomers, SyncPolicy};
use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A directory for the file of one channel.
pub struct Folder(TemporaryDirectory);

impl Folder {
    pub fn new() -> Folder {
        Folder(TemporaryDirectory::new())
    }

    /// Returns the path of a file in the directory.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Returns the path of the channel's file.
    pub fn log(&self) -> PathBuf {
        self.join("log.sse")
    }

    fn old(&self) -> PathBuf {
        self.join("log.sse.old")
    }

    /// Parses the channel's file as an event stream, and returns its events.
    fn events(&self) -> Vec<Event> {
        parse(&fs::read(self.log()).unwrap())
    }

    /// Returns all paths in the directory, each with the bytes of its file. The bytes are empty if a path cannot be
    /// read.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| (path.clone(), fs::read(path).unwrap_or_default())).collect()
    }
}

fn open(path: &Path) -> Channel {
    open_with(path, ChannelConfig { sync: SyncPolicy::Never, ..ChannelConfig::default() })
}

pub fn open_with(path: &Path, config: ChannelConfig) -> Channel {
    Channel::open(path, config).unwrap()
}

/// Returns a configuration in which a new client receives the whole history.
fn everything() -> ChannelConfig {
    ChannelConfig { newcomers: Newcomers::Last(usize::MAX), sync: SyncPolicy::Never, ..ChannelConfig::default() }
}

/// Returns the first `count` events that a new client receives.
pub fn history(channel: &Channel, count: usize) -> Vec<Event> {
    let server = feeding(channel);
    let mut subscriber = subscribe(&server, "/", "");
    (0..count).map(|_| subscriber.next()).collect()
}

fn data(events: Vec<Event>) -> Vec<String> {
    events.into_iter().map(|event| event.data).collect()
}

#[test]
fn file_contains_the_event_stream_that_was_sent() {
    let folder = Folder::new();
    let channel = open(&folder.log());
    let server = feeding(&channel);
    let mut subscriber = subscribe(&server, "/", "");
    let messages = [
        Message::from("text"),
        Message::new().event("named").data("two\nlines\n"),
        Message::new().id("own").data("é \u{1f600}").retry(Duration::from_secs(3)),
        Message::new().data(": 00000000 looks-1\n\nlike a record"),
        Message::new().data(""),
    ];
    for message in &messages {
        channel.publish(message.clone()).unwrap();
    }
    let got: Vec<_> = messages.iter().map(|_| subscriber.next()).collect();
    assert_eq!(folder.events(), got);
    let text = fs::read_to_string(folder.log()).unwrap();
    assert!(text.starts_with(": an event log of brooklet, version 1\n\n: "), "{text}");
    for message in &messages {
        let frame = message.to_string();
        assert!(text.contains(frame.trim_end_matches('\n')), "the file contains the frame that was sent: {message}");
    }
}

#[test]
fn publish_that_fails_writes_nothing_to_the_file() {
    let folder = Folder::new();
    let channel =
        open_with(&folder.log(), ChannelConfig { max_bytes: 100, sync: SyncPolicy::Never, ..ChannelConfig::default() });
    assert_eq!(fs::read(folder.log()).unwrap(), b"", "the file is empty before the first event");
    channel.publish("first").unwrap();
    assert!(channel.publish("x".repeat(100)).is_err() && channel.publish(Message::new().event("\n")).is_err());
    channel.publish("second").unwrap();
    assert_eq!(data(folder.events()), ["first", "second"]);
}

#[test]
fn resume_after_a_restart_sends_the_events_after_the_last_id() {
    let folder = Folder::new();
    let ids: Vec<_> = (0..3)
        .flat_map(|run| {
            let channel = open(&folder.log());
            (0..3)
                .map(|n| channel.publish(format!("{run}.{n}")).unwrap().to_string())
                .collect::<Vec<_>>()
        })
        .collect();
    let numbers: Vec<_> = ids.iter().map(|id| id.rsplit('-').next().unwrap()).collect();
    assert_eq!(numbers, ["0", "1", "2", "3", "4", "5", "6", "7", "8"]);

    let channel = open_with(&folder.log(), everything());
    let server = feeding(&channel);
    for (had, id) in ids.iter().enumerate() {
        let mut client = subscribe(&server, "/", &format!("Last-Event-ID: {id}\r\n"));
        for expected in &ids[had + 1..] {
            assert_eq!(&client.next().last_event_id, expected);
        }
        channel.publish("live").unwrap();
        while client.data() != "live" {}
    }
    let mut newcomer = subscribe(&server, "/", "");
    assert_eq!((newcomer.data(), newcomer.next().last_event_id), ("0.0".to_owned(), ids[1].clone()));
}

#[test]
fn resume_with_an_id_of_the_program_after_a_restart_sends_later_events() {
    let folder = Folder::new();
    let channel = open(&folder.log());
    for n in 0..5 {
        channel.publish(Message::new().id(format_args!("own {n}")).data(n)).unwrap();
    }
    drop(channel);
    let channel = open(&folder.log());
    let server = feeding(&channel);
    let mut client = subscribe(&server, "/", "Last-Event-ID: own 3\r\n");
    assert_eq!(client.data(), "4");
    assert!(channel.publish("with a generated id").unwrap().as_str().ends_with("-5"));
    assert_eq!(client.data(), "with a generated id");
}

#[test]
fn gap_that_was_published_is_restored_from_the_file() {
    let folder = Folder::new();
    let channel = open(&folder.log());
    let id = channel.publish("before").unwrap();
    channel.publish_gap().unwrap();
    channel.publish("after").unwrap();
    let events = folder.events();
    assert_eq!((events[1].kind.as_str(), events[1].data.as_str()), ("gap", format!("{id}\n").as_str()));
    drop(channel);
    let channel = open(&folder.log());
    let server = feeding(&channel);
    let mut client = subscribe(&server, "/", &format!("Last-Event-ID: {id}\r\n"));
    assert_eq!((client.next().kind, client.data()), ("gap".to_owned(), "after".to_owned()));
}

#[test]
fn history_restored_with_smaller_bounds_keeps_the_newest_events() {
    let folder = Folder::new();
    let channel = open(&folder.log());
    (0..100).for_each(|n| drop(channel.publish(n.to_string()).unwrap()));
    channel.publish("x".repeat(1_000)).unwrap();
    (101..104).for_each(|n| drop(channel.publish(n.to_string()).unwrap()));
    drop(channel);
    let last = |config: ChannelConfig, count| {
        let channel = open_with(&folder.log(), config);
        channel.publish("last").unwrap();
        let events = history(&channel, count);
        channel.close(); // a drop is not enough, because threads of the server may still have clones
        data(events)
    };
    let config = ChannelConfig { max_events: 3, ..everything() };
    assert_eq!(last(config, 3), ["102", "103", "last"]);
    let config = ChannelConfig { max_bytes: 900, ..everything() };
    assert_eq!(
        last(config, 5),
        ["101", "102", "103", "last", "last"],
        "an event larger than the bound hides the events before it"
    );
}

#[test]
fn rotation_keeps_the_whole_history_in_two_files() {
    let folder = Folder::new();
    let config = ChannelConfig { max_bytes: 2_000, ..everything() };
    let channel = open_with(&folder.log(), config.clone());
    channel.publish("0").unwrap();
    let mut reader = fs::File::open(folder.log()).unwrap();
    let mut was_read = Vec::new();
    let mut segments = 0;
    for n in 1..1_000 {
        channel.publish(n.to_string()).unwrap();
        let segment = fs::read(folder.log()).unwrap();
        let old = fs::read(folder.old()).unwrap_or_default();
        assert!(segment.len() < 4_500 && old.len() < 4_500, "{} and {} bytes", segment.len(), old.len());
        let events = [parse(&old), parse(&segment)].concat();
        let data: Vec<_> = events.iter().map(|event| event.data.parse::<usize>().unwrap()).collect();
        let (first, bytes) = (data[0], data.len() * "data: 123\nid: abcdef-123\n\n".len());
        assert!(data.iter().copied().eq(first..=n), "the files hold consecutive events up to the last one");
        assert!(first == 0 || bytes > 1_900, "only {bytes} bytes of events");
        if segments == 0 && !old.is_empty() {
            reader.read_to_end(&mut was_read).unwrap();
            assert_eq!(was_read, old, "a reader that has the file open reads to its end");
            reader = fs::File::open(folder.old()).unwrap();
            segments += 1;
        }
    }
    let mut again = Vec::new();
    reader.read_to_end(&mut again).unwrap();
    assert_eq!(again, was_read, "the segment does not change when it is renamed or replaced");
    assert_eq!(folder.files().len(), 2, "the directory holds only two files: {:?}", folder.files().keys());

    let before: Vec<_> = history(&channel, 60);
    channel.close();
    let channel = open_with(&folder.log(), config);
    assert_eq!(history(&channel, 60), before, "the history is the same after opening the file again");
}

/// The test creates the files that a process leaves if the process ends during a rotation.
#[test]
fn rotation_that_was_interrupted_is_finished_on_open() {
    let folder = Folder::new();
    let config = ChannelConfig { max_bytes: 300, ..everything() };
    let next = folder.join("log.sse.new");
    let publish = |numbers: std::ops::Range<usize>| {
        let channel = open_with(&folder.log(), config.clone());
        numbers.for_each(|n| drop(channel.publish(n.to_string()).unwrap()));
    };
    let oldest = |count| {
        let channel = open_with(&folder.log(), config.clone());
        let events = history(&channel, count);
        channel.close();
        data(events)
    };
    publish(0..40);
    let before = oldest(10);

    // The process ended between the two renames.
    fs::rename(folder.log(), &next).unwrap();
    assert_eq!(oldest(10), before);
    assert!(!next.exists() && folder.log().exists());
    publish(40..50);

    let begun = fs::read(folder.log()).unwrap();
    // The process ended before the renames, while it was writing the first record.
    fs::write(&next, &begun[..begun.len() - 5]).unwrap();
    publish(50..80);
    assert_eq!(folder.files().len(), 2, "the new segment was used");

    // The new segment is still empty.
    fs::rename(folder.log(), folder.old()).unwrap();
    fs::write(&next, "").unwrap();
    publish(80..81);
    assert_eq!(
        oldest(1),
        [(81 - parse(&[fs::read(folder.old()).unwrap(), fs::read(folder.log()).unwrap()].concat()).len()).to_string()]
    );
}

#[test]
#[cfg(target_os = "linux")]
fn rotation_that_fails_loses_no_published_event() {
    let folder = Folder::new();
    let path = folder.log();
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -S -f 9; exec \"$0\" 0 \"$1\" always 5000"]); // 9 blocks of 512 bytes
    command.arg(program("testbed")).arg(&path);
    let testbed = Example::run(command);
    let publish = |data: &str| testbed.post("/publish", data);
    for n in 0..5 {
        assert_eq!(publish(&format!("{n} {}", "x".repeat(1_450))), 200); // a file has room for three events
    }
    let before = folder.files();
    assert_eq!(before.len(), 2);
    assert_eq!(publish(&"x".repeat(4_700)), 500, "the file cannot hold the event");
    let mut after = folder.files();
    assert_eq!(after.remove(&folder.join("log.sse.new")), Some(Vec::new()));
    assert_eq!(after, before);
    assert_eq!(publish("small"), 200);
    drop(testbed);
    let channel = open_with(&path, ChannelConfig { max_bytes: 5_000, ..everything() });
    let data = data(history(&channel, 4));
    assert!(data[0].starts_with("2 ") && data[3] == "small", "the history fills its 5000 bytes: {data:?}");
}

/// The library prints one line to standard error for each truncation, and no other line. A child process opens the
/// files, so that the test can read the standard error of this process.
#[test]
fn incomplete_event_at_the_end_is_truncated_and_printed_once() {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "journal::file_truncated_at_each_byte_opens", "--ignored", "--nocapture"]);
    let output = child.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    let text = String::from_utf8(output.stdout).unwrap();
    // With one test thread the harness prints the name of the test without a line break, so the first line begins with
    // the name.
    let torn = text.lines().filter_map(|line| line.split_once("torn: "));
    let expected =
        torn.map(|(_, bytes)| format!("log.sse: removed {bytes} bytes of an incomplete event at the end of the file"));
    let expected: Vec<_> = expected.collect();
    assert!(expected.len() > 2_000);
    assert!(
        said.lines().count() == expected.len() && said.lines().zip(&expected).all(|(line, end)| line.ends_with(end)),
        "{said}"
    );
}

/// Truncates a long file at each byte of its last 2 KiB, and a short file at each byte.
#[test]
#[ignore = "run by the test above"]
fn file_truncated_at_each_byte_opens() {
    truncate_a_long_file();
    truncate_a_short_file();
}

/// Opens the channel. If the channel removes bytes from the end of its file, prints the number of these bytes.
fn open_torn(folder: &Folder) -> Channel {
    let before = fs::read(folder.log()).unwrap().len();
    let channel = open(&folder.log());
    let cut = before - fs::read(folder.log()).unwrap().len();
    if cut > 0 {
        println!("torn: {cut}");
    }
    channel
}

fn truncate_a_long_file() {
    let folder = Folder::new();
    let channel = open(&folder.log());
    let ids: Vec<_> = (0..100)
        .map(|n| match n % 3 {
            0 => channel.publish(Message::new().id(format_args!("own-{n}")).event("e").data(format_args!("{n}\n\nx"))),
            1 => channel.publish("é".repeat(n)),
            _ => channel.publish(n.to_string()),
        })
        .map(|id| id.unwrap().to_string())
        .collect();
    drop(channel);
    let whole = fs::read(folder.log()).unwrap();
    let events = parse(&whole);
    assert!(events.iter().map(|event| &event.last_event_id).eq(&ids));
    for length in whole.len() - 2_048..=whole.len() {
        fs::write(folder.log(), &whole[..length]).unwrap();
        let kept = parse(&whole[..length]).len();
        let channel = open_torn(&folder);
        assert_eq!(folder.events(), events[..kept], "{length} bytes");
        let next = channel.publish("next").unwrap();
        assert!(next.as_str().ends_with(&format!("-{kept}")), "{length} bytes: {next}");
        drop(channel);
        let data = data(folder.events());
        assert_eq!((data.len(), data.last().unwrap().as_str()), (kept + 1, "next"));
        assert!(fs::read(folder.log()).unwrap().starts_with(b": an event log"), "{length} bytes");
    }
}

fn truncate_a_short_file() {
    let folder = Folder::new();
    open(&folder.log()).publish("only").unwrap();
    let whole = fs::read(folder.log()).unwrap();
    for length in 0..whole.len() {
        fs::write(folder.log(), &whole[..length]).unwrap();
        let channel = open_torn(&folder);
        assert!(channel.publish("next").unwrap().as_str().ends_with("-0"));
        drop(channel);
        assert_eq!(data(folder.events()), ["next"], "{length} bytes");
    }
}

/// A power failure can lose events that clients have already received. The ids of the lost events are not used again.
#[test]
fn resume_with_the_id_of_a_lost_event_sends_gap() {
    let folder = Folder::new();
    let channel = open(&folder.log());
    let ids: Vec<_> = (0..4).map(|n| channel.publish(n.to_string()).unwrap().to_string()).collect();
    drop(channel);
    let whole = fs::read_to_string(folder.log()).unwrap();
    let third = whole.rfind("\n: ").and_then(|at| whole[..at].rfind("\n: ")).unwrap() + 1;
    fs::write(folder.log(), &whole[..third]).unwrap(); // events 2 and 3 are lost
    let channel = open_with(&folder.log(), everything());
    for n in 2..10 {
        channel.publish(n.to_string()).unwrap();
        let server = feeding(&channel);
        let mut client = subscribe(&server, "/", &format!("Last-Event-ID: {}\r\n", ids[3]));
        let gap = client.next();
        assert_eq!((gap.kind.as_str(), gap.data.lines().next()), ("gap", Some(ids[3].as_str())));
        let mut client = subscribe(&server, "/", &format!("Last-Event-ID: {}\r\n", ids[1]));
        assert_eq!(client.data(), "2", "a client that had none of the lost events gets no gap");
    }
}

/// Asserts that the channel cannot be opened, that the error has the kind `kind`, and that the error message contains
/// `path` and `says`. Also asserts that no file in the directory changes.
#[track_caller]
fn refused(folder: &Folder, kind: ErrorKind, path: &Path, says: &str) {
    let before = folder.files();
    let error = Channel::open(folder.log(), ChannelConfig::default()).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    assert!(text.contains(&path.display().to_string()) && text.contains(says), "{text}");
    assert_eq!(folder.files(), before, "{text}");
}

#[test]
fn file_with_a_damaged_middle_is_refused() {
    let folder = Folder::new();
    let channel = open(&folder.log());
    (0..20).for_each(|n| drop(channel.publish(Message::new().id(format_args!("own {n}")).data(n)).unwrap()));
    drop(channel);
    let whole = fs::read(folder.log()).unwrap();
    let says = "this file is damaged at byte ";
    for at in (40..whole.len() - 100).step_by(7) {
        let mut damaged = whole.clone();
        damaged[at] ^= 4;
        fs::write(folder.log(), &damaged).unwrap();
        refused(&folder, ErrorKind::InvalidData, &folder.log(), says);
    }
    let text = String::from_utf8(whole).unwrap();
    let record = |n: usize| -> Vec<String> {
        text.split_inclusive("\n\n").skip(1).map(str::to_owned).collect::<Vec<_>>()[n..].to_vec()
    };
    let header = text.split_inclusive("\n\n").next().unwrap();
    let without_the_third = [header.to_owned(), record(0)[..2].concat(), record(3).concat()].concat();
    fs::write(folder.log(), without_the_third).unwrap();
    refused(&folder, ErrorKind::InvalidData, &folder.log(), says);
    let doubled = [header.to_owned(), record(0)[..2].concat(), record(1).concat()].concat();
    fs::write(folder.log(), doubled).unwrap();
    refused(&folder, ErrorKind::InvalidData, &folder.log(), says);
    fs::write(folder.log(), [text.as_bytes(), b"data: by hand\n\n"].concat()).unwrap();
    refused(&folder, ErrorKind::InvalidData, &folder.log(), says);
}

#[test]
fn old_segment_that_does_not_match_is_refused() {
    let folder = Folder::new();
    let config = ChannelConfig { max_bytes: 300, ..everything() };
    let channel = open_with(&folder.log(), config);
    (0..30).for_each(|n| drop(channel.publish(n.to_string()).unwrap()));
    drop(channel);
    let old = fs::read(folder.old()).unwrap();
    for (content, says) in [
        (b"notes of mine\n".to_vec(), "is not an event log of brooklet"),
        (old[..old.len() - 1].to_vec(), "does not continue this file"),
        (fs::read(folder.log()).unwrap(), "does not continue this file"),
        ([&old[..100], b"?", &old[101..]].concat(), "this file is damaged at byte "),
    ] {
        fs::write(folder.old(), content).unwrap();
        refused(&folder, ErrorKind::InvalidData, &folder.old(), says);
    }
    fs::rename(folder.log(), folder.join("aside")).unwrap();
    refused(&folder, ErrorKind::InvalidData, &folder.old(), "this file is damaged at byte "); // and no file is created
    fs::rename(folder.join("aside"), folder.log()).unwrap();
    fs::remove_file(folder.old()).unwrap();
    assert_eq!(history(&open_with(&folder.log(), everything()), 1).len(), 1, "the channel opens without it");
}

#[test]
fn file_of_another_kind_is_refused() {
    let folder = Folder::new();
    for content in ["data: x\n\n", "#!/bin/sh\n", "\0", ": an event log of brooklet, version 2\n\n", "{\"json\":1}"] {
        fs::write(folder.log(), content).unwrap();
        refused(&folder, ErrorKind::InvalidData, &folder.log(), "this file is not an event log of brooklet, version 1");
    }
    fs::remove_file(folder.log()).unwrap();
    fs::create_dir(folder.log()).unwrap();
    refused(&folder, ErrorKind::InvalidInput, &folder.log(), "not a regular file");
}

#[test]
fn open_with_an_unusable_path_names_it_in_the_error() {
    let folder = Folder::new();
    let nowhere = folder.join("no/such/folder/log.sse");
    let error = Channel::open(&nowhere, ChannelConfig::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains(&nowhere.display().to_string()), "{error}");
    if cfg!(target_os = "linux") {
        // Even root cannot create a file in /sys. In a container, /sys may be read-only.
        let error = Channel::open("/sys/brooklet.sse", ChannelConfig::default()).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem), "{error}");
        assert!(error.to_string().contains("/sys/brooklet.sse"), "{error}");
    }
    assert!(folder.files().is_empty());
}

#[test]
fn file_that_is_open_is_refused_until_it_is_closed() {
    let folder = Folder::new();
    let held = "already open in another process";
    let config =
        ChannelConfig { max_bytes: 300, sync: SyncPolicy::Every(Duration::from_secs(60)), ..ChannelConfig::default() };
    let channel = open_with(&folder.log(), config);
    refused(&folder, ErrorKind::WouldBlock, &folder.log(), held);
    (0..30).for_each(|n| drop(channel.publish(n.to_string()).unwrap()));
    refused(&folder, ErrorKind::WouldBlock, &folder.log(), held);
    // The channel is also refused while `log.sse` is missing, as in the middle of a rotation.
    fs::rename(folder.log(), folder.join("aside")).unwrap();
    refused(&folder, ErrorKind::WouldBlock, &folder.old(), held);
    fs::rename(folder.join("aside"), folder.log()).unwrap();
    channel.close();
    drop(open(&folder.log()));
    assert_eq!(channel.publish("late").unwrap_err().kind(), ErrorKind::BrokenPipe);

    let reader = open(&folder.log());
    let server = feeding(&reader);
    let stalled = subscribe(&server, "/", ""); // a subscriber does not keep the file open
    reader.close();
    drop(open(&folder.log()));
    drop((stalled, server));
}

#[test]
fn rotation_onto_another_file_fails_and_leaves_it_unchanged() {
    for name in ["log.sse.new", "log.sse.old"] {
        let folder = Folder::new();
        let channel = open_with(&folder.log(), ChannelConfig { max_bytes: 50, ..everything() });
        channel.publish("first").unwrap();
        let in_the_way = folder.join(name);
        fs::write(&in_the_way, "notes of mine").unwrap();
        let before = folder.files();
        let error = channel.publish("second").unwrap_err().to_string();
        assert!(error.contains(&format!("{name}: ")) && error.contains("move"), "{error}");
        assert_eq!(folder.files(), before);
        fs::remove_file(in_the_way).unwrap();
        channel.publish("second").unwrap();
    }
}

/// The old segment is a symbolic link to itself. A lookup of this link fails with an error other than `NotFound`.
#[test]
#[cfg(unix)]
fn previous_segment_that_cannot_be_examined_is_not_replaced() {
    let folder = Folder::new();
    let channel = open_with(&folder.log(), ChannelConfig { max_bytes: 50, ..everything() });
    channel.publish("first").unwrap();
    std::os::unix::fs::symlink(folder.old(), folder.old()).unwrap();
    let error = channel.publish("second").unwrap_err().to_string();
    assert!(error.contains("log.sse.old: "), "{error}");
    assert!(fs::symlink_metadata(folder.old()).unwrap().is_symlink());
    assert_eq!(data(folder.events()), ["first"]);
    fs::remove_file(folder.old()).unwrap();
    channel.publish("second").unwrap();
}

#[test]
fn unfinished_rotation_with_a_damaged_segment_is_refused() {
    let folder = Folder::new();
    let channel = open_with(&folder.log(), ChannelConfig { max_bytes: 50, ..everything() });
    (0..4).for_each(|n| drop(channel.publish(n.to_string()).unwrap()));
    drop(channel);
    let next = folder.join("log.sse.new");
    let mut damaged = fs::read(folder.log()).unwrap();
    let end = damaged.len();
    damaged[end - 3] ^= 4;
    fs::remove_file(folder.log()).unwrap();
    fs::write(&next, damaged).unwrap();
    refused(&folder, ErrorKind::InvalidData, &next, "this file is damaged at byte ");
}

#[test]
fn publish_to_a_truncated_or_removed_file_fails() {
    const SOON: SyncPolicy = SyncPolicy::Every(Duration::from_millis(20));
    for (remove, sync) in [(false, SyncPolicy::Always), (true, SyncPolicy::Always), (false, SOON), (true, SOON)] {
        let folder = Folder::new();
        let channel = open_with(&folder.log(), ChannelConfig { sync, ..ChannelConfig::default() });
        channel.publish("first").unwrap();
        match remove {
            true => fs::remove_file(folder.log()).unwrap(),
            false => fs::write(folder.log(), "").unwrap(),
        }
        eventually(|| channel.publish("may be lost").is_err()); // the first sync detects the change
        if sync == SyncPolicy::Always {
            let error = channel.publish("second").unwrap_err().to_string();
            assert!(error.contains("another program has truncated or removed this file"), "{error}");
        }
        channel.close();
        if remove {
            open(&folder.log()).publish("third").unwrap();
            assert_eq!(folder.events().len(), 1);
        }
    }
}

#[test]
#[cfg(unix)]
fn rotation_keeps_the_permissions_of_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let channel = open_with(&folder.log(), ChannelConfig { max_bytes: 50, ..everything() });
    channel.publish("secret").unwrap();
    fs::set_permissions(folder.log(), fs::Permissions::from_mode(0o600)).unwrap();
    channel.publish("too").unwrap();
    assert_eq!((mode(&folder.log()), mode(&folder.old())), (0o600, 0o600));
}

#[test]
#[cfg(unix)]
fn symbolic_link_is_kept_and_its_target_is_rotated() {
    use std::os::unix::fs::symlink;
    let folder = Folder::new();
    let volume = folder.join("volume");
    fs::create_dir(&volume).unwrap();
    symlink("volume/first.sse", folder.log()).unwrap(); // the target does not exist yet
    for run in 0..2 {
        let channel = open_with(&folder.log(), ChannelConfig { max_bytes: 50, ..everything() });
        (0..5).for_each(|n| drop(channel.publish(n.to_string()).unwrap()));
        assert!(fs::symlink_metadata(folder.log()).unwrap().is_symlink(), "run {run}");
        let mut names: Vec<_> = fs::read_dir(&volume).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["first.sse", "first.sse.old"]);
    }
    symlink("log.sse", folder.join("round.sse")).unwrap();
    fs::remove_file(folder.log()).unwrap();
    symlink("round.sse", folder.log()).unwrap();
    assert!(Channel::open(folder.log(), everything()).is_err(), "the link leads to itself");
}

/// A child process shares the open files of its parent until the child executes its own program.
#[test]
fn file_can_be_opened_at_once_after_close_while_children_start() {
    let folder = Folder::new();
    let ended = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::SeqCst) {
                Command::new("true").status().unwrap();
            }
        });
        for _ in 0..300 {
            let opened = Channel::open(folder.log(), ChannelConfig::default());
            let Ok(channel) = opened else {
                ended.store(true, Ordering::SeqCst);
                panic!("{opened:?}");
            };
            channel.publish("to be synced").unwrap();
            let other = channel.clone();
            scope.spawn(move || other.close());
            channel.close();
        }
        ended.store(true, Ordering::SeqCst);
    });
}

/// Returns a command that starts the testbed on a free port with these arguments.
pub fn testbed(arguments: &[&str]) -> Command {
    let mut command = Command::new(program("testbed"));
    command.arg("0").args(arguments);
    command
}

#[test]
fn file_open_in_another_process_is_refused_until_that_is_killed() {
    let folder = Folder::new();
    let path = folder.log().display().to_string();
    let mut first = Example::run(testbed(&[&path]));
    assert_eq!(first.post("/publish", "x"), 200);
    refused(&folder, ErrorKind::WouldBlock, &folder.log(), "already open in another process");
    let second = testbed(&[&path]).output().unwrap();
    let message = String::from_utf8(second.stderr).unwrap();
    assert!(!second.status.success() && message.contains(&path) && message.contains("another process"), "{message}");
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    drop(open(&folder.log()));
}

/// A limit on the size of a file simulates a full disk: one write is incomplete, and the next write fails.
#[test]
#[cfg(target_os = "linux")]
fn publish_to_a_full_disk_fails_until_there_is_space() {
    let folder = Folder::new();
    let path = folder.log();
    let mut command = Command::new("sh");
    // Without the trap, SIGXFSZ would end the process.
    command.args(["-c", "trap '' XFSZ; ulimit -S -f 8; exec \"$0\" 0 \"$1\" always"]); // 8 blocks of 512 bytes
    command.arg(program("testbed")).arg(&path);
    let testbed = Example::run(command);
    let mut client = testbed.open("/hub");
    let mut published = Vec::new();
    while testbed.post("/publish", &format!("{} {}", published.len(), "x".repeat(100))) == 200 {
        published.push(format!("{} {}", published.len(), "x".repeat(100)));
    }
    assert!(published.len() > 10);
    for _ in 0..3 {
        assert_eq!(testbed.post("/publish", &"x".repeat(110)), 500);
        assert_eq!(data(folder.events()), published, "an event that failed is not in the file");
    }
    assert!(fs::read(&path).unwrap().ends_with(b"\n\n"), "the file ends with a whole event");
    assert_eq!(testbed.post("/publish", "small"), 200, "a small event still fits");
    published.push("small".to_owned());
    let mut lift = Command::new("prlimit");
    lift.args(["--fsize=unlimited", "--pid", &testbed.child.id().to_string()]);
    if let Some(lifted) = run_if_installed(&mut lift, "the events after the limit is lifted") {
        assert!(lifted.status.success());
        for text in ["later", "and later"] {
            assert_eq!(testbed.post("/publish", text), 200);
            published.push(text.to_owned());
        }
    }
    let last = format!("data: {}\n", published.last().unwrap());
    let received = parse(&client.until_event(last.as_bytes()));
    assert_eq!(data(received), published, "the stream received no other events");
    drop(testbed);
    let again = open_with(&path, everything());
    assert_eq!(data(history(&again, published.len())), published);
}

#[test]
#[cfg(target_os = "linux")]
fn sync_thread_ends_after_its_sync() {
    let folder = Folder::new();
    let path = folder.log().display().to_string();
    let testbed = Example::run(testbed(&[&path, "20"]));
    assert_eq!(testbed.threads("brooklet-sync"), 0);
    for _ in 0..3 {
        assert_eq!(testbed.post("/publish", "x"), 200);
        eventually(|| testbed.threads("brooklet-sync") == 0);
    }
}

#[test]
fn chat_killed_and_restarted_restores_its_room() {
    let folder = Folder::new();
    let start = || {
        let mut command = Command::new(program("chat"));
        command.arg("127.0.0.1:0").arg(folder.log());
        Example::run(command)
    };
    let mut chat = start();
    let mut listener = chat.open("/room");
    listener.until_event(b"event: present\ndata: 1\n");
    assert_eq!(chat.post("/say", "before"), 204);
    let heard = parse(&listener.until_event(b"before\n"));
    chat.child.kill().unwrap();
    chat.child.wait().unwrap();
    listener.rest_of_broken_stream();
    let chat = start();
    let last = &heard.last().unwrap().last_event_id;
    let mut listener = super::support::Client::connect(chat.address);
    listener.send(format!("GET /room HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: {last}\r\n\r\n"));
    listener.stream_head();
    let heard = parse(&listener.until_event(b"data: 1\n"));
    assert_eq!(heard.len(), 1, "the client receives one new event only: {heard:?}");
    assert_eq!(chat.post("/say", "after"), 204);
    listener.until_event(b"data: after\n");
    let mut newcomer = chat.open("/room");
    newcomer.until_event(b"data: before\n");
    newcomer.until_event(b"data: after\n");
}

#[test]
#[ignore = "a benchmark"]
fn publish_time_per_policy() {
    const EVENTS: u32 = 2_000;
    let folder = Folder::new();
    let message = Message::new().data("x".repeat(40));
    let time = |what: &str, channel: &Channel| {
        let round = |_| {
            let started = Instant::now();
            (0..EVENTS).for_each(|_| drop(channel.publish(message.clone()).unwrap()));
            started.elapsed() / EVENTS
        };
        let fastest = (0..20).map(round).min().unwrap();
        println!("publish, {what}: {fastest:?}");
    };
    time("no file", &Channel::new());
    for sync in [SyncPolicy::Never, SyncPolicy::Every(Duration::from_secs(1)), SyncPolicy::Always] {
        let config = ChannelConfig { sync, ..ChannelConfig::default() };
        time(&format!("{sync:?}"), &Channel::open(folder.log(), config).unwrap());
    }
}
