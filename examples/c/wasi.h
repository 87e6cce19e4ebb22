// The functions of WASI that function.c calls, with parameters and results as the canonical ABI of the component model lays them
// out: a handle is a number, a result that needs more than one value is written to the address in the last parameter.
// `wit-bindgen c ../wit` generates such declarations for whole interfaces.
#pragma once

#include <stddef.h>
#include <stdint.h>

#define IMPORT(module, name) __attribute__((import_module(module), import_name(name)))
#define EXPORT(name) __attribute__((export_name(name)))

#define HTTP "wasi:http/types@0.2.10"
#define STREAMS "wasi:io/streams@0.2.10"
#define CONFIG "wasi:config/store@0.2.0-rc.1"

// A result, option or variant whose values have 32 bits. `tag` is 0 for `ok` and `none` and for the first case of a variant.
struct variant {
  uint8_t tag;
  uint32_t a, b, c;
};

// result<_, error-code> of wasi:http.
struct finished {
  uint8_t tag;
  uint64_t rest[4];
};

enum { METHOD_GET = 0, METHOD_POST = 2 };
enum { STREAM_CLOSED = 1 };

IMPORT(HTTP, "[method]incoming-request.method") void request_method(int32_t request, struct variant *);
IMPORT(HTTP, "[method]incoming-request.path-with-query") void request_path(int32_t request, struct variant *);
IMPORT(HTTP, "[method]incoming-request.consume") void request_consume(int32_t request, struct variant *);
IMPORT(HTTP, "[method]incoming-body.stream") void incoming_body_stream(int32_t body, struct variant *);
IMPORT(HTTP, "[resource-drop]incoming-body") void incoming_body_drop(int32_t body);
IMPORT(HTTP, "[resource-drop]incoming-request") void request_drop(int32_t request);

IMPORT(HTTP, "[constructor]fields") int32_t fields_new(void);
IMPORT(HTTP, "[method]fields.append")
void fields_append(int32_t fields, const char *name, size_t, const char *value, size_t, struct variant *);
IMPORT(HTTP, "[constructor]outgoing-response") int32_t response_new(int32_t fields);
IMPORT(HTTP, "[method]outgoing-response.set-status-code") int32_t response_set_status(int32_t response, int32_t status);
IMPORT(HTTP, "[method]outgoing-response.body") void response_body(int32_t response, struct variant *);
IMPORT(HTTP, "[method]outgoing-body.write") void outgoing_body_write(int32_t body, struct variant *);
IMPORT(HTTP, "[static]outgoing-body.finish")
void outgoing_body_finish(int32_t body, int32_t has_trailers, int32_t trailers, struct finished *);

// The response is result<outgoing-response, error-code>: its case and, for a response, the handle. The other parameters are
// values of error codes.
IMPORT(HTTP, "[static]response-outparam.set")
void response_outparam_set(int32_t out, int32_t tag, int32_t response, int32_t, int64_t, int32_t, int32_t, int32_t, int32_t);

IMPORT(STREAMS, "[method]input-stream.blocking-read") void stream_read(int32_t stream, uint64_t length, struct variant *);
IMPORT(STREAMS, "[resource-drop]input-stream") void input_stream_drop(int32_t stream);
IMPORT(STREAMS, "[method]output-stream.blocking-write-and-flush")
void stream_write(int32_t stream, const void *data, size_t length, struct variant *);
IMPORT(STREAMS, "[resource-drop]output-stream") void output_stream_drop(int32_t stream);

// The case of the result is `tag`, that of the option in it the lowest byte of `a`; the text is at `b` and has the length `c`.
IMPORT(CONFIG, "get") void config_get(const char *key, size_t, struct variant *);
