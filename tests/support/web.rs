//! A web server of a domain, as other programs are: HTTPS on port 443 with a certificate of the test.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Stdio};

use super::ca::Certificate;
use super::support::as_root;

/// Serves a file as the domain's policy, as it is when it is asked for, and keeps the reports that are posted, until its
/// standard input ends.
const WEB: &str = "import http.server, ssl, sys, threading\n\
    host, cert, key, policy, kept = sys.argv[1:6]\n\
    class Handler(http.server.BaseHTTPRequestHandler):\n    \
    def answer(self, code, body):\n        \
    self.send_response(code)\n        \
    self.send_header('Content-Type', 'text/plain')\n        \
    self.send_header('Content-Length', str(len(body)))\n        \
    self.end_headers()\n        \
    self.wfile.write(body)\n    \
    def do_GET(self):\n        \
    self.answer(200 if self.path == '/.well-known/mta-sts.txt' else 404, open(policy, 'rb').read())\n    \
    def do_POST(self):\n        \
    body = self.rfile.read(int(self.headers['Content-Length']))\n        \
    good = self.path == '/tlsrpt?to=us' and self.headers['Content-Type'] == 'application/tlsrpt+gzip'\n        \
    open(kept, 'ab').write(body if good else b'bad')\n        \
    self.answer(200 if good else 400, b'')\n    \
    def log_message(self, *_): pass\n\
    server = http.server.ThreadingHTTPServer((host, 443), Handler)\n\
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\n\
    context.load_cert_chain(cert, key)\n\
    server.socket = context.wrap_socket(server.socket, server_side=True)\n\
    threading.Thread(target=server.serve_forever, daemon=True).start()\n\
    print('ready', flush=True)\n\
    sys.stdin.read()\n";

/// Runs until it is dropped.
pub struct Web(Child);

impl Web {
    /// With the file of a policy, and one to which what is posted is added.
    pub fn start(address: Ipv4Addr, certificate: &Certificate, policy: &Path, kept: &Path) -> Web {
        let mut command = as_root("python3");
        command.args(["-c", WEB, &address.to_string()]).arg(&certificate.file).arg(&certificate.key);
        command.arg(policy).arg(kept).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3 as a web server");
        let mut ready = String::new();
        let output = child.stdout.take().expect("a pipe");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut ready).expect("a line");
        assert_eq!(ready, "ready\n", "the web server cannot have port 443 of {address}");
        Web(child)
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
