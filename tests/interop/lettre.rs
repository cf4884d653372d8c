//! lettre as a client. It is a library that mailweir is built with already, so this test program is the
//! program of the table: it runs itself.

use std::env::var;

use ::lettre::message::header::ContentType;
use ::lettre::message::{Attachment, Mailbox, MultiPart, SinglePart};
use ::lettre::{Message, SmtpTransport, Transport};

fn of(name: &str) -> String {
    var(name).unwrap_or_else(|_| panic!("{name} is not set"))
}

#[test]
#[ignore = "a program of the table, which starts it with what to send"]
fn a_client_with_lettre() {
    if var("LETTRE").is_err() {
        return;
    }
    let mailbox = |name: &str| Mailbox::new(None, of(name).parse().expect("an address"));
    let attachment = std::fs::read(of("ATTACHMENT")).expect("the attachment");
    let attachment = Attachment::new("picture.bin".to_owned())
        .body(attachment, ContentType::parse("application/octet-stream").expect("a type"));
    let text = std::fs::read_to_string(of("TEXT")).expect("the text");
    let message = Message::builder()
        .from(Mailbox::new(Some(of("FROM_NAME")), of("FROM").parse().expect("an address")))
        .to(mailbox("TO"))
        .to(mailbox("ALSO"))
        .cc(mailbox("COPY"))
        .bcc(mailbox("BLIND"))
        .subject(of("SUBJECT"))
        .multipart(MultiPart::mixed().singlepart(SinglePart::plain(text)).singlepart(attachment))
        .expect("a message");
    let port = of("PORT").parse().expect("a port");
    SmtpTransport::builder_dangerous(of("HOST")).port(port).build().send(&message).expect("sent");
}
