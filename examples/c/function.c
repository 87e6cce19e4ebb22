// Encodes a body in base64 while it arrives, so a body of any size needs the same memory.
//
//   GET  /          the settings
//   POST /base64    the body in base64
//
// The variable COLUMNS is the length of a line (default 76; 0 for a single line). The entry `alphabet` of the configuration is
// `standard` (the default) or `url` (RFC 4648, section 5).
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wasi.h"

// Number of bytes that one call of blocking-write-and-flush accepts.
#define WRITE_MAX 4096
// Number of bytes that are read at once.
#define READ_MAX 65536

static const char STANDARD[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char FOR_URLS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

// A response whose head was sent. Text is collected and sent when the buffer is full.
struct response {
  int32_t body, stream;
  bool disconnected;
  size_t used;
  char buffer[WRITE_MAX];
};

// An encoder with the bits that are not yet enough for a character of base64.
struct encoder {
  const char *alphabet;
  unsigned long columns, column;
  uint32_t bits;
  unsigned number_of_bits;
};

// The host calls this to place results, such as the bytes of a body.
EXPORT("cabi_realloc") void *cabi_realloc(void *old, size_t old_size, size_t align, size_t size) {
  (void)old_size;
  (void)align; // malloc aligns for every type
  void *memory = realloc(old, size);
  if (memory == NULL) {
    abort();
  }
  return memory;
}

static void begin(struct response *response, int32_t out, int32_t status) {
  struct variant result;
  int32_t fields = fields_new();
  fields_append(fields, "content-type", 12, "text/plain", 10, &result);
  int32_t sent = response_new(fields);
  response_set_status(sent, status);
  response_body(sent, &result);
  response->body = result.a;
  outgoing_body_write(response->body, &result);
  response->stream = result.a;
  response->disconnected = false;
  response->used = 0;
  response_outparam_set(out, 0, sent, 0, 0, 0, 0, 0, 0);
}

static void flush(struct response *response) {
  struct variant result = {0};
  if (response->used > 0 && !response->disconnected) {
    stream_write(response->stream, response->buffer, response->used, &result);
    response->disconnected = result.tag != 0;
  }
  response->used = 0;
}

static void put(struct response *response, char c) {
  if (response->used == WRITE_MAX) {
    flush(response);
  }
  response->buffer[response->used++] = c;
}

static void end(struct response *response) {
  struct finished result;
  flush(response);
  output_stream_drop(response->stream);
  outgoing_body_finish(response->body, 0, 0, &result);
}

static void put_encoded(struct response *response, struct encoder *encoder, char c) {
  put(response, c);
  if (++encoder->column == encoder->columns) {
    put(response, '\n');
    encoder->column = 0;
  }
}

static void encode(struct response *response, struct encoder *encoder, uint8_t byte) {
  encoder->bits = encoder->bits << 8 | byte;
  encoder->number_of_bits += 8;
  while (encoder->number_of_bits >= 6) {
    encoder->number_of_bits -= 6;
    put_encoded(response, encoder, encoder->alphabet[encoder->bits >> encoder->number_of_bits & 63]);
  }
}

// Encodes the bits that are left, fills the group of four characters, and ends the last line.
static void encode_end(struct response *response, struct encoder *encoder) {
  if (encoder->number_of_bits > 0) {
    unsigned padding = encoder->number_of_bits == 2 ? 2 : 1;
    put_encoded(response, encoder, encoder->alphabet[encoder->bits << (6 - encoder->number_of_bits) & 63]);
    while (padding-- > 0) {
      put_encoded(response, encoder, '=');
    }
  }
  if (encoder->column > 0) {
    put(response, '\n');
  }
}

static struct encoder settings(void) {
  struct encoder encoder = {.alphabet = STANDARD, .columns = 76};
  const char *columns = getenv("COLUMNS");
  if (columns != NULL) {
    encoder.columns = strtoul(columns, NULL, 10);
  }
  struct variant entry;
  config_get("alphabet", 8, &entry);
  if (entry.tag == 0 && (entry.a & 0xff) == 1) {
    if (entry.c == 3 && memcmp((const char *)entry.b, "url", 3) == 0) {
      encoder.alphabet = FOR_URLS;
    }
    free((void *)entry.b);
  }
  return encoder;
}

static void respond_with_base64(int32_t request, int32_t out) {
  struct encoder encoder = settings();
  struct response response;
  struct variant result;
  unsigned long long read = 0;

  request_consume(request, &result);
  int32_t body = result.a;
  incoming_body_stream(body, &result);
  int32_t stream = result.a;
  begin(&response, out, 200);
  for (;;) {
    stream_read(stream, READ_MAX, &result);
    if (result.tag != 0 || response.disconnected) {
      break;
    }
    uint8_t *bytes = (uint8_t *)result.a;
    for (size_t i = 0; i < result.b; i++) {
      encode(&response, &encoder, bytes[i]);
    }
    read += result.b;
    free(bytes);
    flush(&response);
  }
  if (result.tag == 0) {
    fprintf(stderr, "the client disconnected after %llu bytes\n", read);
  } else if ((result.a & 0xff) != STREAM_CLOSED) {
    fprintf(stderr, "the body was cut short after %llu bytes\n", read);
  } else {
    encode_end(&response, &encoder);
    fprintf(stderr, "encoded %llu bytes\n", read);
  }
  end(&response);
  input_stream_drop(stream);
  incoming_body_drop(body);
}

static void respond_with_text(int32_t out, int32_t status, const char *text) {
  struct response response;
  begin(&response, out, status);
  while (*text != '\0') {
    put(&response, *text++);
  }
  end(&response);
}

EXPORT("wasi:http/incoming-handler@0.2.10#handle") void handle(int32_t request, int32_t out) {
  struct variant method, path;
  request_method(request, &method);
  request_path(request, &path);
  const char *target = path.tag == 1 ? (const char *)path.a : "/";
  size_t length = path.tag == 1 ? path.b : 1;

  if (method.tag == METHOD_POST && length == 7 && memcmp(target, "/base64", 7) == 0) {
    respond_with_base64(request, out);
  } else if (method.tag == METHOD_GET && length == 1) {
    struct encoder encoder = settings();
    char text[64];
    snprintf(text, sizeof text, "lines of %lu characters, %s alphabet\n", encoder.columns,
             encoder.alphabet == STANDARD ? "standard" : "url");
    respond_with_text(out, 200, text);
  } else {
    respond_with_text(out, 404, "POST /base64 encodes a body\n");
  }
  // an instance that keeps nothing of a request can answer another one
  free(path.tag == 1 ? (void *)path.a : NULL);
  request_drop(request);
}
