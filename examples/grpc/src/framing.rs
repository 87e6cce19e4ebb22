//! Calls of gRPC in requests and responses of WASI 0.2, as <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>
//! describes them: a message has a prefix of five bytes, and the status is a trailer, or a field of the head if there is no
//! message. Compressed messages are not supported.

use std::fmt::Write;

use prost::Message;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use wasip2::io::streams::StreamError;

const CONTENT_TYPE: &str = "application/grpc";
/// Largest request, in bytes.
const MAX_REQUEST: usize = 16 << 10;
/// Flag for compression, and length of the message.
const PREFIX: usize = 5;
/// Largest number of bytes of one call of `blocking_write_and_flush`.
const PIECE: usize = 4096;

/// Codes of a status that this service uses.
#[derive(Clone, Copy)]
pub enum Code {
    Ok = 0,
    InvalidArgument = 3,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
}

/// How a call ended.
pub struct Status {
    code: Code,
    message: String,
}

impl Status {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message }
    }

    fn fields(&self) -> Vec<(String, Vec<u8>)> {
        let code = (self.code as u8).to_string().into_bytes();
        let mut fields = vec![("grpc-status".to_owned(), code)];
        if !self.message.is_empty() {
            fields.push(("grpc-message".to_owned(), encoded(&self.message)));
        }
        fields
    }
}

/// Returns a text with percent-encoding, because a field has printable ASCII only.
fn encoded(text: &str) -> Vec<u8> {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            // writing to a string cannot fail
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    encoded.into_bytes()
}

/// Returns whether a request is a call of gRPC.
pub fn is_call(request: &IncomingRequest) -> bool {
    let types = request.headers().get("content-type");
    matches!(request.method(), Method::Post)
        && types
            .iter()
            .any(|value| value == CONTENT_TYPE.as_bytes() || value == b"application/grpc+proto")
}

/// Responds to a request that is no call.
pub fn refuse(out: ResponseOutparam) {
    respond_with_head(out, 415, Vec::new());
}

/// Reads the message of a call that has only one.
pub fn read<M: Message + Default>(request: &IncomingRequest) -> Result<M, Status> {
    let body = body(request)?;
    let broken = |what: &str| Status::new(Code::Internal, what);
    let Some((prefix, message)) = body.split_first_chunk::<PREFIX>() else {
        return Err(broken("the request has no message"));
    };
    let [compressed, length @ ..] = *prefix;
    if compressed != 0 {
        let text = "compressed messages are not supported";
        return Err(Status::new(Code::Unimplemented, text));
    }
    if u32::from_be_bytes(length) as usize != message.len() {
        return Err(broken("the request is not one complete message"));
    }
    M::decode(message).map_err(|error| broken(&error.to_string()))
}

fn body(request: &IncomingRequest) -> Result<Vec<u8>, Status> {
    let unreadable = || Status::new(Code::Internal, "the request ended early");
    let body = request.consume().map_err(|()| unreadable())?;
    let stream = body.stream().map_err(|()| unreadable())?;
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(MAX_REQUEST as u64) {
            Ok(piece) => bytes.extend(piece),
            Err(StreamError::Closed) => return Ok(bytes),
            Err(StreamError::LastOperationFailed(_)) => return Err(unreadable()),
        }
        if bytes.len() > MAX_REQUEST {
            let text = format!("a request has at most {MAX_REQUEST} bytes");
            return Err(Status::new(Code::ResourceExhausted, text));
        }
    }
}

/// Sends messages and the status. Each message is sent before the next one is computed. The first error ends the call.
pub fn respond<M: Message>(
    out: ResponseOutparam,
    messages: impl Iterator<Item = Result<M, Status>>,
) {
    let mut messages = messages.peekable();
    // a response without messages has its status in the head
    if let Some(Err(status)) = messages.next_if(Result::is_err) {
        respond_with_head(out, 200, status.fields());
        return;
    }
    let Some(body) = begin(out, 200, Vec::new()) else {
        return;
    };
    let status = send(&body, messages);
    // the trailers are valid, and a client that disconnected is no error
    if let Ok(trailers) = Fields::from_list(&status.fields()) {
        let _ = OutgoingBody::finish(body, Some(trailers));
    }
}

/// Sends messages and returns the status for the end.
fn send<M: Message>(
    body: &OutgoingBody,
    messages: impl Iterator<Item = Result<M, Status>>,
) -> Status {
    let Ok(stream) = body.write() else {
        return Status::new(Code::Internal, "the response has no body");
    };
    for message in messages {
        let message = match message {
            Ok(message) => message.encode_to_vec(),
            Err(status) => return status,
        };
        let mut frame = vec![0];
        frame.extend((message.len() as u32).to_be_bytes());
        frame.extend(message);
        for piece in frame.chunks(PIECE) {
            if stream.blocking_write_and_flush(piece).is_err() {
                return Status::new(Code::Internal, "the client disconnected");
            }
        }
    }
    Status::new(Code::Ok, "")
}

fn respond_with_head(out: ResponseOutparam, status: u16, fields: Vec<(String, Vec<u8>)>) {
    if let Some(body) = begin(out, status, fields) {
        let _ = OutgoingBody::finish(body, None);
    }
}

/// Sends the head of a response and returns its body. A head that is not valid becomes an error, which the host turns into a 502.
fn begin(
    out: ResponseOutparam,
    status: u16,
    mut fields: Vec<(String, Vec<u8>)>,
) -> Option<OutgoingBody> {
    fields.push(("content-type".to_owned(), CONTENT_TYPE.into()));
    let response = Fields::from_list(&fields).map(OutgoingResponse::new);
    let response = match response {
        Ok(response) if response.set_status_code(status).is_ok() => response,
        _ => {
            let error = ErrorCode::InternalError(Some("the head is not valid".to_owned()));
            ResponseOutparam::set(out, Err(error));
            return None;
        }
    };
    let body = response.body().ok();
    ResponseOutparam::set(out, Ok(response));
    body
}
