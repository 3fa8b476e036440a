//! The pages of the examples, each with the program that serves it, as somebody sees them who uses them.

use super::super::examples::Example;
use super::{Page, Stage};
use std::io::Write;

/// Makes the next stream of `/v1` end after five chunks as a whole one, as a proxy does that does not forward how it ended.
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

/// Cuts the connections of the page, which says so until it is back.
fn cut(stage: &Stage, page: &mut Page<'_>) {
    page.run("void (window.lost = until(() => document.body.innerText.includes('connection lost')))");
    stage.cut();
    page.run("lost");
}

#[test]
#[ignore = "needs Chromium: cargo test -- --ignored browser"]
fn clock_shows_three_ticks_and_does_not_come_back() {
    let clock = Example::start("clock");
    let stage = Stage::new(clock.address);
    let mut page = Page::open(&stage);
    page.until("state.textContent === 'the server said goodbye'");
    assert_eq!(page.list("[...ticks.children].map(line => line.firstChild.data)"), ["ping 0", "ping 1", "ping 2"]);
    assert_eq!(page.run("source.readyState === EventSource.CLOSED"), "true");
    assert_eq!(stage.requests("/sse"), [None]);
}

#[test]
#[ignore = "needs Chromium: cargo test -- --ignored browser"]
fn chat_shows_everybody_what_anybody_says_as_text_and_loses_nothing_when_it_is_cut() {
    let chat = Example::start("chat");
    let stage = Stage::new(chat.address);
    let (mut ada, mut grace) = (Page::open(&stage), Page::open(&stage));
    let say = |text: &str| assert_eq!(chat.post("/say", text), 204);
    for page in [&mut ada, &mut grace] {
        page.until("present.textContent === '2 here'");
    }
    let mut said = vec!["<b>hello</b><img src=x onerror=alert(1)><script>alert(2)</script>", "世界 \u{1f600} größer"];
    for (page, text) in [&mut ada, &mut grace].into_iter().zip(&said) {
        // As keys do: into what has the focus.
        page.run(&format!("text.focus(), document.execCommand('insertText', false, {text:?})"));
        page.run("document.querySelector('button').click()");
        page.until("text.value === ''");
    }
    say("two\nlines"); // which no line of input can
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
        page.until("present.textContent === '2 here'");
    }
    let ids = stage.requests("/room");
    assert!(ids.len() == 4 && ids[2..].iter().all(Option::is_some), "{ids:?}");
}

#[test]
#[ignore = "needs Chromium: cargo test -- --ignored browser"]
fn tail_shows_the_lines_as_they_come_late_comers_the_last_of_them_and_the_end() {
    let mut tail = Example::start("tail");
    let stage = Stage::new(tail.address);
    let mut input = tail.child.stdin.take().unwrap();
    let mut write = |numbers: std::ops::Range<usize>| {
        let lines: String = numbers.map(|n| format!("  line <b>{n}</b> größer\n")).collect();
        input.write_all(lines.as_bytes()).unwrap();
    };
    let shown = |page: &mut Page<'_>| page.list("[...lines.children].map(line => line.textContent)");
    let mut first = Page::open(&stage);
    first.until("state.textContent === 'following'");
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
        assert_eq!(page.run("source.readyState === EventSource.CLOSED"), "true");
    }
    let line = |n: usize| format!("  line <b>{n}</b> größer\n");
    let from = |first: usize| (first..200).map(line).chain(["the input has ended\n".to_owned()]).collect::<Vec<_>>();
    assert_eq!(shown(&mut first), from(0));
    assert_eq!(shown(&mut late), from(100), "a hundred lines");
    assert_eq!(stage.requests("/lines").len(), 3, "the first page, again after the cut, the late one");
    assert!(tail.child.wait().unwrap().success());
}

#[test]
#[ignore = "needs Chromium: cargo test -- --ignored browser"]
fn dashboard_draws_what_it_is_sent_and_counts_who_looks() {
    let dashboard = Example::start("dashboard");
    let stage = Stage::new(dashboard.address);
    let mut first = Page::open(&stage);
    first.until("state.textContent === 'live'");
    let outputs =
        |page: &mut Page<'_>| page.list("[...document.querySelectorAll('output')].map(output => output.value)");
    first.until("samples.length > 1 && samples.at(-1).subscribers === 1");
    let shown = outputs(&mut first);
    assert!(shown[0].parse::<f64>().is_ok() && shown[1].ends_with(" GiB") && shown[2] == "1", "{shown:?}");
    let mut second = Page::open(&stage);
    for page in [&mut first, &mut second] {
        page.until("[...document.querySelectorAll('output')][2].value === '2'");
    }
    let charts =
        "[...document.querySelectorAll('path:not(.area)')].map(path => path.getAttribute('d').match(/[^ML]+/g))";
    let is_within = "point => point.split(' ').every(at => at >= 0 && at <= 100)";
    let drawn = format!("{charts}.map(points => points.length === samples.length && points.every({is_within}))");
    assert_eq!(second.run(&drawn), "true,true,true", "a point for each sample, and each within its chart");
    drop(second);
    first.until("[...document.querySelectorAll('output')][2].value === '1'");
    assert_eq!(stage.requests("/samples"), [None, None]);
}

#[test]
#[ignore = "needs Chromium: cargo test -- --ignored browser"]
fn progress_moves_survives_a_reload_and_cancels() {
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
fn tokens_page_resumes_an_answer_and_tells_half_from_whole() {
    let tokens = Example::start("tokens");
    let address = tokens.address;
    let stage = Stage::new(address);
    let mut page = Page::open(&stage);
    let lose_and_return = |page: &mut Page<'_>, lose: &dyn Fn(&mut Page<'_>)| {
        page.run(
            "void (window.half = until(() => state.textContent === 'half an answer: connection lost, trying again'))",
        );
        lose(page);
        page.run("half");
        page.until("state.textContent === 'answering'");
    };
    page.run(HIDE_A_LOST_CONNECTION);
    lose_and_return(&mut page, &|page| drop(page.run("ask.click()")));
    page.until("text.textContent.includes('stream')");
    lose_and_return(&mut page, &|page| drop(page.run("lose.click()")));
    lose_and_return(&mut page, &|_| stage.cut());
    page.until("state.textContent === 'the whole answer'");
    let whole = page.run("text.textContent");
    assert!(whole.starts_with("A brooklet is a small stream. ") && whole.ends_with(" long."), "{whole}");
    assert_eq!(whole.split(' ').count(), page.run("new Set(text.childNodes).size").parse::<usize>().unwrap() - 2);
    let ids = stage.requests("/v1/chat/completions");
    assert!(matches!(&ids[..], [None, Some(_), Some(_), Some(_)]), "{ids:?}");

    page.run("ask.click()");
    page.until("text.textContent.includes('stream')");
    drop(tokens);
    page.until("state.textContent === 'half an answer: connection lost, trying again'");
    let mut again = std::process::Command::new(super::super::examples::program("tokens"));
    again.arg(address.to_string());
    let _tokens = Example::run(again);
    page.until("state.textContent === 'half an answer: the server no longer has the rest'");
    assert_eq!(page.run("[ask.disabled, lose.disabled]"), "false,true");
}
