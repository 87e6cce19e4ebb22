package wasi

import "structs"

// Functions of the host, with parameters and results as the canonical ABI of the component model lays them out. A result that
// does not fit into a register is written to the address in the last parameter.

// variant is the layout of every result, option and variant in this file whose fields have 32 bits: the first byte is the
// case, the next fields are its values.
type variant struct {
	_       structs.HostLayout
	tag     uint8
	a, b, c uint32
}

// finished is the layout of result<_, error-code> of wasi:http.
type finished struct {
	_    structs.HostLayout
	tag  uint8
	rest [4]uint64
}

//go:wasmimport wasi:http/types@0.2.10 [method]incoming-request.method
func requestMethod(request uint32, result *variant)

//go:wasmimport wasi:http/types@0.2.10 [method]incoming-request.path-with-query
func requestPath(request uint32, result *variant)

//go:wasmimport wasi:http/types@0.2.10 [method]incoming-request.consume
func requestConsume(request uint32, result *variant)

//go:wasmimport wasi:http/types@0.2.10 [method]incoming-body.stream
func incomingBodyStream(body uint32, result *variant)

//go:wasmimport wasi:http/types@0.2.10 [resource-drop]incoming-body
func incomingBodyDrop(body uint32)

//go:wasmimport wasi:http/types@0.2.10 [resource-drop]incoming-request
func requestDrop(request uint32)

//go:wasmimport wasi:http/types@0.2.10 [constructor]fields
func fieldsNew() uint32

//go:wasmimport wasi:http/types@0.2.10 [method]fields.append
func fieldsAppend(fields uint32, name string, value string, result *variant)

//go:wasmimport wasi:http/types@0.2.10 [constructor]outgoing-response
func responseNew(fields uint32) uint32

//go:wasmimport wasi:http/types@0.2.10 [method]outgoing-response.set-status-code
func responseSetStatus(response uint32, status uint32) uint32

//go:wasmimport wasi:http/types@0.2.10 [method]outgoing-response.body
func responseBody(response uint32, result *variant)

//go:wasmimport wasi:http/types@0.2.10 [method]outgoing-body.write
func outgoingBodyWrite(body uint32, result *variant)

//go:wasmimport wasi:http/types@0.2.10 [static]outgoing-body.finish
func outgoingBodyFinish(body uint32, hasTrailers uint32, trailers uint32, result *finished)

// The response is result<outgoing-response, error-code>: its case and, for a response, the handle. The other parameters are
// values of error codes.
//
//go:wasmimport wasi:http/types@0.2.10 [static]response-outparam.set
func responseOutparamSet(out uint32, tag uint32, response uint32, _ uint32, _ uint64, _ uint32, _ uint32, _ uint32, _ uint32)

//go:wasmimport wasi:io/streams@0.2.10 [method]input-stream.blocking-read
func inputStreamRead(stream uint32, length uint64, result *variant)

//go:wasmimport wasi:io/streams@0.2.10 [resource-drop]input-stream
func inputStreamDrop(stream uint32)

//go:wasmimport wasi:io/streams@0.2.10 [method]output-stream.blocking-write-and-flush
func outputStreamWrite(stream uint32, data string, result *variant)

//go:wasmimport wasi:io/streams@0.2.10 [resource-drop]output-stream
func outputStreamDrop(stream uint32)

//go:wasmimport wasi:config/store@0.2.0-rc.1 get
func storeGet(key string, result *variant)
