//! The example programs, end to end, as cargo has built them: `cargo test` does, `cargo test --test examples` does not.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};

#[path = "examples/pubsub.rs"]
mod pubsub;
#[allow(dead_code)] // the example uses the rest
#[path = "../examples/pipeline/text.rs"]
mod text;

/// Much more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what} took more than {PATIENCE:?}"),
    }
}

/// An example; it is killed when it is dropped.
fn example(name: &str, arguments: &[&str]) -> Command {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let program = profile.join("examples").join(name).with_extension(std::env::consts::EXE_EXTENSION);
    assert!(program.exists(), "{} is missing: cargo build --examples", program.display());
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn run(name: &str, arguments: &[&str]) -> Output {
    within(name, example(name, arguments).output()).await.unwrap()
}

async fn end(what: &str, child: Child) -> Output {
    within(what, child.wait_with_output()).await.unwrap()
}

fn utf8(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[track_caller]
fn assert_exit(output: &Output, code: i32) {
    let (out, err) = (utf8(&output.stdout), utf8(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "stdout:\n{out}\nstderr:\n{err}");
}

/// Reads a child's output up to the line that begins so, and gives the rest of that line.
async fn line_after<R: AsyncRead + Unpin>(prefix: &str, stream: &mut Option<R>) -> String {
    let [rest] = lines_after([prefix], stream).await;
    rest
}

/// Reads a child's output up to lines that begin so, in this order, and gives the rests of those lines.
async fn lines_after<R, const N: usize>(prefixes: [&str; N], stream: &mut Option<R>) -> [String; N]
where
    R: AsyncRead + Unpin,
{
    let mut lines = BufReader::new(stream.take().unwrap()).lines();
    let mut rests = Vec::new();
    for prefix in prefixes {
        rests.push(loop {
            match within(prefix, lines.next_line()).await.unwrap() {
                Some(line) if line.starts_with(prefix) => break line[prefix.len()..].to_owned(),
                Some(_) => {}
                None => panic!("no line begins with {prefix:?}"),
            }
        });
    }
    // Kept open: the child may have more to say.
    *stream = Some(lines.into_inner().into_inner());
    rests.try_into().unwrap()
}

/// Starts an example that listens, and waits until it says where.
async fn listening(name: &str, arguments: &[&str], announcement: &str) -> (Child, String) {
    let mut child = example(name, arguments).spawn().unwrap();
    let endpoint = line_after(announcement, &mut child.stderr).await;
    (child, endpoint)
}

/// Ctrl-C, and what the child says to that.
async fn interrupt(what: &str, child: Child) -> Output {
    let id = Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
    kill_process(id, Signal::INT).unwrap();
    end(what, child).await
}

// --- pipeline -------------------------------------------------------------------------------------------------------

const TRANSPORTS: [&str; 2] = ["ipc", "tcp"];
const FILES: usize = 40;

/// Forty text files, and some that must not be counted.
fn tree() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, content: &[u8]| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    };
    for number in 0..FILES {
        write(&format!("part {}/{number}.txt", number % 3), "Über alpha, beta; ALPHA\n".repeat(number + 1).as_bytes());
    }
    write("empty.txt", b"");
    write("target/built.txt", b"forbidden");
    write(".git/config", b"forbidden");
    write("binary", b"forbidden\0");
    folder
}

#[tokio::test]
async fn the_pipeline_counts_a_tree_over_each_transport_whatever_the_pieces() {
    let tree = tree();
    let folder = tree.path().to_str().unwrap();
    for transport in TRANSPORTS {
        for piece in ["30", "100000"] {
            let arguments = ["--transport", transport, "--workers", "3", "--top", "100", "--piece", piece, folder];
            let output = run("pipeline", &arguments).await;
            assert_exit(&output, 0);
            let lines: Vec<_> = utf8(&output.stdout).lines().map(str::trim).collect();
            // 1 + 2 + ... + 40 lines of four words.
            assert_eq!(lines[..4], ["1,640  alpha", "820  beta", "820  über", "words     3,280 (3 different)"]);
            assert!(lines[4].starts_with("files     41, "), "{}", lines[4]);
            assert!(utf8(&output.stdout).contains("check     a plain single-threaded count agrees: 3,280 words"));
        }
    }
}

#[tokio::test]
async fn the_pipeline_counts_the_sample_over_each_transport() {
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data");
    for transport in TRANSPORTS {
        let output = run("pipeline", &["--transport", transport, "--top", "1", sample]).await;
        assert_exit(&output, 0);
        let top = utf8(&output.stdout).lines().next().unwrap();
        assert_eq!(top.split_whitespace().nth(1), Some("the"), "{top}");
    }
}

#[tokio::test]
async fn a_pipeline_whose_worker_is_killed_ends_and_says_what_was_lost() {
    let tree = tree();
    let folder = tree.path().to_str().unwrap();
    for transport in TRANSPORTS {
        let output =
            run("pipeline", &["--transport", transport, "--workers", "3", "--kill-a-worker", "--top", "0", folder])
                .await;
        assert_exit(&output, 3);
        let out = utf8(&output.stdout);
        let lost: BTreeSet<_> = out.lines().filter_map(|line| line.strip_prefix("lost      ")).collect();
        // At least the one that it had in hand; what it had counted before and what the others got is not lost.
        assert!((1..FILES - 1).contains(&lost.len()), "{out}");
        assert!(lost.iter().all(|name| tree.path().join(name).is_file()), "{out}");
        assert!(out.contains(&format!("messages lost in flight: {}\n", lost.len())), "{out}");
        assert!(out.contains(&format!("files     {}, ", FILES + 1 - lost.len())), "{out}");
        assert!(out.contains("worker 0  1 ("), "{out}");
        assert!(out.contains("a plain single-threaded count agrees on the rest"), "{out}");
        assert!(utf8(&output.stderr).contains("worker 0 (process "), "{}", utf8(&output.stderr));
    }
}

#[tokio::test]
async fn a_pipeline_whose_last_worker_is_killed_ends_too() {
    let tree = tree();
    let folder = tree.path().to_str().unwrap();
    for transport in TRANSPORTS {
        let output = run("pipeline", &["--transport", transport, "--workers", "1", "--kill-a-worker", folder]).await;
        assert_exit(&output, 3);
        let out = utf8(&output.stdout);
        assert!(out.contains("died      1 of the workers; none is left; messages lost in flight: 40\n"), "{out}");
        assert!(out.contains("files     1, "), "{out}");
    }
}

#[tokio::test]
async fn a_pipeline_without_a_folder_to_count_says_so() {
    let output = run("pipeline", &["/no/such/folder"]).await;
    assert_exit(&output, 1);
    assert!(utf8(&output.stderr).contains("/no/such/folder"), "{}", utf8(&output.stderr));
}

// --- the pipeline's text --------------------------------------------------------------------------------------------

fn pieces(content: &str, limit: usize) -> Vec<(u64, Vec<u8>)> {
    text::Pieces::new(content.as_bytes(), limit).collect::<Result<_, _>>().unwrap()
}

#[test]
fn pieces_add_up_to_the_text_and_cut_no_word() {
    let content = "Über allen\nGipfeln ist\r\nRuh, in allen\n\n\tWipfeln spürest du kaum einen Hauch;";
    let mut whole = text::Counts::new();
    text::count_words(content.as_bytes(), &mut whole);
    for limit in 1..=content.len() + 2 {
        let (mut joined, mut counts) = (Vec::new(), text::Counts::new());
        for (offset, piece) in pieces(content, limit) {
            assert_eq!(offset, joined.len() as u64, "limit {limit}");
            text::count_words(&piece, &mut counts);
            joined.extend(piece);
        }
        assert_eq!(utf8(&joined), content, "limit {limit}");
        assert_eq!(counts, whole, "limit {limit}");
    }
}

#[test]
fn pieces_end_at_line_ends_if_they_can() {
    let found: Vec<_> = pieces("one two\nthree four\nfive", 14).into_iter().map(|(_, piece)| piece).collect();
    assert_eq!(found, [&b"one two\n"[..], b"three four\n", b"five"]);
}

#[test]
fn an_empty_text_is_one_empty_piece() {
    assert_eq!(pieces("", 10), [(0, Vec::new())]);
}

#[test]
fn a_text_without_white_space_is_cut_sixteen_limits_on() {
    let lengths: Vec<_> = pieces(&"x".repeat(100), 3).into_iter().map(|(_, piece)| piece.len()).collect();
    assert_eq!(lengths, [48, 48, 4]);
}

#[test]
fn only_text_files_are_found_in_order_and_without_build_folders() {
    let tree = tree();
    let found = text::walk(tree.path());
    assert!(found.unreadable.is_empty());
    let names: Vec<PathBuf> = found.files.iter().map(|file| utf8(&file.name).into()).collect();
    assert_eq!(names.len(), FILES + 1);
    assert_eq!((&names[0], &names[1]), (&"empty.txt".into(), &"part 0/0.txt".into()));
    assert_eq!(found.files[1].bytes, "Über alpha, beta; ALPHA\n".len() as u64);
}

// --- push and pull --------------------------------------------------------------------------------------------------

#[tokio::test]
async fn pull_prints_what_push_sends() {
    let (pull, endpoint) = listening("pull", &["--bind", "tcp://127.0.0.1:*", "--count", "3"], "Listening on ").await;
    let push = run("push", &["--connect", &endpoint, "Hello World!", "and more"]).await;
    assert_exit(&push, 0);
    assert_eq!(utf8(&push.stdout), "Sent 'Hello World!'\nSent 'and more'\n");
    let push = run("push", &["--connect", &endpoint, "--multipart", "part one", "part two"]).await;
    assert_eq!(utf8(&push.stdout), "Sent 'part one', 'part two'\n");

    let pull = end("pull", pull).await;
    assert_exit(&pull, 0);
    assert_eq!(utf8(&pull.stdout), "Received 'Hello World!'\nReceived 'and more'\nReceived 'part one', 'part two'\n");
}

#[tokio::test]
async fn push_binds_and_waits_for_pull_to_connect() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = format!("ipc://{}", folder.path().join("work").display());
    let (push, bound) =
        listening("push", &["--bind", &endpoint, "--count", "2", "--timeout", "60", "Hello"], "Listening on ").await;
    assert_eq!(bound, endpoint);
    let pull = run("pull", &["--connect", &endpoint, "--count", "2"]).await;
    assert_exit(&pull, 0);
    assert_eq!(utf8(&pull.stdout), "Received 'Hello'\nReceived 'Hello'\n");
    let push = end("push", push).await;
    assert_exit(&push, 0);
    assert_eq!(utf8(&push.stdout), "Sent 'Hello'\nSent 'Hello'\n");
}

#[tokio::test]
async fn push_waits_for_a_pull_that_starts_later() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = format!("ipc://{}", folder.path().join("work").display());
    let push = example("push", &["--connect", &endpoint, "--timeout", "60", "Hello"]).spawn().unwrap();
    let pull = run("pull", &["--bind", &endpoint, "--count", "1"]).await;
    assert_eq!(utf8(&pull.stdout), "Received 'Hello'\n");
    assert_exit(&end("push", push).await, 0);
}

#[tokio::test]
async fn push_says_what_was_not_sent_when_nobody_comes() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = format!("ipc://{}", folder.path().join("nobody").display());
    let push = run("push", &["--connect", &endpoint, "--timeout", "0.2", "Hello", "World"]).await;
    assert_exit(&push, 1);
    assert_eq!(utf8(&push.stdout), "");
    let err = utf8(&push.stderr);
    assert!(err.starts_with("push: nobody to send to within 200ms"), "{err}");
    assert!(err.ends_with("not sent: 'Hello'; 'World'\n"), "{err}");
}

#[tokio::test]
async fn pull_ends_cleanly_on_ctrl_c() {
    let (mut pull, endpoint) = listening("pull", &["--bind", "tcp://127.0.0.1:*"], "Listening on ").await;
    assert_exit(&run("push", &["--connect", &endpoint, "Hello"]).await, 0);
    let rest = line_after("Received ", &mut pull.stdout).await;
    assert_eq!(rest, "'Hello'");
    assert_exit(&interrupt("pull", pull).await, 0);
}

// --- local_thr and remote_thr ---------------------------------------------------------------------------------------

#[tokio::test]
async fn the_throughput_tools_measure_each_other_and_print_libzmqs_lines() {
    let (local, endpoint) = listening("local_thr", &["tcp://127.0.0.1:*", "100", "5000"], "listening on ").await;
    let remote = run("remote_thr", &[&endpoint, "100", "5000"]).await;
    assert_exit(&remote, 0);
    assert_eq!(utf8(&remote.stdout), "");
    let local = end("local_thr", local).await;
    assert_exit(&local, 0);
    let lines: Vec<_> = utf8(&local.stdout).lines().collect();
    assert_eq!(lines[..2], ["message size: 100 [B]", "message count: 5000"]);
    let number = |line: &str, unit: &str| -> f64 {
        let number = line.strip_prefix("mean throughput: ").and_then(|rest| rest.strip_suffix(unit));
        number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{line}"))
    };
    let (messages, megabits) = (number(lines[2], " [msg/s]"), number(lines[3], " [Mb/s]"));
    assert_eq!(messages.fract(), 0.0);
    assert!((messages * 800e-6 - megabits).abs() < 0.01, "{lines:?}");
    assert_eq!(lines.len(), 4);
}

#[tokio::test]
async fn local_thr_refuses_messages_of_another_size() {
    let (local, endpoint) = listening("local_thr", &["tcp://127.0.0.1:*", "100", "10"], "listening on ").await;
    assert_exit(&run("remote_thr", &[&endpoint, "99", "1"]).await, 0);
    assert_exit(&end("local_thr", local).await, 1);
}
