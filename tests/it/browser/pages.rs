//! The pages of the examples, as a user sees them in a browser. Each test runs the program that serves the page.

use super::super::examples::{program, Example};
use super::stage::UNPROBED;
use super::{Page, Stage};
use brooklet::StatusCode;
use std::io::Write;
use std::process::Command;

/// Ends the next stream of `/v1` after five chunks, as if it were complete. Some proxies do this when they lose a server.
const HIDE_A_LOST_CONNECTION: &str = r#"
    const real = fetch;
    window.fetch = async (...request) => {
        if (!request[0].startsWith("/v1")) return real(...request);
        window.fetch = real;
        let chunks = 0;
        const transform = (chunk, out) => { out.enqueue(chunk); if (++chunks === 5) out.terminate(); };
        return new Response((await real(...request)).body.pipeThrough(new TransformStream({ transform })));
    };
"#;

/// Cuts the connections of the page, and waits until the page reports this.
fn cut(stage: &Stage, page: &mut Page<'_>) {
    page.run("void (window.lost = until(() => document.body.innerText.includes('trying to reconnect')))");
    stage.cut();
    page.run("lost");
}

#[test]
#[ignore = "needs Chromium: cargo test -- --ignored browser"]
fn clock_page_after_close_event_does_not_reconnect() {
    let clock = Example::start("clock");
    let stage = Stage::new(clock.address);
    let mut page = Page::open(&stage);
    page.until("state.textContent === 'ended'");
    assert_eq!(page.list("[...ticks.children].map(line => line.firstChild.data)"), ["ping 0", "ping 1", "ping 2"]);
    assert_eq!(page.run("sources[0].readyState === EventSource.CLOSED"), "true");
    assert_eq!(stage.requests("/sse"), [None]);
}

#[test]
#[ignore = "needs Chromium: cargo test -- --ignored browser"]
fn chat_page_after_lost_connection_shows_each_message_once() {
    let chat = Example::start("chat");
    let stage = Stage::new(chat.address);
    let (mut ada, mut grace) = (Page::open(&stage), Page::open(&stage));
    let say = |text: &str| assert_eq!(chat.post("/say", text), 204);
    for page in [&mut ada, &mut grace] {
        page.until("present.textContent === '2 people are here'");
    }
    let mut said = vec!["<b>hello</b><img src=x onerror=alert(1)><script>alert(2)</script>", "世界 \u{1f600} größer"];
    for (page, text) in [&mut ada, &mut grace].into_iter().zip(&said) {
        // This inserts the text into the focused element, as keys do.
        page.run(&format!("text.focus(), document.execCommand('insertText', false, {text:?})"));
        page.run("document.querySelector('button').click()");
        page.until("text.value === ''");
    }
    say("two\nlines"); // a user cannot type two lines into the input
    said.push("two\nlines");
    let all = |page: &mut Page<'_>, said: &[&str]| {
        page.until(&format!("said.children.length >= {}", said.len()));
        assert_eq!(page.list("[...said.children].map(line => line.textContent)"), said);
    };
    for page in [&mut ada, &mut grace] {
        all(page, &said);
        assert_eq!(page.run("said.querySelector('li *')"), "null");
    }

    cut(&stage, &mut ada);
    ["meanwhile", "and more"].iter().for_each(|text| say(text));
    said.extend(["meanwhile", "and more"]);
    for page in [&mut ada, &mut grace] {
        all(page, &said);
        page.until("present.textContent === '2 people are here'");
    }
    let ids = stage.requests("/room");
    assert!(ids.len() == 4 && ids[2..].iter().all(Option::is_some), "{ids:?}");
}

#[test]
#[ignore = "needs Chromium: cargo test -- --ignored browser"]
fn tail_page_shows_lines_without_colours_and_the_end() {
    let mut tail = Example::start("tail");
    let stage = Stage::new(tail.address);
    let mut input = tail.child.stdin.take().unwrap();
    let mut write = |numbers: std::ops::Range<usize>| {
        let lines: String = numbers
            .map(|n| format!("  line \x1b[1;38;5;9m<b>{n}</b>\x1b[0m größer\x1b]0;title\x07\n"))
            .collect();
        input.write_all(lines.as_bytes()).unwrap();
    };
    let shown = |page: &mut Page<'_>| page.list("[...lines.children].map(line => line.textContent)");
    let mut first = Page::open(&stage);
    first.until("state.textContent === 'connected'");
    write(0..50);
    first.until("lines.children.length === 50");
    cut(&stage, &mut first);
    write(50..200);
    first.until("lines.children.length === 200");
    let mut late = Page::open(&stage);
    late.until("lines.children.length === 100");
    drop(input);
    for page in [&mut first, &mut late] {
        page.until("state.textContent === 'ended'");
        assert_eq!(page.run("sources[0].readyState === EventSource.CLOSED"), "true");
    }
    let line = |n: usize| format!("  line <b>{n}</b> größer\n");
    let from = |first: usize| (first..200).map(line).chain(["the input has ended\n".to_owned()]).collect::<Vec<_>>();
    assert_eq!(shown(&mut first), from(0));
    assert_eq!(shown(&mut late), from(100), "the newcomer must show the last hundred lines");
    assert_eq!(stage.requests("/lines").len(), 3, "the first page connects twice, and the second page once");
    assert!(tail.child.wait().unwrap().success());
}

#[test]
#[ignore = "needs Chromium: cargo test -- --ignored browser"]
fn dashboard_page_draws_each_sample_and_counts_pages() {
    let dashboard = Example::start("dashboard");
    let stage = Stage::new(dashboard.address);
    let mut first = Page::open(&stage);
    first.until("document.getElementById('state').textContent === 'connected'");
    let outputs =
        |page: &mut Page<'_>| page.list("[...document.querySelectorAll('output')].map(output => output.value)");
    first.until("view.samples.length > 1 && view.samples.at(-1).subscribers === 1");
    let shown = outputs(&mut first);
    assert!(shown[0].parse::<f64>().is_ok() && shown[1].ends_with(" GiB") && shown[2] == "1", "{shown:?}");
    let mut second = Page::open(&stage);
    for page in [&mut first, &mut second] {
        page.until("[...document.querySelectorAll('output')][2].value === '2'");
    }
    let charts =
        "[...document.querySelectorAll('path:not(.area)')].map(path => path.getAttribute('d').match(/[^ML]+/g))";
    let is_within = "point => point.split(' ').every(at => at >= 0 && at <= 100)";
    let drawn = format!("{charts}.map(points => points.length === view.samples.length && points.every({is_within}))");
    assert_eq!(second.run(&drawn), "true,true,true", "each chart must show a point for each sample");
    drop(second);
    first.until("[...document.querySelectorAll('output')][2].value === '1'");
    assert_eq!(stage.requests("/samples"), [None, None]);
    let outage = "[0, 1, 9, 10, 11].map(second => ({ ...view.samples[0], time: second * 1000 }))";
    let lines = "document.querySelector('path:not(.area)').getAttribute('d').match(/M[^M]+/g)";
    let points = format!("{lines}.map(line => line.split('L').length)");
    let drawn = first.run(&format!("draw({{ state: 'trying to reconnect', samples: {outage} }}), {points}"));
    assert_eq!(drawn, "2,3", "no line must be drawn through an outage");
    assert_eq!(first.run("document.querySelector('.axis :last-child').textContent !== 'now'"), "true");
}

/// Chromium opens at most six connections to a server. The first tab has two, and one of them is for the probe.
#[test]
#[ignore = "needs Chromium: cargo test -- --ignored browser"]
fn dashboard_in_seven_tabs_shares_one_stream() {
    let dashboard = Example::start("dashboard");
    let stage = Stage::new(dashboard.address);
    let mut page = Page::open(&stage);
    page.until("isLeader && view.samples.length > 0");
    let open = |url: &str| format!("others = Array.from({{ length: 6 }}, (_, n) => window.open({url}, `tab ${{n}}`))");
    page.run(&format!("void ({})", open(&format!("'/?{UNPROBED}'"))));
    let shown = "tab.document.querySelectorAll('output')[2]?.value";
    page.until(&format!("others.every(tab => {shown} === '1')"));
    let times = "view.samples.map(sample => sample.time)";
    let all = format!("others.map(tab => tab.eval('{times}.join()')).every(times => times === {times}.join())");
    page.until(&all);
    assert_eq!(stage.requests("/samples"), [None]);

    page.run("sources[0].close(), others[0].isOld = true, others[0].location.reload()");
    page.until(&format!("!others[0].isOld && others.every(tab => {shown} === '1')"));
    page.until(&all); // although the stream was closed

    page.reload();
    page.run(&format!("void ({})", open("''"))); // finds the same tabs by their names
    page.until("view.state === 'connected' && view.samples.length > 0");
    page.run(&format!("before = {times}.at(-1)"));
    page.until(&format!("{times}.at(-1) > before"));
    page.until(&all);
    assert_eq!(page.run("[isLeader, others.filter(tab => tab.eval('isLeader')).length]"), "false,1");
    assert_eq!(page.run(&format!("{times}.every((time, n, all) => n === 0 || all[n - 1] < time)")), "true");
    let ids = stage.requests("/samples");
    assert!(ids.len() == 2 && ids[1].is_some(), "{ids:?}");
}

/// Tests one page only, because all pages have the same `follow`.
#[test]
#[ignore = "needs Chromium: cargo test -- --ignored browser"]
fn page_after_refused_stream_continues_after_last_id() {
    let chat = Example::start("chat");
    let stage = Stage::new(chat.address);
    let mut page = Page::open(&stage);
    page.until("present.textContent === 'only you are here'");
    let mut said = vec!["before"];
    let say = |text: &str| assert_eq!(chat.post("/say", text), 204);
    say("before");
    page.until("said.children.length === 1");
    // The page waits for 3 s before each attempt.
    page.run("later = setTimeout, window.setTimeout = (call, time, ...rest) => later(call, time / 100, ...rest)");

    stage.refuse(Some(StatusCode::SERVICE_UNAVAILABLE));
    stage.cut();
    page.until("sources.length > 2 && sources[1].readyState === EventSource.CLOSED");
    assert_eq!(page.run("[present.textContent, say.disabled]"), "trying to reconnect,true");
    say("meanwhile");
    stage.refuse(None);
    said.push("meanwhile");
    page.until("present.textContent === 'only you are here' && !say.disabled");
    page.until("said.children.length === 2");

    // Now the browser reconnects by itself. The id in its field is newer than the id in the query.
    let sources = page.run("sources.length");
    cut(&stage, &mut page);
    say("after");
    said.push("after");
    page.until("said.children.length === 3");
    assert_eq!(page.list("[...said.children].map(line => line.textContent)"), said);
    assert_eq!(page.run("sources.length"), sources);
    let ids = stage.requests("/room");
    assert!(ids[0].is_none() && ids[1..].iter().all(Option::is_some) && ids[ids.len() - 1] != ids[1], "{ids:?}");
}

#[test]
#[ignore = "needs Chromium: cargo test -- --ignored browser"]
fn chat_page_scrolled_up_stays_and_shows_unsent_message() {
    let chat = Example::start("chat");
    let stage = Stage::new(chat.address);
    let mut page = Page::open(&stage);
    page.until("present.textContent === 'only you are here'");
    let hint = |page: &mut Page<'_>| page.run("getComputedStyle(said, '::before').content");
    assert_eq!(hint(&mut page), "\"Nobody has said anything yet.\"");
    let mut count = 0;
    let mut say = |page: &mut Page<'_>, lines: u32| {
        (0..lines).for_each(|_| assert_eq!(chat.post("/say", "line"), 204));
        count += lines;
        page.until(&format!("said.children.length === {count}"));
    };
    let to_end = "said.scrollHeight - said.clientHeight - said.scrollTop";
    say(&mut page, 100);
    assert_eq!((hint(&mut page), page.run(&format!("{to_end} < 1"))), ("none".to_owned(), "true".to_owned()));
    page.run("said.scrollTop = 100");
    page.until("!isAtEnd");
    say(&mut page, 1);
    assert_eq!(page.run("said.scrollTop"), "100");
    page.run("said.scrollTop = said.scrollHeight");
    page.until("isAtEnd");
    say(&mut page, 1);
    assert_eq!(page.run(&format!("{to_end} < 1")), "true");

    stage.refuse(Some(StatusCode::SERVICE_UNAVAILABLE));
    page.run("text.value = 'kept', form.requestSubmit()");
    page.until("unsent.textContent === 'Not sent: 503 Service Unavailable' && !say.disabled");
    assert_eq!(page.run("[text.value, said.children.length]"), "kept,102");
}

#[test]
#[ignore = "needs Chromium: cargo test -- --ignored browser"]
fn page_without_server_disables_its_buttons() {
    let mut chat = Example::start("chat");
    let mut progress = Example::start("progress");
    let (chat_stage, progress_stage) = (Stage::new(chat.address), Stage::new(progress.address));
    let (mut room, mut job) = (Page::open(&chat_stage), Page::open(&progress_stage));
    room.until("!say.disabled");
    job.until("!start.disabled && cancel.disabled");
    job.run("start.click()");
    job.until("start.disabled && !cancel.disabled");
    for example in [&mut chat, &mut progress] {
        example.child.kill().unwrap();
        example.child.wait().unwrap();
    }
    room.until("say.disabled && present.textContent === 'trying to reconnect'");
    job.until("start.disabled && cancel.disabled && state.textContent === 'trying to reconnect'");
    let mut again = Command::new(program("progress"));
    again.arg(progress.address.to_string());
    let again = Example::run(again);
    job.until("!start.disabled && cancel.disabled && state.textContent === 'ready'");
    drop(again);
    job.until("start.disabled && cancel.disabled && state.textContent === 'trying to reconnect'");
}

#[test]
#[ignore = "needs Chromium: cargo test -- --ignored browser"]
fn progress_page_after_reload_shows_running_job() {
    let progress = Example::start("progress");
    let stage = Stage::new(progress.address);
    let mut page = Page::open(&stage);
    page.until("state.textContent === 'ready'");
    assert_eq!(page.run("[start.disabled, cancel.disabled]"), "false,true");
    let percent = |page: &mut Page<'_>| page.run("bar.getAttribute('aria-valuenow')").parse::<u32>().unwrap();
    page.run("start.click()");
    page.until("bar.getAttribute('aria-valuenow') > 3");
    let before = percent(&mut page);
    page.reload();
    page.until("state.textContent === 'running'");
    assert!(percent(&mut page) >= before);
    page.run("cancel.click()");
    page.until("state.textContent === 'cancelled'");
    let stopped = percent(&mut page);
    page.reload();
    page.until("state.textContent === 'cancelled'");
    assert_eq!((percent(&mut page), page.run("[start.disabled, cancel.disabled]")), (stopped, "false,true".to_owned()));
    page.run("start.click()");
    page.until("state.textContent === 'running' && !cancel.disabled");
    page.until("bar.getAttribute('aria-valuenow') > 0 && found.textContent !== '0 found'");
}

#[test]
#[ignore = "needs Chromium: cargo test -- --ignored browser"]
fn tokens_page_after_lost_connection_completes_the_answer() {
    let tokens = Example::start("tokens");
    let address = tokens.address;
    let stage = Stage::new(address);
    let mut page = Page::open(&stage);
    let lose_and_return = |page: &mut Page<'_>, lose: &dyn Fn(&mut Page<'_>)| {
        page.run(
            "void (window.lost = until(() => state.textContent === 'incomplete answer: connection lost, trying again'))",
        );
        lose(page);
        page.run("lost");
        page.until("state.textContent === 'answering'");
    };
    page.run(HIDE_A_LOST_CONNECTION);
    lose_and_return(&mut page, &|page| drop(page.run("ask.click()")));
    page.until("text.textContent.includes('stream')");
    lose_and_return(&mut page, &|page| drop(page.run("lose.click()")));
    lose_and_return(&mut page, &|_| stage.cut());
    page.until("state.textContent === 'complete answer'");
    let whole = page.run("text.textContent");
    assert!(whole.starts_with("A brooklet is a small stream. ") && whole.ends_with(" long."), "{whole}");
    assert_eq!(whole.split(' ').count(), page.run("new Set(text.childNodes).size").parse::<usize>().unwrap() - 2);
    let ids = stage.requests("/v1/chat/completions");
    assert!(matches!(&ids[..], [None, Some(_), Some(_), Some(_)]), "{ids:?}");

    page.run("ask.click()");
    page.until("text.textContent.includes('stream')");
    drop(tokens);
    page.until("state.textContent === 'incomplete answer: connection lost, trying again'");
    let mut again = std::process::Command::new(super::super::examples::program("tokens"));
    again.arg(address.to_string());
    let _tokens = Example::run(again);
    page.until("state.textContent === 'incomplete answer: the server no longer has the rest'");
    assert_eq!(page.run("[ask.disabled, lose.disabled]"), "false,true");
}
