//! A token endpoint over HTTPS that says what it is told to, one answer a request.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

/// See the module.
pub struct Endpoint {
    pub port: u16,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Endpoint {
    /// Gives these answers, each whole (see [`ok`]), and the last one again and again.
    pub async fn start(tls: &Arc<ServerConfig>, answers: &[String]) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let heard: Arc<Mutex<Vec<String>>> = Arc::default();
        let (acceptor, answers, said) = (TlsAcceptor::from(tls.clone()), answers.to_vec(), heard.clone());
        tokio::spawn(async move {
            let mut answers = answers.iter().cycle().take(answers.len()).chain(answers.last().into_iter().cycle());
            while let Ok((stream, _)) = listener.accept().await {
                // Whoever does not trust it gets no answer, and uses up none.
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let Some(request) = request(&mut stream).await else { continue };
                said.lock().expect("no panic").push(request);
                let answer = answers.next().expect("the last one again");
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        Endpoint { port, heard }
    }

    /// The requests so far, header and body.
    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().expect("no panic").clone()
    }
}

async fn request(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<String> {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer).await {
            Ok(n @ 1..) => text.extend_from_slice(&buffer[..n]),
            _ => return None,
        }
        let shown = String::from_utf8_lossy(&text).into_owned();
        let Some((head, body)) = shown.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            return Some(shown);
        }
    }
}

/// An answer with this status line and body.
pub fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A token.
pub fn ok(token: &str) -> String {
    answer("200 OK", &format!("{{\"token_type\":\"Bearer\",\"expires_in\":3599,\"access_token\":\"{token}\"}}"))
}
