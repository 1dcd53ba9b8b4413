use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use nofx_sandbox::{Level, Network, NetworkInForce, host};

use crate::{Workspace, closed_levels, levels, marker, printed, run_blocking};

#[test]
fn the_loopback_of_the_host_is_unreachable() {
    for level in closed_levels() {
        let workspace = Workspace::new();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        udp.set_nonblocking(true).unwrap();
        let (tcp_port, udp_port) = (listener.local_addr().unwrap().port(), udp.local_addr().unwrap().port());
        let script = format!(
            r#"
import socket
for family, kind, port in [("AF_INET", "SOCK_STREAM", {tcp_port}), ("AF_INET", "SOCK_DGRAM", {udp_port})]:
    try:
        s = socket.socket(getattr(socket, family), getattr(socket, kind))
        s.settimeout(2)
        s.connect(("127.0.0.1", port)); s.send(b"x")
        if kind == "SOCK_STREAM": print("connected")
    except OSError as error: print(error)
try: print("resolved", socket.gethostbyname("example.com"))
except OSError as error: print(error)
for address in ["169.254.169.254", "8.8.8.8"]:
    try: socket.create_connection((address, 80), timeout=2); print("connected")
    except OSError as error: print(error)
"#
        );
        let text = printed(&workspace.python(level, &script));
        assert!(!text.contains("connected") && !text.contains("resolved"), "{level:?}: {text}");
        assert!(listener.accept().is_err() && udp.recv(&mut [0; 8]).is_err(), "{level:?}");
    }
}

#[test]
fn a_server_and_its_client_find_each_other_on_the_private_loopback() {
    if !levels().contains(&Level::Namespaces) {
        return;
    }
    let workspace = Workspace::new();
    let script = r#"
import socket
for family, address in [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]:
    server = socket.socket(family); server.bind((address, 0)); server.listen()
    client = socket.create_connection((address, server.getsockname()[1]), timeout=5)
    server.accept()[0].sendall(b"hello"); print(client.recv(5))
print([name for _, name in socket.if_nameindex()], socket.gethostbyname("localhost"))
"#;
    let command = workspace.python(Level::Namespaces, script);
    let text = printed(&command);
    assert_eq!(text, "b'hello'\nb'hello'\n['lo'] 127.0.0.1\n");
    assert_eq!(run_blocking(&command).unwrap().report.network, NetworkInForce::PrivateLoopback);
}

#[test]
fn abstract_sockets_of_the_host_are_unreachable() {
    for level in closed_levels() {
        if level == Level::Landlock && host().landlock_abi < 6 && host().own_uid {
            continue;
        }
        let workspace = Workspace::new();
        let name = marker("abstract");
        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        listener.set_nonblocking(true).unwrap();
        let script = format!(
            "import socket\ntry:\n    socket.socket(socket.AF_UNIX).connect(chr(0) + {name:?}); print('connected')\nexcept OSError as error: print(error)"
        );
        let text = printed(&workspace.python(level, &script));
        assert!(!text.contains("connected"), "{level:?}: {text}");
        assert!(listener.accept().is_err(), "{level:?}");
    }
}

#[test]
fn unusual_sockets_are_refused() {
    for level in closed_levels().into_iter().filter(|_| host().seccomp) {
        let workspace = Workspace::new();
        let script = r#"
import socket, errno
NETFILTER, SOCK_DIAG = 12, 4
for arguments in [(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER), (socket.AF_NETLINK, socket.SOCK_RAW, SOCK_DIAG),
                  (socket.AF_PACKET, socket.SOCK_RAW, 0), (socket.AF_VSOCK, socket.SOCK_STREAM, 0),
                  (socket.AF_INET, socket.SOCK_RAW, 1), (socket.AF_INET6, socket.SOCK_RAW, 58), (38, 5, 0)]:
    try: socket.socket(*arguments); print("opened", arguments)
    except OSError as error: assert error.errno == errno.EPERM, (arguments, error)
a, b = socket.socketpair(); a.send(b"pair"); print(b.recv(4))
"#;
        let text = printed(&workspace.python(level, script));
        assert_eq!(text, "b'pair'\n", "{level:?}");
    }
}

#[test]
fn an_open_network_reaches_the_host() {
    for level in levels() {
        let workspace = Workspace::new();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let script =
            format!("import socket; socket.create_connection(('127.0.0.1', {port}), timeout=5); print('connected')");
        let mut command = workspace.python(level, &script);
        command.network = Network::Open;
        let finished = run_blocking(&command).unwrap();
        assert_eq!(finished.output.head, b"connected\n", "{level:?}");
        assert_eq!(finished.report.network, NetworkInForce::Open, "{level:?}");
    }
}

#[test]
fn an_open_network_has_the_names_and_certificates_of_the_host() {
    let hosts = fs::read_to_string("/etc/hosts").unwrap();
    let certificates = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];
    let certificates = certificates.into_iter().filter(|path| fs::exists(path).unwrap());
    let files: Vec<&str> = certificates.chain(["/etc/resolv.conf"]).collect();
    for level in levels() {
        let workspace = Workspace::new();
        let mut command = workspace.shell(level, "cat /etc/hosts");
        command.network = Network::Open;
        let seen = printed(&command);
        for line in hosts.lines() {
            assert!(seen.lines().any(|known| known == line), "{level:?}: {line} is not in {seen}");
        }
        let mut command = workspace.shell(level, &format!("head -c 1 {} > /dev/null && echo read", files.join(" ")));
        command.network = Network::Open;
        assert_eq!(printed(&command), "read\n", "{level:?}");
        if level == Level::Namespaces {
            let seen = printed(&workspace.shell(level, "cat /etc/hosts"));
            assert_eq!(seen, "127.0.0.1 localhost sandbox\n::1 localhost\n");
        }
    }
}

#[test]
fn a_service_behind_a_socket_for_everybody_cannot_be_reached() {
    for level in closed_levels() {
        let (workspace, outside) = (Workspace::new(), Workspace::new());
        let path = outside.path().join("service");
        let listener = UnixListener::bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        let script = format!(
            "import socket\ntry:\n    socket.socket(socket.AF_UNIX).connect({path:?}); print('connected')\nexcept OSError as error: print(error)"
        );
        let text = printed(&workspace.python(level, &script));
        assert!(!text.contains("connected"), "{level:?}: {text}");
        drop(listener);
    }
}
