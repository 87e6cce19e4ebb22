// Package wasi connects a function in Go with the interfaces of WASI that it needs: wasi:http for requests and wasi:config for
// the configuration. Everything else (variables, clocks, standard error) Go's own library reaches by itself.
package wasi

import (
	"errors"
	"io"
	"unsafe"
)

const (
	// readMax is the number of bytes that are read at once.
	readMax = 64 << 10
	// writeMax is the number of bytes that one call of blocking-write-and-flush accepts.
	writeMax = 4096
)

// Request is a request. Its body arrives while it is read.
type Request struct {
	Method string
	// Target is the path with the query.
	Target string
	handle uint32
	body   uint32
	stream uint32
	opened bool
	failed error
	rest   []byte
}

// Response sends a response. The head is sent by the first call of Head.
type Response struct {
	out    uint32
	body   uint32
	stream uint32
	failed error
}

// Handler answers requests. A program sets it before main begins.
var Handler func(*Request, *Response)

var methods = [...]string{"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}

//go:wasmexport wasi:http/incoming-handler@0.2.10#handle
func handle(request, out uint32) {
	if kept == 0 {
		kept = used
	}
	response := &Response{out: out}
	read := newRequest(request)
	Handler(read, response)
	response.finish()
	read.finish()
}

func newRequest(handle uint32) *Request {
	request := &Request{handle: handle, Target: "/"}
	var found variant
	results()
	requestMethod(handle, &found)
	if int(found.tag) < len(methods) {
		request.Method = methods[found.tag]
	} else {
		request.Method = text(found.a, found.b)
	}
	results()
	requestPath(handle, &found)
	if found.tag == 1 {
		request.Target = text(found.a, found.b)
	}
	return request
}

// Read reads the body of the request. It returns io.EOF at its end.
func (r *Request) Read(to []byte) (int, error) {
	if len(r.rest) == 0 && r.failed == nil {
		r.failed = r.receive()
	}
	if len(r.rest) == 0 {
		return 0, r.failed
	}
	n := copy(to, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// receive waits for the next bytes of the body and stores them in rest.
func (r *Request) receive() error {
	var found variant
	if !r.opened {
		r.opened = true
		requestConsume(r.handle, &found)
		r.body = found.a
		incomingBodyStream(r.body, &found)
		if found.tag != 0 {
			return errors.New("the body cannot be read")
		}
		r.stream = found.a
	}
	results()
	inputStreamRead(r.stream, readMax, &found)
	if found.tag == 0 {
		r.rest = append([]byte(nil), bytes(found.a, found.b)...)
		return nil
	}
	if found.a&0xff == 1 {
		return io.EOF
	}
	return errors.New("the body was cut short")
}

// finish releases what the host keeps for the request: an instance that keeps nothing of it can answer another one.
func (r *Request) finish() {
	if r.stream != 0 {
		inputStreamDrop(r.stream)
	}
	if r.body != 0 {
		incomingBodyDrop(r.body)
	}
	requestDrop(r.handle)
}

// Head sends status and content type, once, before the first byte of the body.
func (w *Response) Head(status int, contentType string) {
	var result variant
	fields := fieldsNew()
	fieldsAppend(fields, "content-type", contentType, &result)
	response := responseNew(fields)
	responseSetStatus(response, uint32(status))
	responseBody(response, &result)
	w.body = result.a
	outgoingBodyWrite(w.body, &result)
	w.stream = result.a
	responseOutparamSet(w.out, 0, response, 0, 0, 0, 0, 0, 0)
}

// Write sends a part of the body. It fails when the client has disconnected.
func (w *Response) Write(data []byte) (int, error) {
	for sent := 0; sent < len(data); {
		part := data[sent:min(len(data), sent+writeMax)]
		var result variant
		outputStreamWrite(w.stream, unsafe.String(&part[0], len(part)), &result)
		if result.tag != 0 {
			return sent, errors.New("the client has disconnected")
		}
		sent += len(part)
	}
	return len(data), nil
}

func (w *Response) finish() {
	if w.stream == 0 {
		return
	}
	outputStreamDrop(w.stream)
	var result finished
	outgoingBodyFinish(w.body, 0, 0, &result)
}

// Config returns an entry of the configuration, and whether it exists.
func Config(key string) (string, bool) {
	// result<option<string>, error>: the case of the option and the string
	var found variant
	results()
	storeGet(key, &found)
	if found.tag != 0 || found.a&0xff == 0 {
		return "", false
	}
	return text(found.b, found.c), true
}
