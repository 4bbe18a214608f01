//! IPC where the file system refuses: the error, or the event, names the endpoint and what the system said.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use sinew::{BindError, ConnectError, Endpoint, EndpointError, Event, IpcEndpoint, Monitor};
use tokio::process::Command;

use crate::common::*;
use crate::process::{alone_by, may_run, name_of, this_program};

fn at(path: impl Into<PathBuf>) -> Endpoint {
    Endpoint::Ipc(IpcEndpoint::Path(path.into()))
}

/// Binding there fails in this way; the socket can be bound elsewhere afterwards.
async fn bind_fails(path: &Path, kind: ErrorKind) {
    let (pull, endpoint) = (new_pull(), at(path));
    let error = within(pull.bind(&endpoint)).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&endpoint.to_string()), "{text}");
    match error {
        BindError::Io { endpoint: named, source } => assert_eq!((named, source.kind()), (endpoint, kind), "{text}"),
        other => panic!("{other:?}"),
    }
    assert!(fs::symlink_metadata(path).is_err(), "something is left at {}", path.display());
    within(pull.bind("ipc://*")).await.unwrap();
}

/// The next attempt to connect there fails with these words of the system.
async fn connect_fails(monitor: &mut Monitor, endpoint: &Endpoint, errno: Errno) {
    match next_event(monitor).await {
        Event::ConnectRetried { endpoint: named, cause, .. } => {
            assert_eq!((&named, cause), (endpoint, std::io::Error::from(errno).to_string()));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_missing_folder_is_an_error_to_bind_and_waited_for_to_connect() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    bind_fails(&missing.join("s"), ErrorKind::NotFound).await;

    let endpoint = at(missing.join("s"));
    let (push, pull) = (new_push(), new_pull());
    let mut monitor = push.monitor();
    push.connect(&endpoint).unwrap();
    connect_fails(&mut monitor, &endpoint, Errno::NOENT).await;
    fs::create_dir(&missing).unwrap();
    within(pull.bind(&endpoint)).await.unwrap();
    send_numbers(&push, [1]).await;
    assert_eq!(recv_numbers(&pull, 1).await, [1]);
}

#[tokio::test]
async fn a_file_in_place_of_the_folder_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let (push, endpoint) = (new_push(), at(file.join("s")));
    let mut monitor = push.monitor();
    push.connect(&endpoint).unwrap();
    connect_fails(&mut monitor, &endpoint, Errno::NOTDIR).await;
    bind_fails(&file.join("s"), ErrorKind::NotADirectory).await;
}

#[tokio::test]
async fn a_path_that_is_too_long_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s".repeat(108));
    let length = path.as_os_str().len();
    let endpoint = format!("ipc://{}", path.display());
    let (push, pull) = (new_push(), new_pull());
    let expected = EndpointError::PathTooLong { endpoint: endpoint.clone(), length, max: 107 };
    assert!(expected.to_string().contains(&endpoint), "{expected}");
    // As text, and put together by hand.
    assert_eq!(push.connect(endpoint.as_str()), Err(ConnectError::Endpoint(expected.clone())));
    assert_eq!(push.connect(at(&path)), Err(ConnectError::Endpoint(expected.clone())));
    for error in [within(pull.bind(endpoint.as_str())).await, within(pull.bind(at(&path))).await] {
        assert!(matches!(error, Err(BindError::Endpoint(error)) if error == expected));
    }
}

#[test]
fn no_permission_is_an_error_to_bind_and_waited_for_to_connect() {
    const NOBODY: u32 = 65_534;
    let mut command = this_program();
    if rustix::process::geteuid().is_root() {
        // Root may everything. This name works wherever the program is, also where nobody else may look.
        command = Command::new("/proc/self/exe");
        command.uid(NOBODY).gid(NOBODY).env_remove("TMPDIR");
    }
    alone_by(command, name_of(no_permission_is_an_error_to_bind_and_waited_for_to_connect), || async {
        let folder = tempfile::tempdir().unwrap();
        let closed = folder.path().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, Permissions::from_mode(0o500)).unwrap();
        bind_fails(&closed.join("s"), ErrorKind::PermissionDenied).await;

        let (push, pull, path) = (new_push(), new_pull(), folder.path().join("s"));
        let endpoint = within(pull.bind(at(&path))).await.unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o000)).unwrap();
        let mut monitor = push.monitor();
        push.connect(&endpoint).unwrap();
        connect_fails(&mut monitor, &endpoint, Errno::ACCESS).await;
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        send_numbers(&push, [1]).await;
        assert_eq!(recv_numbers(&pull, 1).await, [1]);
    });
}

#[test]
fn a_full_disk_is_an_error() {
    // A container may allow the namespace and forbid to mount in it.
    let try_out = ["--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/tmp"];
    if !may_run("unshare", &try_out) {
        return;
    }
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount"]).arg(std::env::current_exe().unwrap());
    alone_by(command, name_of(a_full_disk_is_an_error), || async {
        let folder = tempfile::tempdir().unwrap();
        // With room for the folder and one file.
        mount(folder.path(), "size=4k,nr_inodes=2");
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        bind_fails(&folder.path().join("s"), ErrorKind::StorageFull).await;
        fs::remove_file(&file).unwrap();
        // One that is only dropped would hold its lock for a moment yet.
        let pull = new_pull();
        within(pull.bind(at(folder.path().join("s")))).await.unwrap();
        within(pull.close()).await.unwrap();

        mount(folder.path(), "ro");
        bind_fails(&folder.path().join("s"), ErrorKind::ReadOnlyFilesystem).await;
        for _ in 0..2 {
            run("umount", &[folder.path().to_str().unwrap()]);
        }
    });
}

/// Mounts a file system in memory.
fn mount(folder: &Path, options: &str) {
    run("mount", &["-t", "tmpfs", "-o", options, "none", folder.to_str().unwrap()]);
}

fn run(command: &str, arguments: &[&str]) {
    let status = std::process::Command::new(command).args(arguments).status().unwrap();
    assert!(status.success(), "{command} {arguments:?}");
}
